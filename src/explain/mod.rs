//! Why a request goes where it goes: the listener, the rule and those it beat, the cluster, who may be picked and who not,
//! and the head as it would go on.
//!
//! There are no rules here. Heads are judged and rewritten by `http`, routes found by `route`, keys made by `affinity` and
//! backends picked by a balancer as every core has one: the functions that serve traffic, asked in the order in which a
//! session asks them.

mod text;

use crate::affinity;
use crate::config::{Address, Listener, Settings};
use crate::exchange::{Reason, answered_here, is_too_large};
use crate::http::forwarded;
use crate::http::head::{HeadScan, RequestHead, Scan};
use crate::http::rewrite::{self, RequestRewrite};
use crate::publish::Snapshot;
use crate::route::balance::{Ask, Balancer, Tried};
use crate::route::health::{STATES, State};
use crate::route::skip::{Skip, in_flight, is_full, skips};
use crate::route::table::{Backend, Balance, Cluster, HashBy};
use crate::route::trace::Beaten;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

pub use text::{json, text};

/// A request to be explained.
#[derive(Clone, Debug)]
pub struct Question {
    /// Its head as it would be sent.
    pub head: Vec<u8>,
    /// Who sends it.
    pub peer: IpAddr,
    /// The listener that it comes to; without one, that of [`Question::port`] or the first by name.
    pub listener: Option<String>,
    /// The port that the URL names, or that of its scheme.
    pub port: u16,
}

impl Question {
    /// A request as people write one: `GET`, `http://host:port/path?query`, fields as `name: value`.
    ///
    /// # Errors
    /// Says what is no URL or no field. Whether the request is good HTTP is [`explain`]'s to tell.
    pub fn new(method: &str, url: &str, fields: &[String], peer: IpAddr) -> Result<Question, String> {
        if [method, url].iter().any(|text| text.contains(['\r', '\n'])) {
            return Err("a method and a URL have no line ends".to_owned());
        }
        let scheme = url.split_once("://").filter(|(scheme, _)| !scheme.contains(['/', '?', '#']));
        let (secure, rest) = match scheme {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
            Some((scheme, _)) => return Err(format!("{scheme}:// is not served; write http:// or https://")),
            None => (false, url),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let port = match authority.rsplit_once(':') {
            Some((_, port)) if !port.contains(']') && !port.is_empty() => {
                port.parse().map_err(|_| format!("{port:?} is no port"))?
            }
            _ if secure => 443,
            _ => 80,
        };
        let slash = if target.starts_with('/') { "" } else { "/" };
        // Only the absolute form tells of the scheme.
        let origin = if secure { format!("https://{authority}") } else { String::new() };
        let target = if method == "CONNECT" { authority.to_owned() } else { format!("{origin}{slash}{target}") };
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {authority}\r\n");
        for field in fields {
            if !field.contains(':') || field.contains(['\r', '\n']) {
                return Err(format!("{field:?} is no field; write it as 'name: value'"));
            }
            head.push_str(field);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        Ok(Question { head: head.into_bytes(), peer, listener: None, port })
    }
}

/// Why a request goes where it goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Name of the listener, if there is any.
    pub listener: Option<String>,
    /// The client's address, by the listener's trusted proxies.
    pub client: Option<String>,
    /// Whether the peer is one of these: what it says of the client is believed.
    pub trusted: bool,
    /// Host without port, as the route is found by.
    pub host: String,
    /// Path without query, as the route is found by.
    pub path: String,
    /// The rule that takes it.
    pub rule: Option<String>,
    /// The other rules that fit, the closest first.
    pub beaten: Vec<BeatenRule>,
    /// Where no rule takes it: those of the closest host, which decides alone.
    pub missed: Vec<String>,
    /// Where the rule leads.
    pub cluster: Option<ClusterSeen>,
    /// What Ringway answers by itself, if it does.
    pub answer: Option<Answer>,
    /// The head as it would go on, with its line ends.
    pub forwarded: Option<String>,
}

/// A rule that fits and does not take the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeatenRule {
    /// As typed.
    pub rule: String,
    /// What was better: `longer path` or `closer host`.
    pub by: String,
}

