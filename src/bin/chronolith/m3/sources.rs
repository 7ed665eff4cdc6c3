//! Volumes and commit logs on their way from M3's directory into a merge.
//!
//! Of a damaged volume all that its checksums vouch for is read. The metrics that it lost are taken from the volumes of its block that it replaced, if M3
//! has not removed them yet: those are older, and better than nothing.

use std::collections::{HashMap, HashSet};

use chronolith::fileset::VolumeFile;
use chronolith::io::RealDisk;
use chronolith::m3::{Directory, LogEntry, LogFile, Piece, Plan, VolumePlace, read_volume};
use chronolith::m3tsz::ValueCoding;
use chronolith::{ANNOTATION_BYTES_MAX, Error, Metric, MetricId, Timestamp};

use crate::console::{Console, counted};
use crate::failure::{Chain, Failure};
use crate::ids;
use crate::interrupt::Interrupt;
use crate::m3::import::ImportArgs;
use crate::m3::imported::Tally;
use crate::m3::list;
use crate::m3::merge::{BATCH_POINTS, IfThere, Merge, SourcePoint};
use crate::m3::names::Names;
use crate::progress::Progress;
use crate::volume::{damage, extent};

/// Why an import ended early.
pub(super) enum Stop {
    Interrupted,
    Failed(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Stop::Failed(failure)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Failed(error.into())
    }
}

/// An import on its way.
pub(super) struct Import<'a> {
    pub(super) args: &'a ImportArgs,
    pub(super) console: Console,
    pub(super) interrupt: &'a Interrupt,
    pub(super) names: Names<'a>,
    pub(super) merge: Merge<'a>,
    pub(super) tally: Tally,
}

/// What could be read of a volume.
#[derive(Debug, Default)]
struct Read {
    metrics: u64,
    /// How many there are to be, if anything tells.
    written: Option<u64>,
    /// Those that were read and that the database can have.
    ids: HashSet<MetricId>,
}

impl Read {
    fn is_whole(&self) -> bool {
        self.written.is_some_and(|written| self.metrics >= written)
    }
}

