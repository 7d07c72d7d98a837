"""ISTA and FISTA against a closed form, an independent solver, and their own duality gap."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso

from pnp_cli import Blur, LeastSquares, SparseProblem, cycle, discrepancy_gamma, ista, kernels, make_transform
from pnp_cli.boundaries import Free, Periodic
from pnp_cli.images import Image
from pnp_cli.sparse import soft_threshold, sparse_step_failure
from pnp_cli.tensors import to_tensor

DELTA = np.ones((1, 1))


def problem(
    kernel: np.ndarray,
    basis: str,
    gamma: float,
    size: tuple[int, int] = (8, 9),
    spin: int = 1,
    step: float | None = None,
) -> SparseProblem:
    y = torch.rand(1, 1, *size, dtype=torch.float64)
    fidelity = LeastSquares(Blur(kernel, size, dtype=torch.float64), y)
    return SparseProblem(fidelity, cycle(make_transform(basis), spin), gamma, step)


def lasso(p: SparseProblem) -> tuple[float, torch.Tensor]:
    """Minimum and minimiser by scikit-learn, from dense matrices in the coefficients c of the frame Ψ.

    min_c ½‖[KΨᵀ; (I − ΨΨᵀ)/√α] c − [y; 0]‖² + (γ/√S)‖c‖₁.
    """
    y, count = p.fidelity.y, len(p.transforms)
    n = y.numel()
    unit = torch.eye(n, dtype=torch.float64).reshape(n, *y.shape[1:])
    frame = torch.cat([psi.forward(unit).reshape(n, n).T for psi in p.transforms]) / count**0.5
    torch.testing.assert_close(frame.T @ frame, torch.eye(n, dtype=torch.float64))
    blur = p.fidelity.operator.forward(unit).reshape(n, n).T
    tie = (torch.eye(count * n, dtype=torch.float64) - frame @ frame.T) / p.step**0.5
    matrix, data = torch.cat([blur @ frame.T, tie]), torch.cat([y.flatten(), torch.zeros(count * n)])
    gamma = p.gamma / count**0.5
    solver = Lasso(alpha=gamma / len(data), fit_intercept=False, tol=1e-12, max_iter=1_000_000)
    c = torch.from_numpy(solver.fit(matrix.numpy(), data.numpy()).coef_)
    minimum = float((matrix @ c - data).square().sum()) / 2 + gamma * float(c.abs().sum())
    return minimum, (frame.T @ c).reshape(y.shape)


@pytest.mark.parametrize("basis", ["pixel", "dct", "haar"])
@pytest.mark.parametrize("accelerated", [False, True])
def test_closed_form_without_blur(basis: str, accelerated: bool) -> None:
    """K = I: the minimiser is Ψᵀ S_γ(Ψy)."""
    p = problem(DELTA, basis, 0.2, step=0.9)
    y, psi = p.fidelity.y, p.transforms[0]
    expected = psi.adjoint(soft_threshold(psi.forward(y), 0.2))
    solution = ista(p, torch.zeros_like(y), accelerated=accelerated, tol=1e-13, max_iter=3000)
    assert solution.converged
    torch.testing.assert_close(solution.value, expected, atol=1e-6, rtol=0)


def test_without_blur_cycle_spinning() -> None:
    """K = I and step 1: one step gives the mean of the shifted shrinkages, which is the minimiser."""
    p = problem(DELTA, "haar", 0.2, spin=5)
    y = p.fidelity.y
    expected = sum(psi.adjoint(soft_threshold(psi.forward(y), 0.2)) for psi in p.transforms) / 5
    assert isinstance(expected, torch.Tensor)
    solution = ista(p, torch.zeros_like(y), tol=1e-12, check_every=1)
    assert solution.records[-1].iteration <= 2
    torch.testing.assert_close(solution.value, expected)


@pytest.mark.parametrize(("basis", "spin", "step"), [("pixel", 1, 1.0), ("haar", 3, 1.0), ("dct4", 4, 0.7)])
def test_against_scikit_learn(basis: str, spin: int, step: float) -> None:
    p = problem(kernels.gaussian(0.6), basis, 0.05, (7, 8), spin, step)
    minimum, minimiser = lasso(p)
    for accelerated in (False, True):
        solution = ista(p, p.fidelity.y, accelerated=accelerated, tol=1e-10, max_iter=50_000)
        assert solution.converged
        assert solution.records[-1].objective == pytest.approx(minimum, rel=1e-9)
        torch.testing.assert_close(solution.value, minimiser, atol=1e-4, rtol=0)


@pytest.mark.parametrize("accelerated", [False, True])
@pytest.mark.parametrize("spin", [1, 4])
def test_gap_bounds_the_distance_to_the_minimum(accelerated: bool, spin: int) -> None:
    p = problem(kernels.gaussian(0.7), "db4", 0.05, (10, 11), spin)
    best = ista(p, p.fidelity.y, tol=1e-11, max_iter=20_000)
    assert best.converged
    minimum = best.records[-1].objective
    run = ista(p, p.fidelity.y, accelerated=accelerated, tol=1e-5, max_iter=1000, check_every=1)
    for record in run.records:
        assert record.objective - minimum <= record.gap * (1 + 1e-9) + 1e-12
    for a, b in pairwise(run.records):
        assert b.objective <= a.objective * (1 + 1e-14)
        assert b.gap <= a.gap * (1 + 1e-14)


def test_every_lower_bound_is_one() -> None:
    """Also at points far from a minimiser, and however the residual has to be scaled."""
    for gamma in (0.001, 0.1, 10.0):
        p = problem(kernels.gaussian(0.6), "haar", gamma, (7, 8), 3)
        minimum, _ = lasso(p)
        for scale in (-3.0, 0.0, 0.1, 1.0, 30.0):
            v = scale * torch.randn_like(p.fidelity.y)
            x, penalty = p.prox(v)
            misfit = p.fidelity.operator.forward(x) - p.fidelity.y
            assert p.lower_bound(v, x, misfit) <= minimum * (1 + 1e-9)
            assert float(misfit.square().sum()) / 2 + penalty >= minimum * (1 - 1e-9)


def test_prox_is_that_of_the_penalty() -> None:
    """x = prox(v) minimises h(x) + ‖x − v‖²/(2α) among the points whose h is known, the other values of prox."""
    p = problem(DELTA, "haar", 0.3, (5, 6), 4, 0.8)
    v = torch.randn_like(p.fidelity.y)

    def value(source: torch.Tensor) -> float:
        x, penalty = p.prox(source)
        return penalty + float((x - v).square().sum()) / (2 * p.step)

    least = value(v)
    for size in (1e-3, 0.1, 1.0):
        for _ in range(10):
            assert value(v + size * torch.randn_like(v)) >= least - 1e-12


def test_without_momentum_it_is_textbook_ista() -> None:
    p = problem(kernels.motion(4, 30), "db4", 0.02, (16, 15), step=1.7)
    k, y, psi = p.fidelity.operator, p.fidelity.y, p.transforms[0]
    path: list[torch.Tensor] = []
    ista(p, y, accelerated=False, tol=0, max_iter=25, check_every=1, callback=lambda _, x: path.append(x))
    x = y
    for iterate in path:
        x = psi.adjoint(soft_threshold(psi.forward(x - 1.7 * k.adjoint(k.forward(x) - y)), 1.7 * 0.02))
        torch.testing.assert_close(iterate, x, atol=1e-12, rtol=0)
    assert len(path) == 25


def test_momentum_before_the_first_restart_is_that_of_fista() -> None:
    p = problem(kernels.motion(4, 30), "db4", 0.02, (16, 15))
    k, y, psi = p.fidelity.operator, p.fidelity.y, p.transforms[0]
    path: list[torch.Tensor] = []
    ista(p, y, tol=0, max_iter=10, check_every=1, callback=lambda _, x: path.append(x))
    x, z, t = y, y, 1.0
    for iterate in path:
        new = psi.adjoint(soft_threshold(psi.forward(z - k.adjoint(k.forward(z) - y)), 0.02))
        t_new = (1 + math.sqrt(1 + 4 * t * t)) / 2
        x, z, t = new, new + (t - 1) / t_new * (new - x), t_new
        torch.testing.assert_close(iterate, x, atol=1e-12, rtol=0)


@pytest.mark.parametrize("spin", [1, 4])
def test_restarted_momentum_is_faster(spin: int) -> None:
    p = problem(kernels.gaussian(0.6), "haar", 0.02, (10, 11), spin)
    plain, fast = (ista(p, p.fidelity.y, accelerated=a, tol=1e-6, max_iter=20_000) for a in (False, True))
    assert plain.converged
    assert fast.converged
    assert fast.records[-1].objective == pytest.approx(plain.records[-1].objective, rel=1e-6)
    assert 2 * fast.records[-1].iteration < plain.records[-1].iteration


def test_large_gamma_gives_zero() -> None:
    """Above ‖ΨKᵀy‖_∞ the minimiser is 0, and the gap knows it."""
    p = problem(kernels.motion(3, 0), "pixel", 100.0)
    solution = ista(p, p.fidelity.y, tol=1e-12)
    assert solution.value.abs().max() == 0
    assert solution.converged


def test_step_intervals() -> None:
    assert sparse_step_failure(1.99, 1.0, accelerated=False) is None
    assert sparse_step_failure(1.0, 1.0, accelerated=True) is None
    for step, accelerated in ((2.0, False), (0.0, False), (1.01, True), (-1.0, True), (float("nan"), False)):
        message = sparse_step_failure(step, 1.0, accelerated)
        assert message is not None
        assert "admissible interval" in message


@pytest.mark.parametrize("accelerated", [False, True])
def test_too_large_a_step_is_seen_to_diverge(accelerated: bool) -> None:
    p = problem(kernels.gaussian(0.6), "haar", 0.01, step=2.5)
    solution = ista(p, p.fidelity.y, accelerated=accelerated, max_iter=20_000)
    assert not solution.converged


@pytest.mark.parametrize(("basis", "spin"), [("pixel", 1), ("dct4", 3)])
@pytest.mark.parametrize("boundary", [Periodic, Free])
def test_discrepancy(photo: Image, basis: str, spin: int, boundary: type) -> None:
    x = to_tensor(photo, dtype=torch.float64)[:, :1, :40, :45]
    blur = Blur(kernels.gaussian(0.8), (40, 45), boundary, dtype=torch.float64)
    y = blur.forward(blur.boundary.extrapolate(x)) + 0.05 * torch.randn_like(x)
    fidelity, psi = LeastSquares(blur, y), cycle(make_transform(basis), spin)
    gamma, start = discrepancy_gamma(fidelity, psi, 0.05)
    assert fidelity.discrepancy(start, 0.05) == pytest.approx(1, abs=0.02)
    solution = ista(SparseProblem(fidelity, psi, gamma), blur.boundary.extrapolate(y), tol=1e-3)
    assert solution.converged
    assert fidelity.discrepancy(solution.value, 0.05) == pytest.approx(1, abs=0.02)


def test_discrepancy_without_momentum_at_a_step_that_only_ista_admits() -> None:
    p = problem(kernels.gaussian(0.5), "pixel", 1.0, size=(24, 25))
    (with_momentum, _), (without, start) = (
        discrepancy_gamma(p.fidelity, p.transforms, 0.1, step, accelerated=accelerated)
        for accelerated, step in ((True, 1.0), (False, 1.9))
    )
    assert without == pytest.approx(with_momentum, rel=0.03)
    assert p.fidelity.discrepancy(start, 0.1) == pytest.approx(1, abs=0.02)


def test_discrepancy_out_of_reach() -> None:
    """All noise: the least γ with minimiser 0. No light at all: some positive γ."""
    p = problem(DELTA, "haar", 1.0)
    y = p.fidelity.y
    gamma, start = discrepancy_gamma(p.fidelity, p.transforms, 2.0)
    assert gamma == pytest.approx(float(p.transforms[0].forward(y).abs().max()))
    assert start.abs().max() == 0
    assert discrepancy_gamma(LeastSquares(p.fidelity.operator, 0 * y), p.transforms, 0.1)[0] > 0
