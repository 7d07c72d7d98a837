"""Plug-and-Play restoration: T = P ∘ N ∘ (id − step·∇f), its settings, and the iteration of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeGuard

import numpy as np
import torch
from torch import Tensor, nn

from .accelerators import ACCELERATORS
from .certificate import Certificate
from .conditioned import SelfReferenced
from .conditions import Guarantee, RunningChecks, plug_and_play_guarantee
from .denoisers import Denoiser
from .errors import UsageError
from .exposure import gain_of
from .fidelity import Fidelity, LeastSquares
from .kernels import Kernel, weak_share
from .operators import Blur
from .precision import Precision
from .proximal import MoreauEnvelope, Tolerance, loose, summable
from .rules import PLAIN_RULES, Rules
from .solvers import Record, Solution, fixed_point

DataTerm = Literal["envelope", "least-squares"]

WARM_SIGMA = 49 / 255
"""Noise level that the denoiser sees at the start of the continuation, [0, 1] scale."""


@dataclass(frozen=True)
class Settings:
    """Choices of a Plug-and-Play run; `for_noise` makes them from the noise level.

    Attributes
    ----------
    strength : noise level given to the denoiser, [0, 1] scale.
    envelope : h of the Moreau envelope, used by that data term; larger trusts the data more.
    step : step of the gradient of the data term in use; None is h for the envelope (its proximal map) and
        1.9/L for least squares.
    ridge : weight of (ridge/2)‖x‖² in the data term.
    box : whether the iterates are projected onto the box [0, 1], or, if there is a clip level, [0, `BRIGHTEST`].
    clip_level : measurements of this value or more are clipped, see `fidelity.LeastSquares`; None if none is.
    continuation : iterations of the warm-up, after which (h, strength) are frozen; 0 starts cold.
    refresh : how many times a conditioned denoiser takes a new reference: evenly over the warm-up, the last time
        when it ends, and frozen from then on. 0 uses its plain network.
    acceleration : name of an accelerator of `accelerators.ACCELERATORS`, used from the freeze on.
    tol, max_iter : see `solvers.fixed_point`.

    Raises
    ------
    UsageError
        If a value makes no sense. Whether the step is admissible is not checked here.
    """

    strength: float
    envelope: float
    data_term: DataTerm = "envelope"
    step: float | None = None
    ridge: float = 0.0
    box: bool = True
    clip_level: float | None = None
    continuation: int = 14
    refresh: int = 8
    acceleration: str = "anderson"
    tol: float = 1e-4
    max_iter: int = 200

    def __post_init__(self) -> None:
        if self.data_term not in ("envelope", "least-squares"):
            raise UsageError(f"the data term must be envelope or least-squares, not '{self.data_term}'")
        if not 1e-9 <= self.envelope <= 1e9:
            raise UsageError(f"the envelope parameter h must be a number from 1e-9 to 1e9, not {self.envelope:g}")
        if self.acceleration not in ACCELERATORS:
            raise UsageError(f"unknown acceleration '{self.acceleration}'; use {', '.join(ACCELERATORS)}")
        for name in ("strength", "ridge", "tol"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"the {name} must be a non-negative number, not {getattr(self, name):g}")
        if self.step is not None and not math.isfinite(self.step):
            raise UsageError(f"the step must be a finite number, not {self.step}")
        if self.clip_level is not None and not 0 < self.clip_level < math.inf:
            raise UsageError(f"the clip level must be a positive number, not {self.clip_level:g}")
        if self.max_iter < 1 or self.continuation < 0 or self.refresh < 0:
            raise UsageError("the iteration limit must be at least 1, the continuation and the refreshes at least 0")

    @classmethod
    def for_noise(
        cls,
        noise: float,
        rules: Rules = PLAIN_RULES,
        kernel: Kernel | None = None,
        *,
        data_term: DataTerm = "envelope",
        strength: float | None = None,
        envelope: float | None = None,
        lipschitz: float = 1.0,
        gain: float = 1.0,
        **others: Any,
    ) -> Settings:
        """Settings for noise of standard deviation `noise`, [0, 1] scale: the rule's, but for what is given.

        Parameters
        ----------
        rules : of the weights in use, for images as the denoiser sees them.
        kernel : without it the blur is taken to lose no frequency.
        strength, envelope, data_term : see `Settings`; None for the rule's.
        lipschitz : about the L of the least-squares term, which limits h, and gives the default step of that term.
        gain : by how much the denoiser sees images brighter than they are, see `exposure`.
        others : the other attributes of `Settings`.
        """
        step = others.get("step")
        if step is not None and not math.isfinite(step):
            raise UsageError(f"the step must be a finite number, not {step}")
        rule = rules.of(referenced=others.get("refresh", cls.refresh) > 0)
        h = min(rule.envelope(gain * noise), MOST_WEIGHT / lipschitz) if envelope is None else envelope
        if strength is None:
            weak = weak_share(kernel) if kernel is not None else 0.0
            weight = step or (h if data_term == "envelope" else LEAST_SQUARES_STEP / lipschitz)
            strength = rule.strength(gain * noise, max(weight, 0.0), weak) / gain
        return cls(strength, h, data_term, **others)


MOST_WEIGHT = 200.0
"""Largest h times L of least squares that is chosen: in single precision the proximal map is exact to about 1e-7 of the
image times that, which must be well below the tolerance. Less h with less strength restores as well."""

CLIP_LEVEL = 0.98
"""From where on a measurement of which white is the most counts as clipped: a camera's white is not always 255 of 255,
and JPEG shifts it."""

BRIGHTEST = 4.0
"""Upper end of the box for scenes whose highlights are clipped: in the measurement white is 1."""

LEAST_SQUARES_STEP = 1.9
"""Default step of the least-squares term, times 1/L: near the end of the interval, where it is fastest."""


class PlugAndPlayMap:
    """T(x) = P(N(x − step·∇f(x); sigma)), on scenes (B, C, H, W).

    Parameters
    ----------
    fidelity : data term f.
    denoiser : N, called as ``denoiser(x, sigma)``.
    sigma : noise level given to N, [0, 1] scale, a number or a map.
    step : step of the gradient of f.
    box : P projects onto [0, box]; None for no projection.
    """

    def __init__(
        self, fidelity: Fidelity, denoiser: nn.Module, sigma: float | Tensor, step: float, box: float | None = 1.0
    ) -> None:
        self.fidelity, self.denoiser, self.sigma, self.step, self.box = fidelity, denoiser, sigma, step, box

    def __call__(self, x: Tensor) -> Tensor:
        """Apply T once."""
        x = self.denoiser(self.fidelity.descend(x, self.step), self.sigma)
        return x if self.box is None else x.clamp(0, self.box)

    @property
    def error(self) -> float:
        """Bound of the error of the last evaluation: that of the data step, which N and P do not increase."""
        return self.fidelity.error


@dataclass(frozen=True)
class Plan:
    """A run that is ready to start.

    Attributes
    ----------
    settings : as asked.
    guarantee : what is known about the run beforehand.
    base : least squares, from which the data term in use is made.
    denoiser : N.
    warm : iterations of the warm-up.
    emphasis : by what the strength is multiplied in places of the scene, (1, 1, H, W); None for 1.
    """

    settings: Settings
    guarantee: Guarantee
    base: LeastSquares
    denoiser: nn.Module
    warm: int
    emphasis: Tensor | None = None

    @property
    def box(self) -> float | None:
        """Upper end of the box that the iterates are projected onto; None for no projection."""
        return _box(self.settings)

    @property
    def references(self) -> int:
        """How many references a conditioned denoiser takes, the frozen one included; 0 for others."""
        if not self.settings.refresh or not _takes_reference(self.denoiser):
            return 0
        return 1 + min(self.settings.refresh - 1, self.warm)

    @property
    def start(self) -> Tensor:
        """x_0: the measurement, extrapolated to the scene."""
        start = self.base.operator.boundary.extrapolate(self.base.y)
        return start if self.box is None else start.clamp(0, self.box)

    def operator(self) -> PlugAndPlayMap:
        """The frozen map T. A conditioned denoiser takes the first image it is called with as its reference."""
        s = self.settings
        return _map(self.base, self._referenced(), s, self._by_place(s.strength), s.envelope, s.step, summable)

    def warm_up(self) -> Iterator[PlugAndPlayMap]:
        """The maps of the continuation: strong denoising at first, with h in proportion to the strength."""
        s, renewals = self.settings, self.references - 1
        denoiser, start = self.denoiser, WARM_SIGMA / gain_of(self.denoiser)
        for i, sigma in enumerate(np.geomspace(start, s.strength or 1, self.warm, endpoint=False)):
            if renewals > 0 and (i == 0 or i * renewals // self.warm != (i - 1) * renewals // self.warm):
                denoiser = self._referenced()
            h = s.envelope * float(sigma) / s.strength
            step = s.step if s.data_term != "envelope" else None
            yield _map(self.base, denoiser, s, self._by_place(float(sigma)), h, step, loose)

    def _by_place(self, strength: float) -> float | Tensor:
        return strength if self.emphasis is None or not strength else strength * self.emphasis

    def _referenced(self) -> nn.Module:
        return SelfReferenced(self.denoiser) if self.references and _takes_reference(self.denoiser) else self.denoiser

    def run(self, callback: Callable[[Record, Tensor], None] | None = None) -> Solution:
        """Iterate to the fixed point; the run-time checks are on from the freeze."""
        s = self.settings
        return fixed_point(
            self.operator(),
            self.start,
            tol=s.tol,
            max_iter=s.max_iter,
            warm_up=self.warm_up(),
            accelerator=ACCELERATORS[s.acceleration](),
            checks=RunningChecks.of(self.guarantee, self.box),
            callback=callback,
        )


@torch.no_grad()
def plan_deblurring(
    y: Tensor,
    blur: Blur,
    denoiser: nn.Module,
    certificate: Certificate,
    settings: Settings,
    precision: Precision | None = None,
    accuracy: Tensor | None = None,
) -> Plan:
    """Prepare the restoration of y = Kx + noise.

    Parameters
    ----------
    y : measurement (B, C, H, W), values nominally in [0, 1].
    blur : K for images of that size.
    denoiser, certificate : N and what is proven about it.
    settings : see `Settings.for_noise`.
    precision : of the noise if it is not white, see `fidelity.LeastSquares`.
    accuracy : if errors are not as large everywhere, how many times smaller than on average they are by place,
        (1, 1, H, W). A plain network is that much stronger there, where the data weigh more, so that what it removes
        stays in proportion to the noise. A conditioned one sees for itself where details are.

    Returns
    -------
    Plan
        Conditions that fail are in its guarantee, not raised; see `Guarantee.require`.
    """
    s = settings
    base = LeastSquares(blur, y, s.ridge, s.clip_level, precision)
    final = _map(base, denoiser, s, s.strength, s.envelope, s.step, summable)
    guarantee = plug_and_play_guarantee(final.fidelity, final.step, certificate, s.box)
    warm = min(s.continuation, s.max_iter // 2) if 0 < gain_of(denoiser) * s.strength < WARM_SIGMA else 0
    plan = Plan(s, guarantee, base, denoiser, warm)
    if accuracy is None or plan.references:
        return plan
    scene = blur.boundary.extrapolate(accuracy).clamp(float(accuracy.min()), float(accuracy.max()))
    return replace(plan, emphasis=scene)


def _map(
    base: LeastSquares,
    denoiser: nn.Module,
    s: Settings,
    sigma: float | Tensor,
    h: float,
    step: float | None,
    tol: Tolerance,
) -> PlugAndPlayMap:
    fidelity: Fidelity = MoreauEnvelope(base, h, tol) if s.data_term == "envelope" else base
    if step is None:
        step = h if s.data_term == "envelope" else LEAST_SQUARES_STEP / base.lipschitz
    return PlugAndPlayMap(fidelity, denoiser, sigma, step, _box(s))


def _box(s: Settings) -> float | None:
    return (1.0 if s.clip_level is None else BRIGHTEST) if s.box else None


def _takes_reference(denoiser: nn.Module) -> TypeGuard[Denoiser]:
    return isinstance(denoiser, Denoiser) and denoiser.takes_reference
