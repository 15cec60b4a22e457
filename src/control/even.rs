//! Work spread over the cores: once a second control looks at their loads, and tells those that have much more than another
//! one to give some of it away. What is decided is `cores`, which is pure.

use super::Control;
use crate::config::events::Happening;
use crate::cores::{Reading, Spread};
use crate::event::{CoreStats, ToWorker};
use crate::limits;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Between two looks, as between two ticks of a core.
const LOOK: Duration = Duration::from_millis(limits::TICK_MS);

/// What is remembered between two looks.
#[derive(Debug)]
pub(super) struct Evening {
    spread: Spread,
    next: Instant,
    /// Microseconds and number of the turns of each core until the last look.
    turns: Vec<(u64, u64)>,
    /// To whom each core gives work.
    giving: Vec<Option<usize>>,
}

impl Evening {
    pub(super) fn new(cores: usize, now: Instant) -> Evening {
        Evening { spread: Spread::new(cores), next: now + LOOK, turns: vec![(0, 0); cores], giving: vec![None; cores] }
    }

    /// What is known of one core. `most` is the number of connections that it may have.
    fn read(&mut self, core: usize, stats: &CoreStats, most: u64) -> Reading {
        let times = stats.turns.load();
        let now = (times.sum_us, times.buckets.iter().sum::<u64>());
        let before = std::mem::replace(&mut self.turns[core], now);
        let (us, turns) = (now.0.saturating_sub(before.0), now.1.saturating_sub(before.1));
        Reading {
            tick: stats.ticks.load(Relaxed),
            load: stats.load_permille.load(Relaxed),
            turn_us: (us / turns.max(1)).try_into().unwrap_or(u32::MAX),
            open: stats.connections.load(Relaxed) < most * limits::EVEN_FULL / 1000,
        }
    }
}

impl Control {
    /// Looks at the cores if it is time to. A process that ends leaves everything where it is.
    pub(super) fn even_cores(&mut self, now: Instant) {
        if now < self.evening.next || self.workers.len() < 2 || self.stopped_ms.is_some() {
            return;
        }
        // After a time in which control stood still the looks begin anew.
        self.evening.next = (self.evening.next + LOOK).max(now + LOOK / 2);
        let most = self.supervisor.snapshot().settings.connections_per_worker as u64;
        let workers = self.workers.iter().enumerate();
        let readings: Vec<Reading> =
            workers.map(|(core, worker)| self.evening.read(core, &worker.stats, most)).collect();
        let orders = self.evening.spread.look(&readings);
        let mut giving = vec![None; self.workers.len()];
        orders
            .iter()
            .filter(|(_, order)| order.work > 0 || order.newcomers > 0)
            .for_each(|(core, o)| giving[*core] = Some(o.to));
        let before = std::mem::replace(&mut self.evening.giving, giving.clone());
        for (core, (was, is)) in before.into_iter().zip(giving).enumerate() {
            if was.is_some() != is.is_some() {
                let load_permille = readings[core].load;
                self.note(Happening::CoreImbalance { core, load_permille, to: is });
            }
        }
        for (core, order) in orders {
            let worker = &self.workers[core];
            if order.work > 0 {
                let loads = (readings[core].load / 10, readings[order.to].load / 10);
                let part = order.work / 10;
                tracing::debug!(
                    "core {core} ({} %) gives {part} % of its work to core {} ({} %)",
                    loads.0,
                    order.to,
                    loads.1
                );
            }
            let _ = worker.inbox.send(ToWorker::Even(order));
            worker.bell.ring();
        }
    }

    /// When there is something to look at.
    pub(super) fn even_deadline(&self) -> Option<Instant> {
        (self.workers.len() > 1 && self.stopped_ms.is_none()).then_some(self.evening.next)
    }
}
