//! Calls that fail, and disks that are full.

use std::sync::{Arc, Mutex};

use super::*;
use crate::error::Error;

#[test]
fn failed_sync_loses_the_pages() {
    let disk = SimulatedDisk::new(1);
    let file = create_durable(&disk, "/a", b"----");
    file.write_at(0, b"1").unwrap();
    disk.fail(disk.calls() + 1, Fault::InputOutput, false);
    assert!(file.sync().is_err());
    assert_eq!(found(&disk)["/a"], b"1---", "it reads as if nothing had happened");
    file.write_at(2, b"2").unwrap();
    expect(&disk, CutState::All, &[("/a", b"--2-")]);
    file.sync().unwrap();
    for cut in CutState::ALL {
        expect(&disk, cut, &[("/a", b"--2-")]);
    }
    assert_eq!(found(&disk)["/a"], b"1-2-");
    file.write_at(0, b"1").unwrap();
    file.sync().unwrap();
    expect(&disk, CutState::None, &[("/a", b"1-2-")]);
}

#[test]
fn failed_sync_of_one_file_leaves_others_alone() {
    let disk = SimulatedDisk::new(1);
    let (a, b) = (create(&disk, "/a", b"1"), create(&disk, "/b", b"2"));
    disk.sync_dir(path("/")).unwrap();
    disk.fail(disk.calls() + 1, Fault::NoSpace, false);
    assert!(a.sync().is_err());
    b.sync().unwrap();
    a.sync().unwrap();
    expect(&disk, CutState::None, &[("/a", b""), ("/b", b"2")]);
}

#[test]
fn failed_folder_sync_can_be_repeated() {
    let disk = SimulatedDisk::new(1);
    create(&disk, "/a", b"1").sync().unwrap();
    disk.fail(disk.calls() + 1, Fault::InputOutput, false);
    fails_with(disk.sync_dir(path("/")), Fault::InputOutput.error().kind());
    expect(&disk, CutState::None, &[]);
    disk.sync_dir(path("/")).unwrap();
    expect(&disk, CutState::None, &[("/a", b"1")]);
}

#[test]
fn faults_have_the_errors_of_the_system() {
    for (fault, kind) in [
        (Fault::NoSpace, ErrorKind::StorageFull),
        (Fault::ShortWrite, ErrorKind::StorageFull),
        (Fault::Quota, ErrorKind::QuotaExceeded),
        (Fault::ReadOnly, ErrorKind::ReadOnlyFilesystem),
        (Fault::Interrupted, ErrorKind::Interrupted),
    ] {
        assert_eq!(fault.error().kind(), kind);
    }
    #[cfg(target_os = "linux")]
    for (fault, code) in [
        (Fault::InputOutput, 5),
        (Fault::NoSpace, 28),
        (Fault::Quota, 122),
        (Fault::TooManyFiles, 24),
        (Fault::ReadOnly, 30),
    ] {
        assert_eq!(fault.error().raw_os_error(), Some(code));
    }
}

/// Makes each kind of call that counts, in a fixed order, and returns what came of it.
fn one_of_each(disk: &SimulatedDisk) -> Vec<(CallKind, Result<()>)> {
    let file = disk.open(path("/old"), true).unwrap().unwrap();
    vec![
        (CallKind::CreateFolder, disk.create_dir_all(path("/d"))),
        (CallKind::Create, disk.create(path("/new")).map(drop)),
        (CallKind::Write, file.write_at(0, b"22")),
        (CallKind::Resize, file.set_len(9)),
        (CallKind::Sync, file.sync()),
        (CallKind::Rename, disk.rename(path("/old"), path("/renamed"))),
        (CallKind::SyncFolder, disk.sync_dir(path("/"))),
        (CallKind::Lock, disk.try_lock(path("/LOCK")).map(drop)),
        (CallKind::Remove, disk.remove(path("/other"))),
    ]
}

fn base() -> SimulatedDisk {
    let disk = SimulatedDisk::new(1);
    create(&disk, "/old", b"1111");
    create(&disk, "/other", b"");
    disk.after_power_cut(CutState::All, 0)
}

