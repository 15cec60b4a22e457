//! Bugs that the simulation has found, by name: each a client and a backend written for it, under many seeds.

use super::client::Client;
use super::config::Config;
use super::dice::{Dice, Side, pattern, tag};
use super::ledger::{Ledger, Rules};
use super::plan::{Frame, Manner, Plan, Upload};
use super::wire::{Ended, Framing, Head, Reader, send};
use crossbeam_channel::bounded;
use ringway::access_log::{self, Sink};
use ringway::config::{HalfClose, ListenerId, LogTarget, Settings};
use ringway::event::{CoreStats, ToWorker};
use ringway::publish::{Publisher, Snapshot};
use ringway::route::counts::ClusterEnds;
use ringway::route::health::{Cells, State};
use ringway::route::table::{Backend, Cluster, NewRoute, Policy, RouteTable};
use ringway::route::waits::Waits;
use ringway::route::{BackendId, ClusterId, Endpoint};
use ringway::worker::net::mem::{Mem, MemStream, Weather};
use ringway::worker::net::{How, Net, Stream};
use ringway::worker::{self, Links, Plain};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Any settings and any policy.
fn any(dice: &mut Dice) -> (Settings, Policy) {
    let plan = Config::random(dice, 1).plan();
    let listeners = plan.listeners.into_values().map(Some).collect();
    let policy = plan.clusters.into_values().next().expect("a cluster").policy;
    (Settings { listeners, ..plan.settings }, policy)
}

/// One core before one backend.
struct Stage {
    mem: Mem,
    /// The core's own net: descriptors are counted apart.
    net: Mem,
    front: Endpoint,
    inbox: crossbeam_channel::Sender<ToWorker>,
    stats: Arc<CoreStats>,
    ended: Rc<Cell<bool>>,
}

impl Stage {
    async fn connect(&self) -> MemStream {
        self.mem.connect(&self.front, |_| {}).await.expect("the core listens")
    }

    fn drain(&self, seconds: u32) {
        self.inbox.send(ToWorker::Drain { seconds }).expect("room in the inbox");
        self.net.ring();
    }

    async fn seconds(&self, seconds: u64) {
        self.mem.sleep_us(seconds * 1_000_000).await;
    }
}

/// Plays a client against a backend, for many seeds. All times are 3 s unless `tweak` says otherwise. At the end nothing
/// may be left, whatever the client did.
fn play<B: Future<Output = ()> + 'static>(
    tweak: impl Fn(&mut Settings, &mut Policy),
    backend: impl Fn(Mem, MemStream) -> B + Clone + 'static,
    client: impl AsyncFn(&Stage),
) {
    for seed in 0..24 {
        let splice_from = (seed % 2 == 0).then_some(1000);
        let mem = Mem::with(seed, Weather { splice_from, pipe_bytes: 4096, seconds_max: 300, ..Weather::default() });
        let stage = stage(&mem, seed, &tweak);
        let door = Rc::new(mem.listen(&Endpoint::Ip(([10, 2, 0, 0], 80).into())));
        let (net, listener) = (mem.clone(), door.clone());
        let backend = backend.clone();
        mem.spawn(async move {
            let mut batch = Vec::new();
            while net.accept(&listener, &mut batch).await.is_ok() {
                for accepted in batch.drain(..) {
                    net.spawn(backend(net.clone(), accepted.stream));
                }
            }
        });
        mem.run(client(&stage));
        mem.run(async {
            stage.seconds(30).await;
            let stats = &stage.stats;
            let left = [&stats.connections, &stats.buffers, &stats.pooled].map(|n| n.load(Ordering::Relaxed));
            assert_eq!(left, [0; 3], "seed {seed}: connections, buffers, pooled of a core that is left alone");
            stage.drain(1);
            stage.seconds(4).await;
            assert!(stage.ended.get(), "seed {seed}: the drain has not ended");
        });
        mem.close_listener(&door);
        drop(door);
        mem.run(stage.seconds(1));
        assert_eq!((mem.counts().streams, mem.counts().tasks, mem.counts().stale_handles), (0, 4, 0), "seed {seed}");
        mem.finish();
    }
}

