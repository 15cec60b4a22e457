//! What happened to each exchange, and the judgement on it.

use super::dice::{Side, pattern, tag, trailer};
use super::plan::{Manner, Plan, Upload, Wrong};
use super::wire::{Ended, Framing};
use ringway::limits;
use ringway::route::table::Policy;
use std::cell::{Cell, RefCell};
use std::net::IpAddr;

/// One exchange and what is known of it.
#[derive(Debug)]
pub struct Entry {
    pub plan: Plan,
    /// How often its request has come to a backend.
    pub arrivals: usize,
    /// Virtual time that client and backend spent on purpose.
    pub slept_us: u64,
    pub began_us: Option<u64>,
    pub ended: bool,
    /// What the plan's backend does wrong has happened.
    pub wronged: bool,
    /// Its connection had ended before its turn came.
    pub unserved: bool,
    pub seen: Seen,
}

/// What a client has seen of the answer to a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// The final response's status.
    pub status: Option<u16>,
    /// Not a backend's.
    pub own: bool,
    /// It ended as a whole.
    pub whole: bool,
    /// Bytes, those of interim responses included.
    pub bytes: usize,
}

impl Entry {
    fn new(plan: Plan) -> Entry {
        Entry {
            plan,
            arrivals: 0,
            slept_us: 0,
            began_us: None,
            ended: false,
            wronged: false,
            unserved: false,
            seen: Seen::default(),
        }
    }
}

/// From and until when, in virtual microseconds, exchanges of a cluster may fail.
#[derive(Clone, Debug)]
struct Trouble {
    cluster: Option<usize>,
    from: u64,
    until: u64,
    what: &'static str,
}

/// What was so of a cluster for a while, by what control has published.
#[derive(Clone, Debug)]
struct Condition {
    cluster: usize,
    what: &'static str,
    from: u64,
    until: u64,
}

/// What a client got for one request.
#[derive(Debug)]
pub enum Got {
    /// A response that looks complete. `id` is the backend's word for what it answers; an own answer has none.
    Response { status: u16, id: Option<usize>, body: Vec<u8> },
    /// A response that ended too early.
    Cut,
    /// The connection ended before a byte.
    Nothing,
}

/// The seed's settings that judgement depends on.
#[derive(Clone, Debug)]
pub struct Rules {
    pub client_head_timeout: u32,
    pub client_body_timeout: u32,
    pub half_close_aborts: bool,
    /// Idle connections may be ended to make room.
    pub crowded: bool,
    /// Largest of all clusters' times; they never change within a seed.
    pub policies: Vec<Policy>,
    /// Clusters with backends that may have only so many exchanges at once.
    pub capped: Vec<bool>,
}

/// All exchanges of one seed.
pub struct Ledger {
    pub entries: RefCell<Vec<Entry>>,
    troubles: RefCell<Vec<Trouble>>,
    /// What was so of a cluster, from and until when; without an end, it still is.
    conditions: RefCell<Vec<Condition>>,
    /// When everything stood still, and for how long.
    stalls: RefCell<Vec<(u64, u64)>>,
    /// Each connection's address, and whose requests it was for, in order.
    pub connections: RefCell<Vec<(IpAddr, Vec<usize>)>>,
    pub violations: RefCell<Vec<String>>,
    /// Called whenever a request has come to a backend.
    pub on_arrival: RefCell<Option<Box<dyn Fn()>>>,
    pub rules: Rules,
    pub drained_from: Cell<u64>,
    pub verbose: bool,
    pub completed: Cell<usize>,
    pub failed: Cell<usize>,
}

/// The condition of a cluster that has nobody who takes requests.
pub const DARK: &str = "nobody is up";

/// The trouble of a proxy that can neither accept nor connect, or whose operations fail for want of memory in the kernel.
pub const WANT: &str = "no descriptors, or no memory";

/// Microseconds that the weather may add to any wait.
const WEATHER_US: u64 = 700_000;

impl Ledger {
    pub fn new(plans: Vec<Plan>, rules: Rules, verbose: bool) -> Ledger {
        Ledger {
            entries: RefCell::new(plans.into_iter().map(Entry::new).collect()),
            troubles: RefCell::default(),
            conditions: RefCell::default(),
            stalls: RefCell::default(),
            connections: RefCell::default(),
            violations: RefCell::default(),
            on_arrival: RefCell::default(),
            rules,
            drained_from: Cell::new(u64::MAX),
            verbose,
            completed: Cell::new(0),
            failed: Cell::new(0),
        }
    }

    pub fn say(&self, now: u64, what: impl FnOnce() -> String) {
        if self.verbose {
            println!("{:>12.6} {}", now as f64 / 1e6, what());
        }
    }

