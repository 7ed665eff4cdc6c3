//! Volumes anew, with what is sound of damaged ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::Result;
use crate::fileset::{Entry, MetricStream, Statistics, Volume, encode_tags};
use crate::io::Vfs;
use crate::m3tsz::EncoderOptions;
use crate::mvcc::commit::Core;
use crate::names::Metric;
use crate::sealed::{BlockVolume, FoundVolume};

/// Writes the next volume of a block with the streams of a damaged one that are sound, of the metrics that exist and have it. Returns the new volume, and the
/// metrics that lost theirs, with why. In a dry run nothing is written.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io).
pub(super) fn rewrite(
    disk: &Arc<dyn Vfs>,
    core: &Core,
    block: &BlockVolume,
    damaged: &FoundVolume,
    dry_run: bool,
) -> Result<(BlockVolume, Vec<String>)> {
    let transaction = core.load();
    let id = core.next_volume();
    let new = BlockVolume { id, number: id.0, ..*block };
    let mut lost = Vec::new();
    let namespace = core.names.namespace_by_id(block.namespace);
    let (Some(namespace), Some(store)) = (namespace, core.volumes()) else { return Ok((new, lost)) };
    let mut writer = match dry_run {
        true => None,
        false => Some(store.create(&new, &namespace)?),
    };
    let opened = damaged.open(&**disk).ok();
    let by_id: BTreeMap<&[u8], Entry<'_>> = match &opened {
        Some(volume) => volume.entries().flatten().map(|entry| (entry.id(), entry)).collect(),
        None => BTreeMap::new(),
    };
    for (number, map) in transaction.metrics.iter() {
        if !map.base().blocks().iter().any(|sealed| sealed.volume == block.id) {
            continue;
        }
        let Some(metric) = core.names.metric_by_id(number) else { continue };
        let found = match &opened {
            Some(volume) => find(volume, &by_id, &metric),
            None => Ok(None),
        };
        match found {
            Ok(None) => {}
            Ok(Some((stream, statistics))) => {
                let tags: Vec<(&[u8], &[u8])> = metric.tags().collect();
                let tags = encode_tags(&tags).unwrap_or_default();
                let stream = MetricStream { id: metric.name(), tags: &tags, stream };
                if let Some(writer) = &mut writer {
                    writer.append_numbered(stream, metric.id(), &statistics)?;
                }
            }
            Err(reason) => lost.push(format!("{metric}: {reason}")),
        }
    }
    if let Some(writer) = writer {
        writer.finish()?;
    }
    Ok((new, lost))
}

/// A metric's stream, by its number if the table is sound there, else by its ID.
fn find<'v>(
    volume: &'v Volume,
    by_id: &BTreeMap<&[u8], Entry<'v>>,
    metric: &Metric,
) -> std::result::Result<Option<(&'v [u8], Statistics)>, String> {
    let text = |error: crate::Error| error.to_string();
    let mut damage = None;
    if let Some(supplement) = volume.supplement() {
        match supplement.find(metric.id()) {
            Ok(None) => return Ok(None),
            Ok(Some(entry)) => match supplement.stream(&entry) {
                Ok(stream) => return Ok(Some((stream, entry.statistics))),
                Err(error) => damage = Some(text(error)),
            },
            // A page of the table: the index knows them too.
            Err(_) => {}
        }
    }
    let Some(entry) = by_id.get(metric.name()) else { return damage.map_or(Ok(None), Err) };
    let stream = volume.stream(entry).map_err(text)?;
    let statistics = Statistics::of_stream(stream, EncoderOptions::default().values).map_err(text)?;
    Ok(Some((stream, statistics)))
}
