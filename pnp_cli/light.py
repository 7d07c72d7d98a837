"""The sRGB curve (IEC 61966-2-1): cameras blur light, and files hold samples that are bent to suit the eye.

For one image or many, of any shape; white is 1. Values below black are mirrored, those above white follow the curve on.
"""

from __future__ import annotations

import torch
from torch import Tensor

STRAIGHT = 0.04045
"""Samples up to this are proportional to the light."""


def to_light(samples: Tensor) -> Tensor:
    """The light that samples stand for."""
    magnitude = samples.abs()
    bent = ((magnitude + 0.055) / 1.055) ** 2.4
    return torch.where(magnitude <= STRAIGHT, magnitude / 12.92, bent) * samples.sign()


def to_samples(light: Tensor) -> Tensor:
    """Inverse of `to_light`."""
    magnitude = light.abs()
    bent = 1.055 * magnitude ** (1 / 2.4) - 0.055
    return torch.where(magnitude <= STRAIGHT / 12.92, magnitude * 12.92, bent) * light.sign()


def slope(samples: Tensor) -> Tensor:
    """By how much `to_light` enlarges small errors of the samples: its derivative."""
    magnitude = samples.abs()
    bent = 2.4 / 1.055 * ((magnitude + 0.055) / 1.055) ** 1.4
    return torch.where(magnitude <= STRAIGHT, 1 / 12.92, bent)
