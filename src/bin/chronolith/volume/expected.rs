//! `volume dump --m3-expected`: a volume in the form in which M3's fixtures describe it, key by key.
//!
//! The keys keep the fixtures' order, which a JSON map would not: so the text is written by hand, metric by metric.

use std::path::Path;

use chronolith::fileset::{Entry, Tag, Volume};
use chronolith::m3::{Piece, StreamPoint, read_volume};
use chronolith::m3tsz::ValueCoding;
use serde_json::{Value, json};

use crate::console::Out;
use crate::failure::{Failure, Outcome};
use crate::ids;
use crate::volume::dump::{told, without_info};
use crate::volume::place::Place;

/// Prints the volume as one object on one line.
pub(super) fn write(
    place: &Place,
    volume: &Volume,
    out: &mut Out,
    damage: &mut impl FnMut(String),
) -> Outcome<()> {
    let Shard { dir, namespace, shard } = Shard::of(&place.folder)?;
    let Some(info) = volume.info() else {
        return Err(Failure::input(format_args!("{}: {}", place.path(), without_info(volume)))
            .hint("without --m3-expected the rest of the volume can be printed"));
    };
    let kind = if info.snapshot.is_some() { "snapshot" } else { "flush" };
    let mut fields = vec![
        ("type", json!(kind)),
        ("dir", json!(dir)),
        ("namespace", json!(namespace)),
        ("shard", json!(shard)),
        ("block_start_ns", json!(info.block_start)),
        ("block_size_ns", json!(info.block_size)),
        ("volume_index", json!(info.volume)),
    ];
    if let Some(snapshot) = info.snapshot {
        fields.push(("snapshot_time_ns", json!(snapshot.time)));
        fields.push(("snapshot_id", json!(uuid(snapshot.id))));
    }
    fields.push(("entries", json!(info.entries)));
    fields.push(("bloom_m", json!(info.bloom.bits)));
    fields.push(("bloom_k", json!(info.bloom.hashes)));
    let head = members(&fields);
    out.bytes(format!("{{{head},\"series_in_data_file_order\":").as_bytes())?;

    let mut metrics = 0;
    read_volume(volume, ValueCoding::IntOptimized, |piece| match piece {
        Piece::Points { entry, tags, points, before } => {
            if before == 0 {
                out.bytes(if metrics == 0 { b"[" } else { b"]}," })?;
                metrics += 1;
                write_metric(entry, tags, points.first(), out)?;
            }
            for (at, point) in (before..).zip(points) {
                let comma = if at == 0 { "" } else { "," };
                let StreamPoint { timestamp, value, .. } = point;
                out.bytes(format!("{comma}[{timestamp},\"{:016x}\"]", value.to_bits()).as_bytes())?;
            }
            Ok(())
        }
        Piece::Damage { id, error } => {
            damage(told(id, error));
            Ok::<_, Failure>(())
        }
    })?;
    // The fixtures have no list where there are no metrics.
    out.line(if metrics == 0 { "null}" } else { "]}]}" })
}

/// A metric up to the beginning of its points.
fn write_metric(
    entry: &Entry<'_>,
    tags: &[Tag<'_>],
    first: Option<&StreamPoint>,
    out: &mut Out,
) -> Outcome<()> {
    let mut fields = vec![("id_hex", json!(ids::hex(entry.id())))];
    // For people: where it is plain text.
    if !entry.id().is_empty() && entry.id().iter().all(|byte| (0x20..=0x7e).contains(byte)) {
        fields.push(("id", json!(String::from_utf8_lossy(entry.id()))));
    }
    if !tags.is_empty() {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let pairs: Vec<Value> = tags.iter().map(|(name, value)| json!([text(name), text(value)])).collect();
        fields.push(("tags", Value::Array(pairs)));
    }
    fields.push(("data_checksum", json!(entry.checksum())));
    fields.push(("size", json!(entry.size())));
    fields.push(("unit", json!(first.map(|point| point.unit.to_string()))));
    out.bytes(format!("{{{},\"points\":[", members(&fields)).as_bytes())
}

/// The members of an object, in this order.
fn members(fields: &[(&str, Value)]) -> String {
    let members: Vec<_> = fields.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
    members.join(",")
}

/// A UUID as text.
pub(super) fn uuid(id: [u8; 16]) -> String {
    let hex = ids::hex(&id);
    let (low, rest) = hex.split_at(8);
    let (mid, rest) = rest.split_at(4);
    let (high, rest) = rest.split_at(4);
    let (clock, node) = rest.split_at(4);
    format!("{low}-{mid}-{high}-{clock}-{node}")
}

/// What only the folder tells.
struct Shard {
    dir: String,
    namespace: String,
    shard: u32,
}

impl Shard {
    /// From `.../data/NAMESPACE/SHARD` or `.../snapshots/NAMESPACE/SHARD`.
    fn of(folder: &Path) -> Outcome<Self> {
        let whole = folder.canonicalize().map_err(|error| Failure::file("find", folder, &error))?;
        let mut parts = whole.iter().rev().map(|part| part.to_str());
        let shard = parts.next().flatten().and_then(|part| part.parse().ok());
        let namespace = parts.next().flatten();
        let top = parts.next().flatten().filter(|top| matches!(*top, "data" | "snapshots"));
        match (shard, namespace, top) {
            (Some(shard), Some(namespace), Some(top)) => Ok(Shard {
                dir: format!("{top}/{namespace}/{shard}"),
                namespace: namespace.to_owned(),
                shard,
            }),
            _ => Err(Failure::input(format_args!(
                "{} does not say which namespace and shard the volume is of",
                whole.display()
            ))
            .hint("--m3-expected needs a volume in PREFIX/data/NAMESPACE/SHARD or PREFIX/snapshots/NAMESPACE/SHARD")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_have_dashes() {
        let id = std::array::from_fn(|at| at as u8);
        assert_eq!(uuid(id), "00010203-0405-0607-0809-0a0b0c0d0e0f");
    }
}
