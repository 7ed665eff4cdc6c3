//! Power cuts and failing disks: a volume is there whole or not at all.

use super::*;
use crate::io::{CallKind, CutState, Fault, SimulatedDisk};

const METRICS: u8 = 10;

/// A disk with the shard's folder, and volume 0 of the block in it, all of it durable.
fn base() -> SimulatedDisk {
    let disk = SimulatedDisk::new(1);
    disk.create_dir_all(FOLDER.as_ref()).expect("room");
    write(&disk, older_spec(), &metrics(METRICS, 0)).expect("room");
    disk.after_power_cut(CutState::All, 0)
}

fn older_spec() -> VolumeSpec {
    VolumeSpec { name: VolumeName { volume: 0, ..NAME }, ..SPEC }
}

fn write_newer(disk: &SimulatedDisk) -> Result<()> {
    write(disk, SPEC, &metrics(METRICS, 1))
}

/// The same volume with a supplement.
fn write_numbered(disk: &SimulatedDisk) -> Result<()> {
    write(disk, NUMBERED_SPEC, &metrics(METRICS, 1))
}

/// The same name with other metrics, with or without a supplement.
fn write_another(disk: &SimulatedDisk, numbered: bool) -> Result<()> {
    write(disk, if numbered { NUMBERED_SPEC } else { SPEC }, &metrics(METRICS + 1, 2))
}

/// Whether the newer volume exists. What exists is whole.
fn newer_exists(disk: &SimulatedDisk, what: &str) -> bool {
    let folder = VolumeFolder::list(disk, FOLDER.as_ref()).expect("a folder");
    let latest = folder.latest(NAME.block_start).unwrap_or_else(|| panic!("{what}: both are gone"));
    let salt = latest.volume as u8;
    let volume =
        Volume::open(disk, FOLDER.as_ref(), latest).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_whole(&volume, &metrics(METRICS, salt));
    assert!(folder.complete.contains(&older_spec().name), "{what}");
    assert!(folder.foreign.is_empty(), "{what}: {:?}", folder.foreign);
    latest == NAME
}

fn states() -> impl Iterator<Item = (CutState, u64)> {
    CutState::ALL
        .into_iter()
        .flat_map(|state| (0..if state.is_random() { 4 } else { 1 }).map(move |seed| (state, seed)))
}

#[test]
fn volume_is_there_whole_or_not_at_all_after_a_cut_at_any_call() {
    let base = base();
    let calls = {
        let disk = base.after_power_cut(CutState::All, 0);
        write_newer(&disk).expect("room");
        for (state, seed) in states() {
            let found = disk.after_power_cut(state, seed);
            assert!(newer_exists(&found, "finished"), "{state:?}");
        }
        disk.calls()
    };
    let (mut with, mut without) = (0, 0);
    for (call, within) in (1..=calls).flat_map(|call| [(call, false), (call, true)]) {
        let disk = base.after_power_cut(CutState::All, 0);
        if within {
            disk.cut_power_within(call)
        } else {
            disk.cut_power_at(call)
        }
        assert!(write_newer(&disk).is_err());
        for (state, seed) in states() {
            let what = format!("{state:?} ({seed}) at call {call}");
            let found = disk.after_power_cut(state, seed);
            let exists = newer_exists(&found, &what);
            if exists {
                with += 1
            } else {
                without += 1
            }
            let again = write_newer(&found);
            assert_eq!(again.is_err(), exists, "{what}: what was left is replaced");
            assert!(newer_exists(&found.after_power_cut(CutState::None, 0), &what));
        }
    }
    assert!(with > 0 && without > 0, "{with} with it, {without} without");
}

#[test]
fn failed_call_leaves_no_half_volume_and_writing_can_be_repeated() {
    let base = base();
    let calls = {
        let disk = base.after_power_cut(CutState::All, 0);
        write_newer(&disk).expect("room");
        disk.calls()
    };
    let faults = Fault::ALL.into_iter().filter(|fault| *fault != Fault::Interrupted);
    for (fault, call) in faults.flat_map(|fault| (1..=calls).map(move |call| (fault, call))) {
        let disk = base.after_power_cut(CutState::All, 0);
        disk.fail(call, fault, false);
        let what = format!("{fault:?} at call {call}");
        let failed = write_newer(&disk).is_err();
        assert!(failed || newer_exists(&disk, &what), "{what}");
        disk.clear_faults();
        for (state, seed) in states() {
            let found = disk.after_power_cut(state, seed);
            assert!(newer_exists(&found, &what) || failed, "{what}");
        }
        let exists = newer_exists(&disk, &what);
        assert_eq!(write_newer(&disk).is_err(), exists, "{what}");
        assert!(newer_exists(&disk, &what));
    }
}

