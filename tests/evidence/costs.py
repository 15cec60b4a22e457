#!/usr/bin/env python3
"""What a request costs beside time, by workload: system calls, operations given to the ring, waits armed in the kernel,
allocations, context switches. Counted by tracepoints and one probe (perf, as root) over some seconds of load, divided by the
requests that Ringway counted meanwhile. These figures stay the same on a busy machine; of time (CPU microseconds of the
worker, user and system) the last two columns give an idea only.

Two tables, one per driver: those of docs/PERFORMANCE.md. Environment: as for all evidence, SECONDS (3), and ONLY (part of a
workload's name).
"""
import json
import os
import subprocess
import time

from stand import BINARY, DRIVERS, Nginx, Ringway, check, done, free_port, need, spawn, stand

SECONDS = float(os.environ.get("SECONDS", 3))
ONLY = os.environ.get("ONLY", "")
PROBE = "ringway_costs:allocation"
EVENTS = {
    "system calls": "raw_syscalls:sys_enter",
    "ring operations": "io_uring:io_uring_submit_req",
    "poll arms": "io_uring:io_uring_poll_arm",
    "allocations": PROBE,
    "context switches": "sched:sched_switch",
}
BROWSER = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language": "en-US,en;q=0.5", "Accept-Encoding": "gzip, deflate, br, zstd",
    "Referer": "http://app-user.web.example.io/", "Cookie": "session=0123456789abcdef0123456789abcdef; theme=dark",
    "Upgrade-Insecure-Requests": "1", "Sec-Fetch-Dest": "document", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "same-origin",
    "Sec-Fetch-User": "?1", "Priority": "u=0, i", "Pragma": "no-cache", "Cache-Control": "no-cache",
}
# Name, connections, path, and what else the client does.
WORKLOADS = [
    ("small GET, 64 connections", 64, "/", {}),
    ("the same with a browser's headers", 64, "/", {"fields": BROWSER}),
    ("small GET, 1,000 connections", 1000, "/", {}),
    ("small GET, a connection each", 64, "/", {"fields": {"Connection": "close"}}),
    ("16 KiB", 64, "/16k", {}),
    ("256 KiB", 32, "/256k", {}),
    ("4 MiB", 16, "/4m", {}),
    ("POST of 16 KiB", 64, "/up", {"body": 16 * 1024}),
    ("POST of 1 MiB", 16, "/up", {"body": 1024 * 1024}),
    ("16 KiB chunked", 64, "/16k.shtml", {}),
    ("small GET, 16 in a pipeline", 64, "/", {"depth": 16}),
]


def script(path, fields=None, body=0, depth=1):
    """A wrk script that sends such requests."""
    method = "POST" if body else "GET"
    wanted = ", ".join(f"[{json.dumps(name)}] = {json.dumps(value)}" for name, value in (fields or {}).items())
    return f"""
        local one, all
        function init()
            one = wrk.format("{method}", "{path}", {{ Host = "app", {wanted} }}, {f'("x"):rep({body})' if body else 'nil'})
            all = one:rep({depth})
        end
        function request() return all end
        """


def origin(place, name):
    """An nginx that reads a body before it answers, as applications do: `return` alone would not."""
    port = free_port()
    return Nginx(place, name, port, f"""
        location ~ ^/\\d {{ root {place}; }}
        location ~ shtml$ {{ root {place}; ssi on; ssi_types *; }}
        location = /up {{ client_body_buffer_size 2m; proxy_pass http://127.0.0.1:{port}/; }}
    """)


def progress(ringway):
    """Requests and CPU seconds so far, and when."""
    return json.loads(ringway.ctl("stats", "--json")[1])["exchanges"], ringway.cpu_seconds(), time.monotonic()


def count(ringway):
    """What Ringway did in the time in which perf looked, in that order: requests, each of the events, CPU seconds."""
    before = progress(ringway)
    command = ["perf", "stat", "-x,", "-e", ",".join(EVENTS.values()), "-p", str(ringway.child.pid), "--", "sleep", str(SECONDS)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    # perf takes a moment to begin, so the time around it is longer.
    requests, cpu, seconds = (new - old for new, old in zip(progress(ringway), before))
    found = {words[2]: int(words[0]) for words in (line.split(",") for line in said.splitlines()) if words[0].isdigit()}
    return requests * SECONDS / seconds, [found[event] for event in EVENTS.values()], cpu * SECONDS / seconds


def measure(place, ringway, name, connections, path, how):
    file = place / "load.lua"
    file.write_text(script(path, **how))
    need("wrk", "wrk")
    command = ["wrk", "-t1", f"-c{connections}", f"-d{int(SECONDS) + 4}s", "-s", str(file), f"http://127.0.0.1:{ringway.port}{path}"]
    load = spawn(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    time.sleep(2)
    n, counts, spent = count(ringway)
    text = load.communicate(timeout=60)[0]
    bad = [line for line in text.splitlines() if "Non-2xx" in line or "Socket errors" in line]
    check(f"{name}: requests, no errors", n > 10 and not bad, "; ".join(bad) or f"{n:,.0f}")
    return [name] + [f"{events / n:.2f}" for events in counts] + [f"{spent / n * 1e6:.1f}"]


def table(rows):
    print("| " + " | ".join(["workload", *EVENTS, "CPU us"]) + " |")
    print("|---" * (len(EVENTS) + 2) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


need("perf", "linux-perf")
subprocess.run(["perf", "probe", "-q", "-x", BINARY, "--add", PROBE + "=mi_theap_malloc_aligned"], check=True)
try:
    for io in DRIVERS:
        with stand() as place:
            place.chmod(0o755)
            for name, size in [("16k", 1 << 14), ("256k", 1 << 18), ("4m", 1 << 22), ("16k.shtml", 1 << 14)]:
                (place / name).write_bytes(b"x" * size)
            origins = [origin(place, name) for name in ("one", "other")]
            ringway = Ringway(place, io, [f"127.0.0.1:{o.port}" for o in origins], workers=1)
            rows = [measure(place, ringway, *workload) for workload in WORKLOADS if ONLY in workload[0]]
            ringway.stop()
        print(f"\n{io}, per request:\n")
        table(rows)
        print(flush=True)
finally:
    subprocess.run(["perf", "probe", "-q", "-d", PROBE], check=False)
done()
