"""An evaluation of somebody else's model: words for objects, the images themselves, where it comes from, in parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from attack_models import blobs, convolutional, equilibrium, undated
from jiio.attacks import (
    PGD,
    SUITES,
    Audit,
    JointAttack,
    Leaderboard,
    Margin,
    Report,
    Square,
    Target,
    ThreatModel,
    evaluate,
)
from jiio.attacks.evaluation.shards import Shard
from jiio.attacks.suites import fitted, suite
from jiio.checks import ArgumentError, ArgumentTypeError

X, Y = blobs(24, seed=2)
BATCHES = [(X[i : i + 6], Y[i : i + 6]) for i in range(0, 24, 6)]
QUICK = [PGD(steps=3), Square(queries=8)]
SMALL = Audit(samples=6, steps=4, queries=8)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SUITES, "standard", lambda: list(QUICK))


def test_words_say_the_same_as_objects() -> None:
    by_object = evaluate(convolutional(), BATCHES, ThreatModel("linf", 0.06), QUICK, audit=None)
    for norm in ("linf", "Linf", "L_inf"):
        by_word = evaluate(convolutional(), BATCHES, norm, 0.06, audit=None)
        assert by_word.samples == by_object.samples and by_word.threat == by_object.threat
    assert by_word.seed == 0 and by_word.provenance["suite"] == "standard"
    assert evaluate(convolutional(), BATCHES[:1], "L2", 0.3, "standard", audit=None).threat["norm"] == "l2"


def test_bounds_go_with_the_words() -> None:
    wide = nn.Sequential(Halved(), convolutional())
    batches = [(16 * x, y) for x, y in BATCHES[:2]]
    report = evaluate(wide, batches, "linf", 16 * 0.06, bounds=(0, 16), audit=None)
    assert report.threat["bounds"] == [0.0, 16.0] and report.adversarial is not None
    assert float(report.adversarial.images.max()) <= 16


class Halved(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / 16


def test_a_suite_is_fitted_and_says_what_it_lost() -> None:
    report = evaluate(convolutional(), BATCHES[:1], "l1", 1.0, audit=None)
    assert [line["name"] for line in report.attacks] == ["PGD(steps=3)"]
    assert report.provenance["suite"] == "standard without Square(queries=8), which knows no l1"
    kept, lost = fitted(suite("deq", Target(equilibrium())), Target(equilibrium()), ThreatModel("l2", 1.0), 2)
    assert not lost and len({one.name for one in kept}) == len(kept)
    assert all(getattr(one, "objective", Margin()).least_classes <= 2 for one in kept)


def test_an_attack_that_does_not_fit_is_refused_before_any_other_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def runs(*arguments: Any) -> None:
        raise AssertionError("an attack ran")

    monkeypatch.setattr(PGD, "run", runs)
    with pytest.raises(ArgumentError, match="Square: expected a threat in linf or l2, got l1"):
        evaluate(convolutional(), BATCHES, "l1", 1.0, [PGD(), Square()])


class Modes(nn.Module):
    """Notes the mode of every call, and where its images are."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.seen = convolutional(), set[tuple[bool, torch.dtype]]()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.add((self.training, x.dtype))
        return self.inner(x)


def test_the_mode_of_the_model_is_put_back() -> None:
    model = Modes().train()
    model.inner[1].eval()  # type: ignore[index]
    evaluate(model, BATCHES[:1], "linf", 0.05, audit=None)
    assert model.seen == {(False, torch.float32)}
    assert model.training and not model.inner[1].training and model.inner[0].training  # type: ignore[index]
    convolutional().eval()


def test_images_are_moved_to_the_model() -> None:
    """Without a second device at hand: the meta device takes the images, and the model then has no numbers to give."""
    seen = []

    class Meta(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("anchor", torch.zeros(1, device="meta"))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x.device.type)
            raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, RuntimeError, NotImplementedError)):
        evaluate(Meta(), BATCHES, "linf", 0.05, [PGD(steps=1)])
    from jiio.attacks.evaluation.asked import pairs, place

    device = place(Target(Meta()))
    assert device is not None and device.type == "meta"
    assert all(x.device.type == y.device.type == "meta" for x, y in pairs(BATCHES, device))


