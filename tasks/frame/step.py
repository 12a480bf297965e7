"""One update of the weights: the rate of the step, the gradient, and what is looked at before anything moves."""

from __future__ import annotations

import math

import torch
from torch import nn

from jiio.checks import JiioError

from .config import OptimiserConfig, RunConfig
from .parts import Parts
from .ranks import Ranks
from .task import AbstractTask

ADVICE = "Lower optimiser.rate, or begin again with another seed; the last checkpoint stands."
ALONE = Ranks()
POWER = 0.9  # of the polynomial schedule, as in DeepLab and HRNet


class TrainingError(JiioError, RuntimeError):
    """The training cannot go on."""


def training_step(
    config: RunConfig,
    task: AbstractTask,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    step: int,
    ranks: Ranks = ALONE,
) -> dict[str, float]:
    """One update of the weights; everything random in it follows from (seed, step). Returns: figures for the log."""
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(config.optimiser, step, config.steps)

    # Both are looked at before the weights move: the last checkpoint stays the last good state.
    value, figures = Parts(task, model, config.seed, ranks, config.accumulate).gradient(step)
    if not math.isfinite(value):
        raise TrainingError(f"step {step}: the loss is {value}. {ADVICE}")
    norm = float(nn.utils.clip_grad_norm_(model.parameters(), config.optimiser.clip))
    if not math.isfinite(norm):
        raise TrainingError(f"step {step}: the norm of the gradient is {norm}. {ADVICE}")

    optimiser.step()
    return {"loss": value, "gradient_norm": norm, "rate": optimiser.param_groups[0]["lr"], **figures}


def learning_rate(config: OptimiserConfig, step: int, steps: int) -> float:
    """A linear rise over the first ``warmup`` steps, then from ``rate`` down to ``final_rate`` along half a cosine, or
    by a power of what is left.
    """
    if step < config.warmup:
        return config.rate * (step + 1) / config.warmup
    through = (step - config.warmup) / (steps - config.warmup)
    left = 0.5 * (1.0 + math.cos(math.pi * through)) if config.schedule == "cosine" else (1.0 - through) ** POWER
    return config.final_rate + (config.rate - config.final_rate) * left


def build_optimiser(model: nn.Module, config: OptimiserConfig) -> torch.optim.Optimizer:
    """The method of the configuration; the schedule sets the rate before every step.

    Adam has decoupled weight decay, gradient descent has it in the gradient, as those who trained by it did.
    """
    if config.method == "sgd":
        rate, decay = config.rate, config.weight_decay
        return torch.optim.SGD(model.parameters(), rate, config.momentum, weight_decay=decay, nesterov=True)
    return torch.optim.AdamW(model.parameters(), lr=config.rate, weight_decay=config.weight_decay)
