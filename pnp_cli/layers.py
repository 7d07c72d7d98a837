"""One explicit Euler step of a convex gradient flow, and the activations it may use.

The step is φ(x) = x − τ Aᵀ S(A x; σ) with A a zero-padded convolution, Aᵀ its exact adjoint and S firmly
nonexpansive: a componentwise, non-decreasing map with slopes in [0, 1], or projections of groups of components
onto balls. Then Aᵀ S(A·) is 1/‖A‖²-cocoercive and φ is averaged with constant τ‖A‖²/2 whenever 0 ≤ τ < 2/‖A‖², the
identity for τ = 0 (Celledoni et al. 2023; Meunier et al. 2022; Sherry et al. 2024; Baillon–Haddad). What else S
depends on is free: the noise level σ and fixed fields of thresholds over positions and filters are parameters, not
inputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIGMA_UNIT = 25 / 255
"""Noise level at which the logarithmic coordinate of `log_noise` is about zero."""

MAP_CHUNK = 2**19
"""Coefficients whose thresholds by place are computed at a time."""


def log_noise(sigma: Tensor) -> Tensor:
    """Logarithmic noise coordinate log(σ/c + 10⁻³), c = 25/255; finite down to σ = 0. Shape kept."""
    return torch.log(sigma / SIGMA_UNIT + 1e-3)


class BiasedReLU(nn.Module):
    """S(t; σ) = max(t + b₀ + b₁σ, 0), one pair (b₀, b₁) per filter: the activation of the lecture.

    Attributes
    ----------
    offset, offset_per_sigma : b₀ and b₁, (filters,); σ on the [0, 1] scale.
    """

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(filters))
        self.offset_per_sigma = nn.Parameter(torch.zeros(filters))

    def forward(self, t: Tensor, sigma: Tensor) -> Tensor:
        """Apply S to `t` (B, F, H, W) at noise levels `sigma`, (B, 1, 1, 1) or (B, 1, H, W), [0, 1] scale."""
        return F.relu(t + self.offset[:, None, None] + sigma * self.offset_per_sigma[:, None, None])


class HuberMixture(nn.Module):
    """S(t; σ) = w₀ t + Σⱼ wⱼ P(t; λⱼ): the gradient of a mixture of Huber functions.

    P projects the coefficients of every group of filters onto the ball of radius λⱼ; for groups of one that is
    clip(t, −λⱼ, λⱼ). w lies on the simplex (softmax), so S is firmly nonexpansive, and componentwise with slopes in
    [0, 1] for groups of one. In the step x − τAᵀS(Ax) small coefficients are removed and large ones kept: shrinkage
    in one layer. Thresholds and weights follow the noise level through λⱼ = c·exp(aⱼ + bⱼ·log_noise(σ)), where c is
    `SIGMA_UNIT`, and logits lⱼ + mⱼ·log_noise(σ), one set per group.

    Attributes
    ----------
    group : filters per group; it divides their number.
    log_threshold, log_threshold_slope : aⱼ and bⱼ, (TERMS, filters/group).
    logits, logits_slope : lⱼ and mⱼ, (1 + TERMS, filters/group); those of w₀ come first.
    """

    TERMS = 2
    """Huber functions in the mixture."""
    SMALLEST = 1e-12
    """Least threshold: what is smaller is nothing to an image, and its square or inverse no number of 32 bits."""

    def __init__(self, filters: int, group: int = 1) -> None:
        super().__init__()
        self.group = group
        groups = filters // group
        spread = torch.ones(self.TERMS, groups)
        spread[1] = -1.0
        self.log_threshold = nn.Parameter(spread)
        self.log_threshold_slope = nn.Parameter(torch.ones(self.TERMS, groups))
        logits = torch.zeros(1 + self.TERMS, groups)
        logits[0] = -4.0  # hardly any linear term at first: it would blur
        self.logits = nn.Parameter(logits)
        self.logits_slope = nn.Parameter(torch.zeros(1 + self.TERMS, groups))

    def forward(self, t: Tensor, sigma: Tensor) -> Tensor:
        """Apply S to `t` (B, F, H, W) at noise levels `sigma`, (B, 1, 1, 1) or (B, 1, H, W), [0, 1] scale.

        Without autograd `t` may be reused.
        """
        level = log_noise(sigma)[:, None]  # (B, 1, 1, h, w); h = H and w = W, or both are 1
        if level.shape[3:] == (1, 1) or torch.is_grad_enabled():
            return self._shrink(t, level, slice(None))
        # Thresholds by place are fields, too many of them for all filters at a time.
        groups = t.shape[1] // self.group
        few = max(1, MAP_CHUNK // (len(t) * t.shape[2] * t.shape[3]))
        for start in range(0, groups, few):
            some = slice(start, min(start + few, groups))
            filters = t[:, some.start * self.group : some.stop * self.group]
            filters.copy_(self._shrink(filters, level, some))
        return t

    def _shrink(self, t: Tensor, level: Tensor, groups: slice) -> Tensor:
        """S for some of the groups, of which `t` holds the coefficients, at levels (B, 1, 1, h, w)."""

        def at(parameter: Tensor) -> Tensor:
            return parameter[:, groups, None, None]  # (J, F/group, 1, 1)

        threshold = SIGMA_UNIT * torch.exp(at(self.log_threshold) + at(self.log_threshold_slope) * level)
        threshold = threshold.clamp_min(self.SMALLEST)
        weight = torch.softmax(at(self.logits) + at(self.logits_slope) * level, dim=1)
        linear, height = weight[:, 0], weight[:, 1:] * threshold  # height and threshold are (B, J, F/group, h, w)
        if self.group == 1:
            inverse = 1 / threshold
            out = t * linear
            for j in range(self.TERMS):  # clip(t, −λ, λ) = λ·hardtanh(t/λ); new memory costs more than arithmetic
                out.addcmul_(F.hardtanh(t * inverse[:, j], inplace=True), height[:, j])
            return out
        z = t.reshape(len(t), -1, self.group, *t.shape[2:])
        square = z.square().sum(2)
        gain = linear.expand_as(square)
        for j in range(self.TERMS):  # P(z; λ) = z·λ/max(‖z‖, λ)
            gain = torch.addcmul(gain, torch.maximum(square, threshold[:, j].square()).rsqrt(), height[:, j])
        return (z * gain[:, :, None]).flatten(1, 2)


def reach_of_convolutions(p: int, scale: int, radius: int, offset: int = 0) -> int:
    """p pixels, extended to the grid of a pixel-unshuffle by `scale`, and the radius of convolutions on it: in pixels.

    The grid begins `offset` pixels before the image; the p pixels are counted from a multiple of `scale`. `radius` is
    in cells of the grid.
    """
    before = (math.ceil((p - offset) / scale) + radius) * scale + offset
    after = (math.ceil((p + offset) / scale) + radius) * scale - offset
    return max(before, after)


def grid_offset(scale: int, turn: int) -> tuple[int, int]:
    """Rows and columns, in pixels, by which the grid of a pixel-unshuffle begins before the image.

    `turn` counts the steps of that scale, and four positions take turns. They reach every row and every column of a
    cell of 2 or 4 pixels, so no place in it is special.
    """
    return (
        (0, 0),
        (scale // 2, scale // 2),
        (scale // 4, 3 * scale // 4),
        (3 * scale // 4, scale // 4),
    )[turn % 4]


def grid_offsets(scales: Sequence[int], staggered: bool) -> list[tuple[int, int]]:
    """Offsets of the grids of a network's steps: those of one scale take turns if they are staggered."""
    return [grid_offset(s, scales[:i].count(s)) if staggered else (0, 0) for i, s in enumerate(scales)]


