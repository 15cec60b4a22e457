#!/usr/bin/env python3
"""Mass events: thousands of deadlines in one tick, of resets in one turn (the proxy is stopped while they come), no
descriptor left, a backend that never answers, none that listens, crowds that come and leave. Each storm comes three times.
After each of them every counter is back where it was, every core serves, and memory does not grow with the repetitions.

STORM: how many connections (default 5,000, or what the limit of open files allows)."""
import json
import multiprocessing
import os
import resource
import selectors
import signal
import socket
import struct
import time

from stand import DRIVERS, Nginx, Ringway, check, done, free_port, stand

REPEAT = 3
RESET = struct.pack("ii", 1, 0)


def silent_origin(port, orders):
    """Takes connections and never answers; resets all of them, or says how many it has, when told to."""
    listener = socket.create_server(("127.0.0.1", port), backlog=4096)
    listener.setblocking(False)
    ready = selectors.DefaultSelector()
    ready.register(listener, selectors.EVENT_READ)
    ready.register(orders, selectors.EVENT_READ)
    held = []
    while True:
        for key, _ in ready.select():
            if key.fileobj is listener:
                try:
                    while True:
                        held.append(listener.accept()[0])
                except BlockingIOError:
                    pass
            elif orders.recv() == "reset":
                reset(held)
                orders.send(0)
            else:
                orders.send(len(held))


def reset(sockets):
    """Closes all with a reset."""
    for sock in sockets:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        sock.close()
    sockets.clear()


def crowd(port, n, say=b""):
    found = []
    for _ in range(n):
        sock = socket.create_connection(("127.0.0.1", port), timeout=30)
        if say:
            sock.sendall(say)
        found.append(sock)
    return found


def request(host, path=b"/"):
    return b"GET " + path + b" HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"


def statuses(sockets):
    """What each of them is answered, by status; nothing is "-". Closes them."""
    seen = {}
    for sock in sockets:
        try:
            got = sock.recv(4096)
        except OSError:
            got = b""
        status = got[9:12].decode() or "-"
        seen[status] = seen.get(status, 0) + 1
        sock.close()
    return seen


