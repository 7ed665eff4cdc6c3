//! What every disk does, checked on all of them.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::simulated::random::Random;
use super::{CutState, Linked, MemoryDisk, RealDisk, SimulatedDisk, Vfs, VfsFile};
use crate::error::{Error, Result};

/// Makes a test of each function for each disk. A function gets the disk and an empty folder on it.
macro_rules! on_each_disk {
    ($($name:ident)*) => {
        mod real {
            $(#[test]
            fn $name() {
                let folder = tempfile::tempdir().unwrap();
                super::$name(&super::RealDisk::for_engine(), folder.path());
            })*
        }
        mod memory {
            $(#[test]
            fn $name() {
                super::on_new_folder(&super::MemoryDisk::new(), super::$name);
            })*
        }
        mod simulated {
            $(#[test]
            fn $name() {
                super::on_new_folder(&super::SimulatedDisk::new(1), super::$name);
            })*
        }
    };
}

fn on_new_folder(disk: &dyn Vfs, test: fn(&dyn Vfs, &Path)) {
    disk.create_dir_all("/some/folder".as_ref()).unwrap();
    test(disk, "/some/folder".as_ref());
}

on_each_disk! {
    written_bytes_are_read
    gap_reads_as_zeros
    read_ends_with_the_file
    nothing_written_changes_nothing
    length_is_cut_and_extended
    far_offsets_are_refused
    created_file_must_be_new
    missing_file_is_none
    missing_folder_is_told
    file_is_no_folder
    folder_is_no_file
    folders_are_made_at_any_depth
    names_are_sorted
    linked_file_is_there_under_both_names
    link_refuses
    rename_replaces
    rename_to_itself_does_nothing
    rename_refuses
    removed_file_is_gone_and_may_be_made_again
    handles_outlive_names
    read_handle_refuses_changes
    handles_share_the_file
    mapping_has_the_bytes
    mapping_outlives_the_name
    lock_is_exclusive
    lock_refuses_a_folder
    errors_name_operation_and_path
    threads_share_a_file
}

#[track_caller]
fn fails_with<T>(result: Result<T>, kind: ErrorKind) {
    match result {
        Ok(_) => panic!("succeeded, expected {kind:?}"),
        Err(error) => assert_eq!(error.io_kind(), Some(kind), "{error:?}"),
    }
}

fn put(disk: &dyn Vfs, path: &Path, bytes: &[u8]) {
    disk.create(path).unwrap().write_at(0, bytes).unwrap();
}

fn get(disk: &dyn Vfs, path: &Path) -> Option<Vec<u8>> {
    let file = disk.open(path, false).unwrap()?;
    Some(all_of(&*file))
}

fn all_of(file: &dyn VfsFile) -> Vec<u8> {
    let mut bytes = vec![0; file.len().unwrap() as usize + 1];
    let read = file.read_at(0, &mut bytes).unwrap();
    assert_eq!(read, bytes.len() - 1);
    bytes.truncate(read);
    bytes
}

fn written_bytes_are_read(disk: &dyn Vfs, folder: &Path) {
    let file = disk.create(&folder.join("a")).unwrap();
    let bytes: Vec<u8> = (0..20_000u32).map(|i| (i % 251) as u8).collect();
    file.write_at(0, &bytes[..7]).unwrap();
    file.write_at(7, &bytes[7..]).unwrap();
    file.write_at(100, &bytes[100..9_000]).unwrap();
    file.sync().unwrap();
    let mut read = vec![0; 10_000];
    assert_eq!(file.read_at(5_000, &mut read).unwrap(), 10_000);
    assert_eq!(read, bytes[5_000..15_000]);
    assert_eq!(get(disk, &folder.join("a")).unwrap(), bytes);
}

fn gap_reads_as_zeros(disk: &dyn Vfs, folder: &Path) {
    let file = disk.create(&folder.join("a")).unwrap();
    file.write_at(10_000, b"x").unwrap();
    let mut expected = vec![0; 10_001];
    expected[10_000] = b'x';
    assert_eq!(all_of(&*file), expected);
}

