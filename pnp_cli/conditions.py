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


def step_limit(lipschitz: float, over: int = 2) -> float:
    """2/L, the upper end of the admissible interval of a gradient step, or another number `over` L."""
    return over / lipschitz if lipschitz > 0 else math.inf


def step_failure(step: float, lipschitz: float, over: int = 2, closed: bool = False) -> str | None:
    """Why `step` is not in (0, 2/L), or None if it is; the same for another number `over` L and a `closed` end."""
    limit, end = step_limit(lipschitz, over), "]" if closed else ")"
    if 0 < step < limit or (closed and step == limit):
        return None
    interval = f"(0, {limit:.6g}{end} = (0, {over}/L{end}"
    return f"the step {step:.6g} is not in the admissible interval {interval}; choose one inside it (--step)"


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
        if alpha >= 1:
            message = f"the step {step:.6g} is within rounding of its limit {limit:.6g}; choose a smaller one (--step)"
            return Guarantee("none", fidelity.lipschitz, mu, step, limit, 1.0, None, (message,))
        theorem = "averaged-box" if box else "averaged"
        if step * mu > SIGNIFICANT:
            theorem = "contraction"
            contraction = max(abs(1 - step * mu), abs(1 - step * fidelity.lipschitz))
    return Guarantee(theorem, fidelity.lipschitz, mu, step, limit, alpha, contraction, tuple(failures))


class RunningChecks:
    """Inequalities that two evaluations of a guaranteed map T satisfy, at whatever points u and v.

    With κ = (1 − α)/α of T:  ‖Tu − Tv‖² + κ‖(u − Tu) − (v − Tv)‖² ≤ ‖u − v‖², and with a contraction factor q
    ‖Tu − Tv‖ ≤ q‖u − v‖. They hold beyond rounding, and beyond what inexact evaluations admit, unless the
    certificate is false or the code wrong. For the plain iteration u − v is the last step and Tu − Tv the new one.

    Parameters
    ----------
    alpha : averaged constant of T, below 1.
    contraction : q, or None.
    box : T maps into [0, box], which gives the a-priori bound; None if it does not.

    Attributes
    ----------
    count : how many steps were checked.
    allowance : by how much the last step was allowed to miss an inequality, Euclidean norm.
    violations : one sentence for every step that missed it by more.
    """

    ROUNDING = 32.0
    """Allowed rounding error of one evaluation of T, in units of machine epsilon times ‖x‖: in single precision four
    times the 1e-6·‖x‖ at which residuals stop falling."""

    def __init__(self, alpha: float, contraction: float | None = None, box: float | None = 1.0) -> None:
        alpha = max(alpha, 1e-6)  # an averaged map is averaged with every larger constant, too
        self.kappa = (1 - alpha) / alpha
        self.contraction = contraction
        self.box = box
        self.count, self.allowance = 0, 0.0
        self.violations: list[str] = []
        self._previous: tuple[Tensor, Tensor, float] | None = None

    @classmethod
    def of(cls, guarantee: Guarantee, box: float | None) -> RunningChecks | None:
        """The checks that go with a guarantee; None if nothing is guaranteed."""
        if guarantee.theorem == "none":
            return None
        return cls(guarantee.alpha, guarantee.contraction, box)

    def observe(self, x: Tensor, image: Tensor, iteration: int, error: float = 0.0) -> None:
        """Check Tx = `image`, (B, C, H, W), evaluated up to `error`, against the evaluation before."""
        previous, self._previous = self._previous, (x, image, error)
        if previous is None:
            return
        before, image_before, error_before = previous
        admitted = self.rounding(image) + error + error_before
        self.count, self.allowance = self.count + 1, admitted
        old, new = float((x - before).norm()), float((image - image_before).norm())
        turn = float(((x - before) - (image - image_before)).norm())
        bent = math.sqrt(new**2 + self.kappa * turn**2)
        # An error e of Tu changes both terms: by the triangle inequality, √(1 + κ)‖e‖ in their joint norm.
        if not bent <= old + math.sqrt(1 + self.kappa) * admitted:
            self.violations.append(
                f"iteration {iteration}: the step violates the inequality of averaged maps "
                f"({bent:.4g} > {old:.4g}); the certificate or the code is wrong"
            )
        elif self.contraction is not None and not new <= self.contraction * old + admitted:
            self.violations.append(
                f"iteration {iteration}: the step shrank by {new / old:.6f} only, "
                f"not by q = {self.contraction:.6f}; the certificate or the code is wrong"
            )

    @classmethod
    def rounding(cls, x: Tensor) -> float:
        """Error that floating-point arithmetic may make in one evaluation of T near x."""
        return cls.ROUNDING * torch.finfo(x.dtype).eps * float(x.norm())

    def error_bound(self, residual: float, x: Tensor, error: float = 0.0) -> float | None:
        """Bound of ‖x − x*‖ for a contraction, from the last evaluation Tu = `x` and its `residual` ‖Tu − u‖.

        Banach: ‖x − x*‖ ≤ (q·residual + rounding + error)/(1 − q). None if T is no contraction, or if that says less
        than the box does.
        """
        if self.contraction is None:
            return None
        bound = (self.contraction * residual + self.rounding(x) + error) / (1 - self.contraction)
        return bound if self.box is None or bound < self.box * math.sqrt(x.numel()) else None

    def a_priori_bound(self, entries: int, count: int, errors: float = 0.0, deviations: float = 0.0) -> float | None:
        """Bound of the residual after `count` iterations on so many `entries`, if x_0 and a fixed point are in the box.

        Without errors Σ κ‖d_k‖² ≤ ‖x_0 − x*‖² ≤ D² = box²·entries, and the ‖d_k‖ decrease. Steps
        x_{k+1} = T x_k + e_k with Σ‖e_k‖ = E, by inexact evaluation (sum `errors`) or by choice (sum `deviations`),
        make it (D + E)²; inexact evaluation may raise the residual by three times its sum after its smallest value.
        And no residual exceeds D + E.
        """
        if self.box is None or not count:
            return None
        reach = self.box * math.sqrt(entries) + errors + deviations
        return min(reach / math.sqrt(self.kappa * count) + 3 * errors, reach)
