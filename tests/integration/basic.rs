//! One request, one response.

use crate::client::{Client, ask, get};
use crate::harness::{Ringway, Scratch, config_of, free_address, millis, on_both_drivers, seconds};
use crate::message::Framing;
use crate::origin::Origin;
use crate::settings::set;
use serde_json::json;

on_both_drivers! {
    fn get_is_answered(driver) {
        let origin = Origin::saying("hello");
        let ringway = Ringway::before(driver, &[&origin]);
        let response = get(&ringway, "/a/b?c=d");
        assert_eq!((response.status, response.text().as_str()), (200, "hello"));
        assert_eq!(origin.last().line(), "GET /a/b?c=d HTTP/1.1");
        assert_eq!(origin.last().one("host").as_deref(), Some("a.test"));
    }

    fn post_is_passed_on(driver) {
        let origin = Origin::echo();
        let ringway = Ringway::before(driver, &[&origin]);
        let response = Client::to(&ringway).post("/x", "field=value");
        assert_eq!((response.status, response.text().as_str()), (200, "field=value"));
        assert_eq!(origin.last().one("content-length").as_deref(), Some("11"));
    }

    fn status_reason_and_fields_come_through(driver) {
        let origin = Origin::fixed(
            "HTTP/1.1 418 I'm a teapot\r\nX-One: 1\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n\
             Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nServer: pot\r\nContent-Length: 3\r\n\r\ntea",
        );
        let ringway = Ringway::before(driver, &[&origin]);
        let response = get(&ringway, "/");
        assert_eq!((response.status, response.text().as_str()), (418, "tea"));
        assert_eq!(response.all("set-cookie"), ["a=b", "c=d"]);
        assert_eq!(response.one("x-one").as_deref(), Some("1"));
        assert_eq!(response.one("server").as_deref(), Some("pot"));
        assert_eq!(response.one("date").as_deref(), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
    }

    fn head_has_no_body_and_keeps_the_connection(driver) {
        let origin = Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        for _ in 0..3 {
            client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
            let response = client.response_to("HEAD");
            assert_eq!(response.one("content-length").as_deref(), Some("1000"));
            client.silent(millis(50));
        }
        assert_eq!(origin.connections(), 1);
    }

    fn no_content_and_not_modified_have_no_body(driver) {
        let origin = Origin::new(|c| c.serve(|r| Some(match r.target().as_str() {
            "/204" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
            _ => b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 500\r\n\r\n".to_vec(),
        })));
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        assert_eq!(client.get("/204").status, 204);
        assert_eq!(client.get("/304").status, 304);
        assert_eq!(client.get("/204").all("content-length"), Vec::<String>::new());
        assert_eq!(origin.connections(), 1);
    }

    fn methods_come_through(driver) {
        let origin = Origin::saying("ok");
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        for method in ["GET", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND", "M-SEARCH"] {
            client.send(format!("{method} /m HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"));
            assert_eq!(client.response().status, 200, "{method}");
            assert_eq!(origin.last().line(), format!("{method} /m HTTP/1.1"));
        }
        client.send("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.response().status, 200);
        assert_eq!(origin.last().line(), "OPTIONS * HTTP/1.1");
    }

    fn connect_is_not_implemented(driver) {
        let origin = Origin::saying("ok");
        let ringway = Ringway::before(driver, &[&origin]);
        let response = ask(&ringway, "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n");
        assert_eq!(response.status, 501);
        assert!(origin.requests().is_empty());
    }

    fn http_10_client_is_served_and_closed(driver) {
        let origin = Origin::fixed("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
        let response = client.response();
        assert_eq!((response.framing, response.text().as_str()), (Framing::UntilClose, "hello"));
        assert!(response.all("transfer-encoding").is_empty());
        assert!(origin.last().line().ends_with("HTTP/1.1"));
    }

    fn http_10_client_may_keep_alive(driver) {
        let origin = Origin::saying("hello");
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        for _ in 0..2 {
            client.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
            let response = client.response();
            assert_eq!(response.text(), "hello");
            assert!(response.all("connection").iter().any(|v| v.eq_ignore_ascii_case("keep-alive")));
        }
        client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
        assert_eq!(client.response().text(), "hello");
        client.closed();
    }

    fn http_10_backend_is_understood(driver) {
        let origin = Origin::once("HTTP/1.0 200 OK\r\nX-Old: 1\r\n\r\nold body");
        let ringway = Ringway::before(driver, &[&origin]);
        let mut client = Client::to(&ringway);
        for _ in 0..2 {
            let response = client.get("/");
            assert_eq!((response.framing, response.text().as_str()), (Framing::Chunked, "old body"));
        }
        assert_eq!(origin.connections(), 2);
    }

    fn absolute_form_decides_the_host(driver) {
        let origin = Origin::saying("ok");
        let ringway = Ringway::before(driver, &[&origin]);
        let response = ask(&ringway, "GET http://right.test/p?q HTTP/1.1\r\nHost: wrong.test\r\n\r\n");
        assert_eq!(response.status, 200);
        assert_eq!(origin.last().line(), "GET /p?q HTTP/1.1");
        assert_eq!(origin.last().one("host").as_deref(), Some("right.test"));
    }

    fn two_listeners_and_a_unix_one(driver) {
        let origin = Origin::saying("ok");
        let scratch = Scratch::new();
        let (main, other, path) = (free_address(), free_address(), scratch.path("in.sock"));
        let mut config = config_of(&[&origin]);
        set(&mut config, "listeners", json!({
            "main": main.to_string(), "other": other.to_string(),
            "local": format!("unix:{}", path.display()),
        }));
        // The one that is opened last.
        let mut ringway = Ringway::start_at(driver, config, other);
        assert_eq!(Client::at(other).get("/").status, 200);
        assert_eq!(Client::at(main).get("/").status, 200);
        let mut client = Client::unix(&path);
        assert_eq!(client.get("/").status, 200);
        assert_eq!(client.get("/").status, 200);
        drop(client);
        ringway.signal(libc::SIGTERM);
        assert!(ringway.wait(seconds(10)).success());
    }

    fn unix_backend(driver) {
        use std::io::{Read, Write};
        let scratch = Scratch::new();
        let path = scratch.path("backend.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).expect("bind");
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accept");
            let mut buf = [0u8; 4096];
            for _ in 0..2 {
                assert!(stream.read(&mut buf).expect("read") > 0);
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nunix").expect("write");
            }
        });
        let ringway = Ringway::start(driver, json!({
            "clusters": {"app": {"backends": {"b1": format!("unix:{}", path.display())}}},
            "routes": {"*": "app"},
        }));
        let mut client = Client::to(&ringway);
        assert_eq!(client.get("/").text(), "unix");
        assert_eq!(client.get("/").text(), "unix");
        server.join().expect("the server");
    }

    fn backend_by_name(driver) {
        let origin = Origin::saying("named");
        let port = origin.address().port();
        let ringway = Ringway::start(driver, json!({
            "clusters": {"app": {"backends": {"b1": format!("localhost:{port}")}}},
            "routes": {"*": "app"},
        }));
        assert_eq!(get(&ringway, "/").text(), "named");
    }

    fn two_workers_serve(driver) {
        let origin = Origin::saying("ok");
        let ringway = Ringway::with(driver, &[&origin], |c| set(c, "workers", 2));
        let mut clients: Vec<Client> = (0..20).map(|_| Client::to(&ringway)).collect();
        for _ in 0..3 {
            for client in &mut clients {
                assert_eq!(client.get("/").status, 200);
            }
        }
    }
}
