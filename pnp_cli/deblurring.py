"""Deblurring from the measurement to the restored frame: what was left open is chosen from the image and the memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from .boundaries import boundary_model
from .clipped_noise import restore_clipped
from .conditions import Guarantee
from .errors import DivergenceError, UsageError
from .exposure import brightened, find_gain
from .jpeg import JpegRounding
from .kernels import Kernel
from .light import to_light, to_samples
from .measurement import MeasurementErrors, measure_errors
from .noise import MIN_NOISE
from .operators import BlurCache
from .patches import Window, choose_patch, least_overlap, restore_by_patches, windows
from .plugandplay import CLIP_LEVEL, Plan, Settings, plan_deblurring
from .solvers import Record, Solution, Status
from .tiling import tiled
from .weights import LoadedDenoiser

LEAST_NOISE = MIN_NOISE / 5
"""Below this, as the denoiser sees it, an image has no noise to speak of: what is left is not to be measured by it."""


@dataclass(frozen=True)
class Choices:
    """How to deblur; what is None is chosen for every image.

    Attributes
    ----------
    noise : standard deviation of the noise, [0, 1] scale; None estimates it.
    boundary : what lies beyond the frame, a name of `boundaries.BOUNDARIES`.
    clipped : whether samples of `plugandplay.CLIP_LEVEL` or more count as clipped, unless some are beyond white, and
        noise as cut off at black and white, see `clipped_noise`, but not in JPEG files.
    patch : longest side that is restored whole, in pixels; 0 for any, None by the free memory.
    jpeg : how a JPEG file has rounded the image, `images.Image.jpeg` (of a part of it: `of_part`); None takes its
        pixels as they are.
    correlation : distance in pixels from which on the noise is independent, 1 for white noise; other noise counts as
        more, see `correlated_noise.white_level`. None finds out with the noise whether neighbouring pixels share it,
        and takes noise that is given for white.
    photon : noise beside it that grows with the light, as the gain of `NoiseCurve.photon`. None finds out how noise
        that is estimated depends on the brightness, in JPEG files only where neighbouring pixels share it, and takes
        noise that is given for as large everywhere.
    linear_light : whether the blur acted on the light, and the samples follow the sRGB curve; see `light`. Then the
        light is restored, in which noise and JPEG errors are the larger, the brighter it is.
    gain : by how much the denoiser sees the image brighter than it is, see `exposure`; None finds out.
    tile : side of the tiles of the denoiser, in pixels; 0 for none, None by the free memory.
    settings : keywords of `Settings.for_noise`: strength, envelope, data_term, step, ridge, box, continuation, refresh,
        acceleration, tol, max_iter.
    """

    noise: float | None = None
    boundary: str = "free"
    clipped: bool = True
    patch: int | None = None
    jpeg: JpegRounding | None = None
    correlation: int | None = None
    photon: float | None = None
    linear_light: bool = False
    gain: float | None = None
    tile: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Deblurred:
    """A restored image and how the iteration ended, patch by patch if there were several.

    Attributes
    ----------
    frame : (1, C, H, W), in [0, 1] if the settings ask for the box.
    solution : of the patch with the largest relative residual.
    discrepancy : ‖Kx − y‖/(σ√n) of that patch, see `fidelity.LeastSquares.discrepancy`; None without noise to speak of.
    converged : whether all patches did.
    violations : run-time checks that failed, of all patches.
    """

    frame: Tensor
    solution: Solution
    discrepancy: float | None
    converged: bool
    violations: tuple[str, ...]


@dataclass(frozen=True)
class Deblurring:
    """A restoration that is ready to start; `prepare_deblurring` makes it.

    Attributes
    ----------
    y : measurement (1, C, H, W), values nominally in [0, 1]; the light, if that is what was blurred, and with the mean
        of noise that was cut off.
    errors : of the measurement, given or estimated.
    linear_light : see `Choices`.
    clipped : share of its samples that count as clipped.
    gain : see `Choices`.
    boundary : name of the boundary model in use; free for patches, since what lies beyond a patch is unknown.
    side, overlap : longest side of a patch and least overlap of neighbours, in pixels.
    patches : how many there are.
    plan : of the first patch; what is known beforehand is the same for all.
    """

    y: Tensor
    errors: MeasurementErrors
    linear_light: bool
    clipped: float
    gain: float
    boundary: str
    side: int
    overlap: int
    patches: int
    plan: Plan
    _plan_for: Callable[[Window], Plan]

    @property
    def guarantee(self) -> Guarantee:
        """Which theorem applies, or which conditions fail."""
        return self.plan.guarantee

    def run(self, callback: Callable[[int, Record], None] | None = None) -> Deblurred:
        """Restore the image.

        Parameters
        ----------
        callback : called with the number of the patch, from 0, and every record of its iteration.

        Raises
        ------
        DivergenceError
            If the iteration diverges, which a guarantee excludes.
        """
        ends: list[tuple[bool, tuple[str, ...]]] = []
        worst: tuple[Solution, float | None] | None = None

        def restore(window: Window) -> Tensor:
            nonlocal worst
            plan = self.plan if self.patches == 1 else self._plan_for(window)
            solution = plan.run(None if callback is None else lambda record, _: callback(len(ends), record))
            if solution.status is Status.DIVERGED:
                raise DivergenceError("the iteration diverged; use certified weights and an admissible step")
            ends.append((solution.converged, solution.violations))
            if worst is None or solution.records[-1].relative > worst[0].records[-1].relative:
                noise = self.errors.level * self.errors.slope
                noise = noise if noise * self.gain >= LEAST_NOISE else 0.0
                worst = solution, plan.base.discrepancy(solution.value, noise)
            frame = plan.base.operator.boundary.frame_of(solution.value)
            return frame.clamp_max(1) if plan.settings.box else frame  # the scene may be brighter, the image not

        frame = restore_by_patches(self.y, self.side, self.overlap, restore)
        assert worst is not None
        frame = to_samples(frame) if self.linear_light else frame
        violations = tuple(violation for _, found in ends for violation in found)
        return Deblurred(frame, *worst, all(converged for converged, _ in ends), violations)


@torch.no_grad()
def prepare_deblurring(
    y: Tensor,
    kernel: Kernel,
    denoiser: LoadedDenoiser,
    choices: Choices = Choices(),
    blurs: BlurCache | None = None,
) -> Deblurring:
    """Choose what is left open, and check the conditions of the theorems.

    Parameters
    ----------
    y : measurement (1, C, H, W), values nominally in [0, 1].
    kernel : (h, w); see `kernels`.
    denoiser : from `weights.load`, on the device of `y`.
    choices : what is not left open.
    blurs : keeps the operator between images of one size.

    Returns
    -------
    Deblurring
        Conditions that fail are in its guarantee, not raised; see `Guarantee.require`.

    Raises
    ------
    UsageError
        If `y` is no single image, or a choice makes no sense.
    InputError
        If the kernel does not fit into the image, or the patches are too small for it.
    """
    _require_sense(y, choices)
    blurs = blurs or BlurCache(y.device)
    size = (y.shape[2], y.shape[3])
    white = (y >= CLIP_LEVEL) if choices.clipped and float(y.max()) <= 1 else None
    clipped = float(white.float().mean()) if white is not None else 0.0
    cut_off = choices.clipped and choices.jpeg is None
    errors = measure_errors(
        y,
        kernel,
        choices.noise,
        choices.photon,
        correlation=choices.correlation,
        jpeg=choices.jpeg,
        linear_light=choices.linear_light,
        clipped=cut_off,
        counted=~white if white is not None and clipped < 1 else None,
    )
    if cut_off:
        y = restore_clipped(y, errors.curve)
    clip_level = CLIP_LEVEL
    if choices.linear_light:
        clip_level, y = float(to_light(torch.tensor(CLIP_LEVEL, dtype=y.dtype))), to_light(y)
    gain = find_gain(y, errors.level * errors.slope) if choices.gain is None else choices.gain
    settings = Settings.for_noise(
        errors.level * errors.slope,
        denoiser.rules,
        kernel,
        lipschitz=errors.norm,
        gain=gain,
        clip_level=clip_level if clipped else None,
        **choices.settings,
    )
    overlap = least_overlap((kernel.shape[0], kernel.shape[1]))
    side = choose_patch(size, overlap, y.device) if choices.patch is None else choices.patch
    side = side or max(size)
    parts = windows(size, side, overlap)
    boundary = choices.boundary if len(parts) == 1 else "free"

    def plan_for(window: Window) -> Plan:
        rows, columns = window
        part = y[:, :, rows, columns]
        operator = blurs(kernel, (part.shape[2], part.shape[3]), boundary_model(boundary))
        network = brightened(gain, tiled(denoiser.network, operator.scene, choices.tile, y.device))
        left_out = (part >= settings.clip_level).any(1, keepdim=True) if settings.clip_level is not None else None
        precision = errors.precision(window, left_out)
        accuracy = errors.accuracy(window)
        return plan_deblurring(part, operator, network, denoiser.certificate, settings, precision, accuracy)

    plan = plan_for(parts[0])
    return Deblurring(
        y=y,
        errors=errors,
        linear_light=choices.linear_light,
        clipped=clipped,
        gain=gain,
        boundary=boundary,
        side=side,
        overlap=overlap,
        patches=len(parts),
        plan=plan,
        _plan_for=plan_for,
    )


def _require_sense(y: Tensor, choices: Choices) -> None:
    if y.ndim != 4 or len(y) != 1:
        raise UsageError(f"one image is deblurred at a time, of shape (1, C, H, W), not {tuple(y.shape)}")
    if choices.jpeg is not None and len(choices.jpeg.steps) != y.shape[1]:
        raise UsageError(f"the JPEG file had {len(choices.jpeg.steps)} components, but the image has {y.shape[1]}")
    if choices.noise is not None and not 0 <= choices.noise <= 1:
        raise UsageError(f"the noise level must be on the [0, 1] scale, not {choices.noise:g}")
    if choices.photon is not None and not 0 <= choices.photon < float("inf"):
        raise UsageError(f"the noise per brightness must be a number that is not negative, not {choices.photon:g}")
    if choices.photon and choices.noise is None:
        raise UsageError("photon noise adds to noise that is given; give 0 if there is no other")
    if choices.correlation is not None and choices.correlation < 1:
        raise UsageError(f"the correlation must be a distance of 1 pixel or more, not {choices.correlation}")
    known = {entry.name for entry in fields(Settings)} - {"clip_level"}
    if choices.gain is not None and not 0 < choices.gain < float("inf"):
        raise UsageError(f"the gain must be a positive number, not {choices.gain:g}")
    unknown = choices.settings.keys() - known
    if unknown:
        raise UsageError(f"'{min(unknown)}' is none of the settings that are chosen here; see Choices.settings")
