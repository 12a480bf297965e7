"""Image families, damaged data, and batches that are functions of (seed, step)."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from jiio.outputs.seeds import derive, generator
from jiio.tasks.frame.files import InputError, read_image
from jiio.tasks.images import batches
from jiio.tasks.images.batches import augment, batch_indices, resident, resized, training_batch
from jiio.tasks.images.config import DataConfig
from jiio.tasks.images.families import load_images


def check_images(images, count, config):
    assert images.shape == (count, config.channels, config.size, config.size)
    assert images.dtype == torch.float32
    assert float(images.min()) >= 0.0 and float(images.max()) <= 1.0
    assert float(images.std()) > 0.05


def test_faces_need_nothing_and_are_always_the_same(monkeypatch):
    monkeypatch.delenv("JIIO_DATA", raising=False)
    config = DataConfig()
    images, again = load_images(config), load_images(config)
    check_images(images.train, 80, config)
    check_images(images.test, 20, config)
    assert torch.equal(images.train, again.train) and torch.equal(images.test, again.test)
    flat = torch.cat([images.train, images.test]).flatten(1)
    assert len(flat.unique(dim=0)) == 100  # no test face is among the training faces


def test_size_channels_and_limits():
    config = DataConfig(size=16, channels=3, train_limit=7, test_limit=2)
    images = load_images(config)
    check_images(images.train, 7, config)
    check_images(images.test, 2, config)
    assert torch.equal(images.train[:, 0], images.train[:, 2])  # grey faces


def test_celeba(data_root):
    config = DataConfig(family="celeba", size=32, channels=3, train_limit=50, test_limit=10)
    images = load_images(config, data_root=data_root)
    check_images(images.train, 50, config)
    check_images(images.test, 10, config)


def test_mnist(data_root):
    config = DataConfig(family="mnist", size=28)
    images = load_images(config, data_root=data_root)
    check_images(images.train, 60_000, config)
    check_images(images.test, 10_000, config)
    assert images.train_labels is not None and images.test_labels is not None
    assert images.test_labels[:5].tolist() == [7, 2, 1, 0, 4]


def test_cifar10(data_root):
    config = DataConfig(family="cifar10", size=32, channels=3, test_limit=100)
    images = load_images(config, data_root=data_root)
    check_images(images.train, 20_000, config)
    assert images.test_labels is not None and images.test_labels[:5].tolist() == [3, 8, 8, 0, 6]
    # Channel means of the whole training set as usually quoted: 0.491, 0.482, 0.447.
    assert images.train.mean((0, 2, 3)).tolist() == pytest.approx([0.491, 0.482, 0.447], abs=0.005)


def save_images(folder, count=10, size=(20, 30)):
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(count):
        Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / f"{i:02}.png")


def test_a_folder_of_images(tmp_path):
    save_images(tmp_path / "photos")
    config = DataConfig(family=f"folder:{tmp_path / 'photos'}", size=16)
    images = load_images(config)
    check_images(images.train, 8, config)
    check_images(images.test, 2, config)
    everything = load_images(DataConfig(family=config.family, size=16, test_share=1.0))
    assert len(everything.train) == 0 and torch.equal(everything.test[8:], images.test)
    with pytest.raises(InputError, match="training image"):
        training_batch(everything.train, config, seed=0, step=0)


@pytest.mark.parametrize("family", ["celeba", "mnist", "cifar10"])
def test_missing_data_say_what_to_do(family, tmp_path, monkeypatch):
    monkeypatch.delenv("JIIO_DATA", raising=False)
    with pytest.raises(InputError, match=r"data\.family: .*--data-root.*JIIO_DATA.*faces"):
        load_images(DataConfig(family=family))
    with pytest.raises(InputError, match=r"data\.family: .*--data-root.*JIIO_DATA.*faces"):
        load_images(DataConfig(family=family), data_root=tmp_path)
    monkeypatch.setenv("JIIO_DATA", str(tmp_path))
    with pytest.raises(InputError, match=str(tmp_path)):
        load_images(DataConfig(family=family))


def test_truncated_mnist(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    whole = struct.pack(">i", 0x803) + struct.pack(">3i", 5, 28, 28) + bytes(5 * 28 * 28)
    for damaged in (whole[:-1], whole[:6], gzip.compress(whole)[:-20]):
        (raw / "train-images-idx3-ubyte").write_bytes(damaged)
        with pytest.raises(InputError, match="not a whole MNIST file"):
            load_images(DataConfig(family="mnist", size=28), data_root=tmp_path)


def test_damaged_cifar(tmp_path):
    (tmp_path / "cifar10").mkdir()
    path = tmp_path / "cifar10" / "cifar10_20k_10k.npz"
    np.savez(path, something=np.zeros(3))
    whole = path.read_bytes()
    for damaged in (whole, whole[:40], b"not an archive"):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="not a whole CIFAR-10 file"):
            load_images(DataConfig(family="cifar10", size=32), data_root=tmp_path)


def test_images_that_cannot_be_read(tmp_path):
    good = tmp_path / "good.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)).save(good)
    whole = good.read_bytes()
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "short.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "flipped.png").write_bytes(whole[:60] + bytes(b ^ 255 for b in whole[60:]))
    (tmp_path / "folder.png").mkdir()
    for name in ("missing", "empty", "text", "short", "flipped", "folder"):
        with pytest.raises(InputError, match=f"{name}.png"):
            read_image("image", tmp_path / f"{name}.png", channels=1)
    with pytest.raises(InputError, match="at most 100 pixels"):
        read_image("image", good, channels=1, max_pixels=100)


def test_a_decompression_bomb_is_refused_before_it_unfolds(tmp_path):
    path = tmp_path / "bomb.png"
    Image.new("1", (14_000, 14_000)).save(path)  # 196 million pixels in 24 kB
    assert path.stat().st_size < 1_000_000
    with pytest.raises(InputError, match="pixels"):
        read_image("image", path, channels=1)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "LA", "CMYK", "I;16"])
def test_every_usual_kind_of_image_is_read(tmp_path, mode):
    ramp = np.linspace(0, 255, 64, dtype=np.uint8).reshape(8, 8)
    deep = Image.fromarray(ramp.astype(np.uint16) * 257)
    image = deep if mode == "I;16" else Image.fromarray(ramp).convert(mode)
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    image.save(path)
    for channels in (1, 3):
        pixels = read_image("image", path, channels=channels)
        assert pixels.shape == (8, 8, channels) and pixels.dtype == np.float32
        if mode not in ("1", "P"):
            np.testing.assert_allclose(pixels[:, :, 0], ramp / 255.0, atol=0.01)


def test_grey_is_a_weighted_mean_and_resizing_keeps_the_range():
    images = torch.rand(2, 3, 12, 12, generator=generator(0))
    grey = resized(images, 12, 1)
    torch.testing.assert_close(grey[:, 0], images[:, 0] * 0.299 + images[:, 1] * 0.587 + images[:, 2] * 0.114)
    small = resized((images > 0.5).float(), 7, 3)
    assert small.shape == (2, 3, 7, 7) and float(small.min()) >= 0.0 and float(small.max()) <= 1.0


def test_every_epoch_is_a_new_permutation():
    picked = torch.cat([batch_indices(10, 4, seed=3, step=step) for step in range(10)])
    epochs = picked.view(4, 10)
    assert all(sorted(epoch.tolist()) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == 4


def test_batches_are_functions_of_seed_and_step():
    images, config = torch.rand(10, 1, 8, 8, generator=generator(0)), DataConfig(size=8, batch_size=4, shift=2)
    forward = [training_batch(images, config, seed=1, step=step) for step in range(6)]
    backward = [training_batch(images, config, seed=1, step=step) for step in reversed(range(6))]
    assert all(torch.equal(a, b) for a, b in zip(forward, reversed(backward), strict=True))
    assert not torch.equal(forward[0], training_batch(images, config, seed=2, step=0))
    assert training_batch(images, DataConfig(size=8, batch_size=25), seed=0, step=0).shape[0] == 25


def test_batches_are_made_where_the_images_lie_and_are_the_same_everywhere(gpu):
    images, config = torch.rand(10, 3, 8, 7, generator=generator(0)), DataConfig(size=8, batch_size=6, shift=2)
    near = resident(images, gpu)
    assert near.is_cuda and resident(images, torch.device("cpu")) is images
    for step in range(3):
        batch = training_batch(near, config, seed=1, step=step)
        assert batch.is_cuda and torch.equal(batch.cpu(), training_batch(images, config, seed=1, step=step))


def test_many_images_stay_where_they_are(gpu, monkeypatch):
    monkeypatch.setattr(batches, "RESIDENT", 100)
    images = torch.rand(10, 3, 8, 8)
    assert resident(images, gpu) is images and resident(images[:1, :1, :5, :5], gpu).is_cuda


def test_augmentation_mirrors_and_shifts_whole_images():
    images = torch.rand(64, 1, 9, 9, generator=generator(0))
    config = DataConfig(size=9, shift=1)
    changed = augment(images, config, generator=generator(1))
    padded = torch.nn.functional.pad(images, (1,) * 4, mode="replicate")
    seen = set()
    for one, source in zip(changed, padded, strict=True):
        found = [
            (flip, y, x)
            for flip in (False, True)
            for y in range(3)
            for x in range(3)
            if torch.equal(one, (source.flip(2) if flip else source)[:, y : y + 9, x : x + 9])
        ]
        assert len(found) == 1
        seen.update(found)
    assert len(seen) > 12  # of the 18 kinds
    plain = augment(images, DataConfig(size=9, shift=0, mirror=False), generator=generator(1))
    assert torch.equal(plain, images)


def test_seeds_do_not_depend_on_the_process():
    assert derive(0, "step", 1) == 2752179012869973653
    assert len({derive(s, "a", i) for s in range(50) for i in range(50)}) == 2500
    assert derive(1, 23) != derive(12, 3)
