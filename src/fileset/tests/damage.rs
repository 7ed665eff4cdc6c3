//! Damage to files that were written well: an error or the right data, and never more lost than what was hit.

use std::cell::Cell;

use super::*;

/// Two entries of the summaries: with 33 metrics in the first one's part of the index, and 3 in the second's.
const METRICS: u8 = 36;

/// How much of a damaged volume could be read, in metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Readable {
    by_id: usize,
    in_order: usize,
}

/// Reads a damaged volume in each way: what comes is right, what does not come is an error. `None` if it does not open.
fn read(disk: &dyn Vfs, file: VolumeFile, metrics: &Metrics, what: &str) -> Option<Readable> {
    let is_corrupt = |error: &Error, place: VolumeFile| match error {
        Error::Corrupt { path: at, .. } => {
            let checkpoint_differs = place == VolumeFile::Checkpoint && *at == path(VolumeFile::Digest);
            assert!(*at == path(place) || checkpoint_differs, "{what}: {error}");
        }
        _ => panic!("{what}: {error}"),
    };
    let volume = match open(disk) {
        Ok(volume) => volume,
        Err(error) => {
            is_corrupt(&error, file);
            return None;
        }
    };
    let errors = volume.verify();
    assert!(!errors.is_empty(), "{what}: went unnoticed");
    errors.iter().for_each(|error| is_corrupt(error, file));

    let mut readable = Readable::default();
    for (id, (tags, stream)) in metrics {
        let found = volume.find(id).and_then(|entry| {
            let entry = entry.unwrap_or_else(|| panic!("{what}: {id:?} vanished"));
            assert_eq!(entry.encoded_tags(), tags, "{what}");
            volume.stream(&entry)
        });
        match found {
            Ok(found) => {
                assert_eq!(found, stream, "{what}");
                readable.by_id += 1;
            }
            Err(error) => is_corrupt(&error, file),
        }
    }
    for absent in [&b"AA"[..], b"ag!", b"ah!", b"bi!", b"zz"] {
        match volume.find(absent) {
            Ok(found) => assert_eq!(found, None, "{what}"),
            Err(error) => is_corrupt(&error, VolumeFile::Index),
        }
    }
    let mut last = Vec::new();
    let mut errors = 0;
    for entry in volume.entries() {
        let stream = entry.and_then(|entry| Ok((entry, volume.stream(&entry)?)));
        match stream {
            Ok((entry, stream)) => {
                let (tags, expected) = metrics.get(entry.id()).unwrap_or_else(|| panic!("{what}: {entry:?}"));
                assert_eq!((entry.encoded_tags(), stream), (&tags[..], &expected[..]), "{what}");
                assert!(*entry.id() > *last || readable.in_order == 0, "{what}");
                last = entry.id().to_vec();
                readable.in_order += 1;
            }
            Err(error) => {
                is_corrupt(&error, file);
                errors += 1;
            }
        }
    }
    assert!(errors > 0 || readable.in_order == metrics.len(), "{what}: {readable:?}, and no error");
    assert_eq!(
        volume.entries_in_data_order().filter(|entry| entry.is_ok()).count(),
        volume.entries().filter(|entry| entry.is_ok()).count(),
        "{what}"
    );
    Some(readable)
}

/// Does `change` to the volume's file, reads the volume, and puts the file right again.
fn read_changed(
    disk: &dyn Vfs,
    file: VolumeFile,
    metrics: &Metrics,
    what: &str,
    change: impl FnOnce(&mut Vec<u8>),
) -> Option<Readable> {
    let sound = bytes(disk, file);
    let mut changed = sound.clone();
    change(&mut changed);
    if changed == sound {
        return Some(Readable { by_id: metrics.len(), in_order: metrics.len() });
    }
    put(disk, file, &changed);
    let readable = read(disk, file, metrics, what);
    put(disk, file, &sound);
    readable
}

/// What may be lost by damage of one place of a file.
fn assert_local(file: VolumeFile, readable: Option<Readable>, what: &str) {
    let all = usize::from(METRICS);
    match (file, readable) {
        (VolumeFile::Info | VolumeFile::Digest | VolumeFile::Checkpoint, readable) => {
            assert_eq!(readable, None, "{what}");
        }
        (VolumeFile::Summaries | VolumeFile::BloomFilter, readable) => {
            assert_eq!(readable, Some(Readable { by_id: all, in_order: all }), "{what}");
        }
        (VolumeFile::Data, readable) => {
            assert_eq!(readable, Some(Readable { by_id: all - 1, in_order: all - 1 }), "{what}");
        }
        (VolumeFile::Index, Some(readable)) => {
            assert!((all - 33..all).contains(&readable.by_id), "{what}: {readable:?}");
            assert!((all - 33..all).contains(&readable.in_order), "{what}: {readable:?}");
        }
        (VolumeFile::Index, None) => panic!("{what}: does not open"),
    }
}

