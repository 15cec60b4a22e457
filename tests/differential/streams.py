"""Client streams: files of tests/data, systematic framing, random mutations by a seed, and whatever a probe sends.

A stream is (name, bytes). Most are wrong in one place: what matters is that where Ringway forwards something, all servers behind it
read the same of it. Bodies hold requests, so that a boundary in the wrong place shows as one request more.
"""
import asyncio
import base64
import hashlib
import itertools
import json
import os
import pathlib
import random
import subprocess
import sys

from stand import ROOT, Ringway, free_port

DATA = ROOT / "tests" / "data"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: smuggled.test\r\n\r\n"
STREAM_BYTES_MAX = 1 << 17


def files():
    """Heads of the corpora, each also as the first of two requests, and all malformed and wire files, which are taken as they are."""
    found = []
    for path in sorted(DATA.glob("corpus/*/*")):
        data = path.read_bytes()
        if b"HTTP/1." in data and not data.startswith(b"HTTP/"):
            found.append((f"file {path.relative_to(DATA)}", data))
            found.append((f"file {path.relative_to(DATA)} and one more", data + get(b"/more")))
    for pattern in ("malformed/request/**/*", "wire/**/*"):
        for path in sorted(DATA.glob(pattern)):
            if path.is_file():
                data = path.read_bytes()
                found.append((f"file {path.relative_to(DATA)}", data[:STREAM_BYTES_MAX]))
    return found


def get(target, more=b""):
    return b"GET " + target + b" HTTP/1.1\r\nHost: a.test\r\n" + more + b"\r\n"


# Ways to say a length of N, and to say `chunked`: the value or whole lines.
LENGTHS = [b"%d", b"+%d", b"-%d", b"0%d", b"00000000000000000000000%d", b"%d ", b"\t%d", b"%d,", b"%d, %d", b"%d,%d", b"0, %d", b"%d, 0", b"0x%x",
           b"%d;", b"%d_0", b"%de0", b"%d.0", b"'%d'", b"%d %d", b"", b"%d\x0b", b"%d\x00", b"\xef\xbc\x95", b"4294967296", b"18446744073709551616",
           b"18446744073709551621", b"9223372036854775808"]
LENGTH_NAMES = [b"Content-Length:", b"content-length:", b"Content-Length :", b"Content_Length:", b" Content-Length:", b"Content-Length:\r\n",
                b"X-Pad: a\r\n Content-Length:", b"Content-Length\x00:", b"\x0bContent-Length:", b"Content-Length\t:", b"Content-Length:\x0b"]
CODINGS = [b"chunked", b"Chunked", b"CHUNKED", b" chunked", b"\tchunked", b"chunked ", b"chunked\t", b"\x0bchunked", b"chunked\x0b", b"\x0cchunked",
           b"\x00chunked", b"chunked\x00", b"xchunked", b"chunkedx", b"chunked, identity", b"identity, chunked", b"identity", b"gzip, chunked",
           b"chunked, gzip", b"chunked, chunked", b"chunked,", b",chunked", b"chunked;q=1", b'"chunked"', b"chunk", b"", b"chunked\r\n ",
           b"\r\n chunked",
           b"chunked\rX: y", b"chunked\nX: y", b"ch\xc3\xbcnked", b"trailers", b"cow, chunked", b"deflate"]
CODING_NAMES = [b"Transfer-Encoding:", b"transfer-encoding:", b"Transfer-Encoding :", b"Transfer_Encoding:", b" Transfer-Encoding:",
                b"X-Pad: a\r\n Transfer-Encoding:", b"Transfer-Encoding\t:", b"\x0bTransfer-Encoding:", b"Transfer-Encoding\x00:",
                b"Transfer-Encoding",
                b"X: y\nTransfer-Encoding:", b"X: y\rTransfer-Encoding:", b"TE:", b"Transfer\x2dEncoding:", b"X-Transfer-Encoding:"]
SIZES = [b"%x", b"%X", b"0%x", b"000000000000000%x", b"0000000000000000000%x", b"%x ", b" %x", b"%x\t", b"+%x", b"-%x", b"0x%x", b"%x;", b"%x;a",
         b"%x;a=b",
         b'%x;a="b"', b'%x;a="b\\"c"', b'%x;a="\r\n"', b"%x ;a", b"%x; a", b"%x\x00", b"%x\r", b"%x;a\x00", b"%x;a\rb", b"%x;a\nb", b"%x_", b"%xg",
         b"%x,0",
         b"%x\x0b", b"1000000000000000%x", b"ffffffffffffffff", b"%x;" + b"a" * 300, b"", b"%x;\xff", b'%x;a="', b"%x:a", b"%x#a"]
