//! The file of settings: written under another name and renamed, so that it is the old one or the new one. Format: `design/settings.md`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::Settings;
use crate::commitlog::{DatabaseId, le_u32, le_u64};
use crate::error::{Error, Result};
use crate::io::Vfs;
use crate::options::Durability;

/// Its name in the database's folder.
pub(crate) const FILE: &str = "settings";
/// Its name while it is written.
const UNFINISHED: &str = "settings.new";
const MAGIC: [u8; 8] = *b"CHRONOSE";
const FORMAT_VERSION: u32 = 1;
const BYTES: usize = 88;
/// Fields begin here, of 8 bytes each.
const FIELDS: usize = 40;
const _: () = assert!(FIELDS + 6 * 8 == BYTES);

/// Where a database keeps its settings.
#[derive(Clone, Debug)]
pub(crate) struct SettingsFile {
    disk: Arc<dyn Vfs>,
    dir: PathBuf,
    database_id: DatabaseId,
}

impl SettingsFile {
    pub(crate) fn new(disk: &Arc<dyn Vfs>, dir: &Path, database_id: DatabaseId) -> Self {
        SettingsFile { disk: disk.clone(), dir: dir.to_owned(), database_id }
    }

    /// What it keeps; nothing if there is no file.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::NewerFormat`], [`Error::Io`].
    pub(crate) fn read(&self) -> Result<Settings> {
        let path = self.dir.join(FILE);
        let Some(file) = self.disk.open(&path, false)? else { return Ok(Settings::default()) };
        let mut bytes = [0; BYTES];
        let len = file.read_at(0, &mut bytes)?;
        let corrupt = |offset, reason| {
            Err(Error::Corrupt { format: "settings file", path: path.clone(), offset, metric: None, reason })
        };
        if len >= 12 && bytes[..8] == MAGIC && le_u32(&bytes, 8) > FORMAT_VERSION {
            let (found, supported) = (le_u32(&bytes, 8), FORMAT_VERSION);
            return Err(Error::NewerFormat { path, found, supported });
        }
        if len < BYTES || file.len()? != BYTES as u64 {
            return corrupt(len as u64, "it has another length than settings have");
        }
        if bytes[..8] != MAGIC {
            return corrupt(0, "the magic number differs");
        }
        if crc(&bytes) != le_u32(&bytes, 12) {
            return corrupt(12, "the checksum differs");
        }
        if bytes[16..32] != self.database_id {
            return corrupt(16, "it is of another database");
        }
        match decode(&bytes) {
            Some(settings) => Ok(settings),
            None => corrupt(32, "settings that there are not"),
        }
    }

    /// Replaces it, durable.
    ///
    /// # Errors
    /// [`Error::Io`]: what there was is kept, or what was to be, but nothing else.
    pub(crate) fn write(&self, settings: &Settings) -> Result<()> {
        let unfinished = self.dir.join(UNFINISHED);
        self.disk.remove(&unfinished)?;
        let file = self.disk.create(&unfinished)?;
        file.write_at(0, &encode(settings, &self.database_id))?;
        file.sync()?;
        self.disk.rename(&unfinished, &self.dir.join(FILE))?;
        self.disk.sync_dir(&self.dir)
    }
}

