//! A few random transactions of three threads: their history has no anomaly, also when the power is cut meanwhile.

use std::sync::Arc;

use chronolith::Options;
use chronolith::io::{CutState, SimulatedDisk};
use chronolith::planted::Bug;
use chronolith_shuttle_tests::disk::SlowDisk;
use shuttle::rand::{Rng, thread_rng};

use crate::checker::{check, recovery};
use crate::scenario;
use crate::workload::{Plan, Store};

/// A few transactions; one that is larger by itself is refused.
const STAGED_BYTES_MAX: usize = 160;

/// A workload of its own for every schedule, chosen by shuttle so that a replay has the same.
fn plan(synced: u64) -> Plan {
    let seed = thread_rng().r#gen();
    Plan { seed, threads: 3, transactions: 14, per_window: 14, windows: 1, synced }
}

/// With so few bytes for commits on their way that some wait for others'.
fn with(options: Options, bug: Option<Bug>) -> Options {
    let options = options.log_segment_bytes_min(16 * 1024).log_segment_bytes_max(16 * 1024);
    let options = options.staged_bytes_max(STAGED_BYTES_MAX);
    bug.into_iter().fold(options, Options::plant)
}

/// In memory, where nothing but the protocol runs.
fn in_memory(bug: Option<Bug>) {
    let plan = plan(0);
    let db = with(plan.options(), bug).open_in_memory().expect("it opens");
    let store = Store::new(db, plan, 1).expect("a commit");
    let first = store.found().first(&plan.keys());
    check(&store.run(first)).assert_clean();
}
scenario!(histories_in_memory: in_memory;
    bug_push_after_unlock: PushAfterUnlock, "anomalies";
    bug_take_before_lock: TakeBeforeLock, "anomalies";
    bug_no_second_pass: NoSecondPass, "anomalies";
    bug_changes_out_of_order: ChangesOutOfOrder, "anomalies";
    bug_live_list_before_transaction: LiveListBeforeTransaction, "anomalies";
    bug_look_before_swap: LookBeforeSwap, "anomalies";
    bug_prune_unpublished: PruneUnpublished, "anomalies";
    bug_ignore_held_versions: IgnoreHeldVersions, "anomalies";
    bug_drop_at_publication: DropAtPublication, "anomalies";
    bug_forget_notify_after_publishing: ForgetNotifyAfterPublishing, "deadlock";
    bug_no_drain_before_comparing: NoDrainBeforeComparing, "anomalies";
    bug_compare_outside_log: CompareOutsideLog, "anomalies";
    bug_absence_unchecked: AbsenceUnchecked, "anomalies";
    bug_log_under_lane: LogUnderLane, "deadlock";
    bug_changes_in_one_list: ChangesInOneList, "anomalies";
    bug_adopt_without_mark: AdoptWithoutMark, "anomalies";
);

#[test]
fn schedules_can_be_replayed() {
    chronolith_shuttle_tests::repeat(50, || in_memory(None));
    chronolith_shuttle_tests::repeat(50, || on_disk(None));
}

/// On a disk, with commits that share syncs and commits that ask for none; the power is cut at some call, and what is found then
/// must fit.
fn on_disk(bug: Option<Bug>) {
    let plan = plan(60);
    let disk = SimulatedDisk::new(plan.seed);
    let open = |disk: &SimulatedDisk| {
        with(plan.options(), bug).open_on(Arc::new(SlowDisk::new(disk.clone())), "/db").expect("it opens")
    };
    let store = Store::new(open(&disk), plan, 1).expect("a commit");
    let first = store.found().first(&plan.keys());
    if thread_rng().r#gen() {
        disk.cut_power_within(disk.calls() + thread_rng().gen_range(1..16));
    }
    let history = store.run(first);
    check(&history).assert_clean();
    let state = CutState::ALL[thread_rng().gen_range(0..CutState::ALL.len())];
    let found = disk.after_power_cut(state, plan.seed);
    drop(store);
    let found = Store::reopen(open(&found), plan, 1).found();
    let wrong = recovery::violations(&history, &found);
    assert!(wrong.is_empty(), "anomalies after the power cut: {}", wrong.join("\n"));
}
scenario!(histories_on_a_disk_that_loses_power: on_disk;
    bug_publish_what_is_durable: PublishWhatIsDurable, "anomalies";
    bug_stop_ignores_publication: StopIgnoresPublication, "anomalies";
    bug_durable_is_seq: DurableIsSeq, "was durable";
    bug_acknowledge_before_sync: AcknowledgeBeforeSync, "was durable";
    bug_forget_notify_after_leading: ForgetNotifyAfterLeading, "deadlock";
);
