"""The denoiser networks N(x; σ) and their presets.

Every network maps images (B, C, H, W), values nominally in [0, 1], C = 1 or 3, any H and W, to images of
the same shape. `sigma` is the noise level on the same [0, 1] scale: a number, or one per image (B,).

`EulerNetwork` is N = Qᵀ ∘ φ_m ∘ … ∘ φ_1 ∘ Q with φᵢ explicit Euler steps (see `layers`) and Q an isometry
(zero-padding of the sizes and of the channels), so it is averaged exactly when its steps are; see
`certificate`. `DnCNN` is the unconstrained baseline: nothing is proven about it.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import ACTIVATIONS, SIGMA_UNIT, ActivationName, EulerStep, HuberMixture, dct_colour_frame


@dataclass(frozen=True)
class EulerArchitecture:
    """Shape of an `EulerNetwork`: one step per entry of `scales` (its pixel-unshuffle factor)."""

    scales: tuple[int, ...]
    filters: int
    activation: ActivationName
    width: int = 3
    """Channels after the zero-padding lift; 3 is no lift."""
    kernel_size: int = 3
    family: Literal["euler"] = "euler"

    def __post_init__(self) -> None:
        _require_positive(*self.scales, self.filters, self.width, self.kernel_size)
        if not self.scales or self.width < 3 or self.kernel_size % 2 == 0 or self.activation not in ACTIVATIONS:
            raise ValueError(f"no such architecture: {self}")


@dataclass(frozen=True)
class DnCNNArchitecture:
    """Shape of a `DnCNN`: `depth` convolutions of `width` channels behind a pixel-unshuffle by 2."""

    depth: int = 8
    width: int = 48
    family: Literal["dncnn"] = "dncnn"

    def __post_init__(self) -> None:
        _require_positive(self.depth, self.width)


def _require_positive(*values: Any) -> None:
    """Refuse what is not a positive integer; descriptions come from files."""
    if not all(isinstance(value, int) and 0 < value < 2**16 for value in values):
        raise ValueError(f"the architecture has sizes that are not positive integers: {values}")


Architecture = EulerArchitecture | DnCNNArchitecture

PRESETS: dict[str, Architecture] = {
    "huber": EulerArchitecture(scales=(2, 4) * 6, filters=80, activation="huber"),
    "euler": EulerArchitecture(scales=(1,) * 6, filters=64, activation="relu", width=64),
    "dncnn": DnCNNArchitecture(),
}
"""`huber` is the default; `euler` is the lecture's network; `dncnn` is unconstrained and uncertified."""


class Denoiser(nn.Module):
    """Base of the networks: fits any size and channel count to the body, by isometries only.

    Sizes are zero-padded to a multiple of `multiple` at the bottom and right and cropped again (the
    adjoint). A grey image x enters as (x, x, x)/√3 and leaves by the adjoint; both keep averagedness.
    """

    multiple: int = 1
    image_channels: int = 3
    architecture: Architecture

    def initialise(self) -> None:
        """Set the weights for the start of a training, from torch's global generator."""
        raise NotImplementedError

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Denoise `x` of shape (B, C, H, W); `sigma` is a number or a tensor (B,), on the [0, 1] scale."""
        batch, channels, height, width = x.shape
        level = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).expand(batch)
        grey = channels == 1 and self.image_channels == 3
        if grey:
            x = x.expand(-1, 3, -1, -1) / math.sqrt(3)
        bottom, right = -height % self.multiple, -width % self.multiple
        if bottom or right:
            x = F.pad(x, (0, right, 0, bottom))
        x = self.body(x, level)[:, :, :height, :width]
        return x.sum(1, keepdim=True) / math.sqrt(3) if grey else x

    def body(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The network proper: (B, image_channels, H, W) with H, W multiples of `multiple`; sigma (B,)."""
        raise NotImplementedError


