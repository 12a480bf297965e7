"""A convolutional network of one's own under attack, with the report that says whether the figure can be believed.

python docs/gallery/own_network.py [FOLDER]
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from show import folder, panel, pyplot, save
from torch import nn

from jiio import attacks
from jiio.tasks.classify.data import ClassifyDataConfig, load_labelled

RADIUS = 0.5  # of the ball, L2


def trained(images: torch.Tensor, labels: torch.Tensor) -> nn.Module:
    """Faces (1) against other pictures (0), in an ordinary training."""
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 16, 3, 2, 1), nn.SiLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.SiLU(), nn.Flatten()
    model = nn.Sequential(*layers, nn.Linear(32 * 36, 2))
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(60):
        optimiser.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimiser.step()
    return model


def main(where: Path) -> Path:
    data = load_labelled(ClassifyDataConfig())
    model = trained(data.train, data.train_labels)

    # Any module and any loader; the report has intervals, a curve over the radius, and an audit.
    loader = [(data.test, data.test_labels)]
    suite = [attacks.PGD(steps=20), attacks.APGD(steps=20), attacks.Square(queries=200)]
    report = attacks.evaluate(model, loader, "l2", RADIUS, suite, curve=(0.25, 0.5, 2.0))
    print(report)

    found = report.adversarial
    broken = (found.predictions != found.labels) & (found.original_predictions == found.labels)
    figure, axes = pyplot.subplots(1, 5, figsize=(11.5, 2.6), layout="constrained")
    for axis, index in zip(axes, broken.nonzero()[:4, 0], strict=False):
        moved = torch.cat([found.originals[index], found.images[index]], 2)
        panel(axis, moved, f"{found.original_predictions[index]} becomes {found.predictions[index]}")
    radii, shares = zip(
        *sorted((RADIUS * point["factor"], point["robust"]["share"]) for point in report.curve), strict=True
    )
    axes[4].plot(radii, shares, "o-", color="#0b6e99")
    axes[4].set(xlabel="L2 radius", ylim=(-0.03, 1.03), title="robust accuracy")
    return save(where / "own_network.png", figure)


if __name__ == "__main__":
    main(folder())
