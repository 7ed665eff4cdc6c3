//! Damaged volumes under a counting allocator: whatever a file says, reading it takes memory in proportion to the files, and gives right data or
//! an error.

#![allow(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chronolith::fileset::{
    MetricStream, Statistics, SupplementSpec, Volume, VolumeFile, VolumeName, VolumeSpec, VolumeWriter,
    encode_tags,
};
use chronolith::io::{MemoryDisk, Vfs};
use chronolith::{Error, MetricId};

/// Counts the bytes that this thread holds, and the most it has held. Tests run in threads of their own.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // A thread that ends may free when its counters are gone.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: every call is handed on to the system's allocator as it came. Counting allocates nothing: the counters are constants of the thread
// without destructors.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
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
static ALLOCATOR: Counting = Counting;

/// The most bytes that `act` held at a time, beyond what there was before.
fn peak_of<T>(act: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let result = act();
    (result, (PEAK.get() - before) as usize)
}

const FOLDER: &str = "/data/metrics/0";
const NAME: VolumeName = VolumeName { block_start: 1_700_006_400_000_000_000, volume: 1 };
const SPEC: VolumeSpec = VolumeSpec {
    name: NAME,
    block_size: 7_200_000_000_000,
    snapshot: None,
    supplement: Some(SupplementSpec { database_id: [7; 16], freeze_version: 17 }),
};
/// Two entries of the summaries.
const METRICS: u32 = 40;
/// What reading may take for each byte of the files, beside [`EVER`]: entries, errors and what is sorted.
const PER_BYTE: usize = 4;
/// What reading takes at least: names, paths, the volume itself.
const EVER: usize = 8 << 10;

#[test]
fn allocator_counts() {
    let (bytes, peak) = peak_of(|| (vec![0_u8; 100_000], drop(vec![0_u8; 50_000])).0.len());
    assert!(bytes == 100_000 && (150_000..151_000).contains(&peak), "{peak}");
}

struct Expected {
    tags: Vec<u8>,
    stream: Vec<u8>,
    metric: MetricId,
    statistics: Statistics,
}

/// A volume with a supplement, and a place for each of its files.
struct Bed {
    disk: MemoryDisk,
    metrics: BTreeMap<Vec<u8>, Expected>,
    paths: Vec<PathBuf>,
}

/// How a file's change is made plausible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signing {
    Not,
    /// Digests, checkpoint, and the supplement's head.
    All,
}

impl Bed {
    fn new() -> Self {
        let metric = |n: u32| {
            let tags: &[(&[u8], &[u8])] = if n.is_multiple_of(5) { &[(b"k", b"v")] } else { &[] };
            let stream: Vec<u8> = (0..=n % 9).map(|i| ((n * 31) ^ i) as u8).collect();
            let statistics = Statistics::of_points((0..).zip(stream.iter().map(|byte| f64::from(*byte))));
            let expected = Expected {
                tags: encode_tags(tags).expect("tags"),
                stream,
                metric: MetricId::from(n * 7 % METRICS + 1),
                statistics,
            };
            (format!("m{n:02}").into_bytes(), expected)
        };
        let metrics: BTreeMap<_, _> = (0..METRICS).map(metric).collect();
        let disk = MemoryDisk::new();
        disk.create_dir_all(FOLDER.as_ref()).expect("room");
        let mut writer = VolumeWriter::create(&disk, FOLDER.as_ref(), SPEC).expect("room");
        for (id, Expected { tags, stream, metric, statistics }) in metrics.iter().rev() {
            writer.append_numbered(MetricStream { id, tags, stream }, *metric, statistics).expect("room");
        }
        writer.finish().expect("room");
        let mut paths: Vec<PathBuf> =
            VolumeFile::ALL.iter().map(|file| Path::new(FOLDER).join(NAME.file_name(*file))).collect();
        paths.push(Path::new(FOLDER).join(NAME.supplement_file_name()));
        Bed { disk, metrics, paths }
    }

    fn bytes(&self, path: &Path) -> Vec<u8> {
        self.disk.map(path).expect("it is there").to_vec()
    }

    fn put(&self, path: &Path, bytes: &[u8]) {
        self.disk.remove(path).expect("it goes");
        self.disk.create(path).and_then(|file| file.write_at(0, bytes)).expect("room");
    }

