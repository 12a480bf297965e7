"""One face for every classifier: plain networks, equilibrium models, normalised inputs.

:class:`Target` is what an attack sees. It counts what an attack costs, keeps the model in eval mode while an attack
runs and puts every mode back afterwards, never touches parameters or their ``.grad``, and says per sample whether the
equilibrium behind a prediction was reached, wherever in the model that equilibrium stands (:mod:`.inside`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

import jiio
from jiio.checks import ArgumentTypeError, check_finite, check_instance, fail
from jiio.persample import rows_of

from .contract import channels, check_logits, check_truth, check_weights, given, moment
from .counts import Counts
from .inside import Entrance, Reached, Solve, answered, equilibria, is_plain
from .modes import calm, outside_inference
from .objectives import unusable
from .threat import ThreatModel

Score = Callable[[Tensor], Tensor]


class Prediction(NamedTuple):
    """logits (B, classes); label, converged, steps, residual: (B,). For a plain network every sample counts as
    converged in 0 steps. label: -1 where a score is NaN or +infinite: that is no answer, and never a right one.
    ``state`` is the equilibrium; None for a plain network, and where there is more than one.
    """

    logits: Tensor
    label: Tensor
    converged: Tensor
    steps: Tensor
    residual: Tensor
    state: Any


class Slope(NamedTuple):
    """value (B,) of the objective, its gradient like x, the scores (B, classes), the state (None: plain network), and
    lost (B,): whether entries of the gradient were NaN or infinite, in whose place there are zeros.
    """

    value: Tensor
    gradient: Tensor
    logits: Tensor
    state: Any
    lost: Tensor


class Target:
    """A classifier under attack.

    model: x (B, ...) -> scores (B, classes). mean, std: where given, the model sees (x - mean) / std while threat and
    attack stay in the units of x; numbers or one per channel. adjoint, solver, tolerance, max_steps: replace those of
    every :class:`jiio.EquilibriumModel` in it; refused where there is none. train_mode: keep the model in train mode,
    for one that hides its gradient in eval mode; dropout and batch statistics stay as in eval mode.
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
        train_mode: bool = False,
    ) -> None:
        self.model = check_instance("model", model, nn.Module, "Wrap a function in a torch.nn.Module.")
        self.train_mode = check_instance("train_mode", train_mode, bool)
        self.inner = equilibria(self.model)
        self.settings = given(adjoint=adjoint, solver=solver, tolerance=tolerance, max_steps=max_steps)
        if self.settings and not self.implicit:
            remedy = "A plain network has no solver to set."
            fail(", ".join(self.settings), "an EquilibriumModel to set it for", type(model).__name__, remedy)

        # The model sees (x - mean) / std; without them that is x itself.
        self.mean, self.std = moment("mean", mean, 0.0), moment("std", std, 1.0)
        if bool((self.std <= 0).any()):
            fail("std", "numbers above 0", self.std)
        self.counts = Counts()

    @classmethod
    def of(cls, model: nn.Module | Target) -> Target:
        """``model`` itself if it is a target already, else a target around it."""
        return model if isinstance(model, Target) else cls(model)

    def variant(self, **settings: Any) -> Self:
        """The same model with other settings of the solve; both count into the same :class:`Counts`."""
        return self._with(self.model, settings, self.counts)

    def copied(self, twin: nn.Module) -> Self:
        """The same settings for ``twin``, a copy of the model, with books of its own."""
        return self._with(twin, {}, Counts())

    def _with(self, model: nn.Module, settings: dict[str, Any], counts: Counts) -> Self:
        own = {"mean": self.mean, "std": self.std, "train_mode": self.train_mode}
        other = type(self)(model, **(own | self.settings | settings))
        other.counts = counts
        return other

    @property
    def implicit(self) -> bool:
        """Whether there is an equilibrium model in it, whose solve can be seen and set."""
        return bool(self.inner)

    @property
    def plain(self) -> bool:
        """Whether the model is an equilibrium model called as such: head(solve(x).z) and nothing around it."""
        return is_plain(self.model)

    @property
    def equilibrium(self) -> jiio.EquilibriumModel:
        """The one equilibrium model; raises where there is none, or more than one."""
        remedy = "This attack works on the equilibrium itself; use PGD or APGD for a plain network."
        if len(self.inner) > 1:
            fail("model", "one EquilibriumModel, or a module around one", f"{len(self.inner)} of them", remedy)
        return check_instance("model", self.inner[0] if self.inner else self.model, jiio.EquilibriumModel, remedy)

    @property
    def options(self) -> dict[str, Any]:
        """The settings that decide a prediction: of the solve, for an equilibrium model (of the first, where there are
        several), and of the normalisation.
        """
        settings: dict[str, Any] = {"mean": self.mean.tolist(), "std": self.std.tolist()}
        if self.train_mode:
            settings["train_mode"] = True
        if self.implicit:
            own = {name: getattr(self.inner[0], name) for name in ("solver", "adjoint", "tolerance", "max_steps")}
            settings |= own | self.settings
        return settings

    # -- calls

    def normalised(self, x: Tensor) -> Tensor:
        """What the model sees of x."""
        if not self.shifted:
            return x
        return (x - channels(self.mean, x)) / channels(self.std, x)

    @cached_property
    def shifted(self) -> bool:
        """Whether the model sees normalised inputs."""
        return bool((self.mean != 0).any() | (self.std != 1).any())

    def forward(self, x: Tensor, z0: Any = None) -> tuple[Tensor, Reached | None]:
        """Scores for x (B, ...), with a graph in grad mode, and what the solves did, from z0 or their own start."""
        self.counts.forward += 1
        # A model may write into what it is handed; the caller's images stay what they are.
        seen, solutions = self.normalised(x) if self.shifted else x.clone(), []
        start = {} if z0 is None else {"z0": z0}

        def answer(solve: Solve, inner: Any, **overrides: Any) -> jiio.Solution:
            solutions.append(solve(inner, **(overrides | self.settings | start | {"on_failure": "ignore"})))
            return solutions[-1]

        # The whole of the model is called, as a user calls it.
        with answered(self.model, answer) if self.implicit else contextlib.nullcontext():
            logits = self.scores(self.model(seen), x)
        if not logits.requires_grad:
            logits = logits.clone()  # the next call may be answered in the same memory
        for solution in solutions:
            self.counts.record(solution.evaluations)
        return logits, Reached.of(solutions, x)

    def scores(self, answer: Any, x: Tensor) -> Tensor:
        """The scores in ``answer``, what the model said of x; raises where there are none."""
        return check_logits(answer, x)

    @torch.no_grad()
    def predict(self, x: Tensor) -> Prediction:
        """The prediction for x from a fresh start of the solver."""
        logits, reached = self.forward(x)
        if reached is None:
            steps = torch.zeros(len(x), dtype=torch.int64, device=x.device)
            reached = Reached(torch.ones_like(steps, dtype=torch.bool), steps, logits.new_zeros(len(x)), None)
        answered_all = ~unusable(logits)
        label = torch.where(answered_all, logits.argmax(1), -1)
        return Prediction(logits, label, *reached)

    @torch.inference_mode(False)
    def slope(self, x: Tensor, score: Score, z0: Any = None) -> Slope:
        """``score`` of the scores, (B,), and its gradient in x; zero where there is none. z0: as in :meth:`forward`."""
        with torch.enable_grad():
            leaf = x.detach().clone().requires_grad_()
            logits, reached = self.forward(leaf, z0)
            value = score(logits)
            gradient = torch.zeros_like(leaf)
            if value.requires_grad:
                self.counts.backward += 1
                (found,) = torch.autograd.grad(value.sum(), leaf, allow_unused=True)
                gradient = torch.zeros_like(leaf) if found is None else found
        there = torch.isfinite(gradient)
        gradient = torch.where(there, gradient, torch.zeros_like(gradient)).detach()
        state, lost = None if reached is None else reached.state, ~there.flatten(1).all(1)
        return Slope(value.detach(), gradient, logits.detach(), state, lost)

    def problem(self, objective: Score, prox: jiio.AbstractProx) -> jiio.Problem:
        """The joint problem: minimise objective(scores) over x in the set of ``prox``, in the units of x."""
        inner = self.equilibrium
        if self.plain:
            problem = inner.problem(_OfScores(objective), prox)
        else:
            entrance = Entrance(self.model, inner)
            problem = jiio.Problem(entrance, lambda z, x: objective(entrance.after(z, x)), prox)
        return _shifted(problem, self) if self.shifted else problem

    # -- manners

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """One calm model inside: eval mode (or calm train mode), gradients possible even where the caller is in
        inference mode. Every module gets its own mode back, and the global random state stays as it was.
        """
        modes = [(part, part.training) for part in self.model.modules()]
        devices = list({p.device for p in self.model.parameters() if p.device.type == "cuda"})
        with outside_inference(), torch.random.fork_rng(devices):
            try:
                for part, _ in modes:
                    part.training = self.train_mode and calm(part)
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
        for value in (self.mean, self.std):
            channels(value, x)
        check_truth(x, y)
        self._check_place(x)
        check_weights(self.model)
        if threat is not None:
            check_instance("threat", threat, ThreatModel).check(x)

    def _check_place(self, x: Tensor) -> None:
        weight = next(iter(self.model.parameters()), None)
        if weight is not None and weight.device != x.device:
            remedy = f"Move the model or the images, for example x.to({str(weight.device)!r})."
            fail("x", f"images on {weight.device}, where the model is", x, remedy)

    @staticmethod
    def check_labels(logits: Tensor, y: Tensor) -> None:
        """Raise unless every label in y (B,) has a score in logits (B, classes)."""
        if int(y.min()) < 0 or int(y.max()) >= logits.shape[1]:
            came = f"labels from {int(y.min())} to {int(y.max())}"
            fail("y", f"labels from 0 to {logits.shape[1] - 1}, one per score of the model", came)


