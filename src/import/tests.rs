//! Inputs as a user of Hipache has them, and inputs that nobody should have.

use super::live::{Live, Next};
use super::{Imported, Store, Wish, import, read};
use crate::config::check;
use crate::config::value::listen_address;
use proptest::collection::vec;
use proptest::prelude::*;
use std::path::PathBuf;

fn wish(database: u64) -> Wish {
    Wish { database, listen: listen_address("127.0.0.1:8080").unwrap() }
}

fn imported(script: &str) -> Imported {
    let mut store = Store::new("");
    read(script.as_bytes(), "s", &mut store).unwrap();
    import(store, &wish(0)).unwrap()
}

/// The config of a script, and its notes, one a line.
fn told(script: &str) -> (serde_json::Value, String) {
    let Imported { config, notes, .. } = imported(script);
    let notes: Vec<String> = notes.iter().map(ToString::to_string).collect();
    (serde_json::from_str(&config.unwrap_or("null".into())).unwrap(), notes.join("\n"))
}

fn data(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/hipache").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn a_frontend_becomes_a_route_and_a_cluster() {
    let (config, notes) = told(
        "# as in Hipache's manual\nrpush frontend:www.dotcloud.com mywebsite\n\
         rpush frontend:www.dotcloud.com http://192.168.0.42:80\nRPUSH frontend:www.dotcloud.com http://192.168.0.43/\n",
    );
    assert_eq!(notes, "");
    assert_eq!(config["routes"], serde_json::json!({ "www.dotcloud.com": "mywebsite" }));
    let backends = serde_json::json!({ "b1": "192.168.0.42:80", "b2": "192.168.0.43:80" });
    assert_eq!(config["clusters"], serde_json::json!({ "mywebsite": { "backends": backends } }));
    assert_eq!(config["listeners"]["main"], "127.0.0.1:8080");
}

#[test]
fn lists_share_a_cluster_if_they_are_one_application() {
    let (config, notes) = told(
        "rpush frontend:a.io app http://10.0.0.1 http://10.0.0.2\nrpush frontend:b.io app http://10.0.0.2 http://10.0.0.1\n\
         rpush frontend:c.io app http://10.0.0.3\nrpush frontend:d.io \"my app\" http://10.0.0.3",
    );
    let routes = serde_json::json!({ "a.io": "app", "b.io": "app", "c.io": "app-2", "d.io": "my-app" });
    assert_eq!(config["routes"], routes);
    assert_eq!(notes.lines().count(), 2, "{notes}");
    assert!(notes.contains("s:3: frontend:c.io: app is the identifier of other backends, too"), "{notes}");
    assert!(notes.contains("s:4: frontend:d.io: the identifier \"my app\" becomes the name my-app"), "{notes}");
}

#[test]
fn a_backend_that_stands_there_twice_has_twice_the_weight() {
    let (config, _) = told("rpush frontend:* app http://10.0.0.1:81 http://A:80 HTTP://10.0.0.1:81/ http://a");
    let backends = &config["clusters"]["app"]["backends"];
    assert_eq!(backends["b1"], serde_json::json!({ "address": "10.0.0.1:81", "weight": 2 }));
    assert_eq!(backends["b2"], serde_json::json!({ "address": "a:80", "weight": 2 }));
    assert_eq!(backends.as_object().unwrap().len(), 2);
}

