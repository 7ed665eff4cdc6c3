//! Sealing as a user notices it: what is read before, during and after; late writes and deletes; snapshots; files; widths. One test for each
//! sentence of `design/sealing.md` that is about that.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use chronolith::fileset::{Volume, VolumeFile, VolumeName, VolumeSpec, VolumeWriter};
use chronolith::io::{Call, CallKind, CutState, SimulatedDisk, Vfs};
use chronolith::m3tsz::{Decoder, EncoderOptions};
use chronolith::planted::Bug;
use chronolith::{Database, Durability, Metric, Options, Snapshot, Timestamp};
use common::guarded;
use common::seals::{Content, DAY, DAY_SECONDS, Points, assert_same, points, read, volumes};
use common::torture::random::Random;

const DIR: &str = "/db";
/// The length of a block.
const BLOCK: i64 = 7_200;

fn options() -> Options {
    Options::new().workers(0).shards(1).durability(Durability::Buffered)
}

/// A database on a disk of its own, and what must be in it.
struct Store {
    disk: SimulatedDisk,
    db: Database,
    content: Content,
    options: Options,
}

impl Store {
    fn new(options: Options) -> Store {
        let disk = SimulatedDisk::new(1);
        let db = options.clone().open_on(Arc::new(disk.clone()), DIR).expect("opens");
        Store { disk, db, content: Content::default(), options }
    }

    fn metric(&self, id: &str) -> Metric {
        self.db.metric(id).expect("a valid ID")
    }

    /// Commits points, given as seconds after midnight.
    fn put(&mut self, id: &str, seconds: impl IntoIterator<Item = i64>, value: f64) {
        let metric = self.metric(id);
        let mut txn = self.db.begin_write();
        let points = self.content.metrics.entry(id.to_owned()).or_default();
        for second in seconds {
            txn.append(&metric, at(second), value).expect("staged");
            points.insert(at(second).as_nanos(), (value.to_bits(), None));
        }
        txn.commit().expect("commits");
    }

    /// Deletes from one second to before another.
    fn delete(&mut self, id: &str, first: i64, end: i64) {
        let mut txn = self.db.begin_write();
        txn.delete(&self.metric(id), at(first)..at(end)).expect("staged");
        txn.commit().expect("commits");
        let points = self.content.metrics.get_mut(id).expect("it was made");
        points.retain(|time, _| !(at(first).as_nanos()..at(end).as_nanos()).contains(time));
    }

    fn drop_metric(&mut self, id: &str) {
        let mut txn = self.db.begin_write();
        txn.drop_metric(&self.metric(id)).expect("staged");
        txn.commit().expect("commits");
        self.content.metrics.remove(id);
    }

    fn seal(&self) -> u64 {
        self.db.seal(..).expect("seals").blocks
    }

    /// What is in the database is what must be, also after opening it again.
    fn check(&mut self) {
        assert_same(&read(&self.db.snapshot()).expect("reads"), &self.content, "open");
        self.reopen();
        assert_same(&read(&self.db.snapshot()).expect("reads"), &self.content, "opened again");
    }

    fn reopen(&mut self) {
        let in_memory = Options::new().workers(0).open_in_memory().expect("opens");
        std::mem::replace(&mut self.db, in_memory).close().expect("closes");
        let disk = Arc::new(self.disk.clone());
        self.db = self.options.clone().open_on(disk, DIR).expect("opens again");
    }

    /// All files of volumes, complete or not.
    fn data_files(&self) -> Vec<PathBuf> {
        let files = self.disk.files().into_iter().map(|(path, _)| path);
        files.filter(|path| path.starts_with(Path::new(DIR).join("data"))).collect()
    }

    /// The starts of the blocks that have volumes, in seconds after midnight, with the names of their folders.
    fn blocks(&self) -> Vec<(String, i64)> {
        let name = |folder: &Path| {
            let data = Path::new(DIR).join("data");
            folder.strip_prefix(data).expect("it is below").display().to_string()
        };
        let volumes = volumes(&self.disk, Path::new(DIR)).into_iter();
        volumes.map(|(folder, volume)| (name(&folder), volume.block_start / SECOND - DAY)).collect()
    }
}

const SECOND: i64 = 1_000_000_000;

/// Seconds after midnight.
fn at(second: i64) -> Timestamp {
    Timestamp::from_secs(DAY + second)
}

#[test]
fn values_and_annotations_are_read_back_bit_for_bit_in_both_directions() {
    let mut store = Store::new(options());
    let metric = store.metric("m");
    let mut txn = store.db.begin_write();
    let values =
        [0.1, -0.0, f64::NAN, f64::from_bits(0x7ff0_dead_beef_0001), f64::INFINITY, 5e-324, 1e300, 17.0];
    let times = [i64::MIN, i64::MIN + 1, -1, 0, 1, DAY * SECOND, DAY * SECOND + 1, i64::MAX - 1, i64::MAX];
    for (index, at) in times.into_iter().enumerate() {
        let value = values[index % values.len()];
        let note: &[u8] = if index % 2 == 0 { b"" } else { b"a note" };
        txn.append_annotated(&metric, Timestamp::from_nanos(at), value, note).expect("staged");
        let note = (!note.is_empty()).then(|| note.to_vec());
        let points = store.content.metrics.entry("m".to_owned()).or_default();
        points.insert(at, (value.to_bits(), note));
    }
    txn.commit().expect("commits");
    assert!(store.seal() >= 4);
    assert_eq!(store.db.stats().points, 0, "all of it is on disk");
    store.check();
    assert_eq!(store.db.stats().points, 0);
}

