"""The servers of other make: how each is started, and what it says that it has seen.

They write a line of JSON when they see a request and one when they have its body, with the peer's address. Replays come each from a
loopback address of their own, so that the address names the stream. No limit of theirs is below those of Ringway where that can be set:
a refusal shall be one of the grammar.
"""
import collections
import importlib.metadata
import json
import os
import pathlib
import shutil
import subprocess
import sys

from stand import free_port, spawn, wait_port

SERVERS = pathlib.Path(__file__).resolve().parent / "servers"
NAMES = ["node", "gunicorn", "uvicorn-h11", "uvicorn-httptools", "aiohttp", "tornado"]


def command(name, port):
    if name == "node":
        return ["node", str(SERVERS / "node_server.js"), str(port)]
    if name == "gunicorn":
        return [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--worker-class", "gthread", "--threads", "64",
                "--keep-alive", "5", "--limit-request-line", "0", "--limit-request-fields", "32768", "--limit-request-field_size",
                "0", "--log-level", "critical", "wsgi:application"]
    if name.startswith("uvicorn-"):
        http = name.removeprefix("uvicorn-")
        more = ["--h11-max-incomplete-event-size", "262144"] if http == "h11" else []
        return [sys.executable, "-m", "uvicorn", "--host", "127.0.0.1", "--port", str(port), "--http", http, "--ws", "none", "--loop",
                "asyncio", "--lifespan", "off", "--no-proxy-headers", "--no-access-log", "--log-level", "critical", *more,
                "asgi:application"]
    return [sys.executable, str(SERVERS / f"{name}_server.py"), str(port)]


def version(name):
    if name == "node":
        return subprocess.run(["node", "--version"], capture_output=True, text=True).stdout.strip()
    if name.startswith("uvicorn-"):
        parser = name.removeprefix("uvicorn-")
        return f"{importlib.metadata.version('uvicorn')}, {parser} {importlib.metadata.version(parser)}"
    return importlib.metadata.version(name)


class Backend:
    """One running server."""

    def __init__(self, name, directory):
        self.name, self.port = name, free_port()
        self.file = directory / f"{name}.seen"
        self.file.touch()
        self.offset = 0
        environment = {**os.environ, "SEEN": str(self.file), "PYTHONPATH": str(SERVERS), "PYTHONDONTWRITEBYTECODE": "1"}
        self.child = spawn(command(name, self.port), cwd=directory, env=environment, stdout=subprocess.DEVNULL,
                           stderr=open(directory / f"{name}.stderr", "wb"))
        wait_port(self.port, name, 60)

    def seen(self):
        """What was seen since the last call, by the peer's IP address: lists of events."""
        events = collections.defaultdict(list)
        with open(self.file, "rb") as file:
            file.seek(self.offset)
            for line in file:
                event = json.loads(line)
                events[event["peer"].rsplit(":", 1)[0]].append(event)
            self.offset = file.tell()
        return events


def there(name):
    return name != "node" or shutil.which("node") is not None
