//! The control socket's transport: clients of a Unix socket, lines in, lines out, everything bounded.
//!
//! A client is greeted, then it is `Reading` until a line is whole, `Asked` until control has an answer, and `Writing`
//! until the answer has gone; only then the next line is read. So each client costs one line and one answer at most. One
//! that takes too long over a line or over reading its answer is dropped, with the reason in the log and, if it still
//! listens, on its socket. When all places are taken, the client that was silent longest makes room.

use super::lock::Lock;
use super::spare::Spare;
use crate::config::ControlAccess;
use crate::limits;
use crate::worker::net::{machine, unix};
use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use slab::Slab;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const STALL: Duration = Duration::from_secs(limits::CONTROL_STALL_SECONDS);

/// Who is at the other end, by the kernel's word at connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// User.
    pub uid: u32,
    /// Process; 0 if it is in another PID namespace.
    pub pid: i32,
}

/// Names a client for its answer; one that has gone meanwhile gets none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientId {
    key: usize,
    serial: u64,
}

/// One request line.
#[derive(Debug)]
pub struct Line {
    /// To be answered with [`ControlSocket::answer`].
    pub client: ClientId,
    /// Who asks.
    pub peer: Peer,
    /// Without its line feed.
    pub bytes: Vec<u8>,
}

#[derive(Debug)]
enum Phase {
    Reading,
    Asked,
    Writing,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    peer: Peer,
    serial: u64,
    phase: Phase,
    input: Vec<u8>,
    /// Input bytes that are known to hold no line feed.
    scanned: usize,
    /// No more input will come.
    at_end: bool,
    /// It is silent by nature, and makes no room for others.
    kept: bool,
    output: Vec<u8>,
    sent: usize,
    /// Since when it is in its phase, or has been making no progress in it.
    since: Instant,
}

/// The listening socket and its clients.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    registry: Registry,
    listen_token: Token,
    hello: Vec<u8>,
    refuse: fn(&str) -> Vec<u8>,
    clients: Slab<Client>,
    serial: u64,
    lines: VecDeque<Line>,
    /// Accept failed for want of descriptors; to be tried again then.
    accept_at: Option<Instant>,
    spare: Spare,
    _lock: Lock,
}

impl ControlSocket {
    /// Listens at `path` for these users; takes the lock beside it and removes a socket left behind. Tokens are
    /// `listen_token` and up to `limits::CONTROL_CLIENTS_MAX` behind it. Every client first gets the line `hello`; `refuse`
    /// makes the line for one that is dropped.
    ///
    /// # Errors
    /// Another instance holds the lock, or the path cannot be used.
    pub fn open(
        path: &Path,
        access: &ControlAccess,
        (registry, listen_token): (Registry, Token),
        hello: Vec<u8>,
        refuse: fn(&str) -> Vec<u8>,
    ) -> io::Result<ControlSocket> {
        let lock = Lock::take(path)?;
        let said = |e: io::Error| io::Error::new(e.kind(), format!("control socket {}: {e}", path.display()));
        let mut listener = listen(path, access).map_err(said)?;
        registry.register(&mut listener, listen_token, Interest::READABLE)?;
        Ok(ControlSocket {
            listener,
            path: path.to_owned(),
            registry,
            listen_token,
            hello,
            refuse,
            clients: Slab::new(),
            serial: 0,
            lines: VecDeque::new(),
            accept_at: None,
            spare: Spare::new(),
            _lock: lock,
        })
    }

    /// Whether an event with this token is for it.
    pub fn owns(&self, token: Token) -> bool {
        (self.listen_token.0..=self.listen_token.0 + limits::CONTROL_CLIENTS_MAX).contains(&token.0)
    }

    /// Handles an event of one of its tokens.
    pub fn event(&mut self, token: Token, now: Instant) {
        match (token.0 - self.listen_token.0).checked_sub(1) {
            None => self.accept(now),
            Some(key) => self.go_on(key, now),
        }
    }

    /// The next request, in the order of their coming.
    pub fn next_line(&mut self) -> Option<Line> {
        self.lines.pop_front()
    }

