"""Low light: noise that arose in the light, below a tone curve. The way back is to the mean of the light."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jiio import ArgumentError
from jiio.tasks.frame.files import InputError
from jiio.tasks.images.pictures import Picture
from jiio.tasks.restore.photos.damage import Coarse, Noise
from jiio.tasks.restore.photos.stable import stabiliser
from jiio.tasks.restore.stabilise import STEPS, Stabiliser, noisy_mean
from jiio.tasks.restore.tone import LinearTone, PhotographTone

DRAW = np.random.default_rng(0)
RAMP = np.tile(np.linspace(0.1, 0.95, 400, dtype=np.float32), (300, 1))


def dark(photons: float, value: np.ndarray) -> np.ndarray:
    """A photograph by so many photons at white."""
    light = DRAW.poisson(photons * PhotographTone().light(value)) / photons
    return PhotographTone().stored(light.clip(0, 1)).astype(np.float32)


@pytest.mark.parametrize("tone", [LinearTone(), PhotographTone()])
def test_a_tone_and_its_way_back(tone):
    value = np.linspace(0, 1, 101)
    assert tone.stored(tone.light(value)) == pytest.approx(value, abs=1e-6)
    assert (np.diff(tone.light(value)) > 0).all() and tone.light(np.ones(1)) == pytest.approx(1.0)


def test_the_curve_of_photographs():
    """The standard's own example: a middle grey of 18 % is stored as 118 of 255."""
    assert 255 * PhotographTone().stored(np.array(0.18)) == pytest.approx(117.6, abs=0.1)


def test_without_a_tone_noise_of_one_level_has_no_bias_inside():
    """f is linear there, so the mean of f is f of the mean; at white, half of the noise is cut off."""
    value = np.linspace(0, 1, STEPS)
    mean = noisy_mean(value, np.full(STEPS, 0.05), value / 0.05, LinearTone())
    inside = (value > 0.25) & (value < 0.75)
    assert mean[inside] == pytest.approx(value[inside] / 0.05, abs=1e-3)
    assert mean[-1] == pytest.approx(20 - (2 * np.pi) ** -0.5, abs=0.05)  # minus the mean of what was cut


@pytest.mark.parametrize("level", [0.3, 0.5, 0.8])
def test_the_way_back_is_to_the_light(level):
    """A flat patch in low light is darker in the mean than the light was; its restored value is not."""
    stable = Stabiliser.of(dark(40, RAMP)[None], PhotographTone())
    plain = Stabiliser.of(dark(40, RAMP)[None])
    assert stable is not None and plain is not None
    patch = dark(40, np.full((1, 300, 300), level))
    scaled = np.full((1, 1, 1), stable.forth(patch).mean(), np.float32)
    back, before = (float(way.back(scaled)[0, 0, 0]) for way in (stable, plain))
    assert back == pytest.approx(level, abs=0.012)
    assert patch.mean() < level - 0.004 and abs(back - level) < abs(before - level)


def test_what_is_refused():
    picture = Picture(Path("a.png"), dark(40, RAMP)[None])
    assert stabiliser(picture, "white", Coarse(2)) is None and stabiliser(picture, "low-light", Noise()) is not None
    with pytest.raises(InputError, match="--noise: expected white for anything but noise, got low-light for too few"):
        stabiliser(picture, "low-light", Coarse(2))
    with pytest.raises(ArgumentError, match="noise"):
        stabiliser(picture, "dark", Noise())
    with pytest.raises(InputError, match="enough patches"):
        stabiliser(Picture(Path("a.png"), picture.pixels[:, :20, :20]), "poisson", Noise())
