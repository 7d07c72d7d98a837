"""Linear motion blur estimated from images alone: how often length and angle are right, and how often it is "clear".

    python -m benchmarks.blind_motion FOLDER KERNELS

Crops of at least 192 pixels of random images, blurred as frames of a larger scene, with noise of 0 to 2 % of white:
motions of 8 to 40 pixels, and blurs that are none: sharp, Gaussian, defocus, and the camera shakes of KERNELS. As they
are, and compressed by Pillow.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
from scipy.signal import fftconvolve

from pnp_cli import Image, estimate_motion, kernels, read_image
from pnp_cli.images import encode_image
from pnp_cli.kernels import Kernel

from .common import load_images, load_kernels, print_table

KINDS = ("motion", "sharp", "Gaussian", "defocus", "camera shake")


def _kernel(kind: str, length: float, angle: float, rng: np.random.Generator, shakes: list[Kernel]) -> Kernel:
    if kind == "motion":
        return kernels.motion(length, angle)
    if kind == "Gaussian":
        return kernels.gaussian(rng.uniform(0.7, 5))
    if kind == "defocus":
        return kernels.disk(rng.uniform(1.5, 10))
    return shakes[rng.integers(len(shakes))] if kind == "camera shake" else np.ones((1, 1))


def cases(
    images: list[np.ndarray], shakes: list[Kernel], kind: str, count: int
) -> Iterator[tuple[np.ndarray, float, float]]:
    """Observed pixels, and the length and angle of the motion, 0 if there is none."""
    for i in range(count):
        rng = np.random.default_rng([KINDS.index(kind), i])
        image = images[rng.integers(len(images))]
        length, angle = (rng.uniform(8, 40), rng.uniform(0, 180)) if kind == "motion" else (0.0, 0.0)
        kernel = _kernel(kind, length, angle, rng, shakes)
        seen = fftconvolve(image, kernel[..., None], mode="valid", axes=(0, 1))
        height, width = (int(rng.integers(min(192, n), n + 1)) for n in seen.shape[:2])
        top, left = (int(rng.integers(0, n - m + 1)) for n, m in zip(seen.shape[:2], (height, width), strict=True))
        crop = seen[top : top + height, left : left + width]
        noisy = crop + rng.uniform(0, 0.02) * rng.standard_normal(crop.shape)
        yield noisy.clip(0, 1).astype(np.float32), length, angle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("kernels", type=Path)
    parser.add_argument("--quality", nargs="+", type=int, default=[0, 90, 75], help="of a JPEG; 0 for no file")
    parser.add_argument("--count", type=int, default=100, help="cases of each kind")
    arguments = parser.parse_args()

    images = [x[0].permute(1, 2, 0).numpy().astype(np.float64) for x in load_images(arguments.images, None)]
    shakes = load_kernels(arguments.kernels)
    print(f"{arguments.count} cases of each kind from {len(images)} images of {arguments.images.name}\n")
    rows = []
    for quality, kind in product(arguments.quality, KINDS):
        clear, right, errors = 0, 0, []
        start = time.perf_counter()
        for pixels, length, angle in cases(images, shakes, kind, arguments.count):
            image = read_image(encode_image(Image(pixels), "JPEG", quality=quality)) if quality else Image(pixels)
            found = estimate_motion(image.pixels, image.jpeg)
            clear += found.clear
            if kind == "motion":
                off = abs(found.length - length), abs((found.angle - angle + 90) % 180 - 90)
                right += off[0] <= 1 and off[1] <= 3
                errors.append(off)
        seconds = (time.perf_counter() - start) / arguments.count
        share, median = f"{right / arguments.count:.0%}", [f"{v:.2f}" for v in np.median(errors or [(0, 0)], axis=0)]
        cells = [share, f"{median[0]} px, {median[1]} degrees"] if kind == "motion" else ["", ""]
        file = f"JPEG {quality}" if quality else "none"
        rows.append([file, kind, *cells, f"{clear / arguments.count:.0%}", f"{seconds:.2f}"])
        print(" ".join(rows[-1]), flush=True)
    print()
    print_table(["file", "blur", "within 1 px and 3 degrees", "median errors", "called clear", "seconds"], rows)


if __name__ == "__main__":
    main()
