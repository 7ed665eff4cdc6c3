//! Checked transactions through the public API: what conflicts, what does not, and what a transaction reads of its own.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use chronolith::io::{CutState, Fault, SimulatedDisk};
use chronolith::planted::Bug;
use chronolith::{
    Database, Durability, Error, Metric, Options, Result, Snapshot, Timestamp, Version, WriteTransaction,
};

fn secs(secs: i64) -> Timestamp {
    Timestamp::from_secs(secs)
}

fn memory() -> Database {
    Options::new().workers(0).open_in_memory().expect("opens")
}

/// Metrics with a point each, at 0.
fn with_metrics<const N: usize>(db: &Database, names: [&str; N]) -> [Metric; N] {
    names.map(|name| {
        let metric = db.metric(name).expect("valid");
        db.append(&metric, secs(0), 0.0).expect("commits");
        metric
    })
}

/// Of what the conflict is: `metric a`.
fn conflict<T: std::fmt::Debug>(result: Result<T>) -> String {
    match result {
        Err(Error::Conflict { what, name, .. }) => format!("{what} {name}"),
        other => panic!("{other:?}"),
    }
}

fn own(txn: &WriteTransaction, metric: &Metric) -> Vec<(i64, f64)> {
    txn.range(metric, ..).map(|point| point.map(|p| (p.at.as_secs(), p.value)).expect("sound")).collect()
}

fn committed(snapshot: &Snapshot, metric: &Metric) -> Vec<(i64, f64)> {
    let points = snapshot.range(metric, ..);
    points.map(|point| point.map(|p| (p.at.as_secs(), p.value)).expect("sound")).collect()
}

#[test]
fn a_conflict_names_the_metric_that_was_read_and_changed() {
    let db = memory();
    let [a, b, c] = with_metrics(&db, ["a", "b", "c"]);
    let mut txn = db.begin_checked();
    txn.latest(&a).expect("reads");
    assert_eq!(txn.range(&b, secs(5)..secs(9)).count(), 0, "nothing there, which counts too");
    txn.append(&c, secs(1), 1.0).expect("staged");
    db.append(&b, secs(1_000), 1.0).expect("commits");
    assert_eq!(conflict(txn.commit()), "metric b");
    assert_eq!(committed(&db.snapshot(), &c), [(0, 0.0)], "nothing of it was committed");
}

#[test]
fn what_was_not_read_does_not_conflict() {
    let db = memory();
    let [read, written, other] = with_metrics(&db, ["read", "written", "other"]);
    let mut txn = db.begin_checked();
    txn.latest(&read).expect("reads");
    txn.snapshot().latest(&other).expect("reads");
    txn.append(&written, secs(1), 1.0).expect("staged");
    db.append(&written, secs(1), 2.0).expect("commits");
    db.append(&other, secs(1), 2.0).expect("commits");
    txn.commit().expect("written blindly, and not read");
    assert_eq!(committed(&db.snapshot(), &written), [(0, 0.0), (1, 1.0)], "the later commit wins");
}

#[test]
fn blind_transactions_never_conflict() {
    let db = memory();
    let [metric] = with_metrics(&db, ["m"]);
    let mut txn = db.begin_write();
    assert_eq!(txn.range(&metric, ..).count(), 1);
    assert_eq!(txn.metric("new"), None);
    assert_eq!(txn.meta("k"), None);
    txn.append(&metric, secs(1), 1.0).expect("staged");
    db.append(&metric, secs(1), 2.0).expect("commits");
    db.append(&db.metric("new").expect("valid"), secs(1), 2.0).expect("commits");
    txn.commit().expect("commits");
}

#[test]
fn every_kind_of_write_conflicts() {
    type Change = fn(&Metric, &mut WriteTransaction) -> Result<()>;
    let changes: [(&str, Change); 6] = [
        ("point", |m, txn| txn.append(m, secs(1), 1.0)),
        ("columns", |m, txn| txn.append_columns(m, &[secs(1), secs(-9)], &[1.0, 2.0])),
        ("annotated", |m, txn| txn.append_annotated(m, secs(1), 1.0, b"note")),
        ("delete of a part", |m, txn| txn.delete(m, secs(0)..secs(1))),
        ("delete of all", |m, txn| txn.delete(m, ..)),
        ("drop", |m, txn| txn.drop_metric(m)),
    ];
    for (name, change) in changes {
        let db = memory();
        let [read, written] = with_metrics(&db, ["read", "written"]);
        let mut txn = db.begin_checked();
        assert_eq!(own(&txn, &read), [(0, 0.0)]);
        txn.append(&written, secs(1), 1.0).expect("staged");
        let mut other = db.begin_write();
        change(&read, &mut other).expect("staged");
        other.commit().expect("commits");
        assert_eq!(conflict(txn.commit()), "metric read", "{name}");
    }
}

