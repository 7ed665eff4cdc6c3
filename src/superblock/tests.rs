use super::creation::Created;
use super::slots::{CHECKSUM_AT, USED};
use super::*;
use crate::commitlog::{FOLDER, LogWriter, Note, Position, Record, Recovery, recover};
use crate::io::{CutState, Fault, SimulatedDisk};

const GOLDEN: &[u8] = include_bytes!("../../tests/golden/superblock-v2.bin");
const GOLDEN_V1: &[u8] = include_bytes!("../../tests/golden/superblock-v1.bin");
const ID: DatabaseId = *b"0123456789abcdef";
const DIR: &str = "/db";

fn options() -> StoredOptions {
    StoredOptions {
        block_size_ns: 7_200_000_000_000,
        shards: 4,
        segment_sizes: SegmentSizes::default(),
        has_log: true,
    }
}

fn small() -> StoredOptions {
    StoredOptions { segment_sizes: SegmentSizes::new(16 << 10, 16 << 10).expect("valid sizes"), ..options() }
}

fn create_on(disk: &SimulatedDisk) -> Result<Created> {
    create_with(disk, small())
}

fn create_with(disk: &SimulatedDisk, options: StoredOptions) -> Result<Created> {
    let disk: Arc<dyn Vfs> = Arc::new(disk.clone());
    disk.create_dir_all(DIR.as_ref())?;
    create(&disk, DIR.as_ref(), ID, options, Planted::default())
}

fn open_on(disk: &SimulatedDisk) -> Result<Superblock> {
    Superblock::open(disk, DIR.as_ref())
}

/// Opens what is there, or makes it; the number of records in it.
fn open_or_create(disk: &SimulatedDisk) -> Result<u64> {
    if examine(disk, DIR.as_ref())? == FolderState::Free {
        create_on(disk)?;
    }
    let superblock = open_on(disk)?;
    let shared: Arc<dyn Vfs> = Arc::new(disk.clone());
    let log = superblock.contents().log(&shared, DIR.as_ref(), Planted::default());
    Ok(recover(&log, &superblock.contents().log, Recovery::Strict, &mut |_, _| Ok(()), &mut || Ok(()))?
        .last_version)
}

/// Creates a database, commits once, closes cleanly.
fn life(disk: &SimulatedDisk) -> Result<()> {
    life_with(disk, small())
}

fn life_with(disk: &SimulatedDisk, options: StoredOptions) -> Result<()> {
    let mut made = create_with(disk, options)?;
    made.writer.write(&[Record::new(1, b"payload")], true)?;
    made.superblock.update(closed(&made.writer), true)
}

fn closed(writer: &LogWriter) -> LogStart {
    LogStart { synced: writer.synced(), synced_version: writer.synced_version(), ..LogStart::default() }
}

fn damage(disk: &SimulatedDisk, change: impl FnOnce(&mut Vec<u8>)) {
    let path = Path::new(DIR).join(FILE);
    let mut bytes = disk.map(&path).expect("it is there").to_vec();
    change(&mut bytes);
    let file = disk.open(&path, true).expect("it opens").expect("it is there");
    file.set_len(bytes.len() as u64).expect("its length changes");
    file.write_at(0, &bytes).expect("it takes bytes");
}

#[test]
fn creation_commit_and_close_cost_at_most_8_syncs_and_1_mib() {
    let disk = SimulatedDisk::new(1);
    life_with(&disk, options()).expect("it works");
    assert!(disk.syncs() + disk.dir_syncs() <= 8, "{} + {}", disk.syncs(), disk.dir_syncs());
    assert!(disk.bytes_allocated() <= 1 << 20, "{}", disk.bytes_allocated());
    let superblock = open_on(&disk).expect("it opens");
    assert!(superblock.contents().clean && !superblock.repaired());
    assert_eq!(superblock.contents().log.synced_version, 1);
    assert_eq!(superblock.contents().options, options());
}

#[test]
fn power_cut_during_creation_leaves_nothing_or_a_database() {
    let calls = {
        let disk = SimulatedDisk::new(1);
        life(&disk).expect("it works");
        disk.calls()
    };
    for call in 1..=calls {
        for state in CutState::ALL {
            let disk = SimulatedDisk::new(1);
            disk.cut_power_within(call);
            assert!(life(&disk).is_err());
            let found = disk.after_power_cut(state, call);
            // And once more, at each call of the second attempt.
            for second_call in 1..=14 {
                let second = found.after_power_cut(CutState::All, 0);
                second.cut_power_at(second_call);
                let _ = open_or_create(&second);
                let second = second.after_power_cut(state, second_call);
                let records = open_or_create(&second)
                    .unwrap_or_else(|error| panic!("{state:?} at {call}, then at {second_call}: {error:?}"));
                assert!(records <= 1);
            }
            open_or_create(&found).unwrap_or_else(|error| panic!("{state:?} at {call}: {error:?}"));
        }
    }
}

