//! Facts of the machine that decide how many cores run and what `ringway doctor` says: affinity, quota, kernel, limits.

use super::driver::{RingFacts, ring_facts};
use crate::limits;
use std::ffi::CString;
use std::io;
use std::path::{Path, PathBuf};

/// What `ringway doctor` looks at.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Kernel release, as in `uname -r`.
    pub kernel: String,
    /// The ring.
    pub ring: RingFacts,
    /// Soft and hard limit of open descriptors.
    pub nofile: (u64, u64),
    /// Soft limit of locked memory in bytes.
    pub memlock: u64,
    /// net.core.somaxconn: caps the queue of every listener. `None` if it cannot be read.
    pub somaxconn: Option<u32>,
    /// First and last port for outgoing connections. `None` if it cannot be read.
    pub port_range: Option<(u16, u16)>,
    /// Cores that this process may run on.
    pub affinity: Vec<usize>,
    /// CPU quota of the control group, in cores; `None` is no quota.
    pub quota: Option<f64>,
}

/// Collects them. Takes a few milliseconds; cannot fail, what cannot be read is said so.
pub fn facts() -> Facts {
    let text = |path| std::fs::read_to_string(path).unwrap_or_default();
    let (nofile, memlock) = (limit(libc::RLIMIT_NOFILE), limit(libc::RLIMIT_MEMLOCK));
    Facts {
        kernel: text("/proc/sys/kernel/osrelease").trim().to_string(),
        ring: ring_facts(),
        nofile,
        memlock: memlock.0,
        somaxconn: text("/proc/sys/net/core/somaxconn").trim().parse().ok(),
        port_range: port_range(&text("/proc/sys/net/ipv4/ip_local_port_range")),
        affinity: affinity(),
        quota: quota(&text("/proc/self/cgroup"), Path::new("/sys/fs/cgroup")),
    }
}

/// The cores to run workers on: those of the affinity mask, and no more of them than the control group's quota pays for
/// in full. One more would be stopped in the middle of requests as soon as the quota of a period is used up.
pub fn usable_cores() -> Vec<usize> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    within(affinity(), quota(&groups, Path::new("/sys/fs/cgroup")))
}

fn within(mut cores: Vec<usize>, quota: Option<f64>) -> Vec<usize> {
    if let Some(quota) = quota {
        cores.truncate((quota as usize).max(1));
    }
    cores
}

/// The user that the process runs as.
pub fn own_uid() -> u32 {
    // SAFETY: a plain call that cannot fail.
    unsafe { libc::geteuid() }
}

/// The number of a group that is named or numbered.
///
/// # Errors
/// There is none of this name.
pub fn group_id(group: &str) -> io::Result<u32> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let name = CString::new(group)?;
    let mut room = vec![0; 64 * 1024];
    let mut entry = std::mem::MaybeUninit::<libc::group>::uninit();
    let mut found = std::ptr::null_mut();
    // SAFETY: `room` is as long as is said, `name` ends with a zero, and `entry` is read only if `found` points to it.
    let gid = unsafe {
        libc::getgrnam_r(name.as_ptr(), entry.as_mut_ptr(), room.as_mut_ptr().cast(), room.len(), &mut found);
        if found.is_null() { None } else { Some((*found).gr_gid) }
    };
    gid.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("there is no group {group:?}")))
}

