//! One core: its event loop, its connections, its pools. Everything here is `!Send` and shared by `Rc` and `Cell`.
//!
//! A connection waits in a small task ([`idle`]) that holds no buffer. When bytes come it becomes busy: [`session`] serves
//! request after request until none is left, in memory that is used again ([`busy`]). [`attempt`] brings one request to one
//! backend, [`relay`] moves the bodies. Nothing in here decides about HTTP: that is `http/` and `exchange`.

mod accept;
mod attempt;
pub mod buffers;
mod busy;
mod clusters;
mod count;
mod deadlines;
mod doorstep;
mod even;
mod idle;
mod log;
pub mod net;
mod parking;
mod pipes;
mod pool;
mod pulse;
mod queue;
mod refused;
mod relay;
mod scales;
mod search;
mod session;
mod splice;
pub mod start;
mod story;

pub use start::Start;

use crate::access_log::Queue;
use crate::config::ListenerId;
use crate::event::{CoreStats, FromWorker, ToWorker};
use crate::http::head::ResponseHead;
use crate::publish::{Publisher, Reader, Snapshot, View};
use buffers::Pool;
use clusters::{Clusters, add};
use crossbeam_channel::{Receiver, Sender};
use deadlines::Slots;
use doorstep::Doorstep;
use even::Evening;
use idle::IdleRoom;
use net::Net;
use net::driver::Choice;
use net::os::{Bell, Os};
use pipes::Pipes;
use pulse::Pulse;
use queue::Queues;
use scales::Scales;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io::Write;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Poll, Waker};
use std::time::{Duration, UNIX_EPOCH};

/// What a connection is born with. The session never asks the socket.
#[derive(Clone, Debug)]
pub struct ConnInfo {
    /// Whose settings apply.
    pub listener: ListenerId,
    /// The client's (or the proxy's before us) address; `None` on Unix listeners.
    pub peer: Option<SocketAddr>,
    /// Where it was accepted; `None` on Unix listeners.
    pub local: Option<SocketAddr>,
    /// The address that the socket itself has, where a PROXY header named another peer.
    pub via_proxy: Option<SocketAddr>,
    /// It came through TLS.
    pub tls: bool,
}

impl ConnInfo {
    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }
}

/// A stage between accept and the sessions: it may speak first (PROXY protocol, a TLS handshake), change what is known of
/// the connection, and wrap its stream.
#[allow(async_fn_in_trait)]
pub trait Gate<N: Net>: Clone + 'static {
    /// The streams that sessions get.
    type Stream: net::Stream;
    /// What of such a stream is not the net's, and kept while it is parked or goes over to another core.
    type Rest: Send + 'static;
    /// Admits a connection; `None` closes it.
    async fn admit(&self, stream: N::Stream, info: ConnInfo) -> Option<(Self::Stream, ConnInfo)>;
    /// Takes an idle stream apart, to be parked or given to another core; one that has bytes for a `recv` itself (read ahead) must come back.
    fn take_apart(&self, stream: Self::Stream) -> Result<(N::Stream, Self::Rest), Self::Stream>;
    /// Undoes [`Gate::take_apart`].
    fn put_together(&self, stream: N::Stream, rest: Self::Rest) -> Self::Stream;
}

/// The gate that changes nothing: clear text.
#[derive(Clone, Copy, Debug)]
pub struct Plain;

impl<N: Net> Gate<N> for Plain {
    type Stream = N::Stream;
    type Rest = ();
    async fn admit(&self, stream: N::Stream, info: ConnInfo) -> Option<(N::Stream, ConnInfo)> {
        Some((stream, info))
    }
    fn take_apart(&self, stream: N::Stream) -> Result<(N::Stream, ()), N::Stream> {
        Ok((stream, ()))
    }
    fn put_together(&self, stream: N::Stream, (): ()) -> N::Stream {
        stream
    }
}

/// How a core is tied to the rest of the process.
pub struct Links {
    /// Which core this is, from 0.
    pub core: usize,
    /// Where snapshots come from.
    pub publisher: Arc<Publisher>,
    /// Messages of control; its doorbell is [`Net::rung`].
    pub inbox: Receiver<ToWorker>,
    /// Messages to control; bounded, never waited for.
    pub outbox: Sender<FromWorker>,
    /// Rings control's doorbell.
    pub ring_control: Arc<dyn Fn() + Send + Sync>,
    /// Rings the doorbell of the core of this number.
    pub ring_core: Rc<dyn Fn(usize)>,
    /// The doorsteps of all cores, by their numbers: where each takes over connections of the others.
    pub doorsteps: Arc<[Doorstep]>,
    /// This core's counters.
    pub stats: Arc<CoreStats>,
    /// This core's end of the access log.
    pub log: Queue,
}

