"""Training of the image prior: patches, the two tasks, and the restorers that their checkpoints make."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import jiio
from jiio.checks import JiioError
from jiio.models import ImagePrior
from jiio.tasks.cli import main
from jiio.tasks.frame.load import build
from jiio.tasks.frame.precision import number_format
from jiio.tasks.images.galleries import load_pictures
from jiio.tasks.images.metrics import psnr
from jiio.tasks.images.patches import draw_patches, tint
from jiio.tasks.maps.base import Denoise, Inpaint
from jiio.tasks.restore.imagespace import DirectRestorer, ImageRestorer, Strength
from jiio.tasks.restore.load import load_restorer
from jiio.tasks.restore.prior import Direct, Prior, PriorConfig
from loop_cases import dies, stopped

SIZES = {"features": 4, "wide": 4, "depth": 1}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five pictures of smooth waves, one of them smaller than a patch."""
    place = tmp_path / "pictures"
    place.mkdir()
    for i, size in enumerate([(40, 60), (33, 47), (50, 50), (64, 32), (12, 20)]):
        rows, columns = np.meshgrid(*(np.arange(n) for n in size), indexing="ij")
        wave = 127 + 100 * np.sin((i + 1) * rows / 9) * np.cos(columns / (5 + i))
        colour = np.stack([wave, 255 - wave, np.roll(wave, 3, 0)], 2).clip(0, 255).astype(np.uint8)
        Image.fromarray(colour).save(place / f"{i}.png")
    return place


def configuration(folder: Path, output: Path, **over) -> PriorConfig:
    values = {"task": "prior", "output": str(output), "steps": 6, "checkpoint_every": 3, "model": SIZES}
    values |= {"data": {"families": [f"folder:{folder}"], "size": 16, "batch_size": 3}} | over
    return build(PriorConfig, values)


# Patches


@pytest.mark.parametrize("channels", [1, 3])
def test_patches_are_a_function_of_seed_and_step(folder, channels):
    families = [load_pictures(f"folder:{folder}", channels)]
    assert all(p.dtype == torch.uint8 and p.shape[0] == channels for p in families[0])

    def draw(seed, step):
        return draw_patches(families, channels=channels, size=16, batch=4, seed=seed, step=step)

    assert torch.equal(draw(0, 3), draw(0, 3))
    assert not torch.equal(draw(0, 3), draw(0, 4))
    assert not torch.equal(draw(0, 3), draw(1, 3))
    assert draw(0, 3).shape == (4, channels, 16, 16)
    assert draw(0, 0).min() >= 0 and draw(0, 0).max() <= 1


def test_patches_hold_the_pixels_of_their_picture(folder):
    """Up to quarter turns and mirrors: the values of a patch all stand in one picture."""
    picture = load_pictures(f"folder:{folder}", 1)[0]
    patch = draw_patches([[picture]], channels=1, size=16, batch=1, seed=0, step=0)[0, 0]
    windows = picture[0].float().unfold(0, 16, 1).unfold(1, 16, 1) / 255
    found = [
        bool((windows == torch.rot90(p, turns)).all(-1).all(-1).any())
        for p in (patch, patch.flip(0))
        for turns in range(4)
    ]
    assert any(found)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_a_tint_keeps_the_order_of_grey_values(seed):
    grey = torch.linspace(0, 1, 50).view(1, 5, 10)
    colour = tint(grey, torch.Generator().manual_seed(seed))
    assert colour.shape == (3, 5, 10) and colour.min() >= 0 and colour.max() <= 1
    assert (colour.flatten(1).diff(dim=1) > 0).all()


# The two tasks


