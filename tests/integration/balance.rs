//! How requests are spread over the backends of a cluster.

use crate::client::{Client, ask, get};
use crate::harness::{Driver, Ringway, eventually, free_address, millis, on_both_drivers, seconds};
use crate::origin::{Origin, ok};
use crate::settings::{BALANCE, FAIL_OPEN, RETRIES, TRUSTED, set};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn spread(driver: Driver, balance: &str, weights: &[u32], requests: usize) -> Vec<usize> {
    let origins: Vec<Origin> = weights.iter().map(|_| Origin::saying("x")).collect();
    let all: Vec<&Origin> = origins.iter().collect();
    let ringway = Ringway::with(driver, &all, |c| {
        set(c, BALANCE, balance);
        for (i, weight) in weights.iter().enumerate() {
            let address = origins[i].address().to_string();
            let backend = json!({ "address": address, "weight": weight });
            set(c, &format!("clusters/app/backends/b{}", i + 1), backend);
        }
    });
    let mut client = Client::to(&ringway);
    for _ in 0..requests {
        assert_eq!(client.get("/").status, 200);
    }
    origins.iter().map(|o| o.requests().len()).collect()
}

/// Origins that say who they are: `b1`, `b2`, ...
fn named(n: usize) -> Vec<Origin> {
    (1..=n).map(|i| Origin::saying(&format!("b{i}"))).collect()
}

/// Before these origins, with this `balance`.
fn balanced(driver: Driver, origins: &[Origin], balance: Value, workers: usize) -> Ringway {
    Ringway::with(driver, &origins.iter().collect::<Vec<_>>(), |c| {
        set(c, BALANCE, balance);
        set(c, "workers", workers);
    })
}

