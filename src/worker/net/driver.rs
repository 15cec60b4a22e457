//! Which driver moves the bytes: the ladder of ring set-ups with the cause and the cure of each step that failed, and the
//! runtime that a core runs on.
//!
//! monoio's own choice between the two is not used: it asks only whether a plain ring can be made, and then fails where
//! the kernel lacks a set-up flag.

use super::os::{Bell, Os};
use super::turns;
use crate::config::Io;
use crate::limits;
use io_uring::{IoUring, opcode};
use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};
use std::future::Future;
use std::io;

/// How a ring is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rung {
    /// SINGLE_ISSUER, COOP_TASKRUN, SUBMIT_ALL: Linux 6.0.
    Full,
    /// COOP_TASKRUN, SUBMIT_ALL: Linux 5.19.
    Cooperative,
    /// No flags, Linux 5.7: about a third more CPU per request with few connections.
    Plain,
}

/// The driver of every core; chosen once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// io_uring.
    Ring(Rung),
    /// epoll.
    Epoll,
}

impl std::fmt::Display for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Choice::Ring(Rung::Full) => "io_uring (SINGLE_ISSUER, COOP_TASKRUN, SUBMIT_ALL)",
            Choice::Ring(Rung::Cooperative) => "io_uring (COOP_TASKRUN, SUBMIT_ALL)",
            Choice::Ring(Rung::Plain) => "io_uring (no flags)",
            Choice::Epoll => "epoll",
        })
    }
}

/// One rung of the ladder that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What was tried.
    pub tried: Choice,
    /// The system's error number; 0 if the ring could be made but lacks something.
    pub errno: i32,
    /// What that means here, one sentence.
    pub cause: String,
    /// What the operator can do, one sentence.
    pub cure: String,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} {}", self.tried, self.cause, self.cure)
    }
}

/// Climbs down the ladder and says where it held, with each step that did not. `Io::Uring` fails with the steps where
/// only epoll would be left. Rings are tried in a thread of their own: some settings bind them to it.
pub fn choose(io: Io) -> Result<(Choice, Vec<Step>), Vec<Step>> {
    if io == Io::Epoll {
        return Ok((Choice::Epoll, Vec::new()));
    }
    let tried = std::thread::Builder::new().name("ringway-probe".into()).spawn(climb).map(|t| t.join());
    match tried {
        Ok(Ok((Some(rung), steps))) => Ok((Choice::Ring(rung), steps)),
        Ok(Ok((None, steps))) if io == Io::Auto => Ok((Choice::Epoll, steps)),
        Ok(Ok((None, steps))) => Err(steps),
        Ok(Err(_)) | Err(_) => Err(vec![Step {
            tried: Choice::Ring(Rung::Full),
            errno: libc::EAGAIN,
            cause: "No thread could be started to try the ring.".into(),
            cure: "Raise the limit of processes (ulimit -u, pids.max).".into(),
        }]),
    }
}

fn climb() -> (Option<Rung>, Vec<Step>) {
    let mut steps = Vec::new();
    for rung in [Rung::Full, Rung::Cooperative, Rung::Plain] {
        match try_ring(rung) {
            Ok(()) => return (Some(rung), steps),
            Err(fault) => steps.push(step(rung, fault, &Host::read())),
        }
        // Only an unknown flag is cured by fewer flags.
        if steps.last().is_some_and(|step| step.errno != libc::EINVAL) {
            break;
        }
    }
    (None, steps)
}

