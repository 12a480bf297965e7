"""Does the device compute what the CPU computes, and does everything run there?

The engine against float64 on the CPU, value and gradient, and its recorded steps against the eager ones; every recipe
for some steps; every command.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

import jiio
from benchmarks.gpu.recipes import SMALL, recipe
from benchmarks.gpu.stages import BAD, GOOD, Setting, Work
from benchmarks.tables import Row
from jiio.checks import JiioError
from jiio.outputs.seeds import generator
from jiio.recording import forget_records, recorded_steps
from jiio.recording.store import STORE
from jiio.tasks.cli import main
from jiio.tasks.frame.loop import train

CLOSE = 1e-6
TIGHT = jiio.Tolerance(1e-8, 1e-8)
ENGINE: dict[str, tuple[jiio.AbstractProx, jiio.AbstractSolver, jiio.AbstractAdjoint]] = {
    "free, Anderson, KKT": (jiio.QuadraticPrior(0.1), jiio.Anderson(), jiio.KKT(rtol=1e-9, max_steps=500)),
    "L2 ball, Anderson, KKT": (jiio.L2Ball(0.3), jiio.Anderson(), jiio.KKT(rtol=1e-9, max_steps=500)),
    "box, Broyden, envelope": (jiio.Box(-0.2, 0.2), jiio.Broyden(), jiio.Envelope()),
    "sparse, Anderson I, envelope": (jiio.SoftThreshold(0.05), jiio.Anderson(kind="I"), jiio.Envelope()),
}


def answer(name: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """x of a small problem in float64, and the gradient of a number that depends on it, on the CPU."""
    prox, solver, adjoint = ENGINE[name]
    draws = generator(0, "gpu", name)
    w, u, y = (torch.randn(shape, generator=draws, dtype=torch.float64) for shape in ((8, 8), (4, 8), (6, 8)))
    w, u, y = 0.15 * w.to(device), u.to(device), y.to(device).requires_grad_()
    problem = jiio.Problem(lambda z, x: torch.tanh(z @ w + x @ u), lambda z, x: (z - y).square().sum(1), prox)

    start = y.new_zeros(len(y), 4), y.new_zeros(len(y), 8)
    solution = jiio.solve(problem, *start, solver=solver, adjoint=adjoint, tolerance=TIGHT, max_steps=1000)
    aim = solution.value if isinstance(adjoint, jiio.Envelope) else solution.x.square().sum(1)
    (slope,) = torch.autograd.grad(aim.sum(), y)
    return solution.x.detach().cpu(), slope.cpu()


def engine(name: str, setting: Setting) -> Row:
    """Largest relative differences to the CPU."""
    (x, slope), (there, slope_there) = answer(name, torch.device("cpu")), answer(name, setting.device)
    apart = [float((a - b).norm() / b.norm()) for a, b in ((there, x), (slope_there, slope))]
    return {"verdict": GOOD if max(apart) < CLOSE else BAD, "x": apart[0], "gradient": apart[1]}


def recorded(name: str, setting: Setting) -> Row:
    """A recorded solve beside the eager one, largest relative difference, in float64; whether anything was recorded."""
    forget_records()
    found = []
    for when in ("never", "always", "always"):
        with recorded_steps(when):
            found.append(answer(name, setting.device)[0])
    kept, refused = len(STORE.records), list(STORE.refused.values())
    forget_records()
    apart = max(float((x - found[0]).norm() / found[0].norm()) for x in found[1:])
    row = {"verdict": GOOD if apart < CLOSE and kept else BAD, "x": apart, "records": kept}
    return row | ({"why": refused[0]} if refused else {})


def trained(name: str, setting: Setting) -> Row:
    """Some steps of a recipe: as it stands where there is room for it, small with --fast."""
    steps, folder = 2 if setting.fast else 20, setting.folder / name
    changes = {"steps": steps, "output": str(folder), "device": str(setting.device)}
    try:
        checkpoint = train(recipe(name, small=setting.fast, **changes), resume=folder.exists(), report=quiet)
    except JiioError as error:
        if setting.fast or "JIIO_DATA" not in str(error):
            raise
        # Its data are not on this machine: the same task with others.
        checkpoint = train(recipe(name, small=True, **changes), resume=folder.exists(), report=quiet)
        return {"steps": checkpoint.step, "note": "small, its data are not here"}
    return {"steps": checkpoint.step}


def quiet(line: str) -> None:
    pass


def commanded(words: Callable[[Setting], list[str]], setting: Setting) -> Row:
    """A command line that must end well."""
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        code = main(words(setting))
    last = " ".join(told.getvalue().split())[-200:]
    return {"verdict": GOOD if code == 0 else BAD, "code": code} | ({} if code == 0 else {"why": last})


def picture(setting: Setting) -> str:
    """A small grey picture with an edge and a wave."""
    from PIL import Image

    path = setting.folder / "pictures" / "picture.png"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        rows, columns = torch.arange(32.0)[:, None], torch.arange(32.0)
        waves = 127 + 60 * torch.sin(rows / 3) * torch.cos(columns / 5) + 40 * (columns > 16)
        Image.fromarray(waves.clamp(0, 255).to(torch.uint8).numpy()).save(path)
    return str(path)


def run_of(name: str, setting: Setting) -> str:
    """The folder of a training that an earlier row has left."""
    folder: Path = setting.folder / name
    if not (folder / "weights.safetensors").exists():
        trained(name, setting)
    return str(folder)


def on(setting: Setting) -> list[str]:
    return ["--device", str(setting.device), "--overwrite"]


COMMANDS: dict[str, Callable[[Setting], list[str]]] = {
    "doctor": lambda s: ["doctor", "--device", str(s.device)],
    "evaluate": lambda s: ["evaluate", run_of("restore-faces", s), *on(s), "--data.test_limit", "4"],
    "attack": lambda s: [
        *("attack", run_of("classify-faces", s), "--samples", "8", "--attack", "PGD", '{"steps": 5}'),
        *("--no-audit", "--report", str(s.folder / "attack.html"), *on(s)),
    ],
    "restore": lambda s: ["restore", picture(s), "--sigma", "25", "--output", str(s.folder / "restored"), *on(s)],
    "compare": lambda s: [
        "compare",
        "prior-grey",
        "--on",
        f"folder:{Path(picture(s)).parent}",
        "--limit",
        "1",
        "--no-baselines",
        *on(s),
    ],
    "fit": lambda s: [
        *("fit", picture(s), "--checkpoint", run_of("generate-patches", s), "--max-steps", "10"),
        *("--output", str(s.folder / "fitted"), *on(s)),
    ],
    "write": lambda s: ["write", run_of("language-default", s), "--length", "20", "--device", str(s.device)],
    "prompt": lambda s: [
        *("prompt", run_of("language-default", s), "--target", "the", "--restarts", "2"),
        *("--max-steps", "20", "--device", str(s.device)),
    ],
    "demo": lambda s: ["demo", "--fast", "--output", str(s.folder / "demo"), *on(s)],
}


def checks() -> dict[str, Work]:
    """Name -> one row."""
    made: dict[str, Work] = {f"engine, {name}": partial(engine, name) for name in ENGINE}
    made |= {f"recorded, {name}": partial(recorded, name) for name in ENGINE}
    made |= {f"recipe {name}": partial(trained, name) for name in SMALL}
    return made | {f"jiio {name}": partial(commanded, words) for name, words in COMMANDS.items()}
