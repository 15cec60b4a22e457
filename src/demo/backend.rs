//! A small HTTP/1.1 server inside the process, to stand behind the proxy: it says who it is and what it was sent, and can
//! be killed and brought back.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

const LINE_BYTES_MAX: u64 = 16 * 1024;

/// One server. It ends when this is dropped.
pub struct Backend {
    name: &'static str,
    address: SocketAddr,
    running: Option<Running>,
}

struct Running {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

/// What the threads of one life of a server share.
struct Shared {
    name: &'static str,
    ended: AtomicBool,
    connections: Mutex<HashMap<u64, TcpStream>>,
}

impl Backend {
    /// Starts one on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// No port or thread to be had.
    pub fn start(name: &'static str) -> io::Result<Backend> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let running = Some(run(name, listener)?);
        Ok(Backend { name, address, running })
    }

    /// Where it is, also while it is dead.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Who it says it is.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Ends it as a crash would: connections are cut, new ones are refused.
    pub fn kill(&mut self) {
        let Some(Running { shared, thread }) = self.running.take() else { return };
        shared.ended.store(true, Relaxed);
        shared.lock().values().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
        // Wakes it out of accept.
        let _ = TcpStream::connect(self.address);
        let _ = thread.join();
    }

    /// Starts it again on its old port.
    ///
    /// # Errors
    /// Somebody else has taken the port meanwhile.
    pub fn revive(&mut self) -> io::Result<()> {
        if self.running.is_none() {
            self.running = Some(run(self.name, TcpListener::bind(self.address)?)?);
        }
        Ok(())
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, TcpStream>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn run(name: &'static str, listener: TcpListener) -> io::Result<Running> {
    let shared = Arc::new(Shared { name, ended: AtomicBool::new(false), connections: Mutex::default() });
    let theirs = shared.clone();
    let thread = std::thread::Builder::new().name(format!("demo-{name}")).spawn(move || accept(&listener, &theirs))?;
    Ok(Running { shared, thread })
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for (number, stream) in (0..).zip(listener.incoming()) {
        if shared.ended.load(Relaxed) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let Ok(kept) = stream.try_clone() else { continue };
        shared.lock().insert(number, kept);
        // Killed between the look above and the insertion: nobody else would cut it.
        if shared.ended.load(Relaxed) {
            return;
        }
        let shared = shared.clone();
        std::thread::spawn(move || {
            let _ = serve(&stream, &shared);
            shared.lock().remove(&number);
            let _ = stream.shutdown(Shutdown::Both);
        });
    }
}

/// Serves one connection until it ends.
fn serve(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader)? {
        let body = page(shared.name, &request);
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nServer: demo-{}\r\n\r\n",
            body.len(),
            shared.name
        );
        let body = if request.head.starts_with("HEAD ") { "" } else { &body };
        (&*stream).write_all([head.as_bytes(), body.as_bytes()].concat().as_slice())?;
    }
    Ok(())
}

struct Request {
    head: String,
    body_bytes: u64,
}

fn page(name: &str, request: &Request) -> String {
    let mut page = format!("Hello from {name}. I was sent:\n\n");
    request.head.lines().for_each(|line| page.extend(["    ", line, "\n"]));
    if request.body_bytes > 0 {
        page.push_str(&format!("\nand a body of {} bytes.\n", request.body_bytes));
    }
    page
}

/// One request with its body; `None` at the end of the connection. The proxy sends nothing malformed; what is malformed
/// all the same ends the connection.
fn read_request(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut head = String::new();
    loop {
        let line = read_line(reader)?;
        if line.is_empty() && head.is_empty() {
            return Ok(None);
        }
        if line.trim_end().is_empty() {
            break;
        }
        head.push_str(line.trim_end());
        head.push('\n');
        if head.len() as u64 > 4 * LINE_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    let field = |name: &str| {
        head.lines()
            .find_map(|line| line.split_once(':').filter(|(n, _)| n.eq_ignore_ascii_case(name)))
            .map(|(_, v)| v.trim())
    };
    let bad = |_| io::Error::from(io::ErrorKind::InvalidData);
    let body_bytes = if field("transfer-encoding").is_some() {
        let mut sum = 0;
        loop {
            let size = read_line(reader)?;
            let size = size.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(size, 16).map_err(bad)?;
            sum += size;
            if size == 0 {
                break;
            }
            skip(reader, size)?;
            read_line(reader)?;
        }
        while !read_line(reader)?.trim_end().is_empty() {}
        sum
    } else {
        let size = field("content-length").map_or(Ok(0), str::parse::<u64>).map_err(bad)?;
        skip(reader, size)?;
        size
    };
    Ok(Some(Request { head, body_bytes }))
}

fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    reader.take(LINE_BYTES_MAX).read_line(&mut line)?;
    Ok(line)
}

fn skip(reader: &mut impl BufRead, bytes: u64) -> io::Result<()> {
    match io::copy(&mut reader.take(bytes), &mut io::sink())? == bytes {
        true => Ok(()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(stream: &mut TcpStream, request: &str) -> String {
        stream.write_all(request.as_bytes()).expect("sent");
        let mut reader = BufReader::new(&*stream);
        let mut length = 0;
        loop {
            let line = read_line(&mut reader).expect("a line");
            if let Some(n) = line.strip_prefix("Content-Length: ") {
                length = n.trim().parse().expect("a number");
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("the body");
        String::from_utf8(body).expect("text")
    }

    #[test]
    fn it_serves_dies_and_comes_back_on_the_same_port() {
        let mut backend = Backend::start("one").expect("started");
        let mut stream = TcpStream::connect(backend.address()).expect("connected");
        let text = ask(&mut stream, "GET /x HTTP/1.1\r\nHost: h\r\nX-A: b\r\n\r\n");
        assert!(text.starts_with("Hello from one.") && text.contains("    GET /x HTTP/1.1\n    Host: h\n    X-A: b\n"));
        let text = ask(&mut stream, "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc");
        assert!(text.contains("a body of 3 bytes"));
        let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n1\r\nd\r\n0\r\nT: x\r\n\r\n";
        assert!(ask(&mut stream, chunked).contains("a body of 4 bytes"));

        backend.kill();
        assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0, "the connection was cut");
        assert!(TcpStream::connect(backend.address()).is_err());
        backend.revive().expect("the port is free");
        let mut stream = TcpStream::connect(backend.address()).expect("connected");
        assert!(ask(&mut stream, "GET / HTTP/1.1\r\n\r\n").starts_with("Hello from one."));
    }
}