    /// Makes the checksums those of the files as they are. The supplement's sums of them stay.
    fn sign(&self) {
        let [info, index, summaries, bloom, data, digest, checkpoint, supplement] = &self.paths[..] else {
            panic!("eight files");
        };
        let files = [info, index, summaries, bloom, data];
        let digests: Vec<u8> = files
            .iter()
            .flat_map(|path| simd_adler32::adler32(&&self.bytes(path)[..]).to_le_bytes())
            .collect();
        self.put(digest, &digests);
        self.put(checkpoint, &simd_adler32::adler32(&&digests[..]).to_le_bytes());
        let mut bytes = self.bytes(supplement);
        if let Some((used, rest)) = bytes.split_at_mut_checked(4092)
            && let Some(crc) = rest.first_chunk_mut()
        {
            *crc = crc32fast::hash(used).to_le_bytes();
        }
        self.put(supplement, &bytes);
    }

    /// Changes a file, reads the volume, and puts everything right again.
    fn with_change(&self, path: &Path, signing: Signing, what: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let sound =
            (signing == Signing::All).then(|| self.paths.iter().map(|path| self.bytes(path)).collect());
        let before = self.bytes(path);
        let mut changed = before.clone();
        change(&mut changed);
        if changed == before {
            return;
        }
        self.put(path, &changed);
        if signing == Signing::All {
            self.sign();
        }
        let total: usize = self.paths.iter().map(|path| self.bytes(path).len()).sum();
        let ((), peak) = peak_of(|| self.read(signing, what));
        let bound = PER_BYTE * total + EVER;
        assert!(peak <= bound, "{what}: {peak} bytes of memory for {total} of files");
        self.put(path, &before);
        let sound: Vec<Vec<u8>> = sound.unwrap_or_default();
        self.paths.iter().zip(sound).for_each(|(path, bytes)| self.put(path, &bytes));
    }

    /// Reads all in every way. Without signed changes what comes is right.
    fn read(&self, signing: Signing, what: &str) {
        for salvage in [false, true] {
            let opened = match salvage {
                false => Volume::open(&self.disk, FOLDER.as_ref(), NAME),
                true => Volume::salvage(&self.disk, FOLDER.as_ref(), NAME),
            };
            let volume = match opened {
                Ok(volume) => volume,
                Err(Error::Corrupt { .. }) => continue,
                Err(error) => panic!("{what}: {error}"),
            };
            let is_right = |right: bool| assert!(right || signing == Signing::All, "{what}");
            is_right(!volume.verify().is_empty());
            for entry in volume.entries() {
                let Ok((entry, stream)) = entry.and_then(|entry| Ok((entry, volume.stream(&entry)?))) else {
                    continue;
                };
                let expected = self.metrics.get(entry.id());
                is_right(expected.is_some_and(|expected| {
                    expected.stream == stream && expected.tags == entry.encoded_tags()
                }));
            }
            let Some(supplement) = volume.supplement() else { continue };
            for expected in self.metrics.values() {
                let Ok(found) = supplement.find(expected.metric) else { continue };
                is_right(found.is_some_and(|entry| entry.statistics == expected.statistics));
                if let Ok(stream) = supplement.stream_of(expected.metric) {
                    is_right(stream == Some(&expected.stream));
                }
            }
            assert!(supplement.entries().filter(Result::is_ok).count() <= self.metrics.len(), "{what}");
        }
    }
}

#[test]
fn every_flipped_bit_of_every_file() {
    let bed = Bed::new();
    for path in &bed.paths {
        let len = bed.bytes(path).len();
        for bit in 0..8 * len {
            // Most of the supplement is zeros: of each of its bytes one bit is enough here, another one in the next byte. Its unit tests flip all.
            if len > 8_000 && bit % 8 != bit / 8 % 8 {
                continue;
            }
            let what = format!("bit {bit} of {}", path.display());
            bed.with_change(path, Signing::Not, &what, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        }
    }
}

#[test]
fn every_cut_of_every_file() {
    let bed = Bed::new();
    for path in &bed.paths {
        let len = bed.bytes(path).len();
        for new_len in (0..len).chain([len + 1, len + 5_000]) {
            let what = format!("{} cut to {new_len}", path.display());
            bed.with_change(path, Signing::Not, &what, |bytes| bytes.resize(new_len, 0));
        }
    }
}

#[test]
fn every_number_of_every_file_set_to_ff() {
    let bed = Bed::new();
    for path in &bed.paths {
        let len = bed.bytes(path).len();
        for (at, width) in (0..len).flat_map(|at| [1, 2, 4, 8].map(|width| (at, width))) {
            // The supplement's numbers are of 4 and 8 bytes, and at multiples of 4.
            if len > 8_000 && (!at.is_multiple_of(4) || width < 4) {
                continue;
            }
            for signing in [Signing::Not, Signing::All] {
                let what = format!("{width} bytes at {at} of {}, {signing:?}", path.display());
                bed.with_change(path, signing, &what, |bytes| bytes[at..(at + width).min(len)].fill(0xff));
            }
        }
    }
}
