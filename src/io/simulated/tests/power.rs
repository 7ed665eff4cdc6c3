//! What power cuts leave, and when the power goes.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::io::simulated::random::Random;

#[test]
fn each_cut_state_leaves_what_it_says() {
    let disk = SimulatedDisk::new(1);
    disk.create_dir_all(path("/d")).unwrap();
    disk.sync_dir(path("/")).unwrap();
    let changed = create_durable(&disk, "/d/changed", b"AAAA");
    create_durable(&disk, "/d/old", b"moved");
    create_durable(&disk, "/d/removed", b"removed");
    let cut = create_durable(&disk, "/d/cut", b"123456");
    // Nothing of what follows is durable, but for the bytes of `synced`.
    changed.write_at(0, b"bb").unwrap();
    changed.write_at(4, b"CC").unwrap();
    cut.set_len(2).unwrap();
    create(&disk, "/d/synced", b"S").sync().unwrap();
    create(&disk, "/d/unsynced", b"UUU");
    disk.rename(path("/d/old"), path("/d/new")).unwrap();
    disk.remove(path("/d/removed")).unwrap();

    let with_names = |changed, cut, unsynced| -> [(&str, &[u8]); 5] {
        [
            ("/d/changed", changed),
            ("/d/cut", cut),
            ("/d/new", b"moved"),
            ("/d/synced", b"S"),
            ("/d/unsynced", unsynced),
        ]
    };
    let without_names = |changed, cut| -> [(&str, &[u8]); 4] {
        [("/d/changed", changed), ("/d/cut", cut), ("/d/old", b"moved"), ("/d/removed", b"removed")]
    };
    expect(&disk, CutState::None, &without_names(b"AAAA", b"123456"));
    expect(&disk, CutState::All, &with_names(b"bbAACC", b"12", b"UUU"));
    expect(&disk, CutState::NamesOnly, &with_names(b"AAAA\0\0", b"12", b"\0\0\0"));
    expect(&disk, CutState::BytesOnly, &without_names(b"bbAACC", b"12"));
    expect(&disk, CutState::Short, &with_names(b"AAAA", b"12", b""));

    let garbage = found(&disk.after_power_cut(CutState::Garbage, 3));
    let bytes = &garbage["/d/changed"];
    assert_eq!((&bytes[..4], bytes.len()), (&b"AAAA"[..], 6));
    assert!(bytes[4..] != *b"\0\0" && bytes[4..] != *b"CC");
    assert_eq!(garbage["/d/unsynced"].len(), 3);
    assert_ne!(garbage, found(&disk.after_power_cut(CutState::Garbage, 4)), "other seeds, other garbage");
}

#[test]
fn synced_bytes_without_a_synced_name_are_lost() {
    let disk = SimulatedDisk::new(1);
    create(&disk, "/a", b"1").sync().unwrap();
    expect(&disk, CutState::None, &[]);
    disk.sync_dir(path("/")).unwrap();
    expect(&disk, CutState::None, &[("/a", b"1")]);
}

#[test]
fn name_in_a_folder_without_a_synced_name_is_lost() {
    let disk = SimulatedDisk::new(1);
    disk.create_dir_all(path("/a/b")).unwrap();
    create_durable(&disk, "/a/b/c", b"1");
    expect(&disk, CutState::None, &[]);
    disk.sync_dir(path("/")).unwrap();
    expect(&disk, CutState::None, &[]);
    assert_eq!(disk.after_power_cut(CutState::None, 0).read_dir(path("/")).unwrap().unwrap(), ["a"]);
    disk.sync_dir(path("/a")).unwrap();
    expect(&disk, CutState::None, &[("/a/b/c", b"1")]);
}

#[test]
fn renamed_file_is_the_old_or_the_new_one() {
    let disk = SimulatedDisk::new(1);
    create_durable(&disk, "/a", b"old");
    create_durable(&disk, "/b", b"new");
    disk.rename(path("/b"), path("/a")).unwrap();
    expect(&disk, CutState::None, &[("/a", b"old"), ("/b", b"new")]);
    expect(&disk, CutState::NamesOnly, &[("/a", b"new")]);
    disk.sync_dir(path("/")).unwrap();
    expect(&disk, CutState::None, &[("/a", b"new")]);
}