/// Why a ring cannot be used.
#[derive(Debug)]
enum RingFault {
    Refused(io::Error),
    Lacks(&'static str),
}

/// Makes a ring and lets it do nothing once: a profile may allow the set-up and refuse the use.
fn try_ring(rung: Rung) -> Result<(), RingFault> {
    let refused = RingFault::Refused;
    let mut ring = builder(rung).build(limits::RING_ENTRIES).map_err(refused)?;
    let params = ring.params();
    if !params.is_feature_nodrop() || !params.is_feature_fast_poll() {
        return Err(RingFault::Lacks("fast poll (Linux 5.7)"));
    }
    let mut probe = io_uring::Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(refused)?;
    let needed =
        [opcode::Recv::CODE, opcode::Send::CODE, opcode::PollAdd::CODE, opcode::AsyncCancel::CODE, opcode::Close::CODE];
    if !needed.iter().all(|code| probe.is_supported(*code)) {
        return Err(RingFault::Lacks("an operation (recv, send, poll, cancel or close)"));
    }
    // SAFETY: a no-op refers to no memory.
    let pushed = unsafe { ring.submission().push(&opcode::Nop::new().build()) };
    assert!(pushed.is_ok(), "a new ring has room");
    ring.submit_and_wait(1).map_err(refused)?;
    Ok(())
}

fn builder(rung: Rung) -> io_uring::Builder {
    let mut builder = IoUring::builder();
    // A completion queue for many connections at once. DEFER_TASKRUN is left out on purpose: while any task stays
    // runnable monoio enters the ring without asking for events, and then nothing would complete.
    builder.setup_cqsize(limits::RING_COMPLETIONS);
    match rung {
        Rung::Full => builder.setup_single_issuer().setup_coop_taskrun().setup_submit_all(),
        Rung::Cooperative => builder.setup_coop_taskrun().setup_submit_all(),
        Rung::Plain => &mut builder,
    };
    builder
}

/// What an error number has to be read against.
#[derive(Clone, Debug, Default)]
struct Host {
    release: String,
    /// Value of kernel.io_uring_disabled; 0 where there is no such file.
    disabled: u32,
    /// A seccomp filter is on this process.
    filtered: bool,
}

impl Host {
    fn read() -> Host {
        let text = |path| std::fs::read_to_string(path).unwrap_or_default();
        Host {
            release: text("/proc/sys/kernel/osrelease").trim().into(),
            disabled: text("/proc/sys/kernel/io_uring_disabled").trim().parse().unwrap_or(0),
            // Filters are per thread, and this may not be the main one.
            filtered: text("/proc/thread-self/status")
                .lines()
                .any(|l| l.starts_with("Seccomp:") && l.trim().ends_with('2')),
        }
    }
}

fn step(rung: Rung, fault: RingFault, host: &Host) -> Step {
    let (errno, (cause, cure)) = match fault {
        RingFault::Refused(e) => (e.raw_os_error().unwrap_or(0), explain(rung, &e, host)),
        RingFault::Lacks(what) => (
            0,
            (
                format!("The ring of Linux {} lacks {what}.", host.release),
                "Run Linux 5.19 or newer (6.0 for all of it).".to_string(),
            ),
        ),
    };
    Step { tried: Choice::Ring(rung), errno, cause, cure }
}

/// Cause and cure of a refusal.
fn explain(rung: Rung, error: &io::Error, host: &Host) -> (String, String) {
    let profile = "Let the seccomp profile of the container allow io_uring_setup, io_uring_enter and io_uring_register \
                   (\"Seccomp: 2\" in /proc/PID/status tells that there is one).";
    let (cause, cure) = match error.raw_os_error().unwrap_or(0) {
        libc::EPERM | libc::EACCES if host.disabled == 2 => (
            "The sysctl kernel.io_uring_disabled is 2: off for every process (EPERM).".to_string(),
            "Set `sysctl kernel.io_uring_disabled=0`.".to_string(),
        ),
        libc::EPERM | libc::EACCES if host.disabled == 1 => (
            "The sysctl kernel.io_uring_disabled is 1: only for its group and CAP_SYS_ADMIN (EPERM).".to_string(),
            "Set `sysctl kernel.io_uring_disabled=0`, or put the user into the group of kernel.io_uring_group."
                .to_string(),
        ),
        libc::EPERM | libc::EACCES if host.filtered => {
            ("A seccomp filter on this process refuses io_uring (EPERM).".to_string(), profile.to_string())
        }
        libc::EPERM | libc::EACCES => (
            "Neither sysctl nor seccomp, so a security module refuses io_uring (EPERM).".to_string(),
            "Look for a denial by SELinux or AppArmor in the kernel's log.".to_string(),
        ),
        libc::ENOSYS if host.filtered => (
            "A seccomp filter on this process hides io_uring, or the kernel is built without it (ENOSYS).".to_string(),
            profile.to_string(),
        ),
        libc::ENOSYS => (
            format!("The kernel, Linux {}, has no io_uring (ENOSYS).", host.release),
            "Run Linux 5.19 or newer, built with CONFIG_IO_URING.".to_string(),
        ),
        libc::EINVAL => {
            let (flags, needs) = match rung {
                Rung::Full => ("SINGLE_ISSUER", "6.0"),
                Rung::Cooperative => ("COOP_TASKRUN", "5.19"),
                Rung::Plain => ("the size of the completion queue", "5.5"),
            };
            (
                format!(
                    "The kernel, Linux {}, is older than {needs} and does not know {flags} (EINVAL).",
                    host.release
                ),
                format!("Run Linux {needs} or newer."),
            )
        }
        libc::ENOMEM => (
            "The ring's memory is over the limit of locked memory, which kernels before 5.12 count it to (ENOMEM)."
                .to_string(),
            "Raise it: `ulimit -l unlimited`, LimitMEMLOCK=infinity.".to_string(),
        ),
        libc::EMFILE | libc::ENFILE => (
            format!("No descriptor is left for the ring ({error})."),
            "Raise the limit of open files: `ulimit -n`, LimitNOFILE.".to_string(),
        ),
        _ => (
            format!("The kernel refuses the ring ({error})."),
            "Look in the kernel's log; `io: \"epoll\"` runs without it.".to_string(),
        ),
    };
    (cause, cure)
}

/// Runs one core on this thread until `main` is done. The ring is made here: it belongs to the thread that runs it.
///
/// Tasks that are still there when `main` ends never run again. A ring is not taken down with them, because operations
/// under way still write to their buffers: it stays until the process ends. So a thread should call this once.
pub fn run<F>(choice: Choice, bell: Bell, main: impl FnOnce(Os) -> F + 'static) -> io::Result<F::Output>
where
    F: Future<Output: 'static> + 'static,
{
    let core = async { turns::watched(async move { Ok(main(Os::new(&bell)?).await) }).await };
    match choice {
        Choice::Ring(rung) => {
            let ring = RuntimeBuilder::<IoUringDriver>::new()
                .with_entries(limits::RING_ENTRIES)
                .uring_builder(builder(rung))
                .build()?;
            std::mem::ManuallyDrop::new(ring).block_on(core)
        }
        Choice::Epoll => {
            let mut epoll = RuntimeBuilder::<LegacyDriver>::new().with_entries(limits::RING_ENTRIES).build()?;
            epoll.block_on(core)
        }
    }
}

/// What a kernel's ring can do, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RingFacts {
    /// Names of the features that the kernel reports.
    pub features: Vec<&'static str>,
    /// The best set-up that works, or none.
    pub rung: Option<Rung>,
    /// Each set-up that does not, with cause and cure.
    pub steps: Vec<Step>,
}

/// Looks at the ring. Takes a few milliseconds.
pub fn ring_facts() -> RingFacts {
    let (rung, steps) = std::thread::spawn(climb).join().unwrap_or_default();
    let mut features = Vec::new();
    if let Ok(ring) = builder(Rung::Plain).build(8) {
        let p = ring.params();
        let named = [
            (p.is_feature_single_mmap(), "single_mmap"),
            (p.is_feature_nodrop(), "nodrop"),
            (p.is_feature_submit_stable(), "submit_stable"),
            (p.is_feature_fast_poll(), "fast_poll"),
            (p.is_feature_ext_arg(), "ext_arg"),
            (p.is_feature_native_workers(), "native_workers"),
            (p.is_feature_skip_cqe_on_success(), "cqe_skip"),
            (p.is_feature_linked_file(), "linked_file"),
        ];
        features = named.iter().filter(|(has, _)| *has).map(|(_, name)| *name).collect();
    }
    RingFacts { features, rung, steps }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(rung: Rung, errno: i32, host: &Host) -> Step {
        step(rung, RingFault::Refused(io::Error::from_raw_os_error(errno)), host)
    }

    #[test]
    fn every_refusal_names_its_cause() {
        let plain = Host { release: "5.15.0".into(), disabled: 0, filtered: false };
        let filtered = Host { filtered: true, ..plain.clone() };
        let off = Host { disabled: 2, filtered: true, ..plain.clone() };
        let group = Host { disabled: 1, ..plain.clone() };
        // The sysctl decides before any filter is thought of.
        assert!(said(Rung::Plain, libc::EPERM, &off).cause.contains("io_uring_disabled is 2"));
        assert!(said(Rung::Plain, libc::EPERM, &group).cure.contains("io_uring_group"));
        assert!(said(Rung::Plain, libc::EPERM, &filtered).cause.contains("seccomp"));
        assert!(said(Rung::Plain, libc::EPERM, &plain).cause.contains("security module"));
        assert!(said(Rung::Plain, libc::ENOSYS, &filtered).cure.contains("io_uring_setup"));
        assert!(said(Rung::Plain, libc::ENOSYS, &plain).cause.contains("5.15.0"));
        assert!(said(Rung::Full, libc::EINVAL, &plain).cause.contains("older than 6.0"));
        assert!(said(Rung::Cooperative, libc::EINVAL, &plain).cause.contains("older than 5.19"));
        assert!(said(Rung::Plain, libc::ENOMEM, &plain).cure.contains("LimitMEMLOCK"));
        assert!(said(Rung::Plain, libc::EMFILE, &plain).cure.contains("LimitNOFILE"));
        assert_eq!(said(Rung::Plain, libc::EBUSY, &plain).errno, libc::EBUSY);
        assert!(step(Rung::Full, RingFault::Lacks("fast poll"), &plain).cause.contains("lacks fast poll"));
    }

    #[test]
    fn epoll_is_never_probed_and_never_fails() {
        assert_eq!(choose(Io::Epoll), Ok((Choice::Epoll, Vec::new())));
    }

    #[test]
    fn the_ring_is_taken_where_it_holds_and_missed_where_it_does_not() {
        match (choose(Io::Uring), choose(Io::Auto)) {
            (Ok((ring, steps)), auto) => {
                assert!(matches!(ring, Choice::Ring(_)));
                assert_eq!(auto, Ok((ring, steps)));
            }
            (Err(steps), auto) => {
                assert!(!steps.is_empty());
                assert_eq!(auto, Ok((Choice::Epoll, steps)));
            }
        }
    }

    /// Puts a filter on this thread that answers one system call with an error, and on the threads it starts.
    fn forbid(call: libc::c_long, errno: i32) {
        let op = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
        let mut program = [
            op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
            op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, call as u32),
            op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
            op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        // SAFETY: a complete filter program, which the kernel copies.
        let set = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program)
        };
        assert_eq!(set, 0);
    }

    #[test]
    fn a_filter_is_told_from_a_missing_ring() {
        if choose(Io::Uring).is_err() {
            return;
        }
        for call in [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter] {
            for errno in [libc::EPERM, libc::ENOSYS] {
                let filtered = std::thread::spawn(move || {
                    forbid(call, errno);
                    (choose(Io::Uring), choose(Io::Auto))
                });
                let (must, may) = filtered.join().unwrap();
                let steps = must.unwrap_err();
                assert_eq!((steps.len(), steps[0].errno), (1, errno));
                assert!(steps[0].cause.contains("seccomp") && steps[0].cure.contains("io_uring_enter"), "{}", steps[0]);
                assert_eq!(may, Ok((Choice::Epoll, steps)));
            }
        }
        // A kernel that does not know the flags: one step for each set of them, and then none fits.
        let old = std::thread::spawn(|| {
            forbid(libc::SYS_io_uring_setup, libc::EINVAL);
            choose(Io::Auto)
        });
        let (choice, steps) = old.join().unwrap().unwrap();
        assert_eq!((choice, steps.len()), (Choice::Epoll, 3));
    }

    #[test]
    fn both_drivers_run_a_core() {
        let bell = Bell::new().unwrap();
        let (best, _) = choose(Io::Auto).unwrap();
        for choice in [best, Choice::Epoll] {
            assert_eq!(run(choice, bell.clone(), |_| async { 7 }).unwrap(), 7);
        }
    }
}
