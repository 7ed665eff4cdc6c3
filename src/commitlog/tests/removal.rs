//! Removal: the log begins later and later, and nothing behind its beginning is touched.

use proptest::prelude::*;

use super::*;
use crate::io::{CutState, Fault};

/// Payload lengths that make many small segments: records within one, over the end of one, over several, exactly up to an end, and of no
/// bytes.
const LENS: [usize; 16] =
    [100, 15_000, 900, 3_000, 70_000, 10, 0, 40_000, 40_000, 7, 12_000, 12_000, 12_000, 100_000, 1, 5_000];

/// A log with records of [`LENS`] and 8,000 bytes, all synced, and those records.
fn sample(disk: &SimulatedDisk) -> (Recovered, Records) {
    let log = log_on(disk, Planted::default());
    let (mut opened, _) = recover_all(&log, &LogStart::default(), Recovery::Strict).expect("it opens");
    let mut records = Vec::new();
    for len in LENS {
        add(&mut opened, &mut records, len, true);
    }
    // One that ends where its segment does.
    let room = usable_in_segment(&opened);
    add(&mut opened, &mut records, room, true);
    add(&mut opened, &mut records, 8_000, true);
    (opened, records)
}

/// The payload length that fills the segment that is written to its last byte.
fn usable_in_segment(opened: &Recovered) -> usize {
    let position = opened.writer.position();
    let size = if position.segment == 1 { 16 << 10 } else { 32 << 10 };
    (size - position.offset - FRAME_HEADER_BYTES) as usize
}

fn add(opened: &mut Recovered, records: &mut Records, len: usize, sync: bool) {
    let version = opened.writer.last_version() + 1;
    let payload = payload(version, 0, len);
    write_all(&mut opened.writer, &mut opened.maker, std::slice::from_ref(&payload), sync).expect("room");
    records.push((version, payload));
}

/// The records from a version on.
fn from(records: &Records, first: u64) -> &[(u64, Vec<u8>)] {
    &records[first as usize - 1..]
}

/// The segments on a disk.
fn segments(disk: &SimulatedDisk) -> Vec<u64> {
    let folder = log_on(disk, Planted::default()).folder();
    LogFolder::list(disk, &folder).expect("it lists").segments.into_keys().collect()
}

#[test]
fn log_can_begin_behind_any_version() {
    let base = disk_with_log(Planted::default());
    let (opened, records) = sample(&base);
    let last = records.len() as u64;
    let all_segments = segments(&base);
    for version in 0..=last {
        let start = opened.writer.start_after(version);
        assert!(start.first_version <= version + 1, "{version}: {start:?}");
        assert_eq!((start.synced, start.synced_version), (opened.writer.position(), last));
        let disk = copy(&base);
        let log = log_on(&disk, Planted::default());
        log.remove_before(start.first_segment).expect("it removes");
        assert!(segments(&disk).iter().eq(all_segments.iter().filter(|s| **s >= start.first_segment)));
        let (mut again, found) = recover_all(&log, &start, Recovery::Strict).expect("it opens");
        assert_eq!(found, from(&records, start.first_version), "{version}");
        assert_eq!(again.report.records, last + 1 - start.first_version);
        // No segment fewer would do.
        if start.first_segment < opened.writer.position().segment {
            let less = copy(&disk);
            less.remove(&path(start.first_segment)).expect("it goes");
            for first_version in version..=last + 1 {
                let start = LogStart { first_segment: start.first_segment + 1, first_version, ..start };
                let found = recover_all(&log_on(&less, Planted::default()), &start, Recovery::Strict);
                assert!(
                    found.map_or(true, |(_, found)| !found.iter().any(|(v, _)| *v == version + 1)),
                    "{version} could begin with segment {}",
                    start.first_segment
                );
            }
        }
        // The places of the segments are known again, and the log goes on.
        for later in 0..=last {
            let told = again.writer.start_after(later);
            assert_eq!(told, opened.writer.start_after(later.max(version)), "{version}, {later}");
        }
        let sizes: u64 = disk.files().iter().map(|(_, bytes)| bytes).sum();
        assert_eq!(again.writer.bytes_on_disk(), sizes);
        let mut records = records.clone();
        add(&mut again, &mut records, 50_000, true);
        let later = again.writer.start_after(last);
        log.remove_before(later.first_segment).expect("it removes");
        again.writer.forget_before(later.first_segment);
        assert_eq!(again.writer.start_after(0), later, "what is gone is no beginning");
        let (_, found) = recover_all(&log, &later, Recovery::Strict).expect("it opens");
        assert_eq!(found, from(&records, later.first_version));
        assert_eq!(found.last(), records.last());
    }
}

