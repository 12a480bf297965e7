"""bfloat16 where the processor has it: the picture is the same, and nobody who asks for more gets less."""

from __future__ import annotations

import pytest
import torch

import jiio
from jiio import ArgumentError
from jiio.outputs.seeds import generator
from jiio.tasks.frame.precision import inside
from jiio.tasks.images.metrics import psnr
from jiio.tasks.maps.base import Denoise
from jiio.tasks.restore import quick
from jiio.tasks.restore.imagespace import FAST, NOISE_TOLERANCE, ImageRestorer
from jiio.tasks.restore.load import load_restorer


@pytest.fixture(scope="module")
def prior():
    return load_restorer("weights", "prior-grey").prior  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def scene():
    rows = torch.linspace(0, 6, 48)
    clean = 0.5 + 0.3 * torch.sin(rows)[:, None] * torch.cos(rows)
    return clean[None, None], clean + 0.1 * torch.randn(1, 1, 48, 48, generator=generator(0))


def restored(prior, y, precision, **settings):
    return ImageRestorer(prior, precision=precision).restore(y, Denoise(0.1), **settings)


def test_half_the_digits_make_the_same_picture(prior, scene):
    clean, y = scene
    full, low = (restored(prior, y, precision) for precision in ("float32", "bfloat16"))
    assert low.image.dtype == torch.float32 and bool(low.converged.all())
    assert not torch.equal(full.image, low.image)
    assert float(psnr(low.image, clean)) == pytest.approx(float(psnr(full.image, clean)), abs=0.02)
    assert "forward" not in vars(prior.cell)  # the weights are as they were


@pytest.mark.parametrize(("offered", "rtol", "low"), [(True, 5e-3, True), (True, 1e-4, False), (False, 5e-3, False)])
def test_auto_asks_the_processor_and_the_tolerance(prior, scene, monkeypatch, offered, rtol, low):
    monkeypatch.setattr(quick, "in_hardware", lambda kind, device: offered)
    settings = {"tolerance": jiio.Tolerance(rtol / 10, rtol)}
    found = restored(prior, scene[1], "auto", **settings).image
    assert torch.equal(found, restored(prior, scene[1], "bfloat16" if low else "float32", **settings).image)


def test_weights_of_double_precision_stay_so(prior, scene):
    double = load_restorer("weights", "prior-grey").double()
    assert double.restore(scene[1].double(), Denoise(0.1)).image.dtype == torch.float64
    with quick.computing(double.prior, "bfloat16", NOISE_TOLERANCE):  # type: ignore[arg-type]
        assert "forward" not in vars(double.prior.cell)  # type: ignore[arg-type]


def test_fast_is_never_slower(prior, scene):
    usual = restored(prior, scene[1], "float32")
    assert restored(prior, scene[1], "float32", tolerance=FAST).evaluations <= usual.evaluations
    assert restored(prior, scene[1], "float32", tolerance=jiio.Tolerance(1e-5, 1e-4)).evaluations > usual.evaluations


def test_a_module_is_itself_again_after_an_error():
    layer = torch.nn.Linear(2, 2)
    with pytest.raises(ZeroDivisionError), inside(layer, torch.bfloat16):
        assert layer(torch.ones(1, 2)).dtype == torch.float32
        raise ZeroDivisionError
    assert "forward" not in vars(layer)


def test_an_unknown_precision_is_refused(prior):
    with pytest.raises(ArgumentError, match="precision"):
        ImageRestorer(prior, precision="float8")
