"""Does the Lyapunov function fall, and does the state arrive? Tested, not assumed, on trained LyaDEQs.

    python -m benchmarks.attacks.lyapunov_trajectories --cache FOLDER --output lyapunov_trajectories.json
    # about 10 minutes a seed; --fast: 2

Two LyaDEQs are trained on MNIST at 14 x 14: one whose cell stays a contraction, so that grad V vanishes at the
equilibrium alone and the statement holds from every start, and one with free weights, of which it may not. In double
precision ``--starts`` random states (Gaussian, three times the size of the equilibria), one per test image, follow
dz/dt = g by Euler steps, halved where V does not fall, or plain. Counted: the steps at which V rises, the starts that
arrive, and those whose end is the equilibrium that the solver finds; with the alpha of the training, and with one so
large that the projection is at work. Last, how far the last layer is from orthogonal.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.parametrize import remove_parametrizations

import jiio
from benchmarks.attacks.digits import digits
from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, show
from benchmarks.trainings import classifier
from jiio.models import ClassifierHead, DenseCell, LyapunovCell
from jiio.tasks.classify.data import load_labelled
from jiio.tasks.classify.networks import NetworkConfig
from jiio.tasks.frame.choices import Choice

LENGTH = 0.5
LIMIT = 1200  # steps of a trajectory
ARRIVED = 1e-6  # |F|
# name of the row -> scaling of the cell, alpha, times that a step may be halved
CASES = {
    "contracting": ("spectral", 0.1, 10),
    "contracting, plain steps": ("spectral", 0.1, 0),
    "contracting, alpha 1": ("spectral", 1.0, 10),
    "free": ("none", 0.1, 10),
    "free, plain steps": ("none", 0.1, 0),
}


def trained(scaling: str, seed: int, options: argparse.Namespace) -> tuple[jiio.EquilibriumModel, Tensor]:
    """The network in double precision, and as many test images as there are starts."""
    cell = Choice("Dense", {"features": 64, "gain": 0.8, "scaling": scaling})
    network = NetworkConfig(cell, Choice("Anderson", {"memory": 4}))
    folder, steps = options.cache / f"lyapunov-{scaling}-{seed}", 50 if options.fast else 200
    config = digits(folder, network, seed=seed, steps=steps, test=options.starts, defence=(Choice("Lyapunov"),))
    model = classifier(config, options.data_root).double().eval()
    return model, load_labelled(config.data, data_root=options.data_root).test.double()


@dataclass(frozen=True)
class Flow:
    """Where all starts went. end: (B, n). rose: (B,) whether V rose at some step. rises, moves: steps of all starts."""

    end: Tensor
    rose: Tensor
    rises: int
    moves: int


def flow(cell: LyapunovCell, start: Tensor, u: Tensor, halvings: int, limit: int) -> Flow:
    """Follow dz/dt = g from ``start`` (B, n) for at most ``limit`` steps."""
    end, left, steps, rises, moves = start.clone(), torch.arange(len(start)), 0, 0, 0
    rose = torch.zeros(len(start), dtype=torch.bool)
    while len(left) and steps < limit:
        # In parts, so that those who have arrived cost nothing any more.
        end[left], values, sizes = cell.trajectory(end[left], u[left], steps=100, length=LENGTH, halvings=halvings)

        # A rise counts while the state still moves: at the equilibrium it would be rounding.
        moving = sizes[:-1] > ARRIVED
        up = (values[1:] > values[:-1]) & moving
        rises, moves, steps = rises + int(up.sum()), moves + int(moving.sum()), steps + 100
        rose[left] |= up.any(0)
        left = left[sizes[-1] > ARRIVED]
    return Flow(end, rose, rises, moves)


def solved(cell: LyapunovCell, u: Tensor, seed: int) -> tuple[jiio.Solution, Tensor]:
    """The equilibria, and as many random states (B, n), three times as large."""
    assert isinstance(cell.cell, DenseCell)
    tight = jiio.Tolerance(1e-11, 1e-11)
    settings = {"adjoint": jiio.Detached(), "tolerance": tight, "max_steps": 500, "on_failure": "ignore"}
    solution = jiio.equilibrium(cell.cell, u, **settings)  # type: ignore[arg-type]

    size = solution.z.square().mean(1, keepdim=True).sqrt()
    draw = torch.Generator().manual_seed(seed)
    return solution, 3.0 * size * torch.randn(solution.z.shape, generator=draw, dtype=torch.float64)


def follow(name: str, seed: int, options: argparse.Namespace) -> Row:
    """All starts along the flow, for one of the cases."""
    scaling, alpha, halvings = CASES[name]
    model, x = trained(scaling, seed, options)
    cell, head = model.cell, model.head
    assert isinstance(cell, LyapunovCell) and isinstance(cell.cell, DenseCell) and isinstance(head, ClassifierHead)

    weight = cell.cell.weight.detach().clone()
    if scaling == "spectral":
        remove_parametrizations(cell.cell, "weight")  # training is over: no singular values at every call any more
    cell.alpha = alpha
    with torch.no_grad():
        u = model.inject(x)
        solution, start = solved(cell, u, seed)
        went = flow(cell, start, u, halvings, 200 if options.fast else LIMIT)
        row = counted(cell, u, start, went, solution)

    last = head.linear.weight.detach().float()
    row["orthogonality"] = float((last @ last.t() - torch.eye(len(last))).abs().max())
    return {"seed": seed, "cell": name, "spectral norm": float(torch.linalg.matrix_norm(weight, 2))} | row


def counted(cell: LyapunovCell, u: Tensor, start: Tensor, went: Flow, solution: jiio.Solution) -> Row:
    """The figures of one flow."""
    # alpha is at work at a start where V would not fall fast enough by itself: grad V . F > -alpha V.
    field, value, gradient = cell.parts(start, u)
    falls = (gradient * field).sum(1) <= -cell.alpha * value
    final = cell.parts(went.end, u)[0].norm(dim=1)
    arrived = final <= ARRIVED
    near = (went.end - solution.z).norm(dim=1) <= 1e-3 * solution.z.norm(dim=1)

    return {
        "corrected at the start": int((~falls).sum()),
        "rises": went.rises,
        "of steps": went.moves,
        "starts with a rise": int(went.rose.sum()),
        "arrived": int(arrived.sum()),
        "same equilibrium": int((arrived & near & solution.converged).sum()),
        "solver converged": int(solution.converged.sum()),
        "starts": len(start),
        "largest |F|": float(final.max()),
    }


def run(options: argparse.Namespace, rows: Rows) -> None:
    """All cases of all seeds."""
    pairs = [(seed, name) for seed in range(options.seeds) for name in CASES]
    found = [rows.each(f"{name}/{seed}", follow, name, seed, options) for seed, name in pairs]
    show(f"{options.starts} random starts; orthogonality: largest entry of |W W^T - 1| of the last layer", found)


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=3, fast={"seeds": 1, "starts": 100})
    made.number("--starts", 1000, "random starts per seed")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
