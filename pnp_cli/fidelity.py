"""Data terms: how well an image explains the measurement, with the constants the theorems need.

All are convex and smooth, so one algorithm (a gradient step, then the denoiser) and one check
(0 < step < 2/L) serve them all. Here: least squares; its Moreau envelope is in `proximal`.
"""

from __future__ import annotations

from functools import cached_property
from typing import Protocol

from torch import Tensor

from .operators import Blur


class Fidelity(Protocol):
    """A convex data term f with Lipschitz gradient, on scenes (B, C, H, W)."""

    name: str
    lipschitz: float
    """L, a Lipschitz constant of the gradient."""
    strong_convexity: float
    """μ ≥ 0, a strong-convexity constant."""
    error: float
    """Bound of ‖e‖ if the last `descend` returned its result plus e; 0 if it is exact."""

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
    y : measurement (B, C, H, W), in the frame of K.
    ridge : weight of the quadratic term, ≥ 0; it buys strong convexity at a bias towards black.
    """

    name = "least-squares"
    error = 0.0

    def __init__(self, operator: Blur, y: Tensor, ridge: float = 0.0) -> None:
        self.operator, self.y, self.ridge = operator, y, ridge
        self.lipschitz = operator.lipschitz + ridge
        self.strong_convexity = operator.strong_convexity + ridge

    @cached_property
    def back(self) -> Tensor:
        """Kᵀy."""
        return self.operator.adjoint(self.y)

    @cached_property
    def back_spectrum(self) -> Tensor:
        """Fourier transform (`torch.fft.rfft2`) of Kᵀy."""
        return self.operator.adjoint_spectrum(self.y)

    @cached_property
    def size(self) -> float:
        """‖y‖."""
        return float(self.y.norm())

    def value(self, x: Tensor) -> float:
        """f(x), summed over the batch."""
        misfit = (self.operator.forward(x) - self.y).square().sum()
        return float(misfit + self.ridge * x.square().sum()) / 2

    def discrepancy(self, x: Tensor, noise: float) -> float | None:
        """‖Kx − y‖/(√n·noise) for noise of that standard deviation, near 1 if x explains y and not its noise.

        None without noise.
        """
        if not noise > 0:
            return None
        return float((self.operator.forward(x) - self.y).norm()) / (self.y.numel() ** 0.5 * noise)

    def gradient(self, x: Tensor) -> Tensor:
        """Kᵀ(Kx − y) + ridge·x."""
        return self.operator.normal(x) - self.back + self.ridge * x

    def descend(self, x: Tensor, step: float) -> Tensor:
        """x − step·∇f(x)."""
        return x - step * self.gradient(x)
