//! What the supervisor has decided, carried out: publish, tell the workers, probe, log, stop.

use super::listeners::Opened;
use super::{Control, Ended};
use crate::config::ListenerId;
use crate::config::events::{BackendEvent, Happening};
use crate::event::ToWorker;
use crate::supervisor::{Action, Committed, Note, What};
use std::time::Instant;

impl Control {
    pub(super) fn act(&mut self, actions: Vec<Action>) {
        // Told behind the events that it comes from.
        let published = actions.iter().any(|action| matches!(action, Action::Publish(_)));
        for action in actions {
            match action {
                Action::Publish(snapshot) => {
                    self.publisher.publish(snapshot);
                    self.ring_all();
                }
                Action::Probe(probe) => {
                    if let Some(outcome) = self.probes.start(&probe, Instant::now()) {
                        self.probed(outcome);
                    }
                }
                Action::Rest { backends, rests } => {
                    self.tell_all(|| ToWorker::Rest { backends: backends.clone(), rests });
                    self.ring_all();
                }
                Action::Log(note) => self.tell(happening(note)),
                Action::Over { cluster, backend } => self.tell(Happening::OverrideEnded { cluster, backend }),
                Action::Stop { cut, missing } => {
                    if missing > 0 {
                        tracing::warn!("stop: {missing} workers have not said that they have drained");
                    }
                    if cut > 0 {
                        tracing::warn!("stop: {cut} connections were cut at the end of the drain");
                    }
                    tracing::info!("stop: done");
                    self.ended = Some(Ended::Drained { cut, missing });
                }
            }
        }
        if published {
            self.look_for_fail_open();
        }
    }

    /// Publishes a new table and tells the workers what it changes; `opened` are the sockets of its new listeners.
    pub(super) fn carry_out(&mut self, committed: Committed, mut opened: Vec<Opened>) {
        let change = committed.change;
        self.publisher.publish(committed.snapshot);
        for id in &change.listeners_to_close {
            self.tell_all(|| ToWorker::Unlisten { id: *id });
        }
        // One that is opened at another address keeps its number: its old file goes before the new one is entered.
        let (reused, gone): (Vec<ListenerId>, Vec<ListenerId>) =
            change.listeners_to_close.iter().partition(|id| opened.iter().any(|one| one.id == **id));
        reused.into_iter().for_each(|id| self.listeners.closed(id));
        for one in &mut opened {
            self.listeners.opened(one);
        }
        gone.into_iter().for_each(|id| self.listeners.closed(id));
        self.give_listeners(opened);
        if !change.removed_backends.is_empty() || !change.removed_clusters.is_empty() {
            let (backends, clusters) = (change.removed_backends, change.removed_clusters);
            self.tell_all(|| ToWorker::Forget { backends: backends.clone(), clusters: clusters.clone() });
        }
        self.ring_all();
        committed.notes.into_iter().for_each(|note| self.tell(happening(note)));
        self.look_for_fail_open();
    }

    fn give_listeners(&self, opened: Vec<Opened>) {
        for Opened { id, sockets, unix, .. } in opened {
            for (worker, fd) in self.workers.iter().zip(sockets) {
                // The channel closes only with the worker, and the process with that.
                let _ = worker.inbox.send(ToWorker::Listen { id, fd, unix });
            }
        }
    }

    pub(super) fn tell_all(&self, message: impl Fn() -> ToWorker) {
        for worker in &self.workers {
            let _ = worker.inbox.send(message());
        }
    }

    pub(super) fn ring_all(&self) {
        self.workers.iter().for_each(|worker| worker.bell.ring());
    }
}

fn happening(note: Note) -> Happening {
    let Note { what, cluster, backend, endpoint, why } = note;
    let backend = BackendEvent { cluster, backend, endpoint: endpoint.to_string(), why };
    match what {
        What::Down => Happening::BackendDown(backend),
        What::Up => Happening::BackendUp(backend),
        What::KeptUp => Happening::BackendKeptUp(backend),
        What::StillDown => Happening::BackendStillDown(backend),
    }
}
