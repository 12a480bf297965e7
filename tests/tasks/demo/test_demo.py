"""What the demonstration shows: its counting by hand, its photograph small, and words that fit the figures."""

from __future__ import annotations

import dataclasses
import io

import pytest
import torch
from PIL import Image

from jiio.tasks.demo import attack, faces, words
from jiio.tasks.demo.attack import Attack, Attempt
from jiio.tasks.demo.photo import Photo, damage, known, photograph, still
from jiio.tasks.frame import checkpoint
from jiio.tasks.frame.choices import Choice


def way() -> Attempt:
    """Three pictures; broken: 0, 2, 1, 3 after 4, 6, 8 and 10 calls."""
    margins = [[-1.0, -1.0, -1.0], [1.0, 1.0, -1.0], [1.0, -1.0, -1.0], [1.0, 1.0, 1.0]]
    return Attempt([4, 6, 8, 10], [torch.zeros(3, 1, 2, 2)] * 4, [torch.tensor(row) for row in margins])


@pytest.mark.parametrize(("calls", "broken"), [(0, 0), (4, 0), (6, 2), (7, 2), (8, 1), (99, 3)])
def test_what_is_broken_for_so_many_calls(calls: int, broken: int) -> None:
    assert way().broken(calls) == broken
    assert (way().at(calls) is None) == (calls < 4)


@pytest.mark.parametrize(("count", "calls"), [(0, 4), (1, 6), (2, 10), (3, 10), (4, None)])
def test_what_is_paid_until_so_many_stay_broken(count: int, calls: int | None) -> None:
    assert way().first(count) == calls


def test_the_damage_is_a_linear_map_that_loses_pixels() -> None:
    mask = known(64)
    physics = damage(64)
    x, y = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64)
    assert torch.allclose(physics.A(x - 2 * y), physics.A(x) - 2 * physics.A(y), atol=1e-6)
    measured = physics.measure(x, torch.Generator().manual_seed(0))
    assert bool((measured * (1 - mask) == 0).all()) and 0.02 < float(1 - mask.mean()) < 0.2
    flat = torch.ones(1, 3, 64, 64)
    assert torch.allclose(physics.A(flat), mask.expand(1, 3, -1, -1), atol=1e-6)  # a blur keeps what is constant


def test_a_small_photograph_is_restored_and_every_step_is_shown() -> None:
    photo = Photo(0, torch.device("cpu"), size=48, steps=4)
    row = photo.row
    assert torch.equal(photo.clean, photograph(48)) and photo.restored.shape == photo.clean.shape
    assert float(row["restored, dB"]) > float(row["measured, dB"]) + 3
    assert len(photo.way) == 8  # two solves of four steps
    with Image.open(io.BytesIO(photo.moving())) as moving, Image.open(io.BytesIO(still(photo.restored))) as end:
        assert 5 <= moving.n_frames <= 10 and moving.size == end.size == (48, 48)  # type: ignore[attr-defined]

    text = words.PHOTO.format(**row)
    assert f"{row['restored, dB']:.1f} dB" in text and "{" not in text + words.FACES.format(how="by hand")


@pytest.mark.slow
def test_the_parts_of_the_page_compute_where_they_are_told(gpu: torch.device, monkeypatch) -> None:
    """`jiio demo --fast` in small: as a whole it is too long for a GPU that is pretended."""
    photo = Photo(0, gpu, size=32, steps=2)
    assert not photo.restored.is_cuda and photo.moving() and float(photo.row["restored, dB"]) > 20

    trained = checkpoint.load("restore-faces")
    assert isinstance(trained.config, faces.RestoreConfig)
    corruption = Choice("BoxHole", {"side": 8})
    task = faces.Restore(dataclasses.replace(trained.config, corruption=corruption, device="cuda"))
    model = task.model()
    trained.restore_model(model)
    monkeypatch.setattr(faces, "FACES", 2)
    example = faces.Example(task, model.to(gpu).eval().requires_grad_(False))
    assert example.restored.is_cuda and example.gif() and example.sheet()

    for name, value in {"STEPS": 3, "OUTER": 2, "RATES": (0.5,)}.items():
        monkeypatch.setattr(attack, name, value)
    monkeypatch.setattr(attack, "INNER", {attack.PGD: (1e-1, 4), attack.HASTY: (3e-1, 3)})
    both = Attack(gpu)
    assert both.images.is_cuda and len(both.rows()) == 3 and both.gif() and both.plot()
