"""Which deliberate faults do the tests notice?

Each fault of a list (`FAULTS` in a module beside this one) is written into a copy of the repository, the tests that it
names are run there until one fails, and the copy is mended again. The repository itself is not touched.

    python -m benchmarks.mutants.runner attacks
    python -m benchmarks.mutants.runner attacks --only APGD

Half a minute each, an hour for a list on one core.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.mutants.faults import Fault

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("jiio", "attacks", "tasks", "src", "tests", "docs", "benchmarks", "pyproject.toml", "README.md")
LISTS = ("attacks", "engine")
KILLED, SURVIVED, MISSING = "killed", "SURVIVED", "MISSING"
BROKEN = 3  # pytest's codes from here on say that the tests themselves could not be run


def copied(place: Path) -> Path:
    """The parts of the repository that tests need, in ``place``."""
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    for part in PARTS:
        source, target = ROOT / part, place / part
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True, ignore=ignored)
        elif source.exists():
            shutil.copy2(source, target)
    return place


def fails(place: Path, test: str) -> bool:
    """Whether the test fails in ``place``, asked in a process of its own that has torch loaded already."""
    child = os.fork()
    if child == 0:
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        os.chdir(place)
        sys.path[:] = [str(place / "src"), str(place / "tests"), *(p for p in sys.path if p not in ("", str(ROOT)))]
        quiet = ["-q", "-x", "-p", "no:cacheprovider", "-W", "default::pytest.PytestAssertRewriteWarning"]
        plain = ["-o", "addopts=", "--import-mode=importlib"]  # one process, every test of the file
        os._exit(int(importlib.import_module("pytest").main([*quiet, *plain, test])))

    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code >= BROKEN:
        raise SystemExit(f"{test} cannot be run (pytest ended with {code}).")
    return code != 0


def verdict(place: Path, fault: Fault) -> tuple[str, str]:
    """Killed, by which test; or survived; or missing, where the code has changed since the list was written."""
    path = place / fault.file
    text = path.read_text(encoding="utf-8")
    if fault.old not in text:
        return MISSING, ""

    path.write_text(text.replace(fault.old, fault.new, 1), encoding="utf-8")
    try:
        for test in fault.tests:
            if fails(place, test):
                return KILLED, test
    finally:
        path.write_text(text, encoding="utf-8")
    return SURVIVED, ""


def run(faults: Sequence[Fault]) -> int:
    """A line per fault and the count at the end; the exit code is 1 where one survived or is missing."""
    counts = {KILLED: 0, SURVIVED: 0, MISSING: 0}
    with tempfile.TemporaryDirectory() as name:
        place = copied(Path(name))
        for fault in faults:
            begin = time.monotonic()
            word, by = verdict(place, fault)
            counts[word] += 1
            spent = f"{time.monotonic() - begin:4.0f} s"
            print(f"{word:9s}{spent}  {fault.file:36s} {fault.what}{f'  ({by})' if by else ''}", flush=True)

    print(f"{counts[KILLED]} of {len(faults)} killed, {counts[SURVIVED]} survived, {counts[MISSING]} missing")
    return int(counts[KILLED] < len(faults))


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.mutants.runner",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("list", choices=LISTS, help="a module beside this one that has FAULTS")
    parser.add_argument("--only", nargs="+", default=[""], help="faults whose words or file contain one of these")
    options = parser.parse_args(argv)

    faults = importlib.import_module(f"benchmarks.mutants.{options.list}").FAULTS
    for package in ("torch", "numpy", "pytest", "hypothesis"):  # once, for all the processes to come
        importlib.import_module(package)
    importlib.import_module("torch").set_num_threads(1)
    return run([f for f in faults if any(word in f"{f.what} {f.file}" for word in options.only)])


if __name__ == "__main__":
    sys.exit(command())
