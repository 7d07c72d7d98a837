"""Plug-and-Play restoration: T = P ∘ N ∘ (id − step·∇f), its settings, and the iteration of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from .certificate import Certificate
from .conditions import Guarantee, RunningChecks, plug_and_play_guarantee
from .errors import UsageError
from .fidelity import Fidelity, LeastSquares, MoreauEnvelope
from .operators import Blur
from .solvers import Map, Record, Solution, fixed_point

DataTerm = Literal["envelope", "least-squares"]

WARM_SIGMA = 49 / 255
"""Noise level given to the denoiser at the start of the continuation."""


@dataclass(frozen=True)
class Settings:
    """Choices of a Plug-and-Play run; None means: by rule from the noise level (`resolve`).

    Noise levels are on the [0, 1] scale.
    """

    data_term: DataTerm = "envelope"
    envelope: float | None = None
    """h of the Moreau envelope; larger trusts the data more."""
    step: float | None = None
    """Step of the gradient of the data term in use: h for the envelope, 1.9/L for least squares."""
    strength: float | None = None
    """Noise level given to the denoiser."""
    ridge: float = 0.0
    box: bool = True
    continuation: int = 20
    """Iterations of the warm-up, after which (h, strength) are frozen; 0 starts cold."""
    tol: float = 1e-4
    max_iter: int = 200

    def resolve(self, noise: float, lipschitz: float) -> Settings:
        """Fill in what is None.

        Parameters
        ----------
        noise : standard deviation of the measurement noise, [0, 1] scale.
        lipschitz : L of the least-squares term.

        Raises
        ------
        UsageError
            If a value makes no sense.
        """
        level = max(noise * 255, MIN_NOISE)
        envelope = self.envelope if self.envelope is not None else rule_envelope(level)
        default_step = envelope if self.data_term == "envelope" else 1.9 / lipschitz
        filled = replace(
            self,
            envelope=envelope,
            step=self.step if self.step is not None else default_step,
            strength=self.strength if self.strength is not None else rule_strength(level) / 255,
        )
        for name in ("envelope", "strength", "ridge", "tol"):
            value = getattr(filled, name)
            low_ok = value > 0 if name == "envelope" else value >= 0
            if not (low_ok and np.isfinite(value)):
                raise UsageError(f"{name} must be a {'positive' if name == 'envelope' else 'non-negative'} number, not {value}")
        if filled.max_iter < 1 or filled.continuation < 0:
            raise UsageError("the iteration limit must be at least 1 and the continuation at least 0")
        return filled


MIN_NOISE = 0.5
"""Noise levels below this (0-255 scale) are treated as this: rounding to 8 bits alone has 0.29."""


def rule_envelope(level: float) -> float:
    """h for a noise level on the 0-255 scale; fitted on BSDS500 validation images."""
    return 25.0 / level


def rule_strength(level: float) -> float:
    """Denoiser strength (0-255 scale) for a noise level on the 0-255 scale; fitted likewise."""
    return float(3.0 * (level / 2.55) ** 0.63)


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
    warm_up: tuple[Map, ...]
    start: Tensor

    def run(self, callback: Callable[[Record, Tensor], None] | None = None) -> Solution:
        """Iterate to the fixed point; the run-time checks are on from the freeze."""
        s = self.settings
        return fixed_point(
            self.operator,
            self.start,
            tol=s.tol,
            max_iter=s.max_iter,
            warm_up=self.warm_up,
            checks=RunningChecks.of(self.guarantee, s.box),
            callback=callback,
        )


@torch.no_grad()
def plan_deblurring(
    y: Tensor,
    blur: Blur,
    denoiser: nn.Module,
    certificate: Certificate,
    noise: float,
    settings: Settings | None = None,
) -> Plan:
    """Prepare the restoration of y = Kx + noise.

    Parameters
    ----------
    y : measurement (B, C, H, W), values nominally in [0, 1].
    blur : K for images of that size.
    denoiser, certificate : N and what is proven about it.
    noise : standard deviation of the noise, [0, 1] scale.
    settings : choices; by rule where None.

    Raises
    ------
    UsageError
        If a setting makes no sense. Failed conditions are in `Plan.guarantee`, not raised.
    """
    base = LeastSquares(blur, y, (settings or Settings()).ridge)
    s = (settings or Settings()).resolve(noise, base.lipschitz)
    assert s.envelope is not None and s.step is not None and s.strength is not None
    fidelity: Fidelity = MoreauEnvelope(base, s.envelope) if s.data_term == "envelope" else base
    operator = PlugAndPlayMap(fidelity, denoiser, s.strength, s.step, s.box)
    warm_up: list[Map] = []
    count = min(s.continuation, s.max_iter) if 0 < s.strength < WARM_SIGMA else 0
    for sigma in np.geomspace(WARM_SIGMA, s.strength or 1, count, endpoint=False):
        warmer, step = fidelity, s.step
        if s.data_term == "envelope":  # h goes with the strength, so that their ratio stays
            h = s.envelope * float(sigma) / s.strength
            warmer, step = MoreauEnvelope(base, h), h
        warm_up.append(PlugAndPlayMap(warmer, denoiser, float(sigma), step, s.box))
    guarantee = plug_and_play_guarantee(fidelity, s.step, certificate, s.box)
    start = blur.boundary.extend(y)
    return Plan(s, guarantee, operator, tuple(warm_up), start.clamp(0, 1) if s.box else start)
