//! Power cuts, deaths of the process and failed calls at every call, and again during the recovery after it.

use std::collections::BTreeSet;

use super::*;
use crate::io::{CutState, Fault};
use crate::planted::Bug;

/// What was written and promised so far.
#[derive(Clone, Debug, Default)]
struct History {
    /// What may be found: the payloads in the order of their versions.
    written: Vec<Vec<u8>>,
    /// How many of them were promised.
    promised: usize,
}

/// How a run ends before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crash {
    /// The power is cut.
    Cut(CutState, u64),
    /// The process dies; the page cache stays.
    Kill,
    /// A call fails, and the process ends because of it; the page cache stays, less what the failure lost.
    Fail,
}

impl Crash {
    fn all() -> impl Iterator<Item = Crash> {
        let cuts = CutState::ALL.into_iter().flat_map(|state| {
            let seeds = if state == CutState::Random { 4 } else { 1 };
            (0..seeds).map(move |seed| Crash::Cut(state, seed))
        });
        cuts.chain([Crash::Kill, Crash::Fail])
    }

    /// Prepares the crash at the `call`-th call from now on.
    fn prepare(self, disk: &SimulatedDisk, call: u64) {
        let at = disk.calls() + call;
        match self {
            Crash::Cut(_, seed) if seed % 2 == 1 => disk.cut_power_within(at),
            Crash::Cut(..) | Crash::Kill => disk.cut_power_at(at),
            Crash::Fail => disk.fail(at, Fault::InputOutput, false),
        }
    }

    /// The disk that is found afterwards.
    fn found(self, disk: SimulatedDisk) -> SimulatedDisk {
        match self {
            Crash::Cut(state, seed) => disk.after_power_cut(state, seed),
            Crash::Kill | Crash::Fail => {
                disk.restore_power();
                disk.clear_faults();
                disk
            }
        }
    }
}

/// A small database life: opens the log, checks what is there, writes. The error is the violation.
///
/// Everything that recovery passes on is promised from then on.
fn live(
    disk: &SimulatedDisk,
    planted: Planted,
    history: &mut History,
    work: &[(&[usize], bool)],
) -> Result<(), String> {
    let log = log_on(disk, planted);
    let (mut opened, records) = match recover_all(&log, &LogStart::default(), Recovery::Strict) {
        Ok(opened) => opened,
        Err(error @ (Error::Corrupt { .. } | Error::NewerFormat { .. })) => {
            return Err(format!("will not open: {error}"));
        }
        Err(_) => return Ok(()),
    };
    if let Some((place, (version, _))) =
        records.iter().enumerate().find(|(place, (version, _))| *version != *place as u64 + 1)
    {
        return Err(format!("version {version} in place {place}"));
    }
    let records: Vec<_> = records.into_iter().map(|(_, payload)| payload).collect();
    if records.len() < history.promised {
        return Err(format!("{} records of {} promised", records.len(), history.promised));
    }
    if !history.written.starts_with(&records) {
        return Err(format!("{} records that were not written so", records.len()));
    }
    history.promised = records.len();
    history.written = records;
    let salt = disk.fingerprint();
    for (lens, sync) in work {
        let first = history.written.len() as u64 + 1;
        let payloads: Vec<_> =
            (first..).zip(*lens).map(|(version, len)| payload(version, salt, *len)).collect();
        history.written.extend(payloads.iter().cloned());
        if write_all(&mut opened.writer, &mut opened.maker, &payloads, *sync).is_err() {
            return Ok(());
        }
        if *sync {
            history.promised = history.written.len();
        }
    }
    Ok(())
}

/// Rotations, records over segment ends, batches with and without sync.
const WORK: &[(&[usize], bool)] = &[
    (&[100, 0, 700], true),
    (&[9_000], false),
    (&[30, 5_000], false),
    (&[8, 600], true),
    (&[40_000], true),
    (&[2_000], false),
    (&[17], false),
];
const LATER_WORK: &[(&[usize], bool)] = &[(&[600], false), (&[20_000, 3], true)];

/// All that goes wrong when a run, and the recovery after it, end at any call in any way. `every`: of the second level only each n-th
/// call; 0 for the first level alone.
fn violations(planted: Planted, every: u64, enough: usize) -> Vec<String> {
    let base = disk_with_log(planted);
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    let (mut first_level, mut second_level) = (0, 0);
    let calls = {
        let disk = copy(&base);
        let mut history = History::default();
        if let Err(violation) = live(&disk, planted, &mut history, WORK) {
            found.push(format!("without a crash: {violation}"));
        }
        disk.calls()
    };
    for call in 1..=calls {
        for crash in Crash::all() {
            if found.len() >= enough {
                return found;
            }
            let first = || {
                let disk = copy(&base);
                crash.prepare(&disk, call);
                let mut history = History::default();
                let _ = live(&disk, planted, &mut history, WORK);
                (crash.found(disk), history)
            };
            let (disk, mut history) = first();
            let is_new = seen.insert((disk.fingerprint(), history.promised, history.written.len()));
            if !is_new && matches!(crash, Crash::Cut(..)) {
                continue;
            }
            first_level += 1;
            let before = disk.calls();
            if let Err(violation) = live(&disk, planted, &mut history, LATER_WORK) {
                found.push(format!("{crash:?} at {call}: {violation}"));
                continue;
            }
            let calls = disk.calls() - before;
            // At the end as well: what was promised then must survive too.
            for second_call in
                (1..=calls + 1).filter(|n| *n == calls + 1 || every > 0 && (n + call).is_multiple_of(every))
            {
                for second in Crash::all() {
                    second_level += 1;
                    let (disk, mut history) = first();
                    second.prepare(&disk, second_call);
                    let _ = live(&disk, planted, &mut history, LATER_WORK);
                    let disk = second.found(disk);
                    if let Err(violation) = live(&disk, planted, &mut history, &[]) {
                        found.push(format!("{crash:?} at {call}, {second:?} at {second_call}: {violation}"));
                    }
                }
            }
        }
    }
    println!("{calls} calls, {first_level} states after a crash, {second_level} after a second one");
    found
}

#[test]
fn nothing_promised_is_lost_and_nothing_invented() {
    // Every call of the second level takes a minute: with CHRONOLITH_LONG set, otherwise one call in 11.
    let step = if std::env::var_os("CHRONOLITH_LONG").is_some() { 1 } else { 11 };
    let found = violations(Planted::default(), step, 10);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn each_planted_bug_is_caught() {
    for bug in [
        Bug::SkipLogSync,
        Bug::SkipFolderSync,
        Bug::RenameBeforeSync,
        Bug::KeepFramesAfterCut,
        Bug::CutOneFrameTooMany,
        Bug::SkipRecoverySync,
        Bug::ForgetChecksum,
    ] {
        let found = violations(Planted::default().with(bug), 0, 1);
        assert!(!found.is_empty(), "{bug:?} was not caught");
        println!("{bug:?}: {}", found[0]);
    }
}
