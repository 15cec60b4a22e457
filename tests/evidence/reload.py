#!/usr/bin/env python3
"""100 SIGHUPs under load, each with a changed file, every tenth a bad one: 0 errors."""
import signal
import time

from stand import DRIVERS, Nginx, Ringway, check, done, stand, wrk, wrk_result

SECONDS = 20
for io in DRIVERS:
    with stand() as place:
        a, b = Nginx(place, "reload-a"), Nginx(place, "reload-b")
        ringway = Ringway(place, io, [f"127.0.0.1:{a.port}", f"127.0.0.1:{b.port}"])
        run = wrk(ringway.port, SECONDS)
        time.sleep(1)
        for i in range(100):
            if i % 10 == 9:
                ringway.file.write_text("{ not json")
            else:
                ringway.config["routes"] = {"*": "app", f"extra-{i}.example.io": "app"}
                ringway.config["clusters"]["app"]["backends"] = (
                    {"b1": f"127.0.0.1:{a.port}", "b2": f"127.0.0.1:{b.port}"} if i % 2 else {"b2": f"127.0.0.1:{b.port}"})
                ringway.write()
            ringway.child.send_signal(signal.SIGHUP)
            time.sleep(0.15)
        errors, requests, rate, text = wrk_result(run, SECONDS)
        check(f"{io}: 100 SIGHUPs under wrk -c64: 0 errors", errors == 0 and requests > 0, f"{requests} requests, {rate:.0f}/s, {errors} errors")
        ringway.stop()
done()
