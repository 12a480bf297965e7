"""Every family of corruptions: exact adjoints, linearity, seeds, starts, windows; noise and masks in particular."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jiio import ArgumentError
from jiio.outputs.seeds import generator
from jiio.tasks.frame.files import InputError
from jiio.tasks.frame.registry import TABLE
from jiio.tasks.maps.base import Denoise, Inpaint, box_mask, fill, random_mask
from jiio.tasks.maps.corruption import (
    AbstractCorruption,
    BoxHole,
    CompressedSensing,
    Downsampling,
    GaussianBlur,
    GaussianNoise,
    GivenKernel,
    GivenMask,
    MotionBlur,
    RandomHoles,
)

CORRUPTIONS: list[AbstractCorruption] = [
    GaussianNoise(0.2),
    BoxHole(3),
    BoxHole(2, sigma=0.1),
    RandomHoles(0.4),
    RandomHoles(0.0),
    RandomHoles(1.0),
    GaussianBlur(width=0.6),
    GaussianBlur(width=1.6, boundary="symmetric"),
    MotionBlur(length=5, angle=40, boundary="replicate"),
    MotionBlur(length=2, angle=40, boundary="valid"),
    MotionBlur(length=9.5, angle=-70),
    Downsampling(2),
    Downsampling(3, sigma=0.1),
    Downsampling(4, boundary="replicate"),
    Downsampling(3, boundary="circular"),
    CompressedSensing(0.3),
    CompressedSensing(1.0, sigma=0.1),
]


RANDOM = [repr(corruption) for corruption in (BoxHole(3), RandomHoles(0.4), CompressedSensing(0.3))]


def named(corruption: AbstractCorruption) -> str:
    return repr(corruption)


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=named)
@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**32),
    batch=st.integers(1, 3),
    channels=st.sampled_from([1, 3]),
    height=st.integers(5, 13),
    width=st.integers(5, 13),
)
def test_dot_test(corruption, seed, batch, channels, height, width):
    random = generator(seed)
    shape = (batch, channels, height, width)
    x = torch.randn(shape, generator=random, dtype=torch.float64)
    linear = corruption.draw(batch, height, width, generator=random)
    image = linear.A(x)
    y = torch.randn(image.shape, generator=random, dtype=torch.float64)
    left, right = (image * y).sum(), (x * linear.A_adjoint(y)).sum()
    assert image.dtype == torch.float64 and linear.A_adjoint(y).shape == shape
    assert abs(left - right) <= 1e-12 * (image.norm() * y.norm() + 1)
    assert float(image.norm()) <= linear.norm_bound(x) * float(x.norm()) * (1 + 1e-12)
    assert linear.start(y).shape == shape and linear.start(y).dtype == torch.float64


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=named)
def test_the_gradient_of_the_map_is_its_adjoint(corruption):
    """What the solvers do with a map is differentiate through it."""
    x = torch.randn(2, 3, 11, 9, generator=generator(0), dtype=torch.float64, requires_grad=True)
    linear = corruption.draw(2, 11, 9, generator=generator(1))
    image = linear.A(x)
    y = torch.randn(image.shape, generator=generator(2), dtype=torch.float64)
    (gradient,) = torch.autograd.grad(image, x, y)
    torch.testing.assert_close(gradient, linear.A_adjoint(y))


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=named)
def test_the_start_of_a_clean_measurement_is_explained_by_it(corruption):
    """A smooth image: what was measured of it leads back to nearly the same measurement, and never to NaN."""
    rows, columns = torch.linspace(0, 1, 24)[:, None], torch.linspace(0, 1, 30)
    x = (0.3 + 0.2 * rows + 0.3 * rows * columns).expand(2, 3, -1, -1)
    linear = corruption.draw(2, 24, 30, generator=generator(1))
    y = linear.A(x)
    again = linear.A(linear.start(y))
    assert bool(torch.isfinite(linear.start(y)).all())
    if getattr(corruption, "boundary", "") == "circular":  # the border is a jump, which no start can keep
        again, y = again.mean((2, 3)), y.mean((2, 3))
    torch.testing.assert_close(again, y, atol=0.02, rtol=0.0)


LOCAL = [corruption for corruption in CORRUPTIONS if not isinstance(corruption, CompressedSensing)]


@pytest.mark.parametrize("corruption", LOCAL, ids=named)
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_a_window_measures_what_the_whole_does_there(corruption, data):
    """The measured values of a window are those of the whole, whatever stands outside the window."""
    height, width = 40, 37
    long, wide = data.draw(st.integers(28, height)), data.draw(st.integers(28, width))
    top, left = data.draw(st.integers(0, height - long)), data.draw(st.integers(0, width - wide))
    random = generator(data.draw(st.integers(0, 1000)))
    x = torch.randn(2, 3, height, width, generator=random, dtype=torch.float64)
    linear = corruption.draw(2, height, width, generator=random)
    y = linear.A(x)
    tile = linear.window(top, left, long, wide)
    part = linear.window_of(y, top, left, long, wide)
    inside = x[..., top : top + long, left : left + wide]
    torch.testing.assert_close(tile.A(inside), part, atol=1e-12, rtol=0.0)
    assert part.numel() > 0 and tile.sigma == linear.sigma
    assert tile.start(part).shape == inside.shape
    other = torch.randn(part.shape, generator=random, dtype=torch.float64)
    assert abs((tile.A(inside) * other).sum() - (inside * tile.A_adjoint(other)).sum()) < 1e-10
    again = tile.window(1, 2, long - 2, wide - 3).A(inside[..., 1 : long - 1, 2 : wide - 1])
    torch.testing.assert_close(again, tile.window_of(part, 1, 2, long - 2, wide - 3), atol=1e-12, rtol=0.0)


def test_the_whole_image_is_a_window_too():
    x = torch.randn(1, 1, 20, 21, generator=generator(0))
    for corruption in LOCAL:
        linear = corruption.draw(1, 20, 21, generator=generator(1))
        torch.testing.assert_close(linear.window(0, 0, 20, 21).A(x), linear.A(x))


def test_every_family_has_a_name():
    names = set(TABLE["corruption"])
    assert names >= {type(corruption).__name__ for corruption in CORRUPTIONS}
    assert names - {type(corruption).__name__ for corruption in CORRUPTIONS} == {"GivenMask", "GivenKernel"}


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=named)
def test_the_map_is_linear(corruption):
    x, other = torch.randn(2, 3, 1, 8, 8, generator=generator(0), dtype=torch.float64)
    linear = corruption.draw(3, 8, 8, generator=generator(1))
    torch.testing.assert_close(linear.A(2.0 * x - 3.0 * other), 2.0 * linear.A(x) - 3.0 * linear.A(other))


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=named)
def test_a_measurement_is_a_function_of_its_seed_and_leaves_the_image_alone(corruption):
    x = torch.rand(4, 1, 12, 12, generator=generator(0))
    before = x.clone()

    def measured(seed):
        return corruption.draw(4, 12, 12, generator=generator(seed, "map")).measure(x, generator(seed, "noise"))

    assert torch.equal(measured(5), measured(5))
    assert torch.equal(x, before)
    if getattr(corruption, "sigma", 0.0) > 0 or named(corruption) in RANDOM:
        assert not torch.equal(measured(5), measured(6))


def test_noise_has_the_level_that_was_asked_for():
    x = torch.full((8, 1, 50, 50), 0.5)
    noise = Denoise(0.3).measure(x, generator(1)) - x
    assert abs(float(noise.std()) - 0.3) < 0.006  # 20,000 numbers: three standard errors are 0.0045
    assert abs(float(noise.mean())) < 0.007


def test_noise_falls_on_kept_pixels_only():
    mask = random_mask(2, 10, 10, missing=0.5, generator=generator(0))
    y = Inpaint(mask, 0.2).measure(torch.rand(2, 3, 10, 10, generator=generator(1)), generator(2))
    assert bool((y[(mask == 0).expand_as(y)] == 0).all())
    assert float(y[(mask == 1).expand_as(y)].std()) > 0.2


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**32), height=st.integers(4, 12), width=st.integers(4, 12), side=st.integers(1, 4))
def test_a_box_is_one_square_inside_the_image(seed, height, width, side):
    mask = box_mask(3, height, width, side=side, generator=generator(seed))
    assert mask.shape == (3, 1, height, width)
    for one in mask[:, 0]:
        rows, columns = (one == 0).any(1).nonzero(), (one == 0).any(0).nonzero()
        assert int((one == 0).sum()) == side * side
        assert int(rows.max() - rows.min()) == int(columns.max() - columns.min()) == side - 1


def test_a_box_reaches_every_place():
    mask = box_mask(400, 4, 5, side=3, generator=generator(0))
    assert {(int(m.any(1).float().argmin()), int(m.any(0).float().argmin())) for m in mask[:, 0]} != set()
    corners = {tuple((m[0] == 0).nonzero()[0].tolist()) for m in mask}
    assert corners == {(row, column) for row in range(2) for column in range(3)}


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**32), missing=st.floats(0.0, 1.0))
def test_random_holes_are_exactly_as_many_as_asked_for(seed, missing):
    mask = random_mask(2, 7, 9, missing=missing, generator=generator(seed))
    assert set(mask.unique().tolist()) <= {0.0, 1.0}
    assert (mask == 0).flatten(1).sum(1).tolist() == [round(missing * 63)] * 2


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Denoise(-0.1),
        lambda: Denoise(float("nan")),
        lambda: GaussianNoise(float("inf")),
        lambda: BoxHole(0),
        lambda: RandomHoles(1.5),
        lambda: box_mask(1, 8, 8, side=9, generator=generator(0)),
        lambda: GaussianBlur(width=0.0),
        lambda: GaussianBlur(width=1e6),
        lambda: GaussianBlur(boundary="zero"),
        lambda: GaussianBlur(sigma=-1.0),
        lambda: MotionBlur(length=-3.0),
        lambda: MotionBlur(angle=float("inf")),
        lambda: Downsampling(1),
        lambda: Downsampling(9),
        lambda: Downsampling(2, sigma=-1.0),
        lambda: CompressedSensing(0.0),
        lambda: CompressedSensing(1.5),
        lambda: Inpaint(torch.full((1, 1, 4, 4), 0.5)),
        lambda: Inpaint(torch.ones(1, 1, 4, 4, dtype=torch.bool)),
        lambda: MotionBlur(boundary="valid", length=20).draw(1, 8, 8, generator=generator(0)),
    ],
)
def test_bad_values_are_refused(wrong):
    with pytest.raises(ArgumentError, match="expected"):
        wrong()


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=named)
def test_images_that_do_not_fit_are_refused(corruption):
    linear = corruption.draw(2, 12, 10, generator=generator(0))
    for wrong in (torch.zeros(2, 1, 12, 11), torch.zeros(12, 10), torch.zeros(2, 1, 12, 10, dtype=torch.long)):
        if not isinstance(linear, Denoise):
            with pytest.raises(ArgumentError, match="x: expected"):
                linear.A(wrong)
    assert linear.A(torch.zeros(2, 3, 12, 10)).shape[:2] == (2, 3)


@pytest.mark.parametrize("corruption", LOCAL, ids=named)
def test_windows_outside_the_image_are_refused(corruption):
    linear = corruption.draw(1, 24, 24, generator=generator(0))
    for wrong in ((-1, 0, 20, 20), (0, 0, 0, 20), (5, 0, 24, 24), (0, 5, 24, 24)):
        if not (isinstance(linear, Denoise) and min(wrong) >= 0 < wrong[2]):  # the identity has no size
            with pytest.raises(ArgumentError, match="expected"):
                linear.window(*wrong)


def test_windows_without_a_measured_value_and_maps_without_windows():
    blur = GaussianBlur(width=2.0).draw(1, 40, 40, generator=generator(0))
    with pytest.raises(ArgumentError, match="kernel of 17 taps fits, got one of 16 pixels"):
        blur.window(4, 4, 16, 30)
    whole = CompressedSensing(0.5).draw(1, 16, 16, generator=generator(0))
    with pytest.raises(ArgumentError, match="Compressed, in which every value depends on the whole image"):
        whole.window(0, 0, 8, 8)
    with pytest.raises(ArgumentError, match="acts locally"):
        whole.window_of(torch.zeros(1, 1, 128), 0, 0, 8, 8)


def test_holes_are_filled_from_around_and_known_pixels_kept():
    x = torch.linspace(0, 1, 40)[:, None].expand(2, 3, 40, 33) * 0.5 + 0.2
    mask = random_mask(2, 40, 33, missing=0.5, generator=generator(0))
    filled = Inpaint(mask).start(mask * x)
    kept = (mask == 1).expand_as(x)
    assert torch.equal(filled[kept], x[kept])
    assert float((filled - x).abs().max()) < 0.05
    torch.testing.assert_close(fill(torch.zeros(1, 1, 5, 7), torch.zeros(1, 1, 5, 7)), torch.full((1, 1, 5, 7), 0.5))
    assert torch.equal(Inpaint(mask).keep(mask * x, torch.zeros_like(x)), mask * x)
    assert torch.equal(Inpaint(mask, 0.1).keep(mask * x, torch.zeros_like(x)), torch.zeros_like(x))


def picture(path, pixels):
    from PIL import Image

    Image.fromarray((255 * pixels).round().to(torch.uint8).numpy()).save(path)
    return str(path)


def test_a_mask_from_a_picture(tmp_path):
    mask = random_mask(1, 9, 11, missing=0.4, generator=generator(0))
    path = picture(tmp_path / "mask.png", mask[0, 0])
    linear = GivenMask(path).draw(3, 9, 11, generator=generator(0))
    assert torch.equal(linear.mask, mask)
    assert linear.A(torch.ones(3, 3, 9, 11)).shape == (3, 3, 9, 11)
    with pytest.raises(InputError, match=r"as large as the image \(11 x 9\), got .*mask.png with 9 x 11"):
        GivenMask(path).draw(1, 11, 9, generator=generator(0))
    with pytest.raises(InputError, match="path: expected an image file"):
        GivenMask(str(tmp_path / "absent.png"))


def test_a_kernel_from_a_picture(tmp_path):
    values = torch.rand(5, 4, generator=generator(0))
    linear = GivenKernel(path=picture(tmp_path / "kernel.png", values)).draw(1, 16, 16, generator=generator(0))
    torch.testing.assert_close(linear.kernel, (values / values.sum()).double(), atol=5e-4, rtol=0.0)
    torch.testing.assert_close(linear.A(torch.ones(1, 1, 16, 16)), torch.ones(1, 1, 16, 16))
    with pytest.raises(ArgumentError, match="not all 0"):
        GivenKernel(path=picture(tmp_path / "black.png", torch.zeros(3, 3)))
    with pytest.raises(InputError, match="not an image"):
        GivenKernel(path=__file__)
