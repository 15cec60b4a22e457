#!/usr/bin/env python3
"""The slowest requests, at a fixed rate below what the machine can do, while the proxy has something else to do: a reload of
ROUTES routes every two seconds, probes of hundreds of backends every second, an access log that is rotated five times a
second, and crowds of connections that come at once. For each: percentiles of 64 keep-alive clients; the longest turn of an
event loop since the start; and how long the two workers together were ready and had no CPU. A request takes several turns,
the servers' time and the client's, which all share the machine. Nothing may fail; the longest turn stays below 5 ms.

Environment: SECONDS of each (8), RATE of requests a second (2,000), ROUTES (100,000)."""
import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import threading
import time

from stand import DRIVERS, Nginx, Ringway, check, done, end, free_port, pace_tool, spawn, stand

SECONDS = float(os.environ.get("SECONDS", 8))
RATE = int(os.environ.get("RATE", 2000))
ROUTES = int(os.environ.get("ROUTES", 100_000))
CROWD = 1000
OTHERS = 200


def again_and_again(every, work):
    """Runs `work` so often until the returned function is called, which gives what it returned each time."""
    ended, results = threading.Event(), []

    def loop():
        while not ended.wait(every):
            try:
                results.append(work())
            except Exception as error:
                results.append(repr(error))

    thread = threading.Thread(target=loop)
    thread.start()

    def results_at_end():
        ended.set()
        thread.join()
        return results

    return results_at_end


def reloads(ringway):
    """The same routes, and one more in every other file, which stands ready: writing it is no work of the proxy's."""
    files = []
    for n in range(2):
        ringway.config["routes"] = {"*": "app", **{f"app-{i}.web.example.io": "app" for i in range(ROUTES + n)}}
        files.append(ringway.directory / f"many-{n}.json")
        files[n].write_text(json.dumps(ringway.config))
    turn = [0]

    def reload():
        turn[0] += 1
        code, text = ringway.ctl("reload", str(files[turn[0] % 2]))
        return "ok" if code == 0 else text[:200]

    return again_and_again(2, reload)


def rotations(ringway):
    log = ringway.directory / "access.log"
    turn = [0]

    def rotate():
        turn[0] += 1
        log.rename(log.with_suffix(f".{turn[0] % 3}"))
        # Not by `ctl`: to start a program five times a second is more work than the rotation.
        ringway.child.send_signal(signal.SIGUSR1)
        return "ok"

    return again_and_again(0.2, rotate)


def crowds(ringway):
    def crowd():
        found = []
        try:
            for _ in range(CROWD):
                sock = socket.create_connection(("127.0.0.1", ringway.port), timeout=10)
                sock.sendall(b"GET /ok HTTP/1.1\r\nHost: crowd.example\r\nConnection: close\r\n\r\n")
                found.append(sock)
            bad = sum(not sock.recv(4096).startswith(b"HTTP/1.1 200") for sock in found)
        finally:
            for sock in found:
                sock.close()
        return "ok" if bad == 0 else f"{bad} failed"

    return again_and_again(0.5, crowd)


def listening(name):
    """Port and further configuration of a server."""
    port = free_port()
    return port, "".join(f"listen 127.0.1.{i + 1}:{port};" for i in range(OTHERS)) if name == "probes" else ""


def nothing(_):
    return lambda: ["ok"]


def waited_ms(pid):
    """What the workers waited for a CPU, together (/proc/PID/task/TID/schedstat, the second number)."""
    waited = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # Other threads come and go.
            if (task / "comm").read_text().strip() in ("ringway-0", "ringway-1"):
                waited += int((task / "schedstat").read_text().split()[1])
    return waited / 1e6


def run(place, io, tool, name, beside):
    a, b = (Nginx(place, f"tail-{name}-{io}-{i}".replace(" ", "-"), *listening(name)) for i in "ab")
    backends = [f"127.0.0.1:{a.port}", f"127.0.0.1:{b.port}"]
    more = {"workers": 2}
    if name == "log rotation":
        more["log"] = {"access": str(place / "access.log")}
    if name == "probes":
        # Half of them are there.
        dead = free_port()
        hosts = {f"{port}-{i}": f"127.0.1.{i + 1}:{port}" for i in range(OTHERS) for port in (a.port, dead)}
        more["clusters"] = {
            "app": {"backends": {"b1": backends[0], "b2": backends[1]}},
            "others": {"backends": hosts, "health": {"check": {"interval": "1s"}}},
        }
    ringway = Ringway(place, io, backends, **more)
    if name == "probes":
        time.sleep(5)
        others = json.loads(ringway.ctl("status", "--json")[1])["clusters"]["others"]["backends"].values()
        up = sum(backend["state"] == "up" for backend in others)
        check(f"{io}, {name}: those that are there are up, the others are not", up == OTHERS, up)
    warm = subprocess.run([tool, "pace", str(ringway.port), "64", str(RATE), "1"], capture_output=True, text=True, check=True)
    assert json.loads(warm.stdout)["bad"] == 0
    ended = beside(ringway)
    before = waited_ms(ringway.child.pid)
    client = spawn([str(tool), "pace", str(ringway.port), "64", str(RATE), str(SECONDS)], stdout=subprocess.PIPE, text=True)
    found = json.loads(client.communicate(timeout=SECONDS + 30)[0])
    waited = waited_ms(ringway.child.pid) - before
    results = ended()
    bad = [result for result in results if result != "ok"]
    turn = ringway.workers()["longest_turn_us"] / 1000
    ms = {key: found[f"{key}_us"] / 1000 for key in ("p50", "p99", "p999", "max")}
    print(f"| {name} | {ms['p50']:.2f} | {ms['p99']:.2f} | {ms['p999']:.2f} | {ms['max']:.1f} | {turn:.2f} | {waited:.0f} | {len(results)} |",
          flush=True)
    enough = found["n"] > RATE * SECONDS / 2
    good = found["bad"] == 0 and results and not bad and enough
    check(f"{io}, {name}: no request failed", good, f"{found['n']} requests, {found['bad']} failed, {bad[:1]}")
    check(f"{io}, {name}: no turn over 5 ms", turn <= 5, f"{turn:.2f} ms")
    ringway.stop()
    for server in (a, b):
        end(server.child)


for driver in DRIVERS:
    with stand() as directory:
        pace = pace_tool(directory)
        print(f"{driver}, ms:\n| beside | p50 | p99 | p99.9 | longest | longest turn | waited for a CPU | times |\n|---|---|---|---|---|---|---|---|")
        for title, work in [("nothing", nothing), ("reloads", reloads), ("probes", nothing), ("log rotation", rotations),
                            ("crowds", crowds)]:
            run(directory, driver, pace, title, work)
done()