/// Binds this thread to one core.
pub fn pin(core: usize) -> io::Result<()> {
    if core >= libc::CPU_SETSIZE as usize {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: an all-zero set is an empty one; the core's number is within the set.
    let done = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Lets every other thread of this machine go before this one: `nice` from 1, somewhat (each step costs it a fifth of its
/// share of a busy core), to 19. What the kernel refuses is left as it is.
pub fn step_back(nice: i32) {
    // SAFETY: a plain call; for Linux, process 0 is the calling thread.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
}

/// Raises the limit of open descriptors to its hard one and returns it.
pub fn raise_nofile() -> io::Result<u64> {
    let (soft, hard) = limit(libc::RLIMIT_NOFILE);
    if soft < hard {
        let raised = libc::rlimit { rlim_cur: hard, rlim_max: hard };
        // SAFETY: a valid rlimit.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raised) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(hard)
}

/// Makes room in the table of open descriptors for `most` of them, before there are other threads. With threads the kernel
/// waits for all cores whenever the table has to grow, at 256, 512, 1,024 and so on: a core that accepted the 257th
/// connection stood still for 11 ms. A table takes 8 bytes of kernel memory a descriptor.
pub fn size_descriptor_table(most: u64) {
    let last = most.clamp(1, limits::DESCRIPTOR_TABLE_MAX) - 1;
    // SAFETY: plain calls. std opens 0 to 2 if they are closed. What the first call returns is owned by nobody else; without
    // memory for the table it is -1, and everything goes on as it would have.
    unsafe { libc::close(libc::fcntl(0, libc::F_DUPFD_CLOEXEC, last as libc::c_int)) };
}

fn affinity() -> Vec<usize> {
    // SAFETY: an all-zero set is an empty one, which the kernel fills.
    let (done, set) = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        (libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set), set)
    };
    // SAFETY: every number asked for is within the set.
    let cores = (0..libc::CPU_SETSIZE as usize).filter(|core| unsafe { libc::CPU_ISSET(*core, &set) });
    if done == 0 { cores.collect() } else { vec![0] }
}

fn limit(which: libc::__rlimit_resource_t) -> (u64, u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a valid rlimit; the call only fails on a wrong argument, and then says 0.
    unsafe { libc::getrlimit(which, &mut limit) };
    (limit.rlim_cur, limit.rlim_max)
}

fn port_range(text: &str) -> Option<(u16, u16)> {
    let mut numbers = text.split_ascii_whitespace().map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// The smallest CPU quota, in cores, of the groups named in `/proc/self/cgroup` and of all above them.
fn quota(groups: &str, root: &Path) -> Option<f64> {
    let read = |path: PathBuf| std::fs::read_to_string(path).ok();
    let mut least: Option<f64> = None;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let below = path.trim_start_matches('/');
        // Version 2 has one tree for all; version 1 one for each list of controllers, named by it.
        let (tree, v2) = match controllers {
            "" if root.join("cgroup.controllers").exists() => (root.to_path_buf(), true),
            "" => (root.join("unified"), true),
            list if list.split(',').any(|c| c == "cpu") => (root.join(list), false),
            _ => continue,
        };
        for group in tree.join(below).ancestors().take_while(|group| group.starts_with(&tree)) {
            let cores = match v2 {
                true => read(group.join("cpu.max")).and_then(|text| cores_v2(&text)),
                false => read(group.join("cpu.cfs_quota_us"))
                    .zip(read(group.join("cpu.cfs_period_us")))
                    .and_then(|(quota, period)| cores(&quota, &period)),
            };
            least = least.into_iter().chain(cores).reduce(f64::min);
        }
    }
    least
}

fn cores_v2(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    cores(quota, period)
}

/// `max` and -1 are no quota.
fn cores(quota: &str, period: &str) -> Option<f64> {
    let (quota, period): (f64, f64) = (quota.trim().parse().ok()?, period.trim().parse().ok()?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_descriptors_has_its_size_from_the_start() {
        let size = || -> u64 {
            let status = std::fs::read_to_string("/proc/self/status").expect("it is there");
            let line = status.lines().find_map(|line| line.strip_prefix("FDSize:")).expect("FDSize");
            line.trim().parse().expect("a number")
        };
        let most = limit(libc::RLIMIT_NOFILE).0;
        size_descriptor_table(most);
        assert!(size() >= most.min(limits::DESCRIPTOR_TABLE_MAX), "{} of {most}", size());
    }

    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str, files: &[(&str, &str)]) -> Tree {
            let root = std::env::temp_dir().join(format!("ringway-{name}-{}", std::process::id()));
            for (path, text) in files {
                let path = root.join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
            Tree(root)
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_tightest_quota_above_counts_in_version_2() {
        let files = [
            ("cgroup.controllers", "cpu memory"),
            ("a/cpu.max", "150000 100000\n"),
            ("a/b/cpu.max", "max 100000\n"),
            ("a/b/c/cpu.max", "400000 100000\n"),
        ];
        let tree = Tree::new("v2", &files);
        assert_eq!(quota("0::/a/b/c\n", &tree.0), Some(1.5));
        assert_eq!(quota("0::/elsewhere\n", &tree.0), None);
        assert_eq!(quota("", &tree.0), None);
    }

    #[test]
    fn version_1_names_its_tree_by_its_controllers() {
        let files = [
            ("cpu,cpuacct/x/cpu.cfs_quota_us", "250000\n"),
            ("cpu,cpuacct/x/cpu.cfs_period_us", "100000\n"),
            ("cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
            ("cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ];
        let tree = Tree::new("v1", &files);
        assert_eq!(quota("4:memory:/x\n3:cpu,cpuacct:/x\n0::/\n", &tree.0), Some(2.5));
        assert_eq!(quota("3:cpu,cpuacct:/\n", &tree.0), None);
    }

    #[test]
    fn a_quota_pays_for_whole_cores_and_one_at_least() {
        let all = || vec![2, 3, 5, 7];
        assert_eq!(within(all(), None), all());
        assert_eq!(within(all(), Some(2.9)), [2, 3]);
        assert_eq!(within(all(), Some(0.2)), [2]);
        assert_eq!(within(all(), Some(64.0)), all());
    }

    #[test]
    fn this_machine_can_be_described() {
        let facts = facts();
        assert!(!facts.kernel.is_empty() && facts.nofile.0 > 0 && facts.nofile.0 <= facts.nofile.1);
        assert!(facts.port_range.is_none_or(|(low, high)| low < high));
        assert!(!usable_cores().is_empty() && usable_cores().iter().all(|core| facts.affinity.contains(core)));
        assert_eq!(port_range("32768\t60999\n"), Some((32768, 60999)));
        assert_eq!(port_range("x"), None);
    }

    #[test]
    fn a_pinned_thread_has_one_core() {
        let core = *usable_cores().last().unwrap();
        let pinned = std::thread::spawn(move || (pin(core).is_ok(), affinity())).join().unwrap();
        assert_eq!(pinned, (true, vec![core]));
        assert!(pin(usize::MAX).is_err());
    }
}
