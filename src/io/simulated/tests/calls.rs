//! Counters, the trace, the watcher, and what else a disk tells.

use std::sync::{Arc, Mutex};

use super::*;

#[test]
fn everything_is_counted() {
    let disk = SimulatedDisk::new(1);
    let file = create_durable(&disk, "/a", b"12345");
    file.write_at(3, b"678").unwrap();
    file.sync().unwrap();
    assert_eq!(disk.calls(), 6);
    assert_eq!((disk.syncs(), disk.dir_syncs()), (2, 1));
    assert_eq!((disk.bytes_written(), disk.bytes_allocated()), (8, 6));
    assert!(disk.create(path("/a")).is_err());
    assert_eq!(disk.calls(), 7, "a refused call is a call");
    assert_eq!(disk.files(), [(PathBuf::from("/a"), 6)]);
}

#[test]
fn trace_has_every_call_in_words() {
    let disk = SimulatedDisk::new(1);
    create(&disk, "/before", b"");
    disk.record_trace(true);
    let file = create_durable(&disk, "/a", b"12345");
    disk.fail(disk.calls() + 1, Fault::NoSpace, false);
    assert!(file.write_at(4096, &[0; 512]).is_err());
    file.set_len(2).unwrap();
    disk.rename(path("/a"), path("/b")).unwrap();
    disk.cut_power_at(disk.calls() + 1);
    assert!(file.sync().is_err());
    assert!(file.sync().is_err());
    let lines: Vec<String> = disk.trace().iter().map(ToString::to_string).collect();
    let full = Fault::NoSpace.error();
    assert_eq!(
        lines,
        [
            "3 create /a".to_owned(),
            "4 write /a at 0, 5 bytes".to_owned(),
            "5 sync /a".to_owned(),
            "6 sync folder /".to_owned(),
            format!("7 write /a at 4096, 512 bytes: {full}"),
            "8 resize /a to 2 bytes".to_owned(),
            "9 rename /a to /b".to_owned(),
            "10 sync /a: the power is off".to_owned(),
        ]
    );
    let syncs: Vec<u64> =
        disk.trace().iter().filter(|call| call.kind == CallKind::Sync).map(|call| call.number).collect();
    assert_eq!(syncs, [5, 10]);
    disk.record_trace(false);
    assert!(disk.trace().is_empty());
}

#[test]
fn watcher_sees_the_states_of_which_runs_cut_short_consist() {
    let run = |disk: &SimulatedDisk| -> Result<()> {
        for i in 0..5u8 {
            let file = disk.create(path("/new"))?;
            file.write_at(0, &[i; 1_000])?;
            file.sync()?;
            disk.rename(path("/new"), path("/a"))?;
            disk.sync_dir(path("/"))?;
        }
        Ok(())
    };
    let states = |disk: &SimulatedDisk| CutState::ALL.map(|cut| disk.after_power_cut(cut, 5).fingerprint());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let disk = SimulatedDisk::new(1);
    let (watched, before) = (seen.clone(), states(&disk));
    disk.watch(move |disk, number| {
        assert_eq!(number, disk.calls());
        watched.lock().unwrap().push(states(disk));
    });
    run(&disk).unwrap();
    disk.unwatch();
    create(&disk, "/more", b"");
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 25);
    let mut expected = vec![before];
    for call in 2..=25 {
        let disk = SimulatedDisk::new(1);
        disk.cut_power_at(call);
        assert!(run(&disk).is_err());
        expected.push(states(&disk));
    }
    assert_eq!(expected[1..], seen[..24], "after call n - 1 is before call n");
}

#[test]
fn lock_ends_with_its_value() {
    let disk = SimulatedDisk::new(1);
    let lock = disk.try_lock(path("/LOCK")).unwrap().unwrap();
    disk.cut_power_at(0);
    drop(lock);
    disk.restore_power();
    assert!(disk.try_lock(path("/LOCK")).unwrap().is_some());
}

#[test]
fn names_are_checked_as_by_the_system() {
    let disk = SimulatedDisk::new(1);
    fails_with(disk.create(path(&format!("/{}", "x".repeat(256)))), ErrorKind::InvalidFilename);
    fails_with(disk.create(path("/a\0b")), ErrorKind::InvalidInput);
    disk.create(path(&"x".repeat(255))).unwrap();
    assert_eq!(disk.files().len(), 1);
}
