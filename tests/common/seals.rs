//! Histories with seals in them: random transactions, seals, refreshes, snapshots and reopenings, beside a model of what each commit leaves.
//!
//! Each transaction writes its number into the metadata, so that a database that was found on a disk tells which state of the model it must
//! have: one that was begun, and none before the last that was acknowledged as durable.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chronolith::fileset::{Volume, VolumeFolder, VolumeName};
use chronolith::io::{SimulatedDisk, Vfs};
use chronolith::planted::Bug;
use chronolith::{Database, Durability, Error, Options, Snapshot, Timestamp};

use super::torture::random::Random;
use super::{DIR, guarded};

/// The length of a block.
pub const BLOCK_SECONDS: i64 = 20;
/// Midnight of a day, in seconds since the Unix epoch.
pub const DAY: i64 = 19_700 * DAY_SECONDS;
pub const DAY_SECONDS: i64 = 86_400;
/// The metadata's key that has the number of the last transaction.
const OP: &str = "op";
/// The metrics' IDs, more than fit one slice of an install.
const METRICS: u64 = 5;

/// Time and value, the value bit for bit, and the annotation.
pub type Points = BTreeMap<i64, (u64, Option<Vec<u8>>)>;

/// All that a snapshot has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// The number of the last transaction; 0 before the first.
    pub op: usize,
    /// By ID.
    pub metrics: BTreeMap<String, Points>,
}

/// A random history.
#[derive(Clone, Copy, Debug)]
pub struct History {
    pub seed: u64,
    pub steps: u64,
    pub bug: Option<Bug>,
}

impl History {
    /// Small segments, small slices, no threads; what else there is to choose differs from seed to seed.
    pub fn options(&self) -> Options {
        let options = Options::new()
            .block_size(Duration::from_secs(BLOCK_SECONDS as u64))
            .shards(1 + (self.seed % 2) as u32)
            .lanes(1 + (self.seed % 3) as usize)
            .log_segment_bytes_min(16 * 1024)
            .log_segment_bytes_max(32 * 1024)
            // Records that get to the disk at once, though not for good, or that wait for a sync.
            .log_buffer_bytes(if self.seed % 4 < 2 { 0 } else { 1 << 20 })
            .buffer_past(Duration::from_secs(5))
            .refresh_bytes(if self.seed % 5 < 3 { 0 } else { 1 << 20 })
            .open_volumes_max(1 + (self.seed % 3) as usize)
            .install_slice_metrics(1 + (self.seed % 3) as u32)
            // By the thread that reads the log alone, or with others.
            .replay_workers(((self.seed / 3) % 4) as usize)
            .workers(0);
        match self.bug {
            Some(bug) => options.plant(bug),
            None => options,
        }
    }

    pub fn open(&self, disk: Arc<dyn Vfs>) -> Result<Database, Error> {
        self.options().open_on(disk, DIR)
    }
}

/// What was begun and what was acknowledged.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Mutex<Begun>>);

#[derive(Debug)]
struct Begun {
    /// The content after each transaction that was begun, by its number.
    states: Vec<Content>,
    /// The last transaction that was acknowledged as durable.
    durable: usize,
}

impl Default for Begun {
    fn default() -> Self {
        Begun { states: vec![Content::default()], durable: 0 }
    }
}

impl Progress {
    fn begun(&self) -> MutexGuard<'_, Begun> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last transaction that was acknowledged as durable.
    pub fn durable(&self) -> usize {
        self.begun().durable
    }

    /// As it was when `durable` was the last that was acknowledged as such, for itself.
    pub fn when(&self, durable: usize) -> Progress {
        let states = self.begun().states.clone();
        Progress(Arc::new(Mutex::new(Begun { states, durable })))
    }
}

/// An open database in the middle of a history.
pub struct Session {
    pub history: History,
    pub disk: Arc<dyn Vfs>,
    pub db: Database,
    /// What must be in it.
    pub content: Content,
    pub progress: Progress,
    /// Snapshots, and what must be in them.
    pub snapshots: Vec<(Snapshot, Content)>,
    /// Whether files may have been left that do not tell whose they are.
    may_have_left_files: bool,
}

impl Session {
    /// Opens the database and takes what is in it as it is, if that is possible after what `progress` tells.
    pub fn begin(history: History, disk: Arc<dyn Vfs>, progress: Progress) -> Result<Session, Error> {
        let db = history.open(disk.clone())?;
        let content = read(&db.snapshot())?;
        check_content(&content, &progress, progress.durable());
        let may_have_left_files = !db.open_report().created;
        Ok(Session { history, disk, db, content, progress, snapshots: Vec::new(), may_have_left_files })
    }

