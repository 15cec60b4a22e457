//! The start: from a config file to workers that serve and a control loop that runs.
//!
//! In this order, so that whatever fails does so before anything is served: config, descriptors, lock and control socket,
//! driver, names, listeners, log, workers.

use super::requests::unix_now;
pub use super::running::read_config;
use super::running::{Checked, Machine, Running};
use super::signals::Signals;
use super::state_file::{self, Found, StateFile};
use super::{Control, Door, Ended, Origin, Parts, WorkerLink, resolve, say};
use crate::access_log::{self, Sink};
use crate::config::state::Override;
use crate::config::{Plan, check};
use crate::control::listeners::{Listeners, Opened};
use crate::control::resolve::Resolver;
use crate::event::ToWorker;
use crate::limits;
use crate::publish::Publisher;
use crate::supervisor::{Resolutions, Supervisor, names_of};
use crate::worker::net::driver::{self, Choice};
use crate::worker::net::machine;
use crate::worker::net::os::Bell;
use crate::worker::start::{Doorstep, Start};
use crossbeam_channel::{bounded, unbounded};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where `run` looks for its config when it is not told, in this order.
pub const DEFAULT_FILES: [&str; 2] = ["./config.json", "/etc/ringway/config.json"];

/// Messages of all workers that may wait for control. Reports that find it full are not lost: see `look_at_all`.
const FROM_WORKERS_MAX: usize = 4096;
/// Time that the writers of the logs get at the end.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What runs on a worker's thread. It is expected not to return.
pub type Worker = fn(Start) -> io::Result<()>;

/// Why there was no start.
#[derive(Debug)]
pub enum Failure {
    /// The config: exit code 2.
    Config(String),
    /// Anything else: exit code 1.
    System(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Config(why) | Failure::System(why) => f.write_str(why),
        }
    }
}

/// Says what could not be done and why.
fn failed<E: fmt::Display>(what: &str) -> impl Fn(E) -> Failure {
    move |e| Failure::System(format!("{what}: {e}"))
}

/// Runs a proxy until it is stopped. `config` is the file, by default one of [`DEFAULT_FILES`]. The operational log goes
/// to standard error from here on.
///
/// # Errors
/// See [`Failure`]; nothing has been served then.
pub fn run(config: Option<PathBuf>, signals: Signals, worker: Worker) -> Result<Ended, Failure> {
    // Before anything else opens files, and before the config is set against the limit.
    let open_files_max = machine::raise_nofile().map_err(failed("the limit of open files cannot be raised"))?;
    machine::size_descriptor_table(open_files_max);
    let cores = machine::usable_cores();
    let machine = Machine { cores: cores.len(), open_files_max };
    let found = load(config, machine)?;
    let say = say::init().map_err(failed("no thread for the operational log"))?;
    let ended = start(found, open_files_max, cores, signals, worker).map(|control| {
        let (ended, log) = control.run();
        if !log.finish(LAST_WORDS) {
            tracing::warn!("access log: its last lines could not be written in time");
        }
        ended
    });
    say.finish(LAST_WORDS);
    ended
}

/// The config file that was named, else the first of [`DEFAULT_FILES`] that is there.
///
/// # Errors
/// A sentence for people.
pub fn config_file(named: Option<PathBuf>) -> Result<PathBuf, String> {
    named
        .or_else(|| DEFAULT_FILES.iter().map(PathBuf::from).find(|file| file.exists()))
        .ok_or_else(|| format!("no config: neither {} nor {} is there", DEFAULT_FILES[0], DEFAULT_FILES[1]))
}

/// Finds, reads and checks the config.
fn load(config: Option<PathBuf>, machine: Machine) -> Result<Checked, Failure> {
    let file = config_file(config).map_err(Failure::Config)?;
    let text = read_config(&file).map_err(Failure::Config)?;
    let plan = check::load_for(&text, &file.to_string_lossy(), machine.cores, machine.open_files_max)
        .map_err(|faults| Failure::Config(faults.to_string()))?;
    Ok((Running::new(file, text), plan))
}

