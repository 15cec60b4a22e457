//! The cases of `tests/data/wire`: how they are read, and how one is played. What the keys mean stands in the README there.

use crate::client::{Client, End, Response};
use crate::harness::{Driver, Ringway, config_of, lossy, millis, seconds};
use crate::message::{self, Framing, Taken};
use crate::origin::{Origin, OriginConn, Recorded, ok};
use crate::settings::set;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// The target of the request that shows that a connection goes on; it is no part of a case.
const KEPT: &str = "/is-it-kept";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub name: String,
    pub clause: String,
    level: Level,
    why: String,
    #[serde(default)]
    pub config: Map<String, Value>,
    client: Vec<Step>,
    #[serde(default)]
    backend: Vec<Vec<Step>>,
    expect: Expect,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Level {
    Must,
    Should,
    Security,
}

#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Step {
    Bytes(String),
    Do(Action),
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
enum After {
    Head,
}

#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Action {
    after: Option<After>,
    pause_ms: u64,
    repeat: Option<String>,
    times: usize,
    #[serde(rename = "await")]
    wait_for: Option<String>,
    fin: bool,
    reset: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Many<T> {
    One(T),
    All(Vec<T>),
}

impl<T> Many<T> {
    fn all(&self) -> &[T] {
        match self {
            Many::One(one) => std::slice::from_ref(one),
            Many::All(all) => all,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    #[serde(default)]
    responses: Vec<ExpectResponse>,
    end: Option<ExpectEnd>,
    rest: Option<String>,
    requests: Many<usize>,
    #[serde(default)]
    got: Vec<ExpectRequest>,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ExpectEnd {
    Kept,
    Closed,
    Cut,
    Open,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectResponse {
    status: Vec<u16>,
    #[serde(default = "get")]
    to: String,
    #[serde(default)]
    interim: Vec<u16>,
    line: Option<String>,
    #[serde(default)]
    fields: BTreeMap<String, Many<String>>,
    #[serde(default)]
    absent: Vec<String>,
    body: Option<String>,
    #[serde(default)]
    has: Vec<String>,
    #[serde(default)]
    lacks: Vec<String>,
}

fn get() -> String {
    "GET".into()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectRequest {
    #[serde(default = "yes")]
    whole: bool,
    line: Option<String>,
    #[serde(default)]
    fields: BTreeMap<String, Many<String>>,
    #[serde(default)]
    absent: Vec<String>,
    body: Option<String>,
    #[serde(default)]
    has: Vec<String>,
    #[serde(default)]
    lacks: Vec<String>,
}

fn yes() -> bool {
    true
}

/// `tests/data/wire`.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/wire")
}

/// All files below `directory`, in the order of their names.
pub fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display())) {
        let path = entry.expect("an entry").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// All cases; a file that cannot be read as such is a fault.
pub fn cases() -> Vec<Case> {
    let mut all: Vec<Case> = Vec::new();
    for path in files(&directory()).iter().filter(|p| p.extension().is_some_and(|e| e == "json")) {
        let text = fs::read_to_string(path).expect("a file of cases");
        let cases: Vec<Case> = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        for case in cases {
            assert!(all.iter().all(|other| other.name != case.name), "two cases are named {}", case.name);
            assert!(!case.why.is_empty() && !case.expect_nothing(), "{} asserts nothing", case.name);
            all.push(case);
        }
    }
    all
}

/// Each character stands for the byte of its number.
fn bytes(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(c as u32).unwrap_or_else(|_| panic!("{c:?} is no byte, in {text:?}"))).collect()
}

/// Bytes as a text that [`bytes`] takes back.
fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|b| *b as char).collect()
}

/// What a side does: runs of bytes, and what stands between them.
enum Doing {
    Send(Vec<u8>),
    Else(Action),
}

/// Strings that follow each other are one sending.
fn doings(steps: &[Step]) -> Vec<Doing> {
    let mut out: Vec<Doing> = Vec::new();
    for step in steps {
        let more = match step {
            Step::Bytes(text) => bytes(text),
            Step::Do(Action { repeat: Some(text), times, .. }) => bytes(text).repeat(*times),
            Step::Do(action) => {
                out.push(Doing::Else(action.clone()));
                continue;
            }
        };
        match out.last_mut() {
            Some(Doing::Send(last)) => last.extend(more),
            _ => out.push(Doing::Send(more)),
        }
    }
    out
}

/// A request that reached the backend.
#[derive(Clone)]
struct Got {
    request: Recorded,
    whole: bool,
}

/// What is played now: answers that are left, requests that came.
#[derive(Default)]
struct Play {
    answers: Vec<Vec<Step>>,
    next: usize,
    got: Vec<Got>,
}

/// A proxy and the backend behind it, on which cases are played one after the other.
pub struct Stage {
    pub ringway: Ringway,
    play: Arc<Mutex<Play>>,
    _origin: Origin,
}

