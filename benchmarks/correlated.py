"""What deblurring gains by finding out that neighbouring pixels share their noise.

    python -m benchmarks.correlated IMAGES KERNELS

The images are blurred beyond the frame; their noise was smoothed over 2 × 2 pixels, as by demosaicking, and has the
level of the table. As in `pnp deblur`, it is estimated and nothing else set.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from pnp_cli import Choices, psnr, weights
from pnp_cli.devices import choose_device

from .common import deblurred, describe_machine, load_images, load_kernels, print_table
from .deblurring import problem
from .deblurring_rules import middle
from .robustness import correlated


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("kernels", type=Path)
    parser.add_argument("--every", type=int, default=10, help="every so many-th image, each with the next kernel")
    parser.add_argument("--crop", type=int, default=224, help="side of the part in the middle that is used")
    parser.add_argument("--sigma", nargs="+", type=float, default=[1, 2.55, 7.65], help="noise, 0-255 scale")
    arguments = parser.parse_args()

    loaded = weights.load("conditioned")
    psfs = load_kernels(arguments.kernels)
    images = load_images(arguments.images, None, arguments.every)
    print(f"{len(images)} images of {arguments.images.name}; {describe_machine(choose_device('cpu'))}\n")
    rows = []
    for sigma in arguments.sigma:
        scores = []
        for i, whole in enumerate(images):
            psf = psfs[i % len(psfs)]
            truth, _, seen = problem(middle(whole, arguments.crop), psf, "free", 0, seed=i)
            noise = torch.randn(seen.shape, generator=torch.Generator().manual_seed(i))
            y = correlated(sigma)(seen, noise)
            values = [psnr(truth.numpy(), y.numpy())]
            for n in (1, None):
                frame = deblurred(y, psf, loaded, Choices(correlation=n))
                values.append(psnr(truth.numpy(), frame.numpy()))
            scores.append(values)
        rows.append([f"{sigma:g}", *(f"{value:.2f}" for value in np.mean(scores, axis=0))])
        print(" ".join(rows[-1]), flush=True)
    print()
    print_table(["σ", "PSNR blurred", "deblur --correlation 1", "deblur"], rows)


if __name__ == "__main__":
    with torch.no_grad():
        main()