#[test]
fn every_flipped_bit_is_noticed_and_costs_only_what_it_hit() {
    let metrics = metrics(METRICS, 0);
    let disk = disk_with(&metrics);
    for file in VolumeFile::ALL {
        for bit in 0..8 * bytes(&disk, file).len() {
            let what = format!("bit {bit} of {file:?}");
            let readable =
                read_changed(&disk, file, &metrics, &what, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
            assert_local(file, readable, &what);
        }
    }
    assert_whole(&open(&disk).expect("it is right again"), &metrics);
}

#[test]
fn every_length_set_to_ff_is_noticed() {
    let metrics = metrics(METRICS, 0);
    let disk = disk_with(&metrics);
    for file in VolumeFile::ALL {
        let len = bytes(&disk, file).len();
        for (at, width) in (0..len).flat_map(|at| [1, 2, 4, 8].map(|width| (at, width))) {
            let what = format!("{width} bytes at {at} of {file:?}");
            read_changed(&disk, file, &metrics, &what, |bytes| bytes[at..(at + width).min(len)].fill(0xff));
        }
    }
}

#[test]
fn every_cut_is_noticed_and_what_is_left_is_readable() {
    let metrics = metrics(METRICS, 0);
    let disk = disk_with(&metrics);
    let volume = open(&disk).expect("a volume");
    let data_order: Vec<_> = volume.entries_in_data_order().flatten().collect();
    let index_order: Vec<_> = volume.entries().flatten().collect();
    for file in VolumeFile::ALL {
        let len = bytes(&disk, file).len();
        for new_len in (0..len).chain([len + 1, len + 100]) {
            let what = format!("{file:?} cut to {new_len} of {len}");
            let readable = read_changed(&disk, file, &metrics, &what, |bytes| bytes.resize(new_len, 0));
            let left = match file {
                VolumeFile::Data => {
                    let end = |entry: &&Entry<'_>| entry.offset() + u64::from(entry.size());
                    data_order.iter().filter(|entry| end(entry) <= new_len as u64).count()
                }
                VolumeFile::Index => {
                    let starts = index_order.iter().skip(1).map(|entry| entry.place());
                    starts.chain([len as u64]).filter(|end| *end <= new_len as u64).count()
                }
                VolumeFile::Summaries | VolumeFile::BloomFilter => metrics.len(),
                VolumeFile::Info | VolumeFile::Digest | VolumeFile::Checkpoint => {
                    assert_eq!(readable, None, "{what}");
                    continue;
                }
            };
            assert_eq!(readable, Some(Readable { by_id: left, in_order: left }), "{what}");
        }
    }
}

#[test]
fn missing_files_are_damage() {
    let metrics = metrics(METRICS, 0);
    for file in VolumeFile::ALL {
        let disk = disk_with(&metrics);
        disk.remove(&path(file)).expect("it goes");
        let readable = read(&disk, file, &metrics, &format!("{file:?} is missing"));
        let is_needed = !matches!(file, VolumeFile::Summaries | VolumeFile::BloomFilter);
        let all = Readable { by_id: metrics.len(), in_order: metrics.len() };
        assert_eq!(readable, (!is_needed).then_some(all), "{file:?}");
    }
}

#[test]
fn file_of_another_volume_is_noticed() {
    let metrics = metrics(METRICS, 0);
    let other = disk_with(&super::metrics(METRICS, 1));
    let disk = disk_with(&metrics);
    for file in [VolumeFile::Data, VolumeFile::Digest, VolumeFile::Checkpoint] {
        let another = bytes(&other, file);
        let readable = read_changed(&disk, file, &metrics, &format!("{file:?}"), |bytes| *bytes = another);
        let nothing = (file == VolumeFile::Data).then(Readable::default);
        assert_eq!(readable, nothing, "{file:?}");
    }
    let renamed = VolumeName { volume: 2, ..NAME };
    for file in VolumeFile::ALL {
        disk.rename(&path(file), &Path::new(FOLDER).join(renamed.file_name(file))).expect("it goes");
    }
    let opened = Volume::open(&disk, FOLDER.as_ref(), renamed);
    assert!(matches!(opened, Err(Error::Corrupt { reason, .. }) if reason.contains("another volume")));
}

/// The number of entries whose streams can be read.
fn salvaged(volume: &Volume, metrics: &Metrics, what: &str) -> usize {
    let right = |entry: Result<Entry<'_>>| {
        let entry = entry.ok()?;
        let stream = volume.stream(&entry).ok()?;
        assert_eq!(
            metrics.get(entry.id()),
            Some(&(entry.encoded_tags().to_vec(), stream.to_vec())),
            "{what}"
        );
        Some(())
    };
    volume.entries().filter_map(right).count()
}