/// Puts the patches of an earlier process over the file, as far as they still fit. Returns the words of operators, to be
/// said again.
fn recall(path: &Path, (running, plan): Checked, machine: Machine) -> Result<(Checked, Vec<Override>), Failure> {
    let state = match state_file::read(path).map_err(failed("$.state_file"))? {
        Found::Nothing => return Ok(((running, plan), Vec::new())),
        Found::State(state) => state,
        Found::Bad(why, aside) => {
            tracing::error!("the state file is bad and was moved to {}: {why}", aside.display());
            return Ok(((running, plan), Vec::new()));
        }
    };
    match running.recalled(state.patches, machine) {
        Ok(Some(checked)) => Ok((checked, state.overrides)),
        Ok(None) => Ok(((running, plan), state.overrides)),
        Err(why) => {
            // Serving what the file says is better than serving nothing; the patches are kept for whoever repairs them.
            let aside = state_file::set_aside(path).map_err(failed("$.state_file"))?;
            let aside = aside.display();
            tracing::error!("the patches in the state file do not fit the config and were moved to {aside}: {why}");
            Ok(((running, plan), state.overrides))
        }
    }
}

fn start(
    (running, plan): Checked,
    open_files_max: u64,
    cpus: Vec<usize>,
    signals: Signals,
    worker: Worker,
) -> Result<Control, Failure> {
    let cores = plan.workers.unwrap_or(cpus.len());
    let door = Door::new().map_err(failed("control loop"))?;
    let socket = match &plan.control_socket {
        Some(path) => {
            Some(door.control_socket(path, &plan.control_access).map_err(|e| Failure::System(e.to_string()))?)
        }
        None => None,
    };
    let file = running.file().to_owned();
    let state_path = plan.state_file.clone();
    let machine = Machine { cores, open_files_max };
    let ((running, plan), overrides) = match &state_path {
        // The lock is held by now: no other instance uses the file.
        Some(path) => recall(path, (running, plan), machine)?,
        None => ((running, plan), Vec::new()),
    };
    let choice = choose_driver(&plan)?;
    let (resolver, resolutions) = resolve_names(&plan, &door)?;
    let target = plan.settings.log_target.clone();
    let status_listen = plan.status_listen.clone();
    plan.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
    let began = Instant::now();
    let mut supervisor =
        Supervisor::new(plan, cores, resolutions).map_err(|refusal| Failure::Config(refusal.to_string()))?;
    for dropped in supervisor.restore(overrides, unix_now(), 0) {
        tracing::warn!("an override in the state file no longer holds: {dropped}");
    }
    let state_file = match state_path {
        Some(path) => Some(StateFile::open(path, door.ring()).map_err(failed("no thread for the state file"))?),
        None => None,
    };

    // Before the listeners: who connects finds the file in place.
    let sink = Sink::open(&target).map_err(failed("$.log.access"))?;
    let mut listeners = Listeners::default();
    let mut opened = patiently(|| listeners.open(&supervisor.listeners(), cores), |(_, e)| e)
        .map_err(|(name, e)| Failure::System(format!("$.listeners.{name}: {e}")))?;
    let since = unix_now();
    let mut monitor = door.monitor(cores, since).map_err(failed("control loop"))?;
    let status = patiently(|| monitor.open(status_listen.as_ref()), |e| e).map_err(failed("$.status.listen"))?;
    monitor.install(status_listen.as_ref(), status);
    let log = access_log::spawn(cores, sink).map_err(failed("no thread for the access log"))?;
    let publisher = Publisher::new(supervisor.snapshot());
    let (outbox, from_workers) = bounded(FROM_WORKERS_MAX);
    opened.iter_mut().for_each(|one| listeners.opened(one));
    let bells: io::Result<Arc<[Bell]>> = (0..cores).map(|_| Bell::new()).collect();
    let bells = bells.map_err(failed("no descriptor for a worker's bell"))?;
    let doorsteps: Arc<[Doorstep]> = (0..cores).map(|_| Doorstep::default()).collect();
    let mut workers = Vec::with_capacity(cores);
    for (core, share) in shares(opened, cores).into_iter().enumerate() {
        // Bounded by `UNTAKEN_MAX` of the reloads: the sender looks first.
        let (inbox, to_worker) = unbounded();
        let link = WorkerLink { inbox, bell: bells[core].clone(), stats: Arc::default() };
        for message in share {
            let _ = link.inbox.send(message);
        }
        let start = Start {
            core,
            // More workers than cores is the operator's wish, and then the kernel's to place.
            cpu: if cores <= cpus.len() { cpus.get(core).copied() } else { None },
            cores,
            choice,
            publisher: publisher.clone(),
            inbox: to_worker,
            bells: bells.clone(),
            doorsteps: doorsteps.clone(),
            outbox: outbox.clone(),
            ring_control: door.ring(),
            stats: link.stats.clone(),
            log: log.queue(core, link.stats.clone()),
        };
        spawn(start, worker)?;
        workers.push(link);
    }
    tracing::info!("ringway {} serves with {cores} workers on {choice}", env!("CARGO_PKG_VERSION"));
    let origin =
        Origin { file, open_files_max, driver: if choice == Choice::Epoll { "epoll" } else { "uring" }, since };
    let parts = Parts {
        door,
        began,
        supervisor,
        publisher,
        workers,
        from_workers,
        signals,
        socket,
        monitor,
        resolver,
        listeners,
        log,
        origin,
        running,
        state_file,
    };
    Control::new(parts).map_err(failed("control loop"))
}

