//! One seed: the proxy's cores, the world around them, what control does to them meanwhile, and what must hold at the end.

use super::backend::Backend;
use super::client::Client;
use super::dice::Dice;
use super::ledger::{Ledger, NO_DESCRIPTORS, Rules};
use super::lines;
use super::plan::{Manner, Plan};
use crossbeam_channel::{Receiver, Sender, bounded};
use ringway::access_log::{self, LogWriter, Sink};
use ringway::config::{Address, HalfClose, Listener, ListenerId, LogFormat, LogTarget, Settings};
use ringway::event::{CoreStats, FromWorker, ToWorker};
use ringway::limits;
use ringway::publish::{Publisher, Snapshot};
use ringway::route::counts::ClusterEnds;
use ringway::route::health::{Cells, CoreCell, Standing, State};
use ringway::route::health_policy::{HealthPolicy, StatusSet};
use ringway::route::table::{self, Balance, Cluster, Hash, HashBy, NewRoute, Policy, RouteTable};
use ringway::route::waits::{WaitCell, Waits};
use ringway::route::{BackendId, ClusterId, Endpoint};
use ringway::worker::net::Net;
use ringway::worker::net::mem::{Fault, Mem, MemListener, Weather};
use ringway::worker::{self, Links, Plain};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{FromRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What a seed has shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    pub trace: u64,
    /// Exchanges that ended with the backend's whole response, and all others.
    pub completed: usize,
    pub failed: usize,
    /// Exchanges that have ended at the proxy.
    pub exchanges: u64,
    /// How often accept failed, and listeners came.
    pub accept_failures: u64,
    pub listeners: u32,
    /// Requests that waited for their turn, and how many of them were answered with 503.
    pub waited: u64,
    pub waited_in_vain: u64,
    pub violations: Vec<String>,
}

/// A backend as control knows it.
#[derive(Clone)]
struct Endpointed {
    id: BackendId,
    name: String,
    endpoint: Endpoint,
    weight: u32,
    backup: bool,
    cells: Arc<Cells>,
    standing: Standing,
    listed: bool,
    max_conns: u32,
}

/// Control, as far as the cores notice.
struct Control {
    mem: Mem,
    ledger: Rc<Ledger>,
    dice: RefCell<Dice>,
    settings: RefCell<Arc<Settings>>,
    /// Where clients may connect; the listeners that came by reload, by number.
    fronts: Rc<RefCell<Vec<Endpoint>>>,
    extra: RefCell<Vec<(ListenerId, Vec<Endpoint>)>>,
    listeners: Cell<u32>,
    clusters: RefCell<Vec<Vec<Endpointed>>>,
    waits: Vec<Arc<Waits>>,
    paused: RefCell<BTreeSet<ClusterId>>,
    publisher: Arc<Publisher>,
    cores: Vec<Core>,
    outbox: Receiver<FromWorker>,
    /// Since when a cluster has nobody up.
    dark: RefCell<Vec<Option<u64>>>,
    drained: Cell<usize>,
    done: Cell<bool>,
}

struct Core {
    mem: Mem,
    inbox: Sender<ToWorker>,
    stats: Arc<CoreStats>,
    front: Endpoint,
}

const LISTENER: ListenerId = ListenerId(0);
/// Exchanges that every seed has at least.
pub const EXCHANGES_MIN: u64 = 50;
/// Listeners that reloads may add to the first.
const EXTRA_MAX: usize = 3;

fn weather(dice: &mut Dice) -> Weather {
    let rough = Weather {
        pipe_bytes: dice.pick(&[700, 4096, 16_000]),
        splice_from: dice.pick(&[None, Some(1), Some(1000)]),
        seconds_max: 1200,
        ..Weather::default()
    };
    match dice.below(4) {
        0 => Weather { late_once_in: 3, late_us: 8_000, latency_us: 2_000, ..rough },
        1 => Weather { short: false, late_once_in: 0, pipe_bytes: 1 << 18, ..rough },
        _ => rough,
    }
}

