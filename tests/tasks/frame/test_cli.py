"""The command line: every mistake is one sentence and exit code 2, and nothing is written."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import toy
from jiio.tasks.cli import main
from jiio.tasks.demo.options import MARK
from jiio.tasks.frame.checkpoint import load
from jiio.tasks.restore.latent import RestoreConfig

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """An empty folder with ``toy.yaml``; JIIO_DATA names nothing."""
    monkeypatch.setitem(toy.TABLE["task"], "toy", "toy:ToyTask")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JIIO_DATA", raising=False)
    Path("toy.yaml").write_text(toy.YAML)
    return tmp_path


def trained(capsys) -> None:
    assert main(["train", "toy.yaml", "--steps", "6"]) == 0
    capsys.readouterr()


def snapshot() -> dict[str, bytes | None]:
    """Every file below the working folder."""
    return {str(p): p.read_bytes() if p.is_file() else None for p in sorted(Path().rglob("*"))}


def write(name: str, content: str | bytes) -> None:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def picture(name: str) -> bytes:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path.read_bytes()


def half_a_picture() -> None:
    whole = picture("photos/a.png")
    write("photos/b.png", whole[: len(whole) // 2])


def bomb() -> None:
    Path("photos").mkdir()
    Image.new("1", (8_000, 8_000)).save("photos/a.png")


def long_axis() -> None:
    Path("photos").mkdir()
    Image.new("1", (60_000_000, 1)).save("photos/a.ppm")


def cut_checkpoint() -> None:
    for path in Path("runs").glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-1000])


def no_header() -> None:
    for path in Path("runs").glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:5])


def other_model() -> None:
    state = load(Path("runs/weights.safetensors"))
    about = {"step": state.step, "config": json.loads(metadata("runs/weights.safetensors"))["config"]}
    tensors = {k: t[:1].clone() if t.ndim else t for k, t in state.tensors.items()}
    save_file(tensors, "other.safetensors", {"jiio": json.dumps(about)})


def metadata(path: str) -> str:
    data = Path(path).read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return header["__metadata__"]["jiio"]


def strange_config() -> None:
    about = json.loads(metadata("runs/weights.safetensors"))
    del about["digest"]
    about["config"]["nonsense"] = 3
    save_file({"model.a": torch.zeros(1)}, "strange.safetensors", {"jiio": json.dumps(about)})


class Danger:
    """Unpickling it would leave a file behind."""

    def __reduce__(self):
        return (Path.touch, (Path("pickle-was-opened"),))


def nothing() -> None:
    pass


def circle() -> None:
    Path("loop").symlink_to("loop")


def link() -> None:
    Path("link").symlink_to("runs/weights.safetensors")


def second() -> None:
    os.link("runs/weights.safetensors", "link")


# name, what stands in the folder, the command line, words of the sentence. With a star: after a training into runs/.
BAD: list[tuple[str, Callable[[], object], str, str]] = [
    ("unknown command", nothing, "trian toy.yaml", "'trian': no such command. Did you mean 'train'?"),
    ("command like no other", nothing, "xyzzy", "Valid: attack, compare, "),
    ("no name for a command", nothing, " train", "'': no such command"),
    ("unknown option", nothing, "train toy.yaml --nonsense 3", "--nonsense: no such option"),
    ("unknown option of the top", nothing, "--nonsense", "--nonsense: no such option"),
    ("misspelt option", nothing, "train toy.yaml --data.siez 8", "did you mean --data.size?"),
    ("abbreviated option", nothing, "train toy.yaml --step 8", "did you mean --steps?"),
    ("option of another command", nothing, "doctor --resume", "--resume: no such option"),
    ("superfluous word", nothing, "train toy.yaml again", "again"),
    ("option without its value", nothing, "train toy.yaml --steps", "--steps: expected one argument"),
    ("text for a number", nothing, "train toy.yaml --steps many", "--steps: expected int, got many"),
    ("fraction for a whole number", nothing, "train toy.yaml --steps 2.5", "--steps: expected int, got 2.5"),
    ("no steps", nothing, "train toy.yaml --steps 0", "steps: expected a whole number of at least 1"),
    ("negative seed", nothing, "train toy.yaml --seed -4", "seed: expected a whole number of at least 0"),
    ("rate that is no number", nothing, "train toy.yaml --optimiser.rate nan", "optimiser.rate: expected"),
    ("absurd batch", nothing, "train toy.yaml --data.batch_size 99999999999", "data.batch_size: expected"),
    ("hole larger than the image", nothing, "train toy.yaml --corruption.options.side 9", "corruption"),
    ("unknown corruption", nothing, "train toy.yaml --corruption.name Blur", "no corruption is called 'Blur'"),
    ("unknown adjoint", nothing, "train toy.yaml --joint.adjoint.name kkt", "no adjoint is called 'kkt'"),
    ("unknown option of an adjoint", nothing, 'train toy.yaml --joint.adjoint.options {"a":1}', "Implicit has no such"),
    ("options that are no mapping", nothing, "train toy.yaml --joint.adjoint.options 3", "joint.adjoint.options"),
    ("no configuration", nothing, "train", "config"),
    ("missing configuration", nothing, "train absent.yaml", "CONFIG: no file is called 'absent.yaml'"),
    ("configuration is a folder", lambda: Path("a").mkdir(), "train a", "the folder a"),
    ("empty configuration", lambda: write("a.yaml", ""), "train a.yaml", "empty"),
    ("configuration that is no text", lambda: write("a.yaml", b"\xff\xfe\0"), "train a.yaml", "not text"),
    ("broken configuration", lambda: write("a.yaml", "data: {size: 8"), "train a.yaml", "cannot be parsed"),
    ("configuration is a list", lambda: write("a.yaml", "- 1"), "train a.yaml", "keys and values"),
    ("huge configuration", lambda: write("a.yaml", "#" * 2_000_000), "train a.yaml", "at most 1,048,576 bytes"),
    ("configuration is a pipe", lambda: os.mkfifo("a.yaml"), "train a.yaml", "not an ordinary file"),
    ("unknown key", lambda: write("a.yaml", "stpes: 3"), "train a.yaml", "Did you mean 'steps'?"),
    ("key that stands twice", lambda: write("a.yaml", "seed: 1\nseed: 2"), "train a.yaml", "stands twice"),
    ("YAML bomb", lambda: write("a.yaml", "a: &a [1]\nb: [*a, *a]"), "train a.yaml", "anchors and aliases"),
    ("YAML that runs code", lambda: write("a.yaml", "a: !!python/name:os.sep"), "train a.yaml", "cannot be parsed"),
    ("unknown family", nothing, "train toy.yaml --data.family mnits", "Did you mean 'mnist'?"),
    ("no data folder named", nothing, "train toy.yaml --data.family celeba", "--data-root"),
    ("missing data", nothing, "train toy.yaml --data.family mnist --data-root .", "no MNIST/raw"),
    ("missing folder", nothing, "train toy.yaml --data.family folder:photos", "not a folder"),
    ("empty folder", lambda: Path("photos").mkdir(), "train toy.yaml --data.family folder:photos", "without any"),
    (
        "text named as an image",
        lambda: write("photos/a.png", "hello"),
        "train toy.yaml --data.family folder:photos",
        "not an image",
    ),
    (
        "image of no bytes",
        lambda: write("photos/a.png", ""),
        "train toy.yaml --data.family folder:photos",
        "zero bytes",
    ),
    ("truncated image", half_a_picture, "train toy.yaml --data.family folder:photos", "b.png is not an image"),
    ("decompression bomb", bomb, "train toy.yaml --data.family folder:photos", "pixels"),
    ("image of one long line", long_axis, "train toy.yaml --data.family folder:photos", "at most 50,000,000 pixels"),
    ("device that is not here", nothing, "train toy.yaml --device cuda:77", "device: expected a device"),
    ("output is a file", lambda: write("a", "x"), "train toy.yaml --output a", "output: expected a folder"),
    ("output below a file", lambda: write("a", "x"), "train toy.yaml --output a/b/c", "where a is a file"),
    ("output with a zero byte", nothing, "train toy.yaml --output a\0b", "output: expected"),
    ("demo output is a file", lambda: write("a", "x"), "demo --fast --output a", "--output: expected a folder"),
    ("demo with a negative seed", nothing, "demo --fast --seed -1", "--seed: expected"),
    ("demo into no folder", nothing, "demo --fast --output=", "--output: expected the name of a file or a folder"),
    (
        "demo into a foreign page",
        lambda: write("a/index.html", "mine"),
        "demo --fast --output a",
        "a/index.html, which",
    ),
    ("demo into a circle of links", circle, "demo --fast --output loop", "--output: expected a folder"),
    ("a required option", nothing, "prompt x", "the following arguments are required: --target."),
    ("endless name", nothing, f"evaluate {'a' * 30_000}", "CHECKPOINT: no file is called"),
    ("control characters", nothing, "evaluate a\x1b[31m\u202e\udcff", r"a\x1b[31m\u202e\udcff"),
    ("a set of pictures", nothing, "evaluate prior-grey --on set12", "jiio compare CHECKPOINT ... --on SET."),
    ("a set of pictures, glued", nothing, "evaluate prior-grey --on=set12", "jiio compare CHECKPOINT ... --on SET."),
    ("a restorer", nothing, "evaluate prior-grey", "Measure it by: jiio compare CHECKPOINT --on set12."),
    (
        "more threads than there are",
        nothing,
        f"evaluate prior-grey --threads {10**20}",
        "at most 1,024",
    ),
    ("a seed beyond all", nothing, f"evaluate prior-grey --seed {10**20}", "--seed: expected"),
    ("figures with a zero byte", nothing, "evaluate prior-grey --json a\0b", "--json: expected the name"),
    ("missing checkpoint", nothing, "evaluate absent.safetensors", "CHECKPOINT: no file is called"),
    ("folder without a checkpoint", lambda: Path("a").mkdir(), "evaluate a", "a without any"),
    ("checkpoint of no bytes", lambda: write("a.safetensors", ""), "evaluate a.safetensors", "empty"),
    ("checkpoint that is text", lambda: write("a.safetensors", "hello" * 9), "evaluate a.safetensors", "not a checkpo"),
    (
        "checkpoint with a giant header",
        lambda: write("a.safetensors", b"\xff" * 7 + b"\0{}" + b" " * 50),
        "evaluate a.safetensors",
        "not a checkpoint",
    ),
    (
        "pickle in disguise",
        lambda: torch.save({"model": torch.zeros(2)}, "a.safetensors"),
        "evaluate a.safetensors",
        "a pickle",
    ),
    (
        "dangerous old pickle in disguise",
        lambda: write("a.safetensors", pickle.dumps(Danger())),
        "evaluate a.safetensors",
        "a pickle",
    ),
    (
        "safetensors of somebody else",
        lambda: save_file({"w": torch.zeros(2)}, "a.safetensors"),
        "evaluate a.safetensors",
        "not one written by jiio",
    ),
    ("truncated checkpoint*", cut_checkpoint, "evaluate runs", "damaged"),
    ("checkpoint without a header*", no_header, "evaluate runs/weights.safetensors", "damaged"),
    ("weights of another model*", other_model, "evaluate other.safetensors", "do not fit"),
    ("checkpoint of an unknown configuration*", strange_config, "evaluate strange.safetensors", "no such key"),
    ("other model than the weights*", nothing, "evaluate runs --data.size 12", "do not fit"),
    ("figures into a folder*", nothing, "evaluate runs --json runs", "--json"),
    ("figures into the weights*", nothing, "evaluate runs --json runs/weights.safetensors --overwrite", "never overwr"),
    ("figures into a link to the weights*", link, "evaluate runs --json link --overwrite", "never overwritten"),
    (
        "figures into a second name of the weights*",
        second,
        "evaluate runs --json link --overwrite",
        "never overwritten",
    ),
    ("figures into the log*", nothing, "evaluate runs --json runs/log.jsonl", "never overwritten"),
    ("figures that exist*", nothing, "evaluate runs --json toy.yaml", "Pass --overwrite to replace it."),
    ("pictures into what is there*", nothing, "evaluate runs --pictures .", "--pictures: expected another folder"),
    (
        "pictures among others*",
        lambda: write("a/b", "c"),
        "evaluate runs --pictures a",
        "--pictures: expected an",
    ),
    ("option of the training alone*", nothing, "evaluate runs --steps 3", "--steps: no such option"),
    ("figures below a file*", nothing, "evaluate runs --json toy.yaml/a.json", "--json: expected a folder"),
    ("training into a training*", nothing, "train toy.yaml --steps 6", "Pass --resume"),
    ("resume under other settings*", nothing, "train toy.yaml --steps 5 --resume", "steps is 6 there and 5 here"),
    ("resume of damaged checkpoints*", cut_checkpoint, "train toy.yaml --steps 6 --resume", "damaged"),
]


@pytest.mark.parametrize(("name", "prepare", "line", "words"), BAD, ids=[case[0] for case in BAD])
def test_bad_input_is_one_sentence_and_exit_code_2(name, prepare, line, words, capsys):
    if name.endswith("*"):
        trained(capsys)
    prepare()
    before = snapshot() if not Path("a.yaml").is_fifo() else None
    assert main(line.split(" ") if line else []) == 2
    out, errors = capsys.readouterr()
    last = errors.splitlines()[-1]
    assert out == ""
    assert words in last
    assert last.startswith("jiio: ") and re.search(r"[.?]$", last) and len(last) < 500
    assert len(errors.splitlines()) == (3 if name == "resume of damaged checkpoints*" else 1), errors
    assert before is None or snapshot() == before


def test_there_are_at_least_25_kinds_of_bad_input():
    assert len({case[0] for case in BAD}) == len(BAD) >= 25


def test_a_folder_that_may_not_be_written(capsys, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # what a read-only file system answers, even to root
    before = snapshot()
    assert main(["train", "toy.yaml"]) == 2
    assert "not writable" in capsys.readouterr().err
    assert snapshot() == before


def test_a_disk_that_is_full(capsys, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert main(["train", "toy.yaml"]) == 2
    assert capsys.readouterr().err == "jiio: output: No space left on device.\n"


def test_train_resume_and_evaluate(capsys):
    assert main(["train", "toy.yaml", "--steps", "6", "--data.batch_size=5"]) == 0
    assert capsys.readouterr().err.splitlines()[-1] == "Trained 6 steps; weights in runs/weights.safetensors."
    state = load(Path("runs"))
    assert isinstance(state.config, RestoreConfig)
    assert state.config.steps == 6 and state.config.data.batch_size == 5 and state.config.data.size == 8
    assert main(["train", "toy.yaml", "--steps", "6", "--data.batch_size=5", "--resume"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "runs", "--data.test_limit", "7", "--seed", "3"]) == 0
    out, errors = capsys.readouterr()
    figures = json.loads(out)
    assert figures["step"] == 6 and figures["rows"][0]["images"] == "test"
    assert figures["rows"][0]["undefined"] is None  # JSON has no NaN
    assert errors.splitlines()[0].split() == ["images", "squared", "error", "undefined"]
    assert main(["evaluate", "runs/weights.safetensors", "--json", "new/figures.json"]) == 0
    assert capsys.readouterr().out == ""
    assert json.loads(Path("new/figures.json").read_text())["step"] == 6


def test_choices_on_the_command_line(capsys):
    corruption = ["--corruption.name", "GaussianNoise", "--corruption.options", '{"sigma": 0.3}']
    assert main(["train", "toy.yaml", "--steps", "4", "--joint.adjoint.name", "Implicit", *corruption]) == 0
    config = load(Path("runs")).config
    assert isinstance(config, RestoreConfig)
    assert config.corruption.options == {"sigma": 0.3} and config.joint.adjoint.name == "Implicit"


def test_ctrl_c_before_anything_runs(capsys, monkeypatch):
    def pressed(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("jiio.tasks.frame.loop.train", pressed)
    assert main(["train", "toy.yaml"]) == 130
    assert capsys.readouterr().err == "jiio: Interrupted.\n"


def test_demo_passes_its_arguments_on(capsys, monkeypatch):
    seen = {}
    stand_in = types.SimpleNamespace(run=lambda **arguments: seen.update(arguments))
    monkeypatch.setitem(sys.modules, "jiio.tasks.demo.demo", stand_in)
    monkeypatch.setattr(importlib.import_module("jiio.tasks.demo"), "demo", stand_in, raising=False)
    assert main(["demo", "--fast", "--output", "pictures", "--seed", "4"]) == 0
    assert seen == {"fast": True, "output": Path("pictures"), "seed": 4, "device": torch.device("cpu")}


def test_figures_are_replaced_where_it_is_asked_for(capsys):
    trained(capsys)
    words = ["evaluate", "runs", "--json", "figures.json"]
    assert main(words) == 0 and main(words) == 2
    Path("figures.json").write_text("old")
    assert main([*words, "--overwrite"]) == 0 and json.loads(Path("figures.json").read_text())["step"] == 6


def test_a_demo_replaces_a_demo_and_nothing_else(capsys, monkeypatch):
    made: list[Path] = []
    stand_in = types.SimpleNamespace(run=lambda **arguments: made.append(arguments["output"]))
    monkeypatch.setitem(sys.modules, "jiio.tasks.demo.demo", stand_in)
    monkeypatch.setattr(importlib.import_module("jiio.tasks.demo"), "demo", stand_in, raising=False)
    write("site/figures.json", "{}")
    assert main(["demo", "--fast", "--output", "site"]) == 2
    assert main(["demo", "--fast", "--output", "site", "--overwrite"]) == 0
    write("site/index.html", f"<html></html>{MARK}\n")
    assert main(["demo", "--fast", "--output", "site"]) == 0 and made == [Path("site")] * 2


def test_jiio_alone_prints_its_help(capsys):
    assert main([]) == 0
    out, errors = capsys.readouterr()
    assert out.startswith("usage: jiio") and "compare" in out and errors == ""


def test_a_working_folder_that_is_gone(capsys, folder):
    home = folder / "gone"
    home.mkdir()
    os.chdir(home)
    home.rmdir()
    try:
        assert main(["--version"]) == 0 and main(["evaluate", "absent"]) == 2
    finally:
        os.chdir(folder)
    assert "CHECKPOINT: no file is called 'absent'" in capsys.readouterr().err


def test_help_and_version(capsys):
    for line in (["--help"], ["train", "--help"], ["evaluate", "--help"], ["demo", "--help"], ["doctor", "--help"]):
        assert main(line) == 0
        assert "usage: jiio" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("jiio ")