#[test]
fn ignored_error_comes_back_when_the_volume_is_finished() {
    let stream = vec![7; 300_000];
    let write_ignoring = |disk: &SimulatedDisk| {
        let mut writer = SortedVolumeWriter::create(disk, FOLDER.as_ref(), SPEC, 3)?;
        let mut failed = false;
        for id in [b"a", b"b", b"c"] {
            let stream = if id == b"b" { &stream[..] } else { b"short" };
            failed |= writer.append(MetricStream { id, tags: b"", stream }).is_err();
        }
        let finished = writer.finish();
        assert!(!failed || finished.is_err());
        finished
    };
    let base = base();
    let calls = {
        let disk = base.after_power_cut(CutState::All, 0);
        write_ignoring(&disk).expect("room");
        disk.calls()
    };
    for call in 1..=calls {
        let disk = base.after_power_cut(CutState::All, 0);
        disk.fail(call, Fault::ShortWrite, false);
        assert!(write_ignoring(&disk).is_err(), "call {call}");
        let exists = open(&disk).map(|volume| assert!(volume.verify().is_empty())).is_ok();
        assert_eq!(exists, call == calls, "call {call}: only the last is behind the rename");
    }
}

#[test]
fn removed_volume_is_there_whole_or_not_at_all_after_a_cut_at_any_call() {
    let base = base();
    write_newer(&base).expect("room");
    let remove = |disk: &SimulatedDisk| remove_volume(disk, FOLDER.as_ref(), NAME);
    let before = base.after_power_cut(CutState::All, 0);
    let calls = {
        let disk = before.after_power_cut(CutState::All, 0);
        remove(&disk).expect("it goes");
        assert_eq!(disk.files().len(), VolumeFile::ALL.len(), "the older one's");
        disk.calls()
    };
    for call in 1..=calls {
        let disk = before.after_power_cut(CutState::All, 0);
        disk.cut_power_at(call);
        assert!(remove(&disk).is_err());
        for (state, seed) in states() {
            let what = format!("{state:?} ({seed}) at call {call}");
            let found = disk.after_power_cut(state, seed);
            newer_exists(&found, &what);
            remove(&found).expect("it goes now");
            assert!(!newer_exists(&found, &what));
        }
    }
}

/// The calls of one kind or another, with the last part of the file's name.
fn trace(disk: &SimulatedDisk, kinds: &[CallKind]) -> Vec<String> {
    let told = |call: crate::io::Call| {
        let name = call.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = name.trim_end_matches(".db").rsplit('-').next().unwrap_or_default().to_owned();
        format!("{:?} {name}", call.kind)
    };
    disk.trace().into_iter().filter(|call| kinds.contains(&call.kind)).map(told).collect()
}

/// The simulated disk keeps the order of names in a folder. File systems need not: the order of calls is what counts there.
#[test]
fn calls_come_in_the_order_of_the_format_page() {
    let disk = base();
    disk.record_trace(true);
    write_newer(&disk).expect("room");
    let calls = trace(&disk, &[CallKind::Sync, CallKind::SyncFolder, CallKind::Rename]);
    let syncs = ["Sync info", "Sync index", "Sync summaries", "Sync bloomfilter", "Sync data", "Sync digest"];
    let rest = ["SyncFolder 0", "Sync checkpoint.new", "Rename checkpoint.new", "SyncFolder 0"];
    assert_eq!(calls, [&syncs[..], &rest].concat());
    assert_eq!((disk.syncs(), disk.dir_syncs()), (7, 2));

    disk.record_trace(true);
    remove_volume(&disk, FOLDER.as_ref(), NAME).expect("it goes");
    let calls = trace(&disk, &[CallKind::Remove, CallKind::SyncFolder]);
    assert_eq!(calls[..2], ["Remove checkpoint", "SyncFolder 0"]);
    assert!(calls[2..calls.len() - 1].iter().all(|call| call.starts_with("Remove")), "{calls:?}");
    assert_eq!(calls.last().map(String::as_str), Some("SyncFolder 0"));
}

#[test]
fn unpublished_volume_does_not_exist() {
    let disk = base();
    let mut writer = SortedVolumeWriter::create(&disk, FOLDER.as_ref(), SPEC, METRICS.into()).expect("room");
    for (id, (tags, stream)) in metrics(METRICS, 1) {
        writer.append(MetricStream { id: &id, tags: &tags, stream: &stream }).expect("room");
    }
    let synced = writer.sync().expect("room");
    assert!(!newer_exists(&disk, "synced"));
    assert!(matches!(open(&disk), Err(Error::Corrupt { reason: "the file is missing", .. })));
    // What it consists of is durable by now: only the checkpoint's own sync and rename are missing.
    let found = disk.after_power_cut(CutState::None, 0);
    let listed = VolumeFolder::list(&found, FOLDER.as_ref()).expect("a folder");
    assert!(listed.incomplete.contains(&NAME));
    synced.publish().expect("room");
    assert!(newer_exists(&disk.after_power_cut(CutState::None, 0), "published"));
}

