#!/usr/bin/env python3
"""Which regions and lines of the data path the simulation reaches.

    tests/sim/coverage.py [--seeds N] [--missed]

Builds the simulation with coverage counters (LLVM's tools come with `rustup component add llvm-tools`), runs it, and prints
a row for each file; with --missed also the lines that no seed has reached.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILES = [
    "worker/session.rs", "worker/attempt.rs", "worker/relay.rs", "worker/search.rs", "worker/queue.rs", "worker/idle.rs",
    "worker/splice.rs", "worker/pool.rs", "worker/deadlines.rs", "worker/clusters.rs", "worker/accept.rs", "exchange.rs",
]


def tools():
    sysroot = subprocess.run(["rustc", "--print", "sysroot"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    found = list(pathlib.Path(sysroot).glob("lib/rustlib/*/bin/llvm-cov"))
    if not found:
        sys.exit("no llvm-cov: rustup component add llvm-tools")
    return found[0], found[0].with_name("llvm-profdata")


def build(target):
    env = dict(os.environ, CARGO_TARGET_DIR=str(target), RUSTFLAGS="-C instrument-coverage -A warnings")
    command = ["cargo", "test", "--quiet", "--test", "sim", "--no-run", "--message-format=json"]
    done = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, check=True)
    return re.findall(r'"executable":"([^"]+/sim-[^"]+)"', done.stdout)[-1]


def product(path):
    """The number of lines before a file's own tests."""
    lines = (ROOT / "src" / path).read_text().splitlines()
    return next((at for at, line in enumerate(lines) if line.startswith("#[cfg(test)]")), len(lines))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=1024)
    parser.add_argument("--missed", action="store_true")
    parser.add_argument("--binary", help="one that is built already")
    asked = parser.parse_args()
    cov, profdata = tools()
    target = ROOT / "target" / "coverage"
    target.mkdir(parents=True, exist_ok=True)
    binary = asked.binary or build(target)
    raw, merged = target / "sim.profraw", target / "sim.profdata"
    env = dict(os.environ, SEEDS=str(asked.seeds), LLVM_PROFILE_FILE=str(raw))
    subprocess.run([binary], env=env, stdout=subprocess.DEVNULL, check=True)
    subprocess.run([profdata, "merge", "-sparse", raw, "-o", merged], check=True)
    export = [cov, "export", binary, f"-instr-profile={merged}", "-skip-expansions"]
    data = json.loads(subprocess.run(export, stdout=subprocess.PIPE, text=True, check=True).stdout)["data"][0]
    regions = {file: {} for file in FILES}
    for function in data["functions"]:
        for begin, first, end, last, count, file, _, kind in function["regions"]:
            name = next((f for f in FILES if ("/" + function["filenames"][file]).endswith("/src/" + f)), None)
            # Of a generic function each instance counts: a region is reached if any of them has reached it.
            if name and kind == 0 and begin <= product(name):
                known = regions[name]
                known[begin, first, end, last] = known.get((begin, first, end, last), 0) + count
    print(f"{'file':<22} {'regions':>8} {'reached':>8}")
    for name, known in regions.items():
        reached = sum(1 for count in known.values() if count)
        print(f"{name:<22} {len(known):>8} {reached:>8} {100 * reached / max(len(known), 1):>7.1f} %")
        if asked.missed:
            text = (ROOT / "src" / name).read_text().splitlines()
            for (begin, first, end, last), count in sorted(known.items()):
                if not count:
                    print(f"    {begin}:{first}-{end}:{last}  {text[begin - 1].strip()[:100]}")


if __name__ == "__main__":
    main()
