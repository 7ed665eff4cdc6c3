//! Everything a simulated disk knows, and what decides about a call.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::calls::{Call, CallKind};
use super::content::Content;
use super::faults::{Fault, Faults};
use super::file::{FileState, SimulatedFile};
use super::hold::Holds;
use super::names::{FileTree, Names};
use super::random::Random;
use super::{CutState, SimulatedDisk};
use crate::io::end_of;

/// The state of a [`SimulatedDisk`].
#[derive(Debug)]
pub(super) struct State {
    pub(super) seed: u64,
    pub(super) names: Names,
    /// The number of files ever made.
    files_made: u64,
    /// The sum of the lengths of files with names.
    pub(super) allocated: u64,
    pub(super) capacity: Option<u64>,

    pub(super) calls: u64,
    pub(super) syncs: u64,
    pub(super) dir_syncs: u64,
    pub(super) bytes_written: u64,
    pub(super) interrupted: u64,
    pub(super) count_reads: bool,
    pub(super) trace: Option<Vec<Call>>,
    pub(super) watcher: Option<Watcher>,

    pub(super) cut: PowerCut,
    pub(super) faults: Faults,
    pub(super) holds: Holds,
}

/// The call at which the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PowerCut {
    Never,
    /// At this call, which does nothing.
    At(u64),
    /// At this call, of which, if it is a write, a part is done.
    Within(u64),
}

/// What is told of each call.
#[derive(Clone)]
pub(super) struct Watcher(pub(super) Arc<Watch>);

type Watch = dyn Fn(&SimulatedDisk, u64) + Send + Sync;

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watcher")
    }
}

/// A call that does not get through, or only in part.
#[derive(Debug)]
pub(super) struct Refusal {
    /// How many of a write's bytes get through.
    pub(super) bytes: usize,
    pub(super) error: io::Error,
}

impl State {
    /// A disk with these files, all durable.
    pub(super) fn new(seed: u64, names: FileTree, files_made: u64) -> Self {
        let allocated = names.files().iter().map(|(_, file)| file.state().cached.len()).sum();
        State {
            seed,
            names: Names::durable(names),
            files_made,
            allocated,
            capacity: None,
            calls: 0,
            syncs: 0,
            dir_syncs: 0,
            bytes_written: 0,
            interrupted: 0,
            count_reads: false,
            trace: None,
            watcher: None,
            cut: PowerCut::Never,
            faults: Faults::default(),
            holds: Holds::default(),
        }
    }

    /// What a machine could find if the power were cut now.
    pub(super) fn after_power_cut(&self, cut: CutState, seed: u64) -> State {
        let seed = Random::of(self.seed, seed).next();
        let names = self.names.after_power_cut(cut, &mut Random::new(seed));
        let names = names.map_files(|file| {
            // Its own numbers for each file, so that a file does not depend on how many others there are.
            let content = file.state().after_power_cut(cut, &mut Random::of(seed, file.id));
            SimulatedFile::found(file.id, content)
        });
        State::new(seed, names, self.files_made)
    }

    pub(super) fn power_is_on(&self) -> bool {
        match self.cut {
            PowerCut::Never => true,
            PowerCut::At(call) | PowerCut::Within(call) => call > self.calls,
        }
    }

    /// Counts a call, with the number of bytes if it is a write, and decides about it.
    pub(super) fn admit(&mut self, kind: CallKind, bytes: usize) -> Result<(), Refusal> {
        if !self.power_is_on() {
            return Err(Refusal { bytes: 0, error: power_is_off() });
        }
        if kind.is_read() && !self.count_reads {
            return Ok(());
        }
        self.calls += 1;
        match kind {
            CallKind::Sync => self.syncs += 1,
            CallKind::SyncFolder => self.dir_syncs += 1,
            _ => {}
        }
        if !self.power_is_on() {
            let bytes = match self.cut {
                PowerCut::Within(call) if bytes > 1 => {
                    1 + Random::of(self.seed, call).below(bytes as u64 - 1) as usize
                }
                _ => 0,
            };
            return Err(Refusal { bytes, error: power_is_off() });
        }
        match self.faults.of(self.calls) {
            None => Ok(()),
            Some(Fault::Interrupted) => {
                self.interrupted += 1;
                Ok(())
            }
            Some(fault @ Fault::ShortWrite) => Err(Refusal { bytes: bytes / 2, error: fault.error() }),
            Some(fault) => Err(Refusal { bytes: 0, error: fault.error() }),
        }
    }

    /// Adds the last call to the trace.
    pub(super) fn note<T>(
        &mut self,
        kind: CallKind,
        path: &Path,
        arguments: impl FnOnce() -> String,
        done: &io::Result<T>,
    ) {
        if let Some(trace) = &mut self.trace {
            let error = done.as_ref().err().map(ToString::to_string);
            let (path, arguments) = (path.to_owned(), arguments());
            trace.push(Call { number: self.calls, kind, path, arguments, error });
        }
    }

    /// Makes a file under a name that is free.
    pub(super) fn make_file(&mut self, path: &Path) -> io::Result<Arc<SimulatedFile>> {
        let file = SimulatedFile::new(self.files_made);
        let change = self.names.seen.link(path, file.clone())?;
        if self.capacity.is_some_and(|capacity| self.allocated >= capacity) {
            return Err(Fault::NoSpace.error());
        }
        self.files_made += 1;
        self.names.change(change);
        Ok(file)
    }

    /// A file lost a name.
    pub(super) fn unlinked(&mut self, file: &SimulatedFile) {
        let mut file = file.state();
        file.names = file.names.saturating_sub(1);
        if file.names == 0 {
            self.allocated -= file.cached.len();
        }
    }

    /// Writes what there is space for.
    pub(super) fn write(&mut self, file: &mut FileState, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = end_of(offset, bytes.len())?;
        Content::check_len(end)?;
        let permitted = self.len_permitted(file, end);
        let fits = permitted.saturating_sub(offset).min(bytes.len() as u64) as usize;
        let (written, rest) = bytes.split_at(fits);
        self.change(file, |file| file.write(offset, written));
        self.bytes_written += written.len() as u64;
        if rest.is_empty() { Ok(()) } else { Err(Fault::NoSpace.error()) }
    }

    pub(super) fn set_len(&mut self, file: &mut FileState, len: u64) -> io::Result<()> {
        end_of(len, 0)?;
        Content::check_len(len)?;
        if self.len_permitted(file, len) < len {
            return Err(Fault::NoSpace.error());
        }
        self.change(file, |file| file.set_len(len));
        Ok(())
    }

    /// The length, at most `wanted`, that the disk has space for.
    fn len_permitted(&self, file: &FileState, wanted: u64) -> u64 {
        match self.capacity {
            Some(capacity) if file.names > 0 => {
                let free = capacity.saturating_sub(self.allocated);
                wanted.min(file.cached.len().saturating_add(free))
            }
            _ => wanted,
        }
    }

    /// Changes a file, and counts what it gains or loses in length.
    fn change(&mut self, file: &mut FileState, change: impl FnOnce(&mut FileState)) {
        let before = file.cached.len();
        change(file);
        if file.names > 0 {
            self.allocated = self.allocated - before + file.cached.len();
        }
    }
}

pub(super) fn power_is_off() -> io::Error {
    io::Error::other("the power is off")
}
