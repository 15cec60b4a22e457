//! A seed's config as its operator types it: JSON that goes through the product's own check, changed by reloads and patches.

use super::dice::Dice;
use ringway::config::patch::{self, Patch};
use ringway::config::{Plan, check};
use ringway::route::Endpoint;
use serde_json::{Map, Value, json};
use std::net::IpAddr;

/// The config and what lies over it.
pub struct Config {
    file: Value,
    patches: Vec<Patch>,
    cores: usize,
    /// What the limit of open files would decide.
    connections: usize,
    pipes: usize,
    /// Backends that each cluster may list, and exchanges that each of them may have.
    pub backends: Vec<usize>,
    pub max_conns: Vec<Option<u32>>,
    /// Listeners that came after the first, and how many addresses were given.
    extra: Vec<String>,
    addresses: u8,
}

/// Listeners that reloads may add to the first.
const EXTRA_MAX: usize = 3;

fn seconds(dice: &mut Dice, low: usize, high: usize) -> String {
    format!("{}s", dice.range(low, high))
}

/// Where one core listens for the listener with this address.
pub fn front(address: u8, core: usize) -> Endpoint {
    Endpoint::Ip(([10, 1, address, core as u8], 80).into())
}

pub fn backend_endpoint(cluster: usize, backend: usize) -> Endpoint {
    match (cluster + backend) % 5 {
        4 => Endpoint::Unix(format!("/run/c{cluster}-b{backend}").into()),
        _ => Endpoint::Ip(([10, 2, cluster as u8, backend as u8], 8080).into()),
    }
}

/// The name of a backend that is resolved, and the addresses that it may have.
pub fn name_of(cluster: usize) -> String {
    format!("n{cluster}.sim")
}

pub fn addresses_of(cluster: usize) -> [IpAddr; 2] {
    [8, 9].map(|last| IpAddr::from([10, 2, cluster as u8, last]))
}

impl Config {
    pub fn random(dice: &mut Dice, cores: usize) -> Config {
        let count = dice.range(1, 4);
        let backends: Vec<usize> = (0..count).map(|_| dice.range(1, 4)).collect();
        // Most clusters have no limit; in the others each backend has the same.
        let max_conns = backends.iter().map(|_| dice.once_in(3).then(|| dice.range(1, 3) as u32)).collect();
        let mut config = Config {
            file: Value::Null,
            patches: Vec::new(),
            cores,
            connections: if dice.once_in(6) { 5 } else { 10_000 },
            pipes: dice.pick(&[0, 1, 10]),
            backends,
            max_conns,
            extra: Vec::new(),
            addresses: 0,
        };
        let clusters: Map<String, Value> = (0..count).map(|c| (format!("c{c}"), config.cluster(dice, c))).collect();
        let routes: Map<String, Value> = (0..count).map(|c| route(c, true)).collect();
        config.file = json!({
            "listeners": {"front": "10.1.0.0:80"},
            "clusters": clusters,
            "routes": routes,
            "defaults": {
                "timeouts": {"client_body": seconds(dice, 2, 5)},
                "client_rate_min": if dice.once_in(2) { "240B" } else { "0B" },
            },
            "client": {
                "head_timeout": seconds(dice, 3, 6),
                "idle_timeout": seconds(dice, 6, 9),
                "half_close": if dice.once_in(4) { "abort" } else { "serve" },
            },
            "headers": {"via": dice.once_in(3).then_some("ringway")},
            "log": {"access": if dice.once_in(4) { "off" } else { "stdout" }},
            "workers": cores,
            "drain_timeout": seconds(dice, 2, 8),
            "retry_after": "5s",
        });
        config
    }

