"""A training that begins with the weights of another."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import toy
from jiio import JiioError
from jiio.tasks.frame.checkpoint import load
from jiio.tasks.frame.interrupt import TrainingInterrupted
from loop_cases import config_of, interrupted, run


@pytest.fixture(autouse=True)
def with_toy(monkeypatch, tmp_path):
    monkeypatch.setitem(toy.TABLE["task"], "toy", "toy:ToyTask")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("word", ["first", "first/weights.safetensors", "first/step-00000040.safetensors"])
def test_a_training_can_begin_with_the_weights_of_another(word):
    run(config_of("first"))
    seen = []

    class Watching(toy.ToyTask):
        def loss(self, model, step):
            seen.append({name: t.clone() for name, t in model.state_dict().items()})
            return super().loss(model, step)

    config = config_of("second", start=word, seed=7)
    done = run(config, task=Watching(config))
    first = load(Path("first")).tensors
    assert seen[0].keys() == {name.removeprefix("model.") for name in first if name.startswith("model.")}
    assert all(torch.equal(tensor, first[f"model.{name}"]) for name, tensor in seen[0].items())
    assert done.step == 40 and load(Path("second")).config.start == word


def test_a_fine_tuning_that_was_interrupted_goes_on_from_its_own_checkpoint():
    run(config_of("first"))
    config = config_of("half", start="first")
    with pytest.raises(TrainingInterrupted):
        interrupted(config, 17)
    run(config, resume=True)
    run(config_of("whole", start="first"))
    a, b = load(Path("half")), load(Path("whole"))
    assert all(torch.equal(tensor, b.tensors[name]) for name, tensor in a.tensors.items())


@pytest.mark.parametrize(
    "word, words",
    [("nowhere", "start: no file is called 'nowhere'"), ("prior-grey", "start: expected weights that fit the model")],
)
def test_weights_that_cannot_be_begun_with_get_a_sentence(word, words):
    with pytest.raises(JiioError, match=words):
        run(config_of("new", start=word))
    assert not Path("new").exists()
