"""What every benchmark shares: the command line, what is checked before any work, and the file of figures."""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import torch

from benchmarks.rows import Rows
from benchmarks.tables import PRINTED, Row
from jiio.checks import JiioError
from jiio.tasks.frame.files import check_output_file, check_output_folder
from jiio.tasks.frame.machine import versions

ROOT = Path(__file__).parents[1]


class Parser(argparse.ArgumentParser):
    """The options that every benchmark has. A mistake is one sentence on standard error and exit code 2.

    doc, file: the docstring and ``__file__`` of the script. seeds: how many by default. fast: defaults of ``--fast``,
    from the option's name to its value; what is said on the command line wins over them.
    """

    def __init__(self, doc: str | None, file: str, *, seeds: int, fast: Row | None = None) -> None:
        parts = Path(file).resolve().relative_to(ROOT).with_suffix("").parts
        self.module = ".".join(part for part in parts if not part.startswith("__"))  # a package is run by its name
        raw = argparse.RawDescriptionHelpFormatter
        super().__init__(f"python -m {self.module}", description=doc, formatter_class=raw, allow_abbrev=False)
        self.fast = fast or {}
        # What says where, which or how many changes no figure; everything else is a setting of the rows.
        self.free = {"output", "cache", "data_root", "seeds", "threads"}
        self._shared(seeds)

    def _shared(self, seeds: int) -> None:
        resuming = "all figures, as JSON; a run that was stopped goes on from there"
        self.add_argument("--output", type=Path, help=resuming)
        self.add_argument("--cache", type=Path, help="folder that keeps trained weights between runs")
        self.add_argument("--data-root", type=Path, help="folder of the data sets (default: JIIO_DATA)")
        self.add_argument("--fast", action="store_true", help="a smaller run, for a first look")
        self.add_argument("--seeds", type=positive, default=seeds, help=f"number of seeds (default {seeds})")
        self.add_argument("--threads", type=positive, default=1, help="threads of torch (default 1)")

    def number(self, option: str, default: int, help: str) -> None:
        """A whole number above zero."""
        self.add_argument(option, type=positive, default=default, help=f"{help} (default {default})")

    def seconds(self, option: str, default: float, help: str) -> None:
        """A time, or another number above zero."""
        self.add_argument(option, type=above_zero, default=default, help=f"{help} (default {default:g})")

    def chosen(self, option: str, default: Sequence[str], choices: Sequence[str], help: str) -> None:
        """Some of the rows that could be measured."""
        words = f"{help} (default {' '.join(default)})" if len(default) < len(choices) else f"{help} (default all)"
        made = self.add_argument(option, nargs="+", choices=list(choices), default=list(default), help=words)
        self.free.add(made.dest)

    def minutes(self) -> None:
        """For long benchmarks: end in good time."""
        made = self.add_argument(
            "--minutes", type=above_zero, default=float("inf"), help="begin nothing new after so many"
        )
        self.free.add(made.dest)

    def settings(self, options: argparse.Namespace) -> Row:
        """What the figures depend on."""
        return {"benchmark": self.module} | {k: v for k, v in vars(options).items() if k not in self.free}

    def error(self, message: str) -> NoReturn:
        text = message[:1].upper() + message[1:].rstrip(".")
        self.exit(2, f"{self.prog}: {text}; --help lists the options.\n")


def positive(word: str) -> int:
    """A whole number above zero."""
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above zero, got {word!r}")
    return int(word)


def above_zero(word: str) -> float:
    """A number above zero."""
    try:
        value = float(word)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise argparse.ArgumentTypeError(f"expected a number above zero, got {word!r}")
    return value


Run = Callable[[argparse.Namespace, Rows], Row | None]


def main(made: Parser, run: Run, argv: Sequence[str] | None = None) -> int:
    """Parse, check the outputs before any work, run, write; the exit code.

    run: measures by ``rows.each`` and prints; what it returns goes to the head of the file as well.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    # Before parsing, so that they are defaults only.
    if "--fast" in words:
        made.set_defaults(**made.fast)
    options = made.parse_args(words)

    # Whatever jiio refuses is one sentence and exit code 2, as on its own command line.
    try:
        _measure(made, run, options, words)
    except JiioError as error:
        print(f"{made.prog}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        kept = "nothing is kept without --output" if options.output is None else "the same command goes on"
        print(f"{made.prog}: interrupted; {kept}.", file=sys.stderr)
        return 130
    return 0


def _measure(made: Parser, run: Run, options: argparse.Namespace, words: list[str]) -> None:
    if options.output is not None:
        check_output_file("--output", options.output)
    if options.cache is not None:
        check_output_folder("--cache", options.cache)
    rows = Rows(made.settings(options), options.output)

    torch.set_num_threads(options.threads)
    PRINTED.clear()
    with tempfile.TemporaryDirectory() as passing:
        options.cache = options.cache or Path(passing)  # a training has a folder in any case
        more = run(options, rows)

    about = {"command": [made.prog, *words], "versions": versions(), "processor": processor()}
    ended = {"wall_seconds": time.monotonic() - rows.begin, "printed": list(PRINTED)}
    rows.write(about | ended | (more or {}))


def processor() -> str:
    """The name of the processor, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
