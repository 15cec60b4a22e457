#!/usr/bin/env python3
"""Two nginx behind Ringway: plain load, SIGKILL of one in mid-run, its return, SIGSTOP of one, an origin that resets."""
import signal
import socket
import struct
import threading
import time

from load import Load
from stand import DRIVERS, Nginx, Ringway, check, done, stand, wrk, wrk_result

SECONDS = 20


def resetting():
    """An origin that reads a request and answers with RST."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            sock.recv(65536)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()

    threading.Thread(target=serve, daemon=True).start()
    return listener


def plain(io, directory):
    a, b = Nginx(directory, "plain-a"), Nginx(directory, "plain-b")
    ringway = Ringway(directory, io, [f"127.0.0.1:{a.port}", f"127.0.0.1:{b.port}"])
    errors, requests, rate, _ = wrk_result(wrk(ringway.port, SECONDS), SECONDS)
    check(f"{io}: wrk -c64 -d{SECONDS}: 0 errors", errors == 0 and requests > 0, f"{requests} requests, {rate:.0f}/s, {errors} errors")
    ringway.stop()


def killed(io, directory):
    a, b = Nginx(directory, "kill-a"), Nginx(directory, "kill-b")
    ringway = Ringway(directory, io, [f"127.0.0.1:{a.port}", f"127.0.0.1:{b.port}"])
    run, load = wrk(ringway.port, SECONDS), Load(ringway.port)
    time.sleep(SECONDS / 3)
    a.signal(signal.SIGKILL)
    killed_at = time.monotonic()
    errors, requests, _, text = wrk_result(run, SECONDS)
    load.stop()
    check(f"{io}: SIGKILL of one nginx: 0 failed GETs of wrk", errors == 0, f"{requests} requests, {errors} errors")
    check(f"{io}: SIGKILL of one nginx: 0 failed GETs beside POSTs", load.failed("GET") == 0, load.figures())
    print(f"      POSTs that were with it when it died: {load.failed('POST')} of {load.good['POST'] + load.failed('POST')}")
    check(f"{io}: it is known to be down", ringway.state("b1") == "down", ringway.state("b1"))
    again = Nginx(directory, "kill-a2", port=a.port)
    load = Load(ringway.port, threads=4)
    back = None
    while time.monotonic() < killed_at + 60 and back is None:
        if ringway.state("b1") == "up":
            back = time.monotonic() - killed_at
        time.sleep(0.5)
    load.stop()
    check(f"{io}: it comes back by a probe after the hold-down", back is not None and back > 25, f"after {back and round(back)} s")
    check(f"{io}: 0 failures while it comes back", not load.bad, load.figures())
    ringway.stop()


def stopped(io, directory):
    a, b = Nginx(directory, "stop-a"), Nginx(directory, "stop-b")
    ringway = Ringway(directory, io, [f"127.0.0.1:{a.port}", f"127.0.0.1:{b.port}"], {"timeouts": {"head": "3s", "connect": "1s"}})
    load = Load(ringway.port, threads=16, methods=("GET",))
    time.sleep(3)
    a.signal(signal.SIGSTOP)
    time.sleep(12)
    before = load.failed("GET")
    time.sleep(8)
    after = load.failed("GET")
    a.signal(signal.SIGCONT)
    load.stop()
    # A request that a stopped process has taken cannot be sent again; none follows it.
    check(f"{io}: SIGSTOP of one: at most one 504 per client connection", before <= 16, load.figures())
    check(f"{io}: SIGSTOP of one: none later", after == before, f"{after - before} later")
    ringway.stop()


def reset(io, directory):
    a, bad = Nginx(directory, "reset-a"), resetting()
    ringway = Ringway(directory, io, [f"127.0.0.1:{bad.getsockname()[1]}", f"127.0.0.1:{a.port}"])
    load = Load(ringway.port, threads=8)
    time.sleep(8)
    load.stop()
    check(f"{io}: an origin that resets: 0 failed GETs", load.failed("GET") == 0 and load.good["GET"] > 0, load.figures())
    bad.close()
    ringway.stop()


for driver in DRIVERS:
    for part in (plain, killed, stopped, reset):
        with stand() as place:
            part(driver, place)
done()
