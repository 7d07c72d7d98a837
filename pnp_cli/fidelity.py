"""Data terms: how well an image explains the measurement, with the constants the theorems need.

All are convex and smooth, so one algorithm (a gradient step, then the denoiser) and one check
(0 < step < 2/L) serve them all. Here: least squares; its Moreau envelope is in `proximal`.
"""

from __future__ import annotations

from functools import cached_property
from typing import Protocol

from torch import Tensor

from .operators import Blur
from .precision import Precision


class Fidelity(Protocol):
    """A convex data term f with Lipschitz gradient, on scenes (B, C, H, W)."""

    lipschitz: float
    """L, a Lipschitz constant of the gradient."""
    strong_convexity: float
    """μ ≥ 0, a strong-convexity constant."""
    error: float
    """Bound of ‖e‖ if the last `descend` returned its result plus e; 0 if it is exact."""

    def descend(self, x: Tensor, step: float) -> Tensor:
        """x − step·∇f(x)."""


class LeastSquares:
    """f(x) = ½⟨r(x), P r(x)⟩ + (ridge/2)‖x‖², with the misfit r(x) = Kx − y and ∇f(x) = KᵀP r(x) + ridge·x.

    P is the identity if the errors of y are white: L = ‖K‖² + ridge and μ = σ_min(K)² + ridge. For other errors it is
    the inverse of their covariance, times a variance: L = ‖P‖‖K‖² + ridge and μ = λ_min(P)σ_min(K)² + ridge. Where the
    measurement is *clipped* the light was y or more, and r = min(Kx − y, 0): only a scene that is too dark there is at
    fault. That part of f is a squared distance to a convex set, so f is convex and its gradient as smooth; of μ the
    ridge is left. P must be diagonal there.

    Parameters
    ----------
    operator : K.
    y : measurement (B, C, H, W), in the frame of K.
    ridge : weight of the quadratic term, ≥ 0; it buys strong convexity at a bias towards black.
    clip_level : measurements of this value or more are clipped; None if none can be. What is known of f beforehand (L,
        μ) does not depend on the measurement, so that it is the same for every part of an image.
    precision : P; None for the identity.

    Attributes
    ----------
    clipped : where the measurement is clipped, or None if it cannot be.
    diagonal : whether ∇f is linear and diagonal in the Fourier basis.
    """

    error = 0.0

    def __init__(
        self,
        operator: Blur,
        y: Tensor,
        ridge: float = 0.0,
        clip_level: float | None = None,
        precision: Precision | None = None,
    ) -> None:
        self.operator, self.y, self.ridge, self.precision = operator, y, ridge, precision
        self.clipped = y >= clip_level if clip_level is not None else None
        self.diagonal = operator.diagonal and self.clipped is None and precision is None
        norm, least = (1.0, 1.0) if precision is None else (precision.norm, precision.least)
        self.lipschitz = norm * operator.lipschitz + ridge
        self.strong_convexity = (least * operator.strong_convexity if self.clipped is None else 0.0) + ridge

    @cached_property
    def back(self) -> Tensor:
        """Kᵀy."""
        return self.operator.adjoint(self.y)

    @cached_property
    def back_spectrum(self) -> Tensor:
        """Fourier transform (`torch.fft.rfft2`) of Kᵀy."""
        return self.operator.adjoint_spectrum(self.y)

    def weigh(self, r: Tensor) -> Tensor:
        """P r, in the frame."""
        return r if self.precision is None else self.precision(r)

    @cached_property
    def power(self) -> Tensor:
        """Eigenvalues of KᵀPK by frequency, (H, W // 2 + 1) or for every colour; about those, if it is not diagonal."""
        power = self.operator.power
        return power if self.precision is None else power * self.precision.spectrum(self.operator.scene)

    def misfit(self, blurred: Tensor) -> Tensor:
        """r of a blurred scene Kx, in the frame."""
        r, counted = blurred - self.y, self.counted(blurred)
        return r if counted is None else r * counted

    @cached_property
    def size(self) -> float:
        """‖y‖."""
        return float(self.y.norm())

    def counted(self, blurred: Tensor) -> Tensor | None:
        """Where the misfit of a blurred scene Kx follows it; None for everywhere."""
        return None if self.clipped is None else ~(self.clipped & (blurred > self.y))

    def value(self, x: Tensor) -> float:
        """f(x), summed over the batch."""
        r = self.misfit(self.operator.forward(x))
        return float((r * self.weigh(r)).sum() + self.ridge * x.square().sum()) / 2

    def discrepancy(self, x: Tensor, noise: float) -> float | None:
        """‖Kx − y‖/(√n·noise) for noise of that standard deviation, near 1 if x explains y and not its noise.

        The norm is √⟨r, P r⟩.

        Over the n entries of the measurement that are not clipped. None without noise, or if all are.
        """
        r, n = self.operator.forward(x) - self.y, self.y.numel()
        if self.clipped is not None:
            r, n = r.masked_fill(self.clipped, 0), n - int(self.clipped.sum())
        return max(0.0, float((r * self.weigh(r)).sum())) ** 0.5 / (n**0.5 * noise) if noise > 0 and n else None

    def gradient(self, x: Tensor) -> Tensor:
        """KᵀP r(x) + ridge·x."""
        if self.clipped is None and self.precision is None:
            return self.operator.normal(x) - self.back + self.ridge * x
        return self.operator.adjoint(self.weigh(self.misfit(self.operator.forward(x)))) + self.ridge * x

    def descend(self, x: Tensor, step: float) -> Tensor:
        """x − step·∇f(x)."""
        return x - step * self.gradient(x)
