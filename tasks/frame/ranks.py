"""The processes of one run, and what they tell each other.

``torchrun``, and whatever else sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT, starts the same command
once for each rank. Rank 0 leads: it alone looks at folders and writes into them.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from jiio.checks import ArgumentError, JiioError, fail

from .guards import reason
from .machine import named_device
from .post import ALONE, Post, check_address

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.distributed import Store  # pyright: ignore[reportPrivateImportUsage]

T = TypeVar("T")
ASKED = 143  # what a shell says of a program that SIGTERM ended; for ranks that were not asked themselves
PATIENCE = timedelta(minutes=10)  # in a training, where all ranks have the same to do
LONG = timedelta(days=2)  # where one may have much more to do than another


class RankError(JiioError, RuntimeError):
    """Another process of this run has ended, or cannot be reached."""


@dataclass(frozen=True)
class Ranks:
    """The processes of a run, from the point of view of one; alone, there is nobody to ask and nothing to wait for."""

    post: Post = Post()

    @property
    def index(self) -> int:
        return self.post.index

    @property
    def count(self) -> int:
        return self.post.count

    @property
    def leads(self) -> bool:
        return self.post.leads

    def sum(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all ranks, the same bits on each; with ``value`` as it was.

        Errors: RankError.
        """
        if self.count == 1:
            return value
        import torch.distributed as dist

        with self.talking():
            found = value.clone()
            dist.all_reduce(found)
            return found

    def told(self, value: T) -> T:
        """What rank 0 has here, on every rank. Errors: RankError."""
        if self.count == 1:
            return value
        import torch.distributed as dist

        with self.talking():
            held = [value]
            dist.broadcast_object_list(held, src=0, device=_cpu())
            return held[0]

    def gathered(self, value: T) -> list[T]:
        """What every rank has here, in their order, on each of them. Errors: RankError."""
        if self.count == 1:
            return [value]
        import torch.distributed as dist

        with self.talking():
            found: list[Any] = [None] * self.count
            dist.all_gather_object(found, value)
            return found

    def agreed(self, code: int | None) -> int | None:
        """The exit code that any rank has been asked to end with, None where none was. Errors: RankError."""
        if self.count == 1:
            return code
        import torch

        asked = self.sum(torch.tensor(code or 0))
        return code or (ASKED if int(asked) else None)

    def first(self, act: Callable[[], T]) -> T:
        """What ``act`` returns on rank 0, which alone calls it, on every rank.

        Errors: those of ``act`` on rank 0, and RankError on the others then.
        """
        if self.count == 1:
            return act()
        if not self.leads:
            done, value = self.told((False, None))
            if not done:
                raise RankError(f"rank {self.index}: rank 0 could not begin; its message says why.")
            return value  # type: ignore[return-value]

        try:
            value = act()
        except BaseException:
            with contextlib.suppress(RankError):
                self.told((False, None))
            raise
        self.told((True, value))
        return value

    @contextlib.contextmanager
    def talking(self) -> Iterator[None]:
        """What goes wrong between processes becomes a sentence."""
        try:
            yield
        except RuntimeError as error:  # what torch.distributed raises is of this kind
            # Without the file of the library in front, and without its advice behind.
            told = re.sub(r"\[\S+:\d+\] ", "", reason(error)).partition(". ")[0]
            raise RankError(
                f"rank {self.index} of {self.count}: another process of this run has ended, or cannot be reached "
                f"({told}). What is saved stands; start all of them again to go on."
            ) from error


def _cpu() -> torch.device:
    import torch

    return torch.device("cpu")


@contextlib.contextmanager
def joined(device: str, patience: timedelta = PATIENCE) -> Iterator[Ranks]:
    """The ranks of this run, joined for as long as the context lasts; a group that is there already is made use of.

    device: what the run was told to compute on; with ``cuda`` every rank takes the GPU of its number. patience: how
    long a rank waits for one that lives and says nothing; one that has ended is noticed at once.

    Errors: ArgumentError, RankError.
    """
    post = Post.of()
    if post.count == 1:
        yield Ranks()
        return

    import torch.distributed as dist

    if not dist.is_available():
        fail("WORLD_SIZE", "1 with a torch that was built without torch.distributed", f"{post.count}", ALONE)
    # A rank's GPU is its `cuda` before anything is put there.
    device = named_device(device)
    choose_device(device, post)
    ranks = Ranks(post)
    if dist.is_initialized():
        yield ranks
        return
    check_address()
    with ranks.talking():
        kinds = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
        who: dict[str, Any] = {"rank": post.index, "world_size": post.count, "timeout": patience}
        dist.init_process_group(kinds, store=meeting_place(**who), **who)
    try:
        yield ranks
    finally:
        dist.destroy_process_group()


def meeting_place(rank: int, world_size: int, timeout: timedelta) -> Store:
    """Where the processes find one another. A launcher that begins again keeps its store: the addresses of those who
    have died are still in it, so every attempt has names of its own.
    """
    from torch.distributed import PrefixStore  # pyright: ignore[reportPrivateImportUsage]
    from torch.distributed.rendezvous import rendezvous

    store, _, _ = next(rendezvous("env://", rank, world_size, timeout=timeout))
    return PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def choose_device(device: str, post: Post) -> None:
    """Make the GPU of a rank's number its ``cuda``.

    Errors: ArgumentError where it has none, or where all were told to use the same.
    """
    kind, _, number = device.partition(":")
    if kind == "cpu":
        return
    if kind != "cuda" or number:
        remedy = "Say cuda, and each rank takes the GPU of its number."
        raise ArgumentError(f"device: expected cpu or cuda with {post.count} processes, got {device!r}. {remedy}")

    import torch

    # Two ranks on one GPU would not be refused before they first talk to each other.
    there = torch.cuda.device_count()
    if post.local >= there:
        remedy = f"Start by torchrun --nproc-per-node {there}." if there else "Use --device cpu."
        fail("LOCAL_RANK", f"fewer ranks than the {there} GPUs of this machine", f"{post.local}", remedy)
    torch.cuda.set_device(post.local)