#[test]
fn log_without_a_record_behind_its_beginning_opens_and_goes_on() {
    let disk = disk_with_log(Planted::default());
    let log = log_on(&disk, Planted::default());
    let (mut opened, mut records) = sample(&disk);
    let room = usable_in_segment(&opened);
    add(&mut opened, &mut records, room, true);
    // Version 19 ends with its segment; version 20 moved on to the next, but never reached the disk.
    let next = opened.maker.make(0).expect("room");
    opened.writer.push_segment(next);
    let reached = opened.writer.position().segment + 1;
    add(&mut opened, &mut records, 10, false);
    let start = opened.writer.start_after(u64::MAX);
    assert_eq!((start.first_segment, start.first_version, start.synced_version), (reached, 20, 19));
    let cut = disk.after_power_cut(CutState::None, 0);
    let log_after_cut = log_on(&cut, Planted::default());
    log_after_cut.remove_before(reached).expect("it removes");
    let (mut opened, found) = recover_all(&log_after_cut, &start, Recovery::Strict).expect("it opens");
    assert_eq!((found.len(), opened.last_version), (0, 19));
    records.pop();
    add(&mut opened, &mut records, 77, true);
    let (_, found) = recover_all(&log_after_cut, &start, Recovery::Strict).expect("it opens");
    assert_eq!(found, records[19..]);
    // Where it was torn, it is resumed, and what was told before still holds.
    change(&disk, &path(reached), |bytes| bytes[SEGMENT_HEADER_BYTES as usize + 20] ^= 1);
    let (mut opened, found) = recover_all(&log, &start, Recovery::Strict).expect("it is cut");
    assert_eq!((found.len(), opened.last_version), (0, 19));
    assert!(opened.report.cut.is_some());
    assert_eq!(opened.writer.start_after(19).first_segment, opened.writer.position().segment);
    assert!(opened.writer.position().segment > reached);
    assert_eq!(opened.writer.start_after(18).first_segment, reached, "nothing before is known");
    records.truncate(19);
    add(&mut opened, &mut records, 40_000, true);
    for start in [start, opened.writer.start_after(19)] {
        assert_eq!(recover_all(&log, &start, Recovery::Strict).expect("it opens").1, records[19..]);
    }
}

#[test]
fn missing_first_segment_is_corruption() {
    let base = disk_with_log(Planted::default());
    let (opened, records) = sample(&base);
    let end = opened.writer.position().segment;
    for version in 0..=records.len() as u64 {
        let start = opened.writer.start_after(version);
        for missing in start.first_segment..=end {
            let disk = copy(&base);
            disk.remove(&path(missing)).expect("it goes");
            let found = recover_all(&log_on(&disk, Planted::default()), &start, Recovery::Strict);
            assert!(matches!(found, Err(Error::Corrupt { .. })), "{missing} behind {version}");
        }
        let disk = copy(&base);
        let log = log_on(&disk, Planted::default());
        log.remove_before(end + 1).expect("it removes");
        assert!(matches!(recover_all(&log, &start, Recovery::Strict), Err(Error::Corrupt { .. })));
        assert!(disk.files().is_empty(), "nothing was made");
    }
}

#[test]
fn segments_before_the_beginning_are_removed_by_recovery_whatever_they_hold() {
    let base = disk_with_log(Planted::default());
    let (opened, records) = sample(&base);
    let start = opened.writer.start_after(8);
    assert!(start.first_segment > 3);
    for damage in [0, 1, 2] {
        let disk = copy(&base);
        match damage {
            0 => {}
            1 => change(&disk, &path(2), |bytes| bytes.truncate(10)),
            _ => disk.remove(&path(2)).expect("it goes"),
        }
        let log = log_on(&disk, Planted::default());
        for mode in [Recovery::Strict, Recovery::Salvage] {
            let disk = copy(&disk);
            let log = Log { disk: Arc::new(disk.clone()), ..log.clone() };
            let (again, found) = recover_all(&log, &start, mode).expect("they do not count");
            assert_eq!(found, from(&records, start.first_version));
            let removed = (start.first_segment - 1) as usize - usize::from(damage == 2);
            assert_eq!((again.report.swept.len(), again.report.damage.len()), (removed, 0));
            assert_eq!(segments(&disk).first(), Some(&start.first_segment));
        }
    }
}

#[test]
fn failed_removal_can_be_repeated() {
    let base = disk_with_log(Planted::default());
    let (opened, records) = sample(&base);
    let start = opened.writer.start_after(12);
    for call in 1..start.first_segment {
        let disk = copy(&base);
        let log = log_on(&disk, Planted::default());
        disk.fail(disk.calls() + call, Fault::InputOutput, false);
        assert!(matches!(log.remove_before(start.first_segment), Err(Error::Io { .. })), "call {call}");
        assert_eq!(segments(&disk).first(), Some(&call), "oldest first");
        log.remove_before(start.first_segment).expect("it works now");
        assert_eq!(segments(&disk).first(), Some(&start.first_segment));
        assert_eq!(
            recover_all(&log, &start, Recovery::Strict).expect("it opens").1,
            from(&records, start.first_version)
        );
    }
}