pub fn policy(dice: &mut Dice) -> Policy {
    Policy {
        balance: match dice.below(4) {
            0 => Balance::RoundRobin,
            1 => Balance::Random,
            2 => Balance::LeastConn,
            _ => Balance::Hash(Hash { by: HashBy::Path, bounded_load: dice.pick(&[0, 100, 125]) }),
        },
        fail_open: 0,
        connect_timeout: dice.range(1, 3) as u32,
        head_timeout: dice.range(2, 5) as u32,
        body_timeout: dice.range(2, 5) as u32,
        tunnel_timeout: dice.range(2, 6) as u32,
        body_max: if dice.once_in(4) { 10_000 } else { u64::MAX },
        retries: dice.range(0, 3) as u32,
        retry_percent: dice.pick(&[0, 20, 100]),
        retry_min_per_second: dice.pick(&[0, 10]),
        queue_max: dice.pick(&[1, 3, 1000]),
        queue_timeout: dice.range(1, 4) as u32,
        pool_idle: dice.range(1, 5) as u32,
        pool_max: dice.pick(&[0, 1, 64, 64]),
        health: HealthPolicy {
            statuses: if dice.once_in(3) { StatusSet::default().with_class(5) } else { StatusSet::default() },
            ..HealthPolicy::default()
        },
        client_body_timeout: dice.range(2, 5) as u32,
        client_rate_min: if dice.once_in(2) { limits::CLIENT_RATE_MIN } else { 0 },
    }
}

fn listener(name: &str, endpoint: &Endpoint) -> Listener {
    let address = match endpoint {
        Endpoint::Ip(address) => Address::Ip(*address),
        Endpoint::Unix(path) => Address::Unix(path.clone()),
    };
    Listener { name: name.into(), address, trusted_proxies: Vec::new(), health_path: None }
}

/// Where one core listens for one listener.
fn front(listener: usize, core: usize) -> Endpoint {
    Endpoint::Ip(([10, 1, listener as u8, core as u8], 80).into())
}

pub fn settings(dice: &mut Dice, front: &[Endpoint]) -> Settings {
    Settings {
        listeners: vec![Some(listener("front", &front[0]))],
        client_head_timeout: dice.range(3, 6) as u32,
        client_idle_timeout: dice.range(6, 9) as u32,
        client_body_timeout: dice.range(2, 5) as u32,
        client_half_close: if dice.once_in(4) { HalfClose::Abort } else { HalfClose::Serve },
        client_rate_min: if dice.once_in(2) { limits::CLIENT_RATE_MIN } else { 0 },
        connections_per_worker: if dice.once_in(6) { 5 } else { 10_000 },
        underscores: Default::default(),
        via: dice.once_in(3).then(|| "ringway".to_string()),
        pages: Default::default(),
        log_target: if dice.once_in(4) { LogTarget::Off } else { LogTarget::Stdout },
        log_format: LogFormat::Json,
        log_lines: Default::default(),
        drain_timeout: 10,
        retry_after: 5,
        pooled_per_worker: 1000,
        pipes_per_worker: dice.pick(&[0, 1, 10]),
    }
}

/// The connections of one client in order: whose plans, and whether they are pipelined.
type Connections = Vec<(Vec<usize>, bool)>;

/// The plans of each connection of each client: most connections serve several requests, a fault ends one.
fn play(dice: &mut Dice, clusters: usize) -> (Vec<Plan>, Vec<Connections>) {
    let (mut plans, mut clients) = (Vec::new(), Vec::new());
    for _ in 0..dice.range(4, 12) {
        let mut connections = Vec::new();
        for _ in 0..dice.range(2, 5) {
            let mut ids = Vec::new();
            for _ in 0..dice.range(1, 6) {
                let plan = Plan::random(dice, plans.len(), clusters, ids.is_empty());
                ids.push(plan.id);
                let ends = plan.last || plan.manner.is_fault() || plan.manner == Manner::HalfClose || plan.upgrade;
                plans.push(plan);
                if ends {
                    break;
                }
            }
            connections.push((ids, dice.once_in(3)));
        }
        clients.push(connections);
        if clients.len() >= 4 && plans.len() >= 100 {
            break;
        }
    }
    (plans, clients)
}