#[test]
fn what_writes_no_points_does_not_conflict() {
    let db = memory();
    let [read, written] = with_metrics(&db, ["read", "written"]);
    let mut txn = db.begin_checked();
    txn.latest(&read).expect("reads");
    txn.append(&written, secs(1), 1.0).expect("staged");
    let mut other = db.begin_write();
    other.create_metric(&read).expect("it is there already");
    other.append_columns(&read, &[], &[]).expect("no points");
    other.put_meta("k", "v").expect("staged");
    other.commit().expect("commits");
    txn.commit().expect("nothing that it read was changed");
}

#[test]
fn a_rolled_back_write_does_not_conflict() {
    let db = memory();
    let [metric] = with_metrics(&db, ["m"]);
    let mut txn = db.begin_checked();
    txn.latest(&metric).expect("reads");
    txn.append(&metric, secs(1), 1.0).expect("staged");
    let mut other = db.begin_checked();
    other.append(&metric, secs(1), 2.0).expect("staged");
    other.rollback();
    txn.commit().expect("nobody changed anything");
}

#[test]
fn existence_is_read_apart_from_points() {
    let db = memory();
    let [written, dropped] = with_metrics(&db, ["written", "dropped"]);
    let finds: [fn(&WriteTransaction, &Metric) -> bool; 2] = [
        |txn, metric| txn.contains(metric),
        |txn, metric| txn.metric(metric.name()).as_ref() == Some(metric),
    ];
    for find in finds {
        let mut txn = db.begin_checked();
        assert!(find(&txn, &written));
        txn.put_meta("k", "v").expect("staged");
        db.append(&written, secs(1), 1.0).expect("commits");
        txn.commit().expect("it is still there");
    }
    let mut txn = db.begin_checked();
    assert!(txn.contains(&dropped));
    txn.put_meta("k", "w").expect("staged");
    let mut other = db.begin_write();
    other.drop_metric(&dropped).expect("staged");
    other.commit().expect("commits");
    assert_eq!(conflict(txn.commit()), "metric dropped");
}

#[test]
fn a_metric_read_as_absent_conflicts_with_its_creation() {
    type Read = fn(&Database, &WriteTransaction) -> bool;
    let reads: [(&str, Read); 6] = [
        ("by ID", |_, txn| txn.metric("new").is_none()),
        ("by name and tags", |_, txn| txn.metric_with_tags::<&str, &str>("new", &[]).is_none()),
        ("in a namespace", |db, txn| txn.metric_in(&db.default_namespace(), "new").is_none()),
        ("by its handle", |db, txn| !txn.contains(&db.metric("new").expect("valid"))),
        ("its points", |db, txn| txn.range(&db.metric("new").expect("valid"), ..).next().is_none()),
        ("its last point", |db, txn| txn.latest(&db.metric("new").expect("valid")).expect("reads").is_none()),
    ];
    for (how, read) in reads {
        for drop_again in [false, true] {
            let db = memory();
            let mut txn = db.begin_checked();
            assert!(read(&db, &txn), "{how}");
            txn.put_meta("k", "v").expect("staged");
            let new = db.metric("new").expect("valid");
            let mut other = db.begin_write();
            other.create_metric(&new).expect("staged");
            other.commit().expect("commits");
            if drop_again {
                let mut other = db.begin_write();
                other.drop_metric(&new).expect("staged");
                other.commit().expect("commits");
                db.append(&db.metric("new").expect("valid"), secs(1), 1.0).expect("made again");
            }
            assert_eq!(conflict(txn.commit()), "metric new", "{how}");

            let mut again = db.begin_checked();
            assert!(again.metric("new").is_some(), "a new transaction sees it");
            again.put_meta("k", "v").expect("staged");
            again.commit().expect("nothing was changed");
        }
    }
}