fn read_ends_with_the_file(disk: &dyn Vfs, folder: &Path) {
    let file = disk.create(&folder.join("a")).unwrap();
    file.write_at(0, b"12345").unwrap();
    let mut buffer = [b'-'; 4];
    assert_eq!(file.read_at(3, &mut buffer).unwrap(), 2);
    assert_eq!(&buffer, b"45--");
    assert_eq!(file.read_at(5, &mut buffer).unwrap(), 0);
    assert_eq!(file.read_at(u64::MAX, &mut buffer).unwrap(), 0);
    assert_eq!(file.read_at(0, &mut []).unwrap(), 0);
}

fn nothing_written_changes_nothing(disk: &dyn Vfs, folder: &Path) {
    let file = disk.create(&folder.join("a")).unwrap();
    file.write_at(5_000, b"").unwrap();
    assert_eq!(file.len().unwrap(), 0);
}

fn length_is_cut_and_extended(disk: &dyn Vfs, folder: &Path) {
    let file = disk.create(&folder.join("a")).unwrap();
    file.write_at(0, &[7; 5_000]).unwrap();
    file.set_len(10).unwrap();
    assert_eq!(all_of(&*file), [7; 10]);
    file.set_len(6_000).unwrap();
    let mut expected = vec![0; 6_000];
    expected[..10].fill(7);
    assert_eq!(all_of(&*file), expected, "what was cut does not come back");
    file.set_len(0).unwrap();
    assert_eq!(file.len().unwrap(), 0);
}

fn far_offsets_are_refused(disk: &dyn Vfs, folder: &Path) {
    let file = disk.create(&folder.join("a")).unwrap();
    fails_with(file.write_at(u64::MAX, b"xy"), ErrorKind::InvalidInput);
    fails_with(file.write_at(i64::MAX as u64, b"x"), ErrorKind::InvalidInput);
    fails_with(file.set_len(1 << 63), ErrorKind::InvalidInput);
    assert_eq!(file.len().unwrap(), 0);
}

fn created_file_must_be_new(disk: &dyn Vfs, folder: &Path) {
    put(disk, &folder.join("a"), b"1");
    disk.create_dir_all(&folder.join("b")).unwrap();
    fails_with(disk.create(&folder.join("a")), ErrorKind::AlreadyExists);
    fails_with(disk.create(&folder.join("b")), ErrorKind::AlreadyExists);
    assert_eq!(get(disk, &folder.join("a")).unwrap(), b"1");
}

fn missing_file_is_none(disk: &dyn Vfs, folder: &Path) {
    assert!(disk.open(&folder.join("a"), false).unwrap().is_none());
    assert!(disk.open(&folder.join("a"), true).unwrap().is_none());
    assert!(disk.open(&folder.join("no/a"), true).unwrap().is_none());
    fails_with(disk.map(&folder.join("a")), ErrorKind::NotFound);
    disk.remove(&folder.join("a")).unwrap();
    disk.remove(&folder.join("no/a")).unwrap();
    assert_eq!(disk.read_dir(folder).unwrap().unwrap(), [""; 0]);
}

fn missing_folder_is_told(disk: &dyn Vfs, folder: &Path) {
    put(disk, &folder.join("a"), b"1");
    assert_eq!(disk.read_dir(&folder.join("no")).unwrap(), None);
    fails_with(disk.create(&folder.join("no/a")), ErrorKind::NotFound);
    fails_with(disk.try_lock(&folder.join("no/a")), ErrorKind::NotFound);
    fails_with(disk.sync_dir(&folder.join("no")), ErrorKind::NotFound);
    fails_with(disk.rename(&folder.join("a"), &folder.join("no/a")), ErrorKind::NotFound);
    assert_eq!(get(disk, &folder.join("a")).unwrap(), b"1");
}

fn file_is_no_folder(disk: &dyn Vfs, folder: &Path) {
    let (file, inner) = (folder.join("a"), folder.join("a/b"));
    put(disk, &file, b"1");
    fails_with(disk.create_dir_all(&file), ErrorKind::AlreadyExists);
    fails_with(disk.create_dir_all(&inner), ErrorKind::NotADirectory);
    fails_with(disk.create_dir_all(&inner.join("c")), ErrorKind::NotADirectory);
    fails_with(disk.read_dir(&file), ErrorKind::NotADirectory);
    fails_with(disk.read_dir(&inner), ErrorKind::NotADirectory);
    fails_with(disk.sync_dir(&file), ErrorKind::NotADirectory);
    fails_with(disk.create(&inner), ErrorKind::NotADirectory);
    fails_with(disk.open(&inner, true), ErrorKind::NotADirectory);
    fails_with(disk.map(&inner), ErrorKind::NotADirectory);
    fails_with(disk.remove(&inner), ErrorKind::NotADirectory);
    fails_with(disk.rename(&inner, &file), ErrorKind::NotADirectory);
    fails_with(disk.rename(&file, &inner), ErrorKind::NotADirectory);
    fails_with(disk.try_lock(&inner), ErrorKind::NotADirectory);
}

