//! Creating a metric that another transaction is creating or dropping at the same time.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use chronolith::io::{CutState, SimulatedDisk};
use chronolith::{Database, Error, Options};

fn open(disk: &SimulatedDisk) -> Database {
    Options::new().workers(0).open_on(Arc::new(disk.clone()), "/db").expect("it opens")
}

#[test]
fn a_creation_that_is_acknowledged_is_visible_and_durable() {
    let disk = SimulatedDisk::new(1);
    let db = open(&disk);
    let metric = db.metric("m").expect("a metric");
    let create = || {
        let mut txn = db.begin_write();
        txn.create_metric(&metric)?;
        txn.commit()
    };
    thread::scope(|scope| {
        let hold = disk.hold_syncs();
        let first = scope.spawn(create);
        assert!(hold.wait_for(1, Duration::from_secs(60)), "the first creation syncs");
        let second = scope.spawn(|| {
            let created = create();
            let found = disk.after_power_cut(CutState::None, 0);
            (created, db.snapshot().contains(&metric), found)
        });
        while !second.is_finished() && !first.is_finished() {
            // The second returns at once, or when the first does.
            thread::sleep(Duration::from_millis(20));
            if !second.is_finished() {
                hold.let_one_through();
            }
        }
        drop(hold);
        first.join().expect("no panic").expect("a commit");
        let (created, visible, found) = second.join().expect("no panic");
        created.expect("a commit");
        assert!(visible, "an acknowledged creation is not visible");
        assert!(open(&found).snapshot().metric("m").is_some(), "an acknowledged creation is not durable");
    });
}

#[test]
fn a_creation_after_a_drop_is_refused() {
    let db = open(&SimulatedDisk::new(1));
    let metric = db.metric("m").expect("a metric");
    let mut txn = db.begin_write();
    txn.create_metric(&metric).expect("staging");
    txn.commit().expect("a commit");
    let mut creation = db.begin_write();
    creation.create_metric(&metric).expect("staging");
    creation.put_meta("key", "value").expect("staging");
    let mut drop = db.begin_write();
    drop.drop_metric(&metric).expect("staging");
    drop.commit().expect("a commit");
    assert!(matches!(creation.commit(), Err(Error::MetricDropped(_))));
}
