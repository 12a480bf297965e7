"""What ``jiio attack`` writes: where it may, what of it is its own from an earlier run, and what goes at the end."""

from __future__ import annotations

import contextlib
import json
import zipfile
from pathlib import Path

from jiio.tasks.frame.files import check_output_folder, read_bytes
from jiio.tasks.frame.outputs import Outputs

from .options import AttackOptions

KEPT = ("settings.json", "*.safetensors", ".jiio-lock", ".*.jiio-part", "shard-*-of-*/.jiio-lock")


def check_places(options: AttackOptions, given: tuple[Path, ...]) -> None:
    """Refuse what must not be written to; what is wrong ends here, before anything is attacked."""
    outputs = Outputs(given, options.overwrite)
    for argument, file in options.written:
        outputs.file(argument, file, lambda path: is_repeated(options, path))
    if options.folder is not None:
        check_output_folder("--state", options.folder)


def is_repeated(options: AttackOptions, path: Path) -> bool:
    """Whether a file is the report of an earlier run of this evaluation: its kept state is there (another one's would
    be refused), and the file is a report.
    """
    if options.state is None or not (options.state / "settings.json").is_file():
        return False
    try:
        if path.suffix == ".npz":
            return "original_predictions.npy" in zipfile.ZipFile(path).namelist()
        text = read_bytes("report", path, "a report", 1 << 30).decode()
        return (
            "under attack</title>" in text if path.suffix == ".html" else {"robust", "threat"} <= set(json.loads(text))
        )
    except (ValueError, TypeError, RecursionError, zipfile.BadZipFile, OSError):  # InputError among them
        return False


def forget(folder: Path) -> None:
    """Remove the finished batches, and nothing that somebody else put beside them."""
    for kind in KEPT:
        for path in folder.glob(kind):
            path.unlink(missing_ok=True)
    for empty in (*folder.glob("shard-*-of-*"), folder):
        with contextlib.suppress(OSError):  # it is not empty
            empty.rmdir()
