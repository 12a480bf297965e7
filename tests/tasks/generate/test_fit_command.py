"""``jiio fit``: what it writes and says; every mistake is one sentence, exit code 2 and nothing written."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jiio.tasks.cli import main
from jiio.tasks.frame import checkpoint
from jiio.tasks.frame.load import build
from jiio.tasks.generate.fit.picture import OVERLAP, at_least, blended, grid_of, middle
from jiio.tasks.generate.task import Generate, GenerateConfig
from jiio.tasks.images.metrics import psnr
from jiio.tasks.restore.latent import RestoreConfig

PLAN = {
    "task": "generate",
    "data": {"size": 8, "batch_size": 8, "train_limit": 200},
    "model": {"cell": {"name": "Dense", "options": {"features": 24, "gain": 0.6}}, "latent": 6, "prior": 0.02},
    "inference": {"name": "Joint", "options": {"max_steps": 30}},
}
FILES = {"beside.png", "fit.json", "fitted.png", "index.html", "path.png", "residuals.png"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Three small generators: of grey patches, of colour patches, and of faces."""
    folder = tmp_path_factory.mktemp("weights")
    for name, family, channels in (("grey", "patches", 1), ("colour", "patches", 3), ("faces", "faces", 1)):
        config = build(GenerateConfig, PLAN | {"data": PLAN["data"] | {"family": family, "channels": channels}})
        task = Generate(config)
        torch.manual_seed(0)
        model = task.model()
        optimiser = torch.optim.Adam(model.parameters(), 1e-2)
        for step in range(12):
            optimiser.zero_grad()
            task.loss(model, step)[0].backward()
            optimiser.step()
        checkpoint.save(folder / f"{name}.safetensors", 12, config, model)
    return folder


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path, trained):
    """An empty working folder with the three checkpoints."""
    monkeypatch.chdir(tmp_path)
    for path in trained.iterdir():
        shutil.copy(path, tmp_path)
    return tmp_path


def photo(name: str = "a.png", *, height: int = 21, width: int = 30, channels: int = 3, **options) -> bytes:
    rows, columns = np.linspace(0, 3, height)[:, None], np.linspace(0, 4, width)
    waves = 0.5 + 0.3 * np.sin(rows + np.arange(channels)[:, None, None]) * np.cos(columns)
    values = (255 * waves).astype(np.uint8).transpose(1, 2, 0)
    Image.fromarray(values[:, :, 0] if channels == 1 else values).save(name, **options)
    return Path(name).read_bytes()


def snapshot() -> dict[str, bytes | None]:
    return {str(p): p.read_bytes() if p.is_file() else None for p in sorted(Path().rglob("*"))}


# ----------------------------------------------------------------------------------------------------------------------
# What it writes


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("weights", ["grey", "colour"])
def test_a_picture_of_any_size_tile_by_tile(channels, weights, capsys):
    before = photo(channels=channels)
    assert main(["fit", "a.png", "--checkpoint", f"{weights}.safetensors", "--restarts", "1"]) == 0
    out, errors = capsys.readouterr()
    assert errors == "" and Path("a.png").read_bytes() == before
    assert {p.name for p in Path("a-fit").iterdir()} == FILES
    told = json.loads(Path("a-fit/fit.json").read_text())
    found = re.match(
        r"a\.png: 30 x 21, (grey|colour), 8 bit; tiles, (\d+) fits of 8 x 8; (\d+\.\d+) dB; (\d+) of \2 converged", out
    )
    assert found, out
    assert float(found[3]) == pytest.approx(told["PSNR"], abs=0.01) and told["starts"] == 2
    shown = torch.from_numpy(np.asarray(Image.open("a-fit/fitted.png").convert("RGB"), np.float32) / 255)
    whole = torch.from_numpy(np.asarray(Image.open("a.png").convert("RGB"), np.float32) / 255)
    assert shown.shape == whole.shape == (21, 30, 3)
    again = float(psnr(shown.permute(2, 0, 1)[None], whole.permute(2, 0, 1)[None]))
    assert again == pytest.approx(told["PSNR"], abs=0.1) and again > 10  # what is said is what is written
    assert told["objective"] == pytest.approx(told["error"] + told["prior"], rel=1e-5)
    assert told["tiles"] * (channels if weights == "grey" else 1) == int(found[2])


