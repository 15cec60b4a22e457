//! The status listener's transport: a small HTTP/1.1 server in control's poll loop, for GET and HEAD, with everything
//! bounded.
//!
//! A client is `Reading` until a head is whole, `Asked` until control has an answer, `Writing` until that has gone, then
//! `Reading` again or `Leaving`. It costs one head and a share in one answer at most. When all places are taken, whoever
//! has made no progress for the longest makes room, so that idle clients keep nobody out. Neither a head nor an answer
//! takes the loop's time: of an answer a limited part is sent in one turn.

use crate::config::Address;
use crate::http::head::{HeadScan, RequestHead, Scan, Underscores};
use crate::http::reply::{self, Reply};
use crate::http::{Method, Version};
use crate::limits;
use crate::worker::net::listen;
use mio::event::Source;
use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use slab::Slab;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

const STALL: Duration = Duration::from_secs(limits::STATUS_STALL_SECONDS);
const ANSWER: Duration = Duration::from_secs(limits::STATUS_ANSWER_SECONDS);
const IDLE: Duration = Duration::from_secs(limits::STATUS_IDLE_SECONDS);
/// For a client that was answered for the last time to close its side.
const LEAVE: Duration = Duration::from_secs(limits::LINGER_TICKS as u64);
/// Connections taken and receives made before everything else gets its turn.
const PER_TURN: usize = 64;

/// Names a client for its answer; one that has gone meanwhile gets none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClientId {
    key: usize,
    serial: u64,
}

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    Index,
    Live,
    Ready,
    Metrics,
}

/// What is answered.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) body: Arc<Vec<u8>>,
}

impl Answer {
    /// A short one.
    pub(super) fn text(status: u16, body: impl Into<String>) -> Answer {
        let body = Arc::new(body.into().into_bytes());
        Answer { status, content_type: "text/plain; charset=utf-8", body }
    }
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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Reading,
    Asked,
    Writing,
    Leaving,
}

struct Client {
    stream: Box<dyn Wire>,
    serial: u64,
    phase: Phase,
    input: Vec<u8>,
    scan: HeadScan,
    head_only: bool,
    /// This answer is the last.
    close: bool,
    /// Its version is 1.0, and the connection lives.
    keep_alive: bool,
    /// Head of the answer, and the whole of a short one.
    output: Vec<u8>,
    body: Arc<Vec<u8>>,
    sent: usize,
    /// Begin of the phase.
    began: Instant,
    /// Since when it has made no progress.
    since: Instant,
    /// There is more to do, and no event will say so.
    more: bool,
}

/// What both families of sockets can do.
trait Wire: Read + Write + Source + Send {
    fn end_writing(&self);
}

impl Wire for TcpStream {
    fn end_writing(&self) {
        let _ = self.shutdown(Shutdown::Write);
    }
}

impl Wire for UnixStream {
    fn end_writing(&self) {
        let _ = self.shutdown(Shutdown::Write);
    }
}

