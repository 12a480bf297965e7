"""What every benchmark shares: the command line, progress, the table on standard output and the JSON file."""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch

from jiio.checks import JiioError
from jiio.outputs.atomic import write_whole
from jiio.outputs.tables import table
from jiio.tasks.frame.files import check_output_file, check_output_folder
from jiio.tasks.frame.machine import versions

Row = dict[str, Any]


class Parser(argparse.ArgumentParser):
    """A mistake is one sentence on standard error and exit code 2."""

    def error(self, message: str) -> NoReturn:
        text = message[:1].upper() + message[1:].rstrip(".")
        self.exit(2, f"{self.prog}: {text}; --help lists the options.\n")


def parser(doc: str | None, *, seeds: int) -> Parser:
    """The options that every benchmark has; ``doc`` is the module's docstring."""
    made = Parser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    made.add_argument("--output", type=Path, help="write all figures to this JSON file")
    made.add_argument("--cache", type=Path, help="folder that keeps trained weights between runs")
    made.add_argument("--data-root", type=Path, help="folder of the data sets (default: JIIO_DATA)")
    made.add_argument("--fast", action="store_true", help="a smaller run, for a first look")
    made.add_argument("--seeds", type=positive, default=seeds, help=f"number of seeds (default {seeds})")
    made.add_argument("--threads", type=positive, default=1, help="threads of torch (default 1)")
    return made


def positive(word: str) -> int:
    """A whole number above zero."""
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above zero, got {word!r}")
    return int(word)


def main(made: Parser, run: Callable[[argparse.Namespace], Row], argv: Sequence[str] | None = None) -> int:
    """Parse, check the outputs before any work, run, write."""
    options = made.parse_args(argv)
    try:
        if options.output is not None:
            check_output_file("--output", options.output)
        if options.cache is not None:
            check_output_folder("--cache", options.cache)
        torch.set_num_threads(options.threads)
        begin = time.perf_counter()
        result = run(options)
        about = {"command": [made.prog, *(sys.argv[1:] if argv is None else argv)], "versions": versions()}
        about |= {"processor": processor(), "wall_seconds": time.perf_counter() - begin}
        if options.output is not None:
            write_whole(options.output, json.dumps(plain(about | result), indent=1).encode() + b"\n")
    except JiioError as error:
        print(f"{made.prog}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{made.prog}: interrupted, nothing written.", file=sys.stderr)
        return 130
    return 0


def kept(folder: Path | None, name: str, make: Callable[[], Any]) -> Any:
    """What ``make`` returns, as JSON gives it back; read from ``folder`` where a run before has left it there."""
    path = None if folder is None else folder / f"{name}.json"
    if path is not None and path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    text = json.dumps(plain(make()))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text.encode())
    return json.loads(text)


def processor() -> str:
    """The name of the processor, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def say(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)


def show(title: str, rows: list[Row]) -> None:
    """A table on standard output."""
    print(f"\n{title}\n")
    print(table([{key: cell(value) for key, value in row.items()} for row in rows]), flush=True)


def cell(value: Any) -> str | float:
    """A figure as it stands in a table; never is said in words."""
    if isinstance(value, float):
        return "never" if math.isinf(value) else "-" if math.isnan(value) else value
    return str(value)


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Median and range over the seeds, in words; "-" where nothing could be measured for some seed."""
    if any(math.isnan(v) for v in values):
        return "-"
    words = ["never" if math.isinf(v) else f"{v:.{digits}g}" for v in sorted(values)]
    middle = statistics.median_low(values)
    text = "never" if math.isinf(middle) else f"{middle:.{digits}g}"
    return text if len(values) == 1 else f"{text} ({words[0]} to {words[-1]})"


def plain(value: Any) -> Any:
    """Ready for JSON: no tensors, and null for what is not a number or never happened."""
    if isinstance(value, torch.Tensor):
        return plain(value.tolist())
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def show_line(name: str, text: str) -> None:
    """One figure below a table."""
    print(f"{name}: {text}", flush=True)
