//! Closing while others write, read, sync and maintain.

use std::sync::Arc;

use chronolith::io::{CutState, SimulatedDisk};
use chronolith::planted::Bug;
use chronolith::{Durability, Error, Options, Timestamp};
use chronolith_shuttle_tests::disk::SlowDisk;
use shuttle::sync::Mutex;
use shuttle::thread;

use crate::scenario;

const WRITERS: u32 = 2;
const COMMITS: i64 = 2;

fn options(bug: Option<Bug>) -> Options {
    let options = Options::new().workers(0).lanes(2).log_segment_bytes_min(16 * 1024);
    bug.into_iter().fold(options, Options::plant)
}

/// Nobody waits for ever; what was acknowledged is there after a power cut, whatever durability it asked for, since it was before the end of
/// closing; what was refused is not there.
fn close_versus_everything(bug: Option<Bug>) {
    let disk = SimulatedDisk::new(1);
    let db = options(bug).open_on(Arc::new(SlowDisk::new(disk.clone())), "/db").expect("it opens");
    let closed = &Mutex::new(Vec::new());
    // By writer: how many commits were acknowledged before the first that was refused.
    let acknowledged: Vec<usize> = thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let db = db.clone();
                scope.spawn(move || {
                    let metric = db.metric(format!("m{writer}")).expect("a name");
                    let commit = |commit: i64| {
                        let mut txn = db.begin_write();
                        let durability =
                            if commit % 2 == 0 { Durability::Buffered } else { Durability::Sync };
                        txn.set_durability(durability);
                        txn.append(&metric, Timestamp::from_secs(commit), 1.0).expect("staging");
                        match txn.commit() {
                            Ok(_) => true,
                            Err(Error::Closed) => false,
                            Err(other) => panic!("{other}"),
                        }
                    };
                    (0..COMMITS).take_while(|number| commit(*number)).count()
                })
            })
            .collect();
        let others = db.clone();
        scope.spawn(move || {
            let snapshot = others.snapshot();
            others.maintain(Timestamp::MAX).expect("the disk is sound");
            others.sync().expect("the disk is sound");
            assert!(others.snapshot().version() >= snapshot.version());
        });
        for closing in [db.clone(), db] {
            let disk = &disk;
            scope.spawn(move || {
                closing.close().expect("the disk is sound");
                // What is durable now is all there ever will be.
                closed.lock().expect("no panic").push(points(&disk.after_power_cut(CutState::None, 0)));
            });
        }
        writers.into_iter().map(|writer| writer.join().expect("no panic")).collect()
    });
    let found = points(&disk.after_power_cut(CutState::None, 0));
    assert_eq!(found, acknowledged, "found and acknowledged");
    assert!(
        closed.lock().expect("no panic").iter().all(|then| *then == found),
        "something came after closing"
    );
}

/// How many points each writer's metric has on a disk.
fn points(disk: &SimulatedDisk) -> Vec<usize> {
    let opened = options(None).open_on(Arc::new(SlowDisk::new(disk.clone())), "/db");
    let snapshot = opened.expect("what closing left is found").snapshot();
    let count = |writer| {
        let metric = snapshot.metric(format!("m{writer}"));
        metric.map_or(0, |metric| snapshot.range(&metric, ..).count())
    };
    (0..WRITERS).map(count).collect()
}

scenario!(closing_waits_for_what_is_on_its_way: close_versus_everything;
    bug_closing_skip_log_sync: SkipLogSync, "what closing left is found";
    bug_closing_forget_notify_after_publishing: ForgetNotifyAfterPublishing, "deadlock";
);