#[test]
fn late_writes_and_overwrites_over_sealed_blocks_win_before_and_after_a_refresh() {
    let mut store = Store::new(options());
    store.put("m", (0..2 * BLOCK).step_by(60), 1.0);
    assert_eq!(store.seal(), 2);
    store.put("m", [30, 60, 90], 2.0);
    store.check();
    assert_eq!(store.db.refresh(..).expect("refreshes").blocks, 1, "only the block that has something new");
    assert_eq!(store.db.stats().points, 0);
    store.check();
    assert_eq!(store.db.refresh(..).expect("refreshes").blocks, 0);
    store.put("m", [60], 3.0);
    assert_eq!(store.seal(), 1, "sealing does it too");
    store.check();
}

#[test]
fn deletes_over_sealed_blocks_hide_before_and_after_a_refresh() {
    let mut store = Store::new(options());
    store.put("m", (0..3 * BLOCK).step_by(600), 1.0);
    store.put("n", (0..3 * BLOCK).step_by(600), 2.0);
    store.seal();
    store.delete("m", 600, BLOCK + 600);
    store.check();
    // What is written after the delete stays.
    store.put("m", [1_200], 3.0);
    store.check();
    assert_eq!(store.seal(), 2);
    store.check();
    assert_eq!(store.db.stats().tombstones, 0);
}

#[test]
fn a_delete_of_whole_blocks_needs_no_tombstones_and_stays_done() {
    let mut store = Store::new(options());
    store.put("m", (0..3 * BLOCK).step_by(600), 1.0);
    store.put("n", (0..3 * BLOCK).step_by(600), 2.0);
    store.seal();
    store.delete("m", -BLOCK, 2 * BLOCK);
    assert_eq!(store.db.stats().tombstones, 0);
    store.check();
    // The volumes have more than they should.
    assert_eq!(store.db.refresh(..).expect("refreshes").blocks, 2);
    store.check();
    store.put("m", [0], 5.0);
    store.seal();
    store.check();
    store.delete("m", -1_000_000, 1_000_000);
    store.delete("n", -1_000_000, 1_000_000);
    store.check();
    store.db.refresh(..).expect("refreshes");
    store.check();
}

#[test]
fn a_dropped_metric_and_its_successor_are_not_mixed_up() {
    let mut store = Store::new(options());
    for id in ["m", "n"] {
        store.put(id, (0..BLOCK).step_by(600), 1.0);
    }
    store.seal();
    store.drop_metric("m");
    store.check();
    // The volume has points of that name.
    store.put("m", [60], 2.0);
    store.check();
    store.seal();
    store.check();
    store.drop_metric("m");
    assert_eq!(store.db.refresh(..).expect("refreshes").blocks, 1, "the volume has a metric that is gone");
    store.check();
    assert_eq!(store.db.refresh(..).expect("refreshes").blocks, 0);
    store.put("m", [120], 3.0);
    store.check();
    store.drop_metric("n");
    store.drop_metric("m");
    store.db.refresh(..).expect("refreshes");
    store.check();
}

#[test]
fn snapshots_from_before_during_and_after_read_what_they_saw() {
    let mut store = Store::new(options());
    let mut snapshots: Vec<(Snapshot, Content)> = Vec::new();
    let mut keep = |store: &Store| {
        snapshots.push((store.db.snapshot(), store.content.clone()));
        for (snapshot, content) in &snapshots {
            assert_same(&read(snapshot).expect("reads"), content, "a snapshot");
        }
    };
    store.put("m", (0..2 * BLOCK).step_by(60), 1.0);
    store.put("gone", (0..2 * BLOCK).step_by(600), 1.0);
    keep(&store);
    store.seal();
    keep(&store);
    store.put("m", [10, 60], 2.0);
    keep(&store);
    store.delete("m", 0, BLOCK);
    store.drop_metric("gone");
    keep(&store);
    store.seal();
    store.db.refresh(..).expect("refreshes");
    keep(&store);
    store.put("m", [20], 3.0);
    store.seal();
    keep(&store);
}

#[test]
fn a_cursor_goes_on_while_its_blocks_are_sealed_and_refreshed() {
    let mut store = Store::new(options());
    store.put("m", (0..4 * BLOCK).step_by(60), 1.0);
    let metric = store.metric("m");
    let snapshot = store.db.snapshot();
    let wanted = points(&snapshot, &metric).expect("reads");
    let (mut forwards, mut backwards) = (snapshot.range(&metric, ..), snapshot.range(&metric, ..).rev());
    let mut found = [Vec::new(), Vec::new()];
    let mut pull = |points: usize| {
        for _ in 0..points {
            found[0].extend(forwards.next().map(|point| point.expect("reads").at.as_nanos()));
            found[1].extend(backwards.next().map(|point| point.expect("reads").at.as_nanos()));
        }
    };
    pull(100);
    store.seal();
    pull(100);
    store.put("m", (0..4 * BLOCK).step_by(50), 2.0);
    store.seal();
    pull(100);
    store.delete("m", 0, 4 * BLOCK);
    store.db.refresh(..).expect("refreshes");
    pull(1_000);
    found[1].reverse();
    let wanted: Vec<i64> = wanted.into_keys().collect();
    assert_eq!(found, [wanted.clone(), wanted]);
}

