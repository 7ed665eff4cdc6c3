//! Histories by hand: each anomaly is found, and what is allowed is not called one.

use std::collections::HashSet;

use crate::checker::history::{Element, History, Incarnation, Key, KeyId, Kind, Op, Outcome, Txn};
use crate::checker::recovery::{Content, Found, violations};
use crate::checker::{Anomaly, Verdict, check};

/// Two lists, two registers, a name.
const X: KeyId = 0;
const Y: KeyId = 1;
const R: KeyId = 2;
const S: KeyId = 3;
const NAME: KeyId = 4;

fn append(key: KeyId, element: Element) -> Op {
    Op::Append { key, incarnation: u32::from(key == NAME), element }
}

fn append_to(incarnation: Incarnation, element: Element) -> Op {
    Op::Append { key: NAME, incarnation, element }
}

fn set(key: KeyId, element: Element) -> Op {
    Op::Set { key, element }
}

fn clear(key: KeyId) -> Op {
    Op::Clear { key }
}

fn drop_of(incarnation: Incarnation) -> Op {
    Op::Drop { key: NAME, incarnation }
}

fn read(key: KeyId, elements: &[Element]) -> Op {
    Op::Read { key, incarnation: Some(u32::from(key == NAME)), elements: elements.to_vec() }
}

fn absent() -> Op {
    Op::Read { key: NAME, incarnation: None, elements: Vec::new() }
}

/// A history in the making. Its transactions all overlap, except where [`Hand::then`] stands between them.
struct Hand {
    history: History,
    phase: u64,
}

impl Hand {
    fn new() -> Hand {
        let mut history = History::default();
        let lists = [0, 1].map(|metric| Key::List { metric, window: 0 });
        let registers = [0, 1].map(|metric| Key::Register { metric, window: 0 });
        lists.into_iter().chain(registers).chain([Key::Name(0)]).for_each(|key| {
            history.key(key);
        });
        Hand { history, phase: 0 }
    }

    /// What follows begins when all before has ended.
    fn then(mut self) -> Hand {
        self.phase += 10_000;
        self
    }

    fn add(mut self, kind: Kind, snapshot: Option<u64>, outcome: Outcome, ops: &[Op]) -> Hand {
        let number = self.history.txns.len() as u64;
        let (began, ended) = (self.phase + 1 + number, self.phase + 5_000 + number);
        self.history.txns.push(Txn { kind, began, ended, snapshot, outcome, ops: ops.to_vec() });
        self
    }

    fn committed(self, kind: Kind, version: u64, ops: &[Op]) -> Hand {
        self.add(kind, None, Outcome::Committed { version, durable: false }, ops)
    }

    fn blind(self, version: u64, ops: &[Op]) -> Hand {
        self.committed(Kind::Blind, version, ops)
    }

    fn checked(self, version: u64, ops: &[Op]) -> Hand {
        self.committed(Kind::Checked, version, ops)
    }

    fn unchecked(self, version: u64, ops: &[Op]) -> Hand {
        self.committed(Kind::Unchecked, version, ops)
    }

    fn failed(self, ops: &[Op]) -> Hand {
        self.add(Kind::Blind, None, Outcome::Failed, ops)
    }

    /// A snapshot of which only is known what it sees.
    fn reader(self, ops: &[Op]) -> Hand {
        self.committed(Kind::Snapshot, 0, ops)
    }

    /// A snapshot that says its version.
    fn snapshot(self, version: u64, ops: &[Op]) -> Hand {
        self.add(Kind::Snapshot, Some(version), Outcome::Committed { version, durable: false }, ops)
    }

    fn check(&self) -> Verdict {
        check(&self.history)
    }

    /// This is found, and nothing else.
    fn finds(&self, anomaly: Anomaly) {
        self.finds_all([anomaly]);
    }

    /// These are found, in the order of their kinds, and nothing else.
    fn finds_all<const N: usize>(&self, anomalies: [Anomaly; N]) {
        let verdict = self.check();
        assert_eq!(verdict.anomalies.keys().copied().collect::<Vec<_>>(), anomalies, "{verdict}");
    }
}

