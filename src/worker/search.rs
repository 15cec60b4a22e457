//! Finds a backend for an exchange: the route, the turn, the pick, a permit. What it found is not looked for again by the
//! same snapshot: a retry and whoever has waited begin anew.

use super::clusters::{LocalBackend, LocalCluster, add};
use super::deadlines::Place;
use super::net::{Net, Stream};
use super::queue::{Ticket, Waited, Why};
use super::session::{Tally, Turn};
use super::{Core, View};
use crate::access_log::Phase;
use crate::affinity;
use crate::exchange::{Because, Exchange, Next, Reason, Trouble, is_too_large};
use crate::http::Method;
use crate::route::balance::{Ask, Pick, Tried};
use crate::route::health::Standing;
use std::future::poll_fn;
use std::ops::Deref;
use std::rc::Rc;

/// What is known of the search of one exchange.
pub(super) struct Search<S> {
    /// The retry rule's memory; of use from the first attempt on.
    pub state: Exchange,
    begun: bool,
    tried: Tried,
    /// What is answered if no backend is left to try.
    last: (u16, Reason),
    /// Its place in a queue, while it has one.
    ticket: Option<Ticket<S>>,
}

/// What was found.
pub(super) enum Found<S> {
    /// A backend that the exchange occupies from here on.
    Backend(Rc<LocalCluster<S>>, Pick, Occupied<S>),
    /// None, and none is to be waited for.
    Answer(u16, Reason),
    /// One has to be waited for: see [`Search::wait`].
    Wait(Rc<LocalCluster<S>>, Why),
}

/// A backend as long as an exchange occupies it.
pub(super) struct Occupied<S>(Rc<LocalBackend<S>>);

impl<S> Deref for Occupied<S> {
    type Target = Rc<LocalBackend<S>>;
    fn deref(&self) -> &Rc<LocalBackend<S>> {
        &self.0
    }
}

impl<S> Drop for Occupied<S> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Whom a cluster has for a request.
enum Choice<S> {
    Backend(Pick, Occupied<S>),
    Nobody,
    Wait(Why),
}

impl<S: Stream> Search<S> {
    /// Begins.
    pub fn new(method: Method) -> Search<S> {
        let (tried, last) = (Tried::default(), (503, Reason::NoBackend));
        Search { state: Exchange::new(method, 0), begun: false, tried, last, ticket: None }
    }

    /// Looks by the current snapshot, not by the one that an earlier attempt saw. `bytes` begins with the head.
    pub fn look<N: Net<Stream = S>, C: Stream>(
        &mut self,
        turn: &Turn<'_, N, C>,
        bytes: &[u8],
        tally: &mut Tally<S>,
    ) -> Found<S> {
        let (core, head) = (turn.core, turn.head);
        let Some(cluster) = core.route(head.host.of(bytes), head.path.of(bytes)) else {
            return Found::Answer(404, Reason::NoRoute);
        };
        if tally.cluster.as_ref().is_none_or(|before| !Rc::ptr_eq(before, &cluster)) {
            self.tried = Tried::default();
            tally.cluster = Some(cluster.clone());
        }
        let policy = &cluster.shared.policy;
        if is_too_large(head.framing, policy.body_max) {
            return Found::Answer(413, Reason::BodyTooLarge);
        }
        let key = affinity::key(&policy.balance, head, bytes, tally.client);
        let choice = core.choose(&cluster, &self.tried, key, self.ticket.as_ref());
        let picked = if let Choice::Backend(pick, _) = &choice { Some(pick.index) } else { None };
        turn.looked(bytes, &cluster, (&self.tried, key, picked));
        let (pick, backend) = match choice {
            Choice::Backend(pick, backend) => (pick, backend),
            Choice::Nobody => {
                if self.begun {
                    turn.amend(Because::NobodyLeft);
                }
                return Found::Answer(self.last.0, self.last.1);
            }
            Choice::Wait(why) => return Found::Wait(cluster, why),
        };
        if let Some(ticket) = self.ticket.take() {
            ticket.serve();
            turn.enter(Phase::Connect);
        }
        if !self.begun {
            self.begun = true;
            self.state = Exchange::new(head.method, policy.retries);
            cluster.budget.attempt();
        } else if self.state.retries > 0 {
            turn.enter_retry();
        }
        let (cluster_id, backend_id) = (Some(cluster.shared.id), Some(backend.id));
        turn.slot.place(Place { cluster: cluster_id, backend: backend_id, epoch: core.view().epoch, tunnel: false });
        Found::Backend(cluster, pick, backend)
    }

