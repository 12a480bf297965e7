"""The attack that nobody can get wrong: what is written is ``run``; what is counted is decided here."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor, nn

from jiio.checks import CellError, check_instance, fail

from .modes import ordinary
from .objectives import margin
from .target import Prediction, Target
from .threat import NORMS, ThreatModel


@dataclass(frozen=True)
class AttackResult:
    """What one attack did to one batch; every tensor (B, ...) in the order of the batch.

    x: the adversarial examples, x itself where nothing better was found. success: the model's prediction for them, from
    a fresh start of its solver, is wrong. prediction: that prediction. margin: best wrong score minus the right one
    there (above 0 is success). clean, clean_margin: prediction and margin for the untouched batch. distance: in the
    norm of the threat. broken: samples for which ``run`` returned NaN or infinity. settled: the equilibria for the
    image and for what ``run`` found were both reached; where not, a sample that was not broken has not been shown to
    resist. cost: calls per batch, see :class:`jiio.attacks.Counts`.
    """

    x: Tensor
    success: Tensor
    prediction: Prediction
    margin: Tensor
    clean: Prediction
    clean_margin: Tensor
    distance: Tensor
    broken: Tensor
    settled: Tensor
    cost: dict[str, int]

    @property
    def converged(self) -> Tensor:
        """(B,) whether the equilibrium behind the prediction for ``x`` was reached."""
        return self.prediction.converged

    def summary(self) -> str:
        """One line a person can read."""
        n, found = len(self.success), int(self.success.sum())
        wrong, lost = int((self.clean_margin > 0).sum()), int((~self.converged).sum())
        calls = ", ".join(f"{count} {name}" for name, count in self.cost.items() if count)
        return (
            f"{found} of {n} misclassified ({wrong} before), {lost} without equilibrium, "
            f"largest distance {float(self.distance.max()):.4g}; {calls}"
        )


class AbstractAttack(ABC):
    """Base of every attack: a frozen dataclass of settings with a method ``run``.

    gradient_free: it never asks for a gradient. Such attacks tell whether gradients lie. norms: those that it knows.
    needs_equilibrium: it works on the equilibrium itself.
    """

    gradient_free = False
    norms: tuple[str, ...] = tuple(NORMS)
    needs_equilibrium = False

    @property
    def name(self) -> str:
        """The attack and the settings that differ from its defaults; two attacks of one name are the same attack."""
        if not dataclasses.is_dataclass(self):
            return type(self).__name__
        changed = []
        for entry in dataclasses.fields(self):
            if not entry.compare:  # it changes what the attack costs, not what it can break
                continue
            value = getattr(self, entry.name)
            default = entry.default
            if entry.default_factory is not dataclasses.MISSING:
                default = entry.default_factory()
            if default is dataclasses.MISSING or not _same(value, default):
                changed.append(f"{entry.name}={_word(value)}")
        return f"{type(self).__name__}({', '.join(changed)})" if changed else type(self).__name__

    @abstractmethod
    def run(self, model: Target, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator) -> Tensor:
        """Candidates like the images x (B, ...) with labels y (B,), feasible under ``threat`` or nearly so. The model
        is in eval mode; ``generator`` is the only source of randomness. Nothing that ``run`` believes about its success
        is believed here.
        """

    def fits(self, model: Target, x: Tensor, threat: ThreatModel) -> None:
        """Raise, in a sentence, where this attack is not made for such a model, images x (B, ...) or threat; asked
        before anything runs.
        """
        if threat.norm not in self.norms:
            remedy = "Leave it out, or take another norm."
            fail(type(self).__name__, f"a threat in {' or '.join(self.norms)}", threat.norm, remedy)
        if self.needs_equilibrium:
            _ = model.equilibrium  # raises for other models

    def until_broken(self) -> AbstractAttack:
        """The same attack for whoever counts breaks alone: one that leaves alone what it has broken, where it can."""
        return self

    @final
    def __call__(
        self,
        model: nn.Module | Target,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        *,
        generator: torch.Generator | None = None,
        clean: Prediction | None = None,
    ) -> AttackResult:
        """Validate, run, project, check, predict anew, and keep the better of start and result for every sample.

        x: (B, ...) images inside the bounds. y: (B,) int64. generator: a new one with seed 0 where None. clean: the
        prediction for x where the caller has it already. Raises ArgumentError or ArgumentTypeError for unusable
        arguments, CellError where the model breaks its contract.
        """
        target = Target.of(model)
        generator = torch.Generator().manual_seed(0) if generator is None else generator
        check_instance("generator", generator, torch.Generator)
        target.check(x, y, threat)

        # One calm model for everything that is compared: eval mode, and the caller's random numbers left alone.
        with target.held():
            self.fits(target, x, threat)
            trial = _Trial(ordinary(x.detach()), ordinary(y), threat, target.counts.plain())
            trial.clean = target.predict(trial.x) if clean is None else clean
            target.check_labels(trial.clean.logits, trial.y)
            trial.take(self.run(target, trial.x, trial.y, threat, generator), type(self).__name__)
            trial.after = target.predict(trial.candidate)
            return trial.result(target.counts.plain())


@dataclass
class _Trial:
    """One attack on one batch x (B, ...), y (B,), in the order of the fields; every prediction from a fresh start.

    before: calls up to now. candidate: (B, ...) what the attack found, made usable. broken: (B,) where it was not
    finite.
    """

    x: Tensor
    y: Tensor
    threat: ThreatModel
    before: dict[str, int]
    clean: Prediction = field(init=False)
    candidate: Tensor = field(init=False)
    broken: Tensor = field(init=False)
    after: Prediction = field(init=False)

    def take(self, found: Any, name: str) -> None:
        """What ``run`` of the attack with this name returned, inside ball and box to rounding."""
        if not isinstance(found, Tensor) or found.shape != self.x.shape:
            fail(f"{name}.run", f"candidates of shape {tuple(self.x.shape)}", found, error=CellError)
        found = found.detach().to(self.x)
        self.broken = ~torch.isfinite(found).flatten(1).all(1)
        self.candidate = allowed(torch.where(rows(self.broken, self.x), self.x, found), self.x, self.threat)

    def result(self, counts: dict[str, int]) -> AttackResult:
        """The better of start and candidate for every sample. counts: calls up to now."""
        start, end = margin(self.clean.logits, self.y), margin(self.after.logits, self.y)
        # What is wrong untouched stays untouched: an attack has nothing to gain there.
        better = (self.clean.label == self.y) & ((self.after.label != self.y) | (end > start))
        x = torch.where(rows(better, self.x), self.candidate, self.x)
        pairs = zip(self.after, self.clean, strict=True)
        prediction = Prediction(*(_pick(better, new, old) for new, old in pairs))

        return AttackResult(
            x=x,
            success=prediction.label != self.y,
            prediction=prediction,
            margin=torch.where(better, end, start),
            clean=self.clean,
            clean_margin=start,
            distance=self.threat.distance(x, self.x),
            broken=self.broken,
            settled=self.clean.converged & self.after.converged,
            cost=_spent(self.before, counts),
        )


def allowed(found: Tensor, x: Tensor, threat: ThreatModel) -> Tensor:
    """``found`` (B, ...) inside ball and box to rounding."""
    found = threat.restored(found, x)
    outside = threat.violation(found, x) > threat.slack(x)
    if bool(outside.any()):  # a projection moves what is inside by rounding as well: leave that alone
        found = torch.where(rows(outside, x), threat.project(found, x), found)
    excess = threat.violation(found, x) - threat.slack(x)
    if bool((excess > 0).any()):
        fail("threat.project", "points inside ball and bounds to rounding", f"an excess of {float(excess.max()):.1e}")
    return found


def rows(mask: Tensor, like: Tensor) -> Tensor:
    """A mask (B,) that broadcasts against (B, ...)."""
    return mask.view(-1, *([1] * (like.dim() - 1)))


def _pick(mask: Tensor, new: Any, old: Any) -> Any:
    if new is None or isinstance(new, (tuple, list, dict)):
        return None  # a state of several parts serves the attack alone
    return torch.where(rows(mask, new), new, old)


def _spent(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {name: after[name] - before[name] for name in after}


def _same(a: Any, b: Any) -> bool:
    try:
        return bool(a == b)
    except (RuntimeError, ValueError):
        return False


def _word(value: Any) -> str:
    if isinstance(value, AbstractAttack):
        return value.name
    if isinstance(value, (tuple, list)):
        return "(" + ", ".join(_word(part) for part in value) + ")"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Tensor):
        return f"{value.tolist()}"
    if isinstance(value, nn.Module):
        return type(value).__name__
    return repr(value) if dataclasses.is_dataclass(value) or isinstance(value, (str, int)) else type(value).__name__