impl Stage {
    pub fn new(driver: Driver, config: &Map<String, Value>) -> Stage {
        let play: Arc<Mutex<Play>> = Arc::default();
        let mine = play.clone();
        let origin = Origin::new(move |c| while answer_one(c, &mine) {});
        let mut all = config_of(&[&origin]);
        for (path, value) in config {
            set(&mut all, path, value.clone());
        }
        Stage { ringway: Ringway::start(driver, all), play, _origin: origin }
    }

    /// The backend answers the next request with these bytes, and ends the connection; all others with 200 and `ok`.
    pub fn answer_next_with(&self, answer: &[u8], end: End) {
        let mut steps = vec![Step::Bytes(text(answer))];
        steps.push(Step::Do(match end {
            End::Fin => Action { fin: true, ..Action::default() },
            End::Reset => Action { reset: true, ..Action::default() },
            End::StillOpen => Action::default(),
        }));
        if end == End::Reset {
            // What was sent is to arrive before the reset.
            steps.insert(1, Step::Do(Action { pause_ms: 3, ..Action::default() }));
        }
        *self.play.lock().expect("the play") = Play { answers: vec![steps], ..Play::default() };
    }

    /// How many requests for a target have come since it was last told what to answer, and how many of them whole.
    pub fn requests(&self, target: &str) -> (usize, usize) {
        let play = self.play.lock().expect("the play");
        let came = || play.got.iter().filter(|got| got.request.target() == target);
        (came().count(), came().filter(|got| got.whole).count())
    }

    /// Plays a case; panics with what is not as it must be.
    pub fn play(&self, case: &Case) {
        *self.play.lock().expect("the play") = Play { answers: case.backend.clone(), ..Play::default() };
        let mut client = Client::to(&self.ringway);
        let mut sending = true;
        for doing in doings(&case.client) {
            match doing {
                // Who is refused half-way may find the connection closed.
                Doing::Send(bytes) => sending = sending && client.try_send(bytes).is_ok(),
                Doing::Else(Action { wait_for: Some(text), .. }) => {
                    assert!(client.wait_for(&bytes(&text)), "{text:?} never came");
                }
                Doing::Else(Action { fin: true, .. }) => client.fin(),
                Doing::Else(Action { reset: true, .. }) => return client.reset(),
                Doing::Else(action) => std::thread::sleep(millis(action.pause_ms)),
            }
        }
        case.expect.judge_client(&mut client);
        drop(client);
        // Who is refused in mid-body may know it before the backend has read the head.
        let wanted = case.expect.requests.all().iter().copied().min().unwrap_or_default();
        let until = Instant::now() + seconds(2);
        while self.play.lock().expect("the play").got.len() < wanted && Instant::now() < until {
            std::thread::sleep(millis(2));
        }
        let got = self.play.lock().expect("the play").got.clone();
        case.expect.judge_backend(&got);
    }
}

/// Serves one request of the play; false when the connection has ended.
fn answer_one(c: &mut OriginConn, play: &Mutex<Play>) -> bool {
    let Some(request) = c.head() else { return false };
    if request.target() == KEPT {
        return c.send(&ok("kept"));
    }
    let (at, answer) = {
        let mut play = play.lock().expect("the play");
        play.got.push(Got { request: request.clone(), whole: false });
        let answer = play.answers.get(play.next).cloned();
        play.next += 1;
        (play.got.len() - 1, answer.unwrap_or_else(|| vec![Step::Bytes(text(&ok("ok")))]))
    };
    if !matches!(answer.first(), Some(Step::Do(Action { after: Some(After::Head), .. }))) {
        let Some((body, body_raw)) = c.body_of(&request.head) else { return false };
        if let Some(got) = play.lock().expect("the play").got.get_mut(at) {
            *got = Got { request: Recorded { head: request.head, body, body_raw }, whole: true };
        }
    }
    for doing in doings(&answer) {
        match doing {
            Doing::Send(bytes) => {
                if !c.send(&bytes) {
                    return false;
                }
            }
            Doing::Else(Action { wait_for: Some(text), .. }) => {
                let (wanted, mut seen) = (bytes(&text), Vec::new());
                while !seen.windows(wanted.len()).any(|at| at == wanted) {
                    let more = c.some();
                    if more.is_empty() {
                        return false;
                    }
                    seen.extend(more);
                }
            }
            Doing::Else(Action { fin: true, .. }) => {
                c.fin_and_wait();
                return false;
            }
            Doing::Else(Action { reset: true, .. }) => {
                c.reset();
                return false;
            }
            Doing::Else(action) => std::thread::sleep(millis(action.pause_ms)),
        }
    }
    true
}

impl Case {
    fn expect_nothing(&self) -> bool {
        let expect = &self.expect;
        expect.responses.is_empty() && expect.end.is_none() && expect.rest.is_none() && expect.got.is_empty()
    }

    /// Name, clause, level and requirement, for who must decide what is wrong.
    pub fn title(&self) -> String {
        format!("{} ({}, {:?}): {}", self.name, self.clause, self.level, self.why)
    }
}

