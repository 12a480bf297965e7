"""What ``jiio restore`` does: one picture or many, going on after a bad one, and from where it was stopped."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor
from tqdm import tqdm

from jiio.checks import JiioError, fail
from jiio.tasks.frame.files import InputError
from jiio.tasks.frame.machine import cpu_threads
from jiio.tasks.frame.outputs import OutputError, Outputs, of_checkpoint, real, write_new
from jiio.tasks.frame.post import Post
from jiio.tasks.frame.ranks import LONG, Ranks, joined
from jiio.tasks.frame.terminal import plain, say, sentence
from jiio.tasks.images.encode import write_picture
from jiio.tasks.images.formats import PLUGINS, SUFFIXES_OF
from jiio.tasks.images.pictures import Picture, read_picture

from ..confidence import DRAWS
from .damage import Scratched
from .one import Restored
from .options import RestoreOptions
from .page import Subject, photo_page
from .places import Places, Plan, Source, find_pictures, left_out
from .request import Request, WeightsError
from .unknown import Unknown

DOUBTFUL = 3  # the exit code where a picture is written and there is reason to doubt it
CONFIDENCE_SCALE = 8  # times the error to be expected is the brightness of its map: white is 32 grey levels and more


def restore(options: RestoreOptions, argv: Sequence[str]) -> int:
    """Restore what the command line says; the exit code, which tells of doubts.

    Errors: JiioError for what cannot be done; where some of several pictures failed, at the end.
    """
    request = Request.of(options)
    sources = find_pictures(options.pictures, options.output)
    single = len(sources) == 1 and sources[0].folder is None
    places = Places(options.output, single, Outputs(given_by(options, sources), options.overwrite))
    check_extras(options, places, len(sources))
    with cpu_threads(options.threads):
        if single:
            # Of several processes one has something to do.
            doubtful = Post.of().leads and restore_one(request, options, places, argv)
        else:
            doubtful = restore_many(request, places, sources, options)
    return DOUBTFUL if doubtful else 0


def given_by(options: RestoreOptions, sources: Sequence[Source]) -> tuple[Path, ...]:
    """All files that the command line names or finds."""
    named = [Path(word) for word in (options.mask, options.blur) if word not in (None, "blind")]
    weights = () if options.weights is None else of_checkpoint(Path(options.weights))
    return (*(source.path for source in sources), *named, *weights)


def check_extras(options: RestoreOptions, places: Places, count: int) -> None:
    """Errors: InputError where several pictures are to be restored, or a name does not do."""
    for name, path in options.extras.items():
        if not places.single:
            fail(f"--{name}", "a single picture to restore", f"{count} pictures or a folder", error=InputError)
        places.outputs.file(f"--{name}", path)


def restore_one(request: Request, options: RestoreOptions, places: Places, argv: Sequence[str]) -> bool:
    """Restore a picture, with progress by tiles, and write what else is asked for; whether there are doubts."""
    plan = places.plan_one(Source(Path(options.pictures[0])))
    for name, path in options.extras.items():
        if real(path) == real(plan.target):
            fail(f"--{name}", "another file than the restored picture", str(plan.target), error=InputError)
    picture = read_picture("pictures", plan.source.path)
    places.outputs.file("--output", plan.target)
    if isinstance(request.damage, Unknown):
        places.outputs.file("--output", kernel_path(plan))

    # A tile is restored once, and once more for each draw of the noise where its error is asked for.
    with tqdm(desc=plain(plan.source.path.name), unit="tile", leave=False, disable=None) as bar:

        def progress(_: object, total: int) -> None:
            bar.total = total * (1 if options.confidence is None else 1 + DRAWS)
            bar.update()

        done = request.restore(picture, progress)
        expected = None if options.confidence is None else request.expected_error(done, progress)

    write(plan, done, places)
    if expected is not None:
        write_confidence(options, expected)
    if options.find_scratches is not None:
        write_scratches(options, options.find_scratches, done.stretch.apply(picture))
    if options.report is not None:
        name, device, settings = request.name(picture), request.device, request.settings
        subject = Subject(picture, done, request.restorer(picture), name, device, expected, settings)
        write_report(options, photo_page(subject, plain(shlex.join(["jiio", *argv]))))
    return bool(done.doubts)


def restore_many(request: Request, places: Places, sources: Sequence[Source], options: RestoreOptions) -> bool:
    """Restore pictures, divided among the processes that a launcher has started; whether there are doubts. Those whose
    result exists are passed over; a bad one does not stop the rest, an output that cannot be written does.
    """
    with joined(options.device, LONG) as ranks:
        work = Work(request, places)
        try:
            plans = places.plan(sources, lambda source, error: work.note(source.path, error, tell=ranks.leads))
            work.restore(plans[ranks.index :: ranks.count])
            whole = work.of_all(ranks)
        except KeyboardInterrupt:
            told = f"{work.done} of {len(sources)} pictures restored"
            raise KeyboardInterrupt(f"Interrupted; {told}. The same command goes on with the rest.") from None
        finally:
            if ranks.leads:
                tell_left_out(left_out(options.pictures, options.output))

    # The sentence of the whole run names a few; each had a sentence of its own.
    if ranks.leads and ranks.count > 1:
        say(f"{whole.done} of {len(sources)} pictures restored by {ranks.count} processes", sys.stdout)
    failed = whole.failed if ranks.leads else []
    if failed:
        names = ", ".join(str(path) for path in failed[:8]) + (", ..." if len(failed) > 8 else "")
        raise InputError(f"pictures: {len(failed)} of {len(sources)} could not be restored ({names}).")
    return whole.doubtful


@dataclass
class Work:
    """Restoring pictures one after another. done: how many are. failed: which could not be. doubtful: whether there is
    reason to doubt one of those that are.
    """

    request: Request
    places: Places
    done: int = 0
    failed: list[Path] = field(default_factory=list)
    doubtful: bool = False

    def restore(self, plans: Sequence[Plan]) -> None:
        """All of them, but those whose result exists."""
        todo = [plan for plan in plans if self.places.outputs.overwrite or not passed_over(plan)]
        with tqdm(todo, unit="picture", leave=False, disable=None) as bar:
            for plan in bar:
                with self.noted(plan.source.path):
                    picture = read_picture("pictures", plan.source.path)
                    restored = self.request.restore(picture)
                    write(plan, restored, self.places)
                    self.done, self.doubtful = self.done + 1, self.doubtful or bool(restored.doubts)

    def of_all(self, ranks: Ranks) -> Work:
        """What all processes have done together; a picture that none of them could plan is counted once."""
        parts = ranks.gathered((self.done, self.failed, self.doubtful))
        failed = sorted({path for _, paths, _ in parts for path in paths}) if ranks.count > 1 else self.failed
        done, doubtful = sum(n for n, _, _ in parts), any(doubt for _, _, doubt in parts)
        return Work(self.request, self.places, done, failed, doubtful)

    @contextlib.contextmanager
    def noted(self, path: Path) -> Iterator[None]:
        """What is wrong with one picture is told and stops nothing; what would be wrong with all of them does."""
        try:
            yield
        except (OutputError, WeightsError):
            raise
        except JiioError as error:
            self.note(path, error)

    def note(self, path: Path, error: JiioError, *, tell: bool = True) -> None:
        """Remember a picture that failed, and tell of it."""
        self.failed.append(path)
        if tell:
            say(f"jiio: {sentence(str(error))}")


def tell_left_out(files: Sequence[Path]) -> None:
    """A line about the files in the folders that were not even tried."""
    if not files:
        return
    names = ", ".join(str(path) for path in files[:8]) + (", ..." if len(files) > 8 else "")
    kinds = {kind for kind in PLUGINS for path in files if path.suffix.lower() in SUFFIXES_OF[kind]}
    how = "".join(f"; for {PLUGINS[kind].name}, {PLUGINS[kind].how}" for kind in sorted(kinds))
    say(f"left out: {len(files)} by their names no pictures that can be read here ({names}){how}", sys.stdout)


def passed_over(plan: Plan) -> bool:
    """Whether the result is there already, from an earlier run; and a line about it."""
    if not plan.target.exists():
        return False
    say(f"{plan.source.path}: passed over, {plan.target} exists (--overwrite replaces it)", sys.stdout)
    return True


def write(plan: Plan, done: Restored, places: Places) -> None:
    """Write a restored picture and say so."""
    write_picture("--output", plan.target, done.picture, replace=places.outputs.overwrite)
    say(f"{plan.source.path}: {done.line(plan.kind)} -> {plan.target}", sys.stdout)
    write_kernel(plan, done, places)
    for words in done.doubts:
        say(f"jiio: {sentence(f'warning: {plan.source.path}: {words}.')}")


def kernel_path(plan: Plan) -> Path:
    """Of the picture of the kernel, beside the result."""
    return plan.target.with_name(f"{plan.target.stem}-kernel.png")


def write_kernel(plan: Plan, done: Restored, places: Places) -> None:
    """Write the kernel that was found; --blur takes the picture of it."""
    if done.blind is None or done.blind.none:
        return
    path, kernel = kernel_path(plan), done.blind.kernel
    scaled = Picture(path, (kernel / kernel.max()).float().numpy()[None], bits=16)
    write_picture("--output", path, scaled, replace=places.outputs.overwrite)
    say(f"{path}: the kernel, {len(kernel)} x {len(kernel)}; --blur takes it", sys.stdout)


def write_confidence(options: RestoreOptions, expected: Tensor) -> None:
    """Write the map of the errors to be expected, (1, 1, H, W)."""
    path = options.confidence
    assert path is not None
    scaled = Picture(path, (CONFIDENCE_SCALE * expected[0]).numpy())
    write_picture("--confidence", path, scaled, replace=options.overwrite)
    say(f"{path}: brightness is {CONFIDENCE_SCALE} times the error to be expected of each pixel", sys.stdout)


def write_scratches(options: RestoreOptions, path: Path, picture: Picture) -> None:
    """Write what was taken for dust and scratches, as a mask that can be corrected and handed to ``--mask``."""
    keep = Scratched().mask(picture)
    write_picture("--find-scratches", path, Picture(path, keep[None].astype(np.float32)), replace=options.overwrite)
    say(
        f"{path}: black is what was mended, {1 - keep.mean():.2%} of the picture; --mask takes it, corrected",
        sys.stdout,
    )


def write_report(options: RestoreOptions, page: str) -> None:
    """Write the page."""
    path = options.report
    assert path is not None
    # A name that is not UTF-8 stands in a page with its odd bytes spelled out.
    write_new("--report", path, page.encode(errors="backslashreplace"), replace=options.overwrite)
    say(f"{path}: the report", sys.stdout)
