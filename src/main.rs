//! The command line. Everything else is in the library.

use clap::{Args, Parser, Subcommand};
use ringway::cli::hipache::{self, Hipache};
use ringway::config::check;
use ringway::control::Ended;
use ringway::control::signals::Signals;
use ringway::control::start::{self, DEFAULT_FILES, Failure};
use ringway::ctl::arguments::{Asked, CtlCommand};
use ringway::explain::{Explanation, Question};
use ringway::http::Method;
use ringway::parse::Side;
use ringway::publish::Snapshot;
use ringway::worker::net::machine;
use ringway::{ctl, demo, doctor, explain, parse, worker};
use std::io::{Read, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit codes.
const GOOD: i32 = 0;
const FAILED: i32 = 1;
const BAD_CONFIG: i32 = 2;
const BAD_USAGE: i32 = 2;

/// An HTTP/1.1 load-balancing reverse proxy for Linux on io_uring, one event loop per core.
#[derive(Parser)]
#[command(
    name = "ringway",
    version,
    after_help = "\
Examples:
  ringway demo                           see it work, with nothing installed
  ringway check config.json              all faults of a config, each with its place
  ringway run --config config.json       serve
  ringway ctl status                     what runs, what is down since when and why
  ringway ctl reload                     take over the changed config, touching no connection
  ringway parse request.bin              what Ringway makes of raw bytes: verdict, place and clause of a fault
  ringway import hipache dump.rdb        a config of what a Hipache has in its Redis

Signals of a running proxy: HUP reloads, USR1 opens the access log again, TERM and INT let connections end and stop
(a second one stops at once). Exit codes: 0 good, 1 failed, 2 bad config or bad usage. RINGWAY_LOG=debug says more."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until told to stop.
    #[command(after_help = "\
Without --config, ./config.json and /etc/ringway/config.json are tried in this order.

Example: ringway run --config /etc/ringway/config.json")]
    Run {
        /// The config file.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Check a config file: all faults at once, each as FILE:LINE:COLUMN.
    #[command(after_help = "\
Exit code 0 if the file is good, 2 if it is not.

Examples:
  ringway check config.json
  ringway check config.json --show      the effective config, all defaults filled in")]
    Check {
        /// The config file.
        file: PathBuf,
        /// Print the effective config as JSON.
        #[arg(long)]
        show: bool,
    },
    /// Print the JSON Schema of the config file.
    #[command(after_help = "\
Example: ringway schema > ringway.schema.json, with \"$schema\": \"./ringway.schema.json\" in the config")]
    Schema,
    /// Look at this machine: driver, limits, cores; what would hurt under load, and the cure.
    #[command(after_help = "Exit code 0 if nothing would hurt, 1 if something would.")]
    Doctor,
    /// Three backends and the proxy before them, in one process; one backend dies and comes back.
    #[command(after_help = "\
Examples:
  ringway demo
  ringway demo --port 9000 --for 10")]
    Demo(Demo),
    /// Judge raw HTTP/1.1 messages: what is accepted, what refused and at which byte, and what would go on.
    #[command(after_help = "\
The file holds raw bytes: one or more requests in a row, as a client sends them on one connection, or responses, as a
backend does. They are judged by the code that serves traffic, with the settings that hold by default. Of each message is
told: the verdict; how its body ends; of one that is refused, status, reason, the byte offset in the file of the first
fault, the clause of the RFC that it breaks and the bytes around it; of one that is accepted, the head as it would go on.

Exit code 0 if all are accepted, 1 if one is refused, 2 if the file cannot be read.

Examples:
  ringway parse request.bin
  printf 'GET / HTTP/1.1\\r\\nHost : a\\r\\n\\r\\n' | ringway parse -
  ringway parse --response --to HEAD answer.bin --json
  ringway ctl errors --save refused")]
    Parse(Parse),
    /// Tell where a request would go, and why: the rule and those it beat, the backends, the head as it would go on.
    #[command(after_help = "\
Asked of the functions that serve traffic: by a config file, as if every backend were up, or with --live by the running
proxy, with the states of now. Without --config (or --socket), ./config.json and /etc/ringway/config.json are tried in this
order. Without --listener, the one with the URL's port is taken, or else the first by name.

