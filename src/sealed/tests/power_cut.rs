//! Power cuts, dying processes and failing disks: volumes are complete or absent, and what is left goes.

use super::super::sweep::Swept;
use super::*;
use crate::io::{CutState, Fault, SimulatedDisk};

/// A disk with a database's folder.
fn base() -> SimulatedDisk {
    let disk = SimulatedDisk::new(1);
    disk.create_dir_all("/db".as_ref()).expect("room");
    disk.after_power_cut(CutState::All, 0)
}

fn states() -> impl Iterator<Item = (CutState, u64)> {
    let seeds = |state: CutState| 0..if state.is_random() { 4 } else { 1 };
    CutState::ALL.into_iter().flat_map(move |state| seeds(state).map(move |seed| (state, seed)))
}

/// Whether the volume is there; then all of it is.
fn exists(disk: &SimulatedDisk, block: BlockVolume, namespace: &Namespace, metrics: &[Metric]) -> bool {
    let checkpoint = disk.open(&path(&block, namespace, VolumeFile::Checkpoint), false).expect("a folder");
    let exists = checkpoint.is_some();
    if exists {
        let volume = store_on(disk, 1).volume(block, namespace);
        assert_readable(&volume, metrics);
        assert!(volume.verify().is_empty(), "{:?}", volume.verify());
    }
    exists
}

/// Does a thing with the power cut at each of its calls, before and within it, and gives what is found to `check`: after the cut, and, if no
/// write was torn, by the next process of a machine that stays on.
fn cut_everywhere(
    before: &SimulatedDisk,
    act: impl Fn(&SimulatedDisk) -> Result<()>,
    mut check: impl FnMut(&SimulatedDisk, bool, &str),
) {
    let whole = before.after_power_cut(CutState::All, 0);
    act(&whole).expect("room");
    for (call, within) in (1..=whole.calls()).flat_map(|call| [(call, false), (call, true)]) {
        let disk = before.after_power_cut(CutState::All, 0);
        if within {
            disk.cut_power_within(call)
        } else {
            disk.cut_power_at(call)
        }
        assert!(act(&disk).is_err());
        for (state, seed) in states() {
            let what = format!("{state:?} ({seed}) at call {call}, within {within}");
            check(&disk.after_power_cut(state, seed), false, &what);
        }
        if !within {
            disk.restore_power();
            check(&disk, true, &format!("process died at call {call}"));
        }
    }
}

#[test]
fn volume_is_complete_or_absent_after_a_cut_at_any_call() {
    let (namespace, metrics) = metrics();
    let metrics = &metrics[..7];
    let base = base();
    let (mut with, mut without) = (0, 0);
    let act = |disk: &SimulatedDisk| write(&store_on(disk, 1), &block(0), &namespace, metrics);
    cut_everywhere(&base, act, |found, is_same_machine, what| {
        let store = store_on(found, 1);
        if exists(found, block(0), &namespace, metrics) {
            with += 1;
            let volume = store.volume(block(0), &namespace);
            assert_eq!(store.sweep([&*volume]).expect("power is on"), Swept::default(), "{what}");
            assert_readable(&volume, metrics);
        } else {
            without += 1;
        }
        // The log does not name it. It goes, and what does not tell whose it is does not stand in the way.
        let swept = store.sweep([]).expect("power is on");
        assert_eq!(files_in(found, DATA.as_ref()), swept.foreign, "{what}");
        if is_same_machine {
            // Only of a supplement that had no head yet nobody can tell.
            let unknown = supplement_path(&block(0), &namespace);
            assert!(swept.foreign.iter().all(|path| *path == unknown), "{what}: {:?}", swept.foreign);
        }
        assert!(!exists(found, block(0), &namespace, metrics), "{what}");
        act(found).expect("power is on");
        let durable = found.after_power_cut(CutState::None, 0);
        assert!(exists(&durable, block(0), &namespace, metrics), "{what}: its folders' names are durable");
    });
    assert!(with > 0 && without > 0, "{with} with it, {without} without");
}

