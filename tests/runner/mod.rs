//! Runs the command-line tool, for tests of it.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// The outcome of a run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn of(output: Output) -> Self {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        Run { status: output.status.code(), stdout: output.stdout, stderr }
    }

    /// Asserts the exit status.
    #[track_caller]
    pub(crate) fn ends(self, status: i32) -> Self {
        assert_eq!(self.status, Some(status), "{}\n{}", self.text(), self.stderr);
        self
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The only line, as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    #[track_caller]
    pub(crate) fn stderr_has(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "no {text:?} in: {}", self.stderr);
        self
    }
}

pub(crate) fn command<I: IntoIterator<Item: AsRef<OsStr>>>(args: I) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chronolith"));
    command.args(args);
    command
}

/// Runs the tool without a terminal and without input.
pub(crate) fn run<I: IntoIterator<Item: AsRef<OsStr>>>(args: I) -> Run {
    Run::of(command(args).stdin(Stdio::null()).output().expect("the tool runs"))
}

/// Runs the tool with this input.
pub(crate) fn run_with_input<I: IntoIterator<Item: AsRef<OsStr>>>(args: I, input: &[u8]) -> Run {
    let mut child = command(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the tool runs");
    // The tool may end without having read everything.
    let _ = child.stdin.take().expect("piped").write_all(input);
    Run::of(child.wait_with_output().expect("the tool ends"))
}

/// Arguments of different types in one list.
macro_rules! args {
    ($($arg:expr),* $(,)?) => { [$(OsString::from($arg)),*] };
}

/// A folder for one test.
pub(crate) struct Place {
    pub(crate) dir: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Place { dir: tempfile::tempdir().expect("a folder for temporary files") }
    }

    /// A path in it.
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The database that most tests use.
    pub(crate) fn db(&self) -> PathBuf {
        self.at("db")
    }

    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.at(name);
        std::fs::write(&path, content).expect("a file can be written");
        path
    }

    /// A database made of this CSV.
    pub(crate) fn imported(content: impl AsRef<[u8]>) -> Self {
        let place = Place::new();
        let file = place.file("in.csv", content);
        run(args!["import", place.db(), file]).ends(0);
        place
    }
}
