"""What holds wherever a problem can be taken apart: some samples alone give what they give in company."""

from __future__ import annotations

from typing import Any

import torch

import jiio
from helpers import gap
from jiio.layout import map_tree
from jiio.persample import taken

INDEX = torch.tensor([0, 2, 3])


def check_rows(problem: jiio.Problem, x: Any, near: float, value_near: float) -> None:
    """Restricting, then evaluating, is evaluating, then restricting: cell, start, objective and prox.

    x: a batch of at least four. near, value_near: how far image and objective may be apart.
    """
    cell: Any = problem.cell
    z0 = cell.initial_state(x)
    z = map_tree(torch.randn_like, z0)
    with torch.no_grad():
        whole = cell(z, x)  # first: what is drawn for a solve is drawn for the whole batch
        part = problem.rows(INDEX, x)
        assert part is not None
        own: Any = part.cell
        few_z, few_x = taken(z, INDEX), taken(x, INDEX)
        image = taken(whole, INDEX)
        assert gap(own(few_z, few_x), image) < near
        assert gap(part.objective(few_z, few_x), problem.objective(z, x)[INDEX]) < value_near
        assert gap(own.initial_state(few_x), taken(z0, INDEX)) < near
        assert gap(part.prox(few_x, 0.3), taken(problem.prox(x, 0.3), INDEX)) < near

        # And once more, of those that are left.
        second = torch.tensor([1])
        again = part.rows(second, few_x)
        assert again is not None
        assert gap(again.cell(taken(few_z, second), taken(few_x, second)), taken(image, second)) < near
