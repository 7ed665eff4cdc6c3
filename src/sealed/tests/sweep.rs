//! Sweeps remove what this database left, and nothing else.

use std::collections::BTreeSet;

use super::super::sweep::Swept;
use super::*;
use crate::fileset::{VolumeSpec, VolumeWriter};

const OTHER: DatabaseId = [7; 16];

/// Makes a file with something in it, and the folders above.
fn put_new(disk: &dyn Vfs, path: &str) -> PathBuf {
    let path = Path::new(DATA).join(path);
    disk.create_dir_all(path.parent().expect("a folder")).expect("room");
    disk.create(&path).and_then(|file| file.write_at(0, b"text")).expect("room");
    path
}

/// The files that something made.
fn made(disk: &MemoryDisk, make: impl FnOnce()) -> Vec<PathBuf> {
    let before: BTreeSet<_> = files_in(disk, DATA.as_ref()).into_iter().collect();
    make();
    files_in(disk, DATA.as_ref()).into_iter().filter(|path| !before.contains(path)).collect()
}

#[test]
fn only_own_volumes_that_are_not_known_are_removed() {
    let disk = MemoryDisk::new();
    let store = store_on(&disk, 8);
    let (namespace, metrics) = metrics();
    let write_to = |store: &VolumeStore, block: BlockVolume| {
        made(&disk, || write(store, &block, &namespace, &metrics).expect("room"))
    };
    let other = VolumeStore::new(std::sync::Arc::new(disk.clone()), DATA.into(), OTHER, 8);

    // In use, and beside them what a sweep is about.
    let known_blocks = [block(4), block_at(-1, DAY_NS, 0)];
    let known = known_blocks.map(|block| {
        write_to(&store, block);
        store.volume(block, &namespace)
    });
    let known_files = files_in(&disk, DATA.as_ref());

    let mut ours = Vec::new();
    for orphan in [block(3), block(5), block_at(START, DAY_NS, 4), block_at(i64::MIN, WIDTH_NS, 4)] {
        ours.extend(write_to(&store, orphan));
    }
    let shard_2 = |number| BlockVolume { shard: 2, ..block(number) };
    ours.extend(made(&disk, || drop(store.create(&shard_2(0), &namespace).expect("room"))));
    ours.extend(made(&disk, || {
        let mut writer = store.create(&shard_2(1), &namespace).expect("room");
        append(&mut writer, &shard_2(1), &metrics[0]).expect("room");
        drop(writer.sync().expect("room"));
    }));

    let mut foreign = vec![
        put_new(&disk, "notes.txt"),
        put_new(&disk, "cpu2"),
        put_new(&disk, "cpu/notes.txt"),
        put_new(&disk, "cpu/7"),
        put_new(&disk, "cpu/1/notes.txt"),
        put_new(&disk, "cpu/1/chronolith-x.db"),
    ];
    for folder in [".hidden/1", "cpu@1h/1", "%63pu/1", "cpu/01", "cpu/x"] {
        let file = put_new(&disk, &format!("{folder}/fileset-0-0-data.db"));
        let namespace = file.ancestors().nth(2).expect("it has").to_owned();
        let shard = file.parent().expect("it has").to_owned();
        foreign.push(if folder.starts_with("cpu/") { shard } else { namespace });
    }
    // Of M3, and of another database, finished or not.
    foreign.extend(made(&disk, || {
        for volume in [0, 1] {
            let name = VolumeName { block_start: START, volume };
            let spec = VolumeSpec { name, block_size: WIDTH_NS, snapshot: None, supplement: None };
            let writer = VolumeWriter::create(&disk, &Path::new(DATA).join("cpu/1"), spec).expect("room");
            let is_finished = volume == 0;
            is_finished.then(|| writer.finish()).transpose().expect("room");
        }
    }));
    foreign.extend(write_to(&other, block(9)));
    foreign.extend(made(&disk, || drop(other.create(&block(10), &namespace).expect("room"))));
    // Whose they are, nothing sound tells.
    for number in [11, 12, 13] {
        let files = made(&disk, || {
            let mut writer = store.create(&block(number), &namespace).expect("room");
            append(&mut writer, &block(number), &metrics[0]).expect("room");
            let is_finished = number != 11;
            is_finished.then(|| writer.finish()).transpose().expect("room");
        });
        let supplement = supplement_path(&block(number), &namespace);
        match number {
            12 => disk.remove(&supplement).expect("it goes"),
            _ => drop(damage(&disk, &supplement, 4000)),
        }
        foreign.extend(files.into_iter().filter(|path| number != 12 || *path != supplement));
    }
    // Another's volume beside a supplement of ours.
    foreign.extend(made(&disk, || {
        write(&store, &block(14), &namespace, &metrics).expect("room");
        let supplement = supplement_path(&block(14), &namespace);
        let left = disk.map(&supplement).expect("it is there").to_vec();
        let folder = supplement.parent().expect("a folder");
        crate::fileset::remove_volume(&disk, folder, block(14).name()).expect("it goes");
        let name = block(14).name();
        let spec = VolumeSpec { name, block_size: WIDTH_NS, snapshot: None, supplement: None };
        VolumeWriter::create(&disk, folder, spec).and_then(VolumeWriter::finish).expect("room");
        disk.create(&supplement).and_then(|file| file.write_at(0, &left)).expect("room");
    }));
    // Beside ours some by old names of M3's.
    let next = block_at(START + WIDTH_NS, WIDTH_NS, 0);
    ours.extend(write_to(&store, next));
    for file in ["info", "data"] {
        foreign.push(put_new(&disk, &format!("cpu/1/fileset-{}-{file}.db", START + WIDTH_NS)));
    }

    let before: BTreeSet<_> = files_in(&disk, DATA.as_ref()).into_iter().collect();
    let mut swept = store.sweep(known.iter().map(|volume| &**volume)).expect("undamaged");
    [&mut swept.removed, &mut swept.foreign, &mut ours, &mut foreign]
        .into_iter()
        .for_each(|paths| paths.sort());
    assert_eq!(swept.removed, ours);
    assert_eq!(swept.foreign, foreign);
    let after: BTreeSet<_> = files_in(&disk, DATA.as_ref()).into_iter().collect();
    assert!(before.difference(&after).eq(ours.iter()), "nothing else went");
    assert!(known_files.iter().all(|path| after.contains(path)));
    known.iter().for_each(|volume| assert_readable(volume, &metrics));

    let mut again = store.sweep(known.iter().map(|volume| &**volume)).expect("undamaged");
    again.foreign.sort();
    assert_eq!(again, Swept { removed: Vec::new(), foreign });
    let other_volume = other.volume(block(9), &namespace);
    assert_readable(&other_volume, &metrics);
}

#[test]
fn sweep_of_nothing_finds_nothing() {
    let store = store_on(&MemoryDisk::new(), 8);
    assert_eq!(store.sweep([]).expect("no folder is fine"), Swept::default());
}

#[test]
fn what_a_sweep_cannot_tell_is_replaced_by_the_next_volume_of_its_name() {
    let disk = MemoryDisk::new();
    let store = store_on(&disk, 8);
    let (namespace, metrics) = metrics();
    drop(store.create(&block(0), &namespace).expect("room"));
    disk.remove(&supplement_path(&block(0), &namespace)).expect("it goes");
    let swept = store.sweep([]).expect("undamaged");
    assert_eq!((swept.removed.len(), swept.foreign.len()), (0, 1), "{swept:?}");
    write(&store, &block(0), &namespace, &metrics).expect("what was left is replaced");
    assert_readable(&store.volume(block(0), &namespace), &metrics);
}
