#!/usr/bin/env python3
"""1 GiB down and 1 GiB chunked up through curl with equal hashes, peak RSS below 64 MiB, a slow reader included; a 100 MiB
upload against a limit of 1 MiB gives 413 every time."""
import hashlib
import http.server
import os
import socket
import subprocess
import threading
import time

from stand import DRIVERS, Ringway, check, done, need, stand

GIB = 1 << 30
BLOCK = bytes((i * 2654435761 >> 7) & 255 for i in range(1 << 20))
TIMES = int(os.environ.get("TIMES", "50"))


class Handler(http.server.BaseHTTPRequestHandler):
    """GET: 1 GiB. PUT, POST: the hash of what came."""
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(GIB))
        self.end_headers()
        try:
            for _ in range(GIB // len(BLOCK)):
                self.wfile.write(BLOCK)
        except OSError:
            self.close_connection = True

    def do_PUT(self):
        digest = hashlib.sha256()
        try:
            for piece in self.pieces():
                digest.update(piece)
        except (OSError, ValueError):
            # The proxy gave the upload up, as it must when the client's body is too large.
            self.close_connection = True
            return
        text = digest.hexdigest().encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_POST = do_PUT

    def pieces(self):
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline() not in (b"\r\n", b""):
                pass
            return
        left = int(self.headers.get("Content-Length", 0))
        while left > 0:
            piece = self.rfile.read(min(left, 1 << 20))
            if not piece:
                return
            left -= len(piece)
            yield piece

    def log_message(self, *_):
        pass


def curl(*words, feed=None):
    """(exit code, stdout as hash, stdout if short)"""
    child = subprocess.Popen(["curl", "-sS", *words], stdin=subprocess.PIPE if feed else subprocess.DEVNULL, stdout=subprocess.PIPE)

    def write():
        try:
            for _ in range(feed):
                child.stdin.write(BLOCK)
            child.stdin.close()
        except OSError:
            pass

    if feed:
        threading.Thread(target=write, daemon=True).start()
    digest, kept = hashlib.sha256(), b""
    while piece := child.stdout.read(1 << 20):
        digest.update(piece)
        kept = (kept + piece)[:4096]
    return child.wait(timeout=60), digest.hexdigest(), kept


def slow_reader(port, seconds):
    """Takes 64 KiB each tenth of a second."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        until, got = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            got += len(sock.recv(65536))
            time.sleep(0.1)
        return got


def large(io, directory, port):
    expected = hashlib.sha256()
    for _ in range(GIB // len(BLOCK)):
        expected.update(BLOCK)
    expected = expected.hexdigest()
    ringway = Ringway(directory, io, [f"127.0.0.1:{port}"])
    url = f"http://127.0.0.1:{ringway.port}/"
    begin = time.monotonic()
    code, got, _ = curl(url)
    check(f"{io}: 1 GiB down, hash equal", code == 0 and got == expected, f"{time.monotonic() - begin:.1f} s")
    begin = time.monotonic()
    code, _, answer = curl("-T", "-", "-H", "Expect:", url, feed=GIB // len(BLOCK))
    check(f"{io}: 1 GiB chunked up, hash equal", code == 0 and answer.decode() == expected, f"{time.monotonic() - begin:.1f} s")
    got = slow_reader(ringway.port, 8)
    check(f"{io}: a slow reader is served", got > 1 << 20, f"{got >> 10} KiB in 8 s")
    peak = ringway.kib("VmHWM")
    check(f"{io}: peak RSS below 64 MiB", peak < 64 << 10, f"{peak / 1024:.1f} MiB")
    ringway.stop()


def limited(io, directory, port):
    ringway = Ringway(directory, io, [f"127.0.0.1:{port}"], {"body_max": "1MiB"})
    file = directory / "upload"
    with open(file, "wb") as out:
        out.truncate(100 << 20)
    url = f"http://127.0.0.1:{ringway.port}/"
    for name, words in (("Content-Length", []), ("no Expect", ["-H", "Expect:"]), ("chunked", ["-H", "Transfer-Encoding: chunked"])):
        seen = {}
        for _ in range(TIMES):
            out = subprocess.run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST", *words,
                                  "--data-binary", f"@{file}", url], capture_output=True, text=True, timeout=60)
            seen[out.stdout] = seen.get(out.stdout, 0) + 1
        check(f"{io}: 100 MiB against 1 MiB, {name}: 413 every time", seen == {"413": TIMES}, seen)
    ringway.stop()


need("curl", "curl")
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
for driver in DRIVERS:
    for part in (large, limited):
        with stand() as place:
            part(driver, place, server.server_address[1])
done()
