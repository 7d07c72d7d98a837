"""What several test modules use."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import uniform_filter

from pnp_cli import Image, read_image
from pnp_cli.conditioned import ConditionedArchitecture, ConditionedNetwork
from pnp_cli.denoisers import Denoiser, EulerArchitecture
from pnp_cli.images import encode_image
from pnp_cli.jpeg import JpegRounding
from pnp_cli.presets import build


def small_network(
    activation: str = "huber", scales: tuple[int, ...] = (2, 4, 1), staggered: bool = False, centre: float = 0.0
) -> Denoiser:
    """An untrained network whose steps are certified averaged."""
    network = build(EulerArchitecture(scales, 20, activation, staggered=staggered, centre=centre))  # type: ignore[arg-type]
    network.initialise()
    return network.eval().requires_grad_(False)


def small_conditioned() -> ConditionedNetwork:
    """An untrained conditioned network, staggered, whose steps are certified averaged."""
    plain = EulerArchitecture((2, 4, 2, 4), filters=20, activation="huber", staggered=True, centre=0.5)
    network = build(ConditionedArchitecture(plain, (2, 4, 2, 4), filters=16, maps=5, guide_widths=(8, 8, 4)))
    assert isinstance(network, ConditionedNetwork)
    network.initialise()
    return network.eval().requires_grad_(False)


def relative_dot_test(
    forward: Callable[..., torch.Tensor], adjoint: Callable[..., torch.Tensor], x: torch.Tensor
) -> None:
    """<Au, v> = <u, A'v> for random u like `x` and v like Au, relative to |Au||v|, in float64."""
    u = torch.randn_like(x, dtype=torch.float64)
    au = forward(u)
    v = torch.randn_like(au)
    left, right = float((au * v).sum()), float((u * adjoint(v)).sum())
    scale = float(au.norm() * v.norm())
    assert abs(left - right) <= 1e-12 * scale, f"<Au, v> = {left!r}, <u, A'v> = {right!r}"


def steepest(
    network: Callable[..., torch.Tensor], x: torch.Tensor, sigma: float | torch.Tensor, iterations: int = 25
) -> float:
    """Largest ‖J d‖/‖d‖ found by power iteration on JᵀJ at x, in the precision of x."""
    d = torch.randn_like(x)
    slope = 0.0
    for _ in range(iterations):
        d = d / d.norm()
        _, forward = torch.autograd.functional.jvp(lambda v: network(v, sigma), x, d)
        slope = max(slope, float(forward.norm()))
        _, d = torch.autograd.functional.vjp(lambda v: network(v, sigma), x, forward)
    return slope


def shared_noise(shape: tuple[int, ...], level: float) -> np.ndarray:
    """Noise of a level on the 0-255 scale, smoothed over 2 × 2 pixels: (H, W, C), [0, 1] scale."""
    smooth = uniform_filter(np.random.default_rng(0).normal(size=shape), (2, 2, 1), mode="wrap")
    return np.asarray(level / 255 * smooth / smooth.std(), np.float32)


def compressed(pixels: np.ndarray, quality: int) -> tuple[np.ndarray, JpegRounding]:
    """Pixels on the 0-255 scale after a round trip through a JPEG file, and how it has rounded them."""
    image = read_image(encode_image(Image((pixels / 255).astype(np.float32)), "JPEG", quality=quality))
    assert image.jpeg is not None
    return image.pixels, image.jpeg


def psnr_of(reference: np.ndarray, test: np.ndarray) -> float:
    """PSNR by scikit-image, independent of ours."""
    from skimage.metrics import peak_signal_noise_ratio

    return float(peak_signal_noise_ratio(reference.astype(float), test.astype(float), data_range=1.0))


def installed_command() -> str:
    """Path of `pnp` in the environment that runs the tests."""
    command = shutil.which("pnp", path=str(Path(sys.executable).parent)) or shutil.which("pnp")
    assert command, "the package is not installed in this environment: pip install '.[dev]'"
    return command
