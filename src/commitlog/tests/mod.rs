//! Tests of the log as a whole, on simulated disks.

use super::*;
use crate::io::SimulatedDisk;
use crate::planted::Planted;

mod capacity;
mod crash;
mod damage;
mod format;
mod making;
mod removal;
mod salvage;

const ID: DatabaseId = *b"0123456789abcdef";
const NOTE: Note = *b"twenty-eight bytes of a note";
const DIR: &str = "/db";

/// A log with segments from 16 to 32 KiB.
fn log_on(disk: &SimulatedDisk, planted: Planted) -> Log {
    Log {
        disk: Arc::new(disk.clone()),
        dir: DIR.into(),
        database_id: ID,
        note: NOTE,
        sizes: SegmentSizes::new(16 << 10, 32 << 10).expect("valid sizes"),
        planted,
    }
}

/// A disk with an empty log, all of it durable.
fn disk_with_log(planted: Planted) -> SimulatedDisk {
    let disk = SimulatedDisk::new(1);
    disk.create_dir_all(DIR.as_ref()).expect("room for a folder");
    log_on(&disk, planted).create(0).expect("room for a log");
    copy(&disk)
}

/// The same disk once more, all of it durable.
fn copy(disk: &SimulatedDisk) -> SimulatedDisk {
    disk.after_power_cut(crate::io::CutState::All, 0)
}

/// Bytes that follow from a version, differ from all others', and are of the given length.
fn payload(version: u64, salt: u64, len: usize) -> Vec<u8> {
    let mut state = version.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ salt;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
    .take(len)
    .collect()
}

/// Writes payloads as the versions that come next, making segments as they are needed.
fn write_all(
    writer: &mut LogWriter,
    maker: &mut SegmentMaker,
    payloads: &[Vec<u8>],
    sync: bool,
) -> Result<()> {
    let wanted: u64 = payloads.iter().map(|payload| frame_bytes(payload.len() as u64)).sum();
    while writer.free_bytes() < wanted {
        let segment = maker.make(wanted - writer.free_bytes())?;
        writer.push_segment(segment);
    }
    let next = writer.last_version() + 1;
    let records: Vec<Record<'_>> =
        (next..).zip(payloads).map(|(version, payload)| Record::new(version, payload)).collect();
    writer.write(&records, sync)
}

/// Versions and payloads.
type Records = Vec<(u64, Vec<u8>)>;

/// What a recovery gives, and the records in order.
fn recover_all(log: &Log, start: &LogStart, mode: Recovery) -> Result<(Recovered, Records)> {
    let mut records = Vec::new();
    let recovered = recover(
        log,
        start,
        mode,
        &mut |version, payload| {
            records.push((version, payload.to_vec()));
            Ok(())
        },
        &mut || Ok(()),
    )?;
    Ok((recovered, records))
}

/// A segment's path.
fn path(sequence: u64) -> PathBuf {
    log_on(&SimulatedDisk::new(0), Planted::default()).segment_path(sequence)
}

/// Changes bytes of a file as damage would.
fn change(disk: &SimulatedDisk, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = disk.map(path).expect("the file is there").to_vec();
    change(&mut bytes);
    let file = disk.open(path, true).expect("it opens").expect("the file is there");
    file.set_len(bytes.len() as u64).expect("its length changes");
    file.write_at(0, &bytes).expect("it takes bytes");
}

#[test]
fn records_come_back_in_order() {
    let disk = disk_with_log(Planted::default());
    let log = log_on(&disk, Planted::default());
    let (mut opened, _) =
        recover_all(&log, &LogStart::default(), Recovery::Strict).expect("an empty log opens");
    let mut expected = Vec::new();
    for round in 0..12 {
        let payloads: Vec<_> = [0, 1, 8, 100 * round, 3_000]
            .iter()
            .map(|len| payload(opened.writer.last_version() + 1, 0, *len))
            .collect();
        write_all(&mut opened.writer, &mut opened.maker, &payloads, round % 3 == 0).expect("room");
        expected.extend(payloads);
        if round == 5 {
            let huge = payload(99, 0, 100_000);
            write_all(&mut opened.writer, &mut opened.maker, std::slice::from_ref(&huge), false)
                .expect("room");
            expected.push(huge);
        }
    }
    let position = opened.writer.position();
    let (again, records) = recover_all(&log, &LogStart::default(), Recovery::Strict).expect("it opens");
    let expected: Vec<_> = (1..).zip(expected).collect();
    assert_eq!(records, expected);
    assert_eq!(again.last_version, expected.len() as u64);
    assert_eq!((again.writer.position(), again.writer.synced()), (position, position));
    assert_eq!(again.free_bytes, opened.writer.free_bytes());
    assert_eq!(again.report.cut, None);
    assert_eq!(again.report.records, again.last_version);
}

