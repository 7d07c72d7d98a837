"""Error of the estimated noise level: of sharp images in colour and in grey, and of blurred ones, knowing the kernel.

python -m benchmarks.noise_level CBSD68 KERNELS --limit 20
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from pnp_cli import estimate_noise, estimate_noise_under_blur, kernels
from pnp_cli.data import luma

from .common import load_images, load_kernels, print_table
from .deblurring import problem


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("kernels", type=Path)
    parser.add_argument("--limit", type=int, default=20)
    parser.add_argument("--sigma", nargs="+", type=float, default=[0.5, 1, 2.55, 7.65, 15], help="noise, 0-255 scale")
    arguments = parser.parse_args()

    images = load_images(arguments.images, arguments.limit)
    blurs = {
        "none": [np.ones((1, 1))],
        "none, grey": [np.ones((1, 1))],
        "motion 5": [kernels.motion(5, 30)],
        "motion 20": [kernels.motion(20, 30)],
        "disk 3": [kernels.disk(3)],
        arguments.kernels.name: load_kernels(arguments.kernels),
    }
    rows = []
    for label, psfs in blurs.items():
        cells = []
        for sigma in arguments.sigma:
            estimates = []
            for i, image in enumerate(images):
                kernel = psfs[i % len(psfs)]
                scene = luma(image) if label.endswith("grey") else image
                pixels = problem(scene, kernel, "free", sigma / 255, seed=i)[2][0].permute(1, 2, 0).numpy()
                found = estimate_noise(pixels) if kernel.size == 1 else estimate_noise_under_blur(pixels, kernel)
                estimates.append(255 * found)
            errors = np.asarray(estimates) - sigma
            cells.append(f"{errors.mean():+.2f} ± {errors.std():.2f}")
        rows.append([label, *cells])
    print(f"{len(images)} images of {arguments.images.name}: mean and standard deviation of the error, 0-255 scale\n")
    print_table(["blur", *(f"σ = {sigma:g}" for sigma in arguments.sigma)], rows)


if __name__ == "__main__":
    with torch.no_grad():
        main()
