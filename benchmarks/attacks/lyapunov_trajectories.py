"""Does the Lyapunov function fall, and does the state arrive? Tested, not assumed, on trained LyaDEQs.

    python -m benchmarks.attacks.lyapunov_trajectories --cache FOLDER --output lyapunov_trajectories.json
    # about 15 minutes a seed; --fast: 3

LyaDEQs are trained on MNIST at 14 x 14: one whose cell stays a contraction, so that grad V vanishes at the equilibrium
alone and the statement holds from every start, one with free weights, of which it may not, and a multiscale one (two
branches, group norm, ReLU, a Jacobian penalty; the architecture of the papers), of which nothing is known beforehand.
In double precision ``--starts`` random states (Gaussian, three times the size of the equilibria), one per test image,
follow dz/dt = g by Euler steps, halved where V does not fall, or plain. Counted: the steps at which V rises, the starts
that arrive, and those whose end is the equilibrium that the solver finds; with the alpha of the training, and with one
so large that the projection is at work. Last, how far the last layer is from orthogonal.
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
from benchmarks.attacks.contestants import MULTISCALE, PENALTY
from benchmarks.attacks.digits import digits
from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, over_seeds, show
from benchmarks.trainings import classifier
from jiio.layout import Spec, Tree, map_tree
from jiio.models import ClassifierHead, DenseCell, LyapunovCell
from jiio.tasks.classify.data import load_labelled
from jiio.tasks.classify.networks import NetworkConfig
from jiio.tasks.frame.choices import Choice
from jiio.tasks.frame.config import WarmConfig

LENGTH = 0.5
ARRIVED = 1e-6  # |F|
PART = 100  # steps between two looks at who has arrived
LOOKED = 20  # samples whose spectral radius is told
ORTHOGONAL = "largest entry of |W W^T - 1|, last layer"


@dataclass(frozen=True)
class Kind:
    """A network. defence: beside LyaDEQ. batch: images of a step. warm: steps as five layers, before those of an
    equilibrium, which are ``share`` of what ``--steps`` says.
    """

    cell: Choice
    defence: tuple[Choice, ...] = ()
    batch: int = 100
    warm: int = 0
    share: float = 1.0


def dense(scaling: str) -> Choice:
    """64 units, and how their weights are held."""
    return Choice("Dense", {"features": 64, "gain": 0.8, "scaling": scaling})


KINDS = {
    "contracting": Kind(dense("spectral")),
    "free": Kind(dense("none")),
    # A step of it costs twenty of the others.
    "multiscale": Kind(MULTISCALE, (PENALTY,), batch=32, warm=120, share=0.12),
}


@dataclass(frozen=True)
class Case:
    """A row: which network, the alpha of its field, and how often a step may be halved."""

    kind: str
    alpha: float = 0.1
    halvings: int = 10


CASES = {
    "contracting": Case("contracting"),
    "contracting, plain steps": Case("contracting", halvings=0),
    "contracting, alpha 1": Case("contracting", alpha=1.0),
    "free": Case("free"),
    "free, plain steps": Case("free", halvings=0),
    "multiscale": Case("multiscale"),
    "multiscale, plain steps": Case("multiscale", halvings=0),
    "multiscale, alpha 1": Case("multiscale", alpha=1.0),
}


def trained(name: str, seed: int, options: argparse.Namespace) -> tuple[jiio.EquilibriumModel, Tensor, Tensor]:
    """The network in double precision, as many test images as there are starts, and their labels."""
    kind = KINDS[name]
    network = NetworkConfig(kind.cell, Choice("Anderson", {"memory": 4}))
    warm = 40 if options.fast and kind.warm else kind.warm
    steps = warm + max(1, round(kind.share * (50 if options.fast else options.steps)))
    defence = (*kind.defence, Choice("Lyapunov"))

    folder = options.cache / f"lyapunov-{name}-{seed}"
    plan = {"steps": steps, "test": options.starts, "batch": kind.batch, "warm": WarmConfig(warm, 5)}
    config = digits(folder, network, seed=seed, defence=defence, **plan)
    model = classifier(config, options.data_root).double().eval()
    data = load_labelled(config.data, data_root=options.data_root)
    return model, data.test.double(), data.test_labels


@dataclass(frozen=True)
class Flow:
    """Where all starts went. end: (B, n). rose: (B,) whether V rose at some step. rises, moves: steps of all starts."""

    end: Tensor
    rose: Tensor
    rises: int
    moves: int


def flow(cell: LyapunovCell, start: Tree, u: Tree, halvings: int, limit: int) -> Flow:
    """Follow dz/dt = g from ``start``, a state (B, ...), for at most ``limit`` steps."""
    spec = Spec.of(start)
    end = spec.pack(start).clone()
    left, steps, rises, moves = torch.arange(len(end)), 0, 0, 0
    rose = torch.zeros(len(end), dtype=torch.bool)

    while len(left) and steps < limit:
        # In parts, so that those who have arrived cost nothing any more.
        part = min(PART, limit - steps)
        now, own = spec.unpack(end[left]), map_tree(lambda leaf, mine=left: leaf[mine], u)
        state, values, sizes = cell.trajectory(now, own, steps=part, length=LENGTH, halvings=halvings)
        end[left] = spec.pack(state)

        # A rise counts while the state still moves: at the equilibrium it would be rounding.
        moving = sizes[:-1] > ARRIVED
        up = (values[1:] > values[:-1]) & moving
        rises, moves, steps = rises + int(up.sum()), moves + int(moving.sum()), steps + part
        rose[left] |= up.any(0)
        left = left[sizes[-1] > ARRIVED]
    return Flow(end, rose, rises, moves)


def solved(cell: LyapunovCell, u: Tree, seed: int) -> tuple[jiio.Solution, Tree]:
    """The equilibria, and as many random states, three times as large."""
    tight = jiio.Tolerance(1e-11, 1e-11)
    settings = {"adjoint": jiio.Detached(), "tolerance": tight, "max_steps": 500, "on_failure": "ignore"}
    solution = jiio.equilibrium(cell.cell, u, **settings)  # type: ignore[arg-type]

    spec = Spec.of(solution.z)
    packed = spec.pack(solution.z)
    size = packed.square().mean(1, keepdim=True).sqrt()
    draw = torch.Generator().manual_seed(seed)
    return solution, spec.unpack(3.0 * size * torch.randn(packed.shape, generator=draw, dtype=packed.dtype))


def follow(name: str, seed: int, options: argparse.Namespace) -> Row:
    """All starts along the flow, for one of the cases."""
    case = CASES[name]
    model, x, labels = trained(case.kind, seed, options)
    cell, head = model.cell, model.head
    assert isinstance(cell, LyapunovCell) and isinstance(head, ClassifierHead)
    row: Row = {"seed": seed, "cell": name}

    if isinstance(cell.cell, DenseCell):
        row["spectral norm of W"] = float(torch.linalg.matrix_norm(cell.cell.weight.detach(), 2))
        if case.kind == "contracting":
            remove_parametrizations(cell.cell, "weight")  # training is over: no singular values at every call any more
    cell.alpha = case.alpha
    with torch.no_grad():
        u = model.inject(x)
        solution, start = solved(cell, u, seed)
        row["right, %"] = 100 * float((head(solution.z).argmax(1) == labels).double().mean())
        went = flow(cell, start, u, case.halvings, 200 if options.fast else options.limit)
        row |= counted(cell, u, start, went, solution)

    row["spectral radius"] = radius(cell, solution, u)
    last = head.linear.weight.detach().float()
    return row | {ORTHOGONAL: float((last @ last.t() - torch.eye(len(last))).abs().max())}


def radius(cell: LyapunovCell, solution: jiio.Solution, u: Tree) -> float:
    """The largest spectral radius of J_z at the first equilibria that the solver has found; NaN where there is none."""
    some = solution.converged.nonzero()[:LOOKED, 0]
    if not len(some):
        return float("nan")
    z, own = (map_tree(lambda leaf: leaf[some], tree) for tree in (solution.z, u))
    draw = torch.Generator().manual_seed(0)
    return float(jiio.spectral_radius(cell.cell, z, own, generator=draw).max())


@torch.no_grad()
def counted(cell: LyapunovCell, u: Tree, start: Tree, went: Flow, solution: jiio.Solution) -> Row:
    """The figures of one flow."""
    spec = Spec.of(start)
    # alpha is at work at a start where V would not fall fast enough by itself: grad V . F > -alpha V.
    field, value, gradient = cell.parts(start, u)
    falls = (gradient * field).sum(1) <= -cell.alpha * value
    final = cell.parts(spec.unpack(went.end), u)[0].norm(dim=1)
    arrived = final <= ARRIVED
    found = spec.pack(solution.z)
    near = (went.end - found).norm(dim=1) <= 1e-3 * found.norm(dim=1)

    return {
        "starts": len(found),
        "corrected at the start": int((~falls).sum()),
        "rises": went.rises,
        "of steps": went.moves,
        "starts with a rise": int(went.rose.sum()),
        "arrived": int(arrived.sum()),
        "same equilibrium": int((arrived & near & solution.converged).sum()),
        "solver converged": int(solution.converged.sum()),
        "largest |F|": float(final.max()),
    }


def run(options: argparse.Namespace, rows: Rows) -> None:
    """All cases of all seeds."""
    names = [name for name, case in CASES.items() if case.kind in options.cells]
    pairs = [(seed, name) for seed in range(options.seeds) for name in names]
    found = [rows.each(f"{name}/{seed}", follow, name, seed, options) for seed, name in pairs]
    lines = over_seeds(sorted(found, key=lambda row: names.index(row["cell"])), "cell", digits=6)
    show(f"{options.starts} random starts: median (range) of {options.seeds} seeds", lines)


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=3, fast={"seeds": 1, "starts": 40})
    made.chosen("--cells", list(KINDS), list(KINDS), "networks")
    made.number("--starts", 1000, "random starts per seed")
    made.number("--steps", 200, "training steps, of which the multiscale network makes a share")
    made.number("--limit", 1200, "steps of a trajectory")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
