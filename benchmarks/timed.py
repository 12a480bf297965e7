"""A training that ends after so many seconds of the processor: equal budgets, whatever a step costs."""

from __future__ import annotations

import math
import time

import torch
from torch import nn

from jiio.outputs.seeds import derive
from jiio.tasks.frame.task import AbstractTask

WARM = 25  # steps over which the rate rises; then it falls along half a cosine


def train_for(seconds: float, task: AbstractTask, model: nn.Module, seed: int, rate: float) -> int:
    """Train ``model`` by Adam with clipped gradients; returns the number of steps."""
    optimiser = torch.optim.Adam(model.parameters(), rate)
    begin, step = time.process_time(), 0
    while (gone := (time.process_time() - begin) / seconds) < 1.0:
        torch.manual_seed(derive(seed, "step", step))
        optimiser.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / WARM) * 0.5 * (1 + math.cos(math.pi * gone))
        optimiser.zero_grad(set_to_none=True)
        task.loss(model, step)[0].backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        step += 1
    return step