/// What there is under the newer volume's name. Whatever it is, it is whole, and its supplement is its own.
fn numbered_found(disk: &SimulatedDisk, what: &str) -> Option<(Metrics, bool)> {
    let folder = VolumeFolder::list(disk, FOLDER.as_ref()).expect("a folder");
    assert!(folder.foreign.is_empty(), "{what}: {:?}", folder.foreign);
    assert!(folder.complete.contains(&older_spec().name), "{what}");
    if !folder.complete.contains(&NAME) {
        return None;
    }
    let volume = open(disk).unwrap_or_else(|error| panic!("{what}: {error}"));
    let len = volume.info().expect("it was checked").entries;
    let metrics = if len == u64::from(METRICS) { metrics(METRICS, 1) } else { metrics(METRICS + 1, 2) };
    assert!(volume.damage().is_empty(), "{what}: {:?}", volume.damage());
    assert_whole(&volume, &metrics);
    Some((metrics, volume.supplement().is_some()))
}

/// Does a thing with the power cut at each of its calls, before and within it, and gives what is found to `check`.
fn cut_everywhere(
    before: &SimulatedDisk,
    act: impl Fn(&SimulatedDisk) -> Result<()>,
    mut check: impl FnMut(&SimulatedDisk, &str),
) {
    let calls = {
        let disk = before.after_power_cut(CutState::All, 0);
        act(&disk).expect("room");
        disk.calls()
    };
    for (call, within) in (1..=calls).flat_map(|call| [(call, false), (call, true)]) {
        let disk = before.after_power_cut(CutState::All, 0);
        if within {
            disk.cut_power_within(call)
        } else {
            disk.cut_power_at(call)
        }
        assert!(act(&disk).is_err());
        for (state, seed) in states() {
            let what = format!("{state:?} ({seed}) at call {call}, within {within}");
            check(&disk.after_power_cut(state, seed), &what);
        }
    }
}

#[test]
fn volume_has_its_supplement_or_does_not_exist_after_a_cut_at_any_call() {
    let base = base();
    let (mut with, mut without) = (0, 0);
    cut_everywhere(&base, write_numbered, |found, what| {
        let volume = numbered_found(found, what);
        assert!(
            volume.as_ref().is_none_or(|(metrics, numbered)| *numbered && metrics.len() == METRICS.into()),
            "{what}"
        );
        if volume.is_some() {
            with += 1;
            return;
        }
        without += 1;
        // What is left never gets beside the files of another volume of the name.
        for numbered in [true, false] {
            let found = found.after_power_cut(CutState::All, 0);
            write_another(&found, numbered).expect("what was left is replaced");
            let (metrics, has_supplement) =
                numbered_found(&found.after_power_cut(CutState::None, 0), what).expect("it exists");
            assert_eq!((metrics.len(), has_supplement), (usize::from(METRICS) + 1, numbered), "{what}");
        }
    });
    assert!(with > 0 && without > 0, "{with} with it, {without} without");
}

#[test]
fn failed_call_leaves_no_volume_without_its_supplement() {
    let base = base();
    let calls = {
        let disk = base.after_power_cut(CutState::All, 0);
        write_numbered(&disk).expect("room");
        disk.calls()
    };
    let faults = Fault::ALL.into_iter().filter(|fault| *fault != Fault::Interrupted);
    for (fault, call) in faults.flat_map(|fault| (1..=calls).map(move |call| (fault, call))) {
        let disk = base.after_power_cut(CutState::All, 0);
        disk.fail(call, fault, false);
        let what = format!("{fault:?} at call {call}");
        let failed = write_numbered(&disk).is_err();
        disk.clear_faults();
        for (state, seed) in states() {
            let found = numbered_found(&disk.after_power_cut(state, seed), &what);
            assert!(found.map_or(failed, |(_, numbered)| numbered), "{what}");
        }
        let exists = numbered_found(&disk, &what).is_some();
        assert_eq!(write_numbered(&disk).is_err(), exists, "{what}");
        assert!(numbered_found(&disk, &what).is_some_and(|(_, numbered)| numbered), "{what}");
    }
}

