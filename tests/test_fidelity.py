"""Data terms: gradients, constants, the proximal map and the Moreau envelope."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pnp_cli import Blur, LeastSquares, MoreauEnvelope, ProximalMap, kernels
from pnp_cli.boundaries import BoundaryModel, Free, Periodic, Reflect
from pnp_cli.precision import BlockPrecision, Precision, WeightedPrecision
from pnp_cli.proximal import summable

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
    z = ProximalMap(f, h)(v)
    torch.testing.assert_close(f.gradient(z) + (z - v) / h, torch.zeros_like(v), atol=1e-12, rtol=0)


@pytest.mark.parametrize("boundary", [Free, Reflect])
@pytest.mark.parametrize("ridge", [0.0, 0.3])
@pytest.mark.parametrize("h", [3.0, 300.0])
def test_prox_without_a_closed_form(boundary: BoundaryModel, ridge: float, h: float) -> None:
    """Conjugate gradients against a dense solve: the error never exceeds its bound, nor the bound the tolerance."""
    blur = Blur(kernels.motion(4, 20), SIZE, boundary, dtype=torch.float64)
    height, width = blur.scene
    n = height * width
    basis = torch.eye(n, dtype=torch.float64).reshape(n, 1, height, width)
    f = LeastSquares(blur, torch.rand(1, 2, *SIZE, dtype=torch.float64), ridge)
    matrix = torch.eye(n, dtype=torch.float64) * (1 + h * ridge) + h * blur.normal(basis).reshape(n, n)
    for tolerance in (1e-2, 1e-5, 0.0):
        prox = ProximalMap(f, h, lambda k, t=tolerance: t)  # type: ignore[misc]
        for _ in range(3):  # warm starts after the first
            v = torch.randn(1, 2, height, width, dtype=torch.float64)
            right = (v + h * f.back).reshape(2, n).T
            expected = torch.linalg.solve(matrix, right).T.reshape(v.shape)
            error = float((prox(v) - expected).norm())
            assert error <= prox.error + 1e-12 * float(right.norm())
            rounding = 3e-16 * (1 + h * f.lipschitz) * float(v.norm())
            assert prox.error <= max(tolerance * float(f.y.norm()), rounding) + rounding


@pytest.mark.parametrize("boundary", [Periodic, Free, Reflect])
@pytest.mark.parametrize("h", [1.0, 10.0, 1e3, 1e5])
def test_error_bound_in_single_precision(boundary: BoundaryModel, h: float) -> None:
    """Rounding hides errors from the residual; the bound counts them, together with that of the iterate itself."""
    kernel, size = kernels.motion(5, 20), (48, 48)
    single, double = (Blur(kernel, size, boundary, dtype=dtype) for dtype in (torch.float32, torch.float64))
    truth = torch.rand(1, 1, *double.scene, dtype=torch.float64)
    y = (double.forward(truth) + 0.01 * torch.randn(1, 1, *size, dtype=torch.float64)).float()
    for tolerance in (1e-3, 0.0):
        prox = ProximalMap(LeastSquares(single, y), h, lambda k, t=tolerance: t)  # type: ignore[misc]
        exact = ProximalMap(LeastSquares(double, y.double()), h)
        for noise in (0.0, 0.1, 1.0):
            v = (truth + noise * torch.randn_like(truth)).float()
            error = float((prox(v).double() - exact(v.double())).norm())
            assert error <= prox.error + 4e-7 * float(v.norm()), (tolerance, noise)


@pytest.mark.parametrize("boundary", [Periodic, Free, Reflect])
@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_clipped_measurements(boundary: BoundaryModel, ridge: float) -> None:
    """A convex term whose gradient has the stated constant; its proximal map solves the inclusion that defines it."""
    blur = Blur(kernels.motion(4, 20), SIZE, boundary, dtype=torch.float64)
    y = (1.5 * torch.rand(1, 2, *SIZE, dtype=torch.float64)).clamp_max(1)
    f = LeastSquares(blur, y, ridge, clip_level=1.0)
    assert f.clipped is not None
    assert 0.1 < float(f.clipped.double().mean()) < 0.6
    assert f.strong_convexity == ridge

    def scene() -> Tensor:
        return 2 * torch.rand(1, 2, *blur.scene, dtype=torch.float64)

    for _ in range(5):
        a, b = scene(), scene()
        change = f.gradient(a) - f.gradient(b)
        product = float((change * (a - b)).sum())
        assert float(change.square().sum()) <= f.lipschitz * product * (1 + 1e-12), "Baillon-Haddad"
        assert product >= ridge * float((a - b).square().sum()) * (1 - 1e-12)
        t = 1e-6
        slope = (f.value(a + t * b) - f.value(a - t * b)) / (2 * t)
        assert slope == pytest.approx(float((f.gradient(a) * b).sum()), rel=1e-6)
    for h in (3.0, 300.0):
        for tolerance in (1e-3, 0.0):
            prox = ProximalMap(f, h, lambda k, t=tolerance: t)  # type: ignore[misc]
            for _ in range(3):
                v = scene()
                left = prox(v) + h * f.gradient(prox(v)) - v
                assert float(left.norm()) <= prox.error + 1e-12 * (1 + h) * float(v.norm())
                assert prox.error <= tolerance * float(y.norm()) + 1e-14 * (1 + h * f.lipschitz) * float(v.norm())


@pytest.mark.parametrize("boundary", [Periodic, Free, Reflect])
@pytest.mark.parametrize("clip_level", [None, 1.0])
@pytest.mark.parametrize("kind", ["blocks", "weights", "both"])
def test_errors_that_are_not_white(boundary: BoundaryModel, clip_level: float | None, kind: str) -> None:
    """The same with a precision by place, by blocks, which leaves those of clipped samples out, and by both."""
    blur = Blur(kernels.motion(4, 20), SIZE, boundary, dtype=torch.float64)
    y = (1.05 * torch.rand(1, 2, *SIZE, dtype=torch.float64)).clamp_max(1)
    clipped = None if clip_level is None else (y >= clip_level).any(1, keepdim=True)
    root = np.random.default_rng(0).normal(size=(18, 18))
    blocks = BlockPrecision(root @ root.T / 6 + np.eye(18) / 10, (1, 0), clipped, side=3, dtype=torch.float64)
    precision: Precision = blocks
    if kind != "blocks":
        precision = WeightedPrecision(0.5 + torch.rand_like(y), blocks if kind == "both" else None)
    f = LeastSquares(blur, y, 0.1, clip_level, precision)
    assert not f.diagonal
    n = blur.scene[0] * blur.scene[1] * 2
    basis = torch.eye(n, dtype=torch.float64).reshape(n, 2, *blur.scene)
    if clip_level is None:
        hessian = (f.gradient(basis) - f.gradient(torch.zeros_like(basis))).reshape(n, n).numpy()
        np.testing.assert_allclose(hessian, hessian.T, atol=1e-12)
        eigenvalues = np.linalg.eigvalsh(hessian)
        assert 0.1 <= f.strong_convexity <= eigenvalues[0] + 1e-12
        assert eigenvalues[-1] <= f.lipschitz * (1 + 1e-12)
        assert (f.strong_convexity > 0.1) == (boundary is Periodic and blur.strong_convexity > 0)
    else:
        assert f.strong_convexity == 0.1

    def scene() -> Tensor:
        return 2 * torch.rand(1, 2, *blur.scene, dtype=torch.float64)

    for _ in range(5):
        a, b = scene(), scene()
        change = f.gradient(a) - f.gradient(b)
        assert float(change.square().sum()) <= f.lipschitz * float((change * (a - b)).sum()) * (1 + 1e-12)
        slope = (f.value(a + 1e-6 * b) - f.value(a - 1e-6 * b)) / 2e-6
        assert slope == pytest.approx(float((f.gradient(a) * b).sum()), rel=1e-5)
    prox = ProximalMap(f, 20.0)
    for _ in range(3):
        v = scene()
        z = prox(v)
        assert float((z + 20 * f.gradient(z) - v).norm()) <= prox.error + 1e-12 * float(v.norm())
        assert prox.error <= 1e-12 * (1 + 20 * f.lipschitz) * float(v.norm())


def test_a_clip_level_above_the_measurement() -> None:
    """It changes no result; what is known beforehand is what is known of every measurement with that level."""
    f = term()
    assert isinstance(f, LeastSquares)
    same = LeastSquares(f.operator, f.y, clip_level=float(f.y.max()) + 1e-9)
    v = image()
    torch.testing.assert_close(same.gradient(v), f.gradient(v), atol=1e-12, rtol=0)
    torch.testing.assert_close(ProximalMap(same, 5.0)(v), ProximalMap(f, 5.0)(v), atol=1e-10, rtol=0)
    assert same.strong_convexity == 0 < f.strong_convexity


def test_discrepancy_is_without_the_clipped() -> None:
    blur = Blur(kernels.motion(4, 20), (64, 64), Free, dtype=torch.float64)
    truth = 2 * torch.rand(1, 3, *blur.scene, dtype=torch.float64)
    y = blur.forward(truth)
    f = LeastSquares(blur, (y + 0.01 * torch.randn_like(y)).clamp_max(1), clip_level=1.0)
    assert f.clipped is not None
    assert f.discrepancy(truth, 0.01) == pytest.approx(1, abs=0.1)
    assert LeastSquares(blur, y, clip_level=0.0).discrepancy(truth, 0.01) is None


def test_tolerances_have_a_finite_sum() -> None:
    assert sum(summable(k) for k in range(100_000)) < 1.65e-4


def test_discrepancy_of_the_truth_is_one() -> None:
    blur = Blur(kernels.motion(4, 20), (64, 64), Free, dtype=torch.float64)
    truth = torch.rand(1, 3, *blur.scene, dtype=torch.float64)
    y = blur.forward(truth)
    f = LeastSquares(blur, y + 0.1 * torch.randn_like(y))
    assert f.discrepancy(truth, 0.1) == pytest.approx(1, abs=0.02)
    assert f.discrepancy(truth, 0.0) is None


def test_moreau_identity() -> None:
    """prox_{hf}(v) + h prox_{f*/h}(v/h) = v, the conjugate's prox by a dense solve.

    f(x) = ½xᵀHx − bᵀx + c has f*(p) = ½(p + b)ᵀH⁻¹(p + b) − c, whose prox solves (H⁻¹/h + I)p = v/h − H⁻¹b/h.
    """
    f, v, h = term(0.3), image(), 4.0
    assert isinstance(f, LeastSquares)
    n = SIZE[0] * SIZE[1]
    basis = torch.eye(n, dtype=torch.float64).reshape(n, 1, *SIZE).repeat(1, 2, 1, 1)
    b = -f.gradient(torch.zeros_like(v))
    inverse = torch.linalg.inv((f.gradient(basis) + b)[:, 0].reshape(n, n).T)
    right = (v / h).reshape(2, n).T - inverse @ b.reshape(2, n).T / h
    p = torch.linalg.solve(inverse / h + torch.eye(n, dtype=torch.float64), right).T.reshape(v.shape)
    torch.testing.assert_close(ProximalMap(f, h)(v) + h * p, v)


def test_envelope_lies_below_and_touches_at_the_minimum() -> None:
    base = term(0.3)
    assert isinstance(base, LeastSquares)
    envelope = MoreauEnvelope(base, 5.0)
    x = image()
    assert envelope.value(x) < base.value(x)
    minimiser = ProximalMap(base, 1e9)(x)
    assert envelope.value(minimiser) == pytest.approx(base.value(minimiser), rel=1e-9)


def test_single_precision_does_not_lose_accuracy_with_h() -> None:
    """The rounding error of prox_{hf} grows with √h at most; a formula that adds hKᵀy to v loses a factor h."""
    blurs = [Blur(kernels.motion(9, 20), (48, 48), dtype=dtype) for dtype in (torch.float32, torch.float64)]
    truth = torch.rand(1, 1, 48, 48, dtype=torch.float64)
    y = blurs[1].forward(truth) + 0.01 * torch.randn_like(truth)
    single, double = (LeastSquares(b, y.to(t)) for b, t in zip(blurs, (torch.float32, torch.float64), strict=True))
    for h in (10.0, 1e3, 1e5):
        exact = ProximalMap(double, h)(truth)
        error = float((ProximalMap(single, h)(truth.float()).double() - exact).norm() / truth.norm())
        assert error < 1e-6 * h**0.5, h


def test_firm_nonexpansiveness_of_the_prox() -> None:
    f, a, b = term(), image(), image()
    assert isinstance(f, LeastSquares)
    prox = ProximalMap(f, 50.0)
    p, q = prox(a), prox(b)
    assert float((p - q).square().sum()) <= float(((p - q) * (a - b)).sum()) * (1 + 1e-12)
