#!/usr/bin/env python3
"""A node origin that closes idle connections after 1 s, under mixed GET and POST with pauses: the race for a stale
connection must never become a 502. MINUTES (default 3) per driver; the drivers run at the same time."""
import os
import random
import time

from load import Load
from stand import DRIVERS, Ringway, check, done, free_port, need, spawn, stand, wait_port

MINUTES = float(os.environ.get("MINUTES", "3"))
SCRIPT = """
const server = require('http').createServer((request, response) => {
  request.resume();
  request.on('end', () => response.end('ok'));
});
server.keepAliveTimeout = 1000;
server.listen(PORT, '127.0.0.1');
"""

need("node", "nodejs")
with stand() as place:
    origin = free_port()
    spawn(["node", "-e", SCRIPT.replace("PORT", str(origin))])
    wait_port(origin, "node")
    runs = []
    for io in DRIVERS:
        ringway = Ringway(place, io, [f"127.0.0.1:{origin}"])
        # Pauses around the second at which node closes are where the race is.
        steady = Load(ringway.port, threads=24, methods=("GET", "POST"), pause=lambda: random.uniform(0.9, 1.1))
        bursts = Load(ringway.port, threads=8, methods=("GET", "POST"), pause=lambda: random.choice((0, 0, 0.5, 1.0, 2.0)))
        runs.append((io, ringway, [steady, bursts]))
    time.sleep(MINUTES * 60)
    for io, ringway, loads in runs:
        for load in loads:
            load.stop()
        bad = sum(sum(load.bad.values()) for load in loads)
        good = sum(sum(load.good.values()) for load in loads)
        check(f"{io}: keepAliveTimeout 1 s for {MINUTES:g} min: no 502", bad == 0 and good > 0,
              "; ".join(load.figures() for load in loads))
        ringway.stop()
done()
