"""What deblurring gains by knowing that white samples are clipped.

    python -m benchmarks.highlights IMAGES KERNELS

The images are scenes in so many times their light, blurred beyond the frame, noisy, clipped at white and rounded to
8 bits; the truth is the clipped scene. As in `pnp deblur`, the noise level is estimated and nothing else set.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from pnp_cli import Choices, psnr, weights
from pnp_cli.devices import choose_device
from pnp_cli.plugandplay import CLIP_LEVEL

from .common import deblurred, describe_machine, load_images, load_kernels, print_table
from .deblurring import problem


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("kernels", type=Path)
    parser.add_argument("--limit", type=int, default=8, help="the first so many images, each with the next kernel")
    parser.add_argument(
        "--exposure", nargs="+", type=float, default=[1, 1.2, 1.5], help="by what the light is multiplied"
    )
    parser.add_argument("--sigma", type=float, default=2.55, help="noise, 0-255 scale")
    arguments = parser.parse_args()

    loaded = weights.load("conditioned")
    psfs = load_kernels(arguments.kernels)
    images = load_images(arguments.images, arguments.limit)
    print(f"{len(images)} images of {arguments.images.name}; {describe_machine(choose_device('cpu'))}\n")
    rows = []
    for exposure in arguments.exposure:
        scores: dict[bool, list[float]] = {False: [], True: []}
        before, shares = [], []
        for i, image in enumerate(images):
            psf = psfs[i % len(psfs)]
            scene, _, y = problem(exposure * image, psf, "free", arguments.sigma / 255, seed=i)
            truth = scene.clamp(0, 1).numpy()
            y = (255 * y.clamp(0, 1)).round() / 255
            shares.append(float((y >= CLIP_LEVEL).float().mean()))
            before.append(psnr(truth, y.numpy()))
            for clipped, values in scores.items():
                values.append(psnr(truth, deblurred(y, psf, loaded, Choices(clipped=clipped)).numpy()))
        means = [f"{np.mean(values):.2f}" for values in (before, *scores.values())]
        rows.append([f"{exposure:g}", f"{np.mean(shares):.1%}", *means])
        print(" ".join(rows[-1]), flush=True)
    print()
    print_table(["exposure", "clipped", "PSNR blurred", "--no-clipped", "deblur"], rows)


if __name__ == "__main__":
    with torch.no_grad():
        main()
