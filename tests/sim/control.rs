//! Control as the cores notice it: the real supervisor, carried out on the net in memory. It reloads, patches, pauses,
//! drains and overrules at random, probes, hears the cores, and now and then stands still.

use super::audit::{Audit, TAKEN_OVER_US};
use super::config::{Config, QUIET_SECONDS, addresses_of, front, name_of};
use super::dice::Dice;
use super::ledger::{Ledger, WANT};
use crossbeam_channel::{Receiver, Sender, bounded};
use ringway::config::orders::Wish;
use ringway::config::{Address, Listener, ListenerId};
use ringway::cores::Order;
use ringway::event::{CoreStats, FromWorker, TakenAway, ToWorker};
use ringway::limits;
use ringway::publish::Publisher;
use ringway::route::{BackendId, Endpoint};
use ringway::supervisor::{Action, Administered, Committed, Probe, ProbeId, Resolutions, Supervisor, Whose};
use ringway::worker::net::mem::{Fault, Mem};
use ringway::worker::net::{How, Net, Stream};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// One core, from control's side.
pub struct Core {
    pub mem: Mem,
    pub inbox: Sender<ToWorker>,
    pub stats: Arc<CoreStats>,
}

/// Where a verdict will be.
type Awaited = Rc<RefCell<Option<Verdict>>>;

/// See the head of the file.
pub struct Control {
    pub mem: Mem,
    pub ledger: Rc<Ledger>,
    pub audit: Rc<Audit>,
    dice: RefCell<Dice>,
    config: RefCell<Config>,
    supervisor: RefCell<Supervisor>,
    /// Where clients may connect.
    pub fronts: Rc<RefCell<Vec<Endpoint>>>,
    publisher: Arc<Publisher>,
    cores: Vec<Core>,
    outbox: Receiver<FromWorker>,
    /// Probes that will give a verdict, and the verdict once it is there.
    verdicts: RefCell<Vec<(ProbeId, Awaited)>>,
    done: Cell<bool>,
    stopped: Cell<bool>,
    /// The second in which the cores were told to give away.
    evened: Cell<u64>,
    pub seen: RefCell<Seen>,
}

type Verdict = Result<String, String>;

/// What control has done in a seed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub reloads: u64,
    pub patches: u64,
    pub words: u64,
    pub pauses: u64,
    pub answers: u64,
    pub publications: u64,
    pub probes: u64,
    pub marks: u64,
    pub listeners: u64,
    pub faults: u64,
    pub stalls: u64,
    pub wants: u64,
    pub drained_away: u64,
}

/// The number in a listener's address, by which the cores' own addresses are made.
fn number(listener: &Listener) -> u8 {
    match &listener.address {
        Address::Ip(address) => match address.ip() {
            std::net::IpAddr::V4(ip) => ip.octets()[2],
            std::net::IpAddr::V6(_) => unreachable!("listeners of simulations have IPv4 addresses"),
        },
        _ => unreachable!("listeners of simulations have IP addresses"),
    }
}

/// Where all cores listen for this listener.
pub fn fronts_of(listener: &Listener, cores: usize) -> Vec<Endpoint> {
    (0..cores).map(|core| front(number(listener), core)).collect()
}

impl Control {
    pub fn new(
        (mem, ledger, audit): (&Mem, &Rc<Ledger>, Rc<Audit>),
        dice: Dice,
        (config, supervisor): (Config, Supervisor),
        (publisher, outbox): (Arc<Publisher>, Receiver<FromWorker>),
        cores: Vec<Core>,
    ) -> Control {
        audit.published(&supervisor.snapshot());
        let fronts = supervisor.listeners().iter().flat_map(|(_, l)| fronts_of(l, cores.len())).collect();
        Control {
            mem: mem.clone(),
            ledger: ledger.clone(),
            audit,
            dice: RefCell::new(dice),
            config: RefCell::new(config),
            supervisor: RefCell::new(supervisor),
            fronts: Rc::new(RefCell::new(fronts)),
            publisher,
            cores,
            outbox,
            verdicts: RefCell::default(),
            done: Cell::new(false),
            stopped: Cell::new(false),
            evened: Cell::new(0),
            seen: RefCell::default(),
        }
    }

    fn now_ms(&self) -> u64 {
        self.mem.now_us() / 1000
    }