impl Import<'_> {
    /// Imports all that counts, in the plan's order.
    pub(super) fn all(&mut self, directory: &Directory, plan: &Plan) -> Result<(), Stop> {
        for namespace in &directory.namespaces {
            if self.args.wants(&namespace.name) {
                self.names.namespace(&namespace.name)?;
            }
        }
        let sizes = plan.volumes().map(data_bytes).chain(plan.all_logs().map(log_bytes));
        let mut progress = Progress::bytes(self.console, Some(sizes.sum()), "importing");
        let mut done = 0;
        for log in &plan.logs_before_volumes {
            self.log(log, |within| {
                let _ = progress.set(done + within);
            })?;
            done += log_bytes(log);
        }
        for place in plan.volumes() {
            // Ctrl-C is looked after at each commit.
            self.block(
                place,
                || plan.substitutes(directory, place),
                |within| {
                    let _ = progress.set(done + within);
                },
            )?;
            done += data_bytes(place);
        }
        for log in &plan.logs {
            self.log(log, |within| {
                let _ = progress.set(done + within);
            })?;
            done += log_bytes(log);
        }
        Ok(self.merge.settle()?)
    }

    /// Imports a volume, and what it lost from those that it replaced.
    fn block(
        &mut self,
        place: &VolumePlace,
        substitutes: impl FnOnce() -> Vec<VolumePlace>,
        progress: impl FnMut(u64),
    ) -> Result<(), Stop> {
        let damage_before = self.tally.damage.count();
        let Read { metrics, written, mut ids } = self.volume(place, None, progress)?;
        if self.tally.damage.count() == damage_before {
            return Ok(());
        }
        let mut found = format!("{}: {} read", shared_path(place), extent::told(metrics, written));
        if written.is_none() {
            found += ", and nothing tells how many there were";
        }
        let mut missing = written.map(|written| written.saturating_sub(metrics));
        for older in substitutes() {
            if missing == Some(0) {
                break;
            }
            let more = self.volume(&older, Some(&ids), |_| {})?;
            let added = more.ids.difference(&ids).count() as u64;
            found += &format!("; {} from {}, which it replaced", counted(added, "more metric"), older.name);
            missing = missing.map(|missing| missing.saturating_sub(added));
            let is_whole = more.is_whole();
            ids.extend(more.ids);
            if is_whole {
                break;
            }
        }
        self.tally.salvaged.push(found);
        Ok(())
    }

    /// Imports what can be read of a volume; as a `substitute`, of metrics that were not read elsewhere the points that the database lacks.
    fn volume(
        &mut self,
        place: &VolumePlace,
        substitute: Option<&HashSet<MetricId>>,
        mut progress: impl FnMut(u64),
    ) -> Result<Read, Stop> {
        let if_there = if substitute.is_some() { IfThere::Keep } else { IfThere::Contest };
        let mut read = Read::default();
        // As good as opening it if it is sound; if not, its damage is told with what can be read.
        let volume = match place.salvage(&RealDisk::new()) {
            Ok(volume) => volume,
            Err(error) => {
                self.tally.damage.push(Chain(&error).to_string());
                return Ok(read);
            }
        };
        read.written = extent::written(&volume);
        let Some(namespace) = self.names.namespace(&place.namespace)? else { return Ok(read) };
        read_volume(&volume, ValueCoding::IntOptimized, |piece| match piece {
            Piece::Points { entry, tags, points, before } => {
                progress(entry.offset());
                read.metrics += u64::from(before == 0);
                let Some(metric) = self.names.metric(&namespace, entry.id(), Some(tags))? else {
                    return Ok(());
                };
                read.ids.insert(metric.id());
                if substitute.is_some_and(|known| known.contains(&metric.id())) {
                    return Ok(());
                }
                let points = points.iter().map(|point| {
                    let annotation = &point.annotation[..];
                    SourcePoint { at: point.timestamp, value: point.value, annotation }
                });
                self.append(&metric, points.collect(), if_there)
            }
            Piece::Damage { id, error } => {
                let name = id.map(|id| format!("{}:{}", place.namespace, ids::shown(id)));
                self.tally.damage.push(match name {
                    Some(name) => damage::of_metric(name, error),
                    None => Chain(&error).to_string(),
                });
                Ok(())
            }
        })?;
        self.commit()?;
        self.tally.volumes += 1;
        Ok(read)
    }

    /// Imports a log, a batch of entries after the other. A batch is grouped by metric, so that each is compared with the database once.
    fn log(&mut self, file: &LogFile, mut progress: impl FnMut(u64)) -> Result<(), Stop> {
        let log = match file.open(&RealDisk::new()) {
            Ok(log) => log,
            Err(error) => {
                self.tally.damage.push(Chain(&error).to_string());
                return Ok(());
            }
        };
        let mut batch = LogBatch::default();
        let mut read = 0_u64;
        let mut entries = log.entries();
        loop {
            match entries.next_entry() {
                None => break,
                Some(Ok(entry)) => {
                    read += 1;
                    self.note_entry(&entry, &mut batch)?;
                }
                Some(Err(error)) => self.tally.damage.push(Chain(&error).to_string()),
            }
            if batch.points.len() as u64 >= BATCH_POINTS {
                progress(entries.position());
                self.append_logged(&mut batch)?;
            }
        }
        if entries.is_torn() {
            let (path, read) = (file.path.display(), counted(read, "logged point"));
            self.console.note(format_args!("note: a crash tore the end of {path}; {read} before that"));
        }
        self.append_logged(&mut batch)?;
        self.tally.logs += 1;
        Ok(())
    }

    /// Puts an entry into the batch, if it is wanted.
    fn note_entry(&mut self, entry: &LogEntry<'_>, batch: &mut LogBatch) -> Result<(), Stop> {
        let series = entry.series;
        if !self.args.wants(&series.namespace) {
            return Ok(());
        }
        if entry.names_series || !batch.metrics.contains_key(&entry.unique_index) {
            let metric = match self.names.namespace(&series.namespace)? {
                Some(namespace) => self.names.metric(&namespace, &series.id, series.tags().as_deref())?,
                None => None,
            };
            batch.metrics.insert(entry.unique_index, metric);
        }
        self.tally.entries += 1;
        if let Some(Some(metric)) = batch.metrics.get(&entry.unique_index) {
            let (at, value, annotation) = (entry.timestamp, entry.value, entry.annotation.into());
            batch.points.push(Logged { metric: metric.clone(), at, value, annotation });
        }
        Ok(())
    }

    fn append_logged(&mut self, batch: &mut LogBatch) -> Result<(), Stop> {
        // Stable: within a metric the order stays that of the log.
        batch.points.sort_by_key(|point| point.metric.id());
        for of_metric in batch.points.chunk_by(|a, b| a.metric == b.metric) {
            let Some(Logged { metric, .. }) = of_metric.first() else { continue };
            let points = of_metric.iter().map(|point| {
                let annotation = &point.annotation[..];
                SourcePoint { at: point.at, value: point.value, annotation }
            });
            self.append(metric, points.collect(), IfThere::Contest)?;
        }
        batch.points.clear();
        self.commit()
    }

    /// Merges points of a metric, but for those that the database cannot have.
    fn append(
        &mut self,
        metric: &Metric,
        mut points: Vec<SourcePoint<'_>>,
        if_there: IfThere,
    ) -> Result<(), Stop> {
        let is_wrong = |point: &SourcePoint<'_>| point.annotation.len() > ANNOTATION_BYTES_MAX;
        if points.iter().any(is_wrong) {
            for point in points.extract_if(.., |point| is_wrong(point)) {
                let (at, name) = (Timestamp::from_nanos(point.at), ids::readable(metric.name()));
                let (len, max) = (point.annotation.len(), ANNOTATION_BYTES_MAX);
                let error = Error::TooLong { what: "an annotation", len, max };
                self.names.refuse(error, format_args!("{}:{name} at {at}", metric.namespace().name()))?;
            }
            if points.is_empty() {
                return Ok(());
            }
        }
        self.merge.append(metric, points, if_there)?;
        if self.merge.is_full() { self.commit() } else { Ok(()) }
    }

    fn commit(&mut self) -> Result<(), Stop> {
        self.merge.commit()?;
        if self.interrupt.is_pressed() { Err(Stop::Interrupted) } else { Ok(()) }
    }
}

/// Entries of a log that are merged together.
#[derive(Debug, Default)]
struct LogBatch {
    points: Vec<Logged>,
    /// By their numbers in the log; `None` if the database cannot have the metric.
    metrics: HashMap<u64, Option<Metric>>,
}

#[derive(Debug)]
struct Logged {
    metric: Metric,
    at: i64,
    value: f64,
    annotation: Box<[u8]>,
}

/// A volume's path without the last part of its files' names.
fn shared_path(place: &VolumePlace) -> String {
    place.folder.join(format!("fileset-{}", place.name)).display().to_string()
}

fn data_bytes(place: &VolumePlace) -> u64 {
    list::file_bytes(&place.folder.join(place.name.file_name(VolumeFile::Data)))
}

fn log_bytes(log: &LogFile) -> u64 {
    list::file_bytes(&log.path)
}
