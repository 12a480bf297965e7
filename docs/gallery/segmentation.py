"""Two heads on one equilibrium: the class of every pixel and of the image, after a short training on rendered scenes.

python docs/gallery/segmentation.py [FOLDER]
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from show import folder, panel, pyplot, save

import jiio
from jiio.tasks.frame.load import build, merge, read_yaml
from jiio.tasks.frame.shipped import shipped
from jiio.tasks.segment.task import Segment, SegmentConfig, painted

SHORT = {"steps": 160, "optimiser": {"rate": 0.008}, "data": {"train_limit": 2000, "test_limit": 200}}


def main(where: Path) -> Path:
    # The recipe that comes with jiio (jiio train segment-scenes), a sixth of its length.
    recipe = read_yaml("recipe", shipped("recipe", "segment-scenes", "configs", ".yaml"))
    config = build(SegmentConfig, merge(recipe, SHORT))
    with tempfile.TemporaryDirectory() as work:
        checkpoint = jiio.tasks.train(dataclasses.replace(config, output=f"{work}/run"))

    task, model = Segment(config), Segment.trained(checkpoint)
    scores = task.evaluate(model)[0]
    print({name: value for name, value in scores.items() if name in ("pixel accuracy", "mean IoU", "accuracy")})
    masks = task.predict(model, 6)[0]
    classes = len(config.data.names)

    figure, axes = pyplot.subplots(3, 6, figsize=(8.4, 4.6), layout="constrained")
    rows = (task.data.test[:6] / 255, painted(task.data.test_masks[:6].long(), classes), painted(masks, classes))
    for line, (images, name) in enumerate(zip(rows, ("scene", "truth", "said"), strict=True)):
        for column, image in enumerate(images):
            panel(axes[line, column], image, "")
        axes[line, 0].text(-2, 16, name, rotation=90, ha="right", va="center", fontsize=9)
    iou, short = scores["mean IoU"], config.steps
    figure.suptitle(f"mean IoU {iou:.2f} on {len(task.data.test)} test scenes after {short} steps", fontsize=9)
    return save(where / "segmentation.png", figure)


if __name__ == "__main__":
    main(folder())
