//! The socket of `ringway import hipache --redis`: what `import::live` says to a running Redis, and what comes back.

use ringway::import::live::{Live, Next};
use ringway::import::{Store, Unusable};
use ringway::limits;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

const SILENCE: Duration = Duration::from_secs(limits::IMPORT_SILENCE_SECONDS);
const WHOLE: Duration = Duration::from_secs(limits::IMPORT_SECONDS_MAX);
const READ_BYTES: usize = 64 * 1024;

/// Reads the lists of a Hipache out of the Redis at `address` (`HOST:PORT`) into `store`. Changes nothing there.
///
/// # Errors
/// A sentence for people.
pub fn read(address: &str, password: Option<String>, database: u64, store: &mut Store) -> Result<(), String> {
    let until = Instant::now() + WHOLE;
    let mut stream = connect(address).map_err(|e| format!("{address}: {e}"))?;
    let (mut live, mut next) = {
        let (live, first) = Live::begin(address, password, database, store);
        (live, Next::Send(first))
    };
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match next {
            Next::Done => return Ok(()),
            Next::Wait => {}
            Next::Send(bytes) => stream.write_all(&bytes).map_err(|e| format!("{address}: {}", said(&e)))?,
        }
        let read = stream.read(&mut buffer).map_err(|e| format!("{address}: {}", said(&e)))?;
        if read == 0 {
            return Err(format!("{address}: it has closed the connection"));
        }
        if Instant::now() > until {
            return Err(format!("{address}: not done within {} s", WHOLE.as_secs()));
        }
        next = live.take(&buffer[..read], store).map_err(|Unusable { message, .. }| format!("{address}: {message}"))?;
    }
}

fn connect(address: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, SILENCE) {
            Ok(stream) => {
                stream.set_read_timeout(Some(SILENCE))?;
                stream.set_write_timeout(Some(SILENCE))?;
                return Ok(stream);
            }
            Err(e) => last = e,
        }
    }
    Err(last)
}

fn said(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => format!("silent for {} s", SILENCE.as_secs()),
        _ => error.to_string(),
    }
}
