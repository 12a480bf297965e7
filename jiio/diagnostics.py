"""Measurements at an equilibrium: how hard the cell contracts, how good a gradient is, whether the start matters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from .adjoints import AbstractAdjoint, Detached, Implicit
from .checks import GradientError, check_callable, check_instance, check_integer, check_number, fail
from .draws import check_generator, normal_like
from .holding import held_fixed
from .layout import Spec, Tree, check_tree, detach, leaves, map_tree
from .problem import Cell, initial_state
from .solution import Solution, Tolerance
from .solvers import AbstractSolver, Anderson
from .solving import equilibrium


class AdjointError(NamedTuple):
    """cosine: of the angle between gradient and exact gradient. length: |gradient| / |exact gradient|.

    Both are 1 where the two agree, and NaN where one of the gradients is zero.
    """

    cosine: Tensor
    length: Tensor


def spectral_radius(
    cell: Cell, z: Tree, x: Tree, *, steps: int = 60, memory: int = 20, generator: torch.Generator | None = None
) -> Tensor:
    """(B,) largest modulus among the eigenvalues of J_z = df/dz at (z, x); below 1, plain iteration converges nearby.

    Power iteration on J_z^T from a random start, and the method of Arnoldi (1951) for its last ``memory`` steps, which
    also sees complex pairs, on which the growth of a power iteration never settles. One VJP per step, ``steps`` in all.
    Exact where ``memory`` reaches the size of z; for a strongly non-normal J a short one can give too much. NaN where J
    is not finite.

    cell: (z, x) -> z. z, x: trees of tensors (B, ...), in general z an equilibrium. generator: of the random start;
    None for torch's global one. Raises ArgumentError / ArgumentTypeError for unusable arguments, CellError where the
    cell breaks its contract.
    """
    check_callable("cell", cell, "(z, x) -> z")
    check_integer("steps", steps, 1)
    check_integer("memory", memory, 1)
    with held_fixed(cell):
        pull, v = _transposed_jacobian(cell, z, x)
        v = _unit(normal_like(v, check_generator(generator)))
        m = min(memory, steps, v.shape[1])
        for _ in range(steps - m):
            v = _unit(pull(v))
        h = _hessenberg(pull, v, m)

    # The eigenvalues of the small matrix are those of J on the space that the steps have spanned.
    sane = torch.isfinite(h).flatten(1).all(1)
    h = torch.where(sane[:, None, None], h, torch.zeros_like(h))
    radius = torch.linalg.eigvals(h.double()).abs().amax(1).to(h.dtype)
    return torch.where(sane, radius, radius.new_full((), float("nan")))


def _hessenberg(pull: Callable[[Tensor], Tensor], v: Tensor, m: int) -> Tensor:
    """(B, m, m) of the linear map ``pull`` in the orthonormal basis of v, pull(v), ... (Arnoldi); v: (B, D), unit."""
    basis = [v]
    h = v.new_zeros(v.shape[0], m, m)
    for j in range(m):
        w = pull(basis[j])
        size = w.norm(dim=1, keepdim=True)
        q = torch.stack(basis, dim=1)  # (B, j + 1, D)
        for _ in range(2):  # Gram-Schmidt twice keeps the basis orthogonal to rounding
            part = torch.bmm(q, w.unsqueeze(2))
            h[:, : j + 1, j] += part[:, :, 0]
            w = w - torch.bmm(part.transpose(1, 2), q)[:, 0]

        if j + 1 < m:
            length = w.norm(dim=1, keepdim=True)
            ended = length <= 10 * torch.finfo(v.dtype).eps * size  # invariant subspace, exact eigenvalues
            h[:, j + 1, j] = torch.where(ended, torch.zeros_like(length), length)[:, 0]
            basis.append(torch.where(ended, torch.zeros_like(w), _unit(w)))
    return h


def jacobian_penalty(
    cell: Cell, z: Tree, x: Tree, *, probes: int = 1, generator: torch.Generator | None = None
) -> Tensor:
    """(B,) mean over ``probes`` Gaussian e of |e^T J_z|^2 / d, an estimate of |J_z|_F^2 / d (Bai, Koltun, Kolter 2021).

    Differentiable with respect to the parameters of the cell and to x. Where ``z`` carries a graph (it does when it
    comes from :func:`jiio.equilibrium`) the movement of the equilibrium is differentiated as well; the paper holds it
    constant: pass ``z`` detached. One VJP per probe.

    cell: (z, x) -> z. z, x: trees of tensors (B, ...). generator: of the probes; None for torch's global one.
    Raises ArgumentError / ArgumentTypeError for unusable arguments, CellError where the cell breaks its contract.
    """
    check_callable("cell", cell, "(z, x) -> z")
    check_integer("probes", probes, 1)
    taped = torch.is_grad_enabled()
    with torch.enable_grad(), held_fixed(cell):
        spec, flat = _packed(z, x)
        flat = flat if flat.requires_grad and taped else flat.detach().requires_grad_()
        image = spec.pack(spec.check(cell(spec.unpack(flat), x), flat, "cell", "z'"))
        if not image.requires_grad:
            return flat.new_zeros(flat.shape[0])

        # Hutchinson: the expectation of |e^T J|^2 over Gaussian e is |J|_F^2.
        total = flat.new_zeros(flat.shape[0])
        for _ in range(probes):
            probe = normal_like(flat.detach(), check_generator(generator))
            (pulled,) = torch.autograd.grad(
                image, flat, probe, create_graph=taped, retain_graph=True, allow_unused=True
            )
            total = total if pulled is None else total + pulled.square().sum(1)
    return total / (probes * spec.size)


def adjoint_error(
    cell: Cell,
    x: Tree,
    adjoint: AbstractAdjoint,
    z0: Tree | None = None,
    *,
    parameters: Sequence[Tensor] | None = None,
    cotangent: Tree | None = None,
    solver: AbstractSolver = Anderson(),  # noqa: B008
    max_steps: int = 500,
    generator: torch.Generator | None = None,
) -> AdjointError:
    """The gradient of <cotangent, z*> by ``adjoint`` against the converged implicit one, at one tightly solved z*.

    parameters: None for the gradient with respect to x, sample by sample: both fields are (B,); else the tensors to
    differentiate with respect to, and both fields are scalars. cotangent: a tree like z (default: Gaussian).

    cell, x, z0: as in :func:`jiio.equilibrium`. solver, max_steps: of both solves, forward and adjoint, whose tolerance
    is a hundred times the rounding error. generator: of the cotangent; None for torch's global one. Raises
    GradientError for an adjoint that defines no gradient, ArgumentError / ArgumentTypeError for unusable arguments,
    CellError where the cell breaks its contract.
    """
    check_callable("cell", cell, "(z, x) -> z")
    if isinstance(check_instance("adjoint", adjoint, AbstractAdjoint), Detached):
        fail("adjoint", "one that defines a gradient", "Detached()", error=GradientError)
    like = leaves(check_tree("x", x))[0]
    z0 = initial_state(cell, x, z0, like)
    spec = Spec.of(z0)

    # What the equilibrium is weighted with, so that there is one number to differentiate.
    if cotangent is None:
        cotangent = spec.unpack(normal_like(spec.pack(z0), check_generator(generator)))
    elif Spec.of(check_tree("cotangent", cotangent, like.shape[0], like)) != spec:
        fail("cotangent", "the same tree and shapes as z", cotangent)
    weight = spec.pack(detach(cotangent))

    tight = _tight(like)
    found = partial(equilibrium, cell, z0=z0, solver=solver, tolerance=tight, max_steps=max_steps)
    best = Implicit(solver=solver, tolerance=tight, max_steps=max_steps)
    exact, given = (_gradient(partial(found, adjoint=how), x, weight, parameters) for how in (best, adjoint))

    length = exact.norm(dim=1)
    cosine = (exact * given).sum(1) / (length * given.norm(dim=1))
    ratio = torch.where(cosine.isnan(), cosine, given.norm(dim=1) / length)
    return AdjointError(cosine, ratio) if parameters is None else AdjointError(cosine[0], ratio[0])


def _gradient(found: Callable[..., Solution], x: Tree, weight: Tensor, parameters: Sequence[Tensor] | None) -> Tensor:
    """Of <weight, z*(x)>, z* as ``found`` finds it: (B, n) with respect to x, or (1, n) with respect to parameters."""
    with torch.enable_grad():
        inputs = map_tree(lambda leaf: leaf.detach().clone().requires_grad_(), x)
        z = found(x=inputs).z
        total = (Spec.of(z).pack(z) * weight).sum()
        wanted = leaves(inputs) if parameters is None else list(parameters)
        if not total.requires_grad:
            fail("cell", "an equilibrium that depends on what it is differentiated by", "a constant")
        grads = torch.autograd.grad(total, wanted, allow_unused=True)

    # With respect to x every sample has a gradient of its own; with respect to weights there is one for all.
    whole = [torch.zeros_like(w) if g is None else g for g, w in zip(grads, wanted, strict=True)]
    return torch.cat([g.flatten(1) if parameters is None else g.flatten()[None] for g in whole], dim=1)


def dependence_on_z0(
    cell: Cell,
    x: Tree,
    z0: Tree | None = None,
    *,
    starts: int = 4,
    scale: float = 1.0,
    generator: torch.Generator | None = None,
    solver: AbstractSolver = Anderson(),  # noqa: B008
    tolerance: Tolerance | None = None,
    max_steps: int = 200,
) -> Tensor:
    """(B,) largest relative distance between equilibria reached from ``starts`` starts; near 0 where there is but one.

    The first start is z0 (or the cell's own), the others add Gaussian noise of standard deviation ``scale``. tolerance:
    of each solve (default: a hundred times the rounding error). NaN where a solve did not converge: nothing was
    measured there.

    cell, x: as in :func:`jiio.equilibrium`. generator: of the noise; None for torch's global one. solver, max_steps: of
    each solve. Raises ArgumentError / ArgumentTypeError for unusable arguments, CellError where the cell breaks its
    contract.
    """
    check_callable("cell", cell, "(z, x) -> z")
    check_integer("starts", starts, 2)
    check_number("scale", scale, 0.0, open_low=True)
    like = leaves(check_tree("x", x))[0]

    with torch.no_grad():
        first = initial_state(cell, x, z0, like)
        spec = Spec.of(first)
        packed = spec.pack(first)
        found: list[Tensor] = []
        settled = torch.ones(packed.shape[0], dtype=torch.bool, device=packed.device)
        solve = partial(equilibrium, cell, x, solver=solver, adjoint=Detached(), max_steps=max_steps)
        solve = partial(solve, tolerance=_tight(like) if tolerance is None else tolerance, on_failure="ignore")

        # The start that is given, and noisy ones around it.
        for k in range(starts):
            start = packed if k == 0 else packed + scale * normal_like(packed, check_generator(generator))
            solution = solve(spec.unpack(start))
            settled &= solution.converged
            found.append(spec.pack(solution.z))

        z = torch.stack(found)  # (starts, B, D)
        # An equilibrium at zero has no size to compare with; the square root of the rounding error stands in for it.
        size = z.norm(dim=2).amax(0).clamp_min((spec.size * torch.finfo(z.dtype).eps) ** 0.5)
        apart = torch.stack([(z - other).norm(dim=2).amax(0) for other in z]).amax(0)
        return torch.where(settled, apart / size, apart.new_full((), float("nan")))


def _packed(z: Tree, x: Tree) -> tuple[Spec, Tensor]:
    like = leaves(check_tree("x", x))[0]
    spec = Spec.of(check_tree("z", z, like.shape[0], like))
    return spec, spec.pack(z)


def _transposed_jacobian(cell: Cell, z: Tree, x: Tree) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """v -> J_z^T v on packed (B, D), and the packed z."""
    with torch.enable_grad():
        spec, flat = _packed(detach(z), detach(x))
        leaf = flat.clone().requires_grad_()
        image = spec.pack(spec.check(cell(spec.unpack(leaf), detach(x)), flat, "cell", "z'"))

    def pull(v: Tensor) -> Tensor:
        if not image.requires_grad:
            return torch.zeros_like(v)
        pulled = torch.autograd.grad(image, leaf, v, retain_graph=True, allow_unused=True)[0]
        return torch.zeros_like(v) if pulled is None else pulled

    return pull, flat


def _unit(v: Tensor) -> Tensor:
    size = v.norm(dim=1, keepdim=True)
    return v / torch.where(size == 0, torch.ones_like(size), size)


def _tight(like: Tensor) -> Tolerance:
    eps = torch.finfo(like.dtype).eps
    return Tolerance(atol=100 * eps, rtol=100 * eps)
