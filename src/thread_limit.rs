//! Determines how many more threads this process can start under the tightest of the limits that Linux sets.

use std::fs;
use std::path::{Path, PathBuf};

/// The room that one limit leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadRoom {
    /// Number of threads that can still be started.
    pub free: u64,
    /// The name and value of the limit, for messages.
    pub limit: String,
}

/// Returns the room under the tightest of these limits: `pids.max` of our control group and its parents,
/// `ulimit -u`, and the kernel's own limits. `None` if none of them can be read.
pub fn tightest() -> Option<ThreadRoom> {
    let groups = pids_groups(&text_of("/proc/self/cgroup"), &text_of("/proc/self/mountinfo"));
    let of_groups = groups.iter().filter_map(|group| {
        let value = |file| text_of(group.join(file)).trim().parse::<u64>().ok();
        room(value("pids.max")?, value("pids.current")?, |max| {
            format!("pids.max={max} of {}", group.display())
        })
    });
    of_groups.chain(of_user()).chain(of_kernel()).min_by_key(|room| room.free)
}

fn text_of(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn room(max: u64, used: u64, limit: impl Fn(u64) -> String) -> Option<ThreadRoom> {
    Some(ThreadRoom { free: max.saturating_sub(used), limit: limit(max) })
}

/// Lists the directories whose `pids.max` applies to us, our own group first. Takes the content of
/// `/proc/self/cgroup` and `/proc/self/mountinfo`; supports control groups of version 1, version 2 or both.
fn pids_groups(cgroup: &str, mountinfo: &str) -> Vec<PathBuf> {
    let mut groups = Vec::new();
    for line in mountinfo.lines() {
        let Some((place, kind)) = line.split_once(" - ") else { continue };
        let mut place = place.split(' ').skip(3);
        let (Some(root), Some(mount)) = (place.next(), place.next()) else { continue };
        let kind: Vec<_> = kind.split(' ').collect();
        let is_ours = match kind.as_slice() {
            ["cgroup2", ..] => |controllers: &str| controllers.is_empty(),
            ["cgroup", _, options, ..] if options.split(',').any(|option| option == "pids") => {
                |controllers: &str| controllers.split(',').any(|name| name == "pids")
            }
            _ => continue,
        };
        let path = cgroup.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            is_ours(controllers).then_some(path)
        });
        let Some(path) = path else { continue };
        // In a container, the mount point itself is our own group.
        let below = Path::new(path).strip_prefix(root).unwrap_or(Path::new(""));
        let own: PathBuf = Path::new(mount).iter().chain(below).collect();
        groups.extend(own.ancestors().take_while(|group| group.starts_with(mount)).map(Path::to_path_buf));
    }
    groups
}

/// The limit `ulimit -u`, which counts the threads of all processes of a user and does not apply to root.
fn of_user() -> Option<ThreadRoom> {
    let limits = text_of("/proc/self/limits");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max processes"))?;
    let max = line.split_whitespace().next()?.parse().ok()?;
    let own = text_of("/proc/self/status");
    let user = field(&own, "Uid:")?;
    let capabilities = u64::from_str_radix(field(&own, "CapEff:")?, 16).ok()?;
    // CAP_SYS_ADMIN and CAP_SYS_RESOURCE lift the limit.
    if user == "0" || capabilities & (1 << 21 | 1 << 24) != 0 {
        return None;
    }
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let used = processes.filter_map(|process| {
        let status = text_of(process.path().join("status"));
        (field(&status, "Uid:") == Some(user)).then(|| field(&status, "Threads:")?.parse::<u64>().ok())?
    });
    room(max, used.sum(), |max| format!("`ulimit -u` {max} of user {user}"))
}

fn of_kernel() -> Option<ThreadRoom> {
    // The fourth field is `runnable/total`, in threads.
    let load = text_of("/proc/loadavg");
    let used = load.split(' ').nth(3)?.split_once('/')?.1.parse().ok()?;
    let max_of = |name: &str| {
        let max = text_of(format!("/proc/sys/kernel/{name}")).trim().parse().ok()?;
        room(max, used, |max| format!("kernel.{name}={max}"))
    };
    ["threads-max", "pid_max"].into_iter().filter_map(max_of).min_by_key(|room| room.free)
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(cgroup: &str, mountinfo: &str) -> Vec<String> {
        pids_groups(cgroup, mountinfo).iter().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn each_group_up_to_the_mount_holds_with_both_versions() {
        let unified = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(
            groups("0::/system.slice/event-producer.service\n", unified),
            [
                "/sys/fs/cgroup/system.slice/event-producer.service",
                "/sys/fs/cgroup/system.slice",
                "/sys/fs/cgroup"
            ]
        );
        let hybrid = "38 31 0:35 / /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio\n\
                      39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(
            groups("9:name=systemd:/x\n8:pids:/box\n7:blkio:/y\n0::/\n", hybrid),
            ["/sys/fs/cgroup/pids/box", "/sys/fs/cgroup/pids", "/sys/fs/cgroup/unified"]
        );
    }

    #[test]
    fn a_container_sees_its_group_as_the_mount() {
        let bound = "1 2 0:36 /docker/1a /sys/fs/cgroup/pids ro - cgroup cgroup rw,pids\n";
        assert_eq!(groups("8:pids:/docker/1a\n", bound), ["/sys/fs/cgroup/pids"]);
        let namespaced = "1 2 0:26 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        assert_eq!(groups("0::/\n", namespaced), ["/sys/fs/cgroup"]);
        assert_eq!(groups("", namespaced), [""; 0]);
        assert_eq!(groups("0::/\n", "nonsense\n"), [""; 0]);
    }

    #[test]
    fn this_machine_has_a_limit_that_leaves_room() {
        let room = tightest().expect("the kernel has one");
        assert!(room.free > 0 && room.limit.contains(['=', ' ']), "{room:?}");
    }
}
