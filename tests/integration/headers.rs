//! Fields that are set, dropped, and left alone.

use crate::client::{Client, Response, ask};
use crate::harness::{Ringway, lossy, on_both_drivers};
use crate::origin::Origin;
use crate::settings::{TRUSTED, UNDERSCORES, VIA, set};
use serde_json::json;

fn send(ringway: &Ringway, fields: &str) -> Response {
    let response = ask(ringway, format!("GET / HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n"));
    assert_eq!(response.status, 200);
    response
}

on_both_drivers! {
    fn forwarded_fields_of_strangers_are_replaced(driver) {
        let origin = Origin::saying("ok");
        let ringway = Ringway::before(driver, &[&origin]);
        send(&ringway, "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n\
            X-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Request-Id: evil\r\n\
            X_Forwarded_For: 6.6.6.6\r\nX-Forwarded_For: 6.6.6.6\r\nX-Forwarded-Port: 99999\r\n");
        let seen = origin.last();
        assert_eq!(seen.one("x-forwarded-for").as_deref(), Some("127.0.0.1"));
        assert_eq!(seen.one("x-forwarded-proto").as_deref(), Some("http"));
        assert!(!seen.text().contains("6.6.6.6"), "{}", seen.text());
        assert!(!seen.text().contains("evil"), "{}", seen.text());
        let port = ringway.address.port().to_string();
        assert_eq!(seen.one("x-forwarded-port"), Some(port), "{}", seen.text());
    }

    fn trusted_chains_are_appended_to(driver) {
        let origin = Origin::saying("ok");
        let ringway = Ringway::with(driver, &[&origin], |c| {
            set(c, TRUSTED, json!(["127.0.0.0/8", "10.0.0.0/8"]));
        });
        send(&ringway, "X-Forwarded-For: 1.1.1.1, 2.2.2.2\r\nX-Forwarded-For: 10.1.1.1\r\nX-Forwarded-Proto: https\r\n");
        let seen = origin.last();
        let chain = seen.all("x-forwarded-for").join(", ").replace(' ', "");
        assert_eq!(chain, "1.1.1.1,2.2.2.2,10.1.1.1,127.0.0.1");
        assert_eq!(seen.one("x-forwarded-proto").as_deref(), Some("https"));
        let line = &ringway.log(1)[0];
        assert_eq!(line["client"].as_str(), Some("2.2.2.2"), "{line}");
    }

    fn hop_by_hop_fields_stop_here(driver) {
        let origin = Origin::fixed("HTTP/1.1 200 OK\r\nConnection: X-Secret, close\r\nX-Secret: 1\r\nX-Open: 2\r\n\
            Keep-Alive: timeout=9\r\nProxy-Connection: x\r\nUpgrade: x\r\nContent-Length: 2\r\n\r\nok");
        let ringway = Ringway::before(driver, &[&origin]);
        let response = send(&ringway, "Connection: X-Mine, x-other\r\nX-Mine: 1\r\nX-Other: 2\r\nX-Third: 3\r\n\
            TE: gzip\r\nKeep-Alive: 9\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic eA==\r\nUpgrade: a\r\n");
        let seen = origin.last();
        for name in ["x-mine", "x-other", "keep-alive", "proxy-connection", "upgrade"] {
            assert!(seen.one(name).is_none(), "{name}: {}", seen.text());
        }
        assert_eq!(seen.one("x-third").as_deref(), Some("3"));
        for name in ["x-secret", "keep-alive", "proxy-connection", "upgrade"] {
            assert!(response.one(name).is_none(), "{name}: {}", lossy(&response.head));
        }
        assert_eq!(response.one("x-open").as_deref(), Some("2"));
    }

    fn connection_cannot_take_away_what_is_ours(driver) {
        let origin = Origin::echo();
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        client.send("POST / HTTP/1.1\r\nHost: a.test\r\nConnection: Host, Content-Length, X-Forwarded-For\r\nContent-Length: 3\r\n\r\nabc");
        if client.response().status == 200 {
            let seen = origin.last();
            assert_eq!(seen.one("host").as_deref(), Some("a.test"));
            assert_eq!(seen.body, b"abc");
            assert_eq!(seen.one("x-forwarded-for").as_deref(), Some("127.0.0.1"));
        } else {
            assert!(origin.requests().is_empty());
        }
    }

    fn names_with_underscores_are_dropped(driver) {
        let origin = Origin::saying("ok");
        let ringway = Ringway::before(driver, &[&origin]);
        send(&ringway, "X_Under: 1\r\nX-Good: 2\r\n");
        assert!(!origin.last().text().to_lowercase().contains("x_under"));
        assert_eq!(origin.last().one("x-good").as_deref(), Some("2"));
    }

    fn names_with_underscores_may_pass(driver) {
        let origin = Origin::saying("ok");
        let ringway = Ringway::with(driver, &[&origin], |c| set(c, UNDERSCORES, "pass"));
        send(&ringway, "X_Under: 1\r\nX_Forwarded_For: 6.6.6.6\r\n");
        assert_eq!(origin.last().one("x_under").as_deref(), Some("1"));
        assert!(!origin.last().text().contains("6.6.6.6"));
    }

    fn via_is_added_when_asked_for(driver) {
        let origin = Origin::fixed("HTTP/1.1 200 OK\r\nVia: 1.0 other\r\nContent-Length: 2\r\n\r\nok");
        let ringway = Ringway::with(driver, &[&origin], |c| set(c, VIA, "ringway"));
        let response = send(&ringway, "Via: 1.1 first\r\n");
        let there = origin.last().all("via").join(", ");
        let back = response.all("via").join(", ");
        assert!(there.starts_with("1.1 first") && there.contains("1.1 ringway"), "{there}");
        assert!(back.starts_with("1.0 other") && back.contains("1.1 ringway"), "{back}");
    }

    fn other_fields_keep_value_case_and_order(driver) {
        let origin = Origin::fixed("HTTP/1.1 200 OK\r\nX-b: 1\r\nx-A: \"2,  3\"\r\nX-b: 4\r\nContent-Length: 2\r\n\r\nok");
        let ringway = Ringway::before(driver, &[&origin]);
        let response = send(&ringway, "CooKie: a=b; c=d; e=\"f\"\r\nX-List: 1\r\nX-List: 2\r\nAuthorization: Bearer x\r\nAccept: */*\r\n");
        assert_eq!(response.all("x-b"), ["1", "4"]);
        assert_eq!(response.one("x-a").as_deref(), Some("\"2,  3\""));
        let seen = origin.last();
        assert_eq!(seen.all("x-list"), ["1", "2"]);
        assert_eq!(seen.one("authorization").as_deref(), Some("Bearer x"));
        assert!(seen.text().contains("CooKie: "), "{}", seen.text());
    }

    fn own_answers_are_whole_responses(driver) {
        let origin = Origin::saying("ok");
        let ringway = Ringway::with(driver, &[&origin], |c| set(c, "routes", json!({"known.test": "app"})));
        let html = ask(&ringway, "GET / HTTP/1.1\r\nHost: unknown.test\r\nAccept: text/html,*/*\r\n\r\n");
        assert_eq!(html.status, 404);
        assert!(html.one("content-type").is_some_and(|t| t.starts_with("text/html")));
        let text = ask(&ringway, "GET /<script> HTTP/1.1\r\nHost: unknown.test\r\nAccept: text/plain\r\n\r\n");
        assert!(text.one("content-type").is_some_and(|t| t.starts_with("text/plain")));
        for answer in [&html, &text] {
            assert!(answer.one("date").is_some_and(|d| d.ends_with("GMT")));
            assert!(answer.one("cache-control").is_some_and(|v| v.contains("no-store")));
            assert!(!answer.text().contains("script") && !answer.text().contains("unknown.test"));
        }
        let mut client = Client::to(&ringway);
        client.send("HEAD / HTTP/1.1\r\nHost: unknown.test\r\n\r\n");
        assert_eq!(client.response_to("HEAD").status, 404);
        client.send("GET / HTTP/1.1\r\nHost: known.test\r\n\r\n");
        assert_eq!(client.response().text(), "ok");
    }
}
