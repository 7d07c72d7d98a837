"""Between image files and tensors: (H, W, C) pixels and (1, C, H, W) tensors, both in [0, 1]."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .images import Image


def to_tensor(image: Image, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Tensor:
    """Pixels of an image as a tensor (1, C, H, W), which shares their memory where it can: do not write to it."""
    planes = np.require(image.pixels.transpose(2, 0, 1), requirements=["C", "W"])
    return torch.from_numpy(planes)[None].to(device, dtype)


def from_tensor(tensor: Tensor, like: Image) -> Image:
    """Image with the pixels of a tensor (1, C, H, W), shared where they can be, and all else of `like`."""
    return like.with_pixels(to_pixels(tensor))


def to_pixels(tensor: Tensor) -> npt.NDArray[np.float32]:
    """A tensor (1, C, H, W) as pixels (H, W, C), shared where they can be."""
    return np.asarray(tensor[0].permute(1, 2, 0).cpu().float())