    /// Changes permission bits and group.
    ///
    /// # Errors
    /// The key of the config that cannot be obeyed, and why.
    pub fn set_access(&self, access: &ControlAccess) -> Result<(), (&'static str, io::Error)> {
        set_access(&self.path, access)
    }

    /// Sends the answer, one line with its line feed, and goes on reading.
    pub fn answer(&mut self, client: ClientId, line: &[u8], now: Instant) {
        let Some(asking) = self.clients.get_mut(client.key).filter(|c| c.serial == client.serial) else { return };
        asking.say(line, now);
        self.go_on(client.key, now);
    }

    /// Whether this client is still there.
    pub fn is_there(&self, client: ClientId) -> bool {
        self.get(client).is_some()
    }

    /// Whether it has taken everything and waits for nothing, so that a line can be sent that nobody has asked for.
    pub fn has_taken_all(&self, client: ClientId) -> bool {
        self.get(client).is_some_and(|client| matches!(client.phase, Phase::Reading))
    }

    /// It listens: that it is silent from here on is no reason to take its place.
    pub fn keep(&mut self, client: ClientId) {
        if let Some(client) = self.clients.get_mut(client.key).filter(|c| c.serial == client.serial) {
            client.kept = true;
        }
    }

    /// Drops a client.
    pub fn cut(&mut self, client: ClientId, why: &str) {
        if self.is_there(client) {
            self.drop_client(client.key, why);
        }
    }

    fn get(&self, client: ClientId) -> Option<&Client> {
        self.clients.get(client.key).filter(|c| c.serial == client.serial)
    }

    /// Drops the clients that have stalled.
    pub fn expire(&mut self, now: Instant) {
        self.spare.refill();
        let late: Vec<(usize, &str)> = self
            .clients
            .iter()
            .filter(|(_, c)| c.deadline().is_some_and(|deadline| deadline <= now))
            .map(|(key, c)| match c.phase {
                Phase::Writing => (key, "the answer was not read in time"),
                _ => (key, "the line was not finished in time"),
            })
            .collect();
        late.into_iter().for_each(|(key, why)| self.drop_client(key, why));
        if self.accept_at.is_some_and(|at| at <= now) {
            self.accept(now);
        }
    }

    /// When [`ControlSocket::expire`] has work next.
    pub fn deadline(&self) -> Option<Instant> {
        self.clients.iter().filter_map(|(_, c)| c.deadline()).chain(self.accept_at).min()
    }

