//! What of a directory is merged, and in which order: as M3 does when it starts, but for logs that are not whole.
//!
//! First the flushed volumes, then the snapshots' volumes, then the commit logs. Of two points with one time the later in this order
//! counts. That is right because each writes down what is newer than the one before: `design/m3-directory.md`, "What counts".
//!
//! Invariant: where a log after the volumes has an entry, all later entries of its point are there too. A log that is not whole may have lost some, its
//! own and those that would have replaced entries of older logs; so it and the older ones come before the volumes.

use std::collections::HashSet;

use super::directory::{Directory, LogFile, VolumeKind, VolumePlace};
use crate::error::{Error, Result};
use crate::io::Vfs;

/// What to read: first `logs_before_volumes`, then `flushed`, `snapshots` and `logs`.
#[derive(Debug, Default)]
pub struct Plan {
    /// Up to the last log that is not whole, the oldest first. What a volume has is not replaced by what they say.
    pub logs_before_volumes: Vec<LogFile>,
    /// Of each block the highest complete volume, by namespace, block and shard.
    pub flushed: Vec<VolumePlace>,
    /// The volumes of snapshots that count.
    pub snapshots: Vec<VolumePlace>,
    /// The commit logs after the last one that is not whole, the oldest first.
    pub logs: Vec<LogFile>,
    /// The logs that are not whole: something of them cannot be read, be it damaged or missing; a torn tail does not count. They are among `logs_before_volumes`.
    pub not_whole: Vec<LogFile>,
    /// Complete volumes of snapshots that do not count.
    pub passed_over: Vec<VolumePlace>,
    /// Volumes of snapshots that are so damaged that nothing tells whether they count; they are in none of the lists.
    pub damage: Vec<(VolumePlace, Error)>,
}

impl Plan {
    /// Decides what counts, in the namespaces that `wanted` accepts. (Logs hold points of all namespaces.)
    ///
    /// Of each block and shard the highest complete snapshot volume counts if it belongs to the latest finished snapshot, or if no volume of
    /// its block was flushed: then it cannot hide anything newer. If no snapshot was finished, all of them count. Damaged volumes count like others, as far as what is left of
    /// them says which snapshot they belong to: what of them can be read is for the reader to find out.
    ///
    /// Cost: opens the volumes of snapshots, and reads all logs.
    pub fn new(disk: &dyn Vfs, directory: &Directory, wanted: impl Fn(&str) -> bool) -> Self {
        let mut plan = Plan { flushed: directory.volumes(VolumeKind::Flush), ..Plan::default() };
        plan.divide_logs(disk, &directory.logs);
        plan.flushed.retain(|place| wanted(&place.namespace));
        let block = |place: &VolumePlace| (place.namespace.clone(), place.shard, place.name.block_start);
        let flushed: HashSet<_> = plan.flushed.iter().map(block).collect();
        for place in directory.volumes(VolumeKind::Snapshot) {
            if !wanted(&place.namespace) {
                continue;
            }
            let counts = match directory.latest_snapshot() {
                Some(latest) if flushed.contains(&block(&place)) => match snapshot_of(disk, &place) {
                    Ok(id) => id == Some(latest.id),
                    Err(error) => {
                        plan.damage.push((place, error));
                        continue;
                    }
                },
                _ => true,
            };
            if counts { &mut plan.snapshots } else { &mut plan.passed_over }.push(place);
        }
        plan
    }

    fn divide_logs(&mut self, disk: &dyn Vfs, logs: &[LogFile]) {
        let whole: Vec<bool> = logs.iter().map(|log| log.is_whole(disk)).collect();
        let before = whole.iter().rposition(|whole| !whole).map_or(0, |last| last + 1);
        let (before, after) = logs.split_at(before);
        self.logs_before_volumes = before.to_vec();
        self.logs = after.to_vec();
        self.not_whole =
            logs.iter().zip(whole).filter(|(_, whole)| !whole).map(|(log, _)| log.clone()).collect();
    }

    /// All logs, the oldest first.
    pub fn all_logs(&self) -> impl Iterator<Item = &LogFile> {
        self.logs_before_volumes.iter().chain(&self.logs)
    }

    /// The volumes to read, in their order.
    pub fn volumes(&self) -> impl Iterator<Item = &VolumePlace> {
        self.flushed.iter().chain(&self.snapshots)
    }

