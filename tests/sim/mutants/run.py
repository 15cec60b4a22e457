#!/usr/bin/env python3
"""Plants every bug of this directory, one at a time, and shows which seed and which oracle of the simulation finds it.

Each file is one bug: the invariant that it breaks, the source file, a piece of its text with the part that changes between
« and », and what that part becomes. All of them are built into one copy of the tree, each behind a switch that the
environment sets, so that there is one build and not one per bug. The copy with no switch set must pass.

    tests/sim/mutants/run.py [--seeds N] [--jobs N] [NAME...]

Ends with 1 if a bug is not found, or if a piece of text does not occur exactly once.
"""

import argparse
import concurrent.futures
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]

SWITCH = '''//! Bugs on purpose, each behind a switch.
use std::sync::OnceLock;
static ON: OnceLock<usize> = OnceLock::new();
/// Whether this one is planted.
pub fn on(number: usize) -> bool {
    *ON.get_or_init(|| std::env::var("MUTANT").ok().and_then(|n| n.parse().ok()).unwrap_or(0)) == number
}
'''


def read(path):
    """Name, invariant, file, text with marks, replacement."""
    head, rest = path.read_text().split("\n--- ", 1)
    file, rest = rest.split("\n", 1)
    find, becomes = rest.split("\n--- becomes\n", 1)
    return path.stem, head.strip(), file.strip(), find, becomes.rstrip("\n")


def plant(tree, number, mutant):
    name, _, file, find, becomes = mutant
    path = tree / file
    text = path.read_text()
    before, marked, after = re.fullmatch(r"(.*)«(.*)»(.*)", find, re.S).groups()
    plain = before + marked + after
    if text.count(plain) != 1:
        sys.exit(f"{name}: its text occurs {text.count(plain)} times in {file}, and must occur once")
    both = f"if crate::mutants::on({number}) {{ {becomes} }} else {{ {marked} }}"
    if not marked.endswith(";"):
        both = f"({both})"
    path.write_text(text.replace(plain, before + both + after))


def build(tree, target):
    command = ["cargo", "test", "--quiet", "--test", "sim", "--no-run", "--message-format=json"]
    env_command = ["env", f"CARGO_TARGET_DIR={target}", "RUSTFLAGS=-Awarnings", *command]
    done = subprocess.run(env_command, cwd=tree, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        said = (json.loads(line).get("message") or {} for line in done.stdout.splitlines() if line.startswith("{"))
        errors = [message.get("rendered", "") for message in said if message.get("level") == "error"]
        sys.exit("the tree with the planted bugs does not build\n" + "\n".join(errors))
    found = re.findall(r'"executable":"([^"]+/sim-[^"]+)"', done.stdout)
    return found[-1]


def run(binary, number, seeds):
    """The first seed that fails and what it says; None if all pass."""
    command = ["env", f"MUTANT={number}", f"SEEDS={seeds}", "STOP=1", binary, "--exact", "seeds", "--nocapture"]
    begun = time.monotonic()
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900)
        text, code = done.stdout, done.returncode
    except subprocess.TimeoutExpired as late:
        text, code = str(late.stdout), 1
    took = time.monotonic() - begun
    if code == 0:
        return None, took
    found = re.search(r"^seed (\d+): replay.*\n\s+(.*)$", text, re.M)
    return (found.groups() if found else ("?", text[-300:])), took


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=1024)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--target", default=str(ROOT / "target" / "mutants"))
    parser.add_argument("names", nargs="*")
    asked = parser.parse_args()
    mutants = [read(path) for path in sorted(HERE.glob("*.txt"))]
    if asked.names:
        mutants = [mutant for mutant in mutants if mutant[0] in asked.names]
    with tempfile.TemporaryDirectory() as place:
        tree = pathlib.Path(place) / "ringway"
        tree.mkdir()
        for part in ["src", "tests", "benches"]:
            shutil.copytree(ROOT / part, tree / part)
        for file in ["Cargo.toml", "Cargo.lock", "README.md", "config.json"]:
            shutil.copy2(ROOT / file, tree / file)
        for number, mutant in enumerate(mutants, 1):
            plant(tree, number, mutant)
        (tree / "src" / "mutants.rs").write_text(SWITCH)
        library = tree / "src" / "lib.rs"
        library.write_text(library.read_text() + "\npub mod mutants;\n")
        binary = build(tree, asked.target)
    result, took = run(binary, 0, asked.seeds)
    if result:
        sys.exit(f"without any bug, seed {result[0]} fails: {result[1]}")
    print(f"no bug: {asked.seeds} seeds pass in {took:.0f} s", flush=True)
    missed = 0
    with concurrent.futures.ThreadPoolExecutor(asked.jobs) as pool:
        runs = pool.map(lambda n: run(binary, n, asked.seeds), range(1, len(mutants) + 1))
        for (name, invariant, *_), (result, took) in zip(mutants, runs):
            if result is None:
                missed += 1
                print(f"| {name} | {invariant} | NOT FOUND in {asked.seeds} seeds | |", flush=True)
            else:
                seed, said = result
                print(f"| {name} | {invariant} | {seed} | {said.strip()[:160]} |", flush=True)
    print(f"{len(mutants) - missed} of {len(mutants)} planted bugs are found")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
