"""The recorded bytes before a server of other make: what it takes for requests, and whether that is what Ringway sent.

The bytes of one backend connection go out in one write, and behind them a plain request, the sentinel: if the server's idea of where
the last request ends is another, the sentinel is not seen, or not as it is. Ringway itself sends the next request when it has the
response to the last; where a server differs, the replay is made again in that pace, and only what differs then counts.
"""
import asyncio
import dataclasses
import re
import socket
import struct

import message
from recording import address, echo

SENTINEL = b"GET /sentinel HTTP/1.1\r\nHost: sentinel.test\r\n\r\n"
PARALLEL = 24
QUIET = 1.5
FINAL = re.compile(rb"HTTP/1\.[01] ([2-5]\d\d)")

# What may come out. Only the last two are faults: the others are what a server does with a request whose bounds it sees as Ringway does.
AGREES, CLOSES, REFUSES, BELIEVES = "agrees", "agrees, then closes", "refuses", "takes a cut body for whole"
PACED, TARGET = "agrees unless pipelined", "names the target otherwise"
UPGRADE, DIFFERS = "WAITS for another protocol", "DIFFERS"
GOOD = [AGREES, CLOSES, REFUSES, BELIEVES, PACED, TARGET]


@dataclasses.dataclass
class Unit:
    """The bytes of one backend connection, request by request. `cut` if the last is not all there."""
    name: str
    pieces: list
    requests: list

    @property
    def data(self):
        return b"".join(self.pieces)

    @property
    def cut(self):
        return not self.requests[-1].whole


@dataclasses.dataclass
class Reply:
    statuses: list
    closed: bool


def texts(record):
    """What was forwarded on each connection, without what is another each time: the client's address, the port, the request's id."""
    return [re.sub(rb"(?m)^(X-Request-Id|X-Forwarded-For|X-Forwarded-Port|X-Real-IP): [0-9a-f.]+\r$", rb"\1: 1\r", bytes(data))
            for data in record.connections]


def units(records):
    """One of each content."""
    found = {}
    for record in records:
        for data in texts(record):
            if data not in found and not record.faults:
                found[data] = split(record.name, data)
    return list(found.values())


def split(name, data):
    pieces, requests, at = [], [], 0
    while at < len(data):
        request, end = message.head(data, at, message.REQUEST_LINE)
        end = message.body(request, data, end)
        requests.append(request)
        pieces.append(data[at:end])
        at = end
    return Unit(name, pieces, requests)


def planted():
    """Units of which Ringway is said to see something else than it sent: all must be found at every server."""
    def claim(name, head, sent, body):
        first, fields = b"POST /planted HTTP/1.1", b"Host: a.test\r\n" + head
        return Unit(name, [first + b"\r\n" + fields + b"\r\n\r\n" + sent], [message.Message(first, [], body, True)])

    hidden = b"hello" + SENTINEL.replace(b"sentinel", b"smuggled")
    yield claim("a request in the body", b"Content-Length: 5", hidden, hidden)
    yield claim("the next request is body", b"Content-Length: %d" % (5 + len(SENTINEL)), b"hello", b"hello")
    yield claim("chunks are body", b"Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n")
    yield claim("a chunk ends sooner", b"Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n" + hidden[5:], b"hello" + hidden[5:])


