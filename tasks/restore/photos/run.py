"""What ``jiio restore`` does: one picture or many, going on after a bad one, and from where it was stopped."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from jiio.checks import JiioError, check_choice, check_integer, check_number, fail
from jiio.tasks.frame.files import InputError
from jiio.tasks.frame.machine import check_device, cpu_threads
from jiio.tasks.images.encode import OutputError, check_fits, write_bytes, write_picture
from jiio.tasks.images.pictures import Picture, read_picture

from .. import load
from ..base import AbstractRestorer
from ..confidence import DRAWS
from ..symmetries import SymmetricRestorer, check_symmetries
from ..tiles import TILE, check_tile
from .damage import AbstractDamage, Coarse, Masked, Noise, parse_blur, parse_colour
from .one import LEVELS, Restored, restore_photo
from .page import Subject, photo_page
from .places import Places, Source, find_pictures

FAMILIES = {"image-space": "prior", "direct": "direct"}  # --restorer -> the name of its weights up to -grey or -colour
MAX_SIGMA = 128.0
UPSCALES = (2, 3, 4)
CONFIDENCE_SCALE = 8  # times the error to be expected is the brightness of its map: white is 32 grey levels and more


def restore(values: dict[str, Any], argv: Sequence[str]) -> None:
    """Restore what the command line says.

    Errors: JiioError for what cannot be done; where some of several pictures failed, at the end.
    """
    request = Request.of(values)
    sources = find_pictures(values["pictures"])
    single = len(sources) == 1 and sources[0].folder is None
    others = [Path(values[name]) for name in ("mask", "blur", "weights") if values.get(name) is not None]
    given = (*(source.path for source in sources), *others)
    places = Places(values.get("output"), single, given, values.get("overwrite", False))
    extras = Extras.of(values, argv, places, sources)
    with cpu_threads(request.threads):
        if single:
            restore_one(request, places, extras, sources[0])
        else:
            restore_many(request, places, sources)


class WeightsError(InputError):
    """Weights that cannot be loaded, so that there is no use in going on with the next picture."""


@dataclass(frozen=True)
class Request:
    """How to restore. sigma: on the image range [0, 1], None to estimate it. settings: of the solve. symmetries: that
    the result is averaged over."""

    damage: AbstractDamage
    sigma: float | None
    weights: str | None
    family: str
    tile: int
    device: torch.device
    threads: int | None
    settings: dict[str, Any]
    symmetries: int = 1
    loaded: dict[str, AbstractRestorer] = field(default_factory=dict)

    @classmethod
    def of(cls, values: dict[str, Any]) -> Request:
        """Errors: JiioError for options that cannot be, or not together."""
        get = values.get
        sigma = None if get("sigma") is None else check_number("--sigma", get("sigma"), 0.0, MAX_SIGMA) / LEVELS
        damage = read_damage(values)
        if sigma == 0.0 and isinstance(damage, Noise):
            remedy = "Say what else is wrong with the picture, by --mask, --missing, --blur or --upscale."
            fail("--sigma", "noise, where nothing else is to be mended", "0", remedy, InputError)
        if get("weights") is not None and get("restorer") is not None:
            fail("--weights", "either --weights or --restorer", "both", error=InputError)
        family = FAMILIES[check_choice("--restorer", get("restorer", "image-space"), FAMILIES)]
        if family == "direct" and not isinstance(damage, Noise):
            remedy = "Leave --restorer away."
            fail("--restorer", "image-space for anything but noise", f"direct for {damage.words}", remedy, InputError)
        threads = None if get("threads") is None else check_integer("--threads", get("threads"), 1)
        settings = {} if get("max_steps") is None else {"max_steps": check_integer("--max-steps", get("max_steps"), 2)}
        tile, device = check_tile("--tile", get("tile", TILE)), check_device(get("device", "cpu"))
        symmetries = check_symmetries("--symmetries", get("symmetries", 1))
        return cls(damage, sigma, get("weights"), family, tile, device, threads, settings, symmetries)

    def name(self, picture: Picture) -> str:
        """Of the weights."""
        return self.weights or f"{self.family}-{'grey' if len(picture.pixels) == 1 else 'colour'}"

    def restorer(self, picture: Picture) -> AbstractRestorer:
        """For grey or for colour; loaded once."""
        name = self.name(picture)
        if name not in self.loaded:
            try:
                restorer = load.load_restorer("--weights", name).to(self.device)
            except JiioError as error:
                raise WeightsError(str(error)) from error
            self.loaded[name] = restorer if self.symmetries == 1 else SymmetricRestorer(restorer, self.symmetries)
        return self.loaded[name]

    def restore(self, picture: Picture, progress: Callable[..., object] | None = None) -> Restored:
        """Restore one picture."""
        options = {"damage": self.damage, "sigma": self.sigma, "tile": self.tile, "device": self.device}
        try:
            return restore_photo(picture, self.restorer(picture), progress=progress, **options, **self.settings)
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, JiioError) or "memory" not in str(error):  # torch has no type of its own on a CPU
                raise
            came = f"too little of it for {picture.path}"
            fail("memory", f"enough for tiles of {self.tile} pixels", came, "Pass a smaller --tile.", InputError)

    def expected_error(self, done: Restored, progress: Callable[..., object]) -> Tensor:
        """(1, 1, H, W), the error to be expected of each pixel of a restored picture."""
        restorer, options = self.restorer(done.picture), {"device": self.device, "progress": progress, **self.settings}
        return done.expected_error(restorer, tile=self.tile, **options)


def read_damage(values: dict[str, Any]) -> AbstractDamage:
    """At most one kind of damage besides noise."""
    readers: dict[str, Callable[[Any], AbstractDamage]] = {
        "mask": lambda word: Masked.read(Path(word)),
        "missing": parse_colour,
        "blur": parse_blur,
        "upscale": coarse,
    }
    named = [name for name in readers if values.get(name) is not None]
    if len(named) > 1:
        came = " and ".join(f"--{name}" for name in named)
        fail("damage", "one of --mask, --missing, --blur and --upscale", came, "Mend one in each run.", InputError)
    return readers[named[0]](values[named[0]]) if named else Noise()


def coarse(factor: int) -> Coarse:
    """Too few pixels, by one of the factors that the prior is made for."""
    if factor not in UPSCALES:
        fail("--upscale", "2, 3 or 4", str(factor), error=InputError)
    return Coarse(factor)


@dataclass(frozen=True)
class Extras:
    """What else is written of a single picture."""

    report: Path | None = None
    confidence: Path | None = None
    argv: tuple[str, ...] = ()

    @classmethod
    def of(cls, values: dict[str, Any], argv: Sequence[str], places: Places, sources: Sequence[Source]) -> Extras:
        """Errors: InputError where a name does not do, or several pictures are to be restored."""
        found: dict[str, Path] = {}
        for name, suffix in (("report", ".html"), ("confidence", ".png")):
            word = values.get(name)
            if word is None:
                continue
            if not places.single:
                fail(
                    f"--{name}", "a single picture to restore", f"{len(sources)} pictures or a folder", error=InputError
                )
            if Path(word).suffix.lower() != suffix:
                fail(f"--{name}", f"a name that ends in {suffix}", repr(word), error=InputError)
            found[name] = places.check_new(f"--{name}", Path(word))
        return cls(**found, argv=tuple(argv))


def restore_one(request: Request, places: Places, extras: Extras, source: Source) -> None:
    """Restore a picture, with progress by tiles."""
    picture = read_picture("pictures", source.path)
    path = places.check_new("--output", places.result(source, picture))
    check_fits("--output", path, picture)
    if extras.confidence is not None and extras.confidence.resolve() == path.resolve():
        fail("--confidence", "another file than the restored picture", str(path), error=InputError)
    with tqdm(desc=source.path.name, unit="tile", leave=False, disable=None) as bar:

        def progress(_: object, total: int) -> None:
            bar.total = total * (1 if extras.confidence is None else 1 + DRAWS)
            bar.update()

        done = request.restore(picture, progress)
        expected = None if extras.confidence is None else request.expected_error(done, progress)
    finish(done, source, path)
    if extras.confidence is not None and expected is not None:
        scaled = Picture(extras.confidence, (CONFIDENCE_SCALE * expected[0]).numpy())
        write_picture("--confidence", extras.confidence, scaled)
        say(f"{extras.confidence}: brightness is {CONFIDENCE_SCALE} times the error to be expected of each pixel")
    if extras.report is not None:
        subject = Subject(
            picture, done, request.restorer(picture), request.name(picture), request.device, expected, request.settings
        )
        write_bytes("--report", extras.report, photo_page(subject, shlex.join(["jiio", *extras.argv])).encode())
        say(f"{extras.report}: the report")


def restore_many(request: Request, places: Places, sources: Sequence[Source]) -> None:
    """Restore pictures one after another. Those whose result exists are passed over; a bad one does not stop the rest,
    an output that cannot be written does.
    """
    failed, done = [], 0
    try:
        with tqdm(sources, unit="picture", leave=False, disable=None) as bar:
            for source in bar:
                try:
                    picture = read_picture("pictures", source.path)
                    path = places.result(source, picture)
                    if path.exists() and not places.overwrite:
                        say(f"{source.path}: passed over, {path} exists (--overwrite replaces it)")
                        continue
                    check_fits("--output", path, picture)
                    finish(request.restore(picture), source, path)
                    done += 1
                except (OutputError, WeightsError):
                    raise
                except JiioError as error:
                    failed.append(source.path)
                    say(f"jiio: {error}", sys.stderr)
    except KeyboardInterrupt:
        words = f"Interrupted; {done} of {len(sources)} pictures restored. The same command goes on with the rest."
        raise KeyboardInterrupt(words) from None
    if failed:
        names = ", ".join(str(path) for path in failed[:8]) + (", ..." if len(failed) > 8 else "")
        raise InputError(f"pictures: {len(failed)} of {len(sources)} could not be restored ({names}).")


def finish(done: Restored, source: Source, path: Path) -> None:
    """Write a restored picture and say so."""
    kind = check_fits("--output", path, done.picture)
    write_picture("--output", path, done.picture)
    say(f"{source.path}: {done.line(kind)} -> {path}")


def say(line: str, stream: Any = None) -> None:
    """A line beside the progress bar."""
    tqdm.write(line, file=stream or sys.stdout)
