"""The exact gradient through a solve: how the optimum moves with a parameter, beside the first-order gradient.

python docs/gallery/gradient.py [FOLDER]
"""

from __future__ import annotations

from pathlib import Path

import torch
from show import folder, pyplot, save

import jiio

torch.manual_seed(0)
torch.set_default_dtype(torch.float32)
W = 0.5 * torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q
U, TARGET, WISH = (torch.randn(*shape, dtype=torch.float64) for shape in ((6, 3), (1, 6), (1, 6)))
TIGHT = jiio.Tolerance(1e-10, 1e-10)


def outer(gain: torch.Tensor, adjoint: jiio.AbstractAdjoint) -> torch.Tensor:
    """A loss on the state at the optimum, which is not what the optimum minimises."""
    problem = jiio.Problem(
        lambda z, x: torch.tanh(gain * (z @ W.T) + x @ U.T),
        lambda z, x: (z - TARGET).square().sum(1) + 0.1 * x.square().sum(1),
        jiio.L2Ball(1.0),  # active at the optimum
    )
    start = torch.zeros(1, 3, dtype=torch.float64), torch.zeros(1, 6, dtype=torch.float64)
    done = jiio.solve(problem, *start, adjoint=adjoint, tolerance=TIGHT, max_steps=500)
    return (done.z - WISH).square().sum()


def main(where: Path) -> Path:
    gains = torch.linspace(0.2, 1.8, 33, dtype=torch.float64)
    losses = torch.stack([outer(gain, jiio.Detached()) for gain in gains])
    figure, axis = pyplot.subplots(figsize=(5.2, 3.6), layout="constrained")
    axis.plot(gains, losses, color="#1b1f24", label="loss at the optimum, re-solved")

    # Tangents at three places, by two adjoints.
    kinds = (
        ("exact: KKT()", jiio.KKT(rtol=1e-12, max_steps=200), "#3a7d44"),
        ("first order: Implicit()", jiio.Implicit(), "#c2571a"),
    )
    for name, adjoint, colour in kinds:
        for k, at in enumerate((0.5, 1.0, 1.5)):
            gain = torch.tensor(at, dtype=torch.float64, requires_grad=True)
            loss = outer(gain, adjoint)
            (slope,) = torch.autograd.grad(loss, gain)
            run = torch.linspace(-0.2, 0.2, 2, dtype=torch.float64)
            axis.plot(
                at + run, loss.detach() + slope * run, color=colour, linewidth=2.5, label=name if k == 0 else None
            )
    axis.set_xlabel("gain of the cell")
    axis.legend(frameon=False, fontsize=8)
    return save(where / "gradient.png", figure)


if __name__ == "__main__":
    main(folder())
