//! A load tool of the evidence, built by `stand.py` with plain rustc; the standard library only.
//!
//! `pace PORT CONNECTIONS RATE SECONDS`: honest keep-alive clients that together send RATE requests a second, each of them
//! when its time has come and not before it has its last answer. Prints, as JSON, how many and how long they took.
//!
//! `flood PORT CONNECTIONS SECONDS PRELUDE CYCLE`: each connection sends the file PRELUDE and then the file CYCLE again and
//! again, as fast as it is taken, and reads away what comes; one that ends is opened anew.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

const REQUEST: &[u8] = b"GET /ok HTTP/1.1\r\nHost: victim.example\r\nUser-Agent: pace\r\n\r\n";

fn connect(port: u16) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.set_write_timeout(Some(Duration::from_secs(2)))?;
    Ok(stream)
}

/// One exchange; the answers of the origin in the stand have a length and fit one buffer.
fn exchange(stream: &mut TcpStream) -> std::io::Result<bool> {
    stream.write_all(REQUEST)?;
    let mut buf = [0; 4096];
    let mut have = 0;
    loop {
        let n = stream.read(&mut buf[have..])?;
        if n == 0 {
            return Ok(false);
        }
        have += n;
        let text = String::from_utf8_lossy(&buf[..have]).to_ascii_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.split("content-length: ").nth(1).and_then(|v| v.split("\r\n").next()?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return Ok(head.starts_with("http/1.1 200"));
            }
        }
    }
}

fn paced(port: u16, every: Duration, offset: Duration, until: Instant) -> (Vec<u64>, u64) {
    let (mut took, mut bad) = (Vec::new(), 0);
    let mut due = Instant::now() + offset;
    let mut stream = None;
    while due < until {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let begin = Instant::now();
        let done = match &mut stream {
            Some(stream) => exchange(stream),
            None => connect(port).and_then(|new| exchange(stream.insert(new))),
        };
        if let Ok(true) = done {
            took.push(begin.elapsed().as_micros() as u64);
        } else {
            bad += 1;
            stream = None;
        }
        // Whoever is late does not catch up in a burst.
        due = (due + every).max(Instant::now());
    }
    (took, bad)
}

fn pace(port: u16, connections: u32, rate: f64, seconds: f64) {
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let every = Duration::from_secs_f64(f64::from(connections) / rate);
    let work = |i: u32| std::thread::spawn(move || paced(port, every, every * i / connections, until));
    let threads: Vec<_> = (0..connections).map(work).collect();
    let (mut took, mut bad) = (Vec::new(), 0);
    for thread in threads {
        let (more, failed) = thread.join().expect("a thread that ends");
        took.extend(more);
        bad += failed;
    }
    took.sort_unstable();
    let at = |permille: usize| took.get((took.len() * permille / 1000).min(took.len().saturating_sub(1))).unwrap_or(&0);
    let (p50, p99, p999, most) = (at(500), at(990), at(999), at(1000));
    let n = took.len();
    println!(
        "{{\"n\": {n}, \"bad\": {bad}, \"p50_us\": {p50}, \"p99_us\": {p99}, \"p999_us\": {p999}, \"max_us\": {most}}}"
    );
}

fn flood(port: u16, until: Instant, prelude: &[u8], cycle: &[u8]) {
    while Instant::now() < until {
        let Ok(mut stream) = connect(port) else {
            std::thread::sleep(Duration::from_millis(10));
            continue;
        };
        let Ok(mut answers) = stream.try_clone() else { continue };
        let reader = std::thread::spawn(move || {
            let mut buf = vec![0; 256 * 1024];
            while answers.read(&mut buf).is_ok_and(|n| n > 0) {}
        });
        let mut sent = stream.write_all(prelude);
        while sent.is_ok() && Instant::now() < until {
            sent = if cycle.is_empty() {
                std::thread::sleep(Duration::from_millis(10));
                Ok(())
            } else {
                stream.write_all(cycle)
            };
        }
        let _ = stream.shutdown(Shutdown::Both);
        let _ = reader.join();
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize| words[i].parse::<f64>().expect("a number");
    match words[0].as_str() {
        "pace" => pace(number(1) as u16, number(2) as u32, number(3), number(4)),
        "flood" => {
            let file = |i: usize| std::fs::read(&words[i]).expect("a file");
            let (prelude, cycle): (&[u8], &[u8]) = (file(4).leak(), file(5).leak());
            let until = Instant::now() + Duration::from_secs_f64(number(3));
            let port = number(1) as u16;
            let threads: Vec<_> =
                (0..number(2) as u32).map(|_| std::thread::spawn(move || flood(port, until, prelude, cycle))).collect();
            threads.into_iter().for_each(|thread| thread.join().expect("a thread that ends"));
        }
        other => panic!("no mode {other}"),
    }
}
