#!/usr/bin/env python3
"""The Autobahn cases (RFC 6455 and 7692, by kosoku) against echo servers, direct and through Ringway: equal, case by case.

Compared are the verdict on the frames, the verdict on the close, code and reason of the close, and all that was received. The
servers have faults of their own; the point is that Ringway adds none and hides none. A case that differs is repeated by itself, both
ways: a few depend on time, as the machine's load shows. The cases of compression (12 and 13), which are half of all and take minutes of
CPU, most of it the test's own, go to COMPRESSED only.

Environment: SERVERS, COMPRESSED (default aiohttp), CASES (globs for all, such as "1.* 7.*"), PARALLEL (default 2).
"""
import asyncio
import collections
import os
import pathlib
import signal
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "evidence"))
signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))

import kosoku  # noqa: E402
from stand import DRIVERS, Ringway, check, done, free_port, spawn, stand, wait_port  # noqa: E402

SERVERS = os.environ.get("SERVERS", "websockets aiohttp tornado").split()
COMPRESSED = os.environ.get("COMPRESSED", "aiohttp").split()
CASES = os.environ.get("CASES", "").split()
PARALLEL = int(os.environ.get("PARALLEL", "2"))
REPEATS = 3


def outcome(case):
    received = [tuple(event) for event in case.received or []]
    return (case.behavior.value, case.behavior_close.value, case.remote_close_code, case.remote_close_reason, received)


async def run(port, cases):
    """Outcomes by case."""
    try:
        results = await kosoku.run_fuzzingclient(f"ws://127.0.0.1:{port}", cases, None, concurrency=PARALLEL)
    except kosoku.FailureError as failure:
        results = failure.results
    return {case.case_id: outcome(case) for case in results}


def short(found):
    return f"{found[0]}/{found[1]} code {found[2]} reason {found[3]!r} and {len(found[4])} received"


def words(outcomes):
    counts = collections.Counter(f"{found[0]}/{found[1]}" for found in outcomes.values())
    return ", ".join(f"{n} {name}" for name, n in counts.most_common())


async def compare(name, io, cases, direct, port, through_port):
    through = await run(through_port, cases)
    differing = [case for case in direct if through.get(case) != direct[case]]
    wrong = []
    for case in differing:
        seen = [direct[case]], [through.get(case)]
        for _ in range(REPEATS):
            seen[0].append((await run(port, [case]))[case])
            seen[1].append((await run(through_port, [case]))[case])
        if not any(found in seen[0] for found in seen[1][1:]):
            wrong.append(case)
            print(f"      {name} {case}: direct {short(seen[0][-1])}; through Ringway {short(seen[1][-1])}")
    check(f"{name}, {io}: cases that go as without Ringway", direct and through.keys() == direct.keys() and not wrong,
          f"{len(direct) - len(wrong)} of {len(direct)} ({len(differing)} repeated: {' '.join(differing) or 'none'})")


for name in SERVERS:
    with stand() as place:
        port = free_port()
        spawn([sys.executable, str(HERE / "servers" / "websocket_echo.py"), name, str(port)], stderr=open(place / "stderr", "wb"))
        wait_port(port, name, 60)
        cases = CASES or (None if name in COMPRESSED else [f"{group}.*" for group in (1, 2, 3, 4, 5, 6, 7, 9, 10)])
        direct = asyncio.run(run(port, cases))
        print(f"      {name}, direct: {words(direct)}", flush=True)
        for io in DRIVERS:
            ringway = Ringway(place, io, [f"127.0.0.1:{port}"])
            asyncio.run(compare(name, io, cases, direct, port, ringway.port))
            ringway.stop()
done()
