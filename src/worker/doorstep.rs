//! Where other cores leave connections for a core, and what such a connection is on its way.
//!
//! A core says once a tick how many it has room for, and counts as many as taken until it says otherwise: so its limit of
//! connections holds, whoever accepts meanwhile. What has been left is taken over when the doorbell rings. A core that drains
//! first says that there is no room, and then takes over what has been left: nothing ever lies where nobody looks.

use super::clusters::add;
use super::net::Net;
use super::{ConnInfo, Core};
use crate::limits;
use std::any::Any;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A connection on its way from one core to another. Dropped, it is closed.
pub(super) struct Handed {
    pub(super) fd: OwnedFd,
    pub(super) info: Box<ConnInfo>,
    /// `None` for a newcomer: no gate has seen it yet.
    pub(super) state: Option<State>,
}

/// What is kept of a connection between two requests beside its socket.
pub(super) struct State {
    /// Requests served so far.
    pub(super) served: u32,
    /// What its gate keeps: a [`super::Gate::Rest`].
    pub(super) rest: Box<dyn Any + Send>,
}

/// The doorstep of one core. A lock is held for a few instructions, and only where a connection changes its core.
#[derive(Default)]
#[repr(align(128))]
pub struct Doorstep(Mutex<Inside>);

#[derive(Default)]
struct Inside {
    /// As many more may be left.
    room: usize,
    left: Vec<Handed>,
}

impl Doorstep {
    fn lock(&self) -> MutexGuard<'_, Inside> {
        // Nothing in here can stop half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves a connection, for its core to be rung. Without room it comes back.
    fn leave(&self, handed: Handed) -> Result<(), Handed> {
        let mut inside = self.lock();
        if inside.room == 0 {
            return Err(handed);
        }
        inside.room -= 1;
        inside.left.push(handed);
        Ok(())
    }

    /// There is room for as many, those included that have been left. Returns how many are to be counted as taken.
    fn offer(&self, room: usize) -> usize {
        let mut inside = self.lock();
        inside.room = room.saturating_sub(inside.left.len());
        inside.room + inside.left.len()
    }

    /// What has been left.
    fn take(&self) -> Vec<Handed> {
        std::mem::take(&mut self.lock().left)
    }
}

impl std::fmt::Debug for Doorstep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let inside = self.lock();
        write!(f, "Doorstep with {} left and room for {}", inside.left.len(), inside.room)
    }
}

impl<N: Net> Core<N> {
    /// One tick: says how many connections there is room for.
    pub(super) fn offer_room(&self) {
        let most = self.view().settings.connections_per_worker;
        let room = most.saturating_sub(self.connections.get()).min(limits::EVEN_WAITING_MAX);
        self.offer(if self.is_draining() || self.doorsteps.len() < 2 { 0 } else { room });
    }

    /// Takes no more than what has been left already.
    pub(super) fn withdraw_room(&self) {
        self.offer(0);
    }

    fn offer(&self, room: usize) {
        let promised = self.doorsteps.get(self.index).map_or(0, |step| step.offer(room));
        self.promised.set(promised);
    }

    /// What other cores have left here.
    pub(super) fn take_handed(&self) -> Vec<Handed> {
        let handed = self.doorsteps.get(self.index).map_or_else(Vec::new, Doorstep::take);
        self.promised.set(self.promised.get() - handed.len());
        handed
    }

    /// Leaves a connection for another core, which is to be rung then. It comes back if that has no room.
    pub(super) fn hand(&self, to: usize, handed: Handed) -> Result<(), Handed> {
        let Some(step) = self.doorsteps.get(to).filter(|_| to != self.index) else { return Err(handed) };
        let newcomer = handed.state.is_none();
        if !newcomer {
            // The other core's lines come behind those that are collected here, so that the log tells a connection in order.
            self.log.borrow_mut().flush();
        }
        step.leave(handed)?;
        add(if newcomer { &self.stats.handed_out } else { &self.stats.moved_out }, 1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ListenerId;
    use std::fs::File;

    fn handed(served: u32) -> Handed {
        let info = ConnInfo { listener: ListenerId(0), peer: None, local: None, via_proxy: None, tls: false };
        let fd = File::open("/dev/null").unwrap().into();
        Handed { fd, info: Box::new(info), state: Some(State { served, rest: Box::new(()) }) }
    }

    #[test]
    fn a_doorstep_takes_what_it_has_room_for_and_gives_the_rest_back() {
        let step = Doorstep::default();
        assert!(step.leave(handed(0)).is_err(), "shut until it is opened");
        assert_eq!(step.offer(2), 2);
        assert!(step.leave(handed(1)).is_ok() && step.leave(handed(2)).is_ok());
        assert_eq!(step.leave(handed(3)).err().and_then(|back| back.state).map(|state| state.served), Some(3));
        // What waits counts, also when the room is withdrawn.
        assert_eq!(step.offer(0), 2);
        let taken: Vec<u32> = step.take().into_iter().filter_map(|one| one.state).map(|state| state.served).collect();
        assert_eq!(taken, [1, 2]);
        assert_eq!((step.offer(0), step.take().len()), (0, 0));
    }

    #[test]
    fn doorsteps_of_two_cores_share_no_cache_line() {
        assert_eq!((align_of::<Doorstep>(), size_of::<Doorstep>() % 128), (128, 0));
    }
}
