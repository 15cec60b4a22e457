//! The status listener (config key `status`): what monitoring asks, and control's answers.
//!
//! `server` and `client` move bytes, `text` writes the metrics on a thread of its own, `page` gathers what the status page
//! shows, and `pulse` watches the cores' ticks.

mod client;
mod page;
mod pulse;
mod server;
mod text;

use super::Control;
use crate::config::Address;
use crate::limits;
use crate::metrics::{self, Process, Reloads, Sources};
use crate::status_page::History;
use client::{Answer, Page};
use mio::{Registry, Token};
use page::Pages;
use pulse::Pulses;
use server::{ClientId, Server};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use text::{Outdated, Writer};

const INDEX: &str = "/live     200 while control and every core run\n\
                     /ready    200 while traffic is welcome\n\
                     /metrics  OpenMetrics\n";

/// Everything that serves the status listener; without one it only counts.
pub struct Monitor {
    registry: Registry,
    listen_token: Token,
    ring: Arc<dyn Fn() + Send + Sync>,
    listening: Option<Listening>,
    pulses: Pulses,
    reloads: Reloads,
    history: History,
    sampled: Option<Instant>,
}

/// A status listener that is open.
pub struct Listening {
    server: Server,
    writer: Writer,
    /// Who waits for the metrics.
    waiting: Vec<ClientId>,
    pages: Pages,
}

impl Monitor {
    /// Without a listener yet. Tokens are `listen_token` and up to `limits::STATUS_CLIENTS_MAX` behind it; `ring` rings
    /// control. The process began at `since`, seconds since 1970.
    pub(super) fn new(
        (registry, listen_token): (Registry, Token),
        ring: Arc<dyn Fn() + Send + Sync>,
        cores: usize,
        since: u64,
    ) -> Monitor {
        let reloads = Reloads { done_at: since, ..Reloads::default() };
        let pulses = Pulses::new(cores, Instant::now());
        let (history, sampled) = (History::default(), None);
        Monitor { registry, listen_token, ring, listening: None, pulses, reloads, history, sampled }
    }

    /// Opens a listener at another address than now, to be put in its place by [`Monitor::install`]: `None` if nothing is
    /// to be opened. Nothing has changed until then.
    ///
    /// # Errors
    /// The address cannot be had, or no thread.
    pub fn open(&self, wanted: Option<&Address>) -> io::Result<Option<Listening>> {
        let now = self.listening.as_ref().map(|l| &l.server.address);
        match wanted {
            Some(address) if now != Some(address) => {
                let registry = self.registry.try_clone()?;
                let server = Server::open(address, now, (registry, self.listen_token))?;
                let writer = Writer::spawn(self.ring.clone())?;
                Ok(Some(Listening { server, writer, waiting: Vec::new(), pages: Pages::default() }))
            }
            _ => Ok(None),
        }
    }

    /// Takes over what [`Monitor::open`] gave for this address.
    pub fn install(&mut self, wanted: Option<&Address>, opened: Option<Listening>) {
        if let Some(opened) = opened {
            match opened.server.bound() {
                Some(address) => tracing::info!("status listens on {address}"),
                None => tracing::info!("status listens on a Unix socket"),
            }
            self.listening = Some(opened);
        } else if wanted.is_none() {
            self.listening = None;
        }
    }

    pub(super) fn reload_done(&mut self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.reloads = Reloads { done: self.reloads.done + 1, done_at: now, refused: false, ..self.reloads };
    }

    pub(super) fn reload_rejected(&mut self) {
        self.reloads = Reloads { rejected: self.reloads.rejected + 1, refused: true, ..self.reloads };
    }

    pub(super) fn event(&mut self, token: Token, now: Instant) -> bool {
        self.listening.as_mut().is_some_and(|l| l.server.event(token, now))
    }

    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let listening = self.listening.as_ref()?;
        listening.server.deadline(now).into_iter().chain(listening.pages.deadline(now)).min()
    }
}

impl Control {
    /// Whether health checks are told from now on that traffic is welcome; a drain says no in any case.
    pub fn set_ready(&mut self, ready: bool) {
        self.publisher.set_ready(ready);
    }

    /// Serves the status listener.
    pub(super) fn monitor(&mut self) {
        let now = Instant::now();
        self.monitor.pulses.look(self.workers.iter().map(|w| w.stats.ticks.load(Relaxed)), now);
        let Some(mut listening) = self.monitor.listening.take() else { return };
        self.sample(now);
        listening.server.turn(now);
        // Bounded: an answer may let the same client ask again at once.
        for _ in 0..limits::STATUS_CLIENTS_MAX {
            let Some((client, page)) = listening.server.next_asked() else { break };
            match page {
                Page::Status(asked) if self.publisher.current().settings.status_page => {
                    listening.pages.order(client, asked);
                }
                Page::Index | Page::Status(_) => listening.server.answer(client, Answer::text(200, INDEX), now),
                Page::Live => listening.server.answer(client, self.live(now), now),
                Page::Ready => listening.server.answer(client, self.ready(), now),
                Page::Metrics => match listening.writer.fresh(self.monitor.reloads, now) {
                    Some(body) => listening.server.answer(client, metrics_answer(body), now),
                    None => {
                        let written_us = listening.writer.took_us();
                        listening.writer.order(|| self.sources(written_us));
                        listening.waiting.push(client);
                    }
                },
            }
        }
        match listening.writer.take(self.monitor.reloads) {
            Some(Ok(body)) => {
                for client in listening.waiting.drain(..) {
                    listening.server.answer(client, metrics_answer(body.clone()), now);
                }
            }
            Some(Err(Outdated)) if !listening.waiting.is_empty() => {
                let written_us = listening.writer.took_us();
                listening.writer.order(|| self.sources(written_us));
            }
            Some(Err(Outdated)) | None => {}
        }
        if let Some((client, asked)) = listening.pages.next(now) {
            let answer = Answer::html(self.page(&asked));
            listening.pages.took(now, Instant::now());
            listening.server.answer(client, answer, now);
        }
        self.monitor.listening = Some(listening);
    }

    fn live(&self, now: Instant) -> Answer {
        // Cores that have drained tick no more.
        let silent = if self.stopped_ms.is_some() { Vec::new() } else { self.monitor.pulses.silent(now) };
        if silent.is_empty() {
            return Answer::text(200, "ok\n");
        }
        let lines = silent.iter().map(|(core, seconds)| format!("core {core} has not ticked for {seconds} s\n"));
        Answer::text(503, lines.collect::<String>())
    }

    fn ready(&self) -> Answer {
        match (self.stopped_ms, self.publisher.is_ready()) {
            (Some(_), _) => Answer::text(503, "draining\n"),
            (None, false) => Answer::text(503, "told not to be ready\n"),
            (None, true) => Answer::text(200, "ok\n"),
        }
    }

    /// What the metrics are written from; costs no more than a few counts.
    fn sources(&self, written_us: u64) -> Sources {
        let origin = &self.origin;
        Sources {
            snapshot: self.publisher.current(),
            cores: self.workers.iter().map(|worker| worker.stats.clone()).collect(),
            process: Process {
                since: origin.since,
                driver: origin.driver,
                ready: self.stopped_ms.is_none() && self.publisher.is_ready(),
                draining: self.stopped_ms.is_some(),
                open_files_max: origin.open_files_max,
                reloads: self.monitor.reloads,
                written_us,
                ..Process::default()
            },
        }
    }
}

fn metrics_answer(body: Arc<Vec<u8>>) -> Answer {
    Answer { content_type: metrics::CONTENT_TYPE, body, ..Answer::text(200, "") }
}