/// The points of all volumes, by ID, read as M3 reads them: there are no supplements on this disk, and each stream is found through bloom filter,
/// summaries and index. All must verify.
fn read_as_m3(
    disk: &SimulatedDisk,
    wanted_blocks: &[(&str, i64, i64)],
) -> BTreeMap<String, BTreeMap<i64, u64>> {
    let disk = disk.after_power_cut(CutState::All, 0);
    let mut found = BTreeMap::<String, BTreeMap<i64, u64>>::new();
    let mut blocks = Vec::new();
    for (folder, name) in volumes(&disk, Path::new(DIR)) {
        let with_supplement = Volume::open(&disk, &folder, name).expect("opens");
        assert!(with_supplement.supplement().is_some());
        assert_eq!(with_supplement.verify().len(), 0, "{:?}", with_supplement.verify());
        disk.remove(&folder.join(name.supplement_file_name())).expect("removes");
        let volume = Volume::open(&disk, &folder, name).expect("opens");
        assert!(volume.supplement().is_none());
        assert_eq!(volume.verify().len(), 0, "{:?}", volume.verify());
        let block_size = volume.info().expect("it has one").block_size / SECOND;
        let folder = folder.strip_prefix(Path::new(DIR).join("data")).expect("below").display().to_string();
        blocks.push((folder, name.block_start / SECOND - DAY, block_size));
        for entry in volume.entries() {
            let id = entry.expect("sound").id().to_vec();
            let stream = volume.stream_of(&id).expect("sound").expect("it is there");
            let mut decoder = Decoder::new(stream, EncoderOptions::default().values);
            let points = found.entry(String::from_utf8(id).expect("a name")).or_default();
            let before = points.len();
            let mut decoded = 0;
            while let Some(point) = decoder.next_point() {
                let point = point.expect("decodes");
                assert!(
                    (name.block_start..name.block_start + block_size * SECOND).contains(&point.timestamp)
                );
                points.insert(point.timestamp, point.value.to_bits());
                decoded += 1;
            }
            assert_eq!(points.len(), before + decoded, "no time is in two volumes");
        }
    }
    let wanted: Vec<_> =
        wanted_blocks.iter().map(|(folder, start, length)| ((*folder).to_owned(), *start, *length)).collect();
    assert_eq!(blocks, wanted);
    found
}

#[test]
fn volumes_are_sound_and_are_read_by_id_without_the_supplement() {
    let mut store = Store::new(options());
    let wanted = |store: &Store| -> BTreeMap<String, BTreeMap<i64, u64>> {
        let values = |points: &Points| points.iter().map(|(at, (bits, _))| (*at, *bits)).collect();
        store.content.metrics.iter().map(|(id, points)| (id.clone(), values(points))).collect()
    };
    for (id, value) in [("a", 1.5), ("b", 2.5), ("c", f64::NAN)] {
        store.put(id, (1..BLOCK).step_by(17), value);
    }
    store.seal();
    let mut blocks = vec![("default/0", 0, BLOCK)];
    assert_eq!(read_as_m3(&store.disk, &blocks), wanted(&store), "plain");

    store.put("b", [5, 18], 9.0);
    store.put("late", [7], -0.0);
    store.seal();
    assert_eq!(read_as_m3(&store.disk, &blocks), wanted(&store), "with late writes");

    // A day that is over, in one, and the next, which is not.
    for (id, value) in [("a", 3.5), ("wide", f64::INFINITY)] {
        store.put(id, (DAY_SECONDS..2 * DAY_SECONDS).step_by(601), value);
    }
    store.put("a", [2 * DAY_SECONDS + 3_600], 4.5);
    store.seal();
    blocks.extend([("default/0", 2 * DAY_SECONDS, BLOCK), ("default@1d/0", DAY_SECONDS, DAY_SECONDS)]);
    assert_eq!(read_as_m3(&store.disk, &blocks), wanted(&store), "widened");

    store.put("wide", [DAY_SECONDS + 1, DAY_SECONDS + 601], 0.5);
    store.delete("a", DAY_SECONDS + 1_000, DAY_SECONDS + 5_000);
    store.seal();
    assert_eq!(read_as_m3(&store.disk, &blocks), wanted(&store), "widened, with late writes and deletes");

    // The database finds them by their IDs as well.
    for (folder, name) in volumes(&store.disk, Path::new(DIR)) {
        store.disk.remove(&folder.join(name.supplement_file_name())).expect("removes");
    }
    store.check();
}

#[test]
fn superseded_files_go_when_the_last_snapshot_has_gone() {
    let mut store = Store::new(options());
    store.put("m", [0], 1.0);
    store.seal();
    let old = (store.db.snapshot(), store.content.clone());
    store.put("m", [0], 2.0);
    store.seal();
    assert_eq!(store.blocks().len(), 2, "a snapshot has the older one");
    assert_same(&read(&old.0).expect("reads"), &old.1, "the old snapshot");
    drop(old);
    // Nothing to seal, but files to remove.
    store.db.maintain(Timestamp::MAX).expect("maintains");
    store.seal();
    assert_eq!(store.blocks().len(), 1);
    store.check();
    assert_eq!(store.db.open_report().swept_files, Vec::<String>::new());
}

#[test]
fn dropped_metrics_leave_no_points_on_disk_after_a_refresh() {
    let mut store = Store::new(options());
    store.put("m", [0], 1.0);
    store.seal();
    store.drop_metric("m");
    store.db.refresh(..).expect("refreshes");
    assert_eq!(store.data_files(), Vec::<PathBuf>::new());
    store.check();
}