fn folder_is_no_file(disk: &dyn Vfs, folder: &Path) {
    let (inner, file) = (folder.join("a"), folder.join("b"));
    disk.create_dir_all(&inner).unwrap();
    put(disk, &file, b"1");
    fails_with(disk.open(&inner, false), ErrorKind::IsADirectory);
    fails_with(disk.open(&inner, true), ErrorKind::IsADirectory);
    fails_with(disk.map(&inner), ErrorKind::IsADirectory);
    fails_with(disk.remove(&inner), ErrorKind::IsADirectory);
    fails_with(disk.rename(&inner, &folder.join("c")), ErrorKind::IsADirectory);
    fails_with(disk.rename(&file, &inner), ErrorKind::IsADirectory);
    assert_eq!(disk.read_dir(folder).unwrap().unwrap(), ["a", "b"]);
}

fn folders_are_made_at_any_depth(disk: &dyn Vfs, folder: &Path) {
    let deep = folder.join("a/b/c");
    disk.create_dir_all(&deep).unwrap();
    disk.create_dir_all(&deep).unwrap();
    disk.create_dir_all(&folder.join("a/d")).unwrap();
    assert_eq!(disk.read_dir(&deep).unwrap().unwrap(), [""; 0]);
    assert_eq!(disk.read_dir(&folder.join("a")).unwrap().unwrap(), ["b", "d"]);
    put(disk, &deep.join("e"), b"1");
    assert_eq!(get(disk, &folder.join("a/./b/../b/c/e")).unwrap(), b"1");
    for path in [deep.as_path(), &folder.join("a/b"), &folder.join("a"), folder] {
        disk.sync_dir(path).unwrap();
    }
}

fn names_are_sorted(disk: &dyn Vfs, folder: &Path) {
    for name in ["b", "a-1", "c", "a", "B", "a 1"] {
        put(disk, &folder.join(name), b"");
    }
    disk.create_dir_all(&folder.join("ab")).unwrap();
    assert_eq!(disk.read_dir(folder).unwrap().unwrap(), ["B", "a", "a 1", "a-1", "ab", "b", "c"]);
}

fn linked_file_is_there_under_both_names(disk: &dyn Vfs, folder: &Path) {
    let (a, b) = (folder.join("a"), folder.join("b"));
    let bytes: Vec<u8> = (0..600_000u32).map(|i| (i % 249) as u8).collect();
    put(disk, &a, &bytes);
    disk.create_dir_all(&folder.join("other")).unwrap();
    let far = folder.join("other").join("c");
    for to in [&b, &far] {
        match disk.link(&a, to).unwrap() {
            // Whoever opens it to write would change what the other name leads to.
            Linked::Named => fails_with(disk.open(to, true), ErrorKind::InvalidInput),
            Linked::Copied(copied) => assert_eq!(copied, 600_000),
        }
        assert_eq!(get(disk, to).unwrap(), bytes);
    }
    disk.remove(&a).unwrap();
    assert_eq!((get(disk, &a), get(disk, &b).unwrap()), (None, bytes.clone()));
    disk.remove(&b).unwrap();
    assert_eq!(get(disk, &far).unwrap(), bytes);
    disk.open(&far, true).unwrap().unwrap().write_at(0, b"x").unwrap();
}

fn link_refuses(disk: &dyn Vfs, folder: &Path) {
    let (a, b) = (folder.join("a"), folder.join("b"));
    fails_with(disk.link(&a, &b), ErrorKind::NotFound);
    put(disk, &a, b"1");
    put(disk, &b, b"2");
    fails_with(disk.link(&a, &b), ErrorKind::AlreadyExists);
    assert_eq!(get(disk, &b).unwrap(), b"2");
    fails_with(disk.link(&a, &folder.join("none").join("c")), ErrorKind::NotFound);
    fails_with(disk.link(folder, &folder.join("c")), ErrorKind::IsADirectory);
}

