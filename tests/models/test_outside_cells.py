"""A cell of the user's own: built, trained, saved, and loaded only where the caller allows its code to be imported."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import jiio
from jiio import models
from jiio.models.cells.base import KINDS
from outside_cell import BareConfig, KindConfig, LeakyConfig, LeakyMapConfig, ObjectConfig

VECTOR = models.ModelConfig(LeakyConfig(5, ((2, 0.25), (3, 0.5))), (4,), "classifier", (3,))
MAPS = models.ModelConfig(LeakyMapConfig(), (2, 8, 8), "both", (3, 5))


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def renamed(path: Path, kind: Any, **fields: Any) -> None:
    """The file says another class, and other fields of the cell."""
    tensors = load_file(path)
    with safe_open(str(path), framework="pt") as file:
        metadata = dict(file.metadata())
    content = json.loads(metadata["config"])
    content["cell"] = content["cell"] | fields | {"kind": kind}
    save_file(tensors, path, metadata | {"config": json.dumps(content)})


@pytest.mark.parametrize("config", [VECTOR, MAPS], ids=["vector", "maps"])
def test_it_builds_trains_saves_and_loads(config: models.ModelConfig, tmp_path: Path) -> None:
    model, path = models.build(config), tmp_path / "model.safetensors"
    x = torch.rand(6, *config.input)
    optimiser, losses = torch.optim.Adam(model.parameters(), 0.02), []
    for _ in range(3):
        scores = model(x)
        parts = scores if isinstance(scores, tuple) else (scores,)
        first = [part.new_zeros(part[:, 0].shape).long() for part in parts]  # everything is of class 0
        losses.append(sum(nn.functional.cross_entropy(*pair) for pair in zip(parts, first, strict=True)))
        optimiser.zero_grad()
        losses[-1].backward()  # type: ignore[union-attr]
        assert model.cell.slope.grad.abs().sum() > 0  # type: ignore[union-attr]
        optimiser.step()
    assert losses[2] < losses[0]

    models.save(model, path)
    loaded = models.load(path, allow=("outside_cell",))
    assert loaded.config == config and type(loaded.config.cell) is type(config.cell)
    with torch.no_grad():
        said, again = model.eval()(x), loaded(x)
    assert all(torch.equal(a, b) for a, b in zip(said, again, strict=True))


def test_latent_codes_and_images_go_through_a_map_of_ones_own() -> None:
    decoder = models.decoder(LeakyMapConfig(halvings=2), image=(1, 8, 8), latent=3)
    assert decoder(torch.randn(2, 3)).shape == (2, 1, 8, 8)
    with pytest.raises(jiio.ArgumentError, match="multiples of 2"):
        models.classifier(LeakyMapConfig(), image=(1, 7, 8), classes=2)


def test_only_cells_of_the_package_have_a_word() -> None:
    kinds = {"dense": models.DenseConfig, "monotone": models.MonotoneConfig}
    assert {**kinds, "conv": models.ConvConfig, "multiscale": models.MultiscaleConfig} == KINDS


def test_a_borrowed_word_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    models.save(models.build(models.ModelConfig(KindConfig(5), (4,), "classifier", (3,))), path)
    with pytest.raises(jiio.CheckpointError, match="'outside_cell:KindConfig'"):
        models.load(path)
    assert isinstance(models.load(path, allow=("outside_cell:KindConfig",)).config.cell, KindConfig)


# -- what is followed, and what is not


@pytest.fixture(name="package")
def make_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package nobody has imported whose module leaves a trace when it is."""
    home = tmp_path / "strange_cells" / "inner"
    home.mkdir(parents=True)
    for folder in (home.parent, home):
        (folder / "__init__.py").touch()
    (home / "leaky.py").write_text(
        f"from pathlib import Path\nfrom outside_cell import LeakyConfig\nPath({str(tmp_path / 'trace')!r}).touch()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "trace"
    for name in [name for name in sys.modules if name.startswith("strange_cells")]:
        del sys.modules[name]


@pytest.fixture(name="file")
def make_file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    models.save(models.build(VECTOR), path)
    return path


NAME = "strange_cells.inner.leaky:LeakyConfig"


@pytest.mark.parametrize("allow", [(NAME,), ("strange_cells.inner.leaky",), ["strange_cells.inner"], {"strange_cells"}])
def test_what_is_allowed_is_imported(allow: Any, file: Path, package: Path) -> None:
    renamed(file, NAME)
    assert models.load(file, allow=allow).config == VECTOR
    assert package.exists()


@pytest.mark.parametrize(
    "allow",
    [(), ("strange",), ("strange_cells.inner.leak",), ("inner",), ("LeakyConfig",), (f"{NAME}s",), ("outside_cell",)],
)
def test_what_is_not_allowed_is_not_imported(allow: Any, file: Path, package: Path) -> None:
    renamed(file, NAME)
    with pytest.raises(jiio.CheckpointError, match="nothing was imported") as caught:
        models.load(file, allow=allow)
    assert not package.exists() and "strange_cells" not in sys.modules
    assert repr(NAME) in str(caught.value) and f"allow=({NAME!r},)" in str(caught.value)


@pytest.mark.parametrize("name", ["os:system", "antigravity:x", "builtins:eval", "jiio.models:DenseCell"])
def test_what_is_no_configuration_is_refused_either_way(name: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    renamed(file, name)
    with pytest.raises(jiio.CheckpointError, match="nothing was imported"):
        models.load(file)
    assert "antigravity" not in sys.modules

    # The real one opens a browser.
    joke = types.ModuleType("antigravity")
    joke.x = print  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "antigravity", joke)
    with pytest.raises(jiio.CheckpointError, match=f"{name}.*not an AbstractCellConfig"):
        models.load(file, allow=(name.partition(":")[0],))


REFUSED: dict[str, tuple[Any, str]] = {
    "a missing module": ("outside_cell.nowhere:X", "cannot be imported"),
    "a missing name": ("outside_cell:Nothing", "cannot be imported"),
    "an object": ("outside_cell:NOT_A_CLASS", "not an AbstractCellConfig"),
    "the base itself": ("outside_cell:AbstractCellConfig", "makes no model"),
    "a relative path": (".outside_cell:LeakyConfig", "unknown kind"),
    "a path into a class": ("outside_cell:LeakyConfig.cell", "unknown kind"),
    "no name": ("outside_cell:", "unknown kind"),
    "a statement": ("outside_cell:LeakyConfig;x", "unknown kind"),
    "a letter that looks alike": ("outside_cell:Le\u0430kyConfig", "unknown kind"),
    "a list": (["outside_cell:LeakyConfig"], "unknown kind"),
    "nothing": (None, "unknown kind"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_names_get_a_sentence_even_where_the_module_is_allowed(case: str, file: Path) -> None:
    kind, words = REFUSED[case]
    renamed(file, kind)
    with pytest.raises(jiio.CheckpointError, match=words):
        models.load(file, allow=("outside_cell",))


@pytest.mark.parametrize("allow", ["outside_cell", 3, (3,), None, ("",)])
def test_allow_takes_a_tuple_of_names(allow: Any, file: Path) -> None:
    with pytest.raises(jiio.ArgumentTypeError, match="allow"):
        models.load(file, allow=allow)


# -- what cannot be saved, or not be built


def test_what_a_file_could_not_give_back_is_not_saved(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Local(LeakyConfig):
        pass

    path = tmp_path / "model.safetensors"
    for cell, words in ((Local(), "top of a module"), (ObjectConfig(what=object()), "give it back")):
        with pytest.raises(jiio.CheckpointError, match=words):
            models.save(models.build(models.ModelConfig(cell, (4,), "classifier", (3,))), path)
        assert not path.exists()


def test_a_class_without_its_own_decorator_is_told() -> None:
    with pytest.raises(jiio.ArgumentTypeError, match="above BareConfig"):
        models.ModelConfig(BareConfig(), (4,), "classifier", (3,))


def test_a_depth_that_the_file_does_not_have_is_not_built(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    register = nn.Module.register_parameter
    monkeypatch.setattr(nn.Module, "register_parameter", lambda *a: (built.append(1), register(*a))[1])
    renamed(file, "outside_cell:EndlessConfig", depth=10**6)
    with pytest.raises(jiio.CheckpointError, match="as many parameters as the file has tensors, 5"):
        models.load(file, allow=("outside_cell",))
    assert len(built) < 200
