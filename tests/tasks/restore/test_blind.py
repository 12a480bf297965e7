"""A blur that nobody knows: the joint problem of kernel and image, what is found and written, what is doubted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import jiio
from jiio.models.images.prior import ImagePrior, ImagePriorConfig
from jiio.outputs.seeds import generator
from jiio.tasks.cli import main
from jiio.tasks.images.pictures import Picture, read_picture
from jiio.tasks.maps.convolution import blur
from jiio.tasks.maps.kernels import gaussian_kernel, motion_kernel
from jiio.tasks.maps.spectrum import Scene
from jiio.tasks.restore import load as loading
from jiio.tasks.restore.blind.find import Blind, busiest, find_blur
from jiio.tasks.restore.blind.joint import JointBlur, tidy, widened
from jiio.tasks.restore.photos.damage import Blurred, Masked, Noise
from jiio.tasks.restore.photos.one import restore_photo
from jiio.tasks.restore.photos.rounded import Rounded
from jiio.tasks.restore.photos.several import Several, in_a_file, together
from jiio.tasks.restore.photos.unknown import Unknown
from restore_cases import grey, toy
from toy_restorer import SmoothRestorer

SCENE = Scene(torch.tensor([[-9.0, 2.5, 0.1, 0.0, 0.1, 0.0]], dtype=torch.float64))
BLURRED_SCENE = motion_kernel(9, 30)


def leaves(side: int = 120) -> np.ndarray:
    """Discs that lie on each other, as leaves on the ground: edges of every size and direction, (H, W)."""
    draw = np.random.default_rng(0)
    rows, columns = np.mgrid[:side, :side]
    found = np.full((side, side), 0.5)
    for radius in sorted(side / 3 * draw.random(160) ** 3 + 1.5, reverse=True):
        row, column = draw.uniform(0, side, 2)
        found[(rows - row) ** 2 + (columns - column) ** 2 < radius**2] = draw.uniform(0.1, 0.9)
    return found


def picture(kernel: torch.Tensor, noise: float = 0.01) -> np.ndarray:
    """(h, w) in [0, 1], rounded to 8 bits."""
    sharp = leaves()
    y = blur(kernel, sharp.shape, boundary="valid").A(torch.from_numpy(sharp)[None, None])[0, 0].numpy()
    y = y + noise * np.random.default_rng(1).standard_normal(y.shape)
    return (np.rint(255 * y.clip(0, 1)) / 255).astype(np.float32)


@pytest.fixture
def joint() -> JointBlur:
    """A tiny one, in double precision; weights as drawn."""
    torch.manual_seed(0)
    prior = ImagePrior(ImagePriorConfig(features=4, wide=4, depth=1)).double()
    y = 0.5 + 0.2 * torch.randn(1, 1, 12, 16, generator=generator(0), dtype=torch.float64)
    return JointBlur(prior, y, 5, 0.02, SCENE)


def test_the_joint_problem_has_the_gradient_of_finite_differences(joint):
    """In image and kernel at once, at a held state; and its first term by a second route, SciPy's convolution."""
    from scipy.signal import convolve2d

    draw = generator(1)
    image = torch.rand(1, 1, *joint.size, generator=draw, dtype=torch.float64)
    kernel = widened(gaussian_kernel(0.9), 5).reshape(1, -1)
    unit = joint.unit(image, kernel)
    problem, _ = joint.problem(0.1, joint.variance(kernel), unit)
    x = {"image": image, "kernel": kernel / unit}
    z = problem.cell.initial_state(x)
    way = {name: torch.randn(part.shape, generator=draw, dtype=torch.float64) for name, part in x.items()}

    def along(t: float | torch.Tensor) -> torch.Tensor:
        return problem.objective(z, {name: part + t * way[name] for name, part in x.items()})[0]

    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(along(t), t)
    assert float(slope) == pytest.approx(float((along(1e-4) - along(-1e-4)).detach()) / 2e-4, rel=1e-6)

    left = convolve2d(image[0, 0].numpy(), kernel.view(5, 5).numpy(), mode="valid") - joint.y[0, 0].numpy()
    height, width = joint.size
    square = np.abs(np.fft.fft2(left, (height, width))) ** 2
    rows, columns = np.meshgrid(np.fft.fftfreq(height), np.fft.fftfreq(width), indexing="ij")
    far = rows**2 + columns**2
    wanted = (square * (far + 1e-4) / (far + 0.1**2)).sum() / (height * width)
    assert float(joint.unexplained(image, kernel).square().sum()) == pytest.approx(wanted, rel=1e-8)


def test_the_room_left_to_the_image_is_that_of_the_whole_plane(joint):
    """sum_f V |K|^2 over half of the plane against all of it."""
    kernel = widened(motion_kernel(3, 20), 5).reshape(1, -1)
    half = float((joint.variance(kernel) * joint.transform(kernel)[0].abs().square()).sum())
    height, width = joint.size
    grid = torch.meshgrid(*(torch.fft.fftfreq(n, dtype=torch.float64) for n in (height, width)), indexing="ij")
    rows, columns = grid
    gain = torch.fft.fft2(kernel.view(5, 5), s=(height, width)).abs().square()
    power = SCENE.power(rows.flatten(), columns.flatten()).view(height, width)
    power[torch.hypot(rows, columns) < 0.025] = 1e-12
    far = rows**2 + columns**2
    whole = ((far + 1e-4) / (far + 0.1**2) * gain / (gain / joint.sigma**2 + 1 / power)).sum()
    assert half == pytest.approx(float(whole), rel=1e-6)


