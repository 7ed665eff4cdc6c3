//! Syncs that take long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chronolith::io::SimulatedDisk;
use chronolith::planted::Bug;
use chronolith::{Database, Durability, Options, Timestamp};
use chronolith_shuttle_tests::disk::SlowDisk;
use shuttle::thread;

use crate::scenario;

/// While a sync is held, nothing of its commit or of those after it is seen or acknowledged; reading and staging go on; and
/// after it all is there.
fn held_sync(bug: Option<Bug>) {
    let disk = SlowDisk::new(SimulatedDisk::new(1));
    let options = Options::new().workers(0).lanes(1).log_segment_bytes_min(16 * 1024);
    let db = bug.into_iter().fold(options, Options::plant).open_on(Arc::new(disk.clone()), "/db");
    let db = db.expect("it opens");
    let metric = db.metric("m").expect("a name");
    db.append(&metric, Timestamp::from_secs(0), 0.0).expect("a commit");
    let before = db.snapshot().version();
    disk.hold_syncs();
    // Not shuttle's: it is no part of what is checked.
    let is_released = AtomicBool::new(false);
    let write = |db: &Database, at: i64, durability| {
        let mut txn = db.begin_write();
        txn.set_durability(durability);
        txn.append(&metric, Timestamp::from_secs(at), 1.0).expect("staging");
        let version = txn.commit().expect("a commit");
        let was_synced = is_released.load(Ordering::SeqCst) || durability == Durability::Buffered;
        assert!(was_synced, "acknowledged before its sync");
        assert!(db.snapshot().version() >= version, "acknowledged and not visible");
    };
    thread::scope(|scope| {
        scope.spawn(|| write(&db, 1, Durability::Sync));
        scope.spawn(|| write(&db, 2, Durability::Sync));
        scope.spawn(|| write(&db, 3, Durability::Buffered));
        scope.spawn(|| {
            let snapshot = db.snapshot();
            let mut txn = db.begin_write();
            txn.append(&metric, Timestamp::from_secs(4), 1.0).expect("staging");
            assert!(txn.range(&metric, ..).count() > 0);
            let points: Vec<_> = snapshot.range(&metric, ..).collect::<Result<_, _>>().expect("a read");
            // Only the commit that asks for no sync may show alone.
            let synced =
                points.iter().filter(|point| [1, 2].map(Timestamp::from_secs).contains(&point.at)).count();
            if !is_released.load(Ordering::SeqCst) {
                assert_eq!(synced, 0, "seen before its sync");
                assert!(snapshot.version().get() <= before.get() + 1);
            }
        });
        scope.spawn(|| {
            is_released.store(true, Ordering::SeqCst);
            disk.release();
        });
    });
    assert_eq!(db.snapshot().range(&metric, ..).count(), 4);
    assert_eq!(db.snapshot().version().get(), before.get() + 3);
}

scenario!(nothing_is_seen_before_its_sync: held_sync;
    bug_held_acknowledge_before_sync: AcknowledgeBeforeSync, "before its sync";
    bug_held_forget_notify_after_publishing: ForgetNotifyAfterPublishing, "deadlock";
);