/// What the background does until it has nothing more to do.
fn maintain(store: &Store) {
    let version = || store.db.snapshot().version();
    let clock = version().get() as i64;
    for look in 0.. {
        let before = version();
        // A minute later each time.
        store.db.maintain(at(60 * (1_000 * clock + look))).expect("maintains");
        if before == version() && look >= 3 {
            return;
        }
        assert!(look < 20, "it goes on and on");
    }
}

#[test]
fn a_volume_half_of_whose_metrics_are_gone_is_written_anew_by_itself() {
    for reopened in [false, true] {
        let mut store = Store::new(options());
        for number in 0..16 {
            store.put(&format!("m{number}"), [0, 60], f64::from(number));
            store.put(&format!("m{number}"), [BLOCK], 1.0);
        }
        store.seal();
        let written = |store: &Store| store.db.stats().volumes_written;
        let before = written(&store);
        maintain(&store);
        assert_eq!(written(&store), before, "nothing is gone");
        for number in 0..6 {
            store.drop_metric(&format!("m{number}"));
        }
        if reopened {
            store.reopen();
        }
        let before = written(&store);
        maintain(&store);
        assert_eq!(written(&store), before, "6 of 16 are gone");
        // Two more of the first block, one by a delete.
        store.drop_metric("m6");
        store.delete("m7", 0, BLOCK);
        maintain(&store);
        assert_eq!(written(&store), before + 1, "8 of 16 are gone of one block");
        assert_eq!(store.blocks().len(), 2);
        let snapshot = store.db.snapshot();
        let contents = snapshot.volumes().filter_map(|volume| volume.contents().ok());
        assert_eq!(contents.map(|contents| contents.metrics).min(), Some(8));
        drop(snapshot);
        store.check();
    }
}

#[test]
fn a_volume_all_of_whose_metrics_are_gone_goes_by_itself() {
    for (reopened, by_delete) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut store = Store::new(options());
        for number in 0..9 {
            store.put(&format!("m{number}"), [0, 60], f64::from(number));
        }
        // It has no points in that block.
        store.put("other", [BLOCK], 1.0);
        store.seal();
        assert_eq!(store.blocks().len(), 2);
        for number in 0..9 {
            match by_delete {
                true => store.delete(&format!("m{number}"), 0, BLOCK),
                false => store.drop_metric(&format!("m{number}")),
            }
        }
        if reopened {
            store.reopen();
        }
        maintain(&store);
        assert_eq!(store.blocks(), [("default/0".to_owned(), BLOCK)]);
        assert_eq!(store.data_files().len(), 8);
        store.check();
    }
}

#[test]
fn a_block_without_points_leaves_no_files() {
    let mut store = Store::new(options().install_slice_metrics(1));
    // Never sealed, sealed, and sealed with a metric that keeps its points.
    for id in ["m", "n"] {
        store.put(id, [0, 60, BLOCK, BLOCK + 60, 2 * BLOCK], 1.0);
    }
    store.db.seal(at(BLOCK)..).expect("seals");
    assert_eq!(store.data_files().len(), 16);
    let old = (store.db.snapshot(), store.content.clone());
    // Point by point, so that there are tombstones over what is there.
    for id in ["m", "n"] {
        for second in [0, 60, BLOCK, BLOCK + 60] {
            store.delete(id, second, second + 1);
        }
    }
    store.delete("n", 2 * BLOCK, 2 * BLOCK + 1);
    assert_eq!(store.seal(), 3);
    assert_same(&read(&store.db.snapshot()).expect("reads"), &store.content, "sealed");
    assert_same(&read(&old.0).expect("reads"), &old.1, "an old snapshot");
    assert_eq!(store.db.stats().volumes, 1, "that of the block with points");
    drop(old);
    store.seal();
    assert_eq!(store.blocks(), [("default/0".to_owned(), 2 * BLOCK)]);
    assert_eq!(store.data_files().len(), 8, "of no other volume, not even in part");
    let in_memory = |store: &Store| (store.db.stats().points, store.db.stats().tombstones);
    assert_eq!(in_memory(&store), (0, 0));
    store.check();
    assert_eq!((in_memory(&store), store.db.stats().volumes), ((0, 0), 1));
    // What is written there afterwards is sealed like anything else.
    store.put("n", [30, BLOCK], 2.0);
    store.check();
    assert_eq!(store.seal(), 2);
    store.check();
    assert_eq!((in_memory(&store), store.blocks().len()), ((0, 0), 3));
}

#[test]
fn a_block_that_is_stale_for_two_reasons_is_written_once() {
    let mut store = Store::new(options());
    store.put("m", [0], 1.0);
    store.put("dropped", [0], 1.0);
    store.seal();
    store.put("m", [1], 2.0);
    store.drop_metric("dropped");
    assert_eq!(store.db.refresh(..).expect("refreshes").blocks, 1);
    store.check();
}

#[test]
fn what_was_deleted_beside_a_sealed_block_leaves_the_memory() {
    let mut store = Store::new(options());
    store.put("m", [0, BLOCK, 2 * BLOCK], 1.0);
    store.db.seal(at(BLOCK)..at(2 * BLOCK)).expect("seals");
    assert_eq!(store.db.stats().points, 2);
    let old = (store.db.snapshot(), store.content.clone());
    store.delete("m", 0, BLOCK);
    assert_eq!(store.db.stats().points, 1);
    assert_same(&read(&old.0).expect("reads"), &old.1, "a snapshot");
    drop(old);
    store.check();
    assert_eq!(store.db.stats().points, 1);
    store.seal();
    store.check();
    assert_eq!(store.db.stats().points, 0);
}

