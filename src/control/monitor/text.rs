//! The thread that writes the metrics: with thousands of backends that takes longer than control may stand still.

use crate::limits;
use crate::metrics::{self, Sources, Vitals};
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

#[derive(Clone)]
struct Text {
    body: Arc<Vec<u8>>,
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

    /// The latest text, as long as it may be used again: see `limits::METRICS_REST`.
    pub(super) fn fresh(&self, now: Instant) -> Option<Arc<Vec<u8>>> {
        let text = self.latest.as_ref()?;
        let age = now.saturating_duration_since(text.done);
        (age < text.took * limits::METRICS_REST).then(|| text.body.clone())
    }

    /// Has a text written, unless one is under way.
    pub(super) fn order(&mut self, sources: impl FnOnce() -> Sources) {
        // The channel has room: one text is under way at most.
        self.under_way = self.under_way || self.orders.try_send(sources()).is_ok();
    }

    /// A text that was finished since the last call.
    pub(super) fn take(&mut self) -> Option<Arc<Vec<u8>>> {
        let text = self.texts.try_recv().ok()?;
        self.under_way = false;
        self.latest.insert(text).body.clone().into()
    }

    /// Microseconds that the latest text took.
    pub(super) fn took_us(&self) -> u64 {
        self.latest.as_ref().map_or(0, |text| text.took.as_micros() as u64)
    }
}

fn write(mut sources: Sources, bytes: usize) -> Text {
    let begin = Instant::now();
    sources.process.vitals = vitals();
    // The text before this one was about as long.
    let mut text = String::with_capacity(bytes + bytes / 16 + 4096);
    metrics::write(sources, &mut text);
    Text { body: Arc::new(text.into_bytes()), done: Instant::now(), took: begin.elapsed() }
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
    fn the_system_says_what_it_knows() {
        let before = vitals();
        let files: Vec<File> = (0..50).map(|_| File::open("/dev/null").expect("a file")).collect();
        let after = vitals();
        assert!(before.resident_bytes > 100_000 && before.open_files > 2, "{before:?}");
        // Other tests open and close files meanwhile.
        assert!(after.open_files + 25 > before.open_files + files.len() as u64, "{before:?} {after:?}");
    }
}
