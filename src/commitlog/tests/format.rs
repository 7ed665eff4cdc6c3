//! The format as `design/commitlog.md` describes it, and as earlier versions of the code wrote it.

use super::*;

const GOLDEN: &[u8] = include_bytes!("../../../tests/golden/segment-v1.bin");

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
fn golden_segment_is_read() {
    let disk = disk_with_log(Planted::default());
    change(&disk, &path(1), |bytes| bytes[..GOLDEN.len()].copy_from_slice(GOLDEN));
    let log = log_on(&disk, Planted::default());
    let (opened, records) = recover_all(&log, &LogStart::default(), Recovery::Strict).expect("it opens");
    assert_eq!(records, [(1, b"first".to_vec()), (2, Vec::new()), (3, b"third!!!".to_vec())]);
    assert_eq!(opened.writer.position(), Position { segment: 1, offset: GOLDEN.len() as u32 });
}

#[test]
fn golden_segment_is_written() {
    let written = example().map(&path(1)).expect("it is there").to_vec();
    assert_eq!(written[..GOLDEN.len()], *GOLDEN);
    assert!(written[GOLDEN.len()..].iter().all(|byte| *byte == 0));
}
