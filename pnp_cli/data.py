"""Training images: folders to memory, and random crops of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .errors import InputError
from .images import list_images, read_image

BUNDLED = ("astronaut", "coffee", "chelsea", "rocket", "hubble_deep_field", "retina", "motorcycle_left")
"""Colour pictures that are part of scikit-image's installation."""


def load_folders(folders: Sequence[str | Path]) -> list[Tensor]:
    """All images of the folders (searched recursively) as uint8 tensors (3, H, W).

    Raises
    ------
    InputError
        If a folder does not exist or holds no image, or an image cannot be read.
    """
    images: list[Tensor] = []
    for folder in folders:
        if not Path(folder).is_dir():
            raise InputError(f"{folder}: no such folder of images")
        paths = list_images(folder, recursive=True)
        if not paths:
            raise InputError(f"{folder}: the folder holds no image files")
        for path in paths:
            pixels = read_image(path).pixels
            images.append(_to_uint8(pixels))
    return images


def bundled_images() -> list[Tensor]:
    """The colour pictures installed with scikit-image, as uint8 tensors (3, H, W); no download."""
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    paths = [p for p in list_images(folder) if p.stem in BUNDLED]
    return [_to_uint8(read_image(p).pixels) for p in paths]


def _to_uint8(pixels: np.ndarray) -> Tensor:
    samples = torch.from_numpy(np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8))
    return samples.permute(2, 0, 1).expand(3, -1, -1).contiguous()


def luma(image: Tensor) -> Tensor:
    """Luma (ITU-R 601-2) of float images (..., 3, H, W): (..., 1, H, W), same range."""
    weights = image.new_tensor([0.299, 0.587, 0.114])[:, None, None]
    return (image * weights).sum(-3, keepdim=True)


def to_grey(image: Tensor) -> Tensor:
    """`luma` of a uint8 image (3, H, W), rounded to 8 bits: (1, H, W)."""
    return luma(image.float()).round().to(torch.uint8)


class RandomCrops:
    """Endless random crops with flips and transpositions, reproducible from one generator.

    Parameters
    ----------
    images : uint8 tensors (3, H, W); those smaller than `size` on a side are left out.
    size : side of the square crops.
    generator : its state is the whole state of the stream.
    channels : 3, or 1 for crops in grey (ITU-R 601-2 luma).

    Raises
    ------
    InputError
        If no image is as large as a crop.
    """

    def __init__(self, images: Sequence[Tensor], size: int, generator: torch.Generator, channels: int = 3) -> None:
        self.images = [image for image in images if min(image.shape[1:]) >= size]
        if channels == 1:
            self.images = [to_grey(image) for image in self.images]
        if not self.images:
            raise InputError(f"no training image is {size} pixels or more on both sides; use a smaller crop")
        self.size = size
        self.generator = generator

    def batch(self, count: int) -> Tensor:
        """`count` crops, float32 (count, channels, size, size) in [0, 1]."""
        crops = []
        for _ in range(count):
            image = self.images[self._integer(len(self.images))]
            top = self._integer(image.shape[1] - self.size + 1)
            left = self._integer(image.shape[2] - self.size + 1)
            crop = image[:, top : top + self.size, left : left + self.size]
            symmetry = self._integer(8)
            if symmetry & 1:
                crop = crop.flip(1)
            if symmetry & 2:
                crop = crop.flip(2)
            if symmetry & 4:
                crop = crop.transpose(1, 2)
            crops.append(crop)
        return torch.stack(crops).float() / 255

    def _integer(self, bound: int) -> int:
        return int(torch.randint(bound, (1,), generator=self.generator))
