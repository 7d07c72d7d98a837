"""Restoration of periodically blurred images: mean PSNR, iterations and seconds of every method.

    python -m benchmarks.deblurring CBSD68 KERNELS --limit 10 --sigma 2.55 7.65

KERNELS is a folder of .npy, .mat or .png kernels. Noise is Gaussian, not clipped; every method knows its
level (0-255 scale), except "wiener", scikit-image's unsupervised_wiener, which estimates it; "ista" is
`pnp ista --fista`, "deblur" is `pnp deblur`, "deblur huber" the same with the plain denoiser, "least-squares" is
`pnp deblur --data-term least-squares`.
PSNR has peak 1.0 over the full frame, SSIM as in `pnp psnr`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from skimage.restoration import unsupervised_wiener
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
    ssim,
    weights,
)
from pnp_cli.devices import choose_device
from pnp_cli.sparse import rule_gamma

from .common import describe_machine, load_images, print_table


@dataclass(frozen=True)
class Restored:
    """An image (1, C, H, W) and how many iterations it took, 0 for a direct method."""

    image: Tensor
    iterations: int = 0
    converged: bool = True


METHODS = ["blurred", "wiener", "ista", "least-squares", "deblur huber", "deblur"]
Method = Callable[[Tensor, Blur, np.ndarray, float], Restored]


def blurred(y: Tensor, blur: Blur, kernel: np.ndarray, noise: float) -> Restored:
    """The input itself."""
    return Restored(y)


def wiener(y: Tensor, blur: Blur, kernel: np.ndarray, noise: float) -> Restored:
    """scikit-image's unsupervised Wiener-Hunt deconvolution, channel by channel."""
    planes = []
    for plane in y[0].cpu().numpy().astype(np.float64):
        np.random.seed(0)  # noqa: NPY002 - some versions draw from the global generator
        planes.append(unsupervised_wiener(plane, kernel, clip=False, rng=0)[0])
    return Restored(torch.from_numpy(np.stack(planes)).float()[None])


def sparse(y: Tensor, blur: Blur, kernel: np.ndarray, noise: float) -> Restored:
    """`pnp ista --fista` with its defaults."""
    problem = SparseProblem(LeastSquares(blur, y), make_transform("db4"), rule_gamma(noise))
    solution = ista(problem, y, accelerated=True)
    return Restored(solution.value, solution.records[-1].iteration, solution.converged)


def plug_and_play(name: str, device: torch.device, **choices: object) -> Method:
    """`pnp deblur` with its defaults and `choices`."""
    loaded = weights.load(name, device)

    def restore(y: Tensor, blur: Blur, kernel: np.ndarray, noise: float) -> Restored:
        settings = Settings.for_noise(noise, loaded.network, **choices)  # type: ignore[arg-type]
        plan = plan_deblurring(y, blur, loaded.network, loaded.certificate, settings)
        plan.guarantee.require()
        solution = plan.run()
        if solution.violations:
            raise RuntimeError(solution.violations[0])
        return Restored(solution.value, solution.iterations, solution.converged)

    return restore


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("kernels", type=Path)
    parser.add_argument("--limit", type=int, default=10, help="the first so many images")
    parser.add_argument("--sigma", nargs="+", type=float, default=[2.55, 7.65], help="noise, 0-255 scale")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--weights", default="conditioned")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()

    device = choose_device(arguments.device)
    available: dict[str, Method] = {
        "blurred": blurred,
        "wiener": wiener,
        "ista": sparse,
        "least-squares": plug_and_play(arguments.weights, device, data_term="least-squares"),
        "deblur": plug_and_play(arguments.weights, device),
        "deblur huber": plug_and_play("huber", device),
    }
    methods = {name: available[name] for name in arguments.methods}
    images = load_images(arguments.images, arguments.limit)
    files = sorted(p for p in arguments.kernels.iterdir() if p.suffix in (".npy", ".mat", ".png"))
    print(f"{len(images)} images of {arguments.images.name} x {len(files)} kernels; {describe_machine(device)}\n")
    rows = []
    for sigma in arguments.sigma:
        for label, method in methods.items():
            scores, similarities, iterations, seconds, unfinished = [], [], [], [], 0
            for j, file in enumerate(files):
                kernel, _ = kernels.from_file(file)
                for i, clean in enumerate(images):
                    blur = Blur(kernel, (clean.shape[2], clean.shape[3]), device=device)
                    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(100 * i + j))
                    y = blur.forward(clean.to(device)) + sigma / 255 * noise.to(device)
                    start = time.perf_counter()
                    result = method(y, blur, kernel, sigma / 255)
                    seconds.append(time.perf_counter() - start)
                    truth, image = (t[0].permute(1, 2, 0).cpu().numpy() for t in (clean, result.image))
                    scores.append(psnr(truth, image))
                    similarities.append(ssim(truth, image))
                    iterations.append(result.iterations)
                    unfinished += not result.converged
            rows.append(
                [
                    f"{sigma:g}",
                    label,
                    f"{np.mean(scores):.2f}",
                    f"{np.mean(similarities):.3f}",
                    f"{np.mean(iterations):.0f}" + (f" ({unfinished} at the limit)" if unfinished else ""),
                    f"{np.mean(seconds):.1f}",
                ]
            )
            print(" ".join(rows[-1]), flush=True)
    print()
    print_table(["σ", "method", "PSNR", "SSIM", "iterations", "seconds"], rows)


if __name__ == "__main__":
    with torch.no_grad():
        main()