    fn accept(&mut self, now: Instant) {
        self.accept_at = None;
        loop {
            match self.spare.accept(|| self.listener.accept()) {
                Ok((stream, _)) => self.welcome(stream, now),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    tracing::warn!("control socket: accept failed: {e}");
                    self.accept_at = Some(now + Duration::from_secs(1));
                    return;
                }
            }
        }
    }

    fn welcome(&mut self, mut stream: UnixStream, now: Instant) {
        if self.clients.len() == limits::CONTROL_CLIENTS_MAX {
            let silent = self
                .clients
                .iter()
                .filter(|(_, c)| c.deadline().is_none() && matches!(c.phase, Phase::Reading) && !c.kept);
            // Those of one turn have the same instant: the first to come is the first to go.
            match silent.min_by_key(|(_, c)| (c.since, c.serial)).map(|(key, _)| key) {
                Some(key) => self.drop_client(key, "another client needs the place"),
                None => {
                    let _ = stream.write(&(self.refuse)("too many clients"));
                    return;
                }
            }
        }
        let entry = self.clients.vacant_entry();
        let token = Token(self.listen_token.0 + 1 + entry.key());
        if self.registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE).is_err() {
            return;
        }
        self.serial += 1;
        let key = entry.key();
        let peer = peer_of(&stream);
        let client = entry.insert(Client {
            stream,
            peer,
            serial: self.serial,
            phase: Phase::Reading,
            input: Vec::new(),
            scanned: 0,
            at_end: false,
            kept: false,
            output: Vec::new(),
            sent: 0,
            since: now,
        });
        client.say(&self.hello, now);
        self.go_on(key, now);
    }

    /// Takes a client as far as its socket lets it.
    fn go_on(&mut self, key: usize, now: Instant) {
        let others: usize = self.clients.iter().filter(|(k, _)| *k != key).map(|(_, c)| c.input.len()).sum();
        let Some(client) = self.clients.get_mut(key) else { return };
        match client.step(limits::CONTROL_INPUT_BYTES_MAX.saturating_sub(others), now) {
            Ok(Some(bytes)) => {
                let client_id = ClientId { key, serial: client.serial };
                self.lines.push_back(Line { client: client_id, peer: client.peer, bytes });
            }
            Ok(None) => {}
            Err(Gone::Left) => drop(self.clients.remove(key)),
            Err(Gone::Bad(why)) => self.drop_client(key, why),
        }
    }

    fn drop_client(&mut self, key: usize, why: &str) {
        let mut client = self.clients.remove(key);
        tracing::warn!("control socket: client (uid {}, pid {}) dropped: {why}", client.peer.uid, client.peer.pid);
        // Only where it begins a line; what does not fit the socket is lost.
        if client.sent == client.output.len() {
            let _ = client.stream.write(&(self.refuse)(why));
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Why a client is no more: by its own wish, or by ours.
enum Gone {
    Left,
    Bad(&'static str),
}

impl Client {
    fn say(&mut self, line: &[u8], now: Instant) {
        self.output.extend_from_slice(line);
        self.phase = Phase::Writing;
        self.since = now;
    }

    fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Writing => Some(self.since + STALL),
            Phase::Reading if !self.input.is_empty() => Some(self.since + STALL),
            Phase::Reading | Phase::Asked => None,
        }
    }

    /// Writes what is to be written, then reads; a whole line is handed out. `room` is how long its input may get.
    fn step(&mut self, room: usize, now: Instant) -> Result<Option<Vec<u8>>, Gone> {
        if matches!(self.phase, Phase::Writing) && !self.write(now)? {
            return Ok(None);
        }
        if matches!(self.phase, Phase::Asked) {
            return Ok(None);
        }
        loop {
            if let Some(line) = self.take_line() {
                self.phase = Phase::Asked;
                self.since = now;
                return Ok(Some(line));
            }
            if self.at_end {
                return Err(Gone::Left);
            }
            if self.input.len() > limits::CONTROL_LINE_BYTES_MAX {
                return Err(Gone::Bad("the line is too long"));
            }
            if self.input.len() > room {
                return Err(Gone::Bad("all clients together have too many bytes in unfinished lines"));
            }
            let mut bytes = [0; 64 * 1024];
            match self.stream.read(&mut bytes) {
                Ok(0) => self.at_end = true,
                Ok(n) => {
                    if self.input.is_empty() {
                        self.since = now;
                    }
                    self.input.extend_from_slice(&bytes[..n]);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Gone::Left),
            }
        }
    }

    /// Whether all has been written; it is then `Reading` again.
    fn write(&mut self, now: Instant) -> Result<bool, Gone> {
        while self.sent < self.output.len() {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(n) => {
                    self.sent += n;
                    self.since = now;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Gone::Left),
            }
        }
        self.output = Vec::new();
        self.sent = 0;
        self.phase = Phase::Reading;
        self.since = now;
        Ok(true)
    }

    /// The first whole line that is not blank, taken out of the input; at its end also an unfinished one.
    fn take_line(&mut self) -> Option<Vec<u8>> {
        let blank = self.input.len() - self.input.trim_ascii_start().len();
        if blank > 0 {
            self.input.drain(..blank);
            self.scanned = 0;
        }
        let end = memchr::memchr(b'\n', &self.input[self.scanned..]).map(|at| at + self.scanned);
        let line = match end {
            Some(end) => {
                let rest = self.input.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.input, rest);
                line.pop();
                line
            }
            None if self.at_end && !self.input.is_empty() => std::mem::take(&mut self.input),
            None => {
                self.scanned = self.input.len();
                return None;
            }
        };
        self.scanned = 0;
        Some(line)
    }
}

