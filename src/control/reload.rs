//! One reload after another: read, check, resolve new names, prepare, open, commit, publish, wait for the workers, answer.
//!
//! Up to the commit nothing has changed, and whatever fails rejects the whole. Two things are waited for, without holding
//! up the loop: names that were never resolved (with a limit: what has no address by then gets it later), and the workers'
//! word that they run on the new table, so that a receipt means just that.

use super::resolve;
use super::socket::{ClientId, Line, Peer};
use super::{Control, Origin, answers};
use crate::access_log::Sink;
use crate::config::answer::{Answer, Code, Error, Id};
use crate::config::command::{self, Command, Request};
use crate::config::{Plan, check};
use crate::limits;
use crate::supervisor::{Change, Refusal, Resolutions, names_of};
use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Seconds that workers get to take over a new table before the receipt is given without them.
const ACKNOWLEDGE: Duration = Duration::from_secs(5);
/// Between two looks whether they have.
const ACKNOWLEDGE_LOOK: Duration = Duration::from_millis(2);
/// Messages a worker may leave untaken before it counts as stuck and nothing more is asked of it.
const UNTAKEN_MAX: usize = 1024;

/// Who wants a reload.
#[derive(Clone, Debug)]
enum Asker {
    Signal,
    Client { client: ClientId, peer: Peer, id: Id },
}

#[derive(Debug)]
struct Order {
    asker: Asker,
    /// What to read and how to call it; by default the file of the start.
    source: command::Reload,
}

#[derive(Debug)]
enum Stage {
    Resolving { plan: Box<Plan>, names: BTreeSet<String>, answers: Resolutions, until: Instant },
    Acknowledging { receipt: Box<Receipt>, until: Instant },
}

/// What a reload has done.
#[derive(Clone, Debug)]
pub(super) struct Receipt {
    pub generation: u64,
    pub epoch: u64,
    pub change: Change,
    pub workers: usize,
    /// Workers that run on it.
    pub acknowledged: usize,
    pub took: Duration,
}

/// The reload under way and those that wait for it.
#[derive(Debug)]
pub(super) struct Reloads {
    origin: Origin,
    /// Bounded: each client of the control socket has one request at a time, and signals count once.
    waiting: VecDeque<Order>,
    current: Option<(Asker, Instant, Stage)>,
}

impl Reloads {
    pub(super) fn new(origin: Origin) -> Reloads {
        Reloads { origin, waiting: VecDeque::new(), current: None }
    }

    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    pub(super) fn order_by_signal(&mut self) {
        // The file is read when its turn comes, so that one in the line stands for all.
        if !self.waiting.iter().any(|order| matches!(order.asker, Asker::Signal)) {
            self.waiting.push_back(Order { asker: Asker::Signal, source: command::Reload::default() });
        }
    }

    /// A name was answered; the reload under way may wait for it.
    pub(super) fn resolved(&mut self, name: &str, answer: &resolve::Answer) {
        if let Some((_, _, Stage::Resolving { names, answers, .. })) = &mut self.current
            && names.contains(name)
        {
            answers.record(name, answer.clone());
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.current {
            None if self.waiting.is_empty() => None,
            None => Some(Instant::now()),
            Some((_, _, Stage::Resolving { until, .. })) => Some(*until),
            Some((_, _, Stage::Acknowledging { .. })) => Some(Instant::now() + ACKNOWLEDGE_LOOK),
        }
    }
}

impl Control {
    /// Takes a request from the control socket. Every one is answered, now or when it is done.
    pub(super) fn request(&mut self, line: Line) {
        let request = match Request::parse(&line.bytes) {
            Ok(request) => request,
            Err(garbage) => {
                let answer = Answer::error(garbage.id, garbage.error).to_line();
                return self.answer(line.client, answer.as_bytes());
            }
        };
        match request.command {
            Command::Status => {
                let status = self.status(request.id);
                self.answer(line.client, &status);
            }
            Command::Reload(source) => {
                let asker = Asker::Client { client: line.client, peer: line.peer, id: request.id };
                self.reloads.waiting.push_back(Order { asker, source });
            }
        }
    }

