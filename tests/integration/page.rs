//! The status page: as a server gives it, and as a browser shows it.

use crate::browser::Browser;
use crate::client::{Client, Response, get};
use crate::harness::{Driver, Ringway, Scratch, eventually, free_address, millis, seconds};
use crate::origin::Origin;
use crate::settings::{HEALTH, STATUS, set};
use serde_json::{Value, json};
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// A script, should anyone let it run.
const HOSTILE: &str = "new disk <script>document.title='owned'</script>";

fn watched(origins: &[&Origin], change: impl FnOnce(&mut Value)) -> (Ringway, SocketAddr) {
    let status = free_address();
    let ringway = Ringway::with(Driver::Epoll, origins, |c| {
        set(c, STATUS, status.to_string());
        change(c);
    });
    (ringway, status)
}

fn ask(address: SocketAddr, request: &str) -> Response {
    let mut client = Client::over(Box::new(TcpStream::connect(address).expect("the status listener listens")));
    client.send(request).response()
}

/// As a browser asks for it.
fn page(address: SocketAddr, path: &str) -> String {
    let response = ask(address, &format!("GET {path} HTTP/1.1\r\nHost: a\r\nAccept: text/html,*/*;q=0.8\r\n\r\n"));
    assert_eq!(response.status, 200);
    assert_eq!(response.one("content-type").as_deref(), Some("text/html; charset=utf-8"));
    response.text()
}

/// The text between two marks.
fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    let from = text.find(begin).unwrap_or_else(|| panic!("no {begin} in {text}"));
    let rest = &text[from..];
    &rest[..rest.find(end).unwrap_or_else(|| panic!("no {end} behind {begin}"))]
}