#[test]
fn a_sound_history_is_clean() {
    let hand = Hand::new()
        .blind(1, &[append(X, 1), append(X, 2), set(R, 3), set(R, 4)])
        .snapshot(0, &[read(X, &[]), read(R, &[]), absent()])
        .snapshot(1, &[read(X, &[2, 1]), read(R, &[4])])
        .unchecked(2, &[read(X, &[1, 2]), append(X, 5), read(X, &[1, 5, 2]), append_to(1, 6)])
        .failed(&[append(X, 7)])
        .then()
        .blind(3, &[clear(X), append(X, 8), drop_of(1)])
        .snapshot(2, &[read(X, &[1, 2, 5]), read(NAME, &[6])])
        .then()
        .blind(4, &[append_to(2, 9), clear(R)])
        .snapshot(3, &[read(X, &[8]), absent(), read(R, &[4])])
        .snapshot(
            4,
            &[read(X, &[8]), read(R, &[]), Op::Read { key: NAME, incarnation: Some(2), elements: vec![9] }],
        );
    let verdict = hand.check();
    assert!(verdict.is_clean() && verdict.allowed.is_empty(), "{verdict}");
}

#[test]
fn g0_writes_against_real_time() {
    let verdict = Hand::new().blind(2, &[append(X, 1)]).then().blind(1, &[append(X, 2)]).check();
    assert!(verdict.has(Anomaly::G0) && verdict.has(Anomaly::Versions), "{verdict}");
}

#[test]
fn g0_writes_in_opposite_orders_show_in_their_reader() {
    let both = |a, b| [set(R, a), set(S, b)];
    let last = [read(R, &[1]), read(S, &[4])];
    Hand::new().blind(1, &both(1, 2)).blind(2, &both(3, 4)).reader(&last).finds(Anomaly::GSingle);
}

#[test]
fn g1a_a_write_that_was_rolled_back_is_seen() {
    Hand::new().failed(&[append(X, 1)]).reader(&[read(X, &[1])]).finds(Anomaly::G1a);
    let hand = Hand::new().blind(1, &[set(R, 2)]);
    let hand = hand.add(Kind::Checked, Some(0), Outcome::Conflict, &[read(R, &[]), append(X, 1)]);
    hand.reader(&[read(X, &[1])]).finds(Anomaly::G1a);
}

#[test]
fn g1a_a_write_of_a_stopped_log_is_seen() {
    let hand = Hand::new().add(Kind::Blind, None, Outcome::Unknown, &[set(R, 1)]);
    hand.reader(&[read(R, &[1])]).finds(Anomaly::G1a);
}

#[test]
fn g1b_what_its_writer_replaced_is_seen() {
    Hand::new().blind(1, &[set(R, 1), set(R, 2)]).reader(&[read(R, &[1])]).finds(Anomaly::G1b);
    Hand::new().blind(1, &[append(X, 1), clear(X)]).reader(&[read(X, &[1])]).finds(Anomaly::G1b);
}

#[test]
fn g1b_a_part_of_what_a_commit_wrote_to_a_list_is_seen() {
    let verdict = Hand::new().blind(1, &[append(X, 1), append(X, 2)]).reader(&[read(X, &[2])]).check();
    assert!(verdict.has(Anomaly::G1b), "{verdict}");
}

#[test]
fn g1c_information_flows_in_a_circle() {
    let (a, b) = ([append(X, 1), read(Y, &[2])], [append(Y, 2), read(X, &[1])]);
    Hand::new().checked(1, &a).checked(2, &b).finds(Anomaly::G1c);
    Hand::new().unchecked(1, &a).unchecked(2, &b).finds(Anomaly::G1c);
}

#[test]
fn g_single_half_a_commit_is_seen() {
    let writes = [append(X, 1), append(Y, 2)];
    let hand = || Hand::new().blind(1, &writes);
    hand().reader(&[read(X, &[1]), read(Y, &[])]).finds(Anomaly::GSingle);
    hand().reader(&[read(X, &[]), read(Y, &[2])]).finds(Anomaly::GSingle);
    // Being unchecked is no excuse: its reads must be one snapshot.
    hand().unchecked(2, &[read(X, &[1]), read(Y, &[]), set(R, 3)]).finds(Anomaly::GSingle);
}

#[test]
fn g_single_an_effect_is_seen_without_its_cause() {
    let hand = Hand::new().blind(1, &[append(X, 1)]).unchecked(2, &[read(X, &[1]), append(Y, 2)]);
    hand.reader(&[read(Y, &[2]), read(X, &[])]).finds(Anomaly::GSingle);
}

#[test]
fn g_single_an_earlier_append_is_missing() {
    let hand = Hand::new().blind(1, &[append(X, 1)]).blind(2, &[append(X, 2)]).blind(3, &[append(X, 3)]);
    hand.reader(&[read(X, &[1, 3])]).finds(Anomaly::GSingle);
}

