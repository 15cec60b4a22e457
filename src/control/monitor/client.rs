//! One client of the status listener: a small part of HTTP/1.1, GET and HEAD, with everything bounded.
//!
//! It is `Reading` until a head is whole, `Asked` until control has an answer, `Writing` until that has gone, then `Reading`
//! again or `Leaving`. It costs one head and a share in one answer at most. Neither takes the loop's time: of an answer a
//! limited part is sent in one turn.

use crate::http::head::{HeadScan, RequestHead, Scan, Underscores};
use crate::http::reply::{self, Reply};
use crate::http::{Method, Version};
use crate::limits;
use crate::status_page::{self, Asked};
use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

const STALL: Duration = Duration::from_secs(limits::STATUS_STALL_SECONDS);
const ANSWER: Duration = Duration::from_secs(limits::STATUS_ANSWER_SECONDS);
const IDLE: Duration = Duration::from_secs(limits::STATUS_IDLE_SECONDS);
/// For a client that was answered for the last time to close its side.
const LEAVE: Duration = Duration::from_secs(limits::LINGER_TICKS as u64);
/// Connections taken, receives made and short requests answered before everything else gets its turn.
pub(super) const PER_TURN: usize = 64;

/// What can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// For programs.
    Index,
    /// For people.
    Status(Box<Asked>),
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
    /// Content-Security-Policy of a page for people.
    pub(super) policy: Option<&'static str>,
}

impl Answer {
    /// A short one.
    pub(super) fn text(status: u16, body: impl Into<String>) -> Answer {
        let body = Arc::new(body.into().into_bytes());
        Answer { status, content_type: "text/plain; charset=utf-8", body, policy: None }
    }

    /// The status page.
    pub(super) fn html(body: String) -> Answer {
        let body = Arc::new(body.into_bytes());
        Answer { status: 200, content_type: "text/html; charset=utf-8", body, policy: Some(status_page::policy()) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Reading,
    Asked,
    Writing,
    Leaving,
}

/// A connection of the status listener.
pub(super) struct Client {
    stream: Box<dyn Wire>,
    /// Tells it from those that had its place before.
    pub(super) serial: u64,
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
    pub(super) since: Instant,
    /// There is more to do, and no event will say so.
    pub(super) more: bool,
}

/// What both families of sockets can do.
pub(super) trait Wire: Read + Write + Source + Send {
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
pub(super) struct Gone;

impl Client {
    pub(super) fn new(stream: Box<dyn Wire>, serial: u64, now: Instant) -> Client {
        Client {
            stream,
            serial,
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
        }
    }

    /// A request has begun to come.
    pub(super) fn is_within_head(&self) -> bool {
        self.phase == Phase::Reading && !self.input.is_empty()
    }

    /// When it has taken too long.
    pub(super) fn deadline(&self) -> Instant {
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

    /// Begins to answer.
    pub(super) fn say(&mut self, answer: Answer, now: Instant) {
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
            cause: None,
        };
        reply::write(&reply, &mut self.output);
        if let Some(policy) = answer.policy {
            // In front of the empty line. Nobody is to learn from Referer what was asked in the page's address.
            self.output.truncate(self.output.len() - b"\r\n".len());
            let fields = [
                "Content-Security-Policy: ",
                policy,
                "\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n\r\n",
            ];
            fields.iter().for_each(|part| self.output.extend_from_slice(part.as_bytes()));
        }
        self.body = if self.head_only { Arc::default() } else { answer.body };
        self.enter(Phase::Writing, now);
    }

    /// Answers for the last time.
    pub(super) fn refuse(&mut self, status: u16, why: &str, now: Instant) {
        (self.close, self.keep_alive) = (true, false);
        self.say(Answer::text(status, format!("{why}\n")), now);
    }

    /// Writes what is to be written, then reads; a whole request is handed out.
    pub(super) fn step(&mut self, now: Instant) -> Result<Option<Page>, Gone> {
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
        let page = if judged.is_ok() { page(&head, &self.input[..bytes]) } else { None };
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

fn page(head: &RequestHead, bytes: &[u8]) -> Option<Page> {
    match head.path.of(bytes) {
        b"/" | b"" if reply::prefers_html(head.accept(bytes)) => {
            let query = head.query.of(bytes);
            Some(Page::Status(Box::new(Asked::parse(query.strip_prefix(b"?").unwrap_or(query)))))
        }
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
