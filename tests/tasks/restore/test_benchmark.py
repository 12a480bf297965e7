"""The benchmark: figures that are functions of seed and name, that scikit-image confirms, and that can be continued."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

import toy
from jiio import ArgumentError
from jiio.outputs.seeds import generator
from jiio.tasks.cli import main
from jiio.tasks.frame.files import InputError
from jiio.tasks.images.sets import SETS, load_set, tuning_pictures
from jiio.tasks.maps.corruption import Downsampling, GaussianBlur, GaussianNoise, RandomHoles
from jiio.tasks.restore.base import AbstractRestorer, Restoration
from jiio.tasks.restore.compare.baselines import Baseline
from jiio.tasks.restore.compare.benchmark import DEFINITIONS, Benchmark, benchmark
from toy_restorer import SmoothRestorer

FILL = Baseline("fill", lambda operator: True, lambda y, operator: operator.start(y))
SCALE = Baseline("scale", lambda operator: True, lambda y, operator, *, factor: factor * y, {"factor": (0.5, 0.9, 1.0)})


def pictures(channels: int = 1) -> dict[str, torch.Tensor]:
    """Two pictures of different sizes."""
    shapes = {"a.png": (20, 26), "b.png": (17, 15)}
    return {
        name: 0.3
        + 0.4 * torch.nn.functional.avg_pool2d(torch.rand(1, channels, h + 6, w + 6, generator=generator(h)), 7, 1)
        for name, (h, w) in shapes.items()
    }


class Keep(AbstractRestorer):
    """Gives back what it was started from, and remembers it."""

    channels = 1

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[torch.Tensor, dict]] = []
        self.inner = SmoothRestorer(1)

    def restore(self, y, operator, **settings) -> Restoration:
        self.seen.append((y, settings))
        return self.inner.restore(y, operator, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "corruption", [GaussianNoise(0.1), RandomHoles(0.5), GaussianBlur(width=0.8), Downsampling(2)], ids=repr
)
def test_rows_and_means(corruption):
    lines = []
    result = benchmark(
        {"smooth": SmoothRestorer(1)}, pictures(), corruption=corruption, baselines=[FILL], report=lines.append
    )
    assert [(row["method"], row["picture"]) for row in result.rows] == [
        (method, picture) for picture in ("a.png", "b.png") for method in ("start", "fill", "smooth")
    ]
    means = {row["method"]: row for row in result.means()}
    for method, mean in means.items():
        rows = [row for row in result.rows if row["method"] == method]
        assert mean["pictures"] == 2
        for key in ("PSNR", "SSIM"):
            assert mean[key] == pytest.approx((rows[0][key] + rows[1][key]) / 2)
    assert means["smooth"]["converged"] == 1.0 and means["smooth"]["evaluations"] > 5 < means["smooth"]["VJPs"]
    assert means["fill"]["PSNR"] == means["start"]["PSNR"] and "converged" not in means["fill"]
    assert len(lines) == 2 and lines[1].startswith("2 of 2: b.png, smooth ")


@pytest.mark.parametrize("channels", [1, 3])
def test_figures_are_those_of_scikit_image(channels):
    """From the measurement on: the noise of a picture follows from seed and name, and the figures from it."""
    shots = pictures(channels)
    result = benchmark({}, shots, corruption=GaussianNoise(0.2), baselines=[FILL], seed=5)
    for row in result.rows[::2]:
        clean = shots[row["picture"]]
        noise = torch.randn(clean.shape, generator=generator(5, "noise", row["picture"]))
        a, b = clean[0].double().numpy(), (clean + 0.2 * noise).clamp(0, 1)[0].double().numpy()
        assert row["PSNR"] == pytest.approx(peak_signal_noise_ratio(a, b, data_range=1.0), abs=1e-5)
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": 0}
        assert row["SSIM"] == pytest.approx(structural_similarity(a, b, data_range=1.0, **options), abs=1e-5)


def test_a_picture_has_the_same_figures_in_any_company():
    both, seeds = pictures(), {}
    for seed in (0, 1):
        whole = benchmark({}, both, corruption=RandomHoles(0.4), baselines=[FILL], seed=seed)
        alone = benchmark({}, {"b.png": both["b.png"]}, corruption=RandomHoles(0.4), baselines=[FILL], seed=seed)
        strip = lambda rows: [{k: v for k, v in row.items() if k != "seconds"} for row in rows]  # noqa: E731
        assert strip(whole.rows)[2:] == strip(alone.rows)
        seeds[seed] = alone.rows[0]["PSNR"]
    assert seeds[0] != seeds[1]


def test_all_methods_see_the_same_measurement_and_the_settings_reach_the_solve():
    keep, seen = Keep(), []

    def watch(y, operator):
        seen.append(y)
        return y

    watcher = Baseline("watch", lambda operator: True, watch)
    settings = {"max_steps": 3}
    benchmark({"keep": keep}, pictures(), corruption=GaussianNoise(0.1), baselines=[watcher], settings=settings)
    assert [torch.equal(a, b) for a, (b, _) in zip(seen, keep.seen, strict=True)] == [True, True]
    assert all(given == {"on_failure": "ignore", "max_steps": 3} for _, given in keep.seen)


def test_a_solve_that_does_not_converge_is_counted():
    result = benchmark(
        {"smooth": SmoothRestorer(1)},
        pictures(),
        corruption=GaussianNoise(0.1),
        baselines=[],
        settings={"max_steps": 2},
    )
    assert result.means()[1]["converged"] == 0.0


def test_baselines_are_tuned_once_on_other_pictures():
    lines = []
    tuning = [torch.rand(1, 1, 16, 16, generator=generator(i)) for i in range(2)]
    arguments = {"corruption": GaussianNoise(0.01), "baselines": [SCALE], "tuning": tuning, "report": lines.append}
    result = benchmark({}, pictures(), **arguments)
    assert result.tuned == {"scale": {"factor": 1.0}}
    assert lines[0] == "tuned on 2 pictures: scale, factor 1.0" and len(lines) == 3
    given = Benchmark(tuned={"scale": {"factor": 0.5}})
    assert benchmark({}, pictures(), **arguments, done=given).tuned == {"scale": {"factor": 0.5}}
    with pytest.raises(ArgumentError, match="pictures to tune scale on"):
        benchmark({}, pictures(), corruption=GaussianNoise(0.01), baselines=[SCALE])


def test_a_benchmark_goes_on_where_it_stopped():
    """Stopped after the first picture, it measures the second alone and ends with the same figures."""
    arguments = {"corruption": GaussianNoise(0.1), "baselines": [FILL]}
    whole = benchmark({"smooth": SmoothRestorer(1)}, pictures(), **arguments)

    def stop(so_far):
        raise KeyboardInterrupt

    kept = Benchmark()
    with pytest.raises(KeyboardInterrupt):
        benchmark({"smooth": SmoothRestorer(1)}, pictures(), **arguments, done=kept, after=stop)
    assert {row["picture"] for row in kept.rows} == {"a.png"}
    keep = Keep()
    again = benchmark({"smooth": keep}, pictures(), **arguments, done=kept)
    assert len(keep.seen) == 1
    assert [row["PSNR"] for row in again.rows] == [row["PSNR"] for row in whole.rows]


def test_failures_name_the_method_and_the_picture():
    def refuse(y, operator):
        raise InputError("y: expected something else.")

    picky = Baseline("picky", lambda operator: True, refuse)
    with pytest.raises(InputError, match=r"^picky, a\.png: y: expected something else\.$"):
        benchmark({}, pictures(), corruption=GaussianNoise(0.1), baselines=[picky])
    with pytest.raises(ArgumentError, match="at least one picture"):
        benchmark({}, {}, corruption=GaussianNoise(0.1))


def test_a_picture_smaller_than_the_window_has_no_ssim():
    result = benchmark({}, {"tiny": torch.rand(1, 1, 8, 30)}, corruption=GaussianNoise(0.1), baselines=[])
    assert math.isnan(result.rows[0]["SSIM"]) and result.rows[0]["PSNR"] > 15


# -- sets of pictures


def save(folder: Path, name: str, size: tuple[int, int], channels: int = 1, seed: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shape = (*size, 3) if channels == 3 else size
    pixels = torch.randint(60, 200, shape, generator=generator(seed), dtype=torch.uint8)
    Image.fromarray(pixels.numpy()).save(folder / name)


def test_a_folder_keeps_the_sizes_of_its_pictures(tmp_path):
    save(tmp_path, "b.png", (12, 30))
    save(tmp_path, "a.png", (20, 11), channels=3)
    save(tmp_path, ".hidden.png", (5, 5))
    (tmp_path / "notes.txt").write_text("not a picture")
    for channels in (1, 3):
        found = load_set("--on", f"folder:{tmp_path}", channels=channels)
        assert {name: tuple(p.shape) for name, p in found.items()} == {
            "a.png": (1, channels, 20, 11),
            "b.png": (1, channels, 12, 30),
        }
        assert all(p.dtype == torch.float32 and 0.0 <= float(p.min()) <= float(p.max()) <= 1.0 for p in found.values())
    assert list(load_set("--on", f"folder:{tmp_path}", channels=1, limit=1)) == ["a.png"]


def test_faces_and_what_they_are_tuned_on():
    faces = load_set("--on", "faces", channels=1, limit=3)
    assert list(faces) == ["face-00", "face-01", "face-02"] and faces["face-00"].shape == (1, 1, 24, 24)
    tuning = tuning_pictures("faces", channels=1)
    assert len(tuning) == 8
    assert not any(torch.equal(a, b) for a in tuning for b in load_set("--on", "faces", channels=1).values())


def test_folders_are_tuned_on_photographs():
    for channels in (1, 3):
        found = tuning_pictures("folder:anything", channels=channels)
        assert len(found) >= 4
        assert all(p.shape[1] == channels and max(p.shape[2:]) == 180 and float(p.max()) <= 1.0 for p in found)


@pytest.mark.parametrize(
    ("name", "channels", "words"),
    [
        ("set13", 1, "Did you mean 'set12'?"),
        ("folder:absent", 1, "which is not a folder"),
        ("set12", 3, "a set of colour pictures, which the weights are for, got set12"),
        ("cbsd68", 1, "a set of grey pictures"),
        ("faces", 3, "a set of colour pictures"),
        ("set12", 1, "--on: expected the pictures of set12 in denoising/Set12, got no folder to look in"),
    ],
)
def test_sets_that_cannot_be_had(name, channels, words, monkeypatch, tmp_path):
    monkeypatch.delenv("JIIO_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        load_set("--on", name, channels=channels)
    assert words in str(error.value)


def test_known_sets(data_root):
    for name, known in SETS.items():
        if not (data_root / known.folder).is_dir():
            pytest.skip(f"needs {known.folder}")
        found = load_set("--on", name, channels=known.channels, data_root=data_root)
        assert len(found) == {"set12": 12, "bsd68": 68, "cbsd68": 68}[name]
        assert len({p.shape for p in found.values()}) > 1
    tuning = tuning_pictures("set12", channels=1, data_root=data_root)
    assert [tuple(p.shape) for p in tuning] == [(1, 1, 180, 180)] * 8


# -- the command


@pytest.fixture
def folder(monkeypatch, tmp_path, capsys):
    """``toy.yaml`` trained into ``runs``, and two photographs in ``photos``."""
    monkeypatch.setitem(toy.TABLE["task"], "toy", "toy_restorer:ToyRestoring")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JIIO_DATA", raising=False)
    Path("toy.yaml").write_text(toy.YAML)
    assert main(["train", "toy.yaml", "--steps", "4"]) == 0
    save(Path("photos"), "a.png", (20, 26))
    save(Path("photos"), "b.png", (17, 15), seed=1)
    monkeypatch.setattr("jiio.tasks.restore.compare.baselines.BASELINES", (FILL,))
    capsys.readouterr()
    return tmp_path


ON = ["compare", "runs", "--on", "folder:photos"]


def test_the_command_measures_restorers(folder, capsys):
    corruption = ["--corruption.name", "RandomHoles", "--corruption.options", '{"missing": 0.3}']
    assert main([*ON, *corruption, "--per-image", "--json", "out/figures.json", "--joint.max_steps", "150"]) == 0
    out, errors = capsys.readouterr()
    lines = errors.splitlines()
    assert out == "" and lines[0].startswith("1 of 2: a.png, runs ")
    assert [line.split()[:2] for line in lines[2:9]] == [
        ["method", "picture"],
        *([method, picture] for picture in ("a.png", "b.png") for method in ("start", "fill", "runs")),
    ]
    assert lines[9].split()[:4] == ["method", "pictures", "PSNR", "SSIM"]
    figures = json.loads(Path("out/figures.json").read_text())
    assert figures["corruption"] == {"name": "RandomHoles", "options": {"missing": 0.3}}
    assert figures["definitions"] == DEFINITIONS and figures["joint"] == {"max_steps": 150}
    assert [row["method"] for row in figures["mean"]] == ["start", "fill", "runs"] and len(figures["rows"]) == 6
    assert figures["mean"][2]["converged"] == 1.0


def test_the_command_without_a_corruption_takes_noise_of_25_levels(folder, capsys):
    assert main([*ON, "--limit", "1", "--no-baselines"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["corruption"] == {"name": "GaussianNoise", "options": {"sigma": 25 / 255}}
    assert [row["method"] for row in figures["mean"]] == ["start", "runs"]
    assert figures["mean"][0]["PSNR"] == pytest.approx(20.17, abs=1.0)  # 20 log10(255 / 25), of few pixels


def test_the_command_goes_on(folder, capsys):
    """Killed while it measured the second picture: the first is in the file, and is not measured again."""
    arguments = [*ON, "--json", "figures.json", "--resume"]
    assert main([*arguments, "--limit", "1"]) == 0
    first = json.loads(Path("figures.json").read_text())
    capsys.readouterr()
    assert main(arguments) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if " of 2: " in line]
    assert [line.partition(",")[0] for line in lines] == ["2 of 2: b.png"]
    second = json.loads(Path("figures.json").read_text())
    assert second["rows"][:3] == first["rows"] and len(second["rows"]) == 6
    assert main([*arguments, "--seed", "1"]) == 2
    assert "--resume: expected figures of the same run (seed 1), got figures.json with 0." in capsys.readouterr().err
    assert json.loads(Path("figures.json").read_text()) == second


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("compare runs", "the following arguments are required: --on."),
        ("compare runs --on photos", "--on: expected a set of pictures, got 'photos'"),
        ("compare runs --on set12", "--data-root"),
        ("compare runs --on folder:absent", "absent, which is not a folder"),
        ("compare runs --on folder:photos --limit 0", "--limit: expected a whole number of at least 1"),
        ("compare runs --on folder:photos --seed -1", "--seed: expected"),
        ("compare runs --on folder:photos --threads 0", "--threads: expected"),
        ("compare runs --on folder:photos --device tpu", "device: expected"),
        ("compare runs --on folder:photos --data.size 8", "--data.size: no such option"),
        ("compare runs --on folder:photos --resume", "--resume: expected --json"),
        ("compare runs --on folder:photos --resume --json toy.yaml", "--json: expected the figures of jiio compare"),
        ("compare runs --on folder:photos --json toy.yaml", "toy.yaml, which exists. Pass --overwrite"),
        ("compare runs --on folder:photos --json photos/a.png --overwrite", "never overwritten"),
        ("compare runs --on folder:photos --json runs/weights.safetensors --overwrite", "never overwritten"),
        ("compare runs --on folder:photos --json photos", "--json: expected the name of a file"),
        ("compare runs --on folder:photos --corruption.name Blur", "no corruption is called 'Blur'"),
        ("compare runs --on folder:photos --joint.max_steps 1", "joint.max_steps: expected"),
        ("compare runs runs --on folder:photos", "different checkpoints, got the same one twice"),
        ("compare absent --on folder:photos", "CHECKPOINT: no file is called 'absent'"),
        ("compare toy.yaml --on folder:photos", "not a checkpoint"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(line, words, folder, capsys):
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    code = main(line.split())
    out, errors = capsys.readouterr()
    assert code == 2 and out == "" and len(errors.splitlines()) == 1
    assert words in errors and errors.startswith("jiio: ") and errors.rstrip()[-1] in ".?"
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


def test_two_checkpoints_in_one_table(folder, capsys):
    Path("runs").rename("first")
    assert main(["train", "toy.yaml", "--steps", "4", "--output", "second"]) == 0
    capsys.readouterr()
    assert main(["compare", "first", "second", "--on", "folder:photos", "--no-baselines"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert [row["method"] for row in figures["mean"]] == ["start", "first", "second"]
    assert list(figures["weights"]) == ["first", "second"]
