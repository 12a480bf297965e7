"""Small problems with known answers: one table, in plain arrays, so that an oracle can solve them without autograd.

Every case is z = act(z W^T + x U^T + b) with the objective  loss(z C^T - y) + ridge / 2 |x|^2 + cost . z  per sample;
``helpers.oracle`` solves the reduced problem by dense Newton and scipy; ``Case.kkt`` is the one linear system of the
linear-quadratic case.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import jiio

DOUBLE = torch.float64
TIGHT = jiio.Tolerance(1e-11, 1e-11)
CLOSE = jiio.Tolerance(1e-8, 1e-8)

# name -> (function, slope), elementwise
ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "linear": (lambda a: a, torch.ones_like),
    "tanh": (torch.tanh, lambda a: 1 - torch.tanh(a) ** 2),
    "softplus": (torch.nn.functional.softplus, torch.sigmoid),
}


def log_cosh(r: Tensor) -> Tensor:
    """log cosh r: quadratic near zero, linear far away."""
    return torch.logaddexp(r, -r) - torch.log(torch.tensor(2.0, dtype=r.dtype))


# name -> (function, slope), elementwise, summed over a sample
LOSSES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "square": (lambda r: 0.5 * r * r, lambda r: r),
    "log-cosh": (log_cosh, torch.tanh),
}


@dataclass(frozen=True)
class Case:
    """One batch of problems. W (n, n), U (n, k), b (n,), C (d, n), y (B, d), cost (n,)."""

    W: Tensor
    U: Tensor
    b: Tensor
    C: Tensor
    y: Tensor
    cost: Tensor
    ridge: float
    act: str = "linear"
    loss: str = "square"

    def cell(self, z: Tensor, x: Tensor) -> Tensor:
        return ACTIVATIONS[self.act][0](z @ self.W.T + x @ self.U.T + self.b)

    def objective(self, z: Tensor, x: Tensor) -> Tensor:
        fit = LOSSES[self.loss][0](z @ self.C.T - self.y).sum(1)
        return fit + 0.5 * self.ridge * (x * x).sum(1) + z @ self.cost

    def problem(self, prox: jiio.AbstractProx | None = None) -> jiio.Problem:
        return jiio.Problem(self.cell, self.objective, jiio.Identity() if prox is None else prox)

    @property
    def batch(self) -> int:
        return self.y.shape[0]

    @property
    def x0(self) -> Tensor:
        return self.y.new_zeros(self.batch, self.U.shape[1])

    @property
    def z0(self) -> Tensor:
        return self.y.new_zeros(self.batch, self.W.shape[0])

    def with_(self, **changes: Tensor | float | str) -> Case:
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

    def rows(self, index: slice | Tensor) -> Case:
        """The same problem for some of the samples."""
        return self.with_(y=self.y[index])

    def to(self, dtype: torch.dtype) -> Case:
        named = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return self.with_(**{k: v.to(dtype) for k, v in named.items() if isinstance(v, Tensor)})

    def solve(self, prox: jiio.AbstractProx | None = None, **options) -> jiio.Solution:
        """``jiio.solve`` from zero, tight and loud unless told otherwise."""
        settings = {"tolerance": TIGHT, "max_steps": 3000, "on_failure": "raise"} | options
        x0, z0 = settings.pop("x0", self.x0), settings.pop("z0", self.z0)
        return jiio.solve(self.problem(prox), x0, z0, **settings)

    def kkt(self) -> tuple[Tensor, Tensor, Tensor]:
        """z, mu, x of the unconstrained linear-quadratic case, from one dense linear system in (z, mu, x)."""
        assert self.act == "linear" and self.loss == "square"
        n, k = self.U.shape
        eye, none = torch.eye(n, dtype=DOUBLE), torch.zeros(n, k, dtype=DOUBLE)
        bend = self.ridge * torch.eye(k, dtype=DOUBLE)
        gap = self.W - eye
        top = torch.cat([self.C.T @ self.C, gap.T, none], 1)
        middle = torch.cat([gap, torch.zeros_like(gap), self.U], 1)
        bottom = torch.cat([none.T, self.U.T, bend], 1)
        right = torch.cat([self.y @ self.C - self.cost, (-self.b).expand(self.batch, n), torch.zeros_like(self.x0)], 1)
        s = torch.linalg.solve(torch.cat([top, middle, bottom]), right.T).T
        z, mu, x = s.split((n, n, k), dim=1)
        return z, mu, x


def make(
    seed: int = 0,
    *,
    batch: int = 3,
    n: int = 10,
    k: int = 4,
    d: int = 6,
    radius: float = 0.6,
    ridge: float = 0.1,
    cost: float = 0.0,
    act: str = "linear",
    loss: str = "square",
) -> Case:
    """A random case whose W has spectral norm ``radius``."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=DOUBLE, generator=draw)

    w = normal(n, n)
    return Case(
        W=radius * w / torch.linalg.matrix_norm(w, 2),
        U=normal(n, k) * 0.7,
        b=normal(n) * 0.2,
        C=normal(d, n) / n**0.5,
        y=normal(batch, d) * 0.7,
        cost=normal(n) * cost,
        ridge=ridge,
        act=act,
        loss=loss,
    )


