"""The conditioned denoiser: Euler steps whose thresholds are fields computed from a frozen reference.

For the averaged property the thresholds of an Euler step may be any fixed field over positions and filters.
So an unconstrained network, the guide, may compute them from a reference image: for a fixed reference,
x ↦ N(x; reference) is exactly as averaged as a network with constant thresholds, under the same certificate,
whatever the guide does. The map z ↦ N(z; z), which computes its reference from its own input, is a better
denoiser and is not known to be nonexpansive.

The thresholds multiply nothing and add nothing: coefficients are shrunk towards zero by an amount that depends
on the reference, and the reference itself never enters the image.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .denoisers import Denoiser, EulerArchitecture, EulerNetwork, nothing_to_remove, require_positive
from .layers import (
    SIGMA_UNIT,
    EulerStep,
    HuberField,
    HuberMixture,
    coarse,
    grid_offsets,
    log_noise,
    on_grid,
    reach_of_convolutions,
    reach_of_steps,
)

OVERSHOOT = 0.1
"""By how much estimates from noisy images in [0, 1] are beyond black or white, at most: guides know such from training.
Those of iterates of an inverse problem count as black or white there, which is better on validation images."""


@dataclass(frozen=True)
class ConditionedArchitecture:
    """Shape of a `ConditionedNetwork`.

    The guided steps are staggered, centred and of the kernel size as the plain ones are.

    Attributes
    ----------
    plain : shape of the plain network, which has no lift.
    scales : factor of the pixel-unshuffle of each guided step, 2 or 4.
    filters : of each guided step.
    guide_widths : channels of the guide at a half, a quarter and an eighth of the resolution.
    maps : guide maps per scale; the noise level is one more, added by the operator.

    Raises
    ------
    ValueError
        If there is no such network.
    """

    plain: EulerArchitecture
    scales: tuple[int, ...]
    filters: int
    guide_widths: tuple[int, int, int]
    maps: int = 23
    family: Literal["conditioned"] = "conditioned"

    def __post_init__(self) -> None:
        require_positive(*self.scales, self.filters, self.maps, *self.guide_widths)
        if (
            not set(self.scales) <= {2, 4}
            or not self.scales
            or len(self.guide_widths) != 3
            or self.guide_widths[1] % 4
            or self.plain.width != self.plain.image_channels
        ):
            raise ValueError(f"no such architecture: {self}")


class Guide(nn.Module):
    """Unconstrained network from a reference to guide maps at a half and at a quarter of the resolution.

    Parameters
    ----------
    image_channels : of the reference.
    maps, widths : see `ConditionedArchitecture`.
    """

    MULTIPLE = 8
    """What the sides of a reference are multiples of, in pixels."""
    CONVOLUTIONS = ((2, 1), (4, 1), (4, 2), (8, 4), (4, 2))
    """Scale and number of its 3 × 3 convolutions, in the order of `forward`."""

    def __init__(self, image_channels: int, maps: int, widths: tuple[int, int, int]) -> None:
        super().__init__()
        half, quarter, eighth = widths
        self.enter = nn.Conv2d(8 * image_channels + 1, half, 3, padding=1)
        self.down = nn.Conv2d(4 * half, quarter, 3, padding=1)
        self.quarter_block = ResidualBlock(quarter)
        self.deeper = nn.Conv2d(4 * quarter, eighth, 1)
        self.eighth_blocks = nn.Sequential(ResidualBlock(eighth), ResidualBlock(eighth))
        self.rise = nn.Conv2d(eighth, 4 * quarter, 1)
        self.last_block = ResidualBlock(quarter)
        self.quarter_maps = nn.Conv2d(quarter, maps, 1)
        self.half_maps = nn.Conv2d(half + quarter // 4, maps, 1)

    def forward(self, reference: Tensor, estimate: Tensor, sigma: Tensor) -> dict[int, Tensor]:
        """Guide maps by scale, each (B, maps, H/scale, W/scale).

        Parameters
        ----------
        reference : (B, C, H, W) minus the centre, H and W multiples of 8; the estimate itself if it holds no noise of
            that level.
        estimate : the plain network's result for the reference, minus the centre, same shape.
        sigma : noise levels, (B, 1, H, W) or (B, 1, 1, 1), [0, 1] scale.
        """
        # What the plain network took away, in units of the noise, shows what it should have kept.
        removed = (reference - estimate) * (0.3 / (sigma + 1 / 255))
        inputs = F.pixel_unshuffle(torch.cat([estimate, removed], dim=1), 2)
        level = coarse(sigma, 2) / SIGMA_UNIT
        half = F.relu(self.enter(torch.cat([inputs, level.expand(-1, 1, *inputs.shape[2:])], dim=1)))
        quarter = self.quarter_block(F.relu(self.down(F.pixel_unshuffle(half, 2))))
        eighth = self.eighth_blocks(F.relu(self.deeper(F.pixel_unshuffle(quarter, 2))))
        quarter = self.last_block(quarter + F.pixel_shuffle(self.rise(eighth), 2))
        fine = torch.cat([half, F.pixel_shuffle(quarter, 2)], dim=1)
        return {2: self.half_maps(fine), 4: self.quarter_maps(quarter)}


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """`x` is (B, width, H, W); the shape is kept."""
        return x + self.second(F.relu(self.first(x)))


class ConditionedNetwork(Denoiser):
    """A plain averaged network and, beside it, guided steps; one set of weights holds both.

    Called like any denoiser it is the plain network. `condition` freezes a reference and returns the guided one.
    """

    takes_reference = True

    def __init__(self, architecture: ConditionedArchitecture) -> None:
        super().__init__()
        self.architecture: ConditionedArchitecture = architecture
        a = architecture
        self.image_channels, self.centre = a.plain.image_channels, a.plain.centre
        self.plain = EulerNetwork(a.plain)
        self.multiple = math.lcm(self.plain.multiple, Guide.MULTIPLE)
        self.guide = Guide(self.image_channels, a.maps, a.guide_widths)
        self.steps = nn.ModuleList(
            EulerStep(
                self.image_channels, a.filters, a.plain.kernel_size, scale, HuberField(a.filters, a.maps + 1), offset
            )
            for scale, offset in zip(a.scales, grid_offsets(a.scales, a.plain.staggered), strict=True)
        )

    def reach(self, p: int) -> int:
        """How far the p pixels around a region depend on the image in both passes, in pixels; see `Denoiser.reach`."""
        p = reach_of_steps(p, self.euler_steps)
        for scale, count in reversed(Guide.CONVOLUTIONS):
            p = reach_of_convolutions(p, scale, count)
        return self.plain.reach(p)

    @property
    def euler_steps(self) -> list[EulerStep]:
        """The guided steps."""
        return [step for step in self.steps if isinstance(step, EulerStep)]

    @torch.no_grad()
    def initialise(self) -> None:
        """Start the plain network as it starts by itself, and the guided steps from it; see `adopt`."""
        self.plain.initialise()
        for module in self.guide.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(_bias(module))
            if isinstance(module, ResidualBlock):
                module.second.weight.mul_(0.1)
        self._start_steps()

    @torch.no_grad()
    def adopt(self, plain: Mapping[str, Tensor]) -> None:
        """Take the weights of a trained plain network, its `state_dict`, and start the guided steps from them.

        Raises
        ------
        RuntimeError
            If the weights do not fit.
        """
        self.plain.load_state_dict(plain)
        self._start_steps()

    def _start_steps(self) -> None:
        """Every guided step takes the weights of the plain step of its scale at the same relative depth.

        It has its own grid, and its fields are constant.
        """
        pool = {
            scale: [s for s in self.plain.euler_steps if s.scale == scale] for scale in set(self.architecture.scales)
        }
        count = {scale: self.architecture.scales.count(scale) for scale in pool}
        used = dict.fromkeys(pool, 0)
        for step in self.euler_steps:
            steps, total = pool[step.scale], count[step.scale]
            source = steps[round(used[step.scale] * (len(steps) - 1) / max(1, total - 1))]
            used[step.scale] += 1
            take = min(len(step.weight), len(source.weight))
            step.weight.copy_(torch.cat([source.weight, torch.randn_like(step.weight)])[: len(step.weight)])
            step.weight[take:] *= source.weight.std()
            step.step.copy_(source.step)
            assert isinstance(step.activation, HuberField)
            assert isinstance(source.activation, HuberMixture)
            projection = step.activation.projection
            nn.init.normal_(projection.weight, std=0.02)
            group = source.activation.group
            mean = source.activation.log_threshold.mean(0).repeat_interleave(group)  # of the terms of the mixture
            slope = source.activation.log_threshold_slope.mean(0).repeat_interleave(group)
            fewer = len(steps) / total  # fewer steps, so each shrinks more
            _bias(projection)[:take] = mean[:take] + math.log(SIGMA_UNIT * fewer)
            projection.weight[:take, -1, 0, 0] = slope[:take]

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """The plain network, averaged; see `Denoiser.forward`."""
        return self.plain(x, sigma)

    def condition(
        self, reference: Tensor, sigma: float | Tensor, noisy: bool | Tensor = True, guide_factor: float = 1.0
    ) -> Conditioned:
        """The averaged operator x ↦ N(x; reference), for images of the shape of the reference.

        The plain network makes the first estimate from the reference. Where that is beyond black or white, as
        scenes are where highlights are clipped, the guide sees black or white (in noisy images as much beyond as
        estimates may be): it was trained on images in [0, 1]. For the parameters see `Denoiser.condition`.
        """
        fitted, level = self.fit(reference, sigma)
        estimate = self.plain.body(fitted, level)
        holds_noise = torch.as_tensor(noisy, device=fitted.device).expand(len(reference))
        holds_noise = holds_noise.repeat_interleave(len(fitted) // len(reference))[:, None, None, None]
        unit = 1 / math.sqrt(3) if reference.shape[1] < self.image_channels else 1.0  # white, as `fit` makes it
        margin = OVERSHOOT * holds_noise.to(fitted.dtype)
        beyond = estimate - estimate.clamp(-unit * (self.centre + margin), unit * (1 - self.centre + margin))
        fitted, estimate = fitted - beyond, estimate - beyond
        seen = torch.where(holds_noise, fitted, estimate)
        return Conditioned(self, self.guide(seen, estimate, guide_factor * level), reference.shape)

    def estimate(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Second pass: condition on the image itself, which counts as noisy, then denoise it; shapes as in `forward`.

        Not known to be nonexpansive.
        """
        if nothing_to_remove(sigma):
            return x
        return self.condition(x, sigma)(x, sigma)