impl Expect {
    fn judge_client(&self, client: &mut Client) {
        let last = self.responses.len().wrapping_sub(1);
        for (at, expected) in self.responses.iter().enumerate() {
            let cut = at == last && self.end == Some(ExpectEnd::Cut);
            if expected.judge(client, cut) && cut {
                return;
            }
        }
        if let Some(rest) = &self.rest {
            let (came, end) = client.rest(seconds(5));
            assert_eq!((text(&came).as_str(), end), (rest.as_str(), End::Fin), "behind the last response");
        }
        match self.end {
            None => {}
            Some(ExpectEnd::Kept) => {
                let response = client.get(KEPT);
                assert_eq!((response.status, response.text().as_str()), (200, "kept"), "the connection goes on");
            }
            Some(ExpectEnd::Open) => client.silent(millis(100)),
            Some(ExpectEnd::Closed | ExpectEnd::Cut) => {
                let (came, end) = client.rest(seconds(5));
                assert_eq!((text(&came), end), (String::new(), End::Fin), "the connection ends");
            }
        }
    }

    fn judge_backend(&self, got: &[Got]) {
        let lines: Vec<String> = got.iter().map(|g| g.request.line()).collect();
        let allowed = self.requests.all();
        assert!(allowed.contains(&got.len()), "{} requests reached the backend, {allowed:?} may: {lines:?}", got.len());
        for (expected, got) in self.got.iter().zip(got) {
            expected.judge(got);
        }
    }
}

impl ExpectResponse {
    /// Reads one final response and what comes before it. True: it was cut, as it had to be.
    fn judge(&self, client: &mut Client, cut: bool) -> bool {
        let (mut interim, mut raw) = (Vec::new(), Vec::new());
        let response = loop {
            let head = client.head_of(&self.to);
            raw.extend_from_slice(&head.head);
            if head.status >= 200 || head.status == 101 {
                break head;
            }
            interim.push(head.status);
        };
        assert!(self.status.contains(&response.status), "status {}, allowed {:?}", response.status, self.status);
        // In place of a response that was never begun stands a whole 502, and the connection may go on.
        if cut && response.status >= 500 {
            client.body_behind(response);
            return true;
        }
        if cut {
            let (came, end) = client.rest(seconds(5));
            let whole = match message::take_body(&came, response.framing) {
                Taken::All { .. } => true,
                Taken::More => response.framing == Framing::UntilClose && end == End::Fin,
                Taken::Wrong(why) => panic!("{why} in {:?}", lossy(&came)),
            };
            assert!(!whole && end != End::StillOpen, "a cut response looks complete: {end:?} behind {:?}", text(&came));
            return true;
        }
        let response = if response.status == 101 { response } else { client.body_behind(response) };
        assert_eq!(interim, self.interim, "interim responses");
        raw.extend_from_slice(&response.body_raw);
        self.judge_parts(&response, &raw);
        false
    }

    fn judge_parts(&self, response: &Response, raw: &[u8]) {
        let head = text(&response.head);
        if let Some(line) = &self.line {
            assert_eq!(head.lines().next(), Some(line.as_str()), "the status line");
        }
        judge_fields(&response.head, &self.fields, &self.absent);
        if let Some(body) = &self.body {
            assert_eq!(&text(&response.body), body, "the response's body");
        }
        judge_bytes(raw, &self.has, &self.lacks);
    }
}

impl ExpectRequest {
    fn judge(&self, got: &Got) {
        let request = &got.request;
        assert_eq!(got.whole, self.whole, "whether the backend got all of {:?}", request.line());
        if let Some(line) = &self.line {
            assert_eq!(&request.line(), line, "the request line at the backend");
        }
        judge_fields(&request.head, &self.fields, &self.absent);
        if let Some(body) = &self.body {
            assert_eq!(&text(&request.body), body, "the request's body at the backend");
        }
        judge_bytes(&[&request.head[..], &request.body_raw].concat(), &self.has, &self.lacks);
    }
}

fn judge_fields(head: &[u8], wanted: &BTreeMap<String, Many<String>>, absent: &[String]) {
    let fields = message::fields(head);
    let values = |name: &str| -> Vec<&str> {
        fields.iter().filter(|f| f.0.eq_ignore_ascii_case(name)).map(|f| f.1.as_str()).collect()
    };
    for (name, value) in wanted {
        assert_eq!(values(name), value.all(), "{name} in {:?}", text(head));
    }
    for name in absent {
        assert_eq!(values(name), Vec::<&str>::new(), "{name} in {:?}", text(head));
    }
}

fn judge_bytes(raw: &[u8], has: &[String], lacks: &[String]) {
    let raw = text(raw);
    for part in has {
        assert!(raw.contains(part.as_str()), "{part:?} is not in {raw:?}");
    }
    for part in lacks {
        assert!(!raw.contains(part.as_str()), "{part:?} is in {raw:?}");
    }
}