    /// A step of the history. After an error nothing has changed, or the database has stopped.
    pub fn step(&mut self, number: u64) -> Result<(), Error> {
        let mut random = Random::of(self.history.seed, 0, number, 1);
        match random.below(27) {
            24.. => self.checkpoint()?,
            0..11 => self.write(&mut random)?,
            11..15 => drop(self.db.seal(bounds(&mut random))?),
            15..17 => drop(self.db.refresh(bounds(&mut random))?),
            17 => self.db.maintain(Timestamp::MAX)?,
            18 | 19 => self.sync()?,
            20 => self.snapshots.push((self.db.snapshot(), self.content.clone())),
            21 if !self.snapshots.is_empty() => {
                let place = random.below(self.snapshots.len() as u64) as usize;
                self.snapshots.swap_remove(place);
            }
            _ => self.reopen()?,
        }
        Ok(())
    }

    /// A random transaction.
    pub fn write(&mut self, random: &mut Random) -> Result<(), Error> {
        let mut next = self.content.clone();
        next.op = self.progress.begun().states.len();
        let mut txn = self.db.begin_write();
        let dropped = self.content.metrics.keys().nth(random.below(8 * METRICS) as usize);
        if let Some(dropped) = dropped {
            txn.drop_metric(&self.db.metric(dropped)?)?;
            next.metrics.remove(dropped);
        } else {
            for _ in 0..1 + random.below(4) {
                change(&self.db, &mut txn, &mut next, random)?;
            }
        }
        txn.put_meta(OP, next.op.to_string())?;
        let is_durable = random.below(2) == 0;
        txn.set_durability(if is_durable { Durability::Sync } else { Durability::Buffered });
        self.progress.begun().states.push(next.clone());
        txn.commit()?;
        self.content = next;
        if is_durable {
            self.progress.begun().durable = self.content.op;
        }
        Ok(())
    }

    pub fn sync(&mut self) -> Result<(), Error> {
        self.db.sync()?;
        self.progress.begun().durable = self.content.op;
        Ok(())
    }

    /// Writes a checkpoint, for which all so far has to be durable.
    pub fn checkpoint(&mut self) -> Result<(), Error> {
        self.db.checkpoint()?;
        self.progress.begun().durable = self.content.op;
        Ok(())
    }

    /// Closes the database and opens it again.
    pub fn reopen(&mut self) -> Result<(), Error> {
        self.snapshots.clear();
        self.may_have_left_files = true;
        let in_memory = Options::new().workers(0).open_in_memory()?;
        let closed = std::mem::replace(&mut self.db, in_memory).close();
        if closed.is_ok() {
            self.progress.begun().durable = self.content.op;
        }
        let reopened = self.history.open(self.disk.clone());
        // Once more if a fault was in the way.
        self.db = reopened.or_else(|_| self.history.open(self.disk.clone()))?;
        self.content = read(&self.db.snapshot())?;
        check_content(&self.content, &self.progress, self.progress.durable());
        closed.map(drop)
    }

    /// Compares what is in the database, and in the snapshots, with what must be.
    pub fn check(&self) -> Result<(), Error> {
        assert_same(&read(&self.db.snapshot())?, &self.content, "the newest snapshot");
        for (snapshot, content) in &self.snapshots {
            assert_same(&read(snapshot)?, content, "an older snapshot");
        }
        Ok(())
    }

    /// Seals all there is, and looks whether that is read as before, also after reopening, and that no more files are there than must be.
    pub fn settle(mut self, disk: &SimulatedDisk) -> Result<(), Error> {
        self.snapshots.clear();
        self.db.seal(..)?;
        self.check()?;
        // What was superseded only now goes.
        self.db.seal(..)?;
        assert_eq!(self.db.stats().points, 0, "what is sealed leaves the memory");
        self.checkpoint()?;
        // So does what the last checkpoint freed and could not remove.
        self.checkpoint()?;
        // What the check itself looks at is not part of the history.
        disk.count_reads(false);
        check_files(disk, self.may_have_left_files);
        self.reopen()?;
        // Opening may find an active file that the last checkpoint could not remove, if a call failed then; no volumes.
        let swept = &self.db.open_report().swept_files;
        let is_volume = |file: &&String| Path::new(file).starts_with(Path::new(DIR).join("data"));
        assert_eq!(swept.iter().find(is_volume), None, "{swept:?}");
        assert!(swept.len() <= 1, "{swept:?}");
        self.check()
    }
}