fn crc(bytes: &[u8; BYTES]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&bytes[..12]);
    crc.update(&bytes[16..]);
    crc.finalize()
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn encode(settings: &Settings, database_id: &DatabaseId) -> [u8; BYTES] {
    let (kind, interval) = match settings.durability {
        None | Some(Durability::Buffered) => (0, None),
        Some(Durability::Interval(interval)) => (1, Some(nanoseconds(interval))),
        Some(Durability::Sync) => (2, None),
    };
    let fields = [
        settings.durability.map(|_| interval.unwrap_or(0)),
        settings.buffer_past.map(nanoseconds),
        settings.refresh_bytes,
        settings.memory_max,
        settings.memory_wait.map(nanoseconds),
        settings.checkpoint_log_bytes,
    ];
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes[16..32].copy_from_slice(database_id);
    let mut set = 0_u32;
    for (place, field) in fields.into_iter().enumerate() {
        set |= u32::from(field.is_some()) << place;
        let at = FIELDS + 8 * place;
        bytes[at..at + 8].copy_from_slice(&field.unwrap_or(0).to_le_bytes());
    }
    bytes[32..36].copy_from_slice(&set.to_le_bytes());
    bytes[36..40].copy_from_slice(&u32::to_le_bytes(kind));
    let crc = crc(&bytes);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// `None` if it is nothing that [`encode`] writes.
fn decode(bytes: &[u8; BYTES]) -> Option<Settings> {
    let (set, kind) = (le_u32(bytes, 32), le_u32(bytes, 36));
    let field = |place: usize| (set & 1 << place != 0).then(|| le_u64(bytes, FIELDS + 8 * place));
    let duration = |place| field(place).map(Duration::from_nanos);
    let durability = match (field(0), kind) {
        (None | Some(0), 0) => field(0).map(|_| Durability::Buffered),
        (Some(interval), 1) => Some(Durability::Interval(Duration::from_nanos(interval))),
        (Some(0), 2) => Some(Durability::Sync),
        _ => return None,
    };
    let settings = Settings {
        durability,
        buffer_past: duration(1),
        refresh_bytes: field(2),
        memory_max: field(3),
        memory_wait: duration(4),
        checkpoint_log_bytes: field(5),
    };
    // What is not set is zeros, and there are no other settings.
    let same = encode(&settings, bytes[16..32].first_chunk()?);
    (same[32..] == bytes[32..] && settings.check().is_ok()).then_some(settings)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::io::{CutState, SimulatedDisk};

    const DIR: &str = "/db";
    const ID: DatabaseId = *b"0123456789abcdef";
    const GOLDEN: &[u8] = include_bytes!("../../tests/golden/settings-v1.bin");

    fn some() -> Settings {
        let settings = Settings::new().durability(Durability::Interval(Duration::from_millis(250)));
        settings.memory_max(64 << 20).memory_wait(Duration::from_secs(3)).refresh_bytes(7)
    }

    fn disk() -> SimulatedDisk {
        let disk = SimulatedDisk::new(1);
        disk.create_dir_all(Path::new(DIR)).expect("room");
        disk.sync_dir(Path::new("/")).expect("works");
        disk
    }

    fn file(disk: &SimulatedDisk) -> SettingsFile {
        SettingsFile::new(&(Arc::new(disk.clone()) as Arc<dyn Vfs>), Path::new(DIR), ID)
    }

    #[test]
    fn the_golden_file_is_written_and_read() {
        assert_eq!(encode(&some(), &ID), GOLDEN);
        let disk = disk();
        assert_eq!(file(&disk).read().expect("none is none"), Settings::new());
        file(&disk).write(&some()).expect("room");
        assert_eq!(file(&disk).read().expect("sound"), some());
        let all = Settings::from(Settings::new().in_force());
        for settings in [all, Settings::new(), all.durability(Durability::Buffered)] {
            file(&disk).write(&settings).expect("room");
            assert_eq!(file(&disk).read().expect("sound"), settings);
        }
    }

    #[test]
    fn every_flipped_bit_and_every_length_is_told() {
        let disk = disk();
        let path = Path::new(DIR).join(FILE);
        let put = |bytes: &[u8]| {
            disk.remove(&path).expect("works");
            disk.create(&path).expect("room").write_at(0, bytes).expect("room");
            file(&disk).read()
        };
        for bit in 0..BYTES * 8 {
            let mut bytes = GOLDEN.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let read = put(&bytes);
            let newer = (64..96).contains(&bit);
            assert!(
                matches!(&read, Err(Error::Corrupt { path: told, .. }) if *told == path)
                    || newer && matches!(read, Err(Error::NewerFormat { .. })),
                "bit {bit}: {read:?}"
            );
        }
        for len in 0..BYTES {
            assert!(matches!(put(&GOLDEN[..len]), Err(Error::Corrupt { .. })), "{len}");
        }
        assert!(matches!(put(&[GOLDEN, b"x"].concat()), Err(Error::Corrupt { .. })));
        // Sound checksums over what nobody writes.
        for (at, value) in [(32, 0x7f), (36, 3), (48, 1), (64, 1)] {
            let mut bytes: [u8; BYTES] = *GOLDEN.first_chunk().expect("as long");
            bytes[at] = value;
            let crc = crc(&bytes);
            bytes[12..16].copy_from_slice(&crc.to_le_bytes());
            assert!(at == 64 || put(&bytes).is_err(), "{at}");
        }
    }

    #[test]
    fn a_cut_at_any_call_leaves_the_old_or_the_new_ones() {
        let old = Settings::new().refresh_bytes(1);
        let mut found = [0, 0];
        for call in 0.. {
            let disk = disk();
            file(&disk).write(&old).expect("room");
            disk.cut_power_at(disk.calls() + call);
            let written = file(&disk).write(&some());
            for (seed, state) in (0..).zip(CutState::ALL) {
                let read = file(&disk.after_power_cut(state, seed)).read().expect("whole");
                assert!(read == old || read == some(), "call {call}, {state:?}: {read:?}");
                assert!(written.is_err() || read == some(), "it was acknowledged");
                found[usize::from(read == some())] += 1;
            }
            if written.is_ok() {
                break;
            }
        }
        assert!(found[0] > 10 && found[1] > 8, "{found:?}");
    }
}
