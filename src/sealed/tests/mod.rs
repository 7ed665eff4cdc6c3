//! What the tests of volumes have in common, and those of writing and reading.

use std::path::{Path, PathBuf};

use super::*;
use crate::commitlog::DatabaseId;
use crate::error::{Error, Result};
use crate::fileset::{MetricStream, Statistics, VolumeFile, VolumeName};
use crate::io::{MemoryDisk, Vfs};
use crate::mvcc::window::Window;
use crate::names::{Metric, MetricId, Names, Namespace, NamespaceOptions};

mod power_cut;
mod sweep;
mod threads;

const DATABASE: DatabaseId = *b"0123456789abcdef";
const DATA: &str = "/db/data";
const HOUR_NS: i64 = 3_600_000_000_000;
const DAY_NS: i64 = 24 * HOUR_NS;
const WIDTH_NS: i64 = 2 * HOUR_NS;
const START: i64 = 1_700_006_400_000_000_000;

/// A namespace and metrics in it, more than a page of a supplement's table has room for.
fn metrics() -> (Namespace, Vec<Metric>) {
    let options = NamespaceOptions { block_ns: WIDTH_NS, shards: 4 };
    let names = Names::new(1, options);
    let namespace = names.namespace("cpu", options).expect("a name");
    let metric = |n: u32| names.metric(&namespace, format!("m{}", n * 37 % 61).as_bytes()).expect("an ID");
    let metrics = (0..61).map(metric).collect();
    (namespace, metrics)
}

/// A volume of the block that has `at`.
fn block_at(at: i64, width_ns: i64, number: u32) -> BlockVolume {
    BlockVolume {
        id: VolumeId(number),
        namespace: NamespaceId(1),
        shard: 1,
        cover: Window::new(width_ns).of(at),
        width_ns,
        number,
        freeze: Version(7),
        is_empty: false,
    }
}

fn block(number: u32) -> BlockVolume {
    block_at(START, WIDTH_NS, number)
}

