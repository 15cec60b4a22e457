#!/usr/bin/env python3
"""A WebSocket echo (RFC 6455) through Ringway: frames of all sizes, both ways, then a clean close."""
import os

from frames import echo_server, frame, open_websocket, read_frame
from stand import DRIVERS, Ringway, check, done, stand

listener = echo_server()
for io in DRIVERS:
    with stand() as place:
        ringway = Ringway(place, io, [f"127.0.0.1:{listener.getsockname()[1]}"])
        sock, good = open_websocket(ringway.port)
        with sock:
            check(f"{io}: 101 with the right key", good)
            check(f"{io}: a frame behind the head arrives", read_frame(sock) == (1, b"hello behind the head"))
            sizes = [0, 1, 125, 126, 65535, 65536, 300_000] + [17] * 200
            good = 0
            for n in sizes:
                data = os.urandom(n)
                sock.sendall(frame(2, data, os.urandom(4)))
                good += read_frame(sock) == (2, data)
            check(f"{io}: frames come back", good == len(sizes), f"{good} of {len(sizes)}")
            sock.sendall(frame(8, b"\x03\xe8", os.urandom(4)))
            check(f"{io}: close is answered and the connection ends", read_frame(sock)[0] == 8 and sock.recv(1) == b"")
        ringway.stop()
done()
