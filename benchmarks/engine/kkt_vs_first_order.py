"""Does the exact outer gradient (``KKT``) pay against the paper's first-order one (``Implicit``)?

    JIIO_DATA=DIR python -m benchmarks.engine.kkt_vs_first_order --output kkt_vs_first_order.json
    # about 20 minutes; --fast: 2

Box inpainting of held-out faces by a decoder that is trained through the joint solve (the task ``restore`` and its
shipped configuration). Per seed four trainings: KKT; KKT with a damping of 0.1; first-order with as many steps;
first-order with as many seconds (more steps, the whole schedule stretched over them). Beside them what needs no
training. Figures: PSNR and mean squared error inside the hole, without noise; means over the test images.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import jiio
from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, over_seeds, say, show, show_line, spread
from benchmarks.trainings import by_steps
from jiio.checks import fail
from jiio.tasks.frame.choices import Choice
from jiio.tasks.frame.files import InputError
from jiio.tasks.frame.load import build, merge, read_yaml
from jiio.tasks.frame.shipped import shipped
from jiio.tasks.images.metrics import psnr
from jiio.tasks.maps.corruption import Inpaint
from jiio.tasks.restore.compare.baselines import Trial
from jiio.tasks.restore.latent import Restore, RestoreConfig
from jiio.tasks.solving.latent import LatentRestorer

EXACT = Choice("KKT", {"rtol": 1e-2, "max_steps": 40})
DAMPED = Choice("KKT", {"rtol": 1e-2, "max_steps": 40, "damping": 0.1})
FIRST_ORDER = Choice("Implicit", {"max_steps": 40})
FIRST = "first-order, as many steps"
TIMED = "first-order, as many seconds"


def configuration(name: str, seed: int, steps: int, adjoint: Choice) -> RestoreConfig:
    """The configuration of that name with this seed, length and adjoint.

    The adjoint is what is compared here, so it never comes from the file, whatever the file says.
    """
    path = shipped("--config", name, "configs", ".yaml")
    over: dict[str, Any] = {"seed": seed, "steps": steps, "checkpoint_every": steps, "keep": 1}
    over["joint"] = {"adjoint": dataclasses.asdict(adjoint)}
    return build(RestoreConfig, merge(read_yaml("--config", path), over))


def gradient(config: RestoreConfig, root: Path | None) -> Tensor:
    """Of the first training step, all parameters in one vector."""
    task = Restore(config, data_root=root)
    torch.manual_seed(0)
    model = task.model().train()
    task.loss(model, 0)[0].backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def compared(name: str, seed: int, root: Path | None) -> float:
    """Cosine of the two gradients on the first batch; an error where they are one and the same."""
    exact, first = (gradient(configuration(name, seed, 1000, adjoint), root) for adjoint in (EXACT, FIRST_ORDER))
    if torch.equal(exact, first):
        remedy = "Comparing a method with itself says nothing; take a task whose outer loss is not the inner one."
        fail("--config", "a task on which the two gradients differ", "equal ones", remedy)
    return float(torch.nn.functional.cosine_similarity(exact, first, dim=0))


def trained(config: RestoreConfig, root: Path | None) -> tuple[Restore, LatentRestorer, float]:
    """The task, the trained model, and the processor seconds of the training."""
    task = Restore(config, data_root=root)
    model, seconds = by_steps(task)
    assert isinstance(model, LatentRestorer)
    return task, model.requires_grad_(False), seconds


def hole(restored: Tensor, clean: Tensor, operator: Inpaint) -> dict[str, float]:
    """PSNR and mean squared error inside the hole, means over images."""
    decibel = psnr(restored.clamp(0, 1), clean, mask=1 - operator.mask)
    return {"PSNR in the hole": float(decibel.mean()), "MSE in the hole": float((10 ** (-decibel / 10)).mean())}


@torch.no_grad()
def measured(task: Restore, model: LatentRestorer) -> dict[str, float]:
    """Our restoration of the held-out images."""
    clean, operator = task.images.test, holes(task)
    settings = task.settings | {"adjoint": jiio.Detached(), "max_steps": 200, "on_failure": "ignore"}
    restored, solution = model.restore(operator.A(clean), operator, **settings)
    return hole(restored, clean, operator) | {"converged": float(solution.converged.float().mean())}


def holes(task: Restore) -> Inpaint:
    """The holes of the test images, without noise."""
    drawn = task.draw(task.images.test, "test", 0)
    assert isinstance(drawn, Inpaint)
    return Inpaint(drawn.mask)


def one_seed(name: str, seed: int, steps: int, root: Path | None) -> list[Row]:
    """All rows of one seed."""
    cosine = compared(name, seed, root)
    task, model, seconds = trained(configuration(name, seed, steps, EXACT), root)

    # What needs no training, on the same holes.
    clean, operator = task.images.test, holes(task)
    restorers = task.classical(Trial(clean, operator, operator.A(clean)))
    rows: list[Row] = [
        {"method": key, **hole(image, clean, operator)} for key, image in restorers.items() if key != "start"
    ]
    exact = measured(task, model) | {"steps": steps, "seconds": seconds, "first cosine": cosine}
    rows.append({"method": "exact (KKT)", **exact})

    # Between the two: the exact gradient of a problem that holds its solution more stiffly.
    task, model, spent = trained(configuration(name, seed, steps, DAMPED), root)
    rows.append({"method": "damped (KKT)", **measured(task, model), "steps": steps, "seconds": spent})

    # As many steps first: what a step costs says how many fit into as many seconds.
    spent = seconds
    for row in (FIRST, TIMED):
        length = steps if row == FIRST else max(1, round(steps * seconds / spent))
        task, model, spent = trained(configuration(name, seed, length, FIRST_ORDER), root)
        rows.append({"method": row, **measured(task, model), "steps": length, "seconds": spent})
        say(f"seed {seed}: {row}, {spent:.0f} s, {rows[-1]['PSNR in the hole']:.2f} dB")
    return rows


def available(options: argparse.Namespace) -> str:
    """The configuration asked for; without a word the one on CelebA, or the one that needs no files."""
    if options.config is not None:
        return options.config
    try:
        Restore(configuration("restore-celeba", 0, 1000, EXACT), data_root=options.data_root)
    except InputError:
        say("celeba: not found, using the faces of scikit-image")
        return "restore-faces"
    return "restore-celeba"


def run(options: argparse.Namespace, rows: Rows) -> Row:
    """All seeds."""
    name, steps, root = available(options), options.steps, options.data_root
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    runs = [rows.each(f"{name}/{s}", one_seed, name, s, steps, root) for s in seeds]
    report(name, runs)

    used = dataclasses.asdict(configuration(name, 0, steps, EXACT))
    arms = {
        "exact": dataclasses.asdict(EXACT),
        "damped": dataclasses.asdict(DAMPED),
        "first-order": dataclasses.asdict(FIRST_ORDER),
    }
    return {"config": name, "arms": arms, "configuration of seed 0, exact": used}


def report(name: str, runs: list[list[Row]]) -> None:
    """The table, and the paired differences."""
    lines = over_seeds((row for found in runs for row in found), "method", digits=4)
    show(f"{name}, box inpainting, {len(runs)} seed(s): median (range) over seeds", lines)
    for other in (FIRST, TIMED):
        for key in ("PSNR in the hole", "MSE in the hole"):
            pairs = [{row["method"]: row[key] for row in found} for found in runs]
            gains = [pair["exact (KKT)"] - pair[other] for pair in pairs]
            show_line(f"{key}, exact minus {other}", spread(gains))


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=3, fast={"seeds": 1, "steps": 40})
    made.add_argument("--config", help="a training configuration, or the name of a shipped one (restore-celeba)")
    made.number("--steps", 500, "training steps")
    made.add_argument("--first-seed", type=int, default=0, help="the smallest seed (default 0)")
    made.free.add("first_seed")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
