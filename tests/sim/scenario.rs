//! One seed: the proxy's cores, the world around them, and what must hold at the end.

use super::audit::Audit;
use super::backend::Backend;
use super::client::Client;
use super::config::{Config, addresses_of, backend_endpoint, front};
use super::control::{Control, Core, Seen, fronts_of};
use super::dice::Dice;
use super::ledger::{Ledger, Rules};
use super::lines;
use super::plan::{Manner, Plan};
use crossbeam_channel::bounded;
use ringway::access_log::{self, LogWriter, Sink};
use ringway::config::{HalfClose, LogTarget};
use ringway::event::CoreStats;
use ringway::publish::Publisher;
use ringway::route::Endpoint;
use ringway::supervisor::{Resolutions, Supervisor};
use ringway::worker::net::Net;
use ringway::worker::net::mem::{Fault, Mem, MemListener, Weather};
use ringway::worker::start::Doorstep;
use ringway::worker::{self, Links, Plain};
use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{FromRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
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
    pub accept_failures: u64,
    /// Requests that waited for their turn, and how many of them were answered with 503.
    pub waited: u64,
    pub waited_in_vain: u64,
    /// Newcomers and connections that went over to another core.
    pub handed: u64,
    pub moved: u64,
    pub retries: u64,
    /// Times that the invariants were looked at.
    pub steps: u64,
    pub cores: u64,
    pub storms: u64,
    pub control: Seen,
    pub violations: Vec<String>,
}

/// Exchanges that every seed has at least.
pub const EXCHANGES_MIN: u64 = 50;
/// The most cores that a seed has.
const CORES_MAX: usize = 4;