#[derive(Clone, Copy)]
struct Drain {
    idle_until: u32,
    until: u32,
}

/// The state of one core.
pub struct Core<N: Net> {
    net: N,
    index: usize,
    reader: Reader,
    inbox: Receiver<ToWorker>,
    outbox: Sender<FromWorker>,
    ring_control: Arc<dyn Fn() + Send + Sync>,
    stats: Arc<CoreStats>,
    log: RefCell<Queue>,
    buffers: Rc<Pool>,
    /// For response heads, from their last byte until they are rewritten: nothing is waited for in between, so one is enough,
    /// and it is always in a cache.
    response_head: Cell<Option<Box<ResponseHead>>>,
    pipes: Pipes,
    slots: Rc<Slots>,
    idle: Rc<IdleRoom>,
    clusters: Clusters<N::Stream>,
    queues: Queues<N::Stream>,
    ring_core: Rc<dyn Fn(usize)>,
    doorsteps: Arc<[Doorstep]>,
    /// Connections that other cores may leave here, or have left.
    promised: Cell<usize>,
    evening: Evening,
    scales: Scales,
    listeners: RefCell<Vec<(ListenerId, Rc<N::Listener>)>>,
    connections: Cell<usize>,
    /// Listeners that are accepted on.
    accepting: Cell<usize>,
    drain: Cell<Option<Drain>>,
    cut: Cell<u32>,
    random: Cell<u64>,
    pulse: Pulse,
    date: Cell<[u8; 29]>,
    unix_seconds: Cell<u64>,
    /// Counts connections that have ended.
    left: Cell<u32>,
    waiting_for_change: RefCell<Vec<Waker>>,
    waiting_for_tick: Cell<Option<Waker>>,
    /// Snapshots that found the channel to control full.
    retired: RefCell<Vec<Arc<Snapshot>>>,
    waiting_for_end: RefCell<Option<Waker>>,
}

/// Runs one core until it has drained. `listeners` are accepted on from the start; more come by message.
pub async fn run<N: Net, G: Gate<N>>(net: N, gate: G, links: Links, listeners: Vec<(ListenerId, N::Listener)>) {
    let core = Rc::new(Core::new(net, links));
    let welcome = accept::Welcome::new(core.clone(), gate, session::serve_each::<N, G::Stream>);
    for (id, listener) in listeners {
        welcome.listen(id, listener);
    }
    core.net.spawn(messages(core.clone(), welcome.clone()));
    core.net.spawn(welcome.clone().unpark());
    core.net.spawn(ticks(core.clone(), welcome.clone()));
    core.net.spawn(chores(core.clone(), welcome));
    core.drained().await;
    core.log.borrow_mut().flush();
    // This message is no hint: it waits for room in the channel.
    while core.outbox.try_send(FromWorker::Drained { core: core.index, cut: core.cut.get() }).is_err() {
        core.next_change().await;
    }
    (core.ring_control)();
}

/// The thread of one core, on the real net and without any stage before the sessions. Returns only if the runtime cannot
/// be made: a drained core sleeps until the process ends, because a runtime must not be dropped alive.
pub fn start(start: Start) -> std::io::Result<()> {
    let (runtime, links) = start.links();
    start_with(Plain, runtime, links)
}

/// [`start`] with another gate.
pub fn start_with<G: Gate<Os>>(gate: G, runtime: (Choice, Option<usize>, Bell), links: Links) -> std::io::Result<()> {
    let (choice, cpu, bell) = runtime;
    if let Some(cpu) = cpu {
        net::machine::pin(cpu)?;
    }
    net::driver::run(choice, bell, async move |net| {
        run(net, gate, links, Vec::new()).await;
        loop {
            std::thread::park();
        }
    })
}

/// Looks at the publisher and the inbox whenever the doorbell rings.
async fn messages<N: Net, G: Gate<N>, F>(core: Rc<Core<N>>, welcome: accept::Welcome<N, G, F>)
where
    F: Future<Output = ()> + 'static,
{
    loop {
        core.look_at_snapshot();
        core.clusters.look_at_permits();
        for message in core.inbox.try_iter() {
            match message {
                ToWorker::Listen { id, fd, .. } => match core.net.adopt(fd) {
                    Ok(listener) => welcome.listen(id, listener),
                    // Out of descriptors: control sees no acceptor on this core in the counters.
                    Err(_) => add(&core.stats.accept_failures, 1),
                },
                ToWorker::Unlisten { id } => core.unlisten(|listening| listening == id),
                ToWorker::Forget { backends, clusters } => core.clusters.forget(&backends, &clusters),
                ToWorker::Rest { backends, rests } => core.clusters.rest(&backends, rests),
                // Whoever asked may have gone; then there is nobody to tell.
                ToWorker::Count { on, answer } => drop(answer.try_send((core.index, core.remains(&on)))),
                ToWorker::Even(order) => core.even(order),
                ToWorker::Weigh => core.begin_to_weigh(),
                ToWorker::Hogs { answer } => {
                    let _ = answer.try_send(core.hogs());
                    core.end_to_weigh();
                }
                ToWorker::Drain { seconds } => core.begin_drain(seconds),
            }
        }
        // Last: what lay on the doorstep when a drain began is taken over, too.
        core.take_handed().into_iter().for_each(|handed| welcome.take_over(handed));
        core.net.rung().await;
    }
}

