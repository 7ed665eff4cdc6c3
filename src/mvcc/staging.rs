//! Staging: the changes of a write transaction before they are committed, and the sealed record they become.
//!
//! Changes are encoded as they are given, one section per lane, so that a commit hands bytes to the log and to the lanes and
//! copies them nowhere else. Nothing here takes a lock that others wait for.

use std::ops::Range;

use foldhash::fast::RandomState;
use hashbrown::HashSet;

use crate::error::{Error, Result};
use crate::names::{Metric, MetricId, Namespace};
use crate::sync::Arc;

use super::partition_map::Cover;
use super::record::{ANNOTATION_BYTES_MAX, Command, Commands, META_BYTES_MAX, SectionMark, SectionWriter};
use super::stream::ClosedStream;
use super::window::Window;

/// From so many points on a column in order is encoded when it is staged. The streams end with the column, so fewer points would
/// take more memory; and a slice of fewer does not keep others waiting.
const ENCODED_POINTS_MIN: usize = 1_024;

/// The changes of one write transaction.
#[derive(Debug)]
pub(crate) struct Staged {
    /// Which database's metrics are taken.
    database: u64,
    lanes: u32,
    sections: Vec<(u32, SectionWriter)>,
    /// Commands that no lane applies.
    global: Option<SectionWriter>,
    /// What this transaction makes and drops.
    pub(crate) creates: Vec<Metric>,
    pub(crate) namespaces: Vec<Namespace>,
    pub(crate) drops: Vec<Metric>,
    /// Which pieces of metadata it writes.
    pub(crate) meta_keys: Vec<Box<[u8]>>,
    created: HashSet<MetricId, RandomState>,
    dropped: HashSet<MetricId, RandomState>,
    /// How many drops had been sequenced when staging began.
    pub(crate) drops_seen: u64,
    /// What is staged, in bytes, and how much may be.
    bytes: usize,
    bytes_max: usize,
}

/// A commit's record: one piece of bytes, and which part of it is whose.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) bytes: Vec<u8>,
    /// crc32 of `bytes`, taken before any lock.
    pub(crate) crc: u32,
    pub(crate) sections: Vec<Section>,
    pub(crate) global: Range<usize>,
    /// What it takes in memory.
    pub(crate) staged_bytes: usize,
}

/// Whether a command makes its metric.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Making {
    Never,
    IfNew,
    Always,
}

/// The part of a record that concerns one lane.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) lane: u32,
    /// Where it is in the record.
    pub(crate) bytes: Range<usize>,
    /// The encoded streams in it, in this order.
    pub(crate) streams: Vec<Arc<Vec<u8>>>,
}

impl Staged {
    pub(crate) fn new(database: u64, lanes: u32, drops_seen: u64, bytes_max: usize) -> Self {
        Staged {
            database,
            lanes,
            sections: Vec::new(),
            global: None,
            creates: Vec::new(),
            namespaces: Vec::new(),
            drops: Vec::new(),
            meta_keys: Vec::new(),
            created: HashSet::default(),
            dropped: HashSet::default(),
            drops_seen,
            bytes: 0,
            bytes_max,
        }
    }

    /// Refuses handles that are of no use here.
    pub(crate) fn check(&self, metric: &Metric) -> Result<()> {
        if !metric.belongs_to(self.database) {
            return Err(Error::ForeignMetric(metric.to_string()));
        }
        if metric.is_dropped() || self.dropped.contains(&metric.id()) {
            return Err(Error::MetricDropped(metric.to_string()));
        }
        Ok(())
    }

    pub(crate) fn point(&mut self, metric: &Metric, at: i64, value: f64) -> Result<()> {
        self.write(metric, Making::IfNew, |section| section.point(metric.id(), at, value))
    }

