//! Staging: the changes of a write transaction before they are committed, and the sealed record they become.
//!
//! Changes are encoded as they are given, one section per lane, so that a commit hands bytes to the log and to the lanes and
//! copies them nowhere else. Nothing here takes a lock that others wait for.

use std::ops::Range;

use foldhash::fast::RandomState;
use hashbrown::HashSet;

use crate::error::{Error, Result};
use crate::names::{Metric, MetricId, Names, Namespace, NamespaceId};
use crate::sync::Arc;

use super::partition_map::Cover;
use super::record::{
    ANNOTATION_BYTES_MAX, Command, Commands, Install, META_BYTES_MAX, SectionMark, SectionWriter,
};
use super::stream::ClosedStream;
use super::window::Window;

/// From so many points on a column in order is encoded when it is staged. The streams end with the column, so fewer points would
/// take more memory; and a slice of fewer does not keep others waiting.
const ENCODED_POINTS_MIN: usize = if cfg!(shuttle) { 8 } else { 1_024 };

/// A section that is the whole record and longer than this becomes the record as it is, without a copy.
const COPIED_BYTES_MAX: usize = 64 * 1024;

/// The changes of one write transaction.
#[derive(Debug)]
pub(crate) struct Staged {
    /// Which database's metrics are taken.
    database: u64,
    lanes: u32,
    sections: Vec<(u32, SectionWriter)>,
    /// Commands that no lane applies.
    global: Option<SectionWriter>,
    /// Commands that every lane applies.
    everywhere: Option<SectionWriter>,
    /// What this transaction makes and drops.
    pub(crate) creates: Vec<Metric>,
    pub(crate) namespaces: Vec<Namespace>,
    pub(crate) drops: Vec<Metric>,
    /// Which pieces of metadata it writes.
    pub(crate) meta_keys: Vec<Box<[u8]>>,
    created: HashSet<MetricId, RandomState>,
    dropped: HashSet<MetricId, RandomState>,
    /// How many drops had been sequenced when staging began, or when it was last seen that none concerns this.
    pub(crate) drops_seen: u64,
    /// Metrics that nobody had made when something of them was to be deleted: as long as somebody has a handle, their names do not leave.
    unmade: Vec<Metric>,
    /// The metrics it has commands for, each once. Only if somebody had to know.
    written: Option<Written>,
    has_points: bool,
    /// What is staged, in bytes, and how much may be.
    bytes: usize,
    bytes_max: usize,
}

/// The metrics that a transaction writes to.
#[derive(Debug)]
pub(crate) struct Written {
    metrics: Vec<Metric>,
    /// One whose name has left, as it was dropped since its command was staged.
    gone: Option<MetricId>,
}

impl Written {
    /// What one is called that is dropped.
    pub(crate) fn dropped(&self) -> Option<String> {
        let gone = || self.gone.map(|id| format!("metric {}", id.0));
        self.metrics.iter().find(|metric| metric.is_dropped()).map(Metric::to_string).or_else(gone)
    }
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

/// Where staging stood, but for its sections.
#[derive(Clone, Copy)]
struct Mark {
    bytes: usize,
    creates: usize,
    namespaces: usize,
    has_points: bool,
    global: Option<SectionMark>,
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
            sections: Vec::with_capacity(lanes.min(8) as usize),
            global: None,
            everywhere: None,
            creates: Vec::new(),
            namespaces: Vec::new(),
            drops: Vec::new(),
            meta_keys: Vec::new(),
            created: HashSet::default(),
            dropped: HashSet::default(),
            drops_seen,
            unmade: Vec::new(),
            written: None,
            has_points: false,
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
        let mark = self.mark();
        let staged = row.iter().try_for_each(|(metric, value)| self.point(metric, at, *value));
        if staged.is_err() {
            self.sections.truncate(marks.len());
            self.sections.iter_mut().zip(marks).for_each(|((_, section), mark)| section.rewind(mark));
            self.rewind(mark);
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
        self.write(metric, Making::Never, |section| section.delete(metric.id(), range.first, range.last))?;
        if !metric.is_created() {
            self.unmade.push(metric.clone());
        }
        Ok(())
    }

