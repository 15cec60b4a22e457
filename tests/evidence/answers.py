#!/usr/bin/env python3
"""What answers cost while traffic passes: CLUSTERS applications with three backends each, RATE requests a second, and beside
them one client that asks again and again. For each kind of question: how many answers a second, how long they took, how
long they were, what the traffic felt, and the control thread's share of a CPU. Nothing may fail.

Then what a comparison takes: two configs of ROUTES routes, and a replay of LINES lines of an access log.

Environment: SECONDS of each (5), RATE (2,000), CLUSTERS (10,000), ROUTES (100,000), LINES (1,000,000)."""
import http.client
import json
import os
import pathlib
import socket
import statistics
import subprocess
import threading
import time

from stand import BINARY, DRIVERS, Nginx, Ringway, check, done, end, free_port, pace_tool, spawn, stand

SECONDS = float(os.environ.get("SECONDS", 5))
RATE = int(os.environ.get("RATE", 2000))
CLUSTERS = int(os.environ.get("CLUSTERS", 10_000))
ROUTES = int(os.environ.get("ROUTES", 100_000))
LINES = int(os.environ.get("LINES", 1_000_000))


class Asker:
    """Asks until it is ended; `ask` gives the bytes of one answer."""

    def __init__(self, ask):
        self.ended, self.took_ms, self.bytes, self.fault = threading.Event(), [], 0, None
        self.thread = threading.Thread(target=self.run, args=(ask,))
        self.thread.start()

    def run(self, ask):
        try:
            while not self.ended.is_set():
                begin = time.monotonic()
                self.bytes = ask()
                self.took_ms.append((time.monotonic() - begin) * 1000)
        except Exception as error:
            self.fault = repr(error)

    def end(self):
        self.ended.set()
        self.thread.join()


def words(ringway, cmd, args):
    """Requests on one connection of the control socket."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(ringway.socket))
    lines = sock.makefile("rwb")
    lines.readline()

    def ask():
        lines.write(json.dumps({"v": 1, "id": 1, "cmd": cmd, "args": args}).encode() + b"\n")
        lines.flush()
        answer = lines.readline()
        assert b'"ok"' in answer[:30], answer[:300]
        return len(answer)

    return ask


def pages(ringway, path):
    client = http.client.HTTPConnection("127.0.0.1", ringway.status, timeout=20)

    def ask():
        client.request("GET", path, headers={"Accept": "text/html"})
        answer = client.getresponse()
        body = answer.read()
        assert answer.status == 200 and body.endswith(b"</html>"), body[-200:]
        return len(body)

    return ask


HEAD = "GET /x HTTP/1.1\r\nHost: app-4711.web.example.io\r\n\r\n"
KINDS = {
    "nothing": lambda ringway: lambda: time.sleep(0.1) or 0,
    "page": lambda ringway: pages(ringway, "/"),
    "page, explain": lambda ringway: pages(ringway, "/?url=http://app-4711.web.example.io/x"),
    "explain": lambda ringway: words(ringway, "explain", {"head": HEAD, "from": "10.0.0.1", "port": 80}),
    "why": lambda ringway: words(ringway, "why", {}),
    "status": lambda ringway: words(ringway, "status", None),
    "reload --dry-run": lambda ringway: words(ringway, "reload", {"file": str(ringway.file), "dry_run": True}),
}


def control_cpu(pid):
    """CPU seconds of the control thread, which is the process's first."""
    return int(pathlib.Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9


def beside_traffic(place, io, tool):
    a, b = (Nginx(place, f"answers-{io}-{i}") for i in "ab")
    ports = [a.port, b.port]
    dead = free_port()
    clusters = {f"app-{i}": {"backends": {"b1": f"127.0.0.1:{ports[0]}", "b2": f"127.0.0.1:{ports[1]}", "b3": f"127.0.0.1:{dead}"}}
                for i in range(CLUSTERS)}
    clusters["app"] = {"backends": {"b1": f"127.0.0.1:{ports[0]}", "b2": f"127.0.0.1:{ports[1]}"}}
    routes = {"*": "app", **{f"app-{i}.web.example.io": f"app-{i}" for i in range(CLUSTERS)}}
    status = free_port()
    ringway = Ringway(place, io, [], workers=2, clusters=clusters, routes=routes, status={"listen": f"127.0.0.1:{status}"})
    ringway.status = status
    for _ in range(20):  # Something to tell stories of: one backend in three is not there.
        sock = socket.create_connection(("127.0.0.1", ringway.port), timeout=10)
        sock.sendall(b"POST /x HTTP/1.1\r\nHost: app-4711.web.example.io\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx")
        while sock.recv(65536):
            pass
    print(f"{io}, {CLUSTERS} clusters, {RATE} requests a second; times in ms:\n"
          "| asked | answers/s | median | longest | KiB | control's CPU | p50 | p99 | p99.9 |\n|---|---|---|---|---|---|---|---|---|")
    for kind, of in KINDS.items():
        ask = of(ringway)
        ask()
        asker, before = Asker(ask), control_cpu(ringway.child.pid)
        client = spawn([str(tool), "pace", str(ringway.port), "64", str(RATE), str(SECONDS)], stdout=subprocess.PIPE, text=True)
        found = json.loads(client.communicate(timeout=SECONDS + 30)[0])
        share = (control_cpu(ringway.child.pid) - before) / SECONDS
        asker.end()
        p50, p99, p999 = (found[f"{key}_us"] / 1000 for key in ("p50", "p99", "p999"))
        took = asker.took_ms or [0]
        print(f"| {kind} | {len(took) / SECONDS:.0f} | {statistics.median(took):.2f} | {max(took):.1f} | {asker.bytes / 1024:.1f} |"
              f" {share * 100:.1f} % | {p50:.2f} | {p99:.2f} | {p999:.2f} |", flush=True)
        check(f"{io}, {kind}: answered, and no request failed", asker.fault is None and found["bad"] == 0, asker.fault or found["bad"])
    ringway.stop()
    for server in (a, b):
        end(server.child)


def comparison(place):
    def config(n, to):
        backends = {"b1": "127.0.0.1:9001", "b2": "127.0.0.1:9002"}
        routes = {f"app-{i}.web.example.io": to if i % 10 == 0 else f"c{i % 1000}" for i in range(ROUTES + n)}
        return {"listeners": {"main": "127.0.0.1:8080"}, "clusters": {f"c{i}": {"backends": backends} for i in range(1000)}, "routes": routes}

    files = [place / "old.json", place / "new.json"]
    for n, file in enumerate(files):
        file.write_text(json.dumps(config(n, f"c{n}")))
    log = place / "access.log"
    with log.open("w") as lines:
        for i in range(LINES):
            host = f"app-{i * 7919 % ROUTES}.web.example.io"
            lines.write('{"host":"%s","path":"/p/%d","cluster":"c","backend":"b1"}\n' % (host, i % 100))
    for name, more in (("diff", []), ("diff --replay", ["--replay", str(log)])):
        begin = time.monotonic()
        out = subprocess.run([BINARY, "diff", str(files[1]), "--against", str(files[0]), "--json", *more], capture_output=True)
        took = time.monotonic() - begin
        check(f"{name} of {ROUTES} routes tells of them", out.returncode == 1 and len(out.stdout) > 1000, f"{took:.2f} s, {len(out.stdout)} bytes")
        if more:
            print(f"      {LINES} lines: {json.dumps(json.loads(out.stdout).get('replay'))[:300]}")


with stand() as directory:
    comparison(directory)
for driver in DRIVERS:
    with stand() as directory:
        beside_traffic(directory, driver, pace_tool(directory))
done()
