//! Making space in the log: commits that need more than there is, on a disk that is large enough and on one that is not.

use std::sync::Arc;

use chronolith::io::{CutState, SimulatedDisk};
use chronolith::planted::Bug;
use chronolith::{Database, Durability, Error, Options, Timestamp};
use chronolith_shuttle_tests::disk::SlowDisk;
use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;

use crate::scenario;

const WRITERS: u32 = 3;
const COMMITS: i64 = 3;
/// Of one commit: about 6 KiB in the log, whose segments have 16.
const POINTS: i64 = 400;

/// `why` says what opening it shows.
fn open(disk: &SimulatedDisk, bug: Option<Bug>, why: &str) -> Database {
    let options = Options::new().workers(0).lanes(2);
    let options = options.log_segment_bytes_min(16 * 1024).log_segment_bytes_max(16 * 1024);
    let options = bug.into_iter().fold(options, Options::plant);
    options.open_on(Arc::new(SlowDisk::new(disk.clone())), "/db").expect(why)
}

/// Nobody waits for ever for space; a commit that is refused for want of it did not happen, and stops nobody; what was
/// acknowledged is there after a power cut.
fn little_space(bug: Option<Bug>) {
    let disk = SimulatedDisk::new(1);
    let db = open(&disk, bug, "it opens");
    let capacity = disk.bytes_allocated() + thread_rng().gen_range(0..5) * 16 * 1024;
    disk.set_capacity(Some(capacity));
    let commit = |writer: u32, number: i64| {
        let metric = db.metric(format!("m{writer}")).expect("a name");
        let times: Vec<Timestamp> =
            (0..POINTS).map(|at| Timestamp::from_secs(number * POINTS + at)).collect();
        let values = vec![f64::from(writer); times.len()];
        let mut txn = db.begin_write();
        txn.set_durability(if number == 1 { Durability::Buffered } else { Durability::Sync });
        txn.append_columns(&metric, &times, &values).expect("staging");
        match txn.commit() {
            Ok(version) => {
                assert!(db.snapshot().version() >= version);
                true
            }
            Err(Error::DiskFull { .. }) => false,
            Err(other) => panic!("{other}"),
        }
    };
    let mut acknowledged: Vec<Vec<bool>> = thread::scope(|scope| {
        let commit = &commit;
        let write = |writer| move || (0..COMMITS).map(|number| commit(writer, number)).collect();
        let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(write(writer))).collect();
        writers.into_iter().map(|writer| writer.join().expect("no panic")).collect()
    });
    assert!(!db.stats().stopped, "a full disk stops nobody");
    disk.set_capacity(None);
    for (writer, acknowledged) in acknowledged.iter_mut().enumerate() {
        let last = commit(writer as u32, COMMITS);
        assert!(last, "there is space again");
        acknowledged.push(last);
    }
    let disk = disk.after_power_cut(CutState::None, 0);
    let found = open(&disk, None, "the segments made are found after a power cut").snapshot();
    for (writer, acknowledged) in acknowledged.iter().enumerate() {
        let metric = found.metric(format!("m{writer}")).expect("its last commit was synced");
        for (number, expected) in acknowledged.iter().enumerate() {
            let first = Timestamp::from_secs(number as i64 * POINTS);
            let points = found.range(&metric, first..first + std::time::Duration::from_secs(POINTS as u64));
            let expected = if *expected { POINTS as usize } else { 0 };
            assert_eq!(points.count(), expected, "points of commit {number} of writer {writer}");
        }
    }
}

scenario!(space_is_made_or_refused: little_space;
    bug_space_skip_folder_sync: SkipFolderSync, "the segments made are found";
    bug_space_forget_notify_after_publishing: ForgetNotifyAfterPublishing, "deadlock";
);
