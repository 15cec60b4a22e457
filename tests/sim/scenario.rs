//! One seed: the proxy's cores, the world around them, what control does to them meanwhile, and what must hold at the end.

use super::backend::Backend;
use super::client::Client;
use super::dice::Dice;
use super::ledger::{Ledger, Rules};
use super::plan::{Manner, Plan};
use crossbeam_channel::{Receiver, Sender, bounded};
use ringway::access_log::{self, LogWriter, Sink};
use ringway::config::{Address, HalfClose, Listener, ListenerId, LogFormat, LogTarget, Settings};
use ringway::event::{CoreStats, FromWorker, ToWorker};
use ringway::limits;
use ringway::publish::{Publisher, Snapshot};
use ringway::route::health::{Cells, State};
use ringway::route::table::{self, Balance, Cluster, NewRoute, OnTimeout, Policy, RouteTable};
use ringway::route::{BackendId, ClusterId, Endpoint};
use ringway::worker::net::Net;
use ringway::worker::net::mem::{Fault, Mem, MemListener, Weather};
use ringway::worker::{self, Links, Plain};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What a seed has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub trace: u64,
    /// Exchanges that ended with the backend's whole response, and all others.
    pub completed: usize,
    pub failed: usize,
    pub violations: Vec<String>,
}

/// A backend as control knows it.
#[derive(Clone)]
struct Endpointed {
    id: BackendId,
    name: String,
    endpoint: Endpoint,
    weight: u32,
    cells: Arc<Cells>,
    state: State,
    listed: bool,
}

