# %% [markdown]
# # My physics, used and trained
#
# You know how your instrument turns an image into a measurement. That is all a restorer needs to be told; and where
# the images are all of one kind, a small one can be trained through the solve.

# %%
from dataclasses import replace
from pathlib import Path

import torch
from skimage.data import camera

import jiio
from jiio import tasks
from jiio.tasks.frame.choices import Choice

photo = torch.from_numpy(camera()[60:124, 170:234].copy())[None, None] / 255  # (1, 1, 64, 64)

# %% [markdown]
# ## Used
#
# An interferometer sees sums and differences of neighbours, not pixels. Nobody writes its adjoint: it is that of
# autograd, and it is held to the dot test before it is used.


# %%
def fringes(image):
    """(B, 1, H, W) -> (B, 2, H, W): sums along the rows, differences along the columns."""
    return torch.cat([image + image.roll(2, 3), image - image.roll(3, 2)], 1) / 2


exact = fringes(photo)
measured = exact + 0.02 * torch.randn(exact.shape, generator=torch.Generator().manual_seed(0))
restorer = jiio.Restorer.load("prior-grey")
done = restorer(measured, fringes, sigma=0.02, shape=(1, 64, 64), max_steps=40)


def psnr(image, clean):
    return -10 * float((image.clamp(0, 1) - clean).square().mean().log10())


print(f"{psnr(done.image, photo):.1f} dB, {done.evaluations} evaluations")
assert psnr(done.image, photo) > 25

# %% [markdown]
# ## Trained
#
# Written as a class in a file of one's own, the same physics can be named by a configuration. It is drawn anew for
# every batch, so a mask or a kernel may be random.

# %%
Path("mine.py").write_text('''
from dataclasses import dataclass

import torch

from jiio.tasks.maps.base import Inpaint
from jiio.tasks.maps.corruption import AbstractCorruption


@dataclass(frozen=True)
class Stripes(AbstractCorruption):
    """Every n-th row is missing.

    Args:
        every: n
    """

    every: int = 3

    def draw(self, batch: int, height: int, width: int, *, generator: torch.Generator) -> Inpaint:
        mask = torch.ones(batch, 1, height, width)
        mask[:, :, int(torch.randint(self.every, (), generator=generator)) :: self.every] = 0.0
        return Inpaint(mask=mask)
''')

# %% [markdown]
# On the command line: `jiio train restore-faces --corruption.name mine:Stripes --steps 60`. In Python:

# %%
config = tasks.RestoreConfig(output="run", steps=60, corruption=Choice("mine:Stripes", {"every": 2}))
config = replace(config, optimiser=replace(config.optimiser, warmup=5))
checkpoint = tasks.train(config)
rows = tasks.evaluate(checkpoint)
for row in rows:
    print({name: value for name, value in row.items() if isinstance(value, str) or name.startswith("PSNR")})

# %% [markdown]
# A checkpoint says which code it needs, and nothing of it is imported unless its reader names it.

# %%
try:
    tasks.Restorer.load("run")
except jiio.JiioError as error:
    print(error)
again = tasks.Restorer.load("run", allow=["mine"])
print(type(again.restorer).__name__, again.channels)
