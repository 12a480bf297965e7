"""Models on disk: exact round trips, and a sentence for every file that is not a complete model."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import jiio
from jiio import models
from jiio.models.files import FORMAT, HEADER_LIMIT, VERSION
from jiio.models.plain import encode

TINY = models.MultiscaleConfig((8, 8), expansion=1, groups=2, fusion_groups=2, head_channels=(2, 2), final_channels=8)
CONFIGS: dict[str, models.ModelConfig] = {
    "dense": models.ModelConfig(models.DenseConfig(8, scaling="spectral"), (5,), "classifier", (3,)),
    "monotone": models.ModelConfig(models.MonotoneConfig(8, m=0.5), (5,), "image", (1, 4, 4), "sigmoid"),
    "conv": models.ModelConfig(models.ConvConfig(8, groups=2, head_channels=(2,)), (1, 8, 8), "pixels", (3,)),
    "multiscale": models.ModelConfig(TINY, (1, 8, 8), "classifier", (3,)),
    "decoder": models.ModelConfig(TINY, (5,), "image", (1, 8, 8), "tanh"),
}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(name="file")
def make_file(tmp_path: Path) -> Path:
    """A good file."""
    path = tmp_path / "model.safetensors"
    models.save(models.build(CONFIGS["multiscale"]), path)
    return path


def metadata(**changes: str) -> dict[str, str]:
    return {"format": FORMAT, "version": VERSION, "config": encode(CONFIGS["multiscale"])} | changes


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_round_trip_is_exact(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    config = CONFIGS[name]
    model = models.build(config).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    path = tmp_path / "model.safetensors"
    models.save(model, path)
    state = torch.get_rng_state()
    loaded = models.load(path)
    assert torch.equal(state, torch.get_rng_state())
    assert loaded.config == config
    assert not loaded.training
    before, after = model.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) and after[key].dtype == dtype for key in before)
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    x = torch.randn(2, *config.input, dtype=dtype)
    with torch.no_grad():
        assert torch.equal(model.eval()(x), loaded(x))
    loaded(x).square().sum().backward()
    assert all(parameter.grad is not None for parameter in loaded.parameters())


def test_settings_of_the_solve_are_given_anew(file: Path) -> None:
    loaded = models.load(file, solver=jiio.Picard(), max_steps=7)
    assert isinstance(loaded.solver, jiio.Picard)
    assert loaded.max_steps == 7
    with pytest.raises(TypeError):
        models.load(file, nonsense=3)


def test_saving_replaces_the_file_and_leaves_nothing_else(file: Path) -> None:
    model = models.build(CONFIGS["dense"])
    models.save(model, file)
    assert models.load(file).config == CONFIGS["dense"]
    assert [p.name for p in file.parent.iterdir()] == [file.name]


def test_a_failed_save_keeps_the_old_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    before = file.read_bytes()
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(jiio.CheckpointError, match="No space left"):
        models.save(models.build(CONFIGS["dense"]), file)
    assert file.read_bytes() == before
    assert [p.name for p in file.parent.iterdir()] == [file.name]


def test_saving_into_a_missing_folder_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(jiio.CheckpointError, match="No such file"):
        models.save(models.build(CONFIGS["dense"]), tmp_path / "missing" / "model.safetensors")


def test_a_model_without_configuration_cannot_be_saved(tmp_path: Path) -> None:
    part = models.build(CONFIGS["dense"])
    model = models.EquilibriumModel(part.inject, part.cell, part.head)
    with pytest.raises(jiio.CheckpointError, match=r"jiio\.models\.build"):
        models.save(model, tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_module_of_another_kind_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(jiio.ArgumentTypeError, match="EquilibriumModel"):
        models.save(nn.Linear(2, 2), tmp_path / "model.safetensors")  # type: ignore[arg-type]


# -- files that are not a complete model: how each is made from a good one, and a word of the sentence


class Payload:
    """Leaves a trace where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def truncate(share: float) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

    return make


