"""Which convergence theorem applies, what must hold before a run, and what can be checked while it runs.

For T = P ∘ N ∘ (id − step·∇f), f convex and L-smooth, μ-strongly convex (μ ≥ 0):

* 0 < step < 2/L makes the gradient step (step·L/2)-averaged (Baillon–Haddad). If N is averaged, T is, with
  the constant of `certificate.compose`; P is ½-averaged.
* With P the projection onto the box, T maps a compact convex set into itself, so a fixed point exists
  (Brouwer) and the iterates converge to one (Krasnosel'skii–Mann).
* If μ > 0, T contracts with q = max(|1 − step·μ|, |1 − step·L|): the fixed point is unique and the rate linear.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .certificate import Certificate, compose
from .errors import ConditionError
from .fidelity import Fidelity

Theorem = Literal["contraction", "averaged-box", "averaged", "none"]

SIGNIFICANT = 1e-6
"""A step·μ below this is rounding error of the transfer function, not strong convexity."""

STATEMENTS: dict[Theorem, str] = {
    "contraction": (
        "strongly convex data term, nonexpansive denoiser: the iteration contracts, the fixed point is "
        "unique and the rate is linear (Banach)"
    ),
    "averaged-box": (
        "averaged denoiser, box projection: a fixed point exists (Brouwer) and the iterates converge to "
        "one (Krasnosel'skii-Mann)"
    ),
    "averaged": ("averaged denoiser, no box: the iterates converge if a fixed point exists (Krasnosel'skii-Mann)"),
    "none": "no convergence theorem applies",
}


@dataclass(frozen=True)
class Guarantee:
    """What is known before the first iteration.

    Attributes
    ----------
    theorem : which theorem applies.
    lipschitz, strong_convexity : L and μ of the data term in use.
    step : the step; admissible in the open interval (0, `step_limit`).
    alpha : averaged constant of T; 1.0 if T is not known to be averaged.
    contraction : q < 1 if the theorem is the contraction, else None.
    failures : the conditions that do not hold, one sentence each.
    """

    theorem: Theorem
    lipschitz: float
    strong_convexity: float
    step: float
    step_limit: float
    alpha: float
    contraction: float | None
    failures: tuple[str, ...] = ()

    @property
    def statement(self) -> str:
        """The theorem in words."""
        return STATEMENTS[self.theorem]

    def require(self) -> None:
        """Raise `ConditionError` with the first failed condition, if there is one."""
        if self.failures:
            raise ConditionError(self.failures[0])


def step_limit(lipschitz: float) -> float:
    """2/L, the open upper end of the admissible interval of a gradient step."""
    return 2 / lipschitz if lipschitz > 0 else math.inf


def step_failure(step: float, lipschitz: float) -> str | None:
    """Why `step` is not in (0, 2/L), or None if it is."""
    limit = step_limit(lipschitz)
    if 0 < step < limit:
        return None
    return f"the step {step:.6g} is not in the admissible interval (0, {limit:.6g}) = (0, 2/L); choose --step inside it"


def plug_and_play_guarantee(fidelity: Fidelity, step: float, certificate: Certificate, box: bool) -> Guarantee:
    """Decide which theorem holds for P ∘ N ∘ (id − step·∇f); failures are listed, not raised."""
    limit, mu = step_limit(fidelity.lipschitz), fidelity.strong_convexity
    failures = []
    failure = step_failure(step, fidelity.lipschitz)
    if failure:
        failures.append(failure)
    if not certificate.averaged:
        failures.append(
            f"the denoiser is not certified averaged ({certificate.reason}); use certified weights such as 'huber'"
        )
    alpha, contraction = 1.0, None
    theorem: Theorem = "none"
    if not failures:
        alpha = compose([step * fidelity.lipschitz / 2, certificate.alpha, *([0.5] if box else [])])
        theorem = "averaged-box" if box else "averaged"
        if step * mu > SIGNIFICANT:
            theorem = "contraction"
            contraction = max(abs(1 - step * mu), abs(1 - step * fidelity.lipschitz))
    return Guarantee(theorem, fidelity.lipschitz, mu, step, limit, alpha, contraction, tuple(failures))


class RunningChecks:
    """Inequalities that the differences d_k = x_{k+1} − x_k of a guaranteed iteration satisfy.

    With κ = (1 − α)/α of T:  ‖d_{k+1}‖² + κ‖d_k − d_{k+1}‖² ≤ ‖d_k‖², and with a contraction factor q
    ‖d_{k+1}‖ ≤ q‖d_k‖. They hold beyond rounding unless the certificate is false or the code wrong.

    Parameters
    ----------
    alpha : averaged constant of T, below 1.
    contraction : q, or None.
    box : whether the iterates stay in [0, 1], which gives the a-priori bound.
    """

    ROUNDING = 32.0
    """Allowed error of one evaluation of T, in units of machine epsilon times ‖x‖."""

    def __init__(self, alpha: float, contraction: float | None = None, box: bool = True) -> None:
        alpha = max(alpha, 1e-6)  # an averaged map is averaged with every larger constant, too
        self.kappa = (1 - alpha) / alpha
        self.contraction = contraction
        self.box = box
        self.count = 0
        self.violations: list[str] = []
        self._previous: Tensor | None = None

    @classmethod
    def of(cls, guarantee: Guarantee, box: bool) -> RunningChecks | None:
        """The checks that go with a guarantee; None if nothing is guaranteed."""
        if guarantee.theorem == "none":
            return None
        return cls(guarantee.alpha, guarantee.contraction, box)

    def observe(self, difference: Tensor, x: Tensor, iteration: int) -> None:
        """Check d_k of one iteration against the one before; `x` gives the scale of rounding."""
        previous, self._previous = self._previous, difference
        self.count += 1
        if previous is None:
            return
        rounding = self.rounding(x)
        slack = rounding * max(1.0, math.sqrt(self.kappa))
        old, new = float(previous.norm()), float(difference.norm())
        turn = float((previous - difference).norm())
        bent = math.sqrt(new**2 + self.kappa * turn**2)
        if not bent <= old + slack:
            self.violations.append(
                f"iteration {iteration}: the residual violates the inequality of averaged maps "
                f"({bent:.4g} > {old:.4g}); the certificate or the code is wrong"
            )
        elif self.contraction is not None and not new <= self.contraction * old + rounding:
            self.violations.append(
                f"iteration {iteration}: the residual shrank by {new / old:.6f} only, "
                f"not by q = {self.contraction:.6f}; the certificate or the code is wrong"
            )

    @classmethod
    def rounding(cls, x: Tensor) -> float:
        """Error that floating-point arithmetic may make in one evaluation of T near x."""
        return cls.ROUNDING * torch.finfo(x.dtype).eps * float(x.norm())

    def error_bound(self, difference: float, x: Tensor) -> float | None:
        """Bound of ‖x − x*‖ from the last ‖d_k‖ for a contraction: (q‖d_k‖ + rounding)/(1 − q).

        None if there is none, or if it says less than the box does.
        """
        if self.contraction is None:
            return None
        bound = (self.contraction * difference + self.rounding(x)) / (1 - self.contraction)
        return bound if not self.box or bound < math.sqrt(x.numel()) else None

    def a_priori_bound(self, entries: int) -> float | None:
        """Bound of ‖d_k‖ after the iterations seen: √(entries/(κ·count)), if the iterates stay in the box."""
        if not self.box or not self.count:
            return None
        return math.sqrt(entries / (self.kappa * self.count))
