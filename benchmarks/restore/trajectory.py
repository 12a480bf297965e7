"""Does the Jacobian penalty along the trajectory (the joint method's own) train better than that at the solution?

    python -m benchmarks.restore.trajectory --output trajectory.json     # about 3 minutes; --fast: 1

Box inpainting of the faces of scikit-image by a decoder that is trained through unfinished joint solves. Per seed four
trainings of as many steps: without a penalty, and with one at the solution, along the trajectory, and along the
trajectory at a weight that is three times as large. Figures: PSNR inside the hole of held-out faces when the solve may
end by itself (at most 200 steps) and when it is cut as in training; the share that converges, and its evaluations; and
the mean of |J|_F^2 / d over the iterates of those solves.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import torch

import jiio
from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, over_seeds, show
from benchmarks.trainings import by_steps
from jiio.outputs.seeds import generator
from jiio.tasks.frame.load import build, merge, read_yaml
from jiio.tasks.frame.shipped import shipped
from jiio.tasks.images.metrics import psnr
from jiio.tasks.maps.corruption import Inpaint
from jiio.tasks.restore.latent import Restore, RestoreConfig
from jiio.tasks.solving.latent import LatentRestorer
from jiio.tasks.solving.trajectory import DrawnIterate

ARMS: dict[str, dict[str, Any]] = {
    "no penalty": {"jacobian": 0.0},
    "at the solution": {},
    "along the trajectory": {"jacobian_at": "trajectory"},
    "along the trajectory, 3 times": {"jacobian_at": "trajectory", "jacobian": 0.3},
}


def configuration(arm: str, seed: int, options: argparse.Namespace) -> RestoreConfig:
    """The shipped training on faces, shorter, with its solves cut after so many steps."""
    values = read_yaml("--config", shipped("--config", "restore-faces", "configs", ".yaml"))
    over: dict[str, Any] = {"seed": seed, "steps": options.steps, "checkpoint_every": options.steps, "keep": 1}
    over |= {"model": ARMS[arm], "joint": {"max_steps": options.solve}}
    return build(RestoreConfig, merge(values, over))


@torch.no_grad()
def measured(task: Restore, model: LatentRestorer, max_steps: int) -> Row:
    """Held-out faces, without noise, in solves of at most so many steps."""
    clean = task.images.test
    drawn = task.draw(clean, "test", 0)
    assert isinstance(drawn, Inpaint)
    operator, watched = Inpaint(drawn.mask), DrawnIterate(generator(task.config.seed, "watched"))
    settings = task.settings | {"adjoint": jiio.Detached(), "max_steps": max_steps, "on_failure": "ignore"}
    y = operator.A(clean)
    restored, solution = model.restore(y, operator, **settings, callback=watched.callback)

    decibel = psnr(restored.clamp(0, 1), clean, mask=1 - operator.mask)
    cell = model.problem(y, operator).cell
    size = jiio.jacobian_penalty(cell, *watched.point(solution), probes=4, generator=generator(0, "size"))
    return {
        "dB in the hole": float(decibel.mean()),
        "converged": float(solution.converged.float().mean()),
        "evaluations": float(solution.steps.float().mean()),
        "|J|^2 / d": float(size.mean()),
    }


def one_seed(seed: int, options: argparse.Namespace) -> list[Row]:
    """All arms, from the same weights."""
    rows: list[Row] = []
    for arm in ARMS:
        task = Restore(configuration(arm, seed, options), data_root=options.data_root)
        model, seconds = by_steps(task)
        assert isinstance(model, LatentRestorer)
        model.requires_grad_(False)
        whole, cut = measured(task, model, 200), measured(task, model, options.solve)
        head = {"penalty": arm, "seed": seed}
        rows.append(head | whole | {"dB, cut": cut["dB in the hole"], "training, s": seconds})
    return rows


def run(options: argparse.Namespace, rows: Rows) -> None:
    """All seeds."""
    found = [row for seed in range(options.seeds) for row in rows.each(str(seed), one_seed, seed, options)]
    show(f"restore-faces, {options.steps} steps, {options.seeds} seed(s): median (range)", over_seeds(found, "penalty"))


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=3, fast={"seeds": 1, "steps": 30})
    made.number("--steps", 60, "training steps")
    made.number("--solve", 20, "steps of a joint solve in training")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
