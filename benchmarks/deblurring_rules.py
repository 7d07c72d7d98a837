"""PSNR over a grid of settings, from which the rules kept with the weights were fitted, and what the rules lose.

    python -m benchmarks.deblurring_rules VALIDATION KERNELS --sigma 2.55 7.65
    python -m benchmarks.deblurring_rules VALIDATION KERNELS --method tv

Every image is blurred with one kernel, in turn: those of the folder KERNELS, or synthetic ones for "synthetic"
(motion, defocus, Gaussian). Use images that are in no published table to fit, and others to check. "automatic" is the
command with nothing set, the noise level estimated; "best" takes the best cell of the grid for every image by itself.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pnp_cli import (
    Blur,
    LeastSquares,
    Settings,
    estimate_noise_under_blur,
    kernels,
    plan_deblurring,
    psnr,
    weights,
)
from pnp_cli.boundaries import BOUNDARIES
from pnp_cli.devices import choose_device
from pnp_cli.kernels import Kernel

from .common import describe_machine, load_images, load_kernels, print_table
from .deblurring import problem
from .total_variation import rule_weight, total_variation

Problem = tuple[Tensor, Blur, Tensor, Kernel]
"""True image, blur, blurred and noisy image, kernel."""
Restore = Callable[[Problem], Tensor]


def synthetic() -> list[Kernel]:
    """Kernels made from parameters."""
    return [
        kernels.motion(9, 20),
        kernels.disk(3),
        kernels.motion(21, 110),
        kernels.gaussian(1.6),
        kernels.motion(31, 60),
        kernels.disk(6),
    ]


def middle(image: Tensor, side: int) -> Tensor:
    """The middle `side` x `side` pixels."""
    top, left = (max(0, (n - side) // 2) for n in image.shape[2:])
    return image[:, :, top : top + side, left : left + side]


def scores(problems: list[Problem], restore: Restore) -> list[float]:
    """PSNR of a method for every problem."""
    values = []
    for p in problems:
        restored = p[1].boundary.frame_of(restore(p)).clamp(0, 1)
        values.append(psnr(p[0].cpu().numpy(), restored.cpu().numpy()))
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("kernels", type=Path)
    parser.add_argument("--method", choices=["envelope", "least-squares", "tv"], default="envelope")
    parser.add_argument("--boundary", choices=list(BOUNDARIES), default="periodic")
    parser.add_argument("--grey", action="store_true")
    parser.add_argument("--limit", type=int, default=4)
    parser.add_argument("--every", type=int, default=8, help="take every so many-th image")
    parser.add_argument("--crop", type=int, default=224, help="side of the crop from the middle of each image")
    parser.add_argument("--sigma", nargs="+", type=float, default=[1, 2.55, 7.65, 15], help="noise, 0-255 scale")
    parser.add_argument("--h", nargs="+", type=float, default=[25.5, 51], help="h of the envelope, times sigma")
    parser.add_argument("--strength", nargs="+", type=float, default=[0.7, 0.85, 1, 1.2, 1.4], help="times the rule's")
    parser.add_argument("--scale", nargs="+", type=float, default=[0.02, 0.05, 0.1, 0.2], help="weight is noise²/scale")
    parser.add_argument("--max-iter", type=int, default=60)
    parser.add_argument("--weights", default="conditioned")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()

    device = choose_device(arguments.device)
    shelf = weights.Shelf(arguments.weights, device)
    sources = load_images(arguments.images, arguments.limit, arguments.every, grey=arguments.grey)
    images = [middle(x, arguments.crop) for x in sources]
    psfs = synthetic() if str(arguments.kernels) == "synthetic" else load_kernels(arguments.kernels)
    print(f"{len(images)} images of {arguments.images.name}, {arguments.kernels.name}; {describe_machine(device)}")

    def plug_and_play(p: Problem, settings: Settings) -> Tensor:
        loaded = shelf.get(p[2].shape[1])
        return plan_deblurring(p[2], p[1], loaded.network, loaded.certificate, settings).run().value

    def automatic(p: Problem) -> Tensor:
        noise = estimate_noise_under_blur(p[2][0].permute(1, 2, 0).cpu().numpy(), p[3])
        choices = {"data_term": arguments.method, "max_iter": arguments.max_iter}
        return plug_and_play(p, Settings.for_noise(noise, shelf.get(p[2].shape[1]).rules, **choices))

    def variation(p: Problem, weight: float) -> Tensor:
        return total_variation(LeastSquares(p[1], p[2]), p[1].boundary.extrapolate(p[2]), weight)

    for sigma in arguments.sigma:
        noise = sigma / 255
        problems: list[Problem] = []
        for i, (image, psf) in enumerate(zip(images, itertools.cycle(psfs), strict=False)):
            truth, blur, y = problem(image.to(device), psf, arguments.boundary, noise, seed=i)
            problems.append((truth, blur, y, psf))

        grid: dict[str, dict[str, Restore]] = {}
        if arguments.method == "tv":
            grid[""] = {f"λ = σ²/{s:g}": partial(variation, weight=noise**2 / s) for s in arguments.scale}
        else:
            rules = shelf.get(images[0].shape[1]).rules
            for h in arguments.h if arguments.method == "envelope" else [sigma]:
                envelope = h / sigma
                base = Settings.for_noise(noise, rules, envelope=envelope, data_term=arguments.method)
                choices = {
                    factor * base.strength: Settings.for_noise(
                        noise,
                        rules,
                        envelope=envelope,
                        strength=factor * base.strength,
                        data_term=arguments.method,
                        max_iter=arguments.max_iter,
                    )
                    for factor in arguments.strength
                }
                grid[f"h = {envelope:.3g}"] = {
                    f"strength {255 * strength:.2f}": partial(plug_and_play, settings=s)
                    for strength, s in choices.items()
                }
        table = {row: [scores(problems, restore) for restore in cells.values()] for row, cells in grid.items()}
        print(f"\nnoise {sigma:g}, {arguments.method}, {arguments.boundary}\n", flush=True)
        for row, cells in grid.items():
            means = [f"{np.mean(values):.2f}" for values in table[row]]
            print_table([row, *cells], [["PSNR", *means]])
        by_rule = partial(variation, weight=rule_weight(noise)) if arguments.method == "tv" else automatic
        chosen = scores(problems, by_rule)
        everything = np.array([values for cells in table.values() for values in cells])
        print(
            f"\nautomatic {np.mean(chosen):.2f}, best cell {everything.mean(axis=1).max():.2f}, "
            f"best {everything.max(axis=0).mean():.2f}; per image automatic - best: "
            + " ".join(f"{a - b:+.2f}" for a, b in zip(chosen, everything.max(axis=0), strict=True)),
            flush=True,
        )


if __name__ == "__main__":
    with torch.no_grad():
        main()
