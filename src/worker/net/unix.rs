//! Two system calls of the control side that std does not have: a lock on a file, and who is at the other end of a Unix
//! socket. They stand here because this room is where system calls are made.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Takes an exclusive lock (flock) without waiting; the kernel lets go of it when the descriptor is closed.
///
/// # Errors
/// `WouldBlock` if another descriptor holds it.
pub fn try_lock(file: impl AsFd) -> io::Result<()> {
    // SAFETY: an open descriptor, borrowed for the call.
    match unsafe { libc::flock(file.as_fd().as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// User and process that connected a Unix socket, as the kernel noted them then (SO_PEERCRED). The process is 0 if it is
/// in another PID namespace.
///
/// # Errors
/// No Unix socket.
pub fn peer(socket: &impl AsRawFd) -> io::Result<(u32, i32)> {
    let mut cred = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: `cred` and `len` live through the call, and `len` says the size of `cred`.
    let done = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut cred).cast(), &raw mut len)
    };
    if done == 0 { Ok((cred.uid, cred.pid)) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_lock_has_one_holder() {
        let path = std::env::temp_dir().join(format!("ringway-flock-{}", std::process::id()));
        let (first, second) = (File::create(&path).unwrap(), File::create(&path).unwrap());
        assert!(try_lock(&first).is_ok());
        assert_eq!(try_lock(&second).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(first);
        assert!(try_lock(&second).is_ok());
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn the_peer_of_a_pair_is_this_process() {
        let (one, _two) = UnixStream::pair().unwrap();
        assert_eq!(peer(&one).unwrap().1, std::process::id() as i32);
        assert!(peer(&File::open("/dev/null").unwrap()).is_err());
    }
}
