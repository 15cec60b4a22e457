#!/usr/bin/env python3
"""User instructions per request, counted by callgrind, against tests/data/instructions.json.

The release binary runs with one worker on epoll under valgrind, before an origin inside this script. Each shape is run
with two different request counts on one keep-alive connection, several times each; the difference of the least totals,
divided by the difference of the counts, is the cost of one request without start-up and shutdown. (Valgrind counts a byte
of `rep movsb` as one instruction, so a large memcpy weighs more here than on the clock, and it makes a clock call a system
call, so the few dozen instructions of the vDSO are not seen.) More than 3 % above the baseline fails, and so does an access
log that costs more than 10 % of a request (20 with the fields that tell why, 40 with a story of each). The baseline belongs to one compiler; under another one the figures are printed
and nothing fails.

    tests/instructions/measure.py [SHAPE...]  compare
    UPDATE=1 tests/instructions/measure.py    write the baseline
"""
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BASELINE = ROOT / "tests" / "data" / "instructions.json"
BINARY = pathlib.Path(os.environ.get("RINGWAY", ROOT / "target" / "release" / "ringway"))
TOLERANCE_PERCENT = 3
FEW, MANY, RUNS = 100, 700, 3
# Client and origin take their time before they send, so that the proxy always has to wait for them: whether an operation
# finds its bytes there already would otherwise be the machine's mood, and is worth 6 %.
PAUSE_SECONDS = 0.003

SMALL = b"HTTP/1.1 200 OK\r\nServer: origin\r\nContent-Type: text/plain\r\nContent-Length: 128\r\n\r\n" + b"x" * 128
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n80\r\n" + b"x" * 128 + b"\r\n0\r\n\r\n"
FIELDS = (b"Host: app.example.io\r\nUser-Agent: measure/1\r\nAccept: text/html,application/json;q=0.9,*/*;q=0.8\r\n"
          b"Accept-Encoding: gzip, br\r\nCookie: session=0123456789abcdef0123456789abcdef\r\n")
SHAPES = {
    "get": (b"GET /path/to/thing?a=b HTTP/1.1\r\n" + FIELDS + b"\r\n", SMALL),
    "get_chunked": (b"GET /path/to/thing?a=b HTTP/1.1\r\n" + FIELDS + b"\r\n", CHUNKED),
    "post": (b"POST /path/to/thing HTTP/1.1\r\n" + FIELDS + b"Content-Length: 64\r\n\r\n" + b"y" * 64, SMALL),
}
# The same with the access log on: what to compare with, the config, and the most percent that it may cost. The file is a sink,
# so that the disk has no say.
LOGGED = {
    "get_logged": ("get", {"access": "/dev/null"}, 10),
    "get_logged_text": ("get", {"access": "/dev/null", "format": "text"}, 10),
    "get_sampled": ("get", {"access": "/dev/null", "sample": 0.0}, 10),
    # A line that tells which rule took the request, whom it skipped and by which key; a story of each exchange.
    "get_logged_why": ("get", {"access": "/dev/null", "fields": ["time", "host", "path", "status", "rule", "skipped", "key"]}, 20),
    "get_recent": ("get", {"recent": 1000}, 40),
}


def receive(sock, ended):
    """Bytes until `ended(bytes)`; None at the end of the stream."""
    got = b""
    while not ended(got):
        more = sock.recv(65536)
        if not more:
            return None
        got += more
    return got


def request_ended(got):
    head, empty, body = got.partition(b"\r\n\r\n")
    if not empty:
        return False
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    return len(body) >= (int(length.group(1)) if length else 0)


def response_ended(got):
    head, empty, body = got.partition(b"\r\n\r\n")
    if not empty:
        return False
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    return len(body) >= int(length.group(1)) if length else body.endswith(b"0\r\n\r\n")


def serve(listener, answer):
    def one(sock):
        with sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                while receive(sock, request_ended) is not None:
                    time.sleep(PAUSE_SECONDS)
                    sock.sendall(answer)
            except OSError:
                pass

    while True:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=one, args=(sock,), daemon=True).start()


