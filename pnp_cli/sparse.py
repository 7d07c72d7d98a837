"""Sparse restoration min_x ½‖Kx − y‖² + γ‖Ψx‖₁ by ISTA or FISTA, stopped by the duality gap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .conditions import step_limit
from .fidelity import LeastSquares
from .noise import MIN_NOISE
from .solvers import Status
from .transforms import Transform


def soft_threshold(t: Tensor, threshold: float) -> Tensor:
    """S_λ(t) = sign(t)·max(|t| − λ, 0), the proximal map of λ‖·‖₁."""
    return torch.nn.functional.softshrink(t, threshold)


def rule_gamma(noise: float) -> float:
    """γ for a noise level ([0, 1] scale); fitted on blurred images of the BSDS500 validation set."""
    return max(noise, MIN_NOISE) ** 2 / 0.08


@dataclass(frozen=True)
class SparseRecord:
    """State after some iterations: objective F(x), duality gap ≥ F(x) − min F, and gap/F(x)."""

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
    """F(x) = ½‖Kx − y‖² + γ‖Ψx‖₁ with Ψ orthonormal."""

    def __init__(self, fidelity: LeastSquares, transform: Transform, gamma: float) -> None:
        self.fidelity, self.transform, self.gamma = fidelity, transform, gamma

    def measure(self, x: Tensor) -> tuple[float, float]:
        """Objective and duality gap at x; give float64 images, single precision hides small gaps.

        With the misfit r = Kx − y scaled to the dual-feasible u = s·r, s = min(1, γ/‖ΨKᵀr‖_∞), the gap
        ½‖r‖² + γ‖Ψx‖₁ + ½‖u‖² + ⟨u, y⟩ bounds F(x) − min F from above.
        """
        f, k = self.fidelity, self.fidelity.operator
        r = k.forward(x) - f.y
        correlation = float(self.transform.forward(k.adjoint(r)).abs().max())
        s = min(1.0, self.gamma / correlation) if correlation > 0 else 1.0
        rr = float(r.square().sum())
        objective = rr / 2 + self.gamma * float(self.transform.forward(x).abs().sum())
        gap = objective + s * s * rr / 2 + s * float((r * f.y).sum())
        return objective, max(gap, 0.0)


def sparse_limit(lipschitz: float, accelerated: bool) -> float:
    """End of the admissible interval of α: 2/L for ISTA, 1/L for FISTA."""
    return step_limit(lipschitz) / (2 if accelerated else 1)


def sparse_step_failure(step: float, lipschitz: float, accelerated: bool) -> str | None:
    """Why α is not admissible, or None: (0, 2/L) for ISTA (Combettes & Wajs 2005), (0, 1/L] for FISTA
    (Beck & Teboulle 2009)."""
    limit = sparse_limit(lipschitz, accelerated)
    if 0 < step < limit or (accelerated and step == limit):
        return None
    interval = f"(0, {limit:.6g}] = (0, 1/L]" if accelerated else f"(0, {limit:.6g}) = (0, 2/L)"
    return f"the step {step:.6g} is not in the admissible interval {interval}; choose --step inside it"


@torch.no_grad()
def ista(
    problem: SparseProblem,
    start: Tensor,
    *,
    step: float | None = None,
    accelerated: bool = False,
    tol: float = 1e-3,
    max_iter: int = 2000,
    check_every: int = 10,
    callback: Callable[[SparseRecord, Tensor], None] | None = None,
) -> SparseSolution:
    """x ← Ψᵀ S_{αγ}(Ψ(x − α∇f(x))), with FISTA's momentum if `accelerated`.

    Parameters
    ----------
    problem : what to minimise.
    start : x_0 (B, C, H, W).
    step : α; 1/L by default. See `sparse_step_failure`, which is not called here.
    tol : stop when gap ≤ tol·F(x), measured every `check_every` iterations.
    max_iter : iteration limit.
    callback : called with every record and iterate.
    """
    f = problem.fidelity
    alpha = step if step is not None else 1 / f.lipschitz
    x, z, t = start, start, 1.0
    records: list[SparseRecord] = []
    status = Status.ITERATION_LIMIT
    for k in range(1, max_iter + 1):
        coefficients = problem.transform.forward(f.descend(z, alpha))
        new = problem.transform.adjoint(soft_threshold(coefficients, alpha * problem.gamma))
        if accelerated:
            t_new = (1 + (1 + 4 * t * t) ** 0.5) / 2
            z = new + (t - 1) / t_new * (new - x)
            t = t_new
        else:
            z = new
        x = new
        if k % check_every and k != max_iter:
            continue
        objective, gap = problem.measure(x)
        record = SparseRecord(k, objective, gap, gap / objective if objective > 0 else 0.0)
        records.append(record)
        if callback:
            callback(record, x)
        if not objective < float("inf"):
            status = Status.DIVERGED
            break
        if record.relative_gap <= tol:
            status = Status.CONVERGED
            break
    return SparseSolution(x, status, tuple(records))
