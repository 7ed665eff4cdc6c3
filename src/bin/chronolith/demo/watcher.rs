//! The demo's reader: takes snapshots while the writer commits, and checks that each is one consistent cut.
//!
//! A commit writes one point of every metric and, as metadata, how many scrapes there are with it. So in every snapshot that says
//! `n`, each metric's last point must be the `n`-th of the recording: a commit half seen, or a count seen before its points,
//! would show. One metric after the other is also read from its beginning.

use std::sync::atomic::{AtomicBool, Ordering};

use chronolith::{Database, Metric, Point, Snapshot};

use crate::failure::{Failure, Outcome, Status};

use super::SCRAPES_KEY;
use super::recording::Recording;

/// What was looked at.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) snapshots: u64,
    /// Snapshots with another number of scrapes than the one before.
    pub(super) cuts: u64,
    /// Points compared with the recording.
    pub(super) points: u64,
}

/// Checks snapshots until `finished` is set, and once more after that, when everything has to be there.
pub(super) fn watch(
    db: &Database,
    metrics: &[Metric],
    recording: &Recording,
    finished: &AtomicBool,
) -> Outcome<Seen> {
    let mut seen = Seen::default();
    let mut last_scrapes = 0;
    loop {
        // Pairs with the writer's store: if it is set, this snapshot has every commit.
        let last_look = finished.load(Ordering::Acquire);
        let snapshot = db.snapshot();
        let scrapes = check_cut(&snapshot, metrics, recording, &mut seen)?;
        if scrapes < last_scrapes {
            return Err(inconsistent(&snapshot, format!("{scrapes} scrapes came after {last_scrapes}")));
        }
        seen.cuts += u64::from(scrapes != last_scrapes);
        last_scrapes = scrapes;
        if last_look {
            return Ok(seen);
        }
    }
}

/// Compares one snapshot with the recording, and returns how many scrapes it has.
fn check_cut(
    snapshot: &Snapshot,
    metrics: &[Metric],
    recording: &Recording,
    seen: &mut Seen,
) -> Outcome<usize> {
    let scrapes = match snapshot.meta(SCRAPES_KEY) {
        None => 0,
        Some(count) => count
            .try_into()
            .ok()
            .and_then(|count| usize::try_from(u64::from_le_bytes(count)).ok())
            .filter(|count| *count <= recording.at.len())
            .ok_or_else(|| inconsistent(snapshot, "its count of scrapes makes no sense".to_owned()))?,
    };
    let expected =
        |metric: usize, scrape: usize| (recording.at[scrape], recording.values[metric][scrape].to_bits());
    let found = |point: &Point| (point.at, point.value.to_bits());

    for (index, metric) in metrics.iter().enumerate() {
        let latest = snapshot.latest(metric)?.as_ref().map(found);
        if latest != scrapes.checked_sub(1).map(|scrape| expected(index, scrape)) {
            return Err(inconsistent(
                snapshot,
                format!("it has {scrapes} scrapes, but {metric} ends with {latest:?}"),
            ));
        }
        seen.points += u64::from(latest.is_some());
    }

    // A different one each time.
    let index = seen.snapshots as usize % metrics.len().max(1);
    if let Some(metric) = metrics.get(index) {
        let mut read = 0;
        for point in snapshot.range(metric, ..) {
            let point = point?;
            if read >= scrapes || found(&point) != expected(index, read) {
                return Err(inconsistent(
                    snapshot,
                    format!("it has {scrapes} scrapes, but {metric} has {point:?} at {read}"),
                ));
            }
            read += 1;
        }
        if read != scrapes {
            return Err(inconsistent(
                snapshot,
                format!("it has {scrapes} scrapes, but {metric} has {read} points"),
            ));
        }
        seen.points += read as u64;
    }
    seen.snapshots += 1;
    Ok(scrapes)
}

fn inconsistent(snapshot: &Snapshot, reason: String) -> Failure {
    let version = snapshot.version().get();
    Failure::new(
        Status::CheckFailed,
        format_args!("the snapshot of version {version} is no consistent cut: {reason}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronolith::Timestamp;

    fn recording() -> Recording {
        let at = (0..3).map(Timestamp::from_secs).collect();
        let metrics = vec![Box::from(*b"a"), Box::from(*b"b")];
        Recording { metrics, at, values: vec![vec![1.0, 2.0, 3.0], vec![4.0, 5.0, 6.0]], csv_bytes: 0 }
    }

    /// A database after commits of `(metric, scrape)`, with this count.
    fn check(points: &[(usize, usize)], count: u64) -> Outcome<usize> {
        let recording = recording();
        let db = Database::in_memory()?;
        let metrics =
            recording.metrics.iter().map(|id| db.metric(id)).collect::<chronolith::Result<Vec<Metric>>>()?;
        let mut txn = db.begin_write();
        for (metric, scrape) in points {
            txn.append(&metrics[*metric], recording.at[*scrape], recording.values[*metric][*scrape])?;
        }
        txn.put_meta(SCRAPES_KEY, count.to_le_bytes())?;
        txn.commit()?;
        check_cut(&db.snapshot(), &metrics, &recording, &mut Seen::default())
    }

    #[test]
    fn a_consistent_cut_passes() {
        assert_eq!(check(&[(0, 0), (1, 0), (0, 1), (1, 1)], 2).expect("consistent"), 2);
        assert_eq!(check(&[], 0).expect("nothing yet"), 0);
    }

    #[test]
    fn every_inconsistent_cut_is_noticed() {
        for (points, count) in [
            (&[(0, 0), (1, 0), (0, 1)][..], 1),
            (&[(0, 0), (1, 0), (0, 1)][..], 2),
            (&[(0, 0), (1, 0)][..], 2),
            (&[(0, 0), (1, 0)][..], 0),
            (&[(0, 1), (1, 0), (1, 1)][..], 2),
            (&[][..], 4),
        ] {
            let failure = check(points, count).expect_err("inconsistent");
            assert_eq!(failure.status, Status::CheckFailed, "{failure}");
        }
    }
}
