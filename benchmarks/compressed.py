"""What deblurring gains by knowing how a JPEG file has rounded the image.

    python -m benchmarks.compressed IMAGES KERNELS

The images are blurred beyond the frame, noisy, and compressed by Pillow; as in `pnp deblur`, the noise level is
estimated and nothing else set. "best white level" takes the pixels as they are, with the level of `--levels` that is
best for each image, which nobody knows who has no truth to compare with.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from pnp_cli import Choices, prepare_deblurring, psnr, to_tensor, weights
from pnp_cli.devices import choose_device

from .common import as_file, describe_machine, load_images, load_kernels, print_table
from .deblurring import problem
from .deblurring_rules import middle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("kernels", type=Path)
    parser.add_argument("--every", type=int, default=6, help="every so-many-th image, each with the next kernel")
    parser.add_argument("--limit", type=int, help="the first so many of them")
    parser.add_argument("--crop", type=int, default=256, help="side of the part in the middle that is used")
    parser.add_argument("--quality", nargs="+", type=int, default=[95, 85, 75, 50])
    parser.add_argument("--sigma", nargs="+", type=float, default=[0.5, 2.55], help="noise, 0-255 scale")
    parser.add_argument("--levels", nargs="*", type=float, default=[1.7, 2.55, 3.6, 5, 7.65], help="white levels")
    arguments = parser.parse_args()

    loaded = weights.load("conditioned")
    psfs = load_kernels(arguments.kernels)
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
                y = to_tensor(file)
                plain, weighed = Choices(), Choices(jpeg=file.jpeg)
                known = [Choices(noise=level / 255) for level in arguments.levels]
                values = [psnr(truth, y.numpy())]
                for choices in (plain, weighed, *known):
                    end = prepare_deblurring(y, psf, loaded, choices).run()
                    if end.violations:
                        raise RuntimeError(end.violations[0])
                    values.append(psnr(truth, end.frame.numpy()))
                scores.append([*values[:3], *([max(values[3:])] if known else [])])
            rows.append([f"{sigma:g}", f"{quality}", *(f"{value:.2f}" for value in np.mean(scores, axis=0))])
            print(" ".join(rows[-1]), flush=True)
    print()
    header = ["σ", "JPEG quality", "PSNR blurred", "--no-jpeg", "deblur"]
    print_table(header + (["best white level"] if arguments.levels else []), rows)


if __name__ == "__main__":
    with torch.no_grad():
        main()
