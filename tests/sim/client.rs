//! The virtual clients: each plays the plans of one connection, in order, and hands what it got to the ledger.

use super::dice::{Dice, Side, pattern, tag, trailer};
use super::ledger::{Got, Ledger};
use super::plan::{Frame, Manner, Plan};
use super::wire::{self, Ended, Framing, Head, Reader};
use ringway::limits;
use ringway::route::Endpoint;
use ringway::route::table::Policy;
use ringway::worker::net::mem::{Mem, MemStream};
use ringway::worker::net::{How, Net, Stream};
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

/// Requests that are refused; none of them may reach a backend.
const MALFORMED: [&[u8]; 10] = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET /\r\nHost: c0.test\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: c0.test\r\nHost: c0.test\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: c0.test\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
    b"POST / HTTP/1.1\r\nHost: c0.test\r\nTransfer-Encoding: gzip\r\n\r\nabc",
    b"GET / HTTP/3.0\r\nHost: c0.test\r\n\r\n",
    b"CONNECT c0.test:80 HTTP/1.1\r\nHost: c0.test:80\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: c0.test\r\nX : y\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET / HTTP/1.1\r\nHost: c0.test\r\nExpect: everything\r\n\r\n",
];

/// One client.
pub struct Client {
    pub mem: Mem,
    pub ledger: Rc<Ledger>,
    pub dice: RefCell<Dice>,
    pub pipe_bytes: usize,
    pub idle_timeout: u32,
    /// Where the proxy listens now.
    pub fronts: Rc<RefCell<Vec<Endpoint>>>,
}

/// What a connection's two halves tell each other.
#[derive(Default)]
struct Talk {
    answered: Cell<usize>,
    may_continue: Cell<bool>,
    switched: Cell<bool>,
    /// No more is to be sent.
    ended: Cell<bool>,
    written: Cell<bool>,
    /// The connection is to be reset in the end.
    reset: Cell<bool>,
    /// A send is under way.
    sending: Cell<bool>,
    /// A send has found the connection reset: the kernel tells of that once, and the next receive sees a mere end.
    was_reset: Cell<bool>,
}

