"""Fixed-point iteration x_{k+1} = T(x_k), watched by run-time checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from .conditions import RunningChecks

Map = Callable[[Tensor], Tensor]


class Status(str, Enum):
    """How an iteration ended."""

    CONVERGED = "converged"
    ITERATION_LIMIT = "iteration limit reached"
    DIVERGED = "diverged"


@dataclass(frozen=True)
class Record:
    """One iteration: `residual` is ‖x_{k+1} − x_k‖, `relative` that over ‖x_{k+1}‖."""

    iteration: int
    residual: float
    relative: float
    warm: bool
    """Whether this was an iteration of the warm-up, to which no theorem applies."""


@dataclass(frozen=True)
class Solution:
    """Result of an iteration.

    Attributes
    ----------
    value : the last iterate, (B, C, H, W).
    status : how it ended.
    records : one per iteration, the warm-up first.
    violations : run-time checks that failed, one sentence each; empty in a healthy run.
    residual_bound : a-priori bound of the last residual, if there is one.
    error_bound : bound of ‖x − x*‖ for a contraction, else None.
    """

    value: Tensor
    status: Status
    records: tuple[Record, ...]
    violations: tuple[str, ...] = ()
    residual_bound: float | None = None
    error_bound: float | None = None

    @property
    def iterations(self) -> int:
        """Number of iterations, the warm-up included."""
        return len(self.records)

    @property
    def converged(self) -> bool:
        """Whether the tolerance was met."""
        return self.status is Status.CONVERGED


@torch.no_grad()
def fixed_point(
    operator: Map,
    start: Tensor,
    *,
    tol: float = 1e-4,
    max_iter: int = 200,
    warm_up: Sequence[Map] = (),
    checks: RunningChecks | None = None,
    callback: Callable[[Record, Tensor], None] | None = None,
) -> Solution:
    """Iterate x ← T(x) until ‖x_{k+1} − x_k‖ ≤ tol·‖x_{k+1}‖.

    Parameters
    ----------
    operator : T, on tensors (B, C, H, W).
    start : x_0.
    tol : relative tolerance, ≥ 0.
    max_iter : limit of all iterations, the warm-up included.
    warm_up : maps applied first, once each; the guarantee and the stopping rule start after them.
    checks : run-time checks of T.
    callback : called after every iteration with its record and iterate.
    """
    x, records = start, []
    status = Status.ITERATION_LIMIT
    for k in range(max_iter):
        warm = k < len(warm_up)
        new = (warm_up[k] if warm else operator)(x)
        difference = new - x
        x = new
        residual, size = float(difference.norm()), float(x.norm())
        record = Record(k + 1, residual, residual / size if size else residual, warm)
        records.append(record)
        if callback:
            callback(record, x)
        if not residual < float("inf"):
            status = Status.DIVERGED
            break
        if warm:
            continue
        if checks:
            checks.observe(difference, x, k + 1)
        if record.relative <= tol:
            status = Status.CONVERGED
            break
    bound = checks.a_priori_bound(x.numel()) if checks else None
    error = checks.error_bound(records[-1].residual, x) if checks and not records[-1].warm else None
    return Solution(x, status, tuple(records), tuple(checks.violations) if checks else (), bound, error)
