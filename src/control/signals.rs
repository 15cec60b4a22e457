//! Signals as bytes on descriptors of the control loop.

use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

/// What the operator asked for by a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGHUP: read the config file again.
    Reload,
    /// SIGTERM, SIGINT: drain; the second time, end at once.
    Stop,
    /// SIGUSR1: open the log file again.
    Reopen,
}

/// The reading ends.
#[derive(Debug)]
pub struct Signals {
    pipes: Vec<(Signal, UnixStream)>,
}

impl Signals {
    /// Takes over SIGHUP, SIGTERM, SIGINT and SIGUSR1 of the process, for good.
    ///
    /// # Errors
    /// No descriptors to be had.
    pub fn install() -> io::Result<Signals> {
        Signals::install_with(Vec::new())
    }

    /// The same, and `pipes` on which each byte is one signal too.
    ///
    /// # Errors
    /// No descriptors to be had.
    pub fn install_with(mut pipes: Vec<(Signal, UnixStream)>) -> io::Result<Signals> {
        for (number, signal) in
            [(SIGHUP, Signal::Reload), (SIGTERM, Signal::Stop), (SIGINT, Signal::Stop), (SIGUSR1, Signal::Reopen)]
        {
            let (reader, writer) = UnixStream::pair()?;
            signal_hook::low_level::pipe::register(number, writer)?;
            pipes.push((signal, reader));
        }
        Signals::from_pipes(pipes)
    }

    /// Any streams on which each byte is one signal.
    ///
    /// # Errors
    /// A descriptor cannot be made non-blocking.
    pub fn from_pipes(pipes: Vec<(Signal, UnixStream)>) -> io::Result<Signals> {
        for (_, pipe) in &pipes {
            pipe.set_nonblocking(true)?;
        }
        Ok(Signals { pipes })
    }

    /// The descriptors to wait on for reading.
    pub fn fds(&self) -> impl Iterator<Item = RawFd> {
        self.pipes.iter().map(|(_, pipe)| pipe.as_raw_fd())
    }

    /// Takes what has come. Several signals of one kind between two calls count at most twice.
    pub fn take(&mut self) -> Vec<Signal> {
        let mut taken = Vec::new();
        for (signal, pipe) in &mut self.pipes {
            let mut bytes = [0; 64];
            let mut count = 0;
            while let Ok(n @ 1..) = pipe.read(&mut bytes) {
                count += n;
            }
            taken.extend(std::iter::repeat_n(*signal, count.min(2)));
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn every_byte_is_a_signal_and_a_flood_is_two() {
        let (term, mut sends_term) = UnixStream::pair().expect("a pair");
        let (hup, mut sends_hup) = UnixStream::pair().expect("a pair");
        let mut signals = Signals::from_pipes(vec![(Signal::Stop, term), (Signal::Reload, hup)]).expect("non-blocking");
        assert_eq!(signals.take(), []);
        sends_hup.write_all(b"X").expect("sent");
        assert_eq!(signals.take(), [Signal::Reload]);
        sends_term.write_all(&[b'X'; 500]).expect("sent");
        assert_eq!(signals.take(), [Signal::Stop, Signal::Stop]);
        assert_eq!(signals.take(), []);
        drop(sends_term);
        assert_eq!(signals.take(), []);
    }

    #[test]
    fn a_real_signal_arrives() {
        let mut signals = Signals::install().expect("installed");
        // SAFETY: the handler was installed above.
        assert_eq!(unsafe { libc::raise(SIGUSR1) }, 0);
        assert_eq!(signals.take(), [Signal::Reopen]);
    }
}