#[test]
fn what_does_not_map_is_named_with_its_place() {
    let (config, notes) = told(
        "rpush frontend:a.io app http://10.0.0.1:80\nrpush frontend:a.io https://10.0.0.2:443\n\
         rpush frontend:a.io http://user:secret@10.0.0.3/path 10.0.0.4:80 http://10.0.0.5:99999\n\
         rpush frontend:b.io:8080 app http://10.0.0.1\nrpush frontend:c.io/x app http://10.0.0.1\nrpush frontend:d.io empty\n\
         rpush frontend:A.io app http://10.0.0.9\nsadd dead:a.io 1\nset hchecker_ping 17\nsort frontend:a.io\n'quote",
    );
    for line in [
        "s:10: frontend:a.io: left out: SORT is not understood",
        "s:11: left out: a quote without its end",
        "s: dead:*: marks of dead backends are not carried over",
        "s: 1 other key or command is passed over",
        "s:2: frontend:a.io: left out: the backend https://10.0.0.2:443: Ringway speaks no TLS",
        "s:3: frontend:a.io: left out: user and password in the URL of backend 10.0.0.3:80",
        "s:3: frontend:a.io: left out: the backend 10.0.0.4:80 has no scheme",
        "s:3: frontend:a.io: left out: the backend http://10.0.0.5:99999: \"99999\" is not a port",
        "s:4: frontend:b.io:8080: left out: a route names no port",
        "s:5: frontend:c.io/x: left out: a Hipache knows no paths",
        "s:6: frontend:d.io: it has no backend",
        "s:7: frontend:A.io: left out: frontend:a.io is the same host",
    ] {
        assert!(notes.lines().any(|note| note.starts_with(line)), "{line} is not in\n{notes}");
    }
    assert!(!notes.contains("secret"), "{notes}");
    assert_eq!(config["routes"], serde_json::json!({ "a.io": "app", "d.io": "empty" }));
    assert_eq!(config["clusters"]["app"]["backends"].as_object().unwrap().len(), 2);
    assert_eq!(config["clusters"].as_object().unwrap().len(), 2);
}

#[test]
fn commands_do_what_they_do_in_redis() {
    let list = |script: &str| -> Vec<String> {
        let (config, notes) = told(&format!("rpush frontend:a n http://h1 http://h2 http://h3 http://h2\n{script}"));
        assert!(!notes.contains("left out"), "{notes}");
        let backends = config["clusters"]["n"]["backends"].as_object().cloned().unwrap_or_default();
        let text = |v: &serde_json::Value| match v.as_str() {
            Some(address) => address.trim_end_matches(":80").to_string(),
            None => format!("{}*{}", v["address"].as_str().unwrap().trim_end_matches(":80"), v["weight"]),
        };
        backends.values().map(text).collect()
    };
    assert_eq!(list(""), ["h1", "h2*2", "h3"]);
    assert_eq!(list("LREM frontend:a 0 http://h2"), ["h1", "h3"]);
    assert_eq!(list("lrem frontend:a -1 http://h2"), ["h1", "h2", "h3"]);
    assert_eq!(list("lset frontend:a -1 http://h4"), ["h1", "h2", "h3", "h4"]);
    assert_eq!(list("ltrim frontend:a 0 2"), ["h1", "h2"]);
    assert_eq!(list("lpop frontend:a\nlpop frontend:a\nlpush frontend:a n"), ["h2*2", "h3"]);
    assert_eq!(list("rpop frontend:a 3"), ["h1"]);
    assert_eq!(list("linsert frontend:a before http://h1 http://h0"), ["h0", "h1", "h2*2", "h3"]);
    assert_eq!(list("del frontend:a\nrpush frontend:a n http://h7"), ["h7"]);
    assert_eq!(list("rename frontend:a frontend:b"), ["h1", "h2*2", "h3"]);
    assert_eq!(list("select 1\nflushdb"), ["h1", "h2*2", "h3"]);
    assert_eq!(list("redis-cli -h db -n 1 flushdb\nredis-cli -p 1 rpush frontend:a http://h9").len(), 4);
    assert_eq!(list("flushall"), [""; 0]);
}

#[test]
fn another_database_or_prefix_is_another_hipache() {
    let script = "select 2\nrpush p:frontend:a n http://h1\nselect 0\nrpush frontend:b n http://h2\n";
    let mut store = Store::new("p:");
    read(script.as_bytes(), "s", &mut store).unwrap();
    let Imported { config, notes, .. } = import(store, &wish(2)).unwrap();
    assert!(config.unwrap().contains("\"a\": \"n\""));
    assert_eq!(notes.iter().filter(|n| n.left_out).count(), 0);

    let (config, notes) = told("select 2\nrpush frontend:a n http://h1");
    assert!(config.is_null());
    assert_eq!(notes, "s: left out: database 2 has 1 of frontend:* (--db 2 takes these instead)");
}