/// An own answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Reason code, as in the log.
    pub reason: String,
    /// One sentence; may be empty.
    pub detail: String,
    /// For a head that is refused: offset of the first offending byte, and the clause that it breaks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<(usize, String)>,
}

/// The cluster, and whom it has for this request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSeen {
    /// Its name.
    pub name: String,
    /// How it picks, as in the config: `round_robin`, `random`, `least_conn`, or `hash` and by what.
    pub balance: String,
    /// Where it hashes: the hash of what is hashed by; none if the request does not have that.
    pub key: Option<u64>,
    /// Why the request would have to wait, if it would.
    pub waits: Option<String>,
    /// Its backends, in order.
    pub backends: Vec<BackendSeen>,
    /// Who is picked, where that depends on the request alone as long as states and load stay: the place in `backends`.
    /// Elsewhere it is one of the candidates.
    pub pick: Option<usize>,
}

/// One backend, as this request sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendSeen {
    /// The operator's id.
    pub name: String,
    /// Where it is.
    pub endpoint: String,
    /// As configured.
    pub weight: u32,
    /// Exchanges that are with it now, over all cores.
    pub in_flight: u64,
    /// As published: `up`, `down`, `drain` or `maint`.
    pub state: String,
    /// May be picked at the first attempt; one that is down only because its cluster fails open.
    pub candidate: bool,
    /// Why not, if not.
    pub skipped: Option<String>,
    /// What is known of the reason: evidence, or an operator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Seconds since it has its state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
}

/// What is known of a backend's state beside the snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// Why it has its state; may be empty.
    pub why: String,
    /// Seconds since it has.
    pub seconds: u64,
}

/// For snapshots that nobody runs on: there are no notes.
pub fn no_notes(_: &Cluster) -> Vec<Note> {
    Vec::new()
}

/// Explains where this request goes by this snapshot. `ready`: the process wants traffic. `notes` are those of a cluster's
/// backends, in their order.
///
/// # Errors
/// There is no listener of the name that was asked for, or the question is not one head.
pub fn explain(
    snapshot: &Snapshot,
    ready: bool,
    notes: &dyn Fn(&Cluster) -> Vec<Note>,
    question: &Question,
) -> Result<Explanation, String> {
    let settings = &*snapshot.settings;
    let listener = listener(settings, question);
    if let (Some(name), None) = (&question.listener, listener) {
        return Err(format!("there is no listener {name:?}"));
    }
    let mut told = Explanation { listener: listener.map(|l| l.name.clone()), ..Explanation::default() };
    let bytes = &question.head[..];
    let mut head = RequestHead::default();
    let judged = match HeadScan::default().request(bytes) {
        Ok(Scan::Partial) => return Err("the head does not end".to_owned()),
        Ok(Scan::Complete(len)) if len < bytes.len() => return Err(format!("bytes behind the head, from {len} on")),
        Ok(Scan::Complete(_)) => head.parse(bytes, settings.underscores),
        Err(reject) => Err(reject),
    };
    if let Err(reject) = judged {
        let fault = Some((reject.at, reject.fault.clause().to_owned()));
        told.answer = Some(Answer { fault, ..answer(reject.status, Reason::Rejected(reject.fault)) });
        return Ok(told);
    }
    // Behind a Unix listener nobody has an address.
    let peer = listener.is_none_or(|l| !matches!(l.address, Address::Unix(_))).then_some(question.peer);
    let trusts = |ip: IpAddr| listener.is_some_and(|l| l.trusts(ip));
    let client = forwarded::client(&head, bytes, peer, &trusts);
    told.trusted = peer.is_some_and(trusts);
    told.client = client.map(|ip| ip.to_string());
    told.host = lossy(head.host.of(bytes));
    told.path = lossy(head.path.of(bytes));
    let health_path = listener.and_then(|l| l.health_path.as_deref());
    let health = || health_path.filter(|path| path.as_bytes() == head.path.of(bytes)).map(|_| ready);
    if let Some((status, reason)) = answered_here(&head, || told.trusted, health) {
        told.answer = Some(answer(status, reason));
        return Ok(told);
    }
    let trace = snapshot.table.trace(head.host.of(bytes), head.path.of(bytes));
    let by = |beaten| if beaten == Beaten::Path { "longer path" } else { "closer host" }.to_owned();
    told.beaten = trace.beaten.iter().map(|(r, why)| BeatenRule { rule: r.name.clone(), by: by(*why) }).collect();
    told.missed = trace.missed.iter().map(|route| route.name.clone()).collect();
    let Some(route) = trace.taken else {
        told.answer = Some(answer(404, Reason::NoRoute));
        return Ok(told);
    };
    told.rule = Some(route.name.clone());
    let policy = &route.cluster.policy;
    let key = affinity::key(&policy.balance, &head, bytes, client);
    let cluster = see(snapshot, &route.cluster, key, notes(&route.cluster));
    if is_too_large(head.framing, policy.body_max) {
        told.answer = Some(answer(413, Reason::BodyTooLarge));
    } else if cluster.waits.is_none() && !cluster.backends.iter().any(|backend| backend.candidate) {
        told.answer = Some(answer(503, Reason::NoBackend));
    } else {
        let how = RequestRewrite {
            peer,
            trusted: told.trusted,
            client,
            scheme: "http",
            port: listener.map_or(question.port, |l| port(l).unwrap_or(0)),
            request_id: 0,
            via: settings.via.as_deref(),
            underscores: settings.underscores,
        };
        let mut out = Vec::new();
        rewrite::request(&head, bytes, &how, &mut out);
        told.forwarded = Some(lossy(&out));
    }
    told.cluster = Some(cluster);
    Ok(told)
}

