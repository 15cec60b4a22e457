//! `ringway ctl`: the other end of the control socket, for people and scripts.

pub mod arguments;
mod render;
pub mod save;

use crate::config::answer::{Answer, Code, Error, Id, Outcome, Status};
use crate::config::command::{Command, Hello, Request, VERSION};
use crate::config::events::Stream;
use crate::config::orders::{Apply, Events, Explain, NoArguments, Patience, Reload};
use crate::config::receipt::{Done, Errors, Receipt, Routes, Running, Slow};
use crate::config::stories::Why;
use crate::diff::{self, Diff};
use crate::explain::{self, Explanation, Question};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest a request may take beyond what it asks to be waited for: checking a config, names, workers.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why there is no good answer.
#[derive(Debug)]
pub enum Failure {
    /// The config or patch that was sent is bad, with all its faults in text: exit code 2.
    Config(String),
    /// Anything else: exit code 1.
    Other(String),
}

/// Parts of a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    All,
    /// The backends.
    Backends,
    /// The workers.
    Workers,
    /// The counters.
    Counters,
}

/// How an answer is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Text,
    /// As it came.
    Json,
}

/// Gives a command to the process behind a socket. `file` is how a config or patch that is sent is called in faults.
/// Returns what to print.
///
/// # Errors
/// See [`Failure`].
pub fn run(socket: &Path, command: Command, part: Part, form: Form, file: &str) -> Result<String, Failure> {
    let asked = command.clone();
    let answer = ask(socket, command, file)?;
    if form == Form::Json {
        return Ok(format!("{:#}\n", chosen(answer, part)));
    }
    let garbled = || garbled(socket);
    Ok(match asked {
        Command::Status(_) => render::status(&read::<Status>(answer).ok_or_else(garbled)?, part),
        Command::Routes(_) => render::routes(&read::<Routes>(answer).ok_or_else(garbled)?),
        Command::Config(_) => read::<Running>(answer).ok_or_else(garbled)?.text,
        Command::Errors(_) => render::errors(&read::<Errors>(answer).ok_or_else(garbled)?),
        Command::Why(_) => {
            let told = read::<Why>(answer).ok_or_else(garbled)?;
            if told.stories.is_empty() {
                return Err(Failure::Other("no such exchange is kept (any more); see log.recent".to_owned()));
            }
            render::stories(&told)
        }
        // Whoever wants the stream calls `events`.
        Command::Events(_) => format!("{answer:#}\n"),
        Command::WhySlow(_) => render::slow(&read::<Slow>(answer).ok_or_else(garbled)?),
        Command::Reload(Reload { dry_run: true, .. }) | Command::Apply(Apply { dry_run: true, .. }) => {
            let told = read::<Diff>(answer).ok_or_else(garbled)?;
            let text = diff::text(&told);
            return if told.refused.is_none() { Ok(text) } else { Err(Failure::Other(text)) };
        }
        Command::Explain(_) => explain::text(&read::<Explanation>(answer).ok_or_else(garbled)?),
        Command::Reload(_) | Command::Apply(_) | Command::Backend(_) | Command::Pause(_) | Command::Resume(_) => {
            render::receipt(&read::<Receipt>(answer).ok_or_else(garbled)?)
        }
        Command::Log(_) | Command::Ready(_) | Command::Stop(_) => {
            format!("{}\n", read::<Done>(answer).ok_or_else(garbled)?.done)
        }
    })
}

/// The socket of the config that `run` would take, for when none is named.
///
/// # Errors
/// A sentence for people.
pub fn default_socket(files: &[&str]) -> Result<PathBuf, String> {
    let file = files.iter().find(|file| Path::new(file).exists());
    let plan = file.and_then(|file| crate::config::check::load(&std::fs::read_to_string(file).ok()?, file).ok());
    plan.and_then(|plan| plan.control_socket)
        .ok_or_else(|| format!("which socket? Give --socket PATH (no \"control.socket\" in {})", files.join(" or ")))
}

/// The text of a patch: `-` is standard input, what begins like an object is the patch itself, the rest are files.
/// Returns it and its name.
///
/// # Errors
/// A sentence for people.
pub fn patch_text(argument: &str) -> Result<(String, String), String> {
    if argument.trim_start().starts_with('{') {
        return Ok((argument.to_owned(), "patch".to_owned()));
    }
    let mut text = String::new();
    let read = if argument == "-" {
        io::stdin().read_to_string(&mut text).map(drop)
    } else {
        std::fs::read_to_string(argument).map(|read| text = read)
    };
    let name = if argument == "-" { "standard input" } else { argument };
    read.map_err(|e| format!("{name}: {e}"))?;
    Ok((text, name.to_owned()))
}

fn read<T: DeserializeOwned>(value: Value) -> Option<T> {
    serde_json::from_value(value).ok()
}

/// The part of a status that was asked for.
fn chosen(mut answer: Value, part: Part) -> Value {
    let key = match part {
        Part::All => return answer,
        Part::Backends => "clusters",
        Part::Workers => "workers",
        Part::Counters => "counters",
    };
    answer.get_mut(key).map(Value::take).unwrap_or_default()
}

/// How long the answer may take.
fn patience(command: &Command) -> Duration {
    let asked = match command {
        Command::Reload(reload) => reload.wait,
        Command::Apply(apply) => apply.wait,
        Command::Backend(backend) => backend.wait,
        Command::WhySlow(asked) => Patience { seconds: asked.ms.map(|ms| ms.div_ceil(1000)), ..Patience::default() },
        Command::Pause(pause) => Patience { seconds: pause.max, ..Patience::default() },
        _ => Patience::default(),
    };
    PATIENCE + Duration::from_secs(asked.seconds.unwrap_or(crate::limits::WAIT_SECONDS))
}

