"""Denoisers on noise they were not trained for, and on images that provoke artefacts.

    python -m benchmarks.robustness CBSD68 --every 6

First table: mean PSNR over the images for noise levels between and beyond the trained ones, noise that depends on
the signal, is correlated, or was clipped and rounded to 8 bits; the level given to the denoiser is the true
standard deviation. Second table: what the denoiser does where nothing or hardly anything should happen.

* clean: PSNR of the output for a clean image against the image itself, at level 0.
* flat: largest deviation of the mean, over grey, black, white and red noisy images, in levels of 255.
* frame: mean error on the outermost 4 pixels minus that inside, the largest over those images at σ = 50, in levels.
* colour: largest shift of a channel's mean over the images, in levels of 255.
* grid: power of the error at the frequencies of the pixel-unshuffle (multiples of 1/4) relative to the frequencies
  around them, mean over images, in dB; 0 is no grid.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pnp_cli import Polyphase, psnr, weights
from pnp_cli.data import load_folders, to_grey
from pnp_cli.devices import choose_device

from .common import describe_machine, print_table

Restore = Callable[[Tensor, float], Tensor]
Corrupt = Callable[[Tensor, Tensor], Tensor]
"""Of a clean image and standard Gaussian noise, a noisy image."""


def gaussian(sigma: float) -> Corrupt:
    """White noise of level sigma (0-255)."""
    return lambda x, noise: x + sigma / 255 * noise


def correlated(sigma: float) -> Corrupt:
    """Noise of level sigma (0-255) smoothed by a 2 x 2 mean, as demosaicking leaves it."""

    def corrupt(x: Tensor, noise: Tensor) -> Tensor:
        smooth = F.avg_pool2d(F.pad(noise, (0, 1, 0, 1), mode="reflect"), 2, stride=1)
        return x + sigma / 255 * smooth / smooth.std()

    return corrupt


def photon(sigma: float) -> Corrupt:
    """Noise whose variance follows the brightness, of level sigma (0-255) on the whole."""

    def corrupt(x: Tensor, noise: Tensor) -> Tensor:
        signal = noise * x.clamp_min(0).sqrt()
        return x + sigma / 255 * signal / signal.square().mean().sqrt()

    return corrupt


def eight_bits(sigma: float) -> Corrupt:
    """White noise, clipped to [0, 1] and rounded to 8 bits."""
    return lambda x, noise: ((x + sigma / 255 * noise).clamp(0, 1) * 255).round() / 255


CORRUPTIONS: dict[str, tuple[float, Corrupt]] = {
    **{f"σ = {sigma:g}": (sigma, gaussian(sigma)) for sigma in (2, 10, 35, 75, 100)},
    "correlated 25": (25, correlated(25)),
    "photon 25": (25, photon(25)),
    "8 bit, 25": (25, eight_bits(25)),
}


def grid_power(error: Tensor) -> float:
    """Power at multiples of a quarter of the sampling frequency over that in their neighbourhood, in dB."""
    side = min(error.shape[2:]) // 8 * 8
    power = torch.fft.fft2(error[0, :, :side, :side].double()).abs().square().mean(0)
    quarters = [q * side // 4 for q in range(4)]
    peaks, around = [], []
    for i in quarters:
        for j in quarters:
            if (i, j) == (0, 0):
                continue
            peaks.append(float(power[i, j]))
            near = [(i + a, j + b) for a in range(-3, 4) for b in range(-3, 4) if (a, b) != (0, 0)]
            around.append(float(np.mean([float(power[a % side, b % side]) for a, b in near])))
    return 10 * float(np.log10(sum(peaks) / sum(around)))


def artefacts(restore: Restore, images: list[Tensor]) -> list[str]:
    """Cells of the second table."""
    channels = images[0].shape[1]
    clean = [psnr(x.cpu().numpy(), restore(x, 0.0).cpu().numpy()) for x in images]
    noise = torch.randn(1, channels, 160, 161, generator=torch.Generator().manual_seed(0)).to(images[0].device)
    flats = [[0.5] * channels, [0.0] * channels, [1.0] * channels, [1.0, 0.0, 0.0][:channels]]
    shifts = []
    frame = 0.0
    for flat in flats:
        level = torch.tensor(flat, device=noise.device)[None, :, None, None]
        for sigma in (5, 25, 50):
            x = level + sigma / 255 * noise
            error = restore(x, sigma / 255) - level
            shifts.append(float((error - sigma / 255 * noise).mean((2, 3)).abs().max()))
            if sigma == 50:
                inside = error[:, :, 4:-4, 4:-4]
                outermost = (error.sum() - inside.sum()) / (error.numel() - inside.numel())
                frame = max(frame, float(outermost - inside.mean()), key=abs)
    colour, grid = [], []
    for i, x in enumerate(images):
        white = torch.randn(x.shape, generator=torch.Generator().manual_seed(i)).to(x.device)
        noisy = x + 25 / 255 * white
        error = restore(noisy, 25 / 255) - x
        colour.append(float((error - (noisy - x)).mean((2, 3)).abs().max()))
        grid.append(grid_power(error.cpu()))
    return [
        f"{np.mean(clean):.1f} dB",
        f"{255 * max(shifts):.2f}",
        f"{255 * frame:+.2f}",
        f"{255 * max(colour):.2f}",
        f"{np.mean(grid):+.1f} dB",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", nargs="+", default=["huber", "conditioned", "dncnn"])
    parser.add_argument("--every", type=int, default=6, help="every so many-th image")
    parser.add_argument("--grey", action="store_true", help="the luma of the images")
    parser.add_argument("--correlation", type=int, default=1, help="as that of `pnp denoise`")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()

    device = choose_device(arguments.device)
    pixels = load_folders([arguments.folder])[:: arguments.every]
    images = [(to_grey(x) if arguments.grey else x)[None].to(device).float() / 255 for x in pixels]
    print(f"{len(images)} images of {arguments.folder.name}; {describe_machine(device)}\n")

    restorers: dict[str, Restore] = {}
    for name in arguments.weights:
        network = weights.load(name, device).network
        network = Polyphase(arguments.correlation, network) if arguments.correlation > 1 else network
        restorers[name] = lambda x, s, n=network: n.estimate(x, s)  # type: ignore[misc]
    rows = []
    for name, restore in {"noisy": lambda x, _: x, **restorers}.items():
        cells = []
        for sigma, corrupt in CORRUPTIONS.values():
            scores = []
            for i, x in enumerate(images):
                noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(i)).to(device)
                scores.append(psnr(x.cpu().numpy(), restore(corrupt(x, noise), sigma / 255).cpu().numpy()))
            cells.append(f"{np.mean(scores):.2f}")
        rows.append([name, *cells])
    print_table(["weights", *CORRUPTIONS], rows)
    print()
    table = [[name, *artefacts(restore, images)] for name, restore in restorers.items()]
    print_table(["weights", "clean", "flat", "frame", "colour", "grid"], table)


if __name__ == "__main__":
    with torch.no_grad():
        main()
