"""What is trained: the object that a recipe is, and where it comes from."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from jiio.checks import fail

from .config import RunConfig
from .files import InputError
from .machine import check_device
from .precision import lowered, number_format
from .registry import look_up

if TYPE_CHECKING:
    from .checkpoint import Checkpoint

Figure = float | Callable[[], float]


class AbstractTask(ABC):
    """What is trained. What a room, a package or an import path offers is built as ``cls(config, data_root=...)``.

    The constructor reads the data and checks everything that can be checked, so that bad input ends before anything is
    written. A task keeps no state between steps: what a step draws at random is a function of (seed, step), by
    ``jiio.outputs.seeds.generator(config.seed, "what for", step)``. It moves its tensors to ``config.device``.

    ``Config`` is the class of its configuration, for tasks that are named by an import path; rooms name theirs beside
    the task.
    """

    Config: ClassVar[type[RunConfig]] = RunConfig
    PICTURES: ClassVar[tuple[str, ...]] = ()  # the names of its pictures, which a training then never writes over
    ANY_SIZE: ClassVar[bool] = False  # whether it trains on parts of pictures, and so has no test images of its own
    config: Any  # of the class Config

    def __init__(self, config: Any, *, data_root: Path | None = None) -> None:
        self.config = config

    @abstractmethod
    def model(self) -> nn.Module:
        """A freshly initialised model on the CPU; the global random state is seeded before the call."""

    @abstractmethod
    def loss(self, model: nn.Module, step: int) -> tuple[Tensor, Mapping[str, Figure]]:
        """The scalar loss of the model at training step ``step`` (0, 1, ...), and figures for the log.

        A figure that is a function is called at the end of the step, when the costs of the backward pass are known.
        """

    @abstractmethod
    def evaluate(self, model: nn.Module) -> list[dict[str, str | float]]:
        """The figures on the test images, as rows of one table; the model is in evaluation mode."""

    def validate(self, model: nn.Module) -> float:
        """How badly the model does on images that are kept from its training; called where ``validate_every`` says."""
        raise NotImplementedError

    def lowered(self, model: nn.Module) -> contextlib.AbstractContextManager[None]:
        """Within, the layers of the model compute in the configuration's precision."""
        return lowered(model, number_format(self.config.precision, check_device(self.config.device)))

    def pictures(self, model: nn.Module) -> dict[str, bytes]:
        """File name -> content of something to look at, made with the model and written at the end of a training; none
        by default.
        """
        return {}

    @classmethod
    def trained(cls, checkpoint: Checkpoint) -> nn.Module:
        """The trained network of a checkpoint, in evaluation mode and without the data."""
        came = f"{checkpoint.path}, of {cls.__name__}, which has no method `trained`"
        fail("CHECKPOINT", "a training whose network can be had without its data", came, error=InputError)

    def examples(self) -> Tensor:
        """The class (N,) of every training example, zeros where there are no classes; of a task whose training
        examples can be shared out, see :meth:`part`.
        """
        remedy = "Give it the methods `examples` and `part`."
        fail("task", "one whose training examples can be shared out", type(self).__name__, remedy, InputError)

    def part(self, chosen: Tensor, config: Any) -> AbstractTask:
        """The same task with these of its training examples alone, and all that it is tested on.

        chosen: their numbers (n,). config: this one's, but for the seed and for how it solves.
        """
        raise NotImplementedError

    def masked(self) -> tuple[Tensor, Tensor]:
        """Of a task whose network gives every pixel a class: its test images (N, C, H, W) in [0, 1], with masks
        (N, H, W) in which 255 means no class.
        """
        raise NotImplementedError

    @classmethod
    def restorer(cls, checkpoint: Checkpoint) -> Any:
        """The ``jiio.tasks.restore.base.AbstractRestorer`` of a checkpoint."""
        came = f"{checkpoint.path}, a training of the task {checkpoint.config.task!r}"
        fail("CHECKPOINT", "weights of a restorer", came, "Train one by `jiio train prior-grey`.", InputError)


def build_task(config: RunConfig, *, data_root: Path | None = None) -> AbstractTask:
    """The task that the configuration names."""
    return look_up("task", config.task, "task")(config, data_root=data_root)


def overrides(task: type[AbstractTask], method: str) -> bool:
    """Whether a class has a method of its own in place of the base's."""
    own, base = getattr(task, method), getattr(AbstractTask, method)
    return getattr(own, "__func__", own) is not getattr(base, "__func__", base)


def name_of(task: AbstractTask) -> str:
    """The import path of the class of a task object."""
    return f"{type(task).__module__}:{type(task).__qualname__}"


def task_of(checkpoint: Checkpoint) -> type[AbstractTask]:
    """The class of the task that a checkpoint describes.

    Errors: InputError where the training was handed a task object, which its configuration does not describe.
    """
    check_described(checkpoint, None)
    return look_up("task", checkpoint.config.task, "task")


def check_described(checkpoint: Checkpoint, task: AbstractTask | None) -> None:
    """The task object at hand is of the class that the training was handed; none where it was handed none.

    A training that was handed an object may have measured and corrupted in ways that no configuration says: to go on
    with what the configuration says would measure something else without a word.
    """
    handed = checkpoint.handed
    if handed is None or (task is not None and name_of(task) == handed):
        return
    came = "none" if task is None else name_of(task)
    remedy = "Pass it as task=..., or train by a configuration that names its import path."
    expected = f"the task object that {checkpoint.path} was trained with, a {handed}"
    fail("task", expected, came, remedy, InputError)
