# %% [markdown]
# # My CNN attacked
#
# You have a convolutional network and test images. How many of them does an adversary break, and can the figure be
# believed? This takes a minute on one CPU core.

# %%
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from jiio import attacks
from jiio.tasks.classify.data import ClassifyDataConfig, load_labelled

data = load_labelled(ClassifyDataConfig())  # faces and other pictures that come with scikit-image
print(data.train.shape, data.test.shape)

# %% [markdown]
# Any `nn.Module` that gives scores will do. This one is trained in the ordinary way, with dropout.

# %%
torch.manual_seed(0)
layers = [nn.Conv2d(1, 16, 3, 2, 1), nn.SiLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.SiLU(), nn.Flatten()]
model = nn.Sequential(*layers, nn.Dropout(0.2), nn.Linear(32 * 36, 2))
optimiser = torch.optim.Adam(model.parameters(), 3e-3)
for _ in range(60):
    optimiser.zero_grad()
    F.cross_entropy(model(data.train), data.train_labels).backward()
    optimiser.step()

# %% [markdown]
# One call. The model is put into eval mode and left as it was; the loader gives pairs of images and labels. Without a
# list of attacks the suite `standard` would run; here three quick ones, from the strongest gradients to none at all.

# %%
loader = [(data.test[:30], data.test_labels[:30]), (data.test[30:], data.test_labels[30:])]
suite = [attacks.PGD(steps=10), attacks.APGD(steps=10), attacks.Square(queries=100)]
report = attacks.evaluate(model, loader, "l2", 0.5, suite, curve=(0.5, 2.0))
print(report)

# %% [markdown]
# What speaks against the figure stands in `report.findings`, errors first. Nothing here is taken on trust: the images
# themselves are at hand, so that anybody can check every claim without this library.

# %%
assert report.trusted, report.findings
report.save("report.html")
report.save("adversarial.npz")
found = np.load("adversarial.npz")
model.eval()
with torch.no_grad():
    said = model(torch.from_numpy(found["images"])).argmax(1).numpy()

assert (said == found["predictions"]).all()
distance = np.sqrt(((found["images"].astype(float) - found["originals"]) ** 2).sum((1, 2, 3)))
assert distance.max() <= found["radius"] + 1e-5
print(f"{(said == found['labels']).mean():.1%} robust, the longest way {distance.max():.3f}")