#[test]
fn two_that_make_the_same_metric_do_not_both_succeed() {
    let db = memory();
    let make = |value| {
        let mut txn = db.begin_checked();
        assert_eq!(txn.metric("m"), None);
        let metric = db.metric("m").expect("valid");
        txn.append(&metric, secs(1), value).expect("staged");
        assert_eq!(txn.metric("m"), Some(metric), "its own is there");
        txn
    };
    let (one, two) = (make(1.0), make(2.0));
    two.commit().expect("the first");
    assert_eq!(conflict(one.commit()), "metric m");
}

/// An ID with its tags in another order than the canonical one.
const RAW: &str = r#"cpu{host="a",core="0"}"#;
const TAGS: [(&str, &str); 2] = [("host", "a"), ("core", "0")];

#[test]
fn each_spelling_of_an_id_that_was_looked_for_is_compared() {
    type Named = fn(&Database) -> Result<Metric>;
    let raw: Named = |db| db.metric_with_id(&db.default_namespace(), RAW, &TAGS);
    let canonical: Named = |db| db.metric_with_tags("cpu", &TAGS);
    // What is there when the ID is looked up, what has only been named by then, and what is made afterwards.
    let cases: [(&str, Option<Named>, Option<Named>, Named); 6] = [
        ("nothing, raw", None, None, raw),
        ("nothing, canonical", None, None, canonical),
        ("raw is named, canonical", None, Some(raw), canonical),
        ("raw is named, raw", None, Some(raw), raw),
        ("canonical is named, raw", None, Some(canonical), raw),
        ("canonical is there, raw", Some(canonical), None, raw),
    ];
    for (case, there, named, made) in cases {
        let db = memory();
        let there = there.map(|there| there(&db).expect("valid"));
        if let Some(there) = &there {
            db.append(there, secs(0), 0.0).expect("commits");
        }
        named.map(|named| named(&db).expect("valid"));
        let mut txn = db.begin_checked();
        assert_eq!(txn.metric(RAW), there, "{case}");
        txn.put_meta("k", "v").expect("staged");
        let made = made(&db).expect("valid");
        db.append(&made, secs(1), 1.0).expect("commits");
        assert_eq!(conflict(txn.commit()), format!("metric {made}"), "{case}");
        assert_eq!(db.begin_checked().metric(RAW), Some(made), "{case}");
    }

    let db = memory();
    let raw = raw(&db).expect("valid");
    db.append(&raw, secs(0), 0.0).expect("commits");
    let mut txn = db.begin_checked();
    assert_eq!(txn.metric(RAW), Some(raw));
    txn.put_meta("k", "v").expect("staged");
    db.append(&canonical(&db).expect("valid"), secs(1), 1.0).expect("commits");
    txn.commit().expect("the canonical one was not looked for");
}

#[test]
fn looking_for_an_id_names_nothing() {
    let db = memory();
    let mut txn = db.begin_checked();
    assert_eq!(txn.metric(RAW), None);
    txn.put_meta("k", "v").expect("staged");
    txn.commit().expect("commits");
    let id = db.metric(RAW).expect("valid");
    assert_eq!(id.name(), br#"cpu{core="0",host="a"}"#, "still the canonical one");
    assert_eq!(id.id().get(), 0, "the first name there is");
}

/// What the transaction itself makes or drops is not compared, and looking for it ends whatever others do to the name meanwhile.
#[test]
fn lookups_of_own_creations_and_drops_are_not_compared() {
    type Look = fn(&WriteTransaction, &Metric) -> bool;
    let looks: [Look; 2] = [|txn, metric| txn.metric(metric.name()).is_some(), WriteTransaction::contains];
    type Stage = fn(&mut WriteTransaction, &Metric) -> Result<()>;
    let stages: [(Stage, bool); 3] = [
        (|txn, metric| txn.append(metric, secs(1), 1.0), true),
        (|txn, metric| txn.create_metric(metric), true),
        (|txn, metric| txn.drop_metric(metric), false),
    ];
    let commit = |db: &Database, change: Stage, metric: &Metric| {
        let mut other = db.begin_write();
        change(&mut other, metric).expect("staged");
        other.commit().expect("commits");
    };
    for look in looks {
        for (stage, exists) in stages {
            let db = memory();
            let metric = db.metric("m").expect("valid");
            let mut txn = db.begin_checked();
            stage(&mut txn, &metric).expect("staged");
            assert_eq!(look(&txn, &metric), exists);
            commit(&db, |txn, metric| txn.create_metric(metric), &metric);
            assert_eq!(look(&txn, &metric), exists);
            txn.commit().expect("it read its own change only");
            assert_eq!(db.snapshot().contains(&metric), exists);

            let metric = db.metric("n").expect("valid");
            let mut txn = db.begin_checked();
            stage(&mut txn, &metric).expect("staged");
            commit(&db, |txn, metric| txn.create_metric(metric), &metric);
            commit(&db, |txn, metric| txn.drop_metric(metric), &metric);
            let (found, txn) = ends(move || (look(&txn, &metric), txn));
            assert_eq!(found, exists);
            assert!(matches!(txn.commit(), Err(Error::MetricDropped(_))), "it writes to what was dropped");
        }
    }
}

/// Runs `work` on a thread and fails if it has not ended after a minute: a hang, not a slow machine.
fn ends<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(Duration::from_secs(60)).expect("a hang")
}

