"""The command line in double precision, so that two ways to the same weights can be told from two trainings: ``python
tests/double.py train CONFIG ... + train CONFIG ...``, alone or as one of several ranks; one command after the other, as
a process takes longer to begin than a small training.

Single precision is what a network rounds to at every layer, and fifty steps of Adam make a rounding error larger; so
every word for it means the double one here, before anything else is imported.
"""

from __future__ import annotations

import os
import sys

import torch

torch.float32 = torch.float = torch.float64
torch.Tensor.float = torch.Tensor.double
torch.set_default_dtype(torch.float64)


def commands(words: list[str]) -> list[list[str]]:
    """The words between the plus signs."""
    found: list[list[str]] = [[]]
    for word in words:
        if word == "+":
            found.append([])
        else:
            found[-1].append(word)
    return found


if __name__ == "__main__":
    from jiio.tasks.cli import main

    torch.set_num_threads(1)
    for command in commands(sys.argv[1:]):
        code = main(command)
        if code:
            sys.exit(code)
        if "MASTER_PORT" in os.environ:  # that of the last group may not be free at once
            os.environ["MASTER_PORT"] = str(int(os.environ["MASTER_PORT"]) + 1)
