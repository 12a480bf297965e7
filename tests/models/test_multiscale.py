"""The multiscale cell: presets and their sizes, how branches speak to each other, behaviour at the start, sentences
for bad sizes.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import jiio
from jiio import models

SMALL = models.MultiscaleConfig(
    (8, 12, 16), expansion=1, groups=2, fusion_groups=2, head_channels=(2, 2, 2), final_channels=8
)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def relative(model: models.EquilibriumModel, x: Tensor, steps: int) -> float:
    """The worst relative residual of a plain Anderson solve."""
    with torch.no_grad():
        tolerance = jiio.Tolerance(atol=0.0, rtol=9e-5)
        solution = model.solve(x, max_steps=steps, on_failure="ignore", tolerance=tolerance)
        flat = torch.cat([part.flatten(1) for part in solution.z], dim=1)
        return float((solution.residual[:, 0] / flat.square().mean(1).sqrt()).max())


# -- presets


@pytest.mark.parametrize(
    ("name", "image", "low", "high"),
    [
        ("tiny", (3, 32, 32), 30e3, 100e3),
        ("cifar-tiny", (3, 32, 32), 140e3, 190e3),  # the paper: 170 thousand
        ("cifar-large", (3, 32, 32), 9e6, 12e6),  # the paper: 10 million
        ("decoder-small", (3, 32, 32), 100e3, 300e3),
    ],
)
def test_classifier_parameter_counts(name: str, image: tuple[int, int, int], low: float, high: float) -> None:
    assert low < count(models.classifier(name, image=image, classes=10)) < high


@pytest.mark.parametrize(
    ("name", "image", "latent", "low", "high"),
    [
        ("tiny", (3, 32, 32), 32, 30e3, 100e3),
        ("tiny", (1, 24, 24), 32, 30e3, 100e3),
        ("decoder-small", (1, 24, 24), 32, 100e3, 300e3),
        ("decoder-small", (3, 32, 32), 64, 100e3, 300e3),
    ],
)
def test_decoder_parameter_counts(name: str, image: tuple[int, int, int], latent: int, low: float, high: float) -> None:
    assert low < count(models.decoder(name, image=image, latent=latent)) < high


def test_the_large_decoder_has_the_sizes_of_the_paper() -> None:
    model = models.decoder().eval()
    assert models.PRESETS["decoder-64"].channels == (32, 64, 128, 256)
    z = model.cell.initial_state(model.inject(torch.zeros(1, 128)))  # type: ignore[operator]
    assert sum(part.numel() for part in z) == 245_760
    with torch.no_grad():
        image = model.head(z)
    assert image.shape == (1, 3, 64, 64)
    assert float(image.abs().max()) <= 1


@pytest.mark.parametrize(
    ("name", "side", "batch", "steps"),
    [("tiny", 16, 4, 40), ("cifar-tiny", 16, 2, 40), ("cifar-large", 16, 1, 60), ("decoder-small", 24, 2, 40)],
)
@pytest.mark.parametrize("training", [True, False])
def test_presets_have_an_equilibrium_at_the_start(name: str, side: int, batch: int, steps: int, training: bool) -> None:
    classifier = models.classifier(name, image=(3, side, side), classes=10).train(training)
    assert relative(classifier, torch.rand(batch, 3, side, side), steps) < 1e-4
    decoder = models.decoder(name, image=(3, side, side), latent=16).train(training)
    codes = torch.randn(batch, 16)
    codes[0] = 0.0  # where input optimisation usually starts
    assert relative(decoder, codes, steps) < 1e-4


@pytest.mark.parametrize("training", [True, False])
def test_the_large_decoder_has_an_equilibrium_at_the_start(training: bool) -> None:
    assert relative(models.decoder().train(training), torch.zeros(1, 128), 40) < 1e-4


@pytest.mark.parametrize("activation", ["softplus", "silu", "gelu"])
@pytest.mark.parametrize("seed", range(3))
def test_smooth_activations_and_dropout_have_an_equilibrium_at_the_start(activation: str, seed: int) -> None:
    torch.manual_seed(seed)
    config = models.MultiscaleConfig.preset("tiny", activation=activation, dropout=0.3)
    model = models.classifier(config, image=(3, 16, 16), classes=10)
    assert relative(model, torch.rand(4, 3, 16, 16), 60) < 1e-4


def test_preset_takes_changes_and_stays_what_it_was() -> None:
    changed = models.MultiscaleConfig.preset("tiny", dropout=0.1)
    assert changed == dataclasses.replace(models.PRESETS["tiny"], dropout=0.1)
    assert models.PRESETS["tiny"].dropout == 0.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        changed.dropout = 0.2  # type: ignore[misc]


# -- the cell


def test_every_branch_hears_every_branch() -> None:
    cell = models.MultiscaleCell(SMALL)
    u = torch.randn(1, 8, 8, 8)
    z = tuple(torch.randn_like(part) for part in cell.initial_state(u))
    base = cell(z, u)
    assert [tuple(part.shape) for part in base] == [(1, 8, 8, 8), (1, 12, 4, 4), (1, 16, 2, 2)]
    for j in range(3):
        moved = cell(tuple(part + (i == j) * torch.randn_like(part) for i, part in enumerate(z)), u)
        for i in range(3):
            assert float((moved[i] - base[i]).detach().abs().max()) > 1e-4, (j, i)


def test_the_injection_reaches_the_finest_branch_first() -> None:
    cell = models.MultiscaleCell(SMALL)
    u = torch.randn(1, 8, 8, 8)
    blocks: list[Any] = []
    for block in cell.blocks:
        block.register_forward_hook(lambda _module, inputs, _out: blocks.append(inputs[1]))
    cell(cell.initial_state(u), u)
    assert blocks[0] is u
    assert blocks[1:] == [None, None]


def test_output_is_normalised_per_group() -> None:
    cell = models.MultiscaleCell(SMALL)
    u = torch.randn(3, 8, 8, 8)
    for part in cell(tuple(torch.randn_like(p) for p in cell.initial_state(u)), u):
        groups = part.detach().unflatten(1, (SMALL.fusion_groups, -1)).flatten(2)
        assert float(groups.mean(2).abs().max()) < 1e-5
        assert torch.allclose(groups.std(2, correction=0), torch.ones(3, 2), atol=1e-3)


def test_masks_drop_whole_channels_of_the_residual_branch() -> None:
    config = dataclasses.replace(SMALL, dropout=0.25)
    cell = models.MultiscaleCell(config)
    u = torch.randn(200, 8, 8, 8)
    z = tuple(torch.randn_like(part) for part in cell.initial_state(u))
    masks = cell.draw_masks(z, torch.Generator().manual_seed(1))
    assert masks is not None
    assert [tuple(m.shape) for m in masks] == [(200, c, 1, 1) for c in SMALL.channels]
    for mask in masks:
        assert {round(v, 5) for v in mask.unique().tolist()} == {0.0, round(1 / 0.75, 5)}
        assert float(mask.mean()) == pytest.approx(1.0, abs=0.06)
    ones = tuple(torch.ones_like(m) for m in masks)
    with torch.no_grad():
        assert all(torch.allclose(a, b) for a, b in zip(cell(z, u), cell(z, u, ones), strict=True))
        assert not torch.allclose(cell(z, u)[0], cell(z, u, masks)[0])
    assert models.MultiscaleCell(SMALL).draw_masks(z, torch.Generator()) is None


def test_weight_norm_parameters_get_gradients_through_a_solve() -> None:
    model = models.classifier(SMALL, image=(1, 8, 8), classes=3)
    model(torch.rand(2, 1, 8, 8)).square().sum().backward()
    lengths = {key: p for key, p in model.cell.named_parameters() if key.endswith("original0")}
    directions = {key: p for key, p in model.cell.named_parameters() if key.endswith("original1")}
    assert len(lengths) == len(directions) == 6 + 3 + 4 + 3  # in blocks, mixing, downward (1 + 1 + 2 steps), upward
    for key, parameter in {**lengths, **directions}.items():
        assert parameter.grad is not None, key
        assert float(parameter.grad.abs().max()) > 0, key


def test_without_weight_norm_the_cell_computes_the_same() -> None:
    torch.manual_seed(3)
    normed = models.MultiscaleCell(SMALL)
    torch.manual_seed(3)
    free = models.MultiscaleCell(dataclasses.replace(SMALL, weight_norm=False))
    u = torch.randn(2, 8, 8, 8)
    z = tuple(torch.randn_like(part) for part in normed.initial_state(u))
    with torch.no_grad():
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(normed(z, u), free(z, u), strict=True))


def test_one_branch_is_a_cell_too() -> None:
    config = models.MultiscaleConfig((8,), expansion=1, groups=2, fusion_groups=2, head_channels=(2,), final_channels=8)
    model = models.classifier(config, image=(1, 7, 5), classes=3)
    assert model(torch.rand(2, 1, 7, 5)).shape == (2, 3)
    assert models.decoder(config, image=(1, 7, 5), latent=3)(torch.randn(2, 3)).shape == (2, 1, 7, 5)


def test_a_classifier_takes_any_size_that_divides() -> None:
    model = models.classifier(SMALL, image=(1, 8, 8), classes=3)
    with torch.no_grad():
        assert model(torch.rand(2, 1, 16, 12)).shape == (2, 3)


# -- heads


def test_the_classifier_head_reads_every_branch() -> None:
    head = models.ClassifierHead((8, 12), 3, head_channels=(2, 3), final_channels=8)
    z = (torch.randn(2, 8, 4, 4, requires_grad=True), torch.randn(2, 12, 2, 2, requires_grad=True))
    head(z).square().sum().backward()
    assert all(part.grad is not None and float(part.grad.abs().max()) > 0 for part in z)


def test_a_head_refuses_the_wrong_state() -> None:
    head = models.ImageHead((8, 12), (1, 4, 4))
    with pytest.raises(jiio.CellError, match="2 feature map"):
        head(torch.randn(2, 8, 4, 4))


@pytest.mark.parametrize(("squash", "low", "high"), [("sigmoid", 0.0, 1.0), ("tanh", -1.0, 1.0)])
def test_squash_is_the_pixel_range(squash: str, low: float, high: float) -> None:
    head = models.ImageHead((8,), (2, 4, 4), squash=squash)
    image = head(100 * torch.randn(2, 8, 4, 4)).detach()
    assert low <= float(image.min()) < low + 0.1
    assert high - 0.1 < float(image.max()) <= high


# -- sentences


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"channels": (8, 9)}, "divisor"),
        ({"channels": ()}, "channels"),
        ({"channels": (8,) * 9}, "at most 8 branches"),
        ({"channels": (8, 0)}, "at least 1"),
        ({"groups": 3}, "divisor"),
        ({"fusion_groups": 5}, "divisor"),
        ({"activation": "tanh"}, "'relu'"),
        ({"dropout": -0.1}, "dropout"),
        ({"head_channels": (4,)}, "3 whole numbers"),
        ({"drive": 0.0}, "above 0"),
        ({"expansion": 0}, "expansion"),
        ({"halvings": -1}, "halvings"),
    ],
)
def test_unusable_sizes_get_a_sentence(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(jiio.JiioError, match=word):
        dataclasses.replace(SMALL, **changes)


def test_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(jiio.ArgumentError, match="cifar-large"):
        models.MultiscaleConfig.preset("cifar-medium")


def test_sides_that_do_not_divide_are_refused_with_a_size_that_does() -> None:
    cell = models.MultiscaleCell(SMALL)
    with pytest.raises(jiio.CellError, match=r"multiples of 4.*12, 8"):
        cell.initial_state(torch.randn(1, 8, 10, 8))
    with pytest.raises(jiio.ArgumentError, match="multiples of 4"):
        models.DecoderInjection(4, SMALL.channels, (10, 8))


def test_a_wrong_number_of_injections_is_refused() -> None:
    u = torch.randn(1, 8, 8, 8)
    with pytest.raises(jiio.CellError, match="3 injected"):
        models.MultiscaleCell(SMALL, injected=3).initial_state(u)
    with pytest.raises(jiio.ArgumentError, match="1 or all 3"):
        models.MultiscaleCell(SMALL, injected=2)