def write(content: bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(content)


def change(edit: Callable[[dict[str, torch.Tensor]], Any], **changes: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        tensors = load_file(path)
        edit(tensors)
        save_file(tensors, path, metadata(**changes))

    return make


def configured(**changes: Any) -> Callable[[Path], None]:
    """A good file whose configuration says something else; keys with a dot lie in the cell."""
    content = json.loads(encode(CONFIGS["multiscale"]))
    for key, value in changes.items():
        place = content["cell"] if key.startswith("cell_") else content
        place[key.removeprefix("cell_")] = value
    return change(lambda _: None, config=json.dumps(content))


def tensor_name(tensors: dict[str, torch.Tensor]) -> str:
    return "head.linear.bias" if "head.linear.bias" in tensors else min(tensors)


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda path: path.unlink(), "No such file"),
    "empty": (write(b""), "0 bytes"),
    "short": (write(b"\x10\0\0\0"), "4 bytes"),
    "text": (write(b"learning_rate: 0.1\n"), "not a safetensors file"),
    "html": (write(b"<!doctype html><title>Not found</title>"), "not a safetensors file"),
    "cut in the header": (truncate(0.01), "truncated"),
    "cut in the tensors": (truncate(0.9), "truncated"),
    "one byte short": (lambda path: path.write_bytes(path.read_bytes()[:-1]), "truncated"),
    "stray bytes at the end": (lambda path: path.write_bytes(path.read_bytes() + b"\0" * 64), "damaged"),
    "huge header": (write((2**62).to_bytes(8, "little") + b"{" + b" " * 64), "header"),
    "header over the limit": (
        write((HEADER_LIMIT + 1).to_bytes(8, "little") + b"{" + b" " * (HEADER_LIMIT + 9)),
        "header",
    ),
    "header that is no json": (write((20).to_bytes(8, "little") + b"{" * 20), "damaged"),
    "pickle": (lambda path: path.write_bytes(pickle.dumps(Payload(path.with_name("trace")))), "never"),
    "torch.save": (lambda path: torch.save({"weight": torch.zeros(2)}, path), "never"),
    "another library": (lambda path: save_file({"weight": torch.zeros(2)}, path, {"format": "pt"}), "'pt'"),
    "no metadata": (lambda path: save_file({"weight": torch.zeros(2)}, path), "not named"),
    "newer version": (change(lambda _: None, version="2"), "version '2'"),
    "no configuration": (change(lambda _: None, config=""), "configuration"),
    "configuration that is a list": (change(lambda _: None, config="[1]"), "configuration"),
    "configuration nested too deep": (change(lambda _: None, config="[" * 100_000), "configuration"),
    "unknown kind": (configured(cell_kind="transformer"), "unknown kind 'transformer'"),
    "unknown field": (configured(cell_nonsense=3), "nonsense"),
    "unusable field": (configured(cell_groups=3), "divisor"),
    "wrong type": (configured(cell_channels="wide"), "configuration"),
    "unknown head": (configured(head="oracle"), "oracle"),
    "giant": (configured(output=[2**40]), "at most"),
    "giant beyond memory": (configured(output=[2**60], cell_final_channels=2**60), "configuration"),
    "giant beyond 64 bits": (configured(output=[2**70]), "configuration"),
    "missing tensor": (change(lambda t: t.pop(tensor_name(t))), "lacks tensor 'head.linear.bias'"),
    "stray tensor": (change(lambda t: t.update(extra=torch.zeros(2))), "stray tensor 'extra'"),
    "wrong shape": (change(lambda t: t.update({tensor_name(t): torch.zeros(4)})), r"shape \(4,\), not \(3,\)"),
    "whole numbers": (change(lambda t: t.update({tensor_name(t): torch.zeros(3, dtype=torch.int64)})), "dtype"),
    "mixed precision": (change(lambda t: t.update({tensor_name(t): torch.zeros(3, dtype=torch.float16)})), "dtype"),
    "folder": (lambda path: (path.unlink(), path.mkdir()), "directory"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_gets_a_sentence(name: str, file: Path) -> None:
    spoil, word = BROKEN[name]
    spoil(file)
    with pytest.raises(jiio.CheckpointError, match=word) as caught:
        models.load(file)
    text = str(caught.value)
    assert file.name in text
    assert "\n" not in text
    assert not file.with_name("trace").exists()


def test_a_good_file_with_the_same_changes_undone_still_loads(file: Path) -> None:
    """The edits above spoil a file by what they change, not by rewriting it."""
    change(lambda _: None)(file)
    configured()(file)
    assert models.load(file).config == CONFIGS["multiscale"]
