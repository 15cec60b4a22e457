//! `ringway ctl why`: the story of an exchange, and what an own answer tells of itself.

use crate::client::{Client, ask, get};
use crate::harness::{Ringway, config_of, free_address, lossy, on_both_drivers, seconds};
use crate::origin::{Origin, ok};
use crate::settings::{QUEUE_TIMEOUT, RETRY_MIN, RETRY_PERCENT, set};
use serde_json::{Value, json};

fn stories(ringway: &Ringway, id: Option<&str>) -> Vec<Value> {
    let mut args = vec!["why", "--json"];
    args.extend(id);
    let out = ringway.ctl(&args);
    if !out.status.success() {
        assert!(lossy(&out.stderr).contains("no such exchange is kept"), "{}", lossy(&out.stderr));
        return Vec::new();
    }
    let told: Value = serde_json::from_slice(&out.stdout).expect("JSON");
    told["stories"].as_array().expect("a list").clone()
}

/// The story that an own answer names.
fn story(ringway: &Ringway, answer: &crate::client::Response) -> Value {
    let id = answer.one("x-request-id").unwrap_or_else(|| panic!("no number in {:?}", answer.text()));
    let found = stories(ringway, Some(&id));
    assert_eq!(found.len(), 1, "{id}: {found:#?}");
    found[0].clone()
}

