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
            what = "is no folder; give that of the images" if Path(folder).exists() else "no such folder of images"
            raise InputError(f"{folder}: {what}")
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
    red, green, blue = image.unbind(-3)
    return (0.299 * red + 0.587 * green + 0.114 * blue).unsqueeze(-3)


def to_grey(image: Tensor) -> Tensor:
    """`luma` of a uint8 image (3, H, W), rounded to 8 bits: (1, H, W)."""
    return luma(image.float()).round().to(torch.uint8)


class RandomCrops:
    """Endless random crops with flips and transpositions, reproducible from one generator.

    Parameters
    ----------
    images : uint8 tensors (3, H, W); those smaller than `size` on a side are left out.
    size : side of the square crops.
    generator : its state is the whole state of the stream, and the crops are made on its device.
    channels : 3, or 1 for crops in grey (ITU-R 601-2 luma).

    Attributes
    ----------
    count : number of images that crops are taken from.

    Raises
    ------
    InputError
        If no image is as large as a crop, or the device has no room for them.
    """

    def __init__(self, images: Sequence[Tensor], size: int, generator: torch.Generator, channels: int = 3) -> None:
        images = [image for image in images if min(image.shape[1:]) >= size]
        if not images:
            raise InputError(f"no training image is {size} pixels or more on both sides; use a smaller crop")
        self.count = len(images)
        self.size = size
        self.generator = generator
        device = generator.device
        heights, widths = (torch.tensor([image.shape[k] for image in images], device=device) for k in (1, 2))
        areas = heights * widths
        self._bounds = torch.stack([heights - size + 1, widths - size + 1])
        self._starts, self._widths = areas.cumsum(0) - areas, widths
        # All images end to end: a crop is then a set of places, and a batch one look-up.
        try:
            self._pixels = torch.empty(channels, int(areas.sum()), dtype=torch.uint8, device=device)
        except RuntimeError as error:
            need = f"{channels * int(areas.sum()) / 1e9:.1f} GB on {device}"
            raise InputError(f"the training images need {need}; use fewer or smaller ones") from error
        for image, start, area in zip(images, self._starts.tolist(), areas.tolist(), strict=True):
            self._pixels[:, start : start + area] = (to_grey(image) if channels == 1 else image).flatten(1)

    def batch(self, count: int) -> Tensor:
        """`count` crops on the device of the generator, float32 (count, channels, size, size) in [0, 1]."""
        device = self.generator.device
        draws = torch.rand(4, count, dtype=torch.float64, generator=self.generator, device=device)
        image = (draws[0] * self.count).long()
        top, left = (draws[1:3] * self._bounds[:, image]).long()
        symmetry = (draws[3] * 8).long()[:, None]
        along = torch.arange(self.size, device=device)
        rows = top[:, None] + torch.where(symmetry & 1 > 0, along.flip(0), along)
        columns = left[:, None] + torch.where(symmetry & 2 > 0, along.flip(0), along)
        places = (self._starts[image, None] + rows * self._widths[image, None])[:, :, None] + columns[:, None]
        places = torch.where(symmetry[..., None] & 4 > 0, places.mT, places)
        return self._pixels[:, places].transpose(0, 1).float() / 255
