"""Parts of one's own: named by import path, kept in checkpoints, never imported behind one's back."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from jiio import CheckpointError, JiioError
from jiio.tasks.cli import main
from jiio.tasks.frame import registry
from jiio.tasks.frame.checkpoint import load
from jiio.tasks.frame.choices import Choice, paths_of
from jiio.tasks.frame.evaluate import evaluate
from jiio.tasks.frame.load import ConfigError, build
from jiio.tasks.frame.loop import train
from jiio.tasks.frame.paths import allowing, only
from jiio.tasks.frame.registry import KINDS, TABLE, config_class, look_up
from jiio.tasks.restore.latent import Restore, RestoreConfig

OUTSIDE = Path(__file__).parents[2] / "outside"
RESTORE = """
task: restore
output: runs
steps: 3
threads: 1
data: {size: 12, batch_size: 4, train_limit: 8, test_limit: 4}
corruption: {name: "mine.parts:Stripes", options: {every: 4}}
model: {cell: {name: Dense, options: {features: 8}}, latent: 4}
joint: {max_steps: 10, adjoint: {name: Implicit}}
loggers: [{name: "mine.parts:LastLine"}]
"""
CLASSIFY = """
task: classify
output: runs
steps: 3
threads: 1
data: {family: faces, size: 8, batch_size: 8}
model: {cell: {name: Dense, options: {features: 8}}}
defence: [{name: "mine.parts:Noisy", options: {sigma: 0.2}}]
threat: {norm: l2, radius: 0.5}
"""
MEAN = """
task: mine.task:Mean
output: runs
steps: 4
checkpoint_every: 2
data: {size: 8, batch_size: 4}
start_at: 0.25
"""


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder, and the parts importable."""
    monkeypatch.syspath_prepend(str(OUTSIDE))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(text: str, *words: str) -> int:
    Path("config.yaml").write_text(text)
    return main(["train", "config.yaml", *words])


