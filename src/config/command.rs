//! What travels over the control socket towards Ringway: one JSON object a line (docs/CONFIG.md, "Control protocol").
//!
//! The server speaks first, with a [`Hello`]. Then each line is a request, `{"v":1,"id":1,"cmd":"status","args":{}}`,
//! and each gets one answer with its id (`answer`). Unknown keys beside `args` are ignored, so that later clients can
//! talk to this server; unknown keys in `args` are errors, because a command that is half understood is not obeyed.

use super::answer::{Code, Error, Id};
use super::orders::{self, Apply, Backend, Errors, Explain, Log, NoArguments, Pause, Ready, Reload, Resume, WhySlow};
use super::shape::nearest;
use crate::limits::CONTROL_LINE_BYTES_MAX;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Version of the protocol. It rises only when an old client would misunderstand.
pub const VERSION: u32 = 1;

/// The server's first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Always `ringway`.
    pub hello: String,
    /// [`VERSION`].
    pub v: u32,
    /// The program's version.
    pub version: String,
}

impl Hello {
    /// This program's.
    pub fn new() -> Hello {
        Hello { hello: "ringway".into(), v: VERSION, version: env!("CARGO_PKG_VERSION").into() }
    }
}

impl Default for Hello {
    fn default() -> Hello {
        Hello::new()
    }
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Repeated in the answer.
    pub id: Id,
    /// What is asked for.
    pub command: Command,
}

/// What may be asked for. On the wire the name is in `cmd` and the rest in `args`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cmd", content = "args", rename_all = "snake_case")]
pub enum Command {
    /// Tell what runs: [`super::answer::Status`].
    Status(NoArguments),
    /// Tell the routes: [`super::answer::Routes`].
    Routes(NoArguments),
    /// Tell the running config: [`super::answer::Running`].
    Config(NoArguments),
    /// Tell what failed lately: [`super::answer::Errors`].
    Errors(Errors),
    /// Tell which connections make the cores work: [`super::receipt::Slow`].
    WhySlow(WhySlow),
    /// Tell the story of an exchange: [`super::stories::Why`].
    Why(orders::Why),
    /// Tell from now on what happens: [`super::events::Stream`], then [`super::events::Event`]s.
    Events(orders::Events),
    /// Tell where a request would go, and why: `crate::explain::Explanation`.
    Explain(Explain),
    /// Read, check and publish a config: [`super::receipt::Receipt`]; or only tell what that would change.
    Reload(Reload),
    /// Change the running config by a merge patch: [`super::answer::Receipt`].
    Apply(Apply),
    /// Overrule config and health for one backend: [`super::answer::Receipt`].
    Backend(Backend),
    /// Let the requests for a cluster wait: [`super::answer::Receipt`], when nothing is in flight any more.
    Pause(Pause),
    /// Let them go on: [`super::answer::Receipt`].
    Resume(Resume),
    /// The logs: [`super::answer::Done`].
    Log(Log),
    /// What readiness probes are told: [`super::answer::Done`].
    Ready(Ready),
    /// Drain, then end the process: [`super::answer::Done`].
    Stop(NoArguments),
}

/// What a client may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Commands that only tell.
    Read,
    /// All commands.
    Change,
}

/// The names of all commands.
pub const COMMANDS: [&str; 16] = [
    "status", "routes", "config", "errors", "why", "events", "why_slow", "explain", "reload", "apply", "backend",
    "pause", "resume", "log", "ready", "stop",
];

#[derive(Deserialize)]
struct Envelope {
    id: Id,
    cmd: String,
    #[serde(default)]
    args: Option<Value>,
}

/// A line that is no request: the answer to give, with the id if there was one.
#[derive(Clone, Debug, PartialEq)]
pub struct Garbage {
    /// The id, as far as it could be read.
    pub id: Option<Id>,
    /// What is wrong.
    pub error: Error,
}

impl Request {
    /// Parses one line, with or without its line end.
    pub fn parse(line: &[u8]) -> Result<Request, Box<Garbage>> {
        let refuse =
            |id: Option<Id>, code, message: String| Err(Box::new(Garbage { id, error: Error::new(code, message) }));
        if line.len() > CONTROL_LINE_BYTES_MAX {
            let message = format!("the line has more than {CONTROL_LINE_BYTES_MAX} bytes");
            return refuse(None, Code::LineTooLong, message);
        }
        let value: Value = match serde_json::from_slice(line) {
            Ok(value) => value,
            Err(error) => return refuse(None, Code::NotJson, format!("the line is not JSON: {error}")),
        };
        let id = value.get("id").and_then(|id| Id::deserialize(id).ok());
        // The version first: what else the line means depends on it.
        match value.get("v").and_then(Value::as_u64) {
            Some(v) if v == u64::from(VERSION) => {}
            Some(v) => {
                let message = format!("version {v} of the protocol is not spoken here, {VERSION} is");
                return refuse(id, Code::UnsupportedVersion, message);
            }
            None => return refuse(id, Code::BadRequest, format!("a request has \"v\": {VERSION}")),
        }
        let envelope = match Envelope::deserialize(value) {
            Ok(envelope) => envelope,
            Err(error) => return refuse(id, Code::BadRequest, error.to_string()),
        };
        match Command::from_parts(&envelope.cmd, envelope.args) {
            Ok(command) => Ok(Request { id: envelope.id, command }),
            Err(error) => Err(Box::new(Garbage { id: Some(envelope.id), error })),
        }
    }

    /// The request as a line, with its line end.
    pub fn to_line(&self) -> String {
        #[derive(Serialize)]
        struct Line<'a> {
            v: u32,
            id: &'a Id,
            #[serde(flatten)]
            command: &'a Command,
        }
        super::answer::line(&Line { v: VERSION, id: &self.id, command: &self.command })
    }
}

