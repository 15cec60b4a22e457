//! Requests on the control socket: who may give them, what they do, and one line in the log for every change.

use super::reload::Order;
use super::running::Wanted;
use super::socket::{ClientId, Line, Peer};
use super::{Control, answers, say};
use crate::config::answer::{Answer, Code, Error, Id, Status};
use crate::config::command::{Command, Level, Request};
use crate::config::events::Happening;
use crate::config::orders::{self, Log, Patience, Reload, Wait};
use crate::config::receipt::{Done, Receipt};
use crate::explain::{Explanation, Question, explain};
use crate::limits;
use crate::route::table::Cluster;
use crate::supervisor::{Administered, Whose};
use std::path::PathBuf;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Who wants a change.
#[derive(Clone, Debug)]
pub(super) enum Asker {
    /// SIGHUP.
    Signal,
    /// A client of the control socket.
    Client { client: ClientId, peer: Peer, id: Id },
}

impl Asker {
    /// Who did it, for the log.
    pub fn audit(&self) -> String {
        match self {
            Asker::Signal => "by SIGHUP".to_owned(),
            Asker::Client { peer, .. } => format!("by {}", who(*peer)),
        }
    }
}

fn who(peer: Peer) -> String {
    format!("uid {}, pid {}", peer.uid, peer.pid)
}