#[test]
fn a_shell_line_that_a_shell_would_change_is_not_run() {
    let (config, notes) = told("redis-cli rpush frontend:a n http://$HOST:80\n$ redis-cli rpush frontend:b n http://h");
    assert_eq!(config["routes"], serde_json::json!({ "b": "n" }));
    assert!(notes.starts_with("s:1: frontend:a: left out: a shell would"), "{notes}");
}

#[test]
fn the_output_says_what_hipache_does() {
    let (config, _) = told("rpush frontend:a n http://h");
    let health = serde_json::json!(
        { "on_timeout": "any", "failures": 1, "statuses": [501, 502, 503, 504], "hold_down_max": "30s" });
    assert_eq!(config["defaults"], serde_json::json!({ "health": health }));
    let keys: Vec<&String> = config.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["listeners", "clusters", "routes", "defaults", "control", "state_file"]);
    assert_eq!(config["control"], serde_json::json!({ "socket": "ringway.sock" }));
}

/// Dumps and append-only files of real servers that all hold the same (tests/data/hipache/README.md).
#[test]
fn files_of_real_servers_give_the_same_config() {
    let expected = String::from_utf8(data("config.json")).unwrap();
    for name in
        ["redis-3.0.rdb", "redis-3.2.rdb", "redis-6.2.rdb", "redis-7.0.rdb", "redis-6.2-preamble.aof", "redis-7.0.aof"]
    {
        let bytes = data(name);
        let mut store = Store::new("");
        read(&bytes, name, &mut store).unwrap();
        let Imported { config, notes, .. } = import(store, &wish(0)).unwrap();
        assert_eq!(config.as_deref(), Some(expected.as_str()), "{name}");
        assert!(notes.iter().any(|n| n.left_out && n.key.contains("tls.example.com")), "{name}");
    }
}

#[test]
fn a_cut_or_damaged_dump_is_refused_at_its_place() {
    for name in ["redis-3.0.rdb", "redis-3.2.rdb", "redis-6.2.rdb", "redis-7.0.rdb"] {
        let whole = data(name);
        for cut in 0..whole.len() {
            let mut store = Store::new("");
            let refused = read(&whole[..cut], name, &mut store);
            // Without all of its first nine bytes it is taken for a script.
            assert!(cut < 9 || refused.is_err_and(|why| why.at <= cut), "{name} of {cut} bytes");
        }
        let mut wrong = whole.clone();
        for at in 9..whole.len() - 8 {
            wrong[at] ^= 0x10;
            assert!(read(&wrong, name, &mut Store::new("")).is_err(), "{name} with byte {at} changed");
            wrong[at] ^= 0x10;
        }
    }
    let aof = data("redis-7.0.aof");
    let mut store = Store::new("");
    read(&aof[..aof.len() - 3], "a", &mut store).unwrap();
    let notes = import(store, &wish(0)).unwrap().notes;
    assert!(notes.iter().any(|n| n.left_out && n.message.contains("in the middle of a command")));
}

/// A Redis that holds these lists, in pieces of `size` bytes.
fn ask_a_server(replies: &[&[u8]], size: usize) -> Result<(Store, Vec<String>), String> {
    let mut store = Store::new("");
    let (mut live, first) = Live::begin("r:1", Some("pw".into()), 3, &mut store);
    let mut sent = vec![String::from_utf8_lossy(&first).into_owned()];
    for reply in replies {
        for piece in reply.chunks(size) {
            match live.take(piece, &mut store).map_err(|why| why.message)? {
                Next::Send(bytes) => sent.push(String::from_utf8_lossy(&bytes).into_owned()),
                Next::Wait => {}
                Next::Done => return Ok((store, sent)),
            }
        }
    }
    Err("not done".into())
}

