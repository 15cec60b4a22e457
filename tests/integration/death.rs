//! A worker that ends outside of any session takes the process with it: the kernel would go on giving connections to the
//! listeners of a core that serves nobody. The process is this test binary once more, with a gate that panics.

use crate::harness::{Ringway, config_of, on_both_drivers, seconds};
use crate::origin::Origin;
use ringway::control::signals::Signals;
use ringway::control::start;
use ringway::worker::net::Net;
use ringway::worker::{ConnInfo, Gate, Start, start_with};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Names the config file, and makes this binary the process that is to die.
const CONFIG: &str = "RINGWAY_DEATH_CONFIG";
/// How its worker ends, if not by a panic.
const RETURNS: &str = "RINGWAY_DEATH_RETURNS";

fn command(config: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args([
        "--exact",
        "death::is_the_process_that_dies_where_it_is_told_to_be",
        "--nocapture",
        "--test-threads=1",
    ]);
    command.env(CONFIG, config);
    command
}

/// A stage before the sessions that does not survive its first connection.
#[derive(Clone, Copy)]
struct Trap;

impl<N: Net> Gate<N> for Trap {
    type Stream = N::Stream;
    type Rest = ();

    async fn admit(&self, _: N::Stream, _: ConnInfo) -> Option<(N::Stream, ConnInfo)> {
        panic!("the trap has shut");
    }

    fn take_apart(&self, stream: N::Stream) -> Result<(N::Stream, ()), N::Stream> {
        Err(stream)
    }

    fn put_together(&self, stream: N::Stream, (): ()) -> N::Stream {
        stream
    }
}

fn panics(start: Start) -> io::Result<()> {
    let (runtime, links) = start.links();
    start_with(Trap, runtime, links)
}

fn returns(_: Start) -> io::Result<()> {
    std::thread::sleep(seconds(1));
    Err(io::Error::other("no ring today"))
}

/// The process begins and ends here. Among the other tests it has nothing to do.
#[test]
fn is_the_process_that_dies_where_it_is_told_to_be() {
    let Some(config) = std::env::var_os(CONFIG) else { return };
    let signals = Signals::install().expect("signals");
    let worker = if std::env::var_os(RETURNS).is_some() { returns } else { panics };
    let ended = start::run(Some(PathBuf::from(config)), signals, worker);
    panic!("the process has outlived its worker: {}", ended.is_ok());
}

on_both_drivers! {
    fn a_panic_outside_of_sessions_aborts_the_process(driver) {
        let origin = Origin::saying("ok");
        // The harness connects, to see whether it listens: that is enough.
        let mut ringway = Ringway::started_as(driver, config_of(&[&origin]), command, |_| {});
        assert_eq!(ringway.wait(seconds(10)).signal(), Some(libc::SIGABRT));
        let said = ringway.take_stderr();
        assert!(said.contains("the trap has shut"), "{said}");
        assert!(said.contains("worker 0 has ended; the process ends too"), "{said}");
        assert!(origin.requests().is_empty());
    }

    fn a_worker_that_cannot_run_aborts_the_process(driver) {
        let origin = Origin::saying("ok");
        let change = |command: &mut Command| { command.env(RETURNS, "1"); };
        let mut ringway = Ringway::started_as(driver, config_of(&[&origin]), command, change);
        assert_eq!(ringway.wait(seconds(10)).signal(), Some(libc::SIGABRT));
        let said = ringway.take_stderr();
        assert!(said.contains("worker 0 cannot run: no ring today; the process ends"), "{said}");
    }
}