async def replay(port, source, unit, paced):
    """Sends a unit and its sentinel; gives what came back until all was answered, it was closed, or nothing came for a time."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
    except OSError as error:
        raise SystemExit(f"a server is gone: {error}")
    got, closed = bytearray(), False

    async def until(count):
        nonlocal closed
        while len(FINAL.findall(got)) < count and not closed:
            try:
                more = await asyncio.wait_for(reader.read(65536), QUIET)
            except asyncio.TimeoutError:
                return
            except OSError:
                more = b""
            closed = not more
            got.extend(more)

    pieces = unit.pieces + ([] if unit.cut else [SENTINEL])
    answered = len(pieces) - unit.cut
    try:
        if paced:
            for count, piece in enumerate(pieces, 1):
                writer.write(piece)
                await writer.drain()
                await until(min(count, answered))
        else:
            writer.write(b"".join(pieces))
            await writer.drain()
    except OSError:
        pass
    await until(answered)
    if unit.cut and not closed:
        # As Ringway does: a cut body ends by a reset, for a FIN would say that this is all.
        await asyncio.sleep(0.03)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.close()
    return Reply([int(status) for status in FINAL.findall(got)], closed)


async def replay_all(backend, all_units, paced=False):
    """(replies, events) by unit."""
    replies, gate = [None] * len(all_units), asyncio.Semaphore(PARALLEL)

    async def one(number):
        async with gate:
            replies[number] = await replay(backend.port, address(number), all_units[number], paced)

    await asyncio.gather(*(one(number) for number in range(len(all_units))))
    await asyncio.sleep(0.5)
    seen = backend.seen()
    return [(replies[number], seen.get(address(number), [])) for number in range(len(all_units))]


def same(event, request, with_target=True):
    return (event["method"], event["length"], event["hash"]) == (request.method, len(request.body), request.hash) \
        and (not with_target or event["target"] == request.target)


def judge(unit, reply, events):
    """(verdict, what to say of it). `compare` looks at a refusal once more."""
    sentinel = message.head(SENTINEL, 0, message.REQUEST_LINE)[0]
    sentinel.whole = True
    expected = [request for request in unit.requests if request.whole] + ([] if unit.cut else [sentinel])
    whole = [event for event in events if event["event"] == "end" and event["whole"]]
    begun = [event for event in events if event["event"] == "begin"]
    if unit.cut and len(whole) == len(expected) + 1 and whole[-1]["method"] == unit.requests[-1].method:
        cut = unit.requests[-1]
        if whole[-1]["length"] <= len(cut.body):
            return BELIEVES, f"{whole[-1]['length']} bytes"
    if len(whole) > len(expected) or len(begun) > len(expected) + unit.cut:
        return DIFFERS, f"sees {len(begun)} requests, {len(whole)} whole, where {len(expected)} whole were sent"
    for event, request in zip(whole, expected):
        if not same(event, request, with_target=False):
            return DIFFERS, f"sees {event} for {echo(request)}"
    if len(whole) < len(expected):
        if any(status >= 400 for status in reply.statuses):
            return REFUSES, str(next(status for status in reply.statuses if status >= 400))
        if reply.closed:
            return CLOSES, f"after {len(whole)} of {len(expected)}"
        if unit.requests[max(len(whole) - 1, 0)].all(b"upgrade"):
            return UPGRADE, f"after {len(whole)} of {len(expected)}"
        return DIFFERS, f"waits after {len(whole)} of {len(expected)} requests"
    for event, request in zip(whole, expected):
        if not same(event, request):
            return TARGET, f"{event['target']!r} for {request.target!r}"
    return AGREES, ""


def alone(unit, events):
    """The first request that was not seen whole, as a unit of its own; the sentinel's refusal is none that can be confirmed."""
    number = sum(event["event"] == "end" and event["whole"] for event in events)
    if number >= len(unit.requests):
        return None
    request = unit.requests[number]
    return Unit(unit.name, [unit.pieces[number]], [request])


async def compare(backend, all_units):
    """(unit, verdict, detail) for each. What differs is replayed in Ringway's pace; what is refused must be refused alone, too: a refused
    request could be the rest of the one before it, as the server sees it."""
    results, doubtful, refused = [], [], []
    for unit, (reply, events) in zip(all_units, await replay_all(backend, all_units)):
        verdict, detail = judge(unit, reply, events)
        if verdict in (DIFFERS, UPGRADE, REFUSES):
            doubtful.append((unit, detail))
        else:
            results.append((unit, verdict, detail))
    for (unit, first), (reply, events) in zip(doubtful, await replay_all(backend, [unit for unit, _ in doubtful], paced=True)):
        verdict, detail = judge(unit, reply, events)
        single = alone(unit, events) if verdict == REFUSES else None
        if single:
            refused.append((unit, detail, single))
        elif verdict == REFUSES:
            results.append((unit, DIFFERS, f"refuses the sentinel with {detail}"))
        else:
            results.append((unit, verdict if verdict in (DIFFERS, UPGRADE) else PACED, detail or first))
    for (unit, detail, single), (reply, events) in zip(refused, await replay_all(backend, [single for *_, single in refused])):
        again, _ = judge(single, reply, events)
        verdict = REFUSES if again == REFUSES else DIFFERS
        results.append((unit, verdict, detail if again == REFUSES else f"refuses with {detail} in a row what it takes alone ({again})"))
    return results


async def bare_all(backend, datas):
    """The whole requests (method, length and hash of the body) that the server sees in each of these, sent as they are."""
    gate = asyncio.Semaphore(2 * PARALLEL)

    async def one(number):
        async with gate:
            reader, writer = await asyncio.open_connection("127.0.0.1", backend.port, local_addr=(address(number), 0))
            try:
                writer.write(datas[number])
                while await asyncio.wait_for(reader.read(65536), QUIET / 6):
                    pass
            except (OSError, asyncio.TimeoutError):
                pass
            writer.close()

    await asyncio.gather(*(one(number) for number in range(len(datas))))
    await asyncio.sleep(0.5)
    seen = backend.seen()
    return [[(event["method"], event["length"], event["hash"]) for event in seen.get(address(number), [])
             if event["event"] == "end" and event["whole"]] for number in range(len(datas))]


def at_odds(lists):
    """Two of them are not one the beginning of the other; who only refuses sooner is not at odds."""
    longest = max(lists, key=len)
    return any(seen != longest[:len(seen)] for seen in lists)
