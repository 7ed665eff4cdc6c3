//! What a repair found and did.

use std::path::PathBuf;
use std::time::Duration;

use crate::mvcc::transaction::Version;

/// What a repair found and did; or would do.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RepairReport {
    /// What is damaged. Nothing: then the database was left as it is.
    pub findings: Vec<Finding>,
    /// What may be back that was gone: metrics that were dropped, points that were deleted. One sentence each.
    pub returned: Vec<String>,
    /// What stands for what is lost, such as names, one sentence each.
    pub substitutes: Vec<String>,
    /// Where files were put that were damaged, or that others took the place of. Nothing in there is needed any more.
    pub quarantine: Option<PathBuf>,
    /// These files, as they were called before.
    pub quarantined: Vec<PathBuf>,
    /// Files that are not the database's, or do not tell whose they are. They were left alone.
    pub foreign_files: Vec<PathBuf>,
    /// Metrics that the repaired database has.
    pub metrics: u64,
    /// Volumes that it has.
    pub volumes: u64,
    /// Volumes that were written anew with what is sound of others.
    pub volumes_rewritten: u64,
    /// The version of the state that was written.
    pub version: Version,
    /// Nothing was changed, as was asked for.
    pub dry_run: bool,
    /// How long it took.
    pub elapsed: Duration,
}

/// A damaged place.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The file.
    pub path: PathBuf,
    /// Where in it, in bytes.
    pub offset: u64,
    /// What is wrong there.
    pub what: String,
    /// What is lost by it, or may be; `None` if nothing is.
    pub lost: Option<String>,
    /// What is done about it.
    pub done: String,
}

impl RepairReport {
    /// Whether nothing was damaged.
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }

    /// Whether something is lost, or may be, or something may be back that was gone.
    pub fn has_losses(&self) -> bool {
        self.findings.iter().any(|finding| finding.lost.is_some())
            || !self.returned.is_empty()
            || !self.substitutes.is_empty()
    }
}