#[test]
fn rewriting_and_removing_cut_at_any_call_never_pair_a_supplement_with_other_files() {
    let base = base();
    write_numbered(&base).expect("room");
    let before = base.after_power_cut(CutState::All, 0);
    let replace = |numbered| {
        move |disk: &SimulatedDisk| {
            remove_volume(disk, FOLDER.as_ref(), NAME)?;
            write_another(disk, numbered)
        }
    };
    for numbered in [true, false] {
        let mut seen = [0; 3];
        cut_everywhere(&before, replace(numbered), |found, what| {
            let volume = numbered_found(found, what);
            let state = match &volume {
                Some((metrics, has_supplement)) if metrics.len() == METRICS.into() => {
                    assert!(has_supplement, "{what}");
                    0
                }
                None => 1,
                Some((_, has_supplement)) => {
                    assert_eq!(*has_supplement, numbered, "{what}");
                    2
                }
            };
            seen[state] += 1;
            replace(numbered)(found).expect("it works now");
            let again = numbered_found(&found.after_power_cut(CutState::None, 0), what).expect("it exists");
            assert_eq!((again.0.len(), again.1), (usize::from(METRICS) + 1, numbered), "{what}");
        });
        assert!(seen.iter().all(|seen| *seen > 0), "the old one, none and the new one: {seen:?}");
    }
}

#[test]
fn removed_volume_leaves_no_supplement() {
    let disk = base();
    write_numbered(&disk).expect("room");
    remove_volume(&disk, FOLDER.as_ref(), NAME).expect("it goes");
    assert_eq!(
        disk.after_power_cut(CutState::None, 0).files().len(),
        VolumeFile::ALL.len(),
        "the older one's"
    );
    // A supplement alone is something to sweep.
    let path = Path::new(FOLDER).join(NAME.supplement_file_name());
    disk.create(&path).expect("room");
    let listed = VolumeFolder::list(&disk, FOLDER.as_ref()).expect("a folder");
    assert!(listed.incomplete.contains(&NAME) && listed.foreign.is_empty());
    remove_volume(&disk, FOLDER.as_ref(), NAME).expect("it goes");
    assert!(disk.open(&path, false).expect("a folder").is_none());
}

#[test]
fn supplement_is_durable_before_the_checkpoint_is_named() {
    let disk = base();
    disk.record_trace(true);
    write_numbered(&disk).expect("room");
    let calls = trace(&disk, &[CallKind::Sync, CallKind::SyncFolder, CallKind::Rename]);
    let syncs = ["Sync info", "Sync index", "Sync summaries", "Sync bloomfilter", "Sync data", "Sync digest"];
    let supplement = ["Sync 1", "SyncFolder 0"];
    let rest = ["Sync checkpoint.new", "Rename checkpoint.new", "SyncFolder 0"];
    assert_eq!(calls, [&syncs[..], &supplement, &rest].concat());
    assert_eq!((disk.syncs(), disk.dir_syncs()), (8, 2));
}

#[test]
fn unfinished_volume_tells_whose_it_is() {
    let disk = base();
    assert_eq!(read_supplement_spec(&disk, FOLDER.as_ref(), NAME).expect("no file is fine"), None);
    let spec = NUMBERED_SPEC.supplement;
    let writer = VolumeWriter::create(&disk, FOLDER.as_ref(), NUMBERED_SPEC).expect("room");
    assert_eq!(read_supplement_spec(&disk, FOLDER.as_ref(), NAME).expect("undamaged"), spec, "at once");
    let synced = writer.sync().expect("room");
    assert_eq!(read_supplement_spec(&disk, FOLDER.as_ref(), NAME).expect("undamaged"), spec);
    drop(synced);
    let found = disk.after_power_cut(CutState::None, 0);
    assert_eq!(read_supplement_spec(&found, FOLDER.as_ref(), NAME).expect("undamaged"), spec);
    assert!(VolumeFolder::list(&found, FOLDER.as_ref()).expect("a folder").incomplete.contains(&NAME));
}

#[test]
fn supplement_left_alone_is_replaced() {
    let path = Path::new(FOLDER).join(NAME.supplement_file_name());
    for numbered in [true, false] {
        let disk = base();
        write_numbered(&disk).expect("room");
        let left = disk.map(&path).expect("it is there").to_vec();
        remove_volume(&disk, FOLDER.as_ref(), NAME).expect("it goes");
        disk.create(&path).and_then(|file| file.write_at(0, &left)).expect("room");
        write_another(&disk, numbered).expect("what was left is replaced");
        let found = disk.after_power_cut(CutState::None, 0);
        let (metrics, has_supplement) = numbered_found(&found, "rewritten").expect("it exists");
        assert_eq!((metrics.len(), has_supplement), (usize::from(METRICS) + 1, numbered));
    }
}