def total(directory, request, answer, log, count):
    """Instructions of a whole run with `count` requests."""
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, args=(listener, answer), daemon=True).start()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = {
        "listeners": {"main": f"127.0.0.1:{port}"},
        "clusters": {"app": {"backends": {"b1": f"127.0.0.1:{listener.getsockname()[1]}"}}},
        "routes": {"app.example.io": "app", "*.example.io": "app", "*": "app"},
        "workers": 1, "io": "epoll", "drain_timeout": "2s",
        "log": log,
    }
    file, out = directory / "config.json", directory / f"callgrind.{count}"
    file.write_text(json.dumps(config))
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", "--quiet",
               str(BINARY), "run", "--config", str(file)]
    errors = open(directory / "stderr", "wb")
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors)
    try:
        until = time.monotonic() + 60
        while True:
            try:
                client = socket.create_connection(("127.0.0.1", port), timeout=30)
                break
            except OSError:
                if child.poll() is not None or time.monotonic() > until:
                    sys.exit("the proxy does not start under valgrind:\n" + (directory / "stderr").read_text())
                time.sleep(0.1)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count):
            time.sleep(PAUSE_SECONDS)
            client.sendall(request)
            got = receive(client, response_ended)
            if got is None or not got.startswith(b"HTTP/1.1 200 "):
                sys.exit(f"a wrong answer: {got!r}")
        client.close()
        child.send_signal(signal.SIGTERM)
        child.wait(timeout=60)
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
        listener.close()
    found = re.search(r"^(?:totals|summary): (\d+)", out.read_text(), re.M)
    if not found:
        sys.exit("callgrind wrote no totals")
    return int(found.group(1))


def cost(shape):
    """Instructions of one request. What disturbs a run only adds, so the least of several is nearest to the truth."""
    like, log, _ = LOGGED.get(shape, (shape, {}, 0))
    request, answer = SHAPES[like]
    with tempfile.TemporaryDirectory(prefix="ringway-instructions-") as name:
        few, many = (min(total(pathlib.Path(name), request, answer, log, n) for _ in range(RUNS)) for n in (FEW, MANY))
    return round((many - few) / (MANY - FEW))


def logged_costs(figures):
    """Whether no shape with the log on costs too much more than the same with the log off, whatever the compiler."""
    good = True
    for shape, now in figures.items():
        if shape not in LOGGED or LOGGED[shape][0] not in figures:
            continue
        off = figures[LOGGED[shape][0]]
        share = 100 * (now - off) / off
        print(f"{shape}: {now} instructions per request, {share:+.1f} % over {LOGGED[shape][0]}")
        good = good and share <= LOGGED[shape][2]
    return good


def main():
    compiler = subprocess.run(["rustc", "--version"], capture_output=True, text=True, cwd=ROOT).stdout.strip()
    shapes = sys.argv[1:] or [*SHAPES, *LOGGED]
    figures = {shape: cost(shape) for shape in shapes}
    if not logged_costs(figures):
        sys.exit("FAIL: what is told of each request costs more than its share")
    of_shapes = {shape: now for shape, now in figures.items() if shape in SHAPES}
    if os.environ.get("UPDATE") == "1":
        BASELINE.write_text(json.dumps({"rustc": compiler, "instructions_per_request": of_shapes}, indent=2) + "\n")
        print(f"baseline written: {of_shapes}")
        return
    if not BASELINE.exists():
        sys.exit(f"no baseline yet, measured {of_shapes}; write it with UPDATE=1")
    baseline = json.loads(BASELINE.read_text())
    same = baseline["rustc"] == compiler
    failed = False
    for shape, now in of_shapes.items():
        then = baseline["instructions_per_request"].get(shape)
        if then is None:
            print(f"{shape}: {now} instructions per request, no baseline: run with UPDATE=1")
            failed = True
            continue
        if now > then * (1 + TOLERANCE_PERCENT / 100):
            # On a busy machine more wake-ups find nothing: a second look before it counts.
            now = min(now, cost(shape))
        change = 100 * (now - then) / then
        print(f"{shape}: {now} instructions per request, baseline {then}, {change:+.1f} %")
        if change > TOLERANCE_PERCENT:
            failed = True
        elif change < -TOLERANCE_PERCENT:
            print(f"  better by more than {TOLERANCE_PERCENT} %: lower the baseline with UPDATE=1")
    if failed and not same:
        print(f"not a failure: the baseline is of {baseline['rustc']}, this is {compiler}; run with UPDATE=1")
    elif failed:
        sys.exit(f"FAIL: more than {TOLERANCE_PERCENT} % above the baseline (UPDATE=1 writes a new one, with a reason)")


main()
