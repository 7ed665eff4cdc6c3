//! Damage by others than power cuts: each bit, whole files.

use super::*;

/// A closed log of two segments, its records, and the position behind the last of them.
struct Sample {
    disk: SimulatedDisk,
    records: Records,
    /// What the superblock would know after a close.
    closed: LogStart,
    /// What the frames say was synced.
    said: Position,
}

fn sample() -> Sample {
    let disk = disk_with_log(Planted::default());
    let log = log_on(&disk, Planted::default());
    let (mut opened, _) = recover_all(&log, &LogStart::default(), Recovery::Strict).expect("it opens");
    let mut said = Position::default();
    let lens: [&[usize]; 4] = [&[100, 0], &[15_900], &[700, 9], &[50]];
    for lens in lens {
        said = opened.writer.synced();
        let first = opened.writer.last_version() + 1;
        let payloads: Vec<_> = (first..).zip(lens).map(|(version, len)| payload(version, 0, *len)).collect();
        write_all(&mut opened.writer, &mut opened.maker, &payloads, true).expect("room");
    }
    assert_eq!(opened.writer.position().segment, 2, "a record lies over the end of the first segment");
    let (_, records) = recover_all(&log, &LogStart::default(), Recovery::Strict).expect("it opens");
    let closed = LogStart {
        synced: opened.writer.synced(),
        synced_version: opened.writer.synced_version(),
        ..LogStart::default()
    };
    Sample { disk: copy(&disk), records, closed, said }
}

/// Damage never gives anything but a prefix, and not even that before what was synced.
fn check(sample: &Sample, disk: &SimulatedDisk, place: Option<Position>, what: &str) {
    let log = log_on(disk, Planted::default());
    for (start, synced) in [(LogStart::default(), sample.said), (sample.closed, sample.closed.synced)] {
        let before = disk.fingerprint();
        match recover_all(&log, &start, Recovery::Strict) {
            Ok((_, records)) => {
                assert!(sample.records.starts_with(&records), "{what}: not a prefix");
                assert!(place.is_none_or(|place| place >= synced), "{what}: went unnoticed");
                assert!(place.is_some() || records == sample.records, "{what}: records were lost");
            }
            Err(Error::Corrupt { .. }) => {
                assert_eq!(disk.fingerprint(), before, "{what}: something was changed")
            }
            Err(error) => panic!("{what}: {error}"),
        }
    }
}

#[test]
fn every_flipped_bit_is_noticed_or_harmless() {
    let sample = sample();
    for (path, len) in sample.disk.files() {
        let segment = if path == super::path(1) { 1 } else { 2 };
        for byte in 0..len {
            let offset = byte as u32;
            let frames_end =
                if segment == 1 { u32::MAX } else { sample.closed.synced.offset + SEGMENT_HEADER_BYTES };
            // All bits near frame headers, one in each byte of the long payload, few of the empty rest.
            let dense = offset < 600 || segment == 2 && offset < frames_end;
            let bits: &[u32] = match () {
                () if dense => &[0, 1, 2, 3, 4, 5, 6, 7],
                () if offset.is_multiple_of(61) => &[3],
                () => &[],
            };
            for bit in bits {
                let disk = copy(&sample.disk);
                change(&disk, &path, |bytes| bytes[byte as usize] ^= 1 << bit);
                // A header counts as synced: it was before the segment had its name.
                let place =
                    Position { segment, offset: if offset < SEGMENT_HEADER_BYTES { 0 } else { offset } };
                check(
                    &sample,
                    &disk,
                    Some(place),
                    &format!("bit {bit} of byte {byte} of {}", path.display()),
                );
            }
        }
    }
}

