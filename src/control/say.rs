//! The operational log: `tracing` lines to standard error through a thread of its own, so that a full pipe there stops
//! neither control nor a worker.

use crate::access_log::write_all;
use crate::limits;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

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

/// Makes standard error the place of all `tracing` events of this process, panics included. RINGWAY_LOG sets the least
/// level: error, warn, info (default), debug, trace, off.
///
/// # Errors
/// No descriptor or thread to be had, or called twice.
pub fn init() -> io::Result<Say> {
    let (say, lines) = spawn(File::from(io::stderr().as_fd().try_clone_to_owned()?))?;
    let level = std::env::var("RINGWAY_LOG").ok().and_then(|l| l.parse().ok()).unwrap_or(LevelFilter::INFO);
    let subscriber = tracing_subscriber::fmt().with_writer(lines).with_max_level(level).with_target(false).finish();
    tracing::subscriber::set_global_default(subscriber).map_err(io::Error::other)?;
    std::panic::set_hook(Box::new(|info| {
        let thread = std::thread::current();
        tracing::error!("panic in thread {}: {info}", thread.name().unwrap_or("?"));
    }));
    Ok(say)
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
    fn an_unread_log_does_not_hold_up_the_end() {
        let (ours, _theirs) = UnixStream::pair().expect("a pair");
        let (say, mut lines) = spawn(File::from(OwnedFd::from(ours))).expect("a thread");
        for _ in 0..10_000 {
            lines.write_all(&[b'x'; 1000]).expect("never fails");
        }
        assert!(!say.finish(Duration::from_millis(20)));
    }
}
