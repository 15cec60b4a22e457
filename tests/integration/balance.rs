//! How requests are spread over the backends of a cluster.

use crate::client::Client;
use crate::harness::{Driver, Ringway, millis, on_both_drivers, seconds};
use crate::origin::{Origin, ok};
use crate::settings::{BALANCE, set};
use serde_json::json;

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
}
