"""``jiio restore``: what it writes and says; every mistake is one sentence, exit code 2 and nothing written."""

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

from tasks import restorers
from tasks.cli import main
from tasks.encode import write_picture
from tasks.pictures import Picture, read_picture
from toy_restorer import SmoothRestorer

ROOT = Path(__file__).parents[1]
LOAD = restorers.load_restorer


def toy(argument: str, word: str) -> restorers.AbstractRestorer:
    """The toy in place of shipped weights; any other word means what it does."""
    if word in ("prior-grey", "prior-colour", "direct-grey", "direct-colour"):
        return SmoothRestorer(1 if word.endswith("grey") else 3)
    return LOAD(argument, word)


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """An empty working folder, and the toy restorer."""
    monkeypatch.setattr(restorers, "load_restorer", toy)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def noisy(height: int = 40, width: int = 56, channels: int = 3, seed: int = 0) -> np.ndarray:
    """A smooth picture with noise of 20 grey levels, (C, H, W) in [0, 1]."""
    draw = np.random.default_rng(seed)
    rows, columns = np.linspace(0, 3, height)[:, None], np.linspace(0, 4, width)
    clean = 0.5 + 0.2 * np.sin(rows + np.arange(channels)[:, None, None]) * np.cos(columns)
    return (clean + 20 / 255 * draw.standard_normal((channels, height, width))).astype(np.float32)


