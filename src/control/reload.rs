//! One change of the config after another: read and check (in a thread of its own), resolve new names, prepare, open,
//! commit, publish. Its receipt then waits in `waits`, and the next begins.
//!
//! Up to the commit nothing has changed, and whatever fails rejects the whole. Names that were never resolved are waited
//! for, with a limit: what has no address by then gets it later.

use super::requests::Asker;
use super::running::{Checked, Machine, Wanted, work_out};
use super::{Control, answers, dry, resolve};
use crate::access_log::Sink;
use crate::config::Plan;
use crate::config::answer::{Code, Error};
use crate::config::events::Happening;
use crate::config::orders::Patience;
use crate::config::receipt::Receipt;
use crate::diff::Diff;
use crate::limits;
use crate::supervisor::{Change, Refusal, Resolutions, names_of};
use crossbeam_channel::{Receiver, TryRecvError};
use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// Messages a worker may leave untaken before it counts as stuck and nothing more is asked of it.
const UNTAKEN_MAX: usize = 1024;
/// Time for reading and checking: a file may be a pipe that nobody writes to.
const WORK_OUT: Duration = Duration::from_secs(30);

/// A change that is wanted.
#[derive(Debug)]
pub(super) struct Order {
    pub asker: Asker,
    pub wanted: Wanted,
    pub if_generation: Option<u64>,
    /// Nothing is to change: what would is the answer.
    pub dry_run: bool,
    pub patience: Patience,
}

impl Order {
    pub fn new(asker: Asker, wanted: Wanted, patience: Patience) -> Order {
        Order { asker, wanted, if_generation: None, dry_run: false, patience }
    }
}

/// What a config would be and would change, worked out elsewhere.
type Weighed = Result<Box<(Plan, Diff)>, Error>;

#[derive(Debug)]
enum Stage {
    Checking { from: Receiver<Result<Box<Checked>, Error>>, until: Instant },
    Weighing { from: Receiver<Weighed>, until: Instant },
    Resolving { checked: Box<Checked>, names: BTreeSet<String>, answers: Resolutions, until: Instant },
}

/// Whose turn it is.
#[derive(Debug)]
struct Current {
    asker: Asker,
    what: &'static str,
    patience: Patience,
    began: Instant,
    stage: Stage,
}

/// The change under way and those that wait for it.
#[derive(Debug, Default)]
pub(super) struct Reloads {
    /// Bounded: each client of the control socket has one request at a time, and signals count once.
    waiting: VecDeque<Order>,
    current: Option<Current>,
}

impl Reloads {
    pub fn order(&mut self, order: Order) {
        // The file is read when its turn comes, so that one signal in the line stands for all.
        let signal = |order: &Order| matches!(order.asker, Asker::Signal);
        if !(signal(&order) && self.waiting.iter().any(signal)) {
            self.waiting.push_back(order);
        }
    }

    /// A name was answered; the change under way may wait for it.
    pub fn resolved(&mut self, name: &str, answer: &resolve::Answer) {
        if let Some(Current { stage: Stage::Resolving { names, answers, .. }, .. }) = &mut self.current
            && names.contains(name)
        {
            answers.record(name, answer.clone());
        }
    }

    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        match self.current.as_ref().map(|current| &current.stage) {
            None if self.waiting.is_empty() => None,
            None => Some(now),
            Some(Stage::Checking { until, .. } | Stage::Weighing { until, .. } | Stage::Resolving { until, .. }) => {
                Some(*until)
            }
        }
    }
}

impl Control {
    /// Takes the change under way as far as it goes now, then the next.
    pub(super) fn go_on_reloading(&mut self) {
        loop {
            let Some(mut current) = self.reloads.current.take() else {
                let Some(order) = self.reloads.waiting.pop_front() else { return };
                self.begin(order);
                continue;
            };
            let next = match current.stage {
                Stage::Checking { from, until } => match worked_out(&from, until) {
                    Some(checked) => checked.map(|checked| self.resolve(checked)),
                    None => {
                        current.stage = Stage::Checking { from, until };
                        self.reloads.current = Some(current);
                        return;
                    }
                },
                Stage::Weighing { from, until } => match worked_out(&from, until) {
                    Some(weighed) => {
                        self.tell_weighed(&current.asker, weighed);
                        continue;
                    }
                    None => {
                        current.stage = Stage::Weighing { from, until };
                        self.reloads.current = Some(current);
                        return;
                    }
                },
                Stage::Resolving { checked, names, answers, until } => {
                    if !self.resolver.has_answered(&names) && Instant::now() < until {
                        current.stage = Stage::Resolving { checked, names, answers, until };
                        self.reloads.current = Some(current);
                        return;
                    }
                    // Changes come one after the other, so the generation is still the one that was asked for.
                    let committed = self.commit(*checked, answers);
                    self.resolver.want(self.supervisor.names_to_resolve(), Instant::now());
                    match committed {
                        Ok((receipt, change)) => {
                            let away = (change.taken_away, change.labels);
                            let who = (current.asker, current.what.to_owned());
                            self.wait_for(who, receipt, away, current.patience, current.began);
                            continue;
                        }
                        Err(why) => Err(why),
                    }
                }
            };
            match next {
                Ok(stage) => {
                    current.stage = stage;
                    self.reloads.current = Some(current);
                }
                Err(why) => self.rejected(&current.asker, current.what, why),
            }
        }
    }