#[test]
fn every_shortened_segment_is_noticed() {
    let sample = sample();
    for (path, len) in sample.disk.files() {
        for new_len in (0..300).chain((300..len).step_by(509)).chain([len - 1, len + 1, len + 5_000]) {
            let disk = copy(&sample.disk);
            change(&disk, &path, |bytes| bytes.resize(new_len as usize, 7));
            let log = log_on(&disk, Planted::default());
            let opened = recover_all(&log, &LogStart::default(), Recovery::Strict);
            assert!(matches!(opened, Err(Error::Corrupt { .. })), "{} to {new_len}", path.display());
        }
    }
}

#[test]
fn missing_swapped_stale_and_foreign_segments_are_noticed() {
    let sample = sample();
    let bytes = |sequence| sample.disk.map(&path(sequence)).expect("it is there").to_vec();
    let (one, two) = (bytes(1), bytes(2));
    type Damaging<'a> = (&'a str, &'a dyn Fn(&SimulatedDisk));
    let damage: [Damaging<'_>; 5] = [
        ("the first is missing", &|disk| disk.remove(&path(1)).expect("it goes")),
        ("the last is missing", &|disk| disk.remove(&path(2)).expect("it goes")),
        ("both are missing", &|disk| {
            [1, 2].map(path).iter().for_each(|path| disk.remove(path).expect("it goes"))
        }),
        ("they are swapped", &|disk| {
            change(disk, &path(1), |bytes| *bytes = two.clone());
            change(disk, &path(2), |bytes| *bytes = one.clone());
        }),
        ("the first is from before the second record", &|disk| {
            change(disk, &path(1), |bytes| bytes[SEGMENT_HEADER_BYTES as usize + 144..].fill(0));
        }),
    ];
    for (what, damage) in damage {
        let disk = copy(&sample.disk);
        damage(&disk);
        let opened = recover_all(&log_on(&disk, Planted::default()), &sample.closed, Recovery::Strict);
        assert!(matches!(opened, Err(Error::Corrupt { .. })), "{what}");
    }
    let other = Log { database_id: [9; 16], ..log_on(&sample.disk, Planted::default()) };
    let opened = recover_all(&other, &LogStart::default(), Recovery::Strict);
    assert!(matches!(opened, Err(Error::Corrupt { reason: "belongs to another database", .. })));
}

