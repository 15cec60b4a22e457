//! Headless Chromium, driven by its own protocol (DevTools) over the little of WebSocket (RFC 6455) that this needs.

use crate::client::Client;
use crate::harness::{Scratch, eventually, lossy, seconds};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// Where the distributions put it.
const PROGRAMS: [&str; 3] = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

/// A browser with one page. It ends with this value.
pub struct Browser {
    child: Child,
    socket: TcpStream,
    calls: u64,
    /// What the page complained of: errors of scripts, and what its policy refused.
    pub complaints: Vec<String>,
}

impl Browser {
    /// The program, if one is installed.
    pub fn program() -> Option<PathBuf> {
        PROGRAMS.iter().map(PathBuf::from).find(|path| path.exists())
    }

    pub fn open(program: PathBuf, scratch: &Scratch) -> Browser {
        let profile = scratch.path("profile");
        let mut command = Command::new(program);
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"]);
        command.args(["--disable-background-networking", "--remote-debugging-port=0", "--hide-scrollbars"]);
        command.arg(format!("--user-data-dir={}", profile.display())).arg("about:blank");
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("chromium starts");
        let mut port = None;
        eventually(seconds(60), "chromium listens", || {
            let said = fs::read_to_string(profile.join("DevToolsActivePort")).unwrap_or_default();
            port = said.lines().next().and_then(|line| line.parse::<u16>().ok());
            port.is_some()
        });
        let address = SocketAddr::from(([127, 0, 0, 1], port.expect("a port")));
        let mut socket = None;
        eventually(seconds(30), "chromium has a page", || {
            let mut client = Client::over(Box::new(TcpStream::connect(address).expect("chromium listens")));
            let list = client.send(format!("GET /json/list HTTP/1.1\r\nHost: {address}\r\n\r\n")).response();
            let pages: Vec<Value> = serde_json::from_slice(&list.body).unwrap_or_default();
            let page = pages.iter().find(|page| page["type"] == "page");
            socket = page.and_then(|page| page["webSocketDebuggerUrl"].as_str()).map(|url| shake(address, url));
            socket.is_some()
        });
        let socket = socket.expect("a socket");
        let mut browser = Browser { child, socket, calls: 0, complaints: Vec::new() };
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Calls a method of the protocol and waits for what it gives.
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let call = json!({ "id": self.calls, "method": method, "params": params });
        let sent = self.socket.write_all(&frame(call.to_string().as_bytes()));
        sent.unwrap_or_else(|e| panic!("{method}: {e}"));
        loop {
            let message = self.read().unwrap_or_else(|e| panic!("{method}: {e}"));
            if message["id"] == self.calls {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
            match message["method"].as_str() {
                Some("Runtime.exceptionThrown" | "Log.entryAdded") => self.complaints.push(message.to_string()),
                Some("Runtime.consoleAPICalled") if message["params"]["type"] == "error" => {
                    self.complaints.push(message.to_string());
                }
                _ => {}
            }
        }
    }

    /// The value of an expression in the page.
    pub fn eval(&mut self, expression: &str) -> Value {
        let given = self.call("Runtime.evaluate", json!({ "expression": expression, "returnByValue": true }));
        assert!(given["exceptionDetails"].is_null(), "{expression}: {given}");
        given["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub fn until(&mut self, expression: &str) {
        let begin = Instant::now();
        while self.eval(expression) != true {
            if begin.elapsed() > seconds(20) {
                let page = self.eval("document.body ? document.body.innerText : ''");
                panic!("never: {expression}\n{:#?}\n{page}", self.complaints);
            }
            std::thread::sleep(crate::harness::millis(50));
        }
    }

    /// Goes to an address and waits until the page is there.
    pub fn go(&mut self, url: &str) {
        self.call("Page.navigate", json!({ "url": url }));
        self.until(&format!("document.readyState === 'complete' && location.href === {}", json!(url)));
    }

    /// A picture of the window as PNG.
    pub fn picture(&mut self) -> Vec<u8> {
        let given = self.call("Page.captureScreenshot", json!({ "format": "png" }));
        unbase64(given["data"].as_str().expect("a picture"))
    }

    /// The size of the window in pixels of the page.
    pub fn resize(&mut self, width: u32, height: u32, phone: bool) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone });
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    pub fn dark(&mut self, dark: bool) {
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// One message; pings and the like do not come here.
    fn read(&mut self) -> std::io::Result<Value> {
        let mut text = Vec::new();
        loop {
            let mut head = [0; 2];
            self.socket.read_exact(&mut head)?;
            let length = match head[1] & 0x7F {
                126 => self.number(2)?,
                127 => self.number(8)?,
                short => usize::from(short),
            };
            let begin = text.len();
            text.resize(begin + length, 0);
            self.socket.read_exact(&mut text[begin..])?;
            if head[0] & 0x80 != 0 {
                return Ok(serde_json::from_slice(&text)?);
            }
        }
    }

    fn number(&mut self, bytes: usize) -> std::io::Result<usize> {
        let mut number = [0; 8];
        self.socket.read_exact(&mut number[8 - bytes..])?;
        Ok(u64::from_be_bytes(number) as usize)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Closed by its own word, its helpers end with it.
        let close = json!({ "id": 0, "method": "Browser.close" });
        let _ = self.socket.write_all(&frame(close.to_string().as_bytes()));
        let begin = Instant::now();
        while self.child.try_wait().is_ok_and(|ended| ended.is_none()) && begin.elapsed() < seconds(5) {
            std::thread::sleep(crate::harness::millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Opens the page's WebSocket.
fn shake(address: SocketAddr, url: &str) -> TcpStream {
    let path = url.strip_prefix(&format!("ws://{address}")).unwrap_or_else(|| panic!("{url} is not of {address}"));
    let mut socket = TcpStream::connect(address).expect("chromium listens");
    socket.set_read_timeout(Some(seconds(30))).expect("a timeout");
    let key = "AAAAAAAAAAAAAAAAAAAAAA==";
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ";
    let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{upgrade}{key}\r\n\r\n");
    socket.write_all(head.as_bytes()).expect("a request");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).expect("an answer");
        answer.push(byte[0]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", lossy(&answer));
    socket
}

/// A text in one frame; the mask is 0, which leaves it as it is.
fn frame(text: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x81];
    match text.len() {
        n if n < 126 => frame.push(0x80 | n as u8),
        n => {
            assert!(n < 65_536, "{n} bytes");
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(n as u16).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(text);
    frame
}

fn unbase64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let values: Vec<usize> = text.bytes().filter_map(|digit| DIGITS.iter().position(|known| *known == digit)).collect();
    let bytes = |four: &[usize]| {
        let bits = four.iter().fold(0, |bits, value| bits << 6 | value) << (6 * (4 - four.len()));
        [16, 8, 0].map(|shift| (bits >> shift) as u8).into_iter().take(four.len() - 1)
    };
    values.chunks(4).flat_map(bytes).collect()
}