CASES: dict[str, Case] = {
    "linear": make(1, act="linear"),
    "tanh": make(2, act="tanh"),
    "softplus, smooth loss": make(3, act="softplus", loss="log-cosh", ridge=0.3),
    "barely contracting": make(4, act="tanh", radius=0.95, ridge=2.0),
    "one number": make(5, n=1, k=1, d=1),
}

# A maximisation in disguise: without curvature of its own, the optimum sits on the constraint.
PUSH = make(6, act="tanh", ridge=0.0, cost=0.8).with_(
    C=torch.zeros(1, 10, dtype=DOUBLE), y=torch.zeros(3, 1, dtype=DOUBLE)
)


def per_sample(*values: float) -> Tensor:
    return torch.tensor(values, dtype=DOUBLE)


def spread(*shape: int) -> Tensor:
    """Fixed numbers between -1 and 1."""
    return torch.rand(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(7)) * 2 - 1


# name -> prox for a case with samples (3, k)
PROX: dict[str, Callable[[int], jiio.AbstractProx]] = {
    "none": lambda k: jiio.Identity(),
    "box": lambda k: jiio.Box(-0.3, 0.25),
    "box of tensors": lambda k: jiio.Box(-0.2 - 0.3 * spread(3, k).abs(), 0.2 * spread(k).abs()),
    "half space box": lambda k: jiio.Box(0.0, float("inf")),
    "L2 ball": lambda k: jiio.L2Ball(0.5),
    "L2 balls": lambda k: jiio.L2Ball(per_sample(0.3, 0.4, 9.0), center=0.2 * spread(3, k)),
    "Linf ball": lambda k: jiio.LinfBall(0.3),
    "Linf balls": lambda k: jiio.LinfBall(per_sample(0.1, 0.3, 9.0), center=0.2 * spread(k)),
    "L1 ball": lambda k: jiio.L1Ball(0.6),
    "L1 balls": lambda k: jiio.L1Ball(per_sample(0.3, 0.5, 9.0), center=0.2 * spread(3, k)),
    "box and L2 ball": lambda k: jiio.Intersection(jiio.Box(-0.3, 0.3), jiio.L2Ball(0.45)),
    "L1 and L2 ball": lambda k: jiio.Intersection(jiio.L1Ball(0.6), jiio.L2Ball(per_sample(0.3, 0.4, 0.5))),
    "soft threshold": lambda k: jiio.SoftThreshold(0.3),
    "soft thresholds": lambda k: jiio.SoftThreshold(0.5 * spread(3, k).abs()),
    "quadratic prior": lambda k: jiio.QuadraticPrior(0.4),
    "quadratic priors": lambda k: jiio.QuadraticPrior(spread(3, k).abs(), center=spread(k)),
}

# Every adjoint that gives a gradient of a joint solve without taping it.
ADJOINTS = [jiio.Envelope(), jiio.Implicit(), jiio.KKT(), jiio.Phantom(), jiio.Phantom(kind="neumann")]
# Tight enough for gradient checks.
IMPLICIT = jiio.Implicit(tolerance=jiio.Tolerance(1e-12, 1e-12), max_steps=500)
KKT = jiio.KKT(rtol=1e-12, max_steps=3000)


def mixed(dtype: torch.dtype = DOUBLE) -> Case:
    """32 samples from trivial to hard: targets spread over four orders of magnitude."""
    case = make(8, act="tanh", batch=32, ridge=0.4)
    size = torch.logspace(-3, 1.2, 32, dtype=DOUBLE)[torch.randperm(32, generator=torch.Generator().manual_seed(1))]
    return case.with_(y=case.y * size[:, None]).to(dtype)
