"""``jiio restore``: what it writes and says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jiio.tasks.cli import main
from jiio.tasks.images.encode import write_picture
from jiio.tasks.images.pictures import Picture, read_picture
from jiio.tasks.restore import load as loading
from restore_cases import grey, noisy, photo, snapshot, toy, write
from toy_restorer import SmoothRestorer


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """An empty working folder, and the toy restorer."""
    monkeypatch.setattr(loading, "load_restorer", toy)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def roughness(pixels: np.ndarray) -> float:
    return float(np.abs(np.diff(pixels, axis=1)).mean())


def test_a_photograph_beside_itself_and_the_account(capsys):
    before = photo()
    assert main(["restore", "a.png"]) == 0
    out, errors = capsys.readouterr()
    assert errors == "" and Path("a.png").read_bytes() == before
    pattern = (
        r"a\.png: 56 x 40, colour, 8 bit; sigma (\d+\.\d) \(estimated\); \d+\.\d s; (\d+) evaluations, (\d+) VJPs; "
        r"1 of 1 tiles converged -> a-restored\.png\n"
    )
    found = re.fullmatch(pattern, out)
    assert found and 15 < float(found[1]) < 25 and int(found[2]) >= int(found[3]) > 5
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
    assert main(["restore", "a.png", "--blur", "kernel.png", "--sigma", "0.3", "--output", "b.png"]) in (0, 3)
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
    assert [line.split(":")[0] for line in out.splitlines()] == ["photos/b.png", "photos/d.jpg", "left out"]
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


def test_folders_inside_come_out_as_they_were_and_the_rest_is_listed(capsys):
    for name in ("in/a.png", "in/b/a.png", "in/b/c/d.png", "in/.hidden/e.png", "in/out/old.png"):
        photo(name)
    for name in ("in/notes.txt", "in/b/f.xcf"):
        write(name, "text")
    assert main(["restore", "in", "--sigma", "20", "--output", "in/out"]) == 0
    out = capsys.readouterr().out
    made = {str(path.relative_to("in/out")) for path in Path("in/out").rglob("*.png")}
    assert made == {"a.png", "b/a.png", "b/c/d.png", "old.png"}
    assert out.splitlines()[-1].startswith("left out: 2 ") and "in/notes.txt" in out and "in/b/f.xcf" in out


@pytest.mark.parametrize("bits", (8, 10, 12, 14))
def test_data_of_fewer_bits_are_restored_as_those_that_fill_the_range(bits, capsys):
    pixels = noisy(channels=1).clip(0, 1)
    full = 2**bits - 1
    Path("deep").mkdir()
    for name, white in (("deep/a.png", 65535), ("deep/b.png", full)):
        write_picture("test", Path(name), Picture(Path(name), np.rint(pixels * white) / np.float32(65535), bits=16))
    assert main(["restore", "deep", "--sigma", "20"]) == 0
    whole, used = (read_picture("test", Path(f"deep-restored/{name}.png")) for name in "ab")
    assert used.span is not None and used.span.high == full
    assert np.abs(whole.pixels - used.pixels).max() < 2 / full
    assert f"range 0 to {full} (used)" in capsys.readouterr().out
    assert main(["restore", "deep/b.png", "--sigma", "20", "--range", "0,65535"]) in (0, 3)
    assert "range" not in capsys.readouterr().out
