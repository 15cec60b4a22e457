"""The workloads: which kept tool makes the load of each, with which words, and what its output says."""
import dataclasses
import json
import pathlib
import re
import select
import signal
import socket
import subprocess
import time

from stand import UPLOAD_BYTES, Fails, Server, Stand

IDLE_CONNECTIONS = 5000
# Of one CPU, and how often a round is measured that was disturbed more.
OTHERS_MAX_PERCENT, TRIES_MAX = 10, 3
Figures = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Workload:
    """What is asked of a proxy: `depth` requests at once on each connection, an `upload` of so many bytes, `close` for a
    connection per request, `open_loop` for a fixed rate whatever the answers do."""

    title: str
    tool: str
    connections: int
    path: str = "/small"
    depth: int = 1
    upload: int = 0
    close: bool = False
    open_loop: bool = False


WORKLOADS = {
    "small": Workload("Small GET (128 B), 64 keep-alive connections", "wrk", 64),
    "h2load": Workload("Small GET again, by another tool (h2load)", "h2load", 64),
    "close": Workload("A new connection for each small GET, 64 at a time", "oha", 64, close=True),
    "16k": Workload("GET of 16 KiB, 64 connections", "wrk", 64, "/16k"),
    "256k": Workload("GET of 256 KiB, 32 connections", "wrk", 32, "/256k"),
    "4m": Workload("GET of 4 MiB, 8 connections", "wrk", 8, "/4m"),
    "1000": Workload("Small GET, 1,000 keep-alive connections", "wrk", 1000),
    "upload": Workload("POST of 1 MiB, 16 connections", "wrk", 16, "/upload", upload=UPLOAD_BYTES),
    "pipeline": Workload("Small GET, 16 pipelined at a time, 64 connections", "wrk", 64, depth=16),
    "latency": Workload("Small GET at a fixed rate: half of nginx's most", "oha", 64, open_loop=True),
    "idle": Workload("Idle keep-alive connections", "python3", IDLE_CONNECTIONS),
}


def command(workload: Workload, program: str, url: str, seconds: float, rate: int) -> list[str]:
    """The tool's command line. wrk knows whole seconds only and is stopped by SIGINT instead."""
    n, milliseconds = workload.connections, f"{seconds * 1000:.0f}ms"
    if workload.tool == "wrk":
        script = str(pathlib.Path(__file__).with_name("wrk.lua"))
        return [program, "-t1", f"-c{n}", "-d3600", "--timeout", "10s", "-s", script, url, "--", str(workload.depth), str(workload.upload)]
    if workload.tool == "h2load":
        return [program, "--h1", "-t1", f"-c{n}", "-D", milliseconds, url]
    flags = ["--disable-keepalive"] if workload.close else []
    flags += ["-q", str(rate), "--latency-correction"] if workload.open_loop else []
    return [program, "--no-tui", "--worker-threads", "1", "--output-format", "json", f"-c{n}", "-z", milliseconds, *flags, url]


def parse_wrk(text: str) -> Figures:
    """The line of JSON that wrk.lua prints."""
    got = json.loads(next(line for line in text.splitlines() if line.startswith("{")))
    return {"requests": got["requests"], "rate": got["requests"] / got["seconds"], "errors": got["errors"],
            "p50_ms": got["p50_us"] / 1e3, "p99_ms": got["p99_us"] / 1e3}


def parse_h2load(text: str) -> Figures:
    """h2load's summary, which has no percentiles."""
    rate = re.search(r"finished in .*?, ([\d.]+) req/s", text)
    counts = re.search(r"(\d+) done, \d+ succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", text)
    if not rate or not counts:
        raise Fails("h2load finished without a summary")
    done, *errors = map(int, counts.groups())
    return {"requests": done, "rate": float(rate[1]), "errors": sum(errors)}


