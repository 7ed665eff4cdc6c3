//! Salvage: everything sound is kept, and the log opens strictly afterwards.

use super::*;
use crate::io::{CutState, Fault};

/// Three segments with 40 records of about 1 KiB, closed.
fn sample() -> (SimulatedDisk, Records, LogStart) {
    let disk = disk_with_log(Planted::default());
    let log = log_on(&disk, Planted::default());
    let (mut opened, _) = recover_all(&log, &LogStart::default(), Recovery::Strict).expect("it opens");
    for version in 1..=60 {
        write_all(&mut opened.writer, &mut opened.maker, &[payload(version, 0, 1_000)], true).expect("room");
    }
    let closed = LogStart {
        synced: opened.writer.synced(),
        synced_version: opened.writer.synced_version(),
        ..LogStart::default()
    };
    assert_eq!(closed.synced.segment, 3);
    let (_, records) = recover_all(&log, &closed, Recovery::Strict).expect("it opens");
    (copy(&disk), records, closed)
}

type Damaging = fn(&SimulatedDisk);

const DAMAGE: &[(&str, Damaging, u64)] = &[
    ("a payload", |disk| change(disk, &path(1), |bytes| bytes[96 + 1_500] ^= 1), 1),
    ("a frame header", |disk| change(disk, &path(2), |bytes| bytes[96 + 8_000..][..1_100].fill(0xaa)), 3),
    (
        "two segments",
        |disk| [1, 3].map(path).iter().for_each(|path| change(disk, path, |bytes| bytes[300] ^= 1)),
        2,
    ),
    ("a segment header", |disk| change(disk, &path(2), |bytes| bytes[30] ^= 1), 0),
    ("the first header", |disk| change(disk, &path(1), |bytes| bytes[0] ^= 1), 0),
    ("a note", |disk| change(disk, &path(2), |bytes| bytes[70] ^= 1), 0),
    ("the last note", |disk| change(disk, &path(3), |bytes| bytes[95] ^= 1), 0),
    ("the last header", |disk| change(disk, &path(3), |bytes| bytes[0] ^= 1), 0),
    ("a missing segment", |disk| disk.remove(&path(2)).expect("it goes"), 33),
    ("the missing first", |disk| disk.remove(&path(1)).expect("it goes"), 17),
    ("the missing last", |disk| disk.remove(&path(3)).expect("it goes"), 16),
    ("a short segment", |disk| change(disk, &path(2), |bytes| bytes.truncate(20_000)), 14),
    ("zeros", |disk| change(disk, &path(2), |bytes| bytes[96..].fill(0)), 33),
    ("an emptied segment", |disk| change(disk, &path(1), |bytes| bytes.clear()), 17),
];

#[test]
fn sound_records_are_kept_and_the_log_opens_strictly() {
    let (base, records, closed) = sample();
    for (what, damage, lost_max) in DAMAGE {
        let disk = copy(&base);
        damage(&disk);
        let damaged_files = disk.files();
        let log = log_on(&disk, Planted::default());
        let strict = recover_all(&log, &closed, Recovery::Strict);
        assert!(matches!(strict, Err(Error::Corrupt { .. })), "{what}");
        let (mut opened, kept) = recover_all(&log, &closed, Recovery::Salvage).expect(what);
        assert!(kept.iter().all(|record| records.contains(record)), "{what}: invented");
        assert!(kept.is_sorted_by(|a, b| a.0 < b.0), "{what}: out of order");
        assert!(!opened.report.damage.is_empty(), "{what}");
        let lost = (records.len() - kept.len()) as u64;
        assert!(lost <= *lost_max, "{what}: {lost} lost, {:#?}", opened.report);
        let told: u64 = opened.report.lost_versions.iter().map(|(first, last)| last - first + 1).sum();
        assert_eq!(told, lost, "{what}: {:?}", opened.report.lost_versions);
        assert!(opened.last_version >= closed.synced_version, "{what}: versions are given out twice");
        // Nothing of the damaged files is gone.
        for (path, _) in damaged_files {
            let bytes = base.map(&path).expect("it was there");
            let is_kept = disk.files().iter().any(|(other, _)| {
                other.to_string_lossy().starts_with(&*path.to_string_lossy())
                    && disk.map(other).expect("it is there").len() + 40_000 > bytes.len()
            });
            assert!(is_kept, "{what}: {} is gone", path.display());
        }
        let more = payload(opened.last_version + 1, 5, 2_000);
        write_all(&mut opened.writer, &mut opened.maker, std::slice::from_ref(&more), true).expect("room");
        let (again, after) = recover_all(&log, &closed, Recovery::Strict).expect(what);
        let mut expected = kept;
        expected.push((opened.last_version + 1, more));
        assert_eq!(after, expected, "{what}");
        let told_again: u64 = again.report.lost_versions.iter().map(|(first, last)| last - first + 1).sum();
        assert_eq!(told_again, lost, "{what}: told again");
        assert!(again.report.damage.is_empty());
    }
}