/// A client is no more.
struct Gone;

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
        if self.accept_at.is_some_and(|at| at <= now) {
            self.accept(now);
        }
        let more: Vec<usize> = self.clients.iter().filter(|(_, c)| c.more).map(|(key, _)| key).collect();
        more.into_iter().for_each(|key| self.go_on(key, now));
        let late: Vec<usize> = self.clients.iter().filter(|(_, c)| c.deadline() <= now).map(|(key, _)| key).collect();
        for key in late {
            let client = &mut self.clients[key];
            if client.phase == Phase::Reading && !client.input.is_empty() {
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
            let accepted: io::Result<Box<dyn Wire>> = match &self.listening {
                Listening::Tcp(listener) => listener.accept().map(|(stream, _)| Box::new(stream) as _),
                Listening::Unix(listener, _) => listener.accept().map(|(stream, _)| Box::new(stream) as _),
            };
            match accepted {
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
        entry.insert(Client {
            stream,
            serial: self.serial,
            phase: Phase::Reading,
            input: Vec::new(),
            scan: HeadScan::default(),
            head_only: false,
            close: false,
            keep_alive: false,
            output: Vec::new(),
            body: Arc::default(),
            sent: 0,
            began: now,
            since: now,
            more: false,
        });
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

impl Client {
    fn deadline(&self) -> Instant {
        match self.phase {
            Phase::Reading if self.input.is_empty() => self.since + IDLE,
            Phase::Reading => self.began + STALL,
            Phase::Asked => self.began + ANSWER,
            Phase::Writing => (self.since + STALL).min(self.began + ANSWER),
            Phase::Leaving => self.began + LEAVE,
        }
    }

    fn enter(&mut self, phase: Phase, now: Instant) {
        (self.phase, self.began, self.since) = (phase, now, now);
    }

    fn say(&mut self, answer: Answer, now: Instant) {
        let date = date();
        let reply = Reply {
            status: answer.status,
            accept: None,
            // The body is not copied into the head: it may be megabytes, and many may share it.
            head_only: true,
            close: self.close,
            keep_alive: self.keep_alive,
            retry_after: None,
            date: &date,
            page: Some((answer.content_type, &answer.body)),
            detail: "",
        };
        reply::write(&reply, &mut self.output);
        self.body = if self.head_only { Arc::default() } else { answer.body };
        self.enter(Phase::Writing, now);
    }

    /// Answers for the last time.
    fn refuse(&mut self, status: u16, why: &str, now: Instant) {
        (self.close, self.keep_alive) = (true, false);
        self.say(Answer::text(status, format!("{why}\n")), now);
    }

    /// Writes what is to be written, then reads; a whole request is handed out.
    fn step(&mut self, now: Instant) -> Result<Option<Page>, Gone> {
        for _ in 0..PER_TURN {
            match self.phase {
                Phase::Asked => return Ok(None),
                Phase::Leaving => return self.leave(),
                Phase::Writing => {
                    if !self.write(now)? {
                        return Ok(None);
                    }
                }
                Phase::Reading => match self.read(now)? {
                    Some(page) => {
                        self.enter(Phase::Asked, now);
                        return Ok(Some(page));
                    }
                    None if self.phase == Phase::Reading => return Ok(None),
                    None => {}
                },
            }
        }
        self.more = true;
        Ok(None)
    }

    /// Sends, within the limit of a turn. Whether all has gone, and the next phase has begun.
    fn write(&mut self, now: Instant) -> Result<bool, Gone> {
        let mut budget = limits::STATUS_BYTES_PER_TURN;
        loop {
            let head = self.output.len();
            let rest = if self.sent < head { &self.output[self.sent..] } else { &self.body[self.sent - head..] };
            if rest.is_empty() {
                break;
            }
            if budget == 0 {
                self.more = true;
                return Ok(false);
            }
            match self.stream.write(&rest[..rest.len().min(budget)]) {
                Ok(n) => {
                    (self.sent, budget, self.since) = (self.sent + n, budget - n, now);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Gone),
            }
        }
        (self.output, self.body, self.sent) = (Vec::new(), Arc::default(), 0);
        if self.close {
            // A plain close with bytes unread would be a reset, which destroys the answer (RFC 9112 section 9.6).
            self.stream.end_writing();
            self.enter(Phase::Leaving, now);
        } else {
            self.enter(Phase::Reading, now);
        }
        Ok(true)
    }

    /// Reads and throws away what still comes.
    fn leave(&mut self) -> Result<Option<Page>, Gone> {
        let mut bytes = [0; limits::STATUS_HEAD_BYTES_MAX];
        for _ in 0..PER_TURN {
            match self.stream.read(&mut bytes) {
                Ok(n) if n > 0 => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(None),
                _ => break,
            }
        }
        Err(Gone)
    }

    /// Receives until a request is whole. Without one, either more has to come, or the phase is another.
    fn read(&mut self, now: Instant) -> Result<Option<Page>, Gone> {
        loop {
            if !self.input.is_empty() {
                match self.scan.request(&self.input) {
                    Ok(Scan::Complete(bytes)) => return Ok(self.judge(bytes, now)),
                    Ok(Scan::Partial) if self.input.len() < limits::STATUS_HEAD_BYTES_MAX => {}
                    Ok(Scan::Partial) => {
                        self.refuse(431, "The request head is too large.", now);
                        return Ok(None);
                    }
                    Err(reject) => {
                        self.refuse(reject.status, reject.fault.describe(), now);
                        return Ok(None);
                    }
                }
            }
            let mut bytes = [0; limits::STATUS_HEAD_BYTES_MAX];
            let room = limits::STATUS_HEAD_BYTES_MAX - self.input.len();
            match self.stream.read(&mut bytes[..room]) {
                Ok(0) => return Err(Gone),
                Ok(n) => {
                    if self.input.is_empty() {
                        self.began = now;
                    }
                    self.since = now;
                    self.input.extend_from_slice(&bytes[..n]);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Gone),
            }
        }
    }

    /// What the head asks for; what cannot be answered with a page is refused at once.
    fn judge(&mut self, bytes: usize, now: Instant) -> Option<Page> {
        let mut head = RequestHead::default();
        let judged = head.parse(&self.input[..bytes], Underscores::Drop);
        let page = if judged.is_ok() { page(head.path.of(&self.input[..bytes])) } else { None };
        self.input.drain(..bytes);
        self.scan = HeadScan::default();
        self.head_only = head.method == Method::Head;
        self.close = !head.persist;
        self.keep_alive = head.persist && head.version == Version::Http10;
        match (judged, page) {
            (Err(reject), _) => {
                self.head_only = false;
                self.refuse(reject.status, reject.fault.describe(), now);
            }
            _ if head.method != Method::Get && !self.head_only => {
                self.refuse(405, "Only GET and HEAD are answered here.", now);
            }
            _ if head.framing.has_body() => self.refuse(400, "No body is taken here.", now),
            (Ok(()), Some(page)) => return Some(page),
            (Ok(()), None) => self.say(Answer::text(404, "There is /metrics, /live and /ready.\n"), now),
        }
        None
    }
}

fn page(path: &[u8]) -> Option<Page> {
    match path {
        b"/" | b"" => Some(Page::Index),
        b"/live" => Some(Page::Live),
        b"/ready" => Some(Page::Ready),
        b"/metrics" => Some(Page::Metrics),
        _ => None,
    }
}

/// The value of Date now.
fn date() -> [u8; 29] {
    let mut date = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    let text = httpdate::fmt_http_date(SystemTime::now());
    if text.len() == date.len() {
        date.copy_from_slice(text.as_bytes());
    }
    date
}
