//! The virtual backends: each request's plan says what is done with it.

use super::dice::{Dice, Side, pattern, tag, trailer};
use super::ledger::Ledger;
use super::plan::{Frame, Plan, Script, Wrong};
use super::wire::{self, Ended, Framing, Head, Reader};
use ringway::worker::net::mem::{Mem, MemListener, MemStream};
use ringway::worker::net::{How, Net, Stream};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Heads that are no response.
const GARBAGE: [&[u8]; 8] = [
    b"HTTP/1.1 20 OK\r\n\r\n",
    b"HTTP/2 200 OK\r\n\r\n",
    b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nNo colon\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
];

/// One backend.
pub struct Backend {
    pub mem: Mem,
    pub ledger: Rc<Ledger>,
    pub cluster: usize,
    pub dice: RefCell<Dice>,
    /// Closes connections that idle so long.
    pub idle_us: Option<u64>,
    /// What it sends in one piece arrives in one.
    pub at_once: bool,
}

/// How a connection ends.
enum Fate {
    Next,
    Close,
    Reset,
}

impl Backend {
    /// Accepts until the listener is closed.
    pub async fn run(self: Rc<Self>, listener: Rc<MemListener>) {
        let mut batch = Vec::new();
        loop {
            let more = self.mem.accept(&listener, &mut batch).await;
            for accepted in batch.drain(..) {
                self.mem.spawn(self.clone().connection(accepted.stream));
            }
            if more.is_err() {
                return;
            }
        }
    }

    async fn connection(self: Rc<Self>, stream: MemStream) {
        let mut reader = Reader::new(&stream);
        let idle = Rc::new(Cell::new(0));
        let fate = loop {
            self.watch_idle(&stream, &idle);
            let head = reader.head().await;
            idle.update(|n| n + 1);
            let fate = match head {
                Ok(head) => self.exchange(&stream, &mut reader, &head).await,
                Err(Ended::Broken) => {
                    self.ledger.violation("a backend got a request that it cannot read".into());
                    Fate::Reset
                }
                Err(_) => Fate::Close,
            };
            if !matches!(fate, Fate::Next) {
                break fate;
            }
        };
        idle.set(u64::MAX);
        match fate {
            Fate::Reset => stream.reset(),
            _ => stream.close(),
        }
    }

    /// Ends the connection if nothing comes for too long.
    fn watch_idle(self: &Rc<Self>, stream: &MemStream, idle: &Rc<Cell<u64>>) {
        let Some(us) = self.idle_us else { return };
        let (me, idle, begun, handle) = (self.clone(), idle.clone(), idle.get(), stream.handle());
        self.mem.spawn(async move {
            me.mem.sleep_us(us).await;
            if idle.get() == begun {
                me.stale();
                me.mem.shutdown(handle, How::Both);
            }
        });
    }

    /// A connection that may be pooled is closed: whoever takes it in this moment fails.
    fn stale(&self) {
        let now = self.mem.now_us();
        self.ledger.trouble(Some(self.cluster), now.saturating_sub(20_000), now + 20_000, "stale");
    }

    async fn sleep(&self, id: usize, us: u64) {
        if us > 0 {
            self.ledger.with(id, |entry| entry.slept_us += us);
            self.mem.sleep_us(us).await;
        }
    }

    fn once_in(&self, n: u64) -> bool {
        self.dice.borrow_mut().once_in(n)
    }

    async fn exchange(&self, stream: &MemStream, reader: &mut Reader<'_>, head: &Head) -> Fate {
        let mut words = head.first.split(' ');
        let (method, path, version) = (words.next(), words.next(), words.next());
        let id = path.and_then(|path| path.strip_prefix("/x/")).and_then(|id| id.parse::<usize>().ok());
        let (Some(method), Some(id), Some("HTTP/1.1")) = (method, id, version) else {
            self.ledger.violation(format!("a backend got {:?}", head.first));
            return Fate::Reset;
        };
        let plan = self.ledger.plan(id);
        self.ledger.say(self.mem.now_us(), || format!("#{id} at a backend of c{}: {}", self.cluster, head.first));
        let arrival = self.ledger.arrived(id, method);
        let tagged = head.count("x-tag") == 1 && head.get("x-tag") == Some(&tag(id, Side::Request));
        if plan.cluster != Some(self.cluster) || head.count("host") != 1 || head.count("keep-alive") != 0 || !tagged {
            self.ledger.violation(format!("exchange {id}: came to cluster {} with {head:?}", self.cluster));
        }
        self.play(stream, reader, &plan, head, arrival).await
    }

