"""Adversarial training of a language model in the space of embeddings (Miyato, Dai and Goodfellow 2017; FreeLB, Zhu et
al. 2020).

A token is no number that one could change a little; its embedding is. The adversary moves every embedding x_t of a
segment inside a ball of its own, so that the model finds the text as surprising as possible:

    maximise  sum_t -log p(next token | x_1 + d_1, ..., x_t + d_t)    over  |d_t| <= radius * mean_s |x_s|

Relative to the length of the embeddings, because a model could make any fixed radius small by longer ones. The weights
then learn on x + d, at an equilibrium of its own with the gradient of the configuration (d is a constant).

:class:`JointAdversary` finds perturbation, states and adjoint in one solve; :class:`PGDAdversary` pays a converged
equilibrium and a converged adjoint for every step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

import jiio
from jiio.checks import check_integer, check_number
from jiio.layout import Tree
from jiio.models.sequences.model import AbstractSequenceModel, EquilibriumSequenceModel, Memory


@dataclass(frozen=True)
class TokenBalls(jiio.AbstractProx):
    """An L2 ball for every token: |x_t - center_t| <= radius. center (B, T, width). radius: a number or (B,)."""

    radius: Tensor | float
    center: Tree
    width: int

    def __post_init__(self) -> None:
        jiio.L2Ball(self.radius, self.center)  # checks both
        check_integer("TokenBalls.width", self.width, 1)

    def _tokens(self, x: Tensor) -> tuple[jiio.L2Ball, Tensor]:
        """The same ball around zero for each row, and the offsets of packed x (B, T * width) as rows (B * T, width)."""
        rows = (x - self.center).reshape(-1, self.width)
        radius = torch.as_tensor(self.radius, dtype=x.dtype, device=x.device).reshape(-1, 1).expand(len(x), 1)
        return jiio.L2Ball(radius.repeat_interleave(len(rows) // len(x), 0)), rows

    def apply(self, x: Tensor, step: Tensor | float) -> Tensor:
        ball, rows = self._tokens(x)
        return self.center + ball.apply(rows, step).view_as(x)

    def excess(self, x: Tensor) -> Tensor:
        ball, rows = self._tokens(x)
        return ball.excess(rows).view(len(x), -1).amax(1)

    def active(self, x: Tensor, gradient: Tensor) -> jiio.Active:
        ball, rows = self._tokens(x)
        slope = gradient.reshape(rows.shape)
        found = ball.active(rows, slope)
        (normal,) = found.normals
        # Each sphere bends the tokens of its own ball alone: gradient + force * normal = 0, token by token.
        square = normal.square().sum(1, keepdim=True)
        force = torch.where(square > 0, -(slope * normal).sum(1, keepdim=True) / square, torch.zeros_like(square))
        bend = force.clamp_min(0.0).expand_as(rows).reshape(x.shape)
        apart = torch.eye(len(rows) // len(x), dtype=x.dtype, device=x.device)[:, :, None]
        normals = tuple((normal.view(len(x), -1, self.width) * one).flatten(1) for one in apart)
        return jiio.Active(found.free.reshape(x.shape), normals, (0.0,) * len(normals), bend)


@dataclass(frozen=True)
class Found:
    """What an adversary made of a segment.

    x: embeddings (B, T, width), differentiable in those that they come from. evaluations, vjps: of the cell, what it
    took.
    """

    x: Tensor
    evaluations: int = 0
    vjps: int = 0


class AbstractAdversary:
    """Base: what becomes of the embeddings of a segment in a training step."""

    needs_equilibrium = True

    def find(self, body: AbstractSequenceModel, x: Tensor, memory: Memory | None, targets: Tensor) -> Found:
        """Embeddings (B, T, width) after ``memory``, whose next tokens are ``targets`` (B, T), perturbed."""
        raise NotImplementedError


@dataclass(frozen=True)
class Unperturbed(AbstractAdversary):
    """The embeddings as they are: beside an adversary they get half of the weight, as in Miyato et al."""

    needs_equilibrium = False

    def find(self, body: AbstractSequenceModel, x: Tensor, memory: Memory | None, targets: Tensor) -> Found:
        return Found(x)


@dataclass(frozen=True)
class JointAdversary(AbstractAdversary):
    """State, adjoint and perturbation in one solve of at most ``steps`` evaluations and as many VJPs.

    Args:
        radius: of the ball of a token, as a share of the mean length of the sample's embeddings
        steps: evaluations of the solve
        rate: of the step of the perturbation, in curvature-scaled units; in few steps a large one is stronger
        memory: of Anderson acceleration
    """

    radius: float = 0.3
    steps: int = 12
    rate: float = 3.0
    memory: int = 6

    def __post_init__(self) -> None:
        check_number("radius", self.radius, 0.0, open_low=True)
        check_integer("steps", self.steps, 2)
        check_number("rate", self.rate, 0.0, open_low=True)
        check_integer("memory", self.memory, 1)

    def find(self, body: AbstractSequenceModel, x: Tensor, memory: Memory | None, targets: Tensor) -> Found:
        start = x.detach()
        assert isinstance(body, EquilibriumSequenceModel)
        with at_rest(body):
            solution = jiio.solve(
                self.problem(body, start, memory, targets),
                start,
                solver=jiio.Anderson(memory=self.memory),
                rule=jiio.GradientStep(self.rate),
                # The weights learn at an equilibrium of their own, so nothing flows through this one.
                adjoint=jiio.Detached(),
                tolerance=body.at().tolerance,
                max_steps=self.steps,
                on_failure="ignore",
            )

        spent = solution.evaluations
        return Found(x + kept(solution.x - start), spent.cell, spent.vjp)

    def problem(
        self, body: EquilibriumSequenceModel, start: Tensor, memory: Memory | None, targets: Tensor
    ) -> jiio.Problem:
        """Least probability of ``targets`` (B, T) over embeddings in balls around ``start`` (B, T, width)."""
        return body.at(memory).problem(
            jiio.PerSample(lambda state, _, words: -body.tokens.surprise(state, words).sum(1), targets),
            TokenBalls(reach(start, self.radius), start, start.shape[2]),
        )


@dataclass(frozen=True)
class PGDAdversary(AbstractAdversary):
    """``steps`` steps of projected gradient ascent, each token along its own normalised gradient, with a converged
    equilibrium (from the last one on) and a converged adjoint for each; tolerances of the model.

    Args:
        radius: as in JointAdversary
        steps: how many
        step: length as a share of the radius (None: 2.5 / steps, at most 1)
    """

    radius: float = 0.3
    steps: int = 3
    step: float | None = None

    def __post_init__(self) -> None:
        check_number("radius", self.radius, 0.0, open_low=True)
        check_integer("steps", self.steps, 1)
        if self.step is not None:
            check_number("step", self.step, 0.0, open_low=True)

    def find(self, body: AbstractSequenceModel, x: Tensor, memory: Memory | None, targets: Tensor) -> Found:
        start = x.detach()
        assert isinstance(body, EquilibriumSequenceModel)
        balls = TokenBalls(reach(start, self.radius), start, start.shape[2])
        share = min(2.5 / self.steps, 1.0) if self.step is None else self.step
        length = share * reach(start, self.radius)[:, None, None]
        point, z, calls, vjps = start, None, 0, 0

        with at_rest(body), torch.enable_grad():
            equilibrium = body.at(memory)
            for _ in range(self.steps):
                unit, solution = steepest(body, equilibrium, point, z, targets)
                z = torch.where(torch.isfinite(solution.z), solution.z, 0.0).detach()
                point = balls(point + kept(length * unit))
                # The taped call of the gradient is an evaluation, and its pullback one product more.
                calls += solution.evaluations.cell
                vjps += solution.evaluations.adjoint_vjp + 1
        return Found(x + kept(point - start), calls, vjps)


def steepest(
    body: EquilibriumSequenceModel, equilibrium: jiio.EquilibriumModel, x: Tensor, z: Tensor | None, targets: Tensor
) -> tuple[Tensor, jiio.Solution]:
    """The direction (B, T, width) in which the surprise grows most, of length 1 for every token, and the equilibrium at
    embeddings ``x``, solved for from ``z``.
    """
    leaf = x.clone().requires_grad_()
    solution = equilibrium.solve(leaf, z0=z)
    surprise = body.tokens.surprise(equilibrium.head(solution.z), targets).sum()
    (slope,) = torch.autograd.grad(surprise, leaf)
    return slope / slope.norm(dim=2, keepdim=True).clamp_min(torch.finfo(slope.dtype).tiny), solution


def reach(x: Tensor, radius: float) -> Tensor:
    """(B,) the radius of the balls around embeddings (B, T, width), in their units."""
    return radius * x.detach().norm(dim=2).mean(1)


def kept(step: Tensor) -> Tensor:
    """``step`` (B, ...) with the samples left out that are not finite: a training goes on without them."""
    sane = torch.isfinite(step).flatten(1).all(1).view(-1, *([1] * (step.dim() - 1)))
    return torch.where(sane, step, torch.zeros_like(step)).detach()


@contextlib.contextmanager
def at_rest(model: torch.nn.Module) -> Iterator[None]:
    """In evaluation mode for a while: the adversary attacks the network, not one draw of its dropout."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
