"""Oracles that share nothing with the engine: finite differences, and the nested solution of a ``problems.Case``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.optimize
import torch
from torch import Tensor

import jiio
from jiio.layout import leaves, map_tree
from problems import ACTIVATIONS, CASES, DOUBLE, LOSSES, PROX, Case


def central(function: Callable[[Tensor], Tensor], at: Tensor, direction: Tensor, h: float = 1e-5) -> float:
    """The derivative of a scalar function along a direction."""
    with torch.no_grad():
        return float(function(at + h * direction) - function(at - h * direction)) / (2 * h)


def relative(a: float, b: float) -> float:
    """|a - b| over the larger of the two."""
    return abs(a - b) / max(abs(a), abs(b), 1e-30)


def gap(a: Any, b: Any) -> float:
    """Largest absolute difference between two trees of tensors."""
    pairs = zip(leaves(a), leaves(b), strict=True)
    return max(float((p - q).detach().abs().max()) for p, q in pairs)


def state(case: Case, x: Tensor) -> Tensor:
    """z (n,) with z = f(z, x) for one sample x (k,), by Newton on the dense system."""
    act, slope = ACTIVATIONS[case.act]
    drive = case.U @ x + case.b
    z = torch.zeros_like(case.b)
    for _ in range(60):
        a = case.W @ z + drive
        residual = act(a) - z
        if float(residual.abs().max()) < 1e-14:
            break
        z = z + torch.linalg.solve(torch.eye(len(z), dtype=DOUBLE) - slope(a)[:, None] * case.W, residual)
    return z


def reduced(case: Case, sample: int, x: Tensor) -> tuple[float, np.ndarray]:
    """Objective and gradient of the reduced problem x -> l(z*(x), x), the state solved exactly; x (k,)."""
    value, bend = LOSSES[case.loss]
    z = state(case, x)
    r = case.C @ z - case.y[sample]
    total = value(r).sum() + 0.5 * case.ridge * x @ x + case.cost @ z
    gz = case.C.T @ bend(r) + case.cost
    s = ACTIVATIONS[case.act][1](case.W @ z + case.U @ x + case.b)
    mu = torch.linalg.solve(torch.eye(len(z), dtype=DOUBLE) - case.W.T * s[None, :], gz)
    return float(total), (case.U.T @ (s * mu) + case.ridge * x).numpy()


def oracle(case: Case, prox: jiio.AbstractProx | None = None) -> Tensor:
    """The optimal x (B, k), every sample by sequential quadratic programming on the reduced problem."""
    return torch.stack([_one(case, jiio.Identity() if prox is None else prox, i) for i in range(case.batch)])


def _one(case: Case, prox: jiio.AbstractProx, sample: int) -> Tensor:
    k = case.U.shape[1]
    extra = smooth_prior(prox, sample)

    def function(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = reduced(case, sample, torch.from_numpy(np.ascontiguousarray(x)))
        more, slope = extra(x)
        return value + more, gradient + slope

    return torch.from_numpy(constrained(function, np.zeros(k), prox, sample))


def constrained(
    function: Callable[[np.ndarray], tuple[float, np.ndarray]], start: np.ndarray, prox: jiio.AbstractProx, sample: int
) -> np.ndarray:
    """argmin of a smooth function over the set of ``prox``, or with its l1 norm, which x = p - q makes smooth."""
    k = len(start)
    sets = prox.parts if isinstance(prox, jiio.Intersection) else (prox,)
    split = any(isinstance(s, (jiio.L1Ball, jiio.SoftThreshold)) for s in sets)
    fold = np.concatenate([np.eye(k), -np.eye(k)], 1) if split else np.eye(k)
    origin = np.zeros(k)
    for s in sets:
        if isinstance(s, jiio.L1Ball):
            origin = _center(s, sample, k)
    weight = next((_row(s.weight, sample) for s in sets if isinstance(s, jiio.SoftThreshold)), 0.0)
    weight = np.broadcast_to(weight, (k,))
    cost = np.concatenate([weight, weight]) if split else np.zeros(k)
    constraints = []
    for s in sets:
        constraints += _constraints(s, sample, k, fold, origin)

    def smooth(u: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = function(origin + fold @ u)
        return value + float(cost @ u), fold.T @ gradient + cost

    u = np.concatenate([np.maximum(start - origin, 0), np.maximum(origin - start, 0)]) if split else start
    found = scipy.optimize.minimize(
        smooth,
        u,
        jac=True,
        method="SLSQP",
        bounds=[(0, None)] * (2 * k) if split else None,
        constraints=constraints,
        options={"ftol": 1e-17, "maxiter": 2000},
    )
    return origin + fold @ found.x


def _row(value: Any, sample: int) -> Any:
    """A number, or what a tensor (k,) or (B, k) says about this sample."""
    if not isinstance(value, Tensor):
        return value
    return (value[sample if value.shape[0] > 1 else 0] if value.dim() == 2 else value).numpy()


def _radius(ball: Any, sample: int) -> float:
    return float(ball.radius[sample]) if isinstance(ball.radius, Tensor) else ball.radius


def _center(ball: Any, sample: int, k: int) -> np.ndarray:
    if ball.center is None:
        return np.zeros(k)
    center = ball.center
    return np.broadcast_to((center[sample] if center.dim() == 2 else center).numpy(), (k,)).copy()


def _constraints(s: Any, sample: int, k: int, fold: np.ndarray, origin: np.ndarray) -> list[dict]:
    def above(function, slope):
        return {
            "type": "ineq",
            "fun": lambda u: function(origin + fold @ u),
            "jac": lambda u: slope(origin + fold @ u) @ fold,
        }

    if isinstance(s, jiio.Box):
        low, high = (np.broadcast_to(np.asarray(_row(v, sample), dtype=float), (k,)) for v in (s.low, s.high))
        below, over = np.eye(k)[np.isfinite(low)], np.eye(k)[np.isfinite(high)]
        low, high = low[np.isfinite(low)], high[np.isfinite(high)]
        return [above(lambda x: below @ x - low, lambda x: below), above(lambda x: high - over @ x, lambda x: -over)]
    if isinstance(s, jiio.Simplex):
        whole = {"type": "eq", "fun": lambda u: (fold @ u).sum() - s.total, "jac": lambda u: np.ones((1, k)) @ fold}
        return [whole, above(lambda x: x, lambda x: np.eye(k))]
    if isinstance(s, jiio.LinfBall):
        c, r = _center(s, sample, k), _radius(s, sample)
        return [above(lambda x: r - (x - c), lambda x: -np.eye(k)), above(lambda x: r + (x - c), lambda x: np.eye(k))]
    if isinstance(s, jiio.L2Ball):
        c, r = _center(s, sample, k), _radius(s, sample)
        return [above(lambda x: np.array([r * r - (x - c) @ (x - c)]), lambda x: -2 * (x - c)[None])]
    if isinstance(s, jiio.L1Ball):
        r = _radius(s, sample)
        return [{"type": "ineq", "fun": lambda u: np.array([r - u.sum()]), "jac": lambda u: -np.ones((1, len(u)))}]
    return []


def smooth_prior(prox: jiio.AbstractProx, sample: int) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """What a smooth prior adds to the objective."""
    if not isinstance(prox, jiio.QuadraticPrior):
        return lambda x: (0.0, np.zeros_like(x))
    weight = _row(prox.weight, sample)

    def quadratic(x: np.ndarray) -> tuple[float, np.ndarray]:
        d = x - (0.0 if prox.center is None else _center(prox, sample, len(x)))
        return float((0.5 * weight * d * d).sum()), weight * d

    return quadratic


@functools.cache
def nested(case: str, prox: str) -> Tensor:
    """The optimal x of a case of the table under a prox of the table."""
    return oracle(CASES[case], PROX[prox](CASES[case].U.shape[1]))


def multiplier(solution: jiio.Solution) -> Any:
    assert solution.multiplier is not None
    return solution.multiplier


def weights_like(tree: Any, seed: int = 3) -> Any:
    draw = torch.Generator().manual_seed(seed)
    return map_tree(lambda leaf: torch.randn(leaf.shape, dtype=DOUBLE, generator=draw), tree)


def inner(tree: Any, weights: Any) -> Tensor:
    """A loss that is not linear, and its own for every number."""
    pairs = zip(leaves(tree), leaves(weights), strict=True)
    return torch.stack([(torch.sin(a) * b).sum() for a, b in pairs]).sum()


def along(losses: Callable[[], tuple[Tensor, ...]], parameters: list[Any], h: float = 1e-4) -> Any:
    """Fourth-order central differences of scalars along one random direction of all parameters, and that direction."""
    draw = torch.Generator().manual_seed(11)
    direction = [torch.randn(p.shape, dtype=DOUBLE, generator=draw) for p in parameters]
    values = {}
    for step in (-2, -1, 1, 2):
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p.add_(d, alpha=step * h)
            values[step] = torch.stack([loss.detach() for loss in losses()])
            for p, d in zip(parameters, direction, strict=True):
                p.sub_(d, alpha=step * h)
    return *((8 * (values[1] - values[-1]) - (values[2] - values[-2])) / (12 * h)).tolist(), direction


def slope(loss: Tensor, parameters: list[Any], direction: list[Tensor], keep: bool = False) -> float:
    grads = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=keep)
    return float(sum((g * d).sum() for g, d in zip(grads, direction, strict=True) if g is not None))
