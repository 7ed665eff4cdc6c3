//! Syncs that take long.

use std::thread;
use std::time::Duration;

use super::*;

// A hold is made inside the scope of its threads, so that a failing test drops it and ends.

/// Long enough for a thread to be scheduled on any machine.
const LONG: Duration = Duration::from_secs(60);

#[test]
fn held_sync_waits_while_other_work_goes_on() {
    let disk = SimulatedDisk::new(1);
    let file = create(&disk, "/a", b"1");
    disk.sync_dir(path("/")).unwrap();
    thread::scope(|scope| {
        let hold = disk.hold_syncs();
        let sync = scope.spawn(|| file.sync());
        assert!(hold.wait_for(1, LONG));
        assert_eq!(hold.waiting(), 1);
        file.write_at(1, b"2").unwrap();
        disk.sync_dir(path("/")).unwrap();
        assert_eq!(found(&disk)["/a"], b"12");
        assert!(!sync.is_finished());
        expect(&disk, CutState::None, &[("/a", b"")]);
        hold.release();
        sync.join().unwrap().unwrap();
    });
    expect(&disk, CutState::None, &[("/a", b"1")]);
    file.sync().unwrap();
    expect(&disk, CutState::None, &[("/a", b"12")]);
}

#[test]
fn held_syncs_go_on_one_by_one() {
    let disk = SimulatedDisk::new(1);
    let files = [create(&disk, "/a", b"1"), create(&disk, "/b", b"2")];
    disk.sync_dir(path("/")).unwrap();
    thread::scope(|scope| {
        let hold = disk.hold_syncs();
        assert!(!hold.let_one_through(), "nobody waits");
        assert!(!hold.wait_for(1, Duration::ZERO));
        let first = scope.spawn(|| files[0].sync());
        assert!(hold.wait_for(1, LONG));
        let second = scope.spawn(|| files[1].sync());
        assert!(hold.wait_for(2, LONG));
        assert!(hold.let_one_through());
        first.join().unwrap().unwrap();
        assert_eq!(hold.waiting(), 1);
        expect(&disk, CutState::None, &[("/a", b"1"), ("/b", b"")]);
        drop(hold);
        second.join().unwrap().unwrap();
    });
    expect(&disk, CutState::None, &[("/a", b"1"), ("/b", b"2")]);
    let hold = disk.hold_syncs();
    assert_eq!(hold.waiting(), 0, "a later hold begins anew");
}

#[test]
fn held_sync_fails_as_decided_or_when_the_power_goes() {
    let disk = SimulatedDisk::new(1);
    let file = create_durable(&disk, "/a", b"-");
    thread::scope(|scope| {
        let hold = disk.hold_syncs();
        file.write_at(0, b"1").unwrap();
        disk.fail(disk.calls() + 1, Fault::InputOutput, false);
        let sync = scope.spawn(|| file.sync());
        assert!(hold.wait_for(1, LONG));
        file.write_at(0, b"2").unwrap();
        assert!(hold.let_one_through());
        assert!(sync.join().unwrap().is_err());
        expect(&disk, CutState::All, &[("/a", b"2")]);

        let sync = scope.spawn(|| file.sync());
        assert!(hold.wait_for(1, LONG));
        disk.cut_power_at(0);
        assert!(file.sync().is_err(), "without power nothing waits");
        drop(hold);
        assert!(sync.join().unwrap().is_err());
    });
    expect(&disk, CutState::None, &[("/a", b"-")]);
    expect(&disk, CutState::All, &[("/a", b"2")]);
}
