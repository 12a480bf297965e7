"""The rounds, on the server's side: weights out, answers in, their average, and what it is worth."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from torch import nn

from jiio.tasks.frame.config import RunConfig
from jiio.tasks.frame.task import AbstractTask

from .client import Arrays, FederationError, check_fit, names_of, put_into, taken_from
from .flower import packed, size, strategy_of, unpacked
from .plan import Federation
from .weighting import Contribution

Row = dict[str, float]


@dataclass(frozen=True)
class Received:
    """An answer that can be used. parameters: Flower's, as they came. arrays: the same, looked at."""

    proxy: Any
    reply: Any
    arrays: Arrays
    answer: Contribution


class Rounds:
    """A federation in progress. model: holds the weights after the last round.

    report: takes lines of news. patience: seconds to wait for clients, and for the answer of each. at_once: whether
    clients are asked at the same time, which those in this process cannot be.
    """

    def __init__(
        self,
        plan: Federation,
        config: RunConfig,
        task: AbstractTask,
        model: nn.Module,
        *,
        report: Callable[[str], None],
        patience: float = 600.0,
        at_once: bool = False,
        evaluate_every: int = 1,
    ) -> None:
        self.plan, self.config, self.task, self.model = plan, config, task, model
        self.report, self.patience, self.at_once, self.every = report, patience, at_once, evaluate_every
        self.weighting = plan.weighting.make("weighting", "weighting")
        self.shapes = [tuple(model.state_dict()[name].shape) for name in names_of(model)]
        self.bytes = 0

    def run(self, manager: Any, done: int, save: Callable[[int, Row], None]) -> None:
        """All rounds after the first ``done``. manager: Flower's, of the clients that are there. save: is called after
        every round, with its number (1, 2, ...) and its figures.

        Errors: FederationError where nobody is there, or nobody's answer can be used.
        """
        # What is sent out, and who averages it.
        parameters = packed(taken_from(self.model))
        strategy = strategy_of(self.plan, parameters, self.plan.digest(self.config))
        if not manager.wait_for(self.plan.clients, self.patience):
            self.report(f"{manager.num_available()} of {self.plan.clients} clients came; the rounds begin with them.")

        for number in range(done, self.plan.rounds):
            if not manager.wait_for(1, self.patience):
                self.give_up(number, f"a client within {self.patience:g} s", "none")
            # Out, back, averaged.
            asked = strategy.configure_fit(number + 1, parameters, manager)
            received, lost = self.answers(asked)
            if not received:
                self.give_up(number, "an answer that can be used", "; ".join(lost) or "none")
            pairs = [(one.proxy, self.weighed(one)) for one in received]
            parameters, _ = strategy.aggregate_fit(number + 1, pairs, [FederationError(why) for why in lost])
            put_into(self.model, unpacked(parameters))

            self.bytes += sum(size(told.parameters) for _, told in asked)
            self.bytes += sum(size(one.reply.parameters) for one in received)
            save(number + 1, self.row(number + 1, received, lost))

    def give_up(self, number: int, expected: str, came: str) -> None:
        """Say why there are no more rounds."""
        remedy = "The rounds before stand; go on by --resume."
        raise FederationError(f"round {number + 1}: expected {expected}, got {came}. {remedy}")

    def answers(self, asked: list[tuple[Any, Any]]) -> tuple[list[Received], list[str]]:
        """The answers that can be used, by the clients' numbers, and why there are no others."""

        def ask(pair: tuple[Any, Any]) -> Received | str:
            try:
                return self.looked_at(pair[0], pair[0].fit(pair[1], timeout=self.patience, group_id=None))
            except FederationError as error:
                return str(error)
            except Exception as error:  # a connection may end in any way, and a client's own code as well
                return f"a client has gone ({type(error).__name__}: {' '.join(str(error).split())[:200]})"

        # Everybody's answer, or why there is none; a number that two claim is the first one's.
        with ThreadPoolExecutor(max(1, len(asked))) as threads:
            heard = list(threads.map(ask, asked) if self.at_once else map(ask, asked))
        lost = [word for word in heard if isinstance(word, str)]
        by_number: dict[int, Received] = {}
        for one in heard:
            if isinstance(one, Received) and by_number.setdefault(one.answer.client, one) is not one:
                lost.append(f"client {one.answer.client} is there twice")
        for word in lost:
            self.report(word)
        return [by_number[k] for k in sorted(by_number)], lost

    def looked_at(self, proxy: Any, reply: Any) -> Received:
        """An answer, if it can be used. Errors: FederationError."""
        if reply.status.code.value != 0:
            raise FederationError(reply.status.message or "a client could not train")
        # Who it is, and whether these are weights.
        arrays, told = unpacked(reply.parameters), reply.metrics
        try:
            answer = Contribution(**{f.name: told[f.name] for f in dataclasses.fields(Contribution)})
            client = int(answer.client)
        except (KeyError, TypeError, ValueError) as error:
            raise FederationError("a client does not say who it is") from error
        check_fit(self.shapes, arrays, f"client {client}")
        # What it may weigh is no affair of its own: the plan knows, and more examples than there are nobody has.
        if not 0 <= client < self.plan.clients or answer.budget != self.plan.budget(client) or answer.examples < 1:
            raise FederationError(f"client {client} is none of this plan")
        return Received(proxy, reply, arrays, answer)

    def weighed(self, one: Received) -> Any:
        """The reply with what it counts where Flower's strategies look for it."""
        return dataclasses.replace(one.reply, num_examples=self.weighting.weight(one.answer))

    def row(self, number: int, received: list[Received], lost: list[str]) -> Row:
        """The figures of a round; of the test images where they are due."""
        # Means over those who answered.
        seconds = [float(one.reply.metrics.get("seconds", math.nan)) for one in received]
        row: Row = {
            "round": float(number),
            "clients": float(len(received)),
            "lost": float(len(lost)),
            "megabytes": self.bytes / 1e6,
            "loss": sum(one.answer.loss for one in received) / len(received),
            "evaluations": sum(float(one.reply.metrics["evaluations"]) for one in received) / len(received),
            "client_seconds": sum(seconds) / len(seconds),
        }
        if number % self.every == 0 or number == self.plan.rounds:
            first = self.task.evaluate(self.model.eval())[0]
            row |= {k: float(v) for k, v in first.items() if isinstance(v, (int, float)) and k not in (*row, "seconds")}
        return row
