"""Denoising by tiles: the same result with bounded memory.

A network of convolutions computes a pixel from pixels within a certain reach. A tile with a halo of that reach on
every side that is not a border of the image gives the inner pixels exactly as the whole image does, up to
the rounding of another order of summation. So a tiled network is the network, and its certificate holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psutil
import torch
from torch import Tensor

from .conditioned import Conditioned, ConditionedNetwork, assemble
from .denoisers import Denoiser, part_of
from .exposure import brightened, gain_of, unbrightened

BYTES_PER_PIXEL = 1200
"""Memory that an image needs per pixel while it is denoised whole: `conditioned` takes 320 as measured on 1 and 4
megapixels, the rest is for what is around it (iterates, Fourier transforms, files)."""

SMALLEST, LARGEST, WHOLE = 256, 1536, 2048**2
"""Limits of the side of a tile that `choose_tile` gives, and the most pixels of an image that it takes whole."""


@dataclass(frozen=True)
class Tile:
    """A part of an image: `outer` with its halo in the image, `inner` in the image and `crop` in `outer`."""

    outer: tuple[slice, slice]
    inner: tuple[slice, slice]
    crop: tuple[slice, slice]


def tiles_of(height: int, width: int, side: int, halo: int, multiple: int) -> Iterator[Tile]:
    """Tiles that cover an image; all begin at multiples of `multiple`, so that the networks see the same grid."""
    side = max(multiple, side // multiple * multiple)
    halo = math.ceil(halo / multiple) * multiple
    for top, rows in _spans(height, side):
        for left, columns in _spans(width, side):
            first_row, first_column = max(0, top - halo), max(0, left - halo)
            yield Tile(
                (slice(first_row, min(height, rows + halo)), slice(first_column, min(width, columns + halo))),
                (slice(top, rows), slice(left, columns)),
                (slice(top - first_row, rows - first_row), slice(left - first_column, columns - first_column)),
            )


def _spans(length: int, side: int) -> Iterator[tuple[int, int]]:
    for start in range(0, length, side):
        yield start, min(start + side, length)


class Tiled(Denoiser):
    """A denoiser applied tile by tile.

    Parameters
    ----------
    denoiser : a network, or its operator for the reference of the whole image.
    side : side of a tile without its halo, in pixels.
    halo : how far beyond a tile its result depends on the image, see `Denoiser.reach`.
    """

    def __init__(self, denoiser: Denoiser, side: int, halo: int) -> None:
        super().__init__()
        self.denoiser, self.side, self.halo = denoiser, side, halo
        self.multiple, self.image_channels = denoiser.multiple, denoiser.image_channels
        self.architecture, self.takes_reference = denoiser.architecture, denoiser.takes_reference
        self.centre, self.gain = denoiser.centre, gain_of(denoiser)

    @classmethod
    def of(cls, network: Denoiser, side: int) -> Tiled:
        """A network by tiles, in one pass or two."""
        return cls(network, side, network.reach(0))

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Denoise `x` of shape (B, C, H, W)."""
        return self._each(x, lambda part, tile: self.denoiser.part(tile.outer)(part, part_of(sigma, *tile.outer)))

    def estimate(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """The best single estimate of the network; a reference is kept for one tile at a time only."""
        return self._each(x, lambda part, tile: self.denoiser.estimate(part, part_of(sigma, *tile.outer)))

    def condition(
        self, reference: Tensor, sigma: float | Tensor, noisy: bool | Tensor = True, guide_factor: float = 1.0
    ) -> Tiled:
        """Freeze the reference of a conditioned network: its guide maps are computed tile by tile and kept whole.

        The operator reaches less far than the network, so its tiles have smaller halos.
        """
        if not isinstance(unbrightened(self.denoiser), ConditionedNetwork):
            return self

        def parts() -> Iterator[tuple[Conditioned, tuple[slice, slice], tuple[slice, slice]]]:
            for tile in self._tiles(reference):
                part, level = _part(reference, tile.outer), part_of(sigma, *tile.outer)
                operator = unbrightened(self.denoiser.condition(part, level, noisy, guide_factor))
                assert isinstance(operator, Conditioned)
                yield operator, tile.crop, tile.inner

        return Tiled.of(brightened(self.gain, assemble(parts(), reference.shape)), self.side)

    def _tiles(self, x: Tensor) -> Iterator[Tile]:
        return tiles_of(x.shape[2], x.shape[3], self.side, self.halo, self.multiple)

    def _each(self, x: Tensor, denoise: Callable[[Tensor, Tile], Tensor]) -> Tensor:
        out = torch.empty_like(x)
        for tile in self._tiles(x):
            _part(out, tile.inner).copy_(_part(denoise(_part(x, tile.outer), tile), tile.crop))
        return out


def _part(x: Tensor, where: tuple[slice, slice]) -> Tensor:
    return x[:, :, where[0], where[1]]


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device, those that torch keeps for its next tensors among them."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    return int(psutil.virtual_memory().available)


def room(device: torch.device) -> float:
    """Pixels of images that half the free memory of a device is enough for."""
    return free_memory(device) / 2 / BYTES_PER_PIXEL


def choose_tile(height: int, width: int, halo: int, device: torch.device) -> int:
    """Side of the tiles for an image, 0 for none: so that half the free memory is enough."""
    pixels = room(device)
    if height * width <= min(pixels, WHOLE):
        return 0
    return int(min(LARGEST, max(SMALLEST, math.sqrt(pixels) - 2 * halo)))


def tiled(network: Denoiser, size: tuple[int, int], side: int | None, device: torch.device) -> Denoiser:
    """A network for images of `size` (height, width) by tiles of `side`; None chooses, 0 takes the image whole."""
    if side is None:
        side = choose_tile(*size, network.reach(0), device)
    return Tiled.of(network, side) if 0 < side < max(size) else network
