"""What records a step: the interface, and what is said where a step cannot be recorded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NoReturn

from torch import Tensor

from ..checks import JiioError, fail

Step = Callable[[Sequence[Tensor], Sequence[Tensor]], Sequence[Tensor]]


class UnrecordableError(JiioError, RuntimeError):
    """A step that cannot be recorded; where recording was nobody's express wish it is computed eagerly instead."""


def refuse(came: str, cause: BaseException | None = None) -> NoReturn:
    """Raise UnrecordableError, with what stands in the way."""
    remedy = "It is computed eagerly instead; with recorded_steps('never') nobody tries."
    try:
        fail("step", "one whose operations depend on shapes alone", came, remedy, UnrecordableError)
    except UnrecordableError as error:
        raise error from cause


class AbstractReplay(ABC):
    """A recorded step. state: the tensors that it moves on, in place. constants: what it reads and never writes.

    Both are tensors of its own, at fixed addresses: who wants to begin copies into them.
    """

    state: list[Tensor]
    constants: list[Tensor]

    def begin(self) -> None:  # noqa: B027 (nothing to do is an answer)
        """After the constants have changed: whatever depends on them alone is computed here, once."""

    @abstractmethod
    def __call__(self) -> None:
        """One step."""


class AbstractRecorder(ABC):
    """Turns a step into something that runs without Python deciding anything."""

    @abstractmethod
    def record(self, step: Step, state: Sequence[Tensor], constants: Sequence[Tensor]) -> AbstractReplay:
        """A replay of ``step(state, constants) -> the next state``, tensors of the shapes of ``state``.

        The tensors given are examples, which stay as they are; the replay has its own. ``step`` may write to those of
        the state that it is handed. Raises UnrecordableError where it looks at numbers.
        """


def separate(found: Sequence[Tensor], buffers: Sequence[Tensor]) -> list[Tensor]:
    """Values to be written to ``buffers``, with a copy of those that lie in the memory of another one."""
    places = {buffer.untyped_storage().data_ptr() for buffer in buffers if buffer.numel()}

    def lies_apart(new: Tensor, own: Tensor) -> bool:
        return new is own or new.untyped_storage().data_ptr() not in places

    return [new if lies_apart(new, own) else new.clone() for new, own in zip(found, buffers, strict=True)]
