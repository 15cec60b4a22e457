"""What Ringway makes of client streams: the exact bytes it sends to a backend, what the client gets, what Ringway itself counts."""
import asyncio
import base64
import collections
import contextlib
import dataclasses
import json
import random
import socket

import message
from stand import Ringway

LANES = 3
PATIENCE = 8
LOG_FIELDS = ["client", "method", "path", "status", "received", "backend", "retries", "reason"]


@dataclasses.dataclass
class Record:
    """One stream. `connections` are the bytes of each backend connection, in the order in which they were opened."""
    name: str
    sent: bytes
    address: str
    connections: list = dataclasses.field(default_factory=list)
    got: bytes = b""
    ended: bool = False
    faults: list = dataclasses.field(default_factory=list)
    requests: list = dataclasses.field(default_factory=list)
    answers: list = dataclasses.field(default_factory=list)
    counted: list = dataclasses.field(default_factory=list)

    def whole(self):
        return [request for request in self.requests if request.whole]


def address(number, net=64):
    """A loopback address for each stream."""
    return f"127.{net + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def echo(request):
    target = base64.b64encode(request.target.encode("latin-1")).decode()
    return f"{request.method} {target} {len(request.body)} {request.hash}"


def cuts(data):
    """Two to seven pieces, the same each time."""
    dice = random.Random(data)
    ends = sorted(dice.randrange(len(data) + 1) for _ in range(dice.randrange(1, 7)))
    return [data[a:b] for a, b in zip([0] + ends, ends + [len(data)])]


async def ask(port, source, pieces):
    """Sends it all, then FIN; gives (what came until the end, whether the end came before a long silence).

    On the bare socket: a stream of asyncio whose sending fails forgets what has come and was not read yet, and Ringway may close while
    more is sent, behind a request that said it is the last.
    """
    loop, got = asyncio.get_running_loop(), bytearray()
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind((source, 0))
        await loop.sock_connect(sock, ("127.0.0.1", port))

        async def send():
            with contextlib.suppress(OSError):
                for piece in pieces:
                    await loop.sock_sendall(sock, piece)
                    if len(pieces) > 1:
                        await asyncio.sleep(0.001)
                sock.shutdown(socket.SHUT_WR)

        sending = asyncio.create_task(send())
        try:
            while more := await asyncio.wait_for(loop.sock_recv(sock, 65536), PATIENCE):
                got.extend(more)
        except asyncio.TimeoutError:
            return bytes(got), False
        except OSError:
            pass
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
    return bytes(got), True


class Lane:
    """A Ringway and its recording backend, with one stream at a time: so all that the backend gets belongs to it."""

    def __init__(self):
        self.record, self.tasks, self.writers = None, set(), []

    async def start(self, place, io, number):
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.log = place / f"{io}-{number}-{id(self)}.log"
        self.ringway = Ringway(place, io, [f"127.0.0.1:{server.sockets[0].getsockname()[1]}"], workers=1,
                               log={"access": str(self.log), "fields": LOG_FIELDS})

    async def serve(self, reader, writer):
        """Answers each whole request; says 100 (Continue) where it was asked to. What is unclean is a fault and the end."""
        task, record, at, data = asyncio.current_task(), self.record, 0, bytearray()
        self.tasks.add(task)
        self.writers.append(writer)
        continued = False
        record.connections.append(data)
        try:
            while more := await reader.read(65536):
                data += more
                while True:
                    read = message.head(data, at, message.REQUEST_LINE)
                    if read is None:
                        break
                    request, body_at = read
                    end = message.body(request, data, body_at)
                    if not request.whole:
                        if b"100-continue" in request.all(b"expect") and not continued and end == body_at:
                            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                            continued = True
                        break
                    at, continued = end, False
                    body = b"" if request.method == "HEAD" else b"ok\n"
                    writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX-Echo: {echo(request)}\r\n\r\n".encode("latin-1") + body)
            if at != len(data) and not writer.is_closing():
                record.faults.append("ends a cut body by FIN instead of a reset")
        except message.Unclean as unclean:
            record.faults.append(f"sends {unclean}")
        except OSError:
            pass
        finally:
            writer.close()
            self.tasks.discard(task)

    async def run(self, record, in_pieces):
        self.record, self.writers = record, []
        pieces = cuts(record.sent) if in_pieces else [record.sent]
        record.got, record.ended = await ask(self.ringway.port, record.address, pieces)
        # A cut upload ends the backend's connection; one that is whole stays, and ends here, so that none serves two streams.
        if any(cut(data) for data in record.connections) and self.tasks:
            await asyncio.wait(self.tasks, timeout=2)
        for writer in self.writers:
            writer.close()
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=2)


def cut(data):
    try:
        found, _ = message.requests(data)
        return bool(found) and not found[-1].whole
    except message.Unclean:
        return False


def conclude(record):
    """Fills in what follows from the bytes."""
    for data in record.connections:
        try:
            found, at = message.requests(data)
            record.requests += found
            if at != len(data):
                record.faults.append(f"sends {bytes(data[at:])[:80]!r} behind all requests")
        except message.Unclean as unclean:
            if f"sends {unclean}" not in record.faults:
                record.faults.append(f"sends {unclean}")
    try:
        record.answers = [pattern(answer) for answer in message.responses(record.got)]
    except message.Unclean as unclean:
        record.faults.append(f"answers {unclean}")
    if not record.ended:
        record.faults.append("neither answers nor closes")
    echoes = [answer for answer in record.answers if isinstance(answer, str)]
    if echoes != [echo(request) for request in record.whole()]:
        record.faults.append(f"answers {echoes} for {[echo(request) for request in record.whole()]}")
    # A backend is also named where one was picked and then nothing was sent to it, as what was there of the body is refused.
    served = [line for line in record.counted if line["reason"] == "OK"]
    if len(served) != len(record.whole()) or len(record.counted) < len(record.requests):
        record.faults.append(f"forwards {len(record.requests)}, {len(record.whole())} of them whole, but counts {record.counted}")
    elif any(not as_logged(line["method"], request.method) or line["received"] != len(request.body) for line, request in zip(served, record.whole())):
        record.faults.append(f"counts otherwise: {record.counted}")


def as_logged(method, sent):
    """The log cuts long methods."""
    return method == sent or method.endswith("...") and sent.startswith(method[:-3])


def pattern(answer):
    """The echo of a forwarded request, or the status of an own answer."""
    found = answer.all(b"x-echo")
    return found[0].decode("latin-1") if found else answer.status


async def record_all(place, io, streams, in_pieces):
    """Records by stream, in the order given; each stream is sent at once, or in a few pieces."""
    records = [Record(name, data, address(number)) for number, (name, data) in enumerate(streams)]
    lanes, waiting = [Lane() for _ in range(LANES)], collections.deque(records)
    for number, lane in enumerate(lanes):
        await lane.start(place, io, number)

    async def work(lane):
        while waiting:
            await lane.run(waiting.popleft(), in_pieces)

    await asyncio.gather(*(work(lane) for lane in lanes))
    for lane in lanes:
        await asyncio.to_thread(lane.ringway.stop)
    lines = collections.defaultdict(list)
    for lane in lanes:
        for line in open(lane.log):
            found = json.loads(line)
            if found["backend"] is not None:
                lines[found["client"]].append(found)
    for record in records:
        record.counted = lines[record.address]
        conclude(record)
    return records
