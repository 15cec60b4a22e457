//! Receipts that are not ready yet: until every worker runs on a change, and, where it was asked for, until nothing remains
//! on what was taken away. They wait side by side and hold up neither the loop nor each other.

use super::requests::Asker;
use super::{Control, answers};
use crate::config::answer::{Code, Error};
use crate::config::events::Happening;
use crate::config::orders::{Patience, Wait};
use crate::config::receipt::{Ack, Left, Receipt};
use crate::event::{Remains, TakenAway, ToWorker};
use crate::limits;
use crate::supervisor::Labels;
use crate::worker::net::os::clock_us;
use crossbeam_channel::{Receiver, bounded};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Between two looks whether workers have taken over.
const ACKNOWLEDGE_LOOK: Duration = Duration::from_millis(2);
/// Between two questions what remains.
const REMAINS_LOOK: Duration = Duration::from_millis(50);

/// A change that was published, and what its receipt waits for.
#[derive(Debug)]
pub(super) struct Waiting {
    pub asker: Asker,
    /// In a word or two, for the log.
    pub what: String,
    pub receipt: Box<Receipt>,
    /// What the state file has to have; 0 without one.
    pub saving: u64,
    /// What is taken away by it.
    pub away: Arc<TakenAway>,
    pub labels: Labels,
    pub patience: Patience,
    /// When it was asked for.
    pub began: Instant,
    /// When it was published, by the workers' clock.
    pub published_us: u64,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Acknowledging { until: Instant },
    Draining { until: Instant, next: Instant, asked: Option<Asked> },
}

/// A question to all workers.
#[derive(Debug)]
struct Asked {
    answers: Receiver<(usize, Vec<Remains>)>,
    heard: Vec<(usize, Vec<Remains>)>,
}

impl Waiting {
    pub fn new(
        (asker, what): (Asker, String),
        (receipt, saving): (Receipt, u64),
        (away, labels): (TakenAway, Labels),
        patience: Patience,
        began: Instant,
    ) -> Waiting {
        Waiting {
            asker,
            what,
            receipt: Box::new(receipt),
            saving,
            away: Arc::new(away),
            labels,
            patience,
            began,
            published_us: clock_us(),
            stage: Stage::Acknowledging { until: Instant::now() + Duration::from_secs(limits::ACKNOWLEDGE_SECONDS) },
        }
    }

    fn unsaved(&mut self, why: String) {
        self.receipt.saved = Some(false);
        self.receipt.warnings.push(format!("in force, but it would not survive a restart: {why}"));
    }

    /// When there is something to look at.
    pub fn deadline(&self, now: Instant) -> Instant {
        match &self.stage {
            Stage::Acknowledging { until } => (*until).min(now + ACKNOWLEDGE_LOOK),
            Stage::Draining { until, next, asked: None } => (*until).min(*next),
            // The answers ring no bell.
            Stage::Draining { until, .. } => (*until).min(now + ACKNOWLEDGE_LOOK),
        }
    }
}

impl Control {
    /// The parts of a receipt that are the same for all changes.
    pub(super) fn running_receipt(&self) -> Receipt {
        Receipt { hash: self.running.hash().to_owned(), patches: self.running.patches().len(), ..Receipt::default() }
    }

    /// A change was published: its receipt is given when it is ready.
    pub(super) fn wait_for(
        &mut self,
        who: (Asker, String),
        receipt: Receipt,
        away: (TakenAway, Labels),
        patience: Patience,
        began: Instant,
    ) {
        self.note(Happening::Changed {
            command: who.1.clone(),
            who: who.0.audit(),
            generation: receipt.generation,
            epoch: receipt.epoch,
            changed: receipt.changed.clone(),
        });
        let saving = if self.state_file.is_some() { self.saving } else { 0 };
        self.waits.push(Waiting::new(who, (receipt, saving), away, patience, began));
    }

    /// Takes every waiting receipt as far as it goes now.
    pub(super) fn go_on_waiting(&mut self) {
        for waiting in std::mem::take(&mut self.waits) {
            if let Some(waiting) = self.look_at_wait(waiting) {
                self.waits.push(waiting);
            }
        }
    }

    fn look_at_wait(&mut self, mut waiting: Waiting) -> Option<Waiting> {
        let now = Instant::now();
        if let Stage::Acknowledging { until } = waiting.stage {
            self.collect_acks(&mut waiting);
            if waiting.receipt.acknowledged < self.workers.len() {
                if now < until {
                    return Some(waiting);
                }
                return self.not_acknowledged(waiting);
            }
            if waiting.patience.wait == Wait::Acked {
                return self.done(waiting);
            }
            let seconds = waiting.patience.seconds.unwrap_or(limits::WAIT_SECONDS).min(limits::WAIT_SECONDS_MAX);
            let until = waiting.began + Duration::from_secs(seconds);
            waiting.stage = Stage::Draining { until, next: now, asked: None };
        }
        let Stage::Draining { until, next, asked } = &mut waiting.stage else { return None };
        if asked.is_none() && *next <= now {
            *asked = Some(self.ask(&waiting.away));
        }
        if let Some(question) = asked {
            question.heard.extend(question.answers.try_iter());
            if question.heard.len() == self.workers.len() {
                let left = left(&question.heard, &waiting.labels);
                (*next, *asked) = (now + REMAINS_LOOK, None);
                let empty = left.is_empty();
                waiting.receipt.left = Some(left);
                if empty {
                    return self.done(waiting);
                }
            }
        }
        if *until <= now {
            return self.not_drained(waiting);
        }
        Some(waiting)
    }

