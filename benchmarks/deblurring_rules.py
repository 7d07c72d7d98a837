"""Mean PSNR of `pnp deblur` over a grid of h and strength, from which the default rules were fitted.

    python -m benchmarks.deblurring_rules VALIDATION KERNELS --sigma 2.55 7.65

Every image is blurred with one kernel, in turn. Use images that are in no published table.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pnp_cli import Blur, Settings, kernels, plan_deblurring, psnr, weights
from pnp_cli.devices import choose_device

from .common import describe_machine, load_images, print_table


def middle(image: Tensor, side: int) -> Tensor:
    """The middle `side` x `side` pixels."""
    top, left = (max(0, (n - side) // 2) for n in image.shape[2:])
    return image[:, :, top : top + side, left : left + side]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("kernels", type=Path)
    parser.add_argument("--limit", type=int, default=4)
    parser.add_argument("--every", type=int, default=8, help="take every so many-th image")
    parser.add_argument("--crop", type=int, default=256, help="side of the crop from the middle of each image")
    parser.add_argument("--sigma", nargs="+", type=float, default=[1, 2.55, 7.65, 15], help="noise, 0-255 scale")
    parser.add_argument("--h", nargs="+", type=float, default=[5, 10, 20], help="times 2.55/sigma; the envelope")
    parser.add_argument("--strength", nargs="+", type=float, default=[0.5, 0.7, 1, 1.4, 2], help="times sigma")
    parser.add_argument("--data-term", choices=["envelope", "least-squares"], default="envelope")
    parser.add_argument("--max-iter", type=int, default=40)
    parser.add_argument("--weights", default="huber")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()

    device = choose_device(arguments.device)
    loaded = weights.load(arguments.weights, device)
    images = [middle(x, arguments.crop) for x in load_images(arguments.images, arguments.limit, arguments.every)]
    files = sorted(p for p in arguments.kernels.iterdir() if p.suffix in (".npy", ".mat", ".png"))
    psfs = [kernels.from_file(file)[0] for file in files]
    print(f"{len(images)} images of {arguments.images.name}; {describe_machine(device)}")
    for sigma in arguments.sigma:
        problems = []
        for i, (clean, psf) in enumerate(zip(images, itertools.cycle(psfs), strict=False)):
            clean = clean.to(device)
            blur = Blur(psf, (clean.shape[2], clean.shape[3]), device=device)
            noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(i)).to(device)
            problems.append((clean, blur, blur.forward(clean) + sigma / 255 * noise))
        rows = []
        for h in arguments.h if arguments.data_term == "envelope" else [1.0]:
            cells = []
            for strength in arguments.strength:
                settings = Settings.for_noise(
                    sigma / 255,
                    data_term=arguments.data_term,
                    strength=strength * sigma / 255,
                    envelope=h * 2.55 / sigma,
                    max_iter=arguments.max_iter,
                )
                scores = [
                    psnr(
                        clean.cpu().numpy(),
                        plan_deblurring(y, blur, loaded.network, loaded.certificate, settings)
                        .run()
                        .value.cpu()
                        .numpy(),
                    )
                    for clean, blur, y in problems
                ]
                cells.append(f"{np.mean(scores):.2f}")
            rows.append([f"h = {h * 2.55 / sigma:.3g}", *cells])
            print(f"  {sigma:g}: " + " ".join(rows[-1]), flush=True)
        print(f"\nnoise {sigma:g}, {arguments.data_term}, {arguments.max_iter} iterations at most\n")
        print_table(["", *(f"strength {s * sigma:.3g}" for s in arguments.strength)], rows)


if __name__ == "__main__":
    with torch.no_grad():
        main()
