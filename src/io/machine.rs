//! What the machine gives this process.
//!
//! Memory is limited by the machine and by control groups, of which a process is in several: each limit counts, that of its own group and those of
//! all above. In a container the paths that the system tells may be those outside; then its own group is what lies at the mount's root.

use std::fs;
use std::path::{Path, PathBuf};

/// How much memory there is for this process, in bytes: the machine's, or less if a control group says so. `None` where that cannot be
/// told.
pub(crate) fn memory() -> Option<u64> {
    memory_below(Path::new("/"))
}

/// As [`memory`], with what the system tells below a folder.
fn memory_below(root: &Path) -> Option<u64> {
    let read = |path: &str| fs::read_to_string(root.join(path)).ok();
    let total = read("proc/meminfo").and_then(|text| meminfo_total(&text));
    let groups = read("proc/self/cgroup").unwrap_or_default();
    // A group without a limit says `max`, or a number that is larger than any machine.
    let limits =
        limit_files(&groups).filter_map(|file| fs::read_to_string(root.join(file)).ok()?.trim().parse().ok());
    limits.chain(total).min()
}

/// The files that may limit the memory of a process in these groups, its own groups' and those of the groups above, relative to the root.
fn limit_files(groups: &str) -> impl Iterator<Item = PathBuf> {
    groups.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, group) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        // The second version of control groups has one hierarchy, without names of controllers; beside the first version it lies in a folder of its own.
        let (mounts, files): (&[&str], &[&str]) = match controllers {
            "" => (&["sys/fs/cgroup", "sys/fs/cgroup/unified"], &["memory.max", "memory.high"]),
            _ if controllers.split(',').any(|name| name == "memory") => {
                (&["sys/fs/cgroup/memory"], &["memory.limit_in_bytes"])
            }
            _ => (&[], &[]),
        };
        let group = Path::new(group.trim_start_matches('/'));
        let folders =
            mounts.iter().flat_map(|mount| group.ancestors().map(|group| Path::new(mount).join(group)));
        folders.flat_map(|folder| files.iter().map(move |file| folder.join(file))).collect::<Vec<_>>()
    })
}

/// `MemTotal` in bytes.
fn meminfo_total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// What a system with these files tells, besides that it has 8 GiB.
    fn found(files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().expect("a folder");
        for (path, text) in files.iter().chain([&("proc/meminfo", "MemTotal:        8388608 kB\n")]) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a folder above")).expect("made");
            fs::write(path, text).expect("written");
        }
        memory_below(root.path())
    }

    #[test]
    fn without_groups_it_is_the_machines() {
        assert_eq!(found(&[]), Some(8192 * MIB));
        assert_eq!(found(&[("proc/self/cgroup", "")]), Some(8192 * MIB));
        assert_eq!(memory_below(Path::new("/nowhere")), None);
    }

    #[test]
    fn the_first_version_limits_a_group_or_one_above() {
        let own = ("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/a/b\n0::/\n");
        let none = "9223372036854771712\n";
        let group = |a, b| {
            found(&[
                own,
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", none),
                ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", a),
                ("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", b),
                ("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "1048576\n"),
            ])
        };
        assert_eq!(group(none, none), Some(8192 * MIB));
        assert_eq!(group(none, "536870912\n"), Some(512 * MIB));
        assert_eq!(group("268435456\n", "536870912\n"), Some(256 * MIB), "the one above is lower");
    }

    #[test]
    fn the_second_version_limits_a_group_or_one_above() {
        let own = ("proc/self/cgroup", "0::/a/b\n");
        let group = |a, b, high| {
            found(&[
                own,
                ("sys/fs/cgroup/a/memory.max", a),
                ("sys/fs/cgroup/a/b/memory.max", b),
                ("sys/fs/cgroup/a/b/memory.high", high),
            ])
        };
        assert_eq!(group("max\n", "max\n", "max\n"), Some(8192 * MIB));
        assert_eq!(group("max\n", "536870912\n", "max\n"), Some(512 * MIB));
        assert_eq!(group("268435456\n", "536870912\n", "max\n"), Some(256 * MIB), "the one above is lower");
        assert_eq!(
            group("max\n", "536870912\n", "402653184\n"),
            Some(384 * MIB),
            "from there on it is slowed down"
        );
    }

    #[test]
    fn a_container_that_is_told_the_paths_outside_has_its_limit_at_the_root() {
        let first = found(&[
            ("proc/self/cgroup", "4:memory:/docker/0123\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "536870912\n"),
        ]);
        let second =
            found(&[("proc/self/cgroup", "0::/../outside\n"), ("sys/fs/cgroup/memory.max", "536870912\n")]);
        assert_eq!((first, second), (Some(512 * MIB), Some(512 * MIB)));
    }

    #[test]
    fn the_total_is_read_in_kibibytes() {
        assert_eq!(meminfo_total("MemFree: 1 kB\nMemTotal:       24606032 kB\n"), Some(24_606_032 * 1024));
        assert_eq!(meminfo_total("MemTotal: many"), None);
    }
}
