//! The command line. Everything else is in the library.

mod cli;

use clap::Parser;
use cli::arguments::{Cli, Command, Ctl, Demo, DiffArgs, Explain, Import, OfCtl, Parse};
use cli::hipache::{self, Hipache};
use cli::{completions, help, man};
use ringway::config::check;
use ringway::config::command::Command as ControlCommand;
use ringway::control::signals::Signals;
use ringway::control::start::{self, DEFAULT_FILES, Failure};
use ringway::control::{Ended, dry};
use ringway::ctl::arguments::Asked;
use ringway::diff::Diff;
use ringway::diff::replay::{Replay, Replayer};
use ringway::explain::{Explanation, Question};
use ringway::http::Method;
use ringway::parse::Side;
use ringway::publish::Snapshot;
use ringway::worker::net::machine;
use ringway::{ctl, demo, diff, doctor, explain, parse, worker};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit codes.
const GOOD: i32 = 0;
const FAILED: i32 = 1;
const BAD_CONFIG: i32 = 2;
const BAD_USAGE: i32 = 2;

fn main() {
    let code = match Cli::parse().command {
        Command::Run { config } => run(config),
        Command::Check { file, show } => check(&file, show),
        Command::Schema => print(&check::schema()),
        Command::Doctor => doctor(),
        Command::Demo(Demo { port, seconds }) => demo(port, seconds),
        Command::Parse(asked) => parse(&asked),
        Command::Explain(asked) => explain(asked),
        Command::Import(Import::Hipache(asked)) => import_hipache(&asked),
        Command::Diff(asked) => compare(&asked),
        Command::Ctl(ctl) => control(ctl),
        Command::Help { words } => help(&words),
        Command::Completions { shell } => print(&completions::script(shell)),
        Command::Man { dir } => man(dir),
    };
    std::process::exit(code);
}

/// Prints text and ends it with one line end. A reader that has gone is no failure of ours.
fn print(text: &str) -> i32 {
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
    GOOD
}

fn complain(text: &str, code: i32) -> i32 {
    let _ = writeln!(std::io::stderr(), "{text}");
    code
}

fn stopped(result: Result<Ended, Failure>) -> i32 {
    match result {
        Ok(Ended::Drained { .. }) => GOOD,
        Ok(Ended::AtOnce) => FAILED,
        Err(Failure::Config(why)) => complain(&why, BAD_CONFIG),
        Err(Failure::System(why)) => complain(&format!("ringway: {why}"), FAILED),
    }
}

fn run(config: Option<PathBuf>) -> i32 {
    match Signals::install() {
        Ok(signals) => stopped(start::run(config, signals, worker::start)),
        Err(e) => complain(&format!("ringway: signals: {e}"), FAILED),
    }
}

fn check(file: &Path, show: bool) -> i32 {
    let shown = file.to_string_lossy();
    let text = match start::read_config(file) {
        Ok(text) => text,
        Err(why) => return complain(&why, BAD_CONFIG),
    };
    let good = check::load(&text, &shown).map(|plan| {
        for warning in plan.warnings() {
            complain(&format!("{shown}: warning: {warning}"), GOOD);
        }
        format!("{shown}: good")
    });
    let checked = if show { check::show(&text, &shown) } else { good };
    match checked {
        Ok(text) => print(&text),
        Err(faults) => complain(&faults.to_string(), BAD_CONFIG),
    }
}

fn doctor() -> i32 {
    let diagnosis = doctor::examine(&machine::facts());
    print(&diagnosis.to_string());
    if diagnosis.is_healthy() { GOOD } else { FAILED }
}

fn demo(port: u16, seconds: Option<u64>) -> i32 {
    match demo::run(port, seconds, worker::start) {
        Ok(result) => stopped(result),
        Err(e) => complain(&format!("ringway demo: {e}"), FAILED),
    }
}