class Place:
    def __init__(self, directory, io):
        self.io = io
        self.nginx = Nginx(directory, f"honest-{io}")
        silent = free_port()
        self.orders, theirs = multiprocessing.Pipe()
        self.origin = multiprocessing.Process(target=silent_origin, args=(silent, theirs), daemon=True)
        self.origin.start()
        dead = [f"127.0.0.1:{free_port()}" for _ in range(3)]
        self.ringway = Ringway(
            directory, io, [], workers=2, client={"head_timeout": "4s"},
            routes={"*": "app", "silent.example": "silent", "patient.example": "patient", "dead.example": "dead"},
            clusters={
                "app": {"backends": {"b1": f"127.0.0.1:{self.nginx.port}"}},
                "silent": {"backends": {"b1": f"127.0.0.1:{silent}"}, "timeouts": {"head": "4s"}},
                "patient": {"backends": {"b1": f"127.0.0.1:{silent}"}, "timeouts": {"head": "10m"}},
                "dead": {"backends": {f"b{i}": address for i, address in enumerate(dead)}},
            })

    def ask(self, what):
        self.orders.send(what)
        return self.orders.recv()

    def frozen(self):
        """Everything that happens inside comes to the proxy at once."""
        class Frozen:
            def __enter__(_):
                os.kill(self.ringway.child.pid, signal.SIGSTOP)

            def __exit__(_, *fault):
                os.kill(self.ringway.child.pid, signal.SIGCONT)
        return Frozen()

    def held(self, n):
        """Waits until the silent backend has this many connections."""
        until = time.monotonic() + 30
        while self.ask("count") < n and time.monotonic() < until:
            time.sleep(0.05)
        return self.ask("count")

    # The storms. Each returns what was seen, and what should have been.

    def head_deadlines(self, n):
        return statuses(crowd(self.ringway.port, n, b"GET / HTTP/1.1\r\nHost: a\r\nX-Partial: ")), {"408": n}

    def answer_deadlines(self, n):
        sockets = crowd(self.ringway.port, n, request(b"silent.example"))
        self.held(n)
        seen = statuses(sockets)
        self.ask("reset")
        return seen, {"504": n}

    def idle_resets(self, n):
        sockets = crowd(self.ringway.port, n, request(b"a"))
        served = sum(sock.recv(4096).startswith(b"HTTP/1.1 200") for sock in sockets)
        with self.frozen():
            reset(sockets)
        return served, n

    def clients_reset(self, n):
        sockets = crowd(self.ringway.port, n, request(b"patient.example"))
        held = self.held(n)
        with self.frozen():
            reset(sockets)
        time.sleep(4)
        self.ask("reset")
        return held, n

    def backends_reset(self, n):
        sockets = crowd(self.ringway.port, n, b"POST / HTTP/1.1\r\nHost: patient.example\r\nContent-Length: 1\r\n\r\nx")
        held = self.held(n)
        with self.frozen():
            self.ask("reset")
        return (held, statuses(sockets)), (n, {"502": n})

    def no_descriptors(self, n):
        pid, port = self.ringway.child.pid, self.ringway.port
        whole = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (self.ringway.open_files() + 100, whole[1]))
        before = self.counters()["accept_failures"]
        try:
            sockets = crowd(port, min(n, 2000), request(b"a"))
            for sock in sockets:
                sock.settimeout(0.01)
            time.sleep(2)
            refused = self.counters()["accept_failures"] > before
            reset(sockets)
            # Soon whoever comes is served although the table is as small as before: it just holds these and their backends'.
            for _ in range(10):
                time.sleep(1)
                seen = statuses(crowd(port, 50, request(b"a")))
                if seen == {"200": 50}:
                    break
        finally:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, whole)
        return (refused, seen), (True, {"200": 50})

    def all_refuse(self, n):
        seen = statuses(crowd(self.ringway.port, n, request(b"dead.example")))
        return {status[:2] for status in seen}, {"50"}

    def come_and_leave(self, n):
        for how in (reset, lambda sockets: [sock.close() for sock in sockets]):
            sockets = crowd(self.ringway.port, n)
            how(sockets)
        with self.frozen():
            # As many as the queues of the listeners hold.
            sockets = crowd(self.ringway.port, min(n, 2000), request(b"a"))
            reset(sockets)
        return True, True

    def counters(self):
        return json.loads(self.ringway.ctl("status", "--json")[1])["counters"]

    def levels(self):
        """Everything that has to come back to where it was."""
        status = json.loads(self.ringway.ctl("status", "--json")[1])
        found = {f"{name} {w['core']}": w[name] for w in status["workers"]
                 for name in ("connections", "idle", "busy", "buffers", "pipes", "pooled")}
        for name, cluster in status["clusters"].items():
            found[f"queued {name}"] = cluster["queued"]
            found[f"in flight {name}"] = sum(b["in_flight"] for b in cluster["backends"].values())
        found["panics"] = status["counters"]["panics"]
        found["descriptors"] = self.ringway.open_files()
        return found

    def settled(self):
        """The levels, when they are the same twice: the socket of who asks may be open for a moment longer."""
        last, now = None, self.levels()
        while now != last:
            time.sleep(0.5)
            last, now = now, self.levels()
        return now

    def back_to(self, start, patience=25):
        """What is not as it was at the start, by name."""
        until = time.monotonic() + patience
        while True:
            try:
                now = self.levels()
                wrong = {name: (start[name], now[name]) for name in start if now[name] != start[name]}
            except (ValueError, KeyError) as fault:
                wrong = {"ctl": fault}
            if not wrong or time.monotonic() > until:
                return wrong
            time.sleep(0.5)

    def serves(self):
        """Whether every core serves: exchanges of each, while 64 connections ask."""
        before = json.loads(self.ringway.ctl("status", "--json")[1])["workers"]
        good = statuses(crowd(self.ringway.port, 64, request(b"a"))) == {"200": 64}
        time.sleep(1.2)
        after = json.loads(self.ringway.ctl("status", "--json")[1])["workers"]
        return good and all(a["exchanges"] > b["exchanges"] for a, b in zip(after, before))

    def run(self, name, n):
        storm, what = getattr(self, name), f"{self.io}, {name.replace('_', ' ')}, {n:,}"
        start, resident = self.settled(), []
        for i in range(REPEAT):
            seen, expected = storm(n)
            check(f"{what}: what was seen", seen == expected, f"{seen}" + ("" if seen == expected else f", not {expected}"))
            wrong = self.back_to(start)
            check(f"{what}: all is as before", not wrong, f"{wrong}" if wrong else "")
            check(f"{what}: every core serves", self.serves())
            self.back_to(start)
            resident.append(self.ringway.kib("VmRSS"))
        workers = self.ringway.workers()
        check(f"{what}: memory has found its level", resident[-1] <= resident[0] * 1.1 + 4096,
              ", ".join(f"{kib / 1024:.1f}" for kib in resident) + " MiB")
        print(f"      {what}: turns over 5 ms: {workers['turns_over_5ms']}, longest {workers['longest_turn_us'] / 1000:.1f} ms")


STORMS = ("head_deadlines", "answer_deadlines", "idle_resets", "clients_reset", "backends_reset", "no_descriptors", "all_refuse",
          "come_and_leave")

with stand() as directory:
    # A client is two descriptors of the proxy: its own, and its backend's.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    count = min(int(os.environ.get("STORM", "5000")), most // 2 - 1000)
    for io in DRIVERS:
        place = Place(directory, io)
        time.sleep(2)
        for storm in os.environ.get("ONLY", " ".join(STORMS)).split():
            place.run(storm, count)
        place.ringway.stop()
        place.origin.terminate()
        place.nginx.child.terminate()
done()
