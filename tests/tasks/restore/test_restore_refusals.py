"""What ``jiio restore`` refuses, a sentence and exit code 2 each, and full disks and kills: nothing half is left."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from jiio.tasks.cli import main
from jiio.tasks.restore import load as loading
from restore_cases import grey, photo, snapshot, toy, write
from toy_restorer import SmoothRestorer

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """An empty working folder, and the toy restorer."""
    monkeypatch.setattr(loading, "load_restorer", toy)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def nothing() -> None:
    pass


def half() -> None:
    whole = photo()
    write("a.png", whole[: len(whole) // 2])


def with_mask(values: np.ndarray) -> None:
    photo()
    grey("mask.png", values)


def large_hole() -> None:
    photo(height=300, width=300)
    mask = np.full((300, 300), 255)
    mask[20:290, 20:290] = 0
    grey("mask.png", mask)


def other_weights() -> None:
    photo()
    save_file({"w": torch.zeros(2)}, "w.safetensors")


def pickled() -> None:
    photo()
    torch.save({"model": torch.zeros(2)}, "w.safetensors")


def cmyk() -> None:
    Image.new("CMYK", (32, 32)).save("a.jpg")


def moving() -> None:
    Image.new("L", (32, 32)).save("a.gif", save_all=True, append_images=[Image.new("L", (32, 32), 9)])


def twice() -> None:
    photo()
    photo("a-restored.png", seed=1)


def linked() -> None:
    photo()
    os.link("a.png", "b.png")


def flat(value: int) -> None:
    grey("a.png", np.full((40, 56), value))


FULL, NONE = np.full((40, 56), 255), np.zeros((40, 56))

# name, what stands in the folder, the command line after `restore`, words of the sentence
BAD: list[tuple[str, Callable[[], object], str, str]] = [
    ("no picture named", nothing, "", "pictures"),
    ("picture that is not there", nothing, "a.png", "a.png, which cannot be opened"),
    ("text named as a picture", lambda: write("a.png", "hello"), "a.png", "none of them"),
    ("zero bytes", lambda: write("a.png", ""), "a.png", "zero bytes"),
    ("truncated", half, "a.png", "not an image that can be read"),
    ("one pixel", lambda: grey("a.png", np.zeros((1, 1))), "a.png", "1 x 1"),
    ("frames", moving, "a.gif", "2 frames"),
    ("printing colours", cmyk, "a.jpg", "CMYK"),
    ("no numbers", lambda: Image.fromarray(np.full((32, 32), np.nan, "f4")).save("a.tif"), "a.tif", "NaN"),
    ("range", photo, "a.png --range 9,3", "LOW,HIGH"),
    ("range of one number", photo, "a.png --range 9", "LOW,HIGH"),
    ("decompression bomb", lambda: Image.new("1", (20_000, 6_000)).save("a.png"), "a.png", "100,000,000 pixels"),
    ("pipe", lambda: os.mkfifo("a.png"), "a.png", "not an ordinary file"),
    ("camera raw", lambda: write("a.NEF", "II*"), "a.NEF", "raw file of a camera"),
    ("folder without pictures", lambda: write("photos/a.txt", "x"), "photos", "photos without any"),
    ("zero byte in a name", nothing, "a\0.png", "cannot be opened"),
    ("unknown option", photo, "a.png --nonsense 3", "--nonsense: no such option"),
    ("misspelt option", photo, "a.png --sgima 3", "did you mean --sigma?"),
    ("negative noise", photo, "a.png --sigma -3", "--sigma: expected a number of at least 0"),
    ("absurd noise", photo, "a.png --sigma 1000", "at most 128"),
    ("noise that is no number", photo, "a.png --sigma much", "--sigma: expected float"),
    ("noise that is not finite", photo, "a.png --sigma nan", "--sigma"),
    ("no noise and no damage", photo, "a.png --sigma 0", "Say what else is wrong"),
    ("noise that cannot be estimated", lambda: photo(height=10, width=10), "a.png", "a.png cannot be estimated"),
    ("mask that is not there", photo, "a.png --mask m.png", "--mask"),
    ("mask of another size", lambda: with_mask(NONE[:20]), "a.png --mask mask.png", "every pixel is missing"),
    (
        "mask of another size, half white",
        lambda: with_mask(np.arange(800).reshape(20, 40) % 256),
        "a.png --mask mask.png",
        "as large as a.png (56 x 40), got mask.png with 40 x 20",
    ),
    ("mask that is all black", lambda: with_mask(NONE), "a.png --mask mask.png", "every pixel is missing"),
    ("mask that is all white", lambda: with_mask(FULL), "a.png --mask mask.png", "no pixel is missing"),
    ("hole larger than a tile", large_hole, "a.png --mask mask.png --sigma 9 --tile 128", "larger than the holes"),
    ("mask that is no picture", lambda: (photo(), write("m", "x")), "a.png --mask m", "none of them"),
    ("colour that is none", photo, "a.png --missing pink", "--missing: expected a colour such as '#ff00ff'"),
    ("colour that does not occur", photo, "a.png --missing #ff00fe", "#ff00fe, which does not"),
    ("colour that is everywhere", lambda: flat(7), "a.png --missing 7 --sigma 1", "#070707, which all have"),
    ("blur without a width", photo, "a.png --blur gaussian", "--blur: expected gaussian:WIDTH"),
    ("blur with too many numbers", photo, "a.png --blur gaussian:1,2", "--blur: expected gaussian:WIDTH"),
    ("blur of no width", photo, "a.png --blur gaussian:0", "sigma: expected a number above 0"),
    ("blur of a negative width", photo, "a.png --blur motion:-3,0", "length: expected a number above 0"),
    ("motion without an angle", photo, "a.png --blur motion:15", "--blur: expected motion:LENGTH,ANGLE"),
    ("blur that is nothing known", photo, "a.png --blur zoom:3", "zoom:3, which is no file either"),
    ("blur larger than the picture", photo, "a.png --blur gaussian:8", "no larger than the picture"),
    ("black kernel", lambda: with_mask(NONE), "a.png --blur mask.png", "which is all black"),
    ("giant kernel", lambda: with_mask(np.ones((300, 9))), "a.png --blur mask.png", "at most 255 x 255"),
    ("enlarged by five", photo, "a.png --upscale 5", "--upscale: expected 2, 3 or 4"),
    ("enlarged by a half", photo, "a.png --upscale 1.5", "--upscale: expected int"),
    ("two kinds of damage", photo, "a.png --upscale 2 --blur gaussian:1", "got --blur and --upscale"),
    ("unknown restorer", photo, "a.png --restorer magic", "--restorer: expected one of"),
    ("direct restorer for a blur", photo, "a.png --restorer direct --upscale 2", "--restorer: expected image-space"),
    ("restorer and weights", photo, "a.png --restorer direct --weights prior-grey", "got both"),
    ("weights that are not there", photo, "a.png --weights absent", "no file is called 'absent'"),
    ("weights of something else", other_weights, "a.png --weights w.safetensors", "not one written by jiio"),
    ("weights that are a pickle", pickled, "a.png --weights w.safetensors", "a pickle"),
    ("weights of another task", photo, "a.png --weights generate-faces", "--weights: expected weights of a restorer"),
    ("colour weights for grey", lambda: photo(channels=1), "a.png --weights prior-colour", "for grey pictures"),
    ("tile of no size", photo, "a.png --tile 0", "--tile: expected a whole number of at least 128"),
    ("tile of an odd size", photo, "a.png --tile 201", "--tile: expected a multiple of 8"),
    ("one step", photo, "a.png --max-steps 1", "--max-steps: expected a whole number of at least 2"),
    ("no threads", photo, "a.png --threads 0", "--threads: expected a whole number of at least 1"),
    ("device that is not here", photo, "a.png --device cuda:77", "device: expected a device"),
    ("output is the picture", photo, "a.png --output a.png", "never overwritten"),
    ("output is the picture, with force", photo, "a.png --output a.png --overwrite", "never overwritten"),
    ("output is the picture by another name", linked, "a.png --output b.png --overwrite", "never overwritten"),
    ("output folder is the picture's", photo, "a.png --output . --overwrite", "never overwritten"),
    ("output is the mask", lambda: with_mask(NONE), "a.png --mask mask.png --output mask.png", "every pixel"),
    ("output exists", twice, "a.png", "a-restored.png, which exists. Pass --overwrite"),
    ("output of an unknown kind", photo, "a.png --output b.xyz", "ends in one of .png"),
    ("output that cannot be written", photo, "a.png --output b.gif", "ends in one of .png"),
    ("output below a file", photo, "a.png --output a.png/b.png", "where a.png is a file"),
    ("output without a name", photo, "a.png --output=", "--output: expected the name"),
    ("output with a zero byte", photo, "a.png --output b\0.png", "--output: expected the name"),
    ("one file for several", lambda: (photo(), photo("b.png")), "a.png b.png --output c.png", "a folder for several"),
    ("transparency into JPEG", lambda: photo(alpha=True), "a.png --output b.jpg", "JPEG cannot keep"),
    ("report for several", lambda: (photo(), photo("b.png")), "a.png b.png --report r.html", "a single picture"),
    ("report for a folder", lambda: photo("p/a.png"), "p --report r.html", "--report: expected a single"),
    ("report that is a picture", photo, "a.png --report a.png", "ends in .html"),
    ("report that exists", lambda: (photo(), write("r.html", "x")), "a.png --report r.html", "r.html, which exists"),
    ("confidence into the picture", photo, "a.png --confidence a.png --overwrite", "never overwritten"),
    ("confidence into the result", photo, "a.png --confidence a-restored.png", "another file than the restored"),
    ("confidence as JPEG", photo, "a.png --confidence c.jpg", "ends in .png"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "prepare", "line", "words"), BAD, ids=[case[0] for case in BAD])
def test_bad_input_is_one_sentence_and_exit_code_2(name, prepare, line, words, capfd):
    prepare()
    before = snapshot() if name != "pipe" else None
    assert main(["restore", *(line.split(" ") if line else [])]) == 2
    out, errors = capfd.readouterr()
    assert out == "" and len(errors.splitlines()) == 1, errors
    assert words in errors
    assert errors.startswith("jiio: ") and re.search(r"[.?]\n$", errors) and len(errors) < 500
    assert before is None or snapshot() == before


def test_there_are_at_least_35_kinds_of_bad_input():
    assert len({case[0] for case in BAD}) == len(BAD) >= 35


def test_a_folder_that_may_not_be_written(capsys, monkeypatch):
    photo()
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # what a read-only file system answers, even to root
    before = snapshot()
    assert main(["restore", "a.png"]) == 2
    assert "not writable" in capsys.readouterr().err and snapshot() == before


def test_too_little_memory_is_a_sentence(capsys, monkeypatch):
    photo()

    def greedy(self, y, operator, **options):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(SmoothRestorer, "restore", greedy)
    assert main(["restore", "a.png"]) == 2
    assert "Pass a smaller --tile" in capsys.readouterr().err


def test_a_full_disk_stops_a_folder_and_leaves_nothing_behind(capsys, monkeypatch):
    for name in ("photos/a.png", "photos/b.png"):
        photo(name)
    before = snapshot()

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert main(["restore", "photos", "--sigma", "20"]) == 2
    out, errors = capsys.readouterr()
    assert out == "" and len(errors.splitlines()) == 1
    assert "photos-restored/a.png cannot be written (No space left on device)" in errors
    assert {k: v for k, v in snapshot().items() if k != "photos-restored"} == before


SCRIPT = """
import sys
sys.path[:0] = [{root!r} + "/src", {root!r} + "/tests"]
import torch
torch.set_num_threads(1)
from jiio.tasks.restore import load
from toy_restorer import SmoothRestorer
load.load_restorer = lambda argument, word: SmoothRestorer(1 if word.endswith("grey") else 3)
{more}
from jiio.tasks.cli import main
sys.exit(main(sys.argv[1:]))
"""


def process(*words: str, more: str = "") -> subprocess.Popen:
    script = textwrap.dedent(SCRIPT.format(root=str(ROOT), more=more))
    return subprocess.Popen(
        [sys.executable, "-c", script, "restore", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_file_system_that_really_ends(folder):
    """A limit on the size of files, set for the process alone, is what a quota does."""
    photo(height=120, width=160)
    before = snapshot()
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))"
    with process("a.png", "--sigma", "20", more=limit) as run:
        out, errors = run.communicate(timeout=300)
    assert run.returncode == 2 and out == "" and "Traceback" not in errors
    assert re.fullmatch(r"jiio: --output: a-restored\.png cannot be written \(.*\)\. Nothing is left there\.\n", errors)
    assert snapshot() == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs to be root, to mount a file system")
def test_a_disk_that_is_really_full(capfd):
    photo(height=120, width=160)
    Path("disk").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", "disk"], capture_output=True).returncode:
        pytest.skip("this machine mounts nothing")
    try:
        assert main(["restore", "a.png", "--output", "disk/b.png", "--sigma", "20"]) == 2
        assert "disk/b.png cannot be written (No space left on device)" in capfd.readouterr().err
        assert list(Path("disk").iterdir()) == []
    finally:
        subprocess.run(["umount", "disk"], check=True)


@pytest.mark.slow
def test_a_killed_folder_goes_on_and_ends_as_if_it_had_not_been(folder):
    for i in range(6):
        photo(f"photos/{i}.png", height=160, width=200, seed=i)
    expected = Path("expected")
    with process("photos", "--output", "expected") as run:
        assert run.wait(timeout=600) == 0
    kills = 0

    def finished() -> int:
        return len(list(Path().glob("photos-restored/*.png")))

    while True:
        wanted = finished() + 2
        with process("photos") as run:
            while run.poll() is None and finished() < wanted:
                time.sleep(0.01)
            if run.poll() is None and wanted < 6:  # the last one may end
                run.send_signal(signal.SIGKILL)
                kills += 1
            run.wait(timeout=600)
        if run.returncode == 0:
            break
    assert kills >= 2
    assert {p.name: p.read_bytes() for p in expected.iterdir()} == {
        p.name: p.read_bytes() for p in Path("photos-restored").iterdir()
    }
    shutil.rmtree(expected)
