"""Fixed-point iteration x_{k+1} = T(x_k), watched by run-time checks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from .accelerators import Accelerator, Plain
from .conditions import RunningChecks

PART = 2**24
"""Entries of the parts in which `distance` works."""

Map = Callable[[Tensor], Tensor]
"""A map on images (B, C, H, W). Its attribute `error`, if it has one, bounds the error of its last evaluation."""


class Status(str, Enum):
    """How an iteration ended."""

    CONVERGED = "converged"
    ITERATION_LIMIT = "iteration limit reached"
    DIVERGED = "diverged"


@dataclass(frozen=True)
class Record:
    """One evaluation of T: `residual` is ‖T x − x‖, `relative` that over ‖T x‖."""

    iteration: int
    residual: float
    relative: float
    warm: bool
    """Whether this was an iteration of the warm-up, to which no theorem applies."""
    error: float = 0.0
    """Bound of the error of the evaluation."""


@dataclass(frozen=True)
class Solution:
    """Result of an iteration.

    Attributes
    ----------
    value : the last T x that was not taken back, (B, C, H, W).
    status : how it ended.
    records : one per iteration, the warm-up first; iterates that were taken back leave a gap in the numbers.
    iterations : how many there were, the warm-up and those taken back included.
    checked : how many steps the run-time checks looked at.
    allowance : by how much the last step was allowed to miss an inequality, for rounding and inexact evaluation.
    violations : run-time checks that failed, one sentence each; empty in a healthy run.
    residual_bound : a-priori bound of the last residual, if there is one.
    error_bound : bound of ‖x − x*‖ for a contraction, else None.
    inexactness : sum of the errors of the evaluations after the warm-up.
    """

    value: Tensor
    status: Status
    records: tuple[Record, ...]
    iterations: int
    checked: int = 0
    allowance: float = 0.0
    violations: tuple[str, ...] = ()
    residual_bound: float | None = None
    error_bound: float | None = None
    inexactness: float = 0.0

    @property
    def converged(self) -> bool:
        """Whether the tolerance was met."""
        return self.status is Status.CONVERGED


def distance(a: Tensor, b: Tensor) -> float:
    """‖a − b‖ of images (B, C, H, W), some rows at a time: beside large ones that are denoised is no room for more."""
    rows = max(1, PART * a.shape[2] // max(1, a.numel()))
    return math.hypot(
        *(float((u - v).norm()) for u, v in zip(torch.split(a, rows, 2), torch.split(b, rows, 2), strict=True))
    )


@torch.no_grad()
def fixed_point(
    operator: Map,
    start: Tensor,
    *,
    tol: float = 1e-4,
    max_iter: int = 200,
    warm_up: Iterable[Map] = (),
    accelerator: Accelerator | None = None,
    checks: RunningChecks | None = None,
    callback: Callable[[Record, Tensor], None] | None = None,
) -> Solution:
    """Iterate x ← T(x) until ‖T x − x‖ ≤ tol·‖T x‖, whatever the error of the evaluation.

    An iterate of the accelerator that raises the residual is taken back and replaced by the plain one, so the
    residuals after the warm-up never rise beyond the errors of evaluation.

    Parameters
    ----------
    operator : T, on tensors (B, C, H, W).
    start : x_0.
    tol : relative tolerance, ≥ 0.
    max_iter : limit of all iterations, the warm-up included.
    warm_up : maps applied first, once each, in turn; the guarantee and the stopping rule start after them.
    accelerator : makes the next iterate from x and T x after the warm-up; the plain iteration by default.
    checks : run-time checks of T.
    callback : called with its record and T x after every iteration that is not taken back.
    """
    x, image = start, start
    records: list[Record] = []
    status = Status.ITERATION_LIMIT
    warm_maps = iter(warm_up)
    accelerator = accelerator or Plain()
    errors = deviations = 0.0
    for k in range(max_iter):
        warm_map = next(warm_maps, None)
        warm = warm_map is not None
        before, image = image, (warm_map or operator)(x)
        residual, size = distance(image, x), float(image.norm())
        error = 0.0 if warm else getattr(operator, "error", 0.0)
        record = Record(k + 1, residual, residual / size if size else residual, warm, error)
        if not warm:
            errors += error
            if checks:
                checks.observe(x, image, k + 1, error)
            if accelerator.deviation and residual > records[-1].residual:
                x = image = before  # the deviation did not pay
                accelerator.reset()
                continue
        records.append(record)
        if callback:
            callback(record, image)
        if not residual < float("inf"):
            status = Status.DIVERGED
            break
        if not warm and residual + error <= tol * (size or 1):
            status = Status.CONVERGED
            break
        x = image if warm else accelerator.next(x, image)
        deviations += accelerator.deviation
    bound = error_bound = None
    if checks and not records[-1].warm:
        error_bound = checks.error_bound(records[-1].residual, image, records[-1].error)
        bound = checks.a_priori_bound(image.numel(), sum(not r.warm for r in records), errors, deviations)
    return Solution(
        image,
        status,
        tuple(records),
        k + 1,
        checks.count if checks else 0,
        checks.allowance if checks else 0.0,
        tuple(checks.violations) if checks else (),
        bound,
        error_bound,
        errors,
    )