#[test]
fn the_handle_of_a_dropped_metric_reads_as_absent_for_ever() {
    let db = memory();
    let [old] = with_metrics(&db, ["m"]);
    let mut other = db.begin_write();
    other.drop_metric(&old).expect("staged");
    other.commit().expect("commits");
    let mut txn = db.begin_checked();
    assert!(!txn.contains(&old));
    assert_eq!(txn.latest(&old).expect("reads"), None);
    txn.put_meta("k", "v").expect("staged");
    db.append(&db.metric("m").expect("valid"), secs(1), 1.0).expect("its successor");
    txn.commit().expect("the old one is gone and stays so");
}

#[test]
fn an_empty_database_can_be_read() {
    let db = memory();
    let mut txn = db.begin_checked();
    assert_eq!(txn.metric("a"), None);
    assert_eq!(txn.metric(""), None, "nobody can make that one");
    txn.append(&db.metric("a").expect("valid"), secs(1), 1.0).expect("staged");
    txn.commit().expect("commits");
}

#[test]
fn metadata_conflicts_by_key() {
    let db = memory();
    let mut txn = db.begin_write();
    txn.put_meta("kept", "1").expect("staged");
    txn.put_meta("removed", "1").expect("staged");
    txn.commit().expect("commits");
    let write = |key: &str, value: Option<&str>| {
        let mut other = db.begin_write();
        match value {
            Some(value) => other.put_meta(key, value),
            None => other.remove_meta(key),
        }
        .expect("staged");
        other.commit().expect("commits");
    };
    for (key, value) in [("kept", Some("2")), ("removed", None), ("absent", Some("1")), ("b\n", Some("1"))] {
        let mut txn = db.begin_checked();
        txn.meta("other");
        txn.meta(key);
        txn.put_meta("out", "1").expect("staged");
        write(key, value);
        assert_eq!(conflict(txn.commit()), format!("metadata {}", key.escape_debug()));
    }
    let mut txn = db.begin_checked();
    assert_eq!(txn.meta("kept").as_deref(), Some(&b"2"[..]));
    txn.put_meta("out", "2").expect("staged");
    write("unread", Some("1"));
    txn.commit().expect("other keys do not matter");
}

#[test]
fn own_metadata_is_read_and_does_not_conflict() {
    let db = memory();
    let mut txn = db.begin_checked();
    txn.put_meta("k", "mine").expect("staged");
    assert_eq!(txn.meta("k").as_deref(), Some(&b"mine"[..]));
    let mut other = db.begin_write();
    other.put_meta("k", "theirs").expect("staged");
    other.commit().expect("commits");
    txn.commit().expect("what it read was its own");
    assert_eq!(db.snapshot().meta("k"), Some(&b"mine"[..]));
}

