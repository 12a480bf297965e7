"""Soft prompts: the embeddings in front of a text that make a frozen model say it (Lester et al. 2021), by one solve.

The sequence is the prompt x (P embeddings, of no token in particular) and the target; its states are one equilibrium.
With state and multiplier unknown as well, the prompt is the x of :func:`jiio.solve`:

    minimise  -log p(target | x) + prior / 2 |x - x0|^2    subject to  z = f(z; x, target)

with x0 the embeddings of random tokens: towards them, because the origin is where layer norm has no derivative.

:func:`nested` is the usual way, with a converged equilibrium and a converged adjoint for every step of Adam.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import jiio
from jiio.checks import check_integer, check_number, fail
from jiio.models.equilibrium import EquilibriumModel
from jiio.models.sequences.model import EquilibriumSequenceModel
from jiio.outputs.seeds import generator
from jiio.persample import rows_of
from jiio.tasks.frame.files import InputError

from .depths import Equilibrium
from .model import LanguageModel

TOLERANCE = jiio.Tolerance(atol=1e-5, rtol=1e-3)
PRIOR = 0.1
RULE = jiio.GradientStep(1.0)  # 0.5 takes about a fifth more steps


@dataclass(frozen=True)
class Prompt:
    """A fitted prompt.

    embedding: (P, width). before, after: -log p(target) in nats per token, with the start and with the prompt, each
    from an equilibrium solved anew. spoken: what the model says after the prompt, always its first choice. exact: the
    share of the target's tokens that are its first choice. converged: of the restart that is returned. evaluations:
    cell calls and VJPs of the solve, for all restarts together.
    """

    embedding: Tensor
    before: float
    after: float
    spoken: Tensor
    exact: float
    converged: bool
    evaluations: int


class _Prompted(nn.Module):
    """x (B, P, width) -> u of the prompt followed by fixed embeddings (1, n, width)."""

    def __init__(self, inject: nn.Module, rest: Tensor) -> None:
        super().__init__()
        self.inject, self.rest = inject, rest

    def rows(self, index: Tensor) -> _Prompted | None:
        """The prompts ``index`` (k,), where the injection offers that."""
        inject = rows_of(self.inject, index)
        return None if inject is None else _Prompted(inject, self.rest)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.inject(torch.cat([x, self.rest.expand(len(x), -1, -1)], dim=1))


class PromptProblem:
    """Everything about one target (n,) and starts x0 (B, length, width): the problem for the joint solve, and the
    objective at any prompts.
    """

    def __init__(
        self,
        model: LanguageModel,
        target: Tensor,
        *,
        length: int = 4,
        restarts: int = 1,
        prior: float = PRIOR,
        seed: int = 0,
    ) -> None:
        if not isinstance(model.body, EquilibriumSequenceModel) or not isinstance(model.depth, Equilibrium):
            fail("CHECKPOINT", "a model with depth Equilibrium", type(model.depth).__name__, error=InputError)
        if target.dim() != 1 or target.dtype != torch.int64 or not len(target):
            fail("target", "token numbers of shape (n,), at least one", target)

        # The embeddings of the target but its last token follow the prompt; they are given, not sought.
        self.body, self.target = model.body, target
        self.prior = check_number("prior", prior, 0.0, open_low=True)
        with torch.no_grad():
            rest = self.body.tokens.embed(target[None, :-1]) if len(target) > 1 else self._nothing()
            self.start = self._starts(length, restarts, seed)
        self.model = EquilibriumModel(_Prompted(self.body.inject, rest), self.body.cell, self.body.last)

    def _nothing(self) -> Tensor:
        weight = next(self.body.parameters())
        return weight.new_zeros(1, 0, self.body.config.width)

    def surprise(self, state: Tensor) -> Tensor:
        """-log p of every token of the target, (B, n): the last state of the prompt predicts the first."""
        said = state[:, -len(self.target) :]
        return self.body.tokens.surprise(said, self.target.expand(len(state), -1))

    def objective(self, state: Tensor, x: Tensor, start: Tensor | None = None) -> Tensor:
        """(B,); ``start``: where these prompts began (None: all of them)."""
        away = x - (self.start if start is None else start)
        return self.surprise(state).sum(1) + 0.5 * self.prior * away.square().flatten(1).sum(1)

    def problem(self) -> jiio.Problem:
        """For :func:`jiio.solve`."""
        return self.model.problem(jiio.PerSample(self.objective, self.start))

    @torch.no_grad()
    def measure(self, x: Tensor) -> Tensor:
        """The states (B, P + n - 1, width) at prompts, solved anew and tightly."""
        tight = jiio.Tolerance(atol=1e-7, rtol=1e-6)
        solution = self.model.solve(x, tolerance=tight, max_steps=200, on_failure="ignore")
        return self.model.head(solution.z)

    def _starts(self, length: int, restarts: int, seed: int) -> Tensor:
        """(restarts, length, width): the embeddings of random tokens."""
        check_integer("length", length, 1)
        check_integer("restarts", restarts, 1)
        numbers = torch.randint(self.body.config.vocabulary, (restarts, length), generator=generator(seed, "prompt"))
        return self.body.tokens.embed(numbers.to(self.target.device))


def fit_prompt(
    model: LanguageModel,
    target: Tensor,
    *,
    length: int = 4,
    prior: float = PRIOR,
    restarts: int = 4,
    max_steps: int = 200,
    seed: int = 0,
) -> Prompt:
    """The prompt of ``length`` embeddings that makes ``model`` say ``target`` (n,); the best of ``restarts`` starts."""
    model.requires_grad_(False)  # frozen: the prompt alone is sought
    task = PromptProblem(model, target, length=length, restarts=restarts, prior=prior, seed=seed)
    solution = jiio.solve(
        task.problem(),
        task.start,
        rule=RULE,
        adjoint=jiio.Detached(),
        tolerance=TOLERANCE,
        max_steps=max_steps,
        on_failure="ignore",  # told in Prompt.converged
    )

    return best_of(task, solution)


@torch.no_grad()
def best_of(task: PromptProblem, solution: jiio.Solution) -> Prompt:
    """The restart with the smallest objective, measured at an equilibrium of its own."""
    # The states (B, P + n - 1, width), the objective (B,), and the first choices (n,) of the best.
    states = task.measure(solution.x)
    value = task.objective(states, solution.x)
    best = int(value.nan_to_num(math.inf).argmin())
    said = states[best : best + 1, -len(task.target) :]
    spoken = task.body.tokens.log_probabilities(said)[0].argmax(1)

    return Prompt(
        embedding=solution.x[best],
        before=float(task.surprise(task.measure(task.start))[best].mean()),
        after=float(task.surprise(states)[best].mean()),
        spoken=spoken,
        exact=float((spoken == task.target).double().mean()),
        converged=bool(solution.converged[best]),
        evaluations=solution.evaluations.total,
    )


def nested(
    task: PromptProblem,
    *,
    rate: float,
    steps: int,
    tolerance: jiio.Tolerance = TOLERANCE,
    goal: float = -math.inf,
) -> tuple[list[int], list[Tensor]]:
    """Adam on the prompts from the same starts: an equilibrium (warm-started) and an adjoint solve to ``tolerance`` in
    each step.

    goal: stop where every objective is at or below it. Returns the evaluations (cell calls and VJPs) spent by each
    step, and the objective (B,) there.
    """
    x = task.start.clone().requires_grad_()
    optimiser = torch.optim.Adam([x], rate)
    spent, values, total, z = [], [], 0, None
    adjoint = jiio.Implicit(tolerance=tolerance)

    for _ in range(steps):
        solution = task.model.solve(x, z0=z, adjoint=adjoint, tolerance=tolerance, on_failure="ignore")
        value = task.objective(task.model.head(solution.z), x)
        (x.grad,) = torch.autograd.grad(value.sum(), x)

        # The taped call and the last VJP are the pullback; they count like any other.
        total += solution.evaluations.total + solution.evaluations.adjoint_vjp + 1
        spent.append(total)
        values.append(value.detach())
        if bool((value <= goal).all()):
            break
        z = solution.z.detach()  # where the next equilibrium begins
        optimiser.step()
    return spent, values
