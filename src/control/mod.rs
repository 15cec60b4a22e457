//! The control thread: one poll loop, no async, and nothing in it waits for anybody.
//!
//! What comes in: signals (`signals`), reports of the workers (channels and a doorbell), requests on the control socket
//! (`socket`) and on the status listener (`monitor`), verdicts of probes (`probe`), answers of the resolver (`resolve`), and
//! time. What it means is decided by the supervisor, which is pure; this loop carries the decisions out. A reload is told in
//! `reload`, the start in `start`.
//!
//! Writing is left to threads of their own: the access log to its writer, the operational log to `say`, the metrics to
//! theirs.

mod actions;
mod answers;
pub mod dry;
mod even;
mod events;
pub mod listeners;
pub mod lock;
pub mod monitor;
pub mod probe;
mod probe_answer;
mod reload;
mod requests;
pub mod resolve;
pub mod running;
pub mod say;
pub mod signals;
mod slow;
pub mod socket;
mod spare;
pub mod start;
pub mod state_file;
mod waits;

use crate::access_log::{LogWriter, Sink};
use crate::config::ControlAccess;
use crate::config::answer::{Answer, Error};
use crate::config::events::Happening;
use crate::config::orders::Reload;
use crate::config::state::{self, State};
use crate::event::{CoreStats, FromWorker, ToWorker};
use crate::limits;
use crate::publish::Publisher;
use crate::supervisor::Supervisor;
use crate::worker::net::machine;
use crate::worker::net::os::Bell;
use crossbeam_channel::{Receiver, Sender};
use even::Evening;
use listeners::Listeners;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use monitor::Monitor;
use probe::{Outcome, Probes};
use requests::Asker;
use resolve::Resolver;
use running::Running;
use serde::Serialize;
use signals::{Signal, Signals};
use slow::Question;
use socket::ControlSocket;
use state_file::StateFile;
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use waits::Waiting;

const BELL: Token = Token(0);
const SIGNALS: Token = Token(1);
const SOCKET: Token = Token(2);
const STATUS: Token = Token(SOCKET.0 + 1 + limits::CONTROL_CLIENTS_MAX);
const FIRST_PROBE: usize = STATUS.0 + 1 + limits::STATUS_CLIENTS_MAX;

/// Messages of workers handled in one turn before everything else gets its turn.
const MESSAGES_PER_TURN: usize = 4096;
/// The longest sleep: lost hints (`CoreStats::look_at_all`) are found at the latest by then.
const NAP: Duration = Duration::from_secs(1);

/// Control's hold on one worker.
#[derive(Debug)]
pub struct WorkerLink {
    /// Messages to it.
    pub inbox: Sender<ToWorker>,
    /// To be rung after a message or a publication.
    pub bell: Bell,
    /// What it counts.
    pub stats: Arc<CoreStats>,
}

/// The place where the loop sleeps, and the bell that wakes it.
pub struct Door {
    poll: Poll,
    waker: Arc<Waker>,
}

impl Door {
    /// A new one.
    ///
    /// # Errors
    /// No descriptors to be had.
    pub fn new() -> io::Result<Door> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), BELL)?);
        Ok(Door { poll, waker })
    }

    /// Rings, from any thread. Never waits.
    pub fn ring(&self) -> Arc<dyn Fn() + Send + Sync> {
        let waker = self.waker.clone();
        // A bell that cannot be rung any louder is ringing; every other failure ends at the next nap.
        Arc::new(move || drop(waker.wake()))
    }

    fn registry(&self) -> io::Result<Registry> {
        self.poll.registry().try_clone()
    }

    /// Opens the control socket on this loop: see [`ControlSocket::open`].
    ///
    /// # Errors
    /// As there.
    pub fn control_socket(&self, path: &std::path::Path, access: &ControlAccess) -> io::Result<ControlSocket> {
        ControlSocket::open(path, access, (self.registry()?, SOCKET), answers::hello(), answers::refusal)
    }

    /// The status listener's place on this loop, without a listener yet. The process began at `since`, seconds since 1970.
    ///
    /// # Errors
    /// No descriptors to be had.
    pub fn monitor(&self, cores: usize, since: u64) -> io::Result<Monitor> {
        Ok(Monitor::new((self.registry()?, STATUS), self.ring(), cores, since))
    }
}

/// What a reload is checked against.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The file that was given at the start.
    pub file: PathBuf,
    /// The limit of open files of the process.
    pub open_files_max: u64,
    /// `uring` or `epoll`.
    pub driver: &'static str,
    /// Begin of the process, seconds since 1970.
    pub since: u64,
}