class Conditioned(Denoiser):
    """x ↦ N(x; reference) for one frozen reference: a composition of Euler steps, averaged like any other.

    Attributes
    ----------
    network : the network it was made from; it holds the weights.
    maps : the guide maps by scale, fixed, each (B', maps, H'/scale, W'/scale) for an image as `Denoiser.fit` makes it.
    shape : (B, C, H, W) of the reference, and of the images it takes.
    """

    def __init__(self, network: ConditionedNetwork, maps: Mapping[int, Tensor], shape: torch.Size) -> None:
        super().__init__()
        self.network = network
        self.image_channels, self.multiple, self.centre = network.image_channels, network.multiple, network.centre
        self.architecture = network.architecture
        self.maps = dict(maps)
        self.shape = shape

    @property
    def euler_steps(self) -> list[EulerStep]:
        """The guided steps."""
        return self.network.euler_steps

    def reach(self, p: int) -> int:
        """How far the p pixels around a region depend on the image, in pixels: that of the guided steps alone.

        The maps are there already, so the guide and the plain network do not count.
        """
        return reach_of_steps(p, self.euler_steps)

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Denoise `x`, of the shape of the reference, at any noise level (usually that of the reference).

        Raises
        ------
        ValueError
            If `x` has another shape than the reference.
        """
        if x.shape != self.shape:
            raise ValueError(f"conditioned on an image of shape {tuple(self.shape)}, not {tuple(x.shape)}")
        return super().forward(x, sigma)

    def part(self, where: tuple[slice, slice]) -> Conditioned:
        """The operator for the part of the image in these rows and columns, the first of which are multiples of 8."""
        rows, columns = where
        height, width = (s.stop - s.start for s in where)
        maps = {s: m[:, :, _coarse(rows, s), _coarse(columns, s)] for s, m in self.maps.items()}
        return Conditioned(self.network, maps, torch.Size((*self.shape[:2], height, width)))

    def body(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The guided steps, on (B, image_channels, H, W), H and W multiples of 8; see `Denoiser.body`."""
        level = {s: log_noise(coarse(sigma, s)) for s in self.maps}
        maps = {s: torch.cat([m, level[s].expand(-1, 1, *m.shape[2:])], dim=1) for s, m in self.maps.items()}
        for step in self.euler_steps:
            x = step(x, on_grid(maps[step.scale], step))
        return x


