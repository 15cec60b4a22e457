#!/usr/bin/env python3
"""Everything that operators do, by `ringway ctl`, under wrk with 64 connections and one WebSocket before two nginx."""
import http.client
import json
import os
import random
import signal
import threading
import time

from frames import echo_server, frame, open_websocket, read_frame
from load import Load
from stand import DRIVERS, Nginx, Ringway, check, done, end, spawn, stand, wait_port, wrk, wrk_result

RELOADS = 1000
STORM_SECONDS = 60


class Pulse:
    """A WebSocket that sends a frame each 100 ms and wants it back."""

    def __init__(self, port):
        self.sock, good = open_websocket(port)
        assert good and read_frame(self.sock)[0] == 1
        self.beats, self.fault, self.stopped = 0, None, threading.Event()
        self.thread = threading.Thread(target=self.beat, daemon=True)
        self.thread.start()

    def beat(self):
        try:
            while not self.stopped.wait(0.1):
                data = os.urandom(20)
                self.sock.sendall(frame(2, data, os.urandom(4)))
                assert read_frame(self.sock) == (2, data)
                self.beats += 1
        except (OSError, AssertionError) as fault:
            self.fault = fault

    def stop(self):
        self.stopped.set()
        self.thread.join(5)
        self.sock.close()


def get(port, host):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/", headers={"Host": host})
    response = connection.getresponse()
    return response.status, response.read().decode().strip()


def under_load(io, what, ringway, seconds, deed):
    """Runs `deed` under wrk; not one request may fail."""
    run = wrk(ringway.port, seconds)
    time.sleep(1)
    deed()
    errors, requests, rate, text = wrk_result(run, seconds)
    check(f"{io}: {what}: 0 errors", errors == 0 and requests > 0, f"{requests} requests, {rate:.0f}/s, {errors} errors")
    if errors:
        print(text)


def ctl(io, ringway, *words, good=True):
    began = time.monotonic()
    code, text = ringway.ctl(*words)
    check(f"{io}: ctl {' '.join(words)[:70]}", (code == 0) == good, f"{time.monotonic() - began:.2f} s; {text.strip().splitlines()[0][:140] if text.strip() else ''}")
    return text


def change(io, ringway, place, a, b):
    def drain():
        ctl(io, ringway, "backend", "drain", "app/b1", "--why", "a new disk", "--wait", "drained")
        end(a.child)
        time.sleep(2)

    under_load(io, "drain one with a receipt and stop it", ringway, 8, drain)
    c = Nginx(place, "third")

    def add():
        ctl(io, ringway, "apply", json.dumps({"clusters": {"app": {"backends": {"b3": f"127.0.0.1:{c.port}"}}}}))
        time.sleep(2)

    under_load(io, "add a third backend", ringway, 6, add)
    backends = json.loads(ringway.ctl("backends", "--json")[1])["app"]["backends"]
    check(f"{io}: the third serves, the drained one does not", backends["b3"]["requests"] > 100 and backends["b1"]["state"] == "drain",
          f"{backends['b3']['requests']} requests")
    patch = {"clusters": {"new": {"backends": {"n1": f"127.0.0.1:{c.port}"}}}, "routes": {"new.example.io": "new"}}
    (place / "new.json").write_text(json.dumps(patch))

    def whole():
        ctl(io, ringway, "apply", str(place / "new.json"))
        check(f"{io}: a whole new application is served at once", get(ringway.port, "new.example.io") == (200, "third"))

    under_load(io, "add a whole application", ringway, 5, whole)
    a.__init__(place, "first", port=a.port)
    ctl(io, ringway, "backend", "up", "app/b1")

    def remove():
        ctl(io, ringway, "apply", json.dumps({"clusters": {"app": {"backends": {"b3": None}}}}), "--wait", "drained")
        end(c.child)

    under_load(io, "remove the third with a receipt and stop it", ringway, 6, remove)


def pause(io, ringway, place, a, b):
    def restart():
        began = time.monotonic()
        ctl(io, ringway, "pause", "app", "--max", "20s", "--why", "restart")
        for nginx, name in ((a, "first"), (b, "second")):
            end(nginx.child)
            nginx.__init__(place, name, port=nginx.port)
        time.sleep(max(0, began + 5 - time.monotonic()))
        ctl(io, ringway, "resume", "app")

    under_load(io, "pause of 5 s while both restart", ringway, 12, restart)