#[test]
fn orphans_are_swept_at_open_and_what_is_foreign_is_left() {
    let mut store = Store::new(options());
    store.put("m", [0, BLOCK], 1.0);
    store.db.sync().expect("syncs");
    // Its install is not durable, so that a power cut makes orphans of its volumes.
    store.seal();
    let folder = Path::new(DIR).join("data/default/0");
    let cut = store.disk.after_power_cut(CutState::None, 0);
    let orphans: Vec<PathBuf> = cut.files().into_iter().map(|(path, _)| path).collect();
    let orphans: Vec<_> = orphans.into_iter().filter(|path| path.starts_with(&folder)).collect();
    assert_eq!(orphans.len(), 2 * 8);

    let foreign =
        [folder.join("notes.txt"), Path::new(DIR).join("data/README"), folder.join("fileset-0-0-info.db")];
    for path in &foreign {
        let file = cut.create(path).expect("it is new");
        file.write_at(0, b"not ours").expect("writes");
        file.sync().expect("syncs");
    }
    let db = store.options.clone().open_on(Arc::new(cut.clone()), DIR).expect("opens");
    let text = |paths: &[PathBuf]| {
        let mut text: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        text.sort();
        text
    };
    let sorted = |paths: &[String]| text(&paths.iter().map(PathBuf::from).collect::<Vec<_>>());
    assert_eq!(sorted(&db.open_report().swept_files), text(&orphans));
    assert_eq!(sorted(&db.open_report().foreign_files), text(&foreign));
    assert!(foreign.iter().all(|path| cut.open(path, false).expect("looks").is_some()));
    assert_same(&read(&db.snapshot()).expect("reads"), &store.content, "without the orphans");
    assert_eq!(db.seal(..).expect("seals").blocks, 2);
    assert_same(&read(&db.snapshot()).expect("reads"), &store.content, "sealed again");
}

#[test]
fn a_foreign_volume_in_the_way_is_left_and_the_next_attempt_takes_another_name() {
    let mut store = Store::new(options());
    store.put("m", [0], 1.0);
    let folder = Path::new(DIR).join("data/default/0");
    store.disk.create_dir_all(&folder).expect("makes");
    // Somebody's volume of the same block, with the number that would be the first.
    let name = VolumeName { block_start: DAY * SECOND, volume: 0 };
    let spec = VolumeSpec { name, block_size: BLOCK * SECOND, snapshot: None, supplement: None };
    let writer = VolumeWriter::create(&store.disk, &folder, spec).expect("there is none");
    writer.finish().expect("finishes");
    let foreign = store.disk.files();
    let foreign: Vec<_> = foreign.into_iter().filter(|(path, _)| path.starts_with(&folder)).collect();

    let refused = store.db.seal(..).expect_err("the name is taken");
    assert_eq!(refused.io_kind(), Some(ErrorKind::AlreadyExists), "{refused}");
    assert_eq!(store.seal(), 1);
    store.put("m", [1], 2.0);
    assert_eq!(store.seal(), 1);
    store.seal();
    let files = store.disk.files();
    assert!(foreign.iter().all(|file| files.contains(file)), "{files:?}");
    store.check();
}

#[test]
fn a_foreign_file_by_the_name_of_a_superseded_volume_is_left() {
    let mut store = Store::new(options());
    store.put("m", [0], 1.0);
    store.seal();
    let [(folder, superseded)] = volumes(&store.disk, Path::new(DIR)).try_into().expect("one volume");
    store.put("m", [1], 2.0);
    store.seal();
    store.seal();
    let path = folder.join(superseded.file_name(VolumeFile::Data));
    assert!(store.disk.open(&path, false).expect("looks").is_none(), "it is gone");
    store.disk.create(&path).expect("it is new").write_at(0, b"not ours").expect("writes");

    for _ in 0..2 {
        store.reopen();
        assert_eq!(store.db.open_report().foreign_files, [path.display().to_string()]);
        store.disk.record_trace(true);
        assert_eq!(store.seal(), 0);
        assert_eq!(store.disk.trace(), [], "there is nothing to do");
        assert!(store.disk.open(&path, false).expect("looks").is_some());
        store.check();
    }
}

#[test]
fn after_a_salvage_no_volume_is_removed_and_sealing_finds_other_names() {
    let mut store = Store::new(options());
    store.put("m", [0, BLOCK], 1.0);
    store.db.sync().expect("syncs");
    store.seal();
    // The installs are lost; their volumes stay.
    let disk = store.disk.after_power_cut(CutState::None, 0);
    let orphans = volumes(&disk, Path::new(DIR));
    assert_eq!(orphans.len(), 2);
    let salvage = store.options.clone().salvage(true);
    let db = salvage.open_on(Arc::new(disk.clone()), DIR).expect("opens");
    assert_eq!(db.open_report().swept_files, Vec::<String>::new());
    assert_same(&read(&db.snapshot()).expect("reads"), &store.content, "salvaged");
    assert_eq!(db.seal(..).expect("seals").blocks, 2);
    assert_eq!(db.stats().points, 0);
    assert_same(&read(&db.snapshot()).expect("reads"), &store.content, "sealed");
    let found = volumes(&disk, Path::new(DIR));
    assert!(orphans.iter().all(|orphan| found.contains(orphan)), "{found:?}");
}

