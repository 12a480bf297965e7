# %% [markdown]
# # My torchdeq model made honest
#
# A classifier of torchdeq has no gradient in eval mode, or a wrong one, so that ready-made attacks fail or flatter it.
# `jiio.models.from_torchdeq` takes its parts, solves them, and differentiates exactly. Needs `pip install torchdeq`.

# %%
import torch
import torch.nn.functional as F
from torch import nn
from torchdeq import get_deq

import jiio
from jiio import attacks
from jiio.tasks.classify.data import ClassifyDataConfig, load_labelled


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.inner, self.head = nn.Linear(576, 32), nn.Linear(32, 32), nn.Linear(32, 2)
        self.deq = get_deq(f_solver="anderson", f_max_iter=30, f_tol=1e-4)

    def forward(self, x):
        u = self.stem(x.flatten(1))
        states, _ = self.deq(lambda z: torch.tanh(0.4 * self.inner(z) + u), torch.zeros_like(u))
        return self.head(states[-1])


# %%
torch.manual_seed(0)
data, net = load_labelled(ClassifyDataConfig()), Net()
optimiser = torch.optim.Adam(net.parameters(), 3e-3)
for _ in range(40):
    optimiser.zero_grad()
    F.cross_entropy(net(data.train), data.train_labels).backward()
    optimiser.step()
net.eval()

# %% [markdown]
# What an attack would be given in eval mode: PGD needs the gradient of the loss by the pixels.

# %%
pixels = data.test[:8].clone().requires_grad_()
try:
    loss = F.cross_entropy(net(pixels), data.test_labels[:8])
    given = torch.autograd.grad(loss, pixels)[0]
except RuntimeError as error:
    given = None
    print("torchdeq, eval mode:", error)

# %% [markdown]
# The same weights, the same predictions, an exact gradient in every mode.

# %%
model = jiio.models.from_torchdeq(net, data.test[:1])
with torch.no_grad():
    assert torch.allclose(model(data.test), net(data.test), atol=1e-2)
exact = torch.autograd.grad(F.cross_entropy(model(pixels), data.test_labels[:8]), pixels)[0]

# Against a finite difference along a random direction, in double precision.
double, way = model.double(), torch.randn(pixels.shape, dtype=torch.float64)
tight = {"tolerance": jiio.Tolerance(1e-12, 1e-12), "max_steps": 300}


def loss_at(step):
    moved = pixels.detach().double() + step * way
    with torch.no_grad():
        return float(F.cross_entropy(double.head(double.solve(moved, **tight).z), data.test_labels[:8]))


slope = (loss_at(1e-5) - loss_at(-1e-5)) / 2e-5
print(f"along the direction: {slope:.6f}, exact gradient {float((exact.double() * way).sum()):.6f}")
assert abs(slope - float((exact.double() * way).sum())) < 1e-2 * abs(slope) + 1e-4
if given is not None:
    print(f"cosine to what torchdeq gave: {float(F.cosine_similarity(given.flatten(), exact.flatten(), 0)):.3f}")

# %% [markdown]
# And the attacks that know equilibria can be used on it.

# %%
model.float()
batch = [(data.test, data.test_labels)]
suite = [attacks.JointAttack(steps=20), attacks.PGD(steps=5)]
report = attacks.evaluate(model, batch, "l2", 0.5, suite, audit=attacks.Audit(samples=8, steps=5))
print(report)
assert report.unconverged == 0
