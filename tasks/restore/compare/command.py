"""``jiio compare``: restorers beside tuned baselines on a set of pictures: what is asked for, measured, and told."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from jiio.checks import check_integer, fail
from jiio.tasks.frame.files import InputError
from jiio.tasks.frame.options import check_seed, check_threads, chosen, declare, keys_of
from jiio.tasks.frame.terminal import say

if TYPE_CHECKING:
    from torch import Tensor

    from jiio.tasks.frame.choices import Choice
    from jiio.tasks.maps.corruption import AbstractCorruption

    from ..base import AbstractRestorer
    from .baselines import Baseline
    from .benchmark import Benchmark

NOISE = {"name": "GaussianNoise", "options": {"sigma": 25 / 255}}  # what every denoising paper has in its table


@dataclass(frozen=True)
class CompareOptions:
    """What to compare, on what.

    Args:
        checkpoint: of restorers: checkpoints, folders of trainings, or shipped weights
        on: the pictures, of their own size: set12, bsd68, cbsd68, faces or folder:PATH
        per_image: print a table with every picture as well
        limit: only the first so many pictures
        no_baselines: leave out the restorers of scikit-image
        symmetries: average each restorer over 1, 2, 4 or 8 turns and mirror images
        json: write the figures to this file instead of to standard output
        resume: go on with the figures in the file of --json
        overwrite: replace the file of --json; what is given, never
        data_root: folder of the data sets (default: JIIO_DATA)
        seed: of the noise and the masks
        device: cpu, cuda, cuda:0, auto (a GPU where there is one)
        threads: CPU threads (default: torch's choice)
        corruption: how the pictures are damaged (default: noise of 25 grey levels)
        joint: the solve (default: as each restorer does it)
    """

    checkpoint: tuple[str, ...]
    on: str = field(kw_only=True)
    per_image: bool = False
    limit: int | None = None
    no_baselines: bool = False
    symmetries: int = 1
    json: Path | None = None
    resume: bool = False
    overwrite: bool = False
    data_root: Path | None = None
    seed: int = 0
    device: str = "cpu"
    threads: int | None = None
    corruption: Mapping[str, Any] = keys_of("jiio.tasks.frame.choices:Choice")
    joint: Mapping[str, Any] = keys_of("jiio.tasks.solving.settings:JointConfig")

    def __post_init__(self) -> None:
        if self.limit is not None:
            check_integer("--limit", self.limit, 1)
        check_seed(self.seed)
        check_threads(self.threads)
        if self.resume and self.json is None:
            fail("--resume", "--json with the file to go on with", "none", error=InputError)


def declare_compare(parser: ArgumentParser, argv: Sequence[str]) -> None:
    """The options."""
    declare(parser, CompareOptions)


def run_compare(values: dict[str, Any], argv: Sequence[str]) -> int:
    """Plan, measure, and tell."""
    options = chosen(CompareOptions, values)
    comparison = Comparison.of(options)
    result = measure(comparison)
    report(comparison, result)
    return 0


@dataclass(frozen=True, eq=False)
class Comparison:
    """Everything that is measured, and under which settings.

    restorers: by the name in the table. pictures: by name, (1, C, H, W). head: the settings as they stand in the file,
    which figures of an earlier run must share. done: the figures that there are already.
    """

    options: CompareOptions
    restorers: Mapping[str, AbstractRestorer]
    pictures: Mapping[str, Tensor]
    corruption: AbstractCorruption
    baselines: Sequence[Baseline]
    tuning: Sequence[Tensor]
    device: str
    settings: Mapping[str, Any]
    head: Mapping[str, Any]
    done: Benchmark

    @classmethod
    def of(cls, options: CompareOptions) -> Comparison:
        """Read what the options name. Errors: JiioError for what is not there or does not fit together."""
        from jiio.tasks.frame.choices import Choice
        from jiio.tasks.frame.load import build, merge
        from jiio.tasks.frame.machine import check_device
        from jiio.tasks.images.sets import load_set, tuning_pictures

        from . import baselines
        from .earlier import earlier

        check_place(options)
        device = str(check_device(options.device))
        choice = build(Choice, merge(NOISE, options.corruption), "corruption.")
        corruption, settings = choice.make("corruption", "corruption"), solve_settings(options.joint)

        # Pictures are loaded for the channels that the weights are made for.
        restorers = named_restorers(options)
        channels = common_channels(restorers.values())
        pictures = load_set("--on", options.on, channels=channels, limit=options.limit, data_root=options.data_root)
        rivals = () if options.no_baselines else baselines.BASELINES
        root = options.data_root
        tuning = tuning_pictures(options.on, channels=channels, data_root=root) if rivals else []

        head = settings_of(options, choice, restorers, len(pictures))
        done = earlier(options.json if options.resume else None, head)
        return cls(options, restorers, pictures, corruption, rivals, tuning, device, settings, head, done)

    def figures(self, result: Benchmark) -> dict[str, Any]:
        """The figures as they stand in the file."""
        from jiio.outputs.tables import finite
        from jiio.tasks.frame.machine import versions

        from .benchmark import DEFINITIONS

        body = {"mean": finite(result.means()), "rows": finite(result.rows), "tuned": result.tuned}
        return {**self.head, **body, "definitions": DEFINITIONS, "versions": versions()}


def measure(comparison: Comparison) -> Benchmark:
    """The figures, kept picture by picture, so that whoever stops it loses one picture."""
    from jiio.outputs.tables import write
    from jiio.tasks.frame.machine import cpu_threads

    from .benchmark import benchmark

    def keep(so_far: Benchmark) -> None:
        if comparison.options.json is not None:
            write(comparison.options.json, comparison.figures(so_far))

    # After every picture the file holds all figures so far: --resume begins there.
    with cpu_threads(comparison.options.threads):
        return benchmark(
            comparison.restorers,
            comparison.pictures,
            corruption=comparison.corruption,
            baselines=comparison.baselines,
            tuning=comparison.tuning,
            seed=comparison.options.seed,
            device=comparison.device,
            settings=comparison.settings,
            done=comparison.done,
            report=say,
            after=keep,
        )


def report(comparison: Comparison, result: Benchmark) -> None:
    """The tables for a person, and the figures in the file or on standard output."""
    from jiio.outputs.tables import table, write

    if comparison.options.per_image:
        print(table(result.rows), file=sys.stderr)
    print(table(result.means()), file=sys.stderr)

    if comparison.options.json is None:
        print(json.dumps(comparison.figures(result), indent=2))
    else:
        write(comparison.options.json, comparison.figures(result))


def check_place(options: CompareOptions) -> None:
    """The file of the figures is none of what is given; an earlier one is replaced where it is asked for or gone on
    with, and :func:`.earlier.earlier` finds out whether it is one.
    """
    from jiio.tasks.frame.outputs import FOLDER, Outputs, of_checkpoint, of_word
    from jiio.tasks.frame.shipped import shipped

    paths = [shipped("CHECKPOINT", word, "weights", ".safetensors") for word in options.checkpoint]
    given = [file for path in paths for file in of_checkpoint(path)]
    if options.on.startswith(FOLDER):
        given.append(of_word(options.on))
    if options.json is not None:
        Outputs(tuple(given), options.overwrite).file("--json", options.json, lambda path: options.resume)


def named_restorers(options: CompareOptions) -> dict[str, AbstractRestorer]:
    """The restorers, by the name that they have in the table."""
    from ..load import load_restorer
    from ..symmetries import SymmetricRestorer, check_symmetries

    count = check_symmetries("--symmetries", options.symmetries)
    found = {label: load_restorer("CHECKPOINT", word) for label, word in labels(options.checkpoint).items()}
    if count == 1:
        return found
    return {f"{label}, {count} symmetries": SymmetricRestorer(one, count) for label, one in found.items()}


def common_channels(restorers: Any) -> int:
    """1 or 3, that of all of them."""
    channels = {restorer.channels for restorer in restorers}
    if len(channels) > 1:
        fail("CHECKPOINT", "weights for grey pictures or for colours", "both", error=InputError)
    return channels.pop()


def settings_of(
    options: CompareOptions, corruption: Choice, restorers: Mapping[str, AbstractRestorer], count: int
) -> dict[str, Any]:
    """What the figures depend on; figures of other settings are not mixed with these."""
    from jiio.outputs.digest import of_model

    return {
        "on": options.on,
        "pictures": count,
        "corruption": dataclasses.asdict(corruption),
        "seed": options.seed,
        "joint": dict(options.joint),
        "symmetries": options.symmetries,
        "weights": {label: of_model(restorer) for label, restorer in restorers.items()},
    }


def labels(words: Sequence[str]) -> dict[str, str]:
    """A name for each checkpoint in the table: that of its file or folder, or the whole word where two are the same."""
    stems = [Path(word).stem for word in words]
    named = {stem if stems.count(stem) == 1 else word: word for stem, word in zip(stems, words, strict=True)}
    if len(named) < len(words):
        fail("CHECKPOINT", "different checkpoints", "the same one twice", error=InputError)
    return named


def solve_settings(joint: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of :func:`jiio.solve` that ``--joint.*`` names; all others are the restorer's choice."""
    from jiio.tasks.frame.load import build, merge
    from jiio.tasks.solving.settings import JointConfig

    config = build(JointConfig, merge(dataclasses.asdict(JointConfig()), joint), "joint.")
    named = {"tolerance" if key in ("atol", "rtol") else key for key in joint}
    return {key: value for key, value in config.arguments().items() if key in named}