#[test]
fn own_changes_are_read_in_the_order_given() {
    for begin in [Database::begin_write, Database::begin_checked] {
        let db = memory();
        let metric = db.metric("m").expect("valid");
        db.begin_write().commit().expect("nothing");
        let at: Vec<Timestamp> = (0..6).map(secs).collect();
        let mut txn = db.begin_write();
        txn.append_columns(&metric, &at, &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]).expect("staged");
        txn.commit().expect("commits");

        let mut txn = begin(&db);
        txn.append(&metric, secs(2), 20.0).expect("staged");
        txn.delete(&metric, secs(1)..=secs(3)).expect("staged");
        txn.append(&metric, secs(3), 30.0).expect("staged");
        txn.append(&metric, secs(9), 90.0).expect("staged");
        txn.append(&metric, secs(-1), -10.0).expect("staged");
        let expected = [(-1, -10.0), (0, 0.0), (3, 30.0), (4, 4.0), (5, 5.0), (9, 90.0)];
        assert_eq!(own(&txn, &metric), expected);
        let backwards: Vec<i64> =
            txn.range(&metric, ..).rev().map(|point| point.expect("sound").at.as_secs()).collect();
        assert_eq!(backwards, [9, 5, 4, 3, 0, -1]);
        let mut ends = txn.range(&metric, ..=secs(5));
        let mut take = |back: bool| {
            let point = if back { ends.next_back() } else { ends.next() };
            point.map(|point| point.expect("sound").at.as_secs())
        };
        let mixed = [take(true), take(false), take(true), take(false), take(true), take(false), take(true)];
        assert_eq!(mixed, [Some(5), Some(-1), Some(4), Some(0), Some(3), None, None]);
        assert_eq!(txn.latest(&metric).expect("reads").map(|p| p.value), Some(90.0));
        assert_eq!(txn.at_or_before(&metric, secs(2)).expect("reads").map(|p| p.value), Some(0.0));
        txn.commit().expect("commits");
        assert_eq!(committed(&db.snapshot(), &metric), expected, "and so it is committed");
    }
}

#[test]
fn own_creations_and_drops_are_seen() {
    for begin in [Database::begin_write, Database::begin_checked] {
        let db = memory();
        let [there] = with_metrics(&db, ["there"]);
        let new = db.metric("new").expect("valid");
        let mut txn = begin(&db);
        assert!(txn.contains(&there) && !txn.contains(&new));
        txn.delete(&new, ..).expect("staged");
        assert!(!txn.contains(&new), "a delete makes nothing");
        txn.create_metric(&new).expect("staged");
        txn.drop_metric(&there).expect("staged");
        assert!(txn.contains(&new) && !txn.contains(&there));
        assert_eq!((txn.metric("new"), txn.metric("there")), (Some(new.clone()), None));
        assert_eq!(own(&txn, &there), []);
        assert!(matches!(txn.append(&there, secs(1), 1.0), Err(Error::MetricDropped(_))));
        txn.commit().expect("commits");
        let snapshot = db.snapshot();
        assert!(snapshot.contains(&new) && !snapshot.contains(&there));
    }
}

#[test]
fn a_transaction_that_writes_nothing_never_conflicts() {
    let db = memory();
    let [metric] = with_metrics(&db, ["m"]);
    let txn = db.begin_checked();
    let version = txn.snapshot().version();
    txn.latest(&metric).expect("reads");
    db.append(&metric, secs(1), 1.0).expect("commits");
    assert_eq!(txn.commit().expect("it read one state"), version);
}

#[test]
fn a_write_to_a_metric_dropped_meanwhile_is_a_conflict() {
    let db = memory();
    let [metric] = with_metrics(&db, ["m"]);
    let drop_it = |metric: &Metric| {
        let mut other = db.begin_write();
        other.drop_metric(metric).expect("staged");
        other.commit().expect("commits");
    };
    let mut txn = db.begin_checked();
    txn.append(&metric, secs(1), 1.0).expect("staged");
    txn.latest(&metric).expect("reads");
    drop_it(&metric);
    assert_eq!(conflict(txn.append(&metric, secs(2), 1.0)), "metric m");
    assert_eq!(conflict(txn.commit()), "metric m");

    let next = db.metric("m").expect("valid");
    db.append(&next, secs(1), 1.0).expect("commits");
    let mut blind = db.begin_checked();
    blind.append(&next, secs(1), 1.0).expect("staged");
    drop_it(&next);
    assert!(matches!(blind.commit(), Err(Error::MetricDropped(name)) if name == "m"), "it was not read");
}

#[test]
fn metrics_of_one_name_in_two_namespaces_are_two() {
    let db = memory();
    let hosts = db.namespace("hosts").expect("made");
    let [here] = with_metrics(&db, ["m"]);
    let there = db.metric_in(&hosts, "m").expect("valid");
    let mut txn = db.begin_checked();
    assert_eq!(txn.metric_in(&hosts, "m"), None);
    txn.latest(&there).expect("reads");
    txn.append(&here, secs(1), 1.0).expect("staged");
    db.append(&here, secs(1), 2.0).expect("commits");
    txn.commit().expect("the other one was not read");

    let mut txn = db.begin_checked();
    assert_eq!(txn.metric_in(&hosts, "m"), None);
    txn.append(&here, secs(1), 1.0).expect("staged");
    db.append(&there, secs(1), 2.0).expect("commits");
    assert_eq!(conflict(txn.commit()), "metric m");
}