    fn status(&self, id: Id) -> Vec<u8> {
        let sources = answers::Sources {
            status: &self.supervisor.status(),
            workers: &self.workers,
            listeners: self.supervisor.listeners(),
            driver: self.reloads.origin.driver,
            since: self.reloads.origin.since,
            now_ms: self.now_ms(),
        };
        answers::status(id, &sources)
    }

    /// Takes the reload under way as far as it goes now, then the next.
    pub(super) fn go_on_reloading(&mut self) {
        loop {
            let Some((asker, began, stage)) = self.reloads.current.take() else {
                let Some(order) = self.reloads.waiting.pop_front() else { return };
                let now = Instant::now();
                match self.begin(order.source) {
                    Ok(stage) => self.reloads.current = Some((order.asker, now, stage)),
                    Err(why) => self.rejected(order.asker, why),
                }
                continue;
            };
            match stage {
                Stage::Resolving { plan, names, answers, until } => {
                    if !self.resolver.has_answered(&names) && Instant::now() < until {
                        let stage = Stage::Resolving { plan, names, answers, until };
                        self.reloads.current = Some((asker, began, stage));
                        return;
                    }
                    match self.commit(*plan, answers, began) {
                        Ok(receipt) => {
                            let until = Instant::now() + ACKNOWLEDGE;
                            self.reloads.current =
                                Some((asker, began, Stage::Acknowledging { receipt: Box::new(receipt), until }));
                        }
                        Err(why) => self.rejected(asker, why),
                    }
                    self.resolver.want(self.supervisor.names_to_resolve(), Instant::now());
                }
                Stage::Acknowledging { mut receipt, until } => {
                    let runs_on_it =
                        |stats: &crate::event::CoreStats| stats.epoch.load(Ordering::Acquire) >= receipt.epoch;
                    receipt.acknowledged = self.workers.iter().filter(|worker| runs_on_it(&worker.stats)).count();
                    if receipt.acknowledged < receipt.workers && Instant::now() < until {
                        self.reloads.current = Some((asker, began, Stage::Acknowledging { receipt, until }));
                        return;
                    }
                    receipt.took = began.elapsed();
                    self.done(asker, &receipt);
                }
            }
        }
    }

    fn begin(&mut self, source: command::Reload) -> Result<Stage, Error> {
        let origin = &self.reloads.origin;
        let file = source.file.map_or_else(|| origin.file.clone(), PathBuf::from);
        let text = match source.content {
            Some(text) => text,
            None => read_config(&file).map_err(|why| Error::new(Code::Failed, why))?,
        };
        let plan = check::load_for(&text, &file.to_string_lossy(), self.workers.len(), origin.open_files_max)?;
        let known = self.supervisor.names_to_resolve();
        let new: BTreeSet<String> = names_of(&plan).difference(&known).cloned().collect();
        let now = Instant::now();
        if !new.is_empty() {
            self.resolver.want(known.union(&new).cloned().collect(), now);
        }
        let until = now + Duration::from_secs(limits::RESOLVE_PATIENCE_SECONDS);
        Ok(Stage::Resolving { plan: Box::new(plan), names: new, answers: Resolutions::default(), until })
    }

