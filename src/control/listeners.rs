//! The listening sockets of all cores: opened before anything is committed, given to the workers after it.

use crate::config::{Address, Listener, ListenerId};
use crate::worker::net::listen;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Sockets for one listener, one for each core, not yet given away. Dropping it closes them.
#[derive(Debug)]
pub struct Opened {
    /// Whose.
    pub id: ListenerId,
    /// By core.
    pub sockets: Vec<OwnedFd>,
    /// Unix (one socket, shared) or TCP (one each).
    pub unix: bool,
    /// Where, with the real port if port 0 was asked for.
    pub address: String,
    name: String,
    held: Held,
    file: Option<SocketFile>,
}

/// A Unix socket's file. Removed unless it was kept.
#[derive(Debug)]
struct SocketFile {
    made: PathBuf,
    /// Where it goes when it is kept: over a socket of ours that is there now.
    over: Option<PathBuf>,
    kept: bool,
}

/// What a listener occupies.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Held {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// What this process listens on.
#[derive(Debug, Default)]
pub struct Listeners {
    held: BTreeMap<u32, Held>,
}

impl Listeners {
    /// Opens the sockets of all of these, or none.
    ///
    /// # Errors
    /// The listener's name and what is in the way. Nothing has changed then.
    pub fn open(&self, wanted: &[(ListenerId, &Listener)], cores: usize) -> Result<Vec<Opened>, (String, io::Error)> {
        let open = |(id, listener): &(ListenerId, &Listener)| {
            self.open_one(*id, listener, cores).map_err(|e| (listener.name.clone(), e))
        };
        wanted.iter().map(open).collect()
    }

    /// These are about to be given to the workers.
    pub fn opened(&mut self, opened: &mut Opened) {
        if let Some(file) = opened.file.take() {
            file.keep();
        }
        tracing::info!("listener {} listens on {}", opened.name, opened.address);
        self.held.insert(opened.id.0, opened.held.clone());
    }

    /// The workers were told to close this one. The file of a Unix socket is removed, unless another listener has it now.
    pub fn closed(&mut self, id: ListenerId) {
        if let Some(Held::Unix(path)) = self.held.remove(&id.0)
            && !self.has(&path)
        {
            let _ = std::fs::remove_file(path);
        }
    }

    fn has(&self, path: &Path) -> bool {
        self.held.values().any(|held| matches!(held, Held::Unix(p) if p == path))
    }

    fn open_one(&self, id: ListenerId, listener: &Listener, cores: usize) -> io::Result<Opened> {
        let name = listener.name.clone();
        match &listener.address {
            Address::Ip(address) => {
                // Where this process listens already (a listener under another name, or on another address of the same
                // port) the look for other processes would only find ourselves.
                let ours = |held: &Held| matches!(held, Held::Tcp(a) if overlap(*a, *address));
                let sockets = if self.held.values().any(ours) {
                    (0..cores).map(|_| listen::tcp(*address, true)).collect::<io::Result<_>>()?
                } else {
                    listen::tcp_per_core(*address, cores)?
                };
                let bound = sockets.first().map_or(Ok(*address), listen::address_of)?;
                Ok(Opened {
                    id,
                    sockets,
                    unix: false,
                    address: bound.to_string(),
                    name,
                    held: Held::Tcp(bound),
                    file: None,
                })
            }
            Address::Unix(path) => {
                let over = self.has(path).then(|| path.clone());
                let made = if over.is_some() { beside(path) } else { path.clone() };
                let socket = listen::unix(&made)?;
                let file = Some(SocketFile { made, over, kept: false });
                let sockets = (0..cores).map(|_| socket.try_clone()).collect::<io::Result<_>>()?;
                let address = format!("unix:{}", path.display());
                let held = Held::Unix(path.clone());
                Ok(Opened { id, sockets, unix: true, address, name, held, file })
            }
            // The config room refuses these.
            Address::Name(name, _) => Err(io::Error::other(format!("{name} is no address"))),
        }
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        for held in self.held.values() {
            if let Held::Unix(path) = held {
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port()
        && a.is_ipv4() == b.is_ipv4()
        && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

fn beside(path: &Path) -> PathBuf {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    new.into()
}

impl SocketFile {
    fn keep(mut self) {
        self.kept = true;
        if let Some(over) = &self.over
            && let Err(e) = std::fs::rename(&self.made, over)
        {
            tracing::error!("{} cannot be put in the place of {}: {e}", self.made.display(), over.display());
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if !self.kept {
            let _ = std::fs::remove_file(&self.made);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    fn listener(name: &str, address: Address) -> Listener {
        Listener { name: name.into(), address, trusted_proxies: Vec::new(), health_path: None }
    }

    #[test]
    fn one_socket_per_core_on_one_port_and_none_where_another_process_is() {
        let mut ours = Listeners::default();
        let any = listener("a", Address::Ip(SocketAddr::from(([127, 0, 0, 1], 0))));
        let mut first = ours.open(&[(ListenerId(0), &any)], 3).expect("opened").remove(0);
        assert_eq!(first.sockets.len(), 3);
        TcpStream::connect(&first.address).expect("it listens");
        ours.opened(&mut first);

        // The same address under another name is ours, and joins.
        let same = listener("b", Address::Ip(first.address.parse().expect("an address")));
        let second = ours.open(&[(ListenerId(1), &same)], 2).expect("opened").remove(0);
        assert_eq!(second.address, first.address);

        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let theirs = listener("c", Address::Ip(taken.local_addr().expect("an address")));
        let refused = ours.open(&[(ListenerId(2), &theirs)], 2).expect_err("taken");
        assert_eq!((refused.0.as_str(), refused.1.kind()), ("c", io::ErrorKind::AddrInUse));
    }

    #[test]
    fn a_unix_socket_is_shared_replaced_and_removed() {
        let path = std::env::temp_dir().join(format!("ringway-listener-{}.sock", std::process::id()));
        let at = listener("u", Address::Unix(path.clone()));
        let mut ours = Listeners::default();
        let mut first = ours.open(&[(ListenerId(0), &at)], 2).expect("opened").remove(0);
        assert!(first.unix && first.sockets.len() == 2);
        ours.opened(&mut first);
        assert!(Listeners::default().open(&[(ListenerId(0), &at)], 1).is_err(), "another process is refused");
        let dropped = ours.open(&[(ListenerId(1), &at)], 2).expect("opened");
        drop(dropped);
        UnixStream::connect(&path).expect("what was not committed changed nothing");
        let mut second = ours.open(&[(ListenerId(1), &at)], 2).expect("opened").remove(0);
        ours.opened(&mut second);
        ours.closed(ListenerId(0));
        drop(first);
        UnixStream::connect(&path).expect("the second one listens");
        drop(ours);
        assert!(!path.exists());
    }
}
