"""The proximal map of a least-squares term, in closed form or by conjugate gradients, and the Moreau envelope."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .fidelity import LeastSquares

Tolerance = Callable[[int], float]
"""Admitted error of the k-th evaluation, k = 0, 1 …, relative to the norm of the measurement."""


def exact(k: int) -> float:
    """As exact as the arithmetic allows."""
    return 0.0


def loose(k: int) -> float:
    """For steps to which no theorem applies."""
    return 1e-3


def summable(k: int) -> float:
    """10⁻⁴/(k + 1)², of finite sum: an averaged iteration with such errors converges (Combettes 2004)."""
    return 1e-4 / (k + 1) ** 2


class ProximalMap:
    """prox_{hf}(v) = argmin_z f(z) + ‖z − v‖²/(2h) of f(x) = ½‖Kx − y‖² + (ridge/2)‖x‖².

    It is v + δ, where (I + h(KᵀK + ridge)) δ = −h∇f(v), with the data and the iterate combined frequency by
    frequency: rounding errors grow with √h and not with h. A periodic blur is diagonal there, and δ a quotient.
    For others δ comes from conjugate gradients, preconditioned with the same quotient and started from the last δ.
    The matrix is at least the identity, so the error of δ is at most the norm of its residual.

    Parameters
    ----------
    base : f.
    h : > 0.
    tolerance : how the admitted error depends on the number of evaluations so far.

    Attributes
    ----------
    error : bound of the error of the last evaluation, Euclidean norm; 0 for the closed form.
    """

    MAX_STEPS = 200

    def __init__(self, base: LeastSquares, h: float, tolerance: Tolerance = exact) -> None:
        self.base, self.h, self.tolerance = base, h, tolerance
        self.error = 0.0
        self._preconditioner = 1 + h * (base.operator.power + base.ridge)
        self._calls = 0
        self._last: Tensor | None = None

    def __call__(self, v: Tensor) -> Tensor:
        """prox_{hf}(v), v (B, C, H, W)."""
        f = self.base
        spectrum = torch.fft.rfft2(v)
        right = self.h * (f.back_spectrum - f.operator.normal_spectrum(spectrum) - f.ridge * spectrum)
        if f.operator.diagonal:
            step = right / self._preconditioner
        else:
            # What rounding does to a product with the matrix, of norm 1 + hL, no residual can show.
            rounding = torch.finfo(v.dtype).eps * (1 + self.h * f.lipschitz) * float(v.norm())
            step = self._solve(right, max(self.tolerance(self._calls) * f.size, rounding), v.shape[3])
            self.error = max(self.error, rounding)
            self._calls += 1
        return v + torch.fft.irfft2(step, s=v.shape[2:])

    def _matrix(self, d: Tensor) -> Tensor:
        return d + self.h * (self.base.operator.normal_spectrum(d) + self.base.ridge * d)

    def _solve(self, right: Tensor, tolerance: float, width: int) -> Tensor:
        """δ by preconditioned conjugate gradients, all vectors as half-plane spectra."""
        weight = torch.full((right.shape[3],), 2.0, device=right.device)
        weight[0] = 1
        if width % 2 == 0:
            weight[-1] = 1  # the column of the Nyquist frequency has no mirror image either
        weight /= right.shape[2] * width

        def dot(a: Tensor, b: Tensor) -> float:
            return float((torch.view_as_real(a) * torch.view_as_real(b)).sum(-1).mul_(weight).sum(dtype=torch.float64))

        x = self._last if self._last is not None else torch.zeros_like(right)
        r = right if self._last is None else right - self._matrix(x)
        z = r / self._preconditioner
        p, rz = z, dot(r, z)
        self.error = dot(r, r) ** 0.5
        for _ in range(self.MAX_STEPS):
            if self.error <= tolerance:
                break
            image = self._matrix(p)
            alpha = rz / dot(p, image)
            x, r = x + alpha * p, r - alpha * image
            z = r / self._preconditioner
            rz, previous = dot(r, z), rz
            p = z + (rz / previous) * p
            self.error = dot(r, r) ** 0.5
        self._last = x
        return x


class MoreauEnvelope:
    """f_h(x) = min_z f(z) + ‖x − z‖²/(2h), the Moreau envelope of a least-squares term.

    ∇f_h(x) = (x − prox_{hf}(x))/h; f_h is L/(1 + hL)-smooth and μ/(1 + hμ)-strongly convex. Its gradient
    step of size h is the proximal map of hf, and sizes up to 2(1 + hL)/L over-relax it.

    Parameters
    ----------
    base : f.
    h : smoothing parameter, > 0; the larger, the more the data weigh against the denoiser.
    tolerance : of the proximal map, where it has no closed form.
    """

    name = "envelope"

    def __init__(self, base: LeastSquares, h: float, tolerance: Tolerance = exact) -> None:
        self.base, self.h = base, h
        self.prox = ProximalMap(base, h, tolerance)
        self.lipschitz = base.lipschitz / (1 + h * base.lipschitz)
        self.strong_convexity = base.strong_convexity / (1 + h * base.strong_convexity)
        self.error = 0.0

    def value(self, x: Tensor) -> float:
        """f_h(x), summed over the batch."""
        z = self.prox(x)
        return self.base.value(z) + float((x - z).square().sum()) / (2 * self.h)

    def gradient(self, x: Tensor) -> Tensor:
        """(x − prox_{hf}(x))/h."""
        return (x - self.prox(x)) / self.h

    def descend(self, x: Tensor, step: float) -> Tensor:
        """x − step·∇f_h(x), without dividing by h first."""
        z = self.prox(x)
        self.error = self.prox.error * step / self.h
        return z if step == self.h else x + (step / self.h) * (z - x)
