"""The stand: starts the origin and one proxy at a time, each on its CPU, and ends exactly what it started."""
import dataclasses
import http.client
import os
import pathlib
import random
import shutil
import signal
import socket
import string
import subprocess
import tempfile
import time

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

    process: subprocess.Popen
    port: int

    def cpu_seconds(self) -> float:
        """User and system time that the process tree has had so far."""
        ticks = 0
        for pid in tree(self.process.pid):
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / TICKS

    def rss_kib(self) -> int:
        """Resident memory of the process tree; pages that processes share count in each."""
        status = [pathlib.Path(f"/proc/{pid}/status").read_text() for pid in tree(self.process.pid)]
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


class Stand:
    """A directory of its own with the origin in it; a context manager, at whose end nothing is left."""

    def __init__(self) -> None:
        cpus = sorted(os.sched_getaffinity(0))
        # Two CPUs: the proxy on one, load and origin on the other. More: each on its own. One: nothing is pinned.
        self.proxy_cpu, self.origin_cpu, self.load_cpu = cpus[0], cpus[1 % len(cpus)], cpus[min(2, len(cpus) - 1)]
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="ringway-compare-"))
        self.children: list[subprocess.Popen] = []
        random.seed(1)
        self.bodies = {path: "".join(random.choices(string.ascii_letters, k=size)).encode() for path, size in SIZES.items()}
        (self.dir / "files").mkdir()
        for path, body in self.bodies.items():
            (self.dir / "files" / path[1:]).write_bytes(body)
        self.origin_ports = free_ports(2)

    def __enter__(self) -> "Stand":
        return self

    def __exit__(self, *_: object) -> None:
        for child in reversed(self.children):
            self.end(child)
        shutil.rmtree(self.dir, ignore_errors=True)

    def pin(self, cpu: int) -> list[str]:
        """What comes before a command so that it runs on this CPU only."""
        return [] if self.proxy_cpu == self.load_cpu else ["taskset", "-c", str(cpu)]

    def spawn(self, command: list[str], cpu: int, **options: object) -> subprocess.Popen:
        """Starts a child in a session of its own, so that Ctrl-C ends it through `end` only."""
        child = subprocess.Popen([*self.pin(cpu), *command], stdin=subprocess.DEVNULL, start_new_session=True, **options)
        self.children.append(child)
        return child

    def end(self, child: subprocess.Popen) -> None:
        """Ends a child and all below it: politely, and after two seconds by force."""
        pids = tree(child.pid) if child.poll() is None else []
        if pids:
            child.terminate()
            try:
                child.wait(timeout=2)
            except subprocess.TimeoutExpired:
                for pid in pids:
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        pass
                child.wait()
        self.children.remove(child)

    def serve(self, name: str, program: str, arguments: list[str], environment: dict[str, str], cpu: int, port: int) -> Server:
        """Starts a server with its config files filled in; returns once it answers."""
        values = {"DIR": str(self.dir), "PORT": str(port), "SMALL": self.bodies["/small"].decode(),
                  "ORIGIN_1": str(self.origin_ports[0]), "ORIGIN_2": str(self.origin_ports[1])}

        def filled(text: str) -> str:
            for key, value in values.items():
                text = text.replace(f"@{key}@", value)
            return text

        for template in CONFIGS.iterdir():
            (self.dir / template.name).write_text(filled(template.read_text()))
        home = dict.fromkeys(("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"), str(self.dir))
        said = self.dir / f"{name}.out"
        with said.open("wb") as out:
            child = self.spawn([program, *map(filled, arguments)], cpu, cwd=self.dir, env=os.environ | home | environment, stdout=out, stderr=out)
        until = time.monotonic() + 20
        while True:
            try:
                fetch(port, "GET", "/small")
                return Server(child, port)
            except Fails as error:
                if child.poll() is not None or time.monotonic() > until:
                    self.end(child)
                    last = (said.read_text(errors="replace").strip().splitlines() or [str(error)])[-1]
                    raise Fails(f"does not start: {last[:200]}") from error
            time.sleep(0.02)

    def origin(self, nginx: str) -> Server:
        """Starts the origin; it listens on both of its ports."""
        arguments = ["-p", "@DIR@", "-e", "@DIR@/origin.log", "-c", "@DIR@/origin.conf"]
        return self.serve("origin", nginx, arguments, {}, self.origin_cpu, self.origin_ports[0])

    def proxy(self, name: str, program: str) -> Server:
        """Starts a proxy before the origin."""
        return self.serve(name, program, *PEERS[name], self.proxy_cpu, free_ports(1)[0])

    def verify(self, port: int) -> None:
        """Raises Fails unless every byte of every answer, and of an upload, comes through."""
        for path, body in self.bodies.items():
            if fetch(port, "GET", path) != body:
                raise Fails(f"GET {path}: other bytes than the origin's")
        upload, kept = random.randbytes(UPLOAD_BYTES), self.dir / "kept"
        for path in ("/upload", "/keep"):
            if fetch(port, "POST", path, upload) != self.bodies["/small"]:
                raise Fails(f"POST {path}: other bytes than the origin's")
        files = [file for file in kept.rglob("*") if file.is_file()]
        if [file.read_bytes() for file in files] != [upload]:
            raise Fails("POST /keep: the upload came through changed")
        for file in files:
            file.unlink()
