//! The command line of `ringway ctl`, and what each line of it asks for.

use super::{Part, patch_text};
use crate::config::command::Command;
use crate::config::orders::{
    Apply, Backend, Errors, Events, Log, NoArguments, Patience, Pause, Ready, Reload, Resume, Wait, Why, WhySlow, Wish,
};
use crate::config::value;
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// What may be asked of a running proxy.
#[derive(Debug, Subcommand)]
pub enum CtlCommand {
    /// What runs: backends with their states and why, workers, counters.
    Status,
    /// Which host and path leads to which cluster.
    Routes,
    /// The backends: state, since when, why, what operators have overruled.
    Backends,
    /// The workers: load, lag, connections, exchanges, what they gave each other, the epoch they run on.
    Workers,
    /// The counters, summed over the workers.
    Stats,
    /// The running config, patches included.
    Config,
    /// The latest requests that went wrong, with the reason, and the latest messages that were refused, with the place.
    #[command(after_help = "\
Of each reason and side, the latest refused messages of each worker are kept: heads only, with the values of
Authorization, Proxy-Authorization, Cookie and Set-Cookie masked. --save writes them as raw bytes to files that
ringway parse judges just as the proxy did; the mode of the files is 0600, and none is written over.

Examples:
  ringway ctl errors
  ringway ctl errors --save refused && ringway parse refused/request-core0-1.400.bare-lf")]
    Errors {
        /// Write the bytes of the refused messages to files in this directory.
        #[arg(long, value_name = "DIR")]
        save: Option<PathBuf>,
    },
    /// The whole story of an exchange: where its time went, each attempt, and why it was or was not sent again.
    #[command(after_help = "\
Exchanges that went wrong, or of which an attempt did, are always kept, the latest 256 of each worker; all others only if
the config asks for it (log.recent). Their numbers stand in the access log (field request_id), in the backend's X-Request-Id,
in Ringway's own error answers and in `ringway ctl errors --json`. Without a number, the latest are told.

Examples:
  ringway ctl why
  ringway ctl why 6f1d0c6e1b0a4f2f9d7c5a3b1e8f2a40")]
    Why {
        /// The X-Request-Id.
        request_id: Option<String>,
    },
    /// What happens from now on, one JSON object a line: backends that go down or come up with the evidence, changes and who
    /// made them, overflowing queues.
    #[command(after_help = "\
Events are numbered from 1 without gaps. The proxy keeps the latest 4096; a reader that falls further behind is cut.

Examples:
  ringway ctl events
  ringway ctl events --from 1 | jq -r '.text'")]
    Events {
        /// Begin with this number: what has happened already is told as far as it is kept.
        #[arg(long, value_name = "N")]
        from: Option<u64>,
    },
    /// Which connections make the workers work: measures for a while, then names the dearest of each.
    #[command(after_help = "\
A connection's share is its part of what all connections of that worker cost meanwhile: CPU time of its task, and an
estimate of what the kernel does for it. While it is measured, a request costs some microseconds more.

Examples:
  ringway ctl why-slow
  ringway ctl why-slow --for 10s")]
    WhySlow {
        /// How long to measure.
        #[arg(long = "for", value_name = "TIME", default_value = "1s", value_parser = seconds)]
        seconds: u64,
    },
    /// Take over a config; whatever is wrong with it rejects the whole, and nothing changes.
    Reload {
        /// The new config. Without it, the proxy reads the file again that it was started with.
        file: Option<PathBuf>,
        /// Forget the patches that were applied before.
        #[arg(long)]
        drop_patches: bool,
        /// Only tell what would change, and whether it would be refused; addresses and files are not tried.
        #[arg(long)]
        dry_run: bool,
        /// What the answer waits for.
        #[command(flatten)]
        wait: WaitFor,
    },
    /// Change the running config by a JSON merge patch (RFC 7396): add an application, a route, a backend.
    #[command(after_help = "\
Examples:
  ringway ctl apply '{\"clusters\": {\"app\": {\"backends\": {\"b3\": \"10.0.0.3:80\"}}}}'
  ringway ctl apply '{\"clusters\": {\"app\": {\"backends\": {\"b1\": null}}}}' --wait drained
  ringway ctl apply patch.json --if-generation 7")]
    Apply {
        /// A file, `-` for standard input, or the patch itself.
        patch: String,
        /// Only if this generation runs.
        #[arg(long, value_name = "N")]
        if_generation: Option<u64>,
        /// Only tell what would change, and whether it would be refused; addresses and files are not tried.
        #[arg(long)]
        dry_run: bool,
        /// What the answer waits for.
        #[command(flatten)]
        wait: WaitFor,
    },
    /// Overrule config and health for one backend, until it is taken back by `up`.
    #[command(after_help = "\
Examples:
  ringway ctl backend drain app/b1 --wait drained      when it returns, b1 may be stopped
  ringway ctl backend weight app/b1 5 --for 10m --why canary
  ringway ctl backend up app/b1")]
    Backend {
        /// What is wished.
        set: SetWord,
        /// CLUSTER/ID.
        backend: String,
        /// The weight, for `weight`.
        #[arg(required_if_eq("set", "weight"))]
        weight: Option<u32>,
        /// How long it holds, as in 10m.
        #[arg(long = "for", value_name = "TIME", value_parser = seconds)]
        seconds: Option<u64>,
        /// Shown beside it.
        #[arg(long, value_name = "TEXT")]
        why: Option<String>,
        /// What the answer waits for.
        #[command(flatten)]
        wait: WaitFor,
    },
    /// Let the requests for a cluster wait; returns when nothing is in flight any more.
    Pause {
        /// The cluster.
        cluster: String,
        /// How long at most, as in 30s; then they go on by themselves.
        #[arg(long, value_name = "TIME", value_parser = seconds)]
        max: Option<u64>,
        /// Shown beside it.
        #[arg(long, value_name = "TEXT")]
        why: Option<String>,
    },
    /// Let the requests of a paused cluster go on.
    Resume {
        /// The cluster.
        cluster: String,
    },
    /// The logs.
    #[command(subcommand)]
    Log(LogCommand),
    /// What readiness probes are told.
    Ready {
        /// On or off.
        ready: Switch,
    },
    /// Let connections end, then stop, as SIGTERM does.
    Stop,
}