def test_the_middle_of_a_picture_as_a_whole():
    photo(height=33, width=20)
    assert main(["fit", "a.png", "--checkpoint", "faces.safetensors", "--output", "here"]) == 0
    told = json.loads(Path("here/fit.json").read_text())
    assert told["how"] == "whole" and told["size"] == [8, 8] and told["tiles"] == 1
    with Image.open("here/fitted.png") as image:
        assert image.size == (8, 8)
    for name in ("beside.png", "path.png", "residuals.png"):
        Image.open(Path("here") / name).verify()
    page = Path("here/index.html").read_text()
    assert "The way there" in page and "jiio fit a.png" in page


@pytest.mark.slow
def test_a_picture_unlike_the_training_images_scores_higher():
    photo()
    noise = np.random.default_rng(0).integers(0, 256, (21, 30), np.uint8)
    Image.fromarray(noise).save("noise.png")
    scores = []
    for name in ("a", "noise"):
        assert main(["fit", f"{name}.png", "--checkpoint", "grey.safetensors", "--restarts", "0"]) == 0
        told = json.loads(Path(f"{name}-fit/fit.json").read_text())
        scores.append((told["standard deviations above training images"], told["surprise"]))
    assert scores[1][0] > scores[0][0] and scores[1][1] > scores[0][1]


def test_the_same_seed_gives_the_same_fit_and_results_are_not_replaced_unasked(capsys):
    photo(channels=1)
    words = ["fit", "a.png", "--checkpoint", "grey.safetensors"]
    assert main(words) == 0
    first = Path("a-fit/fitted.png").read_bytes()
    assert main(words) == 2 and "--overwrite" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0
    assert Path("a-fit/fitted.png").read_bytes() == first


# ----------------------------------------------------------------------------------------------------------------------
# Tiles