fn garbled(socket: &Path) -> Failure {
    Failure::Other(format!("{}: this is not a ringway of a version I know", socket.display()))
}

fn ask(socket: &Path, command: Command, file: &str) -> Result<Value, Failure> {
    let said = |e: io::Error| Failure::Other(format!("{}: {e}", socket.display()));
    let stream = UnixStream::connect(socket).map_err(said)?;
    ask_on(&mut BufReader::new(&stream), (socket, &stream), command, file)
}

/// The same on a connection that lines may follow on.
fn ask_on(
    reader: &mut impl BufRead,
    (socket, mut stream): (&Path, &UnixStream),
    command: Command,
    file: &str,
) -> Result<Value, Failure> {
    let said = |e: io::Error| Failure::Other(format!("{}: {e}", socket.display()));
    let patience = patience(&command);
    stream.set_read_timeout(Some(patience)).map_err(said)?;
    stream.set_write_timeout(Some(patience)).map_err(said)?;
    let mut line = String::new();
    reader.read_line(&mut line).map_err(said)?;
    let hello: Hello = serde_json::from_str(&line).map_err(|_| refusal(&line).unwrap_or_else(|| garbled(socket)))?;
    if hello.v != VERSION {
        return Err(garbled(socket));
    }
    stream.write_all(Request { id: Id::Number(1), command }.to_line().as_bytes()).map_err(said)?;
    line.clear();
    if reader.read_line(&mut line).map_err(said)? == 0 {
        return Err(Failure::Other(format!("{}: closed without an answer", socket.display())));
    }
    let answer: Answer = serde_json::from_str(&line).map_err(|_| garbled(socket))?;
    match answer.outcome {
        Outcome::Ok(value) => Ok(value),
        Outcome::Error(error) => Err(failure(error, file)),
    }
}

/// The reason of a server that lets nobody in.
fn refusal(line: &str) -> Option<Failure> {
    match serde_json::from_str::<Answer>(line).ok()?.outcome {
        Outcome::Error(error) => Some(failure(error, "")),
        Outcome::Ok(_) => None,
    }
}

fn failure(error: Error, file: &str) -> Failure {
    if error.code != Code::BadConfig {
        return Failure::Other(error.message);
    }
    let mut text = error.message;
    for fault in &error.faults {
        let _ = write!(text, "\n{file}:{}:{}: {}: {}", fault.line, fault.column, fault.path, fault.message);
        if let Some(suggestion) = &fault.suggestion {
            let _ = write!(text, " ({suggestion})");
        }
    }
    Failure::Config(text)
}

/// What runs behind a socket; as `ringway ctl status` prints it.
///
/// # Errors
/// See [`Failure`].
pub fn status(socket: &Path, form: Form) -> Result<String, Failure> {
    run(socket, Command::Status(NoArguments {}), Part::All, form, "")
}

/// Reads what happens in the process behind a socket, line by line, until `take` wants no more or the process ends.
///
/// # Errors
/// See [`Failure`]; that the stream has ended is one.
pub fn events(socket: &Path, from: Option<u64>, mut take: impl FnMut(&str) -> io::Result<()>) -> Result<(), Failure> {
    let said = |e: io::Error| Failure::Other(format!("{}: {e}", socket.display()));
    let stream = UnixStream::connect(socket).map_err(said)?;
    let mut reader = BufReader::new(&stream);
    let answer = ask_on(&mut reader, (socket, &stream), Command::Events(Events { from }), "")?;
    let Stream { from, lost } = read(answer).ok_or_else(|| garbled(socket))?;
    if lost > 0 {
        eprintln!("ringway ctl: {lost} events before number {from} are forgotten already");
    }
    stream.set_read_timeout(None).map_err(said)?;
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line).map_err(said)? == 0 {
            return Err(Failure::Other(format!("{}: the stream of events has ended", socket.display())));
        }
        if let Some(failure) = refusal(&line) {
            return Err(failure);
        }
        if take(&line).is_err() {
            return Ok(());
        }
    }
}

/// Asks the process behind a socket what this config would change, alone and without the patches that lie over its file.
/// `file` names it.
///
/// # Errors
/// See [`Failure`].
pub fn diff(socket: &Path, (file, text): (&Path, String)) -> Result<Diff, Failure> {
    let shown = file.to_string_lossy().into_owned();
    let absolute = std::path::absolute(file).map_or(shown.clone(), |path| path.to_string_lossy().into_owned());
    let reload =
        Reload { file: Some(absolute), content: Some(text), drop_patches: true, dry_run: true, ..Reload::default() };
    let answer = ask(socket, Command::Reload(reload), &shown)?;
    read(answer).ok_or_else(|| garbled(socket))
}

/// The text of the config that runs behind a socket, patches included, and the name of its file.
///
/// # Errors
/// See [`Failure`].
pub fn running(socket: &Path) -> Result<(String, String), Failure> {
    let answer = ask(socket, Command::Config(NoArguments {}), "")?;
    read::<Running>(answer).map(|running| (running.text, running.file)).ok_or_else(|| garbled(socket))
}

/// Asks the process behind a socket where a request goes; see `ringway explain --live`.
///
/// # Errors
/// See [`Failure`].
pub fn explain(socket: &Path, question: Question) -> Result<Explanation, Failure> {
    let head = String::from_utf8(question.head).map_err(|e| Failure::Other(e.to_string()))?;
    let (from, listener, port) = (question.peer, question.listener, question.port);
    let answer = ask(socket, Command::Explain(Explain { head, from, listener, port }), "")?;
    read(answer).ok_or_else(|| garbled(socket))
}
