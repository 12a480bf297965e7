"""The options of ``jiio federate``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jiio.checks import check_integer, check_number, fail
from jiio.tasks.frame.choices import Choice
from jiio.tasks.frame.files import InputError

from .plan import Federation
from .wire import check_address

PLAN = ("clients", "rounds", "local_steps", "alpha", "budgets", "strategy")


@dataclass(frozen=True)
class FederateOptions:
    """What to train, and by whom; all other options are keys of the configuration.

    Args:
        config: a YAML file, or the name of one that comes with jiio
        clients: how many share the training examples
        rounds: of sending weights out and averaging what comes back
        local_steps: training steps of every client in a round
        alpha: classes are shared out by a Dirichlet distribution of this concentration (default: evenly)
        budgets: solver steps of the clients, one number for all or one for each (default: those of the recipe)
        weighting: what an answer counts, ByExamples, IterationAware, or package.module:Name of one's own
        strategy: of Flower: FedAvg, FedAvgM, FedAdagrad, FedAdam, FedYogi, FedMedian, FedTrimmedAvg
        evaluate_every: rounds between two measurements on the test images
        processes: clients as processes of their own, over gRPC on this machine
        listen: be the server alone, at this address of this machine, such as 127.0.0.1:9092
        join: be one client of the server at this address
        client: with --join, which of the clients, 0 for the first
        patience: seconds to wait for clients, and for each of their answers
        resume: continue after the last round in the output folder
        data_root: folder of the data sets (default: JIIO_DATA)
    """

    config: str
    clients: int = 4
    rounds: int = 10
    local_steps: int = 10
    alpha: float | None = None
    budgets: tuple[int, ...] = ()
    weighting: str = "ByExamples"
    strategy: str = "FedAvg"
    evaluate_every: int = 1
    processes: bool = False
    listen: str | None = None
    join: str | None = None
    client: int | None = None
    patience: float = 600.0
    resume: bool = False
    data_root: Path | None = None

    def __post_init__(self) -> None:
        check_integer("--evaluate-every", self.evaluate_every, 1)
        if not math.isfinite(check_number("--patience", self.patience, 0.0, open_low=True)):
            fail("--patience", "a number of seconds", self.patience, error=InputError)
        # One place to be, and what belongs to it.
        chosen = [name for name in ("processes", "listen", "join") if getattr(self, name)]
        if len(chosen) > 1:
            came = " and ".join(f"--{name}" for name in chosen)
            fail("federate", "one of --processes, --listen and --join", came, error=InputError)
        for name in ("listen", "join"):
            if getattr(self, name) is not None:
                check_address(f"--{name}", getattr(self, name))
        if (self.join is None) != (self.client is None):
            came = "--client alone" if self.join is None else "--join alone"
            fail("federate", "--join and --client together", came, error=InputError)
        if self.join is not None and self.resume:
            fail("--resume", "a server; a client keeps nothing", "--join beside it", error=InputError)

    def plan(self) -> Federation:
        """What server and clients agree on. Errors: JiioError."""
        told: dict[str, Any] = {name: getattr(self, name) for name in PLAN}
        return Federation(**told, weighting=Choice(self.weighting))
