//! New connections: accepted in batches, admitted by the gate, and kept between requests in their own small task.

use super::busy::Places;
use super::clusters::add;
use super::net::{Accepted, Net, Stream};
use super::session::{Conn, Served};
use super::{ConnInfo, Core, Gate};
use crate::config::{Address, ListenerId};
use crate::limits;
use std::future::Future;
use std::rc::Rc;

/// Free boxes for busy sessions that one core keeps.
const PLACES_KEPT: usize = 1024;

/// What an accepted connection needs: the gate, and how a session is made, with the memory for it.
pub(super) struct Welcome<N: Net, G, F, S> {
    core: Rc<Core<N>>,
    gate: G,
    places: Rc<Places<F>>,
    serve: Rc<S>,
}

impl<N: Net, G: Clone, F, S> Clone for Welcome<N, G, F, S> {
    fn clone(&self) -> Self {
        let (core, gate) = (self.core.clone(), self.gate.clone());
        Welcome { core, gate, places: self.places.clone(), serve: self.serve.clone() }
    }
}

/// Counts a connection in, and out when it is dropped.
struct Counted<N: Net>(Rc<Core<N>>);

impl<N: Net> Counted<N> {
    fn new(core: &Rc<Core<N>>) -> Self {
        core.connections.set(core.connections.get() + 1);
        add(&core.stats.accepted, 1);
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

impl<N, G, F, S> Welcome<N, G, F, S>
where
    N: Net,
    G: Gate<N>,
    F: Future<Output = Served<G::Stream>> + 'static,
    S: Fn(Rc<Core<N>>, Conn<G::Stream>) -> F + 'static,
{
    pub(super) fn new(core: Rc<Core<N>>, gate: G, serve: S) -> Self {
        Welcome { core, gate, places: Rc::new(Places::new(PLACES_KEPT)), serve: Rc::new(serve) }
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
        loop {
            // At the limit the longest idle connection makes room; without one, newcomers wait in the kernel's queue.
            loop {
                let (now, most) = (core.connections.get(), core.view().settings.connections_per_worker);
                if now < most {
                    break;
                }
                core.idle.end_oldest(&core.net, now - most + (most / 64).clamp(1, limits::ACCEPT_BATCH));
                core.next_change().await;
            }
            let result = core.net.accept(&listener, &mut batch).await;
            for accepted in batch.drain(..) {
                core.net.spawn(self.clone().connection(id, accepted, Counted::new(&core)));
            }
            match result {
                Ok(()) => {}
                Err(_) if !core.is_listening(&listener) => return,
                Err(_) => {
                    // No descriptors (EMFILE, ENFILE) or no memory: trying again at once would only spin.
                    add(&core.stats.accept_failures, 1);
                    core.idle.end_oldest(&core.net, limits::ACCEPT_BATCH);
                    core.next_change().await;
                }
            }
        }
    }

    async fn connection(self, listener: ListenerId, accepted: Accepted<N::Stream>, counted: Counted<N>) {
        let core = &counted.0;
        let local = core.view().settings.listeners.get(listener.0 as usize).and_then(|l| match l.as_ref()?.address {
            Address::Ip(address) => Some(address),
            _ => None,
        });
        let info = ConnInfo { listener, peer: accepted.peer, local, via_proxy: None, tls: false };
        let Some((stream, info)) = self.gate.admit(accepted.stream, info).await else { return };
        let mut conn = Conn { stream, info: Rc::new(info), served: 0 };
        loop {
            let seconds = {
                let view = core.view();
                let settings = &view.settings;
                if conn.served == 0 { settings.client_head_timeout } else { settings.client_idle_timeout }
            };
            let room = core.idle.enter(conn.stream.handle(), core.slots.now(), seconds);
            let ready = conn.stream.readable().await;
            drop(room);
            if ready.is_err() {
                return;
            }
            match self.places.run((self.serve)(core.clone(), conn)).await {
                Some(Served::Idle(again)) => conn = again,
                Some(Served::Closed) => return,
                None => return add(&core.stats.panics, 1),
            }
        }
    }
}

impl<N: Net> Core<N> {
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
    fn sizes<N, G, F, S>(_: S) -> (usize, usize)
    where
        N: Net,
        G: Gate<N>,
        F: Future<Output = Served<G::Stream>> + 'static,
        S: Fn(Rc<Core<N>>, Conn<G::Stream>) -> F + 'static,
    {
        fn output<A, B, C, D, T>(_: impl Fn(A, B, C, D) -> T) -> usize {
            size_of::<T>()
        }
        (output(Welcome::<N, G, F, S>::connection), size_of::<F>())
    }

    #[test]
    fn an_idle_connection_is_small_and_a_busy_one_is_bounded() {
        let (idle, busy) = sizes::<Mem, Plain, _, _>(session::serve::<Mem, MemStream>);
        assert!(idle < 1024, "{idle}");
        assert!(busy < 10 * 1024, "{busy}");
    }
}