def _shifted(problem: jiio.Problem, target: Target) -> jiio.Problem:
    """The same problem for the input before its normalisation."""
    return jiio.Problem(_Shifted(problem.cell, target), _Shifted(problem.objective, target), problem.prox)


class _OfScores:
    """(scores, x) -> objective(scores)."""

    def __init__(self, objective: Score) -> None:
        self.objective = objective

    def __call__(self, logits: Tensor, x: Tensor) -> Tensor:
        return self.objective(logits)

    def rows(self, index: Tensor) -> _OfScores | None:
        """The samples ``index`` (k,), where the objective offers that."""
        objective = rows_of(self.objective, index)
        return None if objective is None else _OfScores(objective)


class _Shifted:
    """(z, x) -> function(z, normalised x)."""

    def __init__(self, function: Any, target: Target) -> None:
        self.cell, self.target, self.module = function, target, getattr(function, "module", None)

    def __call__(self, z: Any, x: Tensor) -> Any:
        return self.cell(z, self.target.normalised(x))

    def rows(self, index: Tensor) -> _Shifted | None:
        """The samples ``index`` (k,), where the function offers that."""
        part = rows_of(self.cell, index)
        return None if part is None else _Shifted(part, self.target)

    def initial_state(self, x: Tensor) -> Any:
        return self.cell.initial_state(self.target.normalised(x))
