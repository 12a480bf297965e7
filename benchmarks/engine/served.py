"""Default solves of fixed problems, timed one by one as they are asked for, with whatever ``jiio`` is on the path.

It is run by :mod:`benchmarks.engine.before_after` in a process for each state of the code, so it knows nothing of this
state but the public names that all of them have.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

import jiio
from jiio.models import DenseConfig, ModelConfig, build

Posed = tuple[jiio.Problem, Tensor]
SIDE, LATENT = 24, 16
PRIOR = 1e-2


def posed(cell: Any, batch: int, weights: dict[str, Tensor] | None = None) -> Posed:
    """Latent codes of ``batch`` images; the weights, the images and their mean are random where none are given."""
    torch.manual_seed(0)
    model = build(ModelConfig(cell, (LATENT,), "image", (1, SIDE, SIDE), "none"))
    y, mean = torch.rand(batch, 1, SIDE, SIDE), torch.zeros(1, SIDE, SIDE)
    if weights is not None:
        y, mean = weights.pop("images")[:batch], weights.pop("mean")
        model.load_state_dict(weights)
    model.eval().requires_grad_(False)

    def objective(made: Tensor, x: Tensor) -> Tensor:
        return (made + mean - y).square().flatten(1).sum(1) + PRIOR * x.square().sum(1)

    return model.problem(objective), torch.zeros(len(y), LATENT)


def cases(weights: Path, tiny: Any) -> dict[str, Posed]:
    """The three networks; ``weights``: of the trained decoder."""
    dense = DenseConfig(96, gain=0.7)
    return {"tiny": posed(tiny, 16), "dense 96": posed(dense, 32), "decoder": posed(dense, 32, load_file(weights))}


def serve(weights: Path) -> None:
    """For every name that comes in, one line of JSON: seconds of the processor, calls, steps, and where it ended."""
    torch.set_num_threads(1)
    from jiio.models import MultiscaleConfig

    held = cases(weights, MultiscaleConfig.preset("tiny"))
    for line in sys.stdin:
        problem, x0 = held[line.strip()]
        begin = time.process_time()
        found = jiio.solve(problem, x0, on_failure="ignore")
        seconds = time.process_time() - begin
        spent = found.evaluations
        told = {"seconds": seconds, "evaluations": spent.cell, "VJPs": spent.vjp, "steps": int(found.steps.max())}
        told |= {"objective": float(found.value.mean()), "converged": float(found.converged.float().mean())}
        print(json.dumps(told), flush=True)
