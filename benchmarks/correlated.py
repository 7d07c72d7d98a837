"""What denoising and deblurring gain by finding out that neighbouring pixels share their noise.

    python -m benchmarks.correlated IMAGES
    python -m benchmarks.correlated IMAGES KERNELS

Without kernels it is `pnp denoise`, of white noise of the level of the table that was smoothed ("mean": over 2 × 2
pixels, at the same level, "zoom": by enlarging 1.5 times, "mosaic": by demosaicking as Malvar, He & Cutler, 2004), or
of photographs ("camera": the light of the images, with photon noise of that level on the whole, seen through a mosaic,
demosaicked, and bent by the sRGB curve), stored as PNG or JPEG. "best white level" has the level of `--levels` that is
best for each image, which nobody knows who has no truth to compare with. With kernels it is `pnp deblur`, of images
that are blurred beyond the frame and noise smoothed over 2 × 2 pixels. As in these commands, the noise is found out and
nothing else set.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import convolve, uniform_filter, zoom
from torch import Tensor

from pnp_cli import Choices, NoiseCurve, psnr, to_tensor, weights
from pnp_cli.denoising import NoiseToRemove, noise_to_remove
from pnp_cli.devices import choose_device
from pnp_cli.light import to_light, to_samples

from .common import as_file, deblurred, denoised, describe_machine, load_images, load_kernels, print_table
from .deblurring import problem
from .deblurring_rules import middle

Planes = npt.NDArray[np.float64]

GREEN = np.array([[0, 0, -2, 0, 0], [0, 0, 4, 0, 0], [-2, 4, 8, 4, -2], [0, 0, 4, 0, 0], [0, 0, -2, 0, 0]]) / 16
ACROSS = np.array([[0, 0, 1, 0, 0], [0, -2, 0, -2, 0], [-2, 8, 10, 8, -2], [0, -2, 0, -2, 0], [0, 0, 1, 0, 0]]) / 16
OPPOSITE = np.array([[0, 0, -3, 0, 0], [0, 4, 0, 4, 0], [-3, 0, 12, 0, -3], [0, 4, 0, 4, 0], [0, 0, -3, 0, 0]]) / 16
"""Filters of Malvar, He & Cutler (2004): green at red and blue; red and blue at green, by the direction; each at the
other."""


def through_mosaic(planes: Planes) -> Planes:
    """Red, green and blue (3, H, W), sampled by a mosaic of rows RGRG and GBGB, and demosaicked."""
    rows, columns = np.indices(planes.shape[1:]) % 2
    red, blue = (rows == 0) & (columns == 0), (rows == 1) & (columns == 1)
    mosaic = np.where(red, planes[0], np.where(blue, planes[2], planes[1]))
    green, across, down, opposite = (
        convolve(mosaic, kernel, mode="mirror") for kernel in (GREEN, ACROSS, ACROSS.T, OPPOSITE)
    )
    return np.stack(
        [
            np.where(red, mosaic, np.where(blue, opposite, np.where(rows == 0, across, down))),
            np.where(red | blue, green, mosaic),
            np.where(blue, mosaic, np.where(red, opposite, np.where(rows == 0, down, across))),
        ]
    )


def noise_of(kind: str, shape: tuple[int, ...], seed: int) -> Planes:
    """Noise (3, H, W) that neighbours share: "mean", of level 1, or white noise of level 1 after "zoom" or "mosaic"."""
    rng = np.random.default_rng(seed)
    if kind == "zoom":
        small = rng.standard_normal((3, *(2 * n // 3 + 2 for n in shape[1:])))
        return np.asarray(zoom(small, (1, 1.5, 1.5), order=1)[:, : shape[1], : shape[2]])
    white = rng.standard_normal(shape)
    return through_mosaic(white) if kind == "mosaic" else 2 * uniform_filter(white, (0, 2, 2))


def photographed(samples: Tensor, sigma: float, seed: int) -> Tensor:
    """Samples (1, 3, H, W) whose light was seen by a sensor, with photon noise of a level on the whole."""
    light = to_light(samples)[0].double().numpy()
    noise = np.random.default_rng(seed).standard_normal(light.shape)
    seen = light + sigma * np.sqrt(light / light.mean()) * noise
    return to_samples(torch.from_numpy(through_mosaic(seen)).float()[None])


def denoising(arguments: argparse.Namespace, images: list[Tensor], loaded: weights.LoadedDenoiser) -> None:
    """The table of `pnp denoise`."""
    rows = []
    for kind in arguments.kinds:
        for sigma in arguments.sigma or [5, 15]:
            for quality in arguments.quality:
                scores = []
                for i, whole in enumerate(images):
                    truth = middle(whole, arguments.crop)
                    if kind == "camera":
                        y = photographed(truth, sigma / 255, i)
                    else:
                        noise = noise_of(kind, tuple(truth.shape[1:]), i)
                        y = truth + sigma / 255 * torch.from_numpy(noise).float()
                    file = as_file(y, quality)
                    y = to_tensor(file)
                    found = [noise_to_remove(file.pixels, file.jpeg, correlation) for correlation in (1, None)]
                    known = [NoiseToRemove(NoiseCurve.white(level / 255)) for level in arguments.levels]
                    results = [denoised(y, loaded, noise).clamp(0, 1) for noise in found + known]
                    values = [psnr(truth.numpy(), result.numpy()) for result in [y, *results]]
                    scores.append([*values[:3], max(values[3:])])
                means = [f"{value:.2f}" for value in np.mean(scores, axis=0)]
                rows.append([kind, f"{sigma:g}", f"JPEG {quality}" if quality else "PNG", *means])
                print(" ".join(rows[-1]), flush=True)
    print()
    print_table(["noise", "σ", "file", "PSNR noisy", "--correlation 1", "denoise", "best white level"], rows)


def deblurring(arguments: argparse.Namespace, images: list[Tensor], loaded: weights.LoadedDenoiser) -> None:
    """The table of `pnp deblur`."""
    psfs = load_kernels(arguments.kernels)
    rows = []
    for sigma in arguments.sigma or [1, 2.55, 7.65]:
        scores = []
        for i, whole in enumerate(images):
            psf = psfs[i % len(psfs)]
            truth, _, seen = problem(middle(whole, arguments.crop), psf, "free", 0, seed=i)
            y = seen + sigma / 255 * torch.from_numpy(noise_of("mean", tuple(seen.shape[1:]), i)).float()
            values = [psnr(truth.numpy(), y.numpy())]
            for n in (1, None):
                frame = deblurred(y, psf, loaded, Choices(correlation=n))
                values.append(psnr(truth.numpy(), frame.numpy()))
            scores.append(values)
        rows.append([f"{sigma:g}", *(f"{value:.2f}" for value in np.mean(scores, axis=0))])
        print(" ".join(rows[-1]), flush=True)
    print()
    print_table(["σ", "PSNR blurred", "deblur --correlation 1", "deblur"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("kernels", type=Path, nargs="?", help="none for images that are not blurred")
    parser.add_argument("--every", type=int, default=10, help="every so many-th image, each with the next kernel")
    parser.add_argument("--crop", type=int, default=224, help="side of the part in the middle that is used")
    parser.add_argument("--sigma", nargs="+", type=float, help="noise, 0-255 scale")
    parser.add_argument(
        "--kinds", nargs="+", default=["mean", "zoom", "mosaic", "camera"], help="of noise, not blurred"
    )
    parser.add_argument("--quality", nargs="+", type=int, default=[0, 90], help="of a JPEG, not blurred; 0 for a PNG")
    parser.add_argument("--levels", nargs="+", type=float, default=[4, 6, 9, 13, 18, 25], help="white levels")
    arguments = parser.parse_args()

    loaded = weights.load("conditioned")
    images = load_images(arguments.images, None, arguments.every)
    print(f"{len(images)} images of {arguments.images.name}; {describe_machine(choose_device('cpu'))}\n")
    (deblurring if arguments.kernels else denoising)(arguments, images, loaded)


if __name__ == "__main__":
    with torch.no_grad():
        main()