#[test]
fn salvaged_log_begins_behind_any_version_too() {
    let disk = disk_with_log(Planted::default());
    let (opened, records) = sample(&disk);
    let closed = LogStart { first_segment: 1, first_version: 1, ..opened.writer.start_after(0) };
    change(&disk, &path(opened.writer.start_after(9).first_segment), |bytes| bytes[3_000] ^= 1);
    let log = log_on(&disk, Planted::default());
    let (mut salvaged, kept) = recover_all(&log, &closed, Recovery::Salvage).expect("it is salvaged");
    assert!(kept.len() < records.len() && kept.len() > 10);
    let last = salvaged.last_version;
    let mut later = Records::new();
    for len in [40_000, 3] {
        add(&mut salvaged, &mut later, len, true);
    }
    let base = copy(&disk);
    for version in 0..=last + 2 {
        let start = salvaged.writer.start_after(version);
        let disk = copy(&base);
        let log = log_on(&disk, Planted::default());
        log.remove_before(start.first_segment).expect("it removes");
        let (again, found) = recover_all(&log, &start, Recovery::Strict).expect("it opens");
        let all = kept.iter().chain(&later).filter(|(v, _)| *v >= start.first_version);
        assert!(found.iter().eq(all), "{version}");
        assert!(start.first_version <= version + 1);
        assert_eq!(again.last_version, last + 2);
        for other in version..=last + 2 {
            assert_eq!(again.writer.start_after(other), salvaged.writer.start_after(other));
        }
    }
}

/// A step in the life of a log.
#[derive(Clone, Debug)]
enum Step {
    Write(Vec<usize>, bool),
    /// A checkpoint at a version so many before the last synced one, and removal.
    Remove(u64),
    Reopen,
    Cut(CutState, u64),
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![3 => 0..3_000_usize, 1 => 10_000..60_000_usize];
    let cut = prop::sample::select(CutState::ALL.to_vec());
    prop_oneof![
        6 => (prop::collection::vec(len, 1..6), any::<bool>()).prop_map(|(lens, sync)| Step::Write(lens, sync)),
        3 => (0..6_u64).prop_map(Step::Remove),
        1 => Just(Step::Reopen),
        2 => (cut, any::<u64>()).prop_map(|(state, seed)| Step::Cut(state, seed)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn records_behind_the_last_removal_survive_any_life(steps in prop::collection::vec(step(), 1..40)) {
        let mut disk = disk_with_log(Planted::default());
        let mut start = LogStart::default();
        let open = |disk: &SimulatedDisk, start: &LogStart| {
            recover_all(&log_on(disk, Planted::default()), start, Recovery::Strict)
        };
        let (mut opened, mut records) = open(&disk, &start).expect("it opens");
        for step in steps {
            match step {
                Step::Write(lens, sync) => {
                    let salt = disk.fingerprint();
                    let next = opened.writer.last_version() + 1;
                    let written: Records =
                        (next..).zip(lens).map(|(v, len)| (v, payload(v, salt, len))).collect();
                    let payloads: Vec<_> = written.iter().map(|(_, payload)| payload.clone()).collect();
                    write_all(&mut opened.writer, &mut opened.maker, &payloads, sync).expect("room");
                    records.extend(written);
                }
                Step::Remove(before) => {
                    let version = opened.writer.synced_version().saturating_sub(before);
                    let told = opened.writer.start_after(version);
                    prop_assert!(told.first_segment >= start.first_segment);
                    prop_assert!(told.first_version <= version.max(start.first_version - 1) + 1);
                    // Both slots of the superblock say so from here on.
                    start = told;
                    log_on(&disk, Planted::default()).remove_before(start.first_segment).expect("it removes");
                    opened.writer.forget_before(start.first_segment);
                    records.retain(|(version, _)| *version >= start.first_version);
                }
                Step::Reopen | Step::Cut(..) => {
                    let promised = opened.writer.synced_version();
                    if let Step::Cut(state, seed) = step {
                        disk = disk.after_power_cut(state, seed);
                    }
                    let (again, found) = open(&disk, &start).expect("it opens");
                    prop_assert!(again.last_version >= promised);
                    prop_assert!(matches!(step, Step::Cut(..)) || found.len() == records.len());
                    prop_assert!(records.starts_with(&found));
                    prop_assert_eq!(again.last_version, start.first_version - 1 + found.len() as u64);
                    prop_assert!(segments(&disk).first() >= Some(&start.first_segment));
                    (opened, records) = (again, found);
                }
            }
        }
    }
}