fn stage(mem: &Mem, seed: u64, tweak: &impl Fn(&mut Settings, &mut Policy)) -> Stage {
    let front = Endpoint::Ip(([10, 1, 0, 0], 80).into());
    let mut dice = Dice::new(seed);
    let (mut settings, mut policy) = any(&mut dice);
    settings.client_head_timeout = 3;
    settings.client_idle_timeout = 3;
    settings.client_body_timeout = 3;
    settings.client_half_close = HalfClose::Serve;
    settings.client_rate_min = 0;
    settings.connections_per_worker = 100;
    settings.log_target = LogTarget::Off;
    policy.fail_open = 0;
    (policy.connect_timeout, policy.head_timeout, policy.body_timeout, policy.tunnel_timeout) = (3, 3, 3, 3);
    (policy.client_body_timeout, policy.client_rate_min) = (3, 0);
    (policy.body_max, policy.retries, policy.pool_idle, policy.pool_max) = (u64::MAX, 1, 3, 8);
    tweak(&mut settings, &mut policy);
    let endpoint = Endpoint::Ip(([10, 2, 0, 0], 80).into());
    let (id, name, cells) = (BackendId(0), "b".to_string(), Arc::new(Cells::new(1)));
    let backend = Backend { id, name, endpoint, weight: 1, backup: false, max_conns: 0, cells };
    let (id, name) = (ClusterId(0), "c".to_string());
    let cluster = Arc::new(Cluster {
        id,
        name,
        backends: vec![backend],
        first_state: 0,
        policy,
        ends: Arc::new(ClusterEnds::new(1)),
        waits: Arc::new(Waits::new(1)),
    });
    let route = NewRoute { name: "*/".into(), host: "*".into(), path: "/".into(), cluster: cluster.clone() };
    let table = Arc::new(RouteTable::build(vec![cluster], vec![route]).expect("one route"));
    let states = [State::up(1)].into();
    let publisher = Publisher::new(Snapshot {
        generation: 1,
        epoch: 1,
        table,
        states,
        paused: Arc::default(),
        settings: Arc::new(settings),
    });
    let stats = Arc::new(CoreStats::default());
    let log = access_log::spawn(1, Sink::Off).expect("a thread for the log");
    let (inbox, messages) = bounded(4);
    // What is told to control is kept: nobody reads it here.
    let (outbox, told) = bounded(64);
    let links = Links {
        core: 0,
        publisher,
        inbox: messages,
        outbox,
        ring_control: Arc::new(|| {}),
        ring_core: Rc::new(|_| {}),
        doorsteps: [].into(),
        stats: stats.clone(),
        log: log.queue(0, stats.clone()),
    };
    let core = mem.another_core();
    let listeners = vec![(ListenerId(0), core.listen(&front))];
    let ended = Rc::new(Cell::new(false));
    let (net, done) = (core.clone(), ended.clone());
    mem.spawn(async move {
        worker::run(net, Plain, links, listeners).await;
        done.set(true);
        drop(told);
    });
    Stage { mem: mem.clone(), net: core, front, inbox, stats, ended }
}

/// Reads a response head and its body.
async fn response(reader: &mut Reader<'_>, until_close: bool) -> (Head, Vec<u8>, Ended) {
    let head = reader.head().await.expect("a response");
    let mut body = Vec::new();
    let framing = head.framing(if until_close { Framing::UntilClose } else { Framing::None });
    let ended = reader.body(framing, &mut body).await;
    (head, body, ended)
}

async fn read_to_end(stream: &MemStream) {
    let mut reader = Reader::new(stream);
    while reader.more().await {
        reader.bytes.clear();
    }
}