    pub fn violation(&self, what: String) {
        if self.verbose {
            println!("*** {what}");
        }
        self.violations.borrow_mut().push(what);
    }

    /// One more exchange that is planned, made for its number.
    pub fn add(&self, plan: impl FnOnce(usize) -> Plan) -> usize {
        let mut entries = self.entries.borrow_mut();
        let id = entries.len();
        entries.push(Entry::new(plan(id)));
        id
    }

    pub fn plan(&self, id: usize) -> Plan {
        self.entries.borrow()[id].plan.clone()
    }

    pub fn with<T>(&self, id: usize, f: impl FnOnce(&mut Entry) -> T) -> T {
        f(&mut self.entries.borrow_mut()[id])
    }

    /// Exchanges of this cluster (or of all) may fail in this time.
    pub fn trouble(&self, cluster: Option<usize>, from: u64, until: u64, what: &'static str) {
        self.troubles.borrow_mut().push(Trouble { cluster, from, until, what });
    }

    /// What is so of a cluster from now on, and what is not. The end of a condition is known to the cores a little later,
    /// and who waited because of it is served later still.
    pub fn now_is(&self, cluster: usize, now: u64, conditions: &[(&'static str, bool)]) {
        let mut known = self.conditions.borrow_mut();
        for (what, is) in conditions.iter().copied() {
            let open = known.iter_mut().find(|c| c.cluster == cluster && c.what == what && c.until == u64::MAX);
            match (open, is) {
                (None, true) => known.push(Condition { cluster, what, from: now, until: u64::MAX }),
                (Some(open), false) => open.until = now + 2_000_000,
                _ => {}
            }
        }
    }

    /// Whether this was so of the plan's cluster at any time between.
    pub fn was(&self, what: &'static str, cluster: Option<usize>, from: u64, until: u64) -> bool {
        let hits = |c: &Condition| c.what == what && Some(c.cluster) == cluster && c.from <= until && from <= c.until;
        self.conditions.borrow().iter().any(hits)
    }

    /// Everything stands still from now on.
    pub fn stalled(&self, now: u64, us: u64) {
        self.stalls.borrow_mut().push((now, us));
    }

    /// Whether an exchange may have had to wait for its turn.
    pub fn queued(&self, plan: &Plan, from: u64, until: u64) -> bool {
        plan.cluster.is_some_and(|c| self.rules.capped[c]) || self.was("paused", plan.cluster, from, until)
    }

    fn troubled(&self, plan: &Plan, from: u64, until: u64) -> Option<&'static str> {
        let troubles = self.troubles.borrow();
        // A stale connection fails nobody who can be sent again.
        let retries = plan.cluster.map_or(0, |c| self.rules.policies[c].retries);
        let safe = plan.idempotent() && plan.upload.len() == 0 && retries > 0;
        let hits = |t: &&Trouble| {
            (t.cluster.is_none() || t.cluster == plan.cluster)
                && (t.from <= until && from <= t.until)
                && !(safe && t.what == "stale")
        };
        let dark = || self.was(DARK, plan.cluster, from, until).then_some(DARK);
        troubles.iter().find(hits).map(|t| t.what).or_else(dark)
    }

    /// Whether the proxy had no descriptors or the kernel no memory in this time.
    fn starved(&self, from: u64, until: u64) -> bool {
        let troubles = self.troubles.borrow();
        troubles.iter().any(|t| t.what == WANT && t.from <= until && from <= t.until)
    }

    /// Whether this cluster has had any trouble.
    pub fn any_trouble(&self, cluster: Option<usize>) -> bool {
        let ever = |what| self.was(what, cluster, 0, u64::MAX);
        self.troubles.borrow().iter().any(|t| t.cluster.is_none() || t.cluster == cluster)
            || ever(DARK)
            || ever("no route")
    }

    /// A request with this id has come to a backend.
    pub fn arrived(&self, id: usize, method: &str) -> usize {
        if let Some(look) = &*self.on_arrival.borrow() {
            look();
        }
        let (n, plan) = self.with(id, |e| {
            e.arrivals += 1;
            (e.arrivals, e.plan.clone())
        });
        if method != plan.method {
            self.violation(format!("exchange {id}: sent as {} and came as {method}", plan.method));
        }
        let retries = plan.cluster.map_or(0, |c| self.rules.policies[c].retries as usize);
        if n > 1 && !plan.idempotent() {
            self.violation(format!("exchange {id}: {} reached backends {n} times", plan.method));
        }
        if n > retries + 1 {
            self.violation(format!("exchange {id}: {n} attempts with {retries} retries"));
        }
        n
    }

    /// A backend has read a request's body, to its end or not.
    pub fn uploaded(&self, id: usize, framing: Framing, (body, trailers): (&[u8], &[String]), ended: Ended) {
        let plan = self.plan(id);
        let framed = match plan.upload {
            Upload::None => matches!(framing, Framing::None | Framing::Length(0)),
            Upload::Length(n) => framing == Framing::Length(n),
            Upload::Chunked(_) => framing == Framing::Chunked,
        };
        if !framed {
            self.violation(format!("exchange {id}: sent as {:?} and came as {framing:?}", plan.upload));
        }
        let sent: Vec<String> = plan.trailer().into_iter().collect();
        if ended == Ended::Whole && trailers != sent {
            self.violation(format!("exchange {id}: its trailers are {sent:?} and came as {trailers:?}"));
        }
        let most = plan.cluster.map_or(u64::MAX, |c| self.rules.policies[c].body_max);
        if ended == Ended::Whole && body.len() as u64 > most {
            self.violation(format!("exchange {id}: {} bytes came as a whole of at most {most}", body.len()));
        }
        if pattern(id, Side::Request, 0, body.len()) != body {
            self.violation(format!("exchange {id}: the backend saw a body that its client did not send"));
        }
        if ended == Ended::Whole && body.len() != plan.upload.len() {
            let (saw, sent) = (body.len(), plan.upload.len());
            self.violation(format!("exchange {id}: the backend saw {saw} body bytes as a whole of {sent}"));
        }
        if ended == Ended::Broken {
            self.violation(format!("exchange {id}: the backend saw broken chunks"));
        }
    }

    /// How long an exchange may take beyond what its client and backend sleep.
    fn allowed_us(&self, plan: &Plan, from: u64, now: u64) -> u64 {
        let mut seconds = 2;
        let mut body_timeout = self.rules.client_body_timeout;
        if let Some(policy) = plan.cluster.map(|c| &self.rules.policies[c]) {
            body_timeout = body_timeout.max(policy.body_timeout).max(policy.client_body_timeout);
            if self.troubled(plan, from, now).is_some() {
                seconds += (policy.retries + 1) * (policy.connect_timeout + 1);
            }
            if self.queued(plan, from, now) {
                // A retry waits anew.
                seconds += (policy.retries + 1) * (policy.queue_timeout + 2);
            }
            match plan.script.wrong {
                Some(Wrong::StallHead) => seconds += policy.head_timeout,
                Some(Wrong::StallBody) => seconds += policy.body_timeout,
                _ => {}
            }
        }
        match plan.manner {
            Manner::Stall { .. } => seconds += self.rules.client_head_timeout.max(body_timeout),
            Manner::Drip => seconds += limits::CLIENT_RATE_GRACE_SECONDS as u32,
            _ => {}
        }
        let stalls = self.stalls.borrow();
        let stalled: u64 = stalls.iter().filter(|(at, us)| at + us >= from && *at <= now).map(|(_, us)| us).sum();
        u64::from(seconds) * tick() + WEATHER_US + stalled
    }

    /// Judges the end of an exchange. `from` is when its client began to wait for this response and no other.
    pub fn judge(&self, id: usize, got: &Got, from: u64, now: u64) {
        let (plan, slept) = self.with(id, |e| {
            e.ended = true;
            (e.plan.clone(), e.slept_us)
        });
        self.say(now, || format!("#{id} got {}", brief(got)));
        let took = now - from;
        let allowed = self.allowed_us(&plan, from, now) + slept;
        // Where there is no room or no descriptor, a connection may wait to be accepted.
        if took > allowed && !self.rules.crowded && !self.starved(from, now) {
            self.violation(format!(
                "exchange {id} took {took} us, allowed {allowed}; {got:?} {plan:?}",
                got = brief(got)
            ));
        }
        let whole = matches!(got, Got::Response { id: Some(_), .. });
        if whole { &self.completed } else { &self.failed }.update(|n| n + 1);
        if let Err(why) = self.verdict(&plan, got, from, now) {
            self.violation(format!("exchange {id}: {why}: got {}; {plan:?}", brief(got)));
        }
    }

    fn verdict(&self, plan: &Plan, got: &Got, from: u64, now: u64) -> Result<(), &'static str> {
        let drained = now >= self.drained_from.get();
        let trouble = self.troubled(plan, from, now).is_some();
        let wronged = self.with(plan.id, |e| e.wronged);
        let backend_fault = wronged || trouble;
        let client_fault = plan.manner.is_fault() || (plan.manner == Manner::HalfClose && self.rules.half_close_aborts);
        let too_large = plan.cluster.is_some_and(|c| plan.upload.len() as u64 > self.rules.policies[c].body_max);
        match got {
            Got::Response { status, id: Some(said), body } => {
                if *said != plan.id {
                    return Err("the answer to another request");
                }
                if pattern(plan.id, Side::Response, 0, body.len()) != *body {
                    return Err("body bytes of something else");
                }
                if *status != plan.script.status {
                    return Err("another status than the backend sent");
                }
                if body.len() != plan.download() {
                    return Err("a cut body looks complete");
                }
                if plan.cluster.is_none() {
                    return Err("an unknown host was served");
                }
                Ok(())
            }
            Got::Response { status, id: None, .. } => match status {
                404 if plan.cluster.is_none() || self.was("no route", plan.cluster, from, now) => Ok(()),
                413 if too_large => Ok(()),
                503 if drained => Ok(()),
                502..=504 if backend_fault => Ok(()),
                503 if self.queued(plan, from, now) => Ok(()),
                // Without a body, this one is a good head.
                200 if plan.script.wrong == Some(Wrong::Garbage(7)) && plan.method == "HEAD" => Ok(()),
                408 if matches!(plan.manner, Manner::Stall { .. } | Manner::Drip) => Ok(()),
                400 if matches!(plan.manner, Manner::CutRequest { .. }) || self.starved(from, now) => Ok(()),
                400..=505 if matches!(plan.manner, Manner::Malformed(_)) => Ok(()),
                _ => Err("an own answer without a cause"),
            },
            // Where there is no room or no descriptor, an idle connection has to go, also one that was about to begin.
            Got::Nothing if self.rules.crowded => Ok(()),
            Got::Nothing | Got::Cut if self.starved(from, now) => Ok(()),
            _ if matches!(plan.manner, Manner::Malformed(_)) && !drained => Err("no answer to a malformed request"),
            // The body turned out too large when the answer was under way.
            Got::Cut | Got::Nothing if too_large && plan.script.early => Ok(()),
            Got::Cut if backend_fault || client_fault || drained => Ok(()),
            Got::Cut => Err("cut without a cause"),
            // The reset that cuts a response may destroy what of it was on its way.
            Got::Nothing if trouble || (wronged && plan.script.wrong.is_some_and(Wrong::within_response)) => Ok(()),
            Got::Nothing if client_fault || drained => Ok(()),
            Got::Nothing => Err("closed without a cause"),
        }
    }