/// Seconds since 1970.
pub(super) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Control {
    /// Takes a request from the control socket. Every one is answered, now or when it is done.
    pub(super) fn request(&mut self, line: Line) {
        let request = match Request::parse(&line.bytes) {
            Ok(request) => request,
            Err(garbage) => {
                return self.answer(line.client, &Answer::error(garbage.id, garbage.error));
            }
        };
        let asker = Asker::Client { client: line.client, peer: line.peer, id: request.id };
        let needed = request.command.level();
        if self.level_of(line.peer).is_none_or(|level| level < needed) {
            tracing::warn!("refused {}: not allowed {}", asker.audit(), request.command.name());
            let message = format!("uid {} may not give this command (control.uids)", line.peer.uid);
            return self.refuse(&asker, Error::new(Code::NotAllowed, message));
        }
        match request.command {
            Command::Status(_) => {
                let status = self.status();
                self.reply(&asker, Ok(status));
            }
            Command::Routes(_) => {
                let routes = answers::routes(&self.supervisor.snapshot());
                self.reply(&asker, Ok(routes));
            }
            Command::Config(_) => {
                let told = self.running.told(self.supervisor.snapshot().generation);
                self.reply(&asker, Ok(told));
            }
            Command::Errors(asked) => {
                let errors = answers::errors(&self.workers, asked.bytes);
                self.reply(&asker, Ok(errors));
            }
            Command::Explain(asked) => {
                let orders::Explain { head, from, listener, port } = asked;
                let told = self.explain(&Question { head: head.into_bytes(), peer: from, listener, port });
                self.reply(&asker, told.map_err(|why| Error::new(Code::Failed, why)));
            }
            Command::Why(asked) => {
                let told = answers::why(&self.workers, asked.request_id.as_deref());
                self.reply(&asker, Ok(told));
            }
            Command::Events(asked) => {
                let begun = self.begin_events(line.client, asked.from);
                self.reply(&asker, begun);
            }
            Command::WhySlow(asked) => self.ask_why_slow(asker, asked.ms.unwrap_or(limits::WEIGH_MS)),
            Command::Reload(reload) => self.order_reload(asker, reload),
            Command::Apply(apply) => {
                let (file, text) = (apply.file.clone().unwrap_or_else(|| "patch".to_owned()), apply.patch.clone());
                let wanted = Wanted::Patch { text, file, who: who(line.peer), at: unix_now() };
                let orders::Apply { if_generation, dry_run, wait, .. } = apply;
                self.reloads.order(Order { if_generation, dry_run, ..Order::new(asker, wanted, wait) });
            }
            Command::Backend(order) => {
                let Some((cluster, backend)) = order.backend.rsplit_once('/') else {
                    let message = format!("backend: {:?} is not CLUSTER/ID", order.backend);
                    return self.refuse(&asker, Error::new(Code::BadArguments, message));
                };
                let whose = Whose { who: who(line.peer), why: order.why, unix: unix_now(), seconds: order.seconds };
                let now = self.now_ms();
                let done = self.supervisor.administer(cluster, backend, order.set, whose, now);
                self.administered(asker, format!("backend {} {:?}", order.backend, order.set), done, order.wait);
            }
            Command::Pause(pause) => {
                let seconds = pause.max.unwrap_or(limits::PAUSE_SECONDS).min(limits::PAUSE_SECONDS_MAX);
                let whose = Whose { who: who(line.peer), why: pause.why, unix: unix_now(), seconds: Some(seconds) };
                let done = self.supervisor.pause(&pause.cluster, whose, self.now_ms());
                let patience = Patience { wait: Wait::Drained, seconds: Some(seconds) };
                self.administered(asker, format!("pause {}", pause.cluster), done, patience);
            }
            Command::Resume(resume) => {
                let done = self.supervisor.resume(&resume.cluster);
                self.administered(asker, format!("resume {}", resume.cluster), done, Patience::default());
            }
            Command::Log(Log::Reopen) => {
                let done = self.reopen_log();
                self.finish(&asker, "log reopen", done.map(|()| "the access log was opened again".to_owned()));
            }
            Command::Log(Log::Level(level)) => {
                let done = say::set_level(&level);
                self.finish(&asker, "log level", done.map(|()| format!("the operational log tells {level} and worse")));
            }
            Command::Ready(ready) => {
                self.set_ready(ready.ready);
                self.note(Happening::Ready { ready: ready.ready });
                let word = if ready.ready { "ready" } else { "not ready" };
                self.finish(&asker, "ready", Ok(format!("readiness probes are told: {word}")));
            }
            Command::Stop(_) => {
                self.finish(&asker, "stop", Ok("draining".to_owned()));
                self.stop();
            }
        }
    }

    /// What a client may do. Without `control.uids` whoever the socket's permissions let in may do everything.
    fn level_of(&self, peer: Peer) -> Option<Level> {
        match self.supervisor.control_uids() {
            Some(uids) if peer.uid != 0 && peer.uid != self.own_uid => uids.get(&peer.uid).copied(),
            _ => Some(Level::Change),
        }
    }

    fn status(&self) -> Status {
        answers::status(&answers::Sources {
            status: &self.supervisor.status(),
            workers: &self.workers,
            listeners: self.supervisor.listeners(),
            driver: self.origin.driver,
            since: self.origin.since,
            now_ms: self.now_ms(),
        })
    }

    /// Where a request would go, by the states of now.
    pub(super) fn explain(&self, question: &Question) -> Result<Explanation, String> {
        let snapshot = self.supervisor.snapshot();
        let ready = self.publisher.is_ready() && !self.supervisor.is_draining();
        let now_ms = self.now_ms();
        let notes = |cluster: &Cluster| {
            let backends = self.supervisor.cluster_status(cluster).backends.into_iter();
            backends.map(|backend| answers::note(backend, now_ms, unix_now())).collect()
        };
        explain(&snapshot, ready, &notes, question)
    }

    pub(super) fn order_reload(&mut self, asker: Asker, reload: Reload) {
        let file = reload.file.map_or_else(|| self.origin.file.clone(), PathBuf::from);
        let wanted = Wanted::File { file, content: reload.content, drop_patches: reload.drop_patches };
        self.reloads.order(Order { dry_run: reload.dry_run, ..Order::new(asker, wanted, reload.wait) });
    }

    /// Carries out an operator's word and has its receipt wait for what it should.
    fn administered(&mut self, asker: Asker, what: String, done: Result<Administered, String>, patience: Patience) {
        let done = match done {
            Ok(done) => done,
            Err(why) => return self.refuse(&asker, Error::new(Code::Failed, why)),
        };
        self.act(done.actions);
        let snapshot = self.supervisor.snapshot();
        let receipt = Receipt {
            generation: snapshot.generation,
            epoch: snapshot.epoch,
            warnings: done.warnings,
            changed: done.changed,
            ..self.running_receipt()
        };
        self.save_state();
        self.wait_for((asker, what), receipt, (done.away, done.labels), patience, Instant::now());
    }

    /// Answers a command that was done at once, or failed.
    fn finish(&mut self, asker: &Asker, what: &str, done: Result<String, String>) {
        match done {
            Ok(done) => {
                tracing::info!("{what} {}: {done}", asker.audit());
                self.reply(asker, Ok(Done { done }));
            }
            Err(why) => self.refuse(asker, Error::new(Code::Failed, why)),
        }
    }
}
