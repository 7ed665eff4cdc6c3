//! Which namespaces there were, and with which options.
//!
//! The checkpoint's state tells, and the log of those that were made later. If the state is lost, volumes do: their folders have the names, and the
//! metrics in their tables, which names file and log know too, the numbers. The options of the default namespace are in the superblock and in each segment
//! of the log; all namespaces were made with these. Where volumes contradict that, what they have in common is taken.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::fileset::Sharding;
use crate::io::Vfs;
use crate::names::{DEFAULT_NAMESPACE, NamespaceId, NamespaceOptions};
use crate::sealed::{FoundVolume, NamespaceLabel};
use crate::superblock::StoredOptions;

use super::examine::Examination;

/// More shards are not tried, in search of a number that fits.
const SHARDS_TRIED_MAX: u32 = 65_536;
/// So many IDs of a volume are looked at for it.
const IDS_TRIED_MAX: usize = 10_000;

/// The namespaces at the version of the checkpoint.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    pub(super) by_number: BTreeMap<u32, (String, NamespaceOptions)>,
    /// Numbers by folders of volumes; also of those that the log makes later.
    by_label: BTreeMap<NamespaceLabel, u32>,
    /// What was made up, one sentence each.
    pub(super) substitutes: Vec<String>,
}

impl Namespaces {
    /// Finds them; `known` are those that the state has.
    pub(super) fn find(
        disk: &Arc<dyn Vfs>,
        found: &Examination,
        known: BTreeMap<u32, (String, NamespaceOptions)>,
        tables: &BTreeMap<u32, Vec<(u32, u64)>>,
    ) -> Self {
        let stored = found.contents.options;
        let default = options_of(stored);
        let is_known = !known.is_empty();
        let mut namespaces = Namespaces { by_number: known, ..Namespaces::default() };
        namespaces.by_number.entry(0).or_insert((DEFAULT_NAMESPACE.to_owned(), default));
        let version = found.checkpoint.version.unwrap_or_default();
        for (number, (name, options, made)) in &found.log.namespaces {
            let label = NamespaceLabel::Name(name.clone());
            namespaces.by_label.entry(label).or_insert(*number);
            if *made <= version {
                namespaces.by_number.entry(*number).or_insert((name.clone(), *options));
            }
        }
        for (number, (name, _)) in &namespaces.by_number {
            namespaces.by_label.insert(NamespaceLabel::Name(name.clone()), *number);
        }
        if !is_known {
            namespaces.add_those_of_volumes(disk, found, default, tables);
        }
        namespaces.add_substitutes(found, default);
        namespaces
    }

    /// The number of the namespace of a volume.
    pub(super) fn number_of(&self, label: &NamespaceLabel) -> Option<u32> {
        match label {
            NamespaceLabel::Name(_) => self.by_label.get(label).copied(),
            NamespaceLabel::Number(id) => Some(id.0),
        }
    }

    fn add_those_of_volumes(
        &mut self,
        disk: &Arc<dyn Vfs>,
        found: &Examination,
        default: NamespaceOptions,
        tables: &BTreeMap<u32, Vec<(u32, u64)>>,
    ) {
        let labels: BTreeSet<&NamespaceLabel> =
            found.volumes.iter().map(|volume| &volume.namespace).collect();
        let is_new = |label: &&&NamespaceLabel| !self.by_label.contains_key(**label);
        let labels: Vec<&NamespaceLabel> = labels.iter().filter(is_new).copied().collect();
        let highest = |numbers: &mut dyn Iterator<Item = u32>| numbers.max().unwrap_or(0);
        let mut next = highest(&mut self.by_number.keys().copied())
            .max(highest(&mut self.by_label.values().copied()))
            .max(highest(&mut found.checkpoint.names.values().map(|name| name.namespace)))
            .max(highest(&mut found.checkpoint.metrics.values().map(|metric| metric.namespace)))
            .max(highest(&mut found.log.created.values().map(|created| created.0)));
        for label in labels {
            let volumes: Vec<&FoundVolume> =
                found.volumes.iter().filter(|volume| volume.namespace == *label).collect();
            let number = match label {
                NamespaceLabel::Number(id) => id.0,
                NamespaceLabel::Name(name) => told_number(found, &volumes, tables).unwrap_or_else(|| {
                    next += 1;
                    self.substitutes
                        .push(format!("the number of namespace {name} is lost; it is now {next}"));
                    next
                }),
            };
            let name = match label {
                NamespaceLabel::Name(name) => name.clone(),
                // So long that its folder is called by its number.
                NamespaceLabel::Number(_) => format!("salvaged-namespace-{number}{}", "~".repeat(70)),
            };
            if matches!(label, NamespaceLabel::Number(_)) {
                self.substitutes.push(format!("the name of namespace {number} is lost; it is now {name}"));
            }
            let options = fitting_options(disk, &volumes, default);
            if options != default {
                self.substitutes.push(format!(
                    "the options of namespace {name} are lost; its volumes fit blocks of {} ns and {} shards",
                    options.block_ns, options.shards
                ));
            }
            self.by_number.entry(number).or_insert((name, options));
            self.by_label.insert(label.clone(), number);
        }
    }

