//! How it stops.

use crate::client::{Client, End};
use crate::harness::{Ringway, eventually, millis, on_both_drivers, seconds};
use crate::origin::{Origin, ok};
use crate::settings::{DRAIN, set};

fn sleeping(time: u64) -> Origin {
    Origin::new(move |c| {
        while let Some(request) = c.request() {
            if request.target() == "/slow" {
                c.sleep(millis(time));
            }
            if !c.send(&ok("done")) {
                return;
            }
        }
    })
}

on_both_drivers! {
    fn term_without_connections_ends_at_once(driver) {
        let origin = Origin::saying("ok");
        let mut ringway = Ringway::before(driver, &[&origin]);
        let begin = std::time::Instant::now();
        ringway.signal(libc::SIGTERM);
        assert!(ringway.wait(seconds(5)).success());
        assert!(begin.elapsed() < seconds(4));
    }

    fn a_running_exchange_is_finished_with_close(driver) {
        let origin = sleeping(1500);
        let mut ringway = Ringway::with(driver, &[&origin], |c| set(c, DRAIN, "10s"));
        let mut client = Client::to(&ringway);
        client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
        origin.wait_requests(1);
        ringway.signal(libc::SIGTERM);
        let address = ringway.address;
        eventually(seconds(3), "the listener is closed", || std::net::TcpStream::connect(address).is_err());
        let response = client.response();
        assert_eq!(response.text(), "done");
        assert!(response.says_close());
        client.closed();
        assert!(ringway.wait(seconds(12)).success());
    }

    fn idle_connections_get_half_the_time(driver) {
        let origin = Origin::saying("ok");
        let mut ringway = Ringway::with(driver, &[&origin], |c| set(c, DRAIN, "4s"));
        let mut client = Client::to(&ringway);
        let mut never_used = Client::to(&ringway);
        assert_eq!(client.get("/").status, 200);
        ringway.signal(libc::SIGTERM);
        std::thread::sleep(millis(500));
        // A request that comes meanwhile is served, and told that it was the last.
        let response = client.get("/");
        assert!(response.status == 200 && response.says_close());
        assert_eq!(never_used.rest(seconds(5)).1, End::Fin);
        assert!(ringway.wait(seconds(7)).success());
    }

    fn what_is_left_at_the_end_is_cut(driver) {
        let origin = sleeping(12_000);
        let mut ringway = Ringway::with(driver, &[&origin], |c| set(c, DRAIN, "2s"));
        let mut client = Client::to(&ringway);
        client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
        origin.wait_requests(1);
        let begin = std::time::Instant::now();
        ringway.signal(libc::SIGTERM);
        ringway.wait(seconds(7));
        assert!(begin.elapsed() >= millis(1000), "{:?}", begin.elapsed());
        assert!(ringway.stderr().to_lowercase().contains("cut"), "{}", ringway.stderr());
    }

    fn a_second_signal_ends_at_once(driver) {
        let origin = sleeping(12_000);
        let mut ringway = Ringway::with(driver, &[&origin], |c| set(c, DRAIN, "30s"));
        let mut client = Client::to(&ringway);
        client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
        origin.wait_requests(1);
        ringway.signal(libc::SIGTERM);
        std::thread::sleep(millis(500));
        assert!(ringway.is_running());
        ringway.signal(libc::SIGTERM);
        ringway.wait(seconds(3));
    }

    fn sigint_drains_too(driver) {
        let origin = Origin::saying("ok");
        let mut ringway = Ringway::before(driver, &[&origin]);
        ringway.signal(libc::SIGINT);
        assert!(ringway.wait(seconds(5)).success());
    }

    fn no_connection_in_the_queue_is_lost(driver) {
        let origin = Origin::saying("ok");
        let mut ringway = Ringway::with(driver, &[&origin], |c| set(c, DRAIN, "5s"));
        for _ in 0..5 { assert_eq!(Client::to(&ringway).get("/").status, 200); }
        let mut clients: Vec<Client> = (0..50).map(|_| Client::to(&ringway)).collect();
        for client in &mut clients { client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"); }
        ringway.signal(libc::SIGTERM);
        for client in &mut clients { assert_eq!(client.response().status, 200); }
        assert!(ringway.wait(seconds(8)).success());
    }
}
