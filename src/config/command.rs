//! What travels over the control socket towards Ringway: one JSON object a line (docs/CONFIG.md, "Control protocol").
//!
//! The server speaks first, with a [`Hello`]. Then each line is a request, `{"v":1,"id":1,"cmd":"status","args":{}}`,
//! and each gets one answer with its id (`answer`). Unknown keys beside `args` are ignored, so that later clients can
//! talk to this server; unknown keys in `args` are errors, because a command that is half understood is not obeyed.

use super::answer::{Code, Error, Id};
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

/// What may be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Read, check and publish a config.
    Reload(Reload),
    /// Tell what runs, see [`super::answer::Status`].
    Status,
}

/// Arguments of `reload`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reload {
    /// Names the file; relative paths in the config begin at its directory. Without it, the file that the process was
    /// started with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The config's text. Without it, the file is read by the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

/// Arguments of a command that takes none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoArguments {}

const COMMANDS: [&str; 2] = ["reload", "status"];

#[derive(Serialize, Deserialize)]
struct Envelope {
    v: u32,
    id: Id,
    cmd: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
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
        let (cmd, args) = match &self.command {
            Command::Reload(reload) => ("reload", serde_json::to_value(reload).ok()),
            Command::Status => ("status", None),
        };
        super::answer::line(&Envelope { v: VERSION, id: self.id.clone(), cmd: cmd.into(), args })
    }
}

impl Command {
    fn from_parts(cmd: &str, args: Option<Value>) -> Result<Command, Error> {
        let args = args.unwrap_or_else(|| Value::Object(Default::default()));
        let bad_args = |error: serde_json::Error| Error::new(Code::BadArguments, format!("{cmd}: {error}"));
        match cmd {
            "reload" => Ok(Command::Reload(Reload::deserialize(args).map_err(bad_args)?)),
            "status" => NoArguments::deserialize(args).map(|NoArguments {}| Command::Status).map_err(bad_args),
            _ => {
                let near = nearest(cmd, COMMANDS.into_iter()).map(|n| format!(" (did you mean {n:?}?)"));
                let message = format!("there is no command {cmd:?}{}", near.unwrap_or_default());
                Err(Error::new(Code::UnknownCommand, message))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_survive_the_way() {
        for request in [
            Request { id: Id::Number(7), command: Command::Status },
            Request {
                id: Id::Text("a-1".into()),
                command: Command::Reload(Reload { file: Some("c.json".into()), content: Some("{\n}".into()) }),
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
        assert_eq!(Request::parse(line).unwrap().command, Command::Status);
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