@pytest.mark.parametrize("task", ["prior", "direct"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_checkpoint_becomes_a_restorer(folder, tmp_path, task, channels, capsys):
    config = tmp_path / "config.yaml"
    config.write_text(f"task: {task}\nsteps: 4\n")
    words = ["train", str(config), "--output", str(tmp_path / "run"), "--model.channels", str(channels)]
    words += ["--data.families", f'["folder:{folder}"]', "--data.size", "16", "--data.batch_size", "2"]
    words += ["--model.features", "4", "--model.wide", "4", "--model.depth", "1"]
    assert main(words) == 0
    restorer = load_restorer("--weights", str(tmp_path / "run"))
    assert isinstance(restorer, ImageRestorer if task == "prior" else DirectRestorer)
    assert restorer.channels == channels and not restorer.training
    y = torch.rand(2, channels, 17, 22)
    done = restorer.restore(y, Denoise(0.1))
    assert done.image.shape == y.shape and done.image.isfinite().all()
    assert done.converged.all() and done.evaluations > 0 and (done.vjps > 0) == (task == "prior")


@pytest.mark.parametrize("cls", [Prior, Direct])
def test_training_lowers_the_error_of_denoising(folder, tmp_path, cls):
    config = configuration(folder, tmp_path / "run", optimiser={"rate": 0.003}, noise={"low": 0.1, "high": 0.1})
    task = cls(config)
    torch.manual_seed(0)
    model = task.model()
    optimiser = torch.optim.Adam(model.parameters(), 0.003)
    before = task.loss(model, 1000)[1]
    for step in range(40):
        optimiser.zero_grad()
        task.loss(model, step)[0].backward()
        optimiser.step()
    after = task.loss(model, 1000)[1]
    assert after["psnr"] > before["psnr"] + 1.0
    assert after["residual"] < 0.2


def test_the_loss_of_the_prior_is_that_of_its_gradient_step(folder, tmp_path):
    """The unrolled training loss against the converged route that restoration takes."""
    task = Prior(configuration(folder, tmp_path / "run", unroll={"low": 60, "high": 60}))
    torch.manual_seed(0)
    model = task.model()
    assert isinstance(model, ImagePrior)
    clean, noisy, level = task.noisy_patches(0)
    step, _ = model.gradient_step(noisy, level, tolerance=jiio.Tolerance(atol=1e-7, rtol=1e-7), on_failure="ignore")
    figures = task.loss(model, 0)[1]
    assert figures["psnr"] == pytest.approx(float(psnr(step.clamp(0, 1), clean).mean()), abs=1e-3)


@pytest.mark.parametrize(
    "capability, device, expected",
    [("AVX512", "cpu", torch.bfloat16), ("AVX2", "cpu", torch.float32), ("AVX2", "cuda", torch.bfloat16)],
)
def test_the_precision_follows_the_device(monkeypatch, capability, device, expected):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert number_format("auto", torch.device(device)) == expected
    assert number_format("float32", torch.device(device)) == torch.float32


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_resumed_training_is_the_same_bit_for_bit(folder, tmp_path, precision):
    from jiio.tasks.frame.loop import train

    straight = train(configuration(folder, tmp_path / "a", precision=precision, threads=1))
    half = tmp_path / "b"
    with pytest.raises(KeyboardInterrupt), stopped(Prior, 4, dies):
        train(configuration(folder, half, precision=precision, threads=1))
    resumed = train(configuration(folder, half, precision=precision, threads=1), resume=True, report=lambda line: None)
    assert straight.step == resumed.step == 6
    assert all(torch.equal(straight.tensors[name], resumed.tensors[name]) for name in straight.tensors)


# The restorer


def test_missing_pixels_are_filled_jointly():
    torch.manual_seed(0)
    prior = ImagePrior(PriorConfig(model=build(PriorConfig, {"model": SIZES}).model).model).eval().requires_grad_(False)
    restorer = ImageRestorer(prior, strength=Strength(levels=(0.2, 0.1)))
    clean = torch.full((1, 1, 16, 16), 0.4)
    mask = (torch.rand(1, 1, 16, 16) > 0.3).float()
    operator = Inpaint(mask=mask)
    done = restorer.restore(operator.A(clean), operator, max_steps=200)
    assert done.converged.all()
    assert (mask * (done.image - clean)).abs().mean() < 0.2
    assert done.evaluations > done.solution.evaluations.cell  # the calls of both levels are counted


@pytest.mark.parametrize(
    "values, words",
    [
        ({"data": {"families": []}}, "at least one family"),
        ({"data": {"families": ["fotos"]}}, "photos"),
        ({"data": {"families": ["folder:/no/such"]}}, "not a folder"),
        ({"data": {"size": 18}}, "multiple of 4"),
        ({"noise": {"low": 0.3, "high": 0.2}}, "noise.low"),
        ({"noise": {"high": 0.0}}, "noise.high"),
        ({"unroll": {"low": 0}}, "unroll.low"),
        ({"unroll": {"low": 5, "high": 4}}, "unroll.high"),
        ({"unroll": {"penalty": -1}}, "unroll.penalty"),
        ({"precision": "float8"}, "precision"),
        ({"model": {"channels": 2}}, "channels"),
        ({"model": {"layers": 2}}, "no such key"),
        ({"corruption": {"name": "BoxHole"}}, "no such key"),
    ],
)
def test_bad_configurations_get_a_sentence(values, words):
    with pytest.raises(JiioError, match=words):
        Prior(build(PriorConfig, {"task": "prior"} | values))


@pytest.mark.parametrize("level", [-0.1, 0.0, 1.5])
def test_bad_strengths_get_a_sentence(level):
    with pytest.raises(JiioError, match="levels"):
        Strength(levels=(level,))


def test_the_direct_restorer_only_denoises():
    with pytest.raises(JiioError, match="plain noise"):
        DirectRestorer(ImagePrior()).restore(torch.zeros(1, 1, 8, 8), Inpaint(mask=torch.eye(8)[None, None]))