@settings(max_examples=40, deadline=None)
@given(st.integers(8, 60), st.integers(8, 60), st.sampled_from([4, 8]), st.integers(0, 100))
def test_tiles_cover_everything_and_blending_gives_the_picture_back(height, width, side, seed):
    image = torch.rand(1, 2, height, width, generator=torch.Generator().manual_seed(seed))
    places = grid_of(height, width, side)
    assert len(set(places)) == len(places)
    assert all(0 <= r <= height - side and 0 <= c <= width - side for r, c in places)
    rows = sorted({r for r, _ in places})
    assert all(b - a <= side - min(OVERLAP, side // 4) for a, b in itertools.pairwise(rows))
    tiles = torch.cat([image[:, :, r : r + side, c : c + side] for r, c in places])
    assert torch.allclose(blended(tiles, places, (height, width)), image[0], atol=1e-6)


def test_the_middle_square_and_small_pictures():
    image = torch.arange(24.0).view(1, 1, 4, 6) / 24
    assert torch.equal(middle(image), image[:, :, :, 1:5])
    assert at_least(image, 8).shape == (1, 1, 8, 12)
    assert at_least(image, 4) is image


# ----------------------------------------------------------------------------------------------------------------------
# Bad input


def other_task() -> None:
    config = RestoreConfig()
    checkpoint.save(Path("restore.safetensors"), 1, config, torch.nn.Linear(2, 2))


def misfit() -> None:
    config = build(GenerateConfig, PLAN)
    checkpoint.save(Path("misfit.safetensors"), 1, config, torch.nn.Linear(2, 2))


def wrote(name: str, content: bytes):
    return lambda: Path(name).write_bytes(content)


def earlier() -> None:
    Path("done").mkdir()
    Path("done/fit.json").write_text("{}")


def foreign() -> None:
    Path("site").mkdir()
    Path("site/index.html").write_text("my homepage")


def linked() -> None:
    Path("y").mkdir()
    photo("y/fitted.png")
    Path("l.png").symlink_to("y/fitted.png")


def twice() -> None:
    Path("y").mkdir()
    Path("y/beside.png").hardlink_to("a.png")


def several_frames() -> None:
    frames = [Image.new("L", (16, 16), k) for k in (0, 255)]
    frames[0].save("moving.gif", save_all=True, append_images=frames[1:])


GREY = "--checkpoint grey.safetensors"
BAD = [
    ("no picture", None, "fit", "picture"),
    ("missing picture", None, f"fit b.png {GREY}", "b.png, which cannot be opened"),
    ("a folder", lambda: Path("p").mkdir(), f"fit p {GREY}", "the folder p"),
    ("empty file", wrote("e.png", b""), f"fit e.png {GREY}", "empty"),
    ("not a picture", wrote("t.png", b"hello"), f"fit t.png {GREY}", "none of them or is damaged"),
    ("damaged", lambda: wrote("d.png", photo()[:200])(), f"fit d.png {GREY}", "d.png"),
    ("several frames", several_frames, f"fit moving.gif {GREY}", "2 frames"),
    ("too small", lambda: photo("s.png", height=5), f"fit s.png {GREY}", "at least 8 x 8"),
    ("CMYK", lambda: Image.new("CMYK", (20, 20)).save("k.jpg"), f"fit k.jpg {GREY}", "CMYK"),
    ("no checkpoint", None, "fit a.png --checkpoint nothing", "no file is called 'nothing'"),
    ("a pickle", wrote("w.safetensors", b"\x80\x04picked"), "fit a.png --checkpoint w.safetensors", "pickle"),
    ("damaged checkpoint", wrote("w.safetensors", b"w" * 50), "fit a.png --checkpoint w.safetensors", "damaged"),
    ("of another task", other_task, "fit a.png --checkpoint restore.safetensors", "a generator"),
    ("weights that do not fit", misfit, "fit a.png --checkpoint misfit.safetensors", "do not fit"),
    ("way", None, f"fit a.png {GREY} --how half", "'whole', 'tiles'"),
    ("restarts", None, f"fit a.png {GREY} --restarts -1", "--restarts"),
    ("many restarts", None, f"fit a.png {GREY} --restarts 101", "at most 100"),
    ("steps", None, f"fit a.png {GREY} --max-steps 1", "--max-steps"),
    ("seed", None, f"fit a.png {GREY} --seed -3", "--seed"),
    ("threads", None, f"fit a.png {GREY} --threads 0", "--threads"),
    ("device", None, f"fit a.png {GREY} --device tpu", "device"),
    ("not a number", None, f"fit a.png {GREY} --restarts few", "--restarts"),
    ("unknown option", None, f"fit a.png {GREY} --restart 3", "--restarts"),
    ("output is a file", wrote("out", b"x"), f"fit a.png {GREY} --output out", "is a file"),
    ("earlier fit", earlier, f"fit a.png {GREY} --output done", "--overwrite"),
    ("foreign page", foreign, f"fit a.png {GREY} --output site", "site/index.html, which exists. Pass --overwrite"),
    ("the picture by a link", linked, f"fit l.png {GREY} --output y --overwrite", "own"),
    ("the picture by a second name", twice, f"fit a.png {GREY} --output y --overwrite", "own"),
    ("no name", None, f"fit a.png {GREY} --output=", "--output: expected the name"),
    ("the picture's folder", None, f"fit a.png {GREY} --output .", "own"),
]


@pytest.mark.parametrize(("prepare", "words", "said"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_a_mistake_is_one_sentence(prepare, words, said, capsys):
    photo()
    if prepare is not None:
        prepare()
    before = snapshot()
    capsys.readouterr()
    assert main(words.split()) == 2
    out, errors = capsys.readouterr()
    assert out == "" and errors.startswith("jiio: ") and errors.count("\n") == 1 and said in errors
    assert "Traceback" not in errors and snapshot() == before


def test_too_many_pixels_for_tiles(monkeypatch, capsys):
    monkeypatch.setattr("jiio.tasks.generate.fit.picture.MOST", 100)
    photo()
    assert main(["fit", "a.png", "--checkpoint", "grey.safetensors"]) == 2
    assert "--how whole" in capsys.readouterr().err and not Path("a-fit").exists()
