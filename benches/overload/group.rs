//! A control group of its own for a process, with a limit of memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const PROCESSES: &str = "CHRONOLITH_OVERLOAD_PROCESSES";

/// Removed when it goes; by then nobody is in it.
#[derive(Debug)]
pub(crate) struct Group(Option<PathBuf>);

/// Joins the group that the caller made, if it made one.
pub(crate) fn enter() {
    if let Some(processes) = std::env::var_os(PROCESSES) {
        fs::write(processes, std::process::id().to_string()).expect("the caller made the group");
    }
}

impl Group {
    /// A group below this process's own, if there is to be a limit.
    pub(crate) fn make(limit: Option<u64>) -> Result<Group, String> {
        let is_own = std::env::var("CHRONOLITH_OVERLOAD_GROUP").is_ok_and(|whose| whose == "own");
        let Some(limit) = limit.filter(|_| !is_own) else { return Ok(Group(None)) };
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let own = groups.lines().find_map(|line| line.split_once(":memory:")).map(|(_, path)| path);
        let own = own.ok_or("there is no first version of control groups here")?;
        let mount = Path::new("/sys/fs/cgroup/memory");
        let name = format!("chronolith-overload-{}", std::process::id());
        let folder = mount.join(own.trim_start_matches('/')).join(name);
        let failed = |error| format!("cannot make the control group {}: {error}", folder.display());
        fs::create_dir(&folder).map_err(failed)?;
        let group = Group(Some(folder.clone()));
        fs::write(folder.join("memory.limit_in_bytes"), limit.to_string()).map_err(failed)?;
        Ok(group)
    }

    /// Has a process join it.
    pub(crate) fn start<'c>(&self, child: &'c mut Command) -> &'c mut Command {
        match &self.0 {
            Some(folder) => child.env(PROCESSES, folder.join("cgroup.procs")),
            None => child,
        }
    }

    /// What the system tells of it.
    pub(crate) fn told(&self) -> String {
        let Some(folder) = &self.0 else { return String::new() };
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default().trim().to_owned();
        let mib = |name| read(name).parse::<u64>().map_or(0, |bytes| bytes >> 20);
        let kills = read("memory.oom_control");
        let kills = kills.lines().find_map(|line| line.strip_prefix("oom_kill ")).unwrap_or("unknown");
        format!(
            "; killed for want of memory: {kills}; page cache included {} of {} MiB at most, limit hit {} times",
            mib("memory.max_usage_in_bytes"),
            mib("memory.limit_in_bytes"),
            read("memory.failcnt"),
        )
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(folder) = &self.0 {
            // The system may still be about the last process.
            for _ in 0..50 {
                if fs::remove_dir(folder).is_ok() {
                    return;
                }
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            eprintln!("{} is left", folder.display());
        }
    }
}