    /// Names for namespaces that metrics are of, and of which nothing else is known.
    fn add_substitutes(&mut self, found: &Examination, default: NamespaceOptions) {
        let names = found.checkpoint.names.values().map(|name| name.namespace);
        let metrics = found.checkpoint.metrics.values().map(|metric| metric.namespace);
        let of_log: BTreeSet<u32> = found.log.namespaces.keys().copied().collect();
        for number in names.chain(metrics).collect::<BTreeSet<u32>>() {
            if self.by_number.contains_key(&number) || of_log.contains(&number) {
                continue;
            }
            let name = format!("salvaged-namespace-{number}");
            self.substitutes.push(format!("the name of namespace {number} is lost; it is now {name}"));
            self.by_number.insert(number, (name, default));
        }
    }
}

/// Which namespace most of the metrics in these volumes are of, as far as something else tells.
fn told_number(
    found: &Examination,
    volumes: &[&FoundVolume],
    tables: &BTreeMap<u32, Vec<(u32, u64)>>,
) -> Option<u32> {
    let mut told: BTreeMap<u32, u64> = BTreeMap::new();
    for volume in volumes {
        if let Some((block, _)) = found.log.installed.get(&volume.id.0) {
            *told.entry(block.namespace.0).or_default() += 1;
        }
        for (metric, _) in tables.get(&volume.id.0).into_iter().flatten() {
            let of_tree = found.checkpoint.metrics.get(metric).map(|metric| metric.namespace);
            let of_name = found.checkpoint.names.get(metric).map(|name| name.namespace);
            let of_log = found.log.created.get(metric).map(|created| created.0);
            if let Some(number) = of_tree.or(of_name).or(of_log) {
                *told.entry(number).or_default() += 1;
            }
        }
    }
    told.into_iter().max_by_key(|(_, count)| *count).map(|(number, _)| number)
}

/// The options of a database that neither its superblock nor its log tells: those given, if the volumes of the default namespace fit them.
pub(super) fn guess_options(
    disk: &Arc<dyn Vfs>,
    volumes: &[FoundVolume],
    given: StoredOptions,
) -> StoredOptions {
    let is_default =
        |volume: &&FoundVolume| volume.namespace == NamespaceLabel::Name(DEFAULT_NAMESPACE.to_owned());
    let of_default: Vec<&FoundVolume> = volumes.iter().filter(is_default).collect();
    let volumes = if of_default.is_empty() { volumes.iter().collect() } else { of_default };
    let NamespaceOptions { block_ns, shards } = fitting_options(disk, &volumes, options_of(given));
    StoredOptions { block_size_ns: block_ns.unsigned_abs(), shards, ..given }
}

fn options_of(stored: StoredOptions) -> NamespaceOptions {
    let block_ns = i64::try_from(stored.block_size_ns).unwrap_or(i64::MAX);
    NamespaceOptions { block_ns, shards: stored.shards }
}

/// The given options, or others where the volumes of a namespace do not fit these: blocks as long as most of those in folders without a width, and the
/// smallest number of shards by which all IDs are in theirs.
fn fitting_options(
    disk: &Arc<dyn Vfs>,
    volumes: &[&FoundVolume],
    given: NamespaceOptions,
) -> NamespaceOptions {
    let mut lengths: BTreeMap<i64, u64> = BTreeMap::new();
    for volume in volumes.iter().filter(|volume| volume.width_ns.is_none()) {
        // The first and the last block of all time are shorter.
        let cover = volume.cover.filter(|cover| cover.first > i64::MIN && cover.last < i64::MAX);
        let length = cover.and_then(|cover| cover.last.checked_sub(cover.first)?.checked_add(1));
        length.into_iter().for_each(|length| *lengths.entry(length).or_default() += 1);
    }
    let length = lengths.into_iter().max_by_key(|(_, count)| *count).map(|(length, _)| length);
    let mut ids: Vec<(Vec<u8>, u32)> = Vec::new();
    for volume in volumes {
        let Ok(opened) = volume.open(&**disk) else { continue };
        let entries = opened.entries().flatten().take(IDS_TRIED_MAX);
        ids.extend(entries.map(|entry| (entry.id().to_vec(), volume.shard)));
    }
    let fits = |shards: &u32| {
        let sharding = Sharding { shards: *shards, seed: 0 };
        ids.iter().all(|(id, shard)| sharding.shard_of(id) == *shard)
    };
    let least = volumes.iter().map(|volume| volume.shard).max().unwrap_or(0).saturating_add(1);
    let shards = match fits(&given.shards) {
        true => given.shards,
        false => (least..=SHARDS_TRIED_MAX.max(least)).find(fits).unwrap_or(given.shards),
    };
    NamespaceOptions { block_ns: length.unwrap_or(given.block_ns), shards }
}

/// The number of a namespace as the core has it.
pub(super) fn id(number: u32) -> NamespaceId {
    NamespaceId(number)
}