#[test]
fn reads_of_another_databases_metrics_are_refused_and_not_compared() {
    let (db, other) = (memory(), memory());
    let [metric] = with_metrics(&db, ["m"]);
    let [foreign] = with_metrics(&other, ["m"]);
    let mut txn = db.begin_checked();
    assert!(matches!(txn.latest(&foreign), Err(Error::ForeignMetric(_))));
    assert!(matches!(txn.range(&foreign, ..).next(), Some(Err(Error::ForeignMetric(_)))));
    assert!(!txn.contains(&foreign));
    assert!(matches!(txn.append(&foreign, secs(1), 1.0), Err(Error::ForeignMetric(_))));
    db.append(&metric, secs(1), 1.0).expect("the same number");
    txn.put_meta("k", "v").expect("staged");
    txn.commit().expect("nothing of this database was read");
}

fn open(disk: &SimulatedDisk) -> Database {
    let options = Options::new().workers(0).attempts(u32::MAX).log_segment_bytes_min(16 << 10);
    options.open_on(Arc::new(disk.clone()), "/db").expect("opens")
}

fn increment_on_threads(db: &Database, counters: &[Metric; 2], threads: u32, each: u32) {
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                for i in 0..each {
                    let counter = &counters[((thread + i) % 2) as usize];
                    let add = |txn: &mut WriteTransaction| {
                        let count = txn.latest(counter)?.map_or(0.0, |point| point.value);
                        txn.append(counter, secs(count as i64 + 1), count + 1.0)
                    };
                    db.transact(add).expect("commits some time");
                }
            });
        }
    });
}

fn assert_counted(db: &Database, upto: u32) {
    let snapshot = db.snapshot();
    let expected: Vec<(i64, f64)> = (1..=i64::from(upto)).map(|i| (i, i as f64)).collect();
    for name in ["even", "odd"] {
        let counter = snapshot.metric(name).expect("it was made");
        assert_eq!(committed(&snapshot, &counter), expected, "{name}");
    }
}

#[test]
fn increments_of_many_threads_are_all_there() {
    let db = Options::new().workers(0).attempts(u32::MAX).open_in_memory().expect("opens");
    let counters = ["even", "odd"].map(|name| db.metric(name).expect("valid"));
    increment_on_threads(&db, &counters, 4, 200);
    assert_counted(&db, 400);
}

#[test]
fn increments_survive_a_power_cut() {
    let disk = SimulatedDisk::new(3);
    let db = open(&disk);
    let counters = ["even", "odd"].map(|name| db.metric(name).expect("valid"));
    increment_on_threads(&db, &counters, 4, 50);
    for cut in CutState::ALL {
        assert_counted(&open(&disk.after_power_cut(cut, 5)), 100);
    }
}

/// Two accounts that may not both be empty: each thread looks at both and takes from one.
#[test]
fn a_condition_over_two_metrics_holds() {
    let db = Options::new().workers(0).attempts(u32::MAX).open_in_memory().expect("opens");
    let [a, b] = with_metrics(&db, ["a", "b"]);
    for round in 1..=200 {
        for metric in [&a, &b] {
            db.append(metric, secs(10 * round), 1.0).expect("commits");
        }
        std::thread::scope(|scope| {
            for mine in [&a, &b] {
                let (db, a, b) = (&db, &a, &b);
                scope.spawn(move || {
                    db.transact(|txn| {
                        let value = |metric| txn.latest(metric).map(|point| point.map_or(0.0, |p| p.value));
                        match value(a)? + value(b)? {
                            sum if sum > 1.0 => txn.append(mine, secs(10 * round + 1), 0.0),
                            _ => Ok(()),
                        }
                    })
                    .expect("commits some time");
                });
            }
        });
        let snapshot = db.snapshot();
        let left: f64 = [&a, &b].iter().map(|m| committed(&snapshot, m).last().expect("points").1).sum();
        assert_eq!(left, 1.0, "round {round}");
    }
}