on_both_drivers! {
    fn every_own_5xx_says_why_and_has_its_story(driver) {
        let closes = Origin::new(|c| { c.request(); });
        let garbage = Origin::fixed("HTTP/1.1 20x OK\r\n\r\n");
        let silent = Origin::new(|c| { c.request(); c.wait_gone(seconds(20)); });
        let one = |address: String| json!({ "backends": { "b1": address }, "timeouts": { "head": "1s" } });
        let ringway = Ringway::start(driver, json!({
            "clusters": {
                "gone": one(free_address().to_string()),
                "closes": one(closes.address().to_string()),
                "garbage": one(garbage.address().to_string()),
                "silent": one(silent.address().to_string()),
                "none": { "backends": {} },
            },
            "routes": { "gone.test": "gone", "closes.test": "closes", "garbage.test": "garbage", "silent.test": "silent",
                        "none.test": "none" },
        }));
        for (host, status, error, code, then) in [
            ("gone.test", 502, "connection_refused", "CONNECT_FAILED", "no other backend was left"),
            ("closes.test", 502, "connection_terminated", "BACKEND_CLOSED", "the method is not idempotent"),
            ("garbage.test", 502, "http_protocol_error", "BAD_RESPONSE", "a part of an answer had come"),
            ("silent.test", 504, "http_response_timeout", "BACKEND_TIMEOUT", "its time had run out"),
            ("none.test", 503, "destination_unavailable", "NO_BACKEND", ""),
        ] {
            let answer = ask(&ringway, format!("POST /x HTTP/1.1\r\nHost: {host}\r\nContent-Length: 3\r\n\r\nabc"));
            assert_eq!(answer.status, status, "{host}");
            let told = format!("ringway; error={error}; details=\"{code}\"");
            assert_eq!(answer.one("proxy-status").as_deref(), Some(&told[..]), "{host}");
            let story = story(&ringway, &answer);
            let about = || format!("{host}: {story:#}");
            assert_eq!((&story["status"], &story["reason"]), (&json!(status), &json!(code)), "{}", about());
            assert_eq!((&story["method"], &story["host"]), (&json!("POST"), &json!(host)), "{}", about());
            let last = story["attempts"].as_array().expect("a list").last();
            match last {
                None => assert_eq!(then, "", "{}", about()),
                Some(last) => assert!(last["then"].as_str().is_some_and(|t| !then.is_empty() && t.contains(then)), "{}", about()),
            }
            let text = lossy(&ringway.ctl(&["why", story["request_id"].as_str().expect("a number")]).stdout);
            assert!(text.contains(code) && text.contains(&format!("POST {host}/x")), "{text}");
        }
        // What was handed over and what came back, by the kernel's count.
        let of = |code: &str| {
            let all = stories(&ringway, None);
            all.into_iter().find(|story| story["reason"] == code).expect("a story")["attempts"][0].clone()
        };
        let gone = of("CONNECT_FAILED");
        assert_eq!((&gone["handed"], &gone["reused"]), (&json!(0), &Value::Null), "{gone:#}");
        let garbage = of("BAD_RESPONSE");
        assert!(garbage["received"].as_u64().is_none_or(|n| n == 19), "{garbage:#}");
        assert!(garbage["acknowledged"].as_u64().is_none_or(|n| n > 60), "{garbage:#}");
        assert!(of("BACKEND_TIMEOUT")["took_us"].as_u64().is_some_and(|us| us >= 900_000));
    }

    fn a_request_that_was_sent_again_has_a_story_though_it_went_well(driver) {
        let origin = Origin::saying("good");
        let mut config = config_of(&[&origin]);
        config["clusters"]["app"]["backends"]["b0"] = json!(free_address().to_string());
        config["log"] = json!({ "fields": ["request_id", "retries"] });
        let ringway = Ringway::start(driver, config);
        (0..4).for_each(|_| assert_eq!(get(&ringway, "/").text(), "good"));
        let lines = ringway.log(4);
        let again = lines.iter().find(|line| line["retries"] == 1).expect("one was sent again");
        let told = stories(&ringway, again["request_id"].as_str());
        assert_eq!(told.len(), 1, "{told:#?}");
        let attempts = told[0]["attempts"].as_array().expect("a list");
        assert_eq!(attempts.len(), 2, "{told:#?}");
        assert_eq!((&attempts[0]["backend"], &attempts[1]["backend"]), (&json!("b0"), &json!("b1")));
        assert!(attempts[0]["then"].as_str().is_some_and(|t| t == "sent again: nothing of it was handed over"), "{told:#?}");
        assert_eq!((&attempts[1]["outcome"], &told[0]["status"]), (&json!("answered"), &json!(200)));
        assert!(told[0]["phases"]["retry"].as_u64().is_some_and(|us| us > 0), "{told:#?}");
        // It is no error.
        let errors: Value = serde_json::from_slice(&ringway.ctl(&["errors", "--json"]).stdout).expect("JSON");
        assert_eq!((&errors["errors"], &errors["total"]), (&json!([]), &json!(0)));
        // And one that went well at once is not kept.
        let quiet = lines.iter().find(|line| line["retries"] == 0).expect("one went well at once");
        assert!(stories(&ringway, quiet["request_id"].as_str()).is_empty());
    }

    fn a_budget_that_is_spent_is_told(driver) {
        let dead: Vec<String> = (0..3).map(|_| free_address().to_string()).collect();
        let ringway = Ringway::start(driver, json!({
            "clusters": { "app": { "backends": { "b1": dead[0], "b2": dead[1], "b3": dead[2] } } },
            "routes": { "*": "app" },
        }).as_object().map(|config| {
            let mut config = json!(config);
            set(&mut config, RETRY_PERCENT, json!(0));
            set(&mut config, RETRY_MIN, json!(0));
            set(&mut config, QUEUE_TIMEOUT, json!("1s"));
            config
        }).expect("an object"));
        let answer = get(&ringway, "/");
        assert_eq!(answer.status, 502);
        let story = story(&ringway, &answer);
        assert_eq!(story["attempts"].as_array().map(Vec::len), Some(1), "{story:#}");
        assert!(story["attempts"][0]["then"].as_str().is_some_and(|t| t.contains("retry budget")), "{story:#}");
    }

    fn all_are_kept_if_the_config_asks_for_it(driver) {
        let origin = Origin::fixed(ok("x"));
        let ringway = Ringway::with(driver, &[&origin], |c| set(c, "log", json!({ "recent": 3 })));
        let mut client = Client::to(&ringway);
        for n in 0..5 {
            assert_eq!(client.get(&format!("/{n}")).text(), "x");
        }
        let told = stories(&ringway, None);
        let paths: Vec<&str> = told.iter().filter_map(|story| story["path"].as_str()).collect();
        assert_eq!(paths.len(), 3, "{told:#?}");
        assert!(["/2", "/3", "/4"].iter().all(|path| paths.contains(path)), "{paths:?}");
        let one = &told[0];
        assert_eq!((&one["reason"], &one["cluster"], &one["backend"]), (&json!("OK"), &json!("app"), &json!("b1")));
        assert_eq!(one["attempts"].as_array().map(Vec::len), Some(1), "{one:#}");
        assert!(one["attempts"][0]["received"].as_u64().is_none_or(|n| n > 0), "{one:#}");
        assert_eq!(one["request_id"].as_str().map(str::len), Some(32), "{one:#}");
        assert_eq!(stories(&ringway, one["request_id"].as_str()), std::slice::from_ref(one));
    }

    /// What a client may say of itself is nobody's number.
    fn a_number_of_a_stranger_is_not_taken(driver) {
        let origin = Origin::fixed(ok("x"));
        let ringway = Ringway::with(driver, &[&origin], |c| set(c, "routes", json!({ "known.test": "app" })));
        let answer = ask(&ringway, "GET / HTTP/1.1\r\nHost: other.test\r\nX-Request-Id: mine\r\n\r\n");
        assert_eq!(answer.status, 404);
        assert_eq!(answer.one("proxy-status").as_deref(), Some("ringway; error=destination_not_found; details=\"NO_ROUTE\""));
        let id = answer.one("x-request-id").expect("a number");
        assert!(id.len() == 32 && stories(&ringway, Some("mine")).is_empty(), "{id}");
        assert_eq!(stories(&ringway, Some(&id)).len(), 1);
    }
}