fn rename_replaces(disk: &dyn Vfs, folder: &Path) {
    let (a, b) = (folder.join("a"), folder.join("b"));
    put(disk, &a, b"1");
    disk.rename(&a, &b).unwrap();
    assert_eq!(get(disk, &b).unwrap(), b"1");
    put(disk, &a, b"2");
    disk.rename(&a, &b).unwrap();
    assert_eq!(get(disk, &b).unwrap(), b"2");
    assert_eq!(disk.read_dir(folder).unwrap().unwrap(), ["b"]);
    disk.create_dir_all(&folder.join("c")).unwrap();
    disk.rename(&b, &folder.join("c/d")).unwrap();
    assert_eq!(disk.read_dir(folder).unwrap().unwrap(), ["c"]);
    assert_eq!(get(disk, &folder.join("c/d")).unwrap(), b"2");
}

fn rename_to_itself_does_nothing(disk: &dyn Vfs, folder: &Path) {
    put(disk, &folder.join("a"), b"1");
    disk.rename(&folder.join("a"), &folder.join("a")).unwrap();
    assert_eq!(get(disk, &folder.join("a")).unwrap(), b"1");
}

fn rename_refuses(disk: &dyn Vfs, folder: &Path) {
    put(disk, &folder.join("b"), b"1");
    fails_with(disk.rename(&folder.join("a"), &folder.join("b")), ErrorKind::NotFound);
    fails_with(disk.rename(&folder.join("a"), &folder.join("a")), ErrorKind::NotFound);
    assert_eq!(get(disk, &folder.join("b")).unwrap(), b"1");
}

fn removed_file_is_gone_and_may_be_made_again(disk: &dyn Vfs, folder: &Path) {
    let path = folder.join("a");
    put(disk, &path, b"1");
    disk.remove(&path).unwrap();
    assert_eq!(get(disk, &path), None);
    put(disk, &path, b"2");
    assert_eq!(get(disk, &path).unwrap(), b"2");
}

fn handles_outlive_names(disk: &dyn Vfs, folder: &Path) {
    let (a, b) = (folder.join("a"), folder.join("b"));
    let first = disk.create(&a).unwrap();
    first.write_at(0, b"first").unwrap();
    disk.rename(&a, &b).unwrap();
    first.write_at(5, b"!").unwrap();
    assert_eq!(get(disk, &b).unwrap(), b"first!");
    put(disk, &a, b"second");
    disk.rename(&a, &b).unwrap();
    first.write_at(6, b"!").unwrap();
    first.set_len(8).unwrap();
    first.sync().unwrap();
    assert_eq!(all_of(&*first), b"first!!\0");
    disk.remove(&b).unwrap();
    assert_eq!(all_of(&*first), b"first!!\0");
    assert_eq!(disk.read_dir(folder).unwrap().unwrap(), [""; 0]);
}

fn read_handle_refuses_changes(disk: &dyn Vfs, folder: &Path) {
    put(disk, &folder.join("a"), b"1");
    let file = disk.open(&folder.join("a"), false).unwrap().unwrap();
    fails_with(file.write_at(0, b"2"), ErrorKind::PermissionDenied);
    fails_with(file.write_at(0, b""), ErrorKind::PermissionDenied);
    fails_with(file.set_len(0), ErrorKind::PermissionDenied);
    assert_eq!(all_of(&*file), b"1");
}

fn handles_share_the_file(disk: &dyn Vfs, folder: &Path) {
    let path = folder.join("a");
    put(disk, &path, b"1");
    let (reader, writer) =
        (disk.open(&path, false).unwrap().unwrap(), disk.open(&path, true).unwrap().unwrap());
    writer.write_at(1, b"2").unwrap();
    assert_eq!(all_of(&*reader), b"12");
}

fn mapping_has_the_bytes(disk: &dyn Vfs, folder: &Path) {
    let bytes: Vec<u8> = (0..20_000u32).map(|i| (i % 249) as u8).collect();
    put(disk, &folder.join("a"), &bytes);
    assert_eq!(*disk.map(&folder.join("a")).unwrap(), bytes);
    put(disk, &folder.join("b"), b"");
    assert_eq!(*disk.map(&folder.join("b")).unwrap(), []);
}