    fn say(&self, what: impl FnOnce() -> String) {
        self.ledger.say(self.mem.now_us(), what);
    }

    pub fn exchanges(&self) -> u64 {
        self.audit.sum(|stats| &stats.exchanges)
    }

    /// Meddles until all clients are done, or until an early drain; lets `epilogue` play when all is quiet; then drains.
    pub async fn play(
        self: Rc<Self>,
        left: Rc<Cell<usize>>,
        (early_drain, exchanges_min): (Option<u64>, u64),
        epilogue: impl AsyncFnOnce(),
    ) {
        self.mem.sleep_us(1000).await;
        let troubles = Rc::new(Cell::new(1));
        self.mem.spawn(self.clone().faults(troubles.clone()));
        if self.dice.borrow_mut().once_in(3) {
            troubles.set(2);
            self.mem.spawn(self.clone().scarcity(troubles.clone()));
        }
        let mut next = 0;
        let early = || early_drain.is_some_and(|at| self.mem.now_us() >= at && self.exchanges() >= exchanges_min);
        while left.get() > 0 && !early() {
            let step = self.dice.borrow_mut().below(50_000);
            self.turn(step).await;
            if self.mem.now_us() >= next {
                self.meddle().await;
                next = self.mem.now_us() + self.dice.borrow_mut().below(2_500_000);
            }
        }
        if self.seen.borrow().reloads == 0 {
            self.reload();
        }
        self.done.set(true);
        if left.get() == 0 && self.dice.borrow_mut().once_in(2) {
            while troubles.get() > 0 {
                self.turn(100_000).await;
            }
            self.heal();
            self.turns(QUIET_SECONDS).await;
            self.audit.check_quiet("40 s after the last client");
            let over = Rc::new(Cell::new(false));
            let (me, end) = (self.clone(), over.clone());
            self.mem.spawn(async move {
                while !end.get() {
                    me.turn(50_000).await;
                }
            });
            epilogue().await;
            over.set(true);
            self.turns(QUIET_SECONDS).await;
            self.audit.check_quiet("40 s after the epilogue");
        }
        self.drain().await;
        // Clients that only wait for something that will not come have an end too.
        while left.get() > 0 {
            self.mem.sleep_us(500_000).await;
        }
    }

    async fn turns(&self, seconds: u64) {
        let until = self.mem.now_us() + seconds * 1_000_000;
        while self.mem.now_us() < until {
            self.turn(50_000).await;
        }
    }

    /// One turn of the loop, and a pause behind it.
    async fn turn(&self, us: u64) {
        let now = self.now_ms();
        let mut reported = BTreeSet::new();
        for message in self.outbox.try_iter() {
            match message {
                FromWorker::Report { backend, .. } => drop(reported.insert(backend)),
                FromWorker::Retired(snapshot) => drop(snapshot),
                FromWorker::Drained { core, cut } => {
                    let actions = self.supervisor.borrow_mut().drained(core, cut, now);
                    self.act(actions);
                }
            }
        }
        let lost = |core: &&Core| core.stats.look_at_all.swap(false, Ordering::AcqRel);
        let actions = match self.cores.iter().filter(lost).count() {
            0 => reported.into_iter().flat_map(|id| self.supervisor.borrow_mut().look(id, now)).collect(),
            _ => self.supervisor.borrow_mut().look_at_all(now),
        };
        self.act(actions);
        let mut probed = Vec::new();
        for (id, verdict) in self.verdicts.borrow_mut().extract_if(.., |(_, verdict)| verdict.borrow().is_some()) {
            let verdict = verdict.take().expect("just seen");
            let actions = self.supervisor.borrow_mut().probe_result(id, verdict, now);
            probed.extend(actions);
        }
        self.act(probed);
        let actions = self.supervisor.borrow_mut().tick(now);
        self.act(actions);
        self.supervisor.borrow().invariants();
        self.even();
        self.mem.sleep_us(us).await;
    }

