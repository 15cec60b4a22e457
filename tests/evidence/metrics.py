#!/usr/bin/env python3
"""The metrics under load: the Prometheus project's own parser for Python takes the text; the sums are the load tool's count
and the number of lines in the access log; writing the text for 1,000 clusters of 4 backends holds up neither control nor the
data path."""
import importlib
import subprocess
import sys
import time
import urllib.request

from stand import DRIVERS, Nginx, Ringway, check, done, free_port, stand, wrk, wrk_result

SECONDS = 5


def parser(directory):
    """`prometheus_client`, installed for this run if it is not there."""
    try:
        return importlib.import_module("prometheus_client.openmetrics.parser")
    except ImportError:
        pass
    home = directory / "python"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--target", str(home), "prometheus_client"], check=True)
    sys.path.insert(0, str(home))
    importlib.invalidate_caches()
    return importlib.import_module("prometheus_client.openmetrics.parser")


def fetch(port, path="/metrics"):
    begin = time.monotonic()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
        text = answer.read().decode()
        return text, answer.headers["Content-Type"], time.monotonic() - begin


def total(families, sample, **labels):
    found = [s for f in families for s in f.samples if s.name == sample]
    return sum(s.value for s in found if all(s.labels.get(k) == v for k, v in labels.items()))


def counts(directory, io, read):
    log, status = directory / f"access-{io}.log", free_port()
    nginx = [Nginx(directory, f"n{i}-{io}") for i in range(2)]
    ringway = Ringway(directory, io, [f"127.0.0.1:{n.port}" for n in nginx],
                      status={"listen": f"127.0.0.1:{status}"}, log={"access": str(log)})
    load = wrk(ringway.port, SECONDS)
    time.sleep(SECONDS / 2)
    under_load = [fetch(status)[2] for _ in range(20)]
    errors, requests, rate, text = wrk_result(load, SECONDS)
    check(f"{io}: no errors", errors == 0, text if errors else f"{rate:.0f} requests a second")
    # wrk leaves requests in flight at its end, at most one a connection.
    time.sleep(2.5)
    text, kind, _ = fetch(status)
    families = list(read.text_string_to_metric_families(text))
    check(f"{io}: the parser of prometheus_client takes it", len(families) > 40, f"{len(families)} families, {kind}")
    exchanges = total(families, "ringway_exchanges_total")
    lines = sum(1 for _ in open(log))
    check(f"{io}: the log has a line for each exchange", exchanges == lines, f"{exchanges:.0f} and {lines}")
    check(f"{io}: and wrk has counted them", 0 <= exchanges - requests <= 64, f"{exchanges:.0f} and {requests}")
    heads = total(families, "ringway_backend_response_head_seconds_count")
    check(f"{io}: each response head has its time", heads == total(families, "ringway_backend_responses_total"), f"{heads:.0f}")
    busy = total(families, "ringway_core_cpu_seconds_total")
    print(f"      {io}: cores were busy for {busy:.2f} s; a scrape under load took {1000 * max(under_load):.1f} ms at most")
    ringway.stop()


def large(directory, io, read):
    status = free_port()
    nginx = Nginx(directory, f"large-{io}")
    names = {f"application-{c}": {"backends": {f"b{b}": f"127.0.{c // 250}.{c % 250 + 1}:{9000 + b}" for b in range(4)}}
             for c in range(1000)}
    ringway = Ringway(directory, io, [f"127.0.0.1:{nginx.port}"], status={"listen": f"127.0.0.1:{status}"})
    ringway.config["clusters"].update(names)
    ringway.write()
    code, said = ringway.ctl("reload")
    check(f"{io}: 1,000 clusters more", code == 0, said.strip().partition("\n")[0])
    load = wrk(ringway.port, SECONDS, 16)
    waits = []
    text = fetch(status)[0]
    scrape = subprocess.Popen([sys.executable, "-c", f"""
import time, urllib.request
until = time.monotonic() + {SECONDS - 1}
while time.monotonic() < until:
    urllib.request.urlopen("http://127.0.0.1:{status}/metrics", timeout=30).read()
"""])
    while scrape.poll() is None:
        waits.append(fetch(status, "/live")[2])
        time.sleep(0.01)
    errors, _, rate, _ = wrk_result(load, SECONDS)
    families = {f.name: f for f in read.text_string_to_metric_families(fetch(status)[0])}
    took = families["ringway_metrics_write_seconds"].samples[0].value
    check(f"{io}: control answers meanwhile", max(waits) < 0.25, f"{1000 * max(waits):.1f} ms at most, {len(waits)} times")
    check(f"{io}: no errors meanwhile", errors == 0, f"{rate:.0f} requests a second")
    check(f"{io}: the text is written in bounded time", took < 2, f"{1000 * took:.0f} ms for {len(text) / 1e6:.1f} MB")
    ringway.stop()


with stand() as directory:
    read = parser(directory)
    for io in DRIVERS:
        counts(directory, io, read)
        large(directory, io, read)
done()
