//! What only the simulated disk does. What it does as any other disk is checked in `conformance`.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::{CallKind, CutState, Fault, SimulatedDisk};
use crate::error::Result;
use crate::io::{Vfs, VfsFile};

mod calls;
mod faults;
mod holds;
mod power;

fn path(text: &str) -> &Path {
    Path::new(text)
}

fn create(disk: &SimulatedDisk, name: &str, bytes: &[u8]) -> Box<dyn VfsFile> {
    let file = disk.create(path(name)).unwrap();
    file.write_at(0, bytes).unwrap();
    file
}

/// A file with these bytes, all durable, in a folder whose own name is.
fn create_durable(disk: &SimulatedDisk, name: &str, bytes: &[u8]) -> Box<dyn VfsFile> {
    let file = create(disk, name, bytes);
    file.sync().unwrap();
    disk.sync_dir(path(name).parent().unwrap()).unwrap();
    file
}

/// The bytes of all files.
fn found(disk: &SimulatedDisk) -> BTreeMap<String, Vec<u8>> {
    let read =
        |(path, _): (PathBuf, u64)| (path.to_str().unwrap().to_owned(), disk.map(&path).unwrap().to_vec());
    disk.files().into_iter().map(read).collect()
}

#[track_caller]
fn expect(disk: &SimulatedDisk, cut: CutState, files: &[(&str, &[u8])]) {
    let expected = files.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.to_vec())).collect();
    let after = disk.after_power_cut(cut, 3);
    assert_eq!(found(&after), expected, "{cut:?}");
}

#[track_caller]
fn fails_with<T>(result: Result<T>, kind: ErrorKind) {
    match result {
        Ok(_) => panic!("succeeded, expected {kind:?}"),
        Err(error) => assert_eq!(error.io_kind(), Some(kind), "{error:?}"),
    }
}