#[test]
fn rename_across_folders_is_durable_in_both_or_neither() {
    for synced in ["/from", "/to"] {
        let disk = SimulatedDisk::new(1);
        disk.create_dir_all(path("/from")).unwrap();
        disk.create_dir_all(path("/to")).unwrap();
        disk.sync_dir(path("/")).unwrap();
        create(&disk, "/from/a", b"1").sync().unwrap();
        disk.rename(path("/from/a"), path("/to/a")).unwrap();
        create(&disk, "/to/b", b"2").sync().unwrap();
        for seed in 0..100 {
            let after = found(&disk.after_power_cut(CutState::Random, seed));
            let names: Vec<&str> = after.keys().map(String::as_str).collect();
            let possible: [&[&str]; 4] = [&[], &["/from/a"], &["/to/a"], &["/to/a", "/to/b"]];
            assert!(possible.contains(&&*names), "{names:?}");
        }
        disk.sync_dir(path(synced)).unwrap();
        let after = found(&disk.after_power_cut(CutState::None, 0));
        assert_eq!(after["/to/a"], b"1");
        assert!(!after.contains_key("/from/a"), "also not after syncing only {synced}");
        disk.sync_dir(path("/from")).unwrap();
        disk.sync_dir(path("/to")).unwrap();
        expect(&disk, CutState::None, &[("/to/a", b"1"), ("/to/b", b"2")]);
    }
}

#[test]
fn writes_after_a_sync_are_not_durable() {
    let disk = SimulatedDisk::new(1);
    let file = create_durable(&disk, "/a", b"123");
    file.write_at(3, b"456").unwrap();
    file.set_len(1).unwrap();
    expect(&disk, CutState::None, &[("/a", b"123")]);
    expect(&disk, CutState::All, &[("/a", b"1")]);
    file.sync().unwrap();
    expect(&disk, CutState::None, &[("/a", b"1")]);
}

#[test]
fn sync_through_another_handle_counts() {
    let disk = SimulatedDisk::new(1);
    let _writer = create(&disk, "/a", b"1");
    disk.sync_dir(path("/")).unwrap();
    disk.open(path("/a"), false).unwrap().unwrap().sync().unwrap();
    expect(&disk, CutState::None, &[("/a", b"1")]);
}

#[test]
fn random_cut_finds_every_first_part_of_the_names() {
    let disk = SimulatedDisk::new(1);
    create(&disk, "/a", b"");
    create(&disk, "/b", b"");
    disk.rename(path("/a"), path("/c")).unwrap();
    let names = |seed| disk.after_power_cut(CutState::Random, seed).read_dir(path("/")).unwrap().unwrap();
    let seen: BTreeSet<_> = (0..200).map(names).collect();
    let expected: [&[&str]; 4] = [&[], &["a"], &["a", "b"], &["b", "c"]];
    assert_eq!(seen, expected.map(|names| names.iter().map(Into::into).collect()).into());
}

#[test]
fn random_cut_finds_every_choice_of_writes() {
    let disk = SimulatedDisk::new(1);
    let file = create_durable(&disk, "/a", b"---");
    for (at, byte) in [b"x", b"y", b"z"].into_iter().enumerate() {
        file.write_at(at as u64, byte).unwrap();
    }
    let seen: BTreeSet<_> =
        (0..400).map(|seed| found(&disk.after_power_cut(CutState::Random, seed))["/a"].clone()).collect();
    let expected = ["---", "x--", "-y-", "--z", "xy-", "x-z", "-yz", "xyz"];
    assert_eq!(
        seen,
        expected.map(|bytes| bytes.as_bytes().to_vec()).into(),
        "later ones without earlier ones too"
    );
}

#[test]
fn random_cut_tears_at_sectors() {
    let disk = SimulatedDisk::new(1);
    let file = create_durable(&disk, "/a", &[b'-'; 2048]);
    file.write_at(100, &[b'x'; 1500]).unwrap();
    // Its sectors: 100..512, 512..1024, 1024..1536, 1536..1600.
    let mut seen = BTreeSet::new();
    for seed in 0..2_000 {
        let bytes = &found(&disk.after_power_cut(CutState::Random, seed))["/a"];
        assert_eq!(bytes.len(), 2048);
        assert!(bytes[..100].iter().chain(&bytes[1600..]).all(|byte| *byte == b'-'));
        let sectors = [100..512, 512..1024, 1024..1536, 1536..1600].map(|range| {
            let sector = &bytes[range];
            assert!(sector.iter().all(|byte| *byte == sector[0]), "half a sector");
            sector[0] == b'x'
        });
        seen.insert(sectors);
    }
    assert_eq!(seen.len(), 16, "every choice of sectors");
}