/// What an answer waits for.
#[derive(Clone, Copy, Debug, Args)]
pub struct WaitFor {
    /// Return when every worker runs on it, or when also nothing is left on what was taken away.
    #[arg(long, value_name = "FOR", default_value = "acked")]
    wait: WaitWord,
    /// The longest to wait for `drained`, as in 5m; then say what is left, and fail.
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    timeout: Option<u64>,
}

/// See [`WaitFor`].
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum WaitWord {
    /// Every worker runs on it.
    Acked,
    /// Nothing is left.
    Drained,
}

/// What is wished of a backend.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum SetWord {
    /// No new requests; those under way end by themselves.
    Drain,
    /// As drain, and no probes.
    Maint,
    /// Take back what was wished before.
    Up,
    /// Another weight.
    Weight,
}

/// On or off.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

/// What may be done with the logs.
#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Open the access log's file again.
    Reopen,
    /// Set the least level of the operational log.
    Level {
        /// error, warn, info, debug, trace or off.
        level: String,
    },
}

/// What a command line asks for: the command, which part of its answer, and how a text that is sent is called in faults.
#[derive(Debug)]
pub struct Asked {
    /// To be sent.
    pub command: Command,
    /// To be shown.
    pub part: Part,
    /// Name of the file or patch.
    pub file: String,
    /// Where to write what of the answer goes to files.
    pub save: Option<PathBuf>,
}

