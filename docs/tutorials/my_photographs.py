# %% [markdown]
# # My photographs
#
# Files in, files out: noise, missing pixels and blur, with the command and from Python. The pictures here come with
# scikit-image, so that the page runs anywhere.

# %%
from pathlib import Path

import numpy as np
from PIL import Image
from skimage.data import coffee

import jiio
from jiio.tasks import restore_photo
from jiio.tasks.cli import main
from jiio.tasks.images.pictures import read_picture

rng = np.random.default_rng(0)
clean = coffee()[60:188, 180:308]  # (128, 128, 3), 8 bit
noisy = np.clip(clean + 15 * rng.standard_normal(clean.shape), 0, 255).astype(np.uint8)
Image.fromarray(noisy).save("noisy.png")

# %% [markdown]
# `jiio restore noisy.png` is the whole command. It estimates the noise, says what it did, and writes
# `noisy-restored.png`; `--report` adds a page.

# %%
assert main(["restore", "noisy.png", "--report", "noisy.html"]) == 0


def psnr(name):
    image = np.asarray(Image.open(name).convert("RGB")).astype(float)
    return 10 * np.log10(255**2 / ((image - clean) ** 2).mean())


print(f"{psnr('noisy.png'):.1f} dB, restored {psnr('noisy-restored.png'):.1f} dB")
assert psnr("noisy-restored.png") > psnr("noisy.png") + 5

# %% [markdown]
# Missing pixels: a mask of the same size, white where a pixel was measured.

# %%
keep = rng.random(clean.shape[:2]) > 0.4
Image.fromarray(np.where(keep[..., None], clean, 0).astype(np.uint8)).save("holes.png")
Image.fromarray((255 * keep).astype(np.uint8)).save("mask.png")
assert main(["restore", "holes.png", "--mask", "mask.png", "--sigma", "0"]) == 0
print(f"{psnr('holes.png'):.1f} dB, filled {psnr('holes-restored.png'):.1f} dB")

# %% [markdown]
# The same from Python, on the arrays themselves, and what the command would have printed.

# %%
picture = read_picture("picture", Path("noisy.png"))
done = restore_photo(picture, jiio.Restorer.load("prior-colour").restorer)
print(done.noise_words, done.tiled.evaluations, "evaluations")
assert done.picture.pixels.shape == (3, 128, 128)