#[test]
fn salvage_may_be_interrupted_at_any_call() {
    let (base, _, closed) = sample();
    for (what, damage, _) in DAMAGE {
        let damaged = copy(&base);
        damage(&damaged);
        let disk = copy(&damaged);
        let (_, kept) =
            recover_all(&log_on(&disk, Planted::default()), &closed, Recovery::Salvage).expect(what);
        for call in 1..=disk.calls() {
            let disk = copy(&damaged);
            disk.cut_power_within(call);
            let _ = recover_all(&log_on(&disk, Planted::default()), &closed, Recovery::Salvage);
            for state in CutState::ALL {
                let disk = disk.after_power_cut(state, call);
                let log = log_on(&disk, Planted::default());
                let (_, again) = recover_all(&log, &closed, Recovery::Salvage).expect(what);
                assert_eq!(again.len(), kept.len(), "{what}: {state:?} at {call}");
                assert_eq!(again, kept, "{what}: {state:?} at {call}");
                let (_, strict) = recover_all(&log, &closed, Recovery::Strict).expect(what);
                assert_eq!(strict, kept, "{what}: {state:?} at {call}");
            }
        }
    }
}

#[test]
fn salvage_of_a_sound_log_changes_nothing() {
    let (disk, records, closed) = sample();
    let before = disk.fingerprint();
    let (opened, kept) =
        recover_all(&log_on(&disk, Planted::default()), &closed, Recovery::Salvage).expect("it opens");
    assert_eq!(kept, records);
    assert!(opened.report.damage.is_empty());
    assert_eq!(disk.fingerprint(), before);
}

#[test]
fn unreadable_sectors_cost_only_what_is_in_them() {
    let (base, records, closed) = sample();
    let calls = {
        let disk = copy(&base);
        disk.count_reads(true);
        read(&log_on(&disk, Planted::default()), &closed, Recovery::Salvage, &mut |_, _| Ok(()))
            .expect("it reads");
        disk.calls()
    };
    for call in 1..=calls {
        let disk = copy(&base);
        let log = log_on(&disk, Planted::default());
        disk.count_reads(true);
        disk.fail(call, Fault::InputOutput, false);
        let strict = read(&log, &closed, Recovery::Strict, &mut |_, _| Ok(()));
        assert!(matches!(strict, Err(Error::Io { .. })), "call {call}");
        let disk = copy(&base);
        let log = log_on(&disk, Planted::default());
        disk.count_reads(true);
        for call in [call, call + 1] {
            disk.fail(call, Fault::InputOutput, false);
        }
        let mut kept = Vec::new();
        let salvaged = read(&log, &closed, Recovery::Salvage, &mut |version, payload| {
            kept.push((version, payload.to_vec()));
            Ok(())
        });
        if salvaged.is_ok() {
            assert!(kept.iter().all(|record| records.contains(record)), "call {call}");
            assert!(records.len() - kept.len() <= 6, "call {call}: {} kept", kept.len());
        }
    }
}

/// Records whose checksums hold and that make no sense all the same, as a bug would leave them.
#[test]
fn a_record_that_is_rejected_is_an_error_with_its_place_or_one_lost_version() {
    for rejected in [1u64, 20, 59, 60] {
        let (disk, records, closed) = sample();
        let log = log_on(&disk, Planted::default());
        let mut taken = Vec::new();
        let mut take = |version: u64, payload: &[u8]| {
            if version == rejected {
                return Err(NotTaken::Rejected("it makes no sense"));
            }
            taken.push((version, payload.to_vec()));
            Ok(())
        };
        match recover(&log, &closed, Recovery::Strict, &mut take, &mut || Ok(())) {
            Err(Error::Corrupt { path, offset, reason, .. }) => {
                assert!(path.extension().is_some_and(|extension| extension == "log") && offset >= 96);
                assert_eq!(reason, "it makes no sense");
            }
            other => panic!("version {rejected}: {other:?}"),
        }
        taken.clear();
        let mut take = |version: u64, payload: &[u8]| {
            if version == rejected {
                return Err(NotTaken::Rejected("it makes no sense"));
            }
            taken.push((version, payload.to_vec()));
            Ok(())
        };
        let salvaged =
            recover(&log, &closed, Recovery::Salvage, &mut take, &mut || Ok(())).expect("the rest is sound");
        assert_eq!(salvaged.report.damage[0].versions, Some((rejected, rejected)));
        drop(salvaged);
        let expected: Records = records.iter().filter(|(version, _)| *version != rejected).cloned().collect();
        assert_eq!(taken, expected, "version {rejected}");
        let (again, kept) = recover_all(&log, &closed, Recovery::Strict).expect("whole again");
        assert_eq!((again.last_version, kept), (60, expected), "version {rejected} is not given out again");
    }
}

/// Records that were taken, and turned out to make no sense while later ones were read, or behind the last one.
#[test]
fn a_record_that_is_rejected_later_is_the_same_error() {
    for rejected in [1u64, 20, 59, 60] {
        let (disk, _, closed) = sample();
        let log = log_on(&disk, Planted::default());
        let error = |noticed: u64, not_taken: fn(u64) -> NotTaken| {
            let mut take = |version: u64, _: &[u8]| match version == noticed {
                true => Err(not_taken(rejected)),
                false => Ok(()),
            };
            let mut at_end = || match noticed > 60 {
                true => Err(not_taken(rejected)),
                false => Ok(()),
            };
            let before = disk.files();
            let recovered = recover(&log, &closed, Recovery::Strict, &mut take, &mut at_end);
            assert_eq!(disk.files(), before, "nothing is touched");
            format!("{:?}", recovered.expect_err("it makes no sense"))
        };
        let at_once = error(rejected, |_| NotTaken::Rejected("it makes no sense"));
        for noticed in [rejected, (rejected + 7).min(60), 60, 61] {
            let later = error(noticed, |version| NotTaken::RejectedEarlier(version, "it makes no sense"));
            assert_eq!(later, at_once, "{rejected}, noticed at {noticed}");
        }
    }
}
