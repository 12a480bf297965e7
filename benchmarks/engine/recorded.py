"""What does a recorded joint step cost on this machine, beside the eager one and beside what no step can avoid?

    python -m benchmarks.engine.recorded --output recorded.json
    # about 4 minutes, most of it compiling; --fast: 1, the dense cell alone

``bare`` is one evaluation of cell and objective and one reverse pass. ``eager`` is the step of ``jiio.solve`` with a
full memory, ``traced`` the same step recorded and replayed operation by operation, ``fused`` after ``torch.compile``.
Timed in turn, as the difference of a long and a short solve; medians over rounds. On a GPU the step is one launch: for
that see ``benchmarks.gpu``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

import jiio
from benchmarks.engine.overhead import NEVER, Case, attack, bare, fit, size
from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, show, spread
from jiio.models import DenseConfig
from jiio.recording import TracedRecorder, forget_records, recorded_steps
from jiio.recording.store import STORE

SHORT, LONG = 14, 34
CASES: dict[str, Callable[[torch.Generator], Case]] = {
    "dense 96, latent fit": lambda draw: fit("dense", DenseConfig(96), (1, 24, 24), 32, draw),
    "tiny 1x28x28, attack": lambda draw: attack("tiny", "tiny", (1, 28, 28), 16, draw),
}


def solving(at: Case, steps: int, recorder: TracedRecorder | None) -> Callable[[], object]:
    """A solve of so many steps, eager or by records."""
    how: dict[str, Any] = {"tolerance": NEVER, "adjoint": jiio.Detached(), "on_failure": "ignore"}

    def solve() -> object:
        with recorded_steps("never" if recorder is None else "always", recorder=recorder):
            return jiio.solve(at.problem, at.x0, max_steps=steps, **how)

    return solve


def spent(work: Callable[[], object]) -> float:
    """Milliseconds of processor time."""
    begin = time.process_time()
    work()
    return 1e3 * (time.process_time() - begin)


def measure(name: str, rounds: int) -> Row:
    """Medians (ms), and ratios to the bare step of every round."""
    at = CASES[name](torch.Generator().manual_seed(0))
    kinds = {"eager": None, "traced": TracedRecorder(), "fused": TracedRecorder(fused=True)}
    row: Row = {"batch": len(at.x0), "size of v": size(at)}
    for kind, recorder in kinds.items():  # warm up: records are made here
        row[f"{kind}, first solve s"] = spent(solving(at, SHORT, recorder)) / 1e3
    assert len(STORE.records) == 2, STORE.refused

    # In turn, so that whatever else the machine does weighs on all.
    taken: dict[str, list[float]] = {kind: [] for kind in ("bare", *kinds)}
    for _ in range(rounds):
        taken["bare"].append(1e3 * statistics.median(bare(at, time.process_time, 10)))
        for kind, recorder in kinds.items():
            taken[kind].append(
                (spent(solving(at, LONG, recorder)) - spent(solving(at, SHORT, recorder))) / (LONG - SHORT)
            )
    forget_records()

    row |= {f"{kind} ms": statistics.median(values) for kind, values in taken.items()}
    for kind in kinds:
        row[f"{kind} / bare"] = spread([a / b for a, b in zip(taken[kind], taken["bare"], strict=True)])
    return row


def run(options: argparse.Namespace, rows: Rows) -> Row:
    """Every case."""
    names = list(CASES)[: 1 if options.fast else None]
    found = [{"problem": name, **rows.each(name, measure, name, options.rounds)} for name in names]
    show(f"A joint step with a full memory, {torch.get_num_threads()} thread(s), processor time", found)
    return {}


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=1, fast={"rounds": 5})
    made.number("--rounds", 7, "rounds")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
