"""What the DEQ transformer made of a segment: its states, its memory, and the penalty at its equilibrium."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import jiio
from jiio.models import Memory, Read, TransformerConfig, TransformerModel


@pytest.fixture(name="model")
def make_model() -> TransformerModel:
    torch.manual_seed(0)
    sizes = TransformerConfig(11, 8, 2, 12, memory=3, dropout=0.3)
    return TransformerModel(sizes, tolerance=jiio.Tolerance(1e-10, 1e-8), max_steps=200).double()


def read(model: TransformerModel, seed: int = 0) -> Read:
    torch.manual_seed(seed)
    return model.solved(model.tokens.embed(torch.arange(10).view(2, 5)))


def test_a_read_has_the_states_the_memory_and_their_solution(model: TransformerModel) -> None:
    found = read(model)
    assert bool(found.solution.converged.all())
    assert torch.equal(found.state, model.last(found.solution.z))
    assert isinstance(found.memory, Memory) and found.memory.states[0].shape == (2, 3, 8)
    torch.testing.assert_close(found.memory.states[0], found.solution.z[:, -3:].detach())


@pytest.mark.parametrize("train", [True, False])
def test_the_penalty_is_that_of_the_map_that_was_solved(model: TransformerModel, train: bool) -> None:
    """|J|_F^2 / d, with J written out under the very masks of the solve; the mean over probes is unbiased."""
    found = read(model.train(train))
    z, u = found.solution.z.detach(), found.solution.x
    jacobian: Any = torch.autograd.functional.jacobian(lambda point: found.cell(point, u), z)
    exact = torch.stack([jacobian[b, :, :, b].square().sum() for b in range(2)]) / 40

    drawn = torch.stack([found.penalty().detach() for _ in range(400)])
    assert drawn.shape == (400, 2)
    assert bool(((drawn.mean(0) - exact).abs() < 4 * drawn.std(0) / 20).all())
    if train:  # other masks are another map
        other = torch.autograd.functional.jacobian(lambda point: read(model, 1).cell(point, u), z)
        assert not torch.allclose(other, jacobian, rtol=0.01)


def test_the_penalty_reaches_the_parameters_of_cell_and_injection(model: TransformerModel) -> None:
    read(model).penalty().mean().backward()
    for part in (model.cell.attention.project.weight, model.inject.said.weight):
        assert part.grad is not None and float(part.grad.abs().sum()) > 0  # type: ignore[union-attr]


def test_the_penalty_moves_no_random_number_unless_asked_for(model: TransformerModel) -> None:
    read(model)
    after = torch.get_rng_state()
    found = read(model)
    assert torch.equal(after, torch.get_rng_state())
    found.penalty()
    assert not torch.equal(after, torch.get_rng_state())
