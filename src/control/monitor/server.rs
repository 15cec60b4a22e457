//! The status listener: its socket and the places of its clients. When all are taken, whoever has made no progress for the
//! longest makes room, so that idle clients keep nobody out.

use super::client::{Answer, Client, Gone, PER_TURN, Page, Wire};
use crate::config::Address;
use crate::control::spare::Spare;
use crate::limits;
use crate::worker::net::listen;
use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry, Token};
use slab::Slab;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Names a client for its answer; one that has gone meanwhile gets none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClientId {
    key: usize,
    serial: u64,
}

enum Listening {
    Tcp(TcpListener),
    /// Removed at the end.
    Unix(UnixListener, PathBuf),
}

/// The listening socket and its clients.
pub(super) struct Server {
    listening: Listening,
    /// Where it listens, as configured.
    pub(super) address: Address,
    registry: Registry,
    listen_token: Token,
    clients: Slab<Client>,
    serial: u64,
    asked: VecDeque<(ClientId, Page)>,
    /// There may be more to accept then, and no event will say so.
    accept_at: Option<Instant>,
    spare: Spare,
}

impl Server {
    /// Listens. Tokens are `listen_token` and up to `limits::STATUS_CLIENTS_MAX` behind it. `before` is where an older one
    /// of ours still listens.
    ///
    /// # Errors
    /// The address cannot be had.
    pub(super) fn open(
        address: &Address,
        before: Option<&Address>,
        (registry, listen_token): (Registry, Token),
    ) -> io::Result<Server> {
        let listening = match address {
            Address::Ip(address) => {
                // Where we listen ourselves the look for other processes would only find us.
                if !matches!(before, Some(Address::Ip(ours)) if ours.port() == address.port()) {
                    listen::free(*address)?;
                }
                let mut listener = TcpListener::from_std(listen::tcp(*address, true)?.into());
                registry.register(&mut listener, listen_token, Interest::READABLE)?;
                Listening::Tcp(listener)
            }
            Address::Unix(path) => {
                let mut listener = UnixListener::from_std(listen::unix(path)?.into());
                let registered = registry.register(&mut listener, listen_token, Interest::READABLE);
                let listening = Listening::Unix(listener, path.clone());
                registered.map(|()| listening)?
            }
            // The config room refuses these.
            Address::Name(name, _) => return Err(io::Error::other(format!("{name} is no address"))),
        };
        Ok(Server {
            listening,
            address: address.clone(),
            registry,
            listen_token,
            clients: Slab::new(),
            serial: 0,
            asked: VecDeque::new(),
            accept_at: None,
            spare: Spare::new(),
        })
    }

    /// Where it really listens.
    pub(super) fn bound(&self) -> Option<SocketAddr> {
        match &self.listening {
            Listening::Tcp(listener) => listener.local_addr().ok(),
            Listening::Unix(..) => None,
        }
    }

    /// Handles an event of one of its tokens; `false` if the token is not its.
    pub(super) fn event(&mut self, token: Token, now: Instant) -> bool {
        match token.0.checked_sub(self.listen_token.0) {
            Some(0) => self.accept(now),
            Some(n) if n <= limits::STATUS_CLIENTS_MAX => self.go_on(n - 1, now),
            _ => return false,
        }
        true
    }

    /// The next request, in the order of their coming; each is to be answered.
    pub(super) fn next_asked(&mut self) -> Option<(ClientId, Page)> {
        self.asked.pop_front()
    }

    /// Sends the answer and goes on reading.
    pub(super) fn answer(&mut self, client: ClientId, answer: Answer, now: Instant) {
        let Some(asking) = self.clients.get_mut(client.key).filter(|c| c.serial == client.serial) else { return };
        asking.say(answer, now);
        self.go_on(client.key, now);
    }

    /// Goes on where there is more to do, and drops the clients that have stalled.
    pub(super) fn turn(&mut self, now: Instant) {
        self.spare.refill();
        if self.accept_at.is_some_and(|at| at <= now) {
            self.accept(now);
        }
        let more: Vec<usize> = self.clients.iter().filter(|(_, c)| c.more).map(|(key, _)| key).collect();
        more.into_iter().for_each(|key| self.go_on(key, now));
        let late: Vec<usize> = self.clients.iter().filter(|(_, c)| c.deadline() <= now).map(|(key, _)| key).collect();
        for key in late {
            let client = &mut self.clients[key];
            if client.is_within_head() {
                client.refuse(408, "The request did not arrive in time.", now);
                self.go_on(key, now);
            } else {
                self.clients.remove(key);
            }
        }
    }

    /// When there is work next: for [`Server::turn`], or a request that was not taken yet.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        if !self.asked.is_empty() {
            return Some(now);
        }
        let deadline = |c: &Client| if c.more { now } else { c.deadline() };
        self.clients.iter().map(|(_, c)| deadline(c)).chain(self.accept_at).min()
    }

    fn accept(&mut self, now: Instant) {
        self.accept_at = None;
        for _ in 0..PER_TURN {
            let accept = || -> io::Result<Box<dyn Wire>> {
                Ok(match &self.listening {
                    Listening::Tcp(listener) => Box::new(listener.accept()?.0),
                    Listening::Unix(listener, _) => Box::new(listener.accept()?.0),
                })
            };
            match self.spare.accept(accept) {
                Ok(stream) => self.welcome(stream, now),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == ErrorKind::Interrupted || e.kind() == ErrorKind::ConnectionAborted => {}
                Err(e) => {
                    tracing::warn!("status listener: accept failed: {e}");
                    self.accept_at = Some(now + Duration::from_secs(1));
                    return;
                }
            }
        }
        self.accept_at = Some(now);
    }

    fn welcome(&mut self, mut stream: Box<dyn Wire>, now: Instant) {
        if self.clients.len() == limits::STATUS_CLIENTS_MAX
            && let Some(key) = self.clients.iter().min_by_key(|(_, c)| c.since).map(|(key, _)| key)
        {
            self.clients.remove(key);
        }
        let entry = self.clients.vacant_entry();
        let key = entry.key();
        let token = Token(self.listen_token.0 + 1 + key);
        if self.registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE).is_err() {
            return;
        }
        self.serial += 1;
        entry.insert(Client::new(stream, self.serial, now));
        self.go_on(key, now);
    }

    /// Takes a client as far as its socket lets it.
    fn go_on(&mut self, key: usize, now: Instant) {
        let Some(client) = self.clients.get_mut(key) else { return };
        client.more = false;
        match client.step(now) {
            Ok(None) => {}
            Ok(Some(page)) => self.asked.push_back((ClientId { key, serial: client.serial }, page)),
            Err(Gone) => drop(self.clients.remove(key)),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Listening::Unix(_, path) = &self.listening {
            let _ = std::fs::remove_file(path);
        }
    }
}