#[test]
fn attempts_are_bounded_and_each_sees_what_it_lost_against() {
    let db = Options::new().workers(0).attempts(5).open_in_memory().expect("opens");
    let [metric] = with_metrics(&db, ["m"]);
    let runs = AtomicU32::new(0);
    let lose = |txn: &mut WriteTransaction| {
        let run = runs.fetch_add(1, Ordering::Relaxed);
        let seen = txn.latest(&metric)?.expect("there is one").value;
        assert_eq!(seen, f64::from(run), "what the attempt before lost against");
        txn.append(&metric, secs(1_000), 0.0)?;
        db.append(&metric, secs(i64::from(run) + 1), f64::from(run) + 1.0)
    };
    let error = db.transact(lose).expect_err("it loses each time");
    assert_eq!(
        error.to_string(),
        "metric m was changed after this transaction read it in the last of 5 attempts; allow more with Options::attempts"
    );
    assert!(matches!(error, Error::Conflict { what: "metric", name, attempts: Some(5) } if name == "m"));
    assert_eq!(runs.load(Ordering::Relaxed), 5);
}

#[test]
fn the_version_of_what_was_written_or_read_is_returned() {
    fn write_two(db: &Database) -> Result<Version> {
        let metric = db.metric("m")?;
        let ((), version) = db.transact(|txn| {
            txn.append(&metric, secs(1), 1.0)?;
            txn.append(&metric, secs(2), 2.0)?;
            Ok(())
        })?;
        Ok(version)
    }
    let db = memory();
    let before = db.snapshot().version();
    let written = write_two(&db).expect("commits");
    assert!(written > before);
    assert_eq!(db.snapshot().version(), written);

    let metric = db.metric("m").expect("valid");
    let (value, read) = db.transact(|txn| txn.latest(&metric)).expect("it changes nothing");
    assert_eq!((value.map(|point| point.value), read), (Some(2.0), written));
    assert_eq!(db.snapshot().version(), written, "that was no commit");
}

#[test]
fn the_closures_error_rolls_back_and_is_returned_at_once() {
    #[derive(Debug)]
    enum Mine {
        Enough,
        Database(Error),
    }
    impl From<Error> for Mine {
        fn from(error: Error) -> Self {
            Mine::Database(error)
        }
    }
    let db = memory();
    let [metric] = with_metrics(&db, ["m"]);
    let mut runs = 0;
    let result: Result<((), Version), Mine> = db.try_transact(|txn| {
        runs += 1;
        txn.append(&metric, secs(1), 1.0)?;
        Err(Mine::Enough)
    });
    assert!(matches!(result, Err(Mine::Enough)));
    assert_eq!((runs, committed(&db.snapshot(), &metric)), (1, vec![(0, 0.0)]));

    let [foreign] = with_metrics(&memory(), ["m"]);
    let result: Result<((), Version), Mine> =
        db.try_transact(|txn| Ok(txn.append(&foreign, secs(1), 1.0)?));
    assert!(matches!(result, Err(Mine::Database(Error::ForeignMetric(_)))));
}

#[test]
fn a_metric_dropped_under_the_closures_feet_is_found_anew() {
    for drop_at in ["before the write", "after the write"] {
        let db = memory();
        with_metrics(&db, ["m"]);
        let mut runs = 0;
        db.transact(|txn| {
            runs += 1;
            let metric = txn.metric("m").map_or_else(|| db.metric("m"), Ok)?;
            let drop_it = || {
                let mut other = db.begin_write();
                other.drop_metric(&metric).and_then(|()| other.commit())
            };
            if runs == 1 && drop_at == "before the write" {
                drop_it()?;
            }
            txn.append(&metric, secs(7), 7.0)?;
            if runs == 1 && drop_at == "after the write" {
                drop_it()?;
            }
            Ok(())
        })
        .expect("the second attempt");
        assert_eq!(runs, 2, "{drop_at}");
        let snapshot = db.snapshot();
        let metric = snapshot.metric("m").expect("made again");
        assert_eq!(committed(&snapshot, &metric), [(7, 7.0)]);
    }
}