fn parse(asked: &Parse) -> i32 {
    let mut bytes = Vec::new();
    let read = if asked.file == Path::new("-") {
        std::io::stdin().read_to_end(&mut bytes).map(drop)
    } else {
        std::fs::read(&asked.file).map(|read| bytes = read)
    };
    if let Err(e) = read {
        return complain(&format!("ringway parse: {}: {e}", asked.file.display()), BAD_USAGE);
    }
    let side = match asked.response {
        false => Side::Client,
        true => Side::Backend { method: Method::of(asked.to.as_bytes()), upgrade: asked.upgrade.as_bytes() },
    };
    let parsed = parse::parse(&bytes, side);
    print(&if asked.json { parse::json(&bytes, side, &parsed) } else { parse::text(&bytes, side, &parsed) });
    if parsed.refusal().is_none() { GOOD } else { FAILED }
}

fn explain(asked: Explain) -> i32 {
    let Explain { method, url, config, live, socket, from, headers, listener, json } = asked;
    let question = match Question::new(&method, &url, &headers, from) {
        Ok(question) => Question { listener, ..question },
        Err(why) => return complain(&format!("ringway explain: {why}"), BAD_USAGE),
    };
    let told = if live { ask_live(socket, question) } else { ask_file(config, &question) };
    let told = match told {
        Ok(told) => told,
        Err((why, code)) => return complain(&format!("ringway explain: {why}"), code),
    };
    print(&if json { explain::json(&told) } else { explain::text(&told) });
    if told.forwarded.is_some() { GOOD } else { FAILED }
}

fn compare(asked: &DiffArgs) -> i32 {
    let told = match differences(asked) {
        Ok(told) => told,
        Err((why, code)) => return complain(&format!("ringway diff: {why}"), code),
    };
    print(&if asked.json { diff::json(&told) } else { diff::text(&told) });
    if told.is_empty() { GOOD } else { FAILED }
}

fn differences(asked: &DiffArgs) -> Result<Diff, (String, i32)> {
    let bad = |why| (why, BAD_CONFIG);
    let of_socket = |failure| match failure {
        ctl::Failure::Config(why) | ctl::Failure::Other(why) => (why, BAD_CONFIG),
    };
    let text = start::read_config(&asked.new).map_err(bad)?;
    let new = dry::side(&text, &asked.new.to_string_lossy()).map_err(bad)?;
    let (old, mut told) = if asked.live {
        let socket = asked.socket.clone().map_or_else(|| ctl::default_socket(&DEFAULT_FILES), Ok).map_err(bad)?;
        let told = ctl::diff(&socket, (&asked.new, text)).map_err(of_socket)?;
        if asked.replay.is_none() {
            return Ok(told);
        }
        let (running, file) = ctl::running(&socket).map_err(of_socket)?;
        (dry::side(&running, &file).map_err(bad)?, told)
    } else {
        let file = start::config_file(asked.against.clone()).map_err(bad)?;
        let text = start::read_config(&file).map_err(bad)?;
        let old = dry::side(&text, &file.to_string_lossy()).map_err(bad)?;
        let mut told = diff::diff(&old, &new, None);
        told.restart = dry::restart(&old, &new);
        (old, told)
    };
    if let Some(log) = &asked.replay {
        let (old, failures) = dry::with_names(old, told.clusters.keys()).map_err(bad)?;
        let (new, more) = dry::with_names(new, told.clusters.keys()).map_err(bad)?;
        for why in failures.iter().chain(&more) {
            complain(&format!("ringway diff: {why}"), GOOD);
        }
        told.replay = Some(replay(log, Replayer::new(&old, &new, &told)).map_err(bad)?);
    }
    Ok(told)
}

fn replay(log: &Path, mut replayer: Replayer) -> Result<Replay, String> {
    let shown = log.display();
    let said = |e: std::io::Error| format!("{shown}: {e}");
    let mut input: Box<dyn Read> = match log == Path::new("-") {
        true => Box::new(std::io::stdin()),
        false => Box::new(std::fs::File::open(log).map_err(said)?),
    };
    let mut lines = BufReader::new(&mut input).lines();
    let mut number = 0;
    while let Some(line) = lines.next().transpose().map_err(said)? {
        number += 1;
        replayer.line(&line).map_err(|why| format!("{shown}:{number}: {why}"))?;
    }
    Ok(replayer.end())
}

