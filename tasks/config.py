"""What a training is made of: frozen dataclasses that check themselves, and the one table from names to classes.

Strings stand in YAML files and on the command line only. A name is looked up in :data:`TABLE` and becomes an object
before anything runs; an unknown name, option or key is an error that names the nearest valid one.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jiio.checks import JiioError, check_choice, check_integer, check_number, describe, fail
from jiio.models import ModelConfig
from tasks.load import ConfigError, nearest
from tasks.seeds import generator

FAMILIES = ("faces", "celeba", "mnist", "cifar10", "patches")

# kind -> name -> "module:attribute". The only place where a name becomes a class.
TABLE: dict[str, dict[str, str]] = {
    "task": {
        "restore": "tasks.restore:Restore",
        "prior": "tasks.prior:Prior",
        "direct": "tasks.prior:Direct",
        "classify": "tasks.classify:Classify",
        "meta": "tasks.meta:Meta",
        "generate": "tasks.generate:Generate",
        "language": "tasks.language:Language",
        "segment": "tasks.segment:Segment",
    },
    "solver": {name: f"jiio:{name}" for name in ("Picard", "Anderson", "Broyden")},
    "rule": {
        name: f"jiio:{name}" for name in ("GradientStep", "MomentumStep", "NormalizedStep", "SignStep", "AdamStep")
    },
    "adjoint": {name: f"jiio:{name}" for name in ("Envelope", "KKT", "Implicit", "Phantom", "Unrolled", "Detached")},
    "depth": {name: f"tasks.depths:{name}" for name in ("Equilibrium", "WeightTied", "Explicit")},
    "adversary": {
        name: f"tasks.embedding_adversary:{name}" for name in ("JointAdversary", "PGDAdversary", "Unperturbed")
    },
    "cell": {name: f"jiio.models:{name}Config" for name in ("Dense", "Monotone", "Conv", "Multiscale")},
    "network": {
        **{name: f"jiio.models:{name}Config" for name in ("Dense", "Monotone", "Conv", "Multiscale")},
        "Reference": "tasks.networks:ReferenceConfig",
    },
    "defence": {
        **{
            name: f"tasks.defences:{name}"
            for name in ("Clean", "PGDTraining", "JointTraining", "TRADES", "JacobianPenalty")
        },
        **{name: f"tasks.stability:{name}" for name in ("Lyapunov", "LyapunovFeature", "RegulatedDynamics")},
    },
    "corruption": {
        name: f"tasks.corruption:{name}"
        for name in (
            *("GaussianNoise", "BoxHole", "RandomHoles", "GivenMask", "GaussianBlur", "MotionBlur", "GivenKernel"),
            *("Downsampling", "CompressedSensing"),
        )
    },
    "adaptation": {name: f"tasks.adaptation:{name}" for name in ("Joint", "Nested", "FirstOrder")},
    "inference": {name: f"tasks.inference:{name}" for name in ("Joint", "Nested", "Variational")},
    "logger": {"Tensorboard": "tasks.logs:TensorboardLogger"},
}


def whole(argument: str, value: int, low: int, high: int) -> None:
    """A whole number between two bounds; the upper one keeps a slip of the hand from filling the memory."""
    if check_integer(argument, value, low) > high:
        fail(argument, f"a whole number of at most {high:,}", f"{value:,}", error=ConfigError)


def plain(value: Any) -> bool:
    """Whether YAML and JSON can say it."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and plain(v) for key, v in value.items())
    if isinstance(value, (list, tuple)):
        return all(plain(v) for v in value)
    return value is None or isinstance(value, (bool, int, float, str))


def look_up(kind: str, name: str, where: str) -> Any:
    """The class that ``name`` stands for in the table."""
    if name not in TABLE[kind]:
        raise ConfigError(f"{where}: no {kind} is called {name!r}. {nearest(name, TABLE[kind])}")
    module, attribute = TABLE[kind][name].split(":")
    return getattr(importlib.import_module(module), attribute)