#[test]
fn failed_call_during_creation_is_an_error_and_creation_can_be_repeated() {
    let calls = {
        let disk = SimulatedDisk::new(1);
        create_on(&disk).expect("it works");
        disk.calls()
    };
    for call in 1..=calls {
        let disk = SimulatedDisk::new(1);
        disk.fail(call, Fault::InputOutput, false);
        assert!(create_on(&disk).is_err(), "call {call}");
        disk.clear_faults();
        assert_eq!(open_or_create(&disk).expect("it works now"), 0, "call {call}");
    }
}

#[test]
fn torn_update_leaves_the_older_slot() {
    for (state, seed) in CutState::ALL.into_iter().flat_map(|state| (0..8).map(move |seed| (state, seed))) {
        let disk = SimulatedDisk::new(1);
        let mut made = create_on(&disk).expect("it works");
        made.writer.write(&[Record::new(1, b"payload")], true).expect("room");
        disk.cut_power_within(disk.calls() + 1);
        assert!(made.superblock.update(closed(&made.writer), true).is_err());
        let found = disk.after_power_cut(state, seed);
        let mut superblock = open_on(&found).expect("it opens");
        assert!(superblock.contents().log.synced_version <= 1);
        assert_eq!(open_or_create(&found).expect("it opens"), 1);
        superblock.update(closed(&made.writer), false).expect("it works");
        let again = open_on(&found).expect("it opens");
        assert!(!again.repaired(), "the damaged slot is the one that was written");
        assert_eq!(again.contents().log, closed(&made.writer));
    }
}

#[test]
fn failed_update_can_be_repeated_and_never_harms_the_newer_slot() {
    for call in 1..=2 {
        let disk = SimulatedDisk::new(1);
        let mut made = create_on(&disk).expect("it works");
        for version in 1..=3 {
            made.writer.write(&[Record::new(version, b"payload")], true).expect("room");
            disk.fail(disk.calls() + call, Fault::InputOutput, false);
            assert!(made.superblock.update(closed(&made.writer), false).is_err());
            disk.clear_faults();
            let found = open_on(&disk.after_power_cut(CutState::Random, version)).expect("it opens");
            assert!(found.contents().log.synced_version >= version - 1);
            made.superblock.update(closed(&made.writer), false).expect("the second try works");
            let found = open_on(&disk.after_power_cut(CutState::None, 0)).expect("it opens");
            assert_eq!(found.contents().log.synced_version, version);
        }
    }
}

#[test]
fn a_failed_sync_a_kill_and_a_power_cut_leave_what_was_noted_last() {
    // Both: the one that follows a change of where the log begins is noted twice, the other once.
    for (first_segment, state) in [1, 2].into_iter().flat_map(|first| CutState::ALL.map(|cut| (first, cut))) {
        let calls_of_second = 8;
        for call in 1..=calls_of_second {
            let disk = SimulatedDisk::new(1);
            let mut made = create_on(&disk).expect("it works");
            made.superblock.update(closed(&made.writer), false).expect("it works");
            made.writer.write(&[Record::new(1, b"payload")], true).expect("room");
            // The write reaches the cache, and what is synced later does not bring it to the disk.
            disk.fail(disk.calls() + 2, Fault::InputOutput, false);
            let log = LogStart { first_segment, ..closed(&made.writer) };
            assert!(made.superblock.update(log, false).is_err());
            disk.clear_faults();
            drop(made.superblock);
            // Another process reads it from the cache.
            let mut second = open_on(&disk).expect("it opens");
            assert_eq!(second.contents().log.synced_version, 1);
            disk.cut_power_within(disk.calls() + call);
            let mut noted = 0;
            if second.settle().is_ok() {
                let found = disk.after_power_cut(CutState::None, 0);
                let known = open_on(&found).expect("it opens").contents().log;
                assert_eq!(known.synced_version, 1, "what was read is durable before it is relied on");
                noted = 1;
            }
            for version in [1, 2, 3] {
                let log = LogStart { first_segment, synced_version: version, ..closed(&made.writer) };
                let done = second.update(log, false);
                noted = if done.is_ok() { version } else { noted };
            }
            let found = disk.after_power_cut(state, call);
            let mut third =
                open_on(&found).unwrap_or_else(|error| panic!("{state:?} within {call}: {error:?}"));
            assert!(third.contents().log.synced_version >= noted, "{state:?} within {call}");
            third.settle().expect("it works");
            // A slot that the cut tore is written by the next update.
            for slot in 0..if third.repaired() { 0 } else { 2 } {
                let found = found.after_power_cut(CutState::None, 0);
                damage(&found, |bytes| bytes[slot * SLOT_BYTES + 50] ^= 1);
                let log = open_on(&found).expect("one slot is left").contents().log;
                assert_eq!(log.first_segment, third.contents().log.first_segment, "both are durable");
            }
        }
    }
}