/// Whom the cluster has for a request with this key: asked of a balancer that has picked nobody yet.
fn see(snapshot: &Snapshot, cluster: &Cluster, key: Option<u64>, notes: Vec<Note>) -> ClusterSeen {
    let mut balancer = Balancer::new(cluster, 0, 1);
    let (pick, full) = pick(cluster, &snapshot.states, key, (&mut balancer, 1));
    let candidates: Vec<usize> = balancer.candidates().map(|pick| pick.index).collect();
    let skips = skips(cluster, &snapshot.states, &candidates, &|_| None, &is_full);
    let skipped = |skip: Skip, backend: &Backend| match skip {
        Skip::Full => format!("has as many exchanges as it may: {}", backend.max_conns),
        Skip::Backup => "a backup, for when no other one is left".to_owned(),
        Skip::Drain => "drained by an operator".to_owned(),
        Skip::Maint => "in maintenance, by an operator".to_owned(),
        Skip::Down | Skip::Tried | Skip::Suspected => skip.word().to_owned(),
    };
    let mut notes = notes.into_iter();
    let backend = |((index, backend), skip): ((usize, &Backend), Option<Skip>)| {
        let state = snapshot.states.get(cluster.first_state + index).copied().unwrap_or(State::up(1));
        let note = notes.next();
        BackendSeen {
            name: backend.name.clone(),
            endpoint: backend.endpoint.to_string(),
            weight: backend.weight,
            in_flight: in_flight(backend),
            state: STATES[state.index()].to_owned(),
            candidate: skip.is_none(),
            why: note.as_ref().map(|note| note.why.clone()).filter(|why| !why.is_empty()),
            seconds: note.map(|note| note.seconds),
            skipped: skip.map(|skip| skipped(skip, backend)),
        }
    };
    let backends: Vec<BackendSeen> = cluster.backends.iter().enumerate().zip(skips).map(backend).collect();
    let paused = snapshot.paused.binary_search(&cluster.id).is_ok();
    ClusterSeen {
        name: cluster.name.clone(),
        balance: balance(&cluster.policy.balance),
        key,
        waits: match () {
            () if paused => Some("the cluster is paused".to_owned()),
            () if full => Some("every candidate has as many exchanges as it may".to_owned()),
            () => None,
        },
        pick: pick.filter(|_| key.is_some() || backends.iter().filter(|b| b.candidate).count() == 1),
        backends,
    }
}

