//! How the tool ends: exit statuses, and errors that say what to do.

use std::fmt::{self, Display};
use std::io;
use std::path::Path;

use chronolith::Error;
use serde_json::{Map, Value, json};

/// The exit status of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// All went well.
    Done = 0,
    /// A check failed or damage was found.
    CheckFailed = 1,
    /// Wrong arguments.
    Usage = 2,
    /// The database cannot be opened, read or written.
    Database = 3,
    /// The input is missing or unreadable, or names something that is not there.
    Input = 4,
    /// Standard output cannot be written.
    Output = 5,
    /// Ended by Ctrl-C; everything committed so far is in place.
    Interrupted = 130,
}

/// What `--help` says about the exit status; keep in step with [`Status`].
pub(crate) const STATUS_HELP: &str = "\
Exit status:
  0    done
  1    a check failed, or damage was found
  2    wrong usage
  3    the database cannot be opened, read or written
  4    the input is missing or unreadable, or there is no such metric
  5    the output cannot be written (a closed pipe is no error)
  130  interrupted; what was committed stays";

/// Why a verb ended early.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: Status,
    message: String,
    hint: Option<String>,
    facts: Map<String, Value>,
    /// Whether files of the database are damaged.
    pub(crate) damage: bool,
}

/// What a verb returns.
pub(crate) type Outcome<T = Status> = Result<T, Failure>;

impl Failure {
    pub(crate) fn new(status: Status, message: impl Display) -> Self {
        Failure { status, message: message.to_string(), hint: None, facts: Map::new(), damage: false }
    }

    /// The input's fault.
    pub(crate) fn input(message: impl Display) -> Self {
        Failure::new(Status::Input, message)
    }

    /// Ctrl-C.
    pub(crate) fn interrupted() -> Self {
        Failure::new(Status::Interrupted, "interrupted")
    }

    /// A file that is neither the database's nor standard output.
    pub(crate) fn file(verb: &str, path: &Path, source: &io::Error) -> Self {
        Failure::input(format_args!("cannot {verb} {}: {source}", path.display()))
    }

    /// Standard output could not be written. A reader that has seen enough is no error.
    pub(crate) fn stdout(source: &io::Error) -> Self {
        let status = if source.kind() == io::ErrorKind::BrokenPipe { Status::Done } else { Status::Output };
        Failure::new(status, format_args!("cannot write the output: {source}"))
    }

    /// What to do about it.
    pub(crate) fn hint(mut self, hint: impl Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// A figure for `--json`.
    pub(crate) fn fact(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.facts.insert(name.to_owned(), value.into());
        self
    }

    /// Words before the message.
    pub(crate) fn context(mut self, context: impl Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// Words after the message.
    pub(crate) fn and(mut self, addition: impl Display) -> Self {
        self.message = format!("{}\n  {addition}", self.message);
        self
    }

    pub(crate) fn to_json(&self) -> Value {
        let mut object = self.facts.clone();
        object.insert("error".to_owned(), json!(self.message));
        object.insert("hint".to_owned(), json!(self.hint));
        object.insert("exit_status".to_owned(), json!(self.status as u8));
        Value::Object(object)
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::OpenEnded { .. } => Status::Interrupted,
            error if is_of_input(error) => Status::Input,
            _ => Status::Database,
        };
        let mut failure = Failure::new(status, Chain(&error));
        failure.damage = matches!(error, Error::Corrupt { .. } | Error::Decode(_));
        match hint(&error) {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// Whether the error is about what the database was given, and not about the database.
pub(crate) fn is_of_input(error: &Error) -> bool {
    matches!(
        error,
        Error::MetricIdLength { .. }
            | Error::NamespaceNameLength { .. }
            | Error::InvalidTags { .. }
            | Error::TagsDiffer(_)
            | Error::TooLong { .. }
    )
}

/// What a user can do about an error of the library.
fn hint(error: &Error) -> Option<&'static str> {
    Some(match error {
        Error::Locked { .. } => {
            "one process at a time: end the one that has it open; verbs that only read have --read-only, for its last checkpoint"
        }
        Error::ReadOnly => "leave out --read-only",
        Error::NoCheckpoint { .. } => {
            "`chronolith checkpoint DIR` writes one while no other process has the database open; one that has writes them by itself"
        }
        Error::CheckpointMoved { .. } => "run the command again",
        Error::NotEmpty { .. } => "name a new folder",
        Error::NotADatabase { .. } => {
            "check the path; `import` and `m3 import` make a database in a new or empty folder"
        }
        Error::NewerFormat { .. } => "use the chronolith that wrote it, or a newer one; nothing was changed",
        Error::Corrupt { format: "volume supplement", .. } => {
            "`chronolith refresh DIR` writes the volume anew; its points can be read meanwhile"
        }
        Error::Corrupt { format: "fileset volume", .. } => {
            "other times and metrics can be read; put the file back if there is a copy of it; else `chronolith repair DIR` keeps what is sound of it, and says \
             what is lost (with --dry-run it only says); `chronolith verify DIR`, or `volume verify FILE`, lists all damage"
        }
        Error::UnfitForVolume { .. } => {
            "narrow --from and --to to seal the other blocks; nothing is lost, and its points stay in memory"
        }
        Error::Corrupt { .. } => {
            "run `chronolith repair DIR`: it keeps what is sound, says what is lost and deletes nothing (with --dry-run it only says); for a damaged log \
             alone `chronolith verify DIR --salvage` does"
        }
        Error::DiskFull { .. } => "free some space and run the command again; what was committed stays",
        Error::MemoryLimit { .. } => {
            "`chronolith seal DIR` makes room; then run the command again: what was committed stays"
        }
        Error::ReplayMemory { .. } => "open it where there is as much memory as where it was written",
        Error::Stopped { .. } => "look for disk errors, make sure there is space, then run the command again",
        _ => match error.io_kind()? {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                "every verb writes to the folder (lock, recovery) without --read-only: make it writable, or use another or a copy"
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "free some space and run the command again; what was committed stays"
            }
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => "check the path",
            _ => return None,
        },
    })
}

/// An error and its causes in one line.
pub(crate) struct Chain<'a>(pub(crate) &'a dyn std::error::Error);

impl Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_reads_from_what_to_why_to_what_to_do() {
        let source = io::Error::from(io::ErrorKind::PermissionDenied);
        let failure = Failure::from(Error::io("open", "/data/LOCK", source)).context("import");
        let text = failure.to_string();
        assert!(text.starts_with("error: import: cannot open /data/LOCK: permission denied"), "{text}");
        assert!(text.contains("\n  hint: every verb writes to the folder"), "{text}");
        assert_eq!(failure.status, Status::Database);
    }

    #[test]
    fn a_closed_pipe_is_no_error() {
        assert_eq!(Failure::stdout(&io::Error::from(io::ErrorKind::BrokenPipe)).status, Status::Done);
        assert_eq!(Failure::stdout(&io::Error::from(io::ErrorKind::StorageFull)).status, Status::Output);
    }

    #[test]
    fn json_has_the_status_the_hint_and_the_facts() {
        let json = Failure::input("no such file").hint("look").fact("points", 3).to_json();
        assert_eq!(json, json!({"error": "no such file", "hint": "look", "exit_status": 4, "points": 3}));
    }
}