/// A drop that has its number keeps the metric from being written, and shows when it is published: the next attempt waits for that.
#[test]
fn after_a_drop_on_its_way_the_next_attempt_no_longer_sees_the_metric() {
    let disk = SimulatedDisk::new(13);
    let options = Options::new().workers(0).attempts(2).log_segment_bytes_min(1 << 20);
    let db = options.open_on(Arc::new(disk.clone()), "/db").expect("opens");
    let [metric] = with_metrics(&db, ["m"]);
    std::thread::scope(|scope| {
        let (db, metric) = (&db, &metric);
        let mut hold = Some(disk.hold_syncs());
        let mut runs = 0;
        let committed = db.transact(|txn| {
            runs += 1;
            // Not a checked read: it is the write alone that fails.
            let found = txn.snapshot().metric("m");
            assert_eq!(found.is_some(), runs == 1, "attempt {runs}");
            txn.append(&found.map_or_else(|| db.metric("m"), Ok)?, secs(7), 7.0)?;
            if runs == 1 {
                scope.spawn(move || {
                    let mut other = db.begin_write();
                    other.drop_metric(metric).and_then(|()| other.commit()).expect("commits");
                });
                let hold = hold.take().expect("the first run");
                assert!(hold.wait_for(1, Duration::from_secs(60)), "the drop syncs");
                scope.spawn(move || {
                    // Long enough for an attempt that does not wait.
                    std::thread::sleep(Duration::from_millis(200));
                    drop(hold);
                });
            }
            Ok(())
        });
        committed.expect("the second attempt makes it anew");
        assert_eq!(runs, 2);
    });
}

#[test]
fn after_a_failure_of_the_log_a_conflict_is_a_stop() {
    let disk = SimulatedDisk::new(7);
    let db = open(&disk);
    let [metric] = with_metrics(&db, ["m"]);
    let mut txn = db.begin_checked();
    txn.latest(&metric).expect("reads");
    txn.append(&metric, secs(2), 2.0).expect("staged");
    disk.fail(disk.calls() + 1, Fault::InputOutput, true);
    assert!(matches!(db.append(&metric, secs(1), 1.0), Err(Error::Stopped { .. })));
    assert!(matches!(txn.commit(), Err(Error::Stopped { .. })), "nothing is published any more");
}

#[test]
fn recovery_brings_back_what_checked_transactions_left() {
    let disk = SimulatedDisk::new(11);
    let db = open(&disk);
    let metrics = with_metrics(&db, ["a", "b", "c"]);
    let mut conflicts = 0;
    for i in 1..=100i64 {
        let (read, written) = (&metrics[i as usize % 3], &metrics[i as usize % 2]);
        let mut txn = db.begin_checked();
        let count = txn.latest(read).expect("reads").map_or(0.0, |point| point.value);
        txn.append(written, secs(i), count + 1.0).expect("staged");
        txn.put_meta("done", i.to_string()).expect("staged");
        if i % 7 == 0 {
            txn.delete(written, ..secs(i - 20)).expect("staged");
        }
        if i % 5 == 0 {
            db.append(read, secs(i), -1.0).expect("commits");
        }
        txn.set_durability(if i % 2 == 0 { Durability::Sync } else { Durability::Buffered });
        match txn.commit() {
            Ok(_) => {}
            Err(Error::Conflict { .. }) => conflicts += 1,
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(conflicts, 20);
    let state = |db: &Database| {
        let snapshot = db.snapshot();
        let points = snapshot.metrics().map(|m| (m.name().to_vec(), committed(&snapshot, &m)));
        let points: BTreeMap<Vec<u8>, Vec<(i64, f64)>> = points.collect();
        (snapshot.version().get(), snapshot.meta("done").map(<[u8]>::to_vec), points)
    };
    db.sync().expect("syncs");
    let before = state(&db);
    drop(db);
    let db = open(&disk);
    assert_eq!(state(&db), before);

    // What was written before the database was opened is older than any transaction.
    let metric = db.snapshot().metric("a").expect("there");
    let mut txn = db.begin_checked();
    txn.latest(&metric).expect("reads");
    txn.append(&metric, secs(1_000), 1.0).expect("staged");
    txn.commit().expect("nobody changed anything");
}

/// A test that cannot fail proves nothing: the same with the comparison left out.
#[test]
fn the_planted_bug_is_found() {
    let options = Options::new().workers(0).plant(Bug::AbsenceUnchecked);
    let db = options.open_in_memory().expect("opens");
    let mut txn = db.begin_checked();
    assert_eq!(txn.metric("new"), None);
    txn.put_meta("k", "v").expect("staged");
    db.append(&db.metric("new").expect("valid"), secs(1), 1.0).expect("commits");
    txn.commit().expect("the bug lets it through");
}
