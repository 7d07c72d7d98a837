"""What lies beyond the frame: the blur is K = crop ∘ C ∘ enlarge, with C a periodic convolution on a canvas.

The restored *scene* is enlarged to the canvas, blurred there, and cropped to the observed *frame*.

* periodic: scene, canvas and frame are one; K is diagonal in the Fourier basis.
* free: the scene goes on beyond the frame and is unknown there. It is as large as the canvas, so ‖K‖ ≤ ‖C‖.
* reflect: the scene is the frame, mirrored beyond its edges.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import UsageError

Size = tuple[int, int]


class Boundary(Protocol):
    """A boundary model for one size of frame and of kernel, (height, width) each."""

    scene: Size
    canvas: Size

    def enlarge(self, x: Tensor) -> Tensor:
        """Scene (B, C, H, W) to canvas."""

    def fold(self, x: Tensor) -> Tensor:
        """Adjoint of `enlarge`."""

    def crop(self, x: Tensor) -> Tensor:
        """Canvas to frame."""

    def pad(self, y: Tensor) -> Tensor:
        """Adjoint of `crop`: zeros beyond the frame."""

    def extrapolate(self, y: Tensor) -> Tensor:
        """Frame to scene, a guess to start from."""

    def frame_of(self, x: Tensor) -> Tensor:
        """Scene to its part in the frame."""


BoundaryModel = Callable[[Size, Size], Boundary]
"""Makes the boundary for the size of a frame and of a kernel."""


class Periodic:
    """The scene repeats beyond the frame."""

    def __init__(self, frame: Size, kernel: Size) -> None:
        self.scene = self.canvas = frame

    def enlarge(self, x: Tensor) -> Tensor:
        """Identity, as are the others."""
        return x

    fold = crop = pad = extrapolate = frame_of = enlarge


class _Margins:
    """A canvas that has room for the kernel on all sides of the frame, of a size fast to transform."""

    def __init__(self, frame: Size, kernel: Size) -> None:
        from scipy.fft import next_fast_len

        self.frame = frame
        # The frame's first pixel receives light from (side - 1 - side // 2) pixels before it.
        self.before = (kernel[0] - 1 - kernel[0] // 2, kernel[1] - 1 - kernel[1] // 2)
        height, width = (next_fast_len(n + k - 1, real=True) for n, k in zip(frame, kernel, strict=True))
        self.canvas: Size = (height, width)
        (top, left), bottom, right = self.before, height - frame[0] - self.before[0], width - frame[1] - self.before[1]
        self.margins = (left, right, top, bottom)

    def crop(self, x: Tensor) -> Tensor:
        """Canvas to frame."""
        (top, left), (height, width) = self.before, self.frame
        return x[:, :, top : top + height, left : left + width]

    def pad(self, y: Tensor) -> Tensor:
        """Adjoint of `crop`."""
        return F.pad(y, self.margins)


class Free(_Margins):
    """The scene goes on beyond the frame as far as the kernel reaches, and is unknown there."""

    def __init__(self, frame: Size, kernel: Size) -> None:
        super().__init__(frame, kernel)
        self.scene = self.canvas

    def enlarge(self, x: Tensor) -> Tensor:
        """Identity."""
        return x

    fold = enlarge

    def extrapolate(self, y: Tensor) -> Tensor:
        """The frame, its edge pixels repeated outwards."""
        return F.pad(y, self.margins, mode="replicate")

    def frame_of(self, x: Tensor) -> Tensor:
        """The part in the frame."""
        return self.crop(x)


class Reflect(_Margins):
    """The scene is mirrored at the edges of the frame, which themselves are repeated (half-sample symmetry)."""

    def __init__(self, frame: Size, kernel: Size) -> None:
        super().__init__(frame, kernel)
        self.scene = frame
        self._source = [
            _mirrored(n, before, side) for n, before, side in zip(frame, self.before, self.canvas, strict=True)
        ]

    def enlarge(self, x: Tensor) -> Tensor:
        """Mirror beyond all edges."""
        rows, columns = (index.to(x.device) for index in self._source)
        return x[:, :, rows[:, None], columns]

    def fold(self, x: Tensor) -> Tensor:
        """Add the mirrored margins back to where they came from."""
        rows, columns = (index.to(x.device) for index in self._source)
        folded = x.new_zeros((*x.shape[:2], self.scene[0], x.shape[3])).index_add_(2, rows, x)
        return x.new_zeros((*x.shape[:2], *self.scene)).index_add_(3, columns, folded)

    def extrapolate(self, y: Tensor) -> Tensor:
        """The frame."""
        return y

    frame_of = extrapolate


def _mirrored(length: int, before: int, canvas: int) -> Tensor:
    """For every index of the canvas, the one of the scene that it mirrors."""
    position = (torch.arange(canvas) - before) % (2 * length)
    return torch.minimum(position, 2 * length - 1 - position)


BOUNDARIES: dict[str, BoundaryModel] = {"free": Free, "periodic": Periodic, "reflect": Reflect}


def boundary_model(name: str) -> BoundaryModel:
    """The boundary model of that name.

    Raises
    ------
    UsageError
        If there is none.
    """
    try:
        return BOUNDARIES[name]
    except KeyError:
        raise UsageError(f"unknown boundary '{name}'; use {', '.join(BOUNDARIES)}") from None
