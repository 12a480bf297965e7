"""A decoder inverted: the code of a face it has never seen, found while the decoder is still being solved.

python docs/gallery/decoder.py [FOLDER]
"""

from __future__ import annotations

from pathlib import Path

from show import folder, panel, psnr, pyplot, save

import jiio
from jiio.tasks.frame.shipped import shipped
from jiio.tasks.generate.generator import EXACT
from jiio.tasks.generate.task import Generate, load_generator

SHOWN = (0, 1, 2, 4, 8, 16)  # steps of the solve


def main(where: Path) -> Path:
    checkpoint = jiio.tasks.load(shipped("checkpoint", "generate-faces", "weights", ".safetensors"))
    model = load_generator(checkpoint)
    faces = Generate(checkpoint.config).images.test[:3]  # (3, 1, 24, 24), held out

    # |decode(x) - face|^2 + prior |x|^2 over the code x, every sample with a status of its own.
    problem, start = model.problem(faces, EXACT), model.start(faces)
    settings = {"solver": jiio.Anderson(memory=12), "adjoint": jiio.Detached(), "trace": "points"}
    done = jiio.solve(problem, start, tolerance=jiio.Tolerance(1e-5, 1e-3), **settings)
    print(done.summary())

    figure, axes = pyplot.subplots(3, len(SHOWN) + 2, figsize=(9.6, 4.2), layout="constrained")
    for line, face in enumerate(faces):
        panel(axes[line, 0], face, "face" if line == 2 else "")
        for column, step in enumerate(SHOWN, start=1):
            image = model.decode(done.trace.z[step])[line]
            panel(axes[line, column], image, f"step {step}" if line == 2 else "")
        image = model.decode(done.z)[line]
        panel(axes[line, -1], image, f"end, step {int(done.steps.max())}" if line == 2 else "")
        axes[line, -1].text(23, 22, f"{psnr(image, face):.1f} dB", color="white", fontsize=8, ha="right")
    return save(where / "decoder.png", figure)


if __name__ == "__main__":
    main(folder())
