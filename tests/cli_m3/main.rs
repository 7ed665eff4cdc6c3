//! The verbs about M3's files, run as their users run them, on a directory that M3 wrote (`tests/data/m3-fileset`).
//!
//! Here: running the tool, and what the fixture has. Tests: `volumes`, `directory`, `import`, and on directories that they write themselves, `order`.
#![cfg(feature = "cli")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use chronolith::Options;
use serde_json::Value;
use tempfile::TempDir;

/// Arguments of different types in one list.
macro_rules! args {
    ($($arg:expr),* $(,)?) => { [$(OsString::from($arg)),*] };
}

mod directory;
mod import;
mod order;
mod volumes;

/// The outcome of a run.
#[derive(Debug)]
struct Run {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Run {
    /// Asserts the exit status.
    #[track_caller]
    fn ends(self, status: i32) -> Self {
        assert_eq!(self.status, Some(status), "{}\n{}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    fn stderr_has(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "no {text:?} in: {}", self.stderr);
        self
    }

    #[track_caller]
    fn stdout_has(self, text: &str) -> Self {
        assert!(self.stdout.contains(text), "no {text:?} in: {}", self.stdout);
        self
    }

    /// The only line, as JSON.
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

fn run<I: IntoIterator<Item: AsRef<OsStr>>>(args: I) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chronolith"));
    let output = command.args(args).stdin(Stdio::null()).output().expect("the tool runs");
    Run {
        status: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/m3-fileset")
}

fn lines(name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(fixture().join(name)).expect("a fixture");
    text.lines().map(|line| serde_json::from_str(line).expect("a JSON object")).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

fn hex(value: &Value) -> Vec<u8> {
    let digits: Vec<u8> = text(value).chars().map(|c| c.to_digit(16).expect("a digit") as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A copy of the fixture that may be damaged, and room for databases.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        Place { dir: tempfile::tempdir().expect("a folder for temporary files") }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn db(&self) -> PathBuf {
        self.at("db")
    }

    /// The fixture's directory of M3, and nothing beside it.
    fn prefix(&self) -> PathBuf {
        let prefix = self.at("m3db");
        for folder in ["data", "snapshots", "commitlogs"] {
            copy(&fixture().join(folder), &prefix.join(folder));
        }
        prefix
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("room");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("readable");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::write(&to, std::fs::read(entry.path()).expect("readable")).expect("room");
        }
    }
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).expect("readable");
    change(&mut bytes);
    std::fs::write(path, bytes).expect("writable");
}

type Tags = Vec<(Vec<u8>, Vec<u8>)>;
/// Value bits and annotations by time.
type Points = BTreeMap<i64, (u64, Vec<u8>)>;
/// By namespace and ID.
type Metrics = BTreeMap<(String, Vec<u8>), (Tags, Points)>;

/// Encoded tags, as M3 writes them: `75 27`, their number, and lengths before names and values, all 16 bits.
fn decoded_tags(bytes: &[u8]) -> Tags {
    let mut literals = Vec::new();
    let mut rest = bytes.get(4..).unwrap_or_default();
    while let [low, high, more @ ..] = rest {
        let (literal, after) = more.split_at(usize::from(u16::from_le_bytes([*low, *high])));
        literals.push(literal.to_vec());
        rest = after;
    }
    literals.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
}

/// What M3 would have after a restart: of each block the highest volume, then the snapshot, then the logs.
fn merged() -> Metrics {
    let mut volumes = lines("volumes.jsonl");
    let highest = |volume: &Value| {
        let same = |other: &&Value| {
            ["dir", "block_start_ns"].iter().all(|key| other[*key] == volume[*key])
                && other["volume_index"].as_u64() > volume["volume_index"].as_u64()
        };
        !lines("volumes.jsonl").iter().any(|other| same(&other))
    };
    volumes.retain(highest);
    assert_eq!(volumes.len(), 9);
    // Stable, so that snapshots come behind what was flushed.
    volumes.sort_by_key(|volume| volume["type"] == "snapshot");
    let mut metrics = Metrics::new();
    for volume in &volumes {
        for series in list(&volume["series_in_data_file_order"]) {
            let key = (text(&volume["namespace"]).to_owned(), hex(&series["id_hex"]));
            let tag = |tag: &Value| (text(&tag[0]).as_bytes().to_vec(), text(&tag[1]).as_bytes().to_vec());
            let (tags, points) = metrics.entry(key).or_default();
            *tags = list(&series["tags"]).iter().map(tag).collect();
            for point in list(&series["points"]) {
                let bits = u64::from_str_radix(text(&point[1]), 16).expect("bits");
                points.insert(point[0].as_i64().expect("a time"), (bits, Vec::new()));
            }
        }
    }
    for log in lines("commit-logs.jsonl") {
        for entry in list(&log["entries"]) {
            let key = (text(&entry["namespace"]).to_owned(), hex(&entry["id_hex"]));
            let (tags, points) = metrics.entry(key).or_default();
            if let Some(encoded) = entry.get("encoded_tags_hex") {
                *tags = decoded_tags(&hex(encoded));
            }
            let bits = u64::from_str_radix(text(&entry["value_bits"]), 16).expect("bits");
            let annotation = entry.get("annotation_hex").map(hex).unwrap_or_default();
            points.insert(entry["t_ns"].as_i64().expect("a time"), (bits, annotation));
        }
    }
    metrics
}

/// All that is in a database.
fn content(dir: &Path) -> Metrics {
    let db = Options::new().create(false).open(dir).expect("a database");
    let snapshot = db.snapshot();
    let mut metrics = Metrics::new();
    for metric in snapshot.metrics() {
        let tags = metric.tags().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        let points = snapshot.range(&metric, ..).map(|point| {
            let point = point.expect("readable");
            let annotation = point.annotation.map(Vec::from).unwrap_or_default();
            (point.at.as_nanos(), (point.value.to_bits(), annotation))
        });
        let key = (metric.namespace().name().to_owned(), metric.name().to_vec());
        assert!(metrics.insert(key, (tags, points.collect())).is_none());
    }
    metrics
}

/// The merged fixture as it is imported with `--empty-id none`.
fn expected() -> Metrics {
    let mut metrics = merged();
    let unnamed = metrics.remove(&("tagged".to_owned(), Vec::new())).expect("a metric with the empty ID");
    metrics.insert(("tagged".to_owned(), b"none".to_vec()), unnamed);
    metrics
}

#[track_caller]
fn assert_same(found: &Metrics, expected: &Metrics) {
    assert!(found.keys().eq(expected.keys()), "other metrics");
    for (key, expected) in expected {
        assert_eq!(&found[key], expected, "{key:?}");
    }
}