fn weather(dice: &mut Dice) -> Weather {
    let rough = Weather {
        pipe_bytes: dice.pick(&[700, 4096, 16_000]),
        burst_once_in: dice.pick(&[0, 20, 5]),
        burst_us: dice.pick(&[300, 5_000]),
        splice_from: dice.pick(&[None, Some(1), Some(1000)]),
        // A full queue of connections lets the next ones wait for a second or more.
        backlog: if dice.once_in(10) { dice.range(2, 8) } else { 4096 },
        seconds_max: 2400,
        ..Weather::default()
    };
    match dice.below(4) {
        0 => Weather { late_once_in: 3, late_us: 8_000, latency_us: 2_000, ..rough },
        1 => Weather { short: false, late_once_in: 0, pipe_bytes: 1 << 18, ..rough },
        _ => rough,
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
    let (pipe_bytes, short_backlog, at_once) = (weather.pipe_bytes, weather.backlog < 100, !weather.short);
    let mem = Mem::with(seed, weather);
    let cores = dice.range(1, CORES_MAX);
    let config = Config::random(&mut dice, cores);
    let plan = config.plan();
    let count = config.backends.len();
    let (plans, clients) = play(&mut dice, count);
    let rules = Rules {
        client_head_timeout: plan.settings.client_head_timeout,
        client_body_timeout: plan.settings.client_body_timeout,
        half_close_aborts: plan.settings.client_half_close == HalfClose::Abort,
        crowded: config.crowded(),
        policies: plan.clusters.values().map(|cluster| cluster.policy.clone()).collect(),
        capped: config.max_conns.iter().map(Option::is_some).collect(),
    };
    let (logs, idle_timeout) = (plan.settings.log_target != LogTarget::Off, plan.settings.client_idle_timeout);
    let ledger = Rc::new(Ledger::new(plans, rules, verbose));
    if verbose {
        println!("{plan:#?}");
    }
    if short_backlog {
        ledger.trouble(None, 0, u64::MAX, "connections queue up");
    }
    let file = memory_file();
    let sink = Sink::Open(file.try_clone().expect("a descriptor"));
    let log = access_log::spawn(cores, sink).expect("a thread for the log");
    let doors = backends(&mem, &ledger, &config.backends, &mut dice, at_once);
    let supervisor = Supervisor::new(plan, cores, Resolutions::default()).expect("a checked plan");
    let control = Rc::new(world(&mem, &ledger, &mut dice, (config, supervisor), &log));
    let audit = Rc::downgrade(&control.audit);
    let step = move || {
        if let Some(audit) = audit.upgrade() {
            audit.step();
        }
    };
    mem.on_step(step.clone());
    *ledger.on_arrival.borrow_mut() = Some(Box::new(step));
    let client = |dice: Dice| Client {
        mem: mem.clone(),
        ledger: ledger.clone(),
        dice: RefCell::new(dice),
        pipe_bytes,
        idle_timeout,
        fronts: control.fronts.clone(),
    };
    let left = Rc::new(Cell::new(clients.len()));
    for connections in clients {
        let (client, control, left) = (client(dice.split()), control.clone(), left.clone());
        mem.spawn(async move {
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
    let stormy = dice.once_in(3);
    if stormy {
        storm(&mem, &mut dice, &left, count, &client);
    }
    let early_drain = dice.once_in(5).then(|| dice.below(20_000_000));
    let last = client(dice.split());
    let epilogue = async || epilogue(&last, cores, count).await;
    mem.run(control.clone().play(left, (early_drain, EXCHANGES_MIN), epilogue));
    for door in &doors {
        mem.close_listener(door);
    }
    drop(doors);
    mem.run(mem.sleep_us(30_000_000));
    check_end(&control, &mem, cores);
    let mut shown = shown(&control);
    let dropped = control.audit.sum(|stats| &stats.log_dropped);
    (shown.cores, shown.storms) = (cores as u64, stormy.into());
    drop((control, last));
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

/// The cores, and control in front of them.
fn world(
    mem: &Mem,
    ledger: &Rc<Ledger>,
    dice: &mut Dice,
    (config, supervisor): (Config, Supervisor),
    log: &LogWriter,
) -> Control {
    let count = supervisor.snapshot().table.clusters().first().map_or(1, |c| c.waits.cores());
    let publisher = Publisher::new(supervisor.snapshot());
    let bells: Rc<Vec<Mem>> = Rc::new((0..count).map(|_| mem.another_core()).collect());
    let (to_control, outbox) = bounded(16);
    let doorsteps: Arc<[Doorstep]> = (0..count).map(|_| Doorstep::default()).collect();
    let mut cores = Vec::new();
    for (index, core) in bells.iter().enumerate() {
        let (inbox, messages) = bounded(1024);
        let stats = Arc::new(CoreStats::default());
        let bells = bells.clone();
        let links = Links {
            core: index,
            publisher: publisher.clone(),
            inbox: messages,
            outbox: to_control.clone(),
            ring_control: Arc::new(|| {}),
            ring_core: Rc::new(move |core| bells[core].ring()),
            doorsteps: doorsteps.clone(),
            stats: stats.clone(),
            log: log.queue(index, stats.clone()),
        };
        let here = |listener| core.listen(&fronts_of(listener, count)[index]);
        let listeners = supervisor.listeners().into_iter().map(|(id, listener)| (id, here(listener))).collect();
        mem.spawn(worker::run(core.clone(), Plain, links, listeners));
        cores.push(Core { mem: core.clone(), inbox, stats });
    }
    let audit = Rc::new(Audit::new(mem, ledger, cores.iter().map(|core| core.stats.clone()).collect()));
    Control::new((mem, ledger, audit), dice.split(), (config, supervisor), (publisher, outbox), cores)
}

/// Many connections at one moment that all do the same: their deadlines fall into the same tick.
fn storm(mem: &Mem, dice: &mut Dice, left: &Rc<Cell<usize>>, clusters: usize, client: &impl Fn(Dice) -> Client) {
    let (many, begin) = (dice.range(20, 60), dice.below(10_000_000));
    let part = dice.range(1, 999);
    let kind = dice.below(4);
    let cluster = dice.below(clusters as u64) as usize;
    for _ in 0..many {
        let client = client(dice.split());
        let id = client.ledger.add(|id| Plan::of_storm(id, cluster, kind, part));
        left.update(|n| n + 1);
        let (mem_, left) = (mem.clone(), left.clone());
        mem.spawn(async move {
            mem_.sleep_us(begin).await;
            play_connection(&client, &[id], false).await;
            left.set(left.get() - 1);
        });
    }
}

/// When all is quiet and nothing is broken any more, each core serves each cluster.
async fn epilogue(client: &Client, cores: usize, clusters: usize) {
    for (core, cluster) in (0..cores).flat_map(|core| (0..clusters).map(move |cluster| (core, cluster))) {
        let id = client.ledger.add(|id| Plan::plain(id, cluster));
        client.connection(&front(0, core), &[id], false).await;
        let seen = client.ledger.with(id, |entry| entry.seen);
        if !seen.whole || seen.own {
            client.ledger.violation(format!("core {core} does not serve c{cluster} when all is well: {seen:?}"));
        }
    }
}

fn shown(control: &Control) -> Shown {
    let audit = &control.audit;
    let count = |of: fn(&CoreStats) -> &std::sync::atomic::AtomicU64| audit.sum(of);
    let exchanges = count(|stats| &stats.exchanges);
    let waits = |of: fn(&ringway::route::waits::WaitCell) -> u64| audit.waits(of);
    let seen = *control.seen.borrow();
    if exchanges < EXCHANGES_MIN || seen.reloads == 0 || seen.faults == 0 {
        control.ledger.violation(format!("a tame seed: {exchanges} exchanges, {seen:?}"));
    }
    Shown {
        exchanges,
        accept_failures: count(|stats| &stats.accept_failures),
        retries: count(|stats| &stats.retries),
        waited: waits(|cell| cell.waited.load(Ordering::Relaxed)),
        waited_in_vain: waits(|cell| cell.overflowed.load(Ordering::Relaxed) + cell.timed_out.load(Ordering::Relaxed)),
        handed: count(|stats| &stats.handed_in),
        moved: count(|stats| &stats.moved_in),
        steps: audit.steps.get(),
        control: seen,
        ..Shown::default()
    }
}

/// After the drain: the cores hold nothing and have counted everything.
fn check_end(control: &Control, mem: &Mem, cores: usize) {
    let counts = mem.counts();
    // Of a drained core its clock, its doorbell and its parking lot are left.
    if (counts.streams, counts.tasks, counts.operations) != (0, 4 * cores, 3 * cores) {
        control.ledger.violation(format!("{counts:?} is left of {cores} cores"));
    }
    let given = |of: [fn(&CoreStats) -> &std::sync::atomic::AtomicU64; 2]| of.map(|of| control.audit.sum(of));
    for [outs, ins] in [given([|s| &s.handed_out, |s| &s.handed_in]), given([|s| &s.moved_out, |s| &s.moved_in])] {
        if outs != ins {
            control.ledger.violation(format!("{outs} connections were given to other cores, and {ins} taken over"));
        }
    }
    control.audit.step();
    control.audit.check_quiet("after the drain");
    control.audit.check_ends();
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

fn backends(
    mem: &Mem,
    ledger: &Rc<Ledger>,
    clusters: &[usize],
    dice: &mut Dice,
    at_once: bool,
) -> Vec<Rc<MemListener>> {
    let mut doors = Vec::new();
    for (cluster, count) in clusters.iter().enumerate() {
        let named = addresses_of(cluster).map(|ip| Endpoint::Ip((ip, 8080).into()));
        for endpoint in (0..*count).map(|backend| backend_endpoint(cluster, backend)).chain(named) {
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
            let backend = Backend { mem: mem_, ledger, cluster, dice: RefCell::new(dice.split()), idle_us, at_once };
            mem.spawn(Rc::new(backend).run(door.clone()));
            doors.push(door);
        }
    }
    doors
}
