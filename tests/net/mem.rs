//! What only the net in memory can show: that a seed is a run, and that it finds what it is there to find.

use crate::contract::buf;
use ringway::route::Endpoint;
use ringway::worker::buffers::{Buf, Class};
use ringway::worker::net::mem::{Fault, Mem, Weather};
use ringway::worker::net::{How, Net, Stream};
use std::collections::HashSet;
use std::io::ErrorKind;

fn endpoint() -> Endpoint {
    Endpoint::Ip("192.0.2.1:80".parse().unwrap())
}

/// A server that echoes, until its clients are gone.
fn echo(mem: &Mem) {
    let (net, listener) = (mem.clone(), mem.listen(&endpoint()));
    mem.spawn(async move {
        let mut out = Vec::new();
        while net.accept(&listener, &mut out).await.is_ok() {
            for accepted in out.drain(..) {
                net.spawn(async move {
                    loop {
                        let (result, got) = accepted.stream.recv(Buf::new(Class::Small)).await;
                        if !result.is_ok_and(|n| n > 0) || accepted.stream.send_all(got).await.0.is_err() {
                            break;
                        }
                    }
                });
            }
        }
    });
}

async fn ask(net: &Mem, bytes: &[u8]) -> Result<Vec<u8>, ErrorKind> {
    let stream = net.connect(&endpoint(), |_| {}).await.map_err(|e| e.kind())?;
    stream.send_all(buf(bytes)).await.0.map_err(|e| e.kind())?;
    let mut got = Vec::new();
    while got.len() < bytes.len() {
        let (result, some) = stream.recv(Buf::new(Class::Small)).await;
        if result.map_err(|e| e.kind())? == 0 {
            break;
        }
        got.extend_from_slice(some.filled());
    }
    Ok(got)
}

fn trace_of(seed: u64) -> (u64, u64) {
    let mem = Mem::new(seed);
    echo(&mem);
    mem.run(async {
        for n in 0..20u8 {
            assert_eq!(ask(&mem, &[n; 900]).await, Ok(vec![n; 900]));
        }
    });
    (mem.trace(), mem.now_us())
}

#[test]
fn a_seed_is_a_run() {
    let runs: Vec<_> = (0..20).map(trace_of).collect();
    assert_eq!(runs, (0..20).map(trace_of).collect::<Vec<_>>());
    assert_eq!(runs.iter().collect::<HashSet<_>>().len(), 20);
}

#[test]
fn faults_are_at_their_endpoint() {
    for seed in 0..50 {
        let mem = Mem::new(seed);
        echo(&mem);
        mem.run(async {
            mem.fault(&endpoint(), Fault { refuse: true, ..Fault::default() });
            assert_eq!(ask(&mem, b"x").await, Err(ErrorKind::ConnectionRefused));
            mem.fault(&endpoint(), Fault { delay_us: 5_000_000, ..Fault::default() });
            let began = mem.now_us();
            assert_eq!(ask(&mem, b"x").await, Ok(b"x".to_vec()));
            assert!((5_000_000..5_100_000).contains(&(mem.now_us() - began)));
            mem.fault(&endpoint(), Fault { reset_after_sent: Some(10), ..Fault::default() });
            assert!(ask(&mem, &[1; 500]).await.is_err());
            mem.fault(&endpoint(), Fault { reset_after_received: Some(10), ..Fault::default() });
            assert!(ask(&mem, &[1; 500]).await.is_err());
            mem.fault(&endpoint(), Fault::default());
            assert_eq!(ask(&mem, &[1; 500]).await, Ok(vec![1; 500]));
            mem.sleep_us(1_000_000).await;
        });
        let counts = mem.finish();
        // The server's accept loop and its listener; no stream.
        assert_eq!((counts.streams, counts.tasks, counts.listeners), (0, 1, 1), "seed {seed}");
        assert_eq!((mem.counts().tasks, mem.counts().listeners), (0, 0));
    }
}