    /// Where metrics may be read that are damaged in one of the volumes: the complete volumes of its block that it replaced, the latest first. None for a
    /// snapshot of a block that was flushed: what is older than the snapshot may be older than that.
    pub fn substitutes(&self, directory: &Directory, place: &VolumePlace) -> Vec<VolumePlace> {
        let block = |place: &VolumePlace| (place.namespace.clone(), place.shard, place.name.block_start);
        let is_flushed = || self.flushed.iter().any(|flushed| block(flushed) == block(place));
        match place.kind {
            VolumeKind::Snapshot if is_flushed() => Vec::new(),
            _ => directory.replaced_by(place),
        }
    }
}

/// The snapshot that a volume belongs to, as far as it is sound enough to say so.
fn snapshot_of(disk: &dyn Vfs, place: &VolumePlace) -> Result<Option<[u8; 16]>> {
    let volume = place.salvage(disk)?;
    match (volume.info(), volume.damage().into_iter().next()) {
        (None, Some(error)) => Err(error),
        (info, _) => Ok(info.and_then(|info| info.snapshot).map(|mark| mark.id)),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::fileset::{SnapshotMark, VolumeName, VolumeSpec, VolumeWriter};
    use crate::io::MemoryDisk;

    const LATEST: [u8; 16] = [7; 16];

    fn put_volume(
        disk: &MemoryDisk,
        folder: &str,
        block_start: i64,
        volume: u32,
        snapshot: Option<[u8; 16]>,
    ) {
        let folder = Path::new("/m3").join(folder);
        disk.create_dir_all(&folder).expect("room");
        let snapshot = snapshot.map(|id| SnapshotMark { time: 1, id });
        let spec = VolumeSpec {
            name: VolumeName { block_start, volume },
            block_size: 10,
            snapshot,
            supplement: None,
        };
        VolumeWriter::create(disk, &folder, spec).and_then(VolumeWriter::finish).expect("room");
    }

    fn put_metadata(disk: &MemoryDisk, id: [u8; 16]) {
        let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        let message = [b"\x08\x01\x12\x20", hex.as_bytes()].concat();
        let checkpoint = simd_adler32::adler32(&&message[..]).to_le_bytes();
        for (suffix, bytes) in [("metadata", &message[..]), ("metadata-checkpoint", &checkpoint)] {
            let path = format!("/m3/snapshots/snapshot-{hex}-1-{suffix}.db");
            disk.create(path.as_ref()).and_then(|file| file.write_at(0, bytes)).expect("room");
        }
    }

    /// A log that has only its info; with damage behind that if it is not to be whole.
    fn put_log(disk: &MemoryDisk, number: u8, whole: bool) {
        let chunk = |payload: &[u8]| {
            let size = (payload.len() as u32).to_le_bytes();
            let checksums = [&size[..], payload].map(|bytes| simd_adler32::adler32(&bytes).to_le_bytes());
            [&size[..], &checksums.concat(), payload].concat()
        };
        let mut bytes = chunk(&[7, 1, 0x92, 7, 0x93, 0, 0, number]);
        if !whole {
            // Damage that something sound follows is no torn tail.
            let mut damaged = chunk(b"x");
            damaged.reverse();
            bytes.extend(damaged.into_iter().chain(chunk(b"y")));
        }
        disk.create_dir_all("/m3/commitlogs".as_ref()).expect("room");
        let path = format!("/m3/commitlogs/commitlog-0-{number}.db");
        disk.create(path.as_ref()).and_then(|file| file.write_at(0, &bytes)).expect("room");
    }

    fn disk() -> MemoryDisk {
        let disk = MemoryDisk::new();
        put_volume(&disk, "data/n/0", 10, 0, None);
        put_volume(&disk, "data/n/0", 20, 0, None);
        put_volume(&disk, "snapshots/n/0", 10, 3, Some([1; 16]));
        put_volume(&disk, "snapshots/n/0", 20, 3, Some([1; 16]));
        put_volume(&disk, "snapshots/n/0", 20, 4, Some(LATEST));
        put_volume(&disk, "snapshots/n/0", 30, 1, Some([1; 16]));
        put_volume(&disk, "snapshots/o/0", 10, 1, Some([1; 16]));
        disk
    }

    fn plan(disk: &MemoryDisk, wanted: impl Fn(&str) -> bool) -> Plan {
        let directory = Directory::read(disk, "/m3".as_ref()).expect("readable").expect("a directory of M3");
        Plan::new(disk, &directory, wanted)
    }

    fn told(places: &[VolumePlace]) -> Vec<String> {
        places.iter().map(|place| format!("{} {}", place.namespace, place.name)).collect()
    }

    #[test]
    fn stale_snapshots_do_not_hide_what_was_flushed_after_them() {
        let disk = disk();
        put_metadata(&disk, LATEST);
        let plan = plan(&disk, |_| true);
        assert_eq!(told(&plan.flushed), ["n 10-0", "n 20-0"]);
        assert_eq!(told(&plan.snapshots), ["n 20-4", "n 30-1", "o 10-1"]);
        assert_eq!(told(&plan.passed_over), ["n 10-3"]);
    }

    #[test]
    fn without_a_finished_snapshot_all_count() {
        let plan = plan(&disk(), |_| true);
        assert_eq!(told(&plan.snapshots), ["n 10-3", "n 20-4", "n 30-1", "o 10-1"]);
        assert!(plan.passed_over.is_empty());
    }

    #[test]
    fn logs_up_to_the_last_that_is_not_whole_come_before_the_volumes() {
        let numbers =
            |logs: &[LogFile]| logs.iter().map(|log| log.index.to_string()).collect::<Vec<_>>().join(" ");
        for (not_whole, before, after) in
            [(&[][..], "", "0 1 2 3"), (&[0], "0", "1 2 3"), (&[0, 2], "0 1 2", "3"), (&[3], "0 1 2 3", "")]
        {
            let disk = disk();
            for number in 0..4 {
                put_log(&disk, number, !not_whole.contains(&u64::from(number)));
            }
            let plan = plan(&disk, |_| true);
            assert_eq!((&*numbers(&plan.logs_before_volumes), &*numbers(&plan.logs)), (before, after));
            assert_eq!(plan.not_whole.iter().map(|log| log.index).collect::<Vec<_>>(), not_whole);
            assert_eq!(numbers(&plan.all_logs().cloned().collect::<Vec<_>>()), "0 1 2 3");
        }
    }

    #[test]
    fn only_wanted_namespaces_are_planned() {
        let plan = plan(&disk(), |namespace| namespace == "o");
        assert!(plan.flushed.is_empty());
        assert_eq!(told(&plan.snapshots), ["o 10-1"]);
    }

    #[test]
    fn damaged_snapshot_volumes_count_unless_they_may_be_stale() {
        let disk = disk();
        put_metadata(&disk, LATEST);
        let damage = |name: &str| {
            let path = format!("/m3/snapshots/n/0/fileset-{name}-digest.db");
            let file = disk.open(path.as_ref(), true).and_then(|file| file.expect("there").write_at(0, b"x"));
            file.expect("room");
        };
        damage("30-1");
        // Its block was flushed, and nothing vouches for its info any more.
        damage("20-4");
        let plan = plan(&disk, |_| true);
        assert_eq!(told(&plan.snapshots), ["n 30-1", "o 10-1"]);
        assert_eq!(plan.damage.iter().map(|(place, _)| place.name.block_start).collect::<Vec<_>>(), [20]);
    }

    #[test]
    fn damaged_volumes_have_those_that_they_replaced_as_substitutes() {
        let disk = disk();
        put_volume(&disk, "data/n/0", 10, 2, None);
        put_volume(&disk, "snapshots/n/0", 30, 2, Some([2; 16]));
        let directory = Directory::read(&disk, "/m3".as_ref()).expect("readable").expect("a directory of M3");
        let plan = Plan::new(&disk, &directory, |_| true);
        let substitutes = |of: &str| {
            let place =
                plan.volumes().find(|place| told(&[(*place).clone()]) == [of]).expect("it is planned");
            told(&plan.substitutes(&directory, place))
        };
        assert_eq!(substitutes("n 10-2"), ["n 10-0"]);
        assert_eq!(substitutes("n 30-2"), ["n 30-1"]);
        assert!(substitutes("n 20-4").is_empty(), "there is a flushed volume, which may be newer");
    }
}
