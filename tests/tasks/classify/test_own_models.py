"""``jiio attack --model``: somebody's own model on their own images, and every mistake as one sentence."""

from __future__ import annotations

import json
import re
import shlex
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

sys.path.append(str(Path(__file__).parent))  # what the command does with the folder it is started in
import own_models

from jiio import attacks, models
from jiio.tasks.cli import main

QUICK = [attacks.PGD(steps=3), attacks.Square(queries=4)]
RADIUS = 8 / 255
FIT = "--data npz:d.npz --norm linf --radius 8/255 --no-audit"


def pictures(count: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """8-bit images (count, 6, 6), one half a little brighter than the other, some by less than twice the radius."""
    draw = np.random.default_rng(0)
    images, labels = np.full((count, 6, 6), 120, np.int64), np.arange(count) % 2
    for i, label in enumerate(labels):
        images[i, :, 3 * label : 3 * label + 3] += 4 + 5 * i
    return (images + draw.integers(0, 3, images.shape)).astype(np.uint8), labels


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with the data in all layouts; the standard suite is a short one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JIIO_DATA", raising=False)
    monkeypatch.setitem(attacks.SUITES, "standard", lambda: list(QUICK))
    images, labels = pictures()
    np.savez("d.npz", images=images, labels=labels)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        Path(f"pics/{'lr'[label]}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(f"pics/{'lr'[label]}/{i:02d}.png")
    return tmp_path


def run(line: str) -> dict:
    """The report of a line that succeeds."""
    assert main(["attack", *shlex.split(line), "--json", "out.json", "--overwrite"]) == 0
    return json.loads(Path("out.json").read_text())


def test_a_class_a_function_and_a_model_are_the_same(capsys: pytest.CaptureFixture) -> None:
    reports = [run(f"--model own_models:{name} {FIT}") for name in ("Net", "make", "finished")]
    assert len({json.dumps(report["samples"]) for report in reports}) == 1
    assert 0 < reports[0]["robust"]["count"] < reports[0]["clean"]["count"] == 12
    told = capsys.readouterr()
    assert "own_models:Net" in told.out and "No --weights: the model is attacked as own_models:Net" in told.err
    images, labels = pictures()
    with torch.no_grad():  # a linear model: the margin says what the radius can do
        scores = own_models.Net()(torch.from_numpy(images[:, None] / np.float32(255)))
    gap = scores.gather(1, torch.from_numpy(labels)[:, None]) - scores.gather(1, 1 - torch.from_numpy(labels)[:, None])
    assert reports[0]["robust"]["count"] == int((gap[:, 0] > 10 * RADIUS).sum())


def test_options_of_the_class_and_the_attacks_of_ones_choice() -> None:
    words = """--model-options '{"scale": 5.0}' --attack PGD '{"steps": 2, "objective": "Margin"}' --attack Square"""
    report = run(f"--model own_models:Net {words} {FIT}")
    assert [line["name"] for line in report["attacks"]] == ["PGD(steps=2, objective=Margin())", "Square"]
    report = run(f"--model own_models:Net --suite standard --attack APGD '{{steps: 2}}' {FIT}")
    assert [line["name"] for line in report["attacks"]] == ["PGD(steps=3)", "APGD(steps=2)", "Square(queries=4)"]


@pytest.mark.parametrize("form", ["safetensors", "pt", "wrapped", "prefixed"])
def test_weights_of_every_form(form: str, capsys: pytest.CaptureFixture) -> None:
    state = own_models.Net(scale=-10.0).state_dict()  # the other half: everything is read wrongly
    if form == "safetensors":
        save_file(state, "w.safetensors")
    elif form == "pt":
        torch.save(state, "w.pt")
    elif form == "wrapped":
        torch.save({"state_dict": state, "epoch": 3, "optimizer": {"lr": 0.1}}, "w.pt")
    else:
        torch.save({f"module.{name}": value for name, value in state.items()}, "w.pt")
    report = run(f"--model own_models:Net --weights w.{'safetensors' if form == 'safetensors' else 'pt'} {FIT}")
    assert report["clean"]["count"] == 0
    news = capsys.readouterr().err
    assert ("'state_dict'" in news) == (form == "wrapped") and ("'module.'" in news) == (form == "prefixed")


def test_every_layout_is_the_same_data() -> None:
    images, labels = pictures()
    whole = run(f"--model own_models:Net {FIT}")["samples"]
    order = np.argsort(labels, kind="stable").reshape(2, -1).T.ravel()  # a folder gives one of each class in turn
    assert (order == np.arange(12)).all()
    colour = np.repeat(images[..., None], 3, axis=3)
    forms = {
        "hwc.npz": {"images": images[..., None], "labels": labels[:, None].astype(np.float64)},
        "chw.npz": {"x": (images[:, None] / 255).astype(np.float32), "y": labels.astype(np.int32)},
        "keras.npz": {"x_test": images, "y_test": labels.astype(np.uint8)},
        "colour.npz": {"images": colour, "labels": labels},
    }
    for name, arrays in forms.items():
        np.savez(name, **arrays)  # pyright: ignore[reportArgumentType]
        options = """--model-options '{"colours": 3}'""" if name == "colour.npz" else ""
        found = run(f"--model own_models:Net {options} {FIT.replace('d.npz', name)}")["samples"]
        assert found["y"] == whole["y"] and found["clean_label"] == whole["clean_label"]
        assert name == "colour.npz" or found["status"] == whole["status"]
    assert run(f"--model own_models:Net {FIT.replace('npz:d.npz', 'folder:pics')}")["samples"] == whole
    part = run(f"--model own_models:Net --samples 5 {FIT.replace('npz:d.npz', 'folder:pics')}")["samples"]
    assert part["y"] == [0, 1, 0, 1, 0]


def test_bounds_and_normalisation_are_other_units_of_the_same_problem() -> None:
    whole = run(f"--model own_models:Net {FIT}")["samples"]
    wide = (
        """--model-options '{"scale": 0.0392156862745098}' --bounds 0 255 --data folder:pics --norm linf --radius 8"""
    )
    assert run(f"--model own_models:Net {wide} --no-audit")["samples"]["status"] == whole["status"]
    moved = run(f"--model own_models:Net --mean 0.5 --std 0.5 {FIT}")["samples"]
    double = run(f"""--model own_models:Net --model-options '{{"scale": 20.0}}' {FIT}""")["samples"]
    assert moved["status"] == whole["status"] and moved["margin"] == pytest.approx(double["margin"], abs=1e-4)
    images, labels = pictures()
    np.savez("vectors.npz", x=images.reshape(12, 36) / 16.0, y=labels)
    vectors = "--data npz:vectors.npz --bounds 0,16 --norm Linf --radius 0.5 --no-audit"
    assert run(f"--model own_models:Net {vectors}")["threat"] == {"norm": "linf", "radius": 0.5, "bounds": [0, 16]}


@pytest.mark.parametrize("form", ["script", "export", "export of one size"])
def test_files_that_hold_the_model(form: str) -> None:
    net, x = own_models.Net().eval(), torch.zeros(4, 1, 6, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if form == "script":
            torch.jit.script(net).save("net.pt")  # type: ignore[union-attr]
        else:
            shapes = None if form == "export of one size" else ({0: torch.export.Dim.AUTO},)
            torch.export.save(torch.export.export(net, (x,), dynamic_shapes=shapes), "net.pt2")
    found = run(f"--model net.{'pt' if form == 'script' else 'pt2'} {FIT}")
    assert found["samples"] == run(f"--model own_models:Net {FIT}")["samples"]


def test_a_saved_model_and_the_function_that_it_names(capsys: pytest.CaptureFixture) -> None:
    torch.manual_seed(0)
    models.save(own_models.equilibrium(), "own.safetensors")
    assert main(["attack", *shlex.split(f"--model own.safetensors {FIT}")]) == 2
    assert "that is --allow package.module:name." in capsys.readouterr().err
    report = run(f"--model own.safetensors --allow own_models --attack JointAttack '{{steps: 5}}' {FIT}")
    assert report["solver"]["clean"]["converged"] == 1.0


def test_the_images_are_saved_and_prove_themselves() -> None:
    report = run(f"--model own_models:Net {FIT} --save found.npz --report page.html")
    found = np.load("found.npz")
    with torch.no_grad():
        said = own_models.Net()(torch.from_numpy(found["images"])).argmax(1).numpy()
    assert int((said != found["labels"]).sum()) == 12 - report["robust"]["count"] > 0
    assert np.abs(found["images"].astype(float) - found["originals"]).max() <= RADIUS + 1e-6
    assert "<title>own_models:Net under attack</title>" in Path("page.html").read_text()
    assert shlex.join(["jiio", "attack", "--model", "own_models:Net"]) in report["provenance"]["command"]


def test_parts_write_one_report_of_the_whole(capsys: pytest.CaptureFixture) -> None:
    line = f"attack --model own_models:Net {FIT} --batch 4"
    assert main([*shlex.split(line), "--json", "whole.json"]) == 0
    for part in (2, 1):
        assert main([*shlex.split(line), "--state", "kept", "--json", "parts.json", "--shard", f"{part}/2"]) == 0
        assert Path("parts.json").exists() == (part == 1)
    assert "Part 2 of 2 is done; 1 of 3 batches are there." in capsys.readouterr().err
    whole, parts = (json.loads(Path(f"{name}.json").read_text()) for name in ("whole", "parts"))
    assert {k: v for k, v in whole.items() if k != "provenance"} == {
        k: v for k, v in parts.items() if k != "provenance"
    }


def test_torchrun_says_which_part(monkeypatch: pytest.MonkeyPatch) -> None:
    for rank in (0, 1):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        line = f"attack --model own_models:Net {FIT} --batch 4 --state kept --json out.json"
        assert main(shlex.split(line)) == 0 and Path("out.json").exists() == (rank == 1)


# -- mistakes


def save(name: str, **arrays: np.ndarray) -> Callable[[], None]:
    return lambda: np.savez(name, **arrays)  # pyright: ignore[reportArgumentType]


def text(name: str, words: bytes) -> Callable[[], None]:
    def write() -> None:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(words)

    return write


def state(**changes: torch.Tensor) -> Callable[[], None]:
    return lambda: torch.save(own_models.Net().state_dict() | changes, "w.pt")


def whole_model() -> None:
    torch.save(own_models.Net(), "w.pt")


def two_sizes() -> None:
    Image.new("L", (9, 7)).save("pics/l/zz.png")


NONE: Callable[[], object] = lambda: None  # noqa: E731
IMAGES, LABELS = pictures(4)
M, T = "--model own_models:Net", "--norm linf --radius 8/255"
N = f"{M} --data npz:b.npz {T}"
W = f"{M} --weights w.pt --data npz:d.npz {T}"

BAD: list[tuple[Callable[[], object], str, str]] = [
    (NONE, FIT, "CHECKPOINT: expected a checkpoint of a classifier or --model package.module:Name, got neither"),
    (NONE, f"classify-faces {M} {FIT}", "got both"),
    (
        NONE,
        f"{M} own_models:make --weights a.pt {FIT}",
        "--weights: expected one for each --model",
    ),
    (NONE, f"{M} own_models:make {FIT} --save a.npz", "--save: expected one model"),
    (NONE, f"--model own_models {FIT}", "--model: expected package.module:Name or a file"),
    (NONE, f"--model own_models:Nett {FIT}", "Did you mean 'Net'?"),
    (NONE, f"--model nowhere_at_all:Net {FIT}", "--model: nowhere_at_all:Net cannot be imported"),
    (
        NONE,
        f"--model own_models:number {FIT}",
        "--model: expected a class, a function or a model, got own_models:number",
    ),
    (NONE, f"--model own_models:nothing {FIT}", "--model: expected a torch.nn.Module to come of the call"),
    (NONE, f"--model own_models:broken {FIT}", "raised RuntimeError: no weights at home"),
    (NONE, f"--model own_models:ends {FIT}", "raised SystemExit: 3"),
    (text("script.py", b"raise SystemExit('usage')"), f"--model script:Net {FIT}", "(SystemExit: usage)"),
    (NONE, f"{M} --model-options '{{\"scael\": 1}}' {FIT}", "Did you mean 'scale'?"),
    (NONE, f"{M} --model-options scale=1 {FIT}", "--model-options: expected names and values such as"),
    (NONE, f"--model own_models:finished --model-options '{{\"scale\": 1}}' {FIT}", "a finished model"),
    (NONE, f"--model own_models.py {FIT}", "Name what is in it: --model own_models:Name"),
    (NONE, f"--model net.onnx {FIT}", "--model: expected package.module:Name or a file"),
    (text("n.pt", b"rubbish"), f"--model n.pt {FIT}", "A state dict goes to --weights"),
    (state(), f"--model w.pt {FIT}", "A state dict goes to --weights"),
    (NONE, W, "--weights: expected a file of weights, got w.pt, which cannot be opened"),
    (whole_model, W, "Save model.state_dict(); a whole model would run code"),
    (state(extra=torch.zeros(1)), W, "1 too many (extra)"),
    (state(**{"layer.bias": torch.zeros(3)}), W, "--weights: expected layer.bias of shape (2,), got (3,)"),
    (state(**{"layer.bias": torch.tensor([0.0, float("nan")])}), W, "--weights: expected finite numbers in layer.bias"),
    (text("w.pt", b"rubbish"), W, "--weights: expected a state dict"),
    (NONE, f"classify-faces --weights w.pt {T}", "--weights: expected a --model to use it for"),
    (NONE, f"{M} {T}", "--data: expected the images to attack, as --model brings none"),
    (NONE, f"{M} --data pics {T}", "A folder of images is folder:PATH"),
    (NONE, f"{M} --data zip:a {T}", "--data: expected folder:PATH, npz:FILE or torchvision:NAME"),
    (NONE, f"{M} --data folder:nowhere {T}", "--data: expected a folder with a folder for each class"),
    (NONE, f"{M} --data folder:pics/l {T}", "a folder for each of two classes or more"),
    (two_sizes, f"{M} --data folder:pics {T}", "Pass --size N to bring them to N x N"),
    (text("pics/l/00.png", b"no"), f"{M} --data folder:pics {T}", "00.png is not an image that can be read"),
    (NONE, f"{M} --data npz:b.npz {T}", "--data: expected an .npz file, got b.npz, which cannot be opened"),
    (text("b.npz", b"PK"), N, "--data: expected an .npz file of plain arrays"),
    (text("b.npz", b"PK\x03\x04"), N, "--data: expected an .npz file of plain arrays"),
    (save("b.npz", images=IMAGES.ravel()[0], labels=LABELS), N, "--data: expected images (N, H, W, C)"),
    (NONE, f"{M} --size 9 {FIT}", "--size: expected images of folder: or torchvision: to bring to it"),
    (NONE, f"{M} --channels 3 {FIT}", "--channels: expected images of folder: to bring to it"),
    (save("b.npz", a=IMAGES), N, "--data: expected the arrays 'images' and 'labels'"),
    (save("b.npz", images=IMAGES, labels=LABELS[:3]), N, "4 images and 3 labels"),
    (save("b.npz", images=IMAGES, labels=np.eye(2)[LABELS]), N, "Of one-hot rows take labels.argmax(1)"),
    (save("b.npz", images=IMAGES, labels=LABELS + 1), N, "--data: expected labels from 0 to 1"),
    (save("b.npz", images=IMAGES * 1.0, labels=LABELS), N, "expected images inside the bounds [0, 1]"),
    (save("b.npz", images=IMAGES / np.nan, labels=LABELS), N, "--data: expected finite values"),
    (save("b.npz", images=IMAGES[:, :5], labels=LABELS), N, "--data: expected images that own_models:Net takes"),
    (save("b.npz", images=IMAGES[:0], labels=LABELS[:0]), N, "--data: expected at least one image"),
    (save("b.npz", images=np.array([{}] * 4), labels=LABELS), N, "--data: expected an .npz file of plain arrays"),
    (NONE, f"{M} --data npz:d.npz --radius 8/255", "--norm: expected a norm and a radius"),
    (NONE, f"{M} --data npz:d.npz --norm linf", "--radius: expected a norm and a radius"),
    (NONE, f"{M} --data npz:d.npz --norm linv --radius 8/255", "Did you mean 'linf'?"),
    (NONE, f"{M} --data npz:d.npz --norm linf --radius 8/0", "--radius: expected a number such as 0.5 or 8/255"),
    (NONE, f"{M} --bounds 1 0 {FIT}", "--bounds: expected two numbers, the lower one first"),
    (NONE, f"{M} --bounds 0 {FIT}", "--bounds: expected 2 numbers, got 0"),
    (NONE, f"{M} --std 0 {FIT}", "--std: expected a number above 0"),
    (NONE, f"{M} --mean 0.1 0.2 {FIT}", "mean and std: expected one number per channel, 1 of them"),
    (NONE, f"{M} --attack PDG {FIT}", "Did you mean 'PGD'?"),
    (NONE, f"{M} --attack PGD '{{\"stpes\": 1}}' {FIT}", "Did you mean 'steps'?"),
    (NONE, f'{M} --attack PGD \'{{"objective": "Marign"}}\' {FIT}', "Did you mean 'Margin'?"),
    (NONE, f"{M} --attack PGD steps 5 {FIT}", "--attack: expected a name and its settings"),
    (NONE, f"{M} --attack JointAttack {FIT}", "expected an instance of EquilibriumModel"),
    (NONE, f"{M} --suite deq {FIT}", "--suite: expected an equilibrium model for deq"),
    (NONE, f"{M} --save images.png {FIT}", "--save: expected a file whose name ends in .npz"),
    (NONE, f"{M} --save d.npz --overwrite {FIT}", "What is given is never overwritten"),
    (NONE, f"{M} --shard 0/4 --state s {FIT}", "--shard: expected I/N with I from 1 to N"),
    (NONE, f"{M} --shard 1/4 {FIT}", "--state: expected a folder that all parts share"),
    (NONE, f"{M} --data torchvision:CIFAR10 {T}", ""),  # one sentence or another, as torchvision is there or not
]


@pytest.mark.parametrize(
    ("prepare", "line", "sentence"), BAD, ids=[f"{i:02d} {bad[2][:40]}" for i, bad in enumerate(BAD)]
)
def test_a_mistake_is_one_sentence_before_anything_runs(
    prepare: Callable[[], object],
    line: str,
    sentence: str,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def runs(*arguments: object) -> None:
        raise AssertionError("an attack ran")

    monkeypatch.setattr(attacks.PGD, "run", runs)
    prepare()
    before = sorted(Path().rglob("*"))
    assert main(["attack", *shlex.split(line)]) == 2
    told, news = capsys.readouterr()
    last = [one for one in news.splitlines() if one.startswith("jiio: ")]
    assert len(last) == 1 and sentence in last[0] and "Traceback" not in news and not told
    assert re.match(r"jiio: .+[.?]$", last[0])
    assert sorted(Path().rglob("*")) == before


def test_several_models_in_one_table(capsys: pytest.CaptureFixture) -> None:
    """Each as if alone; one class with two arguments is told apart by them."""
    line = f"""--model own_models:Net own_models:Net --model-options - '{{"scale": -10.0}}' {FIT}"""
    assert main(["attack", *shlex.split(line), "--json", "two.json"]) == 0
    told, found = capsys.readouterr().out, json.loads(Path("two.json").read_text())["models"]
    assert [one["model"]["name"] for one in found] == ["own_models:Net", 'own_models:Net {"scale": -10.0}']
    assert found[0]["samples"] == run(f"--model own_models:Net {FIT}")["samples"]
    assert found[1]["clean"]["share"] == 1 - found[0]["clean"]["share"] and "NOT TO BE" not in told.split("\n\n")[0]


# -- torchvision, of which the tests need nothing but the way it is called


class Toy:
    """A data set of torchvision: the test part by the word ``split``, pictures of Pillow."""

    def __init__(self, root: str, split: str = "train") -> None:
        if root != "here":
            raise RuntimeError("Dataset not found. You can use download=True to download it")
        self.split = split

    def __len__(self) -> int:
        return 12

    def __getitem__(self, place: int) -> tuple[Image.Image, int]:
        images, labels = pictures()
        return Image.fromarray(images[place]), int(labels[place] if self.split == "test" else 9)


@pytest.fixture
def torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    package, datasets = types.ModuleType("torchvision"), types.ModuleType("torchvision.datasets")
    datasets.__dict__.update({"Toy": Toy, "__all__": ["Toy"]})
    monkeypatch.setitem(sys.modules, "torchvision", package)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", datasets)


@pytest.mark.usefixtures("torchvision")
def test_a_data_set_of_torchvision_is_the_same_data(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(f"--model own_models:Net {FIT}")["samples"]
    line = f"--model own_models:Net {FIT.replace('npz:d.npz', 'torchvision:Toy')}"
    assert run(f"{line} --data-root here")["samples"] == whole
    monkeypatch.setenv("JIIO_DATA", "here")
    assert run(f"{line} --samples 3")["samples"]["y"] == whole["y"][:3]


@pytest.mark.usefixtures("torchvision")
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("torchvision:Toi --data-root here", "Did you mean 'Toy'?"),
        ("torchvision:Toy", "--data-root: expected the folder that holds Toy"),
        ("torchvision:Toy --data-root there", "Fetch it once: torchvision.datasets.Toy('there', download=True)"),
    ],
)
def test_what_is_wrong_with_a_data_set_is_a_sentence(words: str, sentence: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["attack", *shlex.split(f"{M} --data {words} {T}")]) == 2
    assert sentence in capsys.readouterr().err