/// Whom this balancer picks next by the states of this epoch, as a core does that finds the first one full; and whether all that could be noted are.
pub(crate) fn pick(
    cluster: &Cluster,
    states: &[State],
    key: Option<u64>,
    (balancer, epoch): (&mut Balancer, u64),
) -> (Option<usize>, bool) {
    let mut tried = Tried::default();
    let mut full = false;
    while let Some(next) = balancer.pick(cluster, states, Ask { tried: &tried, key, in_flight: 0, epoch }) {
        full = is_full(&cluster.backends[next.index]);
        if !full {
            return (Some(next.index), false);
        }
        if !tried.has_room() {
            break;
        }
        tried.add(next.index);
    }
    (None, full)
}

fn balance(balance: &Balance) -> String {
    match balance {
        Balance::RoundRobin => "round_robin".into(),
        Balance::Random => "random".into(),
        Balance::LeastConn => "least_conn".into(),
        Balance::Hash(hash) => match &hash.by {
            HashBy::ClientIp => "hash by client_ip".into(),
            HashBy::Path => "hash by path".into(),
            HashBy::Header(name) => format!("hash by header {name}"),
            HashBy::Cookie(name) => format!("hash by cookie {name}"),
        },
    }
}

/// The listener that was asked for, else that of the port, else the first by name.
fn listener<'a>(settings: &'a Settings, question: &Question) -> Option<&'a Listener> {
    let all = || settings.listeners.iter().flatten();
    match &question.listener {
        Some(name) => all().find(|l| l.name == *name),
        None => all()
            .filter(|l| port(l) == Some(question.port))
            .min_by(|a, b| a.name.cmp(&b.name))
            .or_else(|| all().min_by(|a, b| a.name.cmp(&b.name))),
    }
}

fn port(listener: &Listener) -> Option<u16> {
    match &listener.address {
        Address::Ip(address) => Some(address.port()),
        _ => None,
    }
}

