"""Data terms: gradients, constants, the proximal map and the Moreau envelope."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pnp_cli import Blur, LeastSquares, MoreauEnvelope, kernels

SIZE = (7, 10)


def term(ridge: float = 0.0, h: float | None = None) -> LeastSquares | MoreauEnvelope:
    y = torch.rand(1, 2, *SIZE, dtype=torch.float64)
    base = LeastSquares(Blur(kernels.motion(4, 20), SIZE, dtype=torch.float64), y, ridge)
    return base if h is None else MoreauEnvelope(base, h)


def image() -> Tensor:
    return torch.randn(1, 2, *SIZE, dtype=torch.float64)


TERMS = [(0.0, None), (0.3, None), (0.0, 5.0), (0.3, 5.0)]


@pytest.mark.parametrize(("ridge", "h"), TERMS)
def test_gradient_is_the_derivative(ridge: float, h: float | None) -> None:
    f, x, d = term(ridge, h), image(), image()
    t = 1e-4  # the terms are quadratic, so the central difference is exact
    slope = (f.value(x + t * d) - f.value(x - t * d)) / (2 * t)
    assert slope == pytest.approx(float((f.gradient(x) * d).sum()), rel=1e-7)


@pytest.mark.parametrize(("ridge", "h"), TERMS)
def test_constants_are_the_extreme_curvatures(ridge: float, h: float | None) -> None:
    f = term(ridge, h)
    n = SIZE[0] * SIZE[1]
    basis = torch.eye(n, dtype=torch.float64).reshape(n, 1, *SIZE).repeat(1, 2, 1, 1)
    zero = f.gradient(torch.zeros_like(basis))
    hessian = (f.gradient(basis) - zero)[:, 0].reshape(n, n).numpy()
    curvature = np.linalg.eigvalsh((hessian + hessian.T) / 2)
    assert f.lipschitz == pytest.approx(curvature[-1], rel=1e-10)
    assert f.strong_convexity == pytest.approx(curvature[0], rel=1e-8, abs=1e-12)


@pytest.mark.parametrize(("ridge", "h"), TERMS)
def test_descend_is_a_gradient_step(ridge: float, h: float | None) -> None:
    f, x = term(ridge, h), image()
    for step in (0.7, h or 1.3):
        torch.testing.assert_close(f.descend(x, step), x - step * f.gradient(x))


@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_prox_minimises(ridge: float) -> None:
    f, v, h = term(ridge), image(), 4.0
    assert isinstance(f, LeastSquares)
    z = f.prox(v, h)
    torch.testing.assert_close(f.gradient(z) + (z - v) / h, torch.zeros_like(v), atol=1e-12, rtol=0)


def test_moreau_identity() -> None:
    """prox_{hf} + h prox_{f*/h}(./h) = id, with the conjugate's prox from its own optimality condition."""
    f, v, h = term(0.3), image(), 4.0
    assert isinstance(f, LeastSquares)
    p = (v - f.prox(v, h)) / h  # = prox_{f*/h}(v/h) if p minimises f*(p) + h/2 |p - v/h|^2, so v - hp in df*(p)
    torch.testing.assert_close(f.gradient(v - h * p), p)


def test_envelope_lies_below_and_touches_at_the_minimum() -> None:
    base = term(0.3)
    assert isinstance(base, LeastSquares)
    envelope = MoreauEnvelope(base, 5.0)
    x = image()
    assert envelope.value(x) < base.value(x)
    minimiser = base.operator.solve(base.operator.adjoint(base.y) * 1e9, 1e9, base.ridge)
    assert envelope.value(minimiser) == pytest.approx(base.value(minimiser), rel=1e-9)


def test_firm_nonexpansiveness_of_the_prox() -> None:
    f, a, b = term(), image(), image()
    assert isinstance(f, LeastSquares)
    p, q = f.prox(a, 50.0), f.prox(b, 50.0)
    assert float((p - q).square().sum()) <= float(((p - q) * (a - b)).sum()) * (1 + 1e-12)
