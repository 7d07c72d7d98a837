"""The forward model y = K x: blur by convolution, with its exact adjoint and bounds of its singular values."""

from __future__ import annotations

import sys

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .boundaries import BoundaryModel, Periodic, Size
from .errors import InputError
from .kernels import Kernel

ROUNDING = 1e-12
"""Bound of the relative error that the Fourier sums may leave in L, which is made larger by as much."""


class Blur:
    """Convolution K with a point-spread function, applied to every channel of (B, C, H, W) by FFT.

    Parameters
    ----------
    kernel : (h, w) array with origin (h // 2, w // 2); see `kernels`.
    size : (H, W) of the observed image, the frame.
    boundary : boundary model; see `boundaries`.
    device, dtype : where and in which real precision to compute.

    Attributes
    ----------
    scene : (H, W) of the images that K is applied to.
    diagonal : whether K is diagonal in the Fourier basis (periodic boundary).
    lipschitz : L ≥ ‖K‖². If K is diagonal, it is ‖K‖² but for the margin `ROUNDING`; a non-negative kernel of unit sum
        has exactly 1. For a scene that is enlarged by reflection it is Schur's bound ‖K‖₁‖K‖_∞.
    strong_convexity : μ, the smallest squared singular value if K is diagonal, else 0.
    power : |k̂|² on the scene, (H, W // 2 + 1): the eigenvalues of KᵀK if K is diagonal.

    Raises
    ------
    InputError
        If the kernel is larger than the image.
    """

    def __init__(
        self,
        kernel: Kernel,
        size: Size,
        boundary: BoundaryModel = Periodic,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        h, w = kernel.shape
        if h > size[0] or w > size[1]:
            raise InputError(
                f"the {h}x{w} kernel is larger than the {size[0]}x{size[1]} image (height x width); "
                "use a smaller kernel or a larger image"
            )
        self.size = size
        self.boundary = boundary(size, (h, w))
        self.scene = self.boundary.scene
        self.diagonal = self.scene == size == self.boundary.canvas
        transfer = _transfer_function(kernel, self.boundary.canvas)
        on_scene = transfer if self.scene == self.boundary.canvas else _transfer_function(kernel, self.scene)
        power = np.abs(on_scene) ** 2
        complex_dtype = torch.complex128 if dtype == torch.float64 else torch.complex64
        self._transfer = torch.from_numpy(transfer).to(device, complex_dtype)
        self.power = torch.from_numpy(power).to(device, dtype)
        self.strong_convexity = float(power.min()) if self.diagonal else 0.0
        largest = float(power.max()) if on_scene is transfer else self._schur_bound(np.abs(kernel))
        exact = largest <= 1 + ROUNDING and _averages(kernel)
        self.lipschitz = 1.0 if exact else largest * (1 + ROUNDING)

    def _schur_bound(self, magnitude: Kernel) -> float:
        """Largest row sum times largest column sum of |K|."""
        transfer = torch.from_numpy(_transfer_function(magnitude, self.boundary.canvas))
        sums = [torch.ones(1, 1, *self.scene, dtype=torch.float64), torch.ones(1, 1, *self.size, dtype=torch.float64)]
        rows = self.boundary.crop(_filter(self.boundary.enlarge(sums[0]), transfer))
        columns = self.boundary.fold(_filter(self.boundary.pad(sums[1]), transfer.conj()))
        return float(rows.max() * columns.max())

    def forward(self, x: Tensor) -> Tensor:
        """K x: scene to frame, (B, C, *scene) to (B, C, *size)."""
        return self.boundary.crop(_filter(self.boundary.enlarge(x), self._transfer))

    def adjoint(self, y: Tensor) -> Tensor:
        """Kᵀ y: frame to scene, (B, C, *size) to (B, C, *scene)."""
        return self.boundary.fold(_filter(self.boundary.pad(y), self._transfer.conj()))

    def normal(self, x: Tensor) -> Tensor:
        """KᵀK x: (B, C, *scene), the shape is kept."""
        if self.diagonal:
            return _filter(x, self.power)
        return self.adjoint(self.forward(x))

    def adjoint_spectrum(self, y: Tensor) -> Tensor:
        """`adjoint` from a frame to the spectrum (`torch.fft.rfft2`) of a scene, exact also where |k̂| is tiny."""
        if self.scene != self.boundary.canvas:
            return torch.fft.rfft2(self.adjoint(y))
        return torch.fft.rfft2(self.boundary.pad(y)) * self._transfer.conj()

    def forward_spectrum(self, spectrum: Tensor) -> Tensor:
        """`forward` from the spectrum (`torch.fft.rfft2`) of a scene to a frame."""
        if self.scene != self.boundary.canvas:
            return self.forward(torch.fft.irfft2(spectrum, s=self.scene))
        return self.boundary.crop(torch.fft.irfft2(spectrum * self._transfer, s=self.scene))


def _transfer_function(kernel: Kernel, canvas: Size) -> npt.NDArray[np.complex128]:
    """Half-plane Fourier transform of the kernel with its origin in the first pixel."""
    h, w = kernel.shape
    embedded = np.zeros(canvas)
    embedded[:h, :w] = kernel
    return np.asarray(np.fft.rfft2(np.roll(embedded, (-(h // 2), -(w // 2)), axis=(0, 1))))


def _averages(kernel: Kernel) -> bool:
    """Whether a kernel is non-negative and of unit sum to the last bits, so that no frequency is amplified."""
    return bool(kernel.min() >= 0 and abs(kernel.sum(dtype=np.float64) - 1) <= 64 * sys.float_info.epsilon)


def _filter(x: Tensor, response: Tensor) -> Tensor:
    return torch.fft.irfft2(torch.fft.rfft2(x) * response, s=x.shape[2:])


class BlurCache:
    """Blurs for any kernel, size and boundary; the last one is kept, for files of one size.

    Parameters
    ----------
    device, dtype : see `Blur`.
    """

    def __init__(self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        self.device, self.dtype = device, dtype
        self._last: tuple[Kernel, BoundaryModel, Blur] | None = None

    def __call__(self, kernel: Kernel, size: Size, boundary: BoundaryModel) -> Blur:
        """K for images of `size` (height, width).

        Raises
        ------
        InputError
            If the kernel is larger than the image.
        """
        last = self._last
        if last is None or last[0] is not kernel or last[1] is not boundary or last[2].size != size:
            blur = Blur(kernel, size, boundary, device=self.device, dtype=self.dtype)
            self._last = last = (kernel, boundary, blur)
        return last[2]