#[test]
fn the_operation_takes_the_bytes_and_not_the_future() {
    let lost: usize = (0..100)
        .map(|seed| {
            let mem = Mem::new(seed);
            echo(&mem);
            mem.run(async {
                let stream = mem.connect(&endpoint(), |_| {}).await.unwrap();
                {
                    let mut recv = std::pin::pin!(stream.recv(Buf::new(Class::Small)));
                    let once = std::future::poll_fn(|cx| std::task::Poll::Ready(recv.as_mut().poll(cx).is_ready()));
                    assert!(!once.await);
                    stream.send_all(buf(b"hello")).await.0.unwrap();
                    mem.sleep_us(mem.seed() % 300).await;
                }
                mem.sleep_us(10_000).await;
            });
            mem.counts().bytes_lost
        })
        .sum();
    assert!(lost > 0);
}

#[test]
fn a_core_without_memory_is_told_so_on_connections_that_are_well() {
    for seed in 0..20 {
        let mem = Mem::new(seed);
        let core = mem.another_core();
        echo(&mem);
        mem.run(async {
            let stream = core.connect(&endpoint(), |_| {}).await.unwrap();
            core.starve(1, libc::ENOBUFS);
            let (sent, kept) = stream.send(buf(b"x")).await;
            assert_eq!((sent.unwrap_err().raw_os_error(), kept.len()), (Some(libc::ENOBUFS), 1));
            assert_eq!(ask(&mem, b"x").await, Ok(b"x".to_vec()), "another core has some");
            core.starve(0, 0);
            stream.send_all(kept).await.0.unwrap();
            assert_eq!(stream.recv(Buf::new(Class::Small)).await.0.unwrap(), 1);
        });
    }
}

#[test]
fn what_happens_in_a_burst_is_seen_in_one_turn() {
    let together = |burst_once_in| {
        let met = |seed: &u64| {
            let mem = Mem::with(*seed, Weather { burst_once_in, burst_us: 5_000, ..Weather::default() });
            let net = mem.clone();
            let seen = std::rc::Rc::new(std::cell::Cell::new(0));
            let first = seen.clone();
            mem.spawn(async move {
                net.sleep_us(10_000).await;
                first.set(net.now_us());
            });
            mem.run(mem.sleep_us(14_000));
            mem.now_us() == seen.get()
        };
        (0..200).filter(met).count()
    };
    let (with, without) = (together(2), together(0));
    assert!(with > 0 && without == 0, "{with}, {without}");
}

#[test]
fn a_stale_handle_is_counted() {
    let mem = Mem::new(1);
    echo(&mem);
    mem.run(async {
        let stream = mem.connect(&endpoint(), |_| {}).await.unwrap();
        let handle = stream.handle();
        mem.shutdown(handle, How::Both);
        assert_eq!(mem.counts().stale_handles, 0);
        stream.close();
        mem.shutdown(handle, How::Both);
        assert!(mem.gone(handle, false));
    });
    assert_eq!(mem.counts().stale_handles, 2);
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_deadlock_is_seen() {
    let mem = Mem::new(1);
    mem.run(mem.rung());
}

#[test]
#[should_panic(expected = "not done after 60 seconds")]
fn an_endless_run_is_seen() {
    let mem = Mem::with(1, Weather { seconds_max: 60, ..Weather::default() });
    let net = mem.clone();
    mem.spawn(async move {
        loop {
            net.tick().await;
        }
    });
    mem.run(mem.rung());
}

#[test]
#[should_panic(expected = "two operations in one direction")]
fn two_readers_are_seen() {
    let mem = Mem::new(1);
    echo(&mem);
    mem.run(async {
        let stream = std::rc::Rc::new(mem.connect(&endpoint(), |_| {}).await.unwrap());
        let same = stream.clone();
        mem.spawn(async move { drop(same.readable().await) });
        mem.sleep_us(1000).await;
        drop(stream.readable().await);
    });
}

#[test]
fn cores_have_their_own_ticks_and_bells() {
    let one = Mem::new(3);
    let two = one.another_core();
    one.run(async {
        assert_eq!((one.tick().await, two.tick().await), (1, 1));
        assert_eq!(two.tick().await, 2);
        two.ring();
        two.rung().await;
        one.ring();
        one.rung().await;
    });
}