#[test]
fn volume_without_checkpoint_digests_or_info_can_be_salvaged() {
    let metrics = metrics(METRICS, 0);
    for file in [VolumeFile::Checkpoint, VolumeFile::Digest, VolumeFile::Info] {
        for missing in [true, false] {
            let disk = disk_with(&metrics);
            let what = format!("{file:?}, missing: {missing}");
            let mut damaged = bytes(&disk, file);
            damaged[0] ^= 1;
            if missing {
                disk.remove(&path(file)).expect("it goes");
            } else {
                put(&disk, file, &damaged);
            }
            assert!(open(&disk).is_err(), "{what}");
            let volume = Volume::salvage(&disk, FOLDER.as_ref(), NAME).expect("it has an index and data");
            assert_eq!(volume.damage().len(), 1, "{what}: {:?}", volume.damage());
            assert_eq!(volume.verify().len(), 1, "{what}: {:?}", volume.verify());
            assert!(volume.info().is_none(), "{what}");
            assert_eq!(salvaged(&volume, &metrics, &what), metrics.len(), "{what}");
            for (id, (_, stream)) in &metrics {
                assert_eq!(volume.stream_of(id).expect("undamaged"), Some(&stream[..]), "{what}");
            }
            assert_eq!(volume.find(b"ag!").expect("undamaged"), None, "{what}");
            assert_eq!(
                volume.find(b"zz").is_ok(),
                file == VolumeFile::Info,
                "{what}: is this the index's end?"
            );
        }
    }
}

#[test]
fn entries_out_of_order_are_damage() {
    let metrics = metrics(METRICS, 0);
    let disk = disk_with(&metrics);
    let volume = open(&disk).expect("a volume");
    let at: Vec<usize> = volume.entries().flatten().map(|entry| entry.place() as usize).collect();
    let index = bytes(&disk, VolumeFile::Index);
    let swapped = [&index[..at[4]], &index[at[5]..at[6]], &index[at[4]..at[5]], &index[at[6]..]].concat();
    put(&disk, VolumeFile::Index, &swapped);
    sign(&disk);
    let volume = open(&disk).expect("its checksums are right");
    let errors: Vec<_> = volume.entries().filter_map(Result::err).collect();
    let expected = at[4] + at[6] - at[5];
    assert!(
        matches!(errors[..], [Error::Corrupt { offset, reason: "the IDs do not ascend", .. }] if offset == expected as u64)
    );
    assert!(matches!(volume.find(b"ai"), Err(Error::Corrupt { .. })), "a metric behind them");
}

#[test]
fn salvage_does_not_believe_unchecked_summaries() {
    let metrics = metrics(METRICS, 0);
    let disk = disk_with(&metrics);
    // The second entry of the summaries, with an ID from the middle of the first one's part of the index.
    let mut summaries = bytes(&disk, VolumeFile::Summaries);
    let second = summaries.windows(2).rposition(|id| id == b"bh").expect("metric 33");
    summaries[second..second + 2].copy_from_slice(b"am");
    put(&disk, VolumeFile::Summaries, &summaries);
    assert_eq!(open(&disk).expect("it is done without").damage().len(), 1);
    disk.remove(&path(VolumeFile::Checkpoint)).expect("it goes");
    let volume = Volume::salvage(&disk, FOLDER.as_ref(), NAME).expect("it has an index and data");
    for (id, (_, stream)) in &metrics {
        assert_eq!(volume.stream_of(id).expect("undamaged"), Some(&stream[..]));
    }
}

