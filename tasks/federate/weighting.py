"""What the weights of one client count in the average of a round."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from jiio.checks import check_number


@dataclass(frozen=True)
class Contribution:
    """What a client says of its work in one round.

    client: its number. examples: how many training examples it has. budget: solver steps it may take, 0 where nobody
    limits them. loss: the mean over its steps.
    """

    client: int
    examples: int
    budget: int
    loss: float


@dataclass(frozen=True)
class AbstractWeighting(ABC):
    """A number above zero for every answer; in the average, each counts by its share of their sum."""

    needs_budgets = False  # whether it has nothing to go by where no client's steps are limited

    @abstractmethod
    def weight(self, answer: Contribution) -> float:
        """What the answer counts."""


@dataclass(frozen=True)
class ByExamples(AbstractWeighting):
    """The number of training examples, w_k = n_k: federated averaging (McMahan et al. 2017)."""

    def weight(self, answer: Contribution) -> float:
        return float(answer.examples)


@dataclass(frozen=True)
class IterationAware(AbstractWeighting):
    """The solver steps that a client may take, w_k = T_k ** power: who solves further knows its gradient better.

    After Gkillas, Ampeliotis and Berberidis, "Deep equilibrium models meet federated learning" (EUSIPCO 2023), who
    average by the quality of the clients' models where these differ in fixed-point iterations. Their abstract does not
    print the rule, and it was not to be had elsewhere: proportional to the steps is a reading, not a quotation.
    """

    power: float = 1.0
    needs_budgets = True

    def __post_init__(self) -> None:
        check_number("IterationAware.power", self.power, 0.0, 16.0)

    def weight(self, answer: Contribution) -> float:
        return float(answer.budget) ** self.power