#[test]
fn newer_format_is_refused_and_untouched() {
    let sample = sample();
    let disk = copy(&sample.disk);
    change(&disk, &path(2), |bytes| {
        bytes[8] = 3;
        let crc = crc32fast::hash(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    });
    let before = disk.fingerprint();
    for mode in [Recovery::Strict, Recovery::Salvage] {
        let opened = recover_all(&log_on(&disk, Planted::default()), &sample.closed, mode);
        assert!(matches!(opened, Err(Error::NewerFormat { found: 3, supported: 2, .. })), "{mode:?}");
    }
    assert_eq!(disk.fingerprint(), before);
}

#[test]
fn foreign_files_are_left_alone_and_unfinished_segments_swept() {
    let sample = sample();
    let disk = copy(&sample.disk);
    let log = log_on(&disk, Planted::default());
    let foreign = ["notes.txt", "1.log", "0000000003.log.old", "0000000000.log", "18446744073709551615.log"];
    let mut foreign: Vec<_> = foreign.iter().map(|name| log.folder().join(name)).collect();
    let unfinished = log.folder().join("0000000003.log.new");
    for path in foreign.iter().chain([&unfinished]) {
        disk.create(path).expect("room").write_at(0, b"hello").expect("room");
    }
    let (opened, records) = recover_all(&log, &sample.closed, Recovery::Strict).expect("it opens");
    foreign.sort();
    assert_eq!(records, sample.records);
    assert_eq!(opened.report.foreign, foreign);
    assert_eq!(opened.report.swept, std::slice::from_ref(&unfinished));
    assert!(disk.files().iter().all(|(path, _)| *path != unfinished));
}

#[test]
fn torn_tail_is_cut_and_reported() {
    let sample = sample();
    let disk = copy(&sample.disk);
    let log = log_on(&disk, Planted::default());
    change(&disk, &path(2), |bytes| bytes[sample.said.offset as usize + 3] ^= 1);
    let (mut opened, records) = recover_all(&log, &LogStart::default(), Recovery::Strict).expect("it opens");
    assert_eq!(records, sample.records[..5]);
    let cut = opened.report.cut.clone().expect("a cut");
    assert_eq!((cut.position, cut.frames, cut.first_version), (sample.said, 0, None));
    assert!(cut.bytes > 80, "{cut:?}");
    assert_eq!(opened.writer.position(), Position { segment: 3, offset: SEGMENT_HEADER_BYTES });
    let replacement = payload(6, 1, 70);
    write_all(&mut opened.writer, &mut opened.maker, std::slice::from_ref(&replacement), true).expect("room");
    let (opened, records) = recover_all(&log, &LogStart::default(), Recovery::Strict).expect("it opens");
    assert_eq!(records[..5], sample.records[..5]);
    assert_eq!(records[5..], [(6, replacement)]);
    assert_eq!(opened.report.cut, None);
}

#[test]
fn resuming_segment_counts_even_if_nothing_was_cleaned_up() {
    let sample = sample();
    let disk = copy(&sample.disk);
    let log = log_on(&disk, Planted::default());
    let damaged = sample.said.offset as usize + 3;
    change(&disk, &path(2), |bytes| bytes[damaged] ^= 1);
    let before = disk.map(&path(2)).expect("it is there").to_vec();
    let (mut opened, _) = recover_all(&log, &LogStart::default(), Recovery::Strict).expect("it opens");
    write_all(&mut opened.writer, &mut opened.maker, &[payload(6, 1, 70)], true).expect("room");
    // As if the truncation had been lost.
    change(&disk, &path(2), |bytes| *bytes = before);
    let (_, records) = recover_all(&log, &LogStart::default(), Recovery::Strict).expect("it opens");
    assert_eq!(records.len(), 6);
    assert_eq!(records[5].1, payload(6, 1, 70));
}

/// Random damage, also to lengths and positions with valid checksums, never panics.
#[test]
fn random_damage_gives_a_prefix_or_an_error() {
    let sample = sample();
    let seed = 20_250_101_u64;
    println!("seed {seed}");
    for round in 0..400 {
        let disk = copy(&sample.disk);
        let noise = payload(round, seed, 24);
        let sequence = 1 + u64::from(noise[0] % 2);
        change(&disk, &path(sequence), |bytes| {
            let at = usize::from(u16::from_le_bytes([noise[1], noise[2]])) % bytes.len();
            match noise[3] % 3 {
                0 => bytes[at..].iter_mut().zip(&noise[4..12]).for_each(|(byte, noise)| *byte = *noise),
                1 => bytes[at..].iter_mut().take(8).for_each(|byte| *byte = 0xff),
                _ => bytes[at..].iter_mut().take(512).for_each(|byte| *byte = 0),
            }
            if noise[4].is_multiple_of(2) && at < 64 {
                let crc = crc32fast::hash(&bytes[..60]);
                bytes[60..64].copy_from_slice(&crc.to_le_bytes());
            }
        });
        for start in [LogStart::default(), sample.closed] {
            for mode in [Recovery::Strict, Recovery::Salvage] {
                let disk = copy(&disk);
                match recover_all(&log_on(&disk, Planted::default()), &start, mode) {
                    Ok((_, records)) if mode == Recovery::Strict => {
                        assert!(sample.records.starts_with(&records), "round {round}");
                    }
                    Ok((_, records)) => {
                        assert!(
                            records.iter().all(|record| sample.records.contains(record)),
                            "round {round}"
                        );
                    }
                    Err(Error::Corrupt { .. } | Error::NewerFormat { .. }) => {}
                    Err(error) => panic!("round {round}: {error}"),
                }
            }
        }
    }
}