ENDS = [b"\r\n", b"\n", b"\r", b"\r\r\n", b"\n\r", b" \r\n", b"", b"\r\n\r\n"]
LASTS = [b"0\r\n\r\n", b"00\r\n\r\n", b"0;a=b\r\n\r\n", b"0\n\n", b"0\r\n\n", b"0\n\r\n", b"0\r\n", b"-0\r\n\r\n", b"0 \r\n\r\n",
         b"0\r\nX-T: v\r\n\r\n",
         b"0\r\nContent-Length: 50\r\n\r\n", b"0\r\nTransfer-Encoding: chunked\r\n\r\n", b"0\r\nHost: b.test\r\n\r\n",
         b"0\r\nX-T: v\r\n more\r\n\r\n",
         b"0\r\nX T: v\r\n\r\n", b"0\r\nno colon\r\n\r\n", b"0\r\nX-T: a\nX-U: b\r\n\r\n", b"0\r\n\x00\r\n\r\n", b"0\r\n\r\nX",
         b"0\r\nX-T:v\r\nx-t: w\r\n\r\n", b"0x0\r\n\r\n"]


def fill(pattern, n):
    """A pattern with its numbers set to n; other `%` are not in there."""
    count = pattern.count(b"%")
    return pattern % ((n,) * count) if count else pattern


def chunk(data, size=b"%x", end=b"\r\n", behind=b"\r\n"):
    return fill(size, len(data)) + end + data + behind


def framing():
    """Each way alone, then lengths and codings together in both orders, in both versions, each followed by one more request."""
    post = b"POST /framing HTTP/%s\r\nHost: a.test\r\n"
    after = get(b"/after")
    coded = chunk(b"hello") + b"0\r\n\r\n"
    for version in (b"1.1", b"1.0"):
        first, v = post % version, version.decode()
        for value in LENGTHS:
            yield f"length {v} {value}", first + b"Content-Length: " + fill(value, len(SMUGGLED)) + b"\r\n\r\n" + SMUGGLED + after
        for name in LENGTH_NAMES:
            yield f"length {v} {name}", first + name + b" %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED + after
        for value in CODINGS:
            yield f"coding {v} {value}", first + b"Transfer-Encoding: " + value + b"\r\n\r\n" + coded + after
        for name in CODING_NAMES:
            yield f"coding {v} {name}", first + name + b" chunked\r\n\r\n" + coded + after
        for length, value in itertools.product((0, 5, len(coded), len(coded + SMUGGLED)), CODINGS):
            lines = [b"Content-Length: %d\r\n" % length, b"Transfer-Encoding: " + value + b"\r\n"]
            for order in (lines, lines[::-1]):
                yield f"both {v} {length} {value}", first + b"".join(order) + b"\r\n" + coded + SMUGGLED + after
        for name in CODING_NAMES + LENGTH_NAMES:
            plain = b"Content-Length: %d\r\n" % len(coded + SMUGGLED)
            odd = name + (b" chunked\r\n" if name in CODING_NAMES else b" 0\r\n")
            for order in (plain + odd, odd + plain):
                yield f"both {v} {name}", first + order + b"\r\n" + coded + SMUGGLED + after
        for one, other in ((5, 5), (0, 5), (5, 0), (5, 50)):
            lines = b"Content-Length: %d\r\nContent-Length: %d\r\n" % (one, other)
            yield f"lengths {v} {one} {other}", first + lines + b"\r\n" + b"hello" + after
    first = post % b"1.1" + b"Transfer-Encoding: chunked\r\n\r\n"
    for size, end in itertools.product(SIZES, ENDS):
        yield f"chunk {size} {end}", first + chunk(SMUGGLED, size, end) + b"0\r\n\r\n" + after
    for end in ENDS:
        yield f"chunk behind {end}", first + chunk(SMUGGLED, behind=end) + b"0\r\n\r\n" + after
    for last in LASTS:
        yield f"last chunk {last}", first + chunk(SMUGGLED) + last + after
    for method in (b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"TRACE", b"CONNECT", b"PATCH", b"PRI", b"get", b"M-SEARCH", b"QUERY", b"X!#$%&'*+.^_`|~"):
        lengthy = b"Content-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED
        for rest in (b"\r\n", lengthy, b"Transfer-Encoding: chunked\r\n\r\n" + coded, b"Expect: 100-continue\r\n" + lengthy,
                     b"Connection: close\r\n" + lengthy, b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
                     b"Connection: keep-alive, host\r\n\r\n",
                     b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n" + lengthy,
                     b"Connection: Upgrade\r\nUpgrade: websocket\r\n" + lengthy, b"Connection: content-length\r\n" + lengthy,
                     b"Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n" + coded):
            yield f"method {method} {rest[:40]}", method + b" /method HTTP/1.1\r\nHost: a.test\r\n" + rest + after
    for target in (b"/", b"*", b"http://b.test/x", b"http://b.test", b"HTTP://b.test:80/?q", b"https://b.test/", b"//b.test/x", b"/a//b",
                   b"/a/../b", b"/%2e%2e/",
                   b"/a?b#c", b"/a\\b", b"b.test:80", b"/\xff", b"/%00", b"/a b", b"/a\tb", b"ftp://b.test/", b"http://u@b.test/",
                   b"/?" + b"q" * 7000, b"?a", b"a",
                   b"/;", b"/'\"<>", b"/%zz", b"http://[::1]/", b"http://b.test\\@c.test/", b"/%0d%0aX:%20y", b"/\xc3\xa9", b"/a|b{c}^`"):
        for method in (b"GET", b"OPTIONS"):
            yield f"target {method} {target[:30]}", method + b" " + target + b" HTTP/1.1\r\nHost: a.test\r\n\r\n" + after
    for host in (b"a.test", b"a.test:80", b"", b"a.test, b.test", b"a.test\r\nHost: b.test", b"a test", b"a.test:x", b"[::1]", b"a.test/x", b"a@b",
                 b"%61.test"):
        yield f"host {host}", b"GET /host HTTP/1.1\r\nHost: " + host + b"\r\n\r\n" + after


