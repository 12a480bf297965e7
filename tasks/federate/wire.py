"""Server and clients as processes of their own, over gRPC on this machine."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

from jiio.checks import fail
from jiio.tasks.frame.files import InputError

from .client import Client, FederationError
from .flower import answered, library

LOOPBACK = ("127.0.0.1", "localhost")


def check_address(argument: str, word: str) -> str:
    """HOST:PORT on this machine: what travels is neither encrypted nor signed.

    Errors: InputError.
    """
    host, _, port = word.rpartition(":")
    if host not in LOOPBACK or not (port.isdigit() and port.isascii() and 0 < int(port) < 1 << 16):
        remedy = "Such as 127.0.0.1:9092; between machines use a tunnel of your own."
        fail(argument, "an address of this machine with a port from 1 to 65535", repr(word), remedy, InputError)
    return word


def free_address() -> str:
    """An address at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def check_free(argument: str, address: str) -> None:
    """Raise where somebody listens already, which Flower would say by ending the process. Errors: InputError."""
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        try:
            probe.bind((host, int(port)))
        except OSError as error:
            fail(argument, "a port that is free", f"{address} ({error.strerror})", "Name another one.", InputError)


def serve(address: str, rounds: Callable[[Any], None]) -> None:
    """Let clients connect, and call ``rounds`` with Flower's manager of them; then send everybody home.

    Errors: what ``rounds`` raises.
    """
    server = library("flwr.server")
    problem: list[Exception] = []

    class Host(server.Server):
        """Flower's server with our rounds."""

        def fit(self, num_rounds: int, timeout: float | None) -> tuple[Any, float]:
            # Raised here, it would leave the clients waiting and the port taken.
            try:
                rounds(self.client_manager())
            except Exception as error:
                problem.append(error)
            return server.History(), 0.0

    host = Host(client_manager=server.SimpleClientManager())
    server.start_server(server_address=address, server=host, config=server.ServerConfig(num_rounds=1))
    if problem:
        raise problem[0]


def join(address: str, client: Client, digest: str, *, patience: float) -> None:
    """LocalWork for the server until it sends the client home. patience: seconds to look for it, at the beginning and
    whenever the connection breaks: a server that begins again finds its clients.

    Errors: FederationError where the server cannot be found, or trains something else.
    """
    flower, grpc = library("flwr.client"), library("grpc")
    problem: list[FederationError] = []

    class Worker(flower.Client):
        """The client as Flower calls it."""

        def fit(self, ins: Any) -> Any:
            try:
                return answered(client, ins, digest)
            except FederationError as error:
                problem.append(error)
                raise

    # Again and again, until the server says that it is done.
    last = time.monotonic()
    while True:
        begin = time.monotonic()
        try:
            flower.start_client(server_address=address, client=Worker(), insecure=True, max_retries=0)
            return
        except Exception as error:
            if problem:
                raise problem[0] from None
            if not isinstance(error, grpc.RpcError):
                raise
        # A try that lasted was a connection: the patience begins anew.
        if time.monotonic() - begin > 1.0:
            last = time.monotonic()
        if time.monotonic() - last > patience:
            remedy = "Start it by --listen, or name its address."
            raise FederationError(f"--join: expected a server at {address} within {patience:g} s, got none. {remedy}")
        time.sleep(0.2)
