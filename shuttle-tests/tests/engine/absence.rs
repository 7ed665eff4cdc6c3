//! A checked transaction that finds a name absent, while another makes, drops and makes it again.

use chronolith::planted::Bug;
use chronolith::{Error, Options, Timestamp};
use shuttle::thread;

use crate::scenario;

/// If it commits after a metric of the name was made that stays, it must have seen it.
fn absent_and_made(bug: Option<Bug>) {
    let options = bug.into_iter().fold(Options::new().workers(0).lanes(1), Options::plant);
    let db = options.open_in_memory().expect("it opens");
    thread::scope(|scope| {
        let maker = scope.spawn(|| {
            let make = || db.append(&db.metric("n")?, Timestamp::from_secs(1), 1.0);
            make().expect("a commit");
            let mut txn = db.begin_write();
            txn.drop_metric(&db.metric("n").expect("a name")).expect("staging");
            txn.commit().expect("a commit");
            make().expect("a commit")
        });
        let checked = scope.spawn(|| {
            let mut txn = db.begin_checked();
            let found = txn.metric("n").is_some();
            txn.put_meta("found", [u8::from(found)]).expect("staging");
            match txn.commit() {
                Ok(version) => Some((version, found)),
                Err(Error::Conflict { .. }) => None,
                Err(other) => panic!("{other}"),
            }
        });
        let (made, committed) = (maker.join().expect("no panic"), checked.join().expect("no panic"));
        if let Some((version, found)) = committed {
            assert!(found || version < made, "absent at {version:?}, but made at {made:?}");
        }
    });
}

scenario!(absence_of_a_name_is_checked: absent_and_made;
    bug_absence_absence_unchecked: AbsenceUnchecked, "absent at";
);
