//! Volumes: what writing, opening and finding cost. A table of figures, not a criterion group: most of it happens once.
//!
//! `CHRONOLITH_FILESET_METRICS` (10,000 unless set) metrics of 480 points each, 15 seconds apart, with a supplement;
//! streams repeat after 500. 1,000,000 take about 1 GB below the system's temporary folder, which is removed again.

mod common;

use std::error::Error;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use chronolith::MetricId;
use chronolith::fileset::{
    MetricStream, SortedVolumeWriter, Statistics, SupplementSpec, Volume, VolumeFile, VolumeName, VolumeSpec,
    VolumeWriter,
};
use chronolith::io::RealDisk;
use chronolith::m3tsz::{Encoder, EncoderOptions};
use common::{Shape, Values};

const POINTS: i64 = 480;
const STEP: i64 = 15_000_000_000;
const STREAMS: usize = 500;
const LOOKUPS: usize = 1_000_000;
const NAME: VolumeName = VolumeName { block_start: 1_700_006_400_000_000_000, volume: 0 };
const SPEC: VolumeSpec = VolumeSpec {
    name: NAME,
    block_size: 7_200_000_000_000,
    snapshot: None,
    supplement: Some(SupplementSpec { database_id: [7; 16], freeze_version: 1 }),
};

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let metrics = match std::env::var("CHRONOLITH_FILESET_METRICS") {
        Ok(metrics) => metrics.replace('_', "").parse()?,
        Err(_) => 10_000,
    };
    let streams: Vec<_> = (0..STREAMS).map(stream).collect();
    let bytes_each = streams.iter().map(|(stream, _)| stream.len()).sum::<usize>() / STREAMS;
    println!("{metrics} metrics of {POINTS} points, {bytes_each} bytes of stream each");

    let temp = tempfile::tempdir()?;
    let needed = metrics as u64 * (bytes_each as u64 + 300);
    match free_bytes(temp.path()) {
        Some(free) if free < needed + (1 << 30) => {
            return Err(format!(
                "{} has {free} bytes free, {needed} and 1 GiB are needed",
                temp.path().display()
            )
            .into());
        }
        _ => {}
    }
    write("plain writer, no supplement", temp.path(), metrics, &streams, Writer::Plain, false)?;
    write("plain writer", temp.path(), metrics, &streams, Writer::Plain, true)?;
    write("sorted writer, no supplement", temp.path(), metrics, &streams, Writer::Sorted, false)?;
    write("sorted writer", temp.path(), metrics, &streams, Writer::Sorted, true)?;
    sizes(temp.path())?;
    read(temp.path(), metrics)
}

/// A stream and its statistics.
fn stream(index: usize) -> (Vec<u8>, Statistics) {
    let mut encoder = Encoder::new(NAME.block_start, EncoderOptions::default());
    let mut values = Values::new(Shape::of(index), index as u64);
    let mut statistics = Statistics::default();
    for at in (0..POINTS).map(|i| NAME.block_start + i * STEP) {
        let value = values.next_value();
        encoder.append(at, value, b"").expect("ascending times are taken");
        statistics.add(at, value);
    }
    let mut bytes = Vec::new();
    encoder.finish_into(&mut bytes);
    (bytes, statistics)
}

/// An ID of 33 to 92 bytes; they ascend.
fn write_id(out: &mut Vec<u8>, metric: usize) {
    use std::io::Write;
    out.clear();
    let host = metric / 100;
    write!(out, "host-{host:07}.metric-{metric:09}.zone-eu").expect("memory takes it");
    out.extend(std::iter::repeat_n(b'x', metric * 7 % 60));
}

/// Metric ids in another order than the IDs: dense, with a gap for every eighth, as after drops.
fn metric_id(metric: usize, metrics: usize) -> MetricId {
    let mixed = (metric as u64 * coprime(metrics)) % metrics as u64;
    MetricId::from((mixed + mixed / 8) as u32)
}