#[test]
fn one_write_and_one_sync_for_a_batch() {
    let disk = disk_with_log(Planted::default());
    let (mut opened, _) =
        recover_all(&log_on(&disk, Planted::default()), &LogStart::default(), Recovery::Strict)
            .expect("it opens");
    let before = disk.calls();
    let payloads: Vec<_> = (1..=10).map(|version| payload(version, 0, 50)).collect();
    write_all(&mut opened.writer, &mut opened.maker, &payloads, true).expect("room");
    assert_eq!(disk.calls() - before, 2);
    assert_eq!(opened.writer.synced(), opened.writer.position());
    assert_eq!(opened.writer.synced_version(), 10);
}

#[test]
fn failed_write_and_failed_sync_are_final() {
    for call in 1..=2 {
        let disk = disk_with_log(Planted::default());
        let log = log_on(&disk, Planted::default());
        let (mut opened, _) = recover_all(&log, &LogStart::default(), Recovery::Strict).expect("it opens");
        disk.fail(disk.calls() + call, crate::io::Fault::InputOutput, false);
        let payloads = [payload(1, 0, 10)];
        let failed = write_all(&mut opened.writer, &mut opened.maker, &payloads, true);
        assert!(matches!(failed, Err(Error::Io { .. })), "{failed:?}");
        let next = [Record::new(opened.writer.last_version() + 1, b"x")];
        assert!(matches!(opened.writer.write(&next, false), Err(Error::Stopped { .. })));
        assert!(matches!(opened.writer.sync(), Err(Error::Stopped { .. })));
        assert_eq!(opened.writer.synced_version(), 0);
    }
}

#[test]
fn writing_more_than_was_reserved_is_refused_whole() {
    let disk = disk_with_log(Planted::default());
    let log = log_on(&disk, Planted::default());
    let (mut opened, _) = recover_all(&log, &LogStart::default(), Recovery::Strict).expect("it opens");
    let long = payload(1, 0, 20_000);
    let refused = opened.writer.write(&[Record::new(1, &long)], true);
    assert_eq!(refused.expect_err("no room").io_kind(), Some(std::io::ErrorKind::StorageFull));
    write_all(&mut opened.writer, &mut opened.maker, &[long], true).expect("it is not final");
}

#[test]
fn log_begins_with_the_first_segment_that_is_needed() {
    let disk = disk_with_log(Planted::default());
    let log = log_on(&disk, Planted::default());
    let (mut opened, _) = recover_all(&log, &LogStart::default(), Recovery::Strict).expect("it opens");
    let payloads: Vec<_> =
        [15_000, 900, 3_000, 70_000, 10].into_iter().map(|len| payload(1, 0, len)).collect();
    write_all(&mut opened.writer, &mut opened.maker, &payloads, true).expect("room");
    // Version 3 lies over the end of the first segment, version 4 over those of the second and third.
    for (first_segment, first_version) in [(2, 4), (3, 5), (4, 5)] {
        let start = LogStart { first_segment, first_version, ..LogStart::default() };
        let (recovered, records) =
            recover_all(&log, &start, Recovery::Strict).expect("leftovers do not count");
        assert_eq!(recovered.report.swept.len(), 1, "the segment before {first_segment}");
        let expected: Vec<_> = (1..).zip(payloads.clone()).skip(first_version as usize - 1).collect();
        assert_eq!(records, expected);
        assert_eq!(recovered.last_version, 5);
    }
    assert!(recover_all(&log, &LogStart::default(), Recovery::Strict).is_err(), "what is needed is missing");
    write_all(&mut opened.writer, &mut opened.maker, &[payload(1, 0, 40_000)], true).expect("room");
    log.remove_before(5).expect("it removes");
    let start = LogStart { first_segment: 5, first_version: 7, ..LogStart::default() };
    assert_eq!(recover_all(&log, &start, Recovery::Strict).expect("it opens").0.last_version, 6);
    assert_eq!(disk.files().len(), 1);
}