    fn commit(&mut self, plan: Plan, answers: Resolutions, began: Instant) -> Result<Receipt, Error> {
        let before = self.publisher.current();
        let target = plan.settings.log_target.clone();
        let (status_listen, warnings) = (plan.status_listen.clone(), plan.warnings());
        let prepared = self.supervisor.prepare(plan, answers).map_err(refused)?;
        if let Some(core) = self.workers.iter().position(|worker| worker.inbox.len() > UNTAKEN_MAX) {
            return Err(Error::new(Code::Failed, format!("worker {core} does not take its messages")));
        }
        let wanted = prepared.listeners_to_open();
        let opened = self.listeners.open(&wanted, self.workers.len()).map_err(|(name, why)| {
            let key = format!("$.listeners.{name}");
            Error::not_applicable(&key, format!("{key}: {why}"))
        })?;
        let sink = if before.settings.log_target == target {
            None
        } else {
            Some(Sink::open(&target).map_err(|e| Error::not_applicable("$.log.access", format!("$.log.access: {e}")))?)
        };
        let monitor = self.monitor.open(status_listen.as_ref()).map_err(|e| {
            let key = "$.status.listen";
            Error::not_applicable(key, format!("{key}: {e}"))
        })?;
        if let (Some(mode), Some(socket)) = (prepared.change().control_mode, &self.socket) {
            socket
                .set_mode(mode)
                .map_err(|e| Error::not_applicable("$.control.mode", format!("$.control.mode: {e}")))?;
        }

        let committed = self.supervisor.commit(prepared, self.now_ms());
        let receipt = Receipt {
            generation: committed.snapshot.generation,
            epoch: committed.snapshot.epoch,
            change: committed.change.clone(),
            workers: self.workers.len(),
            acknowledged: 0,
            took: began.elapsed(),
        };
        if let Some(sink) = sink {
            self.log.set(sink);
        }
        self.monitor.install(status_listen.as_ref(), monitor);
        warnings.iter().for_each(|warning| tracing::warn!("reload: {warning}"));
        self.carry_out(committed, opened);
        self.monitor.reload_done();
        Ok(receipt)
    }

    fn done(&mut self, asker: Asker, receipt: &Receipt) {
        let Receipt { generation, workers, acknowledged, took, .. } = receipt;
        let who = asker.audit();
        tracing::info!("reload {who}: generation {generation} after {} ms", took.as_millis());
        if acknowledged < workers {
            tracing::warn!("reload: {acknowledged} of {workers} workers run on generation {generation} so far");
        }
        if let Asker::Client { client, id, .. } = asker {
            self.answer(client, &answers::receipt(id, receipt));
        }
    }

    fn rejected(&mut self, asker: Asker, error: Error) {
        self.monitor.reload_rejected();
        tracing::error!("reload {}: rejected, nothing has changed: {}", asker.audit(), error.message);
        for fault in &error.faults {
            tracing::error!("reload: {}:{}: {}: {}", fault.line, fault.column, fault.path, fault.message);
        }
        if let Asker::Client { client, id, .. } = asker {
            self.answer(client, Answer::error(Some(id), error).to_line().as_bytes());
        }
    }
}

impl Asker {
    /// Who did it, for the log.
    fn audit(&self) -> String {
        match self {
            Asker::Signal => "by SIGHUP".to_owned(),
            Asker::Client { peer, .. } => format!("by uid {}, pid {}", peer.uid, peer.pid),
        }
    }
}

fn refused(refusal: Refusal) -> Error {
    let message = refusal.to_string();
    match refusal {
        Refusal::Restart(keys) => Error::not_applicable(keys.join(", "), message),
        _ => Error::new(Code::Failed, message),
    }
}

/// The config file's text.
///
/// # Errors
/// A sentence with the file's name.
pub fn read_config(path: &Path) -> Result<String, String> {
    let read = || {
        let mut text = String::new();
        File::open(path)?.take(limits::CONFIG_BYTES_MAX as u64 + 1).read_to_string(&mut text)?;
        Ok(text)
    };
    match read() {
        Ok(text) if text.len() > limits::CONFIG_BYTES_MAX => {
            Err(format!("{}: larger than {} bytes", path.display(), limits::CONFIG_BYTES_MAX))
        }
        Ok(text) => Ok(text),
        Err::<_, std::io::Error>(e) => Err(format!("{}: {e}", path.display())),
    }
}