#[test]
fn folders_are_named_after_namespace_width_and_time() {
    let mut store = Store::new(options());
    let long = "n".repeat(201);
    for name in ["default", "a/b%", ".hidden", &long] {
        let namespace = store.db.namespace(name).expect("valid");
        let metric = store.db.metric_in(&namespace, "m").expect("valid");
        let mut txn = store.db.begin_write();
        for at in [at(0), Timestamp::EPOCH, Timestamp::from_secs(-BLOCK)] {
            txn.append(&metric, at, 1.0).expect("staged");
        }
        txn.commit().expect("commits");
    }
    let wanted = read(&store.db.snapshot()).expect("reads");
    store.seal();
    let folders: BTreeSet<String> = store.blocks().into_iter().map(|(folder, _)| folder).collect();
    let names = ["default", "a%2Fb%25", "%2Ehidden", "+3"];
    // What is from before lies in a wide block, as the clock has left it.
    let of = |name: &&str| [format!("{name}/0"), format!("{name}@30d@before/0")];
    assert_eq!(folders, names.iter().flat_map(of).collect());
    store.reopen();
    assert_same(&read(&store.db.snapshot()).expect("reads"), &wanted, "opened again");
    assert_eq!(store.db.open_report().foreign_files, Vec::<String>::new());
}

#[test]
fn more_volumes_are_read_at_a_time_than_are_kept_open() {
    let mut store = Store::new(options().open_volumes_max(1));
    for id in ["m", "n"] {
        store.put(id, (0..6 * BLOCK).step_by(300), 1.0);
    }
    store.seal();
    store.reopen();
    let snapshot = store.db.snapshot();
    let [m, n] = ["m", "n"].map(|id| snapshot.metric(id).expect("it exists"));
    let times = |point: chronolith::Result<chronolith::Point>| point.expect("reads").at;
    let forwards = snapshot.range(&m, ..).map(times);
    let backwards = snapshot.range(&n, ..).rev().map(times);
    // In turn, from the two ends, so that each step needs the volume that the other one closed.
    let mut pairs: Vec<_> = forwards.zip(backwards).collect();
    assert_eq!(pairs.len() as i64, 6 * BLOCK / 300);
    pairs.reverse();
    assert!(pairs.is_sorted_by_key(|(_, backwards)| *backwards));
    drop(snapshot);
    store.check();
}

/// Holds every sync of a seal, one after the other, and writes, deletes, drops and reads meanwhile. Returns what was wrong.
fn write_during_every_sync(bug: Option<Bug>) -> Vec<String> {
    let options = bug.into_iter().fold(options(), Options::plant);
    let mut store = Store::new(options);
    for id in ["m", "n", "dropped"] {
        store.put(id, (0..2 * BLOCK).step_by(600), 1.0);
    }
    store.put("m", [BLOCK], 1.5);
    // Of one block there is a volume already.
    store.db.seal(at(0)..at(BLOCK)).expect("seals");
    store.put("m", [7], 1.75);
    store.disk.record_trace(true);
    let hold = store.disk.hold_syncs();
    let db = store.db.clone();
    let sealing = thread::spawn(move || db.seal(..));
    let mut held = 0;
    let mut of_volumes = 0;
    guarded(|| {
        loop {
            // As long as the seal goes on, it comes to its next sync or to its end.
            while !hold.wait_for(1, Duration::from_millis(1)) && !sealing.is_finished() {}
            if hold.waiting() == 0 {
                break;
            }
            held += 1;
            let last_sync = store.disk.trace().into_iter().rfind(|call| call.kind == CallKind::Sync);
            of_volumes += u64::from(last_sync.is_some_and(|call: Call| call.path.starts_with("/db/data")));
            store.put("m", [held, BLOCK - 1, BLOCK + held, 3 * BLOCK], 2.0 + held as f64);
            store.put("n", [held], 3.0);
            match held % 4 {
                0 => store.delete("m", 0, BLOCK),
                1 => store.delete("n", 0, 2 * BLOCK),
                2 => store.drop_metric("dropped"),
                _ => store.put("dropped", [5, BLOCK], 4.0),
            }
            if !store.content.metrics.contains_key("dropped") {
                store.put("dropped", [6], 5.0);
            }
            assert_same(&read(&store.db.snapshot()).expect("reads"), &store.content, "while a sync is held");
            // The seal has not gone on, so nobody has waited for it.
            assert!(!sealing.is_finished());
            assert_eq!(hold.waiting(), 1);
            assert!(hold.let_one_through());
        }
        Vec::new()
    })
    .into_iter()
    .chain(guarded(|| {
        hold.release();
        sealing.join().expect("no panic").expect("seals");
        assert!(of_volumes >= 2 * 7, "only {of_volumes} of {held} syncs were of volumes");
        assert_same(&read(&store.db.snapshot()).expect("reads"), &store.content, "afterwards");
        store.check();
        store.seal();
        store.check();
        Vec::new()
    }))
    .collect()
}

#[test]
fn nobody_waits_while_a_volume_is_synced() {
    assert_eq!(write_during_every_sync(None), Vec::<String>::new());
}

#[test]
fn writes_into_what_is_frozen_are_found() {
    let found = write_during_every_sync(Some(Bug::NoFreeze));
    println!("{found:?}");
    assert!(!found.is_empty());
}

/// How much there must have been of each.
const STEPS: u64 = 200;
const SEALS: u64 = 20;