#[test]
fn g_single_what_was_removed_is_seen_beside_what_came_later() {
    let hand = Hand::new().blind(1, &[append(X, 1)]).blind(2, &[clear(X)]).blind(3, &[append(X, 3)]);
    hand.reader(&[read(X, &[1, 3])]).finds(Anomaly::GSingle);
}

#[test]
fn g2_two_readers_see_two_writes_in_opposite_orders() {
    let hand = Hand::new().blind(1, &[append(X, 1)]).blind(2, &[append(Y, 2)]);
    let hand = hand.reader(&[read(X, &[1]), read(Y, &[])]).reader(&[read(X, &[]), read(Y, &[2])]);
    hand.finds(Anomaly::G2);
}

#[test]
fn lost_updates_are_for_unchecked_transactions_only() {
    let update = |element| [read(R, &[]), set(R, element)];
    let hand = Hand::new().checked(1, &update(1)).checked(2, &update(2));
    hand.finds_all([Anomaly::LostUpdate, Anomaly::StaleRead]);
    let verdict = Hand::new().unchecked(1, &update(1)).unchecked(2, &update(2)).check();
    assert!(verdict.is_clean() && verdict.allowed.contains_key(&Anomaly::LostUpdate), "{verdict}");
    // A checked one may be overwritten by an unchecked one, but must not overwrite.
    let verdict = Hand::new().checked(1, &update(1)).unchecked(2, &update(2)).check();
    assert!(verdict.is_clean(), "{verdict}");
    let verdict = Hand::new().unchecked(1, &update(1)).checked(2, &update(2)).check();
    assert!(verdict.has(Anomaly::LostUpdate), "{verdict}");
}

#[test]
fn g2_write_skew_is_for_unchecked_transactions_only() {
    let (a, b) = ([read(X, &[]), append(Y, 1)], [read(Y, &[]), append(X, 2)]);
    Hand::new().checked(1, &a).checked(2, &b).finds_all([Anomaly::G2, Anomaly::StaleRead]);
    let verdict = Hand::new().unchecked(1, &a).unchecked(2, &b).check();
    assert!(verdict.is_clean() && verdict.allowed.contains_key(&Anomaly::G2), "{verdict}");
}

#[test]
fn what_is_gone_again_when_a_checked_transaction_commits_is_no_write_skew() {
    let hand = Hand::new().blind(1, &[set(R, 1), append(X, 2)]).blind(2, &[clear(R), append(X, 3)]);
    let absent_before = Outcome::Committed { version: 4, durable: false };
    let reads = [read(R, &[]), read(X, &[]), set(S, 4)];
    let verdict = hand.add(Kind::Checked, Some(0), absent_before, &reads).check();
    assert!(verdict.has(Anomaly::GSingle), "the list has changed: {verdict}");
    let hand = Hand::new().blind(1, &[set(R, 1)]).blind(2, &[clear(R), append(X, 3)]).blind(3, &[clear(R)]);
    let reads = [read(R, &[]), set(S, 4), append(X, 5)];
    let verdict = hand.add(Kind::Checked, Some(0), absent_before, &reads).check();
    assert!(verdict.is_clean(), "{verdict}");
}

#[test]
fn what_a_checked_transaction_read_must_be_true_at_its_own_version() {
    let committed = |version| Outcome::Committed { version, durable: false };
    let hand = || Hand::new().blind(1, &[append(X, 1)]).blind(2, &[append(X, 2)]);
    // No cycle says so: nobody orders the second writer before it but their versions.
    let late = [read(X, &[1]), set(S, 3)];
    hand().add(Kind::Checked, Some(1), committed(3), &late).finds(Anomaly::StaleRead);
    hand().add(Kind::Unchecked, Some(1), committed(3), &late).finds_all([]);
    hand().add(Kind::Checked, Some(2), committed(3), &[read(X, &[1, 2]), set(S, 3)]).finds_all([]);
    // Its own write, and what comes after it, are no change of what it read.
    let own = [read(X, &[1, 2]), append(X, 3), read(X, &[1, 2, 3])];
    hand().blind(4, &[append(X, 4)]).add(Kind::Checked, Some(2), committed(3), &own).finds_all([]);
    let dropped = Hand::new().blind(1, &[append_to(1, 1)]).blind(2, &[drop_of(1)]);
    dropped
        .add(Kind::Checked, Some(1), committed(3), &[read(NAME, &[1]), set(S, 3)])
        .finds(Anomaly::StaleRead);
    let made = Hand::new().blind(1, &[append_to(1, 1)]);
    made.add(Kind::Checked, Some(0), committed(2), &[absent(), set(S, 3)]).finds(Anomaly::StaleRead);
}