# -- the images


@pytest.mark.parametrize("norm, radius, order", [("linf", 0.12, np.inf), ("l2", 0.5, 2)])
def test_the_saved_images_reproduce_the_report(norm: str, radius: float, order: float, tmp_path: Path) -> None:
    report = evaluate(convolutional(), BATCHES, norm, radius, audit=None)
    report.save(tmp_path / "found.npz")
    with np.load(tmp_path / "found.npz") as file:  # no pickle inside
        found = dict(file)
    with torch.no_grad():
        said = convolutional()(torch.from_numpy(found["images"])).argmax(1).numpy()
        clean = convolutional()(torch.from_numpy(found["originals"])).argmax(1).numpy()
    assert (said == found["predictions"]).all() and (clean == found["original_predictions"]).all()
    broken = [status in ("broken", "wrong") for status in report.samples["status"]]
    assert sum(broken) > 2 and ((said != found["labels"]) == broken).all()
    assert (found["labels"] == Y.numpy()).all() and (found["originals"] == X.numpy()).all()
    delta = (found["images"].astype(np.float64) - found["originals"]).reshape(24, -1)
    assert np.linalg.norm(delta, order, axis=1).max() <= float(found["radius"]) * (1 + 1e-5)
    assert found["images"].min() >= found["low"] and found["images"].max() <= found["high"]
    assert str(found["norm"]) == norm and found["radius"] == radius


def test_images_of_several_sizes_have_no_file(tmp_path: Path) -> None:
    model = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4, 4))
    report = evaluate(model, [(X[:2], Y[:2]), (X[2:4, :, :4], Y[2:4])], "linf", 0.1, audit=None, pictures=0)
    assert report.adversarial is None and report.total == 4
    with pytest.raises(ArgumentError, match="several sizes"):
        report.save(tmp_path / "found.npz")
    assert not list(tmp_path.iterdir())


def test_half_precision_is_widened(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 4)).bfloat16()
    report = evaluate(model, [(X[:4].bfloat16(), Y[:4])], "linf", 0.1, audit=None)
    report.save(tmp_path / "found.npz")
    images = torch.from_numpy(np.load(tmp_path / "found.npz")["images"])
    assert images.dtype == torch.float32 and report.adversarial is not None
    assert torch.equal(images.bfloat16(), report.adversarial.images)


# -- where it comes from


def test_the_report_says_where_it_comes_from() -> None:
    about = {"model": "my_net:Net", "data": "folder:pics", "command": "jiio attack --model my_net:Net"}
    report = evaluate(convolutional(), BATCHES, "linf", 0.06, audit=SMALL, about=about)
    told, page, content = str(report), report.to_html(), json.loads(report.to_json())["provenance"]
    assert {"weights", "seed", "device", "versions", "date"} <= set(content)
    for words in (*about.values(), content["weights"], content["date"], f"torch {torch.__version__}"):
        assert words in told and words in page
    assert "<title>my_net:Net under attack</title>" in page


def test_the_hashes_are_those_of_weights_and_data() -> None:
    def made(model: nn.Module = convolutional(), batches: Any = BATCHES) -> dict[str, Any]:  # noqa: B008
        return evaluate(model, batches, "linf", 0.06, [PGD(steps=1)], audit=None).provenance

    first, other = made(), nn.Sequential(nn.Flatten(), nn.Linear(36, 4))
    assert made(batches=[(X, Y)])["data"] == first["data"]  # however it is cut
    assert made(batches=[(X, Y.flip(0))])["data"] != first["data"] != made(batches=[(X.flip(0), Y)])["data"]
    assert made(other)["weights"] != first["weights"] == made()["weights"]


def test_the_audit_speaks_also_when_it_passes_and_when_there_was_none() -> None:
    report = evaluate(equilibrium(), BATCHES, "l2", 0.05, [PGD(steps=3), JointAttack(steps=8)], audit=None)
    assert "There was none" in str(report) and "There was none" in report.to_html()
    assert "Nothing speaks against" not in str(report) + report.to_html()
    import dataclasses

    passed = dataclasses.replace(report, audited=True)
    assert "Nothing speaks against these figures." in str(passed)
    assert "Nothing speaks against these figures." in passed.to_html()


