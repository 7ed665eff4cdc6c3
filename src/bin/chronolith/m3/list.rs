//! `m3 list`: what is in a directory of M3.

use std::path::{Path, PathBuf};

use chronolith::Timestamp;
use chronolith::fileset::VolumeFile;
use chronolith::io::RealDisk;
use chronolith::m3::{Directory, ShardFolder, VolumeKind, VolumePlace};
use clap::Args;
use serde_json::json;

use crate::console::{Console, bytes, counted, thousands};
use crate::failure::{Chain, Outcome, Status};
use crate::m3::shown;
use crate::times;

/// List namespaces, shards, snapshots and commit logs.
///
/// A line for each namespace, shard and kind of volume. `volumes` are all complete ones; all else counts the highest of each block. `metrics` are
/// those of the block that has most. Only the small files are read: `m3 verify` reads all. A row that is DAMAGED has volumes whose small files do not say what
/// is in them, and lacks what those would say.
#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// The node's file path prefix.
    prefix: PathBuf,
}

pub(crate) fn run(args: &ListArgs, console: Console) -> Outcome {
    let directory = super::directory(&args.prefix)?;
    let mut damage: Vec<String> = directory.damage.iter().map(|error| Chain(error).to_string()).collect();
    let rows = rows(&directory, &mut damage);
    let mut out = console.out();
    if console.json {
        for row in &rows {
            out.json(&row.to_json())?;
        }
        for snapshot in &directory.snapshots {
            out.json(&json!({
                "snapshot": snapshot.uuid(),
                "index": snapshot.index,
                "log_index": snapshot.log_index,
            }))?;
        }
        for log in &directory.logs {
            out.json(&json!({"commit_log": log.path.display().to_string(), "index": log.index, "bytes": file_bytes(&log.path)}))?;
        }
        for path in shown(&unfinished(&directory)) {
            out.json(&json!({"unfinished": path}))?;
        }
        for path in shown(&directory.foreign) {
            out.json(&json!({"foreign_file": path}))?;
        }
        for place in &damage {
            out.json(&json!({"damage": place}))?;
        }
    } else {
        let style = out.style();
        if !rows.is_empty() {
            let wide = rows.iter().map(|row| row.namespace.chars().count()).max().unwrap_or(0).max(9);
            out.line(style.dim(format_args!(
                "{:<wide$}  {:>5}  {:<8}  {:>7}  {:>7}  {:>9}  {:>10}  {:<20}  to",
                "namespace", "shard", "kind", "blocks", "volumes", "metrics", "bytes", "from"
            )))?;
            for row in &rows {
                out.line(row.line(wide))?;
            }
        }
        for snapshot in &directory.snapshots {
            let (uuid, log) = (snapshot.uuid(), snapshot.log_index);
            out.line(format_args!(
                "snapshot {uuid}, number {}; commit logs from {log} on are newer",
                snapshot.index
            ))?;
        }
        for log in &directory.logs {
            out.line(format_args!("{}, {}", log.path.display(), bytes(file_bytes(&log.path))))?;
        }
        for path in unfinished(&directory) {
            out.line(format_args!("unfinished: {}", path.display()))?;
        }
        for path in &directory.foreign {
            out.line(format_args!("not of M3: {}", path.display()))?;
        }
        for place in &damage {
            out.line(format_args!("damage: {place}"))?;
        }
        if rows.is_empty() && directory.logs.is_empty() {
            console.note(format_args!("{} has neither volumes nor commit logs", args.prefix.display()));
        }
    }
    out.flush()?;
    Ok(if damage.is_empty() { Status::Done } else { Status::CheckFailed })
}

/// Volumes and snapshots that were not finished.
pub(super) fn unfinished(directory: &Directory) -> Vec<PathBuf> {
    let mut unfinished = Vec::new();
    for kind in [VolumeKind::Flush, VolumeKind::Snapshot] {
        for namespace in &directory.namespaces {
            for shard in &namespace.shards {
                let folder = directory.folder(kind, &namespace.name, shard.shard);
                let names = shard.volumes(kind).incomplete.iter();
                unfinished.extend(names.map(|name| folder.join(format!("fileset-{name}"))));
            }
        }
    }
    unfinished.extend(directory.unfinished.iter().cloned());
    unfinished
}

