"""What is fixed before the first round, the same for the server and for every client."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from jiio.checks import check_choice, check_integer, check_number, fail
from jiio.outputs.seeds import derive
from jiio.tasks.frame.choices import Choice
from jiio.tasks.frame.config import RunConfig, whole
from jiio.tasks.frame.load import ConfigError

# Of Flower's strategies, those whose clients need not know of them: averages by weights, then two by ranks.
WEIGHTED = ("FedAvg", "FedAvgM", "FedAdagrad", "FedAdam", "FedYogi")
STRATEGIES = (*WEIGHTED, "FedMedian", "FedTrimmedAvg")
STATELESS = ("FedAvg", "FedMedian", "FedTrimmedAvg")  # what goes on from the weights of a round alone
SOLVES = ("joint", "solve", "model")  # where a configuration says how many steps a solve takes


@dataclass(frozen=True)
class Federation:
    """How a recipe is trained by several.

    clients: how many share the training examples. rounds: of sending weights out and averaging what comes back.
    local_steps: training steps of every client in a round. alpha: of the Dirichlet distribution of classes, None for
    an even split. budgets: solver steps of the clients, one number for all or one for each; () limits nobody.
    weighting: what an answer counts. strategy: of Flower, which averages.
    """

    clients: int = 4
    rounds: int = 10
    local_steps: int = 10
    alpha: float | None = None
    budgets: tuple[int, ...] = ()
    weighting: Choice = field(default_factory=lambda: Choice("ByExamples"))
    strategy: str = "FedAvg"

    def __post_init__(self) -> None:
        # Numbers, and as many budgets as there are clients.
        whole("clients", self.clients, 1, 10_000)
        whole("rounds", self.rounds, 1, 1_000_000)
        whole("local_steps", self.local_steps, 1, 1_000_000)
        if self.alpha is not None:
            check_number("alpha", self.alpha, 0.0, 1e6, open_low=True)
        for budget in self.budgets:
            whole("budgets", budget, 2, 100_000)
        if len(self.budgets) not in (0, 1, self.clients):
            fail("budgets", f"one number, or one for each of the {self.clients} clients", len(self.budgets))

        # A weighting that nothing comes of would be an option that is ignored.
        check_choice("strategy", self.strategy, STRATEGIES)
        weighting = self.weighting.make("weighting", "weighting")
        if self.strategy not in WEIGHTED and self.weighting != Choice("ByExamples"):
            came = f"{self.weighting.name} beside {self.strategy}, which knows no weights"
            fail("weighting", f"a strategy that averages by weights ({', '.join(WEIGHTED)})", came)
        if weighting.needs_budgets and not self.budgets:
            fail(
                "weighting", "budgets of solver steps to weigh by", f"{self.weighting.name} without", "Pass --budgets."
            )

    def budget(self, client: int) -> int:
        """Solver steps of a client, 0 where nobody limits them."""
        return 0 if not self.budgets else self.budgets[client % len(self.budgets)]

    def course(self, config: RunConfig) -> RunConfig:
        """The recipe with as many steps as all rounds have, so that its schedule of the rate spans them."""
        return dataclasses.replace(config, steps=self.rounds * self.local_steps)

    def config(self, config: RunConfig, client: int) -> RunConfig:
        """The recipe as a client trains by it: with draws and a budget of its own."""
        check_integer("client", client, 0)
        if client >= self.clients:
            fail("client", f"a number below clients = {self.clients}", client)
        mine = dataclasses.replace(self.course(config), seed=derive(config.seed, "client", client))
        return budgeted(mine, self.budget(client)) if self.budgets else mine

    def digest(self, config: RunConfig) -> str:
        """Of all that server and clients must agree on; where the files lie is everybody's own."""
        told = dataclasses.asdict(self.course(config)) | {"output": "", "threads": None, "device": ""}
        text = json.dumps([told, dataclasses.asdict(self)], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def budgeted(config: Any, steps: int) -> Any:
    """A configuration whose solves take at most so many steps, those of an implicit adjoint too.

    Errors: ConfigError where nothing in it is solved.
    """
    plain = getattr(getattr(config, "depth", None), "name", "Equilibrium") != "Equilibrium"
    for key in () if plain else SOLVES:
        part: Any = getattr(config, key, None)
        if not hasattr(part, "max_steps") or not getattr(part, "implicit", True):
            continue
        changes: dict[str, Any] = {"max_steps": steps}
        adjoint = getattr(part, "adjoint", None)
        if isinstance(adjoint, Choice) and adjoint.name == "Implicit":
            changes["adjoint"] = Choice("Implicit", {**adjoint.options, "max_steps": steps})
        return dataclasses.replace(config, **{key: dataclasses.replace(part, **changes)})
    came = f"one of the task {config.task!r} without"
    fail("budgets", "a recipe with the solve of an equilibrium", came, "Leave --budgets out.", ConfigError)
