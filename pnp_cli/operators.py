"""The forward model y = K x: blur by convolution, with its exact adjoint and its extreme singular values."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from .errors import InputError, UsageError
from .kernels import Kernel


class Boundary(Protocol):
    """What lies beyond the frame: K = restrict ∘ (periodic convolution on a canvas).

    ‖restrict‖ ≤ 1, so ‖K‖ ≤ max |transfer function| for every boundary model.
    """

    name: str
    is_identity: bool
    """Whether frame and canvas are the same, so that K is diagonal in the Fourier basis."""

    def canvas(self, size: tuple[int, int], kernel_size: tuple[int, int]) -> tuple[int, int]:
        """(H, W) of the canvas for a frame and a kernel."""

    def restrict(self, x: Tensor) -> Tensor:
        """Canvas (B, C, H', W') to frame (B, C, H, W)."""

    def extend(self, y: Tensor) -> Tensor:
        """Adjoint of `restrict`."""


class Periodic:
    """The scene repeats beyond the frame; K is diagonal in the Fourier basis."""

    name = "periodic"
    is_identity = True

    def canvas(self, size: tuple[int, int], kernel_size: tuple[int, int]) -> tuple[int, int]:
        """The frame itself."""
        return size

    def restrict(self, x: Tensor) -> Tensor:
        """Identity."""
        return x

    def extend(self, y: Tensor) -> Tensor:
        """Identity."""
        return y


class Blur:
    """Convolution K with a point-spread function, applied to every channel of (B, C, H, W) by FFT.

    Parameters
    ----------
    kernel : (h, w) array with origin (h // 2, w // 2); see `kernels`.
    size : (H, W) of the observed image.
    boundary : boundary model; periodic by default.
    device, dtype : where and in which real precision to compute.

    Attributes
    ----------
    lipschitz : L = ‖K‖², the largest squared singular value (an upper bound if the boundary restricts),
        to 12 decimals, so that a non-negative kernel of unit sum has exactly 1.
    strong_convexity : μ, the smallest squared singular value (0 if the boundary restricts).

    Raises
    ------
    InputError
        If the kernel is larger than the image.
    """

    def __init__(
        self,
        kernel: Kernel,
        size: tuple[int, int],
        boundary: Boundary | None = None,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.boundary: Boundary = boundary or Periodic()
        h, w = kernel.shape
        if h > size[0] or w > size[1]:
            raise InputError(
                f"the {h}x{w} kernel is larger than the {size[0]}x{size[1]} image (height x width); "
                "crop the kernel or use a larger image"
            )
        self.size = size
        self.canvas = self.boundary.canvas(size, (h, w))
        embedded = np.zeros(self.canvas)
        embedded[:h, :w] = kernel
        embedded = np.roll(embedded, (-(h // 2), -(w // 2)), axis=(0, 1))
        transfer = np.fft.rfft2(embedded)
        power = np.abs(transfer) ** 2
        self.lipschitz = round(float(power.max()), 12)
        self.strong_convexity = float(power.min()) if self.boundary.is_identity else 0.0
        cdtype = torch.complex128 if dtype == torch.float64 else torch.complex64
        self._transfer = torch.from_numpy(transfer).to(device, cdtype)
        self._power = torch.from_numpy(power).to(device, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """K x: canvas to frame."""
        return self.boundary.restrict(self._filter(x, self._transfer))

    def adjoint(self, y: Tensor) -> Tensor:
        """Kᵀ y: frame to canvas."""
        return self._filter(self.boundary.extend(y), self._transfer.conj())

    def normal(self, x: Tensor) -> Tensor:
        """KᵀK x."""
        if self.boundary.is_identity:
            return self._filter(x, self._power)
        return self.adjoint(self.forward(x))

    def adjoint_spectrum(self, y: Tensor) -> Tensor:
        """Fourier transform of Kᵀy, for `prox`."""
        return torch.fft.rfft2(self.boundary.extend(y)) * self._transfer.conj()

    def prox(self, v: Tensor, adjoint_spectrum: Tensor, h: float, ridge: float = 0.0) -> Tensor:
        """prox_{hf}(v) of f(x) = ½‖Kx − y‖² + (ridge/2)‖x‖², in closed form for a periodic blur.

        As v − h(I + h(KᵀK + ridge))⁻¹∇f(v), with the data and the iterate combined frequency by frequency:
        rounding errors grow with √h and not with h.

        Raises
        ------
        UsageError
            If the boundary has no closed form.
        """
        if not self.boundary.is_identity:
            raise UsageError(f"the {self.boundary.name} boundary has no closed-form proximal map; use least-squares")
        curvature = self._power + ridge
        descent = (adjoint_spectrum - curvature * torch.fft.rfft2(v)) * (h / (1 + h * curvature))
        return v + torch.fft.irfft2(descent, s=self.canvas)

    def _filter(self, x: Tensor, response: Tensor) -> Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(x) * response, s=self.canvas)


class BlurCache:
    """The blur with one kernel for images of any size; that of the last size is kept, for files of one size.

    Parameters
    ----------
    kernel, device, dtype : see `Blur`.
    """

    def __init__(self, kernel: Kernel, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        self.kernel, self.device, self.dtype = kernel, device, dtype
        self._last: Blur | None = None

    def __call__(self, size: tuple[int, int]) -> Blur:
        """K for images of `size` (height, width)."""
        last = self._last
        if last is None or last.size != size:
            self._last = last = Blur(self.kernel, size, device=self.device, dtype=self.dtype)
        return last
