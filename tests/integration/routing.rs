//! Which cluster a request goes to.

use crate::client::{Client, get_host};
use crate::harness::{Ringway, on_both_drivers};
use crate::origin::Origin;
use serde_json::json;

/// A proxy whose clusters each say the name of the route that leads to them.
fn routes(driver: crate::harness::Driver, names: &[&str]) -> (Ringway, Vec<Origin>) {
    let origins: Vec<Origin> = names.iter().map(|n| Origin::saying(n)).collect();
    let mut clusters = serde_json::Map::new();
    let mut routes = serde_json::Map::new();
    for (i, name) in names.iter().enumerate() {
        let address = origins[i].address().to_string();
        clusters.insert(format!("c{i}"), json!({ "backends": { "b": address } }));
        routes.insert(name.to_string(), json!(format!("c{i}")));
    }
    (Ringway::start(driver, json!({ "clusters": clusters, "routes": routes })), origins)
}

on_both_drivers! {
    fn exact_then_longest_wildcard_then_default(driver) {
        let (ringway, _origins) = routes(driver, &["*", "*.b.test", "a.test", "*.a.b.test", "x.a.b.test"]);
        for (host, route) in [
            ("a.test", "a.test"), ("A.TEST", "a.test"), ("a.test.", "a.test"), ("a.test:8080", "a.test"),
            ("b.test", "*"), ("x.b.test", "*.b.test"), ("x.y.b.test", "*.b.test"),
            ("a.b.test", "*.b.test"), ("y.a.b.test", "*.a.b.test"), ("z.y.a.b.test", "*.a.b.test"),
            ("x.a.b.test", "x.a.b.test"), ("xa.test", "*"), ("127.0.0.1", "*"), ("[::1]:80", "*"),
        ] {
            assert_eq!(get_host(&ringway, host, "/").text(), route, "{host}");
        }
    }

    fn longest_path_prefix_at_segment_boundaries(driver) {
        let (ringway, _origins) = routes(driver, &["a.test", "a.test/api", "a.test/api/v2", "a.test/API", "*/static"]);
        for (path, route) in [
            ("/", "a.test"), ("/api", "a.test/api"), ("/api/", "a.test/api"), ("/api?x=/v2", "a.test/api"),
            ("/apiary", "a.test"), ("/api/v2", "a.test/api/v2"), ("/api/v2/x", "a.test/api/v2"),
            ("/api/v22", "a.test/api"), ("/API", "a.test/API"), ("/%61pi", "a.test"), ("/static", "a.test"),
        ] {
            assert_eq!(get_host(&ringway, "a.test", path).text(), route, "{path}");
        }
        assert_eq!(get_host(&ringway, "other", "/static/x").text(), "*/static");
        assert_eq!(get_host(&ringway, "other", "/").status, 404);
    }

    fn no_route_is_404_and_the_connection_lives(driver) {
        let (ringway, _origins) = routes(driver, &["a.test"]);
        let mut client = Client::to(&ringway);
        for (host, status) in [("b.test", 404), ("a.test", 200), ("b.test", 404), ("a.test", 200)] {
            client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            assert_eq!(client.response().status, status);
        }
    }

    fn ipv6_literals(driver) {
        let (ringway, _origins) = routes(driver, &["[::1]", "*"]);
        assert_eq!(get_host(&ringway, "[::1]", "/").text(), "[::1]");
        assert_eq!(get_host(&ringway, "[::1]:8080", "/").text(), "[::1]");
        assert_eq!(get_host(&ringway, "[::2]", "/").text(), "*");
    }

    fn each_request_of_a_connection_is_routed_anew(driver) {
        let (ringway, origins) = routes(driver, &["a.test", "b.test"]);
        let mut client = Client::to(&ringway);
        let all: String = (0..20).map(|i| {
            let host = if i % 2 == 0 { "a.test" } else { "b.test" };
            format!("GET /{i} HTTP/1.1\r\nHost: {host}\r\n\r\n")
        }).collect();
        client.send(all);
        for i in 0..20 {
            assert_eq!(client.response().text(), if i % 2 == 0 { "a.test" } else { "b.test" });
        }
        assert_eq!((origins[0].requests().len(), origins[1].requests().len()), (10, 10));
    }

    fn ten_thousand_hosts(driver) {
        let origin = Origin::saying("ok");
        let mut all = serde_json::Map::new();
        for i in 0..10_000 {
            all.insert(format!("h{i}.test"), json!("app"));
        }
        let ringway = Ringway::start(driver, json!({
            "clusters": {"app": {"backends": {"b1": origin.address().to_string()}}}, "routes": all,
        }));
        assert_eq!(get_host(&ringway, "h9999.test", "/").status, 200);
        assert_eq!(get_host(&ringway, "h10000.test", "/").status, 404);
    }
}
