//! `settings`: options that a database keeps.

use std::time::Duration;

use chronolith::{Durability, Error, Settings};
use clap::Args;
use serde_json::{Value, json};

use crate::console::{Console, bytes, duration};
use crate::failure::{Failure, Outcome, Status};
use crate::open::ReadArgs;

/// Print the settings that hold for a database, or change those that it keeps.
///
/// A program that opens the database has them unless it gives others itself; one that has it open already is not told of a change.
#[derive(Args, Debug)]
pub(crate) struct SettingsArgs {
    #[command(flatten)]
    open: ReadArgs,
    /// Change one, and again for others: durability=sync|buffered|DURATION, buffer_past=DURATION, memory_wait=DURATION, memory_max=BYTES,
    /// refresh_bytes=BYTES, checkpoint_log_bytes=BYTES. All are changed, or none.
    ///
    /// A duration has a unit: 250ms, 10s, 5m, 2h, 1d. Bytes may have one: 67108864, 64KiB, 64MiB, 2GiB.
    #[arg(long, value_name = "NAME=VALUE", conflicts_with = "read_only")]
    set: Vec<String>,
}

pub(crate) fn run(args: &SettingsArgs, console: Console) -> Outcome {
    let mut change = Settings::new();
    for text in &args.set {
        change = set(change, text).map_err(|reason| {
            Failure::new(Status::Usage, format_args!("--set {text}: {reason}"))
                .hint("`chronolith settings --help` lists names and values")
        })?;
    }
    let db = args.open.open(console)?;
    if !args.set.is_empty() {
        db.change_settings(change).map_err(|error| match error {
            Error::InvalidOption { .. } => Failure::new(Status::Usage, error),
            error => error.into(),
        })?;
    }
    let settings = db.settings();
    db.close()?;
    let mut out = console.out();
    if console.json {
        out.json(&Value::Object(
            rows(&settings).into_iter().map(|(name, value, _)| (name.into(), value)).collect(),
        ))?;
    } else {
        for (name, _, text) in rows(&settings) {
            out.line(format_args!("{name:<21} {text}"))?;
        }
    }
    out.flush()?;
    Ok(Status::Done)
}

/// Each setting with its value in JSON, durations in seconds, and in words.
fn rows(settings: &Settings) -> Vec<(&'static str, Value, String)> {
    let time = |name, value: Option<Duration>| {
        let value = value.unwrap_or_default();
        (name, json!(value.as_secs_f64()), duration(value))
    };
    let size = |name, value: Option<u64>| {
        let value = value.unwrap_or_default();
        (name, json!(value), bytes(value))
    };
    let durability = match settings.durability.unwrap_or_default() {
        Durability::Sync => (json!("sync"), "sync".to_owned()),
        Durability::Buffered => (json!("buffered"), "buffered".to_owned()),
        Durability::Interval(interval) => {
            (json!(interval.as_secs_f64()), format!("within {}", duration(interval)))
        }
    };
    vec![
        ("durability", durability.0, durability.1),
        time("buffer_past", settings.buffer_past),
        size("memory_max", settings.memory_max),
        time("memory_wait", settings.memory_wait),
        size("refresh_bytes", settings.refresh_bytes),
        size("checkpoint_log_bytes", settings.checkpoint_log_bytes),
    ]
}

fn set(settings: Settings, text: &str) -> Result<Settings, String> {
    let (name, value) = text.split_once('=').ok_or("NAME=VALUE is expected")?;
    Ok(match name {
        "durability" => settings.durability(match value {
            "sync" => Durability::Sync,
            "buffered" => Durability::Buffered,
            interval => Durability::Interval(parse_duration(interval)?),
        }),
        "buffer_past" => settings.buffer_past(parse_duration(value)?),
        "memory_wait" => settings.memory_wait(parse_duration(value)?),
        "memory_max" => settings.memory_max(parse_bytes(value)?),
        "refresh_bytes" => settings.refresh_bytes(parse_bytes(value)?),
        "checkpoint_log_bytes" => settings.checkpoint_log_bytes(parse_bytes(value)?),
        _ => return Err(format!("there is no setting {name}")),
    })
}

/// A number and its unit.
fn split(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn scaled(text: &str, units: &[(&str, u64)], what: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let scale = units.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale);
    let scaled = number.parse().ok().and_then(|number: u64| number.checked_mul(scale?));
    scaled.ok_or_else(|| format!("{text} is no {what}"))
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, u64); 5] =
        [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    scaled(text, &UNITS, "duration").map(Duration::from_millis)
}

fn parse_bytes(text: &str) -> Result<u64, String> {
    scaled(text, &[("", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)], "number of bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_and_what_is_none_is_told() {
        let wanted = Settings::new()
            .durability(Durability::Interval(Duration::from_millis(250)))
            .buffer_past(Duration::from_secs(7_200))
            .memory_max(64 << 20);
        let told = ["durability=250ms", "buffer_past=2h", "memory_max=64MiB"];
        assert_eq!(told.iter().try_fold(Settings::new(), |settings, text| set(settings, text)), Ok(wanted));
        assert_eq!(
            set(Settings::new(), "durability=sync").map(|set| set.durability),
            Ok(Some(Durability::Sync))
        );
        for wrong in [
            "memory_max",
            "memory_max=",
            "memory_max=64MB",
            "memory_wait=5",
            "memory_wait=-1s",
            "shards=3",
            "refresh_bytes=99999999999GiB",
        ] {
            assert!(set(Settings::new(), wrong).is_err(), "{wrong}");
        }
    }
}