def test_the_solve_ends_on_the_simplex_and_lowers_what_it_minimises(joint):
    image = joint.y.new_full((1, 1, *joint.size), 0.5)
    kernel, done = joint.solve(image, widened(gaussian_kernel(1.0), 5))
    assert float(kernel.min()) >= 0 and float(kernel.sum()) == pytest.approx(1.0)
    assert float(jiio.Simplex(float(done.x["kernel"].sum())).excess(done.x["kernel"]).max()) < 1e-9
    assert float(done.residual.max()) < float("inf") and done.x["image"].shape[2:] == joint.size


def test_a_kernel_is_centred_cleaned_and_widened():
    kernel = torch.zeros(7, 7, dtype=torch.float64)
    kernel[0:3, 1] = 1.0
    kernel[6, 6] = 0.01
    clean = tidy(kernel)
    assert torch.equal(clean.nonzero(), torch.tensor([[2, 3], [3, 3], [4, 3]])) and float(clean.sum()) == 1.0
    assert widened(clean, 11).shape == (11, 11) and float(widened(clean, 3).sum()) == pytest.approx(1.0)
    busy = torch.zeros(1, 1, 64, 96)
    busy[..., 40:60, 50:80] = torch.rand(20, 30, generator=generator(0))
    assert float(busiest(busy, 32).sum()) > 0.4 * float(busy.sum()) and busiest(busy, 32).shape[2:] == (32, 32)


@pytest.mark.parametrize(
    ("kernel", "words"), [(motion_kernel(9, 30), "motion"), (gaussian_kernel(1.5), "gaussian")], ids=["motion", "gauss"]
)
def test_a_blur_is_found(kernel, words):
    y = torch.from_numpy(picture(kernel))[None, None]
    found = find_blur(y, 0.01, SmoothRestorer(1), Blind(15))
    assert words in found.words and not found.free and found.clear and found.doubts == ()
    side = max(len(kernel), len(found.kernel))
    one, other = widened(found.kernel, side), widened(kernel, side)
    assert float((one * other).sum() / (one.norm() * other.norm())) > 0.95


def test_a_picture_without_blur_says_so(monkeypatch):
    y = picture(torch.ones(1, 1, dtype=torch.float64))
    found = find_blur(torch.from_numpy(y)[None, None], 0.01, SmoothRestorer(1), Blind(15))
    assert found.none and "no blur was found" in found.doubts[0]
    assert isinstance(Unknown().known_by(found), Noise)


@pytest.fixture
def here(monkeypatch, tmp_path):
    monkeypatch.setattr(loading, "load_restorer", toy)
    monkeypatch.chdir(tmp_path)


def test_the_command_writes_the_kernel_that_blur_takes(here, capsys):
    grey("a.png", np.rint(255 * picture(BLURRED_SCENE)))
    words = ["restore", "a.png", "--blur", "blind", "--kernel-size", "15", "--max-steps", "9"]
    assert main(words) == 0
    assert "found" in capsys.readouterr().out
    kernel = read_picture("x", Path("a-restored-kernel.png"), min_side=1).pixels[0]
    assert kernel.max() == 1.0 and kernel.shape[0] == kernel.shape[1]
    assert main(words) == 2  # nothing is replaced
    Path("a-restored.png").unlink()
    assert main(words) == 2 and not Path("a-restored.png").exists()  # the kernel is there as well
    again = ["restore", "a.png", "--blur", "a-restored-kernel.png", "--overwrite", "--sigma", "2.5", "--max-steps", "9"]
    assert main(again) in (0, 3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--blur", "blind", "--kernel-size", "8"], "--kernel-size: expected an odd number"),
        (["--kernel-size", "9"], "--kernel-size: expected a blur that is to be found"),
        (["--blur", "gaussian:2", "--kernel-size", "9"], "got --blur gaussian:2"),
        (["--blur", "blind", "--missing", "0"], "Mend the holes first"),
        (["--blur", "blind", "--upscale", "2"], "at most one blur or reduction"),
        (["--blur", "blind"], "the blur of a.png cannot be found"),
    ],
)
def test_what_cannot_be_is_a_sentence(here, capsys, words, said):
    grey("a.png", np.arange(40 * 40).reshape(40, 40) % 251)
    assert main(["restore", "a.png", *words]) == 2
    assert said in capsys.readouterr().err and not Path("a-restored.png").exists()


def test_a_jpeg_file_is_taken_for_one_beside_a_blur():
    rounded, known = Rounded(), Blurred("blur", gaussian_kernel(1.0))
    assert in_a_file(Noise(), rounded) is rounded and in_a_file(known, None) is known
    assert isinstance(in_a_file(known, rounded), Several)
    assert in_a_file(Unknown(), rounded) == Unknown(then=rounded)
    holes = Masked(Path("m.png"), np.eye(4) > 0)
    assert in_a_file(holes, rounded) is holes
    assert together({"--blur": Unknown(), "--jpeg": rounded}) == Unknown(then=rounded)


@pytest.mark.parametrize(("guess", "doubtful"), [(BLURRED_SCENE, False), (gaussian_kernel(3.0), True)])
def test_a_wrong_blur_is_doubted_beside_scratches(guess, doubtful):
    """By the spectrum of what is known; the residual alone says nothing beside holes."""
    y = picture(BLURRED_SCENE)
    keep = np.ones(y.shape, bool)
    keep[40:42], keep[:, 70] = False, False
    damage = Several(Blurred("blur", guess), Masked(Path("m.png"), keep))
    done = restore_photo(Picture(Path("a.png"), (y * keep)[None]), SmoothRestorer(1), damage=damage, max_steps=9)
    assert any("does not explain the picture" in words for words in done.doubts) == doubtful
