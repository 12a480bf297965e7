"""``jiio attack``: the figure, the files it leaves, resuming, and every mistake as one sentence with exit code 2."""

from __future__ import annotations

import importlib.util
import json
import pickle
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from jiio import attacks
from jiio.attacks import Square, Target, ThreatModel
from jiio.attacks.suites import fitted
from jiio.tasks.classify.data import load_labelled
from jiio.tasks.classify.task import Classify
from jiio.tasks.cli import main
from jiio.tasks.frame.checkpoint import load
from jiio.tasks.solving.networks import ReferenceConfig, reference

YAML = """\
task: classify
steps: 25
checkpoint_every: 25
output: runs
data: {size: 8, batch_size: 16}
model: {cell: {name: Dense, options: {features: 8}}}
threat: {norm: l2, radius: 0.4}
optimiser: {rate: 0.02}
"""
QUICK = [attacks.PGD(steps=4), attacks.Square(queries=10)]


@pytest.fixture(scope="module")
def trainings(tmp_path_factory) -> Path:
    """An equilibrium classifier in ``runs``, a plain one in ``plain``, one without a threat in ``calm``."""
    place = tmp_path_factory.mktemp("trainings")
    (place / "a.yaml").write_text(YAML)
    words = ["train", str(place / "a.yaml"), "--output"]
    assert main([*words, str(place / "runs")]) == 0
    plain = '{"name": "Reference", "options": {"parameters": 1000}}'
    assert main([*words, str(place / "plain"), "--steps", "2", "--model.cell", plain]) == 0
    assert main([*words, str(place / "calm"), "--steps", "2", "--threat", '{"norm": "none"}']) == 0
    return place


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path, trainings):
    """The trainings in an empty working folder; the standard suite is a short one; JIIO_DATA names nothing."""
    for name in ("runs", "plain", "calm"):
        shutil.copytree(trainings / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JIIO_DATA", raising=False)
    monkeypatch.setitem(attacks.SUITES, "standard", lambda: list(QUICK))
    return tmp_path


def figures(text: str) -> dict[str, Any]:
    """A report without what differs between two runs of the same evaluation: when, and by which words."""
    return {name: value for name, value in json.loads(text).items() if name not in ("provenance", "model")}


def snapshot() -> dict[str, bytes | None]:
    return {str(p): p.read_bytes() if p.is_file() else None for p in sorted(Path().rglob("*"))}


# What it tells


def test_the_figure_is_that_of_attacks_evaluate(capsys):
    words = [
        "attack",
        "runs",
        "--json",
        "out.json",
        "--report",
        "out.html",
        "--seed",
        "3",
        "--curve",
        "0.5",
        "--no-audit",
    ]
    assert main([*words, "--samples", "20", "--batch", "12"]) == 0
    told, news = capsys.readouterr()
    checkpoint = load(Path("runs"))
    data, model = load_labelled(checkpoint.config.data), Classify.trained(checkpoint).eval()  # type: ignore[attr-defined]
    batches = [(data.test[:12], data.test_labels[:12]), (data.test[12:20], data.test_labels[12:20])]
    draws = torch.Generator().manual_seed(3)
    threat = ThreatModel("l2", 0.4)
    report = attacks.evaluate(model, batches, threat, QUICK, generator=draws, curve=(0.5,), audit=None)
    assert figures(Path("out.json").read_text()) == figures(report.to_json())
    assert str(report).partition("Made from:")[0].partition(",")[2] in told
    assert report.total == 20 and report.robust.count < report.clean.count
    page = Path("out.html").read_text()
    assert "<svg" in page or "base64" in page
    assert "batch 2" in news and not Path("out.html.state").exists()


def test_norm_and_radius_of_the_command_line_count(capsys):
    assert main(["attack", "runs", "--norm", "linf", "--radius", "0.02", "--samples", "6", "--no-audit"]) == 0
    assert "linf radius 0.02, 6 samples" in capsys.readouterr().out
    assert main(["attack", "runs", "--radius", "0.1", "--samples", "6", "--no-audit"]) == 0
    assert "l2 radius 0.1, 6 samples" in capsys.readouterr().out


def test_all_test_images_and_not_more(capsys):
    assert main(["attack", "plain", "--samples", "0", "--no-audit"]) == 0
    assert ", 60 samples" in capsys.readouterr().out
    assert main(["attack", "plain", "--samples", "1000", "--no-audit"]) == 0
    told, news = capsys.readouterr()
    assert ", 60 samples" in told and "only 60 test images" in news


def test_the_audit_speaks_unless_told_not_to(monkeypatch):
    asked: list[Any] = []

    def seen(*arguments: Any, audit: Any, **options: Any) -> Any:
        asked.append(audit)
        raise KeyboardInterrupt

    monkeypatch.setattr(attacks, "evaluate", seen)
    main(["attack", "runs"])
    main(["attack", "runs", "--no-audit"])
    assert isinstance(asked[0], attacks.Audit) and asked[1] is None


class Killed(Exception):
    """Something that no command expects."""


@pytest.mark.parametrize("named", [False, True])
def test_a_killed_attack_goes_on_to_the_same_report(capsys, monkeypatch, named):
    words = ["attack", "runs", "--samples", "30", "--batch", "10", "--no-audit"]
    assert main([*words, "--json", "whole.json"]) == 0
    words += ["--json", "parted.json", *(["--state", "kept"] if named else [])]
    state, batches = Path("kept" if named else "parted.json.state"), 0
    real = attacks.PGD.run

    def dies(self, *arguments):
        nonlocal batches
        batches += 1
        if batches == 3:
            raise Killed
        return real(self, *arguments)

    monkeypatch.setattr(attacks.PGD, "run", dies)
    with pytest.raises(Killed):
        main(words)
    assert len(list(state.glob("batch-*"))) == 2 and not Path("parted.json").exists()
    monkeypatch.setattr(attacks.PGD, "run", real)
    capsys.readouterr()
    assert main(words) == 0
    assert figures(Path("parted.json").read_text()) == figures(Path("whole.json").read_text())
    assert state.exists() == named
    if named:  # the same command again has nothing left to do, and replaces its own report
        assert main([*words, "--report", "page.html"]) == 0 and main([*words, "--report", "page.html"]) == 0
        Path("parted.json").write_text("mine")
        assert main(words) == 2 and Path("parted.json").read_text() == "mine"


def test_interrupting_says_how_to_go_on(capsys, monkeypatch):
    def stops(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(attacks.PGD, "run", stops)
    assert main(["attack", "runs", "--json", "a.json"]) == 130
    assert "continue by: jiio attack runs --json a.json" in capsys.readouterr().err
    assert main(["attack", "runs"]) == 130
    assert "no --state" in capsys.readouterr().err


def test_suites_are_fitted_to_model_and_threat(capsys):
    model = Target(Classify.trained(load(Path("runs"))))
    kept, lost = fitted(attacks.SUITES["deq"](), model, ThreatModel("l2", 1.0), 2)
    assert all(getattr(a, "objective", attacks.Margin()).least_classes <= 2 for a in kept)
    assert len({a.name for a in kept}) == len(kept) and any(isinstance(a, Square) for a in kept) and not lost
    kept, lost = fitted(attacks.SUITES["standard"](), model, ThreatModel("l1", 1.0), 2)
    assert kept and not any(isinstance(a, Square) for a in kept) and lost == ["Square(queries=10)"]
    untouched = attacks.SUITES["deq"]()
    assert fitted(untouched, model, ThreatModel("l2", 1.0), 10) == (untouched, [])
    plain = Target(reference(ReferenceConfig(1000), 1, 10))
    assert fitted(list(QUICK), plain, ThreatModel("linf", 0.1), 10) == (QUICK, [])
    assert main(["attack", "runs", "--norm", "l1", "--radius", "2", "--samples", "4", "--no-audit"]) == 0
    assert "Square(queries=10) knows no l1 ball, so it is left out." in capsys.readouterr().err


def test_several_checkpoints_in_one_table(capsys):
    words = ["attack", "runs", "plain", "--samples", "8", "--batch", "4", "--no-audit"]
    assert main([*words, "--json", "both.json", "--report", "both.html"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("l2 radius 0.4, 8 samples:") and "runs" in told and "plain" in told
    found = {one["model"]["name"]: one for one in json.loads(Path("both.json").read_text())["models"]}
    assert main(["attack", "plain", "--samples", "8", "--batch", "4", "--no-audit", "--json", "one.json"]) == 0
    assert figures(json.dumps(found["plain"])) == figures(Path("one.json").read_text())
    assert "2 models under attack" in Path("both.html").read_text() and not list(Path().glob("*.state"))


def test_a_shipped_classifier_can_be_attacked_at_once(capsys, monkeypatch):
    assert main(["attack", "classify-faces", "classify-faces-plain", "--samples", "4", "--no-audit"]) == 0
    told = capsys.readouterr().out
    assert "classify-faces-plain" in told and "classify-faces " in told


# Mistakes


def write(name: str, content: bytes) -> None:
    Path(name).write_bytes(content)


def cut() -> None:
    path = Path("runs/weights.safetensors")
    write("cut.safetensors", path.read_bytes()[:-500])


def nothing() -> None:
    pass


def other_state() -> None:
    assert main(["attack", "runs", "--samples", "4", "--no-audit", "--state", "kept"]) == 0


def occupied() -> None:
    Path("full").mkdir()
    write("full/mine.txt", b"mine")


def mnist() -> None:
    checkpoint = load(Path("runs"))
    data = Path("runs/weights.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    about = json.loads(header["__metadata__"]["jiio"])
    del about["digest"]
    about["config"]["data"]["family"] = "mnist"
    tensors = {k: t.clone() for k, t in checkpoint.tensors.items()}
    tensors["model.head.linear.weight"] = torch.zeros(10, 8)
    tensors["model.head.linear.bias"] = torch.zeros(10)
    save_file(tensors, "mnist.safetensors", {"jiio": json.dumps(about)})


BAD: list[tuple[str, Callable[[], object], str, str]] = [
    ("no checkpoint named", nothing, "", "checkpoint"),
    ("no such checkpoint", nothing, "nonsense", "CHECKPOINT: no file is called 'nonsense'"),
    ("a restorer", nothing, "restore-faces", "CHECKPOINT: expected a classifier, got"),
    ("a pickle", lambda: write("a.pt", pickle.dumps({"a": 1})), "a.pt", "a pickle"),
    ("a cut file", cut, "cut.safetensors", "is damaged or not a checkpoint"),
    ("an empty folder", lambda: Path("empty").mkdir(), "empty", "expected a folder with checkpoints"),
    ("two threats", nothing, "runs calm", "--norm: expected a norm and a radius"),
    ("images of two models", nothing, "runs plain --save a.npz", "--save: expected one model"),
    ("parts of two models", nothing, "runs plain --shard 1/2 --state s", "--shard: expected one model"),
    ("unknown option", nothing, "runs --nrom l2", "--nrom: no such option; did you mean --norm?"),
    ("unknown norm", nothing, "runs --norm l3", "--norm: expected one of 'linf', 'l2', 'l1'"),
    ("radius zero", nothing, "runs --radius 0", "--radius: expected a number above 0"),
    ("radius negative", nothing, "runs --radius=-1", "--radius: expected a number above 0"),
    ("radius not a number", nothing, "runs --radius nan", "--radius: expected"),
    ("radius a word", nothing, "runs --radius big", "--radius"),
    ("another norm without a radius", nothing, "runs --norm linf", "--radius: expected a radius for the norm linf"),
    ("no threat in the training", nothing, "calm", "--norm: expected a norm and a radius"),
    ("half a threat", nothing, "calm --norm l2", "--radius: expected a norm and a radius"),
    ("unknown suite", nothing, "runs --suite strong", "--suite: expected one of 'standard', 'autoattack', 'deq'"),
    ("deq on a plain network", nothing, "plain --suite deq", "--suite: expected an equilibrium model for deq"),
    ("negative samples", nothing, "runs --samples=-3", "--samples: expected a whole number of at least 0"),
    ("half a sample", nothing, "runs --samples 2.5", "--samples"),
    ("batch zero", nothing, "runs --batch 0", "--batch: expected a whole number of at least 1"),
    ("negative seed", nothing, "runs --seed=-1", "--seed: expected a whole number of at least 0"),
    ("curve with zero", nothing, "runs --curve 0.5 0", "--curve: expected a number above 0"),
    ("threads zero", nothing, "runs --threads 0", "--threads: expected a whole number of at least 1"),
    ("unknown device", nothing, "runs --device tpu", "device: expected one of 'auto', 'cpu', 'cuda', 'mps', got tpu"),
    ("report of another kind", nothing, "runs --report a.pdf", "--report: expected a file whose name ends in .html"),
    ("a page as figures", nothing, "runs --json a.html", "--json: expected a name that does not end in .html"),
    ("figures into a folder", nothing, "runs --json runs", "--json: expected the name of a file"),
    ("report below a file", lambda: write("f", b"x"), "runs --report f/a.html", "--report: expected a folder"),
    ("state is a file", lambda: write("f", b"x"), "runs --state f", "--state: expected a folder"),
    ("state of others", occupied, "runs --state full", "state_path: expected an empty folder"),
    ("state of another attack", other_state, "runs --samples 4 --radius 0.2 --state kept", "of this very evaluation"),
    ("no data", mnist, "mnist.safetensors", "Pass --data-root or set JIIO_DATA"),
    ("no such data root", mnist, "mnist.safetensors --data-root nowhere", "no nowhere"),
    ("figures into the checkpoint", nothing, "runs --json runs/weights.safetensors --overwrite", "never overwritten"),
    ("figures into the checkpoint named", nothing, "runs/weights.safetensors --json runs/weights.safetensors", "never"),
    (
        "report that exists",
        lambda: write("r.html", b"my page"),
        "runs --report r.html",
        "Pass --overwrite to replace it",
    ),
    ("figures that exist", lambda: write("a.json", b"{}"), "runs --json a.json --state kept", "Pass --overwrite"),
    ("many threads", nothing, f"runs --threads {10**20}", "--threads: expected a whole number of at most 1,024"),
    ("an empty name", nothing, "runs --json ''", "--json: expected the name of a file"),
]


@pytest.mark.parametrize(("prepare", "line", "sentence"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_a_mistake_is_one_sentence_and_leaves_nothing(capsys, prepare, line, sentence):
    prepare()
    before = snapshot()
    capsys.readouterr()
    assert main(["attack", *shlex.split(line)]) == 2
    told, news = capsys.readouterr()
    last = [text for text in news.splitlines() if text.startswith("jiio: ")]
    assert len(last) == 1 and sentence in last[0] and "Traceback" not in news and not told
    assert re.match(r"jiio: .+[.?]$", last[0])
    assert snapshot() == before


def test_a_missing_extra_is_a_sentence(capsys, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pyautoattack" else real(name))
    assert main(["attack", "runs", "--suite", "autoattack"]) == 2
    assert 'pip install "jiio[attacks]"' in capsys.readouterr().err


def test_the_words_of_the_command_are_those_of_the_suites():
    assert set(attacks.SUITE_NAMES) == set(attacks.SUITES)
