"""What is gained by showing the denoiser dark images brightened, as sensors of 10 to 14 bits leave them in files of 16.

    python -m benchmarks.exposure IMAGES KERNELS

Images are made darker after noise was added (for `denoise`, sharp; for `deblur`, blurred beyond the frame), and rounded
to 16 bits; the noise level is estimated as in the commands. PSNR is that of the results made as bright again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from pnp_cli import Choices, psnr, weights
from pnp_cli.denoising import noise_to_remove
from pnp_cli.devices import choose_device
from pnp_cli.tensors import to_pixels

from .common import deblurred, denoised, describe_machine, load_images, load_kernels, print_table
from .deblurring import problem
from .deblurring_rules import middle

WHITE = 2**16 - 1
"""Of a file of 16 bits."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("kernels", type=Path)
    parser.add_argument("--every", type=int, default=10, help="every so-many-th image, each with the next kernel")
    parser.add_argument("--crop", type=int, default=224, help="side of the part in the middle that is used")
    parser.add_argument("--darker", nargs="+", type=float, default=[1, 4, 16], help="white is divided by that")
    parser.add_argument("--sigma", nargs="+", type=float, default=[2.55, 15], help="noise before that, 0-255 scale")
    arguments = parser.parse_args()

    loaded = weights.load("conditioned")
    psfs = load_kernels(arguments.kernels)
    images = [middle(x, arguments.crop) for x in load_images(arguments.images, None, arguments.every)]
    print(f"{len(images)} images of {arguments.images.name}; {describe_machine(choose_device('cpu'))}\n")
    rows = []
    for command in ("denoise", "deblur"):
        for sigma in arguments.sigma:
            for darker in arguments.darker:
                scores = []
                for i, image in enumerate(images):
                    psf = psfs[i % len(psfs)] if command == "deblur" else np.ones((1, 1))
                    scene, _, seen = problem(image, psf, "free", sigma / 255, seed=i)
                    y = (seen / darker * WHITE).round().clamp(0, WHITE) / WHITE
                    results = [y]
                    for gain in (1.0, None):
                        if command == "denoise":
                            results.append(denoised(y, loaded, noise_to_remove(to_pixels(y)), gain))
                        else:
                            results.append(deblurred(y, psf, loaded, Choices(gain=gain)))
                    scores.append([psnr(scene.numpy(), darker * result.numpy()) for result in results])
                means = [f"{value:.2f}" for value in np.mean(scores, axis=0)]
                rows.append([command, f"{sigma:g}", f"1/{darker:g}", *means])
                print(" ".join(rows[-1]), flush=True)
    print()
    print_table(["command", "σ", "brightness", "PSNR before", "as dark as it is", "brightened"], rows)


if __name__ == "__main__":
    with torch.no_grad():
        main()
