"""What no attack can break and what some attack does: certified and attacked accuracy over the radius.

python docs/gallery/certificate.py [FOLDER]
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from show import folder, pyplot, save

from jiio import attacks
from jiio.models import MonotoneConfig, classifier
from jiio.tasks.classify.data import ClassifyDataConfig, load_labelled

RADII = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6)


def main(where: Path) -> Path:
    # A monotone cell has one equilibrium for any weights, and a Lipschitz bound that can be computed.
    torch.manual_seed(0)
    data = load_labelled(ClassifyDataConfig())
    model = classifier(MonotoneConfig(24, m=0.5), image=(1, 24, 24), classes=2)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2, weight_decay=1e-3)
    for _ in range(60):
        optimiser.zero_grad()
        F.cross_entropy(model(data.train), data.train_labels).backward()
        optimiser.step()
    model.eval()

    # The certificate knows a radius for every sample; an attack has to be run at every radius.
    certificate = attacks.certify(model, data.test, data.test_labels, attacks.ThreatModel("l2", 0.1))
    attacked, attack = [], attacks.APGD(steps=15)
    for radius in RADII[1:]:
        result = attack(model, data.test, data.test_labels, attacks.ThreatModel("l2", radius))
        attacked.append(1 - float(result.success.float().mean()))
    clean = float((result.clean_margin < 0).float().mean())

    figure, axis = pyplot.subplots(figsize=(5.2, 3.4), layout="constrained")
    fine = torch.linspace(0, RADII[-1], 200)
    axis.plot(RADII, [clean, *attacked], "o-", color="#c2571a", label="APGD found nothing")
    proved = [float((certificate.radius >= r).float().mean()) if r else clean for r in fine.tolist()]
    axis.fill_between(fine, proved, color="#3a7d44", alpha=0.35, label="certified: there is nothing")
    axis.set(xlabel="L2 radius", ylabel="share of 60 pictures", ylim=(0, 1.02))
    axis.legend(frameon=False, fontsize=8)
    print(f"Lipschitz bound {certificate.lipschitz:.2f}, median radius {float(certificate.radius.median()):.3f}")
    return save(where / "certificate.png", figure)


if __name__ == "__main__":
    main(folder())
