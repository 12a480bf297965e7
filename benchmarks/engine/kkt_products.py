"""What does the exact gradient cost: Hessian-vector products by MINRES, and block by block where there is a metric?

    python -m benchmarks.engine.kkt_products --output kkt_products.json      # about 1 minute; --fast: 1 minute

Shipped decoders (faces of scikit-image, offline), four held-out images, solved to the end in a metric. The outer loss
is a weighted error of the answer, which is not the inner objective. Per damping and tolerance: products of either way,
and how far the gradient of all weights is from the one of 2,000 products (relative). From 0.03 on, both are MINRES.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import jiio
from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, show
from jiio.checks import check_instance
from jiio.layout import Tree
from jiio.tasks.frame import checkpoint
from jiio.tasks.frame.shipped import shipped
from jiio.tasks.generate.generator import EXACT, LatentGenerator
from jiio.tasks.generate.task import Generate, GenerateConfig
from jiio.tasks.restore.latent import Restore, RestoreConfig
from jiio.tasks.solving.latent import LatentRestorer

IMAGES = 4
TIGHT = jiio.Tolerance(1e-6, 1e-5)


class Whole(jiio.KKT):
    """By MINRES on all blocks at once, metric or not."""

    def inside(self, metric: jiio.Metric | None) -> jiio.AbstractAdjoint:
        return self


WAYS = {"MINRES": Whole, "blocks": jiio.KKT}


@dataclass(frozen=True)
class Case:
    """Inner problems, where to start, and the model whose weights the gradient is for."""

    model: LatentRestorer | LatentGenerator
    problem: jiio.Problem
    x0: Tree
    clean: Tensor

    @classmethod
    def named(cls, name: str) -> Case:
        """From the shipped weights of that name."""
        found = checkpoint.load(shipped("--model", name, "weights", ".safetensors"))
        # A hole to fill in, or the whole image to fit.
        if isinstance(found.config, RestoreConfig):
            task = Restore(found.config)
            model, clean = Restore.trained(found), task.images.test[:IMAGES]
            operator = task.draw(clean, "test", 0)
            problem = model.problem(operator.A(clean), operator)
        else:
            config, model = check_instance("config", found.config, GenerateConfig), Generate.trained(found)
            assert isinstance(model, LatentGenerator)
            clean = Generate(config).images.test[:IMAGES]
            problem = model.problem(clean, EXACT)
        model.requires_grad_(True)
        return cls(model, problem, model.start(clean), clean)

    def begun(self) -> jiio.Linearised:
        """Where the solve begins, and its metric."""
        with torch.no_grad():
            return jiio.Sensitivity.of(self.problem, self.x0[:1]).linearised(self.problem, self.x0)

    def gradient(self, near: jiio.Linearised, adjoint: jiio.KKT) -> tuple[Tensor, int]:
        """Of the outer loss for all weights in one vector, and the products that it took."""
        found = jiio.solve(
            self.problem, near.x, near.z, metric=near.metric, adjoint=adjoint, tolerance=TIGHT, on_failure="ignore"
        )
        # Bright pixels weigh more, so that the loss is another than the inner one.
        loss = ((self.model.decode(found.z) - self.clean).square() * self.clean).sum()
        grads = torch.autograd.grad(loss, list(self.model.parameters()), allow_unused=True)
        return torch.cat([g.flatten() for g in grads if g is not None]), found.evaluations.adjoint_hvp


def measured(name: str, damping: float, rtols: Sequence[float]) -> list[Row]:
    """A row for every tolerance."""
    # One start and one metric for all; only the adjoint differs.
    case = Case.named(name)
    near = case.begun()
    exact, _ = case.gradient(near, Whole(1e-9, 2000, damping))
    lines = []
    for rtol in rtols:
        line: Row = {"decoder": name, "damping": damping, "residual": rtol}
        for way, kind in WAYS.items():
            found, products = case.gradient(near, kind(rtol, 500, damping))
            line[f"{way}: products"] = products
            line[f"{way}: error"] = round(float((found - exact).norm() / exact.norm()), 4)
        lines.append(line)
    return lines


def run(options: argparse.Namespace, rows: Rows) -> None:
    """Every decoder and damping."""
    rtols = (1e-1, 3e-2, 1e-2, 1e-3)
    lines = []
    for name in options.decoders:
        for damping in (0.0, 0.01, 0.1):
            lines += rows.each(f"{name}/{damping:g}", measured, name, damping, rtols)
    show("Hessian-vector products of a batch of four, and the relative error of the gradient", lines)


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    decoders = ["restore-faces", "generate-faces"]
    made = Parser(__doc__, __file__, seeds=1)
    made.chosen("--decoders", decoders, decoders, "shipped decoders")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