def parse_oha(text: str) -> Figures:
    """oha's JSON. Requests under way at the end are no errors."""
    got = json.loads(text)
    statuses, faults = got["statusCodeDistribution"], got["errorDistribution"]
    requests = sum(statuses.values())
    errors = requests - statuses.get("200", 0) + sum(n for what, n in faults.items() if what != "aborted due to deadline")
    times = {f"{p}_ms": got["latencyPercentiles"][p] * 1e3 for p in ("p50", "p99") if got["latencyPercentiles"][p] is not None}
    return {"requests": requests, "rate": requests / got["summary"]["total"], "errors": errors, **times}


PARSE = {"wrk": parse_wrk, "h2load": parse_h2load, "oha": parse_oha}


def load(stand: Stand, workload: Workload, program: str, port: int, seconds: float, rate: int) -> Figures:
    """Runs the tool once against a port; gives what it says."""
    words = command(workload, program, f"http://127.0.0.1:{port}{workload.path}", seconds, rate)
    with stand.child(words, stand.load_cpu, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
        try:
            if workload.tool == "wrk":
                time.sleep(seconds)
                child.send_signal(signal.SIGINT)
            out = child.communicate(timeout=seconds + 15)[0]
            figures = PARSE[workload.tool](out)
        except subprocess.TimeoutExpired as error:
            raise Fails(f"{workload.tool} does not come to its end") from error
        except (ValueError, KeyError, StopIteration) as error:
            raise Fails(f"{workload.tool} says {out.strip()[-150:]!r}") from error
    if workload.depth > 1:
        # wrk times a batch and corrects by the pace of single requests: percentiles that mean nothing.
        figures = {key: value for key, value in figures.items() if key not in ("p50_ms", "p99_ms")}
    return figures


def measure(stand: Stand, workload: Workload, program: str, proxy: Server, seconds: float, rate: int) -> Figures:
    """One round before a proxy: warmed up, then the tool's figures, and the proxy's CPU time and memory over them. If other
    programs took too much CPU meanwhile it is done again, and the least disturbed time counts."""
    load(stand, workload, program, proxy.port, min(seconds, 0.4), rate)
    tries: list[Figures] = []
    while not tries or tries[-1]["others_percent"] > OTHERS_MAX_PERCENT and len(tries) < TRIES_MAX:
        cpu, others, begin = proxy.cpu_seconds(), stand.others_seconds(), time.monotonic()
        figures = load(stand, workload, program, proxy.port, seconds, rate)
        others = 100 * max(0, stand.others_seconds() - others) / (time.monotonic() - begin)
        tries.append(figures | {"cpu": proxy.cpu_seconds() - cpu, "others_percent": others})
    figures = min(tries, key=lambda each: each["others_percent"])
    if not figures["requests"]:
        raise Fails(f"no answer to {workload.tool}, {figures['errors']:.0f} errors")
    each = figures.pop("cpu") / figures["requests"]
    return figures | {"cpu_us": each * 1e6, "busy_percent": 100 * each * figures["rate"], "rss_mib": proxy.rss_kib() / 1024}


def idle(proxy: Server, wanted: int) -> Figures:
    """Memory for each connection that has had one exchange and now idles. The first hundred are not counted: they pay for
    what is there once."""
    request, sockets, first = b"GET /small HTTP/1.1\r\nHost: idle.example\r\n\r\n", [], min(100, wanted // 2)
    poll = select.poll()
    try:
        for n in range(wanted):
            if n == first:
                time.sleep(0.5)
                before = proxy.rss_kib()
            sock = socket.create_connection(("127.0.0.1", proxy.port), timeout=10)
            sockets.append(sock)
            sock.sendall(request)
            got = b""
            while b"\r\n\r\n" not in got or len(got.partition(b"\r\n\r\n")[2]) < 128:
                more = sock.recv(4096)
                if not more:
                    raise Fails(f"closes idle connection {n + 1}")
                got += more
            poll.register(sock, select.POLLIN)
        time.sleep(1)
        closed = len(poll.poll(0))
        return {"idle_kib": (proxy.rss_kib() - before) / (wanted - first), "rss_mib": proxy.rss_kib() / 1024, "errors": closed}
    except OSError as error:
        raise Fails(f"at {len(sockets)} idle connections: {error}") from error
    finally:
        for sock in sockets:
            sock.close()