#[test]
fn error_of_a_volume_that_never_was_is_about_its_checkpoint() {
    let disk = MemoryDisk::new();
    let opened = open(&disk);
    assert!(matches!(opened, Err(Error::Corrupt { path: at, .. }) if at == path(VolumeFile::Checkpoint)));
    let salvaged = Volume::salvage(&disk, FOLDER.as_ref(), NAME);
    assert!(matches!(salvaged, Err(Error::Corrupt { path: at, .. }) if at == path(VolumeFile::Index)));
}

#[test]
fn salvage_reads_on_behind_damaged_entries() {
    let metrics = metrics(METRICS, 0);
    let disk = disk_with(&metrics);
    let index = bytes(&disk, VolumeFile::Index);
    disk.remove(&path(VolumeFile::Digest)).expect("it goes");
    for at in 0..index.len() {
        let what = format!("byte {at} of the index");
        let mut damaged = index.clone();
        damaged[at] ^= 0x55;
        put(&disk, VolumeFile::Index, &damaged);
        let volume = Volume::salvage(&disk, FOLDER.as_ref(), NAME).expect("it has an index and data");
        let read = salvaged(&volume, &metrics, &what);
        assert!((metrics.len() - 33..metrics.len()).contains(&read), "{what}: {read}");
        assert_eq!(volume.entries().filter(Result::is_err).count(), 1, "{what}");
    }
}

#[test]
fn sound_files_that_do_not_belong_together_are_told() {
    let metrics = metrics(METRICS, 0);
    let other = disk_with(&super::metrics(METRICS - 1, 0));
    // The bloom filters of 36 and 35 metrics are of equally many words, and only the greatest ID is new.
    for (file, expected) in [
        (VolumeFile::Data, "the file ends before or within the stream"),
        (VolumeFile::BloomFilter, "the bloom filter lacks the ID"),
        (VolumeFile::Summaries, "the index has another ID there"),
        (VolumeFile::Index, "the number of entries differs from that in the info file"),
    ] {
        let disk = disk_with(&metrics);
        put(&disk, file, &bytes(&other, file));
        sign(&disk);
        let errors = open(&disk).expect("its checksums are right").verify();
        let told =
            errors.iter().any(|error| matches!(error, Error::Corrupt { reason, .. } if *reason == expected));
        assert!(told, "{file:?}: {errors:?}");
    }
    let disk = disk_with(&metrics);
    put(&disk, VolumeFile::Data, &[bytes(&disk, VolumeFile::Data), vec![0]].concat());
    sign(&disk);
    let errors = open(&disk).expect("its checksums are right").verify();
    assert!(
        matches!(errors[..], [Error::Corrupt { reason: "bytes behind the last stream", .. }]),
        "{errors:?}"
    );
}

/// A number from a seed, each time another.
fn random(state: &Cell<u64>) -> u64 {
    state.set(state.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
    let mixed = (state.get() ^ state.get() >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ mixed >> 31
}

#[test]
fn wrong_files_with_right_checksums_neither_panic_nor_hang() {
    let metrics = metrics(METRICS, 0);
    let sound = disk_with(&metrics);
    let seed = 20_240_817;
    println!("seed {seed}");
    let state = Cell::new(seed);
    let (mut opened, mut read) = (0, 0);
    for round in 0..3_000 {
        let disk = MemoryDisk::new();
        disk.create_dir_all(FOLDER.as_ref()).expect("room");
        let files = &VolumeFile::ALL[..5];
        let victim = files[round % files.len()];
        for file in files {
            let mut changed = bytes(&sound, *file);
            if *file == victim {
                for _ in 0..=random(&state) % 4 {
                    let at = random(&state) as usize % changed.len();
                    let end = (at + random(&state) as usize % 9).min(changed.len());
                    match random(&state) % 4 {
                        0 => changed[at] = random(&state) as u8,
                        1 => changed[at..end].fill(0xff),
                        2 => drop(changed.drain(at..end)),
                        _ => changed.insert(at, random(&state) as u8),
                    }
                }
            }
            put(&disk, *file, &changed);
        }
        sign(&disk);
        let Ok(volume) = open(&disk) else { continue };
        opened += 1;
        let _ = (volume.verify(), volume.damage());
        for entry in volume.entries().chain(volume.entries_in_data_order()).flatten() {
            let _ = volume.tags(&entry);
            read += u64::from(volume.stream(&entry).is_ok());
        }
        for id in metrics.keys() {
            let _ = volume.stream_of(id);
        }
    }
    assert!(opened > 2_000 && read > 100_000, "{opened} opened, {read} streams read");
}