#[test]
fn every_call_fails_as_asked_and_changes_nothing() {
    let whole = base();
    let calls = one_of_each(&whole).len() as u64;
    assert_eq!(whole.calls(), calls);
    for fault in Fault::ALL {
        for number in 1..=calls {
            let disk = base();
            let states = Arc::new(Mutex::new(vec![disk.fingerprint()]));
            let seen = states.clone();
            disk.watch(move |disk, _| seen.lock().unwrap().push(disk.fingerprint()));
            disk.fail(number, fault, false);
            // After the failed call others may fail because of it (the rename of a file, say), or not.
            let (kind, done) = one_of_each(&disk).remove(number as usize - 1);
            let states = states.lock().unwrap();
            let unchanged = states[number as usize - 1] == states[number as usize];
            match (fault, kind) {
                (Fault::Interrupted, _) => {
                    done.unwrap();
                    assert_eq!(disk.interrupted(), 1);
                    assert_eq!(disk.fingerprint(), whole.fingerprint());
                    continue;
                }
                (Fault::ShortWrite, CallKind::Write) => assert!(!unchanged),
                _ => assert!(unchanged, "{fault:?} {kind:?}"),
            }
            let Err(Error::Io { op, source, .. }) = done else { panic!("{fault:?} {kind:?} succeeded") };
            assert_eq!((op, source.raw_os_error()), (kind.op(), fault.error().raw_os_error()));
        }
    }
}

#[test]
fn sticky_fault_stays_until_cleared() {
    let disk = SimulatedDisk::new(1);
    disk.fail(3, Fault::NoSpace, true);
    let file = create(&disk, "/a", b"1");
    for _ in 0..5 {
        fails_with(file.write_at(1, b"2"), ErrorKind::StorageFull);
        fails_with(disk.create(path("/b")), ErrorKind::StorageFull);
    }
    assert_eq!(found(&disk)["/a"], b"1", "reads go on");
    disk.clear_faults();
    file.write_at(1, b"2").unwrap();
    assert_eq!(found(&disk)["/a"], b"12");
}

#[test]
fn short_write_writes_half() {
    let disk = SimulatedDisk::new(1);
    disk.fail(2, Fault::ShortWrite, false);
    let file = disk.create(path("/a")).unwrap();
    fails_with(file.write_at(0, b"123456"), ErrorKind::StorageFull);
    assert_eq!(found(&disk)["/a"], b"123");
    assert_eq!(disk.bytes_written(), 3);
}

#[test]
fn reads_count_and_fail_only_when_asked_to() {
    let disk = SimulatedDisk::new(1);
    let file = create(&disk, "/a", b"1");
    let read_all = || -> [Result<()>; 5] {
        [
            disk.read_dir(path("/")).map(drop),
            disk.open(path("/a"), false).map(drop),
            disk.map(path("/a")).map(drop),
            file.len().map(drop),
            file.read_at(0, &mut [0]).map(drop),
        ]
    };
    read_all().into_iter().for_each(Result::unwrap);
    assert_eq!(disk.calls(), 2);
    disk.count_reads(true);
    read_all().into_iter().for_each(Result::unwrap);
    assert_eq!(disk.calls(), 7);
    disk.fail(8, Fault::TooManyFiles, true);
    for done in read_all() {
        let Err(Error::Io { source, .. }) = done else { panic!("a read succeeded") };
        assert_eq!(source.raw_os_error(), Fault::TooManyFiles.error().raw_os_error());
    }
    disk.count_reads(false);
    read_all().into_iter().for_each(Result::unwrap);
}

#[test]
fn full_disk_takes_what_fits() {
    let disk = SimulatedDisk::new(1);
    disk.set_capacity(Some(10));
    let file = create(&disk, "/a", b"1234567");
    fails_with(file.write_at(7, b"89ABCD"), ErrorKind::StorageFull);
    assert_eq!(found(&disk)["/a"], b"123456789A");
    fails_with(file.set_len(11), ErrorKind::StorageFull);
    fails_with(disk.create(path("/b")), ErrorKind::StorageFull);
    fails_with(disk.try_lock(path("/b")), ErrorKind::StorageFull);
    file.write_at(0, b"abcdefghij").unwrap();
    file.sync().unwrap();
    file.set_len(5).unwrap();
    assert_eq!(disk.bytes_allocated(), 5);
    fails_with(file.write_at(20, b"x"), ErrorKind::StorageFull);
    assert_eq!(file.len().unwrap(), 5, "a gap that does not fit is not made");
    disk.set_capacity(Some(6));
    file.write_at(5, b"k").unwrap();
    disk.set_capacity(None);
    file.write_at(6, b"lmn").unwrap();
    assert_eq!(found(&disk)["/a"], b"abcdeklmn");
}

#[test]
fn removing_and_replacing_frees_space() {
    let disk = SimulatedDisk::new(1);
    disk.set_capacity(Some(10));
    let removed = create(&disk, "/a", b"12345");
    create(&disk, "/b", b"123");
    disk.rename(path("/b"), path("/a")).unwrap();
    assert_eq!(disk.bytes_allocated(), 3);
    removed.write_at(0, &[1; 100]).unwrap();
    assert_eq!(disk.bytes_allocated(), 3, "a file without a name takes no space");
    disk.remove(path("/a")).unwrap();
    assert_eq!(disk.bytes_allocated(), 0);
    create(&disk, "/c", b"1234567890");
}