METHODS = [b"GET", b"POST", b"PUT", b"HEAD", b"DELETE", b"OPTIONS", b"PATCH", b"PROPFIND", b"REPORT", b"M-SEARCH"]
ODD_LINES = [b"Connection: close", b"Connection: keep-alive", b"Connection: x-a, close", b"Expect: 100-continue", b"TE: trailers", b"Upgrade: h2c",
             b"X-A: \t b", b"X-Empty:", b"Cookie: a=b", b"X-A: \xff", b"X-Forwarded-For: 1.2.3.4", b"Via: 1.0 x", b"Accept-Encoding: gzip",
             b"Max-Forwards: 3",
             b"X-Long: " + b"a" * 3000, b"Content-Type: text/plain", b"Trailer: X-T", b"Keep-Alive: timeout=5", b"Proxy-Connection: close",
             b"X_A: b", b"Range: bytes=0-"]
NOISE = [b"\r", b"\n", b"\r\n", b" ", b"\t", b"\x00", b"\x0b", b"\x0c", b"\x7f", b"\x80", b"\xa0", b"\xff", b":", b",", b";", b"0", b"1", b"/",
         b"\\", b'"', b"%", b"%0a",
         b"\r\n ", b"HTTP/1.1", b"chunked", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: b.test\r\n", SMUGGLED]


def one_request(dice, stream, index, odd):
    """A request with a target of its own; with `odd` its framing may be written in any way."""
    lines = [b"Host: a.test"] + dice.sample(ODD_LINES, dice.choice((0, 0, 1, 2, 3)))
    body = dice.choice((b"", b"", b"hello", SMUGGLED, bytes(dice.randrange(256) for _ in range(dice.randrange(200))), SMUGGLED * 30))
    form = dice.choice(("none", "length", "chunked", "chunked"))
    if form == "length":
        lines.append(b"Content-Length: " + fill(dice.choice(LENGTHS[:12]) if odd else b"%d", len(body)))
    elif form == "chunked":
        lines.append(b"Transfer-Encoding: " + (dice.choice(CODINGS) if odd and dice.random() < 0.3 else b"chunked"))
        cuts = sorted(dice.randrange(len(body) + 1) for _ in range(dice.randrange(4)))
        pieces = [body[a:b] for a, b in zip([0] + cuts, cuts + [len(body)])]
        sizes = SIZES if odd and dice.random() < 0.3 else [b"%x", b"0%x", b"%X", b"%x;a=b"]
        last = dice.choice(LASTS) if odd and dice.random() < 0.3 else dice.choice([b"0\r\n\r\n"] * 5 + [b"0\r\nX-T: v\r\n\r\n"])
        body = b"".join(chunk(piece, dice.choice(sizes)) for piece in pieces if piece) + last
    else:
        body = b""
    dice.shuffle(lines)
    target = b"/s%dr%d" % (stream, index)
    if dice.random() < 0.1:
        target = b"http://b.test" + target + b"?q=1"
    version = b"1.0" if dice.random() < 0.05 else b"1.1"
    return dice.choice(METHODS) + b" " + target + b" HTTP/" + version + b"\r\n" + b"\r\n".join(lines) + b"\r\n\r\n" + body


def mutate(dice, data):
    """One small change at one place, most of them in or near a head."""
    at = dice.randrange(len(data) + 1)
    how = dice.randrange(6)
    if how == 0:
        return data[:at] + dice.choice(NOISE) + data[at:]
    if how == 1:
        return data[:at] + data[at + dice.choice((1, 1, 2, 5)):]
    if how == 2:
        return data[:at] + dice.choice(NOISE) + data[at + 1:]
    lines = data.split(b"\r\n")
    line = dice.randrange(len(lines))
    if how == 3:
        lines.insert(line, lines[dice.randrange(len(lines))])
    elif how == 4:
        other = dice.randrange(len(lines))
        lines[line], lines[other] = lines[other], lines[line]
    else:
        ends = b"\n" if dice.random() < 0.5 else b"\r"
        return b"\r\n".join(lines[:line]) + ends + b"\r\n".join(lines[line:])
    return b"\r\n".join(lines)


def generated(count, seed):
    """One to four requests behind each other: a third as they should be, a third oddly framed, a third with small changes."""
    for stream in range(count):
        dice = random.Random(f"{seed}.{stream}")
        kind = dice.choice(("good", "odd", "changed"))
        data = b"".join(one_request(dice, stream, i, kind == "odd") for i in range(dice.choice((1, 2, 2, 3, 4))))
        if kind == "changed":
            for _ in range(dice.choice((1, 1, 2))):
                data = mutate(dice, data)
        yield f"seed {seed}.{stream} {kind}", data


class Tap:
    """A relay before Ringway that keeps what clients send."""

    def __init__(self, port):
        self.port, self.streams = port, []

    async def serve(self, reader, writer):
        data = bytearray()
        try:
            back_reader, back_writer = await asyncio.open_connection("127.0.0.1", self.port)
            back = asyncio.create_task(copy(back_reader, writer))
            await copy(reader, back_writer, data)
            await back
        except OSError:
            pass
        finally:
            writer.close()
            if 0 < len(data) <= STREAM_BYTES_MAX:
                self.streams.append(bytes(data))


async def copy(reader, writer, kept=None):
    try:
        while data := await reader.read(65536):
            if kept is not None and len(kept) <= STREAM_BYTES_MAX:
                kept += data
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.close()


async def tapped(place, program, groups):
    origin = free_port()
    ringway = Ringway(place, os.environ.get("IO", "epoll").split()[0], [f"127.0.0.1:{origin}"])
    tap = Tap(ringway.port)
    server = await asyncio.start_server(tap.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    child = await asyncio.create_subprocess_exec(
        sys.executable, program, "--proxy", f"127.0.0.1:{port}", "--origin-port", str(origin), "--timeout", "1", "--only", ",".join(groups),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    await asyncio.wait_for(child.wait(), 900)
    server.close()
    await asyncio.sleep(0.2)
    ringway.stop()
    return tap.streams


PROBE_GROUPS = [["framing", "expect"], ["chunked", "pipelining", "upgrade"], ["request-line", "keep-alive", "hop-by-hop"],
                ["headers", "host", "methods"]]


def probe(place, cache):
    """What the program PROBE (`--proxy --origin-port --only --timeout`) sends to a proxy; kept in the cache by the program's content."""
    program = os.environ.get("PROBE")
    if not program or not pathlib.Path(program).exists():
        return []
    kept = cache / f"probe-{hashlib.sha256(pathlib.Path(program).read_bytes()).hexdigest()[:12]}.json"
    if not kept.exists():
        async def all_groups():
            return await asyncio.gather(*(tapped(place, program, groups) for groups in PROBE_GROUPS))
        streams = sorted({stream for part in asyncio.run(all_groups()) for stream in part})
        cache.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps([base64.b64encode(stream).decode() for stream in streams]))
    return [(f"probe {i}", base64.b64decode(text)) for i, text in enumerate(json.loads(kept.read_text()))]