/// Opens what is on a disk after the power went, compares it, and goes on sealing. `durable` is what was acknowledged by then.
pub fn check_found(
    history: &History,
    disk: &SimulatedDisk,
    progress: &Progress,
    durable: usize,
) -> Vec<String> {
    guarded(|| {
        let found = || -> Result<(), Error> {
            let db = history.open(Arc::new(disk.clone()))?;
            let content = read(&db.snapshot())?;
            check_content(&content, progress, durable);
            let progress = progress.when(durable);
            let session = Session {
                history: *history,
                disk: Arc::new(disk.clone()),
                db,
                content,
                progress,
                snapshots: Vec::new(),
                may_have_left_files: true,
            };
            session.settle(disk)
        };
        found().err().into_iter().map(|error| format!("{error:?}")).collect()
    })
}

fn check_content(content: &Content, progress: &Progress, durable: usize) {
    let begun = progress.begun();
    let last = begun.states.len() - 1;
    assert!(
        (durable..=last).contains(&content.op),
        "transaction {} is the last, but {durable} was durable, {last} begun",
        content.op
    );
    assert_same(content, &begun.states[content.op], "what was found");
}

/// Tells the first difference instead of everything.
pub fn assert_same(found: &Content, wanted: &Content, what: &str) {
    if found == wanted {
        return;
    }
    assert_eq!(found.op, wanted.op, "{what}: the last transaction");
    let ids: BTreeSet<&String> = found.metrics.keys().chain(wanted.metrics.keys()).collect();
    for id in ids {
        let (found, wanted) = (found.metrics.get(id), wanted.metrics.get(id));
        if found == wanted {
            continue;
        }
        let (Some(found), Some(wanted)) = (found, wanted) else {
            panic!("{what}: metric {id} exists: {}, and should: {}", found.is_some(), wanted.is_some());
        };
        let times: BTreeSet<&i64> = found.keys().chain(wanted.keys()).collect();
        let at = times.into_iter().find(|at| found.get(at) != wanted.get(at)).expect("they differ");
        panic!("{what}: metric {id} at {at} has {:?}, not {:?}", found.get(at), wanted.get(at));
    }
}

/// Reads everything, in both directions.
///
/// # Panics
/// If these differ.
pub fn read(snapshot: &Snapshot) -> Result<Content, Error> {
    let op = snapshot.meta(OP).and_then(|op| std::str::from_utf8(op).ok()?.parse().ok());
    let mut content = Content { op: op.unwrap_or(0), metrics: BTreeMap::new() };
    for metric in snapshot.metrics() {
        content.metrics.insert(metric.to_string(), points(snapshot, &metric)?);
    }
    Ok(content)
}

/// Reads a metric in both directions.
///
/// # Panics
/// If these differ, or are not in order.
pub fn points(snapshot: &Snapshot, metric: &chronolith::Metric) -> Result<Points, Error> {
    let as_pair = |point: chronolith::Point| {
        (point.at.as_nanos(), (point.value.to_bits(), point.annotation.map(Vec::from)))
    };
    let forwards = snapshot.range(metric, ..).map(|point| point.map(as_pair));
    let forwards = forwards.collect::<Result<Vec<_>, _>>()?;
    let backwards = snapshot.range(metric, ..).rev().map(|point| point.map(as_pair));
    let backwards = backwards.collect::<Result<Vec<_>, _>>()?;
    assert!(forwards.iter().eq(backwards.iter().rev()), "{metric} reads otherwise from its end");
    assert!(forwards.windows(2).all(|pair| pair[0].0 < pair[1].0), "{metric} has a time twice");
    Ok(forwards.into_iter().collect())
}

/// All complete volumes on a disk, with their folders.
pub fn volumes(disk: &dyn Vfs, dir: &Path) -> Vec<(PathBuf, VolumeName)> {
    let mut found = Vec::new();
    let data = dir.join("data");
    let folders = |folder: &Path| {
        let names = disk.read_dir(folder).ok().flatten().unwrap_or_default();
        names.into_iter().map(|name| folder.join(name)).collect::<Vec<_>>()
    };
    for folder in folders(&data).iter().flat_map(|namespace| folders(namespace)) {
        if let Ok(listed) = VolumeFolder::list(disk, &folder) {
            found.extend(listed.complete.into_iter().map(|name| (folder.clone(), name)));
        }
    }
    found
}

