"""The networks whose published robustness is tried: plain, LyaDEQ, regulated, adversarially trained, and mixtures."""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch.nn.utils.parametrize import remove_parametrizations

import jiio
from benchmarks.attacks.digits import digits
from benchmarks.trainings import classifier
from jiio.models import LyapunovCell
from jiio.tasks.classify.data import in_batches, load_labelled
from jiio.tasks.classify.networks import NetworkConfig
from jiio.tasks.classify.task import ClassifyConfig
from jiio.tasks.frame.choices import Choice
from jiio.tasks.frame.config import WarmConfig

RADIUS = 0.1
ADVERSARY = Choice(
    "PGDTraining",
    {
        "norm": "linf",
        "radius": RADIUS,
        "steps": 5,
        "warm": True,
        "adjoint": {"name": "Phantom", "options": {"steps": 3}},
    },
)
ORTHOGONAL = Choice("Lyapunov", {"weight": 0.0})  # the projection moves no equilibrium, so this is what is left
STABLE, FEATURE, STATES = Choice("Lyapunov"), Choice("LyapunovFeature"), Choice("RegulatedDynamics")
PENALTY = Choice("JacobianPenalty", {"weight": 0.5})
SIZES = {"channels": [8, 16], "expansion": 2, "groups": 4, "fusion_groups": 4, "head_channels": [4, 8]}
MULTISCALE = Choice("Multiscale", {**SIZES, "final_channels": 64})
# name -> how it is trained, and whether its input is regulated in the end
RECIPES: dict[str, tuple[tuple[Choice, ...], bool]] = {
    "plain": ((), False),
    "LyaDEQ": ((STABLE,), False),
    "orthogonal layer alone": ((ORTHOGONAL,), False),
    "adversarial": ((ADVERSARY,), False),
    "plain, input regulated": ((), True),
    "adversarial, input regulated": ((ADVERSARY,), True),
    "LyaDEQ + adversarial": ((ADVERSARY, STABLE), False),
    "adversarial, random states": ((ADVERSARY, STATES), False),
    "adversarial, random states, input regulated": ((ADVERSARY, STATES), True),
    "LyaDEQ, as a flow on features": ((FEATURE,), False),
}


def configuration(defences: tuple[Choice, ...], place: int, seed: int, options: argparse.Namespace) -> ClassifyConfig:
    """A training of a few minutes at most. place: number of the defences, for the name of the folder."""
    multiscale = options.cell == "Multiscale"
    steps = 50 if options.fast else options.steps
    warm = WarmConfig(min(400, 8 * steps) if multiscale else 0, 5)
    dense = Choice("Dense", {"features": 64, "gain": 0.8, "scaling": options.scaling})

    # Plain iteration finds the equilibrium of a contraction; nothing else is one for certain.
    plain = options.scaling == "spectral" and not multiscale
    network = NetworkConfig(MULTISCALE if multiscale else dense, solver=Choice("Picard" if plain else "Anderson"))
    learnt: dict[str, Any] = {"defence": (*defences, PENALTY) if multiscale else defences, "warm": warm}
    folder = options.cache / f"model-{place}-{seed}"
    return digits(folder, network, seed=seed, steps=warm.steps + steps, test=options.samples, **learnt)


def trained(name: str, seed: int, options: argparse.Namespace) -> tuple[jiio.EquilibriumModel, list[Any]]:
    """The network and the test batches; a training that was cut short goes on."""
    defences, _ = RECIPES[name]
    place = next(i for i, (other, _) in enumerate(RECIPES.values()) if other == defences)  # trained once
    config = configuration(defences, place, seed, options)
    model = classifier(config, options.data_root)
    model.adjoint = jiio.Implicit(solver=model.solver, tolerance=model.tolerance)

    if options.scaling == "spectral" and options.cell == "Dense":
        inner = model.cell.cell if isinstance(model.cell, LyapunovCell) else model.cell
        remove_parametrizations(inner, "weight")  # training is over: no singular values at every call any more
    data = load_labelled(config.data, data_root=options.data_root)
    return model.eval(), in_batches(data, len(data.test), torch.device("cpu"))