/// Control, as far as the cores notice.
struct Control {
    mem: Mem,
    ledger: Rc<Ledger>,
    dice: RefCell<Dice>,
    settings: Arc<Settings>,
    clusters: RefCell<Vec<Vec<Endpointed>>>,
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

fn weather(dice: &mut Dice) -> Weather {
    let rough = Weather { pipe_bytes: dice.pick(&[700, 4096, 16_000]), seconds_max: 1200, ..Weather::default() };
    match dice.below(4) {
        0 => Weather { late_once_in: 3, late_us: 8_000, latency_us: 2_000, ..rough },
        1 => Weather { short: false, late_once_in: 0, pipe_bytes: 1 << 18, ..rough },
        _ => rough,
    }
}

pub fn policy(dice: &mut Dice) -> Policy {
    Policy {
        balance: dice.pick(&[Balance::RoundRobin, Balance::Random, Balance::LeastConn]),
        connect_timeout: dice.range(1, 3) as u32,
        head_timeout: dice.range(2, 5) as u32,
        body_timeout: dice.range(2, 5) as u32,
        tunnel_timeout: dice.range(2, 6) as u32,
        body_max: if dice.once_in(4) { 10_000 } else { u64::MAX },
        retries: dice.range(0, 3) as u32,
        pool_idle: dice.range(1, 5) as u32,
        pool_max: dice.pick(&[0, 1, 64, 64]),
        on_timeout: OnTimeout::Silent,
        probe_path: None,
        client_body_timeout: dice.range(2, 5) as u32,
        client_rate_min: if dice.once_in(2) { limits::CLIENT_RATE_MIN } else { 0 },
    }
}

pub fn settings(dice: &mut Dice, front: &[Endpoint]) -> Settings {
    let listener = |endpoint: &Endpoint| {
        let address = match endpoint {
            Endpoint::Ip(address) => Address::Ip(*address),
            Endpoint::Unix(path) => Address::Unix(path.clone()),
        };
        Some(Listener { name: "front".into(), address, trusted_proxies: Vec::new() })
    };
    Settings {
        listeners: front.iter().map(listener).collect(),
        client_head_timeout: dice.range(3, 6) as u32,
        client_idle_timeout: dice.range(6, 9) as u32,
        client_body_timeout: dice.range(2, 5) as u32,
        client_half_close: if dice.once_in(4) { HalfClose::Abort } else { HalfClose::Serve },
        client_rate_min: if dice.once_in(2) { limits::CLIENT_RATE_MIN } else { 0 },
        connections_per_worker: if dice.once_in(6) { 5 } else { 10_000 },
        underscores: Default::default(),
        via: dice.once_in(3).then(|| "ringway".to_string()),
        pages: Default::default(),
        log_target: if dice.once_in(4) { LogTarget::Stdout } else { LogTarget::Off },
        log_format: LogFormat::Json,
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
    while plans.len() < 75 {
        let plan = Plan::random(dice, plans.len(), clusters, true);
        clients[0].push((vec![plan.id], false));
        plans.push(plan);
    }
    (plans, clients)
}

/// Runs one seed.
pub fn run(seed: u64, verbose: bool) -> Shown {
    let mut dice = Dice::new(seed);
    let weather = weather(&mut dice);
    let pipe_bytes = weather.pipe_bytes;
    let mem = Mem::with(seed, weather);
    let front: Vec<Endpoint> =
        (0..dice.range(1, 2)).map(|core| Endpoint::Ip(([10, 1, 0, core as u8], 80).into())).collect();
    let settings = settings(&mut dice, &front);
    let clusters: Vec<(Policy, usize)> = (0..dice.range(1, 4)).map(|_| (policy(&mut dice), dice.range(1, 4))).collect();
    let (plans, clients) = play(&mut dice, clusters.len());
    let rules = Rules {
        client_head_timeout: settings.client_head_timeout,
        client_body_timeout: settings.client_body_timeout,
        half_close_aborts: settings.client_half_close == HalfClose::Abort,
        crowded: settings.connections_per_worker < 100,
        policies: clusters.iter().map(|(policy, _)| policy.clone()).collect(),
    };
    let ledger = Rc::new(Ledger::new(plans, rules, verbose));
    let log = access_log::spawn(front.len(), Sink::Off).expect("a thread for the log");
    let doors = backends(&mem, &ledger, &clusters, &mut dice);
    let idle_timeout = settings.client_idle_timeout;
    let control = Rc::new(Control::new(&mem, &ledger, dice.split(), settings, &clusters, &front, &log));
    if verbose {
        println!("{:#?}\n{:#?}", control.settings, ledger.rules);
    }
    let left = Rc::new(Cell::new(clients.len()));
    for connections in clients {
        let (mem, ledger, dice) = (mem.clone(), ledger.clone(), dice.split());
        let client = Client { mem, ledger, dice: RefCell::new(dice), pipe_bytes, idle_timeout };
        let (front, left) = (front.clone(), left.clone());
        mem_spawn(&control.mem.clone(), async move {
            for (ids, pipelined) in connections {
                let to = { client.dice.borrow_mut().range(0, front.len() - 1) };
                client.connection(&front[to], &ids, pipelined).await;
                let pause = client.dice.borrow_mut().below(400_000);
                client.mem.sleep_us(pause).await;
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
    drop(control);
    mem.finish();
    mem.run(mem.sleep_us(1_000_000));
    let counts = mem.counts();
    if counts.streams + counts.listeners + counts.tasks + counts.operations > 0 {
        ledger.violation(format!("after the end of all tasks there is {counts:?}"));
    }
    ledger.close();
    let violations = ledger.violations.borrow().clone();
    Shown { trace: mem.trace(), completed: ledger.completed.get(), failed: ledger.failed.get(), violations }
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
        clusters: &[(Policy, usize)],
        front: &[Endpoint],
        log: &LogWriter,
    ) -> Control {
        let settings = Arc::new(settings);
        let endpointed = |cluster: usize, backend: usize| Endpointed {
            id: BackendId((cluster * 10 + backend) as u32),
            name: format!("b{backend}"),
            endpoint: backend_endpoint(cluster, backend),
            weight: 1 + (cluster + backend) as u32 % 3,
            cells: Arc::new(Cells::new(front.len())),
            state: State::Up,
            listed: true,
        };
        let known: Vec<Vec<Endpointed>> =
            clusters.iter().enumerate().map(|(c, (_, n))| (0..*n).map(|b| endpointed(c, b)).collect()).collect();
        let publisher = Publisher::new(snapshot((1, 1), &known, ledger, &settings));
        let (to_control, outbox) = bounded(16);
        let mut cores = Vec::new();
        for (index, front) in front.iter().enumerate() {
            let core = if index == 0 { mem.clone() } else { mem.another_core() };
            let (inbox, messages) = bounded(64);
            let stats = Arc::new(CoreStats::default());
            let links = Links {
                core: index,
                publisher: publisher.clone(),
                inbox: messages,
                outbox: to_control.clone(),
                ring_control: Arc::new(|| {}),
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
            settings,
            dark: RefCell::new(vec![None; known.len()]),
            clusters: RefCell::new(known),
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
        let mut next = 0;
        while left.get() > 0 && early_drain.is_none_or(|at| self.mem.now_us() < at) {
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

    /// One health flip or reload.
    async fn meddle(&self) {
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
                        backend.listed = !backend.listed || dice.once_in(3);
                        if !backend.listed {
                            gone.push(backend.id);
                        }
                    } else {
                        backend.state = dice.pick(&[State::Up, State::Up, State::Down, State::Drain]);
                    }
                }
                // Most of the time somebody is there.
                if !dice.once_in(8) && !backends.iter().any(Endpointed::serves) {
                    reload |= !backends[0].listed;
                    (backends[0].listed, backends[0].state) = (true, State::Up);
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
        let next = {
            let clusters = self.clusters.borrow();
            let mut next = snapshot((generation, epoch), &clusters, &self.ledger, &self.settings);
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
        for core in &self.cores {
            if !gone.is_empty() {
                let forget = ToWorker::Forget { backends: gone.clone(), clusters: Vec::new() };
                core.inbox.send(forget).expect("room in the inbox");
            }
            core.mem.ring();
        }
        while self.cores.iter().any(|core| core.stats.epoch.load(Ordering::Acquire) != epoch) {
            self.mem.sleep_us(100).await;
            if self.mem.now_us() - begun > 1_000_000 {
                return self.ledger.violation(format!("epoch {epoch} is not acknowledged"));
            }
        }
    }

    fn check_end(&self) {
        let counts = self.mem.counts();
        // Of a drained core its clock and its doorbell are left.
        let cores = self.cores.len();
        if (counts.streams, counts.tasks, counts.operations) != (0, 2 * cores, 2 * cores) {
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
        for backend in self.clusters.borrow().iter().flatten() {
            if backend.cells.all().iter().any(|cell| cell.in_flight.load(Ordering::Relaxed) != 0) {
                self.ledger.violation(format!("{}: exchanges in flight {when}", backend.endpoint));
            }
        }
    }
}

impl Endpointed {
    fn serves(&self) -> bool {
        self.listed && self.state == State::Up
    }
}

fn requests(cells: &Cells) -> u64 {
    cells.all().iter().map(|cell| cell.requests.load(Ordering::Relaxed)).sum()
}

fn snapshot(
    (generation, epoch): (u64, u64),
    known: &[Vec<Endpointed>],
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
            cells: b.cells.clone(),
        };
        let cluster = Arc::new(Cluster {
            id: ClusterId(index as u32),
            name: format!("c{index}"),
            backends: listed().map(backend).collect(),
            first_state: states.len(),
            policy: ledger.rules.policies[index].clone(),
        });
        states.extend(listed().map(|b| b.state));
        let host = format!("c{index}.test");
        routes.push(NewRoute { name: host.clone(), host, path: "/".into(), cluster: cluster.clone() });
        clusters.push(cluster);
    }
    let table = Arc::new(RouteTable::build(clusters, routes).expect("routes differ"));
    Snapshot { generation, epoch, table, states: states.into(), settings: settings.clone() }
}
