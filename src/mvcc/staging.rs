//! Staging: the changes of a write transaction before they are committed, and the sealed record they become.
//!
//! Changes are encoded as they are given, one section per lane, so that a commit hands bytes to the log and to the lanes and
//! copies them nowhere else. Nothing here takes a lock that others wait for.

use std::ops::Range;

use foldhash::fast::RandomState;
use hashbrown::HashSet;

use crate::error::{Error, Result};
use crate::names::{Metric, MetricId, Namespace};

use super::partition_map::Cover;
use super::record::{ANNOTATION_BYTES_MAX, Command, Commands, META_BYTES_MAX, SectionWriter};

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
}

/// A commit's record: one piece of bytes, and which part of it is whose.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) bytes: Vec<u8>,
    /// crc32 of `bytes`, taken before any lock.
    pub(crate) crc: u32,
    /// `(lane, its section)`.
    pub(crate) sections: Vec<(u32, Range<usize>)>,
    pub(crate) global: Range<usize>,
}

impl Staged {
    pub(crate) fn new(database: u64, lanes: u32, drops_seen: u64) -> Self {
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
        self.admit(metric)?.point(metric.id(), at, value);
        Ok(())
    }

    /// `at` and `values` have the same length, which is not 0.
    pub(crate) fn columns(
        &mut self,
        metric: &Metric,
        at: impl ExactSizeIterator<Item = i64>,
        values: &[f64],
    ) -> Result<()> {
        self.admit(metric)?.columns(metric.id(), at, values);
        Ok(())
    }

    pub(crate) fn annotated(
        &mut self,
        metric: &Metric,
        at: i64,
        value: f64,
        annotation: &[u8],
    ) -> Result<()> {
        limit("an annotation", annotation, ANNOTATION_BYTES_MAX)?;
        self.admit(metric)?.annotated(metric.id(), at, value, annotation);
        Ok(())
    }

    /// Makes the metric if nobody has.
    pub(crate) fn create(&mut self, metric: &Metric) -> Result<()> {
        self.check(metric)?;
        // Also if it is made already: that commit may be on its way still, or a drop may come before this one.
        self.stage_creation(metric);
        Ok(())
    }

    pub(crate) fn delete(&mut self, metric: &Metric, range: Cover) -> Result<()> {
        self.check(metric)?;
        self.section(metric.id()).delete(metric.id(), range.first, range.last);
        Ok(())
    }

    pub(crate) fn drop_metric(&mut self, metric: &Metric) -> Result<()> {
        self.check(metric)?;
        self.section(metric.id()).drop_metric(metric.id());
        self.drops.push(metric.clone());
        self.dropped.insert(metric.id());
        Ok(())
    }

    pub(crate) fn create_namespace(&mut self, namespace: &Namespace) {
        self.global().namespace(namespace.id(), namespace.name(), namespace.options());
        self.namespaces.push(namespace.clone());
    }

    pub(crate) fn put_meta(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        limit("a metadata key", key, META_BYTES_MAX)?;
        limit("a metadata value", value, META_BYTES_MAX)?;
        self.global().put_meta(key, value);
        self.meta_keys.push(key.into());
        Ok(())
    }

    pub(crate) fn remove_meta(&mut self, key: &[u8]) -> Result<()> {
        limit("a metadata key", key, META_BYTES_MAX)?;
        self.global().remove_meta(key);
        self.meta_keys.push(key.into());
        Ok(())
    }

    /// Checks the handle, sees to it that the metric is made, and returns the section for its commands.
    fn admit(&mut self, metric: &Metric) -> Result<&mut SectionWriter> {
        self.check(metric)?;
        self.ensure_created(metric);
        Ok(self.section(metric.id()))
    }

    /// Stages the metric's creation if nobody has made it yet.
    fn ensure_created(&mut self, metric: &Metric) {
        if !metric.is_created() {
            self.stage_creation(metric);
        }
    }

    fn stage_creation(&mut self, metric: &Metric) {
        if self.created.insert(metric.id()) {
            let namespace = metric.namespace();
            if !namespace.is_created() && !self.namespaces.contains(namespace) {
                self.create_namespace(namespace);
            }
            let section = self.section(metric.id());
            section.create(metric.id(), namespace.id(), metric.name(), metric.tag_list());
            self.creates.push(metric.clone());
        }
    }

    fn section(&mut self, metric: MetricId) -> &mut SectionWriter {
        let lane = metric.0 % self.lanes;
        let index = match self.sections.iter().position(|(known, _)| *known == lane) {
            Some(index) => index,
            None => {
                self.sections.push((lane, SectionWriter::new()));
                self.sections.len() - 1
            }
        };
        &mut self.sections[index].1
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
        self.sections.is_empty() && self.global.is_none()
    }

    /// The bytes that the log will get.
    pub(crate) fn seal(&mut self) -> Record {
        let mut bytes = self.global.take().map_or_else(Vec::new, SectionWriter::into_bytes);
        let global = 0..bytes.len();
        let mut sections = Vec::with_capacity(self.sections.len());
        for (lane, section) in self.sections.drain(..) {
            let begin = bytes.len();
            match bytes.is_empty() {
                true => bytes = section.into_bytes(),
                false => bytes.extend_from_slice(section.bytes()),
            }
            sections.push((lane, begin..bytes.len()));
        }
        let crc = crc32fast::hash(&bytes);
        Record { bytes, crc, sections, global }
    }
}

fn limit(what: &'static str, bytes: &[u8], max: usize) -> Result<()> {
    match bytes.len() {
        len if len > max => Err(Error::TooLong { what, len, max }),
        _ => Ok(()),
    }
}
