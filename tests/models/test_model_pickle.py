"""Models through pickle, deepcopy and half precision."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import jiio
from helpers import gap
from jiio.checks import CheckpointError
from jiio.models import ConvConfig, DenseConfig, MonotoneConfig, classifier

CONFIGS = [DenseConfig(8), DenseConfig(8, scaling="spectral"), MonotoneConfig(8), ConvConfig(channels=8)]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: type(c).__name__)
def test_pickled_and_copied(config: jiio.models.AbstractCellConfig) -> None:
    torch.manual_seed(0)
    model = classifier(config, image=(1, 8, 8), classes=3, max_steps=37).eval()
    model.head.requires_grad_(False)
    x = torch.rand(2, 1, 8, 8)
    want, state = model(x).detach(), torch.get_rng_state()
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (
        pickle.loads(pickle.dumps(model)),
        torch.load(file, weights_only=False),
        copy.deepcopy(model),
    ):
        assert gap(other(x), want) == 0 and other.max_steps == 37 and not other.training
        assert [p.requires_grad for p in other.parameters()] == [p.requires_grad for p in model.parameters()]
        assert next(other.parameters()) is not next(model.parameters())
    assert torch.equal(state, torch.get_rng_state())


def test_by_hand_there_is_a_sentence() -> None:
    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = weight_norm(nn.Linear(4, 4))

        def forward(self, z, u):
            return torch.tanh(0.3 * self.linear(z) + u)

        def initial_state(self, u):
            return torch.zeros_like(u)

    model = jiio.EquilibriumModel(nn.Identity(), Cell(), nn.Identity())
    with pytest.raises(CheckpointError, match=r"jiio\.models\.build"):
        pickle.dumps(model)
    copy.deepcopy(model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_monotone_cell_in_half_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model, x = classifier(MonotoneConfig(16), image=(1, 8, 8), classes=3, on_failure="ignore"), torch.rand(4, 1, 8, 8)
    exact = model.solve(x).z
    low = model.to(dtype).solve(x.to(dtype))
    assert bool(low.converged.all())
    assert gap(low.z.float(), exact) < 3 * torch.finfo(dtype).eps * 10
