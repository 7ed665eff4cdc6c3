//! `m3 verify`: reads all of a directory of M3.

use std::path::PathBuf;
use std::time::Instant;

use chronolith::io::RealDisk;
use chronolith::m3::{LogFile, VolumeKind};
use clap::Args;
use serde_json::json;

use crate::console::{Console, counted, duration, rate};
use crate::failure::{Chain, Outcome, Status};
use crate::ids;
use crate::interrupt::Interrupt;
use crate::m3::{list, shown};
use crate::progress::Progress;
use crate::volume::damage::DamageList;
use crate::volume::extent;
use crate::volume::verify::check;

/// Read everything and report damage. Exit status 1 if there is any.
///
/// All complete volumes, also those that later ones have replaced, all commit logs, and the metadata of snapshots. Volumes and snapshots that were not
/// finished are listed and do no harm. A commit log that a crash has torn is damage: M3 loses what lay there, too. Ctrl-C ends it with what was found so far.
#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// The node's file path prefix.
    prefix: PathBuf,
}

pub(crate) fn run(args: &VerifyArgs, console: Console) -> Outcome {
    let begin = Instant::now();
    let directory = super::directory(&args.prefix)?;
    let mut damage = DamageList::default();
    damage.extend(directory.damage.iter().map(|error| Chain(error).to_string()));
    let unfinished = list::unfinished(&directory);
    let mut volumes = Vec::new();
    for kind in [VolumeKind::Flush, VolumeKind::Snapshot] {
        for namespace in &directory.namespaces {
            for shard in &namespace.shards {
                let folder = directory.folder(kind, &namespace.name, shard.shard);
                volumes.extend(shard.volumes(kind).complete.iter().map(|name| (folder.clone(), *name)));
            }
        }
    }

    let interrupt = Interrupt::catch();
    let mut progress = Progress::count(console, (volumes.len() + directory.logs.len()) as u64, "verifying");
    let (mut streams, mut points, mut partly) = (0, 0, Vec::new());
    let mut read_volumes = 0;
    for (folder, name) in volumes.iter().take_while(|_| !interrupt.is_pressed()) {
        let checked = check(folder, *name);
        streams += checked.metrics;
        points += checked.points;
        if !checked.damage.is_empty() {
            let path = folder.join(format!("fileset-{name}"));
            partly.push(format!("{}: {}", path.display(), extent::told(checked.metrics, checked.written)));
        }
        damage.append(checked.damage);
        read_volumes += 1;
        // Ctrl-C is answered here, with what was found.
        let _ = progress.set(read_volumes);
    }
    let (mut entries, mut torn) = (0, Vec::new());
    let mut read_logs = 0;
    for log in directory.logs.iter().take_while(|_| !interrupt.is_pressed()) {
        let checked = check_log(log, &mut damage);
        entries += checked.entries;
        if checked.torn {
            torn.push((log.path.clone(), checked.entries));
        }
        read_logs += 1;
        let _ = progress.set(read_volumes + read_logs);
    }
    drop(progress);
    let all = (volumes.len() + directory.logs.len()) as u64;
    let interrupted = interrupt.is_pressed() && read_volumes + read_logs < all;

    let elapsed = begin.elapsed();
    let mut out = console.out();
    if console.json {
        out.json(&json!({
            "sound": damage.is_empty() && !interrupted,
            "interrupted": interrupted,
            "volumes": read_volumes,
            "streams": streams,
            "points": points,
            "snapshots": directory.snapshots.len(),
            "commit_logs": read_logs,
            "log_entries": entries,
            "damaged_places": damage.count(),
            "damage": damage.places(),
            "partly_read": partly,
            "torn_logs": shown(&torn.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>()),
            "unfinished": shown(&unfinished),
            "foreign_files": shown(&directory.foreign),
            "seconds": elapsed.as_secs_f64(),
        }))?;
    } else {
        out.line(format_args!(
            "{}read {} of {} in {}, and {} in {}, in {} ({})",
            if interrupted { "interrupted; " } else { "" },
            counted(points, "point"),
            counted(streams, "stream"),
            counted(read_volumes, "volume"),
            counted(entries, "logged point"),
            counted(read_logs, "commit log"),
            duration(elapsed),
            rate(points + entries, elapsed, "points"),
        ))?;
        for path in &unfinished {
            out.line(format_args!("unfinished, does not count: {}", path.display()))?;
        }
        for path in &directory.foreign {
            out.line(format_args!("not of M3, left alone: {}", path.display()))?;
        }
        damage.print(0, &mut out)?;
        for partly in &partly {
            out.line(format_args!("can be read of {partly}"))?;
        }
        for (path, entries) in &torn {
            let entries = counted(*entries, "logged point");
            out.line(format_args!("torn by a crash: {}; {entries} before that can be read", path.display()))?;
        }
        match damage.count() {
            0 if interrupted => {
                let left = all - read_volumes - read_logs;
                out.line(format_args!("no damage found so far; {left} of {all} volumes and logs not read"))?;
            }
            0 => out.line(out.style().green("sound: no damage found"))?,
            count => out.line(format_args!("{} found", counted(count, "damaged place")))?,
        }
    }
    out.flush()?;
    Ok(match (interrupted, damage.is_empty()) {
        (true, _) => Status::Interrupted,
        (false, true) => Status::Done,
        (false, false) => Status::CheckFailed,
    })
}

/// What reading all of a log came to.
#[derive(Default)]
struct CheckedLog {
    entries: u64,
    torn: bool,
}

fn check_log(log: &LogFile, damage: &mut DamageList) -> CheckedLog {
    let path = &log.path;
    let mut checked = CheckedLog::default();
    let log = match log.open(&RealDisk::new()) {
        Ok(log) => log,
        Err(error) => {
            damage.push(Chain(&error).to_string());
            return checked;
        }
    };
    let mut entries = log.entries();
    while let Some(entry) = entries.next_entry() {
        match entry {
            Ok(entry) => {
                checked.entries += 1;
                if entry.names_series && entry.series.tags().is_none() {
                    let id = ids::shown(&entry.series.id);
                    damage.push(format!("metric {id}: what {} has as its tags are none", path.display()));
                }
            }
            Err(error) => damage.push(Chain(&error).to_string()),
        }
    }
    checked.torn = entries.is_torn();
    checked
}
