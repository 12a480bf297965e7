"""Training patches: small squares cut from pictures of any size, a pure function of (seed, step)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from jiio.outputs.seeds import generator
from jiio.tasks.frame.files import read_image

from .batches import fit
from .config import DataConfig
from .sources import find_data, image_files, load_cifar10

# Families whose pictures are larger than a patch and of their own size, and where they are under the data root.
FOLDERS = {"train400": "denoising/Train400", "celeba": "celeba_1000/img"}
# Photographs that come with scikit-image; the names are those of skimage.data.
PHOTOS = {3: ("astronaut", "chelsea", "coffee", "rocket"), 1: ("astronaut", "brick", "chelsea", "coffee", "grass")}
FAMILIES = ("photos", *FOLDERS, "cifar10")
CELEBA_TRAIN = 900  # the rest are the test images of the family


def load_pictures(family: str, channels: int, *, data_root: Path | None = None) -> list[Tensor]:
    """The pictures of a family as uint8 (C, H, W): photos, train400, celeba, cifar10, or folder:PATH.

    A grey family that is asked for in colour comes grey, (1, H, W): see :func:`tint`.

    Errors: InputError where the data are missing or damaged.
    """
    if family == "photos":
        import skimage.data
        from skimage.color import rgb2gray

        pictures = [getattr(skimage.data, name)() for name in PHOTOS[channels]]
        if channels == 1:
            pictures = [p if p.ndim == 2 else (rgb2gray(p) * 255).round() for p in pictures]
        return [torch.from_numpy(p).to(torch.uint8).view(*p.shape[:2], -1).permute(2, 0, 1) for p in pictures]
    if family == "cifar10":
        images = fit(load_cifar10(DataConfig("cifar10", 32, channels), data_root)[0], 32, channels)
        return list((images * 255).round().to(torch.uint8))
    if family.startswith("folder:"):
        folder = Path(family.removeprefix("folder:"))
    else:
        folder = find_data(data_root, FOLDERS[family], f"the {family} pictures")
    paths = image_files("data.families", folder)[: CELEBA_TRAIN if family == "celeba" else None]
    grey = channels == 1 or family == "train400"
    arrays = [read_image("data.families", path, channels=1 if grey else 3) for path in paths]
    return [torch.from_numpy(a * 255).round().to(torch.uint8).permute(2, 0, 1) for a in arrays]


def draw_patches(families: list[list[Tensor]], *, channels: int, size: int, batch: int, seed: int, step: int) -> Tensor:
    """Patches (batch, channels, size, size) in [0, 1]; every family has the same share, every picture of one too.

    Patches are turned by quarters and mirrored at random. A picture smaller than a patch is continued by reflection.
    """
    source = generator(seed, "patches", step)

    def below(n: int) -> int:
        return int(torch.randint(n, (), generator=source))

    patches = []
    for _ in range(batch):
        pictures = families[below(len(families))]
        picture = pictures[below(len(pictures))]
        _, height, width = picture.shape
        top, left = below(max(height - size, 0) + 1), below(max(width - size, 0) + 1)
        patch = picture[:, top : top + size, left : left + size].float() / 255.0
        missing = (0, size - patch.shape[2], 0, size - patch.shape[1])
        if any(missing):
            patch = torch.nn.functional.pad(patch[None], missing, mode="reflect")[0]
        turn = below(8)
        patch = torch.rot90(patch, turn % 4, (1, 2))
        patch = patch.flip(1) if turn >= 4 else patch
        patches.append(patch if patch.shape[0] == channels else tint(patch, source))
    return torch.stack(patches)


def tint(grey: Tensor, source: torch.Generator) -> Tensor:
    """A colour picture (3, H, W) with the detail of a grey one (1, H, W), in [0, 1].

    Every channel is the grey value to a power of its own, between two random colours: channels that share their detail,
    as those of a photograph mostly do. It lets a colour prior learn texture from sets that only exist in grey.
    """
    power = 2.0 ** (torch.rand(3, 1, 1, generator=source) - 0.5)
    low = 0.3 * torch.rand(3, 1, 1, generator=source)
    high = 0.7 + 0.3 * torch.rand(3, 1, 1, generator=source)
    return low + (high - low) * grey**power