/// All that the loop is made of.
pub struct Parts {
    /// Where it sleeps.
    pub door: Door,
    /// The moment from which the supervisor's milliseconds count.
    pub began: Instant,
    /// Its mind.
    pub supervisor: Supervisor,
    /// Where snapshots are published.
    pub publisher: Arc<Publisher>,
    /// The workers, by core.
    pub workers: Vec<WorkerLink>,
    /// What they say.
    pub from_workers: Receiver<FromWorker>,
    /// Signals of the process.
    pub signals: Signals,
    /// The control socket, if there is one.
    pub socket: Option<ControlSocket>,
    /// The status listener.
    pub monitor: Monitor,
    /// Resolves names.
    pub resolver: Resolver,
    /// Sockets opened at the start.
    pub listeners: Listeners,
    /// The access log's writer.
    pub log: LogWriter,
    /// Where the config came from.
    pub origin: Origin,
    /// The config as text.
    pub running: Running,
    /// Where patches and overrides are kept.
    pub state_file: Option<StateFile>,
}

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// After a drain.
    Drained {
        /// Connections that were cut at its end.
        cut: u64,
        /// Cores that never said that they have drained.
        missing: usize,
    },
    /// By a second signal, in the middle of a drain.
    AtOnce,
}

/// The loop.
pub struct Control {
    door: Door,
    began: Instant,
    supervisor: Supervisor,
    publisher: Arc<Publisher>,
    workers: Vec<WorkerLink>,
    from_workers: Receiver<FromWorker>,
    signals: Signals,
    socket: Option<ControlSocket>,
    monitor: Monitor,
    probes: Probes,
    resolver: Resolver,
    listeners: Listeners,
    log: LogWriter,
    origin: Origin,
    running: Running,
    state_file: Option<StateFile>,
    /// The latest state that was given to the file.
    saving: u64,
    reloads: reload::Reloads,
    waits: Vec<Waiting>,
    /// Who asks why a core is slow.
    questions: Vec<Question>,
    evening: Evening,
    events: events::Events,
    own_uid: u32,
    /// When the first stop signal came.
    stopped_ms: Option<u64>,
    ended: Option<Ended>,
}

impl Control {
    /// Ready to run.
    ///
    /// # Errors
    /// A descriptor cannot be waited on.
    pub fn new(parts: Parts) -> io::Result<Control> {
        for fd in parts.signals.fds() {
            parts.door.poll.registry().register(&mut SourceFd(&fd), SIGNALS, Interest::READABLE)?;
        }
        let evening = Evening::new(parts.workers.len(), Instant::now());
        let probes = Probes::new(parts.door.registry()?, FIRST_PROBE);
        Ok(Control {
            door: parts.door,
            began: parts.began,
            supervisor: parts.supervisor,
            publisher: parts.publisher,
            workers: parts.workers,
            from_workers: parts.from_workers,
            signals: parts.signals,
            socket: parts.socket,
            monitor: parts.monitor,
            probes,
            resolver: parts.resolver,
            listeners: parts.listeners,
            log: parts.log,
            origin: parts.origin,
            running: parts.running,
            state_file: parts.state_file,
            saving: 0,
            reloads: reload::Reloads::default(),
            waits: Vec::new(),
            questions: Vec::new(),
            evening,
            events: events::Events::default(),
            own_uid: machine::own_uid(),
            stopped_ms: None,
            ended: None,
        })
    }

    /// Runs until the process is to end. The log's writer is returned, to be finished last.
    pub fn run(mut self) -> (Ended, LogWriter) {
        let mut events = Events::with_capacity(1024);
        loop {
            match self.door.poll.poll(&mut events, Some(self.patience())) {
                Err(e) if e.kind() != io::ErrorKind::Interrupted => {
                    // Nothing can be waited for any more: without a pause this would spin.
                    tracing::error!("control: poll failed: {e}");
                    std::thread::sleep(Duration::from_millis(100));
                }
                _ => {}
            }
            for event in &events {
                self.event(event.token());
            }
            self.hear_workers();
            self.hear_resolver();
            self.keep_time();
            self.requests();
            self.monitor();
            self.go_on_reloading();
            self.go_on_waiting();
            self.go_on_asking();
            self.even_cores(Instant::now());
            self.look_at_queues(Instant::now());
            self.stream_events();
            if let Some(ended) = self.ended {
                return (ended, self.log);
            }
        }
    }

    /// Milliseconds as the supervisor counts them.
    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    /// How long there is nothing to do.
    fn patience(&self) -> Duration {
        if !self.from_workers.is_empty() {
            return Duration::ZERO;
        }
        let supervisor = self.supervisor.next_deadline().map(|ms| self.began + Duration::from_millis(ms));
        let now = Instant::now();
        let deadlines = [
            supervisor,
            self.monitor.deadline(now),
            self.probes.deadline(),
            self.resolver.deadline(),
            self.reloads.deadline(now),
            self.even_deadline(),
            self.questions.iter().map(|question| question.deadline(now)).min(),
            self.socket.as_ref().and_then(ControlSocket::deadline),
        ];
        let waits = self.waits.iter().map(|waiting| waiting.deadline(now)).min();
        let soonest = deadlines.into_iter().chain([waits]).flatten().map(|at| at.saturating_duration_since(now)).min();
        soonest.map_or(NAP, |wait| wait.min(NAP))
    }

    fn event(&mut self, token: Token) {
        match token {
            BELL => {}
            SIGNALS => self.take_signals(),
            token => match &mut self.socket {
                Some(socket) if socket.owns(token) => socket.event(token, Instant::now()),
                _ if self.monitor.event(token, Instant::now()) => {}
                _ => {
                    if let Some(outcome) = self.probes.event(token) {
                        self.probed(outcome);
                    }
                }
            },
        }
    }

