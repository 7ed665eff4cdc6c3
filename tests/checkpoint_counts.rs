//! Checkpoints whose checksums hold and whose counts are absurd, under an allocator that has little to give: opening is an error or works, and neither
//! asks for memory that it cannot do without, nor takes more than there are bytes for.

#![allow(unsafe_code, reason = "an allocator that refuses")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chronolith::io::{CutState, SimulatedDisk, Vfs};
use chronolith::{Durability, Error, Options, RepairOptions, Timestamp};

const DIR: &str = "/db";
const PAGE: usize = 4_096;
/// More than this is refused at once, and whoever cannot do without ends the process.
const REFUSED_BYTES: usize = 64 << 20;
/// Nobody has reason to hold more than this.
const PEAK_BYTES_MAX: usize = 32 << 20;

struct Refusing;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: every call is handed on to the system's allocator as it came, or refused. Counting allocates nothing: the counters are constants of the
// thread without destructors.
unsafe impl GlobalAlloc for Refusing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > REFUSED_BYTES {
            return std::ptr::null_mut();
        }
        count(layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Refusing = Refusing;

fn options() -> Options {
    Options::new().workers(0).shards(1).durability(Durability::Buffered)
}

/// A database whose checkpoint has something of everything, closed.
fn sample() -> SimulatedDisk {
    let disk = SimulatedDisk::new(1);
    let db = options().open_on(Arc::new(disk.clone()), DIR).expect("opens");
    let other = db.namespace("other").expect("a name");
    let append = |id: &str, second: i64, value: f64| {
        let at = Timestamp::from_secs(1_700_000_000 + second);
        db.append(&db.metric(id).expect("a name"), at, value).expect("commits");
    };
    (0..5).for_each(|index| append(&format!("m{index}"), index, 0.1 * index as f64));
    db.seal(..).expect("seals");
    for index in 0..5 {
        append(&format!("m{index}"), index + 7_200, 1.0);
        append(&format!("m{index}"), index + 7_190, 2.0);
    }
    let mut txn = db.begin_write();
    let metric = db.metric_in(&other, "there").expect("a name");
    txn.append(&metric, Timestamp::from_secs(1), 1.0).expect("staged");
    txn.delete(&metric, Timestamp::from_secs(0)..Timestamp::from_secs(1)).expect("staged");
    txn.put_meta(b"key", b"value").expect("staged");
    txn.commit().expect("commits");
    db.checkpoint().expect("a checkpoint");
    drop(db);
    disk.after_power_cut(CutState::All, 0)
}

fn read(disk: &SimulatedDisk, path: &Path) -> Vec<u8> {
    disk.map(path).expect("it is there").to_vec()
}

fn write(disk: &SimulatedDisk, path: &Path, bytes: &[u8]) {
    let file = disk.open(path, true).expect("the disk works").expect("it is there");
    file.write_at(0, bytes).expect("the disk works");
}

fn crc(bytes: &[u8]) -> [u8; 4] {
    crc32fast::hash(bytes).to_le_bytes()
}

/// Changes both slots of the superblock, and makes their checksums right.
fn with_superblock(base: &SimulatedDisk, change: impl Fn(&mut [u8])) -> SimulatedDisk {
    let disk = base.after_power_cut(CutState::All, 0);
    let path = Path::new(DIR).join("superblock");
    let mut bytes = read(&disk, &path);
    for slot in bytes.chunks_exact_mut(PAGE) {
        change(slot);
        let sum = crc(&slot[..PAGE - 4]);
        slot[PAGE - 4..].copy_from_slice(&sum);
    }
    write(&disk, &path, &bytes);
    disk
}

/// Opens it and uses it, and repairs a copy. What comes of it does not matter.
fn try_out(disk: &SimulatedDisk, what: &str) -> bool {
    let copy = disk.after_power_cut(CutState::All, 0);
    let before = HELD.get();
    PEAK.set(before);
    let opened = match options().open_on(Arc::new(disk.clone()), DIR) {
        Ok(db) => {
            let metric = db.metric("m1").expect("a name");
            let _ = db.append(&metric, Timestamp::from_secs(1_700_000_001), 3.0);
            let _ = db.snapshot().range(&metric, ..).count();
            let _ = db.checkpoint();
            true
        }
        Err(Error::Corrupt { .. } | Error::NewerFormat { .. }) => false,
        Err(other) => panic!("{what}: {other:?}"),
    };
    let _ = RepairOptions::new().run_on(Arc::new(copy), DIR, |_, _| {});
    let peak = (PEAK.get() - before) as usize;
    assert!(peak <= PEAK_BYTES_MAX, "{what}: {peak} bytes");
    opened
}

#[test]
fn absurd_counts_in_the_superblock_are_errors() {
    let base = sample();
    assert!(try_out(&base.after_power_cut(CutState::All, 0), "nothing"));
    let names: [(usize, usize); 10] =
        [(120, 8), (128, 8), (136, 8), (144, 8), (160, 8), (176, 8), (192, 8), (208, 8), (152, 4), (200, 4)];
    for (at, len) in names {
        for absurd in [[0xff; 8], *b"\xff\xff\xff\xff\xff\xff\xff\x7f", *b"\xff\xff\xff\xff\xff\x00\x00\x00"]
        {
            let disk = with_superblock(&base, |slot| slot[at..at + len].copy_from_slice(&absurd[..len]));
            assert!(!try_out(&disk, &format!("{len} bytes at {at}")), "{len} bytes at {at}");
        }
    }
}

#[test]
fn absurd_numbers_anywhere_in_pages_are_errors_or_do_no_harm() {
    let base = sample();
    let path = Path::new(DIR).join("trees/pages");
    let slot = read(&base, &Path::new(DIR).join("superblock"));
    let mut errors = 0;
    // The roots of metrics, bases, volumes and the state, each a leaf, and that of the first base, which the root of bases names.
    for root in [152, 168, 184, 200] {
        let page = u32::from_le_bytes(slot[root..root + 4].try_into().expect("four bytes"));
        let entries = u64::from_le_bytes(slot[root + 8..root + 16].try_into().expect("eight bytes"));
        let used = if root == 200 { entries as usize } else { 120.min(entries as usize * 48) };
        for at in 0..used {
            for absurd in [
                &[0xff; 4][..],
                &[0xff; 8],
                b"\xff\xff\xff\xff\x0f",
                b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            ] {
                let first = page as usize * PAGE;
                let mut bytes = read(&base, &path);
                let end = (first + 16 + at + absurd.len()).min(first + PAGE);
                bytes[first + 16 + at..end].copy_from_slice(&absurd[..end - first - 16 - at]);
                let sum = crc(&bytes[first + 4..first + PAGE]);
                bytes[first..first + 4].copy_from_slice(&sum);
                let disk = with_superblock(&base, |slot| slot[root + 4..root + 8].copy_from_slice(&sum));
                write(&disk, &path, &bytes);
                errors += u32::from(!try_out(&disk, &format!("{absurd:?} at {at} of root {root}")));
            }
        }
    }
    assert!(errors > 300, "{errors} errors");
}

#[test]
fn absurd_numbers_anywhere_in_the_active_file_are_errors_or_do_no_harm() {
    let base = sample();
    let of_folder = |(path, _): &(PathBuf, u64)| path.starts_with(Path::new(DIR).join("snapshots"));
    let (path, _) = base.files().into_iter().find(of_folder).expect("an active file");
    let bytes = read(&base, &path);
    let mut errors = 0;
    // One block from byte 48 on: checksum, length, payload.
    for at in 52..bytes.len() {
        for absurd in [&[0xff; 4][..], b"\xff\xff\xff\xff\x0f", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"] {
            let mut bytes = bytes.clone();
            let end = (at + absurd.len()).min(bytes.len());
            bytes[at..end].copy_from_slice(&absurd[..end - at]);
            let mut sum = crc32fast::Hasher::new();
            sum.update(&48u64.to_le_bytes());
            sum.update(&bytes[52..]);
            bytes[48..52].copy_from_slice(&sum.finalize().to_le_bytes());
            let disk = base.after_power_cut(CutState::All, 0);
            write(&disk, &path, &bytes);
            errors += u32::from(!try_out(&disk, &format!("{absurd:?} at {at}")));
        }
    }
    assert!(errors > 200, "{errors} errors");
}
