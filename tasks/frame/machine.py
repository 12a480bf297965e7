"""What this machine offers a run: threads, versions, devices."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from jiio.checks import ArgumentError, check_choice

from .post import Post

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda", "mps")


@contextlib.contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """Run the block with ``count`` threads; None leaves torch's choice.

    Small networks are faster on one: a thread that waits for its partner on a busy machine costs more than it brings
    (measured on two busy cores: the live demo took 542 seconds with two threads, about a minute with one).
    """
    import torch

    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def package_version(name: str) -> str:
    """The version of an installed package."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def versions() -> dict[str, Any]:
    """What a checkpoint remembers of the machine that wrote it; the numbers of threads and of
    processes change how sums are ordered."""
    import torch

    return {
        "jiio": package_version("jiio"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "ranks": processes(),
    }


def processes() -> int:
    """How many processes of one run compute together."""
    import torch.distributed as dist

    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def named_device(name: str) -> str:
    """The name of a device, of which ``auto`` is none."""
    import torch

    return name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def check_device(name: str) -> torch.device:
    """A device that this machine has and that a solve can run on; ``auto`` is its GPU where it has one, else the CPU.
    Of several processes that a launcher has started each has the GPU of its number as ``cuda``.

    Apple's MPS has no float64, in which a solve keeps its small linear systems and judges its gradients: refused in a
    sentence, and never chosen by ``auto``.
    """
    import torch

    check_choice("device", name.partition(":")[0], DEVICES)
    name = named_device(name)
    if name == "cuda" and (post := Post.of()).count > 1:
        name = f"cuda:{post.local}"
    if name.partition(":")[0] == "mps":
        came = "'mps', which has no float64, the numbers of a solve's small linear systems"
        raise ArgumentError(f"device: expected a device that a solve can run on, got {came}. Say cuda or cpu.")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
        return device
    except (RuntimeError, AssertionError) as error:  # torch asserts where it was built without the device
        remedy = "`jiio doctor` lists the devices of this machine."
        raise ArgumentError(f"device: expected a device of this machine, got {name!r}. {remedy}") from error
