"""The DEQ transformer against layers: perplexity, memory and cost on text.

JIIO_DATA=DIR python -m benchmarks.language.depths --output depths.json
# about 2 hours; --fast: 5 minutes

perplexity  the same training for all: the equilibrium, its unrolled twins with 4, 8 and 16 layers, a twin with a
            sparse mask per layer, and an explicit transformer with as many parameters
memory      peak of what the allocator holds above the start of a training step of one segment, and bytes that
            autograd keeps for the backward pass; for the equilibrium also after exactly 10 and 60 solver steps
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, say, show, show_line, spread
from benchmarks.trainings import by_steps
from jiio.tasks.frame.load import build
from jiio.tasks.language.config import LanguageConfig
from jiio.tasks.language.depths import SolveConfig
from jiio.tasks.language.model import LanguageModel
from jiio.tasks.language.task import Language

DEPTHS: dict[str, dict[str, Any]] = {
    "equilibrium": {"name": "Equilibrium"},
    "4 layers, tied": {"name": "WeightTied", "options": {"layers": 4}},
    "8 layers, tied": {"name": "WeightTied", "options": {"layers": 8}},
    "16 layers, tied": {"name": "WeightTied", "options": {"layers": 16}},
    "4 layers, tied, half masked": {"name": "WeightTied", "options": {"layers": 4, "sparsity": 0.5}},
    "3 layers, explicit": {"name": "Explicit", "options": {"layers": 3}},
}
FIXED = {"atol": 0.0, "rtol": 1e-12}  # never met: exactly as many solver steps as are allowed


def configuration(options: argparse.Namespace, depth: str, seed: int) -> LanguageConfig:
    """One training."""
    data = {"family": options.family, "unit": options.unit, "vocabulary": 10_000, "batch_size": 8}
    cutoffs = [] if options.unit == "characters" else [1000, 4000]
    values = {
        "seed": seed,
        "steps": options.steps,
        "data": data | {"valid_limit": options.valid},
        "model": {"inner": 512, "memory": 64, "cutoffs": cutoffs},
        "depth": DEPTHS[depth],
        "optimiser": {"rate": 0.004, "warmup": max(1, options.steps // 12), "clip": 0.5},
    }
    return build(LanguageConfig, values)


def perplexity(options: argparse.Namespace, depth: str, seed: int) -> Row:
    """Train, and measure on held-out text."""
    task = Language(configuration(options, depth, seed), data_root=options.data_root)
    model, seconds = by_steps(task)
    begin = time.process_time()
    (row,) = task.evaluate(model)
    named = {key.partition(" per ")[0]: value for key, value in row.items()}
    return {
        "perplexity": named["perplexity"],
        "bits": named["bits"],
        "parameters": sum(p.numel() for p in model.parameters()),
        "training seconds": seconds,
        "measuring seconds": time.process_time() - begin,
    }


def peak(function: Callable[[], object]) -> int:
    """Bytes that the allocator held at most during a call, above what it held before."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        function()

    # What the allocator tells of itself, in the order of time.
    held = highest = 0
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]  # type: ignore[union-attr]
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()  # type: ignore[attr-defined]
        highest = max(highest, held)
    return highest


def kept(model: LanguageModel, forward: Callable[[], torch.Tensor]) -> int:
    """Bytes that the graph of a forward pass holds on to, the weights aside, which are there in any case."""
    found: dict[int, int] = {}

    # By the address of the storage: views are counted once.
    def keep(t: torch.Tensor) -> torch.Tensor:
        found[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        state = forward()
    assert state.requires_grad
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    return sum(size for place, size in found.items() if place not in own)


def memory(options: argparse.Namespace, depth: str, solve: dict[str, Any] | None = None) -> Row:
    """Of a depth; solve: other settings of its solver."""
    given = vars(configuration(options, depth, 0)) | {"solve": build(SolveConfig, solve or {})}
    return of_a_step(Language(build(LanguageConfig, given), data_root=options.data_root))


def of_a_step(task: Language) -> Row:
    """Memory of one training step on one segment after a memory, without the Jacobian penalty."""
    torch.manual_seed(0)
    model = task.model().train()
    assert isinstance(model, LanguageModel)
    piece = task.tokens[: 8 * 129].clone().view(8, 129)  # not a view of the whole text, which autograd would keep
    with torch.no_grad():
        before = model.read(piece[:, :64], None).memory

    def step() -> None:
        segment = model.read(piece[:, 64:128], before)
        model.body.tokens.surprise(segment.state, piece[:, 65:129]).mean().backward()
        model.zero_grad()

    step()  # the first one makes what stays: gradients, buffers of the libraries
    highest = peak(step)
    graph = kept(model, lambda: model.read(piece[:, 64:128], before).state)
    return {"peak MB": highest / 1e6, "kept by autograd MB": graph / 1e6}


def run(options: argparse.Namespace, rows: Rows) -> None:
    """The memory of every depth; then the perplexities, seed by seed, until the time is up."""
    memories = {depth: rows.each(f"memory/{depth}", memory, options, depth) for depth in DEPTHS}
    # How many solver steps the equilibrium takes should not matter to its memory.
    by_length = {}
    for n in (10, 60):
        solve = FIXED | {"max_steps": n}
        by_length[n] = rows.each(f"memory/equilibrium, {n} steps", memory, options, "equilibrium", solve)

    found: dict[str, list[Row]] = {depth: [] for depth in DEPTHS}
    for seed in range(options.seeds):
        for depth, mine in found.items():
            key = f"perplexity/{depth}/{seed}"
            if rows.late(key, options.minutes):
                say(f"The time is used up before {key}; the same command goes on.")
            else:
                mine.append(rows.each(key, perplexity, options, depth, seed))

    lines = [line(depth, mine, memories[depth]) for depth, mine in found.items()]
    show("Perplexity per token: median (lowest to highest seed); memory of a step on one segment", lines)
    for key in by_length[10]:
        show_line(f"{key}, 60 solver steps over 10", f"{by_length[60][key] / by_length[10][key]:.3f}")


def line(depth: str, mine: list[Row], held: Row) -> Row:
    """One depth, over its seeds."""
    found: Row = {"depth": depth, "seeds": len(mine)}
    if mine:
        found["parameters"] = str(mine[0]["parameters"])
        for key in ("perplexity", "bits", "training seconds", "measuring seconds"):
            found[key] = spread([row[key] for row in mine], 4)
    return found | {key: f"{value:.2f}" for key, value in held.items()}


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=3, fast={"seeds": 1, "steps": 20, "valid": 2000})
    made.add_argument("--family", default="ptb", help="the text (default ptb)")
    made.add_argument("--unit", default="characters", choices=("characters", "words"), help="default characters")
    made.number("--steps", 250, "training steps")
    made.number("--valid", 20_000, "validation tokens")
    made.minutes()
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
