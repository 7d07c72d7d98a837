"""Sparse restoration min_x ½‖Kx − y‖² + h(x) by ISTA or FISTA, stopped by the duality gap.

For one orthonormal Ψ, h(x) = γ‖Ψx‖₁. For several, Ψ_1 … Ψ_S, it is the proximal average of the γ‖Ψ_s x‖₁,

    h(x) = min { mean_s γ‖Ψ_s x_s‖₁ + ‖x_s − x‖²/(2α) : mean_s x_s = x },

whose proximal map of step α is the mean of theirs, x = mean_s Ψ_sᵀ S_{αγ}(Ψ_s v) (Bauschke, Goebel, Lucet & Wang
2008; Yu 2013). With the shifts of one transform this map is the cycle spinning of Coifman & Donoho (1995).

In the coefficients c of the Parseval frame Ψ = [Ψ_1; …; Ψ_S]/√S, x = Ψᵀc, the problem is

    min_c ½‖KΨᵀc − y‖² + ‖(I − ΨΨᵀ)c‖²/(2α) + (γ/√S)‖c‖₁,

the balanced approach of Shen, Toh & Yun (2011): the second term ties c to the coefficients of an image. Without it
this is the synthesis problem. For S = 1 it vanishes. It is a least-squares term plus an ℓ1 norm all the same, so the
duality gap has its usual form.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from .conditions import step_failure, step_limit
from .errors import UsageError
from .fidelity import LeastSquares
from .noise import MIN_NOISE
from .solvers import Status
from .transforms import Transform


def soft_threshold(t: Tensor, threshold: float) -> Tensor:
    """S_λ(t) = sign(t)·max(|t| − λ, 0), the proximal map of λ‖·‖₁."""
    return torch.nn.functional.softshrink(t, threshold)


@dataclass(frozen=True)
class SparseRecord:
    """State after some iterations: F(x), duality gap ≥ F(x) − min F, and gap/F(x)."""

    iteration: int
    objective: float
    gap: float
    relative_gap: float


@dataclass(frozen=True)
class SparseSolution:
    """Result: `value` (B, C, H, W), how it ended, and the records."""

    value: Tensor
    status: Status
    records: tuple[SparseRecord, ...]

    @property
    def converged(self) -> bool:
        """Whether the gap met the tolerance."""
        return self.status is Status.CONVERGED


class SparseProblem:
    """F(x) = ½‖Kx − y‖² + h(x).

    Parameters
    ----------
    fidelity : ½‖Kx − y‖², without ridge, clip level or precision, in double precision: single hides small gaps.
    transforms : Ψ, or Ψ_1 … Ψ_S, such as `transforms.cycle` makes.
    gamma : γ > 0.
    step : α > 0; 1/L by default. See `sparse_step_failure`, which is not called here. It is the step of the
        solvers, and for S > 1 h depends on it.

    Raises
    ------
    UsageError
        If the data term has a ridge, a clip level or a precision, which this problem has no place for.
    """

    def __init__(
        self,
        fidelity: LeastSquares,
        transforms: Transform | Sequence[Transform],
        gamma: float,
        step: float | None = None,
    ) -> None:
        if fidelity.ridge or fidelity.clipped is not None or fidelity.precision is not None:
            raise UsageError(
                "sparse restoration takes least squares as they are, without a ridge, clipped samples or a precision"
            )
        self.fidelity, self.gamma = fidelity, gamma
        self.transforms = tuple(transforms) if isinstance(transforms, Sequence) else (transforms,)
        self.step = step if step is not None else 1 / fidelity.lipschitz

    def prox(self, v: Tensor) -> tuple[Tensor, float]:
        """x = prox_{αh}(v) = mean_s Ψ_sᵀ S_{αγ}(Ψ_s v), and h(x)."""
        x, norm, square = torch.zeros_like(v), 0.0, 0.0
        for transform in self.transforms:
            c = soft_threshold(transform.forward(v), self.step * self.gamma)
            x += transform.adjoint(c)
            norm += float(c.abs().sum())
            square += float(c.square().sum())
        count = len(self.transforms)
        x /= count
        return x, self.gamma * norm / count + self._spread(square / count, x) / (2 * self.step)

    def lower_bound(self, v: Tensor, x: Tensor, misfit: Tensor) -> float:
        """A number ≤ min F, the closer the nearer x = prox_{αh}(v) is to a minimiser; misfit = Kx − y.

        The value of the dual problem at the residual of the coefficients of x, scaled to be feasible in the best way.
        Its correlation with the atoms of Ψ_s is Ψ_s(Kᵀ(Kx − y) − x/α) + c_s/α, c_s = S_{αγ}(Ψ_s v), which is
        at most γ at a minimiser.
        """
        pull = self.fidelity.operator.adjoint(misfit) - x / self.step
        correlation, square = 0.0, 0.0
        for transform in self.transforms:
            c = soft_threshold(transform.forward(v), self.step * self.gamma)
            square += float(c.square().sum())
            correlation = max(correlation, float((transform.forward(pull) + c / self.step).abs().max()))
        norm = float(misfit.square().sum()) + self._spread(square / len(self.transforms), x) / self.step
        product = float((misfit * self.fidelity.y).sum())
        limit = self.gamma / correlation if correlation > 0 else math.inf
        scale = max(-limit, min(limit, -product / norm)) if norm > 0 else 0.0
        return -(scale**2) * norm / 2 - scale * product

    def _spread(self, mean_square: float, x: Tensor) -> float:
        """mean_s ‖x_s − x‖² from mean_s ‖x_s‖² = mean_s ‖c_s‖²."""
        return max(mean_square - float(x.square().sum()), 0.0) if len(self.transforms) > 1 else 0.0


def sparse_limit(lipschitz: float, accelerated: bool) -> float:
    """End of the admissible interval of α: 2/L for ISTA, 1/L for FISTA."""
    return step_limit(lipschitz, 1 if accelerated else 2)


def sparse_step_failure(step: float, lipschitz: float, accelerated: bool) -> str | None:
    """Why α is not admissible, or None: (0, 2/L) for ISTA (Combettes & Wajs 2005), (0, 1/L] for FISTA
    (Beck & Teboulle 2009)."""
    return step_failure(step, lipschitz, 1, closed=True) if accelerated else step_failure(step, lipschitz)


@torch.no_grad()
def ista(
    problem: SparseProblem,
    start: Tensor,
    *,
    accelerated: bool = True,
    tol: float = 0.1,
    max_iter: int = 2000,
    check_every: int = 10,
    callback: Callable[[SparseRecord, Tensor], None] | None = None,
) -> SparseSolution:
    """x ← prox_{αh}(z − α∇f(z)) with z = x, or, `accelerated`, z = x + β(x − x_previous) with the β of FISTA.

    Momentum is restarted by both schemes of O'Donoghue & Candès (2015): a step that it leads to a larger F, or that
    goes against it, is dropped and made again without. So F(x) never increases, and tends to its minimum: after
    the last restart by the theorem of FISTA, or, if there are infinitely many, because their steps
    without momentum decrease F by ‖x_new − x‖²/(2α) at least.

    Parameters
    ----------
    problem : what to minimise, and the step.
    start : x_0 (B, C, H, W).
    tol : stop when gap ≤ tol·F(x), measured every `check_every` iterations with the best lower bound so far.
    max_iter : iteration limit.
    callback : called with every record and iterate.
    """
    k, y, alpha = problem.fidelity.operator, problem.fidelity.y, problem.step
    x = x_old = start
    misfit = misfit_old = k.forward(x) - y
    source, objective, bound = x, math.inf, -math.inf  # source: x = prox(source)
    t, beta = 1.0, 0.0
    records: list[SparseRecord] = []
    status = Status.ITERATION_LIMIT
    for iteration in range(1, max_iter + 1):
        z = x + beta * (x - x_old)
        v = z - alpha * k.adjoint(misfit + beta * (misfit - misfit_old))
        new, penalty = problem.prox(v)
        misfit_new = k.forward(new) - y
        objective_new = float(misfit_new.square().sum()) / 2 + penalty
        if beta and (objective_new > objective or float(((z - new) * (new - x)).sum()) > 0):
            t, beta = 1.0, 0.0
        else:
            x_old, misfit_old = x, misfit
            x, misfit, source, objective = new, misfit_new, v, objective_new
            if accelerated:
                t_old, t = t, (1 + math.sqrt(1 + 4 * t * t)) / 2
                beta = (t_old - 1) / t
        if iteration % check_every and iteration != max_iter:
            continue
        bound = max(bound, problem.lower_bound(source, x, misfit))
        gap = max(objective - bound, 0.0)
        record = SparseRecord(iteration, objective, gap, gap / objective if objective > 0 else 0.0)
        records.append(record)
        if callback:
            callback(record, x)
        if not objective < math.inf:
            status = Status.DIVERGED
            break
        if record.relative_gap <= tol:
            status = Status.CONVERGED
            break
    return SparseSolution(x, status, tuple(records))


def rule_gamma(noise: float, gain: float = 1.0) -> float:
    """γ for a noise level ([0, 1] scale) in the blocks of a DCT or wavelets, in opponent colours and with a step of 1.

    Of an image that is `gain` times darker than it could be, see `exposure.find_gain`, so that it is sparse as others.

    Fitted on blurred images of the BSDS500 validation set, where it comes closer to the best γ of each image than the
    discrepancy principle, which does not suit images that are sparse only approximately.
    """
    return 5e-4 * (255 * max(gain * noise, MIN_NOISE)) ** 1.4 / gain


@torch.no_grad()
def discrepancy_gamma(
    fidelity: LeastSquares,
    transforms: Transform | Sequence[Transform],
    noise: float,
    step: float | None = None,
    *,
    accelerated: bool = True,
    max_iter: int = 300,
    gain: float = 1.0,
) -> tuple[float, Tensor]:
    """γ whose minimiser x_γ has ‖Kx_γ − y‖ = √n·noise to 1 %: Morozov's discrepancy principle.

    For one Ψ, ‖Kx_γ − y‖ does not fall and ‖Kx_γ − y‖/γ does not rise with γ. So γ is divided by 4 from the least γ
    for which x_γ = 0 until the misfit is too small, and then found in the last interval by Brent's method in log γ.
    Every problem starts from the solution of the one before and is solved to a relative gap of 1 %.

    Parameters
    ----------
    fidelity, transforms, step : see `SparseProblem`.
    accelerated : see `ista`.
    noise : standard deviation of the noise, [0, 1] scale.
    max_iter : iteration limit of every problem.
    gain : see `rule_gamma`; the darker an image, the less noise is taken for `MIN_NOISE`.

    Returns
    -------
    gamma : γ, or the end of the search that comes closest: where y is no more than noise the least γ for which
        x_γ = 0; where no γ explains y so well, as with a wrong kernel or noise level, a millionth of that.
    start : about x_γ, to start from.
    """
    from scipy.optimize import brentq

    back = fidelity.operator.adjoint(fidelity.y)
    target = fidelity.y.numel() ** 0.5 * max(noise, MIN_NOISE / gain)
    x = torch.zeros_like(back)

    @cache
    def excess(log_gamma: float) -> float:
        nonlocal x
        problem = SparseProblem(fidelity, transforms, math.exp(log_gamma), step)
        x = ista(problem, x, accelerated=accelerated, tol=0.01, max_iter=max_iter).value
        misfit = float((fidelity.operator.forward(x) - fidelity.y).norm())
        return math.log(max(misfit, sys.float_info.min) / target)

    largest = max(float(t.forward(back).abs().max()) for t in SparseProblem(fidelity, transforms, 1.0).transforms)
    if not largest > 0:
        return rule_gamma(noise, gain), x
    upper = math.log(largest)
    if excess(upper) <= 0:
        return largest, x
    for _ in range(10):
        lower = upper - math.log(4)
        if excess(lower) <= 0:
            gamma = math.exp(brentq(excess, lower, upper, xtol=0.01))
            return gamma, x
        upper = lower
    return math.exp(upper), x
