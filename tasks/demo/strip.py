"""Three pictures in a row for whoever wants to show it: a photograph, an attack, the joint iterate."""

from __future__ import annotations

import io
from typing import Any

from torch import Tensor

from jiio.tasks.frame import drawings

from .attack import HASTY, JOINT, Attack
from .faces import Example
from .photo import Photo, picture

SIDE = 384  # pixels of each picture
GAP, LINE = 16, 26
CALLS = 24  # of the attacks, when both are through with most
STEPS = (0, 2, 4, 8, 16)  # of the joint iterate


def strip(photo: Photo, attack: Attack, example: Example) -> bytes:
    """A PNG: the photograph measured and restored, half and half; both attacks for the same calls; faces by steps."""
    from PIL import Image, ImageDraw, ImageFont

    paid = ", ".join(f"{way.first(attack.least)} ({name})" for name, way in attack.ways.items())
    blocks = (
        (halves(photo), "one prior: scratches, hole, blur, noise"),
        (
            columns(attack.sheet(JOINT, CALLS), attack.sheet(HASTY, CALLS)),
            f"calls to break {attack.least}: {paid}",
        ),
        (way_of(example), f"the joint iterate, steps {', '.join(map(str, STEPS))}, end"),
    )
    font = ImageFont.load_default(size=15)
    canvas = Image.new("RGB", (3 * SIDE + 2 * GAP, SIDE + LINE), drawings.PAPER)
    draw = ImageDraw.Draw(canvas)
    for k, (image, caption) in enumerate(blocks):
        left = k * (SIDE + GAP)
        canvas.paste(image, (left, 0))
        draw.text((left + SIDE // 2, SIDE + LINE // 2 + 2), caption, fill=drawings.INK, font=font, anchor="mm")

    buffer = io.BytesIO()
    canvas.quantize(160).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def halves(photo: Photo) -> Any:
    """Left of the diagonal what was measured, right of it what was restored."""
    from PIL import Image, ImageDraw

    before, after = (
        picture(image).resize((SIDE, SIDE), Image.Resampling.LANCZOS) for image in (photo.measured, photo.restored)
    )
    cover = Image.new("L", (SIDE, SIDE), 0)
    corners = [(int(0.58 * SIDE), 0), (SIDE, 0), (SIDE, SIDE), (int(0.38 * SIDE), SIDE)]
    ImageDraw.Draw(cover).polygon(corners, 255)
    before.paste(after, (0, 0), cover)
    ImageDraw.Draw(before).line([corners[0], corners[3]], "white", 3)
    return before


def columns(ours: Tensor, theirs: Tensor) -> Any:
    """Four pictures (S, 1, 2 H, W) of each attack, those of the joint solve above."""
    from PIL import Image

    canvas = Image.new("RGB", (SIDE, SIDE), drawings.PAPER)
    width = SIDE // 4
    for line, images in enumerate((ours, theirs)):
        for column, image in enumerate(images[:4]):
            big = picture(image[None]).resize((width - 2, SIDE // 2 - 4), Image.Resampling.NEAREST)
            canvas.paste(big, (column * width + 1, line * (SIDE // 2 + 4)))
    return canvas


def way_of(example: Example) -> Any:
    """Six faces, a column each; from above: measured, steps of the joint solve, the end."""
    from PIL import Image

    trace = example.solution.trace
    assert trace is not None
    last = len(trace.z) - 1
    rows = [example.model.decode(trace.z[min(step, last)]) for step in STEPS]
    canvas = Image.new("RGB", (SIDE, SIDE), drawings.PAPER)
    side = SIDE // 6
    for line, images in enumerate([*rows, example.restored]):
        for column, image in enumerate(images):
            big = picture(image[None]).resize((side - 2, side - 2), Image.Resampling.NEAREST)
            canvas.paste(big, (column * side + 1, line * side + 1))
    return canvas