    fn cluster(&self, dice: &mut Dice, index: usize) -> Value {
        let mut cluster = json!({
            "timeouts": {
                "connect": seconds(dice, 1, 3),
                "head": seconds(dice, 2, 5),
                "body": seconds(dice, 2, 5),
                "client_body": seconds(dice, 2, 5),
                "tunnel": seconds(dice, 2, 6),
            },
            "body_max": if dice.once_in(4) { "10KiB" } else { "unlimited" },
            "client_rate_min": if dice.once_in(2) { "240B" } else { "0B" },
            "fail_open": dice.pick(&[0, 0, 50, 100]),
            "retries": dice.range(0, 3),
            "retry_budget": {"percent": dice.pick(&[0, 20, 100]), "min_per_second": dice.pick(&[0, 10])},
            "queue": {"max": dice.pick(&[1, 3, 1000]), "timeout": seconds(dice, 1, 4)},
            "pool": {"idle": seconds(dice, 1, 5), "max": dice.pick(&[0, 1, 64, 64])},
        });
        cluster["backends"] = (0..self.backends[index]).map(|b| self.backend(dice, index, b)).collect();
        self.mood(dice, &mut cluster);
        if dice.once_in(3) {
            cluster["backends"]["named"] = json!({
                "address": format!("{}:8080", name_of(index)),
                "max_conns": self.max_conns[index],
            });
        }
        cluster
    }

    fn backend(&self, dice: &mut Dice, cluster: usize, backend: usize) -> (String, Value) {
        let value = json!({
            "address": backend_endpoint(cluster, backend).to_string(),
            "weight": dice.range(1, 3),
            "backup": backend == 2,
            "max_conns": self.max_conns[cluster],
        });
        (format!("b{backend}"), value)
    }

    /// What every reload may change of a cluster without any exchange being judged by it.
    fn mood(&self, dice: &mut Dice, cluster: &mut Value) {
        cluster["balance"] = match dice.below(4) {
            0 => json!("round_robin"),
            1 => json!("random"),
            2 => json!("least_conn"),
            _ => {
                json!({"hash": dice.pick(&["path", "client_ip"]), "bounded_load": dice.pick(&[None, Some(100), Some(125)])})
            }
        };
        let check = json!({"interval": seconds(dice, 1, 4), "rise": dice.range(1, 2), "fall": dice.range(1, 3)});
        let rate = json!({"percent": 50, "requests": 4, "within": "5s"});
        cluster["health"] = json!({
            "on_timeout": dice.pick(&["silent", "any"]),
            "failures": dice.range(1, 4),
            "statuses": if dice.once_in(3) { json!(["5xx"]) } else { json!([]) },
            "rate": if dice.once_in(3) { rate } else { json!("off") },
            "hold_down": seconds(dice, 1, 8),
            "hold_down_max": seconds(dice, 8, 20),
            "slow_start": if dice.once_in(3) { "4s" } else { "0s" },
            "check": if dice.once_in(3) { check } else { json!("off") },
        });
        cluster["probe"] = if dice.once_in(2) { json!("connect") } else { json!({"path": "/probe", "timeout": "2s"}) };
    }

    /// As the cores get it.
    ///
    /// # Panics
    /// The check finds a fault, which no config of a simulation has.
    pub fn plan(&self) -> Plan {
        let text = patch::merged(&self.file.to_string(), &self.patches).expect("JSON");
        let plan = check::load_for(&text, "sim.json", self.cores, 65_536);
        let mut plan = plan.unwrap_or_else(|faults| panic!("{faults}\n{text}"));
        plan.settings.connections_per_worker = self.connections;
        plan.settings.pooled_per_worker = 1000;
        plan.settings.pipes_per_worker = self.pipes;
        plan
    }

    /// Whether connections may have to wait for a place.
    pub fn crowded(&self) -> bool {
        self.connections < 100
    }

