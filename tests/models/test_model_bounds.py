"""What a hostile file asks for is refused by a sentence before it is built, whatever it says."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import jiio
from jiio import models
from jiio.models import files
from jiio.models.bounds import FREE, Held, difference, not_finite, unusable
from jiio.models.files import FORMAT, VERSION
from jiio.models.plain import TEXT_LIMIT, encode

CELLS: dict[str, models.ModelConfig] = {
    "dense": models.ModelConfig(models.DenseConfig(8, scaling="spectral"), (5,), "classifier", (3,)),
    "monotone": models.ModelConfig(models.MonotoneConfig(8), (5,), "classifier", (3,)),
    "conv": models.ModelConfig(models.ConvConfig(8, groups=2, head_channels=(2,)), (1, 8, 8), "pixels", (3,)),
    "multiscale": models.ModelConfig(
        models.MultiscaleConfig((8, 8), 1, 2, 2, head_channels=(2, 2), final_channels=8), (1, 8, 8), "classifier", (3,)
    ),
    "decoder": models.ModelConfig(models.ConvConfig(8, groups=2), (5,), "image", (1, 8, 8)),
}


def write(path: Path, config: models.ModelConfig, text: str | None = None, **tensors: Tensor) -> None:
    """A good file, but for the text of its configuration and some tensors."""
    models.save(models.build(config), path)
    metadata = {"format": FORMAT, "version": VERSION, "config": encode(config) if text is None else text}
    save_file(load_file(path) | tensors, path, metadata)


def refused(path: Path, **options: Any) -> str:
    """The sentence."""
    with pytest.raises(jiio.CheckpointError) as caught:
        models.load(path, **options)
    text = str(caught.value)
    assert "\n" not in text and path.name in text and len(text) < 800
    return text


# -- sizes

GIANTS = (60_000, 10**6, 10**9, 10**12, 2**62, 2**64, 10**300)
SIZES = [
    ("dense", "features"),
    ("monotone", "features"),
    *(("conv", field) for field in ("channels", "expansion", "halvings", "groups", "planes", "final_channels")),
    *(("multiscale", field) for field in ("expansion", "final_channels")),
    *(("decoder", field) for field in ("channels", "halvings")),
]


@pytest.mark.parametrize(("name", "field"), SIZES)
def test_a_giant_is_not_built(name: str, field: str, tmp_path: Path, monkeypatch: Any) -> None:
    """No parameter of more numbers than the file holds is ever asked for, and none at all where it is plain early on.

    A size that the head of the model has no use for is free up to FREE.
    """
    largest = []
    register = nn.Module.register_parameter

    def watched(module: nn.Module, key: str, parameter: nn.Parameter | None) -> None:
        register(module, key, parameter)
        largest.append(0 if parameter is None else parameter.numel())

    path, config = tmp_path / "model.safetensors", CELLS[name]
    for size in GIANTS:
        content = json.loads(encode(config))
        content["cell"][field] = size
        write(path, config, json.dumps(content))
        held = sum(tensor.numel() for tensor in load_file(path).values())
        with monkeypatch.context() as patch:
            patch.setattr(nn.Module, "register_parameter", watched)
            if size <= FREE and field in ("planes", "final_channels") and name == "conv":
                models.load(path)
            else:
                refused(path)
        assert max(largest, default=0) <= held and len(largest) < 2000
        assert size <= FREE or not largest
        largest.clear()


@pytest.mark.parametrize("size", GIANTS)
@pytest.mark.parametrize("field", ["input", "output", "channels", "head_channels"])
def test_giants_in_tuples(field: str, size: int, tmp_path: Path) -> None:
    path, config = tmp_path / "model.safetensors", CELLS["multiscale"]
    content = json.loads(encode(config))
    place = content if field in content else content["cell"]
    place[field] = [size] * len(place[field])
    write(path, config, json.dumps(content))
    refused(path)


def test_giants_get_a_sentence_without_a_file_too() -> None:
    """The message lists divisors, and the number could be anything."""
    with pytest.raises(jiio.ArgumentError, match=r"1000000000000 channels \(1, 2, 4, 5, .*, 1024\)"):
        models.ConvConfig(channels=10**12, groups=7)
    with pytest.raises(jiio.ArgumentError, match="heads"):
        models.RelativeAttention(10**12, 7)
    with pytest.raises(jiio.ArgumentError, match="at most 16"):
        models.MultiscaleConfig.preset("tiny", halvings=10**9)


# -- what the configuration is

TEXTS: dict[str, tuple[str, str]] = {
    "null": ("null", "no mapping but a NoneType"),
    "a list": ("[1, 2]", "no mapping but a list"),
    "text": ('"dense"', "no mapping but a str"),
    "a number": ("3", "no mapping but a int"),
    "not a number": ("NaN", "no mapping but a float"),
    "an empty mapping": ("{}", "cell is no mapping but a NoneType"),
    "a cell that is null": ('{"cell": null}', "cell is no mapping"),
    "a cell that is text": ('{"cell": "dense"}', "cell is no mapping"),
    "an empty cell": ('{"cell": {}}', "unknown kind NoneType"),
    "nothing else": ('{"cell": {"kind": "dense"}}', "makes no model"),
    "cut": ('{"cell": {"kind": "den', "not JSON"),
    "a kind without end": ('{"cell": {"kind": ' + "[" * 900 + "]" * 900 + "}}", "unknown kind list|not JSON"),
    "a long kind": ('{"cell": {"kind": "' + "x" * 5000 + '"}}', "unknown kind"),
    "a number of many digits": ('{"cell": {"kind": "dense", "features": 1' + "0" * 5000 + "}}", "not JSON|at most"),
    "longer than any": (" " * (TEXT_LIMIT + 1), f"{TEXT_LIMIT} is the most"),
}


@pytest.mark.parametrize("case", TEXTS)
def test_a_configuration_of_another_form_gets_a_sentence(case: str, tmp_path: Path) -> None:
    text, words = TEXTS[case]
    path = tmp_path / "model.safetensors"
    write(path, CELLS["dense"], text)
    said = refused(path)
    assert any(word in said for word in words.split("|")), said


@pytest.mark.parametrize("depth", [10, 200, 800, 900, 950, 990, 1100, 20_000])
@pytest.mark.parametrize("brackets", [("[", "]"), ('{"a":', "}")], ids=["lists", "mappings"])
@pytest.mark.parametrize("field", ["features", "kind", "input"])
def test_nesting_ends_in_a_sentence(depth: int, brackets: tuple[str, str], field: str, tmp_path: Path) -> None:
    middle = "1" if brackets[0] == '{"a":' else ""
    nested = brackets[0] * depth + middle + brackets[1] * depth
    content = json.loads(encode(CELLS["dense"]))
    (content if field == "input" else content["cell"])[field] = "HERE"
    path = tmp_path / "model.safetensors"
    write(path, CELLS["dense"], json.dumps(content).replace('"HERE"', nested))
    refused(path)


# -- weights


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_weights_that_are_no_numbers(value: float, dtype: torch.dtype, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model = models.build(CELLS["dense"]).to(dtype)
    with torch.no_grad():
        model.head.linear.bias[1] = value  # type: ignore[index,union-attr]
    models.save(model, path)
    assert "'head.linear.bias' has 1 of 3 numbers NaN or infinite" in refused(path)


@pytest.mark.parametrize(
    "dtype",
    [torch.int8, torch.int64, torch.uint8, torch.bool, torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64],
    ids=str,
)
@pytest.mark.parametrize("whole", [True, False])
def test_weights_of_other_types(dtype: torch.dtype, whole: bool, tmp_path: Path, monkeypatch: Any) -> None:
    """Refused from the header: no tensor is read."""
    path = tmp_path / "model.safetensors"
    weights = models.build(CELLS["dense"]).state_dict()
    names = weights if whole else ["head.linear.bias"]
    write(path, CELLS["dense"], None, **{name: torch.zeros(weights[name].shape).to(dtype) for name in names})
    read = []
    monkeypatch.setattr(files, "not_finite", lambda tensors: read.append(1) or "")
    assert "not of one dtype among float16, bfloat16, float32, float64" in refused(path)
    assert not read


# -- the helper by itself


def test_numbers_are_measured_by_what_the_file_holds() -> None:
    held = Held.of([(2 * FREE, 3), (5,), ()])
    assert (held.tensors, held.entries, held.largest) == (3, 6 * FREE + 6, 6 * FREE + 6)
    assert Held.of([]).largest == FREE
    held.check_numbers("model", {"a": [1, {"b": 6 * FREE + 6}], "c": (-3, "x", None, 1e300, True)})
    with pytest.raises(jiio.ArgumentError, match=r"^model\.a\.b: .* got 6291463\.$"):
        held.check_numbers("model", {"a": [1, {"b": 6 * FREE + 7}]})
    with pytest.raises(jiio.ArgumentError, match="67 bits"):
        held.check_numbers("model", -(10**20))


def test_building_stops_at_the_first_parameter_too_many() -> None:
    held, made = Held.of([(4, 3), (4,)]), []
    with held.building():
        layer = nn.Linear(3, 4)
    assert layer.weight.is_meta
    with pytest.raises(jiio.ArgumentError, match=r"Linear\.weight: .* at most 16 numbers.*\(4, 5\)"), held.building():
        nn.Linear(5, 4)
    with pytest.raises(jiio.ArgumentError, match="as the file has tensors, 2"), held.building():
        nn.ModuleList(made.append(1) or nn.Linear(3, 4) for _ in range(10**9))
    assert len(made) < 100
    assert not nn.Linear(5, 4).weight.is_meta  # and nothing is left behind


def test_other_threads_build_what_they_like() -> None:
    made: list[nn.Module] = []
    with Held.of([(1,)]).building():
        thread = threading.Thread(target=lambda: made.append(nn.Linear(50, 50)))
        thread.start()
        thread.join()
    assert made and not made[0].weight.is_meta  # type: ignore[union-attr]


def test_differences_in_words() -> None:
    shapes = {"a": (2, 3), "b": (4,), "c": ()}
    assert difference(shapes, dict(shapes)) == ""
    assert difference(shapes, {"a": (2, 3)}) == "it lacks tensor 'b' and 1 more"
    assert difference({"a": (2, 3)}, shapes) == "it has a stray tensor 'b' and 1 more"
    assert difference(shapes, shapes | {"b": (5,)}) == "'b' has shape (5,), not (4,)"
    assert unusable(["F32", "F32"]) == unusable(["BF16"]) == ""
    assert unusable([]) and unusable(["F32", "F16"]) and unusable(["F8_E4M3"])
    assert not_finite({"a": torch.ones(2)}) == ""
