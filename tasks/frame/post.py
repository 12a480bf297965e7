"""Which process of a run this is, as the launcher says it in the environment."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from jiio.checks import fail

BEGIN = "Start it by: torchrun --nproc-per-node N -m jiio ..."
ALONE = "Unset WORLD_SIZE to run one process alone."


@dataclass(frozen=True)
class Post:
    """Where the launcher put this process: rank ``index`` of ``count``, number ``local`` on its machine."""

    index: int = 0
    count: int = 1
    local: int = 0

    @property
    def leads(self) -> bool:
        """Whether it is the one that reads and writes for all."""
        return self.index == 0

    @classmethod
    def of(cls, values: Mapping[str, str] | None = None) -> Post:
        """As the environment says; alone where it says nothing of other processes.

        Errors: ArgumentError where it contradicts itself.
        """
        values = os.environ if values is None else values
        count = _number(values, "WORLD_SIZE", 1)
        if count < 1:
            fail("WORLD_SIZE", "a number of processes, at least 1", f"{count}", ALONE)
        if count == 1:
            return cls()

        # A number that is missing is no zero: all processes would take themselves for the first.
        if "RANK" not in values:
            fail("RANK", f"the number of this process beside WORLD_SIZE={count}", "none", f"{BEGIN} {ALONE}")
        index = _number(values, "RANK", 0)
        if not 0 <= index < count:
            fail("RANK", f"a number from 0 to {count - 1} beside WORLD_SIZE={count}", f"{index}", BEGIN)
        for name in ("MASTER_ADDR", "MASTER_PORT"):
            if not values.get(name):
                what = "the address of rank 0" if name == "MASTER_ADDR" else "a free port there"
                fail(name, f"{what} beside WORLD_SIZE={count}", "none", f"{BEGIN} {ALONE}")
        return cls(index, count, _number(values, "LOCAL_RANK", index))


def check_address(values: Mapping[str, str] | None = None) -> None:
    """Raise where the address of rank 0 is none: torch would try for as long as the others are waited for."""
    values = os.environ if values is None else values
    port = _number(values, "MASTER_PORT", 0)
    if not 0 < port < 1 << 16:
        fail("MASTER_PORT", "a port from 1 to 65535", f"{port}", BEGIN)
    name = values.get("MASTER_ADDR", "")
    try:
        socket.getaddrinfo(name, port)
    except (OSError, UnicodeError) as error:  # a name with an empty part is no name that could be asked for
        fail("MASTER_ADDR", "an address of rank 0 that this machine can find", f"{name!r} ({error})", BEGIN)


def _number(values: Mapping[str, str], name: str, default: int) -> int:
    word = values.get(name, str(default))
    try:
        return int(word)
    except ValueError:
        fail(name, "a whole number", repr(word), BEGIN)