/// Who answers a request with this field, on a connection of its own.
fn who(ringway: &Ringway, field: &str) -> String {
    let response = ask(ringway, format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n"));
    assert_eq!(response.status, 200);
    response.text()
}

/// Who answers each of these tenants, asked so often that every core had its say.
fn tenants(ringway: &Ringway, n: usize, times: usize) -> Vec<String> {
    let one = |i: usize| {
        let first = who(ringway, &format!("X-Tenant: t{i}"));
        for _ in 1..times {
            assert_eq!(who(ringway, &format!("X-Tenant: t{i}")), first, "tenant {i}");
        }
        first
    };
    (0..n).map(one).collect()
}

fn by_tenant() -> Value {
    json!({ "hash": { "header": "x-tenant" } })
}

/// Origins whose answers wait until `open`.
fn gated(n: usize, open: &Arc<AtomicBool>) -> Vec<Origin> {
    let one = |_| {
        let open = open.clone();
        Origin::new(move |c| {
            c.serve(|_| {
                eventually(seconds(20), "the gate opens", || open.load(Ordering::SeqCst));
                Some(ok("x"))
            })
        })
    };
    (0..n).map(one).collect()
}

/// How many of `n` requests of one key that are under way at once go to each of three origins.
fn crowd(driver: Driver, bounded_load: Value, n: usize) -> Vec<usize> {
    let open = Arc::new(AtomicBool::new(false));
    let origins = gated(3, &open);
    let balance = json!({ "hash": "path", "bounded_load": bounded_load });
    let ringway = balanced(driver, &origins, balance, 1);
    let mut clients: Vec<Client> = Vec::new();
    let counts = || -> Vec<usize> { origins.iter().map(|o| o.requests().len()).collect() };
    for i in 0..n {
        let mut client = Client::to(&ringway);
        client.send("GET /hot HTTP/1.1\r\nHost: a\r\n\r\n");
        clients.push(client);
        eventually(seconds(5), "the request is there", || counts().iter().sum::<usize>() == i + 1);
    }
    let got = counts();
    open.store(true, Ordering::SeqCst);
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
    got
}

/// Resets every request while it is `broken`, then says `well`.
fn breakable() -> (Origin, Arc<AtomicBool>) {
    let broken = Arc::new(AtomicBool::new(true));
    let mine = broken.clone();
    let origin = Origin::new(move |c| {
        while c.request().is_some() {
            if mine.load(Ordering::SeqCst) {
                return c.reset();
            }
            c.send(&ok("well"));
        }
    });
    (origin, broken)
}

#[test]
fn a_key_has_one_backend_on_all_cores_and_drivers() {
    let origins = named(4);
    let on = |driver| tenants(&balanced(driver, &origins, by_tenant(), 2), 60, 6);
    let places = on(Driver::Epoll);
    if Driver::Uring.usable() {
        assert_eq!(on(Driver::Uring), places);
    }
    for i in 1..=4 {
        let share = places.iter().filter(|p| **p == format!("b{i}")).count();
        assert!((2..=40).contains(&share), "{share} of 60 at b{i}");
    }
}

on_both_drivers! {
    fn round_robin_is_exact(driver) {
        assert_eq!(spread(driver, "round_robin", &[1, 1, 1], 90), [30, 30, 30]);
    }

    fn round_robin_keeps_weights(driver) {
        assert_eq!(spread(driver, "round_robin", &[5, 1, 3], 90), [50, 10, 30]);
    }

    fn random_keeps_weights_roughly(driver) {
        let got = spread(driver, "random", &[3, 1], 800);
        assert!((480..720).contains(&got[0]), "{got:?}");
    }

    fn least_conn_avoids_the_busy_one(driver) {
        let slow = Origin::new(|c| c.serve(|_| {
            std::thread::sleep(seconds(3));
            Some(ok("slow"))
        }));
        let fast = Origin::saying("fast");
        // One worker: another one may pick before the first has counted its exchange with the fast one out.
        let ringway = Ringway::with(driver, &[&slow, &fast], |c| {
            set(c, BALANCE, "least_conn");
            set(c, "workers", 1);
        });
        // Occupy the slow one, then see that everything else goes round it.
        let mut waiting = Vec::new();
        while slow.requests().is_empty() {
            let mut client = Client::to(&ringway);
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            waiting.push(client);
            assert!(waiting.len() < 50, "no request went to the slow one at all");
            std::thread::sleep(millis(20));
        }
        let begin = std::time::Instant::now();
        // On one connection, so that each exchange has ended when the next begins.
        let mut client = Client::to(&ringway);
        for _ in 0..20 {
            assert_eq!(client.get("/").text(), "fast");
        }
        assert!(begin.elapsed() < millis(2500), "too slow to tell");
    }

    fn a_backend_that_dies_takes_only_its_own_keys_along(driver) {
        let mut origins = named(4);
        let ringway = balanced(driver, &origins, by_tenant(), 2);
        let before = tenants(&ringway, 40, 1);
        drop(origins.remove(1));
        let after = tenants(&ringway, 40, 2);
        for (was, is) in before.iter().zip(&after) {
            assert!(was == is || (was == "b2" && is != "b2"), "{was} became {is}");
        }
        ringway.wait_state("b2", "down", seconds(3));
        // Held down or only failing, the next best is the same one.
        assert_eq!(tenants(&ringway, 40, 1), after);
    }

    fn keys_are_cookies_paths_and_clients(driver) {
        let origins = named(3);
        let ringway = balanced(driver, &origins, json!({ "hash": { "cookie": "id" } }), 2);
        let first = who(&ringway, "Cookie: a=b; id=7; id=8");
        for cookie in ["id=7", "id=7; c=x y", "id=\"7\"", "x={\"a\": 1}; id=7"] {
            assert_eq!(who(&ringway, &format!("Cookie: {cookie}")), first, "{cookie}");
        }
        // Without the key anybody does.
        let others: std::collections::BTreeSet<String> = (0..60).map(|_| who(&ringway, "Cookie: id2=7")).collect();
        assert_eq!(others.len(), 3);

        let ringway = balanced(driver, &origins, json!({ "hash": "path" }), 2);
        let of = |path: &str| get(&ringway, path).text();
        assert!((0..20).all(|i| of(&format!("/a/b?{i}")) == of("/a/b")));
        assert!((0..40).any(|i| of(&format!("/{i}")) != of("/a/b")));

        let ringway = Ringway::with(driver, &origins.iter().collect::<Vec<_>>(), |c| {
            set(c, BALANCE, json!({ "hash": "client_ip" }));
            set(c, TRUSTED, json!(["127.0.0.0/8"]));
        });
        let of = |ip: &str| who(&ringway, &format!("X-Forwarded-For: {ip}"));
        assert!((0..20).all(|i| of(&format!("192.0.2.{i}, 203.0.113.9")) == of("203.0.113.9")));
        assert!((0..40).any(|i| of(&format!("203.0.113.{i}")) != of("203.0.113.9")));
    }

    fn a_hot_key_is_spread_where_load_is_bounded(driver) {
        let mut got = crowd(driver, json!(125), 24);
        got.sort_unstable();
        // 125 % of a third of 24, rounded up, is 10; before that, the least of 8.
        assert_eq!(got.iter().sum::<usize>(), 24);
        assert!(got[2] <= 10 && got[0] > 0, "{got:?}");
        let mut got = crowd(driver, Value::Null, 24);
        got.sort_unstable();
        assert_eq!(got, [0, 0, 24]);
    }

    fn a_backup_serves_only_when_all_others_are_down(driver) {
        let mut origins = named(3);
        let ringway = Ringway::with(driver, &origins.iter().collect::<Vec<_>>(), |c| {
            let address = origins[2].address().to_string();
            set(c, "clusters/app/backends/b3", json!({ "address": address, "backup": true, "weight": 100 }));
        });
        let seen = |n: usize| -> Vec<String> { (0..n).map(|_| get(&ringway, "/").text()).collect() };
        assert!(seen(20).iter().all(|b| b != "b3"));
        drop(origins.remove(0));
        assert!(seen(20).iter().all(|b| b == "b2"));
        ringway.wait_state("b1", "down", seconds(3));
        drop(origins.remove(0));
        // Until it is down, retries find the backup.
        assert!(seen(20).iter().all(|b| b == "b3"));
        ringway.wait_state("b2", "down", seconds(3));
        assert_eq!(ask(&ringway, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx").text(), "b3");
        assert_eq!(ringway.backend_state("app", "b3"), "up");
    }

    fn a_cluster_fails_open_below_its_share(driver) {
        for (percent, opens) in [(50, false), (51, true)] {
            let (origin, broken) = breakable();
            let good = Origin::saying("good");
            let ringway = Ringway::with(driver, &[&origin, &good], |c| set(c, FAIL_OPEN, percent));
            (0..8).for_each(|_| assert_eq!(get(&ringway, "/").text(), "good"));
            ringway.wait_state("b1", "down", seconds(3));
            broken.store(false, Ordering::SeqCst);
            let well = (0..20).filter(|_| get(&ringway, "/").text() == "well").count();
            assert_eq!(well, if opens { 10 } else { 0 }, "{percent}");
            assert_eq!(ringway.backend_state("app", "b1"), "down");
            let told = ringway.log(28).iter().filter(|l| l["reason"] == "FAIL_OPEN").count();
            assert_eq!(told, well, "{percent}");
            let backend = || ringway.status()["clusters"]["app"]["backends"]["b1"].clone();
            let counted = backend();
            let open = counted["fail_open"].as_u64();
            assert!(open.is_some_and(|n| if opens { n >= 10 } else { n == 0 }), "{counted}");
            // Whoever is picked for a request that is refused before it goes out is sent nothing.
            let refused = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
            (0..20).for_each(|_| assert_eq!(ask(&ringway, refused).status, 400));
            let after = backend();
            for name in ["fail_open", "requests"] {
                assert_eq!(after[name], counted[name], "{percent}: {name}");
            }
        }
    }

    fn failing_open_survives_backends_that_are_really_dead(driver) {
        let good = Origin::saying("good");
        let ringway = Ringway::with(driver, &[&good], |c| {
            set(c, FAIL_OPEN, 100);
            set(c, RETRIES, 2);
            set(c, "clusters/app/retry_budget/min_per_second", 10_000);
            for i in 2..4 {
                set(c, &format!("clusters/app/backends/b{i}"), free_address().to_string());
            }
        });
        (0..30).for_each(|_| assert_eq!(get(&ringway, "/").text(), "good"));
        ringway.wait_state("b3", "down", seconds(3));
        (0..30).for_each(|_| assert_eq!(get(&ringway, "/").text(), "good"));
    }
}
