"""Every command on a pretended GPU: it answers, its networks compute there, and where there is none it says so."""

from __future__ import annotations

import contextlib
import importlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils import _pytree

from jiio import attacks
from jiio.attacks.dense import evaluate
from jiio.tasks.cli import main
from jiio.tasks.frame.loop import train
from jiio.tasks.frame.registry import COMMANDS
from restore_cases import photo

ROOT = Path(__file__).parents[3]
DENSE = "model: {cell: {name: Dense, options: {features: 8}}}\n"
TEXT = "the cat sat on the mat and the dog sat on the log\n" * 40
# Name of a training -> the recipe it is a small one of, and what is changed there.
TRAININGS: dict[str, tuple[str, dict[str, Any]]] = {
    "classifier": ("classify-faces", {}),
    "decoder": ("restore-faces", {}),
    "denoiser": ("prior-grey", {}),
    "generator": ("generate-faces", {}),
    "segmenter": ("segment-scenes", {}),
    "writer": ("language-default", {"data": {"family": "file:text.txt", "held_out": 0.1}}),
}
# The words of every command, and of those that do several things each of them; a folder is one of the above.
LINES = {
    "train": "train small.yaml --output run",
    "evaluate": "evaluate decoder",
    "evaluate, a classifier": "evaluate classifier",
    "evaluate, a segmenter": "evaluate segmenter",
    "restore": "restore a.png --sigma 20 --weights denoiser --max-steps 4",
    "restore, a decoder": "restore face.png --sigma 20 --weights decoder --max-steps 4",
    "fit": "fit face.png --checkpoint generator --restarts 1 --max-steps 6",
    "attack": "attack classifier --samples 2 --no-audit",
    "attack, corruptions": "attack classifier --samples 2 --corruptions fog shot_noise",
    "attack, a segmenter": "attack segmenter --norm linf --radius 0.1 --samples 1",
    "compare": "compare denoiser --on folder:pictures --no-baselines --json figures.json",
    "write": "write writer --length 4",
    "write, a beginning": "write writer --start the --length 3 --temperature 0",
    "prompt": "prompt writer --target cat --restarts 2 --max-steps 6 --output prompt.safetensors",
    "demo": "demo --fast",
    "doctor": "doctor",
}
COMPUTING = {line.split()[0] for line in LINES.values()}
# A command each of the engine's ways; the others are long, as every operation of the double is a call of Python.
SLOW = {"doctor", "fit", "prompt", "evaluate", "evaluate, a segmenter", "restore, a decoder"}
SLOW |= {"attack, corruptions", "attack, a segmenter", "write, a beginning"}
FREE = {"doctor"}  # what it computes is no network


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A step of every training, on the CPU, and pictures."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [*sys.path, str(ROOT)])
        recipes = importlib.import_module("benchmarks.gpu.recipes")
        Path("text.txt").write_text(TEXT, encoding="utf-8")
        for name, (recipe, changes) in TRAININGS.items():
            train(recipes.recipe(recipe, small=True, steps=1, output=name, **changes), report=lambda line: None)
        Path("small.yaml").write_text("task: classify\nsteps: 1\ndata: {size: 8}\n" + DENSE)
        photo("a.png", height=24, width=24, channels=1)
        photo("face.png", height=12, width=12, channels=1)
        photo("pictures/b.png", height=20, width=20, channels=1)
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The trainings in the working folder."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JIIO_DATA", raising=False)
    monkeypatch.setitem(attacks.SUITES, "standard", lambda: [attacks.PGD(steps=2), attacks.JointAttack(steps=3)])
    monkeypatch.setattr(evaluate, "standard_pixels", lambda: [attacks.PixelAttack(attacks.PGD(steps=2))])
    return tmp_path


@contextlib.contextmanager
def watched() -> Iterator[set[str]]:
    """The devices of everything that modules are called with, as they are called."""
    seen: set[str] = set()

    def note(module: torch.nn.Module, given: Any) -> None:
        seen.update(t.device.type for t in _pytree.tree_leaves(given) if isinstance(t, Tensor))

    handle = register_module_forward_pre_hook(note)
    try:
        yield seen
    finally:
        handle.remove()


def test_the_table_has_every_command() -> None:
    # Neither computes a thing by itself: push copies, and what federate does is a training, by an extra's engine.
    assert set(COMMANDS) - {"push", "federate"} == COMPUTING


ANSWERS = [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in LINES if n != "demo"]


@pytest.mark.parametrize("name", ANSWERS)
def test_a_command_answers_on_a_gpu(name: str, folder: Path, gpu: torch.device, capsys) -> None:
    with watched() as seen:
        code = main([*LINES[name].split(), "--device", "cuda"])
    told = capsys.readouterr()
    # What a network of one step leaves of a picture may be doubted, which is an exit code of its own.
    assert code in ((0, 3) if name.startswith("restore") else (0,)), told.err
    if name in FREE:
        assert "on cuda" in told.out
    else:
        assert seen == {"cuda"}, "a network was called on the CPU"


@pytest.mark.parametrize("command", sorted(COMPUTING))
@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("cuda", "device: expected a device of this machine, got 'cuda'. `jiio doctor` lists the devices"),
        ("mps", "device: expected a device that a solve can run on, got 'mps', which has no float64"),
        ("gpu", "device: expected one of 'auto', 'cpu', 'cuda', 'mps', got gpu. Did you mean 'cpu'?"),
    ],
)
def test_a_device_that_is_not_there_is_the_same_sentence_everywhere(
    command: str, device: str, words: str, folder: Path, capsys, monkeypatch
) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is one")
    before = {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert main([*LINES[command].split(), "--device", device]) == 2
    told = capsys.readouterr()
    assert told.err.startswith(f"jiio: {words}") and len(told.err.splitlines()) == 1 and told.out == ""
    assert {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")} == before
