"""What deblurring gains by undoing the sRGB curve, where the light was blurred and not the samples.

    python -m benchmarks.linear_light IMAGES KERNELS

The light of the images is blurred beyond the frame; the samples are noisy, rounded to 8 bits, and compressed by Pillow
if there is a quality. As in `pnp deblur`, the noise level is estimated and nothing else set.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pnp_cli import Choices, psnr, to_tensor, weights
from pnp_cli.devices import choose_device
from pnp_cli.light import to_light, to_samples

from .common import as_file, deblurred, describe_machine, load_images, load_kernels, print_table
from .deblurring import problem
from .deblurring_rules import middle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("kernels", type=Path)
    parser.add_argument("--every", type=int, default=10, help="every so-many-th image, each with the next kernel")
    parser.add_argument("--crop", type=int, default=224, help="side of the part in the middle that is used")
    parser.add_argument("--sigma", nargs="+", type=float, default=[1, 2.55], help="noise, 0-255 scale")
    parser.add_argument("--quality", nargs="+", type=int, default=[0, 90], help="of a JPEG; 0 for a PNG")
    arguments = parser.parse_args()

    loaded = weights.load("conditioned")
    psfs = load_kernels(arguments.kernels)
    images = load_images(arguments.images, None, arguments.every)
    print(f"{len(images)} images of {arguments.images.name}; {describe_machine(choose_device('cpu'))}\n")
    rows = []
    for sigma in arguments.sigma:
        for quality in arguments.quality:
            scores = []
            for i, whole in enumerate(images):
                psf = psfs[i % len(psfs)]
                scene, _, seen = problem(to_light(middle(whole, arguments.crop)), psf, "free", 0, seed=i)
                truth = to_samples(scene).numpy()
                noise = torch.randn(seen.shape, generator=torch.Generator().manual_seed(i))
                file = as_file(to_samples(seen) + sigma / 255 * noise, quality)
                y = to_tensor(file)
                choices = Choices(jpeg=file.jpeg)
                values = [psnr(truth, y.numpy())]
                for setting in (choices, replace(choices, linear_light=True)):
                    values.append(psnr(truth, deblurred(y, psf, loaded, setting).numpy()))
                scores.append(values)
            means = [f"{value:.2f}" for value in np.mean(scores, axis=0)]
            rows.append([f"{sigma:g}", f"JPEG {quality}" if quality else "PNG", *means])
            print(" ".join(rows[-1]), flush=True)
    print()
    print_table(["σ", "file", "PSNR blurred", "deblur", "deblur --linear-light"], rows)


if __name__ == "__main__":
    with torch.no_grad():
        main()
