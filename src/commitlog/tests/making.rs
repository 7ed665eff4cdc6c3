//! Making segments, also when the disk refuses.

use super::*;
use crate::io::Fault;

fn maker_on(disk: &SimulatedDisk) -> SegmentMaker {
    let log = log_on(disk, Planted::default());
    recover_all(&log, &LogStart::default(), Recovery::Strict).expect("it opens").0.maker
}

#[test]
fn segments_double_up_to_the_largest_size() {
    let mut maker = maker_on(&disk_with_log(Planted::default()));
    let sizes: Vec<_> = (0..3).map(|_| maker.make(0).expect("room").header.size).collect();
    assert_eq!(sizes, [32 << 10; 3], "the first has 16 KiB");
}

#[test]
fn segment_is_as_large_as_is_wanted() {
    let disk = SimulatedDisk::new(1);
    disk.create_dir_all(DIR.as_ref()).expect("room");
    let log = Log { sizes: SegmentSizes::default(), ..log_on(&disk, Planted::default()) };
    let (writer, mut maker) = log.create(0).expect("room");
    assert_eq!(writer.free_bytes(), (256 << 10) - 96 - 40);
    let segment = maker.make(3 << 20).expect("room");
    assert_eq!(segment.header.size, 4 << 20);
    assert!(segment.usable_bytes() >= 3 << 20);
    assert_eq!(maker.make(0).expect("room").header.size, 8 << 20);
}

#[test]
fn sizes_are_checked() {
    for (min, max) in [(1 << 13, 1 << 20), (1 << 15, 1 << 14), (100_000, 1 << 20), (1 << 20, 1 << 31)] {
        assert!(matches!(SegmentSizes::new(min, max), Err(Error::InvalidOption { .. })), "{min} to {max}");
    }
}

#[test]
fn failed_making_leaves_nothing_and_can_be_repeated() {
    let base = disk_with_log(Planted::default());
    let calls = {
        let disk = copy(&base);
        let mut maker = maker_on(&disk);
        let before = disk.calls();
        maker.make(0).expect("room");
        disk.calls() - before
    };
    for call in 1..=calls {
        for fault in
            [Fault::NoSpace, Fault::Quota, Fault::ShortWrite, Fault::InputOutput, Fault::TooManyFiles]
        {
            let disk = copy(&base);
            let mut maker = maker_on(&disk);
            let before = disk.files();
            disk.fail(disk.calls() + call, fault, false);
            let error = maker.make(0).expect_err("it was made to fail");
            let out_of_space = matches!(fault, Fault::NoSpace | Fault::Quota | Fault::ShortWrite);
            assert_eq!(
                matches!(error, Error::DiskFull { .. }),
                out_of_space,
                "{fault:?} at {call}: {error:?}"
            );
            assert_eq!(disk.files(), before, "{fault:?} at {call}");
            disk.clear_faults();
            let segment = maker.make(0).expect("the second try works");
            assert_eq!(segment.sequence(), 2);
            let found = disk.after_power_cut(crate::io::CutState::None, 0);
            let folder =
                LogFolder::list(&found, &log_on(&found, Planted::default()).folder()).expect("it lists");
            assert!(folder.segments.contains_key(&2), "durable after {fault:?} at {call}");
        }
    }
}

#[test]
fn full_disk_is_told_and_writing_goes_on_when_there_is_space() {
    let disk = disk_with_log(Planted::default());
    let log = log_on(&disk, Planted::default());
    let (mut opened, _) = recover_all(&log, &LogStart::default(), Recovery::Strict).expect("it opens");
    disk.set_capacity(Some(disk.bytes_allocated() + 20_000));
    let payloads = [payload(1, 0, 20_000)];
    for _ in 0..3 {
        let full = write_all(&mut opened.writer, &mut opened.maker, &payloads, true);
        assert!(matches!(full, Err(Error::DiskFull { .. })), "{full:?}");
    }
    write_all(&mut opened.writer, &mut opened.maker, &[payload(1, 0, 9)], true)
        .expect("what fits is still taken");
    disk.set_capacity(None);
    write_all(&mut opened.writer, &mut opened.maker, &payloads, true).expect("room again");
}
