//! What the crash tests share: the torture workload on a simulated disk, and the checks of what is left of it.
//!
//! A check is a function that returns what it found wrong, so that the tests of planted bugs can ask whether it finds
//! them. Parts: `power` cuts the power at every call, `faults` lets calls fail,
//! `seals` has histories of its own, about sealing.

#![allow(dead_code, unreachable_pub, reason = "each test is a crate of its own and uses a part of this")]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::thread;

use chronolith::io::{SimulatedDisk, Vfs};
use chronolith::planted::Bug;
use chronolith::{Database, Error, Options, Timestamp};

pub mod faults;
pub mod observed;
pub mod power;
pub mod seals;
/// The tool's workload, which needs nothing but the library.
#[path = "../../src/bin/chronolith/torture"]
pub mod torture {
    pub mod acks;
    pub mod cells;
    pub mod oracle;
    pub mod plan;
    pub mod random;
    pub mod workload;
    pub mod writer;
}

use torture::acks::Ack;
use torture::oracle;
use torture::writer::{self, Acknowledge, Failure, Writer};

/// The database's directory on simulated disks.
pub const DIR: &str = "/data/db";

/// A run of the workload.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Of the workload and of the disk.
    pub seed: u64,
    /// Commits.
    pub ops: u64,
    /// Writers, which take turns in one thread.
    pub writers: u32,
    /// A mistake to make.
    pub bug: Option<Bug>,
}

impl Plan {
    /// With segments so small that a short run fills some, and without threads of its own.
    pub fn options(&self) -> Options {
        let options =
            Options::new().log_segment_bytes_min(16 * 1024).log_segment_bytes_max(32 * 1024).workers(0);
        match self.bug {
            Some(bug) => options.plant(bug),
            None => options,
        }
    }

    /// Opens the database on this disk.
    pub fn open(&self, disk: Arc<dyn Vfs>) -> Result<Database, Failure> {
        Ok(self.options().open_on(disk, DIR)?)
    }

    /// The whole run, from opening to closing.
    pub fn run(&self, disk: Arc<dyn Vfs>, acks: &mut impl Acknowledge) -> Result<(), Failure> {
        let mut session = Session::begin(self, disk)?;
        for turn in 0..self.ops {
            session.step(turn, acks)?;
        }
        session.finish(acks)
    }
}

/// An open database and its writers.
pub struct Session {
    pub db: Database,
    writers: Vec<Writer>,
}

fn is_full(error: &Error) -> bool {
    matches!(error.io_kind(), Some(std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded))
}

impl Session {
    /// Opens the database; each writer goes on after its last op there.
    pub fn begin(plan: &Plan, disk: Arc<dyn Vfs>) -> Result<Session, Failure> {
        let db = plan.open(disk)?;
        let seed = writer::begin(&db, plan.seed)?;
        let writers = (0..plan.writers).map(|writer| Writer::resume(&db, seed, writer));
        let writers = writers.collect::<Result<_, _>>()?;
        Ok(Session { db, writers })
    }

    /// The op of the writer whose turn it is; now and then a step of maintenance before it.
    pub fn step(&mut self, turn: u64, acks: &mut impl Acknowledge) -> Result<(), Failure> {
        if turn % 16 == 15 {
            match self.db.maintain(Timestamp::MAX) {
                // No space for a volume: what it was to hold stays in memory.
                Err(error) if is_full(&error) && !self.db.stats().stopped => {}
                done => done?,
            }
        }
        let writer = (turn % self.writers.len() as u64) as usize;
        self.writers[writer].step(&self.db, acks)?;
        Ok(())
    }

    /// All ops, each writer in a thread of its own; then [`Session::finish`].
    pub fn run_in_threads(
        mut self,
        plan: &Plan,
        acks: &mut (impl Acknowledge + Clone + Send),
    ) -> Result<(), Failure> {
        let ops = plan.ops / u64::from(plan.writers);
        thread::scope(|scope| {
            let threads = self.writers.iter_mut().map(|writer| {
                let (db, mut acks) = (&self.db, acks.clone());
                scope.spawn(move || (0..ops).try_for_each(|_| writer.step(db, &mut acks).map(drop)))
            });
            let threads: Vec<_> = threads.collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
        })?;
        self.finish(acks)
    }

    /// Makes all durable and closes the database.
    pub fn finish(mut self, acks: &mut impl Acknowledge) -> Result<(), Failure> {
        self.db.sync()?;
        self.writers.iter_mut().try_for_each(|writer| writer.settle(acks))?;
        self.db.close()?;
        Ok(())
    }
}

/// Opens what is on a disk and compares it with the acknowledged ops. Whatever goes wrong, panics too, is a violation.
pub fn check(plan: &Plan, disk: &SimulatedDisk, acks: &[Ack]) -> Vec<String> {
    guarded(|| match plan.open(Arc::new(disk.clone())) {
        Ok(db) => check_open(&db, acks),
        Err(failure) => vec![format!("does not open: {failure}")],
    })
}

/// The same for a database that is open.
pub fn check_open(db: &Database, acks: &[Ack]) -> Vec<String> {
    oracle::violations(db, acks).unwrap_or_else(|error| vec![format!("does not read: {error}")])
}

/// The violations that `work` returns, or the one that it panicked.
pub fn guarded(work: impl FnOnce() -> Vec<String>) -> Vec<String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        vec![format!("panicked: {}", text.unwrap_or_default())]
    })
}

/// What a check found.
#[derive(Debug, Default)]
pub struct Report {
    /// How many different states, or cases, were looked at.
    pub cases: u64,
    /// What was wrong; the beginning of the list, if it is long.
    pub violations: Vec<String>,
}

impl Report {
    /// Enough to see what is wrong.
    const VIOLATIONS_MAX: usize = 20;
    /// How much of it is told of one case.
    const TEXTS_MAX: usize = 3;

    /// Whether there is enough to see already.
    pub fn is_full(&self) -> bool {
        self.violations.len() >= Report::VIOLATIONS_MAX
    }

    /// Notes what was wrong in one case, described by `case`, and counts it.
    pub fn note(&mut self, case: impl Fn() -> String, violations: Vec<String>) {
        self.cases += 1;
        self.note_uncounted(case, violations);
    }

    /// Notes what was wrong with something that is no case of its own.
    pub fn note_uncounted(&mut self, case: impl Fn() -> String, violations: Vec<String>) {
        if !violations.is_empty() && !self.is_full() {
            let first = violations.iter().take(Report::TEXTS_MAX).cloned().collect::<Vec<_>>().join("; ");
            self.violations.push(format!("{}: {} violations: {first}", case(), violations.len()));
        }
    }

    /// Both together.
    pub fn and(mut self, other: Report) -> Report {
        self.cases += other.cases;
        self.violations.extend(other.violations);
        self
    }

    /// Fails if anything was wrong.
    pub fn assert_clean(&self) {
        assert!(
            self.violations.is_empty(),
            "{} violations:\n{}",
            self.violations.len(),
            self.violations.join("\n")
        );
    }
}