/// Volumes must be sound, and no two of a shard may have a time in common: the older one would be superseded. Parts of others may be there if a
/// power cut or a failure left them.
fn check_files(disk: &SimulatedDisk, may_have_parts: bool) {
    let files = disk.files().into_iter().filter(|(path, _)| path.starts_with(Path::new(DIR).join("data")));
    let volume_of = |path: PathBuf| {
        let name = VolumeName::of_file(&path);
        (path.parent().unwrap_or(Path::new("")).to_owned(), name.expect("only volumes are there"))
    };
    let with_files: BTreeSet<_> = files.map(|(path, _)| volume_of(path)).collect();
    let complete: BTreeSet<_> = volumes(disk, Path::new(DIR)).into_iter().collect();
    assert!(may_have_parts || with_files == complete, "{with_files:?} have files, {complete:?} are complete");
    let mut covers: BTreeMap<(String, String), Vec<(i64, i64)>> = BTreeMap::new();
    for (folder, name) in complete {
        let volume = Volume::open(disk, &folder, name).expect("a complete volume opens");
        let damage = volume.verify();
        assert!(damage.is_empty(), "{}: {damage:?}", folder.display());
        let text = |path: Option<&std::ffi::OsStr>| path.unwrap_or_default().to_string_lossy().into_owned();
        let namespace = text(folder.parent().and_then(Path::file_name));
        let namespace = namespace.split('@').next().unwrap_or_default().to_owned();
        let info = volume.info().expect("it has one");
        let covers = covers.entry((namespace, text(folder.file_name()))).or_default();
        covers.push((info.block_start, info.block_start.saturating_add(info.block_size)));
    }
    for (shard, covers) in &mut covers {
        covers.sort_unstable();
        let apart = covers.windows(2).all(|pair| pair[0].1 <= pair[1].0);
        assert!(apart, "superseded volumes of {shard:?} are still there: {covers:?}");
    }
}

/// Stages a random change, here and in the model.
fn change(
    db: &Database,
    txn: &mut chronolith::WriteTransaction,
    content: &mut Content,
    random: &mut Random,
) -> Result<(), Error> {
    let id = format!("m{}", random.below(METRICS));
    let metric = db.metric(&id)?;
    match random.below(15) {
        0..6 => {
            let (at, value) = (time(random), value(random));
            txn.append(&metric, at, value)?;
            content.metrics.entry(id).or_default().insert(at.as_nanos(), (value.to_bits(), None));
        }
        6 | 7 => {
            let (at, value, note) = (time(random), value(random), random.next().to_le_bytes());
            txn.append_annotated(&metric, at, value, &note)?;
            let points = content.metrics.entry(id).or_default();
            points.insert(at.as_nanos(), (value.to_bits(), Some(note.to_vec())));
        }
        8..12 => {
            let (from, step) = (time(random), 1 + random.below(3) as i64);
            let times: Vec<_> = (0..20)
                .map(|index| Timestamp::from_nanos(from.as_nanos() + index * step * 1_000_000_000))
                .collect();
            let values: Vec<_> = times.iter().map(|_| value(random)).collect();
            txn.append_columns(&metric, &times, &values)?;
            let points = content.metrics.entry(id).or_default();
            points.extend(
                times.iter().zip(&values).map(|(at, value)| (at.as_nanos(), (value.to_bits(), None))),
            );
        }
        _ => {
            let (first, last) = range(random);
            txn.delete(&metric, first..=last)?;
            if let Some(points) = content.metrics.get_mut(&id) {
                points.retain(|at, _| !(first.as_nanos()..=last.as_nanos()).contains(at));
            }
        }
    }
    Ok(())
}

fn value(random: &mut Random) -> f64 {
    match random.below(4) {
        0 => f64::from_bits(random.next()),
        1 => random.below(10_000) as f64 / 100.0,
        _ => random.below(100) as f64,
    }
}

/// Mostly of three blocks, often at their ends; sometimes a few days later, so that the clock has left the first day, and sometimes before 1970.
fn time(random: &mut Random) -> Timestamp {
    let second = 1_000_000_000;
    let nanos = match random.below(20) {
        0..12 => (DAY + random.below(3 * BLOCK_SECONDS as u64) as i64) * second,
        12..16 => (DAY + random.below(4) as i64 * BLOCK_SECONDS) * second + random.below(3) as i64 - 1,
        16 | 17 => (DAY + 2 * DAY_SECONDS + random.below(BLOCK_SECONDS as u64) as i64) * second,
        18 => (DAY + 40 * DAY_SECONDS + random.below(BLOCK_SECONDS as u64) as i64) * second,
        _ => (random.below(3 * BLOCK_SECONDS as u64) as i64 - 2 * BLOCK_SECONDS) * second,
    };
    Timestamp::from_nanos(nanos)
}

/// Of any length, a block or all of time.
fn range(random: &mut Random) -> (Timestamp, Timestamp) {
    let (one, other) = (time(random), time(random));
    match random.below(4) {
        0 => (Timestamp::MIN, Timestamp::MAX),
        1 => {
            let block = BLOCK_SECONDS * 1_000_000_000;
            let first = one.as_nanos().div_euclid(block) * block;
            (Timestamp::from_nanos(first), Timestamp::from_nanos(first + block - 1))
        }
        _ => (one.min(other), one.max(other)),
    }
}

fn bounds(random: &mut Random) -> std::ops::RangeInclusive<Timestamp> {
    let (first, last) = range(random);
    first..=last
}