#[test]
fn a_conflict_must_have_a_cause() {
    let refused = |hand: Hand, snapshot, key| {
        hand.add(Kind::Checked, Some(snapshot), Outcome::Conflict, &[read(key, &[]), set(S, 9)])
    };
    let hand = || Hand::new().blind(1, &[set(R, 1)]).blind(2, &[clear(X)]);
    refused(hand(), 1, X).finds_all([]);
    // Nobody wrote to it; it was written to before the snapshot; its cause began when it had ended.
    refused(hand(), 1, Y).finds(Anomaly::NoConflict);
    refused(hand(), 2, X).finds(Anomaly::NoConflict);
    let late = refused(Hand::new(), 0, X).then().blind(1, &[append(X, 1)]);
    late.finds_all([Anomaly::Versions, Anomaly::NoConflict]);
    // A write to another window of the metric is one to the metric.
    let mut hand = hand();
    let window = hand.history.key(Key::List { metric: 1, window: 1 });
    refused(hand.blind(3, &[append(window, 3)]), 2, Y).finds_all([]);
}

#[test]
fn a_read_of_nothing_says_nothing_if_its_snapshot_is_not_known() {
    let hand = Hand::new().blind(1, &[set(R, 1)]).blind(2, &[clear(R)]).then();
    hand.committed(Kind::Snapshot, 2, &[read(R, &[])]).finds_all([]);
}

#[test]
fn real_time_a_snapshot_misses_a_commit_that_had_returned() {
    let hand = Hand::new().checked(1, &[append(X, 1)]).then();
    // It says that it is late enough, but does not see what it must.
    let verdict =
        hand.add(Kind::Checked, None, Outcome::Committed { version: 2, durable: false }, &[read(X, &[])]);
    verdict.finds_all([Anomaly::RealTime, Anomaly::StaleRead]);
}

#[test]
fn real_time_the_snapshots_of_a_reader_go_back() {
    let mut hand = Hand::new().blind(1, &[append(X, 1)]).reader(&[read(X, &[1])]);
    // The writer is still on its way, the reader is not.
    hand.history.txns[0].ended = 90_000;
    hand.then().reader(&[read(X, &[])]).finds(Anomaly::RealTime);
}

#[test]
fn versions_go_back_or_are_given_twice() {
    Hand::new().snapshot(5, &[]).then().snapshot(4, &[]).finds(Anomaly::Versions);
    Hand::new().blind(5, &[append(X, 1)]).then().snapshot(4, &[]).finds(Anomaly::Versions);
    Hand::new().blind(5, &[append(X, 1)]).then().blind(4, &[append(Y, 1)]).finds(Anomaly::Versions);
    Hand::new().blind(5, &[append(X, 1)]).blind(5, &[append(Y, 2)]).finds(Anomaly::Versions);
    let conflict = Hand::new().blind(6, &[append(X, 1)]);
    let mut conflict = conflict.add(Kind::Checked, Some(5), Outcome::Conflict, &[read(X, &[]), set(R, 2)]);
    // The thread of the cause is still on its way back.
    conflict.history.txns[0].ended = 90_000;
    conflict.then().snapshot(5, &[]).finds(Anomaly::Versions);
}

#[test]
fn a_read_that_is_not_at_its_version_is_found() {
    let hand = || Hand::new().blind(1, &[append(X, 1)]).blind(2, &[append(X, 2)]);
    hand().snapshot(1, &[read(X, &[1, 2])]).finds(Anomaly::WrongVersion);
    hand().snapshot(2, &[read(X, &[1])]).finds(Anomaly::WrongVersion);
    hand().snapshot(2, &[read(X, &[])]).finds(Anomaly::WrongVersion);
    let drop = Hand::new().blind(1, &[append_to(1, 1)]).blind(2, &[drop_of(1)]);
    drop.snapshot(1, &[absent()]).finds(Anomaly::WrongVersion);
}

#[test]
fn a_snapshot_that_reads_differently_the_second_time_is_found() {
    let hand = Hand::new().blind(1, &[append(X, 1)]).reader(&[read(X, &[]), read(X, &[1])]);
    hand.finds(Anomaly::GSingle);
}

#[test]
fn a_transaction_that_does_not_see_its_own_writes_is_found() {
    Hand::new().checked(1, &[append(X, 1), read(X, &[])]).finds(Anomaly::Internal);
    Hand::new().checked(1, &[append_to(1, 1), read(NAME, &[])]).finds(Anomaly::Internal);
    let hand = Hand::new().blind(1, &[append_to(1, 1)]);
    hand.checked(2, &[drop_of(1), read(NAME, &[1])]).finds(Anomaly::Internal);
    let hand = Hand::new().blind(1, &[append(X, 1)]);
    hand.checked(2, &[clear(X), read(X, &[1])]).finds(Anomaly::Internal);
}

