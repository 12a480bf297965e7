"""One face for every classifier: plain networks, equilibrium models, normalised inputs.

:class:`Target` is what an attack sees. It counts what an attack costs, keeps the model in eval mode while an attack
runs and puts every mode back afterwards, never touches parameters or their ``.grad``, and says per sample whether the
equilibrium behind a prediction was reached.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import jiio
from jiio.checks import ArgumentTypeError, CellError, check_finite, check_instance, check_integer, fail
from jiio.layout import detach

from .threat import ThreatModel

Score = Callable[[Tensor], Tensor]


@dataclass
class Counts:
    """What was called, per batch: forward and backward passes, and for equilibrium models evaluations of the cell and
    vector-Jacobian products behind them (the adjoint solves included).
    """

    forward: int = 0
    backward: int = 0
    solves: list[jiio.Evaluations] = field(default_factory=list, repr=False)

    @property
    def evaluations(self) -> int:
        return sum(s.cell for s in self.solves)

    @property
    def vjps(self) -> int:
        return sum(s.vjp + s.adjoint_vjp for s in self.solves)

    def plain(self) -> dict[str, int]:
        """As numbers, at this moment: a backward pass adds to the products of a solve that is long over."""
        names = ("forward", "backward", "evaluations", "vjps")
        return {name: getattr(self, name) for name in names}


class Prediction(NamedTuple):
    """logits (B, classes); label, margin, converged, steps, residual: (B,). For a plain network every sample counts
    as converged in 0 steps. ``state`` is the equilibrium, None for a plain network.
    """

    logits: Tensor
    label: Tensor
    converged: Tensor
    steps: Tensor
    residual: Tensor
    state: Any


class Slope(NamedTuple):
    """value (B,) of the objective, its gradient like x, the scores (B, classes), the state (None: plain network)."""

    value: Tensor
    gradient: Tensor
    logits: Tensor
    state: Any


class Target:
    """A classifier under attack.

    model: x (B, ...) -> scores (B, classes). mean, std: where given, the model sees (x - mean) / std while threat and
    attack stay in the units of x; numbers or one per channel. adjoint, solver, tolerance, max_steps: replace those of
    an :class:`jiio.EquilibriumModel`; refused for others.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        mean: float | Tensor | None = None,
        std: float | Tensor | None = None,
        adjoint: jiio.AbstractAdjoint | None = None,
        solver: jiio.AbstractSolver | None = None,
        tolerance: jiio.Tolerance | None = None,
        max_steps: int | None = None,
    ) -> None:
        self.model = check_instance("model", model, nn.Module, "Wrap a function in a torch.nn.Module.")
        self.settings = _given(adjoint=adjoint, solver=solver, tolerance=tolerance, max_steps=max_steps)
        if self.settings and not self.implicit:
            remedy = "A plain network has no solver to set."
            fail(", ".join(self.settings), "an EquilibriumModel to set it for", type(model).__name__, remedy)

        # The model sees (x - mean) / std; without them that is x itself.
        self.mean, self.std = _moment("mean", mean, 0.0), _moment("std", std, 1.0)
        if bool((self.std <= 0).any()):
            fail("std", "numbers above 0", self.std)
        self.counts = Counts()

    @classmethod
    def of(cls, model: nn.Module | Target) -> Target:
        """``model`` itself if it is a target already, else a target around it."""
        return model if isinstance(model, Target) else cls(model)

    def variant(self, **settings: Any) -> Target:
        """The same model with other settings of the solve; both count into the same :class:`Counts`."""
        other = Target(self.model, mean=self.mean, std=self.std, **(self.settings | settings))
        other.counts = self.counts
        return other

    @property
    def implicit(self) -> bool:
        """Whether the model is an equilibrium model, whose solve can be seen and set."""
        return isinstance(self.model, jiio.EquilibriumModel)

    @property
    def equilibrium(self) -> jiio.EquilibriumModel:
        """The equilibrium model; raises for another."""
        remedy = "This attack works on the equilibrium itself; use PGD or APGD for a plain network."
        return check_instance("model", self.model, jiio.EquilibriumModel, remedy)

    @property
    def options(self) -> dict[str, Any]:
        """The settings that decide a prediction: of the solve, for an equilibrium model, and of the normalisation."""
        settings: dict[str, Any] = {"mean": self.mean.tolist(), "std": self.std.tolist()}
        if self.implicit:
            own = {name: getattr(self.model, name) for name in ("solver", "adjoint", "tolerance", "max_steps")}
            settings |= own | self.settings
        return settings

    # -- calls

    def normalised(self, x: Tensor) -> Tensor:
        """What the model sees of x."""
        if not self.shifted:
            return x
        return (x - _channels(self.mean, x)) / _channels(self.std, x)

    @property
    def shifted(self) -> bool:
        """Whether the model sees normalised inputs."""
        return bool((self.mean != 0).any() | (self.std != 1).any())

    def forward(self, x: Tensor, z0: Any = None) -> tuple[Tensor, jiio.Solution | None]:
        """Scores with whatever graph grad mode asks for, and the solve behind them."""
        self.counts.forward += 1
        seen = self.normalised(x)
        if not self.implicit:
            return _check_logits(self.model(seen), x), None
        start = {} if z0 is None else {"z0": z0}
        solution = self.equilibrium.solve(seen, on_failure="ignore", **(self.settings | start))
        self.counts.solves.append(solution.evaluations)
        return _check_logits(self.equilibrium.head(solution.z), x), solution

    @torch.no_grad()
    def predict(self, x: Tensor) -> Prediction:
        """The prediction for x from a fresh start of the solver."""
        logits, solution = self.forward(x)
        steps = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        if solution is None:
            converged, residual, state = torch.ones_like(steps, dtype=torch.bool), logits.new_zeros(len(x)), None
        else:
            converged, steps, residual = solution.converged, solution.steps, solution.residual[:, 0]
            state = detach(solution.z)
        return Prediction(logits, logits.argmax(1), converged, steps, residual, state)

    def slope(self, x: Tensor, score: Score, z0: Any = None) -> Slope:
        """``score`` of the scores, (B,), and its gradient in x; zero where there is none."""
        with torch.enable_grad():
            leaf = x.detach().clone().requires_grad_()
            logits, solution = self.forward(leaf, z0)
            value = score(logits)
            gradient = torch.zeros_like(x)
            if value.requires_grad:
                self.counts.backward += 1
                (found,) = torch.autograd.grad(value.sum(), leaf, allow_unused=True)
                gradient = gradient if found is None else found
        state = None if solution is None else detach(solution.z)
        gradient = torch.where(torch.isfinite(gradient), gradient, torch.zeros_like(gradient))
        return Slope(value.detach(), gradient, logits.detach(), state)

    def problem(self, objective: Score, prox: jiio.AbstractProx) -> jiio.Problem:
        """The joint problem: minimise objective(scores) over x in the set of ``prox``, in the units of x."""
        inner = self.equilibrium.problem(lambda logits, _: objective(logits), prox)
        if not self.shifted:
            return inner
        return jiio.Problem(_Shifted(inner.cell, self), inner.objective, prox)

    # -- manners

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Eval mode inside; every module gets its own mode back, and the global random state stays as it was."""
        modes = [(part, part.training) for part in self.model.modules()]
        devices = list({p.device for p in self.model.parameters() if p.device.type == "cuda"})
        with torch.random.fork_rng(devices):
            try:
                self.model.eval()
                yield
            finally:
                for part, training in modes:
                    part.training = training

    def check(self, x: Any, y: Any, threat: ThreatModel | None = None) -> None:
        """Raise, in a sentence, unless x (B, ...), y (B,), threat and model belong together."""
        if not isinstance(x, Tensor) or not x.is_floating_point():
            fail("x", "a floating-point tensor (B, ...)", x, "Convert it with .float().", ArgumentTypeError)
        if x.dim() < 2 or x.numel() == 0:
            fail("x", "at least one sample, with the batch first", x)
        check_finite("x", x)
        for moment in (self.mean, self.std):
            _channels(moment, x)
        _check_truth(x, y)
        self._check_place(x)
        if threat is not None:
            check_instance("threat", threat, ThreatModel).check(x)

    def _check_place(self, x: Tensor) -> None:
        weight = next(iter(self.model.parameters()), None)
        if weight is not None and weight.device != x.device:
            remedy = f"Move the model or the images, for example x.to({str(weight.device)!r})."
            fail("x", f"images on {weight.device}, where the model is", x, remedy)

    @staticmethod
    def check_labels(logits: Tensor, y: Tensor) -> None:
        """Raise unless every label has a score."""
        if int(y.min()) < 0 or int(y.max()) >= logits.shape[1]:
            came = f"labels from {int(y.min())} to {int(y.max())}"
            fail("y", f"labels from 0 to {logits.shape[1] - 1}, one per score of the model", came)


class _Shifted:
    """(z, x) -> cell(z, normalised x)."""

    def __init__(self, cell: Any, target: Target) -> None:
        self.cell, self.target, self.module = cell, target, cell.module

    def __call__(self, z: Any, x: Tensor) -> Any:
        return self.cell(z, self.target.normalised(x))

    def initial_state(self, x: Tensor) -> Any:
        return self.cell.initial_state(self.target.normalised(x))


def _check_truth(x: Tensor, y: Any) -> None:
    """Raise unless y are labels (B,) for x (B, ...), of the right kind and in the right place."""
    if not isinstance(y, Tensor) or y.dtype != torch.int64:
        fail("y", "labels (B,) of dtype int64", y, "Convert them with .long().", ArgumentTypeError)
    if y.shape != x.shape[:1]:
        fail("y", f"one label per sample, shape ({len(x)},)", y)
    if y.device != x.device:
        fail("y", f"labels on {x.device}, like x", y, "Move them with .to(x.device).")


def _check_logits(logits: Any, x: Tensor) -> Tensor:
    if not isinstance(logits, Tensor):
        remedy = "Wrap the model so that it returns the scores alone."
        fail("model(x)", "one tensor of scores (B, classes)", logits, remedy, CellError)
    if logits.dim() != 2 or len(logits) != len(x) or logits.shape[1] < 2 or not logits.is_floating_point():
        fail("model(x)", f"scores of shape ({len(x)}, classes) with at least 2 classes", logits, error=CellError)
    return logits


def _given(**settings: Any) -> dict[str, Any]:
    """Those of the settings of a solve that are not None, each of the kind that it must be."""
    kinds = {"adjoint": jiio.AbstractAdjoint, "solver": jiio.AbstractSolver, "tolerance": jiio.Tolerance}
    given = {name: value for name, value in settings.items() if value is not None}
    for name, value in given.items():
        if name in kinds:
            check_instance(name, value, kinds[name])
        else:
            check_integer(name, value, 2)
    return given


def _moment(name: str, value: float | Tensor | None, default: float) -> Tensor:
    if value is None:
        return torch.tensor(default)
    try:
        moment = torch.as_tensor(value, dtype=torch.get_default_dtype())
    except (TypeError, ValueError, RuntimeError):
        fail(name, "a number, or one per channel", value, error=ArgumentTypeError)
    if moment.dim() > 1:
        fail(name, "a number, or one per channel", value)
    return check_finite(name, moment)


def _channels(moment: Tensor, x: Tensor) -> Tensor:
    moment = moment.to(x)
    if moment.dim() == 0 or moment.numel() == 1:
        return moment.reshape(())
    if moment.numel() != x.shape[1]:
        fail("mean and std", f"one number per channel, {x.shape[1]} of them", moment)
    return moment.view(-1, *([1] * (x.dim() - 2)))