    /// A point of each metric, or nothing.
    pub(crate) fn row(&mut self, at: i64, row: &[(Metric, f64)]) -> Result<()> {
        row.iter().try_for_each(|(metric, _)| self.check(metric))?;
        let marks: Vec<SectionMark> = self.sections.iter().map(|(_, section)| section.mark()).collect();
        let (bytes, creates) = (self.bytes, self.creates.len());
        let staged = row.iter().try_for_each(|(metric, value)| self.point(metric, at, *value));
        if staged.is_err() {
            self.sections.truncate(marks.len());
            self.sections.iter_mut().zip(marks).for_each(|((_, section), mark)| section.rewind(mark));
            self.forget_creates(creates);
            self.bytes = bytes;
        }
        staged
    }

    /// `at` and `values` have the same length, which is not 0. Many points in order are encoded here.
    pub(crate) fn columns(
        &mut self,
        metric: &Metric,
        at: impl ExactSizeIterator<Item = i64> + Clone,
        values: &[f64],
    ) -> Result<()> {
        self.check(metric)?;
        let is_encoded = values.len() >= ENCODED_POINTS_MIN && at.clone().is_sorted_by(|a, b| a < b);
        let window = Window::new(metric.namespace().options().block_ns);
        let streams = is_encoded.then(|| ClosedStream::of_columns(window, at.clone(), values)).flatten();
        self.write(metric, Making::IfNew, |section| match streams {
            Some(streams) => section.streams(metric.id(), streams),
            None => section.columns(metric.id(), at, values),
        })
    }

    pub(crate) fn annotated(
        &mut self,
        metric: &Metric,
        at: i64,
        value: f64,
        annotation: &[u8],
    ) -> Result<()> {
        limit("an annotation", annotation, ANNOTATION_BYTES_MAX)?;
        self.write(metric, Making::IfNew, |section| section.annotated(metric.id(), at, value, annotation))
    }

    /// Makes the metric if nobody has.
    pub(crate) fn create(&mut self, metric: &Metric) -> Result<()> {
        // Also if it is made already: that commit may be on its way still, or a drop may come before this one.
        self.write(metric, Making::Always, |_| ())
    }

    pub(crate) fn delete(&mut self, metric: &Metric, range: Cover) -> Result<()> {
        self.write(metric, Making::Never, |section| section.delete(metric.id(), range.first, range.last))
    }

    pub(crate) fn drop_metric(&mut self, metric: &Metric) -> Result<()> {
        self.write(metric, Making::Never, |section| section.drop_metric(metric.id()))?;
        self.drops.push(metric.clone());
        self.dropped.insert(metric.id());
        Ok(())
    }

    pub(crate) fn create_namespace(&mut self, namespace: &Namespace) {
        let global = self.global();
        let before = global.mark().size();
        global.namespace(namespace.id(), namespace.name(), namespace.options());
        self.bytes += self.global().mark().size() - before;
        self.namespaces.push(namespace.clone());
    }

    pub(crate) fn put_meta(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        limit("a metadata key", key, META_BYTES_MAX)?;
        limit("a metadata value", value, META_BYTES_MAX)?;
        self.write_global(|global| global.put_meta(key, value))?;
        self.meta_keys.push(key.into());
        Ok(())
    }

    pub(crate) fn remove_meta(&mut self, key: &[u8]) -> Result<()> {
        limit("a metadata key", key, META_BYTES_MAX)?;
        self.write_global(|global| global.remove_meta(key))?;
        self.meta_keys.push(key.into());
        Ok(())
    }

    /// Stages a command of a metric, which may have to be made before. What would be too much is not staged.
    fn write(&mut self, metric: &Metric, making: Making, put: impl FnOnce(&mut SectionWriter)) -> Result<()> {
        self.check(metric)?;
        let place = self.section(metric.id());
        let before = self.sections[place].1.mark();
        let creates = self.creates.len();
        if making == Making::Always || making == Making::IfNew && !metric.is_created() {
            self.stage_creation(metric, place);
        }
        let section = &mut self.sections[place].1;
        put(section);
        let bytes = self.bytes + section.mark().size() - before.size();
        if bytes > self.bytes_max {
            section.rewind(before);
            self.forget_creates(creates);
            return Err(Error::StagedBytes { bytes, max: self.bytes_max });
        }
        self.bytes = bytes;
        Ok(())
    }

