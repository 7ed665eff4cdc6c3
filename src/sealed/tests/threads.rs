//! Many threads at once.

use std::ffi::OsString;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Barrier, Condvar, Mutex};
use std::time::Duration;

use super::*;
use crate::io::{Mapping, VfsFile, VfsLock};

/// A disk that counts the openings of volumes and can hold those of one.
#[derive(Clone, Debug, Default)]
struct GatedDisk(std::sync::Arc<Gated>);

#[derive(Debug, Default)]
struct Gated {
    disk: MemoryDisk,
    /// How many index files were mapped.
    openings: AtomicUsize,
    /// Files whose mapping waits.
    held: Mutex<Option<PathBuf>>,
    changed: Condvar,
    waiting: AtomicBool,
}

impl Vfs for GatedDisk {
    fn map(&self, path: &Path) -> Result<Mapping> {
        let gate = &self.0;
        gate.openings.fetch_add(usize::from(path.to_string_lossy().ends_with("-index.db")), Ordering::SeqCst);
        let mut held = gate.held.lock().expect("nobody panics");
        while held.as_deref() == Some(path) {
            gate.waiting.store(true, Ordering::SeqCst);
            gate.changed.notify_all();
            // The limit is for a test that fails: it would wait forever.
            let (guard, late) =
                gate.changed.wait_timeout(held, Duration::from_secs(60)).expect("nobody panics");
            assert!(!late.timed_out(), "nobody opened the gate");
            held = guard;
        }
        drop(held);
        gate.disk.map(path)
    }

    fn create_dir_all(&self, path: &Path) -> Result<()> {
        self.0.disk.create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> Result<Option<Vec<OsString>>> {
        self.0.disk.read_dir(path)
    }

    fn create(&self, path: &Path) -> Result<Box<dyn VfsFile>> {
        self.0.disk.create(path)
    }

    fn open(&self, path: &Path, write: bool) -> Result<Option<Box<dyn VfsFile>>> {
        self.0.disk.open(path, write)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.0.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.0.disk.remove(path)
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        self.0.disk.sync_dir(path)
    }

    fn try_lock(&self, path: &Path) -> Result<Option<Box<dyn VfsLock>>> {
        self.0.disk.try_lock(path)
    }
}

#[test]
fn opening_a_volume_holds_up_no_reader_of_another() {
    let disk = GatedDisk::default();
    let store = store_on(&disk, 2);
    let (namespace, metrics) = metrics();
    let volumes = [0, 1, 2].map(|number| {
        write(&store, &block(number), &namespace, &metrics).expect("room");
        store.volume(block(number), &namespace)
    });
    assert_readable(&volumes[1], &metrics);
    *disk.0.held.lock().expect("nobody panics") = Some(path(&block(0), &namespace, VolumeFile::Index));
    std::thread::scope(|scope| {
        scope.spawn(|| assert_readable(&volumes[0], &metrics));
        let mut held = disk.0.held.lock().expect("nobody panics");
        while !disk.0.waiting.load(Ordering::SeqCst) {
            held = disk.0.changed.wait(held).expect("nobody panics");
        }
        drop(held);
        assert_readable(&volumes[1], &metrics);
        assert_readable(&volumes[2], &metrics);
        assert!(volumes[2].verify().is_empty());
        write(&store, &block(3), &namespace, &metrics).expect("room");
        volumes[2].supersede(Version(1));
        assert_eq!(store.open_volumes(), 2);
        *disk.0.held.lock().expect("nobody panics") = None;
        disk.0.changed.notify_all();
    });
    assert_eq!(store.open_volumes(), 2);
}

#[test]
fn volume_is_opened_once_for_all_who_wait_for_it() {
    let disk = GatedDisk::default();
    let store = store_on(&disk, 1);
    let (namespace, metrics) = metrics();
    write(&store, &block(0), &namespace, &metrics).expect("room");
    let volume = store.volume(block(0), &namespace);
    let barrier = Barrier::new(8);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                barrier.wait();
                assert_readable(&volume, &metrics);
            });
        }
    });
    assert_eq!(disk.0.openings.load(Ordering::SeqCst), 1);
}

/// Random numbers, from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

/// Readers, who now and then replace a volume by the next of its block, under a cap far below the number of volumes, while another thread
/// removes what is superseded.
#[test]
fn readers_and_removal_agree_under_a_cap() {
    const BLOCKS: usize = 12;
    const THREADS: u64 = 8;
    const OPEN_MAX: usize = 3;
    let seed = 0x9e37_79b9_7f4a_7c15_u64;
    println!("seed {seed:#x}");
    let disk = GatedDisk::default();
    let store = store_on(&disk, OPEN_MAX);
    let (namespace, metrics) = metrics();
    let make = |at: usize, number: u32| {
        let block = block_at(START + at as i64 * WIDTH_NS, WIDTH_NS, number);
        write(&store, &block, &namespace, &metrics[..5]).expect("room");
        store.volume(block, &namespace)
    };
    let table: Vec<_> = (0..BLOCKS).map(|at| Mutex::new(make(at, 0))).collect();
    let current = |at: usize| table[at].lock().expect("nobody panics").clone();
    let is_done = AtomicBool::new(false);
    let mut removed = 0;
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (current, make, table, metrics, store) = (&current, &make, &table, &metrics, &store);
                scope.spawn(move || {
                    let mut random = Random(seed.wrapping_mul(2 * thread + 1));
                    let mut held: Vec<(SealedStream, Vec<u8>)> = Vec::new();
                    for _ in 0..400 {
                        let at = random.below(BLOCKS);
                        let volume = current(at);
                        let metric = &metrics[random.below(5)];
                        let found = volume.stream_of(metric).expect("undamaged").expect("it has points");
                        held.push((found, stream(volume.block(), metric)));
                        assert!(store.open_volumes() <= OPEN_MAX);
                        if random.below(20) == 0 {
                            let mut place = table[at].lock().expect("nobody panics");
                            let next = make(at, place.block().number + 1);
                            std::mem::replace(&mut *place, next).supersede(Version(1));
                        }
                        if held.len() > 20 {
                            let (found, expected) = held.swap_remove(random.below(20));
                            assert_eq!(found.bytes(), expected);
                        }
                    }
                    assert!(held.iter().all(|(found, expected)| found.bytes() == expected));
                })
            })
            .collect();
        let remover = scope.spawn(|| {
            let mut removed = 0;
            while !is_done.load(Ordering::SeqCst) {
                removed += store.remove_superseded(Version(1)).expect("they go");
                std::thread::yield_now();
            }
            removed
        });
        let outcomes: Vec<_> = readers.into_iter().map(|reader| reader.join()).collect();
        is_done.store(true, Ordering::SeqCst);
        removed = remover.join().expect("nobody panics");
        outcomes.into_iter().for_each(|outcome| outcome.expect("nobody panics"));
    });
    removed += store.remove_superseded(Version(1)).expect("they go");
    let replaced: u32 = (0..BLOCKS).map(|at| current(at).block().number).sum();
    assert!(replaced > 0 && removed == u64::from(replaced), "{removed} of {replaced}");
    assert_eq!(files_in(&disk, DATA.as_ref()).len(), BLOCKS * (VolumeFile::ALL.len() + 1));
    assert!(disk.0.openings.load(Ordering::SeqCst) > BLOCKS, "they were closed and opened again");
    (0..BLOCKS).for_each(|at| assert_readable(&current(at), &metrics[..5]));
}
