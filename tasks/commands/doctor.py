"""``jiio doctor``: what is installed, what this machine has, and whether its arithmetic can be trusted.

Each finding is a :class:`VitalSign`; the command fails where one of them is not well.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jsonargparse import ArgumentParser
from torch import Tensor

import jiio
from jiio.tasks.frame.machine import check_device, package_version
from jiio.tasks.frame.options import chosen, declare

EXTRAS = {
    "vision": ("torchvision",),
    "attacks": ("torchattacks", "pyautoattack"),
    "autoattack": ("pyautoattack",),
    "log": ("tensorboard",),
    "heif": ("pillow_heif",),
    "deepinv": ("deepinv",),
    "hub": ("huggingface_hub",),
    "federated": ("flwr",),
}
PACKAGES = ("jiio", "torch", "numpy", "scikit-image", "safetensors", "pillow", "jsonargparse")
LIMIT = 1e-6  # relative error of a gradient in float64


@dataclass(frozen=True)
class VitalSign:
    """One line of the report."""

    topic: str
    words: str
    well: bool = True


def examine(device: torch.device) -> Iterator[VitalSign]:
    """Every finding, in the order in which it is read. device: whose gradients are checked."""
    yield VitalSign("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for name in PACKAGES:
        yield VitalSign("package", f"{name} {package_version(name)}")
    yield VitalSign("cpu", f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads")
    yield from devices()
    for extra, modules in EXTRAS.items():
        yield VitalSign("extra", f"{extra}: {extra_state(modules)}")
    yield compare("implicit gradient", equilibrium_loss, device)
    yield compare("exact joint gradient", joint_loss, device)
    yield batched_lu()


def devices() -> Iterator[VitalSign]:
    """The accelerators that torch sees."""
    for i in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(i)
        yield VitalSign("device", f"cuda:{i} {about.name}, {about.total_memory / 2**30:.0f} GiB")
    if torch.backends.mps.is_available():
        yield VitalSign("device", "mps")
    if torch.cuda.device_count() == 0 and not torch.backends.mps.is_available():
        yield VitalSign("device", "cpu only")


def extra_state(modules: tuple[str, ...]) -> str:
    """Whether the modules of an extra import."""
    missing = []
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            missing.append(f"{module} does not import ({error})" if importlib.util.find_spec(module) else module)
    return f"not installed ({', '.join(missing)})" if missing else "imports"


def _weights(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """A contraction W (6, 6), an input map U (6, 3) and a target (2, 6), in float64; the same on every device."""
    random = torch.Generator().manual_seed(7)
    w, u, y = (torch.randn(shape, generator=random, dtype=torch.float64) for shape in ((6, 6), (6, 3), (2, 6)))
    w = 0.6 * w / torch.linalg.matrix_norm(w, 2)
    return w.to(device), u.to(device), y.to(device)


def equilibrium_loss(w: Tensor) -> Tensor:
    """A loss of the fixed point of tanh(W z + U x)."""
    _, u, y = _weights(w.device)
    cell = lambda z, x: torch.tanh(z @ w.T + x @ u.T)  # noqa: E731
    tight = jiio.Tolerance(atol=1e-13, rtol=0.0)
    adjoint = jiio.Implicit(tolerance=jiio.Tolerance(atol=1e-12, rtol=0.0))
    solution = jiio.equilibrium(
        cell, 0.3 * y[:, :3], torch.zeros_like(y), adjoint=adjoint, tolerance=tight, max_steps=200, on_failure="ignore"
    )
    return (solution.z - y).square().sum()


def joint_loss(w: Tensor) -> Tensor:
    """An outer loss, other than the inner objective, of the input that fits z* to a target best."""
    _, u, y = _weights(w.device)
    cell = lambda z, x: torch.tanh(z @ w.T + x @ u.T)  # noqa: E731
    problem = jiio.Problem(cell, lambda z, x: (z - 0.5 * y).square().sum(1) + 0.1 * x.square().sum(1))
    solution = jiio.solve(
        problem,
        torch.zeros_like(y[:, :3]),
        torch.zeros_like(y),
        adjoint=jiio.KKT(rtol=1e-12, max_steps=1000),
        tolerance=jiio.Tolerance(atol=1e-13, rtol=0.0),
        max_steps=600,
        on_failure="ignore",
    )
    return (solution.z - y.flip(0)).square().sum()


def compare(topic: str, loss: Callable[[Tensor], Tensor], device: torch.device, step: float = 1e-4) -> VitalSign:
    """The gradient of ``loss`` along one direction of W against central differences."""
    w = _weights(device)[0]
    random = torch.Generator().manual_seed(8)
    direction = torch.randn(w.shape, generator=random, dtype=w.dtype).to(w)
    leaf = w.clone().requires_grad_()
    try:
        (gradient,) = torch.autograd.grad(loss(leaf), leaf)
        with torch.no_grad():
            measured = float(loss(w + step * direction) - loss(w - step * direction)) / (2 * step)
    except RuntimeError as error:
        return VitalSign(topic, f"raised {' '.join(str(error).split())}", False)
    told = float((gradient * direction).sum())
    error = abs(told - measured) / max(abs(measured), 1e-12)
    words = f"{told:.8f}, finite differences {measured:.8f}, relative error {error:.1e}, on {device}"
    return VitalSign(topic, words, error <= LIMIT)


def batched_lu() -> VitalSign:
    """Batched LU on the CPU goes wrong from size 150 up under several threads (pytorch issue 142815).

    The engine stays below 128; this checks that small systems are right on this machine.
    """
    random = torch.Generator().manual_seed(9)
    worst = 0.0
    for n in (2, 12, 41, 128):
        a = torch.randn(16, n, n, generator=random, dtype=torch.float64) + n * torch.eye(n, dtype=torch.float64)
        b = torch.randn(16, n, 1, generator=random, dtype=torch.float64)
        try:
            x = torch.linalg.solve(a, b)
        except RuntimeError as error:
            return VitalSign("batched LU", f"raised at size {n}: {' '.join(str(error).split())}", False)
        worst = max(worst, float((a @ x - b).abs().max()))
    return VitalSign("batched LU", f"largest residual {worst:.1e} up to size 128", worst < 1e-9)


def main(device: torch.device) -> int:
    """Print the report; 0 where all is well, 1 otherwise."""
    sick = 0
    for reading in examine(device):
        sick += not reading.well
        print(f"{'ok  ' if reading.well else 'FAIL'}  {reading.topic:<22}{reading.words}", flush=True)
    print("All is well." if not sick else f"{sick} finding(s) not well.")
    return 1 if sick else 0


@dataclass(frozen=True)
class DoctorOptions:
    """What is looked at.

    Args:
        device: whose gradients are checked: cpu, cuda, cuda:0, auto (a GPU where there is one)
    """

    device: str = "auto"


def declare_doctor(parser: ArgumentParser, argv: Sequence[str]) -> None:
    """The options."""
    declare(parser, DoctorOptions)


def run_doctor(values: dict[str, Any], argv: Sequence[str]) -> int:
    """Examine this machine."""
    return main(check_device(chosen(DoctorOptions, values).device))
