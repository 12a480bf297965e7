"""Held-out faces with a hole, restored by a small inpainter, and what the joint solve costs beside the nested loop."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

import jiio
from jiio.outputs.seeds import generator
from jiio.tasks.frame import checkpoint, drawings
from jiio.tasks.frame.choices import Choice
from jiio.tasks.frame.evaluate import evaluate
from jiio.tasks.frame.load import build, merge, read_yaml
from jiio.tasks.frame.loop import train
from jiio.tasks.frame.machine import cpu_threads
from jiio.tasks.frame.shipped import shipped
from jiio.tasks.frame.terminal import say
from jiio.tasks.maps.corruption import Inpaint
from jiio.tasks.restore.compare.classical import biharmonic
from jiio.tasks.restore.latent import Restore, RestoreConfig
from jiio.tasks.solving.latent import LatentRestorer

from .race import Race

Row = dict[str, str | float]
RECIPE = "restore-faces"
LIVE_STEPS = 400
FACES = 6


def trained_inpainter(fast: bool, output: Path, seed: int, device: torch.device) -> tuple[checkpoint.Checkpoint, str]:
    """The weights, and how they came about. fast: those that come with jiio, instead of training live."""
    if fast:
        ours = checkpoint.load(shipped("weights", RECIPE, "weights", ".safetensors"))
        return ours, f"weights that come with jiio ({ours.step} steps; recipe: jiio train {RECIPE})"
    recipe = read_yaml("recipe", shipped("recipe", RECIPE, "configs", ".yaml"))
    config = build(RestoreConfig, merge(recipe, {"seed": seed}))
    config = dataclasses.replace(config, steps=LIVE_STEPS, output=str(output / "training"), device=str(device))
    say(f"Training a joint inpainter for {config.steps} steps on scikit-image's faces.")
    return train(config, resume=True), f"trained live for {config.steps} steps"


def shown_at_work(trained: checkpoint.Checkpoint, device: torch.device) -> tuple[list[Row], Example, Race]:
    """The figures of the model beside the classical restorers, a few faces, and what they cost."""
    # Trained with noise on the known pixels, which regularises; shown without, as a person would use it.
    assert isinstance(trained.config, RestoreConfig)
    corruption = Choice("BoxHole", {"side": 8})
    clean = dataclasses.replace(trained.config, corruption=corruption, device=str(device))
    task = Restore(clean)
    say("Restoring held-out faces, with the classical restorers beside.")
    rows = evaluate(trained, config=clean, task=task)
    model = task.model()
    trained.restore_model(model)
    model.to(device).eval().requires_grad_(False)

    say("Counting what the joint and the nested iteration cost.")
    with cpu_threads(trained.config.threads):
        example = Example(task, model)
        return rows, example, Race(example.problem, model.start(example.y), example.solution)


class Example:
    """A few held-out faces, their measurements, and one traced joint solve."""

    def __init__(self, task: Restore, model: LatentRestorer) -> None:
        self.task, self.model = task, model
        self.clean = task.images.test[:FACES]
        operator = task.draw(self.clean, "demo", 0)
        assert isinstance(operator, Inpaint)
        self.operator = operator
        self.y = operator.measure(self.clean, generator(task.config.seed, "noise", "demo", 0)).to(task.device)
        self.problem = model.problem(self.y, operator)
        self.solution = self.solve(jiio.Tolerance(1e-6, 1e-4))
        self.restored = operator.keep(self.y, model.decode(self.solution.z)).clamp(0, 1)

    def solve(self, tolerance: jiio.Tolerance) -> jiio.Solution:
        """The joint solve on its defaults, every iterate kept."""
        start = self.model.start(self.y)
        settings = {"tolerance": tolerance, "adjoint": jiio.Detached(), "on_failure": "ignore"}
        return jiio.solve(self.problem, start, trace="points", max_steps=200, **settings)

    def gif(self) -> bytes:
        trace = self.solution.trace
        assert trace is not None

        # All of the first steps, then every fourth: the late ones change little.
        steps = list(range(len(trace.z)))
        shown = steps[:24] + steps[24::4]
        frames = [self.model.decode(trace.z[k]) for k in shown]
        residual = trace.residual.nanmedian(1).values
        words = ("z", "mu", "x")

        captions = [
            f"step {k:3d}   " + "   ".join(f"{w} {float(r):.0e}" for w, r in zip(words, residual[k], strict=True))
            for k in shown
        ]
        return drawings.moving(
            [self.y, *frames, self.restored], ["measured", *captions, "restored, known pixels kept"], scale=4
        )

    def sheet(self) -> bytes:
        names = ("clean", "measured", "biharmonic", "jiio")
        pictures = (self.clean, self.y, biharmonic(self.y.cpu(), self.operator), self.restored)
        return drawings.sheet(dict(zip(names, pictures, strict=True)))
