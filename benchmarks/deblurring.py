"""Restoration of blurred images: mean PSNR, SSIM, iterations and seconds of every method.

    python -m benchmarks.deblurring CBSD68 KERNELS --limit 10 --sigma 2.55 7.65 --boundary periodic free
    python -m benchmarks.deblurring SET12 KERNELS --grey --names 01 02 05

KERNELS is a folder of .npy, .mat or .png kernels. With --boundary periodic the images are blurred and restored
periodically; with free they are the scene, of which a frame is observed. Noise is Gaussian, not clipped. "deblur" is
`pnp deblur` with nothing set, the noise level estimated; "deblur huber" the same with the plain denoiser; "ista" is
`pnp ista` with nothing set. The others are given what they need: "wiener" is scikit-image's unsupervised_wiener,
"lucy" its richardson_lucy (both know periodic or zero boundaries only), "tv" is total variation with the weight that
was best on validation images; "least-squares" is `pnp deblur --data-term least-squares`.
PSNR has peak 1.0 over the full frame, SSIM as in `pnp psnr`. "in the frame" is the PSNR over the pixels of the free
frame, "in the middle" over those a kernel or more away from the border of the image: the same for both boundaries.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from skimage.restoration import richardson_lucy, unsupervised_wiener
from torch import Tensor

from pnp_cli import (
    Blur,
    Choices,
    LeastSquares,
    SparseProblem,
    estimate_noise_under_blur,
    ista,
    make_transform,
    prepare_deblurring,
    psnr,
    ssim,
    weights,
)
from pnp_cli.boundaries import BOUNDARIES
from pnp_cli.devices import choose_device
from pnp_cli.sparse import rule_gamma
from pnp_cli.transforms import cycle, from_opponent, to_opponent

from .common import describe_machine, load_images, load_kernels, print_table
from .total_variation import rule_weight, total_variation


@dataclass(frozen=True)
class Restored:
    """A frame (1, C, H, W), how many iterations it took, 0 for a direct method, and what `pnp` reports of it."""

    image: Tensor
    iterations: int = 0
    converged: bool = True
    discrepancy: float | None = None


METHODS = ["blurred", "wiener", "lucy", "tv", "ista", "least-squares", "deblur huber", "deblur"]
Method = Callable[[Tensor, Blur, np.ndarray, float], Restored]
Region = tuple[slice, slice]


def blurred(y: Tensor, blur: Blur, kernel: np.ndarray, noise: float) -> Restored:
    """The input itself."""
    return Restored(y)


def wiener(y: Tensor, blur: Blur, kernel: np.ndarray, noise: float) -> Restored:
    """scikit-image's unsupervised Wiener-Hunt deconvolution, channel by channel."""

    def plane(values: np.ndarray) -> np.ndarray:
        np.random.seed(0)  # noqa: NPY002 - some versions draw from the global generator
        return np.asarray(unsupervised_wiener(values, kernel, clip=False, rng=0)[0])

    return by_plane(y, plane)


def lucy(y: Tensor, blur: Blur, kernel: np.ndarray, noise: float) -> Restored:
    """scikit-image's Richardson-Lucy deconvolution, channel by channel, 30 iterations."""
    steps = 30
    odd = np.pad(kernel, [(0, 1 - side % 2) for side in kernel.shape])  # its origin is the middle of an odd kernel
    result = by_plane(y.clamp(min=0), lambda values: richardson_lucy(values, odd, num_iter=steps))
    return Restored(result.image, steps)


def by_plane(y: Tensor, restore: Callable[[np.ndarray], np.ndarray]) -> Restored:
    """A method for single planes (H, W), which knows nothing beyond the frame."""
    planes = [restore(plane) for plane in y[0].cpu().numpy().astype(np.float64)]
    return Restored(torch.from_numpy(np.stack(planes)).float()[None])


def tv(y: Tensor, blur: Blur, kernel: np.ndarray, noise: float) -> Restored:
    """Total variation."""
    start = blur.boundary.extrapolate(y)
    scene = total_variation(LeastSquares(blur, y), start, rule_weight(noise))
    return Restored(blur.boundary.frame_of(scene), 300)


def sparse(y: Tensor, blur: Blur, kernel: np.ndarray, noise: float) -> Restored:
    """`pnp ista` with its defaults; the noise level is estimated."""
    double = Blur(kernel, blur.size, type(blur.boundary), device=y.device, dtype=torch.float64)
    data = to_opponent(y.double())
    estimate = estimate_noise_under_blur(y[0].permute(1, 2, 0).cpu().numpy(), kernel)
    problem = SparseProblem(LeastSquares(double, data), cycle(make_transform("dct4"), 4), rule_gamma(estimate))
    solution = ista(problem, double.boundary.extrapolate(data))
    return Restored(
        from_opponent(double.boundary.frame_of(solution.value)).float(),
        solution.records[-1].iteration,
        solution.converged,
        problem.fidelity.discrepancy(solution.value, estimate),
    )


