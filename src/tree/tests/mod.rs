//! What the trees guarantee: `design/trees.md`, "Guarantees".

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::page::PAGE_BYTES;
use super::*;
use crate::commitlog::DatabaseId;
use crate::error::Result;
use crate::io::{CutState, SimulatedDisk, Vfs, VfsFile};

mod arrays;
mod damage;
mod format;
mod power_cut;
mod space;

const DIR: &str = "/db";
const ID: DatabaseId = *b"0123456789abcdef";
const PAGE: u64 = PAGE_BYTES as u64;

/// The entries of a tree that are not zeros.
type Entries = BTreeMap<u64, Vec<u8>>;

/// A disk with a database's folder.
fn empty_disk() -> SimulatedDisk {
    let disk = SimulatedDisk::new(1);
    disk.create_dir_all(DIR.as_ref()).expect("room");
    disk.after_power_cut(CutState::All, 0)
}

fn create(disk: &SimulatedDisk) -> PageFile {
    PageFile::create(disk, DIR.as_ref(), &ID).expect("room")
}

fn open(disk: &SimulatedDisk) -> Result<PageFile> {
    PageFile::open(disk, DIR.as_ref(), &ID, true)
}

fn path() -> PathBuf {
    Path::new(DIR).join(FOLDER).join(FILE)
}

fn bytes(disk: &SimulatedDisk) -> Vec<u8> {
    disk.map(&path()).expect("it is there").to_vec()
}

fn raw(disk: &SimulatedDisk) -> Box<dyn VfsFile> {
    disk.open(&path(), true).expect("it opens").expect("it is there")
}

/// Loads a tree.
fn load(file: &mut PageFile, shape: Shape, root: Root) -> Result<Entries> {
    let mut entries = Entries::new();
    file.load(shape, root, |first, bytes| {
        assert!(first.is_multiple_of(shape.leaf_entries()) && first < root.entries);
        assert_eq!(bytes.len() % shape.entry_bytes(), 0);
        for (bytes, number) in bytes.chunks(shape.entry_bytes()).zip(first..) {
            if bytes.iter().any(|byte| *byte != 0) {
                entries.insert(number, bytes.to_vec());
            }
        }
        Ok(())
    })?;
    Ok(entries)
}

/// Opens the file and loads a tree.
fn reload(disk: &SimulatedDisk, shape: Shape, root: Root) -> Result<Entries> {
    load(&mut open(disk)?, shape, root)
}

/// Changes some entries of a tree.
fn put(file: &mut PageFile, shape: Shape, root: Root, entries: u64, changes: &Entries) -> Result<Root> {
    let leaves = changes.keys().map(|entry| shape.leaf_of(*entry));
    file.change(shape, root, entries, leaves, |leaf, bytes| {
        let first = leaf * shape.leaf_entries();
        for (entry, new) in changes.range(first..=first.saturating_add(shape.leaf_entries() - 1)) {
            let at = (entry - first) as usize * shape.entry_bytes();
            bytes[at..at + shape.entry_bytes()].copy_from_slice(new);
        }
        Ok(())
    })
}

/// An entry with a byte in each place that is not zero.
fn entry(shape: Shape, number: u64, seed: u64) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed;
    let mut bytes = vec![0; shape.entry_bytes()];
    for piece in bytes.chunks_mut(8) {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        piece.copy_from_slice(&((state ^ state >> 32) | 0x0101_0101_0101_0101).to_le_bytes()[..piece.len()]);
    }
    bytes
}

/// So many entries from the first on.
fn entries(shape: Shape, numbers: impl IntoIterator<Item = u64>, seed: u64) -> Entries {
    numbers.into_iter().map(|number| (number, entry(shape, number, seed))).collect()
}
/// A random number below a bound, from a fixed seed.
fn random(seed: u64) -> impl FnMut(u64) -> u64 {
    println!("seed {seed}");
    let mut state = seed;
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    }
}
