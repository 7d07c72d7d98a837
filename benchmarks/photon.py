"""What denoising and deblurring gain by finding out how the noise depends on the brightness.

    python -m benchmarks.photon IMAGES
    python -m benchmarks.photon IMAGES KERNELS

Photon noise whose variance follows the brightness, of the level in the first column on the whole, on top of white noise
of 0.5. With kernels the images are blurred beyond the frame and it is `pnp deblur`, without it is `pnp denoise`. "one
level" is `--photon 0`, "given" `--photon` with the true value. The last column counts the images for which a curve was
found.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pnp_cli import Choices, NoiseCurve, add_gaussian_noise, psnr, weights
from pnp_cli.deblurring import prepare_deblurring
from pnp_cli.denoising import NoiseToRemove, noise_to_remove
from pnp_cli.devices import choose_device
from pnp_cli.kernels import Kernel
from pnp_cli.tensors import to_pixels

from .common import denoised, describe_machine, load_images, load_kernels, print_table
from .deblurring import problem
from .deblurring_rules import middle

READ = 0.5 / 255
"""Level of the white noise."""

Method = Callable[[Tensor, Kernel, float | None], tuple[Tensor, bool]]
"""Restores an image, blurred by a kernel, for a gain of its photon noise (None for unknown, 0 for one level), and says
whether the noise was taken to depend on the brightness."""


def deblurring(loaded: weights.LoadedDenoiser) -> Method:
    """`pnp deblur`."""

    def restore(y: Tensor, kernel: Kernel, gain: float | None) -> tuple[Tensor, bool]:
        choices = Choices(noise=READ if gain else None, photon=gain)
        prepared = prepare_deblurring(y, kernel, loaded, choices)
        end = prepared.run()
        if end.violations:
            raise RuntimeError(end.violations[0])
        return end.frame, not prepared.errors.curve.constant

    return restore


def denoising(loaded: weights.LoadedDenoiser) -> Method:
    """`pnp denoise`."""

    def restore(y: Tensor, kernel: Kernel, gain: float | None) -> tuple[Tensor, bool]:
        known = NoiseToRemove(NoiseCurve.photon(READ, gain)) if gain else None
        noise = known or noise_to_remove(to_pixels(y), constant=gain == 0)
        return denoised(y, loaded, noise), not noise.curve.constant

    return restore


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("kernels", type=Path, nargs="?", help="none for images that are not blurred")
    parser.add_argument("--every", type=int, default=10, help="every so-many-th image, each with the next kernel")
    parser.add_argument("--crop", type=int, default=256, help="side of the part in the middle that is used")
    parser.add_argument("--sigma", nargs="+", type=float, default=[2.55, 7.65, 15, 25], help="levels, 0-255 scale")
    parser.add_argument("--weights", default="conditioned")
    parser.add_argument("--grey", action="store_true", help="the luma of the images")
    arguments = parser.parse_args()

    blurred = arguments.kernels is not None
    psfs = load_kernels(arguments.kernels) if blurred else [np.ones((1, 1))]
    loaded = weights.load(arguments.weights)
    restore = deblurring(loaded) if blurred else denoising(loaded)
    images = load_images(arguments.images, None, arguments.every, grey=arguments.grey)
    print(f"{len(images)} images of {arguments.images.name}; {describe_machine(choose_device('cpu'))}\n")
    rows = []
    for sigma in arguments.sigma:
        scores, found = [], 0
        for i, whole in enumerate(images):
            psf = psfs[i % len(psfs)]
            truth, _, seen = problem(middle(whole, arguments.crop), psf, "free", 0, seed=i)
            gain = (sigma / 255) ** 2 / float(seen.mean())
            pixels = add_gaussian_noise(to_pixels(seen), READ, i, gain)
            y = torch.from_numpy(pixels).permute(2, 0, 1)[None]
            values = [psnr(truth.numpy(), y.numpy())]
            for known in (0.0, None, gain):
                restored, curved = restore(y, psf, known)
                values.append(psnr(truth.numpy(), restored.numpy()))
                found += curved and known is None
            scores.append(values)
        means = [f"{value:.2f}" for value in np.mean(scores, axis=0)]
        rows.append([f"{sigma:g}", *means, f"{found} of {len(images)}"])
        print(" ".join(rows[-1]), flush=True)
    print()
    command = "deblur" if blurred else "denoise"
    print_table(["σ", "PSNR before", f"{command} --photon 0", command, "given", "found"], rows)


if __name__ == "__main__":
    with torch.no_grad():
        main()