impl CtlCommand {
    /// What to send. Files that it needs are read.
    ///
    /// # Errors
    /// A sentence for people.
    pub fn asked(self) -> Result<Asked, String> {
        let plain = |command| Asked { command, part: Part::All, file: String::new(), save: None };
        let part = |part| Asked { part, ..plain(Command::Status(NoArguments {})) };
        Ok(match self {
            CtlCommand::Status => part(Part::All),
            CtlCommand::Backends => part(Part::Backends),
            CtlCommand::Workers => part(Part::Workers),
            CtlCommand::Stats => part(Part::Counters),
            CtlCommand::Routes => plain(Command::Routes(NoArguments {})),
            CtlCommand::Config => plain(Command::Config(NoArguments {})),
            CtlCommand::Errors { save } => Asked { save, ..plain(Command::Errors(Errors::default())) },
            CtlCommand::Why { request_id } => plain(Command::Why(Why { request_id })),
            CtlCommand::Events { from } => plain(Command::Events(Events { from })),
            CtlCommand::WhySlow { seconds } => plain(Command::WhySlow(WhySlow { ms: Some(seconds * 1000) })),
            CtlCommand::Reload { file, drop_patches, dry_run, wait } => {
                let reload = Reload { drop_patches, dry_run, wait: wait.into(), ..Reload::default() };
                asked_reload(file, reload)?
            }
            CtlCommand::Apply { patch, if_generation, dry_run, wait } => {
                let (patch, file) = patch_text(&patch)?;
                let apply = Apply { patch, file: Some(file.clone()), if_generation, dry_run, wait: wait.into() };
                Asked { file, ..plain(Command::Apply(apply)) }
            }
            CtlCommand::Backend { set, backend, weight, seconds, why, wait } => {
                let set = match (set, weight) {
                    (SetWord::Drain, None) => Wish::Drain,
                    (SetWord::Maint, None) => Wish::Maint,
                    (SetWord::Up, None) => Wish::Up,
                    (SetWord::Weight, Some(weight)) => Wish::Weight(weight),
                    _ => return Err("a number is for \"weight\", and only for it".to_owned()),
                };
                plain(Command::Backend(Backend { backend, set, seconds, why, wait: wait.into() }))
            }
            CtlCommand::Pause { cluster, max, why } => plain(Command::Pause(Pause { cluster, max, why })),
            CtlCommand::Resume { cluster } => plain(Command::Resume(Resume { cluster })),
            CtlCommand::Log(LogCommand::Reopen) => plain(Command::Log(Log::Reopen)),
            CtlCommand::Log(LogCommand::Level { level }) => plain(Command::Log(Log::Level(level))),
            CtlCommand::Ready { ready } => plain(Command::Ready(Ready { ready: matches!(ready, Switch::On) })),
            CtlCommand::Stop => plain(Command::Stop(NoArguments {})),
        })
    }
}

fn asked_reload(file: Option<PathBuf>, mut reload: Reload) -> Result<Asked, String> {
    if let Some(file) = &file {
        let said = |e: std::io::Error| format!("{}: {e}", file.display());
        reload.content = Some(std::fs::read_to_string(file).map_err(said)?);
        reload.file = Some(std::path::absolute(file).map_err(said)?.to_string_lossy().into_owned());
    }
    let file = file.map_or_else(|| "config".to_owned(), |file| file.display().to_string());
    Ok(Asked { command: Command::Reload(reload), part: Part::All, file, save: None })
}

impl From<WaitFor> for Patience {
    fn from(WaitFor { wait, timeout }: WaitFor) -> Patience {
        let wait = match wait {
            WaitWord::Acked => Wait::Acked,
            WaitWord::Drained => Wait::Drained,
        };
        Patience { wait, seconds: timeout }
    }
}

/// A time as in the config.
fn seconds(text: &str) -> Result<u64, String> {
    value::duration(text).map(u64::from).map_err(|refusal| match refusal.suggestion {
        Some(suggestion) => format!("{} ({suggestion})", refusal.message),
        None => refusal.message,
    })
}
