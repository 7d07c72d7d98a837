"""Mean PSNR over a grid of settings, from which the default rules of `pnp deblur` and `pnp ista` were fitted.

    python -m benchmarks.deblurring_rules VALIDATION KERNELS --sigma 2.55 7.65
    python -m benchmarks.deblurring_rules VALIDATION KERNELS --method ista

Every image is blurred with one kernel, in turn. Use images that are in no published table.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pnp_cli import (
    Blur,
    LeastSquares,
    Settings,
    SparseProblem,
    ista,
    kernels,
    make_transform,
    plan_deblurring,
    psnr,
    weights,
)
from pnp_cli.devices import choose_device

from .common import describe_machine, load_images, print_table

Problem = tuple[Tensor, Blur, Tensor]
"""True image, blur, blurred and noisy image."""


def middle(image: Tensor, side: int) -> Tensor:
    """The middle `side` x `side` pixels."""
    top, left = (max(0, (n - side) // 2) for n in image.shape[2:])
    return image[:, :, top : top + side, left : left + side]


def mean_psnr(problems: list[Problem], restore: Callable[[Blur, Tensor], Tensor]) -> str:
    """PSNR of a method, averaged over problems, as a cell of a table."""
    return f"{np.mean([psnr(x.cpu().numpy(), restore(blur, y).cpu().numpy()) for x, blur, y in problems]):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("kernels", type=Path)
    parser.add_argument("--method", choices=["envelope", "least-squares", "ista"], default="envelope")
    parser.add_argument("--limit", type=int, default=4)
    parser.add_argument("--every", type=int, default=8, help="take every so many-th image")
    parser.add_argument("--crop", type=int, default=224, help="side of the crop from the middle of each image")
    parser.add_argument("--sigma", nargs="+", type=float, default=[1, 2.55, 7.65, 15], help="noise, 0-255 scale")
    parser.add_argument("--h", nargs="+", type=float, default=[12.75, 25.5, 51], help="envelope, over sigma")
    parser.add_argument("--strength", nargs="+", type=float, default=[0.5, 0.7, 1, 1.4, 2], help="times sigma")
    parser.add_argument("--scale", nargs="+", type=float, default=[0.02, 0.05, 0.1, 0.2], help="gamma is noise²/scale")
    parser.add_argument("--max-iter", type=int, default=35)
    parser.add_argument("--weights", default="conditioned")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()

    device = choose_device(arguments.device)
    loaded = weights.load(arguments.weights, device)
    images = [middle(x, arguments.crop) for x in load_images(arguments.images, arguments.limit, arguments.every)]
    files = sorted(p for p in arguments.kernels.iterdir() if p.suffix in (".npy", ".mat", ".png"))
    psfs = [kernels.from_file(file)[0] for file in files]
    dtype = torch.float64 if arguments.method == "ista" else torch.float32
    print(f"{len(images)} images of {arguments.images.name}; {describe_machine(device)}")

    for sigma in arguments.sigma:
        problems: list[Problem] = []
        for i, (clean, psf) in enumerate(zip(images, itertools.cycle(psfs), strict=False)):
            clean = clean.to(device, dtype)
            blur = Blur(psf, (clean.shape[2], clean.shape[3]), device=device, dtype=dtype)
            noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(i)).to(device, dtype)
            problems.append((clean, blur, blur.forward(clean) + sigma / 255 * noise))

        def sparse(blur: Blur, y: Tensor, gamma: float) -> Tensor:
            problem = SparseProblem(LeastSquares(blur, y), make_transform("db4"), gamma)
            return ista(problem, y, accelerated=True, max_iter=300).value

        def plug_and_play(blur: Blur, y: Tensor, settings: Settings) -> Tensor:
            return plan_deblurring(y, blur, loaded.network, loaded.certificate, settings).run().value

        if arguments.method == "ista":
            gammas = [(sigma / 255) ** 2 / scale for scale in arguments.scale]
            header = [f"γ = {gamma:.2g}" for gamma in gammas]
            rows = [["", *(mean_psnr(problems, lambda b, y, g=gamma: sparse(b, y, g)) for gamma in gammas)]]  # type: ignore[misc]
        else:
            header = [f"strength {s * sigma:.3g}" for s in arguments.strength]
            rows = []
            for h in arguments.h if arguments.method == "envelope" else [1.0]:
                choices = [
                    Settings.for_noise(
                        sigma / 255,
                        loaded.network,
                        data_term=arguments.method,
                        strength=strength * sigma / 255,
                        envelope=h / sigma,
                        max_iter=arguments.max_iter,
                    )
                    for strength in arguments.strength
                ]
                cells = [mean_psnr(problems, lambda b, y, s=s: plug_and_play(b, y, s)) for s in choices]  # type: ignore[misc]
                rows.append([f"h = {h / sigma:.3g}", *cells])
        print(f"\nnoise {sigma:g}, {arguments.method}\n", flush=True)
        print_table(["", *header], rows)


if __name__ == "__main__":
    with torch.no_grad():
        main()