def reloads(io, ringway):
    def many():
        began, bad = time.monotonic(), 0
        for i in range(RELOADS):
            ringway.config["routes"] = {"*": "app", "*/chat": "chat", f"extra-{i}.example.io": "app"}
            ringway.write()
            bad += ringway.ctl("reload")[0] != 0
            time.sleep(max(0, began + (i + 1) * 60 / RELOADS - time.monotonic()))
        check(f"{io}: {RELOADS} reloads, each with its receipt", bad == 0, f"{bad} failed, {time.monotonic() - began:.0f} s")

    under_load(io, f"{RELOADS} reloads", ringway, 75, many)


def storm(io, ringway, place, nginxes):
    """Backends die, stop and come back at random. Requests that a dead process had taken and that must not be sent
    again may fail, and no others: GETs never, since a stop here is shorter than the head timeout."""
    load = Load(ringway.port, threads=16)
    randomness = random.Random(7)
    until, deeds = time.monotonic() + STORM_SECONDS, {"KILL": 0, "STOP": 0}
    while time.monotonic() < until:
        at = randomness.randrange(len(nginxes))
        nginx = nginxes[at]
        if randomness.random() < 0.5:
            deeds["KILL"] += 1
            nginx.signal(signal.SIGKILL)
            time.sleep(randomness.uniform(0.1, 1.5))
            nginx.__init__(place, f"storm-{at}", port=nginx.port)
        else:
            deeds["STOP"] += 1
            pids = nginx.pids()
            nginx.signal(signal.SIGSTOP)
            time.sleep(randomness.uniform(0.1, 3))
            for pid in reversed(pids):
                os.kill(pid, signal.SIGCONT)
        time.sleep(randomness.uniform(0.5, 2))
    load.stop()
    check(f"{io}: backends killed and stopped at random for {STORM_SECONDS} s: 0 failed GETs", load.failed("GET") == 0,
          f"{deeds}; {load.figures()}")
    bad = {what for what in load.bad if what.startswith("POST") and not what.split()[1].startswith("50")}
    check(f"{io}: what failed looks failed", not bad, f"{load.failed('POST')} of {load.good['POST']} POSTs; {bad}")


def comes_back(io, ringway):
    ctl(io, ringway, "backend", "weight", "app/b1", "7", "--for", "1h", "--why", "canary")
    ctl(io, ringway, "apply", json.dumps({"routes": {"late.example.io": "app"}}))
    os.kill(ringway.child.pid, signal.SIGKILL)
    ringway.child.wait()
    ringway.child = spawn(ringway.child.args, stderr=open(ringway.errors, "ab"))
    wait_port(ringway.port, "ringway")
    # The killed one's listener may outlive it for a moment, so that its port says nothing; the socket's answer does.
    code, text = ringway.ctl("status", "--json")
    for _ in range(50):
        if code == 0:
            break
        time.sleep(0.1)
        code, text = ringway.ctl("status", "--json")
    status = json.loads(text)
    said = status["clusters"]["app"]["backends"]["b1"].get("overrides", [{}])[0]
    check(f"{io}: kill -9 of Ringway: the override is back", said.get("set") == {"weight": 7} and said.get("why") == "canary", said)
    routes = json.loads(ringway.ctl("routes", "--json")[1])["routes"]
    check(f"{io}: kill -9 of Ringway: the patches are back", routes.get("late.example.io") == "app" and "new.example.io" in routes)


chat = echo_server()
for driver in DRIVERS:
    with stand() as place:
        a, b = Nginx(place, "first"), Nginx(place, "second")
        clusters = {"chat": {"backends": {"c1": f"127.0.0.1:{chat.getsockname()[1]}"}}}
        ringway = Ringway(place, driver, [f"127.0.0.1:{a.port}", f"127.0.0.1:{b.port}"], state_file=str(place / "state.json"))
        ringway.config["clusters"].update(clusters)
        ringway.config["routes"]["*/chat"] = "chat"
        ringway.write()
        ctl(driver, ringway, "reload")
        pulse = Pulse(ringway.port)
        change(driver, ringway, place, a, b)
        pause(driver, ringway, place, a, b)
        reloads(driver, ringway)
        storm(driver, ringway, place, [a, b])
        pulse.stop()
        check(f"{driver}: the WebSocket lived through all of it", pulse.fault is None and pulse.beats > 100, f"{pulse.beats} beats, {pulse.fault}")
        comes_back(driver, ringway)
        ringway.stop()
done()
