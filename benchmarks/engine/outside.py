"""Random small problems in plain arrays, and what is true of a point of one: numpy in double precision, and nothing of
the engine. One sample at a time, dense Jacobians, Newton's method, projections by clipping, bisection and Dykstra.

    z = act(z W + x U + b),    w (sum loss(z - y) + ridge / 2 |x|^2) + g(x)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ACTS = ("tanh", "softplus", "relu", "linear")
LOSSES = ("square", "log cosh", "exponential")
BALLS = {"Box": ("box",), "Linf": ("box",), "L2": ("l2",), "L1": ("l1",), "L1 and box": ("l1", "box")}
BALLS |= {"L2 and box": ("l2", "box"), "L1 and L2": ("l1", "l2")}
PROXES = ("Identity", "SoftThreshold", "QuadraticPrior", *BALLS)
NEAR = 1e-10  # residual of an equilibrium that counts as exact, relative


@dataclass(frozen=True)
class Posed:
    """A batch of problems. W (n, n), U (m, n), b (n,), y (B, n), w (B,), x0 (B, m), z0 (B, n).

    radius: of the ball or the box, weight of a prior.
    """

    W: np.ndarray
    U: np.ndarray
    b: np.ndarray
    y: np.ndarray
    w: np.ndarray
    x0: np.ndarray
    z0: np.ndarray
    act: str
    loss: str
    ridge: float
    prox: str
    radius: float

    # -- one sample: z (n,), x (m,), mu (n,); i: which

    def image(self, z: np.ndarray, x: np.ndarray) -> np.ndarray:
        return act(self.act, z @ self.W + x @ self.U + self.b)[0]

    def slopes(self, z: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """J_z^T (n, n) and J_x^T (m, n), to be multiplied by mu from the right."""
        bend = act(self.act, z @ self.W + x @ self.U + self.b)[1]
        return self.W * bend, self.U * bend

    def value(self, i: int, z: np.ndarray, x: np.ndarray) -> float:
        """With the prior."""
        smooth = self.w[i] * (loss(self.loss, z - self.y[i])[0] + 0.5 * self.ridge * x @ x)
        if self.prox == "SoftThreshold":
            return float(smooth + self.radius * np.abs(x).sum())
        return float(smooth + (0.5 * self.radius * x @ x if self.prox == "QuadraticPrior" else 0.0))

    def steep(self, i: int, z: np.ndarray) -> np.ndarray:
        """l_z (n,)."""
        return self.w[i] * loss(self.loss, z - self.y[i])[1]

    def equilibrium(self, z: np.ndarray, x: np.ndarray) -> np.ndarray | None:
        """By Newton's method from z; None where it does not arrive."""
        for _ in range(60):
            gap = self.image(z, x) - z
            if not np.isfinite(gap).all():
                return None
            if np.abs(gap).max() <= NEAR * (1 + np.abs(z).max()):
                return z
            try:
                z = z + np.linalg.solve(np.eye(len(z)) - self.slopes(z, x)[0].T, gap)
            except np.linalg.LinAlgError:
                return None
        return None

    def stepped(self, x: np.ndarray, step: float, gradient: np.ndarray) -> np.ndarray:
        """prox of x - step gradient."""
        there = x - step * gradient
        if self.prox == "SoftThreshold":
            return np.sign(there) * np.maximum(np.abs(there) - step * self.radius, 0.0)
        if self.prox == "QuadraticPrior":
            return there / (1 + step * self.radius)
        return projected(BALLS.get(self.prox, ()), there, self.radius)

    def excess(self, x: np.ndarray) -> float:
        """How far outside its set."""
        return max([0.0, *(excess(kind, x, self.radius) for kind in BALLS.get(self.prox, ()))])


def posed(seed: int) -> Posed:
    """The random problem of this number: contractive, barely or not; smooth or ReLU; badly scaled or well."""
    draw = np.random.default_rng(seed)
    batch, n, m = (int(draw.choice(sizes)) for sizes in ((1, 3, 6), (1, 2, 5, 12), (1, 2, 6)))
    W = draw.normal(size=(n, n))
    W *= draw.choice([0.3, 0.7, 0.95, 1.0, 1.3]) / max(1e-9, np.abs(np.linalg.eigvals(W)).max())
    spread = 10 ** draw.uniform(-2, 2, size=(m, 1)) if draw.random() < 0.4 else 1.0
    weights = 10 ** draw.uniform(-6, 6, size=batch) if draw.random() < 0.4 else np.ones(batch)
    prox, kind = str(draw.choice(PROXES)), str(draw.choice(ACTS))
    radius = float(10 ** draw.uniform(-2, 0.5)) * (1.0 if prox in BALLS else float(weights.mean()))
    return Posed(
        W=W,
        U=draw.normal(size=(m, n)) * spread,
        b=draw.normal(size=n) * draw.choice([0.0, 1.0]),
        y=draw.normal(size=(batch, n)) * draw.choice([0.3, 1.0, 3.0]),
        w=weights,
        x0=draw.normal(size=(batch, m)) * draw.choice([0.0, 0.3, 3.0]),
        z0=draw.normal(size=(batch, n)) * draw.choice([0.0, 1.0]),
        act=kind,
        loss=str(draw.choice(LOSSES, p=[0.6, 0.25, 0.15])),
        ridge=float(draw.choice([0.0, 1e-3, 0.1])),
        prox=prox,
        radius=radius,
    )


def act(kind: str, a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Value and slope."""
    if kind == "tanh":
        return np.tanh(a), 1 - np.tanh(a) ** 2
    if kind == "softplus":
        return np.logaddexp(0.0, a), 0.5 * (1 + np.tanh(0.5 * a))
    return (a, np.ones_like(a)) if kind == "linear" else (np.maximum(a, 0.0), (a > 0).astype(float))


def loss(kind: str, r: np.ndarray) -> tuple[float, np.ndarray]:
    """Value and gradient."""
    if kind == "square":
        return float(0.5 * r @ r), r
    if kind == "log cosh":
        return float((np.logaddexp(r, -r) - np.log(2.0)).sum()), np.tanh(r)
    grown = np.exp(0.5 * r @ r)
    return float(grown), grown * r


def excess(kind: str, x: np.ndarray, radius: float) -> float:
    size = {"box": np.abs(x).max(), "l2": np.sqrt(x @ x), "l1": np.abs(x).sum()}[kind]
    return float(size - radius)


def projected(kinds: tuple[str, ...], x: np.ndarray, radius: float) -> np.ndarray:
    """The nearest point of the sets: one at once, several by Dykstra's algorithm."""
    rest = [np.zeros_like(x) for _ in kinds]
    for _ in range(2000 if len(kinds) > 1 else 1):
        before = x
        for k, kind in enumerate(kinds):
            near = nearest(kind, x + rest[k], radius)
            x, rest[k] = near, x + rest[k] - near
        if np.abs(x - before).max() <= 1e-13 * radius:
            break
    return x


def nearest(kind: str, x: np.ndarray, radius: float) -> np.ndarray:
    if excess(kind, x, radius) <= 0:
        return x
    if kind == "box":
        return np.clip(x, -radius, radius)
    if kind == "l2":
        return x * (radius / np.sqrt(x @ x))
    low, high = 0.0, np.abs(x).max()
    for _ in range(200):
        middle = 0.5 * (low + high)
        outside = np.maximum(np.abs(x) - middle, 0.0).sum() > radius
        low, high = (middle, high) if outside else (low, middle)
    return np.sign(x) * np.maximum(np.abs(x) - high, 0.0)
