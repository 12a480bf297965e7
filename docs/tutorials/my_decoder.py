# %% [markdown]
# # My decoder inverted, with a constraint and the exact gradient
#
# A decoder turns a code into a picture. Inverting it is an optimisation over the code; training *through* the inversion
# needs the derivative of its result. Both in one solve.

# %%
import torch

import jiio
from jiio.models import DenseConfig, decoder
from jiio.tasks.images.config import DataConfig
from jiio.tasks.images.families import load_images

torch.manual_seed(0)
faces = load_images(DataConfig(family="faces", size=16)).train[:16]  # (16, 1, 16, 16)
model = decoder(DenseConfig(48, scaling="spectral", gain=0.6), image=(1, 16, 16), latent=8)
known = torch.ones_like(faces)
known[..., 5:11, 5:11] = 0  # a hole, which is what should be filled in

# %% [markdown]
# The objective sees what was measured; the code has to stay inside a ball. `jiio.KKT()` makes the result of the solve
# differentiable for any loss, the constraint included.


# %%
def objective(image, x):
    return (known * (image - faces)).square().flatten(1).sum(1) + 0.01 * x.square().sum(1)


def fit(model, adjoint):
    problem = model.problem(objective, prox=jiio.L2Ball(3.0))
    start = torch.zeros(len(faces), 8)
    settings = {"tolerance": jiio.Tolerance(1e-5, 1e-3), "max_steps": 60, "on_failure": "ignore"}
    return jiio.solve(problem, start.to(next(model.parameters())), adjoint=adjoint, **settings)


def loss_of(solution):
    """Also where nothing was measured: this is no longer what the solve minimises."""
    return (model.head(solution.z) - faces).square().mean()


history = []
optimiser = torch.optim.Adam(model.parameters(), 5e-3)
for _ in range(30):
    optimiser.zero_grad()
    loss = loss_of(fit(model, jiio.KKT(rtol=1e-2, max_steps=40)))
    loss.backward()
    optimiser.step()
    history.append(float(loss.detach()))
print(f"mean square error: {history[0]:.4f} before, {history[-1]:.4f} after 30 steps")
assert history[-1] < 0.7 * history[0]

# %% [markdown]
# Is the gradient right? One number of the head, in double precision, against a finite difference.

# %%
model.double()
faces, known = faces[:2].double(), known[:2].double()
weight = next(p for p in model.head.parameters() if p.dim() >= 2)


def exactly(adjoint):
    problem = model.problem(objective, prox=jiio.L2Ball(0.5))  # small enough to be active
    start = torch.zeros(2, 8, dtype=torch.float64)
    tight = jiio.Tolerance(1e-11, 1e-11)
    return jiio.solve(problem, start, adjoint=adjoint, tolerance=tight, max_steps=2000, on_failure="ignore")


gradient = torch.autograd.grad(loss_of(exactly(jiio.KKT(rtol=1e-12, max_steps=1000))), weight)[0].flatten()
place, step = int(gradient.abs().argmax()), 1e-5
values = []
for sign in (1, -1):
    with torch.no_grad():
        weight.view(-1)[place] += sign * step
        values.append(float(loss_of(exactly(jiio.Detached())).detach()))
        weight.view(-1)[place] -= sign * step
central = (values[0] - values[1]) / (2 * step)
print(f"exact {float(gradient[place]):.8f}, finite difference {central:.8f}")
assert abs(float(gradient[place]) - central) < 1e-4 * abs(central)