@dataclass(frozen=True)
class Choice:
    """One of the classes in the table.

    Args:
        name: of the class
        options: the keyword arguments of its constructor
    """

    name: str = ""  # the empty name is in no table: a default that is always refused
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, value in self.options.items():
            if not plain(value):  # a checkpoint could not give it back
                remedy = "Objects have no place in a configuration."
                fail(f"options.{key}", "numbers, words, lists and mappings", describe(value), remedy, ConfigError)

    def make(self, kind: str, where: str) -> Any:
        """The object. ``where`` is the key of this choice, for messages."""
        cls = look_up(kind, self.name, f"{where}.name")
        valid = inspect.signature(cls).parameters
        for key in self.options:
            if key not in valid:
                raise ConfigError(f"{where}.options.{key}: {self.name} has no such option. {nearest(key, valid)}")
        # YAML and JSON have lists where Python's frozen classes want tuples.
        options = {key: tuple(v) if isinstance(v, list) else v for key, v in self.options.items()}
        try:
            return cls(**options)
        except JiioError as error:
            raise ConfigError(f"{where}.options, {error}") from error
        except TypeError as error:  # a required option is missing; the classes check the values themselves
            raise ConfigError(f"{where}.options: {self.name} cannot be built, {error}.") from error


@dataclass(frozen=True)
class DataConfig:
    """Images.

    Args:
        family: faces, celeba, mnist, cifar10, patches (of photographs, offline), or folder:PATH
        size: height and width in pixels after resizing
        channels: 1 (grey) or 3 (colour)
        batch_size: images per training step
        mirror: mirror training images at random
        shift: shift training images by up to so many pixels
        test_share: of a folder, the share of the images (the last ones) that is kept for testing
        train_limit: use only the first so many training images
        test_limit: use only the first so many test images
    """

    family: str = "faces"
    size: int = 24
    channels: int = 1
    batch_size: int = 16
    mirror: bool = True
    shift: int = 1
    test_share: float = 0.2
    train_limit: int | None = None
    test_limit: int | None = None

    def __post_init__(self) -> None:
        if not self.family.startswith("folder:") and self.family not in FAMILIES:
            remedy = nearest(self.family, (*FAMILIES, "folder:PATH"))
            fail("data.family", "a family of images", describe(self.family), remedy, ConfigError)
        whole("data.size", self.size, 8, 512)
        check_number("data.test_share", self.test_share, 0.0, 1.0)
        if self.channels not in (1, 3):
            fail("data.channels", "1 (grey) or 3 (colour)", self.channels)
        whole("data.batch_size", self.batch_size, 1, 65_536)
        if check_integer("data.shift", self.shift, 0) >= self.size:
            fail("data.shift", f"fewer pixels than data.size = {self.size}", self.shift)
        for name in ("train_limit", "test_limit"):
            if getattr(self, name) is not None:
                check_integer(f"data.{name}", getattr(self, name), 1)


@dataclass(frozen=True)
class DecoderConfig:
    """The equilibrium decoder, from a latent code to an image.

    Args:
        cell: the kind of cell and its sizes
        latent: numbers in a latent code
        squash: range of the pixels before the mean image is added, none, tanh or sigmoid
        prior: weight of the squared code in the inner objective
        jacobian: weight of the Jacobian penalty in the training loss, which keeps the cell contractive
    """

    cell: Choice = Choice(
        "Multiscale",
        {
            "channels": [24, 32],
            "expansion": 3,
            "groups": 4,
            "fusion_groups": 4,
            "head_channels": [8, 16],
            "final_channels": 128,
        },
    )
    latent: int = 32
    squash: str = "none"
    prior: float = 0.1
    jacobian: float = 1.0

    def __post_init__(self) -> None:
        check_number("model.prior", self.prior, 0.0)
        check_number("model.jacobian", self.jacobian, 0.0)

    def plan(self, data: DataConfig) -> ModelConfig:
        """What :func:`jiio.models.build` makes a decoder for these images from."""
        cell = self.cell.make("cell", "model.cell")
        return ModelConfig(cell, (self.latent,), "image", (data.channels, data.size, data.size), self.squash)


