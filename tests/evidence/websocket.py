#!/usr/bin/env python3
"""A WebSocket echo (RFC 6455) through Ringway: frames of all sizes, both ways, then a clean close."""
import base64
import hashlib
import os
import socket
import struct
import threading

from stand import DRIVERS, Ringway, check, done, stand

MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def exactly(sock, n):
    got = b""
    while len(got) < n:
        more = sock.recv(n - len(got))
        if not more:
            raise ConnectionError("ended in mid-frame")
        got += more
    return got


def head(sock):
    got = b""
    while not got.endswith(b"\r\n\r\n"):
        got += exactly(sock, 1)
    return got


def accept_key(key):
    return base64.b64encode(hashlib.sha1(key + MAGIC).digest())


def frame(kind, data, mask=b""):
    n = len(data)
    size = bytes([n]) if n < 126 else struct.pack(">BH", 126, n) if n < 65536 else struct.pack(">BQ", 127, n)
    if mask:
        size = bytes([size[0] | 128]) + size[1:]
        data = bytes(b ^ mask[i & 3] for i, b in enumerate(data))
    return bytes([128 | kind]) + size + mask + data


def read_frame(sock):
    first, second = exactly(sock, 2)
    n = second & 127
    n = n if n < 126 else struct.unpack(">H", exactly(sock, 2))[0] if n == 126 else struct.unpack(">Q", exactly(sock, 8))[0]
    mask = exactly(sock, 4) if second & 128 else b"\0\0\0\0"
    data = exactly(sock, n)
    return first & 15, bytes(b ^ mask[i & 3] for i, b in enumerate(data)) if second & 128 else data


def serve(listener):
    while True:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        request = head(sock)
        key = next(l.split(b":", 1)[1].strip() for l in request.split(b"\r\n") if l.lower().startswith(b"sec-websocket-key:"))
        sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     b"Sec-WebSocket-Accept: " + accept_key(key) + b"\r\n\r\n" + frame(1, b"hello behind the head"))
        kind = 0
        while kind != 8:
            kind, data = read_frame(sock)
            sock.sendall(frame(kind, data))
        sock.close()


listener = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=serve, args=(listener,), daemon=True).start()
for io in DRIVERS:
    with stand() as place:
        ringway = Ringway(place, io, [f"127.0.0.1:{listener.getsockname()[1]}"])
        with socket.create_connection(("127.0.0.1", ringway.port), timeout=10) as sock:
            key = base64.b64encode(os.urandom(16))
            sock.sendall(b"GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                         b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n")
            answer = head(sock)
            check(f"{io}: 101 with the right key", answer.startswith(b"HTTP/1.1 101 ") and accept_key(key) in answer)
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