/// The core's clock. It waits for nothing else, so that every deadline is set by the right time.
async fn ticks<N: Net, G: Gate<N>, F>(core: Rc<Core<N>>, welcome: accept::Welcome<N, G, F>)
where
    F: Future<Output = ()> + 'static,
{
    loop {
        let now = core.net.tick().await;
        core.slots.reach(now);
        core.read_clock();
        core.log.borrow_mut().flush();
        core.tick_evening(now);
        core.offer_room();
        core.count(now, welcome.parked());
        core.retire();
        core.wake_waiting();
        if let Some(chores) = core.waiting_for_tick.take() {
            chores.wake();
        }
    }
}

/// What is done once a tick for however many connections, a part in each turn.
async fn chores<N: Net, G: Gate<N>, F>(core: Rc<Core<N>>, welcome: accept::Welcome<N, G, F>)
where
    F: Future<Output = ()> + 'static,
{
    let mut last = 0;
    loop {
        let now = core.next_tick(last).await;
        let passed = now - std::mem::replace(&mut last, now);
        core.end_overdue(now, passed).await;
        core.clusters.tick(&core.net, now).await;
        core.tick(now);
        welcome.tick(now).await;
    }
}

impl<N: Net> Core<N> {
    fn new(net: N, links: Links) -> Core<N> {
        let core = Core {
            index: links.core,
            reader: Reader::new(links.publisher),
            inbox: links.inbox,
            outbox: links.outbox,
            ring_control: links.ring_control,
            stats: links.stats,
            log: RefCell::new(links.log),
            buffers: Rc::default(),
            response_head: Cell::default(),
            pipes: Pipes::default(),
            slots: Rc::default(),
            idle: Rc::default(),
            clusters: Clusters::new(links.core, links.ring_core.clone()),
            queues: Queues::default(),
            ring_core: links.ring_core,
            doorsteps: links.doorsteps,
            promised: Cell::new(0),
            evening: Evening::default(),
            scales: Scales::default(),
            listeners: RefCell::default(),
            connections: Cell::new(0),
            accepting: Cell::new(0),
            drain: Cell::new(None),
            cut: Cell::new(0),
            random: Cell::new(net.seed()),
            pulse: Pulse::default(),
            date: Cell::new([b' '; 29]),
            unix_seconds: Cell::new(0),
            left: Cell::new(0),
            waiting_for_change: RefCell::default(),
            waiting_for_tick: Cell::default(),
            retired: RefCell::default(),
            waiting_for_end: RefCell::default(),
            net,
        };
        core.read_clock();
        core
    }

    /// The snapshot to go by. Not to be held across an await: control waits for old ones to come back.
    fn view(&self) -> Rc<View> {
        self.reader.view()
    }

    fn look_at_snapshot(&self) {
        let known = |view: Rc<View>| (view.epoch, Arc::as_ptr(&view.table));
        let (epoch, table) = known(self.view());
        let now = || self.stats.epoch_at_us.store(self.net.now_us(), Ordering::Relaxed);
        let old = self.reader.look(&self.stats.epoch, now);
        let current = known(self.view());
        if current.0 != epoch {
            self.queues.changed(current.1 != table);
        }
        self.retired.borrow_mut().extend(old);
        self.retire();
    }

    /// Tells control. A hint that finds the channel full is not lost: control is made to look at everything.
    fn tell(&self, message: FromWorker) {
        if self.outbox.try_send(message).is_err() {
            self.stats.look_at_all.store(true, Ordering::Release);
        }
        (self.ring_control)();
    }

    /// Ends what has waited too long, in as many turns as that takes: thousands may be due at once.
    async fn end_overdue(&self, now: u32, passed: u32) {
        let mut from = 0;
        while let Some(next) = self.slots.tick(&self.net, passed, from) {
            from = next;
            self.net.next_turn().await;
        }
        let all = self.ends_idle(now);
        let mut from = 0;
        while let Some(next) = self.idle.tick(&self.net, now, all, from) {
            from = next;
            self.net.next_turn().await;
        }
    }

    fn tick(&self, now: u32) {
        self.buffers.trim();
        self.pipes.trim();
        if self.drain.get().is_some_and(|drain| now >= drain.until) {
            self.cut.set(self.cut.get() + self.slots.cut(&self.net));
        }
        // After all that ends a wait.
        self.queues.tick();
    }