    /// At the end of the seed.
    pub fn close(&self) {
        for entry in self.entries.borrow().iter() {
            let refused = matches!(entry.plan.manner, Manner::Malformed(_));
            if entry.arrivals > 0 && (entry.unserved || refused || entry.plan.cluster.is_none()) {
                let id = entry.plan.id;
                self.violation(format!("exchange {id} must not be served and reached a backend: {:?}", entry.plan));
            }
        }
    }
}

fn tick() -> u64 {
    limits::TICK_MS * 1000
}

fn brief(got: &Got) -> String {
    match got {
        Got::Response { status, id, body } => format!("{status} of {id:?} with {} bytes", body.len()),
        other => format!("{other:?}"),
    }
}

impl Plan {
    /// The trailer field of every third request that can have one.
    fn trailer(&self) -> Option<String> {
        let has = matches!(self.upload, Upload::Chunked(_)) && self.id.is_multiple_of(3);
        has.then(|| trailer(self.id, Side::Request))
    }

    /// The whole request as bytes: the head, and the body in its coding.
    pub fn request(&self, mut chunk: impl FnMut() -> usize) -> (Vec<u8>, Vec<u8>) {
        let host = self.cluster.map_or("nobody.test".to_string(), |c| format!("c{c}.test"));
        let (id, tag) = (self.id, tag(self.id, Side::Request));
        let mut head = format!("{} /x/{id} HTTP/1.{}\r\n", self.method, u8::from(!self.http10));
        head += &format!("Host: {host}\r\nX-Tag: {tag}\r\n");
        let payload = pattern(self.id, Side::Request, 0, self.upload.len());
        let body = match self.upload {
            Upload::None => Vec::new(),
            Upload::Length(n) => {
                head += &format!("Content-Length: {n}\r\n");
                payload
            }
            Upload::Chunked(_) => {
                head += "Transfer-Encoding: chunked\r\n";
                super::wire::chunked(&payload, &mut chunk, self.trailer())
            }
        };
        if self.expect {
            head += "Expect: 100-continue\r\n";
        }
        head += match (self.upgrade, self.http10, self.last) {
            (true, ..) => "Connection: Upgrade\r\nUpgrade: echo\r\n",
            (_, true, false) => "Connection: keep-alive\r\n",
            (_, false, true) => "Connection: close\r\n",
            _ => "",
        };
        (format!("{head}\r\n").into_bytes(), body)
    }
}