Exit code 0 if the request would go on, 1 if Ringway would answer it by itself, 2 if the config or the question is bad.

Examples:
  ringway explain GET http://app-user.web.example.io/
  ringway explain --live GET http://app-user.web.example.io/
  ringway explain --config new.json POST http://shop.example.com/cart --header 'Cookie: id=7' --from 10.0.0.9 --json")]
    Explain(Explain),
    /// Make a config of what another proxy has.
    #[command(subcommand)]
    Import(Import),
    /// Talk to a running proxy over its control socket.
    #[command(after_help = "\
Without --socket, \"control.socket\" of ./config.json or /etc/ringway/config.json is taken.

Examples:
  ringway ctl status
  ringway ctl status --json
  ringway ctl --socket /run/ringway.sock reload
  ringway ctl reload new.json
  ringway ctl apply patch.json --wait drained
  ringway ctl backend drain app/b1 --why disk --wait drained")]
    Ctl(Ctl),
}

#[derive(Subcommand)]
enum Import {
    /// Hipache: the frontend:HOST lists of its Redis.
    #[command(after_help = "\
A file is a dump (dump.rdb, or what redis-cli --rdb writes), an append-only file, or lines as one types them to redis-cli;
several are taken one after the other, as Redis wrote them (base.rdb, then incr.aof). The config goes to standard output.
What is not in it, and what is to know of it, goes to standard error, a line each, with its place. docs/MIGRATION.md tells
what becomes what.

Exit code 0 if all was taken over, 1 if something was left out (the config is written all the same), 2 if nothing can be
made of the input.

Examples:
  ringway import hipache dump.rdb > config.json
  ringway import hipache --redis 127.0.0.1:6379 --listen 0.0.0.0:80 --output config.json
  grep -h ^RPUSH setup/*.redis | ringway import hipache -")]
    Hipache(Hipache),
}

#[derive(Args)]
struct Demo {
    /// The port of 127.0.0.1 that the proxy listens on; 0 takes a free one.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Stop after so many seconds; without it, at Ctrl-C.
    #[arg(long = "for", value_name = "SECONDS")]
    seconds: Option<u64>,
}

#[derive(Args)]
struct Parse {
    /// The file, or `-` for standard input.
    file: PathBuf,
    /// It holds responses.
    #[arg(long)]
    response: bool,
    /// Method of the requests that the responses answer.
    #[arg(long, value_name = "METHOD", default_value = "GET", requires = "response")]
    to: String,
    /// Value of those requests' Upgrade field.
    #[arg(long, value_name = "PROTOCOL", default_value = "", hide_default_value = true, requires = "response")]
    upgrade: String,
    /// Print the verdicts as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Explain {
    /// The method, as GET.
    method: String,
    /// The URL, as http://host/path.
    url: String,
    /// The config file.
    #[arg(long, value_name = "FILE", conflicts_with = "live")]
    config: Option<PathBuf>,
    /// Ask the running proxy, with the states that backends have now.
    #[arg(long)]
    live: bool,
    /// Its control socket.
    #[arg(long, value_name = "PATH", requires = "live")]
    socket: Option<PathBuf>,
    /// Address of the connection's peer.
    #[arg(long, value_name = "IP", default_value_t = parse::CLIENT)]
    from: IpAddr,
    /// A field of the request; may be given several times.
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// Name of the listener that it comes to.
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// Print the explanation as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Ctl {
    /// The control socket.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Print the answer as JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: CtlCommand,
}

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
        Command::Ctl(ctl) => control(ctl),
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
    let (snapshot, unresolved) = start::dry(&file, matters).map_err(|why| (why, BAD_CONFIG))?;
    for name in unresolved {
        complain(&format!("ringway explain: {name}"), GOOD);
    }
    ask(&snapshot).map_err(|why| (why, BAD_USAGE))
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
    let socket = match socket.map_or_else(|| ctl::default_socket(&DEFAULT_FILES), Ok) {
        Ok(socket) => socket,
        Err(why) => return complain(&format!("ringway ctl: {why}"), FAILED),
    };
    let Asked { command, part, file, save } = match command.asked() {
        Ok(asked) => asked,
        Err(why) => return complain(&format!("ringway ctl: {why}"), FAILED),
    };
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
