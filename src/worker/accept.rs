//! New connections: accepted in batches, admitted by the gate, and kept between requests in their own small task.

use super::busy::{Mailbox, Places};
use super::clusters::add;
use super::doorstep::{Handed, State};
use super::net::{Accepted, Net, Stream, is_local};
use super::parking::Parking;
use super::scales::Weighed;
use super::session::{Conn, Served};
use super::{ConnInfo, Core, Gate};
use crate::config::{Address, ListenerId};
use crate::limits;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;

/// The memory of busy sessions.
type Sessions<S, F> = Places<Conn<S>, Served<S>, F>;

/// What an accepted connection needs: the gate, and where its sessions run.
pub(super) struct Welcome<N: Net, G: Gate<N>, F> {
    core: Rc<Core<N>>,
    gate: G,
    sessions: Rc<Sessions<G::Stream, F>>,
    parking: Rc<Parking<N, G>>,
}

impl<N: Net, G: Gate<N>, F> Clone for Welcome<N, G, F> {
    fn clone(&self) -> Self {
        let (core, sessions) = (self.core.clone(), self.sessions.clone());
        Welcome { core, gate: self.gate.clone(), sessions, parking: self.parking.clone() }
    }
}

/// Counts a connection in, and out when it is dropped.
pub(super) struct Counted<N: Net>(Rc<Core<N>>);

impl<N: Net> Counted<N> {
    fn new(core: &Rc<Core<N>>) -> Self {
        core.connections.set(core.connections.get() + 1);
        Counted(core.clone())
    }
}

impl<N: Net> Drop for Counted<N> {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get() - 1);
        self.0.left.set(self.0.left.get().wrapping_add(1));
        self.0.wake_waiting();
        self.0.look_for_end();
    }
}

/// Counts a listener in until its queue is empty and it is closed: a drain waits for it.
struct Accepting<N: Net>(Rc<Core<N>>);

impl<N: Net> Accepting<N> {
    fn new(core: &Rc<Core<N>>) -> Self {
        core.accepting.set(core.accepting.get() + 1);
        Accepting(core.clone())
    }
}

impl<N: Net> Drop for Accepting<N> {
    fn drop(&mut self) {
        self.0.accepting.set(self.0.accepting.get() - 1);
        self.0.look_for_end();
    }
}