impl Command {
    /// What a client must be allowed for it.
    pub fn level(&self) -> Level {
        match self {
            Command::Status(_) | Command::Routes(_) | Command::Config(_) => Level::Read,
            Command::Errors(_) | Command::WhySlow(_) | Command::Explain(_) | Command::Events(_) => Level::Read,
            Command::Why(_) => Level::Read,
            _ => Level::Change,
        }
    }

    /// Its name on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Command::Status(_) => "status",
            Command::Routes(_) => "routes",
            Command::Config(_) => "config",
            Command::Errors(_) => "errors",
            Command::Why(_) => "why",
            Command::Events(_) => "events",
            Command::WhySlow(_) => "why_slow",
            Command::Explain(_) => "explain",
            Command::Reload(_) => "reload",
            Command::Apply(_) => "apply",
            Command::Backend(_) => "backend",
            Command::Pause(_) => "pause",
            Command::Resume(_) => "resume",
            Command::Log(_) => "log",
            Command::Ready(_) => "ready",
            Command::Stop(_) => "stop",
        }
    }

    fn from_parts(cmd: &str, args: Option<Value>) -> Result<Command, Error> {
        if !COMMANDS.contains(&cmd) {
            let near = nearest(cmd, COMMANDS.into_iter()).map(|n| format!(" (did you mean {n:?}?)"));
            let message = format!("there is no command {cmd:?}{}", near.unwrap_or_default());
            return Err(Error::new(Code::UnknownCommand, message));
        }
        let args = args.unwrap_or_else(|| Value::Object(Default::default()));
        Command::deserialize(serde_json::json!({ "cmd": cmd, "args": args }))
            .map_err(|error| Error::new(Code::BadArguments, format!("{cmd}: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::super::orders::{Patience, Wait, Wish};
    use super::*;

    #[test]
    fn requests_survive_the_way() {
        for request in [
            Request { id: Id::Number(7), command: Command::Status(NoArguments {}) },
            Request {
                id: Id::Number(8),
                command: Command::Backend(Backend {
                    backend: "app/b1".into(),
                    set: Wish::Weight(7),
                    seconds: Some(60),
                    why: Some("a new disk".into()),
                    wait: Patience { wait: Wait::Drained, seconds: Some(9) },
                }),
            },
            Request { id: Id::Number(9), command: Command::Log(Log::Level("debug".into())) },
            Request { id: Id::Number(10), command: Command::Log(Log::Reopen) },
            Request { id: Id::Number(12), command: Command::WhySlow(WhySlow { ms: Some(300) }) },
            Request {
                id: Id::Number(13),
                command: Command::Explain(Explain {
                    head: "GET / HTTP/1.1\r\nHost: a\r\n\r\n".into(),
                    from: [10, 0, 0, 1].into(),
                    listener: Some("main".into()),
                    port: 80,
                }),
            },
            Request { id: Id::Number(11), command: Command::Ready(Ready { ready: false }) },
            Request {
                id: Id::Text("a-1".into()),
                command: Command::Reload(Reload {
                    file: Some("c.json".into()),
                    content: Some("{\n}".into()),
                    ..Reload::default()
                }),
            },
            Request { id: Id::Number(0), command: Command::Reload(Reload::default()) },
        ] {
            let line = request.to_line();
            assert_eq!(line.matches('\n').count(), 1);
            assert_eq!(Request::parse(line.as_bytes()), Ok(request));
        }
        assert_eq!(serde_json::to_value(Hello::new()).unwrap()["hello"], "ringway");
    }

    #[test]
    fn later_clients_are_understood() {
        let line = br#"{"v":1,"id":1,"cmd":"status","trace":"x"}"#;
        assert_eq!(Request::parse(line).unwrap().command, Command::Status(NoArguments {}));
    }

    #[test]
    fn garbage_is_told_apart() {
        let one = Some(Id::Number(1));
        for (line, id, code, part) in [
            (r#"{"v":1"#, None, Code::NotJson, "not JSON"),
            ("\u{1}", None, Code::NotJson, "not JSON"),
            ("[]", None, Code::BadRequest, "\"v\": 1"),
            (r#"{"v":2,"id":1,"cmd":"status"}"#, one.clone(), Code::UnsupportedVersion, "version 2"),
            (r#"{"v":1,"id":1}"#, one.clone(), Code::BadRequest, "cmd"),
            (r#"{"v":1,"cmd":"status"}"#, None, Code::BadRequest, "id"),
            (r#"{"v":1,"id":1,"cmd":"relaod"}"#, one.clone(), Code::UnknownCommand, "did you mean \"reload\"?"),
            (r#"{"v":1,"id":1,"cmd":"reload","args":{"contnet":""}}"#, one.clone(), Code::BadArguments, "contnet"),
            (r#"{"v":1,"id":1,"cmd":"status","args":{"all":true}}"#, one.clone(), Code::BadArguments, "all"),
            (r#"{"v":1,"id":1,"cmd":"status","args":[1]}"#, one, Code::BadArguments, "status"),
        ] {
            let garbage = Request::parse(line.as_bytes()).unwrap_err();
            assert_eq!((garbage.id, garbage.error.code), (id, code), "{line}");
            assert!(garbage.error.message.contains(part), "{line}: {}", garbage.error.message);
        }
        let long = vec![b' '; CONTROL_LINE_BYTES_MAX + 1];
        assert_eq!(Request::parse(&long).unwrap_err().error.code, Code::LineTooLong);
    }
}
