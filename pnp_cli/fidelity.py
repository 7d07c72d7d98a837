"""Data terms: how well an image explains the measurement, with the constants the theorems need.

Both are convex and smooth, so one algorithm (a gradient step, then the denoiser) and one check
(0 < step < 2/L) serve both.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from .operators import Blur


class Fidelity(Protocol):
    """A convex data term f with Lipschitz gradient, on images (B, C, H, W)."""

    name: str
    lipschitz: float
    """L, a Lipschitz constant of the gradient."""
    strong_convexity: float
    """μ ≥ 0, a strong-convexity constant."""

    def value(self, x: Tensor) -> float:
        """f(x), summed over the batch."""

    def gradient(self, x: Tensor) -> Tensor:
        """∇f(x)."""

    def descend(self, x: Tensor, step: float) -> Tensor:
        """x − step·∇f(x)."""


class LeastSquares:
    """f(x) = ½‖Kx − y‖² + (ridge/2)‖x‖², with ∇f(x) = Kᵀ(Kx − y) + ridge·x.

    L = ‖K‖² + ridge and μ = σ_min(K)² + ridge.

    Parameters
    ----------
    operator : K.
    y : measurement (B, C, H, W).
    ridge : weight of the quadratic term, ≥ 0; it buys strong convexity at a bias towards black.
    """

    name = "least-squares"

    def __init__(self, operator: Blur, y: Tensor, ridge: float = 0.0) -> None:
        self.operator, self.y, self.ridge = operator, y, ridge
        self.lipschitz = operator.lipschitz + ridge
        self.strong_convexity = operator.strong_convexity + ridge
        self._back = operator.adjoint(y)
        self._back_spectrum = operator.adjoint_spectrum(y)

    def value(self, x: Tensor) -> float:
        """f(x), summed over the batch."""
        misfit = (self.operator.forward(x) - self.y).square().sum()
        return float(misfit + self.ridge * x.square().sum()) / 2

    def gradient(self, x: Tensor) -> Tensor:
        """Kᵀ(Kx − y) + ridge·x."""
        return self.operator.normal(x) - self._back + self.ridge * x

    def descend(self, x: Tensor, step: float) -> Tensor:
        """x − step·∇f(x)."""
        return x - step * self.gradient(x)

    def prox(self, v: Tensor, h: float) -> Tensor:
        """prox_{hf}(v) = argmin_z f(z) + ‖z − v‖²/(2h) = (I + h(KᵀK + ridge))⁻¹(v + hKᵀy), h > 0."""
        return self.operator.prox(v, self._back_spectrum, h, self.ridge)


class MoreauEnvelope:
    """f_h(x) = min_z f(z) + ‖x − z‖²/(2h), the Moreau envelope of a least-squares term.

    ∇f_h(x) = (x − prox_{hf}(x))/h; f_h is L/(1 + hL)-smooth and μ/(1 + hμ)-strongly convex. Its gradient
    step of size h is the proximal map of hf, and sizes up to 2(1 + hL)/L over-relax it.

    Parameters
    ----------
    base : f.
    h : smoothing parameter, > 0; the larger, the more the data weigh against the denoiser.
    """

    name = "envelope"

    def __init__(self, base: LeastSquares, h: float) -> None:
        self.base, self.h = base, h
        self.lipschitz = base.lipschitz / (1 + h * base.lipschitz)
        self.strong_convexity = base.strong_convexity / (1 + h * base.strong_convexity)

    def value(self, x: Tensor) -> float:
        """f_h(x), summed over the batch."""
        z = self.base.prox(x, self.h)
        return self.base.value(z) + float((x - z).square().sum()) / (2 * self.h)

    def gradient(self, x: Tensor) -> Tensor:
        """(x − prox_{hf}(x))/h."""
        return (x - self.base.prox(x, self.h)) / self.h

    def descend(self, x: Tensor, step: float) -> Tensor:
        """x − step·∇f_h(x), without dividing by h first."""
        z = self.base.prox(x, self.h)
        return z if step == self.h else x + (step / self.h) * (z - x)