    fn count(&self, now: u32, parked: usize) {
        let stats = &self.stats;
        let spent = self.spent();
        let beat = self.pulse.beat(now, spent);
        stats.lag.add(beat.late_us);
        stats.late_us.store(beat.late_us, Ordering::Relaxed);
        stats.turns.store(&self.net.turns());
        stats.cpu_us.store(spent.cpu_us, Ordering::Relaxed);
        stats.busy_permille.store(beat.busy_permille, Ordering::Relaxed);
        stats.load_permille.store(beat.load_permille, Ordering::Relaxed);
        stats.ticks.store(now, Ordering::Relaxed);
        stats.connections.store(self.connections.get() as u64, Ordering::Relaxed);
        stats.idle.store((self.idle.len() + parked) as u64, Ordering::Relaxed);
        stats.busy.store(self.slots.len() as u64, Ordering::Relaxed);
        stats.pipes.store(self.pipes.in_use() as u64, Ordering::Relaxed);
        stats.pooled.store(self.clusters.pooled() as u64, Ordering::Relaxed);
        let buffers = self.buffers.in_use(buffers::Class::Small) + self.buffers.in_use(buffers::Class::Large);
        stats.buffers.store(buffers as u64, Ordering::Relaxed);
    }

    fn read_clock(&self) {
        let seconds = self.net.unix_seconds();
        self.unix_seconds.set(seconds);
        let mut date = [b' '; 29];
        let text = httpdate::HttpDate::from(UNIX_EPOCH + Duration::from_secs(seconds));
        // A year of five digits would not fit; the date then stays as it was.
        if write!(&mut date[..], "{text}").is_ok() {
            self.date.set(date);
        }
    }

    /// Waits until a connection has ended, or for the next tick.
    async fn next_change(&self) {
        let before = (self.slots.now(), self.left.get());
        poll_fn(|cx| {
            if (self.slots.now(), self.left.get()) != before {
                return Poll::Ready(());
            }
            self.waiting_for_change.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Waits until the clock is not at tick `last` any more; returns where it is.
    async fn next_tick(&self, last: u32) -> u32 {
        poll_fn(|cx| {
            let now = self.slots.now();
            if now != last {
                return Poll::Ready(now);
            }
            self.waiting_for_tick.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await
    }

    fn wake_waiting(&self) {
        self.waiting_for_change.borrow_mut().drain(..).for_each(Waker::wake);
    }

    /// Sends replaced snapshots to control, which frees them: a table of 100,000 routes takes its time.
    fn retire(&self) {
        let mut retired = self.retired.borrow_mut();
        while let Some(snapshot) = retired.pop() {
            if let Err(full) = self.outbox.try_send(FromWorker::Retired(snapshot)) {
                if let FromWorker::Retired(snapshot) = full.into_inner() {
                    retired.push(snapshot);
                }
                return;
            }
            (self.ring_control)();
        }
    }

    /// A random number (splitmix64).
    fn random(&self) -> u64 {
        let state = self.random.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.random.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn unlisten(&self, which: impl Fn(ListenerId) -> bool) {
        self.listeners.borrow_mut().retain(|(id, listener)| {
            let closing = which(*id);
            if closing {
                self.net.close_listener(listener);
            }
            !closing
        });
    }

    fn begin_drain(&self, seconds: u32) {
        let now = self.slots.now();
        self.drain.set(Some(Drain { idle_until: now + seconds / 2, until: now + seconds }));
        self.unlisten(|_| true);
        self.keep_all();
        self.withdraw_room();
        self.clusters.close_idle();
        self.look_for_end();
    }

    /// Whether a drain has come to where idle connections are ended.
    fn ends_idle(&self, now: u32) -> bool {
        self.drain.get().is_some_and(|drain| now >= drain.idle_until)
    }

    /// Whether responses have to say that the connection ends.
    fn is_draining(&self) -> bool {
        self.drain.get().is_some()
    }

    /// Whether health checks are told that traffic is welcome.
    fn is_ready(&self) -> bool {
        self.reader.publisher().is_ready() && !self.is_draining()
    }

    /// Nothing is accepted any more, and nobody is left of those who were, not on its doorstep either.
    fn has_drained(&self) -> bool {
        self.is_draining() && self.connections.get() == 0 && self.accepting.get() == 0 && self.promised.get() == 0
    }

    fn look_for_end(&self) {
        if self.has_drained()
            && let Some(waker) = self.waiting_for_end.borrow_mut().take()
        {
            waker.wake();
        }
    }

    async fn drained(&self) {
        poll_fn(|cx| {
            if self.has_drained() {
                return Poll::Ready(());
            }
            *self.waiting_for_end.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}