/// Runs two futures to their ends.
async fn both(one: impl Future<Output = ()>, two: impl Future<Output = ()>) {
    let (mut one, mut two) = (pin!(one), pin!(two));
    let (mut one_done, mut two_done) = (false, false);
    poll_fn(|cx| {
        one_done = one_done || one.as_mut().poll(cx).is_ready();
        two_done = two_done || two.as_mut().poll(cx).is_ready();
        if one_done && two_done { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

impl Client {
    /// Plays one connection.
    pub async fn connection(&self, to: &Endpoint, ids: &[usize], pipelined: bool) {
        let Ok(stream) = self.mem.connect(to, |_| {}).await else {
            if self.mem.now_us() < self.ledger.drained_from.get() && self.fronts.borrow().contains(to) {
                self.ledger.violation("the proxy refused a connection".into());
            }
            return;
        };
        let address = self.mem.address(&stream).expect("an address, of a connection by IP");
        self.ledger.connections.borrow_mut().push((address, ids.to_vec()));
        let talk = Talk::default();
        both(self.write(&stream, &talk, ids, pipelined), self.read(&stream, &talk, ids)).await;
        if talk.reset.get() { stream.reset() } else { stream.close() }
    }

    fn below(&self, end: u64) -> u64 {
        self.dice.borrow_mut().below(end)
    }

    async fn until(&self, us: u64, done: impl Fn() -> bool) {
        let (begun, mut step) = (self.mem.now_us(), 100);
        while !done() && self.mem.now_us() - begun < us {
            self.mem.sleep_us(step).await;
            step = (step * 3 / 2).min(50_000);
        }
    }

    async fn sleep(&self, id: usize, us: u64) {
        let begun = self.mem.now_us();
        self.mem.sleep_us(us).await;
        self.ledger.with(id, |entry| entry.slept_us += self.mem.now_us() - begun);
    }

    /// Sends bytes; `false` if the connection took not all of them.
    async fn send(&self, stream: &MemStream, talk: &Talk, bytes: &[u8]) -> bool {
        talk.sending.set(true);
        let sent = wire::try_send(stream, bytes).await;
        talk.sending.set(false);
        if sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset) {
            talk.was_reset.set(true);
        }
        sent.is_ok()
    }

    async fn write(&self, stream: &MemStream, talk: &Talk, ids: &[usize], pipelined: bool) {
        for (k, id) in ids.iter().enumerate() {
            let plan = self.ledger.plan(*id);
            let aborts = plan.manner == Manner::HalfClose && self.ledger.rules.half_close_aborts;
            // The end of a body for a client of 1.0 may be the end of its connection: a send would take the error.
            let behind_10 = k > 0 && self.ledger.plan(ids[k - 1]).http10;
            let alone = !pipelined || plan.manner.is_fault() || plan.upgrade || aborts || behind_10;
            if alone {
                self.until(u64::MAX, || talk.answered.get() == k || talk.ended.get()).await;
                self.mem.sleep_us(plan.gap_us).await;
            }
            if talk.ended.get() {
                break;
            }
            talk.may_continue.set(false);
            self.ledger.with(*id, |entry| entry.began_us = Some(self.mem.now_us()));
            self.ledger.say(self.mem.now_us(), || format!("#{id} begins: {plan:?}"));
            if !self.request(stream, talk, &plan, k).await {
                break;
            }
        }
        talk.written.set(true);
    }

    /// Sends one request; `false` ends the sending.
    async fn request(&self, stream: &MemStream, talk: &Talk, plan: &Plan, k: usize) -> bool {
        let (head, body) = {
            let mut dice = self.dice.borrow_mut();
            let most = dice.pick(&[3, 200, 100_000]).max(plan.upload.len() / 300);
            plan.request(|| dice.range(1, most))
        };
        let whole = [head.as_slice(), &body].concat();
        let leave = |reset| {
            talk.reset.set(reset);
            talk.ended.set(true);
            self.mem.shutdown(stream.handle(), How::Read);
            false
        };
        match plan.manner {
            Manner::Malformed(n) => {
                self.send(stream, talk, MALFORMED[n]).await;
                false
            }
            Manner::CutRequest { part, reset } => {
                self.send(stream, talk, &whole[..part_of(whole.len(), part)]).await;
                self.mem.sleep_us(self.below(3000)).await;
                leave(reset)
            }
            Manner::Stall { part } => {
                self.send(stream, talk, &whole[..part_of(whole.len(), part)]).await;
                false
            }
            Manner::GoAway { after_us, reset } => {
                self.send(stream, talk, &whole).await;
                self.mem.sleep_us(after_us).await;
                leave(reset)
            }
            Manner::Drip => {
                let mut sent = self.send(stream, talk, &head).await;
                let mut rest = &body[..];
                for _ in 0..8 {
                    if !sent || talk.ended.get() || talk.answered.get() > k {
                        return false;
                    }
                    sent = self.send(stream, talk, &rest[..10]).await;
                    rest = &rest[10..];
                    self.sleep(plan.id, 1_000_000).await;
                }
                if sent {
                    self.send(stream, talk, rest).await;
                }
                false
            }
            Manner::Slow if !plan.script.switch => self.slowly(stream, plan.id, talk, (&head, &body)).await,
            _ if plan.expect => {
                let sent = self.send(stream, talk, &head).await;
                let begun = self.mem.now_us();
                let wait = 300_000;
                self.until(wait, || talk.may_continue.get() || talk.ended.get() || talk.answered.get() > k).await;
                self.ledger.with(plan.id, |entry| entry.slept_us += self.mem.now_us() - begun);
                sent && !talk.ended.get() && self.send(stream, talk, &body).await && self.half_close(stream, plan)
            }
            _ => {
                let sent = self.send(stream, talk, &whole).await;
                if plan.script.switch && sent {
                    self.feed_tunnel(stream, talk, plan).await;
                    return false;
                }
                sent && self.half_close(stream, plan)
            }
        }
    }

    /// Whether sending goes on.
    fn half_close(&self, stream: &MemStream, plan: &Plan) -> bool {
        if plan.manner == Manner::HalfClose {
            self.mem.shutdown(stream.handle(), How::Write);
        }
        !plan.manner.is_fault() && plan.manner != Manner::HalfClose
    }

    async fn slowly(&self, stream: &MemStream, id: usize, talk: &Talk, (head, body): (&[u8], &[u8])) -> bool {
        for (bytes, pauses, most) in [(head, 2, 300_000), (body, 4, 700_000)] {
            let mut rest = bytes;
            for _ in 0..pauses {
                if rest.is_empty() {
                    break;
                }
                let n = 1 + self.below(rest.len() as u64) as usize;
                if !self.send(stream, talk, &rest[..n]).await || talk.ended.get() {
                    return false;
                }
                rest = &rest[n..];
                if !rest.is_empty() {
                    self.sleep(id, self.below(most)).await;
                }
            }
            if !self.send(stream, talk, rest).await {
                return false;
            }
        }
        true
    }

    /// Bytes that the tunnel of this plan gets.
    fn tunnel_bytes(&self, plan: &Plan) -> Vec<u8> {
        let len = if plan.manner == Manner::StopReading { 60_000 } else { plan.script.len.min(9_000) };
        pattern(plan.id, Side::Tunnel, 0, len)
    }

    async fn feed_tunnel(&self, stream: &MemStream, talk: &Talk, plan: &Plan) {
        let bytes = self.tunnel_bytes(plan);
        // Every other client does not wait for the answer.
        if plan.id.is_multiple_of(2) {
            self.until(u64::MAX, || talk.switched.get() || talk.ended.get()).await;
        }
        let half = bytes.len() / 2;
        if talk.ended.get() || !self.send(stream, talk, &bytes[..half]).await {
            return;
        }
        self.sleep(plan.id, self.below(600_000)).await;
        // To end the sending side before the answer may mean to go away.
        self.until(u64::MAX, || talk.switched.get() || talk.ended.get()).await;
        // A client that does not read blocks here until the proxy gives up.
        let sent = !talk.ended.get() && self.send(stream, talk, &bytes[half..]).await;
        // Every third tunnel falls silent instead of ending.
        if sent && !plan.id.is_multiple_of(3) && !talk.ended.get() {
            self.mem.shutdown(stream.handle(), How::Write);
        }
    }

    async fn read(&self, stream: &MemStream, talk: &Talk, ids: &[usize]) {
        let mut reader = Reader::new(stream);
        let mut from = 0;
        let (mut served, mut idle) = (0, false);
        for (k, id) in ids.iter().enumerate() {
            let plan = self.ledger.plan(*id);
            idle = self.response(stream, &mut reader, talk, &plan, from).await;
            from = self.mem.now_us();
            served = k + 1;
            talk.answered.set(served);
            if !idle {
                break;
            }
        }
        talk.ended.set(true);
        for id in &ids[served..] {
            self.ledger.with(*id, |entry| entry.unserved = true);
        }
        if !talk.written.get() {
            self.mem.shutdown(stream.handle(), How::Both);
        } else if idle && self.below(8) == 0 {
            self.idle_ends(&mut reader).await;
        }
    }

    async fn idle_ends(&self, reader: &mut Reader<'_>) {
        let begun = self.mem.now_us();
        let more = reader.more().await;
        let took = self.mem.now_us() - begun;
        let allowed = (u64::from(self.idle_timeout) + 2) * limits::TICK_MS * 1000 + 700_000;
        if more || took > allowed {
            self.ledger.violation(format!("an idle connection got bytes ({more}) or lived {took} us of {allowed}"));
        }
    }

    /// Reads the answers to one request. `false`: the connection has no use any more.
    async fn response(&self, stream: &MemStream, reader: &mut Reader<'_>, talk: &Talk, plan: &Plan, from: u64) -> bool {
        match plan.manner {
            Manner::StopReading if !plan.script.switch => {
                self.stop_reading(stream, plan).await;
                return false;
            }
            Manner::CutResponse { bytes, reset } => {
                while reader.bytes.len() < bytes && reader.more().await {}
                talk.reset.set(reset);
                return false;
            }
            _ => {}
        }
        let before = reader.used();
        let (got, close) = self.receive(stream, reader, talk, plan).await;
        let (bytes, whole) = (reader.used() - before, matches!(got, Got::Response { .. }));
        self.ledger.with(plan.id, |entry| (entry.seen.bytes, entry.seen.whole) = (bytes, whole));
        let began = self.ledger.with(plan.id, |entry| entry.began_us);
        // The end of an idle connection, or a client that went away: there is nothing to judge.
        let Some(began) = began else { return false };
        if matches!(plan.manner, Manner::CutRequest { .. } | Manner::GoAway { .. }) {
            return false;
        }
        let now = self.mem.now_us();
        self.ledger.judge(plan.id, &got, began.max(from), now);
        if matches!(got, Got::Response { status: 101, .. }) {
            talk.switched.set(true);
            self.tunnel(stream, reader, plan).await;
            return false;
        }
        if close && reader.end.is_none() && matches!(got, Got::Response { .. }) && self.below(2) == 0 {
            self.closes(reader, plan, talk).await;
        }
        !close && reader.end.is_none() && matches!(got, Got::Response { .. })
    }

    /// After `Connection: close` nothing comes but the end, soon.
    async fn closes(&self, reader: &mut Reader<'_>, plan: &Plan, talk: &Talk) {
        talk.ended.set(true);
        self.until(u64::MAX, || talk.written.get()).await;
        let begun = self.mem.now_us();
        let more = reader.more().await;
        let took = self.mem.now_us() - begun;
        let allowed = u64::from(2 + limits::LINGER_TICKS) * limits::TICK_MS * 1000 + 700_000;
        if more || took > allowed {
            let id = plan.id;
            self.ledger
                .violation(format!("exchange {id}: bytes behind a close ({more}), or it took {took} us; {plan:?}"));
        }
    }

    async fn stop_reading(&self, stream: &MemStream, plan: &Plan) {
        let id = plan.id;
        let began = || self.ledger.with(id, |entry| entry.began_us.is_some());
        self.until(60_000_000, began).await;
        if !began() {
            return;
        }
        let rules = &self.ledger.rules;
        let policy = plan.cluster.map(|c| &rules.policies[c]);
        let client = policy.map_or(0, |p| p.client_body_timeout).max(rules.client_body_timeout);
        // Each attempt may have to wait for its turn.
        let attempt = |p: &Policy| p.connect_timeout + 1 + p.queue_timeout + 2;
        let backend = policy.map_or(0, |p| (p.retries + 1) * attempt(p) + p.head_timeout + p.body_timeout);
        self.mem.sleep_us(u64::from(backend + client + 8) * 1_000_000).await;
        let blocked = plan.download() > 2 * self.pipe_bytes && policy.is_some();
        // Where there is no room, it may still wait to be accepted.
        let blocked = blocked && !rules.crowded;
        if blocked && !self.mem.gone(stream.handle(), false) && !self.excused(plan) {
            self.ledger.violation(format!("exchange {id}: a client that does not read is waited for; {plan:?}"));
        }
    }

    fn excused(&self, plan: &Plan) -> bool {
        let too_large = |c: usize| plan.upload.len() as u64 > self.ledger.rules.policies[c].body_max;
        // Its turn may never have come: then it has a short answer.
        let waited = || self.ledger.queued(plan, 0, self.mem.now_us());
        self.ledger.with(plan.id, |entry| entry.wronged)
            || (self.ledger.with(plan.id, |entry| entry.arrivals == 0) && waited())
            || self.ledger.any_trouble(plan.cluster)
            || plan.cluster.is_none_or(too_large)
    }

    async fn tunnel(&self, stream: &MemStream, reader: &mut Reader<'_>, plan: &Plan) {
        let id = plan.id;
        let Some(policy) = plan.cluster.map(|c| &self.ledger.rules.policies[c]) else { return };
        let patience = u64::from(policy.tunnel_timeout + 4) * 1_000_000;
        if plan.manner == Manner::StopReading {
            self.mem.sleep_us(patience + 4_000_000).await;
            if 60_000 > 6 * self.pipe_bytes + 50_000 && !self.mem.gone(stream.handle(), true) {
                self.ledger.violation(format!("exchange {id}: a stuck tunnel does not end"));
            }
            return;
        }
        let begun = self.mem.now_us();
        let mut got = Vec::new();
        reader.body(Framing::UntilClose, &mut got).await;
        self.ledger.with(id, |entry| entry.seen.bytes += got.len());
        let took = self.mem.now_us() - begun;
        let want = self.tunnel_bytes(plan);
        let drained = self.mem.now_us() >= self.ledger.drained_from.get();
        let excused = drained || plan.manner.is_fault() || self.ledger.any_trouble(plan.cluster);
        if !want.starts_with(&got) || (got.len() < want.len() && !excused) {
            let (got, want) = (got.len(), want.len());
            self.ledger.violation(format!("exchange {id}: {got} of {want} tunnel bytes, or others; {plan:?}"));
        }
        if took > patience + self.ledger.with(id, |entry| entry.slept_us) {
            self.ledger.violation(format!("exchange {id}: a silent tunnel took {took} us"));
        }
    }

    /// One final response, and whether the connection ends behind it.
    async fn receive(&self, stream: &MemStream, reader: &mut Reader<'_>, talk: &Talk, plan: &Plan) -> (Got, bool) {
        loop {
            let total = reader.used();
            let head = match reader.head().await {
                Ok(head) => head,
                Err(Ended::Broken) => {
                    self.ledger.violation(format!("exchange {}: an answer that is no HTTP; {plan:?}", plan.id));
                    return (Got::Cut, true);
                }
                Err(_) if reader.total == total => return (Got::Nothing, true),
                Err(_) => return (Got::Cut, true),
            };
            let status = head.first.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse::<u16>().ok());
            let Some(status) = status else {
                self.ledger.violation(format!("exchange {}: {:?}", plan.id, head.first));
                return (Got::Cut, true);
            };
            let id = head.get("x-id").and_then(|id| id.parse().ok());
            if status < 200 && status != 101 {
                self.interim(plan, talk, status, id);
                continue;
            }
            let (got, close) = self.body(reader, plan, (status, id), &head).await;
            let whole = matches!(got, Got::Response { .. });
            if whole && reader.end.is_some() && self.was_reset(stream, talk).await {
                return (Got::Cut, true);
            }
            return (got, close);
        }
    }

    /// Whether the end that a receive has seen was a reset that a send was told of.
    async fn was_reset(&self, stream: &MemStream, talk: &Talk) -> bool {
        if self.mem.gone(stream.handle(), false) {
            // Nothing can be sent any more: a send that is under way ends at once.
            self.until(u64::MAX, || !talk.sending.get()).await;
        }
        talk.was_reset.get()
    }

    fn interim(&self, plan: &Plan, talk: &Talk, status: u16, id: Option<usize>) {
        if plan.http10 || id.is_some_and(|id| id != plan.id) || (status == 100) != id.is_none() {
            self.ledger.violation(format!("exchange {}: interim {status} of {id:?}", plan.id));
        }
        talk.may_continue.set(talk.may_continue.get() || status == 100);
    }

    async fn body(
        &self,
        reader: &mut Reader<'_>,
        plan: &Plan,
        (status, id): (u16, Option<usize>),
        head: &Head,
    ) -> (Got, bool) {
        // Who has not read the method cannot know that a body is not wanted.
        let unread = status == 400 || matches!(plan.manner, Manner::Malformed(_) | Manner::Stall { .. });
        let malformed = id.is_none() && unread;
        let bodiless = matches!(status, 101 | 204 | 304) || (plan.method == "HEAD" && !malformed);
        let framing = if bodiless { Framing::None } else { head.framing(Framing::UntilClose) };
        if plan.http10 && head.get("transfer-encoding").is_some() && !malformed {
            self.ledger.violation(format!("exchange {}: chunks for a client of 1.0", plan.id));
        }
        self.ledger.with(plan.id, |entry| (entry.seen.status, entry.seen.own) = (Some(status), id.is_none()));
        let mut body = Vec::new();
        let ended = reader.body(framing, &mut body).await;
        if id == Some(plan.id) {
            self.framed(reader, plan, head, (framing, ended));
        }
        let kept_alive = head.get("connection").is_some_and(|v| v.eq_ignore_ascii_case("keep-alive"));
        let close = head.closes() || framing == Framing::UntilClose || (plan.http10 && !kept_alive);
        let got = match ended {
            Ended::Whole => Got::Response { status, id, body },
            Ended::Cut { .. } => Got::Cut,
            Ended::Broken => {
                self.ledger.violation(format!("exchange {}: broken chunks", plan.id));
                Got::Cut
            }
        };
        (got, close)
    }
}

impl Client {
    /// Framing out equals framing in, and the fields are those of the backend.
    fn framed(&self, reader: &Reader<'_>, plan: &Plan, head: &Head, (framing, ended): (Framing, Ended)) {
        let (id, script) = (plan.id, &plan.script);
        if head.count("x-tag") != 1 || head.get("x-tag") != Some(&tag(id, Side::Response)) {
            self.ledger.violation(format!("exchange {id}: fields of something else: {head:?}"));
        }
        let same = match (framing, script.frame) {
            (Framing::None, _) => true,
            (Framing::Length(n), Frame::Length) => n == script.len,
            (Framing::Chunked, Frame::Length) => false,
            (Framing::Chunked, _) => !plan.http10,
            (Framing::UntilClose, frame) => frame != Frame::Length && (plan.http10 || frame != Frame::Chunked),
            (Framing::Length(_), _) => false,
        };
        if !same && script.status != 101 {
            self.ledger.violation(format!("exchange {id}: {:?} came as {framing:?}: {head:?}", script.frame));
        }
        let sent = script.frame == Frame::Chunked && script.trailer;
        let sent: Vec<String> = sent.then(|| trailer(id, Side::Response)).into_iter().collect();
        if framing == Framing::Chunked && ended == Ended::Whole && reader.trailers != sent {
            self.ledger
                .violation(format!("exchange {id}: its trailers are {sent:?} and came as {:?}", reader.trailers));
        }
    }
}

/// So many thousandths of it, but neither nothing nor all.
fn part_of(len: usize, part: usize) -> usize {
    (len * part / 1000).clamp(1, len - 1)
}