fn mapping_outlives_the_name(disk: &dyn Vfs, folder: &Path) {
    let (a, b) = (folder.join("a"), folder.join("b"));
    put(disk, &a, b"old");
    put(disk, &b, b"new");
    let mapping = disk.map(&a).unwrap();
    disk.rename(&b, &a).unwrap();
    assert_eq!(*mapping, *b"old");
    assert_eq!(*disk.map(&a).unwrap(), *b"new");
    disk.remove(&a).unwrap();
    assert_eq!(*mapping, *b"old");
}

fn lock_is_exclusive(disk: &dyn Vfs, folder: &Path) {
    let path = folder.join("LOCK");
    let lock = disk.try_lock(&path).unwrap().unwrap();
    assert!(disk.try_lock(&path).unwrap().is_none());
    let other = disk.try_lock(&folder.join("OTHER")).unwrap();
    assert!(other.is_some(), "another file is another lock");
    drop(lock);
    let lock = disk.try_lock(&path).unwrap().unwrap();
    assert!(disk.try_lock(&path).unwrap().is_none());
    drop(lock);
    assert_eq!(get(disk, &path).unwrap(), b"", "the file stays");
}

fn lock_refuses_a_folder(disk: &dyn Vfs, folder: &Path) {
    fails_with(disk.try_lock(folder), ErrorKind::IsADirectory);
}

fn errors_name_operation_and_path(disk: &dyn Vfs, folder: &Path) {
    let path = folder.join("a");
    put(disk, &path, b"1");
    let reader = disk.open(&path, false).unwrap().unwrap();
    let failed = [
        ("create folder", disk.create_dir_all(&path).unwrap_err()),
        ("list", disk.read_dir(&path).unwrap_err()),
        ("create", disk.create(&path).unwrap_err()),
        ("sync folder", disk.sync_dir(&path).unwrap_err()),
        ("write", reader.write_at(0, b"1").unwrap_err()),
        ("resize", reader.set_len(0).unwrap_err()),
    ];
    let path = folder.join("b");
    let missing = [("map", disk.map(&path).unwrap_err()), ("rename", disk.rename(&path, &path).unwrap_err())];
    for (expected, error) in failed.into_iter().chain(missing) {
        assert!(error.to_string().starts_with(&format!("cannot {expected} ")), "{error}");
        assert!(matches!(&error, Error::Io { path, .. } if path.starts_with(folder)), "{error:?}");
    }
}

fn threads_share_a_file(disk: &dyn Vfs, folder: &Path) {
    let file = disk.create(&folder.join("a")).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let file = &file;
            scope.spawn(move || {
                for i in 0..100 {
                    file.write_at((i * 4 + u64::from(thread)) * 100, &[thread + 1; 100]).unwrap();
                    file.sync().unwrap();
                }
            });
        }
    });
    let expected: Vec<u8> = (0..40_000).map(|at| (at / 100 % 4 + 1) as u8).collect();
    assert_eq!(all_of(&*file), expected);
}

/// A step of a random program on a few paths, by which disks can be compared.
struct Program<'a> {
    disk: &'a dyn Vfs,
    root: &'a Path,
    random: Random,
    handles: Vec<(PathBuf, Box<dyn VfsFile>)>,
    locks: Vec<Box<dyn super::VfsLock>>,
}