/// A number whose multiples visit all of `0..metrics`.
fn coprime(metrics: usize) -> u64 {
    let gcd = |mut a: u64, mut b: u64| {
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    (metrics as u64 * 5 / 8..).find(|n| gcd(*n, metrics as u64) == 1).unwrap_or(1)
}

#[derive(Clone, Copy)]
enum Writer {
    Plain,
    Sorted,
}

fn write(
    what: &str,
    folder: &Path,
    metrics: usize,
    streams: &[(Vec<u8>, Statistics)],
    writer: Writer,
    numbered: bool,
) -> Outcome<()> {
    let disk = RealDisk::new();
    chronolith::fileset::remove_volume(&disk, folder, NAME)?;
    let spec = VolumeSpec { supplement: SPEC.supplement.filter(|_| numbered), ..SPEC };
    let before = memory("RssAnon")?;
    let begin = Instant::now();
    let mut id = Vec::new();
    let mut peak = before;
    let mut all =
        |append: &mut dyn FnMut(MetricStream<'_>, MetricId, &Statistics) -> chronolith::Result<()>| {
            for (metric, (stream, statistics)) in (0..metrics).zip(streams.iter().cycle()) {
                write_id(&mut id, metric);
                append(MetricStream { id: &id, tags: b"", stream }, metric_id(metric, metrics), statistics)?;
                if metric % 65_536 == 0 || metric + 1 == metrics {
                    peak = peak.max(memory("RssAnon")?);
                }
            }
            Ok::<_, Box<dyn Error>>(())
        };
    let appended;
    match writer {
        Writer::Plain => {
            let mut writer = VolumeWriter::create(&disk, folder, spec)?;
            all(&mut |metric, id, statistics| match numbered {
                true => writer.append_numbered(metric, id, statistics),
                false => writer.append(metric),
            })?;
            appended = begin.elapsed();
            writer.finish()?;
        }
        Writer::Sorted => {
            let mut writer = SortedVolumeWriter::create(&disk, folder, spec, metrics as u32)?;
            all(&mut |metric, id, statistics| match numbered {
                true => writer.append_numbered(metric, id, statistics),
                false => writer.append(metric),
            })?;
            appended = begin.elapsed();
            writer.finish()?;
        }
    }
    let whole = begin.elapsed();
    println!(
        "{what:<30} {:>8.2} s, of which syncing and the rest {:.2} s; {:.1} MB of memory at its last metric ({:.1} bytes a metric)",
        whole.as_secs_f64(),
        (whole - appended).as_secs_f64(),
        megabytes(peak - before),
        (peak - before) as f64 / metrics as f64,
    );
    Ok(())
}

fn sizes(folder: &Path) -> Outcome<()> {
    let path = |name: String| folder.join(name);
    let files = VolumeFile::ALL.map(|file| (file.suffix(), path(NAME.file_name(file))));
    for (what, path) in files.into_iter().chain([("supplement", path(NAME.supplement_file_name()))]) {
        println!("{what:<30} {:>8.1} MB", megabytes(std::fs::metadata(path)?.len()));
    }
    Ok(())
}

fn read(folder: &Path, metrics: usize) -> Outcome<()> {
    // SAFETY: The folder is this program's alone, and it changes no file that it reads.
    #[allow(unsafe_code, reason = "mapping pages is what is measured")]
    let disk = unsafe { RealDisk::mapping() };
    let open = || Volume::open(&disk, folder, NAME);
    let (_, first) = timed(open)?;
    println!("{:<30} {:>8.2} ms", "open, first time", millis(first));
    let anon = memory("RssAnon")?;
    let (volume, again) = timed(open)?;
    println!(
        "{:<30} {:>8.2} ms, {:.2} MB of memory",
        "open",
        millis(again),
        megabytes(memory("RssAnon")? - anon)
    );
    let supplement = volume.supplement().ok_or("the volume has a supplement")?;

    // Cold: the page and the stream have not been touched since the volume was opened. They are in the system's cache.
    let far_apart: Vec<_> = (0..1_000.min(metrics / 100)).map(|i| metric_id(i * 100, metrics)).collect();
    let (_, cold) = timed(|| {
        far_apart.iter().try_for_each(|id| {
            supplement.find(*id).map(|entry| assert!(black_box(entry).is_none_or(|entry| entry.size > 0)))
        })
    })?;
    per("find by id, cold page", cold, far_apart.len());

    let ids: Vec<_> =
        random(LOOKUPS).map(|random| metric_id((random % metrics as u64) as usize, metrics)).collect();
    let find = || {
        ids.iter().try_for_each(|id| supplement.find(*id).map(|entry| assert!(black_box(entry).is_some())))
    };
    let streams = || {
        ids.iter()
            .try_for_each(|id| supplement.stream_of(*id).map(|stream| assert!(black_box(stream).is_some())))
    };
    timed(find)?;
    per("find by id, warm", busy(find)?.1, ids.len());
    per("stream by id, second touch", busy(streams)?.1, ids.len());
    per("stream by id, warm", busy(streams)?.1, ids.len());
    // What of that is memory: the streams alone, their entries at hand.
    let entries: Vec<_> =
        ids.iter().take(100_000).filter_map(|id| supplement.find(*id).ok().flatten()).collect();
    let known = || {
        entries.iter().try_for_each(|entry| {
            supplement.stream(entry).map(|stream| assert!(!black_box(stream).is_empty()))
        })
    };
    timed(known)?;
    per("stream of a known entry", busy(known)?.1, entries.len());
    let hot = || {
        let ids = ids.iter().take(1_000).cycle().take(LOOKUPS);
        ids.into_iter()
            .try_for_each(|id| supplement.stream_of(*id).map(|stream| assert!(black_box(stream).is_some())))
    };
    timed(hot)?;
    per("stream by id, 1,000 hot ones", busy(hot)?.1, LOOKUPS);
    let absent = || {
        ids.iter().try_for_each(|id| {
            supplement
                .find(MetricId::from(id.get() | 1 << 31))
                .map(|entry| assert!(black_box(entry).is_none_or(|entry| entry.size > 0)))
        })
    };
    per("absent id", busy(absent)?.1, ids.len());

    let names: Vec<_> = random(LOOKUPS.min(100_000))
        .map(|random| {
            let mut id = Vec::new();
            write_id(&mut id, (random % metrics as u64) as usize);
            id
        })
        .collect();
    let find = || {
        names.iter().try_for_each(|name| volume.find(name).map(|entry| assert!(black_box(entry).is_some())))
    };
    timed(find)?;
    per("find by name, warm", busy(find)?.1, names.len());
    let streams = || {
        names
            .iter()
            .try_for_each(|name| volume.stream_of(name).map(|stream| assert!(black_box(stream).is_some())))
    };
    timed(streams)?;
    per("stream by name, warm", busy(streams)?.1, names.len());

    let sum = || {
        let mut sum = 0.0;
        for entry in supplement.entries() {
            sum += entry?.statistics.numbers().map_or(0.0, |numbers| numbers.sum);
        }
        Ok::<_, chronolith::Error>(black_box(sum))
    };
    let (_, whole) = timed(sum)?;
    println!("{:<30} {:>8.2} ms", "sum of all, from statistics", millis(whole));
    let (errors, verify) = timed(|| Ok::<_, chronolith::Error>(volume.verify()))?;
    println!("{:<30} {:>8.2} s, {} errors", "verify", verify.as_secs_f64(), errors.len());
    println!(
        "{:<30} {:>8.1} MB resident at most, mapped files included",
        "whole process",
        megabytes(memory("VmHWM")?)
    );
    Ok(())
}

fn timed<T, E>(act: impl FnOnce() -> Result<T, E>) -> Result<(T, Duration), E> {
    let begin = Instant::now();
    let result = act()?;
    Ok((result, begin.elapsed()))
}

/// As [`timed`], in time on the processor where the system tells, so that other processes do not count. Exact to a few milliseconds.
fn busy<T, E>(act: impl FnOnce() -> Result<T, E>) -> Result<(T, Duration), E> {
    let on_processor = || {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
    };
    let before = on_processor();
    let (result, elapsed) = timed(act)?;
    let spent = on_processor().zip(before).map(|(after, before)| after.saturating_sub(before));
    Ok((result, spent.unwrap_or(elapsed)))
}

fn per(what: &str, time: Duration, times: usize) {
    println!("{what:<30} {:>8.0} ns", time.as_nanos() as f64 / times.max(1) as f64);
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// Numbers from a seed.
fn random(count: usize) -> impl Iterator<Item = u64> {
    let mut state = 42_u64;
    (0..count).map(move |_| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ mixed >> 27
    })
}

/// A field of this process's status, in bytes; 0 where there is none.
fn memory(field: &str) -> Outcome<u64> {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return Ok(0) };
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    Ok(line.and_then(|line| line.split_whitespace().next()).map_or(Ok(0), str::parse::<u64>)? * 1024)
}

/// The free space below a folder, where the system's `df` tells.
fn free_bytes(folder: &Path) -> Option<u64> {
    let df = std::process::Command::new("df").arg("-Pk").arg(folder).output().ok()?;
    let text = String::from_utf8(df.stdout).ok()?;
    text.lines().nth(1)?.split_whitespace().nth(3)?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}
