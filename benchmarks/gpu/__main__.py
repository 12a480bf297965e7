"""Does everything work on a GPU, what does it cost there, and does it learn?

    python -m benchmarks.gpu --budget 600 --output gpu
    # about 10 minutes on one GPU; --device cpu --fast: about 6 on one CPU core, to rehearse it

First it checks (the engine against float64 on the CPU, recorded steps against eager ones, every recipe for 20 steps,
every command), then it measures (a joint step, eager and as one launch, beside ``f + VJP`` as a graph; a forward and a
backward pass beside torchdeq, where it is installed, at equal true residual; the default tolerance on every preset;
memory; autocast; a training step of the prior; what torch.compile adds), then it trains. A row is written as soon as it
is there; nothing new begins after --budget seconds, and the same command goes on where it stopped. Exit code 1 where a
row failed; a figure that misses its aim is no failure, and says so.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu.checks import checks
from benchmarks.gpu.courses import courses
from benchmarks.gpu.measures import measures
from benchmarks.gpu.stages import BAD, LATER, Setting, Work, carried_out
from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, show, show_line
from jiio.tasks.frame.files import check_output_folder
from jiio.tasks.frame.machine import check_device

FIGURES = "figures.json"


def stages() -> dict[str, dict[str, Work]]:
    """What is done, in this order."""
    return {"check": checks(), "measure": measures(), "train": courses()}


def shown(row: Row) -> Row:
    """A row of the table: what it is, how it ended, its figures in words."""
    figures = {k: v for k, v in row.items() if k not in ("stage", "what", "verdict", "seconds")}
    words = ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in figures.items())
    return {"stage": row["stage"], "what": row["what"], "verdict": row["verdict"], "figures": words}


def card(device: str) -> str:
    """The name of the device."""
    import torch

    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def run(options: argparse.Namespace, rows: Rows) -> Row:
    """All stages, within the budget."""
    setting = Setting(check_device(options.device), options.fast, options.folder)
    found = carried_out(stages(), setting, rows, options.budget)
    show(f"On {card(str(setting.device))}", [shown(row) for row in found])

    verdicts = [row["verdict"] for row in found]
    show_line("failed", str(verdicts.count(BAD)))
    show_line("left for the next run", str(verdicts.count(LATER)))
    options.failed = BAD in verdicts
    return {"device": card(str(setting.device)), "failed": options.failed}


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    words = list(sys.argv[1:] if argv is None else argv)
    made = Parser(__doc__, __file__, seeds=1)
    made.set_defaults(output=Path("gpu"), failed=False)
    made.seconds("--budget", 600.0, "begin nothing new after so many seconds")
    made.add_argument("--device", default="auto", help="cuda, cuda:1, cpu or auto (default auto)")
    made.free |= {"budget", "failed", "folder"}
    failed = []

    def in_folder(options: argparse.Namespace, rows: Rows) -> Row:
        options.folder = options.output.parent / "runs"
        row = run(options, rows)
        failed.append(options.failed)
        return row

    code = main(made, in_folder, placed(words))
    return code or int(any(failed))


def placed(words: list[str]) -> list[str]:
    """The words, in which --output names the file of figures in the folder that was meant."""
    if "--help" in words or "-h" in words:
        return words
    at = words.index("--output") + 1 if "--output" in words else None
    folder = Path("gpu") if at is None or at >= len(words) else Path(words[at])
    check_output_folder("--output", folder)
    folder.mkdir(parents=True, exist_ok=True)
    rest = words if at is None else words[: at - 1] + words[at + 1 :]
    return [*rest, "--output", str(folder / FIGURES)]


if __name__ == "__main__":
    sys.exit(command())