impl<N: Net, G: Gate<N>, F: Future<Output = ()> + 'static> Welcome<N, G, F> {
    /// `serve` makes the future that serves one busy period after the other: [`super::session::serve_each`].
    pub(super) fn new(
        core: Rc<Core<N>>,
        gate: G,
        serve: impl Fn(Rc<Core<N>>, Rc<Mailbox<Conn<G::Stream>, Served<G::Stream>>>) -> F + 'static,
    ) -> Self {
        let of = core.clone();
        let sessions = Rc::new(Places::new(move |mailbox| serve(of.clone(), mailbox)));
        Welcome { core, gate, sessions, parking: Rc::new(Parking::new()) }
    }

    /// Connections that are parked.
    pub(super) fn parked(&self) -> usize {
        self.parking.len()
    }

    /// One tick: closes what has been parked too long, and gives back memory of busy sessions that is not needed any more, in
    /// as many turns as that takes.
    pub(super) async fn tick(&self, now: u32) {
        self.trim().await;
        let all = self.core.ends_idle(now);
        let mut from = 0;
        while let Some(next) = self.parking.tick(now, all, from) {
            from = next;
            self.core.net.next_turn().await;
        }
    }

    /// Takes up parked connections when they stir.
    pub(super) async fn unpark(self) {
        let mut keys = Vec::with_capacity(limits::UNPARK_BATCH);
        loop {
            self.core.net.stirred(&mut keys).await;
            for key in keys.drain(..) {
                if let Some((conn, counted)) = self.parking.take_up(&self.core.net, &self.gate, key) {
                    self.core.net.spawn(self.clone().connection(conn, counted, true));
                }
            }
        }
    }

    /// Ends the `n` idle connections that have waited longest: of those that are parked, and only then of the others.
    fn end_oldest(&self, n: usize) {
        let closed = self.parking.close_oldest(n);
        self.core.idle.end_oldest(&self.core.net, n - closed);
    }

    async fn trim(&self) {
        let mut spare = self.sessions.spare();
        while spare > limits::TURN_FREED {
            self.sessions.free(limits::TURN_FREED);
            spare -= limits::TURN_FREED;
            self.core.net.next_turn().await;
        }
        self.sessions.free(spare);
    }

    /// Accepts on this listener from now on, until it is closed.
    pub(super) fn listen(&self, id: ListenerId, listener: N::Listener) {
        let listener = Rc::new(listener);
        self.core.listeners.borrow_mut().push((id, listener.clone()));
        self.core.net.spawn(self.clone().accept(id, listener));
    }

    async fn accept(self, id: ListenerId, listener: Rc<N::Listener>) {
        let core = self.core.clone();
        let _accepting = Accepting::new(&core);
        let mut batch = Vec::with_capacity(limits::ACCEPT_BATCH);
        let mut made_room = false;
        loop {
            // At the limit the longest idle connection makes room; without one, newcomers wait in the kernel's queue.
            loop {
                let (now, most) = (core.connections.get(), core.view().settings.connections_per_worker);
                if now + core.promised.get() < most {
                    break;
                }
                if core.promised.get() > 0 {
                    core.withdraw_room();
                    if now < most {
                        break;
                    }
                }
                let room = now - most + (most / 64).clamp(1, limits::ACCEPT_BATCH);
                self.end_oldest(room.min(limits::TURN_FIRED));
                if core.connections.get() == now {
                    core.next_change().await;
                } else {
                    core.net.next_turn().await;
                }
            }
            let result = core.net.accept(&listener, &mut batch).await;
            add(&core.stats.accepted, batch.len() as u64);
            let mut to_ring = None;
            for accepted in batch.drain(..) {
                match core.newcomer_goes_to() {
                    Some(to) => to_ring = self.give_away(to, id, accepted).or(to_ring),
                    None => self.keep(id, accepted),
                }
            }
            if let Some(to) = to_ring {
                (core.ring_core)(to);
            }
            match result {
                Ok(()) => made_room = false,
                Err(error) if !core.is_listening(&listener) && !is_local(&error) => return,
                Err(_) => {
                    // No descriptors (EMFILE, ENFILE) or no memory: trying again at once would only spin. What a closing
                    // listener has queued is accepted all the same, later.
                    add(&core.stats.accept_failures, 1);
                    let left = core.left.get();
                    self.end_oldest(limits::ACCEPT_BATCH);
                    // Parked ones are closed by now; once that may help at once.
                    if core.left.get() == left || std::mem::replace(&mut made_room, true) {
                        core.next_change().await;
                    } else {
                        core.net.next_turn().await;
                    }
                }
            }
        }
    }

    /// Serves a newcomer on this core.
    fn keep(&self, listener: ListenerId, accepted: Accepted<N::Stream>) {
        let info = self.core.info_of(listener, accepted.peer);
        self.core.net.spawn(self.clone().newcomer(accepted.stream, info, Counted::new(&self.core)));
    }

    /// Leaves a newcomer for another core; returns it if it has to be rung. Without room there it stays here.
    fn give_away(&self, to: usize, listener: ListenerId, accepted: Accepted<N::Stream>) -> Option<usize> {
        let core = &self.core;
        let peer = accepted.peer;
        let fd = match core.net.detach(accepted.stream) {
            Ok(fd) => fd,
            Err(stream) => {
                self.keep(listener, Accepted { stream, peer });
                return None;
            }
        };
        match core.hand(to, Handed { fd, info: Box::new(core.info_of(listener, peer)), state: None }) {
            Ok(()) => Some(to),
            Err(back) => {
                core.keep_newcomers();
                match core.net.attach(back.fd) {
                    Ok(stream) => self.keep(listener, Accepted { stream, peer }),
                    Err(_) => add(&core.stats.accept_failures, 1),
                }
                None
            }
        }
    }

    /// Takes over what another core has left here.
    pub(super) fn take_over(&self, handed: Handed) {
        let (core, Handed { fd, info, state }) = (&self.core, handed);
        let Ok(stream) = core.net.attach(fd) else { return add(&core.stats.accept_failures, 1) };
        let Some(State { served, rest }) = state else {
            add(&core.stats.handed_in, 1);
            return core.net.spawn(self.clone().newcomer(stream, *info, Counted::new(core)));
        };
        // All cores have the same gate, so that what it keeps is of one kind.
        let Ok(rest) = rest.downcast::<G::Rest>() else { return };
        add(&core.stats.moved_in, 1);
        let conn = Conn { stream: self.gate.put_together(stream, *rest), info: Rc::new(*info), served };
        // Whoever makes a core work mostly has its next request on the way.
        core.net.spawn(self.clone().connection(conn, Counted::new(core), true));
    }

    /// Leaves a connection that is between two requests for another core. It comes back if it cannot leave or has no room
    /// there; `None` if it could not be taken back, and is closed.
    fn move_away(&self, to: usize, conn: Conn<G::Stream>) -> Result<(), Option<Conn<G::Stream>>> {
        let core = &self.core;
        let Conn { stream, info, served } = conn;
        let (stream, rest) = match self.gate.take_apart(stream) {
            Ok(parts) => parts,
            Err(stream) => return Err(Some(Conn { stream, info, served })),
        };
        let fd = match core.net.detach(stream) {
            Ok(fd) => fd,
            Err(stream) => return Err(Some(Conn { stream: self.gate.put_together(stream, rest), info, served })),
        };
        let state = Some(State { served, rest: Box::new(rest) });
        match core.hand(to, Handed { fd, info: Box::new(ConnInfo::clone(&info)), state }) {
            Ok(()) => {
                (core.ring_core)(to);
                Ok(())
            }
            Err(Handed { fd, state, .. }) => Err(state.and_then(|state| {
                let stream = core.net.attach(fd).ok()?;
                let rest = state.rest.downcast::<G::Rest>().ok()?;
                Some(Conn { stream: self.gate.put_together(stream, *rest), info, served })
            })),
        }
    }

    async fn newcomer(self, stream: N::Stream, info: ConnInfo, counted: Counted<N>) {
        let core = &counted.0;
        // A gate that waits for its client waits no longer than a head may take.
        let seconds = core.view().settings.client_head_timeout;
        let room = core.idle.enter(stream.handle(), core.slots.now(), seconds);
        let Some((stream, info)) = self.gate.admit(stream, info).await else { return };
        drop(room);
        let conn = Conn { stream, info: Rc::new(info), served: 0 };
        // With most newcomers their first request comes along.
        self.connection(conn, counted, true).await;
    }

    /// Serves a connection, until it ends, is parked or goes over to another core. `stirs` if there may be something to
    /// receive.
    async fn connection(self, mut conn: Conn<G::Stream>, mut counted: Counted<N>, mut stirs: bool) {
        let core = self.core.clone();
        let info = conn.info.clone();
        loop {
            if !std::mem::take(&mut stirs) {
                let seconds = {
                    let view = core.view();
                    let settings = &view.settings;
                    if conn.served == 0 { settings.client_head_timeout } else { settings.client_idle_timeout }
                };
                let now = core.slots.now();
                if core.connections.get() > core.net.park_from() {
                    match self.parking.park((&core.net, &self.gate), (conn, counted), (now, seconds)) {
                        Ok(()) => return,
                        Err(back) => (conn, counted) = back,
                    }
                }
                let room = core.idle.enter(conn.stream.handle(), now, seconds);
                let ready = conn.stream.readable().await;
                // A request that came as the connection was being closed is not answered, and so not carried out.
                if ready.is_err() || room.ended() {
                    return;
                }
                drop(room);
            }
            let weighed = Weighed { handle: conn.stream.handle(), info: &info, served: conn.served };
            let mut run = self.sessions.run(conn);
            let ended = poll_fn(|cx| {
                if core.scales.on() {
                    return core.weigh(&weighed, || Pin::new(&mut run).poll(cx));
                }
                Pin::new(&mut run).poll(cx)
            });
            match ended.await {
                Some(Served::Idle(again)) => match core.leaves_for(weighed.handle) {
                    None => conn = again,
                    Some(to) => match self.move_away(to, again) {
                        Err(Some(back)) => conn = back,
                        Ok(()) | Err(None) => return,
                    },
                },
                Some(Served::Closed) => return,
                None => return add(&core.stats.panics, 1),
            }
        }
    }
}

