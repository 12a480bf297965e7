"""A metric for the input: the same fits with and without what one sensitivity of the model says of all of them.

python docs/gallery/metric.py [FOLDER]
"""

from __future__ import annotations

from pathlib import Path

import torch
from show import folder, pyplot, save

import jiio
from jiio.tasks.frame.shipped import shipped
from jiio.tasks.generate.generator import EXACT
from jiio.tasks.generate.task import Generate, load_generator

SETTINGS = {"tolerance": jiio.Tolerance(1e-6, 1e-4), "max_steps": 150, "adjoint": jiio.Detached(), "trace": True}


def main(where: Path) -> Path:
    checkpoint = jiio.tasks.load(shipped("checkpoint", "generate-faces", "weights", ".safetensors"))
    model = load_generator(checkpoint)
    faces = Generate(checkpoint.config).images.test  # (20, 1, 24, 24), held out
    problem, codes = model.problem(faces, EXACT), model.start(faces)
    plain = jiio.solve(problem, codes, on_failure="ignore", **SETTINGS)

    # Once for the model, at one sample; then for every problem a start and a curvature, for a single evaluation.
    sensitivity = jiio.Sensitivity.of(problem, codes[:1])
    near = sensitivity.linearised(problem, codes)
    quick = jiio.solve(problem, near.x, near.z, metric=near.metric, on_failure="ignore", **SETTINGS)

    figure, axis = pyplot.subplots(figsize=(5.2, 3.4), layout="constrained")
    for name, done, colour in (("plain", plain, "#c2571a"), ("metric and start", quick, "#0b6e99")):
        residual = done.trace.residual.amax(2)  # (T, B), the worst block
        calls = 2 * torch.arange(1, len(residual) + 1)  # an evaluation and a VJP a step
        axis.plot(calls, residual.nanmedian(1).values, color=colour, linewidth=2.2, label=name)
        axis.plot(calls, residual, color=colour, linewidth=0.5, alpha=0.3)
        print(f"{name}: {done.summary()}")
    axis.set(yscale="log", xlabel="evaluations + VJPs", ylabel="residual of 20 faces (bold: median)")
    axis.legend(frameon=False)
    return save(where / "metric.png", figure)


if __name__ == "__main__":
    main(folder())
