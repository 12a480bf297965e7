"""Lyapunov-stable equilibria: a convex potential, the projected dynamics, and an orthogonal last layer.

Chu, Wei, Liu, Zhao and Miyatake ("Lyapunov-stable deep equilibrium models", AAAI 2024) see an equilibrium network as
the system dz/dt = F(z, u) = f(z, u) - z and ask for a Lyapunov function that falls along it. The projection is that of
Manek and Kolter ("Learning stable deep dynamics models", NeurIPS 2019):

    g = F - grad V * relu( <grad V, F> + alpha V ) / |grad V|^2,      so that      dV/dt = <grad V, g> <= -alpha V.

Their V is an input-convex network v with its minimum at the *origin*. The equilibrium of a network moves with its
input and is not known before the solve, and no code of the paper is public that says how V gets there. Here V is put
together as Krasovskii did: v sees the field instead of the state,

    V(z; u) = v( F(z, u) ),      grad V = J_F^T grad v(F),

so that V = 0 exactly at the equilibria, wherever u puts them, and V > 0 elsewhere. From this follows:

- v(F) >= floor |F|^2, hence |F(z(t))| <= sqrt(V(z(0)) / floor) exp(-alpha t / 2) along dz/dt = g from every start, as
  long as grad V does not vanish on the way, which it does only where J_F is singular (never, where f contracts);
- g = 0 only where F = 0: the projected dynamics has the equilibria of f, no more and no fewer.

The second line says what the method cannot do. The projection decides which *starts* reach an equilibrium, not where
the equilibrium is, and an attack moves the input, hence the equilibrium itself: no certificate against it follows, and
a converged prediction is that of f without the projection. What training makes of it is an empirical question
(``benchmarks.attacks.robustness_claims``).

A solver wants a map: z <- z + step * g. Its fixed points are those of f whatever ``step``; that V falls along the flow
does not say that it falls along steps of this length, or along accelerated ones. Near an equilibrium g is a homogeneous
function of F of degree one, in general with a kink at F = 0, so that the map has no derivative there; the implicit
gradient is right all the same, because both factors of J_z^{-1} J_u carry the same derivative of g, which cancels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from ...checks import check_instance, check_integer, check_number
from ...layout import Spec, Tree
from ..cells.base import AbstractCell
from ..equilibrium import EquilibriumModel
from ..heads import ClassifierHead
from ..layers import check_gradients
from .potential import ConvexPotential, project_field


class LyapunovCell(AbstractCell):
    """z + step * g(z, u), where g is the field of ``cell`` projected so that v(F) falls; see the module.

    cell: any cell of this package, on any tree. potential: of as many numbers as the state has. alpha: the rate at
    which V falls, per unit of time. step: of the map. One application costs one of ``cell`` and one VJP.
    """

    def __init__(
        self, cell: AbstractCell, potential: ConvexPotential, *, alpha: float = 0.1, step: float = 1.0
    ) -> None:
        super().__init__()
        self.cell = check_instance("cell", cell, AbstractCell)
        self.potential = check_instance("potential", potential, ConvexPotential)
        self.alpha = check_number("alpha", alpha, 0.0)
        self.step = check_number("step", step, 0.0, 1.0, open_low=True)
        self.dropout = cell.dropout

    def forward(self, z: Tree, u: Tree, masks: Tree | None = None) -> Tree:
        """z: a tree (B, ...) as ``cell`` takes it, u: what is injected -> a tree like z."""
        field, value, gradient = self.parts(z, u, masks)
        spec = Spec.of(z)
        moved = spec.pack(z) + self.step * project_field(field, value, gradient, alpha=self.alpha)
        return spec.unpack(moved)

    def initial_state(self, u: Tree) -> Tree:
        """That of ``cell``."""
        return self.cell.initial_state(u)

    def draw_masks(self, z: Tree, generator: torch.Generator) -> Tree | None:
        return self.cell.draw_masks(z, generator)

    def parts(self, z: Tree, u: Tree, masks: Tree | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """F (B, n), V (B,) and grad V (B, n), packed, at z for u, under dropout masks; with a graph where grad mode is
        on.
        """
        check_gradients("LyapunovCell")
        taped, spec = torch.is_grad_enabled(), Spec.of(z)
        with torch.enable_grad():
            flat = spec.pack(z)
            leaf = flat if taped and flat.requires_grad else flat.detach().requires_grad_()
            field = spec.pack(self.cell(spec.unpack(leaf), u, masks)) - leaf
            value, slope = self.potential.with_slope(field)
            (gradient,) = torch.autograd.grad(field, leaf, slope, create_graph=taped)
        return (field, value, gradient) if taped else (field.detach(), value.detach(), gradient)

    def value(self, z: Tree, u: Tree) -> Tensor:
        """V(z; u), (B,)."""
        return self.parts(z, u)[1]

    def violation(self, z: Tree, u: Tree) -> Tensor:
        """(B,) how far the field of ``cell`` itself is from falling: relu(<grad V, F> + alpha V) / (|grad V| |F|).

        The loss term of the method: at 0 the projection has nothing to do. Differentiable in parameters, z and u.
        """
        field, value, gradient = self.parts(z, u)
        gap = field - project_field(field, value, gradient, alpha=self.alpha)
        tiny = torch.finfo(field.dtype).tiny ** 0.5
        return gap.norm(dim=1) / field.norm(dim=1).clamp_min(tiny)

    @torch.no_grad()
    def trajectory(
        self, z: Tree, u: Tree, *, steps: int, length: float = 0.1, halvings: int = 0
    ) -> tuple[Tree, Tensor, Tensor]:
        """``steps`` Euler steps of dz/dt = g from z, for u: the end, V (steps + 1, B) and |F| (steps + 1, B) along the
        way.

        halvings: a step after which V has not fallen by half of what the flow promises is not taken but halved, so many
        times at most; then it is taken, whatever V does. 0: steps of one ``length``.
        """
        check_integer("steps", steps, 1)
        check_integer("halvings", halvings, 0)
        check_number("length", length, 0.0, open_low=True)
        spec = Spec.of(z)
        flat = spec.pack(z)
        field, value, gradient = self.parts(z, u)
        # Every sample has a step h of its own, which doubles where V falls and halves where it does not.
        values, sizes, h = [value], [field.norm(dim=1)], torch.full_like(value, length)
        shortest = length * 0.5**halvings

        for _ in range(steps):
            following = flat + h[:, None] * project_field(field, value, gradient, alpha=self.alpha)
            new = self.parts(spec.unpack(following), u)
            # Half of the fall that the flow promises over a time h, to first order.
            falls = new[1] <= (1.0 - 0.5 * self.alpha * h) * value
            taken = falls | (h <= shortest)
            h = torch.where(falls, 2.0 * h, 0.5 * h).clamp(shortest, length)

            flat, field, value, gradient = _where(taken, (following, *new), (flat, field, value, gradient))
            values.append(value)
            sizes.append(field.norm(dim=1))
        return spec.unpack(flat), torch.stack(values), torch.stack(sizes)

    @property
    def lipschitz(self) -> float:
        """That of ``cell``, whose equilibria are the same; infinite where it knows none."""
        return float(getattr(self.cell, "lipschitz", float("inf")))


def _where(taken: Tensor, new: tuple[Tensor, ...], old: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The new tensors (B, ...) for the samples that are taken (B,), the old ones for the others."""
    return tuple(torch.where(taken.view(-1, *[1] * (a.dim() - 1)), a, b) for a, b in zip(new, old, strict=True))


