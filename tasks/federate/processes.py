"""Clients as processes of this machine, started and ended with the server."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence

from jiio.tasks.frame.terminal import say

# Seconds in which a client that was sent home ends by itself. Its work is done then, but gRPC waits ten more, because
# Flower's client never ends the stream of its requests.
GRACE = 3.0
OURS = ("--processes", "--resume")


@contextlib.contextmanager
def started(argv: Sequence[str], clients: int, address: str) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The same command line as so many clients of the server at an address; none of them is left at the end.

    argv: of this process, without the name of the program.
    """
    words = [word for word in argv if word not in OURS]
    line = [sys.executable, "-m", "jiio", *words, "--join", address, "--client"]
    running = [subprocess.Popen([*line, str(k)], stdout=subprocess.DEVNULL) for k in range(clients)]
    say(f"{clients} clients: processes {', '.join(str(one.pid) for one in running)}.")
    try:
        yield running
    finally:
        end(running)


def end(running: Sequence[subprocess.Popen[bytes]]) -> None:
    """Wait for all of them; say who ended otherwise than it should, and stop who does not end."""
    for k, one in enumerate(running):
        with contextlib.suppress(subprocess.TimeoutExpired):
            one.wait(GRACE)
        if one.returncode is None:
            one.kill()
            one.wait()
        elif one.returncode:
            say(f"Client {k} ended with {one.returncode}.")