def _coarse(fine: slice, scale: int) -> slice:
    """Rows or columns of the guide maps at `scale`, on the canvas that is padded to a multiple of 8."""
    stop = -(-fine.stop // Guide.MULTIPLE) * Guide.MULTIPLE
    return slice(fine.start // scale, stop // scale)


def assemble(
    parts: Iterable[tuple[Conditioned, tuple[slice, slice], tuple[slice, slice]]], shape: torch.Size
) -> Conditioned:
    """One operator from operators for overlapping parts of an image of `shape`.

    Parameters
    ----------
    parts : an operator, the rows and columns of it that are right, and where in the image they belong; all begin at
        multiples of 8.
    """
    whole: dict[int, Tensor] = {}
    network: ConditionedNetwork | None = None
    for operator, crop, inner in parts:
        network = operator.network
        for scale, maps in operator.maps.items():
            if scale not in whole:
                size = [-(-n // Guide.MULTIPLE) * Guide.MULTIPLE // scale for n in shape[2:]]
                whole[scale] = maps.new_empty((*maps.shape[:2], *size))
            target = whole[scale][:, :, _coarse(inner[0], scale), _coarse(inner[1], scale)]
            target.copy_(maps[:, :, _coarse(crop[0], scale), _coarse(crop[1], scale)])
    assert network is not None
    return Conditioned(network, whole, shape)


class SelfReferenced(nn.Module):
    """The denoiser that takes the first image it is called with as its reference, and keeps it from then on.

    The images are iterates of an inverse problem: what is wrong with them is no white noise.

    Attributes
    ----------
    operator : the operator for that reference, while there is one.
    """

    GUIDE_FACTOR = 0.8
    """An iterate is closer to the scene than the strength of the denoiser tells: 0.06 dB better at σ = 7.65 than 1, on
    validation images (see the model card)."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.operator: Denoiser | None = None

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Denoise `x` (B, C, H, W), `sigma` on the [0, 1] scale; the first call fixes the reference and the shape."""
        if self.operator is None:
            self.operator = self.denoiser.condition(x, sigma, noisy=False, guide_factor=self.GUIDE_FACTOR)
        return self.operator(x, sigma)


def _bias(convolution: nn.Conv2d) -> Tensor:
    assert convolution.bias is not None
    return convolution.bias
