//! The thread that writes the metrics: with thousands of backends that takes longer than control may stand still.

use crate::limits;
use crate::metrics::{self, Reloads, Sources, Vitals};
use crate::worker::net::machine;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The thread, and the latest text. The thread ends when this is dropped.
pub(super) struct Writer {
    orders: Sender<Sources>,
    texts: Receiver<Text>,
    under_way: bool,
    latest: Option<Text>,
}

/// A text from before a reload.
pub(super) struct Outdated;

#[derive(Clone)]
struct Text {
    body: Arc<Vec<u8>>,
    /// Those that it counts.
    reloads: Reloads,
    done: Instant,
    took: Duration,
}

impl Writer {
    /// Starts the thread; `ring` is called when a text is there.
    ///
    /// # Errors
    /// No thread to be had.
    pub(super) fn spawn(ring: Arc<dyn Fn() + Send + Sync>) -> io::Result<Writer> {
        let (orders, from_control) = bounded::<Sources>(1);
        let (to_control, texts) = bounded(1);
        std::thread::Builder::new().name("ringway-metrics".into()).spawn(move || {
            machine::step_back(19);
            let mut bytes = 0;
            while let Ok(sources) = from_control.recv() {
                let text = write(sources, bytes);
                bytes = text.body.len();
                if to_control.send(text).is_err() {
                    return;
                }
                ring();
            }
        })?;
        Ok(Writer { orders, texts, under_way: false, latest: None })
    }

    /// The latest text, as long as it may be used again: see `limits::METRICS_REST`. Whoever has been told of a reload finds it
    /// counted.
    pub(super) fn fresh(&self, reloads: Reloads, now: Instant) -> Option<Arc<Vec<u8>>> {
        let text = self.latest.as_ref()?;
        let age = now.saturating_duration_since(text.done);
        (text.reloads == reloads && age < text.took * limits::METRICS_REST).then(|| text.body.clone())
    }

    /// Has a text written, unless one is under way.
    pub(super) fn order(&mut self, sources: impl FnOnce() -> Sources) {
        // The channel has room: one text is under way at most.
        self.under_way = self.under_way || self.orders.try_send(sources()).is_ok();
    }

    /// A text that was finished since the last call. If there was a reload meanwhile it is another that is wanted.
    pub(super) fn take(&mut self, reloads: Reloads) -> Option<Result<Arc<Vec<u8>>, Outdated>> {
        let text = self.texts.try_recv().ok()?;
        self.under_way = false;
        let text = self.latest.insert(text);
        Some(if text.reloads == reloads { Ok(text.body.clone()) } else { Err(Outdated) })
    }

    /// Microseconds that the latest text took.
    pub(super) fn took_us(&self) -> u64 {
        self.latest.as_ref().map_or(0, |text| text.took.as_micros() as u64)
    }
}

fn write(mut sources: Sources, bytes: usize) -> Text {
    let begin = Instant::now();
    sources.process.vitals = vitals();
    let reloads = sources.process.reloads;
    // The text before this one was about as long.
    let mut text = String::with_capacity(bytes + bytes / 16 + 4096);
    metrics::write(sources, &mut text);
    Text { body: Arc::new(text.into_bytes()), reloads, done: Instant::now(), took: begin.elapsed() }
}

fn vitals() -> Vitals {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = resident.and_then(|rest| rest.split_ascii_whitespace().next()).and_then(|n| n.parse::<u64>().ok());
    // Since Linux 6.2 the size of the directory is the number of its entries; counting a million of them takes its time.
    let sized = std::fs::metadata("/proc/self/fd").map_or(0, |found| found.len());
    let counted = || std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64);
    Vitals { resident_bytes: kib.unwrap_or(0) * 1024, open_files: if sized > 0 { sized } else { counted() } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn a_text_from_before_a_reload_is_not_given_after_it() {
        let (orders, _from_control) = bounded(1);
        let (finished, texts) = bounded(1);
        let mut writer = Writer { orders, texts, under_way: true, latest: None };
        let (then, now) = (Reloads::default(), Reloads { rejected: 1, refused: true, ..Reloads::default() });
        let at = Instant::now();
        let text = |reloads| Text { body: Arc::default(), reloads, done: at, took: Duration::from_secs(1) };
        finished.send(text(then)).expect("room");
        assert!(writer.take(now).is_some_and(|text| text.is_err()));
        assert!(writer.fresh(then, at).is_some() && writer.fresh(now, at).is_none());
        finished.send(text(now)).expect("room");
        assert!(writer.take(now).is_some_and(|text| text.is_ok()));
        assert!(writer.fresh(now, at).is_some());
        assert!(writer.fresh(now, at + Duration::from_secs(10)).is_none());
    }

    #[test]
    fn the_system_says_what_it_knows() {
        let before = vitals();
        let files: Vec<File> = (0..50).map(|_| File::open("/dev/null").expect("a file")).collect();
        let after = vitals();
        assert!(before.resident_bytes > 100_000 && before.open_files > 2, "{before:?}");
        // Other tests open and close files meanwhile.
        assert!(after.open_files + 25 > before.open_files + files.len() as u64, "{before:?} {after:?}");
    }
}
