"""What deblurring by overlapping patches loses against the whole image.

python -m benchmarks.patches IMAGES KERNELS --limit 2 --side 256
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from pnp_cli import Choices, prepare_deblurring, psnr, weights

from .common import load_images, load_kernels, print_table
from .deblurring import problem


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("kernels", type=Path)
    parser.add_argument("--limit", type=int, default=2)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--sigma", type=float, default=2.55, help="noise, 0-255 scale")
    parser.add_argument("--weights", default="conditioned")
    arguments = parser.parse_args()

    loaded = weights.load(arguments.weights)
    psfs = load_kernels(arguments.kernels)
    rows = []
    for i, image in enumerate(load_images(arguments.images, arguments.limit)):
        psf = psfs[i % len(psfs)]
        truth, _, y = problem(image, psf, "free", arguments.sigma / 255, seed=i)
        noise = arguments.sigma / 255
        ways = [prepare_deblurring(y, psf, loaded, Choices(noise, patch=patch)) for patch in (0, arguments.side)]
        whole, parts = (way.run().frame.numpy() for way in ways)
        scores = [psnr(truth.numpy(), x) for x in (whole, parts)]
        scores.append(psnr(whole, parts))
        rows.append([str(i + 1), str(ways[1].patches), *(f"{score:.2f}" for score in scores)])
    print_table(["image", "patches", "PSNR whole", "by patches", "between them"], rows)


if __name__ == "__main__":
    with torch.no_grad():
        main()
