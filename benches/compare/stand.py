"""The stand: starts the origin and one proxy at a time, each on its CPU, and ends exactly what it started."""
import contextlib
import dataclasses
import http.client
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import socket
import string
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import Any

CONFIGS = pathlib.Path(__file__).with_name("configs")
TICKS = os.sysconf("SC_CLK_TCK")
UPLOAD_BYTES = 1 << 20
SIZES = {"/small": 128, "/16k": 16 << 10, "/256k": 256 << 10, "/4m": 4 << 20}
# Arguments after the program, and what is set in its environment. GOMAXPROCS is what makes one worker of a Go program. Left
# to itself, glibc gives nginx's buffers of large bodies back to the kernel at each request or never, as the heap happens to lie.
PEERS: dict[str, tuple[list[str], dict[str, str]]] = {
    "ringway": (["run", "--config", "@DIR@/ringway.json"], {}),
    "nginx": (["-p", "@DIR@", "-e", "@DIR@/nginx.log", "-c", "@DIR@/nginx.conf"],
              {"MALLOC_TRIM_THRESHOLD_": "1000000000", "MALLOC_TOP_PAD_": "67108864"}),
    "haproxy": (["-db", "-f", "@DIR@/haproxy.cfg"], {}),
    "envoy": (["-c", "@DIR@/envoy.yaml", "--concurrency", "1", "--disable-hot-restart", "--log-level", "critical"], {}),
    "traefik": (["--configFile=@DIR@/traefik.yml"], {"GOMAXPROCS": "1"}),
    "caddy": (["run", "--config", "@DIR@/Caddyfile", "--adapter", "caddyfile"], {"GOMAXPROCS": "1"}),
}


class Fails(Exception):
    """A proxy does not do what it should, and what it does instead."""


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    children: dict[int, list[int]] = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            parent = int(pathlib.Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(entry))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


@dataclasses.dataclass
class Server:
    """A running server."""

    pid: int
    port: int

    def cpu_seconds(self) -> float:
        """User and system time that the process tree has had so far."""
        ticks = 0
        for pid in tree(self.pid):
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            if fields[0] == "Z":
                raise Fails("a process of it has ended")
            ticks += int(fields[11]) + int(fields[12])
        return ticks / TICKS

    def rss_kib(self) -> int:
        """Resident memory of the process tree; pages that processes share count in each."""
        status = [pathlib.Path(f"/proc/{pid}/status").read_text() for pid in tree(self.pid)]
        return sum(int(text.split("VmRSS:")[1].split()[0]) for text in status if "VmRSS:" in text)


def free_ports(n: int) -> list[int]:
    """Ports of loopback that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def fetch(port: int, method: str, path: str, body: bytes | None = None) -> bytes:
    """One exchange; the body of an answer that must be a 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        got = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise Fails(f"{method} {path}: {type(error).__name__} {error}".strip()) from error
    finally:
        connection.close()
    if answer.status != 200:
        raise Fails(f"{method} {path}: status {answer.status}")
    return got


