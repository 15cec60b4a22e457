//! Where idle connections are parked: an epoll set, which is one descriptor for the driver to wait on however many are in
//! it. A parked connection is its descriptor and an entry of the kernel's.
//!
//! Each is watched for one event: between its events, and while it is busy, it stays in the set and is silent. A descriptor
//! that is closed leaves the set by itself, because a parked one has no operation of the ring that would keep its file open.

use super::os::owned;
use crate::limits;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Whether a descriptor is in the set already: watching it again is then one cheaper call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Yes,
    No,
}

/// A new set.
pub(super) fn lot() -> io::Result<OwnedFd> {
    // SAFETY: a plain call.
    owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })
}

/// Watches a descriptor for one event: bytes, the end of the stream, or an error.
///
/// # Errors
/// The kernel lacks memory, or the user has as many watches as `fs.epoll.max_user_watches` allows.
pub(super) fn watch(lot: &impl AsFd, stream: &impl AsFd, known: Known, key: u64) -> io::Result<()> {
    let events = libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLONESHOT;
    let mut event = libc::epoll_event { events: events as u32, u64: key };
    let how = match known {
        Known::Yes => libc::EPOLL_CTL_MOD,
        Known::No => libc::EPOLL_CTL_ADD,
    };
    // SAFETY: one valid event, which the kernel copies.
    let result = unsafe { libc::epoll_ctl(lot.as_fd().as_raw_fd(), how, stream.as_fd().as_raw_fd(), &mut event) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Takes a descriptor out of the set, where it would stay as long as its file is open.
pub(super) fn forget(lot: &impl AsFd, stream: &impl AsFd) {
    let (lot, stream) = (lot.as_fd().as_raw_fd(), stream.as_fd().as_raw_fd());
    // SAFETY: a plain call that looks at no event. One that is not in the set is no matter.
    unsafe { libc::epoll_ctl(lot, libc::EPOLL_CTL_DEL, stream, std::ptr::null_mut()) };
}

/// Appends the keys of those that have had their event, up to a bound; `false` if none has.
pub(super) fn stirred(lot: &impl AsFd, keys: &mut Vec<u64>) -> bool {
    const NONE: libc::epoll_event = libc::epoll_event { events: 0, u64: 0 };
    let mut events = [NONE; limits::UNPARK_BATCH];
    // SAFETY: room for as many events as the call is told.
    let n = unsafe { libc::epoll_wait(lot.as_fd().as_raw_fd(), events.as_mut_ptr(), events.len() as libc::c_int, 0) };
    let events = &events[..n.max(0) as usize];
    keys.extend(events.iter().map(|event| event.u64));
    !events.is_empty()
}