#[test]
fn what_nobody_wrote_there_is_found() {
    Hand::new().reader(&[read(X, &[1])]).finds(Anomaly::Invented);
    Hand::new().blind(1, &[append(X, 1)]).reader(&[read(Y, &[1])]).finds(Anomaly::Invented);
    Hand::new().blind(1, &[append(X, 1)]).reader(&[read(X, &[1, 1])]).finds(Anomaly::Invented);
    let another = Op::Read { key: NAME, incarnation: Some(2), elements: vec![1] };
    Hand::new().blind(1, &[append_to(1, 1)]).reader(&[another]).finds(Anomaly::Invented);
}

#[test]
fn a_write_to_a_dropped_metric_and_a_second_metric_of_a_name_are_found() {
    let hand = || Hand::new().blind(1, &[append_to(1, 1)]);
    hand().blind(2, &[drop_of(1)]).blind(3, &[append_to(1, 2)]).finds(Anomaly::Incarnation);
    hand().blind(2, &[append_to(2, 2)]).finds(Anomaly::Incarnation);
}

/// What is found after recovery, by key.
fn found(version: u64, keys: [(Option<Incarnation>, &[Element]); 5]) -> Found {
    let content = |(incarnation, elements): (_, &[Element])| Content {
        incarnation,
        elements: elements.iter().copied().collect::<HashSet<_>>(),
    };
    Found { version, keys: keys.map(content).into_iter().collect() }
}

/// Two commits, the first of them durable, and two that nobody heard of.
fn cut() -> History {
    let durable = Outcome::Committed { version: 1, durable: true };
    let hand = Hand::new().add(Kind::Blind, None, durable, &[append(X, 1), set(R, 2)]);
    let hand = hand.blind(2, &[append(X, 3), append_to(1, 4)]);
    let hand = hand.add(Kind::Blind, None, Outcome::Unknown, &[append(X, 5), append(Y, 6)]);
    hand.add(Kind::Blind, None, Outcome::Unknown, &[set(R, 7), drop_of(1)]).history
}

#[test]
fn a_recovery_keeps_a_prefix_and_whole_commits() {
    let none: &[Element] = &[];
    let list = Some(0);
    for good in [
        found(1, [(list, &[1]), (list, none), (list, &[2]), (list, none), (None, none)]),
        found(2, [(list, &[1, 3]), (list, none), (list, &[2]), (list, none), (Some(1), &[4])]),
        found(3, [(list, &[1, 3, 5]), (list, &[6]), (list, &[2]), (list, none), (Some(1), &[4])]),
        found(3, [(list, &[1, 3]), (list, none), (list, &[7]), (list, none), (None, none)]),
        found(4, [(list, &[1, 3, 5]), (list, &[6]), (list, &[7]), (list, none), (None, none)]),
    ] {
        let wrong = violations(&cut(), &good);
        assert!(wrong.is_empty(), "{good:?}: {wrong:?}");
    }
    for (bad, why) in [
        (found(0, [(list, none), (list, none), (list, none), (list, none), (None, none)]), "durable"),
        (found(1, [(list, &[1, 3]), (list, none), (list, &[2]), (list, none), (Some(1), &[4])]), "not"),
        (found(2, [(list, &[1, 3]), (list, none), (list, &[2]), (list, none), (None, none)]), "in part"),
        (
            found(3, [(list, &[1, 3, 5]), (list, none), (list, &[2]), (list, none), (Some(1), &[4])]),
            "in part",
        ),
        (found(3, [(list, &[1, 3]), (list, none), (list, &[7]), (list, none), (Some(1), &[4])]), "in part"),
        (
            found(2, [(list, &[1, 3, 5]), (list, &[6]), (list, &[2]), (list, none), (Some(1), &[4])]),
            "versions",
        ),
        (found(5, [(list, &[1, 3, 5]), (list, &[6]), (list, &[7]), (list, none), (None, none)]), "versions"),
        (found(2, [(list, &[1, 3, 9]), (list, none), (list, &[2]), (list, none), (Some(1), &[4])]), "not"),
    ] {
        let wrong = violations(&cut(), &bad);
        assert!(wrong.iter().any(|text| text.contains(why)), "{bad:?}: {wrong:?}");
    }
}
