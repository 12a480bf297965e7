"""What configurations hand on to a solve: one checked record, whose errors name the configuration's own keys."""

from __future__ import annotations

import pytest

import jiio
from jiio.checks import JiioError
from jiio.tasks.frame.choices import Choice
from jiio.tasks.frame.load import build
from jiio.tasks.generate.inference import JointInference, NestedInference, VariationalInference
from jiio.tasks.meta.adaptation import FirstOrderAdaptation, JointAdaptation, NestedAdaptation
from jiio.tasks.restore.latent import JOINT, RestoreConfig
from jiio.tasks.solving.networks import SolvedConfig
from jiio.tasks.solving.settings import JointConfig

WAYS = (JointInference, NestedInference, VariationalInference, JointAdaptation, NestedAdaptation, FirstOrderAdaptation)


def test_a_joint_configuration_is_a_record_and_a_rule() -> None:
    config = JointConfig(
        solver=Choice("Picard"), adjoint=Choice("KKT", {"rtol": 0.1}), atol=1e-4, rtol=0.0, max_steps=9
    )
    settings = config.solve_settings()
    assert settings == jiio.SolveSettings(jiio.Picard(), jiio.KKT(0.1), jiio.Tolerance(1e-4, 0.0), 9)
    given = config.arguments()  # who solves says what is heard of a failure
    assert given.pop("rule") == jiio.GradientStep() and given | {"on_failure": "warn"} == settings.arguments()


def test_without_a_word_trainings_through_a_solve_are_first_order() -> None:
    """One default for all: the recipes', the class's, and where a file gives only some of its keys."""
    for config in (JointConfig(), JOINT, RestoreConfig().joint, build(RestoreConfig, {"joint": {"rtol": 0.1}}).joint):
        assert config.solve_settings().adjoint == jiio.Implicit()


def test_the_adjoint_of_a_network_is_solved_as_finely_as_its_equilibrium() -> None:
    settings = SolvedConfig(atol=1e-7, rtol=1e-6).solve_settings()
    assert settings.adjoint == jiio.Implicit(tolerance=jiio.Tolerance(1e-7, 1e-6))
    assert settings.on_failure == "ignore" and SolvedConfig().arguments().keys() == settings.arguments().keys()
    phantom = SolvedConfig(adjoint=Choice("Phantom")).solve_settings()
    assert isinstance(phantom.adjoint, jiio.Phantom)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_every_way_keeps_its_tolerance_and_is_quiet(way: type) -> None:
    settings = way(atol=3e-4, rtol=2e-2).solve_settings()
    assert settings.tolerance == jiio.Tolerance(3e-4, 2e-2) and settings.on_failure == "ignore"
    with pytest.raises(JiioError, match="atol"):
        way(atol=-1.0)


def test_errors_name_the_key() -> None:
    for make, key in ((JointConfig, "joint"), (SolvedConfig, "model")):
        with pytest.raises(JiioError, match=rf"^{key}\.max_steps: "):
            make(max_steps=1)
        with pytest.raises(JiioError, match=rf"^{key}\.solver\.name: no solver is called"):
            make(solver=Choice("Newton"))
    with pytest.raises(JiioError, match=r"^memory: "):
        JointAdaptation(memory=0)
