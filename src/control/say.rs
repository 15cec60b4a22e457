//! The operational log: `tracing` lines to standard error through a thread of its own, so that a full pipe there stops
//! neither control nor a worker.

use crate::access_log::write_all;
use crate::limits;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Registry, reload};

enum Message {
    Line(Vec<u8>),
    Stop,
}

/// The sending end: what `tracing` writes to. Never waits; lines that find the queue full are counted and said later.
#[derive(Clone)]
pub struct Lines {
    to_writer: Sender<Message>,
    dropped: Arc<AtomicU64>,
}

impl io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Err(TrySendError::Full(_)) = self.to_writer.try_send(Message::Line(line.to_vec())) {
            self.dropped.fetch_add(1, Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Lines;

    fn make_writer(&self) -> Lines {
        self.clone()
    }
}

/// The writer's thread.
pub struct Say {
    to_writer: Sender<Message>,
    /// Closed when the thread ends.
    ended: Receiver<()>,
}

/// Starts the thread that writes to `file` and returns the two ends.
///
/// # Errors
/// The thread could not be made.
pub fn spawn(mut file: File) -> io::Result<(Say, Lines)> {
    let (to_writer, messages) = bounded(limits::SAY_LINES_MAX);
    let (running, ended) = bounded::<()>(0);
    let dropped = Arc::new(AtomicU64::new(0));
    let lines = Lines { to_writer: to_writer.clone(), dropped: dropped.clone() };
    std::thread::Builder::new().name("ringway-say".into()).spawn(move || {
        while let Ok(Message::Line(line)) = messages.recv() {
            // With standard error gone there is nobody left to tell.
            let _ = write_all(&mut file, &line);
            let lost = dropped.swap(0, Relaxed);
            if lost > 0 {
                let _ =
                    write_all(&mut file, format!("{lost} lines of this log were lost: it was not read\n").as_bytes());
            }
        }
        drop(running);
    })?;
    Ok((Say { to_writer, ended }, lines))
}

/// The filter in front of everything that is said, to be set; there once [`init`] has run.
static FILTER: OnceLock<reload::Handle<LevelFilter, Registry>> = OnceLock::new();

/// Makes standard error the place of all `tracing` events of this process, panics included. RINGWAY_LOG sets the least
/// level, as [`set_level`] does later; without it, it is `info`.
///
/// # Errors
/// No descriptor or thread to be had, or called twice.
pub fn init() -> io::Result<Say> {
    let (say, lines) = spawn(File::from(io::stderr().as_fd().try_clone_to_owned()?))?;
    let level = std::env::var("RINGWAY_LOG").ok().and_then(|l| l.parse().ok()).unwrap_or(LevelFilter::INFO);
    let (filter, handle) = reload::Layer::new(level);
    let format = fmt::layer().with_writer(lines).with_target(false);
    let subscriber = tracing_subscriber::registry().with(filter).with(format);
    tracing::subscriber::set_global_default(subscriber).map_err(io::Error::other)?;
    // Only the first can get here: a second subscriber was refused above.
    let _ = FILTER.set(handle);
    std::panic::set_hook(Box::new(|info| {
        let thread = std::thread::current();
        tracing::error!("panic in thread {}: {info}", thread.name().unwrap_or("?"));
    }));
    Ok(say)
}

/// Sets the least level of what is said from now on: `error`, `warn`, `info`, `debug`, `trace` or `off`.
///
/// # Errors
/// No such level, in a sentence; or nothing is said by this process at all.
pub fn set_level(level: &str) -> Result<(), String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    // The parser itself also takes numbers and upper case.
    if !LEVELS.contains(&level) {
        return Err(format!("{level:?} is no level; levels are {}", LEVELS.join(", ")));
    }
    let filter = level.parse::<LevelFilter>().map_err(|e| e.to_string())?;
    FILTER.get().ok_or("there is no operational log")?.reload(filter).map_err(|e| e.to_string())
}

/// The least level of what is said, as [`set_level`] takes it.
pub fn level() -> &'static str {
    match LevelFilter::current().into_level() {
        None => "off",
        Some(tracing::Level::ERROR) => "error",
        Some(tracing::Level::WARN) => "warn",
        Some(tracing::Level::INFO) => "info",
        Some(tracing::Level::DEBUG) => "debug",
        Some(tracing::Level::TRACE) => "trace",
    }
}

impl Say {
    /// Has what is queued written and the thread ended; waits no longer than `patience`.
    pub fn finish(self, patience: Duration) -> bool {
        self.to_writer.send_timeout(Message::Stop, patience).is_ok()
            && !matches!(self.ended.recv_timeout(patience), Err(RecvTimeoutError::Timeout))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_full_pipe_stops_nobody_and_the_loss_is_said() {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        let (say, mut lines) = spawn(File::from(OwnedFd::from(ours))).expect("a thread");
        let line = [&[b'x'; 1000][..], b"\n"].concat();
        let total = 10_000;
        for _ in 0..total {
            lines.write_all(&line).expect("never fails");
        }
        let reader = std::thread::spawn(move || {
            let mut all = String::new();
            theirs.read_to_string(&mut all).expect("text");
            all
        });
        assert!(say.finish(Duration::from_secs(10)));
        let all = reader.join().expect("no panic");
        let written = all.lines().filter(|l| l.starts_with('x')).count();
        let lost: usize = all
            .lines()
            .filter_map(|l| l.strip_suffix(" lines of this log were lost: it was not read")?.parse::<usize>().ok())
            .sum();
        assert!(lost > 0);
        assert_eq!(written + lost, total);
    }

    #[test]
    fn the_level_changes_what_is_said() {
        // The only test of this binary that may do so: both the subscriber and the level are the process's.
        let say = init().expect("a thread");
        for level in ["off", "error", "warn", "info", "debug", "trace"] {
            assert_eq!((set_level(level), super::level()), (Ok(()), level));
            assert_eq!(tracing::enabled!(tracing::Level::DEBUG), ["debug", "trace"].contains(&level));
        }
        set_level("off").expect("a level");
        for none in ["verbose", "3", "INFO", ""] {
            assert!(set_level(none).is_err_and(|why| why.contains("off, error, warn, info, debug, trace")), "{none}");
        }
        assert_eq!(super::level(), "off");
        assert!(say.finish(Duration::from_secs(10)));
    }

    #[test]
    fn an_unread_log_does_not_hold_up_the_end() {
        let (ours, _theirs) = UnixStream::pair().expect("a pair");
        let (say, mut lines) = spawn(File::from(OwnedFd::from(ours))).expect("a thread");
        for _ in 0..10_000 {
            lines.write_all(&[b'x'; 1000]).expect("never fails");
        }
        assert!(!say.finish(Duration::from_millis(20)));
    }
}