    async fn play(
        &self,
        stream: &MemStream,
        reader: &mut Reader<'_>,
        plan: &Plan,
        head: &Head,
        arrival: usize,
    ) -> Fate {
        let id = plan.id;
        let mut script = plan.script;
        if script.once && arrival > 1 {
            script.wrong = None;
        }
        let wrongs = [Wrong::CutRequest, Wrong::CutBeforeHead { reset: true }, Wrong::CutBeforeHead { reset: false }];
        if script.wrong == Some(Wrong::CutRequest) {
            self.ledger.with(id, |entry| entry.wronged = true);
            return Fate::Reset;
        }
        if script.early && !wrongs.contains(&script.wrong.unwrap_or(Wrong::StallHead)) {
            let fate = self.respond(stream, reader, plan, &script, head).await;
            if !matches!(fate, Fate::Next) && self.ledger.with(id, |entry| entry.wronged) {
                return fate;
            }
            let mut body = Vec::new();
            let framing = head.framing(Framing::None);
            let ended = reader.body(framing, &mut body).await;
            self.ledger.uploaded(id, framing, (&body, &reader.trailers), ended);
            return if ended == Ended::Whole { fate } else { Fate::Close };
        }
        if head.get("expect").is_some()
            && self.once_in(2)
            && !wire::send(stream, b"HTTP/1.1 100 Continue\r\n\r\n").await
        {
            return Fate::Close;
        }
        let mut body = Vec::new();
        let framing = head.framing(Framing::None);
        let ended = reader.body(framing, &mut body).await;
        self.ledger.uploaded(id, framing, (&body, &reader.trailers), ended);
        if ended != Ended::Whole {
            return Fate::Close;
        }
        if !reader.bytes.is_empty() {
            // Nobody pipelines to a backend.
            let text = String::from_utf8_lossy(&reader.bytes);
            self.ledger.violation(format!("exchange {id}: {text:?} came behind its request; {plan:?}"));
        }
        self.respond(stream, reader, plan, &script, head).await
    }

    async fn respond(
        &self,
        stream: &MemStream,
        reader: &mut Reader<'_>,
        plan: &Plan,
        script: &Script,
        request: &Head,
    ) -> Fate {
        let id = plan.id;
        for _ in 0..script.interims {
            let text = format!("HTTP/1.1 103 Early Hints\r\nX-Id: {id}\r\nLink: <a>\r\n\r\n");
            if !wire::send(stream, text.as_bytes()).await {
                return Fate::Close;
            }
        }
        self.sleep(id, script.delay_us).await;
        let (head, body) = self.response(plan, script);
        let whole = [head.as_slice(), &body].concat();
        let mark = || self.ledger.with(id, |entry| entry.wronged = true);
        let (sent, reset) = match script.wrong {
            Some(Wrong::Garbage(n)) => {
                mark();
                wire::send(stream, GARBAGE[n]).await;
                return Fate::Close;
            }
            Some(Wrong::CutBeforeHead { reset }) => (0, reset),
            Some(Wrong::CutInHead { reset }) => (self.dice.borrow_mut().range(1, head.len() - 1), reset),
            Some(Wrong::CutBody { reset }) if !body.is_empty() => {
                let until_close = matches!(script.frame, Frame::Close | Frame::Close10);
                (self.dice.borrow_mut().range(head.len(), whole.len() - 1), reset || until_close)
            }
            Some(Wrong::StallHead) => {
                mark();
                let part = self.dice.borrow_mut().range(0, head.len() - 1);
                return self.stall(stream, reader, &whole[..part]).await;
            }
            Some(Wrong::StallBody) if !body.is_empty() => {
                mark();
                let part = self.dice.borrow_mut().range(head.len(), whole.len() - 1);
                return self.stall(stream, reader, &whole[..part]).await;
            }
            _ => return self.whole(stream, reader, plan, script, request, &whole).await,
        };
        mark();
        wire::send(stream, &whole[..sent]).await;
        if reset { Fate::Reset } else { Fate::Close }
    }

