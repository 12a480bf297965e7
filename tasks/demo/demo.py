"""``jiio demo``: a photograph restored, a classifier attacked, faces filled in; each while its network is solved."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

import torch

from jiio.outputs.atomic import write_whole
from jiio.outputs.page import Page
from jiio.tasks.frame.machine import versions
from jiio.tasks.frame.terminal import say

from . import words
from .attack import JOINT, Attack
from .faces import Row, shown_at_work, trained_inpainter
from .options import MARK
from .photo import Photo, still
from .race import OURS
from .strip import strip


def run(*, fast: bool, output: Path, seed: int, device: torch.device) -> Path:
    """Write the page ``index.html``, its pictures and ``figures.json`` into ``output``; return the page.

    fast: use the weights that come with jiio instead of training live.
    """
    begin = time.perf_counter()
    say("Restoring a photograph of 512 x 512 pixels.")
    photo = Photo(seed, device)
    say("Attacking a classifier.")
    attack = Attack(device)
    trained, how = trained_inpainter(fast, output, seed, device)
    rows, example, race = shown_at_work(trained, device)
    shown = {
        **{"photo.webp": photo.moving(), "photo.png": photo.sheet()},
        **{"attack.gif": attack.gif(), "attack.png": attack.plot()},
        **{"joint.gif": example.gif(), "restored.png": example.sheet(), "convergence.png": race.plot()},
        "strip.png": strip(photo, attack, example),
    }

    # The page last: where it is, all is there.
    seconds = time.perf_counter() - begin
    tables = {"photo": [photo.row], "attack": attack.rows(), "rows": rows, "cost": race.rows()}
    data = {**tables, "seconds": seconds, "seed": seed, "fast": fast}
    line = f"jiio demo{' --fast' if fast else ''} --seed {seed}: {seconds:.0f} seconds on this machine."
    made = ", ".join(f"{name} {number}" for name, number in versions().items())
    text = page_of(photo, shown, tables, how).render(f"{line} {made}.")
    texts = {"figures.json": json.dumps(data, indent=2), "index.html": f"{text}{MARK}\n"}
    for name, content in {**shown, **{name: text.encode() for name, text in texts.items()}}.items():
        write_whole(output / name, content)
    say(f"Done in {seconds:.0f} seconds: open {output / 'index.html'}")
    return output / "index.html"


def page_of(photo: Photo, shown: Mapping[str, bytes], tables: Mapping[str, list[Row]], how: str) -> Page:
    """The page: a photograph, an attack, and faces with what they cost."""
    page = Page("Joint inference and input optimisation, at work", words.LEAD)
    page.heading("A photograph: scratches, a hole, blur and noise")
    page.picture(shown["photo.webp"], words.PHOTO.format(**photo.row), kind="webp")
    page.compare(still(photo.measured), still(photo.restored), words.COMPARE, kind="webp")

    # Input optimisation of the other kind: a small change that is to do harm.
    page.heading("An attack, at equal cost")
    page.picture(shown["attack.gif"], words.ATTACK, kind="gif", pixels=True)
    page.picture(shown["attack.png"], words.STAIRS, paper=True)
    page.table(tables["attack"], ours=JOINT)

    page.heading("Faces with a hole, step by step")
    page.picture(shown["joint.gif"], words.FACES.format(how=how), kind="gif", pixels=True)
    page.picture(shown["restored.png"], words.SHEET, pixels=True)
    page.table(tables["rows"], ours=OURS)
    page.paragraph(words.QUALITY)

    # What it takes, in numbers.
    page.heading("What it costs")
    page.picture(shown["convergence.png"], words.CONVERGENCE, paper=True)
    page.table(tables["cost"], ours=OURS)
    page.paragraph(words.COST)
    return page
