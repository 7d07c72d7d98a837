"""How the next iterate is made from x and T x; the theorems that hold for each."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Accelerator(Protocol):
    """Chooses the next iterate; made anew for every run."""

    statement: str
    """Why the iteration still converges, in a sentence; empty for the plain one."""
    deviation: float
    """‖x_{k+1} − T x_k‖ of the last step; these have a finite sum."""

    def next(self, x: Tensor, image: Tensor) -> Tensor:
        """The iterate after x, where `image` = T x; both (B, C, H, W)."""

    def reset(self) -> None:
        """Forget earlier steps: the last iterate was taken back, since it raised the residual."""


class Plain:
    """x ← T x, the Krasnosel'skii–Mann iteration of an averaged map."""

    statement = ""
    deviation = 0.0

    def next(self, x: Tensor, image: Tensor) -> Tensor:
        """T x."""
        return image

    def reset(self) -> None:
        """Nothing to forget."""


class Anderson:
    """Anderson acceleration: T x plus the extrapolation that would cancel the residuals of the last steps.

    The extrapolation (Walker & Ni 2011) is a deviation e_k from the plain iteration, cut to ‖e_k‖ ≤ c·s·k^(−1.1). These
    have a finite sum, so the iteration converges wherever the plain one does (Combettes 2004). Here k = 1, 2, … counts
    the steps of this accelerator, which is first used after the warm-up, and s is the norm of the x of its first step,
    or of the first later one where that is 0.

    Parameters
    ----------
    memory : how many earlier steps it combines, ≥ 1.
    radius : c, ≥ 0.
    """

    statement = "Anderson acceleration, its deviations cut to a summable sequence (Combettes 2004)"

    def __init__(self, memory: int = 3, radius: float = 0.1) -> None:
        self.memory, self.radius = memory, radius
        self._images: list[Tensor] = []
        self._residuals: list[Tensor] = []
        self.deviation = 0.0
        self._scale = 0.0
        self._k = 0

    def reset(self) -> None:
        """Start the combination of steps anew; the limit of the deviations goes on falling."""
        self._images, self._residuals = [], []
        self.deviation = 0.0

    def next(self, x: Tensor, image: Tensor) -> Tensor:
        """T x plus the cut extrapolation; T x itself at the first step, after a reset, and if that is not finite."""
        self._k += 1
        self._scale = self._scale or float(x.norm())
        self._images = [*self._images, image][-self.memory - 1 :]
        self._residuals = [*self._residuals, image - x][-self.memory - 1 :]
        self.deviation = 0.0
        if len(self._images) == 1:
            return image
        newest = self._residuals[-1]
        differences = torch.stack([(newest - r).flatten() for r in self._residuals[:-1]])
        gram = (differences @ differences.T).double()
        right = (differences @ newest.flatten()).double()
        ridge = 1e-8 * float(gram.diagonal().mean()) + torch.finfo(torch.float64).tiny
        weights = torch.linalg.solve(gram + ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device), right)
        jump = torch.zeros_like(image)
        for weight, earlier in zip(weights.tolist(), self._images[:-1], strict=True):
            jump += weight * (earlier - image)
        limit, size = self.radius * self._scale * self._k**-1.1, float(jump.norm())
        if not 0 < size < float("inf"):
            return image
        self.deviation = min(size, limit)
        return image + jump * (self.deviation / size)


ACCELERATORS: dict[str, type[Accelerator]] = {"none": Plain, "anderson": Anderson}