@dataclass(frozen=True)
class JointConfig:
    """The joint solve over state, multiplier and input.

    Args:
        solver: how the joint iteration is accelerated
        rule: how the input moves
        adjoint: which gradient the training uses
        atol: absolute tolerance of a block's residual
        rtol: relative tolerance of a block's residual
        max_steps: steps after which the solve ends without convergence
    """

    solver: Choice = Choice("Anderson", {"memory": 12})
    rule: Choice = Choice("GradientStep")
    adjoint: Choice = Choice("KKT")
    atol: float = 1e-5
    rtol: float = 1e-3
    max_steps: int = 60

    def __post_init__(self) -> None:
        self.arguments()
        whole("joint.max_steps", self.max_steps, 2, 100_000)

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of :func:`jiio.solve`."""
        import jiio

        return {
            "solver": self.solver.make("solver", "joint.solver"),
            "rule": self.rule.make("rule", "joint.rule"),
            "adjoint": self.adjoint.make("adjoint", "joint.adjoint"),
            "tolerance": jiio.Tolerance(atol=self.atol, rtol=self.rtol),
            "max_steps": self.max_steps,
        }


@dataclass(frozen=True)
class OptimiserConfig:
    """Adam with a cosine schedule.

    Args:
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

    def __post_init__(self) -> None:
        check_number("optimiser.rate", self.rate, 0.0, open_low=True)
        check_number("optimiser.final_rate", self.final_rate, 0.0, self.rate)
        check_integer("optimiser.warmup", self.warmup, 0)
        check_number("optimiser.clip", self.clip, 0.0, open_low=True)
        check_number("optimiser.weight_decay", self.weight_decay, 0.0)


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
        task: what is trained
        output: folder of the checkpoints and the log
        seed: of everything random
        steps: number of training steps
        device: cpu, cuda, cuda:0, mps
        threads: CPU threads (default: torch's choice); small networks are fastest on one
        checkpoint_every: steps between two checkpoints
        keep: number of checkpoints kept
        loggers: where the figures go besides the log file
        start: weights to begin with, a checkpoint, the folder of a training or shipped ones (default: random weights)
        optimiser: Adam with a cosine schedule
    """

    task: str = ""
    output: str = "runs/first"
    seed: int = 0
    steps: int = 1000
    device: str = "cpu"
    threads: int | None = None
    checkpoint_every: int = 100
    keep: int = 2
    loggers: tuple[Choice, ...] = ()
    start: str | None = None
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)

    def __init_subclass__(cls) -> None:
        """The command line takes the help of a key from the docstring of the class that it builds: what every training
        has is described once, above, and laid before what a class has of its own.
        """
        shared = (RunConfig.__doc__ or "").partition(ARGS)[2].rstrip() + "\n"
        head, mark, own = (cls.__doc__ or "").partition(ARGS)
        cls.__doc__ = head + mark + shared + own if mark else cls.__doc__

    def __post_init__(self) -> None:
        if self.task not in TABLE["task"]:
            raise ConfigError(f"task: no task is called {self.task!r}. {nearest(self.task, TABLE['task'])}")
        if not self.output or "\0" in self.output:
            fail("output", "the name of a folder", describe(self.output))
        check_integer("seed", self.seed, 0)
        whole("steps", self.steps, 1, 10**9)
        if self.threads is not None:
            whole("threads", self.threads, 1, 1024)
        check_integer("checkpoint_every", self.checkpoint_every, 1)
        check_integer("keep", self.keep, 1)
        if self.optimiser.warmup >= self.steps:
            fail("optimiser.warmup", f"fewer than steps = {self.steps}", self.optimiser.warmup)
        check_choice("device", self.device.partition(":")[0], ("cpu", "cuda", "mps"))
        for i, logger in enumerate(self.loggers):
            if logger.name not in TABLE["logger"]:
                look_up("logger", logger.name, f"loggers[{i}].name")


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """A training of the latent restorer, from the data to the files it leaves.

    Args:
        data: images
        corruption: how images are damaged
        model: the equilibrium decoder
        joint: the joint solve
    """

    task: str = "restore"
    output: str = "runs/restore"
    data: DataConfig = field(default_factory=DataConfig)
    corruption: Choice = Choice("BoxHole")
    model: DecoderConfig = field(default_factory=DecoderConfig)
    joint: JointConfig = field(default_factory=JointConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("model.latent", self.model.latent, 1, 1_000_000)
        self.model.plan(self.data)
        corruption = self.corruption.make("corruption", "corruption")
        try:  # does it fit the images?
            corruption.draw(1, self.data.size, self.data.size, generator=generator(self.seed))
        except JiioError as error:
            raise ConfigError(f"corruption: {error}") from error


# task -> "module:attribute" of its configuration; TrainConfig where a task names none.
CONFIGS = {
    "prior": "tasks.prior:PriorConfig",
    "direct": "tasks.prior:PriorConfig",
    "classify": "tasks.classify:ClassifyConfig",
    "meta": "tasks.meta:MetaConfig",
    "generate": "tasks.generate:GenerateConfig",
    "language": "tasks.language_config:LanguageConfig",
    "segment": "tasks.segment:SegmentConfig",
}


def config_class(values: Mapping[str, Any]) -> type[RunConfig]:
    """The class of a configuration, from the task that its values name."""
    where = CONFIGS.get(str(values.get("task")))
    if where is None:
        return TrainConfig
    module, attribute = where.split(":")
    return getattr(importlib.import_module(module), attribute)


# What may differ between a checkpoint and the run that continues it: nothing that the weights depend on.
FREE_ON_RESUME = ("output", "checkpoint_every", "keep", "loggers")