    /// Waits until it is worth looking again; else what is to be answered, `None` if the client has gone.
    pub async fn wait<N: Net<Stream = S>, C: Stream>(
        &mut self,
        turn: &Turn<'_, N, C>,
        cluster: &LocalCluster<S>,
        why: Why,
    ) -> Result<(), Option<(u16, Reason)>> {
        let core = turn.core;
        turn.slot.place(Place { cluster: Some(cluster.shared.id), epoch: core.view().epoch, ..Place::default() });
        let choosy = !self.tried.is_empty();
        match &self.ticket {
            Some(ticket) if ticket.is_of(&cluster.queue) => ticket.stay(why, choosy),
            // One that was led elsewhere by a reload has waited already.
            other => {
                let patience = cluster.shared.policy.queue_timeout;
                let until = turn.slot.now().saturating_add(patience).saturating_add(1);
                let until = other.as_ref().map_or(until, |ticket| ticket.until().min(until));
                turn.enter(Phase::Queue);
                self.ticket = Some(core.queues.join(&cluster.queue, cluster.places(), until, choosy));
            }
        }
        let Some(ticket) = &self.ticket else { return Ok(()) };
        let reason = match poll_fn(|cx| ticket.poll(turn.slot, cx)).await {
            Waited::Called => return Ok(()),
            Waited::Ousted => Some(Reason::QueueFull),
            Waited::TooLong => Some(Reason::QueueTimeout),
            Waited::Cut => turn.slot.drained().then_some(Reason::Drained),
        };
        self.ticket = None;
        Err(reason.map(|reason| (503, reason)))
    }

    /// An attempt with `cluster.backends[index]` has failed: what is to be answered, if none may follow.
    pub fn failed<N: Net<Stream = S>, C: Stream>(
        &mut self,
        turn: &Turn<'_, N, C>,
        cluster: &LocalCluster<S>,
        (index, trouble): (usize, Trouble),
        tally: &mut Tally<S>,
    ) -> Option<(u16, Reason)> {
        match self.state.failed(trouble, true) {
            Next::Answer { status, reason } => Some((status, reason)),
            // A pooled connection that had ended is no sign of an outage.
            Next::Retry { avoid } if avoid && !cluster.budget.take(cluster.rule) => {
                add(&cluster.queue.cell().retries_refused, 1);
                turn.amend(Because::Budget);
                Some(trouble.answer())
            }
            Next::Retry { avoid } => {
                add(&turn.core.stats.retries, 1);
                tally.retries = self.state.retries;
                self.last = trouble.answer();
                if let Some(backend) = &tally.backend {
                    backend.retried();
                }
                if avoid {
                    self.tried.add(index);
                }
                None
            }
        }
    }
}

impl<S> LocalBackend<S> {
    /// Begins an exchange with it, unless it has as many as it may.
    #[inline]
    fn enter(self: &Rc<Self>) -> Option<Occupied<S>> {
        if self.lease.is_limited() && !self.lease.take(&self.cells) {
            return None;
        }
        self.occupy(1);
        Some(Occupied(self.clone()))
    }

    /// Has this core stand in line for a permit, and begins an exchange if there is one after all. Whether it stood in
    /// line already.
    fn enter_or_want(self: &Rc<Self>) -> (Option<Occupied<S>>, bool) {
        let wanted = self.lease.wants();
        let permit = self.lease.want(&self.cells);
        if !wanted {
            self.queue.want(self);
        }
        let occupied = permit.then(|| {
            self.occupy(1);
            Occupied(self.clone())
        });
        (occupied, wanted)
    }

    /// An exchange has ended.
    fn leave(&self) {
        self.occupy(-1);
        if self.lease.is_limited() {
            let own = self.lease.end(&self.cells, &mut |core| (self.ring_core)(core));
            self.offer(own);
        }
    }

    /// The core was rung: other cores may have handed over permits, or want some.
    pub(super) fn look_at_permits(&self) {
        let own = self.lease.look(&self.cells, &mut |core| (self.ring_core)(core));
        self.offer(own);
    }