/// Opens what an earlier process may still hold: the kernel closes the sockets of a process that was killed only when it has
/// taken its rings apart, some milliseconds after the process was waited for.
fn patiently<T, E>(mut open: impl FnMut() -> Result<T, E>, cause: impl Fn(&E) -> &io::Error) -> Result<T, E> {
    let begin = Instant::now();
    loop {
        match open() {
            Err(e)
                if cause(&e).kind() == io::ErrorKind::AddrInUse
                    && begin.elapsed() < Duration::from_millis(limits::ADDRESS_PATIENCE_MS) =>
            {
                std::thread::sleep(Duration::from_millis(limits::ADDRESS_RETRY_MS));
            }
            done => return done,
        }
    }
}

/// Climbs down the ladder, and says why where it does not hold.
fn choose_driver(plan: &Plan) -> Result<Choice, Failure> {
    let sentence = |steps: &[driver::Step]| steps.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    match driver::choose(plan.io) {
        Ok((choice, steps)) => {
            for step in &steps {
                tracing::warn!("driver: not {step}");
            }
            Ok(choice)
        }
        Err(steps) => {
            Err(Failure::System(format!("io is \"uring\", and io_uring cannot be had: {}", sentence(&steps))))
        }
    }
}

/// Asks for all names of backends, and waits for the answers as long as a start may take.
fn resolve_names(plan: &Plan, door: &Door) -> Result<(Resolver, Resolutions), Failure> {
    let mut resolver =
        Resolver::new(Arc::new(resolve::system), door.ring()).map_err(failed("no threads for resolving names"))?;
    let begin = Instant::now();
    resolver.want(names_of(plan), begin);
    let mut resolutions = Resolutions::default();
    for (name, answer) in resolver.settle(begin + Duration::from_secs(limits::RESOLVE_PATIENCE_SECONDS)) {
        resolutions.record(&name, answer);
    }
    Ok((resolver, resolutions))
}

/// The listeners of each core, as messages.
fn shares(opened: Vec<Opened>, cores: usize) -> Vec<Vec<ToWorker>> {
    let mut shares: Vec<Vec<ToWorker>> = (0..cores).map(|_| Vec::new()).collect();
    for Opened { id, sockets, unix, .. } in opened {
        for (share, fd) in shares.iter_mut().zip(sockets) {
            share.push(ToWorker::Listen { id, fd, unix });
        }
    }
    shares
}

/// Starts the thread of one core. Should it ever end, the process does: the kernel would go on giving connections to the
/// dead core's listeners.
fn spawn(start: Start, worker: Worker) -> Result<(), Failure> {
    let core = start.core;
    let guarded = move || {
        // A panic is said by the hook.
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| worker(start)));
        match ended {
            Ok(Err(e)) => tracing::error!("worker {core} cannot run: {e}; the process ends"),
            Ok(Ok(())) | Err(_) => tracing::error!("worker {core} has ended; the process ends too"),
        }
        // Time for the log's thread to write that down.
        std::thread::sleep(Duration::from_millis(200));
        std::process::abort();
    };
    let thread = std::thread::Builder::new().name(format!("ringway-{core}"));
    thread.spawn(guarded).map(drop).map_err(failed("no thread for a worker"))
}