#[test]
fn a_backend_that_stalls_behind_an_interim_response_is_answered_with_504() {
    let backend = |_, stream: MemStream| async move {
        send(&stream, b"HTTP/1.1 103 Early Hints\r\n\r\n").await;
        read_to_end(&stream).await;
    };
    play(
        |_, policy| (policy.client_body_timeout, policy.head_timeout) = (2, 6),
        backend,
        async |stage| {
            let stream = stage.connect().await;
            send(&stream, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            let mut reader = Reader::new(&stream);
            assert!(reader.head().await.expect("an interim response").first.contains("103"));
            assert!(response(&mut reader, false).await.0.first.contains("504"));
        },
    );
}

#[test]
fn a_tunnel_whose_client_takes_no_bytes_ends() {
    let backend = |_, stream: MemStream| async move {
        let mut reader = Reader::new(&stream);
        let _ = reader.head().await;
        send(&stream, b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: flood\r\n\r\n").await;
        while send(&stream, &[0; 1000]).await {}
    };
    play(
        |_, _| {},
        backend,
        async |stage| {
            let stream = stage.connect().await;
            send(&stream, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: flood\r\n\r\n").await;
            stage.seconds(8).await;
            assert!(stage.mem.gone(stream.handle(), true));
        },
    );
}

#[test]
fn a_body_until_close_is_not_whole_where_the_request_turns_out_too_large() {
    let backend = |mem: Mem, stream: MemStream| async move {
        send(&stream, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf").await;
        mem.sleep_us(1_500_000).await;
        send(&stream, b"the other half").await;
        read_to_end(&stream).await;
    };
    play(
        |_, policy| policy.body_max = 10,
        backend,
        async |stage| {
            let stream = stage.connect().await;
            send(&stream, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n").await;
            let mut reader = Reader::new(&stream);
            let head = reader.head().await.expect("the response begins");
            send(&stream, b"8\r\nabcdefgh\r\n").await;
            let mut body = Vec::new();
            assert_ne!(reader.body(head.framing(Framing::UntilClose), &mut body).await, Ended::Whole);
        },
    );
}

#[test]
fn a_body_until_close_is_not_whole_where_a_drain_cuts_it() {
    let backend = |_, stream: MemStream| async move {
        let mut reader = Reader::new(&stream);
        let _ = reader.head().await;
        send(&stream, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf").await;
        while reader.more().await {}
    };
    for version in ["1.0", "1.1"] {
        play(
            |_, policy| policy.body_timeout = 60,
            backend,
            async |stage| {
                let stream = stage.connect().await;
                send(&stream, format!("GET / HTTP/{version}\r\nHost: a\r\n\r\n").as_bytes()).await;
                let mut reader = Reader::new(&stream);
                stage.seconds(1).await;
                stage.drain(2);
                let (_, body, ended) = response(&mut reader, true).await;
                assert_eq!(body, b"half");
                assert_ne!(ended, Ended::Whole);
            },
        );
    }
}

#[test]
fn a_client_that_stalls_after_an_early_response_is_not_waited_for() {
    // The upload's send to the backend succeeds in part when the response has ended: what was armed for it must not be what
    // the client is waited for with.
    let backend = |mem: Mem, stream: MemStream| async move {
        mem.sleep_us(100_000).await;
        send(&stream, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        read_to_end(&stream).await;
    };
    play(
        |_, policy| policy.body_timeout = 20,
        backend,
        async |stage| {
            let stream = stage.connect().await;
            send(&stream, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30000\r\n\r\n").await;
            send(&stream, &[7; 9000]).await;
            let mut reader = Reader::new(&stream);
            assert_eq!(response(&mut reader, false).await.1, b"ok");
            let answered = stage.mem.now_us();
            while reader.more().await {}
            stage.seconds(5).await;
            assert!(stage.mem.now_us() - answered < 11_000_000);
            assert!(stage.mem.gone(stream.handle(), false) || stage.stats.connections.load(Ordering::Relaxed) == 0);
        },
    );
}

#[test]
fn a_head_request_with_a_body_gets_an_own_answer_without_one() {
    let backend = |_, stream: MemStream| async move {
        let mut reader = Reader::new(&stream);
        let _ = reader.head().await;
        stream.close();
    };
    play(
        |_, _| {},
        backend,
        async |stage| {
            let stream = stage.connect().await;
            send(&stream, b"HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc").await;
            let mut reader = Reader::new(&stream);
            assert!(reader.head().await.expect("an answer").first.contains("502"));
            stage.mem.shutdown(stream.handle(), How::Write);
            while reader.more().await {}
            assert_eq!(reader.bytes, b"");
        },
    );
}

#[test]
fn bytes_behind_a_body_whose_backend_fails_are_given_back() {
    let backend = |_, stream: MemStream| async move {
        let mut reader = Reader::new(&stream);
        let _ = reader.head().await;
        stream.reset();
    };
    play(
        |_, _| {},
        backend,
        async |stage| {
            let stream = stage.connect().await;
            send(&stream, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc").await;
            stage.mem.sleep_us(stage.mem.seed() % 400).await;
            send(&stream, b"defghiGET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            assert!(response(&mut Reader::new(&stream), false).await.0.first.contains("502"));
        },
    );
}

#[test]
fn a_drain_serves_what_was_queued_at_its_listener() {
    let backend = |_, stream: MemStream| async move {
        let mut reader = Reader::new(&stream);
        if reader.head().await.is_ok() {
            send(&stream, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
        read_to_end(&stream).await;
    };
    play(
        |_, _| {},
        backend,
        async |stage| {
            // Connected in the same moment as the drain begins; the core has not drained while it answers.
            let (inbox, net) = (stage.inbox.clone(), stage.net.clone());
            stage.mem.spawn(async move {
                net.sleep_us(net.seed() % 60).await;
                inbox.send(ToWorker::Drain { seconds: 4 }).expect("room in the inbox");
                net.ring();
            });
            let Ok(stream) = stage.mem.connect(&stage.front, |_| {}).await else { return };
            send(&stream, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            assert_eq!(response(&mut Reader::new(&stream), false).await.1, b"ok");
            assert!(!stage.ended.get());
        },
    );
}

#[test]
fn a_listener_that_closes_without_descriptors_loses_nobody() {
    let backend = |_, stream: MemStream| async move {
        let mut reader = Reader::new(&stream);
        if reader.head().await.is_ok() {
            send(&stream, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
        read_to_end(&stream).await;
    };
    play(
        |_, _| {},
        backend,
        async |stage| {
            stage.net.scarce(0, libc::EMFILE);
            let stream = stage.connect().await;
            send(&stream, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            stage.inbox.send(ToWorker::Unlisten { id: ListenerId(0) }).expect("room in the inbox");
            stage.net.ring();
            stage.mem.sleep_us(2_500_000).await;
            stage.net.scarce(usize::MAX, 0);
            assert_eq!(response(&mut Reader::new(&stream), false).await.1, b"ok");
        },
    );
}

/// Seed 2120: an upload's send was told of a reset, the receive saw an end, and the virtual client took a cut body until
/// close for a whole one.
#[test]
fn a_virtual_client_whose_upload_is_told_of_a_reset_has_no_whole_body() {
    for seed in 0..200 {
        let mem = Mem::with(seed, Weather { pipe_bytes: 4096, seconds_max: 300, ..Weather::default() });
        let mut dice = Dice::new(seed);
        let mut plan = Plan::random(&mut dice, 0, 1, true);
        (plan.method, plan.http10, plan.expect, plan.upgrade) = ("POST", true, false, false);
        (plan.upload, plan.manner, plan.cluster) = (Upload::Length(60_000), Manner::Whole, Some(0));
        (plan.script.status, plan.script.len, plan.script.switch) = (201, 1000, false);
        plan.script.frame = Frame::Close;
        let rules = Rules {
            client_head_timeout: 9,
            client_body_timeout: 9,
            half_close_aborts: false,
            crowded: false,
            capped: vec![false],
            policies: vec![any(&mut dice).1],
        };
        let ledger = Rc::new(Ledger::new(vec![plan], rules, false));
        ledger.with(0, |entry| entry.wronged = true);
        let front = Endpoint::Ip(([10, 1, 0, 0], 80).into());
        let (net, door) = (mem.clone(), mem.listen(&front));
        mem.spawn(async move {
            let mut batch = Vec::new();
            while batch.is_empty() {
                net.accept(&door, &mut batch).await.expect("nobody closes the listener");
            }
            let stream = batch.remove(0).stream;
            let mut reader = Reader::new(&stream);
            reader.head().await.expect("a request");
            let tag = tag(0, Side::Response);
            send(
                &stream,
                format!("HTTP/1.1 201 Fine\r\nX-Id: 0\r\nX-Tag: {tag}\r\nConnection: close\r\n\r\n").as_bytes(),
            )
            .await;
            send(&stream, &pattern(0, Side::Response, 0, 500)).await;
            reader.more().await;
            stream.reset();
        });
        let (dice, fronts) = (RefCell::new(dice), Rc::new(RefCell::new(vec![front.clone()])));
        let (net, theirs) = (mem.clone(), ledger.clone());
        let client = Client { mem: net, ledger: theirs, dice, pipe_bytes: 4096, idle_timeout: 9, fronts };
        mem.run(client.connection(&front, &[0], false));
        assert_eq!(ledger.violations.take(), Vec::<String>::new(), "seed {seed}");
        mem.finish();
    }
}
