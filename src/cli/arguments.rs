//! The command line: what may be asked of the program.

use super::hipache::Hipache;
use clap::{Args, Parser, Subcommand};
use ringway::ctl::arguments::CtlCommand;
use ringway::parse;
use std::net::IpAddr;
use std::path::PathBuf;

/// What the exit codes of the program say.
pub const EXIT_CODES: [(&str, &str); 3] = [
    ("0", "Good; of a proxy: it has stopped, and its connections had ended."),
    (
        "1",
        "Failed, or an answer that is a no: something would hurt (doctor), a message is refused (parse), Ringway would \
           answer by itself (explain).",
    ),
    ("2", "A bad config, patch or question, or bad usage."),
];

/// What those of `ringway ctl` say.
pub const CTL_EXIT_CODES: [(&str, &str); 3] = [
    ("0", "Done."),
    ("1", "Refused, failed, or not finished in time; also if no proxy answers."),
    ("2", "The config or the patch is bad, or the command line."),
];

/// What a running proxy does at a signal.
pub const SIGNALS: [(&str, &str); 3] = [
    ("HUP", "Reloads the config, as ringway ctl reload does."),
    ("USR1", "Opens the access log again, after it was renamed."),
    ("TERM, INT", "Lets connections end, drain_timeout at most, and stops; a second one stops at once."),
];

/// The files that are looked for without being named.
pub const FILES: [(&str, &str); 2] = [
    ("./config.json", "The config, without --config."),
    ("/etc/ringway/config.json", "The config, where there is none in the working directory."),
];

/// The environment that the program looks at.
pub const ENVIRONMENT: [(&str, &str); 1] =
    [("RINGWAY_LOG", "Least level of the operational log on standard error: error, warn, info, debug, trace or off.")];

/// An HTTP/1.1 load-balancing reverse proxy for Linux on io_uring, one event loop per core.
#[derive(Parser)]
#[command(
    name = "ringway",
    version,
    disable_help_subcommand = true,
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
(a second one stops at once). Exit codes: 0 good, 1 failed, 2 bad config or bad usage. RINGWAY_LOG=debug says more.

Topics: ringway help config [KEY], ringway help ctl, ringway help reasons [CODE]."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
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
    /// Tell what another config would change: which requests go elsewhere, what clusters and settings become.
    #[command(after_help = "\
Routes are compared class by class: the requests whose closest host and longest path, of both configs together, are those of
one rule. NEW is compared with --against FILE, or with --live with what runs, patches included; without either, with
./config.json or /etc/ringway/config.json. --replay tells what share of the requests of an access log (in JSON, with the
fields host and path; client, backend and key make it more exact) would meet another backend.

Exit code 0 if nothing differs, 1 if something does, 2 if a config or the log is bad.

Examples:
  ringway diff new.json
  ringway diff new.json --live --replay /var/log/ringway/access.log
  ringway diff new.json --against old.json --json")]
    Diff(DiffArgs),
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
    /// Tell more of a command, or of a topic: the config's keys, the control commands, the reason codes.
    #[command(after_help = "\
Examples:
  ringway help run
  ringway help config                       every key: what may stand there, its default, what it does
  ringway help config clusters.*.timeouts   those below it
  ringway help config hold_down             those of this name
  ringway help ctl                          every control command, exit codes, the protocol
  ringway help reasons                      why Ringway answers by itself, and what to do about it
  ringway help reasons NO_BACKEND")]
    Help {
        /// A command, or config, ctl or reasons; then what of it.
        #[arg(value_name = "COMMAND or TOPIC")]
        words: Vec<String>,
    },
    /// Print what a shell needs to complete the command line.
    #[command(after_help = "\
Examples:
  ringway completions bash > /usr/share/bash-completion/completions/ringway
  ringway completions zsh > /usr/share/zsh/site-functions/_ringway
  ringway completions fish > /usr/share/fish/vendor_completions.d/ringway.fish
  source <(ringway completions bash)        for this shell alone")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write those of all commands.
    #[command(after_help = "\
Examples:
  ringway man | man -l -
  ringway man --dir /usr/share/man/man1")]
    Man {
        /// Write all pages to this directory, which is made if need be: ringway.1 and one for each command.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
pub enum Import {
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
pub struct Demo {
    /// The port of 127.0.0.1 that the proxy listens on; 0 takes a free one.
    #[arg(long, default_value_t = 8080)]
    pub port: u16,
    /// Stop after so many seconds; without it, at Ctrl-C.
    #[arg(long = "for", value_name = "SECONDS")]
    pub seconds: Option<u64>,
}

#[derive(Args)]
pub struct Parse {
    /// The file, or `-` for standard input.
    pub file: PathBuf,
    /// It holds responses.
    #[arg(long)]
    pub response: bool,
    /// Method of the requests that the responses answer.
    #[arg(long, value_name = "METHOD", default_value = "GET", requires = "response")]
    pub to: String,
    /// Value of those requests' Upgrade field.
    #[arg(long, value_name = "PROTOCOL", default_value = "", hide_default_value = true, requires = "response")]
    pub upgrade: String,
    /// Print the verdicts as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Explain {
    /// The method, as GET.
    pub method: String,
    /// The URL, as http://host/path.
    pub url: String,
    /// The config file.
    #[arg(long, value_name = "FILE", conflicts_with = "live")]
    pub config: Option<PathBuf>,
    /// Ask the running proxy, with the states that backends have now.
    #[arg(long)]
    pub live: bool,
    /// Its control socket.
    #[arg(long, value_name = "PATH", requires = "live")]
    pub socket: Option<PathBuf>,
    /// Address of the connection's peer.
    #[arg(long, value_name = "IP", default_value_t = parse::CLIENT)]
    pub from: IpAddr,
    /// A field of the request; may be given several times.
    #[arg(long = "header", value_name = "NAME: VALUE")]
    pub headers: Vec<String>,
    /// Name of the listener that it comes to.
    #[arg(long, value_name = "NAME")]
    pub listener: Option<String>,
    /// Print the explanation as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct DiffArgs {
    /// The new config.
    pub new: PathBuf,
    /// The config that it is compared with.
    #[arg(long, value_name = "FILE", conflicts_with = "live")]
    pub against: Option<PathBuf>,
    /// Compare with what the running proxy runs on.
    #[arg(long)]
    pub live: bool,
    /// Its control socket.
    #[arg(long, value_name = "PATH", requires = "live")]
    pub socket: Option<PathBuf>,
    /// An access log, `-` for standard input.
    #[arg(long, value_name = "LOG")]
    pub replay: Option<PathBuf>,
    /// Print the differences as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Ctl {
    /// The control socket.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Print the answer as JSON.
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: OfCtl,
}

#[derive(Subcommand)]
pub enum OfCtl {
    #[command(flatten)]
    Asked(CtlCommand),
    /// Tell more of a control command, or of all of them.
    Help {
        /// The command.
        #[arg(value_name = "COMMAND")]
        words: Vec<String>,
    },
}
