"""Rigorous bounds of ‖A‖ that hold for every image size, and the averaged constant they give.

A convolution with kernel A_m has the symbol F(ω) = Σ_m A_m e^{−i m·ω}; its norm on the infinite plane
is s = sup_ω ‖F(ω)‖₂, and zero-padded, 'valid' and periodic convolutions of any size have norm ≤ s.
On an N × N frequency grid,

    s ≤ max_grid ‖F‖₂ / [cos(π(k₁ − 1)/(2N)) · cos(π(k₂ − 1)/(2N))]        (N > max kᵢ − 1)

because ‖F(ω)v‖² is a non-negative trigonometric polynomial of degree k − 1 in each coordinate, which
by Riesz' lemma stays above M cos²((k − 1)δ/2) at distance δ from its maximum M.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .conditioned import Conditioned, ConditionedNetwork, SelfReferenced
from .denoisers import EulerNetwork, OnViews
from .layers import EulerStep
from .tiling import Tiled

ROUNDING = 1 + 1e-9
"""Covers the float64 rounding of the Fourier sums and of the eigenvalue computation."""


BLOCK = 1024
"""Frequencies whose symbols are in memory at one time."""


def half_grid(grid: int) -> Tensor:
    """The frequencies 2π(i, j)/N, 0 ≤ i < N and 0 ≤ j ≤ N/2, of the grid of N = `grid` per axis: (N·(N//2 + 1), 2).

    The symbols of the others are the complex conjugates of these, since the convolution is real.
    """
    rows, columns = torch.arange(grid, dtype=torch.float64), torch.arange(grid // 2 + 1, dtype=torch.float64)
    return 2 * math.pi / grid * torch.cartesian_prod(rows, columns)


def gram_symbol(weight: Tensor, frequencies: Tensor) -> Tensor:
    """F(ω)ᴴF(ω), up to conjugation: the spectrum of the autocorrelation.

    Parameters
    ----------
    weight : Tensor, shape (C_out, C_in, k₁, k₂)
    frequencies : ω, float64 Tensor of shape (n, 2), in radians per pixel.

    Returns
    -------
    complex128 Tensor of shape (n, C, C), Hermitian, C the smaller channel count (F and Fᴴ have the same norm).
    """
    w = _narrow_input(weight)
    k1, k2 = w.shape[-2:]
    columns = w.transpose(0, 1).contiguous()
    # R[i, j](d) = Σ_o Σ_m A[o, i](m + d) A[o, j](m); its spectrum is that of AᵀA.
    autocorrelation = F.conv2d(columns, columns, padding=(k1 - 1, k2 - 1))
    lags = torch.cartesian_prod(torch.arange(1 - k1, k1), torch.arange(1 - k2, k2)).to(frequencies)
    angles = frequencies @ lags.T
    waves = torch.polar(torch.ones_like(angles), -angles)
    channels = len(columns)
    return (waves @ autocorrelation.flatten(2).flatten(0, 1).T.to(waves.dtype)).view(-1, channels, channels)


def _largest_eigenvalues(weight: Tensor, grid: int) -> Tensor:
    """‖F(ω)‖₂² on the `half_grid`."""
    blocks = torch.split(half_grid(grid), BLOCK)
    return torch.cat([torch.linalg.eigvalsh(gram_symbol(weight, block))[:, -1] for block in blocks])


def norm_upper_bound(weight: Tensor, grid: int = 64) -> float:
    """Upper bound of the norm of the convolution with `weight`, valid for every image size.

    At most 0.3 % above the norm for 3 × 3 kernels on a grid of 64 (1 % on 32), besides rounding.

    Raises
    ------
    ValueError
        If the weight is not finite or the grid is not finer than the kernel.
    """
    if not torch.isfinite(weight).all():
        raise ValueError("the convolution has entries that are not finite, so it has no norm")
    k1, k2 = weight.shape[-2:]
    if grid <= max(k1, k2) - 1:
        raise ValueError(f"a {k1}x{k2} kernel needs a grid finer than {grid}")
    largest = float(_largest_eigenvalues(weight, grid).max())
    gap = math.cos(math.pi * (k1 - 1) / (2 * grid)) * math.cos(math.pi * (k2 - 1) / (2 * grid))
    return math.sqrt(max(largest, 0.0)) / gap * ROUNDING


def norm_lower_bound(weight: Tensor, iterations: int = 3, side: int = 64) -> float:
    """Lower bound of the norm by power iteration on a periodic image of side `side`, in float64.

    It starts from the plane wave that the symbol says is amplified most, but measures by running the
    convolution itself, so it checks the symbol too. It says how tight the upper bound is and is never used
    in its place.
    """
    w = _narrow_input(weight)
    frequency = half_grid(side)[_largest_eigenvalues(weight, side).argmax()]
    vector = torch.linalg.eigh(gram_symbol(weight, frequency[None])[0]).eigenvectors[:, -1]
    n = torch.arange(side, dtype=w.dtype)
    angle = frequency[0] * n[:, None] + frequency[1] * n
    x = (vector[:, None, None] * torch.polar(torch.ones_like(angle), angle)).real[None]
    norm = 0.0
    for _ in range(iterations):
        x = x / x.norm().clamp_min(1e-300)
        y = _periodic_convolution(x, w)
        norm = max(norm, float(y.norm()))
        # The adjoint of the periodic convolution is the convolution with the flipped kernel.
        x = _periodic_convolution(y, w.transpose(0, 1).flip(2, 3))
    return norm


def _narrow_input(weight: Tensor) -> Tensor:
    """The kernel in float64, or that of the adjoint, whichever has fewer input channels; same norm."""
    w = weight.detach().double().cpu()
    return w.transpose(0, 1).flip(2, 3) if w.shape[0] < w.shape[1] else w


def _periodic_convolution(x: Tensor, weight: Tensor) -> Tensor:
    k_y, k_x = weight.shape[-2:]
    sides = (k_x // 2, (k_x - 1) // 2, k_y // 2, (k_y - 1) // 2)
    return F.conv2d(F.pad(x, sides, mode="circular"), weight)


def compose(alphas: Iterable[float]) -> float:
    """Averaged constant of a composition: α = 1/(1 + 1/Σ αᵢ/(1 − αᵢ))  (Combettes & Yamada 2015).

    An α of 0 is the identity. Returns 1.0 (nonexpansive at best) if some αᵢ ≥ 1.
    """
    alphas = list(alphas)
    if any(not 0 <= a < 1 for a in alphas):
        return 1.0
    total = sum(a / (1 - a) for a in alphas)
    return total / (1 + total)


@dataclass(frozen=True)
class LayerCertificate:
    """One Euler step: ‖A‖ ≤ `norm_upper` for every image size; averaged with `alpha` = τ‖A‖²/2."""

    name: str
    shape: tuple[int, ...]
    norm_upper: float
    step: float
    alpha: float
    norm_lower: float | None = None


@dataclass(frozen=True)
class Certificate:
    """What is proven about a network: `averaged` with constant `alpha`, or why not (`reason`)."""

    averaged: bool
    alpha: float
    reason: str
    layers: tuple[LayerCertificate, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return asdict(self)


def certify_layer(step: EulerStep, name: str, *, grid: int = 64, lower: bool = False) -> LayerCertificate:
    """Bound ‖A‖ of one Euler step and compute its averaged constant τ‖A‖²/2 (1.0 or more: not averaged)."""
    weight, tau = step.weight.detach(), float(step.step.detach())
    upper = norm_upper_bound(weight, max(grid, 4 * weight.shape[-1]))
    alpha = tau * upper**2 / 2 * ROUNDING if tau >= 0 else math.inf
    below = norm_lower_bound(weight) if lower else None
    return LayerCertificate(name, tuple(weight.shape), upper, tau, alpha, below)


def certify(network: nn.Module, *, grid: int = 64, lower: bool = False) -> Certificate:
    """Certify a denoiser network from its weights alone.

    Parameters
    ----------
    network : a network of `denoisers` or `conditioned`; an `Ensemble`, `Polyphase` or `Tiled` one is as averaged as
        the network in it. The certificate of a `ConditionedNetwork` covers the network as it is called (the plain one)
        and every operator that its `condition` returns, whatever the reference.
    grid : frequencies per axis of the norm bound; more where a kernel needs it.
    lower : also compute the power-iteration lower bounds (slower; only informative).

    Returns
    -------
    Certificate
        `averaged` is true only if the network is a composition of Euler steps between isometries and
        every step has 0 ≤ τ‖A‖²/2 < 1; `alpha` is the constant of the composition, the largest if there are two.
    """
    if isinstance(network, Tiled | SelfReferenced):
        return certify(network.denoiser, grid=grid, lower=lower)
    if isinstance(network, OnViews):
        members = {id(getattr(member, "network", member)): member for member in network.denoisers}.values()
        certificates = [certify(member, grid=grid, lower=lower) for member in members]
        return max(certificates, key=lambda c: (not c.averaged, c.alpha))
    compositions: list[dict[str, EulerStep]] = []
    if isinstance(network, ConditionedNetwork):
        compositions.append(_named(network.plain.euler_steps, "plain.steps"))
    if isinstance(network, EulerNetwork | ConditionedNetwork | Conditioned):
        compositions.append(_named(network.euler_steps, "steps"))
    if not compositions:
        return Certificate(False, 1.0, "the architecture is unconstrained: nothing bounds its Lipschitz constant")
    if not all(torch.isfinite(p).all() for p in network.parameters()):
        return Certificate(False, 1.0, "the weights are not finite")
    with ThreadPoolExecutor() as pool:  # the factorisations release the interpreter lock
        certified = [
            list(pool.map(lambda item: certify_layer(item[1], item[0], grid=grid, lower=lower), steps.items()))
            for steps in compositions
        ]
    layers = tuple(layer for composition in certified for layer in composition)
    failed = [layer.name for layer in layers if not layer.alpha < 1]
    if failed:
        return Certificate(False, 1.0, f"the step is not below 2/‖A‖² in {', '.join(failed)}", layers)
    # An operator averaged with some constant is averaged with every larger one, so the largest holds for all.
    alpha = max(compose(layer.alpha for layer in composition) for composition in certified)
    reference = "" if isinstance(network, EulerNetwork) else ", for every fixed reference"
    return Certificate(True, alpha, f"every step satisfies 0 ≤ τ < 2/‖A‖²{reference}", layers)


def _named(steps: Iterable[EulerStep], prefix: str) -> dict[str, EulerStep]:
    return {f"{prefix}.{i}": step for i, step in enumerate(steps)}