fn store_on(disk: &(impl Vfs + Clone + 'static), open_max: usize) -> VolumeStore {
    VolumeStore::new(std::sync::Arc::new(disk.clone()), DATA.into(), DATABASE, open_max)
}

/// Made up, no two alike.
fn stream(block: &BlockVolume, metric: &Metric) -> Vec<u8> {
    let (start, number) = (block.cover.first.to_le_bytes(), block.number.to_le_bytes());
    [metric.name(), &start[..], &number[..]].concat()
}

fn statistics(metric: &Metric) -> Statistics {
    Statistics::of_points([(START, f64::from(metric.id().get()))])
}

fn append(writer: &mut crate::fileset::VolumeWriter<'_>, block: &BlockVolume, metric: &Metric) -> Result<()> {
    let stream = stream(block, metric);
    let metric_stream = MetricStream { id: metric.name(), tags: b"", stream: &stream };
    writer.append_numbered(metric_stream, metric.id(), &statistics(metric))
}

fn write(store: &VolumeStore, block: &BlockVolume, namespace: &Namespace, metrics: &[Metric]) -> Result<()> {
    let mut writer = store.create(block, namespace)?;
    metrics.iter().try_for_each(|metric| append(&mut writer, block, metric))?;
    writer.finish()
}

/// Finds the streams of all metrics.
fn assert_readable(volume: &SealedVolume, metrics: &[Metric]) {
    for metric in metrics {
        let found = volume.stream_of(metric).expect("undamaged").expect("it has points");
        assert_eq!(found.bytes(), stream(volume.block(), metric), "{metric}");
    }
}

fn path(block: &BlockVolume, namespace: &Namespace, file: VolumeFile) -> PathBuf {
    let place = place::Place::new(DATA.as_ref(), block, namespace);
    place.folder.join(place.name.file_name(file))
}

fn supplement_path(block: &BlockVolume, namespace: &Namespace) -> PathBuf {
    path(block, namespace, VolumeFile::Data).with_file_name(block.name().supplement_file_name())
}

/// Replaces a file by one with other bytes. Mappings of the old one stay as they are.
fn put(disk: &dyn Vfs, path: &Path, bytes: &[u8]) {
    disk.remove(path).expect("it goes");
    disk.create(path).and_then(|file| file.write_at(0, bytes)).expect("room");
}

/// Flips a bit of a file, and returns what it was.
fn damage(disk: &dyn Vfs, path: &Path, at: usize) -> Vec<u8> {
    let sound = disk.map(path).expect("it is there").to_vec();
    let mut damaged = sound.clone();
    damaged[at] ^= 4;
    put(disk, path, &damaged);
    sound
}

/// All files below a folder.
fn files_in(disk: &dyn Vfs, folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for name in disk.read_dir(folder).expect("a folder").unwrap_or_default() {
        let path = folder.join(name);
        match disk.read_dir(&path) {
            Ok(_) => files.extend(files_in(disk, &path)),
            Err(_) => files.push(path),
        }
    }
    files
}

#[test]
fn what_is_written_is_found() {
    let disk = MemoryDisk::new();
    let store = store_on(&disk, 8);
    let (namespace, metrics) = metrics();
    let (absent, written) = metrics.split_last().expect("there are some");
    write(&store, &block(3), &namespace, written).expect("room");
    let volume = store.volume(block(3), &namespace);
    assert_eq!(store.open_volumes(), 0, "nobody has read it");
    assert_readable(&volume, written);
    assert!(volume.stream_of(absent).expect("undamaged").is_none());
    assert!(volume.entry_of(absent).expect("undamaged").is_none());
    let entry = volume.entry_of(&written[5]).expect("undamaged").expect("it has points");
    assert_eq!(entry.statistics, statistics(&written[5]));
    let ids: Vec<MetricId> = written.iter().map(Metric::id).collect();
    assert_eq!(volume.metric_ids().expect("undamaged"), ids);
    let files = files_in(&disk, DATA.as_ref());
    assert_eq!(files.len(), VolumeFile::ALL.len() + 1);
    let bytes = files.iter().map(|path| disk.map(path).expect("it is there").len() as u64).sum();
    assert_eq!(volume.bytes().expect("they are there"), bytes);
    assert!(volume.verify().is_empty(), "{:?}", volume.verify());
    assert_eq!((volume.lookups_by_name(), store.open_volumes()), (0, 1));
    drop(volume);
    assert_eq!((store.superseded(), store.open_volumes()), (0, 0), "it was not superseded");
}

#[test]
fn metrics_are_found_by_name_where_the_supplement_is_damaged() {
    let disk = MemoryDisk::new();
    let store = store_on(&disk, 8);
    let (namespace, metrics) = metrics();
    let (absent, written) = metrics.split_last().expect("there are some");
    write(&store, &block(0), &namespace, written).expect("room");
    let supplement = supplement_path(&block(0), &namespace);
    let is_about_it = |error: &Error| matches!(error, Error::Corrupt { path, .. } if *path == supplement);
    // Head, and the only page of the table.
    for at in [40, 4096 + 300] {
        let sound = damage(&disk, &supplement, at);
        let volume = store.volume(block(0), &namespace);
        assert_readable(&volume, written);
        assert!(volume.stream_of(absent).expect("undamaged").is_none());
        assert_eq!(volume.lookups_by_name(), metrics.len() as u64);
        assert!(volume.entry_of(absent).is_err_and(|error| is_about_it(&error)));
        assert!(volume.metric_ids().is_err_and(|error| is_about_it(&error)));
        assert!(volume.verify().iter().any(is_about_it));
        put(&disk, &supplement, &sound);
    }
    disk.remove(&supplement).expect("it goes");
    let volume = store.volume(block(0), &namespace);
    assert_readable(&volume, written);
    assert_eq!(volume.lookups_by_name(), written.len() as u64);
    assert!(volume.metric_ids().is_err_and(|error| is_about_it(&error)));
    assert!(matches!(&volume.verify()[..], [error] if is_about_it(error)));
}

#[test]
fn damaged_page_concerns_its_own_metrics_only() {
    let disk = MemoryDisk::new();
    let store = store_on(&disk, 8);
    let (namespace, metrics) = metrics();
    write(&store, &block(0), &namespace, &metrics).expect("room");
    damage(&disk, &supplement_path(&block(0), &namespace), 4096 + 300);
    let volume = store.volume(block(0), &namespace);
    assert_readable(&volume, &metrics);
    assert_eq!(volume.lookups_by_name(), 60);
    let last = metrics.last().expect("there are some");
    assert!(volume.entry_of(last).expect("undamaged").is_some());
}

#[test]
fn damaged_stream_is_an_error_with_the_metrics_name() {
    let disk = MemoryDisk::new();
    let store = store_on(&disk, 8);
    let (namespace, metrics) = metrics();
    write(&store, &block(0), &namespace, &metrics).expect("room");
    let data = path(&block(0), &namespace, VolumeFile::Data);
    damage(&disk, &data, 0);
    let volume = store.volume(block(0), &namespace);
    let error = volume.stream_of(&metrics[0]).expect_err("its first byte differs");
    assert!(
        matches!(&error, Error::Corrupt { path, metric: Some(id), .. } if *path == data && **id == metrics[0].to_string()),
        "{error}"
    );
    assert_readable(&volume, &metrics[1..]);
    assert!(!volume.verify().is_empty());
}

#[test]
fn missing_file_is_named_and_forgotten_when_it_is_back() {
    let disk = MemoryDisk::new();
    let store = store_on(&disk, 8);
    let (namespace, metrics) = metrics();
    let volume = store.volume(block(0), &namespace);
    assert!(volume.stream_of(&metrics[0]).is_err(), "it was not written");
    write(&store, &block(0), &namespace, &metrics).expect("room");
    for file in
        [VolumeFile::Checkpoint, VolumeFile::Digest, VolumeFile::Info, VolumeFile::Index, VolumeFile::Data]
    {
        let missing = path(&block(0), &namespace, file);
        let bytes = disk.map(&missing).expect("it is there").to_vec();
        disk.remove(&missing).expect("it goes");
        let volume = store.volume(block(0), &namespace);
        for _ in 0..2 {
            let error = volume.stream_of(&metrics[0]).expect_err("a file is missing");
            assert!(matches!(&error, Error::Corrupt { path, .. } if *path == missing), "{error}");
        }
        assert_eq!(store.open_volumes(), 0);
        put(&disk, &missing, &bytes);
        assert_readable(&volume, &metrics);
    }
    assert_readable(&volume, &metrics);
}

#[test]
fn volume_of_another_database_or_version_is_refused() {
    let disk = MemoryDisk::new();
    let (namespace, metrics) = metrics();
    let other = VolumeStore::new(std::sync::Arc::new(disk.clone()), DATA.into(), [7; 16], 8);
    write(&other, &block(0), &namespace, &metrics).expect("room");
    let is_refused = |volume: &SealedVolume| {
        let supplement = supplement_path(volume.block(), &namespace);
        let is_about_it = |error: Error| matches!(error, Error::Corrupt { path, .. } if path == supplement);
        volume.stream_of(&metrics[0]).is_err_and(is_about_it)
    };
    assert!(is_refused(&store_on(&disk, 8).volume(block(0), &namespace)));
    let newer = BlockVolume { freeze: Version(8), ..block(0) };
    assert!(is_refused(&other.volume(newer, &namespace)));
    assert!(!is_refused(&other.volume(block(0), &namespace)));
}

#[test]
fn blocks_of_all_of_time_are_written_and_read() {
    let disk = MemoryDisk::new();
    let store = store_on(&disk, 8);
    let (namespace, metrics) = metrics();
    let mut folders = std::collections::BTreeSet::new();
    for width_ns in [WIDTH_NS, DAY_NS, 30 * DAY_NS] {
        for at in [i64::MIN, -1, 0, WIDTH_NS, 40 * DAY_NS, START, i64::MAX] {
            let block = block_at(at, width_ns, 2);
            let has_volume = disk.open(&path(&block, &namespace, VolumeFile::Checkpoint), false);
            if has_volume.expect("a folder").is_some() {
                continue; // -1 and 0 may lie in one block
            }
            write(&store, &block, &namespace, &metrics).expect("room");
            let volume = store.volume(block, &namespace);
            assert_readable(&volume, &metrics);
            assert!(volume.verify().is_empty(), "{:?}", volume.verify());
            let folder = volume.place().folder.parent().and_then(Path::file_name).expect("a namespace's");
            let is_before = folder.to_str().expect("escaped").ends_with("@before");
            assert_eq!(is_before, block.cover.first <= 0, "{block:?}");
            folders.insert(folder.to_owned());
        }
    }
    let expected = ["cpu", "cpu@1d", "cpu@1d@before", "cpu@30d", "cpu@30d@before", "cpu@before"];
    assert!(folders.iter().eq(expected), "{folders:?}");
    let first = block_at(i64::MIN, DAY_NS, 2);
    let last = block_at(i64::MAX, DAY_NS, 2);
    assert!(first.block_size_ns() < DAY_NS && last.block_size_ns() < DAY_NS, "they are cut off");
    assert_eq!(block_at(START, DAY_NS, 2).block_size_ns(), DAY_NS);
    assert_eq!(first.name(), VolumeName { block_start: i64::MIN, volume: 2 });
}

#[test]
fn the_volume_longest_unused_is_closed() {
    let disk = MemoryDisk::new();
    let store = store_on(&disk, 2);
    let (namespace, metrics) = metrics();
    let volumes: Vec<_> = (0..3)
        .map(|number| {
            write(&store, &block(number), &namespace, &metrics).expect("room");
            store.volume(block(number), &namespace)
        })
        .collect();
    let kept = volumes[1].stream_of(&metrics[0]).expect("undamaged").expect("it has points");
    for number in [0, 1, 0, 2] {
        volumes[number].stream_of(&metrics[0]).expect("undamaged");
    }
    // 0 was used last before 2 was opened: 1 was closed. Who is closed cannot come back without files.
    for path in files_in(&disk, DATA.as_ref()) {
        disk.remove(&path).expect("it goes");
    }
    assert_readable(&volumes[0], &metrics);
    assert_readable(&volumes[2], &metrics);
    assert!(volumes[1].stream_of(&metrics[0]).is_err());
    assert_eq!(store.open_volumes(), 2);
    assert_eq!(kept.bytes(), stream(&block(1), &metrics[0]), "it keeps the files itself");
}

#[test]
fn superseded_volume_is_removed_behind_its_last_holder() {
    let disk = MemoryDisk::new();
    let store = store_on(&disk, 8);
    let (namespace, metrics) = metrics();
    write(&store, &block(0), &namespace, &metrics).expect("room");
    write(&store, &block(1), &namespace, &metrics).expect("room");
    let (held, next) = (store.volume(block(0), &namespace), store.volume(block(1), &namespace));
    let snapshot = held.clone();
    let all = Version(u64::MAX - 1);
    held.supersede(Version(20));
    drop(held);
    assert_eq!(store.remove_superseded(all).expect("nothing to do"), 0);
    assert_readable(&snapshot, &metrics);
    let kept = snapshot.stream_of(&metrics[0]).expect("undamaged").expect("it has points");
    drop(snapshot);
    assert_eq!((store.superseded(), store.open_volumes()), (1, 0));
    assert_eq!(
        store.remove_superseded(Version(19)).expect("nothing to do"),
        0,
        "a power cut may bring it back"
    );
    assert_readable(&store.volume(block(0), &namespace), &metrics);
    assert_eq!(store.remove_superseded(Version(20)).expect("they go"), 1);
    assert_eq!((store.superseded(), store.remove_superseded(all).expect("nothing to do")), (0, 0));
    let files = files_in(&disk, DATA.as_ref());
    assert_eq!(files.len(), VolumeFile::ALL.len() + 1, "the next one's");
    assert_eq!(kept.bytes(), stream(&block(0), &metrics[0]));
    assert_readable(&next, &metrics);
}

#[test]
fn volume_is_not_written_over_another() {
    let disk = MemoryDisk::new();
    let store = store_on(&disk, 8);
    let (namespace, metrics) = metrics();
    let exists = |result: Result<()>| {
        let kind = result.expect_err("there is one").io_kind();
        assert_eq!(kind, Some(std::io::ErrorKind::AlreadyExists));
    };
    write(&store, &block(0), &namespace, &metrics).expect("room");
    exists(write(&store, &block(0), &namespace, &metrics));
    let volume = store.volume(block(0), &namespace);
    volume.supersede(Version(1));
    exists(write(&store, &block(0), &namespace, &metrics));
    assert_readable(&volume, &metrics);
    drop(volume);
    exists(write(&store, &block(0), &namespace, &metrics));
    store.remove_superseded(Version(1)).expect("they go");
    write(&store, &block(0), &namespace, &metrics).expect("room");
}

#[test]
fn attempt_that_is_given_up_is_replaced_or_removed() {
    let disk = MemoryDisk::new();
    let store = store_on(&disk, 8);
    let (namespace, metrics) = metrics();
    for _ in 0..2 {
        let mut writer = store.create(&block(0), &namespace).expect("room");
        append(&mut writer, &block(0), &metrics[0]).expect("room");
    }
    write(&store, &block(0), &namespace, &metrics).expect("what was left is replaced");
    assert_readable(&store.volume(block(0), &namespace), &metrics);
    drop(store.create(&block(1), &namespace).expect("room"));
    store.volume(block(1), &namespace).supersede(Version(0));
    // What is written now would be removed.
    let again = store.create(&block(1), &namespace).expect_err("its files are yet to be removed");
    assert_eq!(again.io_kind(), Some(std::io::ErrorKind::AlreadyExists));
    assert_eq!(store.remove_superseded(Version(0)).expect("they go"), 1);
    assert_eq!(files_in(&disk, DATA.as_ref()).len(), VolumeFile::ALL.len() + 1);
}

#[test]
fn volume_0_goes_without_what_m3_called_so_before_there_were_volumes() {
    let disk = MemoryDisk::new();
    let store = store_on(&disk, 8);
    let (namespace, metrics) = metrics();
    let data = path(&block(0), &namespace, VolumeFile::Data);
    let legacy =
        VolumeFile::ALL.map(|file| data.with_file_name(format!("fileset-{START}-{}.db", file.suffix())));
    let (checkpoint, others) = legacy.split_last().expect("seven");
    disk.create_dir_all(data.parent().expect("a folder")).expect("room");
    others.iter().for_each(|path| put(&disk, path, b"foreign"));

    let is_left = || others.iter().all(|path| disk.map(path).is_ok_and(|bytes| *bytes == b"foreign"[..]));
    drop(store.create(&block(0), &namespace).expect("room"));
    write(&store, &block(0), &namespace, &metrics).expect("what was left is replaced");
    assert!(is_left(), "an unfinished volume was replaced");
    put(&disk, checkpoint, b"four");
    let volume = store.volume(block(0), &namespace);
    assert_readable(&volume, &metrics);
    volume.supersede(Version(9));
    drop(volume);
    assert_eq!(store.remove_superseded(Version(9)).expect("undamaged"), 1);
    assert!(is_left() && disk.map(checkpoint).is_ok(), "a volume was removed");
    assert_eq!(files_in(&disk, DATA.as_ref()).len(), legacy.len());
}