class LyapunovFlow(nn.Module):
    """A few Euler steps of a projected field on a finished feature: z <- z + step * g(z), V = v(z), towards the origin.

    The other reading of the method, to stand before a linear head: the feature is the initial condition that the attack
    perturbs, the flow is run for a finite time (its limit is the origin for every input). field: two layers, tanh.

    features: numbers in the feature. widths: as in :class:`ConvexPotential`. alpha: the rate at which V falls, per unit
    of time. steps, step: how many Euler steps, and their length.
    """

    def __init__(
        self, features: int, *, widths: tuple[int, ...] = (40, 40), alpha: float = 0.01, steps: int = 5,
        step: float = 0.2,
    ) -> None:  # fmt: skip
        super().__init__()
        self.potential = ConvexPotential(features, widths=widths)
        self.field = nn.Sequential(nn.Linear(features, features), nn.Tanh(), nn.Linear(features, features))
        self.alpha = check_number("alpha", alpha, 0.0)
        self.steps = check_integer("steps", steps, 1)
        self.step = check_number("step", step, 0.0, open_low=True)

    def forward(self, z: Tensor) -> Tensor:
        """z: (B, features) -> (B, features)."""
        for _ in range(self.steps):
            z = z + self.step * project_field(self.field(z), *self.potential.with_slope(z), alpha=self.alpha)
        return z


def orthogonal_head(head: ClassifierHead) -> ClassifierHead:
    """The same head, its last layer with orthonormal rows from now on (columns, where there are more classes than
    features): every two classes are equally far apart, and no direction of the state counts for more than another.
    Raises ArgumentTypeError for what is no :class:`ClassifierHead`.
    """
    check_instance("head", head, ClassifierHead)
    orthogonal(head.linear)
    return head


def lyapunov_model(
    model: EquilibriumModel, like: Tree, *, widths: tuple[int, ...] = (40, 40), alpha: float = 0.1, step: float = 1.0
) -> EquilibriumModel:
    """The stable twin of a classifier: its cell projected, its last layer orthogonal; weights are shared, not copied.

    like: inputs (B, ...) as the model takes them, which tell how many numbers the state has. Settings of the solve and
    mode are those of ``model``. widths: as in :class:`ConvexPotential`. alpha, step: as in :class:`LyapunovCell`.
    Raises ArgumentError / ArgumentTypeError for unusable arguments, and for a model that is no classifier.
    """
    check_instance("model", model, EquilibriumModel)
    check_instance("model.cell", model.cell, AbstractCell)
    with torch.no_grad():
        state = model.cell.initial_state(model.inject(like))  # type: ignore[operator]
    spec = Spec.of(state)
    potential = ConvexPotential(spec.size, widths=widths).to(spec.pack(state))
    cell = LyapunovCell(model.cell, potential, alpha=alpha, step=step)  # type: ignore[arg-type]
    head = orthogonal_head(model.head)  # type: ignore[arg-type]
    twin = EquilibriumModel(model.inject, cell, head, **model.settings.arguments())
    return twin.train(model.training)
