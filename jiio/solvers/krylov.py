"""MINRES for symmetric, possibly indefinite systems, per sample.

Paige and Saunders (1975), in the two-vector recurrence; every sample has its own Lanczos process, scalars and
stopping, so that the answer of a sample does not depend on its batch mates.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def minres(
    matvec: Callable[[Tensor], Tensor], b: Tensor, *, rtol: float | Tensor, max_steps: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Solve A x = b for symmetric A.

    matvec: (B, D) -> (B, D), acting sample by sample. b: (B, D). rtol: the relative residual at which a sample is
    done, a number or (B, 1). max_steps: products, at most.

    Returns: x (B, D), the relative residual |b - A x| / |b| as estimated by the recurrence (B,), and the products used
    per sample (B,). A zero right-hand side gives zero.
    """

    def norm(v: Tensor) -> Tensor:
        return torch.linalg.vector_norm(v, dim=1, keepdim=True)

    def over(a: Tensor, c: Tensor) -> Tensor:
        safe = c.abs() > torch.finfo(c.dtype).tiny
        return torch.where(safe, a / torch.where(safe, c, torch.ones_like(c)), torch.zeros_like(a))

    # Lanczos: the last two vectors of the basis, and the length that joins them.
    size = norm(b)
    v_old, v = torch.zeros_like(b), over(b, size)
    beta = torch.zeros_like(size)
    scale = torch.zeros_like(size)  # a lower bound of |A|, to tell breakdown from a small beta

    # The QR factors of the tridiagonal matrix: the last two Givens rotations, and what they leave of |b|.
    c_old, c = torch.ones_like(size), torch.ones_like(size)
    s_old, s = torch.zeros_like(size), torch.zeros_like(size)
    eta = size.clone()

    # The answer, and the last two directions in which it grows.
    x = torch.zeros_like(b)
    w_old, w = torch.zeros_like(b), torch.zeros_like(b)

    # Per sample: how well it is solved, what it cost, and whether it goes on.
    residual = torch.where(size > 0, torch.ones_like(size), torch.zeros_like(size))
    products = torch.zeros_like(size)
    running = size > 0

    for _ in range(max_steps):
        if not bool(running.any()):
            break

        # One Lanczos step: a new basis vector, orthogonal to the last two.
        av = matvec(v)
        alpha = (v * av).sum(1, keepdim=True)
        v_new = av - alpha * v - beta * v_old
        beta_new = norm(v_new)
        scale = torch.maximum(scale, torch.maximum(alpha.abs(), beta_new))
        ended = beta_new <= torch.finfo(b.dtype).eps * scale  # invariant subspace: the answer is exact
        beta_new = torch.where(ended, torch.zeros_like(beta_new), beta_new)

        # The new column (beta, alpha, beta_new) under the last two rotations, and the rotation that ends it.
        rho0 = c * alpha - c_old * s * beta
        rho1 = torch.sqrt(rho0 * rho0 + beta_new * beta_new)
        rho2 = s * alpha + c_old * c * beta
        rho3 = s_old * beta
        c_new, s_new = over(rho0, rho1), over(beta_new, rho1)

        # The answer grows along w; a singular column adds nothing.
        w_new = over(v - rho3 * w_old - rho2 * w, rho1)
        usable = running & (rho1 > torch.finfo(b.dtype).eps * scale) & torch.isfinite(rho1)
        x = torch.where(usable, x + c_new * eta * w_new, x)
        eta = torch.where(usable, -s_new * eta, eta)
        residual = torch.where(usable, over(eta.abs(), size), residual)
        products = products + running.to(products)
        running = usable & (residual > rtol) & ~ended

        # What was new is old.
        v_old, v, beta = v, over(v_new, beta_new), beta_new
        w_old, w = w, w_new
        c_old, c = c, c_new
        s_old, s = s, s_new
    return x, residual[:, 0], products[:, 0]
