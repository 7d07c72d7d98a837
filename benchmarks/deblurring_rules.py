"""PSNR over a grid of settings, the rule that fits best, and what the rule of a weight file loses.

    python -m benchmarks.deblurring_rules VALIDATION KERNELS --sigma 2.55 7.65 --synthetic
    python -m benchmarks.deblurring_rules VALIDATION KERNELS --method tv

Every image is blurred with one kernel, in turn: those of the folder KERNELS and, with --synthetic, some made from
parameters. Use images that are in no published table to fit, and others to check. The strengths are multiples of the
rule's. "automatic" is the command with nothing set, the noise level estimated; "best" takes the best cell of the grid
for every image by itself. The fitted rule loses least if the PSNR of every problem is a parabola in the logarithm of
the strength, for h as in the rule; --store writes it into the weight file.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pnp_cli import (
    Blur,
    Choices,
    LeastSquares,
    Settings,
    kernels,
    prepare_deblurring,
    psnr,
    weights,
)
from pnp_cli.boundaries import BOUNDARIES
from pnp_cli.devices import choose_device
from pnp_cli.kernels import Kernel
from pnp_cli.rules import Rule

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
        values.append(psnr(p[0].cpu().numpy(), restore(p).clamp(0, 1).cpu().numpy()))
    return values


def fit(samples: list[tuple[float, float, list[float], list[float]]], weight: float) -> Rule:
    """The rule that loses least. A sample: noise level (0-255), weak share, strengths (0-255) and their PSNR."""
    rows, targets = [], []
    for level, weak, strengths, values in samples:
        curvature, slope, _ = np.polyfit(np.log(strengths), values, 2)
        if curvature >= -0.1:
            continue  # the strength hardly matters, or the best lies outside the grid
        best = np.clip(-slope / (2 * curvature), np.log(strengths[0]), np.log(strengths[-1]))
        rows.append(np.sqrt(-curvature) * np.array([1, np.log(level), -weak]))
        targets.append(np.sqrt(-curvature) * best)
    scale, power, weakness = np.linalg.lstsq(np.array(rows), np.array(targets), rcond=None)[0]
    return Rule(weight, round(float(np.exp(scale)), 2), round(float(power), 2), round(float(weakness), 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("kernels", type=Path)
    parser.add_argument("--synthetic", action="store_true")
    parser.add_argument("--method", choices=["deblur", "tv"], default="deblur")
    parser.add_argument("--boundary", choices=list(BOUNDARIES), default="free")
    parser.add_argument("--grey", action="store_true")
    parser.add_argument("--limit", type=int, default=10)
    parser.add_argument("--every", type=int, default=4, help="take every so many-th image")
    parser.add_argument("--crop", type=int, default=160, help="side of the crop from the middle of each image")
    parser.add_argument("--sigma", nargs="+", type=float, default=[1, 2.55, 7.65, 15], help="noise, 0-255 scale")
    parser.add_argument("--h", nargs="+", type=float, default=[1], help="h of the envelope, times the rule's")
    parser.add_argument("--strength", nargs="+", type=float, default=[0.6, 0.8, 1, 1.25], help="times the rule's")
    parser.add_argument("--scale", nargs="+", type=float, default=[0.02, 0.05, 0.1, 0.2], help="λ is noise²/scale")
    parser.add_argument("--max-iter", type=int, default=60)
    parser.add_argument("--weights", default="conditioned")
    parser.add_argument("--store", type=Path, metavar="FILE", help="write the fitted rule into this weight file")
    parser.add_argument("--plain", action="store_true", help="fit the rule of the plain network of conditioned weights")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()

    device = choose_device(arguments.device)
    shelf = weights.Shelf(arguments.weights, device)
    sources = load_images(arguments.images, arguments.limit, arguments.every, grey=arguments.grey)
    images = [middle(x, arguments.crop).to(device) for x in sources]
    loaded = shelf.get(images[0].shape[1])
    psfs = load_kernels(arguments.kernels) + (synthetic() if arguments.synthetic else [])
    others = {"max_iter": arguments.max_iter} | ({"refresh": 0} if arguments.plain else {})
    print(f"{len(images)} images of {arguments.images.name}; {describe_machine(device)}")

    def by_grid(p: Problem, noise: float, h: float = 1, factor: float = 1) -> Tensor:
        own = Settings.for_noise(noise, loaded.rules, p[3], **others)
        chosen = {"envelope": h * own.envelope, "strength": factor * own.strength * math.sqrt(h)}
        return deblur(p, noise, chosen)

    def automatic(p: Problem) -> Tensor:
        return deblur(p, None, {})

    def deblur(p: Problem, noise: float | None, chosen: dict[str, float]) -> Tensor:
        choices = Choices(noise, arguments.boundary, patch=0, settings=others | chosen)
        return prepare_deblurring(p[2], p[3], loaded, choices).run().frame

    def variation(p: Problem, weight: float) -> Tensor:
        scene = total_variation(LeastSquares(p[1], p[2]), p[1].boundary.extrapolate(p[2]), weight)
        return p[1].boundary.frame_of(scene)

    samples = []
    rule = loaded.rules.of(referenced=not arguments.plain)
    for sigma in arguments.sigma:
        noise = sigma / 255
        problems: list[Problem] = []
        for i, (image, psf) in enumerate(zip(images, itertools.cycle(psfs), strict=False)):
            truth, blur, y = problem(image, psf, arguments.boundary, noise, seed=i)
            problems.append((truth, blur, y, psf))
        grid: dict[str, dict[str, Restore]]
        by_rule: Restore = automatic
        if arguments.method == "tv":
            grid = {"": {f"λ = σ²/{s:g}": partial(variation, weight=noise**2 / s) for s in arguments.scale}}
            by_rule = partial(variation, weight=rule_weight(noise))
        else:
            grid = {
                f"h = {h:g} x": {
                    f"strength {f:g} x": partial(by_grid, noise=noise, h=h, factor=f) for f in arguments.strength
                }
                for h in arguments.h
            }
        table = {row: [scores(problems, restore) for restore in cells.values()] for row, cells in grid.items()}
        print(f"\nnoise {sigma:g}, {arguments.method}, {arguments.boundary}\n", flush=True)
        header = next(iter(grid.values()))
        print_table(["", *header], [[row, *(f"{np.mean(v):.2f}" for v in values)] for row, values in table.items()])
        chosen = scores(problems, by_rule)
        everything = np.array([values for cells in table.values() for values in cells])
        print(
            f"\nautomatic {np.mean(chosen):.2f}, best cell {everything.mean(axis=1).max():.2f}, "
            f"best {everything.max(axis=0).mean():.2f}; per image automatic - best: "
            + " ".join(f"{a - b:+.2f}" for a, b in zip(chosen, everything.max(axis=0), strict=True)),
            flush=True,
        )
        for i, p in enumerate(problems):
            weak = kernels.weak_share(p[3])
            own = 255 * rule.strength(noise, rule.envelope(noise), weak)
            values = [scores_of_factor[i] for scores_of_factor in next(iter(table.values()))]
            samples.append((sigma, weak, [f * own for f in arguments.strength], values))
    if arguments.method == "deblur":
        fitted = fit(samples, rule.weight)
        print(f"\nfitted {fitted}, in use {rule}")
        if arguments.store:
            which = "plain" if rule is loaded.rules.plain else "conditioned"
            rules = replace(loaded.rules, **{which: fitted})
            averaged = loaded.certificate.averaged
            weights.save(arguments.store, loaded.network, loaded.training, averaged=averaged, rules=rules)
            print(f"stored in {arguments.store}")


if __name__ == "__main__":
    with torch.no_grad():
        main()
