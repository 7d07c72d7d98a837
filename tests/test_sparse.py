"""ISTA and FISTA against a closed form, an independent solver, and their own duality gap."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso

from pnp_cli import Blur, LeastSquares, SparseProblem, ista, kernels, make_transform
from pnp_cli.sparse import soft_threshold, sparse_step_failure

DELTA = np.ones((1, 1))


def problem(kernel: np.ndarray, basis: str, gamma: float, size: tuple[int, int] = (8, 9)) -> SparseProblem:
    y = torch.rand(1, 1, *size, dtype=torch.float64)
    fidelity = LeastSquares(Blur(kernel, size, dtype=torch.float64), y)
    return SparseProblem(fidelity, make_transform(basis), gamma)


@pytest.mark.parametrize("basis", ["pixel", "dct", "haar"])
@pytest.mark.parametrize("accelerated", [False, True])
def test_closed_form_without_blur(basis: str, accelerated: bool) -> None:
    """K = I: the minimiser is Ψᵀ S_γ(Ψy)."""
    p = problem(DELTA, basis, 0.2)
    y = p.fidelity.y
    expected = p.transform.adjoint(soft_threshold(p.transform.forward(y), 0.2))
    solution = ista(p, torch.zeros_like(y), step=0.9, accelerated=accelerated, tol=1e-13, max_iter=3000)
    assert solution.converged
    torch.testing.assert_close(solution.value, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("basis", ["pixel", "haar"])
def test_against_scikit_learn(basis: str) -> None:
    p = problem(kernels.gaussian(0.6), basis, 0.05)
    y, k = p.fidelity.y, p.fidelity.operator
    n = y.numel()
    basis_vectors = torch.eye(n, dtype=torch.float64).reshape(n, 1, 8, 9)
    matrix = k.forward(p.transform.adjoint(basis_vectors)).reshape(n, n).numpy().T
    lasso = Lasso(alpha=0.05 / n, fit_intercept=False, tol=1e-12, max_iter=1_000_000)
    c = torch.from_numpy(lasso.fit(matrix, y.flatten().numpy()).coef_).reshape(y.shape)
    expected, _ = p.measure(p.transform.adjoint(c))
    for accelerated in (False, True):
        solution = ista(p, y, accelerated=accelerated, tol=1e-10, max_iter=50_000)
        assert solution.converged
        assert solution.records[-1].objective == pytest.approx(expected, rel=1e-9)
        torch.testing.assert_close(p.transform.forward(solution.value), c, atol=1e-4, rtol=0)


@pytest.mark.parametrize("accelerated", [False, True])
def test_gap_bounds_the_distance_to_the_minimum(accelerated: bool) -> None:
    p = problem(kernels.motion(4, 30), "db4", 0.02, (16, 15))
    best = ista(p, p.fidelity.y, accelerated=True, tol=1e-11, max_iter=100_000)
    assert best.converged
    minimum = best.records[-1].objective
    run = ista(p, p.fidelity.y, accelerated=accelerated, tol=1e-5, max_iter=5000, check_every=1)
    for record in run.records:
        assert record.objective - minimum <= record.gap * (1 + 1e-9) + 1e-12
    if not accelerated:  # at 1/L the objective of ISTA falls monotonically
        assert all(b.objective <= a.objective * (1 + 1e-14) for a, b in pairwise(run.records))


def test_large_gamma_gives_zero() -> None:
    """Above ‖ΨKᵀy‖_∞ the minimiser is 0, and the gap knows it."""
    p = problem(kernels.motion(3, 0), "pixel", 100.0)
    assert p.measure(torch.zeros_like(p.fidelity.y))[1] == pytest.approx(0, abs=1e-12)
    assert ista(p, p.fidelity.y).value.abs().max() == 0


def test_step_intervals() -> None:
    assert sparse_step_failure(1.99, 1.0, accelerated=False) is None
    assert sparse_step_failure(1.0, 1.0, accelerated=True) is None
    for step, accelerated in ((2.0, False), (0.0, False), (1.01, True), (-1.0, True), (float("nan"), False)):
        message = sparse_step_failure(step, 1.0, accelerated)
        assert message is not None
        assert "admissible interval" in message