def photo(name: str = "a.png", *, alpha: bool = False, bits: int = 8, **options) -> bytes:
    """A noisy photograph in the working folder."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = noisy(**options)
    clear = np.full(pixels.shape[1:], 2**bits - 1, np.uint8 if bits == 8 else np.uint16) if alpha else None
    if clear is not None:
        clear[:10] = np.arange(10)[:, None]
    write_picture("test", path, Picture(path, pixels, clear, bits))
    return path.read_bytes()


def write(name: str, content: str | bytes) -> None:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def grey(name: str, values: np.ndarray) -> None:
    Image.fromarray(values.astype(np.uint8)).save(name)


def snapshot() -> dict[str, bytes | None]:
    """Every file below the working folder."""
    return {str(p): p.read_bytes() if p.is_file() else None for p in sorted(Path().rglob("*"))}


def roughness(pixels: np.ndarray) -> float:
    return float(np.abs(np.diff(pixels, axis=1)).mean())


# ----------------------------------------------------------------------------------------------------------------------
# What it writes


def test_a_photograph_beside_itself_and_the_account(capsys):
    before = photo()
    assert main(["restore", "a.png"]) == 0
    out, errors = capsys.readouterr()
    assert errors == "" and Path("a.png").read_bytes() == before
    pattern = (
        r"a\.png: 56 x 40, colour, 8 bit; sigma (\d+\.\d) \(estimated\); \d+\.\d s; (\d+) evaluations, \2 VJPs; "
        r"1 of 1 tiles converged -> a-restored\.png\n"
    )
    found = re.fullmatch(pattern, out)
    assert found and 15 < float(found[1]) < 25 and int(found[2]) > 5
    restored = read_picture("test", Path("a-restored.png"))
    assert restored.kind == "colour, 8 bit" and restored.pixels.shape == (3, 40, 56)
    assert roughness(restored.pixels) < 0.5 * roughness(read_picture("test", Path("a.png")).pixels)


@pytest.mark.parametrize("channels", (1, 3))
@pytest.mark.parametrize("alpha", (False, True))
@pytest.mark.parametrize(("name", "bits"), (("a.png", 8), ("a.png", 16), ("a.tif", 8), ("a.webp", 8)))
def test_the_same_kind_comes_back_and_alpha_as_it_was(name, bits, alpha, channels):
    photo(name, alpha=alpha, bits=bits, channels=channels)
    before = read_picture("test", Path(name))
    assert main(["restore", name, "--sigma", "20"]) == 0
    after = read_picture("test", Path(name.replace("a.", "a-restored.")))
    assert after.kind == before.kind
    if alpha:
        assert after.alpha is not None and before.alpha is not None and np.array_equal(after.alpha, before.alpha)


def test_a_sideways_photograph_comes_out_upright(capsys):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray((noisy()[0] * 255).clip(0, 255).astype(np.uint8)).save("a.jpg", exif=exif, quality=95)
    assert main(["restore", "a.jpg"]) == 0
    assert "40 x 56, grey" in capsys.readouterr().out
    with Image.open("a-restored.jpg") as image:
        assert image.size == (40, 56) and image.getexif().get(274, 1) == 1


def test_a_missing_stripe_is_filled_and_the_rest_kept_where_there_is_no_noise(capsys):
    photo()
    mask = np.full((40, 56), 255)
    mask[20:24] = 0
    grey("mask.png", mask)
    assert main(["restore", "a.png", "--mask", "mask.png", "--sigma", "0", "--output", "b.png"]) == 0
    before, after = (read_picture("test", Path(name)).pixels for name in ("a.png", "b.png"))
    assert np.array_equal(before[:, mask > 0], after[:, mask > 0])
    assert roughness(after[:, 20:24]) < 0.5 * roughness(before[:, 20:24])
    assert "sigma 0.0 (given)" in capsys.readouterr().out


def test_painted_pixels_are_filled():
    photo(channels=3)
    values = np.asarray(Image.open("a.png")).copy()
    values[10:12, 5:50] = (255, 0, 255)
    Image.fromarray(values).save("a.png")
    assert main(["restore", "a.png", "--missing", "#ff00ff", "--output", "b.png"]) == 0
    after = read_picture("test", Path("b.png")).pixels
    near = after[:, 6:9, 5:50].mean((1, 2))
    assert np.abs(after[:, 10:12, 5:50].mean((1, 2)) - near).max() < 0.1


def test_a_blur_is_undone_and_the_size_stays():
    clean = np.zeros((1, 64, 64), np.float32)
    clean[:, 20:44, 20:44] = 0.8
    kernel = np.ones((5, 5))
    blurred = np.stack([sum(np.roll(clean, (i, j), (1, 2)) for i in range(-2, 3) for j in range(-2, 3)) / 25])[0]
    write_picture("test", Path("a.png"), Picture(Path("a.png"), blurred.astype(np.float32), bits=16))
    grey("kernel.png", 200 * kernel)
    assert main(["restore", "a.png", "--blur", "kernel.png", "--sigma", "0.3", "--output", "b.png"]) == 0
    after = read_picture("test", Path("b.png")).pixels
    assert after.shape == clean.shape

    def error(pixels: np.ndarray) -> float:
        return float(np.abs(pixels - clean)[:, 8:-8, 8:-8].mean())

    assert error(after) < 0.9 * error(blurred)
    assert all(error(after) < 0.9 * error(np.roll(after, shift, axis)) for shift in (-1, 1) for axis in (1, 2))


@pytest.mark.parametrize("factor", (2, 3, 4))
def test_more_pixels(factor):
    photo(alpha=True)
    assert main(["restore", "a.png", "--upscale", str(factor), "--max-steps", "20"]) == 0
    before, after = (read_picture("test", Path(name)) for name in ("a.png", "a-restored.png"))
    assert after.pixels.shape == (3, 40 * factor, 56 * factor)
    assert after.alpha is not None and after.alpha.shape == after.pixels.shape[1:]
    assert np.abs(after.pixels[:, ::factor, ::factor] - before.pixels).mean() < 0.1


def test_a_grey_restorer_takes_colours_one_by_one():
    photo()
    assert main(["restore", "a.png", "--weights", "prior-grey", "--sigma", "20", "--output", "b.png"]) == 0
    for channel in range(3):
        values = np.asarray(Image.open("a.png"))[:, :, channel]
        Image.fromarray(values).save("one.png")
        assert main(["restore", "one.png", "--sigma", "20", "--overwrite"]) == 0
        one = np.asarray(Image.open("one-restored.png")).astype(int)
        assert np.abs(one - np.asarray(Image.open("b.png"))[:, :, channel]).max() <= 1


def test_tiles_and_the_file_that_was_named():
    photo(height=200, width=300, channels=1)
    assert main(["restore", "a.png", "--tile", "128", "--output", "new/folder/b.tif", "--sigma", "20"]) == 0
    assert main(["restore", "a.png", "--tile", "512", "--output", "c.png", "--sigma", "20"]) == 0
    tiled, whole = (read_picture("test", Path(name)).pixels for name in ("new/folder/b.tif", "c.png"))
    assert np.abs(tiled - whole).max() <= 1.01 / 255


def test_a_folder_goes_on_after_a_bad_picture_and_from_where_it_stopped(capsys):
    for name in ("photos/b.png", "photos/d.jpg"):
        photo(name)
    write("photos/a.png", "no picture")
    write("photos/c.png", "")
    write("photos/notes.txt", "left alone")
    write("photos/.hidden.png", "left alone")
    assert main(["restore", "photos"]) == 2
    out, errors = capsys.readouterr()
    assert [line.split(":")[0] for line in out.splitlines()] == ["photos/b.png", "photos/d.jpg"]
    lines = errors.splitlines()
    assert len(lines) == 3 and "photos/a.png" in lines[0] and "photos/c.png" in lines[1]
    assert lines[2] == "jiio: pictures: 2 of 4 could not be restored (photos/a.png, photos/c.png)."
    assert sorted(p.name for p in Path("photos-restored").iterdir()) == ["b.png", "d.jpg"]
    before = snapshot()
    Path("photos-restored/d.jpg").unlink()
    assert main(["restore", "photos"]) == 2
    out, _ = capsys.readouterr()
    assert out.splitlines()[0].startswith("photos/b.png: passed over, photos-restored/b.png exists")
    assert out.splitlines()[1].startswith("photos/d.jpg: 56 x 40")
    assert snapshot() == before
    for name in ("a.png", "c.png"):
        Path("photos", name).unlink()
    assert main(["restore", "photos", "--sigma", "60", "--overwrite"]) == 0
    assert snapshot()["photos-restored/b.png"] != before["photos-restored/b.png"]


def test_several_pictures_into_a_folder(capsys):
    for name in ("one/a.png", "two/a.png", "three/b.gif.png"):
        photo(name)
    assert main(["restore", "one/a.png", "three", "--output", "out"]) == 0
    assert sorted(p.name for p in Path("out").iterdir()) == ["a.png", "b.gif.png"]
    capsys.readouterr()
    assert main(["restore", "one/a.png", "two/a.png", "--output", "again/"]) == 2
    assert "again/a.png, which is the result of one/a.png already" in capsys.readouterr().err
    assert [p.name for p in Path("again").iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    ("where", "named"), ((".", "."), ("photos", "photos/"), ("photos", "../photos"), ("x/y", "x/y"))
)
def test_the_folder_beside(where, named, monkeypatch, folder):
    home = folder / where if where != "." else folder / "photos"
    photo(str(home / "a.png"))
    start = home if where == "." else folder / ("photos" if named.startswith("..") else ".")
    monkeypatch.chdir(start)
    assert main(["restore", named, "--sigma", "20"]) == 0
    assert (home.with_name(home.name + "-restored") / "a.png").exists()


def test_confidence_and_report(capsys):
    photo(height=48, width=64)
    assert main(["restore", "a.png", "--confidence", "c.png", "--report", "r.html", "--max-steps", "30"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("c.png: brightness is 8 times") and lines[2] == "r.html: the report"
    values = read_picture("test", Path("c.png"), min_side=1).pixels
    assert values.shape == (1, 48, 64) and 0.05 < values.mean() < 0.9
    page = Path("r.html").read_text()
    assert "jiio restore a.png --confidence c.png" in page and page.count("data:image") >= 9


def test_a_second_ctrl_c_is_not_needed(capsys, monkeypatch):
    for name in ("photos/a.png", "photos/b.png", "photos/c.png"):
        photo(name)
    done: list[str] = []

    def pressed(self, y, operator, **options):
        if done:
            raise KeyboardInterrupt
        done.append("a")
        return restore(self, y, operator, **options)

    restore = SmoothRestorer.restore
    monkeypatch.setattr(SmoothRestorer, "restore", pressed)
    assert main(["restore", "photos"]) == 130
    words = "jiio: Interrupted; 1 of 3 pictures restored. The same command goes on with the rest.\n"
    assert capsys.readouterr().err == words
    assert sorted(p.name for p in Path("photos-restored").iterdir()) == ["a.png"]


# ----------------------------------------------------------------------------------------------------------------------
# What it refuses


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
    ("floating point", lambda: Image.new("F", (32, 32)).save("a.tif"), "a.tif", "floating-point"),
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
    ("weights of another task", photo, "a.png --weights restore-faces", "--weights: expected weights of a restorer"),
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

    monkeypatch.setattr("tasks.files.os.fsync", full)
    assert main(["restore", "photos", "--sigma", "20"]) == 2
    out, errors = capsys.readouterr()
    assert out == "" and len(errors.splitlines()) == 1
    assert "photos-restored/a.png cannot be written (No space left on device)" in errors
    assert {k: v for k, v in snapshot().items() if k != "photos-restored"} == before


SCRIPT = """
import sys
sys.path[:0] = [{root!r}, {root!r} + "/tests"]
import torch
torch.set_num_threads(1)
from tasks import restorers
from toy_restorer import SmoothRestorer
restorers.load_restorer = lambda argument, word: SmoothRestorer(1 if word.endswith("grey") else 3)
{more}
from tasks.cli import main
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