/// What one of several writers does to a metric of its own, each step followed by a look at all of it, in both directions. Until there were
/// enough steps and `seals`.
fn write_alone(db: &Database, id: &str, seed: u64, seals: &AtomicU64) {
    let mut wanted = Points::new();
    for step in (0..).take_while(|step| *step < STEPS || seals.load(Ordering::Relaxed) < SEALS) {
        let mut random = Random::of(seed, 0, step, 2);
        let metric = db.metric(id).expect("valid");
        let mut txn = db.begin_write();
        let from = random.below(4 * BLOCK as u64) as i64;
        match random.below(8) {
            0 => {
                txn.drop_metric(&metric).expect("staged");
                wanted.clear();
            }
            1 | 2 => {
                let end = from + random.below(2 * BLOCK as u64) as i64;
                txn.delete(&metric, at(from)..at(end)).expect("staged");
                wanted.retain(|time, _| !(at(from).as_nanos()..at(end).as_nanos()).contains(time));
            }
            3 => {
                let block = from / BLOCK * BLOCK;
                txn.delete(&metric, at(block)..at(block + BLOCK)).expect("staged");
                wanted.retain(|time, _| !(at(block).as_nanos()..at(block + BLOCK).as_nanos()).contains(time));
            }
            _ => {
                for index in 0..random.below(50) as i64 {
                    let (at, value) = (at(from + index * 60), random.below(1_000) as f64);
                    txn.append(&metric, at, value).expect("staged");
                    wanted.insert(at.as_nanos(), (value.to_bits(), None));
                }
            }
        }
        txn.commit().expect("commits");
        let snapshot = db.snapshot();
        let found = snapshot.metric(id).map(|metric| points(&snapshot, &metric).expect("reads"));
        assert!(found.unwrap_or_default() == wanted, "seed {seed}: {id} differs after step {step}");
    }
}

#[test]
fn writers_read_what_they_wrote_while_all_is_sealed_again_and_again() {
    let options = options().install_slice_metrics(1).log_buffer_bytes(0).lanes(2);
    let store = Store::new(options);
    let (db, seals) = (&store.db, &AtomicU64::new(0));
    let ids: Vec<String> = (0..4).map(|index| format!("m{index}")).collect();
    thread::scope(|scope| {
        let writers = ids.iter().zip(1u64..);
        let writers: Vec<_> =
            writers.map(|(id, seed)| scope.spawn(move || write_alone(db, id, seed, seals))).collect();
        while !writers.iter().all(|writer| writer.is_finished()) {
            // Counted also if it fails, or the writers would wait for more.
            let number = seals.fetch_add(1, Ordering::Relaxed);
            let sealed = if number % 3 == 2 { db.refresh(..) } else { db.seal(..) };
            sealed.inspect_err(|_| seals.store(SEALS, Ordering::Relaxed)).expect("seals");
        }
    });
    let content = read(&db.snapshot()).expect("reads");
    let mut store = Store { content, ..store };
    store.seal();
    store.check();
    assert_eq!(store.db.stats().points, 0);
}

#[test]
fn a_backfill_of_a_year_makes_few_volumes() {
    let mut store = Store::new(options());
    store.put("m", (0..365 * 24).map(|hour| hour * 3_600), 1.0);
    let report = store.db.seal(..).expect("seals");
    let blocks = store.blocks();
    let of = |folder: &str| blocks.iter().filter(|(name, _)| name == folder).count();
    assert_eq!(report.points, 365 * 24);
    assert!((11..=13).contains(&of("default@30d/0")), "{blocks:?}");
    assert!(of("default@1d/0") <= 30 && of("default/0") <= 12, "{blocks:?}");
    assert_eq!(report.blocks as usize, blocks.len());
    store.check();
    assert_eq!(store.db.stats().points, 0);

    // Late points go into the wide block that there is, and so do those of a metric that is younger than it.
    store.put("m", [40 * DAY_SECONDS + 7], 2.0);
    store.put("younger", [40 * DAY_SECONDS, 41 * DAY_SECONDS], 3.0);
    store.check();
    assert_eq!(store.seal(), 1);
    store.seal();
    assert_eq!(store.blocks().len(), blocks.len());
    store.check();
}

#[test]
fn a_block_is_not_widened_over_one_that_is_sealed_or_that_the_clock_has_not_left() {
    let mut store = Store::new(options());
    store.put("m", [0, 60], 1.0);
    assert_eq!(store.seal(), 1);
    assert_eq!(store.blocks(), [("default/0".to_owned(), 0)], "its day is not over");
    // Days later: the first day has a volume already, the second is over, and the fourth is not.
    store.put("m", [BLOCK, DAY_SECONDS, DAY_SECONDS + BLOCK, 3 * DAY_SECONDS + 5], 2.0);
    store.seal();
    let wanted = [
        ("default/0", 0),
        ("default/0", BLOCK),
        ("default/0", 3 * DAY_SECONDS),
        ("default@1d/0", DAY_SECONDS),
    ];
    assert_eq!(store.blocks(), wanted.map(|(folder, start)| (folder.to_owned(), start)));
    store.check();
}

/// Lets a seal of all there is fail for want of room for a volume.
fn fail_to_seal(store: &Store) {
    store.disk.set_capacity(Some(store.disk.bytes_allocated() + 4_096));
    let error = store.db.seal(..).expect_err("there is no room");
    assert_eq!(error.io_kind(), Some(ErrorKind::StorageFull), "{error:?}");
    store.disk.set_capacity(None);
}