    /// Another file, with the patches over it or without: other backends, listeners, routes, balance, health.
    pub fn reload(&mut self, dice: &mut Dice) {
        if dice.once_in(2) {
            self.patches.clear();
        }
        for cluster in 0..self.backends.len() {
            let name = format!("c{cluster}");
            let mut value = self.file["clusters"][&name].take();
            for backend in 0..self.backends[cluster] {
                if dice.once_in(4) {
                    let (id, shown) = self.backend(dice, cluster, backend);
                    let backends = value["backends"].as_object_mut().expect("an object");
                    if backends.remove(&id).is_none() || dice.once_in(3) {
                        backends.insert(id, shown);
                    }
                }
            }
            // Most of the time somebody is there.
            if !dice.once_in(8) && value["backends"].as_object().is_none_or(Map::is_empty) {
                let (id, shown) = self.backend(dice, cluster, 0);
                value["backends"][id] = shown;
            }
            if dice.once_in(3) {
                self.mood(dice, &mut value);
            }
            self.file["clusters"][&name] = value;
            self.route(cluster, !dice.once_in(12));
        }
        self.change_listeners(dice);
        if dice.once_in(4) {
            self.file["drain_timeout"] = json!(seconds(dice, 2, 8));
        }
    }

    /// Adds a listener, takes one away that was added before, or gives one another address.
    fn change_listeners(&mut self, dice: &mut Dice) {
        if self.addresses == u8::MAX || dice.once_in(2) {
            return;
        }
        let moves = !self.extra.is_empty() && dice.once_in(3);
        if !moves && (self.extra.len() == EXTRA_MAX || (!self.extra.is_empty() && dice.once_in(2))) {
            let gone = self.extra.swap_remove(dice.below(self.extra.len() as u64) as usize);
            self.file["listeners"].as_object_mut().expect("an object").remove(&gone);
            return;
        }
        self.addresses += 1;
        let name = match moves {
            true => self.extra[dice.below(self.extra.len() as u64) as usize].clone(),
            false => format!("extra{}", self.addresses),
        };
        if !moves {
            self.extra.push(name.clone());
        }
        self.file["listeners"][name] = json!(format!("10.1.{}.0:80", self.addresses));
    }

    /// One patch more, as `ctl apply` gives it: a backend goes or comes, or a weight changes.
    pub fn patch(&mut self, dice: &mut Dice) {
        let cluster = dice.below(self.backends.len() as u64) as usize;
        let backend = dice.below(self.backends[cluster] as u64) as usize;
        let (id, mut shown) = self.backend(dice, cluster, backend);
        let listed = self.plan().clusters[&format!("c{cluster}")].backends.len();
        if listed > 1 && dice.once_in(2) {
            shown = Value::Null;
        }
        let text = json!({"clusters": {format!("c{cluster}"): {"backends": {id: shown}}}}).to_string();
        self.patches.push(Patch::parse(&text, "patch").expect("a patch"));
    }

    /// All backends listed, all hosts routed, no patch.
    pub fn heal(&mut self, dice: &mut Dice) {
        self.patches.clear();
        for cluster in 0..self.backends.len() {
            for backend in 0..self.backends[cluster] {
                let (id, shown) = self.backend(dice, cluster, backend);
                self.file["clusters"][format!("c{cluster}")]["backends"][id] = shown;
            }
            self.route(cluster, true);
        }
    }

    /// Routes a cluster's host to it, or takes the route away.
    fn route(&mut self, cluster: usize, here: bool) {
        let routes = self.file["routes"].as_object_mut().expect("an object");
        routes.retain(|_, to| *to != format!("c{cluster}"));
        routes.extend([route(cluster, here)]);
    }
}

/// The route to a cluster: by the host that clients ask for, or by one that nobody asks for.
fn route(cluster: usize, here: bool) -> (String, Value) {
    let host = if here { format!("c{cluster}.test") } else { format!("gone{cluster}.test") };
    (host, json!(format!("c{cluster}")))
}

/// Seconds that the longest time of any config here may take: after it, a core that is left alone holds nothing.
pub const QUIET_SECONDS: u64 = 40;
