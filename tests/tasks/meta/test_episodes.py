"""Episodes: which classes and images they draw, and from where."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from jiio.checks import JiioError
from jiio.tasks.meta.episodes import Classes, EpisodeConfig, episodes, load_classes
from jiio.tasks.meta.glyphs import TESTED, TRAINED, glyphs


def test_glyphs_are_a_function_of_nothing_and_scripts_do_not_mix():
    train, train_labels, _, test_labels = glyphs()
    glyphs.cache_clear()
    assert torch.equal(glyphs()[0], train)
    assert train.shape[1:] == (1, 28, 28) and float(train.min()) >= 0 and float(train.max()) <= 1
    assert int(train_labels.max()) > 300 and int(test_labels.max()) > 60
    assert int(test_labels.bincount().min()) >= 12  # fonts
    assert not set(TRAINED) & set(TESTED)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 5), st.integers(1, 3), st.integers(1, 3))
def test_an_episode_has_distinct_classes_and_distinct_images(seed, ways, shots, queries):
    labels = torch.arange(6).repeat_interleave(7)[torch.randperm(42, generator=torch.Generator().manual_seed(seed))]
    images = torch.arange(42.0).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)  # every image says which it is
    classes = Classes.of(images, labels)
    batch = classes.draw(
        3, ways=ways, shots=shots, queries=queries, source=torch.Generator().manual_seed(seed), turn=True
    )
    assert batch.support.shape == (3, ways * shots, 1, 4, 4) and batch.query.shape == (3, ways * queries, 1, 4, 4)
    for b in range(3):
        support, query = batch.support[b, :, 0, 0, 0].long(), batch.query[b, :, 0, 0, 0].long()
        assert len(set(torch.cat([support, query]).tolist())) == ways * (shots + queries)
        own = labels[support].view(ways, shots)
        assert bool((own == own[:, :1]).all()) and len(set(own[:, 0].tolist())) == ways
        assert bool((labels[query].view(ways, queries) == own[:, :1]).all())
        assert batch.labels(batch.query).tolist() == [k for k in range(ways) for _ in range(queries)]


def test_an_episode_is_a_function_of_seed_purpose_and_number():
    classes = load_classes(EpisodeConfig())[0]

    def draw(seed: int, purpose: str, number: int) -> Tensor:
        config = EpisodeConfig(ways=3)
        return episodes(classes, config, seed=seed, purpose=purpose, number=number, tasks=2, turn=True).support

    assert torch.equal(draw(0, "train", 3), draw(0, "train", 3))
    for other in ((1, "train", 3), (0, "test", 3), (0, "train", 4)):
        assert not torch.equal(draw(0, "train", 3), draw(*other))


def folder_of_classes(place: Path, classes: int = 6, images: int = 4) -> None:
    for k in range(classes):
        (place / f"class-{k}").mkdir(parents=True)
        for i in range(images):
            values = np.full((12, 12), 20 * k + i, np.uint8)
            Image.fromarray(values).save(place / f"class-{k}" / f"{i}.png")


def test_a_folder_of_classes(tmp_path):
    folder_of_classes(tmp_path / "set")
    train, test = load_classes(EpisodeConfig(family=f"folder:{tmp_path / 'set'}", size=12, test_share=0.34))
    assert [len(m) for m in train.members] == [4] * 4 and [len(m) for m in test.members] == [4] * 2
    assert float(test.images[test.members[0]].max() * 255) == pytest.approx(83)


def test_omniglot(data_root):
    if not (data_root / "omniglot" / "images_background.npz").exists():
        pytest.skip("needs Omniglot")
    train, test = load_classes(EpisodeConfig(family="omniglot"), data_root=data_root)
    assert (len(train.members), len(test.members)) == (964, 659)
    assert {len(m) for m in train.members} == {20} and train.images.shape == (19280, 1, 28, 28)
    assert 0.03 < float(train.images.mean()) < 0.2


def test_missing_data_get_a_sentence(tmp_path, monkeypatch):
    monkeypatch.delenv("JIIO_DATA", raising=False)
    with pytest.raises(JiioError, match=r"data\.family"):
        load_classes(EpisodeConfig(family="omniglot"))
    broken = tmp_path / "omniglot"
    broken.mkdir()
    (broken / "images_background.npz").write_bytes(b"PK no")
    with pytest.raises(JiioError, match="not a whole Omniglot file"):
        load_classes(EpisodeConfig(family="omniglot"), data_root=tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(JiioError, match="without any"):
        load_classes(EpisodeConfig(family=f"folder:{tmp_path / 'empty'}"))