    pub(crate) fn drop_metric(&mut self, metric: &Metric) -> Result<()> {
        self.write(metric, Making::Never, |section| section.drop_metric(metric.id()))?;
        self.drops.push(metric.clone());
        self.dropped.insert(metric.id());
        Ok(())
    }

    pub(crate) fn create_namespace(&mut self, namespace: &Namespace) -> Result<()> {
        self.write_global(|global| global.namespace(namespace.id(), namespace.name(), namespace.options()))?;
        self.namespaces.push(namespace.clone());
        Ok(())
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

    /// Stages that a block is frozen. Nothing else is in the transaction.
    pub(super) fn freeze(&mut self, namespace: NamespaceId, shard: u32, block: Cover) {
        self.everywhere.get_or_insert_with(SectionWriter::new).freeze(namespace, shard, block);
    }

    /// Stages a slice of an install. Nothing else is in the transaction.
    pub(super) fn install(&mut self, install: &Install) {
        self.everywhere.get_or_insert_with(SectionWriter::new).install(install);
    }

    /// Stages a command of a metric, which may have to be made before. What would be too much is not staged.
    fn write(&mut self, metric: &Metric, making: Making, put: impl FnOnce(&mut SectionWriter)) -> Result<()> {
        self.check(metric)?;
        let place = self.section(metric.id());
        let (before, mark) = (self.sections[place].1.mark(), self.mark());
        if making == Making::Always || making == Making::IfNew && !metric.is_created() {
            self.stage_creation(metric, place)?;
        }
        let section = &mut self.sections[place].1;
        put(section);
        let bytes = self.bytes + section.mark().size() - before.size();
        if bytes > self.bytes_max {
            section.rewind(before);
            self.rewind(mark);
            return Err(Error::StagedBytes { bytes, max: self.bytes_max });
        }
        self.bytes = bytes;
        // Points, and nothing else, make their metric if they must.
        self.has_points |= making == Making::IfNew;
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

    fn mark(&self) -> Mark {
        Mark {
            bytes: self.bytes,
            creates: self.creates.len(),
            namespaces: self.namespaces.len(),
            has_points: self.has_points,
            global: self.global.as_ref().map(SectionWriter::mark),
        }
    }

    /// Forgets what was staged since it stood there. The sections are the caller's to rewind.
    fn rewind(&mut self, mark: Mark) {
        self.bytes = mark.bytes;
        self.has_points = mark.has_points;
        for metric in self.creates.drain(mark.creates..) {
            self.created.remove(&metric.id());
        }
        self.namespaces.truncate(mark.namespaces);
        match (&mut self.global, mark.global) {
            (Some(global), Some(mark)) => global.rewind(mark),
            (global, _) => *global = None,
        }
    }

    /// Stages the metric's creation, once. What would be too much is not staged.
    fn stage_creation(&mut self, metric: &Metric, place: usize) -> Result<()> {
        if self.created.contains(&metric.id()) {
            return Ok(());
        }
        let namespace = metric.namespace();
        if !namespace.is_created() && !self.namespaces.contains(namespace) {
            self.create_namespace(namespace)?;
        }
        let section = &mut self.sections[place].1;
        section.create(metric.id(), namespace.id(), metric.name(), metric.own_tags());
        self.created.insert(metric.id());
        self.creates.push(metric.clone());
        Ok(())
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

    /// Whether it adds points.
    pub(crate) fn has_points(&self) -> bool {
        self.has_points
    }

    /// The metrics that the record sealed of this has commands for. The first time this reads the record, which takes long if it is
    /// large.
    pub(crate) fn written(&mut self, record: &Record, names: &Names) -> &Written {
        self.written.get_or_insert_with(|| {
            let commands = Commands::new(&record.bytes).map_while(Result::ok);
            let mut ids: Vec<MetricId> = Vec::new();
            for id in commands.filter_map(|command| command.metric()) {
                if ids.last() != Some(&id) {
                    ids.push(id);
                }
            }
            ids.sort_unstable();
            ids.dedup();
            let (mut metrics, mut gone) = (Vec::new(), None);
            for id in ids {
                match names.metric_by_id(id) {
                    Some(metric) => metrics.push(metric),
                    None => gone = Some(id),
                }
            }
            Written { metrics, gone }
        })
    }

    /// Whether [`Staged::written`] has an answer at hand.
    pub(crate) fn knows_written(&self) -> bool {
        self.written.is_some()
    }

    /// The bytes that the log will get.
    pub(crate) fn seal(&mut self) -> Record {
        let global = self.global.take().map_or_else(Vec::new, |global| global.into_parts().0);
        let staged = self.sections.drain(..).filter(|(_, section)| !section.is_empty());
        let mut staged: Vec<_> = staged.map(|(lane, section)| (lane, section.into_parts())).collect();
        let (mut bytes, mut sections) = (Vec::new(), Vec::with_capacity(staged.len()));
        if let (true, [(_, (only, _))]) = (global.is_empty(), staged.as_mut_slice())
            && only.len() > COPIED_BYTES_MAX
        {
            bytes = std::mem::take(only);
            let (lane, (_, streams)) = staged.remove(0);
            sections.push(Section { lane, bytes: 0..bytes.len(), streams });
        }
        let len = global.len() + staged.iter().map(|(_, (section, _))| section.len()).sum::<usize>();
        // Of that size at once, and no larger: sections begin with more than a small record needs, and the log may keep it for a while.
        bytes.reserve_exact(len);
        bytes.extend_from_slice(&global);
        let mut global = 0..global.len();
        for (lane, (section, streams)) in staged {
            let begin = bytes.len();
            bytes.extend_from_slice(&section);
            sections.push(Section { lane, bytes: begin..bytes.len(), streams });
        }
        if let Some(everywhere) = self.everywhere.take() {
            debug_assert!(bytes.is_empty());
            bytes = everywhere.into_parts().0;
            // The same bytes for each lane, and for the publisher.
            let section = |lane| Section { lane, bytes: 0..bytes.len(), streams: Vec::new() };
            sections.extend((0..self.lanes).map(section));
            global = 0..bytes.len();
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::names::{DEFAULT_NAMESPACE, NamespaceOptions};

    const OPTIONS: NamespaceOptions = NamespaceOptions { block_ns: 7_200_000_000_000, shards: 4 };

    fn names() -> (Names, Namespace) {
        let names = Names::new(7, OPTIONS);
        let default = names.namespace(DEFAULT_NAMESPACE, OPTIONS).expect("default");
        (names, default)
    }

    fn refused(result: Result<()>) -> bool {
        matches!(result, Err(Error::StagedBytes { bytes, max }) if bytes > max)
    }

    /// A namespace that nobody has made, and a metric in it whose name is long.
    fn unmade(names: &Names) -> (Namespace, Metric) {
        let namespace = names.namespace("unmade", OPTIONS).expect("valid");
        let metric = names.metric(&namespace, &[b'm'; 1_000]).expect("valid");
        (namespace, metric)
    }

    #[test]
    fn a_refused_write_leaves_no_namespace_and_no_bytes() {
        type Write = fn(&mut Staged, &Metric) -> Result<()>;
        let writes: [(&str, Write); 3] = [
            ("point", |staged, metric| staged.point(metric, 1, 1.0)),
            ("row", |staged, metric| staged.row(1, &[(metric.clone(), 1.0)])),
            ("creation", |staged, metric| staged.create(metric)),
        ];
        for (name, write) in writes {
            for has_global in [false, true] {
                let (names, default) = names();
                let (namespace, metric) = unmade(&names);
                let mut staged = Staged::new(7, 2, 0, 500);
                if has_global {
                    staged.put_meta(b"k", b"v").expect("small");
                }
                let before = staged.bytes;
                assert!(refused(write(&mut staged, &metric)), "{name}");
                assert_eq!(
                    (staged.bytes, staged.namespaces.len(), staged.creates.len()),
                    (before, 0, 0),
                    "{name}"
                );
                assert!(!staged.has_points(), "{name}");
                assert_eq!(staged.is_empty(), !has_global, "{name}: there is nothing more to commit");
                assert_eq!(staged.global_commands().count(), usize::from(has_global), "{name}");

                // All that is left can be used, and is counted.
                let small = names.metric(&namespace, b"m").expect("valid");
                staged.point(&small, 1, 1.0).expect("small");
                assert_eq!(staged.namespaces, [namespace], "{name}: its making was not forgotten");
                staged.point(&names.metric(&default, b"m").expect("valid"), 1, 1.0).expect("small");
                let sections = staged.sections.iter().map(|(_, section)| section).chain(&staged.global);
                let sizes: usize = sections.map(|section| section.mark().size() - 1).sum();
                assert_eq!(staged.bytes, sizes, "{name}");
            }
        }
    }

    #[test]
    fn a_namespace_counts_and_is_refused_if_it_is_too_much() {
        let (names, default) = names();
        let namespace = names.namespace(&"n".repeat(200), OPTIONS).expect("valid");
        let metric = names.metric(&namespace, b"m").expect("valid");
        let mut staged = Staged::new(7, 2, 0, 100);
        assert!(refused(staged.create_namespace(&namespace)));
        assert!(refused(staged.point(&metric, 1, 1.0)));
        assert!(staged.is_empty() && staged.namespaces.is_empty() && staged.creates.is_empty());
        staged.point(&names.metric(&default, b"m").expect("valid"), 1, 1.0).expect("small");
    }

    #[test]
    fn only_points_count_as_points() {
        let (names, default) = names();
        let metric = names.metric(&default, b"m").expect("valid");
        let mut staged = Staged::new(7, 2, 0, usize::MAX);
        staged.create(&metric).expect("staged");
        staged.delete(&metric, Cover::ALL).expect("staged");
        staged.put_meta(b"k", b"v").expect("staged");
        assert!(!staged.has_points());
        type Write = fn(&mut Staged, &Metric) -> Result<()>;
        let writes: [Write; 4] = [
            |staged, metric| staged.point(metric, 1, 1.0),
            |staged, metric| staged.annotated(metric, 1, 1.0, b"a"),
            |staged, metric| staged.columns(metric, [1].into_iter(), &[1.0]),
            |staged, metric| staged.row(1, &[(metric.clone(), 1.0)]),
        ];
        for write in writes {
            let mut staged = Staged::new(7, 2, 0, usize::MAX);
            write(&mut staged, &metric).expect("staged");
            assert!(staged.has_points());
        }
    }

    #[test]
    fn what_is_written_is_each_metric_once() {
        let (names, default) = names();
        let metrics = ["a", "b", "c"].map(|name| names.metric(&default, name.as_bytes()).expect("valid"));
        let mut staged = Staged::new(7, 2, 0, usize::MAX);
        for at in 0..3 {
            staged.point(&metrics[2], at, 1.0).expect("staged");
            staged.point(&metrics[0], at, 1.0).expect("staged");
        }
        staged.put_meta(b"k", b"v").expect("staged");
        let record = staged.seal();
        assert!(!staged.knows_written());
        assert_eq!(staged.written(&record, &names).metrics, [metrics[0].clone(), metrics[2].clone()]);
        assert!(staged.knows_written());
    }
}
