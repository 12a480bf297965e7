"""The moving average of the weights, the best of them by images kept apart, and layers of low precision; a training
that was killed and resumed keeps the same, bit for bit."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

import toy
from jiio.checks import JiioError
from jiio.tasks.frame.checkpoint import load
from jiio.tasks.frame.precision import lowered
from loop_cases import assert_same_training, config_of, dies, run, stopped

BOTH = {"average": 0.9, "validate_every": 7, "keep": 100}


class Validated(toy.ToyTask):
    """The toy, with a figure that is best in the middle of the training."""

    def validate(self, model):
        assert not model.training
        x = torch.full((1, self.config.data.size**2), 0.5)
        with torch.no_grad():
            return abs(float(model(x).mean()) - 0.2)


@pytest.fixture(autouse=True)
def there(tmp_path, monkeypatch):
    from jiio.tasks.frame.registry import TABLE

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(TABLE["task"], "toy", "test_keeper:Validated")
    monkeypatch.setattr("jiio.tasks.frame.loop.build_task", lambda config, data_root: Validated(config))


def figures(folder: str) -> dict[int, float]:
    """step done -> the figure of validation."""
    lines = [json.loads(line) for line in (Path(folder) / "log.jsonl").read_text().splitlines()]
    return {line["step"] + 1: line["validation"] for line in lines if "validation" in line}


def test_the_average_is_that_of_the_weights_after_every_step():
    """Recomputed from the checkpoints of every step; the first steps do not remember the random beginning."""
    run(config_of("runs", average=0.9, checkpoint_every=1, keep=100))
    expected = None
    for done in range(1, 41):
        checkpoint = load(Path(f"runs/step-{done:08d}.safetensors"))
        weights = checkpoint.named("model.")
        if expected is None:
            expected = {name: t.clone() for name, t in checkpoint.named("average.").items()}
            continue
        share = max(1 - 0.9, 1 / (1 + done))
        expected = {name: t + share * (weights[name] - t) for name, t in expected.items()}
        for name, t in checkpoint.named("average.").items():
            torch.testing.assert_close(t, expected[name])
    last = load(Path("runs/weights.safetensors")).named("model.")
    for name, t in load(Path("runs/step-00000040.safetensors")).named("average.").items():
        assert torch.equal(last[name], t) and not torch.equal(t, checkpoint.named("model.")[name])


def test_whoever_opens_a_checkpoint_gets_the_average_and_whoever_resumes_does_not():
    checkpoint = run(config_of("runs", average=0.9))
    task = Validated(config_of("runs"))
    used = checkpoint.network(task.model)
    for name, p in used.named_parameters():
        assert torch.equal(p, checkpoint.named("average.")[name])
    raw = task.model()
    checkpoint.restore_model(raw)
    assert all(torch.equal(p, checkpoint.named("model.")[name]) for name, p in raw.named_parameters())


def test_the_best_weights_are_kept_and_a_folder_means_them():
    run(config_of("runs", **BOTH))
    found = figures("runs")
    assert sorted(found) == [7, 14, 21, 28, 35, 40]
    best = load(Path("runs"))
    assert best.path.name == "best.safetensors"
    assert best.step == min(found, key=lambda step: found[step])
    assert float(best.tensors["validation"]) == min(found.values())
    model = best.network(Validated(config_of("runs")).model).eval()
    assert Validated(config_of("runs")).validate(model) == pytest.approx(min(found.values()), abs=1e-6)


@pytest.mark.parametrize("at", [3, 23, 36])
def test_a_killed_training_keeps_the_same_best_and_average(at):
    run(config_of("whole", **BOTH))
    with stopped(Validated, at, dies), pytest.raises(KeyboardInterrupt):
        run(config_of("killed", **BOTH))
    run(config_of("killed", **BOTH), resume=True)
    assert_same_training("whole", "killed")
    a, b = load(Path("whole/best.safetensors")), load(Path("killed/best.safetensors"))
    assert a.step == b.step and all(torch.equal(t, b.tensors[name]) for name, t in a.tensors.items())


def test_validation_does_not_touch_the_training():
    run(config_of("plain"))
    run(config_of("watched", validate_every=3))
    a, b = load(Path("plain/weights.safetensors")), load(Path("watched/weights.safetensors"))
    assert all(torch.equal(t, b.tensors[name]) for name, t in a.tensors.items())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"average": 1.0}, "average: expected a number of at least 0 and below 1"),
        ({"average": -0.1}, "average"),
        ({"validate_every": -1}, "validate_every"),
        ({"precision": "float8"}, "precision"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change, words):
    with pytest.raises(JiioError, match=words):
        config_of("runs", **change)


def test_a_task_without_images_for_it_cannot_be_validated(monkeypatch):
    monkeypatch.setattr("jiio.tasks.frame.loop.build_task", lambda config, data_root: toy.ToyTask(config))
    with pytest.raises(JiioError, match="validate_every: expected 0, got 5"):
        run(config_of("runs", validate_every=5))
    assert not Path("runs").exists()


def test_low_layers_answer_in_the_type_they_were_asked_in():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 5))
    x = torch.rand(2, 1, 8, 8, requires_grad=True)
    exact = model(x)
    with lowered(model, torch.bfloat16):
        low = model(x)
        (gradient,) = torch.autograd.grad(low.square().sum(), x)
    assert low.dtype == gradient.dtype == torch.float32 and not torch.equal(low, exact)
    torch.testing.assert_close(low, exact, atol=0.02, rtol=0.02)
    assert torch.equal(model(x), exact) and "forward" not in vars(model[0])


def test_every_recipe_trains_in_low_precision():
    losses = {}
    for precision in ("float32", "bfloat16"):
        run(config_of(precision, precision=precision))
        lines = (Path(precision) / "log.jsonl").read_text().splitlines()
        losses[precision] = [json.loads(line)["loss"] for line in lines]
    assert losses["float32"] != losses["bfloat16"] and math.isfinite(losses["bfloat16"][-1])
    assert losses["bfloat16"][-1] == pytest.approx(losses["float32"][-1], rel=0.2)