#[test]
fn a_wide_freeze_that_failed_ends_when_a_part_of_it_is_sealed() {
    let mut store = Store::new(options());
    store.put("m", [0, BLOCK, 2 * BLOCK], 1.0);
    store.put("later", [3 * DAY_SECONDS], 1.0);
    fail_to_seal(&store);
    assert!(store.db.stats().frozen_partitions > 0, "the day is frozen");
    // Time goes back, so that the day is not over any more.
    store.drop_metric("later");
    assert_eq!(store.db.seal(at(BLOCK)..at(BLOCK + 1)).expect("seals").blocks, 1);
    assert_eq!(store.blocks(), [("default/0".to_owned(), BLOCK)]);
    assert_eq!(store.db.stats().frozen_partitions, 0);
    // What was under the freeze takes points again, and is sealed with them.
    let partitions = store.db.stats().partitions;
    store.put("m", [1, 2 * BLOCK + 1], 2.0);
    assert_eq!(store.db.stats().partitions, partitions);
    store.check();
    assert_eq!(store.seal(), 2);
    store.check();
    assert_eq!(store.db.stats().points, 0);
}

#[test]
fn a_freeze_that_failed_ends_though_its_metrics_are_gone() {
    for reopened in [false, true] {
        let mut store = Store::new(options());
        store.put("m", [0], 1.0);
        fail_to_seal(&store);
        store.drop_metric("m");
        if reopened {
            store.reopen();
        }
        let version = |store: &Store| store.db.snapshot().version();
        let before = version(&store);
        store.db.maintain(at(0)).expect("maintains");
        let ended = version(&store);
        assert!(before < ended, "it has ended by commits");
        store.db.maintain(at(0)).expect("maintains");
        assert_eq!(version(&store), ended, "nothing is left to do");
        assert_eq!(store.data_files(), Vec::<PathBuf>::new());
        store.check();
    }
}

#[test]
fn maintenance_seals_what_the_clock_has_left_and_nothing_else() {
    let mut store = Store::new(options());
    store.put("m", [0, BLOCK, 2 * BLOCK + 60], 1.0);
    store.db.maintain(at(3 * BLOCK)).expect("maintains");
    // The latest point is less than ten minutes behind the second block.
    assert_eq!(store.blocks(), [("default/0".to_owned(), 0)]);
    assert_eq!(store.db.stats().points, 2);
    store.put("m", [2 * BLOCK + 600], 1.0);
    store.db.maintain(Timestamp::MAX).expect("maintains");
    assert_eq!(store.blocks().len(), 2);
    store.check();
}

#[test]
fn the_background_seals_what_an_earlier_process_left() {
    let mut store = Store::new(options());
    store.put("m", (0..10 * BLOCK).step_by(600), 1.0);
    store.options = store.options.workers(1);
    store.reopen();
    // Its first look is overdue. It takes as long as it takes.
    while store.blocks().len() < 9 || store.db.stats().points > BLOCK as u64 / 600 {
        assert!(!store.db.stats().stopped);
        thread::sleep(Duration::from_millis(1));
    }
    assert_same(&read(&store.db.snapshot()).expect("reads"), &store.content, "sealed meanwhile");
    store.options = store.options.workers(0);
    store.check();
}

#[test]
fn sealing_nothing_does_nothing() {
    let store = Store::new(options());
    assert_eq!(store.seal(), 0);
    let nowhere = store.db.seal(at(1)..at(1)).expect("nothing is in there");
    assert_eq!((nowhere.blocks, nowhere.points), (0, 0));
    let in_memory = Options::new().workers(0).open_in_memory().expect("opens");
    let metric = in_memory.metric("m").expect("valid");
    in_memory.append(&metric, at(0), 1.0).expect("commits");
    assert_eq!(in_memory.seal(..).expect("there is no folder").blocks, 0);
    assert_eq!(in_memory.stats().points, 1);
}

#[test]
fn a_real_disk_has_what_a_simulated_one_has() {
    let folder = tempfile::tempdir().expect("a folder");
    let open = || options().open(folder.path()).expect("opens");
    let db = open();
    let metric = db.metric("m").expect("valid");
    let mut txn = db.begin_write();
    (0..1_000).for_each(|index| txn.append(&metric, at(index * 60), index as f64).expect("staged"));
    txn.commit().expect("commits");
    let content = read(&db.snapshot()).expect("reads");
    assert_eq!(db.seal(..).expect("seals").points, 1_000);
    db.append(&metric, at(1), 7.0).expect("commits");
    let late = read(&db.snapshot()).expect("reads");
    assert_ne!(content, late);
    db.refresh(..).expect("refreshes");
    assert_same(&read(&db.snapshot()).expect("reads"), &late, "open");
    db.close().expect("closes");
    let mut notes = std::fs::File::create(folder.path().join("data/notes.txt")).expect("creates");
    notes.write_all(b"not ours").expect("writes");
    let db = open();
    assert_eq!(db.open_report().foreign_files.len(), 1);
    assert_same(&read(&db.snapshot()).expect("reads"), &late, "opened again");
    assert_eq!(db.stats().points, 0);
    let disk = chronolith::io::RealDisk::new();
    for (folder, name) in volumes(&disk, folder.path()) {
        let volume = Volume::open(&disk, &folder, name).expect("opens");
        assert!(volume.verify().is_empty());
        assert!(volume.path(VolumeFile::Data).exists());
    }
}
