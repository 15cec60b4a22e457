"""A load client that tells methods apart: threads of keep-alive connections, each answer checked."""
import collections
import http.client
import random
import threading
import time


class Load:
    """`methods` are taken in turn; `pause()` gives seconds between two requests of one connection."""

    def __init__(self, port, threads=8, methods=("GET", "GET", "GET", "POST"), pause=lambda: 0, path="/"):
        self.port, self.methods, self.pause, self.path = port, methods, pause, path
        self.good, self.bad = collections.Counter(), collections.Counter()
        self.stopped, self.lock = threading.Event(), threading.Lock()
        self.threads = [threading.Thread(target=self.work, args=(i,), daemon=True) for i in range(threads)]
        for thread in self.threads:
            thread.start()

    def work(self, seed):
        randomness = random.Random(seed)
        connection = None
        while not self.stopped.is_set():
            method = randomness.choice(self.methods)
            try:
                if connection is None:
                    connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=40)
                connection.request(method, self.path, body=b"data" if method == "POST" else None)
                response = connection.getresponse()
                response.read()
                result = response.status
                if response.will_close:
                    connection.close()
                    connection = None
            except (OSError, http.client.HTTPException) as fault:
                result = type(fault).__name__
                connection.close()
                connection = None
            with self.lock:
                (self.good if result == 200 else self.bad)[method if result == 200 else f"{method} {result}"] += 1
            wait = self.pause()
            if wait:
                self.stopped.wait(wait)

    def stop(self):
        self.stopped.set()
        until = time.monotonic() + 45
        for thread in self.threads:
            thread.join(max(0.1, until - time.monotonic()))
        return self

    def failed(self, method):
        return sum(n for what, n in self.bad.items() if what.startswith(method + " "))

    def figures(self):
        return f"good {dict(self.good)}, bad {dict(self.bad)}"