def forget() -> None:
    """As a new process: nothing of mine has been imported."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "mine"]:
        del sys.modules[name]


# -- a class of one's own, of every kind


@pytest.mark.parametrize("text", [RESTORE, CLASSIFY, MEAN], ids=["corruption, logger", "defence", "task"])
def test_parts_of_ones_own_train_resume_and_are_measured(text: str, outside: Path, capsys) -> None:
    assert command(text, "--steps", "2") == 0
    Path("runs/weights.safetensors").unlink()
    whole = load(Path("runs"), allow=["mine"])
    assert whole.step == 2 and all(path in json.dumps(repr(whole.config)) for path in paths_of(whole.config))
    assert main(["train", "config.yaml", "--steps", "2", "--resume"]) == 0
    rows = evaluate(load(Path("runs"), allow=["mine"]))
    assert rows and all(isinstance(row, dict) for row in rows)


def test_a_logger_of_ones_own_is_told_everything(outside: Path) -> None:
    assert command(RESTORE) == 0
    told = json.loads(Path("runs/last.json").read_text())
    assert told["step"] == 2 and "loss" in told


def test_a_task_of_ones_own_has_its_configuration(outside: Path, capsys) -> None:
    assert command(MEAN, "--start_at", "0.75") == 0
    assert "start_at=0.75" in repr(load(Path("runs"), allow=["mine.task:Mean"]).config)
    assert main(["train", "config.yaml", "--help"]) == 0
    assert "grey level that the mean begins with" in capsys.readouterr().out
    assert command(MEAN, "--output", "other", "--start_at", "2") == 2
    assert "start_at: expected" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("every: 4", "evry: 4"), "mine.parts:Stripes has no such option. Did you mean 'every'?"),
        (("every: 4", "every: [a]"), "corruption: mine.parts:Stripes cannot draw for these images (TypeError"),
        (("mine.parts:Stripes", "mine.parts:Stripe"), "mine.parts has no 'Stripe'. Did you mean 'Stripes'?"),
        (("mine.parts:Stripes", "mine.part:Stripes"), "cannot be imported (ModuleNotFoundError"),
        (("mine.parts:Stripes", "os:system"), "expected a class of the kind corruption, got os:system, which is a"),
        (("mine.parts:Stripes", "mine.parts:Noisy"), "got mine.parts:Noisy, which is another class. Derive it from"),
        (("mine.parts:Stripes", "mine.parts:LastLine"), "AbstractCorruption"),
        (("mine.parts:Stripes", "mine parts:Stripes"), "expected an import path such as package.module:Name"),
        (("mine.parts:Stripes", ":Stripes"), "expected an import path such as package.module:Name"),
        (("mine.parts:Stripes", "mine.parts:"), "expected an import path such as package.module:Name"),
        (("mine.parts:LastLine", "mine.parts:Noisy"), "expected a class of the kind logger"),
        (("task: restore", "task: mine.parts:Stripes"), "expected a class of the kind task"),
    ],
)
def test_a_wrong_path_is_one_sentence(change: tuple[str, str], words: str, outside: Path, capsys) -> None:
    assert command(RESTORE.replace(*change)) == 2
    errors = capsys.readouterr().err
    assert words in errors and len(errors.splitlines()) == 1 and not Path("runs").exists()


def test_a_module_that_fails_is_one_sentence(outside: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    Path("broken_parts.py").write_text("raise RuntimeError('half done')")
    monkeypatch.syspath_prepend(str(outside))
    assert command(RESTORE.replace("mine.parts:Stripes", "broken_parts:Stripes")) == 2
    assert "cannot be imported (RuntimeError: half done)" in capsys.readouterr().err


@pytest.mark.parametrize("kind", sorted(TABLE))
def test_every_built_in_class_is_of_its_kind(kind: str) -> None:
    base = registry.fetch(KINDS[kind])
    for name in TABLE[kind].keys() - {"Reference"}:  # a plain network is no cell
        assert issubclass(look_up(kind, name, "here"), base), name


def test_the_command_line_finds_what_lies_where_it_is_started(outside: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in (str(OUTSIDE), str(outside))])
    shutil.copytree(OUTSIDE / "mine", "mine")
    forget()
    assert command(MEAN) == 0
    forget()
    assert main(["evaluate", "runs"]) == 2
    assert "--allow mine.task:Mean" in capsys.readouterr().err
    for allow in ("mine.task:Mean", "mine.task", "mine"):
        forget()
        assert main(["evaluate", "runs", "--allow", "other.one", "--allow", allow]) == 0
        assert "squared error" in capsys.readouterr().out
    forget()


def test_a_cell_of_ones_own_trains_and_is_read_again(outside: Path, capsys) -> None:
    text = RESTORE.replace(
        "{name: Dense, options: {features: 8}}", '{name: "mine.cell:LeakyConfig", options: {features: 8}}'
    )
    assert command(text) == 0
    found = load(Path("runs"), allow=["mine"])
    assert "mine.cell:LeakyConfig" in paths_of(found.config)
    assert evaluate(found)
    assert command(text.replace("features: 8", "featurs: 8"), "--output", "other") == 2
    assert "LeakyConfig has no such option. Did you mean 'features'?" in capsys.readouterr().err


# -- somebody else's file


def test_a_file_names_no_code_that_its_reader_has_not_named(outside: Path, capsys) -> None:
    assert command(RESTORE) == 0
    forget()
    with pytest.raises(CheckpointError, match=r"'mine\.parts:\w+'; nothing of it was imported.*--allow mine\.parts"):
        load(Path("runs"))
    with pytest.raises(CheckpointError, match="nothing of it was imported"):
        load(Path("runs"), allow=["min", "mine.part", "mine.parts:Strip", "mine.parts:LastLine"])
    assert not any(name.startswith("mine") for name in sys.modules)
    for allow in (["mine"], ["mine.parts"], ["mine.parts:Stripes", "mine.parts:LastLine"]):
        assert load(Path("runs"), allow=allow).step == 3


@pytest.mark.parametrize("path", ["antigravity:x", "this:s", "absent_module:Thing", "os:system"])
def test_a_strangers_checkpoint_imports_nothing(path: str, outside: Path, capsys) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    assert (
        command(
            RESTORE.replace('{name: "mine.parts:Stripes", options: {every: 4}}', "{name: BoxHole}").replace(
                "loggers", "# "
            )
        )
        == 0
    )
    with safe_open("runs/weights.safetensors", "pt") as file:
        about = json.loads(file.metadata()["jiio"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for place in ("task", "corruption"):
        changed = json.loads(json.dumps(about))
        changed.pop("digest", None)
        changed["config"]["task" if place == "task" else "corruption"] = (
            path if place == "task" else {"name": path, "options": {}}
        )
        save_file(tensors, f"{place}.safetensors", {"jiio": json.dumps(changed)})
        before = set(sys.modules)
        capsys.readouterr()
        assert main(["evaluate", f"{place}.safetensors"]) == 2
        errors = capsys.readouterr().err
        assert "nothing of it was imported" in errors and path in errors and "--allow" in errors
        assert not {"antigravity", "this", "absent_module"} & (set(sys.modules) - before)


def test_only_bars_and_allowing_opens(outside: Path) -> None:
    with only([]), pytest.raises(ConfigError):
        Choice("mine.parts:Stripes")
    with allowing(["mine"]), only([]):
        assert Choice("mine.parts:Stripes").make("corruption", "corruption").every == 3
    with only(["mine.parts"]), pytest.raises(ConfigError, match=r"mine\.task:Mean"):
        Choice(Choice("mine.parts:Stripes").name.replace("parts:Stripes", "task:Mean"))
    assert Choice("mine.task:Mean").name  # what a person writes is theirs


# -- a task object that is handed over


class OwnRestore(Restore):
    """Something that no configuration says."""

    def draw(self, clean: Tensor, purpose: str, number: int):
        return super().draw(clean, purpose, number + 1)


def small(output: str, **changes) -> RestoreConfig:
    values = {"output": output, "steps": 2, "threads": 1, "data": {"size": 12, "batch_size": 4, "test_limit": 3}}
    values["model"] = {"cell": {"name": "Dense", "options": {"features": 8}}, "latent": 4}
    values["joint"] = {"max_steps": 8, "adjoint": {"name": "Implicit"}}
    values["corruption"] = {"name": "BoxHole", "options": {"side": 2}}
    return build(RestoreConfig, values | changes)


def test_a_handed_task_leaves_no_checkpoint_that_says_something_else(outside: Path) -> None:
    config = small("runs")
    done = train(config, task=OwnRestore(config), report=lambda line: None)
    assert done.handed is not None and done.handed.endswith(":OwnRestore")
    read = load(Path("runs"))
    assert read.handed == done.handed
    with pytest.raises(JiioError, match=r"the task object that .* was trained with"):
        evaluate(read)
    with pytest.raises(JiioError, match=r"the task object that .* was trained with"):
        evaluate(read, task=Restore(config))
    with pytest.raises(JiioError, match=r"the task that .* was trained with"):
        train(config, resume=True, report=lambda line: None)
    assert evaluate(read, task=OwnRestore(config))
    assert train(config, resume=True, task=OwnRestore(config), report=lambda line: None).step == 2


def test_a_handed_task_is_of_the_configuration_that_is_trained(outside: Path) -> None:
    config = small("runs")
    with pytest.raises(JiioError, match=r"task: expected a task of the configuration that is trained.*seed"):
        train(config, task=OwnRestore(small("runs", seed=3)))
    with pytest.raises(JiioError, match="task: expected an instance of AbstractTask"):
        train(config, task=object())  # type: ignore[arg-type]
    assert not Path("runs").exists()
    assert train(config, task=Restore(small("elsewhere")), report=lambda line: None).step == 2  # the folder is free


# -- rooms of installed packages


def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, name: str = "their_room") -> None:
    """A package with an entry point, as if it were installed."""
    folder = tmp_path / "site" / name
    (folder / "configs").mkdir(parents=True)
    (folder / "__init__.py").write_text(text)
    (folder / "configs" / f"{name}-small.yaml").write_text(MEAN)
    about = tmp_path / "site" / f"{name}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[jiio.tasks]\n{name} = {name}\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))


def in_a_new_process(script: str, tmp_path: Path) -> str:
    import os
    import subprocess

    paths = [str(tmp_path / "site"), str(OUTSIDE), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    return done.stdout + done.stderr


def test_an_installed_package_adds_a_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room(tmp_path, monkeypatch, 'TASKS = {"mean": ("mine.task:Mean", "mine.task:MeanConfig")}\n')
    script = "from jiio.tasks.cli import main; main(['train', 'their_room-small', '--task', 'mean', '--steps', '2'])"
    assert "Trained 2 steps" in in_a_new_process(script, tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import nowhere_at_all", "ModuleNotFoundError"),
        ('TASKS = {"restore": ("mine.task:Mean", "mine.task:MeanConfig")}', "'restore' is taken by another room"),
        ('CHOICES = {"solver": {"Anderson": "mine.parts:Noisy"}}', "'Anderson' is taken by another room"),
    ],
)
def test_a_broken_room_takes_nothing_down(text: str, words: str, tmp_path: Path, monkeypatch) -> None:
    room(tmp_path, monkeypatch, text)
    script = (
        "from jiio.tasks.cli import main; main(['--help'])\nfrom jiio.tasks.frame.registry import BROKEN, look_up\n"
    )
    script += "print(BROKEN); print(look_up('solver', 'Anderson', '').__module__)"
    said = in_a_new_process(script, tmp_path)
    assert "usage: jiio" in said and words in said and "jiio.solvers" in said


def test_config_class_of_a_path_is_the_tasks_own(outside: Path) -> None:
    assert config_class({"task": "mine.task:Mean"}).__name__ == "MeanConfig"
    assert config_class({}) is RestoreConfig
    assert torch.is_grad_enabled()
