//! The part of the contract that is about parked streams.

use crate::contract::{BOTH, StreamOf, pair, recv, recv_until, send, start};
use crate::fixture::{Family, Fixture};
use ringway::worker::net::{How, Net, Stream};

type ParkedOf<F> = <<F as Fixture>::Net as Net>::Parked;

fn park<F: Fixture>(f: &F, mut stream: StreamOf<F>, key: u64) -> ParkedOf<F> {
    loop {
        // The net in memory refuses now and then.
        match f.net().park(stream, key) {
            Ok(parked) => return parked,
            Err(back) => stream = back,
        }
    }
}

/// The keys of the streams that stir within some time.
async fn stirred<F: Fixture>(f: &F, wanted: usize) -> Vec<u64> {
    let net = f.net().clone();
    let mut keys = Vec::new();
    while keys.len() < wanted {
        net.stirred(&mut keys).await;
    }
    keys.sort_unstable();
    keys
}

pub async fn a_parked_stream_stirs_once_for_bytes_an_end_or_a_reset<F: Fixture>(f: F) {
    for family in BOTH {
        let mut pairs = Vec::new();
        for _ in 0..5 {
            pairs.push(pair(&f, family).await);
        }
        let (mut clients, servers): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        // The first has its bytes before it is parked.
        send(&clients[0], b"early").await;
        f.sleep_ms(20).await;
        let mut parked: Vec<_> = servers.into_iter().zip(10..).map(|(server, key)| park(&f, server, key)).collect();
        assert_eq!(stirred(&f, 1).await, [10]);
        send(&clients[1], b"late").await;
        assert_eq!(stirred(&f, 1).await, [11]);
        f.net().shutdown(clients[2].handle(), How::Write);
        assert_eq!(stirred(&f, 1).await, [12]);
        clients.remove(3).close();
        assert_eq!(stirred(&f, 1).await, [13]);
        f.reset(clients.remove(3));
        assert_eq!(stirred(&f, 1).await, [14]);
        // More of it is not told: nobody has looked yet.
        send(&clients[0], b"more").await;
        let again = start(&f, {
            let f = f.clone();
            async move { stirred(&f, 1).await }
        });
        f.sleep_ms(50).await;
        assert!(!again.is_done());

        let (reset, ended) = (parked.remove(4), parked.remove(3));
        assert!(recv(&f.net().unpark(reset).unwrap()).await.is_err() || family == Family::Unix);
        assert_eq!(recv(&f.net().unpark(ended).unwrap()).await.unwrap(), b"");
        // A half-closed one still sends.
        let half = f.net().unpark(parked.remove(2)).unwrap();
        assert_eq!(recv(&half).await.unwrap(), b"");
        send(&half, b"answer").await;
        assert_eq!(recv_until(&clients[2], 6).await, b"answer");
        let late = f.net().unpark(parked.remove(1)).unwrap();
        assert_eq!(recv_until(&late, 4).await, b"late");
        let early = f.net().unpark(parked.remove(0)).unwrap();
        assert_eq!(recv_until(&early, 9).await, b"earlymore");
        // Parked again, it stirs again; the one that waits is told.
        let _parked = park(&f, early, 77);
        send(&clients[0], b"x").await;
        assert_eq!(again.result(&f).await, [77]);
    }
}

pub async fn many_stir_at_once_and_each_is_told_once<F: Fixture>(f: F) {
    const MANY: u64 = 600;
    let (mut clients, mut parked) = (Vec::new(), Vec::new());
    for key in 0..MANY {
        let (client, server) = pair(&f, Family::Unix).await;
        clients.push(client);
        parked.push(park(&f, server, key));
    }
    for client in &clients {
        send(client, b"x").await;
    }
    assert_eq!(stirred(&f, MANY as usize).await, (0..MANY).collect::<Vec<_>>());
}

pub async fn a_parked_stream_that_is_closed_is_not_told<F: Fixture>(f: F) {
    for round in 0..20 {
        let (client, server) = pair(&f, Family::Tcp).await;
        drop(park(&f, server, round));
        // The peer sees the end, and what it does then reaches nobody.
        assert_eq!(recv(&client).await.unwrap(), b"");
        client.close();
        // Perhaps with the same descriptor.
        let (client, server) = pair(&f, Family::Tcp).await;
        let parked = park(&f, server, 1000 + round);
        send(&client, b"x").await;
        assert_eq!(stirred(&f, 1).await, [1000 + round]);
        drop(parked);
    }
}

pub async fn a_stream_need_not_stir_to_be_taken_up<F: Fixture>(f: F) {
    let (client, server) = pair(&f, Family::Tcp).await;
    let server = f.net().unpark(park(&f, server, 1)).unwrap();
    send(&server, b"hello").await;
    assert_eq!(recv_until(&client, 5).await, b"hello");
}

pub async fn a_detached_stream_goes_on_where_it_is_attached<F: Fixture>(f: F) {
    for family in BOTH {
        let (client, server) = pair(&f, family).await;
        // It has been parked, so that more than the driver knows of it.
        let parked = park(&f, server, 5);
        send(&client, b"early").await;
        assert_eq!(stirred(&f, 1).await, [5]);
        let server = f.net().unpark(parked).unwrap();
        let fd = match f.net().detach(server) {
            Ok(fd) => fd,
            // One that cannot leave is as it was.
            Err(server) => {
                assert_eq!(recv_until(&server, 5).await, b"early");
                continue;
            }
        };
        send(&client, b"late").await;
        let server = f.net().attach(fd).unwrap();
        assert_eq!(recv_until(&server, 9).await, b"earlylate");
        send(&server, b"answer").await;
        assert_eq!(recv_until(&client, 6).await, b"answer");
        let carried = f.net().carried(server.handle());
        assert!(carried.is_none_or(|[received, _]| received == 9 && family != Family::Unix), "{carried:?}");
        // Nothing stayed behind in the lot: it is parked anew, and told once.
        let _parked = park(&f, server, 6);
        send(&client, b"x").await;
        assert_eq!(stirred(&f, 1).await, [6]);
    }
}