    /// Nobody waits for a permit any more.
    pub(super) fn stop_wanting(&self) {
        self.lease.stop_wanting(&self.cells);
        if self.lease.is_limited() {
            self.lease.give(&self.cells, &mut |core| (self.ring_core)(core));
        }
    }

    fn offer(&self, permits: u32) {
        if permits > 0 {
            self.queue.offer(permits);
        }
    }
}

impl<N: Net> Core<N> {
    /// Picks a backend that was not tried and may have one more exchange, by the current snapshot. `key` is what
    /// [`affinity`] makes of the request.
    #[inline]
    fn choose(
        &self,
        cluster: &LocalCluster<N::Stream>,
        tried: &Tried,
        key: Option<u64>,
        ticket: Option<&Ticket<N::Stream>>,
    ) -> Choice<N::Stream> {
        let view = self.view();
        if !view.paused.is_empty() && view.paused.binary_search(&cluster.shared.id).is_ok() {
            return Choice::Wait(Why::Paused);
        }
        if !cluster.queue.is_empty() && !cluster.queue.is_turn_of(ticket) {
            return Choice::Wait(Why::Behind);
        }
        let mut ask = Ask { tried, key, in_flight: cluster.in_flight.get(), epoch: view.epoch };
        let avoided;
        let mut pick = None;
        if self.clusters.suspicions.get() > 0 {
            avoided = cluster.suspected(&view.states, tried);
            pick = cluster.balancer.borrow_mut().pick(&cluster.shared, &view.states, Ask { tried: &avoided, ..ask });
            // One that is suspected is still better than none.
            ask.tried = if pick.is_some() { &avoided } else { tried };
        }
        let pick = pick.or_else(|| cluster.balancer.borrow_mut().pick(&cluster.shared, &view.states, ask));
        let Some(pick) = pick else { return self.last_resort(cluster, &view, tried) };
        match cluster.backends[pick.index].enter() {
            Some(occupied) => Choice::Backend(pick, occupied),
            None => self.choose_another(cluster, &view, ask, pick),
        }
    }

    /// Everyone that is up was tried in vain. One that is held down may be well again long before its probe, and asking it
    /// is better than failing; first attempts never come here.
    #[cold]
    fn last_resort(&self, cluster: &LocalCluster<N::Stream>, view: &View, tried: &Tried) -> Choice<N::Stream> {
        let (count, begin) = (cluster.backends.len(), self.random() as usize);
        for index in (0..count).map(|i| (begin % count + i) % count) {
            let state = view.states.get(cluster.shared.first_state + index);
            let held_down = state.is_some_and(|state| state.standing == Standing::Down);
            if held_down
                && !tried.is_empty()
                && !tried.has(index)
                && let Some(occupied) = cluster.backends[index].enter()
            {
                return Choice::Backend(Pick { index, fail_open: true }, occupied);
            }
        }
        Choice::Nobody
    }

    /// The same where the first pick has as many exchanges as it may.
    #[cold]
    fn choose_another(
        &self,
        cluster: &LocalCluster<N::Stream>,
        view: &View,
        ask: Ask<'_>,
        mut pick: Pick,
    ) -> Choice<N::Stream> {
        let mut balancer = cluster.balancer.borrow_mut();
        let mut full = *ask.tried;
        while full.has_room() {
            full.add(pick.index);
            match balancer.pick(&cluster.shared, &view.states, Ask { tried: &full, ..ask }) {
                None => break,
                Some(other) => pick = other,
            }
            if let Some(occupied) = cluster.backends[pick.index].enter() {
                return Choice::Backend(pick, occupied);
            }
        }
        // All are full, or more than could be noted: each of them is asked for a permit.
        let mut ring = false;
        for pick in balancer.candidates().filter(|pick| !ask.tried.has(pick.index)) {
            let backend = &cluster.backends[pick.index];
            let (occupied, wanted) =
                if backend.lease.is_limited() { backend.enter_or_want() } else { (backend.enter(), true) };
            ring |= !wanted && backend.lease.is_stored(&backend.cells);
            if let Some(occupied) = occupied {
                if cluster.queue.is_empty() {
                    cluster.queue.stop_wanting();
                }
                return Choice::Backend(pick, occupied);
            }
        }
        if ring {
            (0..cluster.rule.cores).filter(|core| *core != self.index).for_each(|core| (self.ring_core)(core));
        }
        Choice::Wait(Why::Full)
    }
}