/// Runs one seed.
pub fn run(seed: u64, verbose: bool) -> Shown {
    let mut dice = Dice::new(seed);
    let weather = weather(&mut dice);
    let pipe_bytes = weather.pipe_bytes;
    let mem = Mem::with(seed, weather);
    let front: Vec<Endpoint> = (0..dice.range(1, 2)).map(|core| front(0, core)).collect();
    let settings = settings(&mut dice, &front);
    let clusters: Vec<(Policy, usize)> = (0..dice.range(1, 4)).map(|_| (policy(&mut dice), dice.range(1, 4))).collect();
    let count = clusters.len();
    // Most clusters have no limit; in the others each backend has the same.
    let limits: Vec<u32> = clusters.iter().map(|_| if dice.once_in(3) { dice.range(1, 3) as u32 } else { 0 }).collect();
    let (plans, clients) = play(&mut dice, count);
    let rules = Rules {
        client_head_timeout: settings.client_head_timeout,
        client_body_timeout: settings.client_body_timeout,
        half_close_aborts: settings.client_half_close == HalfClose::Abort,
        crowded: settings.connections_per_worker < 100,
        policies: clusters.iter().map(|(policy, _)| policy.clone()).collect(),
        capped: limits.iter().map(|limit| *limit > 0).collect(),
    };
    let ledger = Rc::new(Ledger::new(plans, rules, verbose));
    let file = memory_file();
    let sink = Sink::Open(file.try_clone().expect("a descriptor"));
    let log = access_log::spawn(front.len(), sink).expect("a thread for the log");
    let doors = backends(&mem, &ledger, &clusters, &mut dice);
    let idle_timeout = settings.client_idle_timeout;
    let control = Rc::new(Control::new(&mem, &ledger, dice.split(), settings, (&clusters, &limits), &front, &log));
    let watch = Rc::downgrade(&control);
    *ledger.on_arrival.borrow_mut() = Some(Box::new(move || {
        if let Some(control) = watch.upgrade() {
            control.check_limits();
        }
    }));
    if verbose {
        println!("{:#?}\n{:#?}", control.settings.borrow(), ledger.rules);
    }
    let left = Rc::new(Cell::new(clients.len()));
    for connections in clients {
        let (mem, ledger, fronts) = (mem.clone(), ledger.clone(), control.fronts.clone());
        let client = Client { mem, ledger, dice: RefCell::new(dice.split()), pipe_bytes, idle_timeout, fronts };
        let (control, left) = (control.clone(), left.clone());
        mem_spawn(&control.mem.clone(), async move {
            for (ids, pipelined) in connections {
                play_connection(&client, &ids, pipelined).await;
            }
            // Who is done goes on as long as the seed has not seen enough.
            while control.exchanges() < EXCHANGES_MIN {
                let id = {
                    let mut dice = client.dice.borrow_mut();
                    client.ledger.add(|id| Plan::random(&mut dice, id, count, true))
                };
                play_connection(&client, &[id], false).await;
            }
            left.set(left.get() - 1);
        });
    }
    let early_drain = dice.once_in(5).then(|| dice.below(20_000_000));
    mem.run(control.clone().play(left, early_drain));
    for door in &doors {
        mem.close_listener(door);
    }
    drop(doors);
    mem.run(mem.sleep_us(30_000_000));
    control.check_end();
    let mut shown = control.shown();
    let (logs, dropped) = (control.logs(), control.sum(|stats| &stats.log_dropped));
    drop(control);
    mem.finish();
    mem.run(mem.sleep_us(1_000_000));
    let counts = mem.counts();
    if counts.streams + counts.listeners + counts.tasks + counts.operations > 0 {
        ledger.violation(format!("after the end of all tasks there is {counts:?}"));
    }
    ledger.close();
    if !log.finish(Duration::from_secs(60)) {
        ledger.violation("the log's thread does not end".into());
    }
    if logs {
        lines::judge(&whole(&file), &ledger, shown.exchanges, dropped);
    }
    shown.trace = mem.trace();
    (shown.completed, shown.failed) = (ledger.completed.get(), ledger.failed.get());
    shown.violations = ledger.violations.borrow().clone();
    shown
}

async fn play_connection(client: &Client, ids: &[usize], pipelined: bool) {
    let to = {
        let fronts = client.fronts.borrow();
        fronts[client.dice.borrow_mut().range(0, fronts.len() - 1)].clone()
    };
    client.connection(&to, ids, pipelined).await;
    let pause = client.dice.borrow_mut().below(400_000);
    client.mem.sleep_us(pause).await;
}

