//! The format as `design/commitlog.md` describes it, and as earlier versions of the code wrote it.

use super::*;

const GOLDEN: &[u8] = include_bytes!("../../../tests/golden/segment-v2.bin");
const GOLDEN_V1: &[u8] = include_bytes!("../../../tests/golden/segment-v1.bin");

/// The used part of the example on the format page; the rest of its 16 KiB is zero.
fn example() -> SimulatedDisk {
    let disk = disk_with_log(Planted::default());
    let log = log_on(&disk, Planted::default());
    let (mut opened, _) = recover_all(&log, &LogStart::default(), Recovery::Strict).expect("it opens");
    write_all(&mut opened.writer, &mut opened.maker, &[b"first".to_vec()], true).expect("room");
    write_all(&mut opened.writer, &mut opened.maker, &[Vec::new(), b"third!!!".to_vec()], true)
        .expect("room");
    disk
}

#[test]
fn golden_segments_are_read() {
    for golden in [GOLDEN_V1, GOLDEN] {
        let disk = disk_with_log(Planted::default());
        change(&disk, &path(1), |bytes| bytes[..golden.len()].copy_from_slice(golden));
        let log = log_on(&disk, Planted::default());
        let (opened, records) = recover_all(&log, &LogStart::default(), Recovery::Strict).expect("it opens");
        assert_eq!(records, [(1, b"first".to_vec()), (2, Vec::new()), (3, b"third!!!".to_vec())]);
        assert_eq!(opened.writer.position(), Position { segment: 1, offset: golden.len() as u32 });
    }
}

#[test]
fn a_log_of_version_1_goes_on_in_its_segment_and_then_in_newer_ones() {
    let disk = disk_with_log(Planted::default());
    change(&disk, &path(1), |bytes| {
        bytes.fill(0);
        bytes[..GOLDEN_V1.len()].copy_from_slice(GOLDEN_V1);
    });
    let log = log_on(&disk, Planted::default());
    let owner = |disk| LogFolder::list(disk, &log.folder()).expect("listed").owner(disk).expect("readable");
    assert_eq!(owner(&disk), Some((ID, None)));
    let (mut opened, _) = recover_all(&log, &LogStart::default(), Recovery::Strict).expect("it opens");
    let more: Vec<_> = (4..40).map(|version| payload(version, 0, 1_000)).collect();
    write_all(&mut opened.writer, &mut opened.maker, &more, true).expect("room");
    assert_eq!(opened.writer.position().segment, 2);
    assert_eq!(owner(&disk), Some((ID, Some(NOTE))), "the newer one has it");
    let (opened, records) = recover_all(&log, &LogStart::default(), Recovery::Strict).expect("it opens");
    assert_eq!((opened.last_version, records.len()), (39, 39));
    assert_eq!(
        records[3..].iter().map(|(_, payload)| payload).collect::<Vec<_>>(),
        more.iter().collect::<Vec<_>>()
    );
    // A damaged header does not tell where the frames start.
    for byte in [0, 8, 63] {
        let disk = copy(&disk);
        change(&disk, &path(1), |bytes| bytes[byte] ^= 1);
        let log = log_on(&disk, Planted::default());
        let (_, kept) = recover_all(&log, &LogStart::default(), Recovery::Salvage).expect("salvaged");
        assert_eq!(kept, records, "byte {byte}");
    }
}

#[test]
fn golden_segment_is_written() {
    let written = example().map(&path(1)).expect("it is there").to_vec();
    assert_eq!(written[..GOLDEN.len()], *GOLDEN);
    assert!(written[GOLDEN.len()..].iter().all(|byte| *byte == 0));
}
