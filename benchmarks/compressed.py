"""What deblurring and denoising gain by knowing how a JPEG file has rounded the image.

    python -m benchmarks.compressed IMAGES KERNELS
    python -m benchmarks.compressed IMAGES --sigma 0.5 5 15 25

The images are blurred beyond the frame, noisy, and compressed by Pillow; as in `pnp deblur`, the noise level is
estimated and nothing else set. Without kernels they are not blurred and it is `pnp denoise`. "best white level" takes
the pixels as they are, with the level of `--levels` that is best for each image, which nobody knows who has no truth
to compare with.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pnp_cli import Choices, NoiseCurve, psnr, to_tensor, weights
from pnp_cli.denoising import NoiseToRemove, noise_to_remove
from pnp_cli.devices import choose_device
from pnp_cli.images import Image
from pnp_cli.jpeg import JpegRounding
from pnp_cli.kernels import Kernel

from .common import as_file, deblurred, denoised, describe_machine, load_images, load_kernels, print_table
from .deblurring import problem
from .deblurring_rules import middle

Method = Callable[[Image, Kernel, JpegRounding | None, float | None], Tensor]
"""Restores a file, blurred by a kernel, with what is to be known of its rounding and a level of noise or None."""


def deblurring(loaded: weights.LoadedDenoiser) -> Method:
    """`pnp deblur` with nothing else set."""

    def restore(file: Image, kernel: Kernel, jpeg: JpegRounding | None, level: float | None) -> Tensor:
        return deblurred(to_tensor(file), kernel, loaded, Choices(noise=level, jpeg=jpeg))

    return restore


def denoising(loaded: weights.LoadedDenoiser) -> Method:
    """`pnp denoise`."""

    def restore(file: Image, kernel: Kernel, jpeg: JpegRounding | None, level: float | None) -> Tensor:
        noise = NoiseToRemove(NoiseCurve.white(level)) if level is not None else noise_to_remove(file.pixels, jpeg)
        return denoised(to_tensor(file), loaded, noise)

    return restore


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("kernels", type=Path, nargs="?", help="none for images that are not blurred")
    parser.add_argument("--every", type=int, default=6, help="every so-many-th image, each with the next kernel")
    parser.add_argument("--limit", type=int, help="the first so many of them")
    parser.add_argument("--crop", type=int, default=256, help="side of the part in the middle that is used")
    parser.add_argument("--quality", nargs="+", type=int, default=[95, 85, 75, 50])
    parser.add_argument("--sigma", nargs="+", type=float, default=[0.5, 2.55], help="noise, 0-255 scale")
    parser.add_argument("--levels", nargs="*", type=float, default=[1.7, 2.55, 3.6, 5, 7.65], help="white levels")
    arguments = parser.parse_args()

    loaded = weights.load("conditioned")
    blurred = arguments.kernels is not None
    psfs = load_kernels(arguments.kernels) if blurred else [np.ones((1, 1))]
    restore = deblurring(loaded) if blurred else denoising(loaded)
    images = load_images(arguments.images, arguments.limit, arguments.every)
    print(f"{len(images)} images of {arguments.images.name}; {describe_machine(choose_device('cpu'))}\n")
    rows = []
    for sigma in arguments.sigma:
        for quality in arguments.quality:
            scores = []
            for i, whole in enumerate(images):
                psf = psfs[i % len(psfs)]
                scene, _, y = problem(middle(whole, arguments.crop), psf, "free", sigma / 255, seed=i)
                truth = scene.clamp(0, 1).numpy()
                file = as_file(y, quality)
                results = [to_tensor(file), restore(file, psf, None, None), restore(file, psf, file.jpeg, None)]
                values = [psnr(truth, result.clamp(0, 1).numpy()) for result in results]
                known = [restore(file, psf, None, level / 255) for level in arguments.levels]
                best = [max(psnr(truth, result.clamp(0, 1).numpy()) for result in known)] if known else []
                scores.append(values + best)
            rows.append([f"{sigma:g}", f"{quality}", *(f"{value:.2f}" for value in np.mean(scores, axis=0))])
            print(" ".join(rows[-1]), flush=True)
    print()
    header = [
        "σ",
        "JPEG quality",
        *(["PSNR blurred", "--no-jpeg", "deblur"] if blurred else ["PSNR noisy", "--no-jpeg", "denoise"]),
    ]
    print_table(header + (["best white level"] if arguments.levels else []), rows)


if __name__ == "__main__":
    with torch.no_grad():
        main()