    fn take_signals(&mut self) {
        for signal in self.signals.take() {
            match signal {
                Signal::Reload => {
                    tracing::info!("SIGHUP: reload");
                    self.order_reload(Asker::Signal, Reload::default());
                }
                Signal::Reopen => match self.reopen_log() {
                    Ok(()) => tracing::info!("SIGUSR1: the access log was opened again"),
                    Err(why) => tracing::error!("SIGUSR1: {why}"),
                },
                Signal::Stop => self.stop(),
            }
        }
    }

    /// Opens the access log again, as rotation wants it: lines that are written from now on go to what has the path now.
    /// None is lost and none is torn, but for a moment some still go to the old file.
    ///
    /// # Errors
    /// It cannot be opened; the old one is kept.
    fn reopen_log(&self) -> Result<(), String> {
        match Sink::open(&self.supervisor.snapshot().settings.log_target) {
            Ok(sink) => {
                self.log.set(sink);
                Ok(())
            }
            Err(e) => Err(format!("the access log cannot be opened, the old one is kept: {e}")),
        }
    }

    fn stop(&mut self) {
        let now = self.now_ms();
        // timeout(1) and terminals signal the process and its group: one stop may come twice within a moment.
        if self.stopped_ms.is_some_and(|before| now < before + limits::STOP_AGAIN_MS) {
            return;
        }
        match self.supervisor.drain(now) {
            Some(seconds) => {
                self.stopped_ms = Some(now);
                tracing::info!("stop: draining for at most {seconds} s; a second signal ends at once");
                self.note(Happening::Draining { seconds });
                self.tell_all(|| ToWorker::Drain { seconds });
                self.ring_all();
            }
            None => {
                tracing::warn!("stop: a second signal, ending at once");
                self.ended = Some(Ended::AtOnce);
            }
        }
    }

    fn hear_workers(&mut self) {
        let mut reported = BTreeSet::new();
        let messages: Vec<FromWorker> = self.from_workers.try_iter().take(MESSAGES_PER_TURN).collect();
        for message in messages {
            match message {
                FromWorker::Report { backend, .. } => drop(reported.insert(backend)),
                // Large tables are freed here, where nobody waits.
                FromWorker::Retired(snapshot) => drop(snapshot),
                FromWorker::Drained { core, cut } => {
                    let actions = self.supervisor.drained(core, cut, self.now_ms());
                    self.act(actions);
                }
            }
        }
        let lost = |worker: &WorkerLink| worker.stats.look_at_all.swap(false, Ordering::AcqRel);
        // Every flag is to be cleared, so no short cut.
        let actions = if self.workers.iter().filter(|worker| lost(worker)).count() > 0 {
            self.supervisor.look_at_all(self.now_ms())
        } else {
            let now = self.now_ms();
            reported.into_iter().flat_map(|backend| self.supervisor.look(backend, now)).collect()
        };
        self.act(actions);
    }

    fn hear_resolver(&mut self) {
        for (name, answer) in self.resolver.take() {
            self.reloads.resolved(&name, &answer);
            if let Some(committed) = self.supervisor.resolved(&name, answer, self.now_ms()) {
                self.tell(Happening::Resolved { name, epoch: committed.snapshot.epoch });
                self.carry_out(committed, Vec::new());
            }
        }
    }

    fn keep_time(&mut self) {
        let now = Instant::now();
        for outcome in self.probes.expire(now) {
            self.probed(outcome);
        }
        if let Some(socket) = &mut self.socket {
            socket.expire(now);
        }
        self.resolver.tick(now);
        let actions = self.supervisor.tick(self.now_ms());
        self.act(actions);
    }

    fn probed(&mut self, outcome: Outcome) {
        let actions = self.supervisor.probe_result(outcome.id, outcome.verdict, self.now_ms());
        self.act(actions);
    }

    fn requests(&mut self) {
        while let Some(line) = self.socket.as_mut().and_then(ControlSocket::next_line) {
            self.request(line);
        }
    }

    /// Answers whoever asked; a signal hears nothing.
    fn reply(&mut self, asker: &Asker, result: Result<impl Serialize, Error>) {
        let Asker::Client { client, id, .. } = asker else { return };
        let answer = match result {
            Ok(result) => Answer::ok(id.clone(), &result),
            Err(error) => Answer::error(Some(id.clone()), error),
        };
        self.answer(*client, &answer);
    }

    fn answer(&mut self, client: socket::ClientId, answer: &Answer) {
        if let Some(socket) = &mut self.socket {
            socket.answer(client, answer.to_line().as_bytes(), Instant::now());
        }
    }

    /// Has patches and overrides written down, if there is a file for it.
    fn save_state(&mut self) {
        let Some(file) = &mut self.state_file else { return };
        let patches = self.running.told(0).patches;
        self.saving = file.save(&State { v: state::VERSION, patches, overrides: self.supervisor.overrides() });
    }
}
