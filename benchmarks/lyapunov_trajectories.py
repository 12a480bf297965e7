"""Does the Lyapunov function fall, and does the state arrive? Tested, not assumed, on trained LyaDEQs.

Two LyaDEQs are trained on MNIST at 14 x 14: one whose cell stays a contraction, so that grad V vanishes at the
equilibrium alone and the statement holds from every start, and one with free weights, of which it may not. In double
precision ``--starts`` random states (Gaussian, three times the size of the equilibria), one per test image, follow
dz/dt = g by Euler steps, halved where V does not fall, or plain. Counted: the steps at which V rises, the starts that
arrive, and those whose end is the equilibrium that the solver finds; with the alpha of the training, and with one so
large that the projection is at work. Last, how far the last layer is from orthogonal.

    python benchmarks/lyapunov_trajectories.py --cache FOLDER --output lyapunov_trajectories.json
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from harness import Row, kept, main, parser, positive, say, show
from torch import Tensor
from torch.nn.utils.parametrize import remove_parametrizations

import jiio
from jiio.models import ClassifierHead, DenseCell, LyapunovCell
from jiio.tasks.classify.data import ClassifyDataConfig, load_labelled
from jiio.tasks.classify.networks import NetworkConfig
from jiio.tasks.classify.task import Classify, ClassifyConfig
from jiio.tasks.frame.choices import Choice
from jiio.tasks.frame.config import OptimiserConfig
from jiio.tasks.frame.loop import train

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
    config = ClassifyConfig(
        output=str(options.cache / f"lyapunov-{scaling}-{seed}"),
        seed=seed,
        steps=50 if options.fast else 200,
        checkpoint_every=100,
        optimiser=OptimiserConfig(rate=5e-3, warmup=20),
        data=ClassifyDataConfig("mnist", 14, batch_size=100, train_limit=20_000, test_limit=options.starts),
        model=NetworkConfig(cell, Choice("Anderson", {"memory": 4})),
        defence=(Choice("Lyapunov"),),
    )
    model = Classify.network(train(config, resume=True, data_root=options.data_root, report=lambda line: None))
    assert isinstance(model, jiio.EquilibriumModel)
    return model.double().eval(), load_labelled(config.data, data_root=options.data_root).test.double()


@torch.no_grad()
def follow(name: str, seed: int, options: argparse.Namespace) -> Row:
    """All starts along the flow, for one of the cases."""
    scaling, alpha, halvings = CASES[name]
    with torch.enable_grad():
        model, x = trained(scaling, seed, options)
    cell, head = model.cell, model.head
    assert isinstance(cell, LyapunovCell) and isinstance(cell.cell, DenseCell) and isinstance(head, ClassifierHead)
    weight = cell.cell.weight.detach().clone()
    if scaling == "spectral":
        remove_parametrizations(cell.cell, "weight")  # training is over: no singular values at every call any more
    last = head.linear.weight.float()
    cell.alpha = alpha
    u = model.inject(x)
    tight = jiio.Tolerance(1e-11, 1e-11)
    solution = jiio.equilibrium(
        cell.cell, u, adjoint=jiio.Detached(), tolerance=tight, max_steps=500, on_failure="ignore"
    )
    size = solution.z.square().mean(1, keepdim=True).sqrt()
    draw = torch.Generator().manual_seed(seed)
    start = 3.0 * size * torch.randn(solution.z.shape, generator=draw, dtype=torch.float64)
    end, left, steps, rises, moves = start.clone(), torch.arange(len(x)), 0, 0, 0
    rose = torch.zeros(len(x), dtype=torch.bool)
    while len(left) and steps < (200 if options.fast else LIMIT):
        # In parts, so that those who have arrived cost nothing any more.
        end[left], values, sizes = cell.trajectory(end[left], u[left], steps=100, length=LENGTH, halvings=halvings)
        moving = sizes[:-1] > ARRIVED
        up = (values[1:] > values[:-1]) & moving
        rises, moves, steps = rises + int(up.sum()), moves + int(moving.sum()), steps + 100
        rose[left] |= up.any(0)
        left = left[sizes[-1] > ARRIVED]
    field, value, gradient = cell.parts(start, u)
    falls = (gradient * field).sum(1) <= -cell.alpha * value
    final = cell.parts(end, u)[0].norm(dim=1)
    arrived = final <= ARRIVED
    near = (end - solution.z).norm(dim=1) <= 1e-3 * solution.z.norm(dim=1)
    row: Row = {
        "seed": seed,
        "cell": name,
        "spectral norm": float(torch.linalg.matrix_norm(weight, 2)),
        "corrected at the start": int((~falls).sum()),
        "rises": rises,
        "of steps": moves,
        "starts with a rise": int(rose.sum()),
        "arrived": int(arrived.sum()),
        "same equilibrium": int((arrived & near & solution.converged).sum()),
        "solver converged": int(solution.converged.sum()),
        "starts": len(x),
        "largest |F|": float(final.max()),
        "orthogonality": float((last @ last.t() - torch.eye(len(last))).abs().max()),
    }
    say(f"{name}, seed {seed}: {row['arrived']} of {len(x)} arrived")
    return row


def run(options: argparse.Namespace) -> Row:
    """All cases of all seeds; every one of them is kept in the cache."""
    options.cache = options.cache or Path("lyapunov-trajectories")
    rows: list[Row] = []
    for seed in range(options.seeds):
        for place, name in enumerate(CASES):
            case = f"case-{place}-{seed}"
            rows.append(kept(options.cache, case, lambda name=name, seed=seed: follow(name, seed, options)))
    show(f"{options.starts} random starts; orthogonality: largest entry of |W W^T - 1| of the last layer", rows)
    return {"rows": rows}


if __name__ == "__main__":
    made = parser(__doc__, seeds=3)
    made.add_argument("--starts", type=positive, default=1000, help="random starts per seed (default 1000)")
    sys.exit(main(made, run))