#[test]
fn a_running_redis_is_only_read() {
    let scan = b"*2\r\n$1\r\n7\r\n*2\r\n$10\r\nfrontend:a\r\n$10\r\nfrontend:a\r\n";
    let rest = b"*2\r\n$1\r\n0\r\n*1\r\n$10\r\nfrontend:b\r\n";
    let lists = b"*2\r\n$1\r\nn\r\n$8\r\nhttp://h\r\n-WRONGTYPE Operation against a key\r\n";
    for size in [1, 2, 7, 1000] {
        let (store, sent) = ask_a_server(&[b"+OK\r\n", b"+OK\r\n", scan, rest, lists], size).unwrap();
        let commands: Vec<&str> =
            sent.iter().flat_map(|s| s.lines()).filter(|w| w.starts_with(|c: char| c.is_ascii_uppercase())).collect();
        let expected = ["AUTH", "SELECT", "SCAN", "MATCH", "COUNT", "SCAN", "MATCH", "COUNT", "LRANGE", "LRANGE"];
        assert_eq!(commands, expected);
        let Imported { config, notes, .. } = import(store, &wish(3)).unwrap();
        assert!(config.unwrap().contains("\"a\": \"n\""));
        assert_eq!(notes.len(), 1);
        assert!(notes[0].to_string().starts_with("redis r:1: frontend:b: left out: it is no list"));
    }
    let old = b"-ERR unknown command 'SCAN'\r\n";
    let (_, sent) = ask_a_server(&[b"+OK\r\n", b"+OK\r\n", old, b"*0\r\n"], 9).unwrap();
    assert!(sent.last().unwrap().contains("KEYS\r\n$10\r\nfrontend:*"));
    assert!(ask_a_server(&[b"-NOAUTH Authentication required.\r\n"], 9).unwrap_err().contains("--password-env"));
    assert!(ask_a_server(&[b"HTTP/1.1 400 Bad Request\r\n"], 9).is_err());
}

/// Whatever came of it, the config that it gives is a good one.
fn survives(bytes: &[u8]) {
    let mut store = Store::new("");
    if read(bytes, "any", &mut store).is_ok() {
        let config = import(store, &wish(0)).unwrap_or_else(|faults| panic!("{faults}")).config;
        config.into_iter().for_each(|text| drop(check::load(&text, "c").unwrap_or_else(|faults| panic!("{faults}"))));
    }
}

/// A real file with some bytes changed, and a cut.
fn damaged(name: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let whole = data(name);
    let len = whole.len();
    (vec((0..len, any::<u8>()), 1..6), 0..len * 2).prop_map(move |(changes, cut)| {
        let mut bytes = whole.clone();
        changes.into_iter().for_each(|(at, byte)| bytes[at] = byte);
        // No checksum, so that damage is not found by it.
        let end = bytes.len() - 8;
        bytes[end..].fill(0);
        bytes.truncate(cut);
        bytes
    })
}

proptest! {
    #[test]
    fn any_bytes_are_no_harm(bytes in vec(any::<u8>(), 0..400)) {
        survives(&bytes);
        survives(&[b"REDIS0010", bytes.as_slice()].concat());
        survives(&[b"*3\r\n$5\r\nrpush\r\n$10\r\nfrontend:a\r\n", bytes.as_slice()].concat());
        let mut store = Store::new("");
        let (mut live, _) = Live::begin("r", None, 0, &mut store);
        let _ = live.take(&bytes, &mut store);
    }

    #[test]
    fn damaged_files_are_no_harm(
        a in damaged("redis-3.0.rdb"), b in damaged("redis-6.2.rdb"), c in damaged("redis-7.0.rdb"),
        d in damaged("redis-7.0.aof"), e in damaged("redis-6.2-preamble.aof"),
    ) {
        [a, b, c, d, e].iter().for_each(|bytes| survives(bytes));
    }

    #[test]
    fn any_list_gives_a_good_config(
        lists in vec(("[a-cA-C*./:\\[\\]0-9 é-]{0,12}", "[a-b é.-]{0,4}", vec("(https?://)?[a-b0-9.:/@\\[\\]-]{0,12}", 0..4)), 1..8)
    ) {
        let quote = |word: &str| format!("\"{}\"", word.replace(['\\', '"'], ""));
        let lines = lists.iter().map(|(host, name, urls)| {
            let urls: Vec<String> = urls.iter().map(|url| quote(url)).collect();
            format!("rpush {} {} {}\n", quote(&format!("frontend:{host}")), quote(name), urls.join(" "))
        });
        survives(lines.collect::<String>().as_bytes());
    }
}