/// Group first: the bits are meant for it.
fn set_access(path: &Path, access: &ControlAccess) -> Result<(), (&'static str, io::Error)> {
    if let Some(group) = &access.group {
        let changed = machine::group_id(group).and_then(|gid| std::os::unix::fs::chown(path, None, Some(gid)));
        changed.map_err(|e| ("$.control.group", e))?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(access.mode)).map_err(|e| ("$.control.mode", e))
}

/// Binds under another name and renames, so that the socket appears with its permissions and never without a listener.
fn listen(path: &Path, access: &ControlAccess) -> io::Result<UnixListener> {
    match path.symlink_metadata() {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
        }
        // A socket left behind: the lock proves that no instance uses it.
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let _ = std::fs::remove_file(&new);
    let listener = UnixListener::bind(&new)?;
    let placed = set_access(Path::new(&new), access)
        .map_err(|(key, e)| io::Error::new(e.kind(), format!("{key}: {e}")))
        .and_then(|()| std::fs::rename(&new, path));
    if placed.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    placed.map(|()| listener)
}

fn peer_of(stream: &UnixStream) -> Peer {
    // Connected, so it has one; without it, nobody.
    let (uid, pid) = unix::peer(stream).unwrap_or((u32::MAX, 0));
    Peer { uid, pid }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixStream as Plain;

    fn access(mode: u32) -> ControlAccess {
        ControlAccess { mode, group: None, uids: None }
    }

    struct Loop {
        poll: mio::Poll,
        socket: ControlSocket,
    }

    impl Loop {
        fn open(name: &str) -> Loop {
            let path = std::env::temp_dir().join(format!("ringway-{name}-{}.sock", std::process::id()));
            let poll = mio::Poll::new().expect("a poll");
            let registry = poll.registry().try_clone().expect("a registry");
            let refuse = |why: &str| format!("no: {why}\n").into_bytes();
            let socket = ControlSocket::open(&path, &access(0o600), (registry, Token(5)), b"hello\n".to_vec(), refuse)
                .expect("opened");
            Loop { poll, socket }
        }

        fn connect(&mut self) -> Plain {
            self.connect_at(Instant::now())
        }

        fn connect_at(&mut self, now: Instant) -> Plain {
            let stream = Plain::connect(&self.socket.path).expect("connected");
            self.turn(now);
            stream
        }

        /// Handles what has come and answers each line with itself in upper case.
        fn turn(&mut self, now: Instant) {
            let mut events = mio::Events::with_capacity(256);
            self.poll.poll(&mut events, Some(Duration::from_millis(10))).expect("polled");
            for event in &events {
                assert!(self.socket.owns(event.token()));
                self.socket.event(event.token(), now);
            }
            while let Some(line) = self.socket.next_line() {
                let answer = [&line.bytes.to_ascii_uppercase()[..], b"\n"].concat();
                self.socket.answer(line.client, &answer, now);
            }
            self.socket.expire(now);
        }
    }

    impl Drop for Loop {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(super::super::lock::path_beside(&self.socket.path));
        }
    }

    fn lines(stream: &Plain) -> Vec<String> {
        stream.set_nonblocking(true).expect("set");
        BufReader::new(stream).lines().map_while(Result::ok).collect()
    }

    #[test]
    fn lines_are_answered_in_order_and_split_anywhere() {
        let mut control = Loop::open("order");
        let mut stream = control.connect();
        for byte in b"one\n\r\n  \ntwo\nthr" {
            stream.write_all(&[*byte]).expect("sent");
            control.turn(Instant::now());
        }
        assert_eq!(lines(&stream), ["hello", "ONE", "TWO"]);
        stream.write_all(b"ee\nfour\nfive").expect("sent");
        stream.shutdown(std::net::Shutdown::Write).expect("half-closed");
        (0..3).for_each(|_| control.turn(Instant::now()));
        assert_eq!(lines(&stream), ["THREE", "FOUR", "FIVE"]);
        assert!(control.socket.clients.is_empty());
    }

    #[test]
    fn the_peer_is_known_and_the_mode_is_set() {
        let mut control = Loop::open("peer");
        let mut stream = control.connect();
        stream.write_all(b"x\n").expect("sent");
        let mut events = mio::Events::with_capacity(8);
        control.poll.poll(&mut events, Some(Duration::from_secs(5))).expect("polled");
        events.iter().for_each(|e| control.socket.event(e.token(), Instant::now()));
        let line = control.socket.next_line().expect("a line");
        // SAFETY: a plain call.
        assert_eq!(line.peer, Peer { uid: unsafe { libc::getuid() }, pid: std::process::id() as i32 });
        let mode = std::fs::metadata(&control.socket.path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn stalled_clients_are_dropped_and_idle_ones_are_not() {
        let mut control = Loop::open("stall");
        let idle = control.connect();
        let mut unfinished = control.connect();
        let mut never_reads = control.connect();
        unfinished.write_all(b"{\"half").expect("sent");
        never_reads.write_all(&[&vec![b'x'; 4 << 20][..], b"\n"].concat()[..100_000]).expect("sent");
        let sender = std::thread::spawn(move || {
            let _ = never_reads.write_all(&[&vec![b'x'; 4 << 20][..], b"\n"].concat());
            never_reads
        });
        let begin = Instant::now();
        while !sender.is_finished() {
            control.turn(begin);
        }
        let _never_reads = sender.join().expect("sent");
        (0..5).for_each(|_| control.turn(begin));
        assert_eq!(control.socket.clients.len(), 3);
        assert!(control.socket.deadline().is_some_and(|at| at <= begin + STALL));
        control.turn(begin + STALL);
        assert_eq!(control.socket.clients.len(), 1);
        assert_eq!(lines(&unfinished), ["hello", "no: the line was not finished in time"]);
        assert_eq!(lines(&idle), ["hello"]);
    }

    #[test]
    fn a_full_house_lets_the_longest_silent_client_go() {
        let mut control = Loop::open("full");
        let now = Instant::now();
        let mut streams: Vec<Plain> = (0..limits::CONTROL_CLIENTS_MAX + 3).map(|_| control.connect_at(now)).collect();
        assert_eq!(control.socket.clients.len(), limits::CONTROL_CLIENTS_MAX);
        for gone in &streams[..3] {
            assert_eq!(lines(gone), ["hello", "no: another client needs the place"]);
        }
        let last = streams.last_mut().expect("some");
        last.write_all(b"a\n").expect("sent");
        control.turn(Instant::now());
        assert_eq!(lines(last), ["hello", "A"]);
        for stream in &mut streams[3..] {
            stream.write_all(b"busy").expect("sent");
        }
        (0..3).for_each(|_| control.turn(Instant::now()));
        let refused = control.connect();
        assert_eq!(lines(&refused), ["no: too many clients"]);
    }

    #[test]
    fn an_answer_for_a_client_that_has_gone_goes_to_nobody() {
        let mut control = Loop::open("late");
        let mut stream = control.connect();
        stream.write_all(b"x\n").expect("sent");
        let mut events = mio::Events::with_capacity(8);
        control.poll.poll(&mut events, Some(Duration::from_secs(5))).expect("polled");
        events.iter().for_each(|e| control.socket.event(e.token(), Instant::now()));
        let line = control.socket.next_line().expect("a line");
        control.socket.drop_client(line.client.key, "test");
        let other = control.connect();
        control.socket.answer(line.client, b"secret\n", Instant::now());
        assert_eq!(lines(&other), ["hello"]);
    }

    #[test]
    fn what_is_no_socket_is_not_removed() {
        let path = std::env::temp_dir().join(format!("ringway-file-{}", std::process::id()));
        std::fs::write(&path, "precious").expect("written");
        assert!(listen(&path, &access(0o600)).is_err());
        assert_eq!(std::fs::read_to_string(&path).expect("still there"), "precious");
        std::fs::remove_file(&path).expect("removed");
    }
}
