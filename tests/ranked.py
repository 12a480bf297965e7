"""The command line as one of several ranks: ``python tests/ranked.py train CONFIG ... + evaluate ...``, one command
after the other, as a process takes longer to begin than a small training.

With IN_DOUBLE in the environment every word for single precision means the double one: single precision is what a
network rounds to at every layer, and fifty steps of Adam make a rounding error larger, so that two ways to the same
weights could not be told from two trainings.
"""

from __future__ import annotations

import os
import sys

import torch
import torch.nn.functional as F


def in_double() -> None:
    """Before anything else is imported."""
    torch.float32 = torch.float = torch.float64
    torch.Tensor.float = torch.Tensor.double
    torch.set_default_dtype(torch.float64)
    sampled = F.grid_sample
    F.grid_sample = lambda images, grid, **rest: sampled(images.double(), grid.double(), **rest)


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
    if "IN_DOUBLE" in os.environ:
        in_double()
    from jiio.tasks.cli import main

    torch.set_num_threads(1)
    for command in commands(sys.argv[1:]):
        code = main(command)
        if code:
            sys.exit(code)
        if "MASTER_PORT" in os.environ:  # that of the last group may not be free at once
            os.environ["MASTER_PORT"] = str(int(os.environ["MASTER_PORT"]) + 1)
