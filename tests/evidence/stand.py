"""The test stand: starts Ringway and the real servers behind it, ends exactly what it started.

Standard library only. Everything listens on 127.0.0.0/8. Environment: RINGWAY (binary), IO (uring or epoll; default both).
"""
import contextlib
import json
import os
import pathlib
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("RINGWAY", str(ROOT / "target" / "release" / "ringway"))
DRIVERS = os.environ.get("IO", "uring epoll").split()
children, failures = [], []


def need(program, package):
    """Installs a Debian package unless its program is there."""
    if shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin"):
        return
    sudo = [] if os.getuid() == 0 else ["sudo"]
    subprocess.run([*sudo, "apt-get", "install", "-qq", "-y", "--no-install-recommends", package], check=True)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


def spawn(command, **options):
    options.setdefault("stdin", subprocess.DEVNULL)
    child = subprocess.Popen(command, **options)
    children.append(child)
    return child


def end(child, with_signal=signal.SIGTERM, patience=15):
    """Ends one child; gives how it ended."""
    if child.poll() is None:
        child.send_signal(signal.SIGCONT)
        child.send_signal(with_signal)
        try:
            child.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    return child.returncode


@contextlib.contextmanager
def stand():
    """A directory for the run; at its end every child is gone."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    directory = pathlib.Path(tempfile.mkdtemp(prefix="ringway-evidence-"))
    try:
        yield directory
    finally:
        for child in reversed(children):
            end(child, signal.SIGKILL if child.args[0] == "wrk" else signal.SIGTERM, 5)
        children.clear()
        shutil.rmtree(directory, ignore_errors=True)


def wait_port(port, what, patience=10):
    until = time.monotonic() + patience
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > until:
                sys.exit(f"{what} does not listen on {port}")
            time.sleep(0.02)


class Ringway:
    """A running proxy. `cluster` is the policy of its one cluster, `more` goes into the file as it is."""

    def __init__(self, directory, io, backends, cluster=None, **more):
        self.port, self.directory = free_port(), directory
        self.file = directory / f"ringway-{self.port}.json"
        self.errors = directory / f"ringway-{self.port}.stderr"
        self.socket = directory / f"ringway-{self.port}.sock"
        self.config = {
            "listeners": {"main": f"127.0.0.1:{self.port}"},
            "clusters": {"app": {"backends": {f"b{i + 1}": b for i, b in enumerate(backends)}, **(cluster or {})}},
            "routes": {"*": "app"}, "io": io, "control": {"socket": str(self.socket)}, **more,
        }
        self.write()
        self.child = spawn([BINARY, "run", "--config", str(self.file)], stdout=subprocess.DEVNULL,
                           stderr=open(self.errors, "wb"))
        wait_port(self.port, "ringway")

    def write(self):
        self.file.write_text(json.dumps(self.config))

    def ctl(self, *words):
        out = subprocess.run([BINARY, "ctl", "--socket", str(self.socket), *words], capture_output=True, text=True, timeout=20)
        return out.returncode, out.stdout + out.stderr

    def state(self, backend):
        code, text = self.ctl("status", "--json")
        if code != 0:
            return f"unknown: {text}"
        found = json.loads(text)["clusters"]
        for name in ("app", "backends", backend):
            found = found[name] if isinstance(found, dict) and name in found else found
            if isinstance(found, list):
                found = next(x for x in found if name in (x.get("name"), x.get("id")))
            elif isinstance(found, dict) and name == "app" and "backends" not in found:
                found = found[name]
        return found["state"]

    def kib(self, name):
        for line in open(f"/proc/{self.child.pid}/status"):
            if line.startswith(name + ":"):
                return int(line.split()[1])

    def workers(self):
        """What `ctl workers` says, all cores together; of the longest turn, the longest."""
        found = json.loads(self.ctl("status", "--json")[1])["workers"]
        return {name: (max if name == "longest_turn_us" else sum)(w[name] for w in found) for name in found[0]}

    def open_files(self):
        return len(os.listdir(f"/proc/{self.child.pid}/fd"))

    def cpu_seconds(self):
        fields = open(f"/proc/{self.child.pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        code = end(self.child, patience=40)
        said = self.errors.read_text(errors="replace")
        check("no panic in stderr", "panicked" not in said, said[-500:] if "panicked" in said else "")
        return code


class Nginx:
    """One nginx with two workers in the foreground, in a process group of its own."""

    def __init__(self, directory, name, port=None, extra=""):
        need("nginx", "nginx-light")
        self.port = port or free_port()
        home = directory / name
        home.mkdir(exist_ok=True)
        file = home / "nginx.conf"
        file.write_text(f"""
            daemon off; worker_processes 2; pid {home}/pid; error_log {home}/error.log;
            events {{ worker_connections 4096; }}
            http {{
                access_log off; keepalive_requests 1000000; client_max_body_size 0;
                client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/fcgi;
                uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
                server {{
                    listen 127.0.0.1:{self.port} reuseport backlog=4096;
                    location / {{ return 200 "{name}\\n"; }}
                    {extra}
                }}
            }}""")
        program = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
        self.child = spawn([program, "-c", str(file), "-p", str(home), "-e", str(home / "error.log")],
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        wait_port(self.port, name)

    def pids(self):
        """Master and workers, by their parent."""
        mine = [self.child.pid]
        for entry in pathlib.Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                stat = (entry / "stat").read_text() if entry.name.isdigit() else ""
                if stat and int(stat.rsplit(")", 1)[1].split()[1]) == self.child.pid:
                    mine.append(int(entry.name))
        return mine

    def signal(self, what):
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, what)
        if what == signal.SIGKILL:
            self.child.wait()


def wrk(port, seconds, connections=64, path="/"):
    need("wrk", "wrk")
    return spawn(["wrk", "-t2", f"-c{connections}", f"-d{seconds}", "--timeout", "10s", f"http://127.0.0.1:{port}{path}"],
                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wrk_result(child, seconds):
    """(errors, requests, requests per second, text)"""
    text = child.communicate(timeout=seconds + 30)[0]
    errors, requests, rate = 0, 0, 0.0
    for line in text.splitlines():
        words = line.replace(",", " ").split()
        if line.strip().startswith("Socket errors"):
            errors += sum(int(w) for w in words if w.isdigit())
        elif "Non-2xx" in line:
            errors += int(words[-1])
        elif " requests in " in line:
            requests = int(words[0])
        elif line.startswith("Requests/sec"):
            rate = float(words[-1])
    return errors, requests, rate, text


def pace_tool(directory):
    """The path of `pace`, compiled for this run."""
    tool = directory / "pace"
    source = pathlib.Path(__file__).with_name("pace.rs")
    subprocess.run(["rustc", "--edition", "2024", "-O", "-o", str(tool), str(source)], check=True)
    return tool


def check(what, good, figure=""):
    """Prints one line and remembers a failure."""
    print(f"{'PASS' if good else 'FAIL'}  {what}{': ' if figure != '' else ''}{figure}", flush=True)
    if not good:
        failures.append(what)


def done():
    if failures:
        sys.exit(f"{len(failures)} failed: " + "; ".join(failures))
    print("all passed")
