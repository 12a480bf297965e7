"""``jiio demo``: train a small joint inpainter on faces, restore held-out ones, and show the iteration on one page."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path

import jiio
from jiio.outputs.atomic import write_whole
from jiio.outputs.page import Page
from jiio.outputs.seeds import generator
from jiio.tasks.frame import checkpoint, drawings
from jiio.tasks.frame.choices import Choice
from jiio.tasks.frame.evaluate import evaluate
from jiio.tasks.frame.load import build, merge, read_yaml
from jiio.tasks.frame.loop import train
from jiio.tasks.frame.machine import cpu_threads, versions
from jiio.tasks.frame.terminal import say
from jiio.tasks.maps.corruption import Inpaint
from jiio.tasks.solving.latent import LatentRestorer

from ..latent import Restore, RestoreConfig
from .options import MARK
from .race import OURS, RATES, WITHIN, Race

Row = dict[str, str | float]
HERE = Path(__file__).parents[1]
CONFIG = HERE / "configs" / "restore-faces.yaml"
WEIGHTS = HERE / "weights" / "restore-faces.safetensors"
LIVE_STEPS = 400
FACES = 6

LEAD = (
    "Held-out faces with an 8 x 8 hole. The latent code of an equilibrium decoder is optimised while the decoder is "
    "still solving: one evaluation of the network and one vector-Jacobian product per step. Model: {how}."
)
GIF = (
    "The decoded state of each joint step, with the known pixels as the network draws them; the last frame keeps those "
    "that were measured."
)
SHEET = "Clean, measured, biharmonic fill (scikit-image), and jiio; the known pixels are kept."
QUALITY = (
    "Means over the test images; PSNR in dB with data range 1, SSIM with a Gaussian window. Total variation is tuned "
    "on training images. The decoder was trained with noise of 0.1 on the known pixels, as a regulariser; the test "
    "has none."
)
CONVERGENCE = (
    "RMS residuals of state, multiplier and input (median over the faces) against network calls. Left: the "
    "joint iteration, all three falling together. Middle: the nested loop over the same stretch, a full forward and "
    "adjoint solve per input step. Right: objective above the best known, at verified equilibria."
)
COST = (
    f"Calls of the network (evaluations + VJPs) until all {FACES} faces are within {WITHIN:.0%} of the best objective "
    f"known and stay there. The nested loop is warm-started and has the best rate of {', '.join(map(str, RATES))} for "
    "each rule; the joint solve runs on its defaults."
)


def run(*, fast: bool, output: Path, seed: int) -> Path:
    """Write ``index.html``, ``joint.gif``, ``restored.png``, ``convergence.png`` and ``figures.json`` into
    ``output``; return the page.

    fast: use the weights that come with jiio instead of training live.
    """
    begin = time.perf_counter()
    trained, how = trained_inpainter(fast, output, seed)
    rows, example, race = shown_at_work(trained)
    shown = {"joint.gif": example.gif(), "restored.png": example.sheet(), "convergence.png": race.plot()}

    # The page last: where it is, all is there.
    seconds = time.perf_counter() - begin
    data = {"rows": rows, "cost": race.rows(), "seconds": seconds, "seed": seed, "fast": fast}
    line = f"jiio demo{' --fast' if fast else ''} --seed {seed}: {seconds:.0f} seconds on this machine."
    words = ", ".join(f"{name} {number}" for name, number in versions().items())
    text = page_of(shown, rows, race.rows(), how).render(f"{line} {words}.")
    texts = {"figures.json": json.dumps(data, indent=2), "index.html": f"{text}{MARK}\n"}
    for name, content in {**shown, **{name: text.encode() for name, text in texts.items()}}.items():
        write_whole(output / name, content)
    say(f"Done in {seconds:.0f} seconds: open {output / 'index.html'}")
    return output / "index.html"


def shown_at_work(trained: checkpoint.Checkpoint) -> tuple[list[Row], Example, Race]:
    """The figures of the model beside the classical restorers, a few faces, and what they cost."""
    # Trained with noise on the known pixels, which regularises; shown without, as a person would use it.
    assert isinstance(trained.config, RestoreConfig)
    clean = dataclasses.replace(trained.config, corruption=Choice("BoxHole", {"side": 8}))
    task = Restore(clean)
    say("Restoring held-out faces, with the classical restorers beside.")
    rows = evaluate(trained, config=clean, task=task)
    model = task.model()
    trained.restore_model(model)
    model.eval().requires_grad_(False)

    say("Counting what the joint and the nested iteration cost.")
    with cpu_threads(trained.config.threads):
        example = Example(task, model)
        return rows, example, Race(example.problem, model.start(example.y), example.solution)


def trained_inpainter(fast: bool, output: Path, seed: int) -> tuple[checkpoint.Checkpoint, str]:
    """The weights, and how they came about."""
    if fast:
        shipped = checkpoint.load(WEIGHTS)
        return shipped, f"weights that come with jiio ({shipped.step} steps; recipe: jiio train restore-faces)"
    config = build(RestoreConfig, merge(read_yaml("CONFIG", CONFIG), {"seed": seed}))
    config = dataclasses.replace(config, steps=LIVE_STEPS, output=str(output / "training"))
    say(f"Training a joint inpainter for {config.steps} steps on scikit-image's faces.")
    return train(config, resume=True), f"trained live for {config.steps} steps"


def page_of(shown: Mapping[str, bytes], rows: list[Row], cost: list[Row], how: str) -> Page:
    """The page: the iteration, the faces, how good they are, and what it cost."""
    page = Page("Joint inference and input optimisation, at work", LEAD.format(how=how))
    page.heading("The joint iterate, step by step")
    page.picture(shown["joint.gif"], GIF, kind="gif", pixels=True)
    page.heading("Restored faces")
    page.picture(shown["restored.png"], SHEET, pixels=True)

    # What it is worth and what it takes, in numbers.
    page.heading("Quality on the held-out faces")
    page.table(rows, ours=OURS)
    page.paragraph(QUALITY)
    page.heading("What it costs")
    page.picture(shown["convergence.png"], CONVERGENCE)
    page.table(cost, ours=OURS)
    page.paragraph(COST)
    return page


class Example:
    """A few held-out faces, their measurements, and one traced joint solve."""

    def __init__(self, task: Restore, model: LatentRestorer) -> None:
        self.task, self.model = task, model
        self.clean = task.images.test[:FACES]
        operator = task.draw(self.clean, "demo", 0)
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
        from ..compare.classical import biharmonic

        names = ("clean", "measured", "biharmonic", "jiio")
        pictures = (self.clean, self.y, biharmonic(self.y, self.operator), self.restored)
        return drawings.sheet(dict(zip(names, pictures, strict=True)))