    fn begin(&mut self, order: Order) {
        let Order { asker, wanted, if_generation, dry_run, patience } = order;
        let what = if matches!(wanted, Wanted::Patch { .. }) { "apply" } else { "reload" };
        let runs = self.supervisor.snapshot().generation;
        if let Some(meant) = if_generation.filter(|meant| *meant != runs) {
            let message = format!("meant for generation {meant}, but {runs} runs; nothing has changed");
            return self.rejected(&asker, what, Error::new(Code::OtherGeneration, message));
        }
        let machine = Machine { cores: self.workers.len(), open_files_max: self.origin.open_files_max };
        let (began, running) = (Instant::now(), self.running.clone());
        let until = began + WORK_OUT;
        let stage = if dry_run {
            let now = self.publisher.current();
            work_out(move || dry::reload(&running, wanted, machine, &now).map(Box::new), self.door.ring())
                .map(|from| Stage::Weighing { from, until })
        } else {
            work_out(move || running.with(wanted, machine).map(Box::new), self.door.ring())
                .map(|from| Stage::Checking { from, until })
        };
        match stage {
            Ok(stage) => self.reloads.current = Some(Current { asker, what, patience, began, stage }),
            Err(e) => self.rejected(&asker, what, Error::new(Code::Failed, format!("no thread for the check: {e}"))),
        }
    }

    /// The answer to a dry run. Addresses and files are not tried.
    fn tell_weighed(&mut self, asker: &Asker, weighed: Weighed) {
        let told = weighed.map(|weighed| {
            let (plan, diff) = *weighed;
            let refused = self.supervisor.prepare(plan, Resolutions::default()).err().map(|why| why.to_string());
            Diff { refused, ..diff }
        });
        match told {
            Ok(diff) => self.reply(asker, Ok(diff)),
            Err(why) => self.refuse(asker, why),
        }
    }

    fn resolve(&mut self, checked: Box<Checked>) -> Stage {
        let known = self.supervisor.names_to_resolve();
        let names: BTreeSet<String> = names_of(&checked.1).difference(&known).cloned().collect();
        let now = Instant::now();
        if !names.is_empty() {
            self.resolver.want(known.union(&names).cloned().collect(), now);
        }
        let until = now + Duration::from_secs(limits::RESOLVE_PATIENCE_SECONDS);
        Stage::Resolving { checked, names, answers: Resolutions::default(), until }
    }

    fn commit(&mut self, (running, plan): Checked, answers: Resolutions) -> Result<(Receipt, Change), Error> {
        let target = plan.settings.log_target.clone();
        let target = (self.publisher.current().settings.log_target != target).then_some(target);
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
        let sink = match target {
            Some(target) => Some(
                Sink::open(&target).map_err(|e| Error::not_applicable("$.log.access", format!("$.log.access: {e}")))?,
            ),
            None => None,
        };
        let monitor = self.monitor.open(status_listen.as_ref()).map_err(|e| {
            let key = "$.status.listen";
            Error::not_applicable(key, format!("{key}: {e}"))
        })?;
        if let (Some(access), Some(socket)) = (&prepared.change().control_access, &self.socket) {
            socket.set_access(access).map_err(|(key, e)| Error::not_applicable(key, format!("{key}: {e}")))?;
        }
        warnings.iter().for_each(|warning| tracing::warn!("reload: {warning}"));
        let committed = self.supervisor.commit(prepared, self.now_ms());
        self.running = running;
        let receipt = Receipt {
            generation: committed.snapshot.generation,
            epoch: committed.snapshot.epoch,
            changed: answers::changed(&committed.change),
            warnings,
            ..self.running_receipt()
        };
        let change = committed.change.clone();
        if let Some(sink) = sink {
            self.log.set(sink);
        }
        self.monitor.install(status_listen.as_ref(), monitor);
        self.carry_out(committed, opened);
        self.monitor.reload_done();
        self.save_state();
        Ok((receipt, change))
    }

    fn rejected(&mut self, asker: &Asker, what: &str, error: Error) {
        self.monitor.reload_rejected();
        let (who, why) = (asker.audit(), error.message.clone());
        tracing::error!("{what} {who}: rejected, nothing has changed: {why}");
        self.note(Happening::Rejected { command: what.to_owned(), who, why });
        for fault in &error.faults {
            tracing::error!("{what}: {}:{}: {}: {}", fault.line, fault.column, fault.path, fault.message);
        }
        self.refuse(asker, error);
    }
}

/// What a thread has worked out; `None` if it is still at it and has time left.
fn worked_out<T>(from: &Receiver<Result<T, Error>>, until: Instant) -> Option<Result<T, Error>> {
    let failed = |message: String| Some(Err(Error::new(Code::Failed, message)));
    match from.try_recv() {
        Ok(done) => Some(done),
        Err(TryRecvError::Empty) if Instant::now() < until => None,
        Err(TryRecvError::Empty) => failed(format!("the config could not be read within {} s", WORK_OUT.as_secs())),
        Err(TryRecvError::Disconnected) => failed("a bug ended the check".to_owned()),
    }
}

fn refused(refusal: Refusal) -> Error {
    let message = refusal.to_string();
    match refusal {
        Refusal::Restart(keys) => Error::not_applicable(keys.join(", "), message),
        _ => Error::new(Code::Failed, message),
    }
}