impl Program<'_> {
    /// Does something, and tells what came of it.
    fn step(&mut self) -> String {
        let (first, second) = (self.path(), self.path());
        let (disk, random) = (self.disk, &mut self.random);
        let number = random.next();
        match random.below(16) {
            0 => told("folder", disk.create_dir_all(&first)),
            1 => told("list", disk.read_dir(&first)),
            2 | 3 => {
                let file = disk.create(&first);
                let result = told("create", file.as_ref().map(drop));
                self.handles.extend(file.map(|file| (first, file)));
                result
            }
            4 => {
                let write = number % 3 == 0;
                let file = disk.open(&first, write);
                let result = told("open", file.as_ref().map(Option::is_some));
                self.handles.extend(file.ok().flatten().map(|file| (first, file)));
                result
            }
            5 => told("map", disk.map(&first).map(|bytes| bytes.to_vec())),
            6 | 7 => told("rename", disk.rename(&first, &second)),
            8 => told("remove", disk.remove(&first)),
            9 => told("sync folder", disk.sync_dir(&first)),
            10 => {
                if number % 2 == 0 && !self.locks.is_empty() {
                    let lock = self.locks.remove((number / 2) as usize % self.locks.len());
                    drop(lock);
                    return "unlock".into();
                }
                let lock = disk.try_lock(&first);
                let result = told("lock", lock.as_ref().map(Option::is_some));
                self.locks.extend(lock.ok().flatten());
                result
            }
            _ if self.handles.is_empty() => "no handle".into(),
            kind => {
                let index = (number % self.handles.len() as u64) as usize;
                let (path, file) = &self.handles[index];
                assert!(path.starts_with(self.root));
                let offset = random.below(9_000);
                match kind {
                    11 | 12 => {
                        let mut bytes = vec![0; random.below(5_000) as usize];
                        random.fill(&mut bytes);
                        told("write", file.write_at(offset, &bytes))
                    }
                    13 => told("resize", file.set_len(offset)),
                    14 => {
                        let mut bytes = vec![0; 3_000];
                        let read = file.read_at(offset, &mut bytes);
                        told("read", read.map(|read| bytes[..read].to_vec()))
                    }
                    _ if offset % 3 == 0 => {
                        self.handles.remove(index);
                        "close".into()
                    }
                    _ => told("sync", file.sync().and_then(|()| file.len())),
                }
            }
        }
    }

    fn path(&mut self) -> PathBuf {
        let names = ["a", "b", "c", "d/a", "d/b", "d", "e/f/a", "e/f", "a/x", "d/./b"];
        self.root.join(names[self.random.below(names.len() as u64) as usize])
    }
}

fn told<T: std::fmt::Debug>(what: &str, result: Result<T, impl std::borrow::Borrow<Error>>) -> String {
    match result {
        Ok(value) => format!("{what} {value:?}"),
        Err(error) => format!("{what} failed: {:?}", error.borrow().io_kind()),
    }
}

/// All paths below a folder, with the bytes of the files.
fn everything(disk: &dyn Vfs, folder: &Path, below: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    for name in disk.read_dir(folder).unwrap().unwrap() {
        let (path, below) = (folder.join(&name), below.join(&name));
        match disk.open(&path, false) {
            Ok(file) => {
                found.insert(below, Some(all_of(&*file.unwrap())));
            }
            Err(_) => {
                found.extend(everything(disk, &path, &below));
                found.insert(below, None);
            }
        }
    }
    found
}

#[test]
fn disks_agree_on_random_programs() {
    for seed in 0..25 {
        let folder = tempfile::tempdir().unwrap();
        let (memory, simulated) = (MemoryDisk::new(), SimulatedDisk::new(seed));
        let disks: [(&dyn Vfs, &Path); 3] =
            [(&RealDisk::new(), folder.path()), (&memory, "/".as_ref()), (&simulated, "/".as_ref())];
        let mut programs = disks.map(|(disk, root)| Program {
            disk,
            root,
            random: Random::new(seed),
            handles: Vec::new(),
            locks: Vec::new(),
        });
        for step in 0..300 {
            let [real, memory, simulated] = programs.each_mut().map(Program::step);
            assert_eq!(real, memory, "memory disk, seed {seed}, step {step}");
            assert_eq!(real, simulated, "simulated disk, seed {seed}, step {step}");
        }
        let [real, memory, live] = disks.map(|(disk, root)| everything(disk, root, Path::new("")));
        assert_eq!(real, memory, "seed {seed}");
        assert_eq!(real, live, "seed {seed}");
        let found = simulated.after_power_cut(CutState::All, 0);
        assert_eq!(real, everything(&found, "/".as_ref(), Path::new("")), "seed {seed}");
        assert_eq!(found.fingerprint(), simulated.fingerprint(), "seed {seed}");
        let lengths: u64 = real.values().flatten().map(|bytes| bytes.len() as u64).sum();
        assert_eq!((simulated.bytes_allocated(), found.bytes_allocated()), (lengths, lengths), "seed {seed}");
    }
}
