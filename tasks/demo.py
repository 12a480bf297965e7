"""``jiio demo``: train a small joint inpainter on faces, restore held-out ones, and show the iteration on one page."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

import jiio
from tasks import checkpoint, figures
from tasks.config import Choice, TrainConfig
from tasks.corruption import Inpaint
from tasks.evaluate import evaluate
from tasks.files import atomic_write
from tasks.load import build, merge, read_yaml
from tasks.loop import train
from tasks.nested import nested
from tasks.report import Page
from tasks.restore import LatentRestorer, Restore
from tasks.seeds import generator
from tasks.versions import versions

HERE = Path(__file__).parent
CONFIG = HERE / "configs" / "restore-faces.yaml"
WEIGHTS = HERE / "weights" / "restore-faces.safetensors"
LIVE_STEPS = 250
FACES = 6
RATES = (0.03, 0.1, 0.3, 1.0)
WITHIN = 0.01
OURS = "joint (jiio)"


def run(*, fast: bool, output: Path, seed: int) -> Path:
    """Write ``index.html``, ``joint.gif``, ``restored.png``, ``convergence.png`` and ``figures.json`` into ``output``; return the page.

    fast: use the weights that come with jiio instead of training live.
    """
    begin = time.perf_counter()
    config = build(TrainConfig, merge(read_yaml("CONFIG", CONFIG), {"seed": seed}))
    if fast:
        trained = checkpoint.load(WEIGHTS)
        how = f"weights that come with jiio ({trained.step} steps; recipe: jiio train restore-faces)"
    else:
        config = dataclasses.replace(config, steps=LIVE_STEPS, output=str(output / "training"))
        _say(f"Training a joint inpainter for {config.steps} steps on scikit-image's faces.")
        trained = train(config, resume=True)
        how = f"trained live for {config.steps} steps"
    # Trained with noise on the known pixels, which regularises; shown without, as a person would use it.
    clean = dataclasses.replace(trained.config, corruption=Choice("BoxHole", {"side": 8}))
    task = Restore(clean)
    _say("Restoring held-out faces, with the classical restorers beside.")
    rows = evaluate(trained, config=clean, task=task)
    model = task.model()
    trained.restore_model(model)
    model.eval().requires_grad_(False)
    _say("Counting what the joint and the nested iteration cost.")
    example = Example(task, model)
    race = Race(example)

    page = Page(
        "Joint inference and input optimisation, at work",
        f"Held-out faces with an 8 x 8 hole. The latent code of an equilibrium decoder is optimised while the decoder is still solving: "
        f"one evaluation of the network and one vector-Jacobian product per step. Model: {how}.",
    )
    gif, restored_png, convergence_png = example.gif(), example.sheet(rows), race.plot()
    page.heading("The joint iterate, step by step")
    page.picture(gif, "The decoded state of each joint step, with the known pixels as the network draws them; the last frame keeps those that were measured.", kind="gif", pixels=True)
    page.heading("Restored faces")
    page.picture(restored_png, "Clean, corrupted, biharmonic fill (scikit-image), and jiio; the known pixels are kept.", pixels=True)
    page.heading("Quality on the held-out faces")
    page.table(rows, ours=OURS)
    page.paragraph("Means over the test images; PSNR in dB with data range 1, SSIM with a Gaussian window. Total variation is tuned on training images.")
    page.heading("What it costs")
    page.picture(
        convergence_png,
        "RMS residuals of state, multiplier and input (median over the faces) against network calls. Left: the joint iteration, all three falling together. "
        "Middle: the nested loop, a full forward and adjoint solve per input step. Right: objective above the best known, at verified equilibria.",
    )
    page.table(race.rows(), ours=OURS)
    page.paragraph(
        f"Calls of the network (evaluations + VJPs) until all {FACES} faces are within {WITHIN:.0%} of the best objective known and stay there. The nested loop is "
        f"warm-started and has the best rate of {list(RATES)} for each rule; the joint solve runs on its defaults."
    )
    seconds = time.perf_counter() - begin
    words = ", ".join(f"{name} {number}" for name, number in versions().items())
    text = page.render(f"jiio demo{' --fast' if fast else ''} --seed {seed}: {seconds:.0f} seconds on this machine. {words}.")
    data = {"rows": rows, "cost": race.rows(), "seconds": seconds, "seed": seed, "fast": fast}
    for name, content in (
        ("joint.gif", gif),
        ("restored.png", restored_png),
        ("convergence.png", convergence_png),
        ("figures.json", json.dumps(data, indent=2).encode()),
        ("index.html", text.encode()),
    ):
        atomic_write(output / name, content)
    _say(f"Done in {seconds:.0f} seconds: open {output / 'index.html'}")
    return output / "index.html"


class Example:
    """A few held-out faces, their measurements, and one traced joint solve."""

    def __init__(self, task: Restore, model: LatentRestorer) -> None:
        self.task, self.model = task, model
        self.clean = task.images.test[:FACES]
        operator = task.draw(len(self.clean), "demo", 0)
        assert isinstance(operator, Inpaint)
        self.operator = operator
        self.y = operator.measure(self.clean, generator(task.config.seed, "noise", "demo", 0))
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
        steps = list(range(len(trace.z)))
        shown = steps[:24] + steps[24::4]
        frames = [self.model.decode(trace.z[k]) for k in shown]
        residual = trace.residual.nanmedian(1).values
        words = ("z", "mu", "x")
        captions = [f"step {k:3d}   " + "   ".join(f"{w} {float(r):.0e}" for w, r in zip(words, residual[k], strict=True)) for k in shown]
        return figures.moving([self.y, *frames, self.restored], ["measured", *captions, "restored, known pixels kept"], scale=4)

    def sheet(self, rows: list) -> bytes:
        from tasks.baselines import biharmonic

        names = ("clean", "measured", "biharmonic", "jiio")
        pictures = (self.clean, self.y, biharmonic(self.y, self.operator), self.restored)
        return figures.sheet(dict(zip(names, pictures, strict=True)))


@dataclasses.dataclass(frozen=True)
class Lap:
    """One method: calls so far and the verified objective (B,) at each visited input."""

    name: str
    calls: list[int]
    values: Tensor  # (T, B)

    def finish(self, best: Tensor) -> float:
        """Calls until every sample is within reach of the best and stays there; NaN if that never happens."""
        good = (self.values <= best + WITHIN * best.abs()).all(1)
        stays = torch.flip(torch.cummin(torch.flip(good.int(), (0,)), 0).values, (0,)).bool()
        return float(self.calls[int(stays.int().argmax())]) if bool(stays.any()) else float("nan")


class Race:
    """Joint against nested on the same faces, objectives measured at tightly re-solved equilibria that nobody is charged for."""

    def __init__(self, example: Example) -> None:
        self.example = example
        trace = example.solution.trace
        assert trace is not None
        calls = [4 + 2 * k for k in range(len(trace.x))]  # two evaluations and two VJPs measure the scale
        self.joint = Lap(OURS, calls, self.verified(trace.x))
        runs = {}
        for rule in (jiio.AdamStep, jiio.GradientStep):
            for rate in RATES:
                runs[rule.__name__, rate] = nested(
                    example.problem, example.model.start(example.y), rule=rule(rate), outer_steps=60, tolerance=jiio.Tolerance(1e-5, 1e-3), trace=True
                )
        laps = {
            key: Lap(f"nested, {key[0]}, rate {key[1]:g}", [v.calls for v in run.visits], self.verified([v.x for v in run.visits]))
            for key, run in runs.items()
        }
        every = torch.cat([self.joint.values, *(lap.values for lap in laps.values())])
        self.best = every.amin(0)
        self.laps = []
        for rule in ("AdamStep", "GradientStep"):
            keys = [key for key in laps if key[0] == rule]
            chosen = min(keys, key=lambda key: (_last(laps[key].finish(self.best)), float(laps[key].values[-1].mean())))
            self.laps.append((laps[chosen], runs[chosen]))

    def verified(self, inputs: list[Tensor]) -> Tensor:
        """(T, B) objective at the equilibrium of each input."""
        problem, batch = self.example.problem, len(self.example.y)
        z, values = None, []
        for x in inputs:
            found = jiio.equilibrium(
                problem.cell, x, z, tolerance=jiio.Tolerance(1e-7, 1e-5), adjoint=jiio.Detached(), on_failure="ignore"
            )
            z = found.z
            values.append(problem.total(z, x, batch))
        return torch.stack(values)

    def rows(self) -> list[dict[str, str | float]]:
        ours = self.joint.finish(self.best)
        table: list[dict[str, str | float]] = [{"method": OURS, "calls": ours, "calls / ours": 1.0}]
        for lap, _ in self.laps:
            calls = lap.finish(self.best)
            table.append({"method": lap.name, "calls": calls if calls == calls else f"more than {lap.calls[-1]}", "calls / ours": calls / ours})
        return table

    def plot(self) -> bytes:
        trace = self.example.solution.trace
        assert trace is not None
        joint = trace.residual.nanmedian(1).values
        lap, run = self.laps[0]
        assert run.trace is not None
        staircase = run.trace.residual.nanmedian(1).values
        limit = max(self.joint.calls)  # the same stretch of calls as the joint panel
        colours = figures.COLOURS
        left = [figures.Curve(name, self.joint.calls, joint[:, i].tolist(), colours[name]) for i, name in enumerate(("z", "mu", "x"))]
        near = [(k, c) for k, c in enumerate(run.trace.calls.tolist()) if c <= limit]
        middle = [
            figures.Curve(name, [c for _, c in near], [float(staircase[k, i]) for k, _ in near], colours[name])
            for i, name in enumerate(("z", "mu", "x"))
        ]
        gap = [figures.Curve("joint", self.joint.calls, self.gap(self.joint), colours["z"])]
        for (other, _), colour in zip(self.laps, (colours["mu"], colours["x"]), strict=True):
            gap.append(figures.Curve(other.name, other.calls, self.gap(other), colour, dashed=True))
        panels = [
            ("Joint", "RMS residual", left),
            ("Nested (" + lap.name.removeprefix("nested, ") + ")", "RMS residual", middle),
            ("Objective", "relative distance to the best", gap),
        ]
        return figures.plot(panels, "evaluations + VJPs")

    def gap(self, lap: Lap) -> list[float]:
        return ((lap.values - self.best) / self.best.abs()).mean(1).clamp_min(1e-7).tolist()


def _last(value: float) -> float:
    return value if value == value else float("inf")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