#[test]
fn of_two_slots_the_one_of_the_higher_generation_counts_however_far_they_are_apart() {
    let disk = SimulatedDisk::new(1);
    let made = create_on(&disk).expect("it works");
    let contents = *made.superblock.contents();
    for (older, newer) in [(1, 4), (4, 1_001), (2, u64::MAX - 2)] {
        let log = LogStart { synced_version: newer, ..contents.log };
        damage(&disk, |bytes| {
            for (generation, contents) in [(older, contents), (newer, Contents { log, ..contents })] {
                let at = generation as usize % 2 * SLOT_BYTES;
                bytes[at..at + SLOT_BYTES].copy_from_slice(&contents.encode(generation));
            }
        });
        let mut superblock = open_on(&disk).expect("it opens");
        assert_eq!((superblock.contents().log, superblock.repaired()), (log, false));
        superblock.settle().expect("it works");
        damage(&disk, |bytes| bytes[newer as usize % 2 * SLOT_BYTES + 50] ^= 1);
        assert_eq!(open_on(&disk).expect("one slot is left").contents().log, log, "both have it now");
    }
}

#[test]
fn one_damaged_slot_is_survived_and_told_and_two_are_not() {
    let disk = SimulatedDisk::new(1);
    life(&disk).expect("it works");
    for bit in (0..2 * SLOT_BYTES * 8).filter(|bit| bit % (SLOT_BYTES * 8) < USED * 8 || bit % 37 == 0) {
        let disk = disk.after_power_cut(CutState::All, 0);
        damage(&disk, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        let superblock = open_on(&disk).expect("one slot is left");
        assert!(superblock.repaired(), "bit {bit} went unnoticed");
        let newer_is_damaged = bit / (SLOT_BYTES * 8) == (superblock.generation as usize + 1) % 2;
        assert_eq!(superblock.contents().clean, newer_is_damaged == (superblock.generation == 3));
        damage(&disk, |bytes| bytes[(bit / 8 + SLOT_BYTES) % (2 * SLOT_BYTES)] ^= 1);
        assert!(matches!(open_on(&disk), Err(Error::Corrupt { format: "superblock", .. })), "bit {bit}");
    }
    for len in [0, 1, 111, SLOT_BYTES - 1, SLOT_BYTES] {
        let disk = disk.after_power_cut(CutState::All, 0);
        damage(&disk, |bytes| bytes.truncate(len));
        assert_eq!(open_on(&disk).is_ok_and(|superblock| superblock.repaired()), len == SLOT_BYTES);
    }
    for change in [|bytes: &mut Vec<u8>| bytes.rotate_left(SLOT_BYTES), |bytes: &mut Vec<u8>| bytes.clear()] {
        let disk = disk.after_power_cut(CutState::All, 0);
        damage(&disk, change);
        assert!(matches!(open_on(&disk), Err(Error::Corrupt { .. })));
    }
}

#[test]
fn newer_format_is_refused() {
    let disk = SimulatedDisk::new(1);
    life(&disk).expect("it works");
    damage(&disk, |bytes| {
        bytes[8] = 7;
        let crc = crc32fast::hash(&bytes[..CHECKSUM_AT]);
        bytes[CHECKSUM_AT..SLOT_BYTES].copy_from_slice(&crc.to_le_bytes());
    });
    let before = disk.fingerprint();
    assert!(matches!(open_on(&disk), Err(Error::NewerFormat { found: 7, supported: 2, .. })));
    assert_eq!(disk.fingerprint(), before);
}

#[test]
fn changed_beginning_of_the_log_is_in_both_slots() {
    let disk = SimulatedDisk::new(1);
    let mut made = create_on(&disk).expect("it works");
    let log = LogStart { first_segment: 5, first_version: 100, ..closed(&made.writer) };
    made.superblock.update(log, false).expect("it works");
    for slot in 0..2 {
        let disk = disk.after_power_cut(CutState::None, 0);
        damage(&disk, |bytes| bytes[slot * SLOT_BYTES + 50] ^= 1);
        assert_eq!(open_on(&disk).expect("one slot is left").contents().log.first_segment, 5);
    }
}

#[test]
fn folder_with_other_files_is_no_database() {
    let disk = SimulatedDisk::new(1);
    assert_eq!(examine(&disk, DIR.as_ref()).expect("nothing is fine"), FolderState::Free);
    create_on(&disk).expect("it works");
    assert_eq!(examine(&disk, DIR.as_ref()).expect("it is there"), FolderState::Database);
    disk.remove(&Path::new(DIR).join(FILE)).expect("it goes");
    assert_eq!(examine(&disk, DIR.as_ref()).expect("an empty log is fine"), FolderState::Free);
    for name in ["notes.txt", "commitlog/notes.txt"] {
        let path = Path::new(DIR).join(name);
        disk.create(&path).expect("room");
        assert!(matches!(examine(&disk, DIR.as_ref()), Err(Error::NotADatabase { .. })), "{name}");
        disk.remove(&path).expect("it goes");
    }
}

#[test]
fn records_without_a_superblock_are_corruption_and_can_be_salvaged() {
    let disk = SimulatedDisk::new(1);
    life(&disk).expect("it works");
    disk.remove(&Path::new(DIR).join(FILE)).expect("it goes");
    assert!(matches!(examine(&disk, DIR.as_ref()), Err(Error::Corrupt { format: "superblock", .. })));
    let shared: Arc<dyn Vfs> = Arc::new(disk.clone());
    let rebuilt =
        Superblock::open_or_rebuild(&shared, DIR.as_ref(), options(), true).expect("the disk works");
    let rebuilt = rebuilt.expect("a segment has a header");
    assert!(rebuilt.repaired());
    assert_eq!(rebuilt.contents().database_id, ID);
    assert_eq!(open_or_create(&disk).expect("it opens"), 1);
    for (path, _) in disk.files() {
        disk.remove(&path).expect("it goes");
    }
    let nothing =
        Superblock::open_or_rebuild(&shared, DIR.as_ref(), options(), true).expect("the disk works");
    assert!(nothing.is_none());
    assert!(disk.files().is_empty(), "{FOLDER} is empty");
}

#[test]
fn golden_superblocks_are_read_and_written() {
    let contents = Contents {
        database_id: ID,
        options: options(),
        log: LogStart {
            synced: Position { segment: 1, offset: 200 },
            synced_version: 3,
            ..LogStart::default()
        },
        clean: true,
        checkpoint: None,
    };
    let disk = SimulatedDisk::new(1);
    create_on(&disk).expect("it works");
    for golden in [GOLDEN_V1, GOLDEN] {
        damage(&disk, |bytes| *bytes = golden.to_vec());
        let superblock = open_on(&disk).expect("it opens");
        assert_eq!((superblock.generation, *superblock.contents()), (2, contents));
        assert_eq!(Superblock::read(&disk, DIR.as_ref()).expect("it opens"), (contents, false));
    }
    assert_eq!(contents.encode(2)[..], GOLDEN[..SLOT_BYTES]);
}

#[test]
fn an_older_superblock_is_raised_once() {
    let disk = SimulatedDisk::new(1);
    create_on(&disk).expect("it works");
    damage(&disk, |bytes| *bytes = GOLDEN_V1.to_vec());
    let mut superblock = open_on(&disk).expect("it opens");
    let contents = *superblock.contents();
    superblock.raise_format().expect("it works");
    let raised = disk.map(&Path::new(DIR).join(FILE)).expect("it is there").to_vec();
    assert_eq!(raised[SLOT_BYTES + 8..][..4], FORMAT_VERSION.to_le_bytes(), "over the older slot");
    assert_eq!(raised[..SLOT_BYTES], GOLDEN_V1[..SLOT_BYTES]);
    let mut superblock = open_on(&disk).expect("it opens");
    assert_eq!((*superblock.contents(), superblock.repaired()), (contents, false));
    let calls = disk.calls();
    superblock.raise_format().expect("it works");
    assert_eq!(disk.calls(), calls, "nothing is left to do");
}

#[test]
fn a_rebuilt_superblock_has_the_options_that_any_segment_tells() {
    let made = StoredOptions { block_size_ns: 77, shards: 9, ..small() };
    let disk = SimulatedDisk::new(1);
    life_with(&disk, made).expect("it works");
    disk.remove(&Path::new(DIR).join(FILE)).expect("it goes");
    let shared: Arc<dyn Vfs> = Arc::new(disk.clone());
    let rebuilt =
        Superblock::open_or_rebuild(&shared, DIR.as_ref(), options(), true).expect("the disk works");
    assert_eq!(rebuilt.expect("a segment has a header").contents().options, made);
    for impossible in [
        StoredOptions { shards: 0, ..made },
        StoredOptions { block_size_ns: 0, ..made },
        StoredOptions { block_size_ns: u64::MAX, ..made },
    ] {
        assert_eq!(StoredOptions::of_note(&impossible.note()), None);
    }
    assert_eq!(StoredOptions::of_note(&Note::default()), None);
}
