"""What `--motion auto` gains by following a motion that is neither straight nor even.

    python -m benchmarks.bent_motion FOLDER

Crops of images, blurred as frames of a larger scene: by segments, and by arcs on which the speed changes. What the
spectrum takes for a clear motion is restored with the nearest segment, with the path that is followed from there, if
one explains the image better, and with the true kernel. PSNR over the pixels that are a kernel away from the border,
for the best shift by whole pixels: an estimated kernel may move the image.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

import numpy as np
import torch
from scipy.signal import fftconvolve
from torch import Tensor

from pnp_cli import Choices, Image, estimate_motion, follow_motion, kernels, psnr, to_tensor, weights
from pnp_cli.devices import choose_device
from pnp_cli.kernels import Kernel

from .common import deblurred, describe_machine, load_images, print_table
from .deblurring_rules import middle

MARGIN, SHIFT = 28, 4
"""Pixels at the border that do not count, and the largest shift."""


def arc(rng: np.random.Generator, length: float, angle: float) -> Kernel:
    """A bow of up to an eighth of its length, its speed up to a third and a half faster or slower on the way."""
    t = np.linspace(-0.5, 0.5, 61)
    along, across = length * t, rng.uniform(-0.125, 0.125) * length * (1 - 4 * t**2)
    turn = np.radians(angle)
    points = np.stack([along * np.cos(turn) + across * np.sin(turn), across * np.cos(turn) - along * np.sin(turn)], 1)
    middles = (t[1:] + t[:-1]) / 2
    time_spent = 1 + rng.uniform(-0.7, 0.7) * middles + rng.uniform(-0.35, 0.35) * np.cos(2 * np.pi * middles)
    return kernels.path(points, time_spent)


def score(scene: np.ndarray, restored: Tensor) -> float:
    """PSNR of a frame (1, C, h, w) in the middle of a scene (H, W, C), but for its margin and a shift."""
    frame = restored[0].permute(1, 2, 0).numpy()
    (h, w), inner = frame.shape[:2], frame[MARGIN:-MARGIN, MARGIN:-MARGIN]
    top, left = ((n - m) // 2 + MARGIN for n, m in zip(scene.shape, (h, w), strict=False))
    shifts = itertools.product(range(-SHIFT, SHIFT + 1), repeat=2)
    starts = ((top + down, left + right) for down, right in shifts)
    return max(psnr(scene[i : i + inner.shape[0], j : j + inner.shape[1]], inner) for i, j in starts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--every", type=int, default=10, help="every so-many-th image")
    parser.add_argument("--crop", type=int, default=320, help="side of the part in the middle that is blurred")
    parser.add_argument("--sigma", type=float, default=1, help="noise, 0-255 scale")
    arguments = parser.parse_args()

    loaded = weights.load("conditioned")
    images = load_images(arguments.images, None, arguments.every)
    print(f"{len(images)} images of {arguments.images.name}; {describe_machine(choose_device('cpu'))}\n")
    rows = []
    for kind in ("segments", "arcs"):
        scores, followed, seconds = [], 0, []
        for i, image in enumerate(images):
            rng = np.random.default_rng([kind == "arcs", i])
            length, angle = rng.uniform(10, 36), rng.uniform(0, 180)
            truth = arc(rng, length, angle) if kind == "arcs" else kernels.motion(length, angle)
            scene = middle(image, arguments.crop)[0].permute(1, 2, 0).numpy()
            blurred = fftconvolve(scene, truth[..., None], mode="valid", axes=(0, 1))
            pixels = (
                (blurred + arguments.sigma / 255 * rng.standard_normal(blurred.shape)).clip(0, 1).astype(np.float32)
            )
            y = to_tensor(Image(pixels))
            motion = estimate_motion(pixels)
            if not motion.clear:
                continue
            segment = kernels.motion(motion.length, motion.angle)
            start = time.perf_counter()
            path = follow_motion(pixels, motion)
            seconds.append(time.perf_counter() - start)
            followed += path is not None
            values = [score(scene, deblurred(y, kernel, loaded, Choices())) for kernel in (segment, truth)]
            along = values[0] if path is None else score(scene, deblurred(y, path.kernel, loaded, Choices()))
            scores.append([score(scene, y), values[0], along, values[1]])
            print(kind, f"{motion.length:.1f}", *(f"{value:.2f}" for value in scores[-1]), flush=True)
        means = [f"{value:.2f}" for value in np.mean(scores, axis=0)]
        rows.append([kind, f"{len(scores)} of {len(images)}", str(followed), *means, f"{np.mean(seconds):.1f}"])
    print()
    print_table(["blur", "clear", "followed", "blurred", "segment", "path", "true kernel", "seconds"], rows)


if __name__ == "__main__":
    with torch.no_grad():
        main()