#[test]
fn random_cut_may_keep_the_length_of_a_lost_write() {
    let disk = SimulatedDisk::new(1);
    let file = create_durable(&disk, "/a", b"");
    file.write_at(0, b"123").unwrap();
    let seen: BTreeSet<_> =
        (0..100).map(|seed| found(&disk.after_power_cut(CutState::Random, seed))["/a"].clone()).collect();
    assert_eq!(seen, [b"".to_vec(), b"\0\0\0".to_vec(), b"123".to_vec()].into());
}

#[test]
fn random_cut_may_keep_the_length_of_a_torn_write() {
    let disk = SimulatedDisk::new(1);
    let file = create_durable(&disk, "/a", b"");
    file.write_at(0, &[b'x'; 1024]).unwrap();
    let torn = |seed| {
        let bytes = found(&disk.after_power_cut(CutState::Random, seed)).remove("/a").unwrap();
        (bytes.len(), bytes.iter().filter(|byte| **byte == b'x').count())
    };
    let seen: BTreeSet<_> = (0..1_000).map(torn).collect();
    // Nothing, the first, the second (which needs the length), or both sectors; with the length and without.
    assert_eq!(seen, [(0, 0), (1024, 0), (512, 512), (1024, 512), (1024, 1024)].into());
}

#[test]
fn same_seeds_give_same_disks() {
    let run = |seed| {
        let disk = SimulatedDisk::new(seed);
        let file = create_durable(&disk, "/a", &[1; 5_000]);
        file.write_at(2_000, &[2; 9_000]).unwrap();
        create(&disk, "/b", &[3; 100]);
        let cut = |seed| disk.after_power_cut(CutState::Random, seed).fingerprint();
        (0..20).map(cut).collect::<Vec<u64>>()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn disks_after_a_cut_are_independent() {
    let disk = SimulatedDisk::new(1);
    let file = create_durable(&disk, "/a", &[1; 10_000]);
    let lock = disk.try_lock(path("/LOCK")).unwrap().unwrap();
    disk.fail(disk.calls() + 1, Fault::InputOutput, true);
    disk.set_capacity(Some(0));
    disk.record_trace(true);
    let after = disk.after_power_cut(CutState::All, 0);
    assert_eq!((after.calls(), after.syncs(), after.bytes_written()), (0, 0, 0));
    let lock_after = after.try_lock(path("/LOCK")).unwrap();
    assert!(lock_after.is_some(), "its locks are free, and it has no faults");
    assert!(after.trace().is_empty());
    let file_after = after.open(path("/a"), true).unwrap().unwrap();
    file_after.write_at(5_000, &[2; 10_000]).unwrap();
    expect(&after, CutState::None, &[("/LOCK", b""), ("/a", &[1; 10_000])]);
    disk.clear_faults();
    file.write_at(0, &[3; 10]).unwrap();
    let mut bytes = [0; 20];
    file_after.read_at(0, &mut bytes).unwrap();
    assert_eq!(bytes, [1; 20]);
    file.read_at(5_000, &mut bytes).unwrap();
    assert_eq!(bytes, [1; 20]);
    drop(lock);
}

#[test]
fn fingerprint_tells_disks_apart() {
    let disk = SimulatedDisk::new(1);
    let mut seen = BTreeSet::from([disk.fingerprint()]);
    let mut is_new = |what| assert!(seen.insert(disk.fingerprint()), "{what}");
    disk.create_dir_all(path("/d")).unwrap();
    is_new("a folder");
    let file = create(&disk, "/d/a", b"");
    is_new("a file");
    file.write_at(0, b"\0").unwrap();
    is_new("a length");
    file.write_at(0, b"1").unwrap();
    is_new("a byte");
    disk.rename(path("/d/a"), path("/a")).unwrap();
    is_new("a name");
    disk.rename(path("/a"), path("/b")).unwrap();
    is_new("a name of the same length");
    let before = disk.fingerprint();
    file.sync().unwrap();
    disk.sync_dir(path("/")).unwrap();
    assert_eq!(disk.fingerprint(), before, "what is durable does not matter");
    assert_eq!(
        SimulatedDisk::new(9).after_power_cut(CutState::None, 1).fingerprint(),
        SimulatedDisk::new(1).fingerprint()
    );
}

#[test]
fn synced_bytes_and_names_survive_every_cut() {
    for seed in 0..40 {
        let disk = SimulatedDisk::new(seed);
        let mut random = Random::new(seed);
        // Only the second of a file's two parts is ever written after it was synced, so the first one must stay.
        let mut promised: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let mut files: Vec<(String, Box<dyn VfsFile>)> = Vec::new();
        for step in 0..60 {
            match random.below(6) {
                0 | 1 => {
                    let mut bytes = vec![0; 1 + random.below(9_000) as usize];
                    random.fill(&mut bytes);
                    let name = format!("/{step}");
                    let file = create(&disk, &name, &bytes);
                    if random.chance(7) {
                        file.sync().unwrap();
                        disk.sync_dir(path("/")).unwrap();
                        promised.insert(name.clone(), bytes);
                    }
                    files.push((name, file));
                }
                2 | 3 if !files.is_empty() => {
                    let (_, file) = &files[random.below(files.len() as u64) as usize];
                    file.write_at(9_000 + random.below(3_000), &[7; 1_000]).unwrap();
                }
                4 if !files.is_empty() => {
                    let index = random.below(files.len() as u64) as usize;
                    let (name, file) = &mut files[index];
                    if let Some(bytes) = promised.remove(name) {
                        let renamed = format!("{name}-");
                        disk.rename(path(name), path(&renamed)).unwrap();
                        disk.sync_dir(path("/")).unwrap();
                        promised.insert(renamed.clone(), bytes);
                        *name = renamed;
                    } else {
                        file.sync().unwrap();
                    }
                }
                _ => {}
            }
            for cut in CutState::ALL {
                let after = disk.after_power_cut(cut, random.next());
                for (name, bytes) in &promised {
                    let found = after.map(path(name)).unwrap();
                    assert!(found.starts_with(bytes), "seed {seed}, step {step}, {cut:?}, {name}");
                }
            }
        }
    }
}

#[test]
fn power_goes_at_the_given_call() {
    let disk = SimulatedDisk::new(1);
    disk.cut_power_at(3);
    let file = disk.create(path("/a")).unwrap();
    file.write_at(0, b"1").unwrap();
    assert!(disk.power_is_on());
    assert!(file.write_at(1, b"2").is_err());
    assert!(!disk.power_is_on());
    assert!(file.sync().is_err());
    assert!(file.len().is_err() && file.read_at(0, &mut [0]).is_err());
    assert!(disk.open(path("/a"), false).is_err() && disk.map(path("/a")).is_err());
    assert!(disk.read_dir(path("/")).is_err() && disk.try_lock(path("/b")).is_err());
    assert!(disk.remove(path("/a")).is_err() && disk.rename(path("/a"), path("/b")).is_err());
    assert!(disk.create(path("/b")).is_err() && disk.create_dir_all(path("/b")).is_err());
    assert_eq!((disk.calls(), disk.syncs()), (3, 0));
    expect(&disk, CutState::All, &[("/a", b"1")]);
    disk.restore_power();
    assert_eq!(found(&disk)["/a"], b"1");
    file.write_at(1, b"2").unwrap();
    disk.cut_power_at(1);
    assert!(!disk.power_is_on(), "a number that has passed means at once");
}

#[test]
fn power_may_go_within_a_write() {
    let mut lengths = BTreeSet::new();
    for seed in 0..50 {
        let disk = SimulatedDisk::new(seed);
        disk.cut_power_within(2);
        let file = disk.create(path("/a")).unwrap();
        assert!(file.write_at(0, b"12345").is_err());
        disk.restore_power();
        let bytes = found(&disk)["/a"].clone();
        assert!(b"12345".starts_with(&bytes));
        expect(&disk, CutState::Short, &[("/a", b"")]);
        lengths.insert(bytes.len());
    }
    assert_eq!(lengths, [1, 2, 3, 4].into());
    let disk = SimulatedDisk::new(1);
    disk.cut_power_within(1);
    assert!(disk.create(path("/a")).is_err());
    assert_eq!(disk.files(), [], "only writes are cut in two");
}
