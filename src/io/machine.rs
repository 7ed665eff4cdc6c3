//! What the machine gives this process.

use std::fs;
use std::path::Path;

/// How much memory there is for this process, in bytes: the machine's, or less if a control group says so. `None` where that cannot be
/// told.
pub(crate) fn memory() -> Option<u64> {
    let total = fs::read_to_string("/proc/meminfo").ok().and_then(|text| meminfo_total(&text));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = limit_files(&groups).filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok());
    limits.chain(total).min()
}

/// The files that may limit the memory of a process in these groups, its own group's and those above.
fn limit_files(groups: &str) -> impl Iterator<Item = std::path::PathBuf> {
    groups.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, group) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        // The second version of control groups has one hierarchy, without names of controllers.
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return Vec::new(),
        };
        let group = Path::new(group.trim_start_matches('/'));
        group.ancestors().map(|group| Path::new(root).join(group).join(file)).collect()
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

    #[test]
    fn both_versions_of_control_groups_are_looked_at_up_to_the_root() {
        let files = |groups| limit_files(groups).map(|file| file.display().to_string()).collect::<Vec<_>>();
        let second =
            ["/sys/fs/cgroup/a/b/memory.max", "/sys/fs/cgroup/a/memory.max", "/sys/fs/cgroup/memory.max"];
        assert_eq!(files("0::/a/b\n"), second);
        let first =
            ["/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
        assert_eq!(files("5:cpu,cpuacct:/x\n4:memory:/a\n"), first);
        assert!(files("").is_empty());
    }

    #[test]
    fn the_total_is_read_in_kibibytes() {
        assert_eq!(meminfo_total("MemFree: 1 kB\nMemTotal:       24606032 kB\n"), Some(24_606_032 * 1024));
        assert_eq!(meminfo_total("MemTotal: many"), None);
    }
}
