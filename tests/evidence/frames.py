"""WebSocket frames (RFC 6455) and an echo server, as far as the evidence needs them."""
import base64
import hashlib
import os
import socket
import struct
import threading

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


def echo_server():
    """A listener behind which every client gets its frames back."""
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
    return listener


def open_websocket(port, path="/chat"):
    """A connected client, past its 101."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=10)
    key = base64.b64encode(os.urandom(16))
    sock.sendall(b"GET " + path.encode() + b" HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                 b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n")
    answer = head(sock)
    good = answer.startswith(b"HTTP/1.1 101 ") and accept_key(key) in answer
    return sock, good
