"""Which theorem applies, and what the run-time checks catch."""

from __future__ import annotations

import pytest
import torch

from pnp_cli import Blur, ConditionError, LeastSquares, MoreauEnvelope, certify, kernels
from pnp_cli.certificate import Certificate
from pnp_cli.conditions import RunningChecks, plug_and_play_guarantee
from pnp_cli.denoisers import DnCNNArchitecture
from pnp_cli.presets import build
from pnp_cli.solvers import fixed_point

from .helpers import small_network

AVERAGED = Certificate(True, 0.6, "")
SIZE = (12, 14)


def fidelity(ridge: float = 0.0) -> LeastSquares:
    blur = Blur(kernels.motion(5, 0), SIZE, dtype=torch.float64)
    return LeastSquares(blur, torch.rand(1, 3, *SIZE, dtype=torch.float64), ridge)


@pytest.mark.parametrize("make", [lambda f: f, lambda f: MoreauEnvelope(f, 7.0)], ids=["least-squares", "envelope"])
def test_step_interval_is_open(make) -> None:  # type: ignore[no-untyped-def]
    f = make(fidelity())
    limit = 2 / f.lipschitz
    assert plug_and_play_guarantee(f, 0.999 * limit, AVERAGED, True).theorem != "none"
    for step in (limit, 1.001 * limit, 0.0, -1.0, float("nan")):
        guarantee = plug_and_play_guarantee(f, step, AVERAGED, True)
        assert guarantee.theorem == "none"
        with pytest.raises(ConditionError, match="admissible interval"):
            guarantee.require()


def test_theorems() -> None:
    singular = fidelity()
    singular.strong_convexity = 0.0
    assert plug_and_play_guarantee(singular, 1.0, AVERAGED, True).theorem == "averaged-box"
    assert plug_and_play_guarantee(singular, 1.0, AVERAGED, False).theorem == "averaged"
    guarantee = plug_and_play_guarantee(fidelity(0.1), 1.0, AVERAGED, True)
    assert guarantee.theorem == "contraction"
    f = fidelity(0.1)
    assert guarantee.contraction == max(abs(1 - f.strong_convexity), abs(1 - f.lipschitz))
    assert plug_and_play_guarantee(singular, 1.0, certify(build(DnCNNArchitecture())), True).theorem == "none"


def test_averaged_constant_of_the_iteration() -> None:
    """step L/2 = 1/2, denoiser 0.6, box 1/2: sum of a/(1 - a) is 1 + 1.5 + 1."""
    f = fidelity()
    guarantee = plug_and_play_guarantee(f, 1 / f.lipschitz, AVERAGED, True)
    assert guarantee.alpha == pytest.approx(3.5 / 4.5)


def test_checks_are_silent_on_an_averaged_map() -> None:
    network = small_network().double()
    checks = RunningChecks(certify(network).alpha, box=None)
    x = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    solution = fixed_point(lambda v: network(v, 0.1), x, tol=0, max_iter=60, checks=checks)
    assert solution.violations == ()
    residuals = [record.residual for record in solution.records]
    assert residuals == sorted(residuals, reverse=True)


def test_false_certificate_is_caught_while_running() -> None:
    """A network doctored after it was certified: its largest step is three times the limit."""
    network = small_network().double()
    honest = certify(network)
    for step in network.steps:  # type: ignore[union-attr]
        step.step.mul_(6)
    assert not certify(network).averaged
    checks = RunningChecks(honest.alpha, box=None)
    x = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    solution = fixed_point(lambda v: network(v, 0.5), x, tol=0, max_iter=30, checks=checks)
    assert any("the certificate or the code is wrong" in violation for violation in solution.violations)


def test_false_averaged_constant_is_caught() -> None:
    """A reflection is nonexpansive but not averaged: its residual never falls."""
    checks = RunningChecks(0.5, box=None)
    solution = fixed_point(lambda v: 1 - v, torch.zeros(1, 1, 4, 4), tol=0, max_iter=5, checks=checks)
    assert len(solution.violations) == 4


def test_false_contraction_factor_is_caught() -> None:
    checks = RunningChecks(0.9, contraction=0.5, box=None)
    solution = fixed_point(lambda v: 0.9 * v, torch.ones(1, 1, 4, 4), tol=0, max_iter=5, checks=checks)
    assert "not by q = 0.5" in solution.violations[0]


def test_a_priori_bound_holds() -> None:
    """x -> x/2 towards 0 inside the box is 1/4-averaged; the bound is above the residual at every step."""
    x = torch.ones(1, 1, 4, 4)
    for k in range(1, 7):
        solution = fixed_point(lambda v: v / 2, x, tol=0, max_iter=k, checks=RunningChecks(0.25, box=1.0))
        assert solution.residual_bound is not None
        assert solution.records[-1].residual <= solution.residual_bound, k
