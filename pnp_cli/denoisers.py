"""The denoiser networks N(x; σ) and their presets.

Every network maps images (B, C, H, W), values nominally in [0, 1], C = 1 or 3, any H and W, to images of
the same shape. `sigma` is the noise level on the same [0, 1] scale: a number, one per image (B,), or a map
(B, 1, H, W) of noise that is not as large everywhere. A map is fixed like a number, whatever it was computed from: for
a fixed map a network is as averaged as for a number.

`EulerNetwork` is N(x) = c + Qᵀ φ_m(… φ_1(Q(x − c))) with φᵢ explicit Euler steps (see `layers`), c a constant and Q an
isometry (zero-padding of the sizes and of the channels), so it is averaged exactly when its steps are; see
`certificate`. `DnCNN` is the unconstrained baseline: nothing is proven about it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, repeat
from typing import Any, Literal, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import UsageError
from .layers import (
    SIGMA_UNIT,
    BiasedReLU,
    EulerStep,
    HuberMixture,
    coarse,
    dct_colour_frame,
    grid_offsets,
    on_grid,
    reach_of_convolutions,
    reach_of_steps,
)


@dataclass(frozen=True)
class EulerArchitecture:
    """Shape of an `EulerNetwork`.

    Attributes
    ----------
    scales : factor of the pixel-unshuffle of each step.
    filters : of each step.
    activation : "relu" for `BiasedReLU`, "huber" for `HuberMixture`.
    width : channels after the zero-padding lift; as many as the image has is no lift.
    kernel_size : side of the convolutions, in cells of the unshuffled image; odd.
    image_channels : 1 for a network of grey images, 3 for one of colour images.
    group : filters that are shrunk together, by the norm of their coefficients; of Huber activations.
    staggered : whether the grids of the pixel-unshuffles are offset in turn, so that no grid shows in the image.
    centre : value that zero-padding continues the image with, in [0, 1]: the network works on x − centre.

    Raises
    ------
    ValueError
        If there is no such network.
    """

    scales: tuple[int, ...]
    filters: int
    activation: Literal["relu", "huber"]
    width: int = 3
    kernel_size: int = 3
    image_channels: int = 3
    group: int = 1
    staggered: bool = False
    centre: float = 0.0
    family: Literal["euler"] = "euler"

    def __post_init__(self) -> None:
        require_positive(*self.scales, self.filters, self.width, self.kernel_size, self.group)
        if (
            not self.scales
            or self.image_channels not in (1, 3)
            or self.width < self.image_channels
            or self.kernel_size % 2 == 0
            or self.activation not in ("relu", "huber")
            or self.filters % self.group
            or (self.group > 1 and self.activation != "huber")
            or not isinstance(self.staggered, bool)
            or not isinstance(self.centre, int | float)
            or isinstance(self.centre, bool)
            or not 0 <= self.centre <= 1
        ):
            raise ValueError(f"no such architecture: {self}")


@dataclass(frozen=True)
class DnCNNArchitecture:
    """Shape of a `DnCNN`: `depth` 3 × 3 convolutions of `width` channels behind a pixel-unshuffle by 2.

    Raises
    ------
    ValueError
        If one is not positive.
    """

    depth: int = 8
    width: int = 48
    family: Literal["dncnn"] = "dncnn"

    def __post_init__(self) -> None:
        require_positive(self.depth, self.width)


def require_positive(*values: Any) -> None:
    """Refuse what is not a positive integer, with a ValueError; descriptions come from files."""
    if not all(isinstance(value, int) and 0 < value < 2**16 for value in values):
        raise ValueError(f"the architecture has sizes that are not positive integers: {values}")


def part_of(sigma: float | Tensor, rows: slice, columns: slice) -> float | Tensor:
    """The noise level of a part of an image: that of the whole, if it is no map."""
    return sigma[:, :, rows, columns] if is_map(sigma) else sigma


def is_map(sigma: float | Tensor) -> TypeGuard[Tensor]:
    """Whether a noise level is a map (B, 1, H, W)."""
    return isinstance(sigma, Tensor) and sigma.ndim == 4


def nothing_to_remove(sigma: float | Tensor) -> bool:
    """Whether a noise level is the number 0."""
    return not isinstance(sigma, Tensor) and sigma == 0


def grey_to_colour(x: Tensor) -> Tensor:
    """The isometry x ↦ (x, x, x)/√3 from grey images (B, 1, H, W) to colour images (B, 3, H, W)."""
    return x.expand(-1, 3, -1, -1) / math.sqrt(3)


def colour_to_grey(x: Tensor) -> Tensor:
    """The adjoint of `grey_to_colour`: (B, 3, H, W) ↦ (B, 1, H, W)."""
    return x.sum(1, keepdim=True) / math.sqrt(3)


class Denoiser(nn.Module):
    """Base of the networks: fits any size and channel count to the body, by isometries only.

    Sizes are zero-padded to a multiple of `multiple` at the bottom and right and cropped again (the adjoint), between a
    shift of the values by `centre` and its inverse. A network of colour images takes a grey image x as (x, x, x)/√3 and
    returns it by the adjoint; a network of grey images takes the channels of a colour image one by one. All of it keeps
    averagedness.

    Attributes
    ----------
    multiple : what the sides of the images of `body` are multiples of, in pixels.
    image_channels : channels of the images of `body`, 1 or 3.
    centre : what is subtracted before the body and added after it, in [0, 1].
    takes_reference : whether `condition` does anything.
    architecture : the dataclass it was built from.
    """

    multiple: int = 1
    image_channels: int = 3
    centre: float = 0.0
    takes_reference: bool = False
    architecture: Any

    def reach(self, p: int) -> int:
        """How far the result of `estimate` depends on the image, in pixels.

        A region whose borders are multiples of `multiple`, and p pixels around it, depend on no pixel further away
        from it than this.
        """
        raise NotImplementedError

    def part(self, where: tuple[slice, slice]) -> Denoiser:
        """The denoiser for a part of the image it is for, given by its rows and columns; most are for any image.

        The part begins at multiples of `multiple`.
        """
        return self

    def initialise(self) -> None:
        """Set the weights for the start of a training, from torch's global generator."""
        raise NotImplementedError

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Denoise `x` of shape (B, C, H, W) at the noise level `sigma`, [0, 1] scale; see the top of this file.

        For the number 0 it is the identity.
        """
        if nothing_to_remove(sigma):
            return x
        fitted, level = self.fit(x, sigma)
        out = self.body(fitted, level)[..., : x.shape[2], : x.shape[3]]
        if self.image_channels == 3 and x.shape[1] == 1:
            out = colour_to_grey(out)
        out = out.reshape(x.shape)
        return out + self.centre if self.centre else out

    def estimate(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """The best single estimate the network has, shapes as in `forward`; it need not be averaged where that is."""
        return self(x, sigma)

    def condition(
        self, reference: Tensor, sigma: float | Tensor, noisy: bool | Tensor = True, guide_factor: float = 1.0
    ) -> Denoiser:
        """The operator for a frozen reference; a denoiser that takes none is that operator itself.

        Parameters
        ----------
        reference : (B, C, H, W), an image like those the operator is to be applied to.
        sigma : noise level of the reference, [0, 1] scale; a number, (B,) or (B, 1, H, W).
        noisy : whether the reference holds white noise of that level, or is an image of which nothing such is known,
            like the iterates of an inverse problem; for all images or each, (B,).
        guide_factor : what the guide takes the noise level for, as a multiple of sigma; the lower, the more it trusts
            the reference.
        """
        return self

    def fit(self, x: Tensor, sigma: float | Tensor) -> tuple[Tensor, Tensor]:
        """An image as the body takes it, (B', image_channels, H', W'), and its noise levels.

        Those are (B', 1, H', W') if they are a map, else (B', 1, 1, 1).
        """
        batch, channels, height, width = x.shape
        level = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
        level = level.expand(batch, -1, -1, -1) if level.ndim == 4 else level.expand(batch)[:, None, None, None]
        if self.centre:
            x = x - self.centre
        if self.image_channels == 3 and channels == 1:
            x = grey_to_colour(x)
        elif self.image_channels == 1 and channels > 1:
            x, level = x.reshape(-1, 1, height, width), level.repeat_interleave(channels, dim=0)
        bottom, right = -height % self.multiple, -width % self.multiple
        if bottom or right:
            x = F.pad(x, (0, right, 0, bottom))
            if is_map(sigma):
                level = F.pad(level, (0, right, 0, bottom), mode="replicate")
        return x, level

    def body(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The network proper, on an image minus the centre.

        Parameters
        ----------
        x : (B, image_channels, H, W), H and W multiples of `multiple`; the shape is kept.
        sigma : noise levels, (B, 1, H, W) or (B, 1, 1, 1), [0, 1] scale.
        """
        raise NotImplementedError


class EulerNetwork(Denoiser):
    """Composition of explicit Euler steps; averaged when `certificate.certify` says so."""

    def __init__(self, architecture: EulerArchitecture) -> None:
        super().__init__()
        self.architecture: EulerArchitecture = architecture
        self.image_channels, self.centre = architecture.image_channels, architecture.centre
        self.multiple = math.lcm(*architecture.scales)
        a = architecture
        self.steps = nn.ModuleList(
            EulerStep(a.width, a.filters, a.kernel_size, scale, self._activation(), offset)
            for scale, offset in zip(a.scales, grid_offsets(a.scales, a.staggered), strict=True)
        )

    def _activation(self) -> HuberMixture | BiasedReLU:
        a = self.architecture
        return HuberMixture(a.filters, a.group) if a.activation == "huber" else BiasedReLU(a.filters)

    def reach(self, p: int) -> int:
        """How far the p pixels around a region depend on the image, in pixels; see `Denoiser.reach`."""
        return reach_of_steps(p, self.euler_steps)

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
        """The steps, on (B, image_channels, H, W) lifted to `width` channels, and back; see `Denoiser.body`."""
        lift = self.architecture.width - self.image_channels
        if lift:
            x = F.pad(x, (0, 0, 0, 0, 0, lift))
        levels = {scale: coarse(sigma, scale) for scale in self.architecture.scales}
        for step in self.euler_steps:
            x = step(x, on_grid(levels[step.scale], step))
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

    def reach(self, p: int) -> int:
        """How far the p pixels around a region depend on the image, in pixels; see `Denoiser.reach`."""
        return reach_of_convolutions(p, 2, len(self.convolutions))

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
        """`x` (B, 3, H, W), H and W even, minus what the convolutions take for noise; see `Denoiser.body`."""
        z = F.pixel_unshuffle(x, 2)
        level = coarse(sigma, 2) / SIGMA_UNIT
        z = torch.cat([z, level.expand(-1, 1, *z.shape[2:])], dim=1)
        for convolution in self.convolutions[:-1]:
            z = F.relu(convolution(z))
        return x - F.pixel_shuffle(self.convolutions[-1](z), 2)


SYMMETRIES = tuple((turns, flip) for turns in range(4) for flip in (False, True))
"""The 8 flips and rotations: quarter turns of the image, then maybe a flip."""


def turn(x: Tensor, turns: int, flip: bool) -> Tensor:
    """Turn images (B, C, H, W) by quarter turns counter-clockwise and maybe flip them left to right: an isometry."""
    x = torch.rot90(x, turns, (2, 3))
    return x.flip(3) if flip else x


def turn_back(x: Tensor, turns: int, flip: bool) -> Tensor:
    """The inverse, and adjoint, of `turn`."""
    return torch.rot90(x.flip(3) if flip else x, -turns, (2, 3))


class OnViews(Denoiser):
    """Denoisers applied to several views of an image, from which the result is put together.

    Parameters
    ----------
    denoisers : one for all views, or one for each.
    """

    def __init__(self, *denoisers: Denoiser) -> None:
        super().__init__()
        self.denoisers = nn.ModuleList(denoisers)
        first = denoisers[0]
        self.image_channels, self.multiple, self.architecture = first.image_channels, first.multiple, first.architecture
        self.centre, self.takes_reference = first.centre, first.takes_reference

    def reach(self, p: int) -> int:
        """There is none that tiles could go by, since they have other views than the image: tile the denoiser in it.

        Raises
        ------
        UsageError
            Always.
        """
        raise UsageError(
            f"{type(self).__name__} cannot be applied tile by tile, since tiles have other views than the image; "
            "tile the denoiser in it"
        )

    def views(self, x: Tensor) -> Iterator[Tensor]:
        """Of images or maps (B, C, H, W)."""
        raise NotImplementedError

    def levels(self, sigma: float | Tensor) -> Iterator[float | Tensor]:
        """The noise levels of the views; there may be more."""
        return self.views(sigma) if is_map(sigma) else repeat(sigma)

    def combine(self, x: Tensor, views: Iterator[Tensor]) -> Tensor:
        """The result for `x` from its denoised views."""
        raise NotImplementedError

    def with_denoisers(self, *denoisers: Denoiser) -> OnViews:
        """The same with other denoisers."""
        raise NotImplementedError

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Denoise `x` of shape (B, C, H, W), a call of the network for every view."""
        return self.combine(x, (denoiser(view, level) for denoiser, view, level in self._each(x, sigma)))

    def estimate(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """From the best estimates of the views."""
        return self.combine(x, (denoiser.estimate(view, level) for denoiser, view, level in self._each(x, sigma)))

    def condition(
        self, reference: Tensor, sigma: float | Tensor, noisy: bool | Tensor = True, guide_factor: float = 1.0
    ) -> OnViews:
        """Every view takes the reference, (B, C, H, W), as it sees the image; see `Denoiser.condition`."""
        if not self.takes_reference:
            return self
        return self.with_denoisers(
            *(d.condition(view, level, noisy, guide_factor) for d, view, level in self._each(reference, sigma))
        )

    def _each(self, x: Tensor, sigma: float | Tensor) -> Iterator[tuple[Denoiser, Tensor, float | Tensor]]:
        """The views, each with its denoiser and noise level."""
        for i, (view, level) in enumerate(zip(self.views(x), self.levels(sigma), strict=False)):
            denoiser = self.denoisers[i % len(self.denoisers)]
            assert isinstance(denoiser, Denoiser)
            yield denoiser, view, level


class Ensemble(OnViews):
    """Mean of a denoiser over the 8 flips and rotations of the image.

    A convex combination of α-averaged maps is α-averaged, so the certificate is that of the network. Turned tiles lie
    on other grids than the turned image, unless its sides are multiples of `multiple`, whereas `Ensemble` of a tiled
    denoiser is exact for every image.

    Parameters
    ----------
    denoisers : one for all symmetries, or one for each of `SYMMETRIES`.
    """

    def views(self, x: Tensor) -> Iterator[Tensor]:
        """The image turned by every symmetry."""
        return (turn(x, *symmetry) for symmetry in SYMMETRIES)

    def combine(self, x: Tensor, views: Iterator[Tensor]) -> Tensor:
        """Their mean, turned back."""
        total = torch.zeros_like(x)
        for view, symmetry in zip(views, SYMMETRIES, strict=True):
            total += turn_back(view, *symmetry)
        return total / len(SYMMETRIES)

    def with_denoisers(self, *denoisers: Denoiser) -> Ensemble:
        """The same with other denoisers."""
        return Ensemble(*denoisers)