/// The volumes of one kind in one shard.
struct Row {
    namespace: String,
    shard: u32,
    kind: VolumeKind,
    blocks: u64,
    volumes: u64,
    metrics: u64,
    bytes: u64,
    /// Volumes that do not say what is in them.
    damaged: u64,
    /// Volumes with a supplement.
    supplements: u64,
    /// From the first block's start to the last one's end.
    ends: Option<(i64, i64)>,
}

impl Row {
    fn kind(&self) -> &'static str {
        match self.kind {
            VolumeKind::Flush => "flush",
            VolumeKind::Snapshot => "snapshot",
        }
    }

    fn line(&self, wide: usize) -> String {
        let time = |nanos| times::rfc3339(Timestamp::from_nanos(nanos));
        let [from, to] = match self.ends {
            // The last block has no end where nothing tells how long it is.
            Some((from, to)) if from == to => [time(from), "?".to_owned()],
            Some((from, to)) => [time(from), time(to)],
            None => ["-".to_owned(), "-".to_owned()],
        };
        let metrics = match self.metrics {
            0 if self.damaged > 0 => "?".to_owned(),
            metrics => thousands(metrics),
        };
        let marks = match (self.supplements, self.damaged) {
            (0, 0) => String::new(),
            (supplements, 0) => format!("  {}", counted(supplements, "supplement")),
            (0, damaged) => format!("  {} DAMAGED", thousands(damaged)),
            (supplements, damaged) => {
                format!("  {}  {} DAMAGED", counted(supplements, "supplement"), thousands(damaged))
            }
        };
        format!(
            "{:<wide$}  {:>5}  {:<8}  {:>7}  {:>7}  {metrics:>9}  {:>10}  {from:<20}  {to}{marks}",
            self.namespace,
            self.shard,
            self.kind(),
            thousands(self.blocks),
            thousands(self.volumes),
            bytes(self.bytes),
        )
    }

    fn to_json(&self) -> serde_json::Value {
        json!({
            "namespace": self.namespace,
            "shard": self.shard,
            "kind": self.kind(),
            "blocks": self.blocks,
            "volumes": self.volumes,
            "metrics": self.metrics,
            "bytes": self.bytes,
            "damaged": self.damaged,
            "supplements": self.supplements,
            "from_ns": self.ends.map(|ends| ends.0),
            "to_ns": self.ends.map(|ends| ends.1),
        })
    }
}

fn rows(directory: &Directory, damage: &mut Vec<String>) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for kind in [VolumeKind::Flush, VolumeKind::Snapshot] {
        let latest = directory.volumes(kind);
        for namespace in &directory.namespaces {
            for shard in &namespace.shards {
                let counting = latest
                    .iter()
                    .filter(|place| (&place.namespace, place.shard) == (&namespace.name, shard.shard));
                let row = row(&namespace.name, shard, kind, counting, damage);
                if row.volumes > 0 {
                    rows.push(row);
                }
            }
        }
    }
    rows
}

fn row<'a>(
    namespace: &str,
    shard: &ShardFolder,
    kind: VolumeKind,
    counting: impl Iterator<Item = &'a VolumePlace>,
    damage: &mut Vec<String>,
) -> Row {
    let volumes = shard.volumes(kind).complete.len() as u64;
    let (namespace, shard) = (namespace.to_owned(), shard.shard);
    let (blocks, metrics, bytes, damaged, supplements) = (0, 0, 0, 0, 0);
    let mut row =
        Row { namespace, shard, kind, blocks, volumes, metrics, bytes, damaged, supplements, ends: None };
    for place in counting {
        row.blocks += 1;
        row.bytes += volume_bytes(place);
        let start = place.name.block_start;
        let mut end = start;
        match place.open(&RealDisk::new()) {
            Ok(volume) => {
                if let Some(info) = volume.info() {
                    row.metrics = row.metrics.max(info.entries);
                    end = start.saturating_add(info.block_size);
                }
                row.supplements += u64::from(volume.supplement().is_some());
            }
            Err(error) => {
                row.damaged += 1;
                damage.push(Chain(&error).to_string());
            }
        }
        row.ends = Some(row.ends.map_or((start, end), |ends| (ends.0.min(start), ends.1.max(end))));
    }
    row
}

/// The bytes of all files of a volume. What cannot be measured counts nothing: this is a figure, not a check.
pub(super) fn volume_bytes(place: &VolumePlace) -> u64 {
    VolumeFile::ALL.into_iter().map(|file| file_bytes(&place.folder.join(place.name.file_name(file)))).sum()
}

pub(super) fn file_bytes(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}
