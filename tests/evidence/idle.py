#!/usr/bin/env python3
"""What an idle connection costs: RSS each at 5,000, CPU with 1,000."""
import socket
import time

from stand import DRIVERS, Nginx, Ringway, check, done, stand

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def connect(port, n):
    """Connections that each have had one answer."""
    found = []
    for _ in range(n):
        sock = socket.create_connection(("127.0.0.1", port), timeout=10)
        sock.sendall(REQUEST)
        if not sock.recv(4096).startswith(b"HTTP/1.1 200 "):
            raise SystemExit("a wrong answer")
        found.append(sock)
    return found


for io in DRIVERS:
    with stand() as place:
        nginx = Nginx(place, "idle")
        ringway = Ringway(place, io, [f"127.0.0.1:{nginx.port}"], client={"idle_timeout": "10m"})
        few = connect(ringway.port, 200)
        time.sleep(6)
        before = ringway.kib("VmRSS")
        many = connect(ringway.port, 5000)
        time.sleep(6)
        each = (ringway.kib("VmRSS") - before) / 5000
        check(f"{io}: at most 1.5 KiB RSS per idle connection at 5,000", each <= 1.5, f"{each:.2f} KiB")
        for sock in few + many[800:]:
            sock.close()
        time.sleep(3)
        begin = ringway.cpu_seconds()
        time.sleep(20)
        spent = (ringway.cpu_seconds() - begin) / 20 * 100
        check(f"{io}: idle CPU with 800 idle connections below 1 %", spent < 1, f"{spent:.2f} %")
        more = connect(ringway.port, 200)
        begin = ringway.cpu_seconds()
        time.sleep(20)
        spent = (ringway.cpu_seconds() - begin) / 20 * 100
        check(f"{io}: idle CPU with 1,000 idle connections below 1 %", spent < 1, f"{spent:.2f} %")
        for sock in many[:800] + more:
            sock.close()
        ringway.stop()
done()
