"""A recipe that a federation trains in a moment, and what is wrong with a command line of one."""

from __future__ import annotations

from typing import Any

from jiio.tasks.classify.task import ClassifyConfig
from jiio.tasks.federate.plan import Federation
from jiio.tasks.frame.load import build

YAML = """\
task: classify
output: runs
threads: 1
data: {family: faces, size: 8, batch_size: 4}
model: {cell: {name: Dense, options: {features: 6}}, max_steps: 8}
optimiser: {rate: 0.01}
"""
PLAIN = YAML.replace("{name: Dense, options: {features: 6}}", "{name: Reference, options: {parameters: 1000}}")

# words of a command line -> what its one sentence says
MISTAKES = {
    "--clients 0": "clients: expected a whole number of at least 1",
    "--rounds 0": "rounds: expected a whole number of at least 1",
    "--local-steps 0": "local_steps: expected a whole number of at least 1",
    "--alpha 0": "alpha: expected a number above 0",
    "--alpha nan": "--alpha: expected float, got nan",
    "--alpha 1e9": "alpha: expected a number",
    "--budgets 1": "budgets: expected a whole number of at least 2",
    "--budgets 4 4": "budgets: expected one number, or one for each of the 4 clients",
    "--strategy FedBest": "strategy: expected one of",
    "--weighting ByMood": "weighting.name: no weighting is called 'ByMood'",
    "--weighting IterationAware": "budgets of solver steps to weigh by, got IterationAware without",
    "--weighting IterationAware --budgets 4 --strategy FedMedian": "beside FedMedian, which knows no weights",
    "--evaluate-every 0": "--evaluate-every: expected a whole number of at least 1",
    "--patience 0": "--patience: expected a number above 0",
    "--patience inf": "--patience: expected",
    "--processes --listen 127.0.0.1:9999": "expected one of --processes, --listen and --join",
    "--listen 8.8.8.8:9999": "--listen: expected an address of this machine",
    "--listen 127.0.0.1:0": "a port from 1 to 65535",
    "--join localhost": "--join: expected an address of this machine",
    "--join 127.0.0.1:9999": "expected --join and --client together",
    "--client 1": "expected --join and --client together",
    "--join 127.0.0.1:9999 --client 4": "client: expected a number below clients = 4",
    "--join 127.0.0.1:9999 --client 1 --resume": "--resume: expected a server",
    "--steps 30": "steps: expected --rounds and --local-steps instead",
    "--average 0.9": "average: expected 0",
    "--validate_every 5": "validate_every: expected 0",
    "--clinets 3": "--clinets: no such option; did you mean --clients?",
}


def recipe(**changes: Any) -> ClassifyConfig:
    """The recipe of the YAML text."""
    data = {"family": "faces", "size": 8, "batch_size": 4}
    model = {"cell": {"name": "Dense", "options": {"features": 6}}, "max_steps": 8}
    values = {"task": "classify", "threads": 1, "data": data, "model": model, "optimiser": {"rate": 0.01}}
    return build(ClassifyConfig, values | changes)


def plan(**changes: Any) -> Federation:
    """Three clients, two rounds."""
    return Federation(**{"clients": 3, "rounds": 2, "local_steps": 2, **changes})