fn answer(status: u16, reason: Reason) -> Answer {
    Answer { status, reason: reason.code().to_owned(), detail: reason.detail().to_owned(), fault: None }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::check;
    use crate::route::health::Standing;
    use crate::route::table::{Hash, tests::cluster};
    use crate::supervisor::{Resolutions, Supervisor};
    use std::net::Ipv4Addr;
    use std::sync::atomic::Ordering::Relaxed;

    const CONFIG: &str = r#"{
        "listeners": { "edge": { "address": "127.0.0.1:8080", "trusted_proxies": ["10.0.0.0/8"], "health_path": "/up" },
                       "back": "127.0.0.1:9090", "local": { "address": "unix:/run/x", "trusted_proxies": ["10.0.0.0/8"] } },
        "clusters": {
            "app": { "backends": { "a": "127.0.0.1:1", "b": { "address": "127.0.0.1:2", "weight": 3 },
                                   "c": { "address": "127.0.0.1:3", "backup": true } }, "body_max": "10B" },
            "shop": { "backends": { "a": "127.0.0.1:4", "b": "127.0.0.1:5", "c": "127.0.0.1:6" },
                      "balance": { "hash": { "header": "x-user" } } },
            "none": { "backends": {} }
        },
        "routes": { "app.example.io": "app", "app.example.io/shop": "shop", "*.example.io": "none", "only.io/x": "none" }
    }"#;

    fn ask(method: &str, url: &str, fields: &[&str], peer: [u8; 4]) -> Explanation {
        let plan = check::load(CONFIG, "x").unwrap();
        let snapshot = Supervisor::new(plan, 1, Resolutions::default()).unwrap().snapshot();
        let fields: Vec<String> = fields.iter().map(ToString::to_string).collect();
        let question = Question::new(method, url, &fields, Ipv4Addr::from(peer).into()).unwrap();
        explain(&snapshot, true, &no_notes, &question).unwrap()
    }

    const STRANGER: [u8; 4] = [192, 0, 2, 1];

    #[test]
    fn the_way_of_a_request_is_told() {
        let told = ask("GET", "http://App.example.io:8080/shop/1?q#frag", &["X-User: 7"], STRANGER);
        assert_eq!((told.listener.as_deref(), told.client.as_deref()), (Some("edge"), Some("192.0.2.1")));
        assert_eq!((&told.host[..], &told.path[..]), ("App.example.io", "/shop/1"));
        assert_eq!(told.rule.as_deref(), Some("app.example.io/shop"));
        let beaten: Vec<_> = told.beaten.iter().map(|b| (&b.rule[..], &b.by[..])).collect();
        assert_eq!(beaten, [("app.example.io", "longer path"), ("*.example.io", "closer host")]);
        let cluster = told.cluster.as_ref().unwrap();
        assert_eq!((&cluster.name[..], &cluster.balance[..]), ("shop", "hash by header x-user"));
        assert!(cluster.key.is_some() && cluster.pick.is_some() && told.answer.is_none());
        let head = told.forwarded.as_ref().unwrap();
        assert!(
            head.starts_with("GET /shop/1?q HTTP/1.1\r\n") && head.contains("X-Forwarded-For: 192.0.2.1\r\n"),
            "{head}"
        );
        let text = text(&told);
        assert!(text.contains("rule        app.example.io/shop\n"), "{text}");
        assert!(text.contains("(by a closer host)"), "{text}");
    }

    #[test]
    fn who_may_be_picked_is_told_and_why_not() {
        let told =
            ask("POST", "app.example.io:8080", &["Content-Length: 5", "X-Forwarded-For: 1.2.3.4"], [10, 1, 1, 1]);
        assert_eq!((told.trusted, told.client.as_deref()), (true, Some("1.2.3.4")));
        let cluster = told.cluster.unwrap();
        let seen: Vec<_> = cluster.backends.iter().map(|b| (&b.name[..], b.candidate, b.skipped.as_deref())).collect();
        let backup = Some("a backup, for when no other one is left");
        assert_eq!(seen, [("a", true, None), ("b", true, None), ("c", false, backup)]);
        assert!(cluster.pick.is_none() && cluster.key.is_none());
        let large = ask("POST", "app.example.io", &["Content-Length: 11"], STRANGER).answer.unwrap();
        assert_eq!((large.status, &large.reason[..]), (413, "BODY_TOO_LARGE"));
    }

    #[test]
    fn what_ringway_answers_by_itself_is_told() {
        let of = |method, url, fields: &[&str]| {
            let told = ask(method, url, fields, STRANGER);
            let answer = told.answer.clone().unwrap();
            assert!(told.forwarded.is_none() && text(&told).contains(&answer.reason));
            (answer.status, answer.reason)
        };
        let of = |method, url, fields: &[&str]| {
            let (status, reason) = of(method, url, fields);
            (status, &*reason.leak())
        };
        assert_eq!(of("GET", "http://nobody.io/", &[]), (404, "NO_ROUTE"));
        assert_eq!(of("GET", "http://x.example.io/", &[]), (503, "NO_BACKEND"));
        assert_eq!(of("GET", "http://anybody:8080/up", &[]), (200, "HEALTH"));
        assert_eq!(of("OPTIONS", "http://app.example.io/", &["Max-Forwards: 0"]), (200, "OWN"));
        assert_eq!(of("GET", "https://app.example.io/", &[]), (421, "REJECTED"));
        assert_eq!(of("GET", "http://app.example.io/a b", &[]), (400, "REJECTED"));
        assert_eq!(of("CONNECT", "app.example.io:443", &[]), (501, "REJECTED"));
        assert_eq!(ask("GET", "http://only.io/y", &[], STRANGER).missed, ["only.io/x"]);
        let told = ask("GET", "http://app.example.io/", &["Host: other"], STRANGER);
        assert!(told.answer.unwrap().fault.is_some_and(|(at, _)| at > 0));
    }

    #[test]
    fn nobody_has_an_address_behind_a_unix_listener() {
        let plan = check::load(CONFIG, "x").unwrap();
        let snapshot = Supervisor::new(plan, 1, Resolutions::default()).unwrap().snapshot();
        let question = Question::new("GET", "app.example.io", &[], Ipv4Addr::new(10, 0, 0, 1).into()).unwrap();
        let question = Question { listener: Some("local".into()), ..question };
        let told = explain(&snapshot, true, &no_notes, &question).unwrap();
        assert_eq!((told.client, told.trusted), (None, false));
        assert!(!told.forwarded.unwrap().contains("X-Real-IP"));
        let told =
            |head: &str| explain(&snapshot, true, &no_notes, &Question { head: head.into(), ..question.clone() });
        assert!(told("GET / HTTP/1.1\r\nHost: a\r\n").unwrap_err().contains("does not end"));
        assert!(told("GET / HTTP/1.1\r\nHost: a\r\n\r\nx").unwrap_err().contains("from 27 on"));
    }

    /// By a balancer in the state of a core's own, the one that is told is the one that is picked, whatever the algorithm.
    #[test]
    fn with_equal_balance_state_the_pick_is_equal() {
        let hash = Balance::Hash(Hash { by: HashBy::Path, bounded_load: 0 });
        let mut rolled = 7_u64;
        let mut roll = |sides: u64| {
            rolled = rolled.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (rolled >> 33) % sides
        };
        for balance in [Balance::RoundRobin, Balance::Random, Balance::LeastConn, hash] {
            let mut cluster = cluster(0, balance, 0, &[1, 2, 3, 4, 5, 6]);
            cluster.backends[4].backup = true;
            let mut states: Vec<State> = cluster.backends.iter().map(|b| State::up(b.weight)).collect();
            let (mut core, mut told) = (Balancer::new(&cluster, 1, 9), Balancer::new(&cluster, 1, 9));
            for step in 0..2500 {
                if step % 10 == 0 {
                    let standing = [Standing::Up, Standing::Up, Standing::Down, Standing::Maint][roll(4) as usize];
                    states[roll(6) as usize].standing = standing;
                    cluster.backends[roll(6) as usize].cells.core(0).in_flight.store(roll(9) as u32, Relaxed);
                }
                let key = (roll(2) == 0).then(|| roll(99));
                let ask = Ask { tried: &Tried::default(), key, in_flight: 0, epoch: step + 1 };
                let picked = core.pick(&cluster, &states, ask).map(|pick| pick.index);
                assert_eq!(pick(&cluster, &states, key, (&mut told, step + 1)).0, picked, "step {step}");
            }
        }
    }

    #[test]
    fn what_is_no_question_is_refused() {
        let ask = |url, field: &str| Question::new("GET", url, &[field.to_owned()], Ipv4Addr::LOCALHOST.into());
        assert!(ask("ftp://a", "a: b").unwrap_err().contains("ftp"));
        assert!(ask("http://a:b/", "a: b").unwrap_err().contains("\"b\""));
        assert!(ask("http://a", "a").is_err() && ask("http://a", "a: b\r\nc: d").is_err());
        assert!(ask("http://a\r\n/", "a: b").is_err());
        assert_eq!(ask("a/?next=ftp://b/", "a: b").unwrap().port, 80);
        assert_eq!(ask("HTTP://a:/", "a: b").unwrap().port, 80);
        assert_eq!(ask("http://[::1]:81/x", "a: b").unwrap().port, 81);
        assert_eq!(ask("http://[::1]/x", "a: b").unwrap().port, 80);
    }
}