# -- in parts


def parted(folder: Path, shard: tuple[int, int] = (0, 1)) -> Report:
    return evaluate(
        convolutional(), BATCHES, "linf", 0.06, audit=SMALL, state_path=folder, shard=shard, curve=(0.5,), pictures=2
    )


def test_parts_make_the_report_of_the_whole(tmp_path: Path) -> None:
    whole = evaluate(convolutional(), BATCHES, "linf", 0.06, audit=SMALL, curve=(0.5,), pictures=2)
    parts = [parted(tmp_path / "shared", (index, 3)) for index in (2, 0, 1)]
    assert [part.total for part in parts] == [6, 12, 6] and not any(part.audited for part in parts)
    assert sum(part.robust.count for part in parts) == whole.robust.count
    names = sorted(path.name for path in (tmp_path / "shared").iterdir())
    assert names == [*(f"batch-{i:05d}.safetensors" for i in range(4)), "settings.json"]
    joined = parted(tmp_path / "shared")
    assert undated(joined) == undated(whole)


def test_a_part_that_is_at_work_is_not_done_twice(tmp_path: Path) -> None:
    from jiio.outputs.lock import InUseError, locked

    with locked(tmp_path / "shared" / "shard-2-of-3", "state_path"):
        parted(tmp_path / "shared", (0, 3))
        with pytest.raises(InUseError):
            parted(tmp_path / "shared", (1, 3))
    assert parted(tmp_path / "shared", (1, 3)).total == 6


def test_a_part_without_batches_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="shard: expected a batch for each of the 6 parts"):
        parted(tmp_path / "shared", (5, 6))


def test_torchrun_says_which_part() -> None:
    assert Shard.of_environment({"RANK": "2", "WORLD_SIZE": "4"}) == Shard(2, 4)
    assert Shard.of_environment({}) is None and Shard.of_environment({"RANK": "0", "WORLD_SIZE": "1"}) is None
    with pytest.raises(ArgumentError, match="RANK and WORLD_SIZE"):
        Shard.of_environment({"RANK": "one", "WORLD_SIZE": "4"})


# -- several models


def test_several_models_in_one_table_and_page(tmp_path: Path) -> None:
    untrained = nn.Sequential(nn.Flatten(), nn.Linear(36, 4))
    made = {"plain": convolutional(), "untrained": untrained}
    reports = [evaluate(m, BATCHES, "linf", 0.06, audit=None, about={"model": n}) for n, m in made.items()]
    both = Leaderboard(tuple(reversed(reports)))
    assert [row["model"] for row in both.rows()] == ["plain", "untrained"]
    assert str(both).startswith("linf radius 0.06, 24 samples:") and str(reports[0].robust) in str(both)
    both.save(tmp_path / "both.html")
    page = (tmp_path / "both.html").read_text()
    assert "<title>2 models under attack</title>" in page and page.count("There was none") == 2
    both.save(tmp_path / "both.json")
    content = json.loads((tmp_path / "both.json").read_text())
    assert [one["robust"]["count"] for one in content["models"]] == [report.robust.count for report in reports]


def test_a_model_that_cannot_be_trusted_stands_last() -> None:
    import dataclasses

    good = evaluate(convolutional(), BATCHES, "linf", 0.06, audit=None)
    error = {"name": "steps", "severity": "error", "sentence": "It is not so.", "evidence": {}}
    bad = dataclasses.replace(good, findings=[error], audited=True, model=good.model | {"name": "too good"})
    both = Leaderboard((bad, good))
    assert [row["audit"] for row in both.rows()] == ["none", "NOT TO BE TRUSTED, 1 error"]
    assert "It is not so." in str(both) and "It is not so." in both.to_html()


def test_what_cannot_be_compared_is_refused() -> None:
    one, other = (evaluate(convolutional(), BATCHES, "linf", radius, audit=None) for radius in (0.05, 0.06))
    with pytest.raises(ArgumentError, match="one threat and the same samples"):
        Leaderboard((one, other))
    with pytest.raises(ArgumentTypeError, match="two reports or more"):
        Leaderboard((one,))