fn ask_live(socket: Option<PathBuf>, question: Question) -> Result<Explanation, (String, i32)> {
    let socket = socket.map_or_else(|| ctl::default_socket(&DEFAULT_FILES), Ok).map_err(|why| (why, FAILED))?;
    ctl::explain(&socket, question).map_err(|failure| match failure {
        ctl::Failure::Config(why) => (why, BAD_CONFIG),
        ctl::Failure::Other(why) => (why, FAILED),
    })
}

fn ask_file(config: Option<PathBuf>, question: &Question) -> Result<Explanation, (String, i32)> {
    let ask = |snapshot: &Snapshot| explain::explain(snapshot, true, &explain::no_notes, question);
    let file = start::config_file(config).map_err(|why| (why, BAD_CONFIG))?;
    let matters = |snapshot: &Snapshot| Some(ask(snapshot).ok()?.cluster?.name);
    let (snapshot, unresolved) = dry::snapshot(&file, matters).map_err(|why| (why, BAD_CONFIG))?;
    for name in unresolved {
        complain(&format!("ringway explain: {name}"), GOOD);
    }
    ask(&snapshot).map_err(|why| (why, BAD_USAGE))
}

fn help(words: &[String]) -> i32 {
    match help::told(words) {
        Ok(text) => print(&text),
        Err(why) => complain(&format!("ringway help: {why}"), BAD_USAGE),
    }
}

fn man(directory: Option<PathBuf>) -> i32 {
    let Some(directory) = directory else {
        return match man::top() {
            Ok(page) => print(&page),
            Err(e) => complain(&format!("ringway man: {e}"), FAILED),
        };
    };
    match man::write(&directory) {
        Ok(pages) => print(&format!("{pages} pages in {}", directory.display())),
        Err(e) => complain(&format!("ringway man: {}: {e}", directory.display()), FAILED),
    }
}

fn import_hipache(asked: &Hipache) -> i32 {
    let done = match hipache::run(asked) {
        Ok(done) => done,
        Err(why) => return complain(&format!("ringway import: {why}"), BAD_USAGE),
    };
    complain(&done.said, GOOD);
    if let Some(config) = done.config {
        print(&config);
    }
    if done.complete { GOOD } else { FAILED }
}

fn control(Ctl { socket, json, command }: Ctl) -> i32 {
    let command = match command {
        OfCtl::Asked(command) => command,
        OfCtl::Help { words } => return help(&[vec!["ctl".to_owned()], words].concat()),
    };
    let socket = match socket.map_or_else(|| ctl::default_socket(&DEFAULT_FILES), Ok) {
        Ok(socket) => socket,
        Err(why) => return complain(&format!("ringway ctl: {why}"), FAILED),
    };
    let Asked { command, part, file, save } = match command.asked() {
        Ok(asked) => asked,
        Err(why) => return complain(&format!("ringway ctl: {why}"), FAILED),
    };
    if let ControlCommand::Events(asked) = command {
        let take = |line: &str| std::io::stdout().lock().write_all(line.as_bytes());
        return match ctl::events(&socket, asked.from, take) {
            Ok(()) => GOOD,
            Err(ctl::Failure::Config(why) | ctl::Failure::Other(why)) => {
                complain(&format!("ringway ctl: {why}"), FAILED)
            }
        };
    }
    let form = if json { ctl::Form::Json } else { ctl::Form::Text };
    let answered = match save {
        Some(dir) => ctl::save::errors(&socket, &dir, form),
        None => ctl::run(&socket, command, part, form, &file),
    };
    match answered {
        Ok(text) => print(&text),
        Err(ctl::Failure::Config(why)) => complain(&why, BAD_CONFIG),
        Err(ctl::Failure::Other(why)) => complain(&format!("ringway ctl: {why}"), FAILED),
    }
}
