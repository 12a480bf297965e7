"""Does the exact outer gradient (``KKT``) train better than the first-order one in equal time, and does damping help?

    JIIO_DATA=DIR python -m benchmarks.engine.kkt_vs_first_order --output kkt_vs_first_order.json
    # about 20 minutes; --fast: 1

Four trainings (benchmarks/engine/kkt_tasks.py): faces, celeba, inpainting, few-shot. Four gradients, each for as many
seconds of the processor, seed by seed and in turns: first-order (x* held constant); damped by 0.1; by as much as is
measured every 20 steps with four samples (``jiio.Levenberg``; its time counts); and exact. The learning rate is the
better of two, after shorter trainings with a seed of its own and by images, classes or pictures that are not the
test's (celeba takes that of faces, the same network, and the other two gradients that of the damped one).
Figures: PSNR inside what was lost (dB), and for few-shot the accuracy on new classes, 20 ways, 1 shot (%).
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

import jiio
from benchmarks.engine.kkt_tasks import CONTESTS, RATES, Contest
from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, over_seeds, show, show_line, spread
from benchmarks.trainings import Seconds, half_cosine
from jiio.outputs.seeds import derive

GRADIENTS = ("first-order", "damped", "measured", "exact")
FACTORS = (1.0, 2.0)  # of the recipe's learning rate
LIKE = {"celeba": "faces", "measured": "damped", "exact": "damped"}  # whose rate it takes
DAMPING = 0.1
TUNING_SEED = 100
EVERY = 20  # training steps after which the damping is measured again


class Trained:
    """One training: the weights of a contest under one gradient."""

    def __init__(self, name: str, gradient: str, seed: int, *, tuning: bool, options: argparse.Namespace) -> None:
        self.contest: Contest = CONTESTS[name](seed, options.data_root, tuning)
        self.seed, self.gradient, self.levenberg = seed, gradient, jiio.Levenberg(max_steps=options.products)
        self.products, self.dampings, self.losses = options.products, [], []
        self.model = self.contest.model()

    def adjoint(self) -> jiio.AbstractAdjoint:
        """Of the step to come."""
        if self.gradient == "first-order":
            return self.contest.FIRST
        damping = {"exact": 0.0, "damped": DAMPING}.get(self.gradient, self.levenberg.damping)
        return jiio.KKT(rtol=1e-2, max_steps=self.products, damping=damping)

    def go(self, rate: float, seconds: float) -> int:
        """Train for so long, by Adam, the rate falling to zero; the number of steps."""
        weights = list(self.model.parameters())
        optimiser = torch.optim.Adam(weights, rate)
        course, gone, step = half_cosine(rate, rise=25), Seconds(seconds).clock(), 0
        while (share := gone(step)) < 1.0:
            # Seeded step by step: every gradient sees the same batches.
            optimiser.param_groups[0]["lr"] = course(step, share)
            torch.manual_seed(derive(self.seed, "step", step))
            loss: Tensor = self.contest.loss(self.model, step, self.adjoint())

            # As long a step as everybody's, whatever the size of the gradient.
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(weights, self.contest.CLIP)
            self.step(optimiser, step)
            self.losses.append(float(loss.detach()))
            step += 1
        return step

    def step(self, optimiser: torch.optim.Optimizer, step: int) -> None:
        """Move the weights; where it is time, look how far solutions moved with them."""
        if self.gradient != "measured" or step % EVERY:
            optimiser.step()
            return
        inner = self.contest.inner(self.model, step)
        self.levenberg.before(inner.problem, inner.solved())
        optimiser.step()
        inner = self.contest.inner(self.model, step)
        self.levenberg.after(inner.problem, inner.solved())
        self.dampings.append(self.levenberg.damping)


def one(name: str, gradient: str, seed: int, rate: float, seconds: float, options: argparse.Namespace) -> Row:
    """Train and measure."""
    run = Trained(name, gradient, seed, tuning=seed == TUNING_SEED, options=options)
    steps = run.go(rate, seconds)
    model = run.model.eval().requires_grad_(False)
    last = run.losses[-max(1, len(run.losses) // 5) :]
    about: Row = {"training loss": sum(last) / len(last), "steps": steps, "rate": rate}
    if run.dampings:  # in the mean over the training, by its logarithm
        about["damping"] = math.exp(sum(map(math.log, run.dampings)) / len(run.dampings))
    return run.contest.figures(model) | about


def chosen(name: str, gradient: str, rows: Rows, options: argparse.Namespace) -> float | None:
    """The better learning rate; None where the time is over before both were tried."""
    found, name, gradient = {}, LIKE.get(name, name), LIKE.get(gradient, gradient)
    for factor in FACTORS:
        rate, key = factor * RATES[name], f"tuning/{name}/{gradient}/{factor:g}"
        if rows.late(key, options.minutes):
            return None
        found[rate] = rows.each(key, one, name, gradient, TUNING_SEED, rate, options.tuning, options)["figure"]
    return max(found, key=lambda rate: -math.inf if math.isnan(found[rate]) else found[rate])


def run(options: argparse.Namespace, rows: Rows) -> None:
    """Rates first; then seed by seed every contest, its gradients in turns."""
    rates = {(n, g): chosen(n, g, rows, options) for n in options.contests for g in options.gradients}

    # In turns, so that none of them has the quiet hours of the machine.
    found = []
    for seed, name in itertools.product(range(options.seeds), options.contests):
        for place in range(len(options.gradients)):
            gradient = options.gradients[(place + seed) % len(options.gradients)]
            rate, key = rates[name, gradient], f"{name}/{gradient}/{seed}"
            if rate is not None and not rows.late(key, options.minutes):
                row = rows.each(key, one, name, gradient, seed, rate, options.seconds, options)
                found.append({"contest": name, "gradient": gradient, "seed": seed} | row)
    report(found, options)


def report(found: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """The table, and the differences seed by seed."""
    for name in options.contests:
        mine = sorted((row for row in found if row["contest"] == name), key=lambda r: GRADIENTS.index(r["gradient"]))
        if mine:
            lines = over_seeds(mine, "contest", "gradient", digits=4)
            show(f"{name}, {options.seconds:g} s each: median (range) of seeds", lines)

        # In pairs: the same seed, and so the same weights to begin with and the same batches.
        pairs = {(row["gradient"], row["seed"]): row["figure"] for row in mine}
        for gradient in GRADIENTS[1:]:
            both = [seed for other, seed in pairs if other == gradient and ("first-order", seed) in pairs]
            gains = [pairs[gradient, seed] - pairs["first-order", seed] for seed in both]
            if gains:
                words = ", ".join(f"{gain:+.2f}" for gain in gains)
                show_line(f"{name}, {gradient} minus first-order", f"{spread(gains)}; seed by seed {words}")


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    fast = {"seeds": 1, "seconds": 4.0, "tuning": 1.0, "contests": ["faces"]}
    made = Parser(__doc__, __file__, seeds=3, fast=fast)
    made.chosen("--contests", list(CONTESTS), list(CONTESTS), "trainings")
    made.chosen("--gradients", list(GRADIENTS), list(GRADIENTS), "outer gradients")
    made.seconds("--seconds", 14.0, "processor seconds of every training")
    made.seconds("--tuning", 4.0, "processor seconds of every training that a learning rate is chosen by")
    made.number("--products", 60, "Hessian-vector products of an exact gradient, at most")
    made.minutes()
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
