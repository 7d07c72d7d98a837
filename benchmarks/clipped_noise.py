"""What is gained by knowing that black and white cut off the noise of files of integers.

    python -m benchmarks.clipped_noise IMAGES
    python -m benchmarks.clipped_noise IMAGES KERNELS

Without kernels it is `pnp denoise`, with them `pnp deblur` of images that are blurred beyond the frame. Noise is added
and the image stored as a PNG of 8 bits; the level is estimated and nothing set. "not cut off" is the same image with
its noise as floats, values below black and above white among them. Results are cut off at black and white for PSNR.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pnp_cli import Choices, prepare_deblurring, psnr, to_tensor, weights
from pnp_cli.denoising import noise_to_remove
from pnp_cli.devices import choose_device
from pnp_cli.kernels import Kernel
from pnp_cli.noise_curve import root_mean_square
from pnp_cli.tensors import to_pixels

from .common import as_file, denoised, describe_machine, load_images, load_kernels, print_table
from .deblurring import problem
from .deblurring_rules import middle

Method = Callable[[Tensor, Kernel, bool], tuple[Tensor, float]]
"""Restores samples, blurred by a kernel, whose noise may be cut off or is taken not to be; and the level it found."""


def denoising(loaded: weights.LoadedDenoiser) -> Method:
    """`pnp denoise`."""

    def restore(y: Tensor, kernel: Kernel, clipped: bool) -> tuple[Tensor, float]:
        noise = noise_to_remove(to_pixels(y), clipped=clipped)
        return denoised(y, loaded, noise, clipped=clipped), root_mean_square(noise.curve.levels(y))

    return restore


def deblurring(loaded: weights.LoadedDenoiser) -> Method:
    """`pnp deblur`."""

    def restore(y: Tensor, kernel: Kernel, clipped: bool) -> tuple[Tensor, float]:
        prepared = prepare_deblurring(y, kernel, loaded, Choices(clipped=clipped))
        return prepared.run().frame, prepared.errors.noise

    return restore


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("kernels", type=Path, nargs="?")
    parser.add_argument("--every", type=int, default=5, help="every so-many-th image, each with the next kernel")
    parser.add_argument("--crop", type=int, default=224, help="side of the part in the middle that is used")
    parser.add_argument("--sigma", nargs="+", type=float, default=[5, 15, 25, 50], help="noise, 0-255 scale")
    parser.add_argument("--grey", action="store_true", help="in grey")
    arguments = parser.parse_args()

    loaded = weights.load("conditioned")
    psfs = load_kernels(arguments.kernels) if arguments.kernels else [np.ones((1, 1))]
    method = (deblurring if arguments.kernels else denoising)(loaded)
    images = [
        middle(x, arguments.crop) for x in load_images(arguments.images, None, arguments.every, grey=arguments.grey)
    ]
    print(f"{len(images)} images of {arguments.images.name}; {describe_machine(choose_device('cpu'))}\n")
    rows = []
    for sigma in arguments.sigma:
        found = []
        for i, image in enumerate(images):
            psf = psfs[i % len(psfs)]
            scene, _, seen = problem(image, psf, "free", sigma / 255, seed=i)
            y = to_tensor(as_file(seen))
            ends = [method(y, psf, False), method(y, psf, True), method(seen, psf, True)]
            scores = [psnr(scene.numpy(), x.clamp(0, 1).numpy()) for x in (y, *(x for x, _ in ends))]
            levels = [255 * level for _, level in ends]
            found.append([100 * float(((y == 0) | (y == 1)).float().mean()), *scores, *levels])
        means = np.mean(found, axis=0)
        rows.append([f"{sigma:g}", f"{means[0]:.1f} %", *(f"{value:.2f}" for value in means[1:5])])
        rows[-1] += [f"{value:.1f}" for value in means[5:7]]
        print(" ".join(rows[-1]), flush=True)
    print()
    header = ["σ", "black or white", "PSNR before", "--no-clipped", "nothing set", "not cut off"]
    print_table([*header, "level found by --no-clipped", "level found"], rows)


if __name__ == "__main__":
    with torch.no_grad():
        main()