class _ClipToField(torch.autograd.Function):
    """(t, m) ↦ clip(t, −eᵐ, eᵐ), with a derivative in a few passes: outside the interval ∂/∂m is the output."""

    @staticmethod
    def forward(ctx: Any, t: Tensor, log_threshold: Tensor) -> Tensor:
        threshold = log_threshold.exp()
        out = torch.minimum(t, threshold)
        torch.maximum(out, threshold.neg(), out=out)
        ctx.save_for_backward(out, threshold)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        out, threshold = ctx.saved_tensors
        inside = gradient * (out.abs() < threshold)
        return inside, (gradient - inside) * out


class HuberField(nn.Module):
    """S(t) = Σⱼ wⱼ clip(t, −λⱼ, λⱼ), the gradient of a mixture of Huber functions whose widths are fields.

    λ₁ = λ·eʳ and λ₂ = λ·e⁻ʳ, with λ = exp(projection of guide maps) varying over positions and filters, and the
    spread r and the weights w on the simplex learned per filter. The maps do not depend on t, so S is
    componentwise and its slopes are in [0, 1], whatever the maps are.

    Attributes
    ----------
    projection : from (B, maps, H, W) to log λ, (B, filters, H, W); coefficients are on the [0, 1] scale of pixels.
    spread : r, (filters,).
    balance : logit of w₁, (filters,).
    """

    def __init__(self, filters: int, maps: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(maps, filters, 1)
        self.spread = nn.Parameter(torch.ones(filters))
        self.balance = nn.Parameter(torch.zeros(filters))

    def forward(self, t: Tensor, maps: Tensor) -> Tensor:
        """Apply S to `t` of shape (B, F, H, W) with guide maps (B, maps, H, W). Without autograd `t` is reused."""
        level = self.projection(maps)
        spread, weight = self.spread[:, None, None], torch.sigmoid(self.balance)[:, None, None]
        if t.requires_grad or level.requires_grad:
            wide = _ClipToField.apply(t, level + spread)  # type: ignore[no-untyped-call]
            return torch.lerp(_ClipToField.apply(t, level - spread), wide, weight)  # type: ignore[no-untyped-call]
        # In place where possible: memory traffic is what this costs.
        threshold = level.add_(spread).exp_()
        wide = torch.minimum(t, threshold)
        torch.maximum(wide, threshold.neg_(), out=wide)
        threshold.mul_(-torch.exp(-2 * spread))
        torch.minimum(t, threshold, out=t)
        torch.maximum(t, threshold.neg_(), out=t)
        return t.lerp_(wide, weight)


Activation = BiasedReLU | HuberMixture | HuberField
"""What an Euler step may use for S: every one is firmly nonexpansive."""


class EulerStep(nn.Module):
    """φ(x) = x − τ Uᵀ Aᵀ S(A U x; p), U a zero-padding and the pixel-unshuffle by `scale`: isometries.

    Attributes
    ----------
    weight : Tensor, shape (filters, channels·scale², k, k)
        The convolution A, zero-padded so that sizes are kept; k is odd.
    step : Tensor, scalar
        τ. The step is averaged with constant τ‖A‖²/2 if that is below 1; see `certificate`.
    activation : S, one of this file; p is what it depends on besides its input.
    offset : rows and columns by which the grid of U begins before the image, each in [0, scale); its last cell ends
        behind the image then.
    """

    def __init__(
        self,
        channels: int,
        filters: int,
        kernel_size: int,
        scale: int,
        activation: Activation,
        offset: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__()
        self.scale = scale
        self.offset = offset
        top, left = offset
        self._margin = (left, -left % scale, top, -top % scale)
        width = channels * scale**2
        self.weight = nn.Parameter(torch.empty(filters, width, kernel_size, kernel_size))
        nn.init.kaiming_uniform_(self.weight, nonlinearity="linear")
        self.step = nn.Parameter(torch.tensor(1.0))
        self.activation = activation

    def reach(self, p: int) -> int:
        """How far from a region its result and that of p pixels around it depend on the input, in pixels.

        See `denoisers.Denoiser.reach`.
        """
        radius = 2 * (self.weight.shape[-1] // 2)
        return max(reach_of_convolutions(p, self.scale, radius, offset) for offset in self.offset)

    def analyse(self, x: Tensor) -> Tensor:
        """A U x: (B, C, H, W), H and W multiples of `scale`, to (B, filters, H/scale, W/scale).

        One row or column more where the grid is offset.
        """
        if any(self._margin):
            x = F.pad(x, self._margin)
        z = F.pixel_unshuffle(x, self.scale) if self.scale > 1 else x
        return F.conv2d(z, self.weight, padding=self.weight.shape[-1] // 2)

    def synthesise(self, c: Tensor) -> Tensor:
        """Uᵀ Aᵀ c, the adjoint of `analyse`: (B, filters, H/scale, W/scale) to (B, C, H, W)."""
        z = F.conv_transpose2d(c, self.weight, padding=self.weight.shape[-1] // 2)
        x = F.pixel_shuffle(z, self.scale) if self.scale > 1 else z
        left, right, top, bottom = self._margin
        return x[..., top : x.shape[2] - bottom, left : x.shape[3] - right]

    def forward(self, x: Tensor, parameter: Tensor) -> Tensor:
        """Apply φ to `x` of shape (B, C, H, W), H and W multiples of `scale`; for `parameter` see the activation."""
        return x - self.step * self.synthesise(self.activation(self.analyse(x), parameter))


def coarse(levels: Tensor, scale: int) -> Tensor:
    """Noise levels on a grid of cells of scale² pixels: the means over them.

    (B, 1, H, W), H and W multiples of `scale`, to (B, 1, H/scale, W/scale); (B, 1, 1, 1) stays.
    """
    return levels if levels.shape[2:] == (1, 1) else F.avg_pool2d(levels, scale)


def on_grid(fields: Tensor, step: EulerStep) -> Tensor:
    """Fields on the grid that begins with the image, interpolated for the grid of a step that begins before it.

    (B, C, rows, columns); a row or a column more where the grid of the step is offset. (B, C, 1, 1) stays.
    """
    if fields.shape[2:] == (1, 1):
        return fields
    for axis, offset in zip((2, 3), step.offset, strict=True):
        if offset:
            count = fields.shape[axis]
            first, last = fields.narrow(axis, 0, 1), fields.narrow(axis, count - 1, 1)
            fields = torch.lerp(
                torch.cat([first, fields], axis), torch.cat([fields, last], axis), 1 - offset / step.scale
            )
    return fields


def reach_of_steps(p: int, steps: Sequence[EulerStep]) -> int:
    """`EulerStep.reach` of a composition, in pixels; the steps in the order in which they are applied."""
    for step in reversed(steps):
        p = step.reach(p)
    return p


def dct_colour_frame(side: int, scale: int, channels: int, filters: int) -> Tensor:
    """Rows of the 2-D DCT of a (side·scale)² patch times an opponent-colour basis, as conv weights.

    The constant of the first colour direction is left out and the highest frequencies come first. At
    stride `scale` all rows together are a tight frame, so x − Aᵀ S(Ax) is translation-invariant DCT
    shrinkage (Coifman & Donoho 1995) before any training.

    Parameters
    ----------
    side : side of the convolution, in cells of `scale` pixels.
    scale : factor of the pixel-unshuffle before it.
    channels : of the image; 3 have opponent colours, others each its own.
    filters : number of rows.

    Returns
    -------
    Tensor of shape (filters, channels·scale², side, side), each row of Euclidean norm 1; rows past the
    size of the basis are zero.
    """
    n = side * scale
    grid = (torch.arange(n) + 0.5) * math.pi / n
    dct = torch.cos(torch.arange(n)[:, None] * grid) * math.sqrt(2 / n)
    dct[0] /= math.sqrt(2)
    if channels == 3:
        colour = torch.tensor([[1.0, 1, 1], [1, 0, -1], [1, -2, 1]])
        colour = colour / colour.norm(dim=1, keepdim=True)
    else:
        colour = torch.eye(channels)
    basis = torch.einsum("iy,jx,kc->ijkcyx", dct, dct, colour)  # frequencies i, j; colour direction k
    order = torch.arange(n)
    frequency = (order[:, None, None] + order[None, :, None]).expand(n, n, channels)
    # A stable sort from high to low; within one frequency the luminance comes first.
    rows = torch.argsort(frequency.flatten(), descending=True, stable=True)
    rows = rows[rows != 0][:filters]
    patch = basis.reshape(-1, channels, n, n)[rows]
    # (c, y, x) of the full-resolution patch → channels of the pixel-unshuffled convolution.
    weight = patch.reshape(-1, channels, side, scale, side, scale).permute(0, 1, 3, 5, 2, 4)
    weight = weight.reshape(len(rows), channels * scale**2, side, side)
    out = torch.zeros(filters, channels * scale**2, side, side)
    out[: len(rows)] = weight
    return out
