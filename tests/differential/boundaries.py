#!/usr/bin/env python3
"""What Ringway forwards counts as the same requests at servers of other make.

1. Record: each client stream through Ringway to a backend that keeps the exact bytes. They must be of the plainest form, and as many
   requests as Ringway itself counts, each with its own answer. Once with all at once and once in pieces: the requests are the same.
2. Replay: exactly these bytes before node, gunicorn, uvicorn (h11, httptools), aiohttp and tornado. Each must see the same requests with
   the same bodies, or refuse; never more, never other bounds. And for comparison the streams as the clients sent them, without Ringway.
3. Through: the streams again, many clients at once, through Ringway to each of these servers. Each client gets the answers to its own.

Environment: SEED (default 1), COUNT of generated streams (default 3000), SERVERS, PROBE (a program whose streams are added, if there is
one), CACHE, SHOW (how many of each kind to print, default 5), OUT (file for all that is not plain agreement).
"""
import asyncio
import collections
import os
import pathlib
import signal
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "evidence"))
signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))

import backends  # noqa: E402
import recording  # noqa: E402
import replay  # noqa: E402
import streams  # noqa: E402
import through  # noqa: E402
from recording import echo  # noqa: E402
from stand import DRIVERS, Ringway, check, done, end, stand  # noqa: E402

SEED, COUNT = os.environ.get("SEED", "1"), int(os.environ.get("COUNT", "3000"))
SERVERS = os.environ.get("SERVERS", " ".join(backends.NAMES)).split()
CACHE = pathlib.Path(os.environ.get("CACHE", pathlib.Path.home() / ".cache" / "ringway-differential"))
SHOW = int(os.environ.get("SHOW", "5"))
OUT = os.environ.get("OUT")


def show(where, results, good):
    """Prints the first of those that are not good, and writes all that are not plain agreement to OUT."""
    bad = [(name, verdict, detail, data) for name, verdict, detail, data in results if verdict not in good]
    for name, verdict, detail, data in bad[:SHOW]:
        print(f"      {where}: {name}: {verdict}: {detail}\n        {bytes(data[:600])!r}{' ...' if len(data) > 600 else ''}")
    if OUT:
        with open(OUT, "a") as file:
            for name, verdict, detail, data in results:
                if verdict != good[0]:
                    file.write(f"{where}\t{verdict}\t{name}\t{detail}\t{bytes(data)!r}\n")
    return not bad


def counts(results):
    found = collections.Counter(verdict for _, verdict, *_ in results)
    return ", ".join(f"{n} {verdict}" for verdict, n in found.most_common())


def record(place, io, all_streams, in_pieces):
    started = time.monotonic()
    records = asyncio.run(recording.record_all(place, io, all_streams, in_pieces))
    how = f"{io}, {'in pieces' if in_pieces else 'at once'}"
    faults = [(one.name, "FAULT", fault, one.sent) for one in records for fault in one.faults]
    show(how, faults, ["none"])
    whole = sum(len(one.whole()) for one in records)
    cut = sum(len(one.requests) for one in records) - whole
    refused = sum(any(isinstance(answer, int) and answer >= 400 for answer in one.answers) for one in records)
    check(f"{how}: streams whose forwarded bytes are plain and as many requests as Ringway counts", not faults,
          f"{len(records) - len({name for name, *_ in faults})} of {len(records)} ({whole} requests whole, {cut} cut; {refused} streams "
          f"refused somewhere; {time.monotonic() - started:.0f} s)")
    return records


with stand() as place:
    print(f"      seed {SEED}", flush=True)
    all_streams = streams.files() + list(streams.framing()) + streams.probe(place, CACHE) + list(streams.generated(COUNT, SEED))
    kinds = collections.Counter(name.split(" ")[0] if name.split(" ")[0] in ("file", "probe", "seed") else "systematic" for name, _ in all_streams)
    print("      streams: " + ", ".join(f"{n} {kind}" for kind, n in kinds.items()), flush=True)
    recorded = {io: record(place, io, all_streams, False) for io in DRIVERS}
    pieces = {io: record(place, io, all_streams, True) for io in DRIVERS}
    for io in DRIVERS:
        equal = [[echo(request) for request in one.whole()] == [echo(request) for request in other.whole()] and one.answers == other.answers
                 for one, other in zip(recorded[io], pieces[io])]
        show(io, [(one.name, "DIFFERS", f"{one.answers} and in pieces {other.answers}", one.sent)
                  for one, other, same in zip(recorded[io], pieces[io], equal) if not same], ["none"])
        check(f"{io}: streams that are the same requests and answers in pieces", all(equal), f"{sum(equal)} of {len(equal)}")
    if len(recorded) == 2:
        pairs = list(zip(*recorded.values()))
        # Whether a connection is taken again depends on time: a backend may be heard to answer before its request is known to be out.
        equal = [b"".join(replay.texts(one)) == b"".join(replay.texts(other)) and one.answers == other.answers for one, other in pairs]
        show("drivers", [(one.name, "DIFFERS", f"{replay.texts(one)} and {replay.texts(other)}", one.sent)
                         for (one, other), same in zip(pairs, equal) if not same], ["none"])
        check("streams of which both drivers forward the same and answer the same", all(equal), f"{sum(equal)} of {len(equal)}")
    units = replay.units([one for records in [*recorded.values(), *pieces.values()] for one in records])
    without, compared = collections.defaultdict(dict), [data for name, data in all_streams if not name.startswith("seed")]
    for name in SERVERS:
        if not backends.there(name):
            print(f"      {name} is not installed: left out")
            continue
        backend = backends.Backend(name, place)
        title = f"{name} ({backends.version(name)})"
        results = [(unit.name, verdict, detail, unit.data) for unit, verdict, detail in asyncio.run(replay.compare(backend, units))]
        check(f"{title}: backend connections on which it sees the same requests as Ringway sent", show(name, results, replay.GOOD),
              f"{sum(verdict in replay.GOOD for _, verdict, *_ in results)} of {len(results)} ({counts(results)})")
        plants = asyncio.run(replay.compare(backend, list(replay.planted())))
        check(f"{title}: planted disagreements that are found", all(verdict not in replay.GOOD for _, verdict, _ in plants),
              f"{sum(verdict not in replay.GOOD for _, verdict, _ in plants)} of {len(plants)}")
        for number, seen in enumerate(asyncio.run(replay.bare_all(backend, compared))):
            without[number][name] = seen
        for io, records in recorded.items():
            asked = [one for one in records if one.whole()]
            ringway = Ringway(place, io, [f"127.0.0.1:{backend.port}"])
            results = [(one.name, verdict, detail, one.sent) for one, verdict, detail in asyncio.run(through.run(ringway.port, asked))]
            check(f"{title}, {io}: clients that get their own answers in their own order", show(f"{name} {io}", results, through.GOOD),
                  f"{sum(verdict in through.GOOD for _, verdict, *_ in results)} of {len(results)} ({counts(results)})")
            ringway.stop()
        end(backend.child)
    at_odds = sum(replay.at_odds(list(seen.values())) for seen in without.values())
    check("streams of which these servers see different requests without Ringway (so this way to look finds such things)",
          at_odds or len(SERVERS) < len(backends.NAMES), f"{at_odds} of {len(compared)}")
done()
