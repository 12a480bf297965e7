"""What other packages' attacks cannot do is said before anything runs; what they can do, they do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import jiio
from jiio.attacks import PGD, AbstractAttack, AutoAttack, Square, ThreatModel, TorchAttack, evaluate


class Net(nn.Module):
    """For images of any size and so many channels."""

    def __init__(self, classes: int = 4, channels: int = 1) -> None:
        super().__init__()
        self.conv, self.linear, self.calls = nn.Conv2d(channels, 4, 3, padding=1), nn.Linear(4, classes), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return 20 * self.linear(self.conv(x).relu().mean((2, 3)))


def made(size: tuple[int, int], classes: int = 4, channels: int = 1) -> tuple[Net, Tensor, Tensor]:
    torch.manual_seed(0)
    net = Net(classes, channels)
    x = 0.25 + 0.5 * torch.rand(2, channels, *size)
    y = net(x).argmax(1)
    net.calls = 0
    return net, x, y


def needs(*packages: str) -> None:
    for package in packages:
        pytest.importorskip(package, reason="needs the extra: pip install jiio[attacks]")


FINE = [(5, 5), (6, 6), (8, 8), (9, 9), (16, 16), (20, 20), (28, 28), (32, 32)]
BROKEN = [(4, 4), (12, 12), (14, 14), (24, 24), (24, 32), (32, 24), (28, 64), (1, 30)]


@pytest.mark.parametrize("size", BROKEN, ids=str)
@pytest.mark.parametrize("attack", [TorchAttack("Square", {"n_queries": 4}), AutoAttack(queries=4)], ids=["T", "A"])
def test_sizes_that_their_squares_cannot_tile(attack: AbstractAttack, size: tuple[int, int]) -> None:
    """In a sentence, in L2, before the attacks that stand before it in a list have run."""
    needs("torchattacks", "pyautoattack")
    net, x, y = made(size)
    with pytest.raises(jiio.ArgumentError, match=rf"^x: expected images of a size .* got {size[0]} x {size[1]} pixels"):
        draws = torch.Generator().manual_seed(0)
        evaluate(net, [(x, y)], ThreatModel("l2", 0.5), [PGD(steps=1), attack], generator=draws)
    assert net.calls == 0
    assert bool((Square(queries=2)(net, x, y, ThreatModel("l2", 0.5)).distance <= 0.5 + 1e-5).all())


@pytest.mark.parametrize("size", FINE, ids=str)
def test_sizes_that_they_can(size: tuple[int, int]) -> None:
    needs("torchattacks")
    net, x, y = made(size)
    result = TorchAttack("Square", {"n_queries": 4}, seed=1)(net, x, y, ThreatModel("l2", 0.5))
    assert float(result.distance.max()) <= 0.5 + 1e-5 and net.calls > 2


REFUSED = {
    "one channel": (TorchAttack("TIFGSM"), {}, r"x: expected images of 3 channels"),
    "three classes": (TorchAttack("APGDT"), {"classes": 3}, r"model\(x\): expected scores of at least 4 classes"),
    "two classes": (TorchAttack("AutoAttack"), {"classes": 2}, r"model\(x\): expected scores of at least 4 classes"),
    "plus": (AutoAttack(version="plus"), {"classes": 3}, r"model\(x\): expected scores of at least 4 classes"),
    "rand": (AutoAttack(version="rand"), {"classes": 2}, r"model\(x\): expected scores of at least 3 classes"),
    "norm": (TorchAttack("PGDL2"), {}, r"threat.norm: expected 'l2' for PGDL2"),
    "options": (TorchAttack("PGD", {"nonsense": 3}), {}, r"TorchAttack.options: expected options of PGD"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_table_of_limits(name: str) -> None:
    needs("torchattacks", "pyautoattack")
    attack, options, sentence = REFUSED[name]
    net, x, y = made((8, 8), **options)
    with pytest.raises(jiio.ArgumentError, match="^" + sentence):
        attack(net, x, y, ThreatModel("linf", 0.1))
    assert net.calls <= 1  # at most to count the classes


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["APGD", "FAB", "Square", "PGD"])
def test_every_type_of_number(name: str, dtype: torch.dtype) -> None:
    needs("torchattacks")
    net, x, y = made((8, 8))
    quick = {"FAB": {"steps": 2}, "Square": {"n_queries": 4}}.get(name, {"steps": 2})
    result = TorchAttack(name, quick)(net.to(dtype), x.to(dtype), y, ThreatModel("linf", 0.1))
    assert result.x.dtype == dtype and net.calls > 3


def test_double_precision_by_default() -> None:
    """The tools compute in single precision; the model does as it was made."""
    needs("pyautoattack")
    net, x, y = made((8, 8))
    torch.set_default_dtype(torch.float64)
    try:
        result = AutoAttack(queries=4)(net.double(), x.double(), y, ThreatModel("linf", 0.1))
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert result.x.dtype == torch.float64