impl<N: Net> Core<N> {
    fn info_of(&self, listener: ListenerId, peer: Option<SocketAddr>) -> ConnInfo {
        let local = self.view().settings.listener(listener).and_then(|l| match l.address {
            Address::Ip(address) => Some(address),
            _ => None,
        });
        ConnInfo { listener, peer, local, via_proxy: None, tls: false }
    }

    fn is_listening(&self, listener: &Rc<N::Listener>) -> bool {
        self.listeners.borrow().iter().any(|(_, ours)| Rc::ptr_eq(ours, listener))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Plain, session};
    use super::*;
    use crate::worker::net::mem::{Mem, MemStream};

    /// Bytes of an idle connection's future and of a busy session's.
    fn sizes<N: Net, G: Gate<N>, F: Future<Output = ()> + 'static>(
        _: impl Fn(Rc<Core<N>>, Rc<Mailbox<Conn<G::Stream>, Served<G::Stream>>>) -> F,
    ) -> (usize, usize) {
        fn output<A, B, C, D, T>(_: impl Fn(A, B, C, D) -> T) -> usize {
            size_of::<T>()
        }
        (output(Welcome::<N, G, F>::connection), size_of::<F>())
    }

    #[test]
    fn an_idle_connection_is_small_and_a_busy_one_is_bounded() {
        let (idle, busy) = sizes::<Mem, Plain, _>(session::serve_each::<Mem, MemStream>);
        assert!(idle < 1024, "{idle}");
        assert!(busy < 10 * 1024, "{busy}");
    }
}
