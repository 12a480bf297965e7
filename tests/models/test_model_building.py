"""Building models: every kind takes its heads; mistakes get a sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import jiio
from jiio import models
from model_cases import CONFIGS, SMALL, Plain


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_kind_takes_its_heads(name: str) -> None:
    config, flat = CONFIGS[name], name in ("dense", "monotone")
    x, code = torch.rand(2, 3, 8, 8), torch.randn(2, 5)
    with torch.no_grad():
        assert models.classifier(config, image=(3, 8, 8), classes=4)(x).shape == (2, 4)
        assert models.decoder(config, image=(3, 8, 8), latent=5)(code).abs().max() <= 1
        pair = models.build(models.ModelConfig(config, (3, 8, 8), "image", (3, 8, 8), "sigmoid"))
        assert pair(x).shape == (2, 3, 8, 8)
        if not flat:
            assert models.build(models.ModelConfig(config, (3, 8, 8), "pixels", (7,)))(x).shape == (2, 7, 8, 8)


@pytest.mark.parametrize("halvings", [0, 1, 2])
def test_a_coarser_state_still_gives_full_images(halvings: int) -> None:
    config = models.ConvConfig(8, groups=2, halvings=halvings, head_channels=(2,))
    with torch.no_grad():
        decoder = models.decoder(config, image=(1, 16, 8), latent=3)
        assert decoder(torch.randn(2, 3)).shape == (2, 1, 16, 8)
        assert decoder.solve(torch.randn(2, 3)).z.shape == (2, 8, 16 // 2**halvings, 8 // 2**halvings)
        pixels = models.build(models.ModelConfig(config, (1, 16, 8), "pixels", (5,)))
        assert pixels(torch.rand(2, 1, 16, 8)).shape == (2, 5, 16, 8)


BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: models.classifier("tiny", image=(3, 9, 8), classes=2), "multiples of 2"),
    (lambda: models.decoder("decoder-64", image=(3, 24, 20), latent=4), "multiples of 8"),
    (lambda: models.classifier("huge", image=(3, 8, 8), classes=2), "'tiny'"),
    (lambda: models.classifier("tiny", image=(8,), classes=2), "vectors"),
    (lambda: models.classifier(models.DenseConfig, image=(8,), classes=2), "DenseConfig"),  # type: ignore[arg-type]
    (lambda: models.build(models.ModelConfig(models.DenseConfig(), (8,), "pixels", (2,))), "vector state"),
    (lambda: models.build(models.ModelConfig(models.DenseConfig(), (8,), "pixel", (2,))), "'pixels'"),
    (lambda: models.ModelConfig(models.DenseConfig(), (8,), "classifier", (2,), "tanh"), "squash"),
    (lambda: models.ModelConfig(models.DenseConfig(), (8, 8), "classifier", (2,)), "input"),
    (lambda: models.DenseConfig(scaling="orthogonal"), "'spectral'"),
    (lambda: models.DenseConfig(features=0), "at least 1"),
    (lambda: models.MonotoneConfig(m=0.0), "above 0"),
    (lambda: models.MonotoneConfig(activation="silu"), "'softplus'"),
    (lambda: models.ConvConfig(channels=10), "divisor"),
    (lambda: models.ConvConfig(activation="tanh"), "'silu'"),
    (lambda: models.ConvConfig(dropout=1.0), "at most"),
    (lambda: models.EquilibriumModel(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)), "initial_state"),
    (lambda: models.EquilibriumModel(nn.Linear(2, 2), Plain(), nn.Linear(2, 2), solver=jiio.Picard), "Picard"),  # type: ignore[arg-type]
    (lambda: models.classifier("tiny", image=(3, 8, 8), classes=2).problem("loss"), "objective"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("make", "word"), BAD, ids=[word for _, word in BAD])
def test_unusable_configurations_get_a_sentence(make: Callable[[], Any], word: str) -> None:
    with pytest.raises(jiio.JiioError, match=word) as caught:
        make()
    assert str(caught.value).endswith((".", "?"))


def test_wrong_inputs_get_a_sentence() -> None:
    dense = models.classifier(models.DenseConfig(8), image=(4,), classes=2)
    with pytest.raises(jiio.CellError, match="4 numbers per sample"):
        dense(torch.randn(2, 5))
    coded = models.decoder(SMALL, image=(1, 8, 8), latent=4)
    with pytest.raises(jiio.CellError, match=r"\(B, 4\)"):
        coded(torch.randn(2, 5))
    image = models.classifier(SMALL, image=(1, 8, 8), classes=2)
    with pytest.raises(jiio.CellError, match="multiples of 2"):
        image(torch.rand(2, 1, 9, 8))
    with pytest.raises(jiio.CellError, match=r"\(B, 1, H, W\)"):
        image(torch.rand(2, 3, 8, 8))
    for model, x in ((dense, torch.zeros(2, 4)), (coded, torch.zeros(2, 4)), (image, torch.zeros(2, 1, 8, 8))):
        for other in (torch.float64, torch.uint8):
            with pytest.raises(jiio.CellError, match="float32 numbers"):
                model(x.to(other))