    async fn stall(&self, stream: &MemStream, reader: &mut Reader<'_>, part: &[u8]) -> Fate {
        wire::send(stream, part).await;
        while reader.more().await {
            reader.bytes.clear();
        }
        Fate::Close
    }

    async fn whole(
        &self,
        stream: &MemStream,
        reader: &mut Reader<'_>,
        plan: &Plan,
        script: &Script,
        request: &Head,
        whole: &[u8],
    ) -> Fate {
        if script.switch && request.get("upgrade").is_some() {
            return self.echo(stream, reader, plan.id).await;
        }
        let begun = if script.pause_us > 0 { whole.len() / 2 } else { 0 };
        if begun > 0 {
            if !wire::send(stream, &whole[..begun]).await {
                return Fate::Close;
            }
            self.sleep(plan.id, script.pause_us).await;
        }
        let ends = matches!(script.frame, Frame::Length | Frame::Chunked);
        if script.behind && ends && self.at_once && whole.len() < 2_000 {
            return self.forge(stream, reader, (plan, script), &whole[begun..]).await;
        }
        if !wire::send(stream, &whole[begun..]).await {
            return Fate::Close;
        }
        match (script.frame, script.close) {
            (Frame::Length | Frame::Chunked, None) => Fate::Next,
            (Frame::Length | Frame::Chunked, Some(false)) => {
                self.stale();
                Fate::Close
            }
            _ => {
                // A close with request bytes unread would be a reset: the sending side ends first.
                self.mem.shutdown(stream.handle(), How::Write);
                Fate::Close
            }
        }
    }

    /// Sends what nobody has asked for in one piece with the end of a response: no proxy can use the connection before it
    /// sees that.
    async fn forge(
        &self,
        stream: &MemStream,
        reader: &mut Reader<'_>,
        (plan, script): (&Plan, &Script),
        end: &[u8],
    ) -> Fate {
        let forged = b"HTTP/1.1 200 Fine\r\nX-Id: 99999999\r\nContent-Length: 0\r\n\r\n";
        wire::send(stream, &[end, forged].concat()).await;
        // Whoever answers early may have the rest of the request before it.
        if reader.more().await && !script.early {
            let text = String::from_utf8_lossy(&reader.bytes);
            self.ledger.violation(format!("{text:?} came behind bytes that nobody has asked for; {plan:?}"));
        }
        Fate::Close
    }

    async fn echo(&self, stream: &MemStream, reader: &mut Reader<'_>, id: usize) -> Fate {
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nX-Id: {id}\r\nX-Tag: {}\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n",
            tag(id, Side::Response)
        );
        if !wire::send(stream, head.as_bytes()).await {
            return Fate::Close;
        }
        loop {
            let bytes = std::mem::take(&mut reader.bytes);
            if !wire::send(stream, &bytes).await {
                return Fate::Close;
            }
            if !reader.more().await && reader.bytes.is_empty() {
                return Fate::Close;
            }
        }
    }

    /// Head and coded body of a plan's response.
    fn response(&self, plan: &Plan, script: &Script) -> (Vec<u8>, Vec<u8>) {
        let version = if script.frame == Frame::Close10 { "1.0" } else { "1.1" };
        let (id, status, tag) = (plan.id, script.status, tag(plan.id, Side::Response));
        let mut head = format!("HTTP/{version} {status} Fine\r\nX-Id: {id}\r\nX-Tag: {tag}\r\n");
        let bodiless = matches!(script.status, 204 | 304);
        match script.frame {
            _ if bodiless => {}
            Frame::Length => head += &format!("Content-Length: {}\r\n", script.len),
            Frame::Chunked => head += "Transfer-Encoding: chunked\r\n",
            Frame::Close | Frame::Close10 => {}
        }
        if script.close == Some(true) || script.frame == Frame::Close {
            head += "Connection: close\r\n";
        }
        let payload = pattern(plan.id, Side::Response, 0, plan.download());
        let body = match script.frame {
            Frame::Chunked if !bodiless && plan.method != "HEAD" => {
                let mut dice = self.dice.borrow_mut();
                let most = dice.pick(&[1, 7, 300, 100_000]).max(payload.len() / 300);
                let trailer = script.trailer.then(|| trailer(plan.id, Side::Response));
                wire::chunked(&payload, || dice.range(1, most), trailer)
            }
            _ => payload,
        };
        (format!("{head}\r\n").into_bytes(), body)
    }
}
