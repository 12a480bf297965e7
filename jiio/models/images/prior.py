"""A learned energy of images, read off an equilibrium: what one trained network says about any image of any size.

    E(x, s) = 1/2 |R(z*)|^2,    z* = f(z*, x, s),

with R the head of the network: a small residual R means a likely image at noise level s. Its gradient step
``x - grad E(x, s)`` is trained to be a denoiser (Hurault, Leclaire and Papadakis 2022, whose network is a feed-forward
U-Net), and the energy then serves every inverse problem: minimise fidelity(x) + weight E(x, s) over the image x itself,
with state, multiplier and image solved together by :func:`jiio.solve`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...adjoints import Implicit
from ...checks import check_choice, check_instance, check_integer, check_number, fail
from ...persample import rows_of
from ...problem import Problem
from ...prox import AbstractProx, Identity
from ...solution import Solution
from ..equilibrium import EquilibriumModel
from ..layers import check_image
from .parts import SMOOTH_ACTIVATIONS, LevelInjection, ResidualHead, TwoScaleCell

MAX_SIZE = 65_536  # a slip of the hand, or a stranger's file, must not fill the memory


@dataclass(frozen=True)
class ImagePriorConfig:
    """Sizes of an :class:`ImagePrior`.

    channels: of the images, 1 or 3. features: of the state, at half the resolution of the image. wide, depth: of the
    body at a quarter of it. activation: a smooth one.
    """

    channels: int = 1
    features: int = 64
    wide: int = 96
    depth: int = 2
    activation: str = "elu"

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            fail("channels", "1 (grey) or 3 (colour)", self.channels)
        for name in ("features", "wide", "depth"):
            if check_integer(name, getattr(self, name), 1) > MAX_SIZE:
                fail(name, f"at most {MAX_SIZE:,}", f"{getattr(self, name):,}")
        check_choice("activation", self.activation, SMOOTH_ACTIVATIONS)


class _AtLevel(nn.Module):
    """The injection at one noise level (B,) or ()."""

    level: Tensor

    def __init__(self, inject: LevelInjection, level: Tensor) -> None:
        super().__init__()
        self.inject = inject
        self.register_buffer("level", level, persistent=False)

    def rows(self, index: Tensor) -> _AtLevel:
        """The samples ``index`` (k,), at their levels."""
        level = self.level
        return _AtLevel(self.inject, level if level.numel() == 1 else level.index_select(0, index.to(level.device)))

    def forward(self, x: Tensor) -> Tensor:
        return self.inject(x, self.level.expand(len(x)))  # type: ignore[operator]


class Posterior:
    """(R, x) -> fidelity(x) + weight |R|^2 / 2, the objective of an image; R, the residual, (B, ...)."""

    def __init__(self, fidelity: Callable[[Tensor], Tensor], weight: float) -> None:
        self.fidelity, self.weight = fidelity, weight

    def __call__(self, residual: Tensor, x: Tensor) -> Tensor:
        return self.fidelity(x) + (0.5 * self.weight) * residual.square().flatten(1).sum(1)

    def rows(self, index: Tensor) -> Posterior | None:
        """The samples ``index`` (k,), where the fidelity offers that."""
        fidelity = rows_of(self.fidelity, index)
        return None if fidelity is None else Posterior(fidelity, self.weight)


class ImagePrior(nn.Module):
    """The network behind the energy. Images are (B, channels, H, W) in [0, 1], of any size.

    config: its sizes; None for the defaults.
    """

    def __init__(self, config: ImagePriorConfig | None = None) -> None:
        super().__init__()
        self.config: ImagePriorConfig = check_instance("config", config or ImagePriorConfig(), ImagePriorConfig)
        config = self.config
        self.inject = LevelInjection(config.channels, config.features)
        self.cell = TwoScaleCell(config.features, wide=config.wide, depth=config.depth, activation=config.activation)
        self.head = ResidualHead(config.features, config.channels)

    def at(self, level: float | Tensor, **options: Any) -> EquilibriumModel:
        """The equilibrium model x -> R(z*) at noise level(s) ``level``, () or (B,), with these very weights.

        options: the solve settings of :class:`jiio.models.EquilibriumModel`.
        """
        if not isinstance(level, Tensor):
            level = torch.tensor(check_number("level", level, 0.0))
        levels = level.to(self.head.conv.weight)
        return EquilibriumModel(_AtLevel(self.inject, levels), self.cell, self.head, **options)

    def energy(self, z: Tensor) -> Tensor:
        """1/2 |R(z)|^2 per image, (B,)."""
        return 0.5 * self.head(z).square().flatten(1).sum(1)

    def unrolled(self, x: Tensor, level: Tensor, steps: int) -> tuple[Tensor, Tensor, Tensor]:
        """(R(z), z, u) for images x (B, C, H, W) at noise ``level``, a number or (B,), after ``steps`` plain iterations
        from z = u, with the graph of all of them: for training.
        """
        u = self.inject(x, level)
        z = u
        for _ in range(check_integer("steps", steps, 1)):
            z = self.cell(z, u)
        return self.head(z), z, u

    def gradient_step(self, x: Tensor, level: float | Tensor, **options: Any) -> tuple[Tensor, Solution]:
        """x - grad E(x, level), at the converged equilibrium, and the equilibrium; no gradients to the parameters.

        Where 4 does not divide the sides, the step is taken on x continued by reflection, and cut. (The gradient of
        E itself would gather on the last row and column what belongs to their copies, up to four times a step.)

        options: as in :meth:`jiio.models.EquilibriumModel.solve`; the multiplier is solved for to the tolerance of the
        state.
        """
        model = self.at(level)
        height, width = check_image("x", x, self.config.channels).shape[2:]
        mode = "reflect" if min(height, width) > 3 else "replicate"
        x = F.pad(x.detach(), (0, -width % 4, 0, -height % 4), mode=mode)
        with torch.enable_grad():
            leaf = x.requires_grad_()
            adjoint = Implicit(tolerance=options.get("tolerance", model.tolerance))
            solution = model.solve(leaf, **({"adjoint": adjoint} | options))
            (gradient,) = torch.autograd.grad(self.energy(solution.z).sum(), leaf)
        return (x.detach() - gradient)[..., :height, :width], solution

    def problem(
        self,
        fidelity: Callable[[Tensor], Tensor],
        *,
        level: float | Tensor,
        weight: float = 1.0,
        prox: AbstractProx | None = None,
    ) -> Problem:
        """For :func:`jiio.solve`: minimise fidelity(x) + weight E(x, level) over images x.

        fidelity: x (B, C, H, W) -> (B,). prox: a constraint on x, such as ``jiio.Box(0, 1)``.
        """

        check_number("weight", weight, 0.0)
        return self.at(level).problem(Posterior(fidelity, weight), Identity() if prox is None else prox)
