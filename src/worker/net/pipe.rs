//! A pipe between two streams: bytes go in from one and out to the other, and with the kernel's own pipes they never come
//! up to this process (splice(2)).
//!
//! The calls do not wait; they are made when a stream is ready. The ring's own splice is not used: the ring always hands
//! it to another thread, which costs eight context switches for a megabyte.

use crate::limits;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// A pipe with what stands in it.
#[derive(Debug)]
pub struct Pipe(Kind);

#[derive(Debug)]
enum Kind {
    Kernel { exit: OwnedFd, entry: OwnedFd, len: usize },
    Memory(VecDeque<u8>),
}

impl Pipe {
    /// One of the kernel's, of `limits::PIPE_BYTES` where that may be had.
    ///
    /// # Errors
    /// Descriptors have run out, or the user owns so many pipes that new ones hold next to nothing
    /// (fs.pipe-user-pages-soft).
    pub(super) fn in_kernel() -> io::Result<Pipe> {
        let mut fds = [-1; 2];
        // SAFETY: room for two descriptors.
        if unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened, owned by nobody else.
        let [exit, entry] = fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
        // SAFETY: plain calls on an open pipe. One that may not grow stays as it was made.
        let size = unsafe {
            libc::fcntl(entry.as_raw_fd(), libc::F_SETPIPE_SZ, limits::PIPE_BYTES as libc::c_int);
            libc::fcntl(entry.as_raw_fd(), libc::F_GETPIPE_SZ)
        };
        match usize::try_from(size) {
            Ok(size) if size >= limits::PIPE_BYTES_MIN => Ok(Pipe(Kind::Kernel { exit, entry, len: 0 })),
            _ => Err(io::ErrorKind::QuotaExceeded.into()),
        }
    }

    /// One of the net in memory.
    pub(super) fn in_memory() -> Pipe {
        Pipe(Kind::Memory(VecDeque::new()))
    }

    /// Bytes that stand in it.
    pub fn len(&self) -> usize {
        match &self.0 {
            Kind::Kernel { len, .. } => *len,
            Kind::Memory(bytes) => bytes.len(),
        }
    }

    /// Whether nothing stands in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, if it is one of the net in memory.
    pub(in crate::worker) fn memory(&mut self) -> Option<&mut VecDeque<u8>> {
        match &mut self.0 {
            Kind::Kernel { .. } => None,
            Kind::Memory(bytes) => Some(bytes),
        }
    }

    /// Takes up to `most` (at least 1) of the bytes that have come to a socket. `Ok(0)` is the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` where there are none, or none that the kernel splices.
    pub(super) fn fill_from(&mut self, socket: RawFd, most: usize) -> io::Result<usize> {
        assert!(most > 0 && self.is_empty());
        let Kind::Kernel { entry, len, .. } = &mut self.0 else { return Err(io::ErrorKind::InvalidInput.into()) };
        let n = splice(socket, entry.as_raw_fd(), most)?;
        *len += n;
        Ok(n)
    }

    /// Gives a socket what it has room for; the pipe is not empty.
    ///
    /// # Errors
    /// As of a send; `WouldBlock` where there is no room.
    pub(super) fn pour_into(&mut self, socket: RawFd) -> io::Result<usize> {
        assert!(!self.is_empty());
        let Kind::Kernel { exit, len, .. } = &mut self.0 else { return Err(io::ErrorKind::InvalidInput.into()) };
        let n = splice(exit.as_raw_fd(), socket, *len)?;
        *len -= n;
        Ok(n)
    }
}

fn splice(from: RawFd, to: RawFd, most: usize) -> io::Result<usize> {
    let none = std::ptr::null_mut;
    loop {
        // SAFETY: open descriptors, no offsets. SIGPIPE is ignored, as in every Rust program.
        let n = unsafe { libc::splice(from, none(), to, none(), most, libc::SPLICE_F_NONBLOCK | libc::SPLICE_F_MOVE) };
        if let Ok(n) = usize::try_from(n) {
            return Ok(n);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