/// A file that is only in memory.
fn memory_file() -> File {
    let fd = unsafe { libc::memfd_create(c"log".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    File::from(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn whole(mut file: &File) -> String {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).expect("a file can be read again");
    file.read_to_string(&mut text).expect("a log is text");
    text
}

fn mem_spawn(mem: &Mem, task: impl Future<Output = ()> + 'static) {
    mem.spawn(task);
}

fn backend_endpoint(cluster: usize, backend: usize) -> Endpoint {
    match (cluster + backend) % 5 {
        4 => Endpoint::Unix(format!("/run/c{cluster}-b{backend}").into()),
        _ => Endpoint::Ip(([10, 2, cluster as u8, backend as u8], 8080).into()),
    }
}

fn backends(mem: &Mem, ledger: &Rc<Ledger>, clusters: &[(Policy, usize)], dice: &mut Dice) -> Vec<Rc<MemListener>> {
    let mut doors = Vec::new();
    for (cluster, (_, count)) in clusters.iter().enumerate() {
        for backend in 0..*count {
            let endpoint = backend_endpoint(cluster, backend);
            if dice.once_in(12) {
                let bytes = Some(dice.length() as u64 * 3 + 100);
                let (sends, receives) = if dice.once_in(2) { (bytes, None) } else { (None, bytes) };
                mem.fault(
                    &endpoint,
                    Fault { reset_after_sent: sends, reset_after_received: receives, ..Fault::default() },
                );
                ledger.trouble(Some(cluster), 0, u64::MAX, "a backend resets its connections");
            }
            let idle_us = dice.once_in(3).then(|| 200_000 + dice.below(3_000_000));
            let door = Rc::new(mem.listen(&endpoint));
            let (mem_, ledger) = (mem.clone(), ledger.clone());
            let backend = Backend { mem: mem_, ledger, cluster, dice: RefCell::new(dice.split()), idle_us };
            mem.spawn(Rc::new(backend).run(door.clone()));
            doors.push(door);
        }
    }
    doors
}

impl Control {
    fn new(
        mem: &Mem,
        ledger: &Rc<Ledger>,
        dice: Dice,
        settings: Settings,
        (clusters, limits): (&[(Policy, usize)], &[u32]),
        front: &[Endpoint],
        log: &LogWriter,
    ) -> Control {
        let settings = Arc::new(settings);
        let endpointed = |cluster: usize, backend: usize| Endpointed {
            id: BackendId((cluster * 10 + backend) as u32),
            name: format!("b{backend}"),
            endpoint: backend_endpoint(cluster, backend),
            weight: 1 + (cluster + backend) as u32 % 3,
            backup: backend == 2,
            cells: Arc::new(Cells::new(front.len())),
            standing: Standing::Up,
            listed: true,
            max_conns: limits[cluster],
        };
        let known: Vec<Vec<Endpointed>> =
            clusters.iter().enumerate().map(|(c, (_, n))| (0..*n).map(|b| endpointed(c, b)).collect()).collect();
        let waits: Vec<Arc<Waits>> = known.iter().map(|_| Arc::new(Waits::new(front.len()))).collect();
        let publisher = Publisher::new(snapshot((1, 1), (&known, &waits), ledger, &settings));
        let bells: Rc<RefCell<Vec<Mem>>> = Rc::default();
        let (to_control, outbox) = bounded(16);
        let mut cores = Vec::new();
        for (index, front) in front.iter().enumerate() {
            // The first core of the net is the clients' and the backends'.
            let core = mem.another_core();
            bells.borrow_mut().push(core.clone());
            let bells = bells.clone();
            let (inbox, messages) = bounded(64);
            let stats = Arc::new(CoreStats::default());
            let links = Links {
                core: index,
                publisher: publisher.clone(),
                inbox: messages,
                outbox: to_control.clone(),
                ring_control: Arc::new(|| {}),
                ring_core: Rc::new(move |core| bells.borrow()[core].ring()),
                stats: stats.clone(),
                log: log.queue(index, stats.clone()),
            };
            let listener = core.listen(front);
            mem.spawn(worker::run(core.clone(), Plain, links, vec![(LISTENER, listener)]));
            cores.push(Core { mem: core, inbox, stats, front: front.clone() });
        }
        Control {
            mem: mem.clone(),
            ledger: ledger.clone(),
            dice: RefCell::new(dice),
            settings: RefCell::new(settings),
            fronts: Rc::new(RefCell::new(front.to_vec())),
            extra: RefCell::default(),
            listeners: Cell::new(0),
            dark: RefCell::new(vec![None; known.len()]),
            clusters: RefCell::new(known),
            waits,
            paused: RefCell::default(),
            publisher,
            cores,
            outbox,
            drained: Cell::new(0),
            done: Cell::new(false),
        }
    }

    /// Meddles until all clients are done, then drains.
    async fn play(self: Rc<Self>, left: Rc<Cell<usize>>, early_drain: Option<u64>) {
        self.mem.sleep_us(1000).await;
        self.mem.spawn(self.clone().faults());
        if self.dice.borrow_mut().once_in(3) {
            self.mem.spawn(self.clone().scarcity());
        }
        let mut next = 0;
        let early = || early_drain.is_some_and(|at| self.mem.now_us() >= at && self.exchanges() >= EXCHANGES_MIN);
        while left.get() > 0 && !early() {
            self.mem.sleep_us(50_000).await;
            self.read_outbox();
            if self.mem.now_us() >= next {
                self.meddle().await;
                next = self.mem.now_us() + self.dice.borrow_mut().below(3_000_000);
            }
        }
        self.done.set(true);
        if left.get() == 0 && self.dice.borrow_mut().once_in(2) {
            // Longer than any time of the settings: nothing may be left of anybody.
            self.mem.sleep_us(40_000_000).await;
            self.read_outbox();
            self.check_quiet("40 s after the last client");
        }
        let seconds = self.dice.borrow_mut().range(2, 8) as u32;
        let begun = self.mem.now_us();
        self.ledger.drained_from.set(begun);
        self.ledger.say(begun, || format!("drain of {seconds} s"));
        for core in &self.cores {
            core.inbox.send(ToWorker::Drain { seconds }).expect("room in the inbox");
            core.mem.ring();
        }
        while self.drained.get() < self.cores.len() {
            self.mem.sleep_us(50_000).await;
            self.read_outbox();
            let took = self.mem.now_us() - begun;
            if took > u64::from(seconds + 4) * limits::TICK_MS * 1000 {
                self.ledger.violation(format!("a drain of {seconds} s is not done after {took} us"));
                break;
            }
        }
        self.ledger.say(self.mem.now_us(), || "drained".into());
        // Clients that only wait for something that will not come have an end too.
        while left.get() > 0 {
            self.mem.sleep_us(500_000).await;
        }
    }

    fn read_outbox(&self) {
        for message in self.outbox.try_iter() {
            if let FromWorker::Drained { .. } = message {
                self.drained.set(self.drained.get() + 1);
            }
        }
    }

    /// Makes endpoints refuse, swallow or delay connects for a while.
    async fn faults(self: Rc<Self>) {
        while !self.done.get() {
            let pause = self.dice.borrow_mut().below(12_000_000);
            self.mem.sleep_us(pause).await;
            let (cluster, endpoint, fault, us) = {
                let mut dice = self.dice.borrow_mut();
                let clusters = self.clusters.borrow();
                let cluster = dice.below(clusters.len() as u64) as usize;
                let endpoint = clusters[cluster][dice.below(clusters[cluster].len() as u64) as usize].endpoint.clone();
                let fault = match dice.below(3) {
                    0 => Fault { refuse: true, ..Fault::default() },
                    1 => Fault { blackhole: true, ..Fault::default() },
                    _ => Fault { delay_us: dice.below(1_500_000), ..Fault::default() },
                };
                (cluster, endpoint, fault, dice.below(3_000_000))
            };
            let begun = self.mem.now_us();
            let patience = u64::from(self.ledger.rules.policies[cluster].connect_timeout + 2) * 1_000_000;
            self.ledger.say(begun, || format!("{endpoint} of c{cluster}: {fault:?} for {us} us"));
            self.ledger.trouble(Some(cluster), begun, begun + us + patience, "connects fail");
            self.mem.fault(&endpoint, fault);
            self.mem.sleep_us(us).await;
            self.mem.fault(&endpoint, Fault::default());
        }
    }

    /// Takes the descriptors away for a while: neither accept nor connect get one.
    async fn scarcity(self: Rc<Self>) {
        while !self.done.get() {
            let (pause, us, most, errno) = {
                let mut dice = self.dice.borrow_mut();
                let errno = dice.pick(&[libc::EMFILE, libc::ENFILE]);
                (dice.below(10_000_000), dice.below(4_000_000), dice.range(0, 6), errno)
            };
            self.mem.sleep_us(pause).await;
            let begun = self.mem.now_us();
            self.ledger.say(begun, || format!("{most} descriptors per core for {us} us, else {errno}"));
            // Who waits to be accepted is served a tick later.
            self.ledger.trouble(None, begun, begun + us + 2 * limits::TICK_MS * 1000, NO_DESCRIPTORS);
            self.cores.iter().for_each(|core| core.mem.scarce(most, errno));
            self.mem.sleep_us(us).await;
            self.cores.iter().for_each(|core| core.mem.scarce(usize::MAX, 0));
        }
    }

    /// The sum of one counter over all cores.
    fn sum(&self, of: impl Fn(&CoreStats) -> &AtomicU64) -> u64 {
        self.cores.iter().map(|core| of(&core.stats).load(Ordering::Relaxed)).sum()
    }

    fn exchanges(&self) -> u64 {
        self.sum(|stats| &stats.exchanges)
    }

    fn logs(&self) -> bool {
        self.settings.borrow().log_target != LogTarget::Off
    }

    fn shown(&self) -> Shown {
        let (exchanges, accept_failures) = (self.exchanges(), self.sum(|stats| &stats.accept_failures));
        if exchanges < EXCHANGES_MIN {
            self.ledger.violation(format!("only {exchanges} exchanges"));
        }
        let waits = |of: fn(&WaitCell) -> &AtomicU64| {
            self.waits.iter().flat_map(|w| w.all()).map(|cell| of(cell).load(Ordering::Relaxed)).sum()
        };
        let waited = waits(|cell| &cell.waited);
        let waited_in_vain: u64 = waits(|cell| &cell.overflowed) + waits(|cell| &cell.timed_out);
        let listeners = self.listeners.get();
        Shown { exchanges, accept_failures, listeners, waited, waited_in_vain, ..Shown::default() }
    }

    /// A reload adds a listener, or takes away one that an earlier one has added. Returns what is to be told to each core.
    fn change_listeners(&self) -> Vec<ToWorker> {
        let (mut extra, mut dice) = (self.extra.borrow_mut(), self.dice.borrow_mut());
        let mut settings = Settings::clone(&self.settings.borrow());
        let mut messages = Vec::new();
        if extra.len() == EXTRA_MAX || (!extra.is_empty() && dice.once_in(2)) {
            let at = dice.below(extra.len() as u64) as usize;
            let (id, gone) = extra.swap_remove(at);
            self.fronts.borrow_mut().retain(|front| !gone.contains(front));
            settings.listeners[id.0 as usize] = None;
            messages.extend(self.cores.iter().map(|_| ToWorker::Unlisten { id }));
        } else {
            let number = settings.listeners.len();
            let (id, fronts) = (ListenerId(number as u32), (0..self.cores.len()).map(|core| front(number, core)));
            let fronts: Vec<Endpoint> = fronts.collect();
            settings.listeners.push(Some(listener("extra", &fronts[0])));
            for front in &fronts {
                let fd = self.mem.offer(front).expect("a descriptor");
                messages.push(ToWorker::Listen { id, fd, unix: false });
            }
            self.fronts.borrow_mut().extend(fronts.iter().cloned());
            extra.push((id, fronts));
            self.listeners.update(|n| n + 1);
        }
        *self.settings.borrow_mut() = Arc::new(settings);
        messages
    }

    /// Lets the requests of one cluster wait for a while. Meanwhile none is sent.
    async fn pause(&self) {
        let (cluster, us) = {
            let mut dice = self.dice.borrow_mut();
            (dice.below(self.waits.len() as u64) as usize, dice.below(4_000_000))
        };
        let begun = self.mem.now_us();
        self.ledger.say(begun, || format!("c{cluster} is paused for {us} us"));
        // It takes a while until all cores have heard of it, and of its end.
        self.ledger.pause(cluster, begun, begun + us + 2_000_000);
        self.paused.borrow_mut().insert(ClusterId(cluster as u32));
        self.publish(false, Vec::new()).await;
        let sent = || self.clusters.borrow()[cluster].iter().map(|b| requests(&b.cells)).sum::<u64>();
        let before = sent();
        self.mem.sleep_us(us).await;
        if sent() != before {
            self.ledger.violation(format!("a request went to c{cluster} while it was paused"));
        }
        self.paused.borrow_mut().clear();
        self.publish(false, Vec::new()).await;
    }

    /// Whether backends have more exchanges than they may.
    fn check_limits(&self) {
        for backend in self.clusters.borrow().iter().flatten().filter(|b| b.max_conns > 0) {
            let cells = backend.cells.all();
            let in_flight: u32 = cells.iter().map(|cell| cell.in_flight.load(Ordering::Relaxed)).sum();
            if in_flight > backend.max_conns {
                let (endpoint, most) = (&backend.endpoint, backend.max_conns);
                self.ledger.violation(format!("{endpoint} has {in_flight} exchanges, and may have {most}"));
            }
        }
    }

    /// One health flip, reload or pause.
    async fn meddle(&self) {
        if self.dice.borrow_mut().once_in(4) {
            return self.pause().await;
        }
        let mut reload = self.dice.borrow_mut().once_in(3);
        let (mut gone, mut closed) = (Vec::new(), Vec::new());
        {
            let mut dice = self.dice.borrow_mut();
            let mut clusters = self.clusters.borrow_mut();
            for (cluster, backends) in clusters.iter_mut().enumerate() {
                for backend in backends.iter_mut() {
                    if !dice.once_in(4) {
                        continue;
                    }
                    if reload {
                        let listed = !backend.listed || dice.once_in(3);
                        if !listed {
                            gone.push(backend.id);
                        } else if !backend.listed {
                            backend.begin_anew();
                        }
                        backend.listed = listed;
                    } else {
                        backend.standing =
                            dice.pick(&[Standing::Up, Standing::Up, Standing::Down, Standing::Drain, Standing::Maint]);
                    }
                }
                // Most of the time somebody is there.
                if !dice.once_in(8) && !backends.iter().any(Endpointed::serves) {
                    if !backends[0].listed {
                        reload = true;
                        // It may have gone just now, unseen by anybody.
                        if !gone.contains(&backends[0].id) {
                            backends[0].begin_anew();
                        }
                    }
                    (backends[0].listed, backends[0].standing) = (true, Standing::Up);
                    gone.retain(|id| *id != backends[0].id);
                }
                let now = self.mem.now_us();
                let dark = &mut self.dark.borrow_mut()[cluster];
                match (dark.is_some(), backends.iter().any(Endpointed::serves)) {
                    (false, false) => *dark = Some(now),
                    (true, true) => *dark = None,
                    _ => {}
                }
            }
            closed.extend(clusters.iter().flatten().filter(|b| !b.serves()).map(|b| (b.name.clone(), b.cells.clone())));
        }
        self.publish(reload, gone).await;
        // From here on both cores have said that they go by the new snapshot.
        let counted: Vec<(String, Arc<Cells>, u64)> =
            closed.into_iter().map(|(name, cells)| (name, cells.clone(), requests(&cells))).collect();
        let pause = self.dice.borrow_mut().below(2_000_000);
        self.mem.sleep_us(pause).await;
        for (name, cells, before) in counted {
            if requests(&cells) != before {
                let now = self.mem.now_us();
                self.ledger.violation(format!("a request went to {name} after {now} although it is not up"));
            }
        }
    }

    async fn publish(&self, reload: bool, gone: Vec<BackendId>) {
        let current = self.publisher.current();
        let (generation, epoch) = (current.generation + u64::from(reload), current.epoch + 1);
        let listeners = if reload && self.dice.borrow_mut().once_in(2) { self.change_listeners() } else { Vec::new() };
        let next = {
            let clusters = self.clusters.borrow();
            let known = (&clusters[..], &self.waits[..]);
            let mut next = snapshot((generation, epoch), known, &self.ledger, &self.settings.borrow());
            next.paused = self.paused.borrow().iter().copied().collect();
            if !reload {
                next.table = current.table.clone();
            }
            next
        };
        drop(current);
        let begun = self.mem.now_us();
        self.ledger
            .say(begun, || format!("epoch {epoch}, generation {generation}, without {gone:?}: {:?}", next.states));
        for (cluster, dark) in self.dark.borrow().iter().enumerate().filter(|(_, dark)| dark.is_some()) {
            self.ledger.say(begun, || format!("c{cluster} is dark since {dark:?}"));
            self.ledger.trouble(Some(cluster), begun, begun + 10_000_000, "nobody is up");
        }
        self.publisher.publish(next);
        for (core, message) in self.cores.iter().zip(listeners) {
            core.inbox.send(message).expect("room in the inbox");
        }
        for core in &self.cores {
            if !gone.is_empty() {
                let forget = ToWorker::Forget { backends: gone.clone(), clusters: Vec::new() };
                core.inbox.send(forget).expect("room in the inbox");
            }
            core.mem.ring();
        }
        while self.cores.iter().any(|core| core.stats.epoch.load(Ordering::Acquire) < epoch) {
            self.mem.sleep_us(100).await;
            if self.mem.now_us() - begun > 1_000_000 {
                return self.ledger.violation(format!("epoch {epoch} is not acknowledged"));
            }
        }
    }

    fn check_end(&self) {
        let counts = self.mem.counts();
        // Of a drained core its clock, its doorbell and its parking lot are left.
        let cores = self.cores.len();
        if (counts.streams, counts.tasks, counts.operations) != (0, 3 * cores, 3 * cores) {
            self.ledger.violation(format!("{counts:?} is left of {cores} cores"));
        }
        if counts.stale_handles + counts.bytes_lost > 0 {
            self.ledger.violation(format!("{counts:?}: stale handles were used, or bytes lost"));
        }
        self.check_quiet("after the drain");
    }

    /// No connection, no buffer, no exchange.
    fn check_quiet(&self, when: &str) {
        for core in &self.cores {
            let stats = &core.stats;
            let left = [&stats.connections, &stats.buffers, &stats.pooled, &stats.idle, &stats.panics];
            if left.iter().any(|n| n.load(Ordering::Relaxed) > 0) {
                self.ledger.violation(format!("{}: {stats:?} {when}", core.front));
            }
        }
        if self.waits.iter().flat_map(|w| w.all()).any(|cell| cell.waiting.load(Ordering::Relaxed) != 0) {
            self.ledger.violation(format!("requests wait {when}"));
        }
        for backend in self.clusters.borrow().iter().flatten() {
            if backend.cells.all().iter().any(|cell| cell.in_flight.load(Ordering::Relaxed) != 0) {
                self.ledger.violation(format!("{}: exchanges in flight {when}", backend.endpoint));
            }
        }
    }
}

impl Endpointed {
    /// It was gone, and is another one: numbers are given once, and what is counted goes with them.
    fn begin_anew(&mut self) {
        self.id = BackendId(self.id.0 + 1000);
        self.cells = Arc::new(Cells::new(self.cells.cores()));
    }

    fn serves(&self) -> bool {
        self.listed && self.standing == Standing::Up
    }
}

/// Requests sent to an endpoint, but for the retries that had nobody left who is up: those may go to one that is down.
fn requests(cells: &Cells) -> u64 {
    let of = |cell: &CoreCell| cell.requests.load(Ordering::Relaxed) - cell.fail_open.load(Ordering::Relaxed);
    cells.all().iter().map(of).sum()
}

fn snapshot(
    (generation, epoch): (u64, u64),
    (known, waits): (&[Vec<Endpointed>], &[Arc<Waits>]),
    ledger: &Ledger,
    settings: &Arc<Settings>,
) -> Snapshot {
    let (mut clusters, mut routes, mut states) = (Vec::new(), Vec::new(), Vec::new());
    for (index, backends) in known.iter().enumerate() {
        let listed = || backends.iter().filter(|b| b.listed);
        let backend = |b: &Endpointed| table::Backend {
            id: b.id,
            name: b.name.clone(),
            endpoint: b.endpoint.clone(),
            weight: b.weight,
            backup: b.backup,
            max_conns: b.max_conns,
            cells: b.cells.clone(),
        };
        let cluster = Arc::new(Cluster {
            id: ClusterId(index as u32),
            name: format!("c{index}"),
            backends: listed().map(backend).collect(),
            first_state: states.len(),
            policy: ledger.rules.policies[index].clone(),
            ends: Arc::new(ClusterEnds::new(backends[0].cells.cores())),
            waits: waits[index].clone(),
        });
        states.extend(listed().map(|b| State::new(b.standing, b.weight)));
        let host = format!("c{index}.test");
        routes.push(NewRoute { name: host.clone(), host, path: "/".into(), cluster: cluster.clone() });
        clusters.push(cluster);
    }
    let table = Arc::new(RouteTable::build(clusters, routes).expect("routes differ"));
    let (states, settings) = (states.into(), settings.clone());
    Snapshot { generation, epoch, table, states, paused: Arc::default(), settings }
}
