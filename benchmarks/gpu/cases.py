"""The problems that are timed on a device, and what a step of one cannot avoid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import jiio
from benchmarks.engine.overhead import Case, attack, fit
from benchmarks.gpu.stages import Setting
from jiio.layout import leaves, map_tree
from jiio.models import DenseConfig, MultiscaleConfig

SMALL = MultiscaleConfig(
    channels=(4, 4), expansion=1, groups=2, fusion_groups=2, head_channels=(2, 2), final_channels=4
)
# Name -> batch. The multiscale ones are the presets; a name that begins with "decoder" is a fit, the others attacks.
BATCHES = {"dense": 256, "tiny": 64, "cifar-tiny": 128, "cifar-large": 128, "decoder-64": 32, "decoder-small": 64}
IMAGES = {"tiny": (1, 28, 28), "decoder-64": (3, 64, 64), "decoder-small": (1, 24, 24)}


def case(name: str, setting: Setting) -> Case:
    """One problem on the device; of another size, for a rehearsal, with --fast."""
    draws = torch.Generator().manual_seed(0)
    batch = 4 if setting.fast else BATCHES[name]
    image = IMAGES.get(name, (3, 32, 32))
    if name == "dense":
        made = fit(name, DenseConfig(32 if setting.fast else 512), (1, 24, 24), batch, draws)
    elif name.startswith("decoder"):
        cell, image = (SMALL, (1, 12, 12)) if setting.fast else (name, image)
        made = fit(name, cell, image, batch, draws)
    else:
        cell, image = (SMALL, (1, 12, 12)) if setting.fast else (name, image)
        made = attack(name, cell, image, batch, draws)
    return moved(made, setting.device)


def moved(case: Case, device: torch.device) -> Case:
    """The same case on a device."""
    image, latent = case.problem.prox, case.x0.to(device)
    cell: Any = case.problem.cell
    model = cell.module.to(device)
    if isinstance(image, jiio.L2Ball):
        classes = torch.arange(len(latent), device=device) % 10
        loss = partial(cross_entropy, classes)
        return Case(case.name, replace(model.problem(loss), prox=jiio.L2Ball(1.0, center=latent)), latent)
    return Case(case.name, model.problem(partial(misfit, model, latent)), latent)


def cross_entropy(classes: Tensor, scores: Tensor, _: Any) -> Tensor:
    return -F.cross_entropy(scores, classes, reduction="none")


def misfit(model: Any, like: Tensor, image: Tensor, x: Tensor) -> Tensor:
    return (image - 0.5).square().flatten(1).sum(1) + 1e-2 * x.square().sum(1)


def bare_step(case: Case) -> Callable[[], list[Tensor]]:
    """One evaluation and one VJP: what a step cannot avoid. A new result at every call."""
    cell: Any = case.problem.cell
    z0 = cell.initial_state(case.x0)
    z, mu = (map_tree(lambda leaf: 0.1 * torch.randn_like(leaf), z0) for _ in range(2))
    ones = case.x0.new_ones(len(case.x0))

    def step() -> list[Tensor]:
        zs, x = map_tree(lambda leaf: leaf.detach().requires_grad_(), z), case.x0.detach().requires_grad_()
        out, value = case.problem.cell(zs, x), case.problem.objective(zs, x)
        pulled = torch.autograd.grad([*leaves(out), value], [*leaves(zs), x], [*leaves(mu), ones], allow_unused=True)
        return [t for t in pulled if t is not None]

    return step
