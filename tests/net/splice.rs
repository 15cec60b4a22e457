//! The part of the contract that is about pipes: what is filled from one stream and poured into another.

use crate::contract::{BOTH, Started, StreamOf, buf, pair, pattern, recv, recv_until, send, start};
use crate::fixture::{Family, Fixture};
use ringway::worker::net::pipe::Pipe;
use ringway::worker::net::{How, Net, Stream};
use std::io::{self, ErrorKind};
use std::rc::Rc;

async fn pipe<F: Fixture>(f: &F) -> Pipe {
    loop {
        // The net in memory refuses now and then; a kernel that does so for ever is not one to test on.
        if let Ok(pipe) = f.net().pipe() {
            return pipe;
        }
        f.sleep_ms(1).await;
    }
}

/// Fills; a refusal moves nothing, and it is tried again.
async fn fill<S: Stream>(stream: &S, pipe: &mut Pipe, most: u64) -> io::Result<usize> {
    loop {
        match stream.fill(pipe, most).await {
            Err(error) if error.kind() == ErrorKind::WouldBlock => assert!(pipe.is_empty()),
            Ok(n) => {
                assert_eq!(n, pipe.len());
                return Ok(n);
            }
            error => return error,
        }
    }
}

/// Pours all out; what it could not stays.
async fn pour<S: Stream>(stream: &S, pipe: &mut Pipe) -> io::Result<()> {
    while !pipe.is_empty() {
        let before = pipe.len();
        match stream.pour(pipe).await {
            Ok(n) => assert!(n > 0 && before - n == pipe.len()),
            Err(error) => {
                assert_eq!(pipe.len(), before);
                if error.kind() != ErrorKind::WouldBlock {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

pub async fn spliced_bytes_are_the_streams_bytes<F: Fixture>(f: F) {
    for family in BOTH {
        let (client, inner) = pair(&f, family).await;
        let (outer, server) = pair(&f, family).await;
        assert!(inner.splice_from().is_some_and(|least| least > 0));
        let all = pattern(900_000);
        let body = 800_001;
        let sender = {
            let all = all.clone();
            start(&f, async move {
                for part in all.chunks(70_001) {
                    send(&client, part).await;
                }
            })
        };
        let relay = {
            let f = f.clone();
            start(&f.clone(), async move {
                let mut pipe = pipe(&f).await;
                let mut left = body;
                while left > 0 {
                    let n = fill(&inner, &mut pipe, left).await.unwrap();
                    assert!(n > 0 && n as u64 <= left);
                    left -= n as u64;
                    pour(&outer, &mut pipe).await.unwrap();
                }
                // Behind the last byte that was asked for nothing has been taken, and copies go on.
                send(&outer, &recv_until(&inner, usize::MAX).await).await;
            })
        };
        assert!(recv_until(&server, usize::MAX).await == all);
        relay.result(&f).await;
        sender.result(&f).await;
    }
}

pub async fn a_fill_takes_no_more_than_it_may<F: Fixture>(f: F) {
    for family in BOTH {
        let (client, server) = pair(&f, family).await;
        send(&client, b"0123456789").await;
        f.sleep_ms(20).await;
        let mut pipe = pipe(&f).await;
        assert!((1..=4).contains(&fill(&server, &mut pipe, 4).await.unwrap()));
        let taken = pipe.len();
        pour(&server, &mut pipe).await.unwrap();
        assert_eq!(recv_until(&client, taken).await, &b"0123"[..taken]);
        assert_eq!(recv_until(&server, 10 - taken).await, &b"0123456789"[taken..]);
    }
}

pub async fn bytes_before_others_go_first_and_also_alone<F: Fixture>(f: F) {
    for family in BOTH {
        let (client, server) = pair(&f, family).await;
        for followed in [true, false] {
            let mut lead = buf(b"before, ");
            while !lead.is_empty() {
                let sent;
                (sent, lead) = server.send_more(lead).await;
                assert!(sent.unwrap() > 0);
            }
            if followed {
                send(&client, b"behind").await;
                let (mut pipe, mut got) = (pipe(&f).await, 0);
                while got < 6 {
                    got += fill(&server, &mut pipe, 6 - got as u64).await.unwrap();
                    pour(&server, &mut pipe).await.unwrap();
                }
            }
            let expected = if followed { &b"before, behind"[..] } else { b"before, " };
            assert_eq!(recv_until(&client, expected.len()).await, expected);
        }
    }
}

pub async fn a_fill_finds_the_end_after_the_last_byte<F: Fixture>(f: F) {
    for family in BOTH {
        let (client, server) = pair(&f, family).await;
        send(&client, b"last words").await;
        client.close();
        let mut pipe = pipe(&f).await;
        let mut got = 0;
        loop {
            match fill(&server, &mut pipe, 1000).await.unwrap() {
                0 => break,
                n => got += n,
            }
            // A pipe with bytes in it is never filled: this one has done its work.
            pipe = self::pipe(&f).await;
        }
        assert_eq!(got, 10);
        assert_eq!(fill(&server, &mut pipe, 1000).await.unwrap(), 0);
    }
}

pub async fn a_fill_tells_of_a_reset_after_what_had_come<F: Fixture>(f: F) {
    let (client, server) = pair(&f, Family::Tcp).await;
    send(&client, b"arrived").await;
    f.sleep_ms(20).await;
    f.reset(client);
    f.sleep_ms(20).await;
    let mut got = 0;
    let end = loop {
        match fill(&server, &mut pipe(&f).await, 1000).await {
            Ok(n) => got += n,
            Err(error) => break error,
        }
    };
    assert_eq!((got, end.kind()), (7, ErrorKind::ConnectionReset));
}

pub async fn shutdown_wakes_a_fill<F: Fixture>(f: F) {
    for family in BOTH {
        for how in [How::Read, How::Both] {
            let (client, server) = pair(&f, family).await;
            let handle = server.handle();
            let mut pipe = pipe(&f).await;
            let waiting = start(&f, async move { (fill(&server, &mut pipe, 10).await, server) });
            f.sleep_ms(20).await;
            assert!(!waiting.is_done());
            f.net().shutdown(handle, how);
            assert_eq!(waiting.result(&f).await.0.unwrap(), 0);
            drop(client);
        }
    }
}

/// Pours until there is no room; the result is of the pour that did not end by itself: bytes left in the pipe, and bytes
/// sent in all.
fn flood<F: Fixture>(f: &F, stream: Rc<StreamOf<F>>, all: usize) -> Started<(io::Result<()>, usize, usize)> {
    let part = pattern(200_000);
    let f = f.clone();
    start(&f.clone(), async move {
        let (writer, reader) = pair(&f, Family::Unix).await;
        // Feeds the other end until that is closed.
        f.net().spawn(async move { while writer.send_all(buf(&part)).await.0.is_ok() {} });
        let mut pipe = pipe(&f).await;
        let mut sent = 0;
        loop {
            let filled = fill(&reader, &mut pipe, 200_000).await.unwrap();
            let result = pour(&*stream, &mut pipe).await;
            sent += filled - pipe.len();
            if result.is_err() || sent >= all {
                return (result, pipe.len(), sent);
            }
        }
    })
}

pub async fn a_blocked_pour_is_ended_by_shutdown<F: Fixture>(f: F) {
    for family in BOTH {
        let (client, server) = pair(&f, family).await;
        let server = Rc::new(server);
        let pouring = flood(&f, server.clone(), usize::MAX);
        f.sleep_ms(300).await;
        assert!(!pouring.is_done());
        f.net().shutdown(server.handle(), How::Both);
        let (result, left, sent) = pouring.result(&f).await;
        assert_eq!(result.unwrap_err().kind(), ErrorKind::BrokenPipe);
        assert!(left > 0);
        assert_eq!(recv_until(&client, usize::MAX).await.len(), sent);
    }
}

pub async fn a_blocked_pour_goes_on_when_there_is_room<F: Fixture>(f: F) {
    for family in BOTH {
        let (client, server) = pair(&f, family).await;
        let pouring = flood(&f, Rc::new(server), 4_000_000);
        f.sleep_ms(100).await;
        let mut got = 0;
        while !pouring.is_done() {
            got += recv_until(&client, 1).await.len();
        }
        let (result, left, sent) = pouring.result(&f).await;
        result.unwrap();
        assert_eq!((left, got + recv_until(&client, sent - got).await.len()), (0, sent));
    }
}

pub async fn a_stream_is_spliced_one_way_and_copied_the_other<F: Fixture>(f: F) {
    let (client, server) = pair(&f, Family::Tcp).await;
    let server = Rc::new(server);
    let standing = server.clone();
    let mut pipe = pipe(&f).await;
    let waiting = start(&f, async move { (fill(&*standing, &mut pipe, 100).await, pipe.len()) });
    f.sleep_ms(20).await;
    send(&*server, b"one way").await;
    assert_eq!(recv_until(&client, 7).await, b"one way");
    assert!(!waiting.is_done());
    let (sent, _) = client.send_all(buf(b"?")).await;
    sent.unwrap();
    let (filled, len) = waiting.result(&f).await;
    assert_eq!((filled.unwrap(), len), (1, 1));
    send(&client, b"!").await;
    assert_eq!(recv(&*server).await.unwrap(), b"!");
}