class Stand(contextlib.AbstractContextManager):
    """A directory of its own, and the CPUs. What is started under it is a context manager, too: at its end nothing is left."""

    def __init__(self) -> None:
        cpus = sorted(os.sched_getaffinity(0))
        # Two CPUs: the proxy on one, load and origin on the other. More: each on its own. One: nothing is pinned.
        self.proxy_cpu, self.origin_cpu, self.load_cpu = cpus[0], cpus[1 % len(cpus)], cpus[min(2, len(cpus) - 1)]
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="ringway-compare-"))
        random.seed(1)
        self.bodies = {path: "".join(random.choices(string.ascii_letters, k=size)).encode() for path, size in SIZES.items()}
        (self.dir / "files").mkdir()
        for path, body in self.bodies.items():
            (self.dir / "files" / path[1:]).write_bytes(body)
        self.origin_ports = free_ports(2)
        self.servers: list[Server] = []

    def others_seconds(self) -> float:
        """CPU time so far of the CPUs in use that was neither a running server's nor a finished child's. Only differences tell
        anything: what other programs, and other guests of the same host, have taken meanwhile."""
        cpus = {f"cpu{cpu}" for cpu in (self.proxy_cpu, self.origin_cpu, self.load_cpu)}
        rows = [line.split() for line in pathlib.Path("/proc/stat").read_text().splitlines() if line.split()[0] in cpus]
        busy = sum(int(ticks) for row in rows for ticks in (*row[1:4], *row[6:9])) / TICKS
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return busy - sum(server.cpu_seconds() for server in self.servers) - children.ru_utime - children.ru_stime

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.dir, ignore_errors=True)

    @contextlib.contextmanager
    def child(self, command: list[str], cpu: int, **options: Any) -> Iterator[subprocess.Popen]:
        """A child on one CPU, in a session of its own so that Ctrl-C does not reach it. It and all below it are killed at the
        end: what they leave lies in the stand's directory."""
        pin = ["taskset", "-c", str(cpu)] if self.proxy_cpu != self.load_cpu else []
        child = subprocess.Popen([*pin, *command], stdin=subprocess.DEVNULL, start_new_session=True, **options)
        try:
            yield child
        finally:
            for pid in tree(child.pid) if child.poll() is None else []:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            child.wait()

    @contextlib.contextmanager
    def server(self, name: str, command: list[str], environment: dict[str, str], cpu: int, port: int) -> Iterator[Server]:
        """A server that answers, its config files filled in."""
        values = {"DIR": str(self.dir), "PORT": str(port), "SMALL": self.bodies["/small"].decode(),
                  "ORIGIN_1": str(self.origin_ports[0]), "ORIGIN_2": str(self.origin_ports[1])}

        def filled(text: str) -> str:
            return re.sub("@([A-Z_0-9]+)@", lambda found: values[found[1]], text)

        for template in CONFIGS.iterdir():
            (self.dir / template.name).write_text(filled(template.read_text()))
        environment = os.environ | dict.fromkeys(("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"), str(self.dir)) | environment
        said, until = self.dir / f"{name}.out", time.monotonic() + 20
        with said.open("wb") as out, self.child([*map(filled, command)], cpu, cwd=self.dir, env=environment, stdout=out, stderr=out) as child:
            while True:
                try:
                    fetch(port, "GET", "/small")
                    break
                except Fails as error:
                    if child.poll() is not None or time.monotonic() > until:
                        last = (said.read_text(errors="replace").strip().splitlines() or [str(error)])[-1]
                        raise Fails(f"does not start: {last[:200]}") from error
                time.sleep(0.02)
            self.servers.append(Server(child.pid, port))
            try:
                yield self.servers[-1]
            finally:
                self.servers.pop()

    def origin(self, nginx: str) -> contextlib.AbstractContextManager[Server]:
        """The origin; it listens on both of its ports."""
        command = [nginx, "-p", "@DIR@", "-e", "@DIR@/origin.log", "-c", "@DIR@/origin.conf"]
        return self.server("origin", command, {}, self.origin_cpu, self.origin_ports[0])

    def proxy(self, name: str, program: str) -> contextlib.AbstractContextManager[Server]:
        """A proxy before the origin."""
        arguments, environment = PEERS[name]
        return self.server(name, [program, *arguments], environment, self.proxy_cpu, free_ports(1)[0])

    def verify(self, port: int) -> None:
        """Raises Fails unless every byte of every answer, and of an upload, comes through."""
        for path, body in self.bodies.items():
            if fetch(port, "GET", path) != body:
                raise Fails(f"GET {path}: other bytes than the origin's")
        upload = random.randbytes(UPLOAD_BYTES)
        for path in ("/upload", "/keep"):
            if fetch(port, "POST", path, upload) != self.bodies["/small"]:
                raise Fails(f"POST {path}: other bytes than the origin's")
        kept = list((self.dir / "kept").iterdir())
        if [file.read_bytes() for file in kept] != [upload]:
            raise Fails("POST /keep: the upload came through changed")
        kept[0].unlink()
