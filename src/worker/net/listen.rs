//! Listening sockets, made by control and handed to the workers: non-blocking, close-on-exec, refused with a plain
//! sentence where another process already listens.

use crate::limits;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Whether `address` could be listened on by nobody else: binds it without SO_REUSEPORT and lets go. The error says what
/// is in the way. Ask before the first [`tcp`] on an address, and not while this process listens there itself: with
/// SO_REUSEPORT a second instance would bind silently and take half of the connections.
pub fn free(address: SocketAddr) -> io::Result<()> {
    let bound = new_tcp(address, false).and_then(|socket| socket.bind(&address.into()));
    bound.map_err(|e| plain(e, &address))
}

/// One listening socket. With `reuse_port` it joins other listeners on the address, and the kernel spreads connections
/// over all of them. TCP_NODELAY and TCP_NOTSENT_LOWAT are set and inherited by what is accepted.
pub fn tcp(address: SocketAddr, reuse_port: bool) -> io::Result<OwnedFd> {
    let listening = || {
        let socket = new_tcp(address, reuse_port)?;
        socket.set_nodelay(true)?;
        keep_little_unsent(&socket);
        socket.bind(&address.into())?;
        socket.listen(limits::LISTEN_BACKLOG)?;
        Ok(socket.into())
    };
    listening().map_err(|e| plain(e, &address))
}

/// One listening socket per core on an address that was free. Port 0 becomes the same port for all.
pub fn tcp_per_core(address: SocketAddr, cores: usize) -> io::Result<Vec<OwnedFd>> {
    free(address)?;
    let mut sockets = Vec::with_capacity(cores);
    let mut bound = address;
    for _ in 0..cores {
        let fd = tcp(bound, true)?;
        bound = address_of(&fd)?;
        sockets.push(fd);
    }
    Ok(sockets)
}

/// A listening Unix socket at `path`. A socket file that nobody listens on is removed first; one with a listener, or a
/// file of another kind, is refused. Workers share it through `try_clone`: there is no SO_REUSEPORT for them.
pub fn unix(path: &Path) -> io::Result<OwnedFd> {
    let shown = path.display();
    let address = SockAddr::unix(path).map_err(|e| plain(e, &shown))?;
    remove_stale(path, &address)?;
    let listening = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
        socket.bind(&address)?;
        socket.listen(limits::LISTEN_BACKLOG)?;
        Ok(socket.into())
    };
    listening().map_err(|e| plain(e, &shown))
}

/// The address a TCP socket is bound to.
pub fn address_of(socket: &OwnedFd) -> io::Result<SocketAddr> {
    let address = socket2::SockRef::from(socket).local_addr()?;
    address.as_socket().ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// Lets the kernel queue no more than `limits::UNSENT_BYTES` that the peer has no room for: else one who never reads pins as
/// much as net.ipv4.tcp_wmem allows, 4 MiB, each. What is under way does not count, so a fast reader is not slowed down.
pub(super) fn keep_little_unsent(socket: &Socket) {
    let most: libc::c_int = limits::UNSENT_BYTES;
    let (option, len) = ((&raw const most).cast(), size_of::<libc::c_int>() as libc::socklen_t);
    // SAFETY: the option is the integer that the pointer and the length name. Without it all works as before.
    unsafe { libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, option, len) };
}

fn new_tcp(address: SocketAddr, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
    if address.is_ipv6() {
        // `[::]` and `0.0.0.0` are two addresses here, whatever net.ipv6.bindv6only says.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    Ok(socket)
}

fn remove_stale(path: &Path, address: &SockAddr) -> io::Result<()> {
    let shown = path.display();
    let found = match path.symlink_metadata() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(|e| plain(e, &shown))?,
    };
    let refuse = |why| Err(io::Error::new(io::ErrorKind::AddrInUse, format!("{shown}: {why}")));
    if !found.file_type().is_socket() {
        return refuse("there is a file that is no socket; it is not removed");
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    match socket.connect(address) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(|e| plain(e, &shown))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        // A full queue (EAGAIN) is a listener too.
        Ok(()) => refuse("another process listens here"),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => refuse("another process listens here"),
        Err(e) => Err(plain(e, &shown)),
    }
}

/// The same error with the address and, where the cause is known, the cause in words.
fn plain(error: io::Error, address: &dyn std::fmt::Display) -> io::Error {
    let why = match error.kind() {
        io::ErrorKind::AddrInUse => "another process listens here".to_string(),
        io::ErrorKind::AddrNotAvailable => "no interface of this machine has this address".to_string(),
        io::ErrorKind::PermissionDenied => {
            format!("{error}; ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE")
        }
        _ => error.to_string(),
    };
    io::Error::new(error.kind(), format!("{address}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::SockRef;

    fn loopback() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    #[test]
    fn cores_share_one_port_and_a_second_instance_is_refused() {
        let sockets = tcp_per_core(loopback(), 3).unwrap();
        let address = address_of(&sockets[0]).unwrap();
        assert!(sockets.iter().all(|fd| address_of(fd).unwrap() == address));
        let refused = tcp_per_core(address, 1).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        assert!(refused.to_string().contains("another process listens"), "{refused}");
        // One of our own may join without asking.
        assert!(tcp(address, true).is_ok());
        drop(sockets);
        assert!(free(address).is_ok());
    }

    #[test]
    fn sockets_have_their_options() {
        let fd = tcp(loopback(), true).unwrap();
        let socket = SockRef::from(&fd);
        assert!(socket.nodelay().unwrap() && socket.reuse_address().unwrap() && socket.reuse_port().unwrap());
        assert!(socket.nonblocking().unwrap());
        // SAFETY: a plain query of an open descriptor.
        let flags = unsafe { libc::fcntl(std::os::fd::AsRawFd::as_raw_fd(&fd), libc::F_GETFD) };
        assert_eq!(flags, libc::FD_CLOEXEC);
        let accepted = {
            let client = std::net::TcpStream::connect(address_of(&fd).unwrap()).unwrap();
            let accepted = std::iter::repeat_with(|| socket.accept()).find_map(Result::ok).unwrap().0;
            drop(client);
            accepted
        };
        let (mut unsent, mut len) = (0, 4);
        // SAFETY: an integer, and its length.
        let got = unsafe {
            let option = (&raw mut unsent).cast();
            libc::getsockopt(accepted.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, option, &raw mut len)
        };
        assert_eq!((got, unsent, accepted.nodelay().unwrap()), (0, limits::UNSENT_BYTES, true));
        if let Ok(v6) = tcp("[::1]:0".parse().unwrap(), false) {
            assert!(SockRef::from(&v6).only_v6().unwrap());
        }
        let elsewhere = tcp("192.0.2.1:0".parse().unwrap(), false).unwrap_err();
        assert!(elsewhere.to_string().contains("no interface"), "{elsewhere}");
    }

    #[test]
    fn a_stale_unix_socket_is_replaced_and_nothing_else() {
        let path = std::env::temp_dir().join(format!("ringway-listen-{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let live = unix(&path).unwrap();
        assert!(unix(&path).unwrap_err().to_string().contains("another process listens"));
        drop(live);
        assert!(path.exists());
        drop(unix(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(unix(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        std::fs::remove_file(&path).unwrap();
        assert!(unix(Path::new(&"/x".repeat(100))).is_err());
    }
}
