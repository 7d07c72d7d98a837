"""What a free boundary costs at least: the loss of the best restoration where the scene is Gaussian.

    python -m benchmarks.border CBSD68 KERNELS

Scenes are drawn from the Gaussian prior that has the mean power spectrum of the images, in grey; the posterior mean is
then known, and no other restoration, linear or not, has a smaller mean squared error. A periodic blur is observed
whole. Of a blur on a canvas with room for the kernel the frame is observed, and the posterior mean, which restores the
rest of the canvas as well, comes from conjugate gradients. Mean squared errors as PSNR (peak 1.0) over the pixels of
the frame, and over those that are a kernel or more away from the border of the canvas; the loss is the difference.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pnp_cli import Blur
from pnp_cli.boundaries import BOUNDARIES
from pnp_cli.devices import choose_device

from .common import describe_machine, load_images, load_kernels, print_table
from .deblurring import same_pixels

TOLERANCE, MAX_STEPS = 1e-6, 500
"""Of conjugate gradients: what is left of the equation, relative to its right side; and their number."""


def mean_power(images: list[Tensor], size: tuple[int, int]) -> Tensor:
    """Mean power spectrum of images (1, 1, H, W) less their means, as variances of the modes of a torus.

    Parameters
    ----------
    size : (h, w) of the torus, at least that of the images.

    Returns
    -------
    (h, w // 2 + 1), double precision: the eigenvalues of the covariance. Windows keep the borders of the images out.
    """
    total = torch.zeros(size[0], size[1] // 2 + 1, dtype=torch.float64)
    for image in images:
        height, width = image.shape[2:]
        window = torch.hann_window(height, dtype=torch.float64)[:, None] * torch.hann_window(width, dtype=torch.float64)
        spectrum = torch.fft.rfft2((image[0, 0].double() - image.mean()) * window, s=size)
        total += spectrum.abs().square() / window.square().sum()
    return total / len(images)


def filtered(x: Tensor, eigenvalues: Tensor) -> Tensor:
    """An operator that is diagonal in the Fourier basis, applied to x (1, 1, H, W)."""
    return torch.fft.irfft2(torch.fft.rfft2(x) * eigenvalues, s=x.shape[2:])


def posterior_mean(blur: Blur, y: Tensor, power: Tensor, noise: float) -> Tensor:
    """The scene x that solves (KᵀK + σ²S⁻¹)x = Kᵀy, S the covariance with eigenvalues `power`."""
    penalty = noise**2 / power
    preconditioner = 1 / (blur.power + penalty)
    x = torch.zeros(1, 1, *blur.scene, dtype=torch.float64)
    r = blur.adjoint(y)
    goal = TOLERANCE * float(r.norm())
    z = filtered(r, preconditioner)
    p, rz = z, float((r * z).sum())
    for _ in range(MAX_STEPS):
        image = blur.normal(p) + filtered(p, penalty)
        alpha = rz / float((p * image).sum())
        x, r = x + alpha * p, r - alpha * image
        if float(r.norm()) <= goal:
            return x
        z = filtered(r, preconditioner)
        rz, previous = float((r * z).sum()), rz
        p = z + (rz / previous) * p
    raise RuntimeError(f"conjugate gradients have not converged after {MAX_STEPS} steps")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("kernels", type=Path)
    parser.add_argument("--limit", type=int, default=10, help="the first so many images, for the spectrum")
    parser.add_argument("--draws", type=int, default=4, help="scenes for each kernel and level of noise")
    parser.add_argument("--sigma", nargs="+", type=float, default=[2.55, 7.65], help="noise, 0-255 scale")
    arguments = parser.parse_args()

    images = load_images(arguments.images, arguments.limit, grey=True)
    psfs = load_kernels(arguments.kernels)
    size = (max(x.shape[2] for x in images), max(x.shape[3] for x in images))
    print(f"{arguments.draws} scenes with the spectrum of {arguments.images.name} x {len(psfs)} kernels; ", end="")
    print(f"{describe_machine(choose_device('cpu'))}\n")
    rows = []
    for sigma in arguments.sigma:
        levels = {}
        for boundary in ("periodic", "free"):
            errors = []
            for j, psf in enumerate(psfs):
                frame = (
                    size if boundary == "periodic" else tuple(n - k + 1 for n, k in zip(size, psf.shape, strict=True))
                )
                blur = Blur(psf, (frame[0], frame[1]), BOUNDARIES[boundary], dtype=torch.float64)
                power = mean_power(images, blur.scene)
                where = same_pixels(size, psf, boundary)
                for draw in range(arguments.draws):
                    generator = torch.Generator().manual_seed(100 * draw + j)
                    white = torch.randn(1, 1, *blur.scene, generator=generator, dtype=torch.float64)
                    scene = filtered(white, power.sqrt())
                    seen = blur.forward(scene)
                    y = seen + sigma / 255 * torch.randn(seen.shape, generator=generator, dtype=torch.float64)
                    error = blur.boundary.frame_of(posterior_mean(blur, y, power, sigma / 255) - scene)[0, 0].square()
                    errors.append([float(error[region].mean()) for region in where])
            levels[boundary] = -10 * np.log10(np.mean(errors, axis=0))
        for region, periodic, free in zip(("frame", "middle"), levels["periodic"], levels["free"], strict=True):
            rows.append([f"{sigma:g}", region, f"{periodic:.2f}", f"{free:.2f}", f"{periodic - free:.2f}"])
            print(" ".join(rows[-1]), flush=True)
    print()
    print_table(["σ", "PSNR in the", "periodic", "free", "loss"], rows)


if __name__ == "__main__":
    with torch.no_grad():
        main()