    /// For some seconds, and then not for some, each core has to give a part of its newcomers and of its connections to the
    /// next one, whatever they do: more than any judgement would ask for.
    fn even(&self) {
        let second = self.mem.now_us() / 1_000_000;
        if self.cores.len() < 2 || second % 6 >= 4 || self.evened.replace(second) == second {
            return;
        }
        for (from, core) in self.cores.iter().enumerate() {
            let to = (from + 1) % self.cores.len();
            let order = Order { to, newcomers: 300 + 100 * from as u32, work: 200 * (second % 4) as u32 };
            let _ = core.inbox.try_send(ToWorker::Even(order));
        }
        self.ring();
    }

    fn act(&self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Publish(snapshot) => self.publish(snapshot),
                Action::Probe(probe) => self.probe(probe),
                Action::Rest { backends, rests } => {
                    self.tell(|| ToWorker::Rest { backends: backends.clone(), rests });
                    self.ring();
                }
                Action::Over { .. } => {}
                Action::Log(note) => {
                    self.seen.borrow_mut().marks += 1;
                    self.say(|| format!("{note:?}"));
                }
                Action::Stop { cut, missing } => {
                    self.say(|| format!("stop: {cut} cut, {missing} missing"));
                    if missing > 0 {
                        self.ledger.violation(format!("{missing} cores have not drained"));
                    }
                    self.stopped.set(true);
                }
            }
        }
    }

    fn publish(&self, snapshot: ringway::publish::Snapshot) {
        self.seen.borrow_mut().publications += 1;
        self.say(|| {
            let of = |c: &Arc<ringway::route::table::Cluster>| {
                let states = snapshot.states[c.first_state..].iter();
                let each = c.backends.iter().zip(states).map(|(b, s)| format!("{}:{:?}", b.name, s.standing));
                format!("{} [{}]", c.name, each.collect::<Vec<_>>().join(" "))
            };
            let clusters: Vec<String> = snapshot.table.clusters().iter().map(of).collect();
            format!("epoch {}: {}; paused {:?}", snapshot.epoch, clusters.join(", "), snapshot.paused)
        });
        self.audit.published(&snapshot);
        self.publisher.publish(snapshot);
        self.ring();
    }

    fn tell(&self, message: impl Fn() -> ToWorker) {
        for core in &self.cores {
            core.inbox.send(message()).expect("room in the inbox");
        }
    }

    /// Rings each core, some of them a moment later.
    fn ring(&self) {
        for core in &self.cores {
            let us = if self.dice.borrow_mut().once_in(3) { self.dice.borrow_mut().below(20_000) } else { 0 };
            let mem = core.mem.clone();
            if us == 0 {
                mem.ring();
            } else {
                self.mem.spawn(async move {
                    mem.sleep_us(us).await;
                    mem.ring();
                });
            }
        }
    }

    /// Probes an endpoint: a connection, and for a request a verdict by chance.
    fn probe(&self, probe: Probe) {
        self.seen.borrow_mut().probes += 1;
        let good = probe.spec.request.is_none() || !self.dice.borrow_mut().once_in(5);
        let lost = self.dice.borrow_mut().once_in(30);
        let (mem, verdict) = (self.mem.clone(), Rc::new(RefCell::new(None)));
        let outcome = verdict.clone();
        let (until, id) = (self.mem.now_us() + u64::from(probe.spec.timeout) * 1_000_000, probe.id);
        self.mem.spawn(async move {
            let handle = Cell::new(None);
            let over = Rc::new(Cell::new(false));
            let connected = mem.connect(&probe.endpoint, |started| {
                handle.set(Some(started));
                let (mem, over) = (mem.clone(), over.clone());
                mem.clone().spawn(async move {
                    mem.sleep_us(until - mem.now_us()).await;
                    if !over.get() {
                        mem.shutdown(started, How::Both);
                    }
                });
            });
            let connected = connected.await;
            over.set(true);
            *outcome.borrow_mut() = Some(match connected {
                Ok(stream) => {
                    stream.close();
                    if good { Ok("probed".to_owned()) } else { Err("status 500".to_owned()) }
                }
                Err(error) => Err(error.to_string()),
            });
        });
        if !lost {
            self.verdicts.borrow_mut().push((id, verdict));
        }
    }

    /// A config as it is now: prepared, opened, committed, published.
    fn commit(&self) -> TakenAway {
        let plan = self.config.borrow().plan();
        let prepared = self.supervisor.borrow().prepare(plan, Resolutions::default());
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(refusal) => {
                self.ledger.violation(format!("a reload is refused: {refusal}"));
                return TakenAway::default();
            }
        };
        let open = |listener: &Listener| -> Vec<OwnedFd> {
            let fronts = fronts_of(listener, self.cores.len());
            fronts.iter().map(|front| self.mem.offer(front).expect("a descriptor")).collect()
        };
        let opened: Vec<(ListenerId, Vec<OwnedFd>)> =
            prepared.listeners_to_open().into_iter().map(|(id, listener)| (id, open(listener))).collect();
        let committed = self.supervisor.borrow_mut().commit(prepared, self.now_ms());
        self.seen.borrow_mut().listeners += opened.len() as u64;
        self.carry_out(committed, opened)
    }

    fn carry_out(&self, committed: Committed, opened: Vec<(ListenerId, Vec<OwnedFd>)>) -> TakenAway {
        let change = committed.change;
        // Nobody connects any more to what is about to be closed.
        let listeners = self.supervisor.borrow();
        let listeners = listeners.listeners();
        *self.fronts.borrow_mut() = listeners.iter().flat_map(|(_, l)| fronts_of(l, self.cores.len())).collect();
        self.publish(committed.snapshot);
        for id in &change.listeners_to_close {
            self.tell(|| ToWorker::Unlisten { id: *id });
        }
        for (id, sockets) in opened {
            for (core, fd) in self.cores.iter().zip(sockets) {
                core.inbox.send(ToWorker::Listen { id, fd, unix: false }).expect("room in the inbox");
            }
        }
        if !change.removed_backends.is_empty() || !change.removed_clusters.is_empty() {
            let (backends, clusters) = (&change.removed_backends, &change.removed_clusters);
            self.tell(|| ToWorker::Forget { backends: backends.clone(), clusters: clusters.clone() });
        }
        self.ring();
        change.taken_away
    }

    fn reload(&self) -> TakenAway {
        self.seen.borrow_mut().reloads += 1;
        self.config.borrow_mut().reload(&mut self.dice.borrow_mut());
        self.say(|| "reload".into());
        self.commit()
    }

    /// Everybody may serve again, whatever operators said.
    fn heal(&self) {
        self.config.borrow_mut().heal(&mut self.dice.borrow_mut());
        self.say(|| "heal".into());
        self.commit();
        let said = self.supervisor.borrow().overrides();
        for word in said {
            self.administer(&word.cluster, &word.backend, Wish::Up, None);
        }
        let paused: Vec<String> = self.supervisor.borrow().pauses().keys().cloned().collect();
        for cluster in paused {
            let done = self.supervisor.borrow_mut().resume(&cluster);
            self.administered(done);
        }
        for cluster in 0..self.config.borrow().backends.len() {
            self.resolved(cluster, &addresses_of(cluster)[..1]);
        }
        self.mem.heal();
    }

    fn resolved(&self, cluster: usize, addresses: &[std::net::IpAddr]) {
        let answer = if addresses.is_empty() { Err("no answer".to_owned()) } else { Ok(addresses.to_vec()) };
        let committed = self.supervisor.borrow_mut().resolved(&name_of(cluster), answer, self.now_ms());
        if let Some(committed) = committed {
            self.seen.borrow_mut().answers += 1;
            self.carry_out(committed, Vec::new());
        }
    }

    fn whose(&self, seconds: Option<u64>) -> Whose {
        Whose { who: "sim".into(), why: None, unix: 1_700_000_000 + self.mem.now_us() / 1_000_000, seconds }
    }

    fn administer(&self, cluster: &str, backend: &str, wish: Wish, seconds: Option<u64>) -> TakenAway {
        self.seen.borrow_mut().words += 1;
        self.say(|| format!("{cluster}/{backend}: {wish:?} for {seconds:?} s"));
        let whose = self.whose(seconds);
        let done = self.supervisor.borrow_mut().administer(cluster, backend, wish, whose, self.now_ms());
        self.administered(done)
    }

    fn administered(&self, done: Result<Administered, String>) -> TakenAway {
        match done {
            Ok(done) => {
                self.act(done.actions);
                done.away
            }
            Err(why) => {
                self.ledger.violation(format!("an operator's word is refused: {why}"));
                TakenAway::default()
            }
        }
    }

    /// One thing that an operator does, or a moment in which control does nothing at all.
    async fn meddle(self: &Rc<Self>) {
        let dice = |f: &dyn Fn(&mut Dice) -> u64| f(&mut self.dice.borrow_mut());
        let away = match dice(&|d| d.below(12)) {
            0..3 => self.reload(),
            3 | 4 => {
                self.seen.borrow_mut().patches += 1;
                self.config.borrow_mut().patch(&mut self.dice.borrow_mut());
                self.say(|| "patch".into());
                self.commit()
            }
            5..8 => self.say_a_word(),
            8 | 9 => {
                self.seen.borrow_mut().pauses += 1;
                let cluster = format!("c{}", dice(&|d| d.below(self.config.borrow().backends.len() as u64)));
                let whose = self.whose(Some(dice(&|d| d.range(1, 4) as u64)));
                let paused = self.supervisor.borrow().pauses().contains_key(&cluster);
                let done = match paused {
                    true => self.supervisor.borrow_mut().resume(&cluster),
                    false => self.supervisor.borrow_mut().pause(&cluster, whose, self.now_ms()),
                };
                self.administered(done)
            }
            10 => {
                let cluster = dice(&|d| d.below(self.config.borrow().backends.len() as u64)) as usize;
                let all = addresses_of(cluster);
                let (from, to) = [(0, 0), (0, 1), (1, 2), (0, 2)][dice(&|d| d.below(4)) as usize];
                self.resolved(cluster, &all[from..to]);
                TakenAway::default()
            }
            _ => {
                self.seen.borrow_mut().stalls += 1;
                match dice(&|d| d.below(2)) {
                    // Control alone: its channel fills, and the cores go on.
                    0 => self.mem.sleep_us(dice(&|d| d.below(6_000_000))).await,
                    // Everything: what is due comes late and together.
                    _ => {
                        let us = dice(&|d| d.below(400_000));
                        self.ledger.stalled(self.mem.now_us(), us);
                        self.mem.stall_us(us);
                    }
                }
                TakenAway::default()
            }
        };
        if !away.backends.is_empty() {
            self.mem.spawn(self.clone().watch(away));
        }
    }

    fn say_a_word(&self) -> TakenAway {
        let word = {
            let supervisor = self.supervisor.borrow();
            let snapshot = supervisor.snapshot();
            let mut dice = self.dice.borrow_mut();
            let clusters = snapshot.table.clusters();
            let cluster = &clusters[dice.below(clusters.len() as u64) as usize];
            if cluster.backends.is_empty() {
                return TakenAway::default();
            }
            let backend = &cluster.backends[dice.below(cluster.backends.len() as u64) as usize];
            let wish = match dice.below(6) {
                0 | 1 => Wish::Drain,
                2 => Wish::Maint,
                3 => Wish::Weight(dice.range(1, 9) as u32),
                _ => Wish::Up,
            };
            let seconds = (!dice.once_in(3)).then(|| dice.range(1, 6) as u64);
            (cluster.name.clone(), backend.name.clone(), wish, seconds)
        };
        self.administer(&word.0, &word.1, word.2, word.3)
    }

    /// Asks what remains on what was taken away until the cores say: nothing. Then that must be so.
    async fn watch(self: Rc<Self>, away: TakenAway) {
        let backends: Vec<BackendId> = away.backends.iter().copied().collect();
        let (epoch, away) = (away.epoch, Arc::new(away));
        for _ in 0..200 {
            self.mem.sleep_us(50_000).await;
            if self.stopped.get() || self.done.get() {
                return;
            }
            if self.audit.acknowledged() < epoch {
                continue;
            }
            let (answer, answers) = bounded(self.cores.len());
            self.tell(|| ToWorker::Count { on: away.clone(), answer: answer.clone() });
            self.ring();
            let mut heard = Vec::new();
            while heard.len() < self.cores.len() {
                self.mem.sleep_us(5_000).await;
                heard.extend(answers.try_iter());
                if self.stopped.get() || self.done.get() {
                    return;
                }
            }
            let Some(alone) = self.audit.is_left_alone(backends.iter().copied()) else { return };
            if heard.iter().all(|(_, remains)| remains.is_empty()) {
                self.seen.borrow_mut().drained_away += 1;
                if !alone {
                    self.ledger
                        .violation(format!("the cores say that nothing remains on {backends:?}, and something does"));
                }
                return;
            }
        }
    }

    async fn drain(&self) {
        let begun = self.mem.now_us();
        let seconds = self.supervisor.borrow_mut().drain(self.now_ms()).expect("it has not begun before");
        self.ledger.drained_from.set(begun);
        self.say(|| format!("drain of {seconds} s"));
        self.tell(|| ToWorker::Drain { seconds });
        self.ring();
        while !self.stopped.get() {
            self.turn(50_000).await;
            let took = self.mem.now_us() - begun;
            if took > u64::from(seconds + 4) * limits::TICK_MS * 1000 {
                self.ledger.violation(format!("a drain of {seconds} s is not done after {took} us"));
                break;
            }
        }
        self.say(|| "drained".into());
    }

    /// Makes endpoints refuse, swallow or delay connects for a while.
    async fn faults(self: Rc<Self>, troubles: Rc<Cell<u32>>) {
        let mut first = true;
        while !self.done.get() {
            if !std::mem::take(&mut first) {
                let pause = self.dice.borrow_mut().below(12_000_000);
                self.mem.sleep_us(pause).await;
            }
            let (cluster, endpoint, fault, us) = {
                let mut dice = self.dice.borrow_mut();
                let snapshot = self.supervisor.borrow().snapshot();
                let clusters = snapshot.table.clusters();
                let cluster = &clusters[dice.below(clusters.len() as u64) as usize];
                let Some(backend) = cluster.backends.get(dice.below(4) as usize).or(cluster.backends.first()) else {
                    continue;
                };
                let fault = match dice.below(3) {
                    0 => Fault { refuse: true, ..Fault::default() },
                    1 => Fault { blackhole: true, ..Fault::default() },
                    _ => Fault { delay_us: dice.below(1_500_000), ..Fault::default() },
                };
                let number: usize = cluster.name[1..].parse().expect("clusters have numbers");
                (number, backend.endpoint.clone(), fault, dice.below(3_000_000))
            };
            self.seen.borrow_mut().faults += 1;
            let begun = self.mem.now_us();
            let patience = u64::from(self.ledger.rules.policies[cluster].connect_timeout + 2) * 1_000_000;
            self.say(|| format!("{endpoint} of c{cluster}: {fault:?} for {us} us"));
            self.ledger.trouble(Some(cluster), begun, begun + us + patience, "connects fail");
            self.mem.fault(&endpoint, fault);
            self.mem.sleep_us(us).await;
            self.mem.fault(&endpoint, Fault::default());
        }
        troubles.update(|n| n - 1);
    }

    /// Takes the descriptors away for a while, so that neither accept nor connect get one, or the kernel's memory.
    async fn scarcity(self: Rc<Self>, troubles: Rc<Cell<u32>>) {
        while !self.done.get() {
            let (pause, us, most, once_in, errno) = {
                let mut dice = self.dice.borrow_mut();
                let (most, once_in, errnos) = match dice.below(3) {
                    0 => (usize::MAX, dice.pick(&[3, 30, 300]), [libc::ENOBUFS, libc::ENOMEM]),
                    1 => (dice.range(0, 6), 0, [libc::ENOBUFS, libc::ENOMEM]),
                    _ => (dice.range(0, 6), 0, [libc::EMFILE, libc::ENFILE]),
                };
                (dice.below(10_000_000), dice.below(4_000_000), most, once_in, dice.pick(&errnos))
            };
            self.mem.sleep_us(pause).await;
            self.seen.borrow_mut().wants += 1;
            let begun = self.mem.now_us();
            self.say(|| format!("{most} descriptors per core for {us} us, one operation in {once_in} fails: {errno}"));
            // Who waits to be accepted is served a tick later.
            self.ledger.trouble(None, begun, begun + us + 2 * limits::TICK_MS * 1000, WANT);
            let set = |(most, once_in)| {
                self.cores.iter().for_each(|core| {
                    core.mem.scarce(most, errno);
                    core.mem.starve(once_in, errno);
                });
            };
            set((most, once_in));
            self.mem.sleep_us(us).await;
            set((usize::MAX, 0));
        }
        troubles.update(|n| n - 1);
    }
}

const _: () = assert!(TAKEN_OVER_US > 20_000);
