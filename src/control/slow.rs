//! `why-slow`: every core measures for a while what each connection costs, and then names those that cost most. Several who ask
//! wait side by side.

use super::Control;
use super::requests::Asker;
use crate::config::receipt::{Busy, Hog, Slow};
use crate::event::{self, ToWorker};
use crate::limits;
use crate::publish::Snapshot;
use crossbeam_channel::{Receiver, bounded};
use std::time::{Duration, Instant};

/// Between two looks whether all have answered: the answers ring no bell.
const LOOK: Duration = Duration::from_millis(2);
/// Time that the cores get to answer; then those that did are told.
const ANSWER: Duration = Duration::from_secs(2);

/// One question that has no answer yet.
#[derive(Debug)]
pub(super) struct Question {
    asker: Asker,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Measuring { until: Instant },
    Hearing { until: Instant, answers: Receiver<event::Hogs>, heard: Vec<event::Hogs> },
}

impl Question {
    /// When there is something to look at.
    pub(super) fn deadline(&self, now: Instant) -> Instant {
        match &self.stage {
            Stage::Measuring { until } => *until,
            Stage::Hearing { until, .. } => (*until).min(now + LOOK),
        }
    }
}

impl Control {
    /// Has the cores measure, to be answered after so many milliseconds.
    pub(super) fn ask_why_slow(&mut self, asker: Asker, ms: u64) {
        let time = Duration::from_millis(ms.clamp(1, limits::WEIGH_MS_MAX));
        self.tell_all(|| ToWorker::Weigh);
        self.ring_all();
        self.questions.push(Question { asker, stage: Stage::Measuring { until: Instant::now() + time } });
    }

    /// Takes every question as far as it goes now.
    pub(super) fn go_on_asking(&mut self) {
        for mut question in std::mem::take(&mut self.questions) {
            let now = Instant::now();
            if let Stage::Measuring { until } = question.stage
                && until <= now
            {
                let (answer, answers) = bounded(self.workers.len());
                self.tell_all(|| ToWorker::Hogs { answer: answer.clone() });
                self.ring_all();
                question.stage = Stage::Hearing { until: now + ANSWER, answers, heard: Vec::new() };
            }
            match &mut question.stage {
                Stage::Hearing { until, answers, heard } => {
                    heard.extend(answers.try_iter());
                    if heard.len() < self.workers.len() && now < *until {
                        self.questions.push(question);
                        continue;
                    }
                    let slow = told(std::mem::take(heard), self.workers.len(), &self.supervisor.snapshot());
                    self.reply(&question.asker, Ok(slow));
                }
                Stage::Measuring { .. } => self.questions.push(question),
            }
        }
    }
}

fn told(mut heard: Vec<event::Hogs>, cores: usize, snapshot: &Snapshot) -> Slow {
    heard.sort_by_key(|core| core.core);
    let silent = (0..cores).filter(|core| heard.iter().all(|one| one.core != *core)).collect();
    let cores = heard.into_iter().map(|core| Busy {
        core: core.core,
        took_us: core.took_us,
        cpu_us: core.cpu_us,
        waited_us: core.waited_us,
        longest_turn_us: core.longest_turn_us,
        connections: core.connections as u64,
        hogs: core.named.iter().map(|hog| named(hog, core.cost_us, snapshot)).collect(),
    });
    Slow { cores: cores.collect(), silent }
}

fn named(hog: &event::Hog, all_us: u64, snapshot: &Snapshot) -> Hog {
    let clusters = snapshot.table.clusters();
    let cluster = hog.cluster.and_then(|id| clusters.iter().find(|cluster| cluster.id == id));
    Hog {
        client: hog.peer.map_or_else(|| "unix".to_owned(), |peer| peer.to_string()),
        listener: snapshot.settings.listener(hog.listener).map(|l| l.name.to_string()).unwrap_or_default(),
        cluster: cluster.map(|cluster| cluster.name.to_string()),
        share_permille: (hog.cost_us * 1000 / all_us.max(1)) as u32,
        cost_us: hog.cost_us,
        longest_us: hog.longest_us,
        requests: hog.served.into(),
        received: hog.carried.map(|[received, _]| received),
        sent: hog.carried.map(|[_, sent]| sent),
    }
}
