"""How far does the exact gradient hold: does x* move with a training step as its linearisation says?

    python -m benchmarks.engine.kkt_range --output kkt_range.json      # about 1 minute; --fast: 1 minute

The shipped inpainting decoder (faces of scikit-image, offline), four training images, solved as its recipe has it (40
steps) and to the end (400 steps, tolerance 1e-5). One step of all weights along the sign of the recipe's gradient, as
long as an Adam step at three rates; then the same images again. Figure: how far the movement of x that is foreseen
under a damping is from the true one, relative to it (``jiio.Levenberg``; 1 is as bad as holding x constant).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import torch

import jiio
from benchmarks.engine.kkt_tasks import CONTESTS, Inner
from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, show
from jiio.tasks.frame import checkpoint
from jiio.tasks.frame.shipped import shipped
from jiio.tasks.restore.latent import Restore

SOLVES = {"as trained": {}, "to the end": {"max_steps": 400, "tolerance": jiio.Tolerance(1e-6, 1e-5)}}
RATES = (1e-4, 1e-3, 5e-3)
CENTRES = (4e-3, 0.256, 16.384)  # each with its neighbours, four times lower and higher
BATCH = 7  # of the training


def measured(how: str, rate: float) -> Row:
    """Damping -> error."""
    contest = CONTESTS["faces"](0, None, False)
    model = Restore.trained(checkpoint.load(shipped("--model", "restore-faces", "weights", ".safetensors")))
    model.train().requires_grad_(True)
    weights = list(model.parameters())
    start = [weight.detach().clone() for weight in weights]

    # The direction is that of the recipe's training, on another batch.
    contest.loss(model, BATCH + 1, contest.FIRST).backward()
    ways = [torch.zeros_like(w) if w.grad is None else w.grad.sign() for w in weights]

    errors: dict[float, float] = {}
    for centre in CENTRES:
        levenberg = jiio.Levenberg(centre, max_steps=400, rtol=1e-4)
        inner = contest.inner(model, BATCH)
        inner = Inner(inner.problem, inner.x0, inner.settings | SOLVES[how])
        levenberg.before(inner.problem, inner.solved())
        with torch.no_grad():
            for weight, before, way in zip(weights, start, ways, strict=True):
                weight.copy_(before - rate * way)
        errors |= levenberg.after(inner.problem, inner.solved())

        # Back to where it began, for the next one.
        with torch.no_grad():
            for weight, before in zip(weights, start, strict=True):
                weight.copy_(before)
    return {f"damping {damping:.3g}": round(error, 3) for damping, error in sorted(errors.items())}


def run(options: argparse.Namespace, rows: Rows) -> None:
    """Every length of a step."""
    lines = [
        {"solved": how, "rate": rate} | rows.each(f"{how}/{rate:g}", measured, how, rate)
        for how in SOLVES
        for rate in RATES
    ]
    show("Error of the foreseen movement of x, relative to the true one", lines)


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    return main(Parser(__doc__, __file__, seeds=1), run, argv)


if __name__ == "__main__":
    sys.exit(command())