    /// Whether the state file has it; `None` as long as that is not known.
    fn saved(&self, waiting: &Waiting) -> Option<Result<(), String>> {
        match &self.state_file {
            Some(file) if waiting.saving > 0 => file.saved(waiting.saving),
            _ => Some(Ok(())),
        }
    }

    pub(super) fn refuse(&mut self, asker: &Asker, error: Error) {
        self.reply(asker, Err::<(), Error>(error));
    }

    fn ask(&self, away: &Arc<TakenAway>) -> Asked {
        let (answer, answers) = bounded(self.workers.len());
        self.tell_all(|| ToWorker::Count { on: away.clone(), answer: answer.clone() });
        self.ring_all();
        Asked { answers, heard: Vec::new() }
    }

    /// Notes which workers run on the change, and since when.
    fn collect_acks(&self, waiting: &mut Waiting) {
        let unix_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_micros() as u64);
        let offset = unix_us.saturating_sub(clock_us());
        let receipt = &mut waiting.receipt;
        receipt.acks.clear();
        for (core, worker) in self.workers.iter().enumerate() {
            if worker.stats.epoch.load(Acquire) >= receipt.epoch {
                let at = worker.stats.epoch_at_us.load(Relaxed);
                receipt.acks.push(Ack { core, at_us: offset + at, after_us: at.saturating_sub(waiting.published_us) });
            }
        }
        receipt.workers = self.workers.len();
        receipt.acknowledged = receipt.acks.len();
    }

    fn done(&mut self, mut waiting: Waiting) -> Option<Waiting> {
        match self.saved(&waiting) {
            // An answer is not held back for ever by a disk.
            None if waiting.began.elapsed() < Duration::from_secs(limits::ACKNOWLEDGE_SECONDS) => return Some(waiting),
            None => waiting.unsaved("the state file could not be written in time".to_owned()),
            Some(Err(why)) => waiting.unsaved(why),
            Some(Ok(())) if waiting.saving > 0 => waiting.receipt.saved = Some(true),
            Some(Ok(())) => {}
        }
        self.sign(&mut waiting);
        let Receipt { generation, epoch, .. } = *waiting.receipt;
        let (what, took) = (&waiting.what, waiting.receipt.took_ms);
        tracing::info!("{what} {}: generation {generation}, epoch {epoch}, after {took} ms", waiting.asker.audit());
        self.reply(&waiting.asker, Ok(&*waiting.receipt));
        None
    }

    fn not_acknowledged(&mut self, mut waiting: Waiting) -> Option<Waiting> {
        self.sign(&mut waiting);
        let missing: Vec<String> = (0..self.workers.len())
            .filter(|core| waiting.receipt.acks.iter().all(|ack| ack.core != *core))
            .map(|core| core.to_string())
            .collect();
        let message = format!(
            "the change is published as epoch {}, but worker {} has not taken it over within {} s",
            waiting.receipt.epoch,
            missing.join(", "),
            limits::ACKNOWLEDGE_SECONDS
        );
        self.fail(waiting, Code::NotAcknowledged, message)
    }

    fn not_drained(&mut self, mut waiting: Waiting) -> Option<Waiting> {
        self.sign(&mut waiting);
        let left = waiting.receipt.left.iter().flatten().map(answers::left).collect::<Vec<_>>();
        let left = if left.is_empty() { "not every worker has said what".to_owned() } else { left.join("; ") };
        let message = format!("the change is in force, but something is left: {left}");
        self.fail(waiting, Code::NotDrained, message)
    }

    fn fail(&mut self, waiting: Waiting, code: Code, message: String) -> Option<Waiting> {
        tracing::warn!("{} {}: {message}", waiting.what, waiting.asker.audit());
        let error = Error { receipt: Some(waiting.receipt), ..Error::new(code, message) };
        self.refuse(&waiting.asker, error);
        None
    }

    /// Fills in what holds from here on.
    fn sign(&self, waiting: &mut Waiting) {
        let receipt = &mut waiting.receipt;
        receipt.took_ms = waiting.began.elapsed().as_millis() as u64;
        receipt.claim = match receipt.acks.iter().map(|ack| ack.at_us).max() {
            Some(at) if receipt.acknowledged == receipt.workers => {
                format!("no request was started on the state before epoch {} after {}", receipt.epoch, answers::utc(at))
            }
            _ => "none: not every worker has taken it over".to_owned(),
        };
    }
}

/// What remains, by core and by what it is on, with names.
fn left(heard: &[(usize, Vec<Remains>)], labels: &Labels) -> Vec<Left> {
    let mut left = Vec::new();
    for (core, remains) in heard {
        for one in remains {
            let backend = one.backend.and_then(|id| labels.backends.get(&id));
            let of = backend.or_else(|| labels.clusters.get(&one.cluster)).cloned().unwrap_or_default();
            left.push(Left {
                core: *core,
                of,
                exchanges: u64::from(one.exchanges),
                tunnels: u64::from(one.tunnels),
                queued: u64::from(one.queued),
                pooled: u64::from(one.pooled),
            });
        }
    }
    left.sort_by(|a, b| (a.core, &a.of).cmp(&(b.core, &b.of)));
    left
}
