//! One core's end of the access log: lines collected into batches, batches handed to the writer, never waiting.

use super::escape::Second;
use super::line::{LINE_BYTES_MAX, Record, format};
use super::writer::Message;
use crate::config::{LogFields, LogFormat};
use crate::event::CoreStats;
use crate::limits;
use crossbeam_channel::{Receiver, Sender};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// One core's queue. It owns up to `limits::LOG_BATCHES_MAX` buffers, made on first need; each is here, under way to the
/// writer, or on its way back, so that the steady state allocates nothing and the channel to the writer is never full.
#[derive(Debug)]
pub struct Queue {
    core: usize,
    batch: Box<[u8]>,
    /// Bytes of it that are lines.
    used: usize,
    /// Buffers made so far, the one in `batch` included.
    buffers: usize,
    to_writer: Sender<Message>,
    spent: Receiver<Box<[u8]>>,
    stats: Arc<CoreStats>,
    second: Second,
}

impl Queue {
    pub(super) fn new(
        core: usize,
        to_writer: Sender<Message>,
        spent: Receiver<Box<[u8]>>,
        stats: Arc<CoreStats>,
    ) -> Queue {
        let (batch, second) = (Box::default(), Second::default());
        Queue { core, batch, used: 0, buffers: 0, to_writer, spent, stats, second }
    }

    /// Adds the line for one exchange. If the batch is full and no other buffer is free, because the writer is stuck or
    /// slower than the lines come, the line is dropped and counted in [`CoreStats::log_dropped`].
    pub fn add(&mut self, record: &Record, how: (LogFormat, &LogFields)) {
        let left = self.batch.len() - self.used;
        if left < LINE_BYTES_MAX && left < record.line_bytes_max() && !self.next_batch() {
            return self.dropped(1);
        }
        self.used += format(record, how, &mut self.second, &mut self.batch[self.used..]);
    }

    /// Hands what was collected to the writer. To be called once per tick, and before this core says `Drained`.
    pub fn flush(&mut self) {
        // With no free buffer the lines stay where they are until there is one.
        if self.used > 0 {
            self.next_batch();
        }
    }

    /// Exchanges the batch for an empty one; `false` if there is none, which leaves all as it was.
    fn next_batch(&mut self) -> bool {
        let empty = match self.spent.try_recv() {
            Ok(buffer) => buffer,
            Err(_) if self.buffers < limits::LOG_BATCHES_MAX => {
                self.buffers += 1;
                vec![0; limits::LOG_BATCH_BYTES].into_boxed_slice()
            }
            Err(_) => return false,
        };
        let full = std::mem::replace(&mut self.batch, empty);
        let used = std::mem::take(&mut self.used);
        if full.is_empty() {
            // The placeholder of a new queue.
            return true;
        }
        if let Err(refused) = self.to_writer.try_send(Message::Batch { core: self.core, bytes: full, used }) {
            // The writer's thread has ended: the process is about to.
            let Message::Batch { bytes, used, .. } = refused.into_inner() else { return true };
            self.dropped(lines(&bytes[..used]));
            self.buffers -= 1;
        }
        true
    }

    fn dropped(&self, lines: u64) {
        let counter = &self.stats.log_dropped;
        counter.store(counter.load(Relaxed) + lines, Relaxed);
    }
}

/// How many lines these bytes are.
pub(super) fn lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|b| **b == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::super::line::tests::{phases, record};
    use super::*;
    use crossbeam_channel::bounded;

    fn add(queue: &mut Queue, path: &[u8]) {
        queue.add(&Record { path, ..record(&phases()) }, (LogFormat::Text, &LogFields::default()));
    }

    #[test]
    fn a_stuck_writer_costs_lines_and_every_one_is_counted() {
        let (to_writer, from_queue) = bounded(limits::LOG_BATCHES_MAX);
        let (_back, spent) = bounded(limits::LOG_BATCHES_MAX);
        let stats = Arc::new(CoreStats::default());
        let mut queue = Queue::new(0, to_writer, spent, stats.clone());
        let path = vec![b'x'; 3000];
        let lines = 2 * limits::LOG_BATCHES_MAX * limits::LOG_BATCH_BYTES / 3000;
        for _ in 0..lines {
            add(&mut queue, &path);
        }
        queue.flush();
        let written: u64 = from_queue
            .try_iter()
            .map(|m| match m {
                Message::Batch { bytes, used, .. } => {
                    assert_eq!(bytes.len(), limits::LOG_BATCH_BYTES);
                    super::lines(&bytes[..used])
                }
                Message::Look => 0,
            })
            .sum();
        let kept = super::lines(&queue.batch[..queue.used]);
        let dropped = stats.log_dropped.load(Relaxed);
        assert!(dropped > 0);
        assert_eq!(written + kept + dropped, lines as u64);
    }

    #[test]
    fn buffers_come_back_and_no_more_than_needed_are_made() {
        let (to_writer, from_queue) = bounded(limits::LOG_BATCHES_MAX);
        let (back, spent) = bounded(limits::LOG_BATCHES_MAX);
        let mut queue = Queue::new(3, to_writer, spent, Arc::default());
        for _ in 0..100 {
            add(&mut queue, b"/");
            queue.flush();
            let Ok(Message::Batch { core: 3, bytes, used }) = from_queue.try_recv() else { panic!("a batch") };
            assert_eq!(lines(&bytes[..used]), 1);
            back.try_send(bytes).expect("room for every buffer");
        }
        assert_eq!(queue.buffers, 2);
        queue.flush();
        assert!(from_queue.is_empty(), "an empty batch is not sent");
    }

    #[test]
    fn lines_for_a_writer_that_has_ended_are_counted() {
        let (to_writer, from_queue) = bounded(limits::LOG_BATCHES_MAX);
        let (_back, spent) = bounded(limits::LOG_BATCHES_MAX);
        let stats = Arc::new(CoreStats::default());
        let mut queue = Queue::new(0, to_writer, spent, stats.clone());
        drop(from_queue);
        add(&mut queue, b"/");
        queue.flush();
        assert_eq!(stats.log_dropped.load(Relaxed), 1);
    }
}
