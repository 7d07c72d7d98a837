"""What deblurring by overlapping patches loses against the whole image.

python -m benchmarks.patches IMAGES KERNELS --limit 2 --side 256
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from pnp_cli import Blur, Settings, plan_deblurring, psnr, weights
from pnp_cli.boundaries import Free
from pnp_cli.patches import least_overlap, restore_by_patches, windows

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

        settings = Settings.for_noise(arguments.sigma / 255, loaded.rules, psf)

        def restore(part: Tensor) -> Tensor:
            blur = Blur(psf, (part.shape[2], part.shape[3]), Free)  # noqa: B023
            solution = plan_deblurring(part, blur, loaded.network, loaded.certificate, settings).run()  # noqa: B023
            return blur.boundary.frame_of(solution.value)

        overlap = least_overlap((psf.shape[0], psf.shape[1]))
        whole, parts = restore(y), restore_by_patches(y, arguments.side, overlap, restore)
        scores = [psnr(truth.numpy(), x.numpy()) for x in (whole, parts)]
        count = len(windows((y.shape[2], y.shape[3]), arguments.side, overlap))
        scores.append(psnr(whole.numpy(), parts.numpy()))
        rows.append([str(i + 1), str(count), *(f"{score:.2f}" for score in scores)])
    print_table(["image", "patches", "PSNR whole", "by patches", "between them"], rows)


if __name__ == "__main__":
    with torch.no_grad():
        main()