def plug_and_play(name: str, device: torch.device, **settings: object) -> Method:
    """`pnp deblur` with its defaults and `settings`; the noise level is estimated."""
    shelf = weights.Shelf(name, device)

    def restore(y: Tensor, blur: Blur, kernel: np.ndarray, noise: float) -> Restored:
        boundary = "periodic" if blur.boundary.scene == blur.size else "free"
        chosen = Choices(boundary=boundary, patch=0, settings=settings)
        deblurring = prepare_deblurring(y, kernel, shelf.get(y.shape[1]), chosen)
        deblurring.guarantee.require()
        end = deblurring.run()
        if end.violations:
            raise RuntimeError(end.violations[0])
        return Restored(end.frame, end.solution.iterations, end.converged, end.discrepancy)

    return restore


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("kernels", type=Path)
    parser.add_argument("--limit", type=int, default=10, help="the first so many images")
    parser.add_argument("--names", nargs="+", help="only the images of these names, without suffix")
    parser.add_argument("--grey", action="store_true", help="in grey")
    parser.add_argument("--sigma", nargs="+", type=float, default=[2.55, 7.65], help="noise, 0-255 scale")
    parser.add_argument("--boundary", nargs="+", default=["periodic"], choices=["periodic", "free"])
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--weights", default="conditioned")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()

    device = choose_device(arguments.device)
    available: dict[str, Method] = {
        "blurred": blurred,
        "wiener": wiener,
        "lucy": lucy,
        "tv": tv,
        "ista": sparse,
        "least-squares": plug_and_play(arguments.weights, device, data_term="least-squares"),
        "deblur": plug_and_play(arguments.weights, device),
        "deblur huber": plug_and_play("huber", device),
    }
    methods = {name: available[name] for name in arguments.methods}
    images = load_images(arguments.images, arguments.limit, grey=arguments.grey, names=arguments.names)
    psfs = load_kernels(arguments.kernels)
    print(f"{len(images)} images of {arguments.images.name} x {len(psfs)} kernels; {describe_machine(device)}\n")
    rows = []
    for boundary, sigma in itertools.product(arguments.boundary, arguments.sigma):
        for label, method in methods.items():
            scores, similarities, iterations, seconds, left, unfinished = [], [], [], [], [], 0
            framed, middle = [], []
            for j, kernel in enumerate(psfs):
                for i, clean in enumerate(images):
                    truth, blur, y = problem(clean.to(device), kernel, boundary, sigma / 255, seed=100 * i + j)
                    start = time.perf_counter()
                    result = method(y, blur, kernel, sigma / 255)
                    seconds.append(time.perf_counter() - start)
                    true, found = (t[0].permute(1, 2, 0).cpu().numpy() for t in (truth, result.image))
                    scores.append(psnr(true, found))
                    frame, inner = same_pixels(clean.shape[2:], kernel, boundary)
                    framed.append(psnr(true[frame], found[frame]))
                    middle.append(psnr(true[inner], found[inner]))
                    similarities.append(ssim(true, found))
                    iterations.append(result.iterations)
                    left += [result.discrepancy] if result.discrepancy else []
                    unfinished += not result.converged
            rows.append(
                [
                    boundary,
                    f"{sigma:g}",
                    label,
                    f"{np.mean(scores):.2f}",
                    f"{np.mean(framed):.2f}",
                    f"{np.mean(middle):.2f}",
                    f"{np.mean(similarities):.3f}",
                    f"{np.mean(iterations):.0f}" + (f" ({unfinished} at the limit)" if unfinished else ""),
                    f"{np.mean(seconds):.1f}",
                    f"{min(left):.2f} to {max(left):.2f}" if left else "",
                ]
            )
            print(" ".join(rows[-1]), flush=True)
    print()
    header = ["boundary", "σ", "method", "PSNR", "in the frame", "in the middle", "SSIM"]
    print_table([*header, "iterations", "seconds", "discrepancy"], rows)


def problem(clean: Tensor, kernel: np.ndarray, boundary: str, noise: float, seed: int) -> tuple[Tensor, Blur, Tensor]:
    """The true image in the frame, the blur, and the blurred and noisy frame.

    The free boundary keeps the part of the periodic blur that depends on the image alone.
    """
    height, width = clean.shape[2:]
    h, w = kernel.shape
    seen = Blur(kernel, (height, width), device=clean.device).forward(clean)
    if boundary == "free":
        rows, columns = frame_in(height, h), frame_in(width, w)
        clean, seen = (t[:, :, rows, columns] for t in (clean, seen))
    y = seen + noise * torch.randn(seen.shape, generator=torch.Generator().manual_seed(seed)).to(seen)
    return clean, Blur(kernel, (y.shape[2], y.shape[3]), BOUNDARIES[boundary], device=clean.device), y


def frame_in(length: int, kernel: int) -> slice:
    """Rows (or columns) of a blurred image that depend on the image alone, for a kernel of so many rows."""
    before = kernel - 1 - kernel // 2
    return slice(before, before + length - kernel + 1)


def same_pixels(size: Sequence[int], kernel: np.ndarray, boundary: str) -> tuple[Region, Region]:
    """Where the pixels lie by which periodic and free results compare, in the frame that a problem has.

    Those of the free frame, and those of the image that are a kernel or more away from its border.
    """
    frames = [frame_in(n, k) for n, k in zip(size, kernel.shape, strict=True)]
    inner = [slice(k, n - k) for n, k in zip(size, kernel.shape, strict=True)]
    if boundary == "free":
        inner = [slice(i.start - f.start, i.stop - f.start) for i, f in zip(inner, frames, strict=True)]
        frames = [slice(None), slice(None)]
    return (frames[0], frames[1]), (inner[0], inner[1])


if __name__ == "__main__":
    with torch.no_grad():
        main()
