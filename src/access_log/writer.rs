//! The thread that writes the access log of all cores. A full pipe or a hanging disk blocks it and nobody else.

use super::queue::{Queue, lines};
use crate::config::LogTarget;
use crate::event::CoreStats;
use crate::limits;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Seconds between two words about lines that could not be written.
const COMPLAINT_SECONDS: u64 = 60;

/// Pause where a descriptor is full and does not wait by itself.
const RETRY: Duration = Duration::from_millis(5);

/// To the writer's thread.
#[derive(Debug)]
pub(super) enum Message {
    /// Whole lines of one core: the first `used` bytes.
    Batch { core: usize, bytes: Box<[u8]>, used: usize },
    /// Something in [`Wanted`] has changed. A lost one does no harm: the writer looks at every batch.
    Look,
}

/// Where lines go, opened.
#[derive(Debug)]
pub enum Sink {
    /// Nowhere.
    Off,
    /// A file, a pipe or standard output.
    Open(File),
}

impl Sink {
    /// Opens the target for appending, making the file if it is not there. Never waits for the reader of a named pipe:
    /// without one it fails.
    pub fn open(target: &LogTarget) -> io::Result<Sink> {
        match target {
            LogTarget::Off => Ok(Sink::Off),
            LogTarget::Stdout => Ok(Sink::Open(File::from(io::stdout().as_fd().try_clone_to_owned()?))),
            LogTarget::File(path) => open_file(path).map(Sink::Open),
        }
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    File::options().append(true).create(true).mode(0o640).custom_flags(libc::O_NONBLOCK).open(path)
}

/// What control asks of the writer; it sticks until the writer has seen it.
#[derive(Debug, Default)]
struct Wanted {
    sink: Option<Sink>,
    stop: bool,
}

/// Control's hold on the writer's thread.
#[derive(Debug)]
pub struct LogWriter {
    to_writer: Sender<Message>,
    spent: Vec<Receiver<Box<[u8]>>>,
    wanted: Arc<Mutex<Wanted>>,
    /// Closed when the thread ends.
    ended: Receiver<()>,
}

/// Starts the writer's thread for this many cores.
///
/// # Errors
/// The thread could not be made.
pub fn spawn(cores: usize, sink: Sink) -> io::Result<LogWriter> {
    // Queues own at most LOG_BATCHES_MAX buffers each, so that batches always fit; the rest is for `Look`.
    let (to_writer, messages) = bounded(cores * limits::LOG_BATCHES_MAX + 8);
    let (back, spent) = (0..cores).map(|_| bounded(limits::LOG_BATCHES_MAX)).unzip();
    let (running, ended) = bounded(0);
    let wanted = Arc::new(Mutex::new(Wanted::default()));
    let writer = Writer { messages, back, wanted: wanted.clone(), sink, lost: 0, complained: None };
    std::thread::Builder::new().name("ringway-log".into()).spawn(move || {
        writer.run();
        drop::<Sender<()>>(running);
    })?;
    Ok(LogWriter { to_writer, spent, wanted, ended })
}

impl LogWriter {
    /// The queue of one core. One per core: the buffers' way back is shared by all queues of the same core.
    pub fn queue(&self, core: usize, stats: Arc<CoreStats>) -> Queue {
        Queue::new(core, self.to_writer.clone(), self.spent[core].clone(), stats)
    }

    /// Changes where lines go, as soon as the line being written is out.
    pub fn set(&self, sink: Sink) {
        self.want(|wanted| wanted.sink = Some(sink));
    }

    /// Has everything queued written and the thread ended. Waits no longer than `patience`; `false` if that was too short.
    pub fn finish(self, patience: Duration) -> bool {
        self.want(|wanted| wanted.stop = true);
        !matches!(self.ended.recv_timeout(patience), Err(crossbeam_channel::RecvTimeoutError::Timeout))
    }

    fn want(&self, change: impl FnOnce(&mut Wanted)) {
        change(&mut self.wanted.lock().unwrap_or_else(PoisonError::into_inner));
        // A full channel wakes the writer as well.
        let _ = self.to_writer.try_send(Message::Look);
    }
}

struct Writer {
    messages: Receiver<Message>,
    back: Vec<Sender<Box<[u8]>>>,
    wanted: Arc<Mutex<Wanted>>,
    sink: Sink,
    /// Lines lost to write errors since the last word about it.
    lost: u64,
    complained: Option<Instant>,
}

impl Writer {
    fn run(mut self) {
        // The channel stays open as long as control or any queue lives.
        while let Ok(message) = self.messages.recv() {
            let stop = self.look();
            self.take(message);
            if stop {
                while let Ok(message) = self.messages.try_recv() {
                    self.take(message);
                }
                return;
            }
        }
    }

    fn look(&mut self) -> bool {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sink) = wanted.sink.take() {
            self.sink = sink;
        }
        wanted.stop
    }

