"""Configurations: strict YAML, one table of names, sentences that name the key."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

import jiio
from jiio import JiioError
from jiio.models import ImagePriorConfig
from jiio.tasks.frame.choices import Choice
from jiio.tasks.frame.config import OptimiserConfig
from jiio.tasks.frame.load import ConfigError, build, flatten, merge, read_yaml
from jiio.tasks.frame.registry import TABLE, config_class, look_up
from jiio.tasks.frame.shipped import all_shipped
from jiio.tasks.images.config import DataConfig
from jiio.tasks.restore.latent import RestoreConfig
from jiio.tasks.solving.settings import JointConfig

SHIPPED = sorted(all_shipped("configs", ".yaml").values())


def from_text(tmp_path: Path, text: str | bytes) -> RestoreConfig:
    path = tmp_path / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return build(RestoreConfig, read_yaml("CONFIG", path))


def test_defaults_make_a_configuration():
    config = build(RestoreConfig, {})
    assert config == RestoreConfig()
    arguments = config.joint.arguments()
    assert isinstance(arguments["adjoint"], jiio.Implicit) and isinstance(arguments["solver"], jiio.Anderson)
    plan = config.model.plan(config.data)
    assert plan.output == (1, 24, 24)


def test_a_whole_file(tmp_path):
    config = from_text(
        tmp_path,
        """
        seed: 3
        steps: 200
        data: {family: mnist, size: 28, train_limit: 500, mirror: false}
        corruption: {name: RandomHoles, options: {missing: 0.25}}
        model: {cell: {name: Dense, options: {features: 20}}, latent: 5}
        joint:
          solver: {name: Anderson, options: {memory: 8, kind: I}}
          adjoint: {name: Implicit}
          atol: 1e-6
        optimiser: {rate: 2e-3, clip: 5}
        """,
    )
    assert config.seed == 3 and config.data.train_limit == 500 and not config.data.mirror
    assert config.joint.atol == 1e-6 and config.optimiser.rate == 2e-3
    assert config.optimiser.clip == 5.0 and type(config.optimiser.clip) is float
    arguments = config.joint.arguments()
    assert arguments["solver"] == jiio.Anderson(memory=8, kind="I")
    assert isinstance(arguments["adjoint"], jiio.Implicit)


def test_json_and_back_is_the_same_configuration():
    config = RestoreConfig(loggers=(Choice("Tensorboard"),), data=DataConfig(size=32, test_limit=4))
    again = build(RestoreConfig, json.loads(json.dumps(dataclasses.asdict(config))))
    assert again == config


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("stpes: 3", "stpes: no such key in the configuration. Did you mean 'steps'?"),
        ("data: {siez: 3}", "data.siez: no such key in data. Did you mean 'size'?"),
        ("joint: {solver: {memory: 3}}", "joint.solver.memory: no such key in joint.solver. Valid: name, options."),
        ("1: 2", "1: no such key in the configuration."),
        ("steps: many", "steps: expected a whole number, got str 'many'."),
        ("steps: 2.5", "steps: expected a whole number, got float 2.5."),
        ("steps: true", "steps: expected a whole number, got bool True."),
        ("steps:", "steps: expected a whole number, got NoneType None."),
        ("steps: 0", "steps: expected a whole number of at least 1, got int 0."),
        ("steps: 10000000000", "steps: expected a whole number of at most 1,000,000,000, got 10,000,000,000."),
        ("seed: -1", "seed: expected a whole number of at least 0, got int -1."),
        ("device: tpu", "device: expected one of 'auto', 'cpu', 'cuda', 'mps', got tpu."),
        ("output: ''", "output: expected the name of a folder, got str ''."),
        ("data: 5", "data: expected keys and values"),
        ("data: {family: mnits}", "data.family: expected a family of images, got str 'mnits'. Did you mean 'mnist'?"),
        ("data: {channels: 2}", "data.channels: expected 1 (grey) or 3 (colour), got int 2."),
        ("data: {size: 100000}", "data.size: expected a whole number of at most 512, got 100,000."),
        (
            "data: {size: 25}\nmodel: {cell: {name: Multiscale, options: {}}}",
            "output: expected a height and width that are multiples of 2",
        ),
        ("data: {shift: 24}", "data.shift: expected fewer pixels than data.size = 24, got int 24."),
        ("data: {batch_size: 1000000}", "data.batch_size: expected a whole number of at most 65,536"),
        ("task: restor", "task: no task is called 'restor'. Did you mean 'restore'?"),
        ("corruption: BoxHole", "corruption: expected keys and values (name, options), got str 'BoxHole'."),
        ("corruption: {name: Blur}", "corruption.name: no corruption is called 'Blur'. Valid: BoxHole,"),
        ("loggers: [{}]", "loggers[0].name: no logger is called ''."),
        ("corruption: {name: BoxHole, options: {sied: 3}}", "corruption.options.sied: BoxHole has no such option."),
        ("corruption: {name: BoxHole, options: {side: 25}}", "corruption: side: expected a hole no larger than"),
        ("corruption: {name: BoxHole, options: {side: big}}", "corruption.options, side: expected a whole number"),
        ("joint: {adjoint: {name: kkt}}", "joint.adjoint.name: no adjoint is called 'kkt'."),
        ("joint: {adjoint: {name: os.system}}", "joint.adjoint.name: no adjoint is called 'os.system'."),
        ("joint: {solver: {name: Anderson, options: {memory: 0}}}", "joint.solver.options, Anderson.memory: expected"),
        ("joint: {solver: {name: Anderson, options: {nonsense: 3}}}", "joint.solver.options.nonsense: Anderson has no"),
        ("joint: {atol: .nan}", "Tolerance.atol: expected"),
        ("joint: {max_steps: 1}", "joint.max_steps: expected a whole number of at least 2"),
        ("optimiser: {rate: -1.0}", "optimiser.rate: expected a number above 0 and at most 1e+18, got float -1.0."),
        ("optimiser: {rate: .nan}", "optimiser.rate: expected a number above 0 and at most 1e+18, got float nan."),
        ("optimiser: {final_rate: 1.0}", "optimiser.final_rate: expected a number of at least 0 and at most 0.005"),
        ("optimiser: {warmup: 1000}", "optimiser.warmup: expected fewer than steps = 1000, got int 1000."),
        ("loggers: Tensorboard", "loggers: expected a list, got str 'Tensorboard'."),
        ("loggers: [{name: Tensorbord}]", "loggers[0].name: no logger is called 'Tensorbord'. Did you mean"),
    ],
)
def test_every_mistake_is_a_sentence_that_names_the_key(tmp_path, text, sentence):
    with pytest.raises(jiio.JiioError) as error:
        from_text(tmp_path, text)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("just words", "keys and values"),
        ("- a\n- b", "keys and values"),
        ("data: {size: 8", "cannot be parsed"),
        ("steps: 3\nseed: 1\nsteps: 4", "'steps' stands twice"),
        ("data: {size: 8, size: 9}", "'size' stands twice"),
        ("a: &x [1, 2]\nb: *x", "anchors and aliases"),
        ("seed: !!python/object/apply:os.getcwd []", "cannot be parsed"),
        ("? [1, 2]\n: 3", "cannot be parsed"),
        ("a: " + "[" * 5000, "cannot be parsed"),
        (b"\xff\xfe\x00", "not text"),
        (b"steps: 3\x00", "cannot be parsed"),
        (b"# " + b"x" * (1 << 20), "at most 1,048,576 bytes"),
    ],
)
def test_hostile_yaml(tmp_path, text, words):
    with pytest.raises(jiio.JiioError) as error:
        from_text(tmp_path, text)
    assert words in str(error.value)
    assert len(str(error.value)) < 600 and "\n" not in str(error.value)


@pytest.mark.parametrize("number", ["1e-3", "1E-3", "1.0e-3", "0.001", "1.e-3"])
def test_numbers_with_an_exponent_are_numbers(tmp_path, number):
    assert from_text(tmp_path, f"optimiser: {{rate: {number}}}").optimiser.rate == 1e-3


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in TABLE for name in TABLE[kind]])
def test_every_name_in_the_table_stands_for_a_class(kind, name):
    assert callable(look_up(kind, name, "here"))


def test_laying_one_configuration_on_another():
    base = {"steps": 3, "data": {"size": 8, "family": "faces"}, "solver": {"name": "A", "options": {"memory": 4}}}
    assert merge(base, {"data": {"size": 9}})["data"] == {"size": 9, "family": "faces"}
    assert merge(base, {"solver": {"name": "B"}})["solver"] == {"name": "B"}
    assert merge(base, {"solver": {"name": "B", "options": {"x": 1}}})["solver"] == {"name": "B", "options": {"x": 1}}
    assert merge(base, {"solver": {"name": "A"}})["solver"] == {"name": "A"}  # a choice with a name is complete
    assert merge(base, {"solver": {"options": {"kind": "I"}}})["solver"]["options"] == {"memory": 4, "kind": "I"}
    assert base["data"]["size"] == 8


def test_options_without_a_name_change_those_of_the_default():
    assert build(JointConfig, {"solver": {"options": {"kind": "I"}}}).solver == Choice(
        "Anderson", {"memory": 12, "kind": "I"}
    )
    assert build(JointConfig, {"solver": {"name": "Anderson"}}).solver == Choice("Anderson")
    assert build(RestoreConfig, {"corruption": {}}).corruption == RestoreConfig().corruption


def test_flattening():
    assert flatten({"a": {"b": 1, "c": {"d": 2}}, "e": [3]}) == {"a.b": 1, "a.c.d": 2, "e": [3]}


def test_joint_settings_are_checked_where_they_are_written():
    with pytest.raises(ConfigError, match="no adjoint is called"):
        JointConfig(adjoint=Choice("Exact"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_a_shipped_file_opens_with_its_command_its_figure_and_its_minutes(path):
    head = path.read_text().splitlines()[:6]
    assert head[0].split("  ")[0] == f"# jiio train {path.stem}"
    text = " ".join(line for line in head if line.startswith("#"))
    assert re.search(r"(?i)\bexpect\b.*\d", text) and re.search(r"\d minutes?\b", text)
    values = read_yaml("CONFIG", path)
    build(config_class(values), values)


def test_an_object_among_the_options_is_refused_at_once():
    """It would train, and the checkpoint could not be read again."""
    with pytest.raises(ConfigError, match=r"options\.solver: expected numbers, words, lists and mappings"):
        Choice("Implicit", {"solver": jiio.Anderson()})
    assert Choice("Multiscale", {"channels": [24, 32], "more": {"a": (1, None)}}).options["channels"] == [24, 32]


@pytest.mark.parametrize("task", TABLE["task"])
def test_every_key_of_a_training_is_explained(task):
    """The command line shows the docstring's words; a key without any would stand there bare."""
    cls = config_class({"task": task})
    explained = re.findall(r"^        (\w+): ", cls.__doc__ or "", re.M)
    assert sorted(explained) == sorted(field.name for field in dataclasses.fields(cls))


@pytest.mark.parametrize("change", [{"rate": 1e40}, {"clip": 1e40}, {"weight_decay": 1e19}])
def test_numbers_that_single_precision_cannot_square_are_refused(change):
    with pytest.raises(JiioError, match=rf"optimiser\.{next(iter(change))}: expected .* at most 1e\+18"):
        OptimiserConfig(**change)


@pytest.mark.parametrize("name", ["features", "wide", "depth"])
def test_sizes_of_a_prior_are_bounded(name):
    with pytest.raises(JiioError, match=f"{name}: expected at most 65,536"):
        dataclasses.replace(ImagePriorConfig(), **{name: 10**40})  # type: ignore[arg-type]
