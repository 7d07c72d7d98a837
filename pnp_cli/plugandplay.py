"""Plug-and-Play restoration: T = P ∘ N ∘ (id − step·∇f), its settings, and the iteration of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

import numpy as np
import torch
from torch import Tensor, nn

from .certificate import Certificate
from .conditioned import SelfReferenced
from .conditions import Guarantee, RunningChecks, plug_and_play_guarantee
from .denoisers import Denoiser
from .errors import UsageError
from .fidelity import Fidelity, LeastSquares, MoreauEnvelope
from .noise import MIN_NOISE
from .operators import Blur
from .solvers import Record, Solution, fixed_point

DataTerm = Literal["envelope", "least-squares"]

WARM_SIGMA = 49 / 255
"""Noise level given to the denoiser at the start of the continuation."""


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
    box : whether the iterates are projected onto [0, 1].
    continuation : iterations of the warm-up, after which (h, strength) are frozen; 0 starts cold.
    refresh : how many times a conditioned denoiser takes a new reference: evenly over the warm-up, the last time
        when it ends, and frozen from then on. 0 uses its plain network.
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
    continuation: int = 20
    refresh: int = 4
    tol: float = 1e-4
    max_iter: int = 200

    def __post_init__(self) -> None:
        if self.data_term not in ("envelope", "least-squares"):
            raise UsageError(f"the data term must be envelope or least-squares, not '{self.data_term}'")
        if not 0 < self.envelope < math.inf:
            raise UsageError(f"the envelope parameter h must be a positive number, not {self.envelope:g}")
        for name in ("strength", "ridge", "tol"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"the {name} must be a non-negative number, not {getattr(self, name):g}")
        if self.step is not None and not math.isfinite(self.step):
            raise UsageError(f"the step must be a finite number, not {self.step}")
        if self.max_iter < 1 or self.continuation < 0 or self.refresh < 0:
            raise UsageError("the iteration limit must be at least 1, the continuation and the refreshes at least 0")

    @classmethod
    def for_noise(
        cls,
        noise: float,
        denoiser: nn.Module | None = None,
        *,
        data_term: DataTerm = "envelope",
        strength: float | None = None,
        envelope: float | None = None,
        **others: Any,
    ) -> Settings:
        """Settings for measurement noise of standard deviation `noise` ([0, 1] scale); what is given wins.

        They are those for a plain network, or for a conditioned one if `denoiser` is one.
        """
        guided = _takes_reference(denoiser) and others.get("refresh", cls.refresh) > 0
        rule = CONDITIONED_RULE if guided else PLAIN_RULE
        h = rule.envelope(noise) if envelope is None else envelope
        if strength is None:
            strength = rule.strength(noise, h if data_term == "envelope" else LEAST_SQUARES_STEP)
        return cls(strength, h, data_term, **others)


LEAST_SQUARES_STEP = 1.9
"""Default step of the least-squares term, times 1/L: near the end of the interval, where it is fastest."""


@dataclass(frozen=True)
class Rule:
    """h and strength for a noise level, fitted on blurred images by `benchmarks.deblurring_rules`.

    Attributes
    ----------
    weight : h is weight/noise.
    scale, power : the strength on the 0-255 scale is scale·levelᵖᵒʷᵉʳ for that h, level = 255·noise.
    """

    weight: float
    scale: float
    power: float

    def envelope(self, noise: float) -> float:
        """h for noise of standard deviation `noise`, [0, 1] scale."""
        return self.weight / max(noise, MIN_NOISE)

    def strength(self, noise: float, h: float) -> float:
        """Denoiser strength for a noise level and a data weight h, all on the [0, 1] scale.

        Along strength² ∝ h the fixed points have about the same quality.
        """
        level = 255 * max(noise, MIN_NOISE)
        return self.scale * level**self.power / 255 * math.sqrt(h / self.envelope(noise))


PLAIN_RULE = Rule(0.1, 2.35, 0.41)
CONDITIONED_RULE = Rule(0.2, 4.17, 0.39)


class PlugAndPlayMap:
    """T(x) = P(N(x − step·∇f(x); sigma)), on tensors (B, C, H, W).

    Parameters
    ----------
    fidelity : data term f.
    denoiser : N, called as ``denoiser(x, sigma)``.
    sigma : noise level given to N, [0, 1] scale.
    step : step of the gradient of f.
    box : whether P projects onto [0, 1].
    """

    def __init__(self, fidelity: Fidelity, denoiser: nn.Module, sigma: float, step: float, box: bool = True) -> None:
        self.fidelity, self.denoiser, self.sigma, self.step, self.box = fidelity, denoiser, sigma, step, box

    def __call__(self, x: Tensor) -> Tensor:
        """Apply T once."""
        x = self.denoiser(self.fidelity.descend(x, self.step), self.sigma)
        return x.clamp(0, 1) if self.box else x


@dataclass(frozen=True)
class Plan:
    """A run that is ready to start: `guarantee` says what is known about it beforehand."""

    settings: Settings
    guarantee: Guarantee
    operator: PlugAndPlayMap
    warm_up: tuple[PlugAndPlayMap, ...]
    start: Tensor

    @property
    def references(self) -> int:
        """How many references a conditioned denoiser takes, the frozen one included; 0 for others."""
        denoisers = [step.denoiser for step in (*self.warm_up, self.operator)]
        return len({id(d) for d in denoisers if isinstance(d, SelfReferenced)})

    def run(self, callback: Callable[[Record, Tensor], None] | None = None) -> Solution:
        """Iterate to the fixed point; the run-time checks are on from the freeze.

        Every run takes its references anew; afterwards `operator` is the frozen map of the last one.
        """
        s = self.settings
        denoisers = [step.denoiser for step in (*self.warm_up, self.operator)]
        forget(*denoisers)

        def note(record: Record, x: Tensor) -> None:
            current, following = (
                denoisers[min(k, len(denoisers) - 1)] for k in (record.iteration - 1, record.iteration)
            )
            if following is not current:
                forget(current)  # the maps of a reference are large
            if callback:
                callback(record, x)

        return fixed_point(
            self.operator,
            self.start,
            tol=s.tol,
            max_iter=s.max_iter,
            warm_up=self.warm_up,
            checks=RunningChecks.of(self.guarantee, s.box),
            callback=note,
        )


@torch.no_grad()
def plan_deblurring(
    y: Tensor,
    blur: Blur,
    denoiser: nn.Module,
    certificate: Certificate,
    settings: Settings,
) -> Plan:
    """Prepare the restoration of y = Kx + noise.

    Parameters
    ----------
    y : measurement (B, C, H, W), values nominally in [0, 1].
    blur : K for images of that size.
    denoiser, certificate : N and what is proven about it.
    settings : see `Settings.for_noise`.

    Returns
    -------
    Plan
        Conditions that fail are in its guarantee, not raised; see `Guarantee.require`.
    """
    s = settings
    base = LeastSquares(blur, y, s.ridge)
    fidelity: Fidelity
    if s.data_term == "envelope":
        fidelity, step = MoreauEnvelope(base, s.envelope), s.envelope
    else:
        fidelity, step = base, LEAST_SQUARES_STEP / base.lipschitz
    step = step if s.step is None else s.step
    count = min(s.continuation, s.max_iter // 2) if 0 < s.strength < WARM_SIGMA else 0
    denoisers = _denoisers(denoiser, count, s.refresh)
    warm_up: list[PlugAndPlayMap] = []
    for sigma, warmer in zip(np.geomspace(WARM_SIGMA, s.strength or 1, count, endpoint=False), denoisers, strict=False):
        term, warm_step = fidelity, step
        if s.data_term == "envelope":  # h goes with the strength, so that their ratio stays
            h = s.envelope * float(sigma) / s.strength
            term, warm_step = MoreauEnvelope(base, h), h
        warm_up.append(PlugAndPlayMap(term, warmer, float(sigma), warm_step, s.box))
    operator = PlugAndPlayMap(fidelity, denoisers[-1], s.strength, step, s.box)
    guarantee = plug_and_play_guarantee(fidelity, step, certificate, s.box)
    start = blur.boundary.extend(y)
    return Plan(s, guarantee, operator, tuple(warm_up), start.clamp(0, 1) if s.box else start)


def forget(*denoisers: nn.Module) -> None:
    """Drop the references of denoisers that take one; they take a new one when they are called next."""
    for denoiser in denoisers:
        if isinstance(denoiser, SelfReferenced):
            denoiser.operator = None


def _takes_reference(denoiser: nn.Module | None) -> TypeGuard[Denoiser]:
    return isinstance(denoiser, Denoiser) and denoiser.takes_reference


def _denoisers(denoiser: nn.Module, warm: int, refresh: int) -> list[nn.Module]:
    """The denoiser of each warm iteration and, last, of the frozen map.

    Each reference of a conditioned network is the image that its denoiser is first called with.
    """
    if not refresh or not _takes_reference(denoiser):
        return [denoiser] * (warm + 1)
    frozen = SelfReferenced(denoiser)
    renewed = [SelfReferenced(denoiser) for _ in range(min(refresh - 1, warm))]
    during: list[nn.Module] = [renewed[i * len(renewed) // warm] if renewed else denoiser for i in range(warm)]
    return [*during, frozen]