class EulerNetwork(Denoiser):
    """Composition of explicit Euler steps; averaged when `certificate.certify` says so."""

    def __init__(self, architecture: EulerArchitecture) -> None:
        super().__init__()
        self.architecture: EulerArchitecture = architecture
        self.multiple = math.lcm(*architecture.scales)
        self.steps = nn.ModuleList(
            EulerStep(
                architecture.width,
                architecture.filters,
                architecture.kernel_size,
                scale,
                architecture.activation,
            )
            for scale in architecture.scales
        )

    @property
    def euler_steps(self) -> list[EulerStep]:
        """The steps φ_1, …, φ_m."""
        return [step for step in self.steps if isinstance(step, EulerStep)]

    @torch.no_grad()
    def initialise(self) -> None:
        """Start from a DCT frame: translation-invariant shrinkage before any training.

        A ReLU step gets the rows ±a in pairs, the nearest it has to an odd activation, and a short step, because
        it smooths what a Huber step would keep. A little noise (2 %, from torch's global generator) breaks the
        symmetry between the steps.
        """
        a, m = self.architecture, len(self.steps)
        for step in self.euler_steps:
            step.weight.copy_(self._frame(step.scale) / a.kernel_size)  # a tight frame: norm 1
            spread = step.weight.std()
            step.weight.add_(0.02 * spread * torch.randn_like(step.weight))
            if isinstance(step.activation, HuberMixture):
                # m steps of thresholds ~ σ/√m together shrink like one of about σ.
                step.activation.log_threshold.add_(math.log(1.2 / (a.kernel_size * math.sqrt(m))))
            else:
                step.step.fill_(1 / m)

    def _frame(self, scale: int) -> Tensor:
        a = self.architecture
        colours = self.image_channels
        if a.activation == "huber":
            return dct_colour_frame(a.kernel_size, scale, colours, a.filters)
        rows = dct_colour_frame(a.kernel_size, scale, colours, a.filters // 2)
        frame = torch.zeros(a.filters, a.width * scale**2, a.kernel_size, a.kernel_size)
        pairs = torch.cat([rows, -rows]) / math.sqrt(2)
        frame[: len(pairs), : pairs.shape[1]] = pairs
        return frame

    def body(self, x: Tensor, sigma: Tensor) -> Tensor:
        lift = self.architecture.width - self.image_channels
        if lift:
            x = F.pad(x, (0, 0, 0, 0, 0, lift))
        for step in self.steps:
            x = step(x, sigma)
        return x[:, : self.image_channels]


class DnCNN(Denoiser):
    """Residual convolutional denoiser (Zhang et al. 2017) at half resolution with a noise-level channel.

    Unconstrained: applied repeatedly, or inside an iteration, it may drift or diverge.
    """

    multiple = 2

    def __init__(self, architecture: DnCNNArchitecture) -> None:
        super().__init__()
        self.architecture: DnCNNArchitecture = architecture
        inner, width = 4 * self.image_channels, architecture.width
        sizes = [inner + 1] + [width] * (architecture.depth - 1) + [inner]
        self.convolutions = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1) for i, o in pairwise(sizes))

    @torch.no_grad()
    def initialise(self) -> None:
        """Start near the identity, with He's scale inside."""
        for convolution in self.convolutions:
            assert isinstance(convolution, nn.Conv2d)
            assert convolution.bias is not None
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            nn.init.zeros_(convolution.bias)
            if convolution is self.convolutions[-1]:
                convolution.weight.mul_(0.01)

    def body(self, x: Tensor, sigma: Tensor) -> Tensor:
        z = F.pixel_unshuffle(x, 2)
        level = (sigma / SIGMA_UNIT)[:, None, None, None].expand(-1, 1, *z.shape[2:])
        z = torch.cat([z, level], dim=1)
        for convolution in self.convolutions[:-1]:
            z = F.relu(convolution(z))
        return x - F.pixel_shuffle(self.convolutions[-1](z), 2)


class Ensemble(nn.Module):
    """Mean of a denoiser over the 8 flips and rotations of the image.

    A convex combination of α-averaged maps is α-averaged, so the certificate is that of the network.
    """

    def __init__(self, denoiser: nn.Module) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Denoise `x` of shape (B, C, H, W), eight calls of the network."""
        total = torch.zeros_like(x)
        for turns in range(4):
            turned = torch.rot90(x, turns, (2, 3))
            total += torch.rot90(self.denoiser(turned, sigma), -turns, (2, 3))
            flipped = self.denoiser(turned.flip(3), sigma).flip(3)
            total += torch.rot90(flipped, -turns, (2, 3))
        return total / 8


def architecture_from_dict(fields: dict[str, Any]) -> Architecture:
    """Inverse of `dataclasses.asdict` on an architecture, as stored in the header of a weight file.

    Raises
    ------
    ValueError
        If the description is not one of a known architecture.
    """
    fields = dict(fields)
    family = fields.pop("family", None)
    try:
        if family == "euler":
            return EulerArchitecture(scales=tuple(fields.pop("scales")), **fields)
        if family == "dncnn":
            return DnCNNArchitecture(**fields)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the architecture description is malformed ({error})") from error
    raise ValueError(f"unknown architecture family {family!r}")


def architecture_to_dict(architecture: Architecture) -> dict[str, Any]:
    """Plain dictionary for JSON."""
    return asdict(architecture)


def build(architecture: Architecture) -> Denoiser:
    """The network of an architecture, its weights still to be set: by `initialise` or from a file."""
    if isinstance(architecture, EulerArchitecture):
        return EulerNetwork(architecture)
    return DnCNN(architecture)