    /// As [`Staged::write`], for a command of no metric.
    fn write_global(&mut self, put: impl FnOnce(&mut SectionWriter)) -> Result<()> {
        let (bytes, max) = (self.bytes, self.bytes_max);
        let global = self.global();
        let before = global.mark();
        put(global);
        let bytes = bytes + global.mark().size() - before.size();
        if bytes > max {
            global.rewind(before);
            return Err(Error::StagedBytes { bytes, max });
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Forgets all creations but the first so many. Their namespaces stay: who names one makes it anyway.
    fn forget_creates(&mut self, kept: usize) {
        for metric in self.creates.drain(kept..) {
            self.created.remove(&metric.id());
        }
    }

    /// Stages the metric's creation, once.
    fn stage_creation(&mut self, metric: &Metric, place: usize) {
        if self.created.insert(metric.id()) {
            let namespace = metric.namespace();
            if !namespace.is_created() && !self.namespaces.contains(namespace) {
                self.create_namespace(namespace);
            }
            let section = &mut self.sections[place].1;
            section.create(metric.id(), namespace.id(), metric.name(), metric.tag_list());
            self.creates.push(metric.clone());
        }
    }

    /// The place of the section for a metric's commands.
    fn section(&mut self, metric: MetricId) -> usize {
        let lane = metric.0 % self.lanes;
        match self.sections.iter().position(|(known, _)| *known == lane) {
            Some(place) => place,
            None => {
                self.sections.push((lane, SectionWriter::new()));
                self.sections.len() - 1
            }
        }
    }

    fn global(&mut self) -> &mut SectionWriter {
        self.global.get_or_insert_with(SectionWriter::new)
    }

    /// The commands of one metric so far, in the order given. Reads the whole section of its lane.
    pub(crate) fn commands_of(&self, metric: MetricId) -> impl Iterator<Item = Command<'_>> {
        let lane = metric.0 % self.lanes;
        let section = self.sections.iter().find(|(known, _)| *known == lane);
        let bytes = section.map_or(&[][..], |(_, section)| section.bytes());
        Commands::new(bytes).map_while(Result::ok).filter(move |command| command.metric() == Some(metric))
    }

    /// The commands that concern no metric.
    pub(crate) fn global_commands(&self) -> impl Iterator<Item = Command<'_>> {
        let bytes = self.global.as_ref().map_or(&[][..], SectionWriter::bytes);
        Commands::new(bytes).map_while(Result::ok)
    }

    /// Whether there is anything to commit.
    pub(crate) fn is_empty(&self) -> bool {
        self.sections.iter().map(|(_, section)| section).chain(&self.global).all(SectionWriter::is_empty)
    }

    /// The bytes that the log will get.
    pub(crate) fn seal(&mut self) -> Record {
        let mut bytes = self.global.take().map_or_else(Vec::new, |global| global.into_parts().0);
        let global = 0..bytes.len();
        let mut sections = Vec::with_capacity(self.sections.len());
        for (lane, section) in self.sections.drain(..).filter(|(_, section)| !section.is_empty()) {
            let begin = bytes.len();
            let (section, streams) = section.into_parts();
            match bytes.is_empty() {
                true => bytes = section,
                false => bytes.extend_from_slice(&section),
            }
            sections.push(Section { lane, bytes: begin..bytes.len(), streams });
        }
        let crc = crc32fast::hash(&bytes);
        Record { bytes, crc, sections, global, staged_bytes: self.bytes }
    }
}

fn limit(what: &'static str, bytes: &[u8], max: usize) -> Result<()> {
    match bytes.len() {
        len if len > max => Err(Error::TooLong { what, len, max }),
        _ => Ok(()),
    }
}