/// Volumes 0 and 1 of a block, both durable.
fn with_two(namespace: &Namespace, metrics: &[Metric]) -> SimulatedDisk {
    let disk = base();
    for number in [0, 1] {
        write(&store_on(&disk, 1), &block(number), namespace, metrics).expect("room");
    }
    disk.after_power_cut(CutState::None, 0)
}

/// Has a store both volumes of `with_two` to remove.
fn supersede_both(store: &VolumeStore, namespace: &Namespace) {
    for number in [0, 1] {
        store.volume(block(number), namespace).supersede(Version(9));
    }
}

#[test]
fn removed_volume_is_complete_or_absent_after_a_cut_at_any_call() {
    let (namespace, metrics) = metrics();
    let metrics = &metrics[..7];
    let before = with_two(&namespace, metrics);
    let act = |disk: &SimulatedDisk| {
        let store = store_on(disk, 1);
        supersede_both(&store, &namespace);
        store.remove_superseded(Version(9)).map(|removed| assert_eq!(removed, 2))
    };
    let mut seen = [0; 3];
    cut_everywhere(&before, act, |found, _, what| {
        let left = [0, 1].map(|number| exists(found, block(number), &namespace, metrics));
        seen[left.into_iter().filter(|left| *left).count()] += 1;
        let swept = store_on(found, 1).sweep([]).expect("power is on");
        assert!(swept.foreign.is_empty() && files_in(found, DATA.as_ref()).is_empty(), "{what}: {swept:?}");
        act(found).expect("it is no error if they are gone");
    });
    assert!(seen.iter().all(|seen| *seen > 0), "none, one or both: {seen:?}");
}

#[test]
fn removal_that_failed_is_tried_again_and_holds_up_no_other() {
    let (namespace, metrics) = metrics();
    let metrics = &metrics[..7];
    let before = with_two(&namespace, metrics);
    let whole = before.after_power_cut(CutState::All, 0);
    let store = store_on(&whole, 1);
    supersede_both(&store, &namespace);
    store.remove_superseded(Version(9)).expect("power is on");
    for call in 1..=whole.calls() {
        let disk = before.after_power_cut(CutState::All, 0);
        let store = store_on(&disk, 1);
        supersede_both(&store, &namespace);
        disk.fail(call, Fault::InputOutput, false);
        store.remove_superseded(Version(9)).expect_err("a call failed");
        assert_eq!(store.superseded(), 1, "call {call}: the other one is gone");
        assert_eq!(store.remove_superseded(Version(9)).expect("power is on"), 1, "call {call}");
        assert_eq!(store.superseded(), 0);
        assert!(files_in(&disk, DATA.as_ref()).is_empty(), "call {call}");
    }
}

#[test]
fn failed_write_can_be_repeated_by_the_same_store() {
    let (namespace, metrics) = metrics();
    let metrics = &metrics[..7];
    let base = base();
    let whole = base.after_power_cut(CutState::All, 0);
    write(&store_on(&whole, 1), &block(0), &namespace, metrics).expect("room");
    for call in 1..=whole.calls() {
        let disk = base.after_power_cut(CutState::All, 0);
        let store = store_on(&disk, 1);
        disk.fail(call, Fault::InputOutput, false);
        write(&store, &block(0), &namespace, metrics).expect_err("a call failed");
        let volume = store.volume(block(0), &namespace);
        volume.supersede(Version(0));
        drop(volume);
        store.remove_superseded(Version(0)).expect("power is on");
        assert!(files_in(&disk, DATA.as_ref()).is_empty(), "call {call}");
        write(&store, &block(0), &namespace, metrics).expect("power is on");
        let durable = disk.after_power_cut(CutState::None, 0);
        assert!(exists(&durable, block(0), &namespace, metrics), "call {call}");
    }
}