    fn take(&mut self, message: Message) {
        let Message::Batch { core, bytes, used } = message else { return };
        if let Sink::Open(file) = &mut self.sink
            && let Err((error, written)) = write_all(file, &bytes[..used])
        {
            self.lost += lines(&bytes[written..used]);
            self.complain(&error);
        }
        // A queue that has ended takes none back.
        let _ = self.back[core].try_send(bytes);
    }

    fn complain(&mut self, error: &io::Error) {
        if self.complained.is_none_or(|at| at.elapsed().as_secs() >= COMPLAINT_SECONDS) {
            tracing::error!("access log: {} lines could not be written: {error}", self.lost);
            self.lost = 0;
            self.complained = Some(Instant::now());
        }
    }
}

/// Writes all bytes, waiting as long as it takes, also on a descriptor that somebody has made non-blocking. An error comes
/// with the number of bytes written before it.
pub(crate) fn write_all(to: &mut impl Write, bytes: &[u8]) -> Result<(), (io::Error, usize)> {
    let mut written = 0;
    while written < bytes.len() {
        match to.write(&bytes[written..]) {
            Ok(0) => return Err((io::ErrorKind::WriteZero.into(), written)),
            Ok(n) => written += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                std::thread::sleep(RETRY);
            }
            Err(e) => return Err((e, written)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::line::tests::{phases, record};
    use super::*;
    use crate::access_log::Record;
    use crate::config::{LogFields, LogFormat};
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    fn add(queue: &mut Queue, path: &str) {
        let phases = phases();
        let record = Record { path: path.as_bytes(), time: 0, ..record(&phases) };
        queue.add(&record, (LogFormat::Text, &LogFields::default()));
    }

    #[test]
    fn all_cores_write_whole_lines_and_finish_waits_for_them() {
        let dir = std::env::temp_dir().join(format!("ringway-log-test-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let path = dir.join("access.log");
        let open = || Sink::open(&LogTarget::File(path.clone())).expect("the file opens");
        let writer = spawn(2, open()).expect("a thread");
        let threads: Vec<_> = (0..2)
            .map(|core| {
                let mut queue = writer.queue(core, Arc::default());
                std::thread::spawn(move || {
                    for i in 0..1000 {
                        add(&mut queue, &format!("/{core}/{i}"));
                    }
                    queue.flush();
                })
            })
            .collect();
        threads.into_iter().for_each(|t| t.join().expect("no panic"));
        let renamed = dir.join("old.log");
        std::fs::rename(&path, &renamed).expect("renamed as log rotation does");
        writer.set(open());
        let mut queue = writer.queue(0, Arc::default());
        // Everything before this line may go to either file, this line only to the new one.
        std::thread::sleep(Duration::from_millis(50));
        add(&mut queue, "/after");
        queue.flush();
        assert!(writer.finish(Duration::from_secs(10)));
        let old = std::fs::read_to_string(&renamed).expect("readable");
        let new = std::fs::read_to_string(&path).expect("readable");
        assert_eq!(old.lines().count() + new.lines().count(), 2001);
        assert!(new.lines().any(|l| l.contains("\"/after\"")));
        assert!(old.lines().chain(new.lines()).all(|l| l.starts_with("1970") && l.ends_with(" OK")));
        std::fs::remove_dir_all(&dir).expect("removed");
    }

    #[test]
    fn a_full_pipe_blocks_only_the_writer() {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        let writer = spawn(1, Sink::Open(File::from(OwnedFd::from(ours)))).expect("a thread");
        let stats = Arc::new(CoreStats::default());
        let mut queue = writer.queue(0, stats.clone());
        let path = "x".repeat(2000);
        let lines = 4 * limits::LOG_BATCHES_MAX * limits::LOG_BATCH_BYTES / 2000;
        for _ in 0..lines {
            add(&mut queue, &path);
        }
        let dropped = stats.log_dropped.load(std::sync::atomic::Ordering::Relaxed) as usize;
        assert!(dropped > 0, "nobody reads, so that lines must go");
        let reader = std::thread::spawn(move || {
            let mut all = String::new();
            theirs.read_to_string(&mut all).expect("text");
            all.lines().count()
        });
        std::thread::sleep(Duration::from_millis(200));
        queue.flush();
        drop(queue);
        assert!(writer.finish(Duration::from_secs(10)));
        assert_eq!(reader.join().expect("no panic"), lines - dropped);
    }

    #[test]
    fn a_writer_that_hangs_is_left_behind_at_the_end() {
        let (ours, _theirs) = UnixStream::pair().expect("a pair");
        let writer = spawn(1, Sink::Open(File::from(OwnedFd::from(ours)))).expect("a thread");
        let mut queue = writer.queue(0, Arc::default());
        for _ in 0..10_000 {
            add(&mut queue, &"x".repeat(1000));
        }
        assert!(!writer.finish(Duration::from_millis(50)));
    }

    #[test]
    fn what_cannot_be_opened_is_an_error_and_off_needs_nothing() {
        assert!(Sink::open(&LogTarget::File("/nonexistent/dir/log".into())).is_err());
        assert!(matches!(Sink::open(&LogTarget::Off), Ok(Sink::Off)));
    }
}
