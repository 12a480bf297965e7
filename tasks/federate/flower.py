"""Flower, as far as it is used: loaded when a federation begins, silent, and without its telemetry.

Of Flower's two faces this is the one that still speaks gRPC, `start_server` and `start_client` with clients that stay
connected. Since 1.13 Flower calls it deprecated beside SuperLink and SuperNode, which from 1.42 on speak HTTP and start
a Python process for every message.
"""

from __future__ import annotations

import importlib
import logging
import os
from typing import Any

from jiio.tasks.frame.files import InputError

from .client import Arrays, Client, FederationError, told
from .plan import Federation

MODULES = ("flwr.common", "flwr.server", "flwr.server.strategy", "flwr.client")


def library(name: str) -> Any:
    """A module of Flower. Errors: InputError where it is not installed."""
    # It would tell its makers of every start; who wants that says so in the environment.
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    try:
        return importlib.import_module(name)
    except ImportError as error:
        remedy = "pip install 'jiio[federated]'"
        raise InputError(f"federate: Flower needs the extra 'federated' ({error}). {remedy}") from error


def check_installed() -> None:
    """Raise before anything is read or written where Flower is missing. Errors: InputError."""
    for name in MODULES:
        library(name)


def packed(arrays: Arrays) -> Any:
    """Weights as Flower's parameters, which are bytes."""
    return library("flwr.common").ndarrays_to_parameters(arrays)


def unpacked(parameters: Any) -> Arrays:
    """The weights in Flower's parameters. Errors: FederationError where these are no arrays."""
    try:
        return list(library("flwr.common").parameters_to_ndarrays(parameters))
    except (ValueError, OSError, EOFError) as error:
        raise FederationError(f"weights: expected arrays of numbers, got something else ({error}).") from error


def size(parameters: Any) -> int:
    """Bytes that travel."""
    return sum(len(tensor) for tensor in parameters.tensors)


def strategy_of(plan: Federation, initial: Any, digest: str) -> Any:
    """Flower's strategy: everybody who is there takes part, and a round is worth what came back.

    initial: the weights before the first round, from which strategies with momentum begin.
    """
    cls = getattr(library("flwr.server.strategy"), plan.strategy)
    return cls(
        fraction_fit=1.0,
        fraction_evaluate=0.0,
        min_fit_clients=1,
        min_available_clients=1,
        accept_failures=True,
        initial_parameters=initial,
        on_fit_config_fn=lambda number: {"round": number - 1, "digest": digest},
        fit_metrics_aggregation_fn=lambda answers: {},
    )


def answered(client: Client, instructions: Any, digest: str) -> Any:
    """What a client sends back in a round; where its training failed, the sentence about it.

    Errors: FederationError where the server trains something else.
    """
    common = library("flwr.common")
    if instructions.config.get("digest") != digest:
        remedy = "Start server and clients with the same recipe and options."
        raise FederationError(f"client {client.index}: the server trains by another recipe or another plan. {remedy}")
    try:
        work = client.work(unpacked(instructions.parameters), int(instructions.config["round"]))
    except (ArithmeticError, RuntimeError) as error:
        problem = common.Status(common.Code.FIT_NOT_IMPLEMENTED, str(error))
        return common.FitRes(problem, common.Parameters([], ""), 0, {})
    fine = common.Status(common.Code.OK, "")
    return common.FitRes(fine, packed(work.arrays), work.answer.examples, told(work))


class LocalProxy:
    """A client in this process, in the place of one behind a connection."""

    def __init__(self, client: Client, digest: str) -> None:
        self.client, self.digest = client, digest
        self.cid = f"{client.index}"

    def fit(self, instructions: Any, timeout: float | None, group_id: int | None) -> Any:
        """Its work in a round, at once."""
        return answered(self.client, instructions, self.digest)


def gathered(clients: list[Client], digest: str) -> Any:
    """A manager of clients in this process."""
    manager = library("flwr.server").SimpleClientManager()
    for client in clients:
        manager.register(LocalProxy(client, digest))
    return manager