#[test]
fn browsers_get_a_page_that_may_do_nothing_and_programs_a_list() {
    let origin = Origin::saying("hello");
    let (mut ringway, status) = watched(&[&origin], |_| {});
    let list = ask(status, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((list.status, list.one("content-security-policy")), (200, None));
    assert!(list.text().contains("/metrics") && list.text().contains("/live"), "{}", list.text());

    let browser = "Host: a\r\nAccept: text/html\r\n\r\n";
    let html = ask(status, &format!("GET / HTTP/1.1\r\n{browser}"));
    let policy = html.one("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(html.one("x-content-type-options").as_deref(), Some("nosniff"));
    assert_eq!(html.one("referrer-policy").as_deref(), Some("no-referrer"));
    assert_eq!(html.one("cache-control").as_deref(), Some("no-store"));
    assert!(html.text().starts_with("<!DOCTYPE html>") && html.text().ends_with("</html>"), "{}", html.text());
    assert_eq!((html.text().matches("<script>").count(), html.text().matches("<style>").count()), (1, 1));
    let mut client = Client::over(Box::new(TcpStream::connect(status).expect("it listens")));
    client.send(format!("HEAD / HTTP/1.1\r\n{browser}GET /ready HTTP/1.1\r\nHost: a\r\n\r\n"));
    let head = client.response_to("HEAD");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert!(head.one("content-length").and_then(|n| n.parse::<usize>().ok()).is_some_and(|n| n > 1000));
    assert_eq!(client.response().text(), "ok\n");
    assert_eq!(ask(status, &format!("POST / HTTP/1.1\r\nContent-Length: 0\r\n{browser}")).status, 405);

    let mut config = ringway.config.clone();
    set(&mut config, "status/page", false);
    ringway.write_config(&config);
    assert!(ringway.ctl(&["reload"]).status.success());
    let off = ask(status, &format!("GET / HTTP/1.1\r\n{browser}"));
    assert_eq!((off.status, off.text(), off.one("content-security-policy")), (200, list.text(), None));
}

#[test]
fn the_page_tells_what_is_wrong_and_who_has_said_what() {
    let (one, two) = (Origin::saying("one"), Origin::saying("two"));
    let (ringway, status) = watched(&[&one, &two], |c| {
        let dead = free_address().to_string();
        let health = json!({ "failures": 1 });
        c["clusters"]["dead"] = json!({ "backends": { "b1": dead }, "retries": 0, "health": health });
        let half = json!({ "b1": dead, "b2": one.address().to_string() });
        c["clusters"]["half"] = json!({ "backends": half, "health": health });
        for n in 0..150 {
            c["clusters"][format!("spare-{n:03}")] = json!({ "backends": { "b": one.address().to_string() } });
        }
        c["routes"]["dead.test"] = json!("dead");
        c["routes"]["half.test"] = json!("half");
    });
    assert!(page(status, "/").contains("no cluster in trouble"));
    let asked = crate::client::ask(&ringway, "GET / HTTP/1.1\r\nHost: dead.test\r\n\r\n");
    assert_eq!(asked.status, 502);
    eventually(seconds(5), "half/b1 is down", || {
        crate::client::ask(&ringway, "GET / HTTP/1.1\r\nHost: half.test\r\n\r\n");
        ringway.backend_state("half", "b1") == "down"
    });
    assert!(ringway.ctl(&["backend", "drain", "app/b2", "--why", HOSTILE]).status.success());

    let html = page(status, "/");
    assert!(html.contains("2 clusters in trouble"), "{html}");
    let clusters = between(&html, "<section id=\"clusters\">", "</section>");
    assert!(clusters.contains("100 of 153 are shown"), "{clusters}");
    let names: Vec<&str> = clusters.split("<h3>").skip(1).map(|rest| between(rest, "", "</h3>")).collect();
    assert_eq!((names.len(), &names[..4]), (100, &["dead", "half", "app", "spare-000"][..]));
    let kept = between(clusters, "data-key=\"dead/b1\"", "</tr>");
    assert!(kept.contains("<strong class=\"good\">up</strong>") && kept.contains("kept up"), "{kept}");
    let down = between(clusters, "data-key=\"half/b1\"", "</tr>");
    assert!(down.contains("<strong class=\"bad\">down</strong>") && down.contains("connect errors"), "{down}");
    let drained = between(clusters, "data-key=\"app/b2\"", "</tr>");
    assert!(drained.contains("drained by uid ") && drained.contains("(found up)"), "{drained}");
    // Operators' words are text, wherever they stand.
    assert!(drained.contains("&lt;script&gt;") && html.matches("<script>").count() == 1, "{drained}");
    let events = between(&html, "<section id=\"events\">", "</section>");
    assert!(events.contains("dead/b1") && events.contains("backend app/b2 Drain"), "{events}");
    let cores = between(&html, "<section id=\"cores\">", "</section>");
    assert_eq!(cores.matches("data-key=\"core/").count(), 1, "{cores}");

    let found = page(status, "/?find=spare-01");
    assert_eq!(found.matches("<h3>").count(), 10);
    assert!(found.contains("10 of 153 are shown, 10 fit") && found.contains("value=\"spare-01\""));
    // What was asked comes back as text, too.
    let odd = page(status, "/?find=%22%3E%3Cscript%3E&url=a%3Cb&%FF=1&=");
    assert_eq!(odd.matches("<script>").count(), 1);
    assert!(odd.contains("value=\"&quot;&gt;&lt;script&gt;\""), "{odd}");

    let path = "/?method=GET&url=http%3A%2F%2Fhalf.test%2Fx&fields=Cookie%3A%20id%3D7#explain";
    let told = page(status, path.trim_end_matches("#explain"));
    let told = between(&told, "<pre id=\"told\">", "</pre>");
    assert!(told.contains("rule        half.test") && told.contains("Cookie: id=7"), "{told}");
    assert!(told.contains("b1  ") && told.contains("down"), "{told}");
    assert!(page(status, "/?url=a&from=b").contains("no IP address"));
    assert_eq!(two.requests().len(), 0);
}

/// Leaves its pictures where `PICTURES` names a directory, as docs/ has them.
#[test]
fn a_browser_shows_it_live_on_a_desk_and_on_a_phone() {
    let Some(program) = Browser::program() else {
        eprintln!("SKIPPED: no Chromium is installed; the status page was not tried in a browser");
        return;
    };
    let (one, two) = (Origin::saying("one"), Origin::saying("two"));
    let at = two.address();
    let (ringway, status) = watched(&[&one, &two], |c| {
        c["workers"] = json!(2);
        set(c, HEALTH, json!({ "hold_down": "1s" }));
        c["clusters"]["shop"] = json!({ "backends": { "s1": one.address().to_string() } });
        c["routes"]["app-user.web.example.io"] = json!("app");
        c["routes"]["shop.example.io"] = json!("shop");
    });
    assert!(ringway.ctl(&["backend", "maint", "shop/s1", "--why", HOSTILE]).status.success());
    let scratch = Scratch::new();
    let mut browser = Browser::open(program, &scratch);
    let ends = Arc::new(AtomicBool::new(false));
    let traffic = {
        let (ends, address) = (ends.clone(), ringway.address);
        std::thread::spawn(move || {
            while !ends.load(Relaxed) {
                let mut client = Client::at(address);
                (0..20).for_each(|_| drop(client.get("/")));
                std::thread::sleep(millis(10));
            }
        })
    };

    browser.resize(1280, 1000, false);
    browser.dark(false);
    browser.go(&format!("http://{status}/"));
    browser.until("document.getElementById('beat').textContent.startsWith('Live')");
    // Counters rise and plots move without a reload of the page.
    browser.eval("window.mark = 1");
    browser.until(
        "[...document.querySelectorAll('[data-key=\"app/b1\"] .rate')].some(r => parseFloat(r.textContent) > 5)",
    );
    browser.until("(document.querySelector('path.one').getAttribute('d').match(/h/g) || []).length > 2");
    let ground = "getComputedStyle(document.body).backgroundColor";
    let light = browser.eval(ground);
    assert_eq!(light, "rgb(255, 255, 255)");

    // What happens shows by itself.
    drop(two);
    browser.until("document.querySelector('[data-key=\"app/b2\"] strong').textContent === 'down'");
    browser.until("document.getElementById('events').innerText.includes('app/b2')");
    browser.until("document.getElementById('summary').innerText.includes('cluster')");
    browser.eval("scrollTo(0, 0)");
    let desk = browser.picture();
    let back = Origin::saying_at(at, "two");
    browser.until("document.querySelector('[data-key=\"app/b2\"] strong').textContent === 'up'");
    let said = browser.eval("document.querySelector('[data-key=\"shop/s1\"]').innerText");
    assert!(said.as_str().is_some_and(|text| text.contains(HOSTILE)), "{said}");
    assert_eq!((browser.eval("document.title"), browser.eval("window.mark")), (json!("Ringway"), json!(1)));

    // The explain box, as a person uses it.
    browser.eval("document.querySelector('[name=url]').value = 'http://app-user.web.example.io/cart?x=1'");
    browser.eval("document.querySelector('#explain button').click()");
    browser.until("!!document.getElementById('told') && document.readyState === 'complete'");
    let told = browser.eval("document.getElementById('told').innerText");
    assert!(told.as_str().is_some_and(|text| text.contains("rule        app-user.web.example.io")), "{told}");
    assert_eq!(browser.eval("location.hash"), "#explain");
    // It stays while the rest goes on.
    browser.until("document.getElementById('beat').textContent.startsWith('Live')");
    assert_eq!(browser.eval("document.getElementById('told').innerText"), told);

    browser.dark(true);
    assert_ne!(browser.eval(ground), light);
    browser.resize(390, 844, true);
    browser.until("innerWidth === 390");
    assert_eq!(browser.eval("document.documentElement.scrollWidth"), 390);
    browser.eval("scrollTo(0, 0)");
    let phone = browser.picture();

    // Without scripts it says the same.
    browser.call("Emulation.setScriptExecutionDisabled", json!({ "value": true }));
    browser.go(&format!("http://{status}/"));
    let plain = browser.eval("document.getElementById('beat').textContent");
    assert!(plain.as_str().is_some_and(|text| !text.starts_with("Live")), "{plain}");
    let rows = browser.eval("document.querySelectorAll('#clusters tbody tr').length");
    assert_eq!((rows, browser.eval("document.querySelectorAll('#plots path').length")), (json!(3), json!(5)));

    assert_eq!(browser.complaints, Vec::<String>::new());
    ends.store(true, Relaxed);
    traffic.join().expect("traffic ends");
    drop((browser, back));
    for (name, picture) in [("status-page.png", desk), ("status-page-phone.png", phone)] {
        assert!(picture.starts_with(b"\x89PNG") && picture.len() > 10_000, "{name}: {} bytes", picture.len());
        if let Some(directory) = std::env::var_os("PICTURES") {
            fs::write(Path::new(&directory).join(name), picture).expect("a picture is written");
        }
    }
    assert_eq!(get(&ringway, "/").status, 200);
}
