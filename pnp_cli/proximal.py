"""The proximal map of a least-squares term, in closed form or by conjugate gradients, and the Moreau envelope."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

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
    return 3e-3


def summable(k: int) -> float:
    """10⁻⁴/(k + 1)², of finite sum: an averaged iteration with such errors converges (Combettes 2004)."""
    return 1e-4 / (k + 1) ** 2


class ProximalMap:
    """prox_{hf}(v) = argmin_z f(z) + ‖z − v‖²/(2h) of a `LeastSquares` term f.

    It is v + δ, where δ + h∇f(v + δ) = 0, with the data and the iterate combined frequency by frequency: rounding
    errors grow with √h and not with h. For white errors and a periodic blur this is diagonal, and δ a quotient. For
    others δ comes from conjugate gradients, preconditioned with such a quotient and started from the last δ. Where the
    measurement is clipped ∇f is linear in pieces, and δ comes from Newton's method: conjugate gradients on the piece
    that δ is on, until it is the same one. In all cases δ ↦ δ + h∇f(v + δ) is at least as steep as the identity, so
    the error of δ is at most the norm of what is left of the equation, and of what rounding hides of it.

    Parameters
    ----------
    base : f.
    h : > 0.
    tolerance : how the admitted error depends on the number of evaluations so far.

    Attributes
    ----------
    error : bound of the error of the last evaluation, Euclidean norm.
    """

    MAX_STEPS, MAX_PIECES = 200, 20
    ROUNDING = 10
    """Times the tolerance, an error that no longer falls is one of rounding, which may change pieces for ever."""

    def __init__(self, base: LeastSquares, h: float, tolerance: Tolerance = exact) -> None:
        self.base, self.h, self.tolerance = base, h, tolerance
        self.error = 0.0
        self._inverse = 1 / (1 + h * (base.power + base.ridge))  # complex numbers are dear to divide
        self._calls = 0
        self._last: Tensor | None = None

    def __call__(self, v: Tensor) -> Tensor:
        """prox_{hf}(v), v (B, C, H, W)."""
        f, eps = self.base, torch.finfo(v.dtype).eps
        spectrum = torch.fft.rfft2(v)
        if f.diagonal:
            right = self.h * (f.back_spectrum - (f.power + f.ridge) * spectrum)
            step = right * self._inverse
            # h·conj(k̂)/(1 + h|k̂|²) is at most √h/2: so much of the rounding of the measurement comes through.
            self.error = eps * self.h**0.5 / 2 * f.size
        else:
            # What rounding does to a product with the matrix, of norm 1 + hL, no residual can show.
            rounding = eps * (1 + self.h * f.lipschitz) * float(v.norm())
            tolerance = max(self.tolerance(self._calls) * f.size, rounding)
            step, left = self._solve(spectrum, tolerance, _Spectra(v.shape[3], spectrum))
            self.error = left + rounding
            self._calls += 1
            self._last = step
        return v + torch.fft.irfft2(step, s=v.shape[2:])

    def _solve(self, v: Tensor, tolerance: float, spectra: _Spectra) -> tuple[Tensor, float]:
        """The spectrum of δ for that of v, and a bound of its error."""
        f = self.base
        step = self._last if self._last is not None else torch.zeros_like(v)
        piece: Tensor | None = None
        last = float("inf")
        for _ in range(self.MAX_PIECES):
            left, new_piece = self._equation(v, step)
            error = spectra.norm(left)
            settled = piece is not None and new_piece is not None and torch.equal(piece, new_piece)
            if error <= tolerance or settled or last <= error <= self.ROUNDING * tolerance:
                return step, error
            piece, last = new_piece, error
            change, error = self._conjugate_gradients(left, piece, tolerance, spectra)
            step = step + change
            if f.clipped is None:
                return step, error
        return step, spectra.norm(self._equation(v, step)[0])

    def _equation(self, v: Tensor, step: Tensor) -> tuple[Tensor, Tensor | None]:
        """−δ − h∇f(v + δ) as a spectrum, and the piece: where the measurement counts (None: everywhere)."""
        f, z = self.base, v + step
        blurred = f.operator.forward_spectrum(z)
        gradient = f.operator.adjoint_spectrum(f.weigh(f.misfit(blurred))) + f.ridge * z
        return -step - self.h * gradient, f.counted(blurred)

    def _matrix(self, d: Tensor, piece: Tensor | None) -> Tensor:
        """d + h∇²f d on a piece."""
        f = self.base
        blurred = f.operator.forward_spectrum(d)
        normal = f.operator.adjoint_spectrum(f.weigh(blurred if piece is None else blurred * piece))
        return torch.add(d, normal + f.ridge * d if f.ridge else normal, alpha=self.h)

    def _conjugate_gradients(
        self, right: Tensor, piece: Tensor | None, tolerance: float, spectra: _Spectra
    ) -> tuple[Tensor, float]:
        """The solution x of `_matrix`(x) = right, and the norm of what is left of that equation."""
        x, r = torch.zeros_like(right), right
        z = r * self._inverse
        p, rz = z, spectra.dot(r, z)
        error = spectra.norm(r)
        for _ in range(self.MAX_STEPS):
            if error <= tolerance:
                break
            image = self._matrix(p, piece)
            alpha = rz / spectra.dot(p, image)
            x.add_(p, alpha=alpha)
            r = torch.sub(r, image, alpha=alpha)
            z = r * self._inverse
            rz, previous = spectra.dot(r, z), rz
            p = torch.add(z, p, alpha=rz / previous)
            error = spectra.norm(r)
        return x, error


class _Spectra:
    """Inner products of real images (…, H, width), from their half-plane spectra."""

    def __init__(self, width: int, like: Tensor) -> None:
        weight = torch.full((like.shape[3],), 2.0, dtype=torch.float64, device=like.device)
        weight[0] = 1
        if width % 2 == 0:
            weight[-1] = 1  # the column of the Nyquist frequency has no mirror image either
        self._weight = weight.repeat_interleave(2) / (like.shape[2] * width)  # of real and imaginary parts in turn

    def dot(self, a: Tensor, b: Tensor) -> float:
        """Of two images."""
        products = torch.view_as_real(a) * torch.view_as_real(b)
        return float(products.flatten(-2).flatten(0, -2).sum(0, dtype=torch.float64) @ self._weight)

    def norm(self, a: Tensor) -> float:
        """Of one."""
        return self.dot(a, a) ** 0.5


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

    def __init__(self, base: LeastSquares, h: float, tolerance: Tolerance = exact) -> None:
        self.base, self.h, self.tolerance = base, h, tolerance
        self.lipschitz = base.lipschitz / (1 + h * base.lipschitz)
        self.strong_convexity = base.strong_convexity / (1 + h * base.strong_convexity)
        self.error = 0.0

    @cached_property
    def prox(self) -> ProximalMap:
        """prox_{hf}, made when it is first needed: the constants above are known without."""
        return ProximalMap(self.base, self.h, self.tolerance)

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
