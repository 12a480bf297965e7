"""The gallery: every script runs and writes its picture; page, scripts and pictures name the same twelve."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "gallery"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "show")
QUICK = ("constraint", "gradient")  # in the default run
PAGE = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")


def loaded(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A script as a module, with its neighbour ``show`` beside it, as when Python starts it."""
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location(f"gallery_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def params() -> list:
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in SCRIPTS]


@pytest.mark.parametrize("name", params())
def test_a_script_writes_its_picture(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)  # a script that counts on the state it finds would make another picture
        path = loaded(name, monkeypatch).main(tmp_path)
    assert [path] == list(tmp_path.iterdir()) and path.name == f"{name}.png"

    # Of the size of the one on the page, and not empty.
    with Image.open(path) as made, Image.open(ROOT / "docs" / "assets" / "gallery" / path.name) as shown:
        assert abs(made.width - shown.width) <= 2 and abs(made.height - shown.height) <= 2
        assert len(made.convert("RGB").getcolors(1 << 24) or ()) > 20


def test_page_scripts_and_pictures_are_the_same_twelve() -> None:
    pictures = {path.stem for path in (ROOT / "docs" / "assets" / "gallery").iterdir()}
    told = re.findall(r"^    python docs/gallery/(\w+)\.py$", PAGE, re.MULTILINE)
    shown = re.findall(r"^!\[.+\]\(assets/gallery/(\w+)\.png\)$", PAGE, re.MULTILINE)
    assert len(SCRIPTS) == 12 and told == shown
    assert set(told) == set(SCRIPTS) == pictures


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_short_and_says_how_it_is_called(name: str) -> None:
    text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    assert 30 <= len(text.splitlines()) <= 62
    assert f"\npython docs/gallery/{name}.py [FOLDER]\n" in text


def test_the_pictures_are_small() -> None:
    assert sum(path.stat().st_size for path in (ROOT / "docs" / "assets" / "gallery").iterdir()) < 3_000_000
