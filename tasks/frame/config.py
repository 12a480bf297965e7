"""What every training has: frozen dataclasses that check themselves."""

from __future__ import annotations

from dataclasses import dataclass, field

from jiio.checks import check_choice, check_integer, check_number, describe, fail

from .choices import Choice
from .load import ConfigError
from .machine import DEVICES
from .paths import check_allowed, is_path
from .precision import PRECISIONS
from .registry import TABLE, look_up


def whole(argument: str, value: int, low: int, high: int) -> None:
    """A whole number between two bounds; the upper one keeps a slip of the hand from filling the memory."""
    if check_integer(argument, value, low) > high:
        fail(argument, f"a whole number of at most {high:,}", f"{value:,}", error=ConfigError)


METHODS, SCHEDULES = ("adam", "sgd"), ("cosine", "poly")
LARGEST = 1e18  # a number whose square single precision cannot hold is a slip of the hand


@dataclass(frozen=True)
class OptimiserConfig:
    """Adam, or gradient descent with momentum, and a schedule of the rate.

    Args:
        method: adam, or sgd (gradient descent with Nesterov's momentum)
        momentum: of sgd
        schedule: how the rate falls after the warm-up, cosine, or poly (the power 0.9 of what is left)
        rate: learning rate at the top
        final_rate: learning rate that the schedule falls to
        warmup: steps over which the rate rises from zero
        clip: largest norm of the whole gradient
        weight_decay: decoupled weight decay
    """

    rate: float = 1e-3
    final_rate: float = 0.0
    warmup: int = 0
    clip: float = 1.0
    weight_decay: float = 0.0
    method: str = "adam"
    momentum: float = 0.9
    schedule: str = "cosine"

    def __post_init__(self) -> None:
        check_choice("optimiser.method", self.method, METHODS)
        check_choice("optimiser.schedule", self.schedule, SCHEDULES)
        if self.method == "adam" and self.momentum != 0.9:
            fail("optimiser.method", "sgd, beside a momentum", self.method, error=ConfigError)
        if check_number("optimiser.momentum", self.momentum, 0.0, 1.0, open_low=True) == 1.0:
            fail("optimiser.momentum", "a number above 0 and below 1", self.momentum)
        check_number("optimiser.rate", self.rate, 0.0, LARGEST, open_low=True)
        check_number("optimiser.final_rate", self.final_rate, 0.0, self.rate)
        check_integer("optimiser.warmup", self.warmup, 0)
        check_number("optimiser.clip", self.clip, 0.0, LARGEST, open_low=True)
        check_number("optimiser.weight_decay", self.weight_decay, 0.0, LARGEST)


@dataclass(frozen=True)
class WarmConfig:
    """The beginning of a training of an equilibrium, with a few layers of the same weights instead: cheaper, and learnt
    sooner (Bai, Kolter and Koltun 2019, Bai, Koltun and Kolter 2020).

    Args:
        steps: how many training steps
        layers: how many layers
    """

    steps: int = 0
    layers: int = 3

    def __post_init__(self) -> None:
        whole("warm.steps", self.steps, 0, 10**9)
        whole("warm.layers", self.layers, 1, 1000)


ARGS = "    Args:\n"


@dataclass(frozen=True)
class RunConfig:
    """What every training has, whatever it trains.

    Args:
        task: what is trained, one of jiio's tasks or an import path package.module:Name of one's own
        output: folder of the checkpoints and the log
        seed: of everything random
        steps: number of training steps
        accumulate: parts of a batch that are computed one after the other, for batches larger than the memory
        device: cpu, cuda, cuda:0, auto (a GPU where there is one)
        threads: CPU threads (default: torch's choice); small networks are fastest on one
        checkpoint_every: steps between two checkpoints
        keep: number of checkpoints kept
        loggers: where the figures go besides the log file
        start: weights to begin with, a checkpoint, the folder of a training or shipped ones (default: random weights)
        precision: of the layers, float32, bfloat16, or auto, which is bfloat16 where the device is quick in it
        average: decay of a moving average of the weights (0.999), which is what is validated and used; 0 for none
        validate_every: steps between two looks at images kept from the training, of which the best weights are kept;
            0 for none
        optimiser: how the weights move
    """

    task: str = ""
    output: str = "runs/first"
    seed: int = 0
    steps: int = 1000
    accumulate: int = 1
    device: str = "cpu"
    threads: int | None = None
    checkpoint_every: int = 100
    keep: int = 2
    loggers: tuple[Choice, ...] = ()
    start: str | None = None
    precision: str = "float32"
    average: float = 0.0
    validate_every: int = 0
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)

    def __init_subclass__(cls) -> None:
        """The command line takes the help of a key from the docstring of the class that it builds: what every training
        has is described once, above, and laid before what a class has of its own.
        """
        shared = (RunConfig.__doc__ or "").partition(ARGS)[2].rstrip() + "\n"
        head, mark, own = (cls.__doc__ or "").partition(ARGS)
        cls.__doc__ = head + mark + shared + own if mark else cls.__doc__

    def __post_init__(self) -> None:
        if is_path(self.task):
            check_allowed(self.task, "task")
        elif self.task not in TABLE["task"]:
            look_up("task", self.task, "task")
        if not self.output or "\0" in self.output:
            fail("output", "the name of a folder", describe(self.output))
        check_integer("seed", self.seed, 0)
        whole("steps", self.steps, 1, 10**9)
        whole("accumulate", self.accumulate, 1, 65_536)
        if self.threads is not None:
            whole("threads", self.threads, 1, 1024)
        check_integer("checkpoint_every", self.checkpoint_every, 1)
        check_integer("keep", self.keep, 1)
        check_choice("precision", self.precision, PRECISIONS)
        if check_number("average", self.average, 0.0, 1.0) == 1.0:
            fail("average", "a number of at least 0 and below 1", self.average)
        check_integer("validate_every", self.validate_every, 0)
        if self.optimiser.warmup >= self.steps:
            fail("optimiser.warmup", f"fewer than steps = {self.steps}", self.optimiser.warmup)
        check_choice("device", self.device.partition(":")[0], DEVICES)
        for i, logger in enumerate(self.loggers):
            if is_path(logger.name) or logger.name not in TABLE["logger"]:
                look_up("logger", logger.name, f"loggers[{i}].name")


# What may differ between a checkpoint and the run that continues it: nothing that the weights depend on.
FREE_ON_RESUME = ("output", "checkpoint_every", "keep", "loggers")
