"""What does fitting a latent code of a trained feed-forward decoder cost?

    python -m benchmarks.engine.explicit --output explicit.json
    # about 3 minutes; --fast: 1

A decoder (latent -> tanh layers -> pixels) is trained as an autoencoder on blurred ellipses, then 32 held-out images
are fitted. Calls (of the decoder, and VJPs) until the median and 95 % of the images are within 1 % of the best that any
method finds: Adam at the best of a grid of rates (1,000 steps each), torch's L-BFGS one image at a time, and
``jiio.Problem.explicit``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

import jiio
from benchmarks.harness import Parser, main
from benchmarks.rows import Rows
from benchmarks.tables import Row, show

LATENT, SIDE = 12, 12
RATES = (0.01, 0.03, 0.1, 0.3, 1.0)


def shapes(count: int, draw: torch.Generator) -> Tensor:
    """Blurred ellipses (count, SIDE * SIDE)."""
    axis = torch.linspace(-1, 1, SIDE)
    u, v = torch.meshgrid(axis, axis, indexing="ij")
    middle = 0.8 * torch.rand(count, 2, 1, 1, generator=draw) - 0.4
    width = 0.2 + 0.5 * torch.rand(count, 2, 1, 1, generator=draw)
    reach = ((u - middle[:, 0]) / width[:, 0]).square() + ((v - middle[:, 1]) / width[:, 1]).square()
    return torch.sigmoid(6 * (1 - reach)).flatten(1)


def trained(steps: int, seed: int) -> nn.Module:
    """The decoder of an autoencoder."""
    torch.manual_seed(seed)
    pixels = SIDE * SIDE
    encoder = nn.Sequential(nn.Linear(pixels, 96), nn.Tanh(), nn.Linear(96, LATENT))
    decoder = nn.Sequential(nn.Linear(LATENT, 96), nn.Tanh(), nn.Linear(96, 96), nn.Tanh(), nn.Linear(96, pixels))
    optimiser = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 2e-3)
    draw = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        y = shapes(128, draw)
        code = encoder(y)
        loss = (decoder(code) - y).square().sum(1).mean() + 1e-2 * code.square().sum(1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return decoder.eval().requires_grad_(False)


def adam(loss: Callable[[Tensor], Tensor], x0: Tensor, rate: float, steps: int) -> Tensor:
    """The loss (steps, B) at every step."""
    x = x0.clone().requires_grad_()
    optimiser, seen = torch.optim.Adam([x], rate), []
    for _ in range(steps):
        optimiser.zero_grad()
        value = loss(x)
        seen.append(value.detach())
        value.sum().backward()
        optimiser.step()
    return torch.stack(seen)


def lbfgs(loss: Callable[[Tensor], Tensor], x0: Tensor, calls: int) -> Tensor:
    """Of torch's, image by image: the best loss (calls, B) after so many calls."""
    columns = []
    for i in range(len(x0)):
        x = x0[i : i + 1].clone().requires_grad_()
        seen: list[Tensor] = []
        optimiser = torch.optim.LBFGS([x], max_iter=calls, max_eval=calls, line_search_fn="strong_wolfe")

        def closure(i: int = i, x: Tensor = x, seen: list[Tensor] = seen) -> Tensor:
            x.grad = None
            value = loss(x.expand(len(x0), -1))[i : i + 1]
            seen.append(value.detach())
            value.sum().backward()
            return value.sum()

        optimiser.step(closure)
        row = torch.cat(seen)[:calls]
        columns.append(torch.cat([row, row.min().expand(calls - len(row))]))
    return torch.stack(columns, dim=1)


def ours(loss: Callable[[Tensor], Tensor], decoder: nn.Module, x0: Tensor, y: Tensor, steps: int) -> Tensor:
    """Of jiio.solve: the objective (T, B) after every call."""
    problem = jiio.Problem.explicit(decoder, lambda z, x: (z - y).square().sum(1) + 1e-2 * x.square().sum(1))
    tight = jiio.Tolerance(1e-7, 1e-6)
    solution = jiio.solve(problem, x0, max_steps=steps, trace=True, tolerance=tight, on_failure="ignore")
    assert solution.trace is not None
    return solution.trace.value


def calls_to(seen: Tensor, best: Tensor, share: float) -> float:
    """Calls (an evaluation and a VJP each) until ``share`` of the images are within 1 % of the best."""
    there = seen.cummin(0).values <= 1.01 * best
    first = torch.where(there.any(0), there.int().argmax(0) + 1.0, float("inf"))
    return 2 * float(first.quantile(share, interpolation="higher"))


def measured(steps: int, images: int, seed: int) -> Row:
    """One seed: calls of every method."""
    decoder = trained(steps, seed)
    y = shapes(images, torch.Generator().manual_seed(1000 + seed))
    x0 = torch.zeros(images, LATENT)

    def loss(x: Tensor) -> Tensor:
        return (decoder(x) - y).square().sum(1) + 1e-2 * x.square().sum(1)

    runs = {f"Adam, rate {rate:g}": adam(loss, x0, rate, 1000) for rate in RATES}
    runs["L-BFGS"] = lbfgs(loss, x0, 200)
    runs["jiio"] = ours(loss, decoder, x0, y, 300)
    best = torch.stack([run.min(0).values for run in runs.values()]).amin(0)
    figures: Row = {name: [calls_to(run, best, 0.5), calls_to(run, best, 0.95)] for name, run in runs.items()}
    return dict(figures)


def run(options: argparse.Namespace, rows: Rows) -> Row:
    """Every seed."""
    found = []
    for seed in range(options.seeds):
        row = rows.each(f"seed {seed}", measured, options.steps, options.images, seed)
        adams = [figures for name, figures in row.items() if name.startswith("Adam")]
        best = min(adams, key=lambda figures: figures[1])
        found.append({"seed": seed, "Adam, best rate": best, "L-BFGS": row["L-BFGS"], "jiio": row["jiio"]})
    show("Calls of decoder and VJP until [half, 95 %] of the images are within 1 % of the best", found)
    return {"rates": RATES}


def command(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    made = Parser(__doc__, __file__, seeds=3, fast={"steps": 300, "seeds": 1})
    made.number("--steps", 1500, "steps of training")
    made.number("--images", 32, "images that are fitted")
    return main(made, run, argv)


if __name__ == "__main__":
    sys.exit(command())
