"""What the benchmarks share: images by folder, the machine in words, Markdown tables."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pnp_cli import Choices, Polyphase, from_tensor, prepare_deblurring, read_image, to_tensor, weights
from pnp_cli.clipped_noise import restore_clipped, within_range_of
from pnp_cli.data import to_grey
from pnp_cli.denoising import NoiseToRemove
from pnp_cli.devices import describe_device
from pnp_cli.exposure import brightened, find_gain
from pnp_cli.images import Image, encode_image, list_images
from pnp_cli.kernels import Kernel, from_file
from pnp_cli.noise_curve import root_mean_square


def load_images(
    folder: Path, limit: int | None, step: int = 1, *, grey: bool = False, names: Sequence[str] | None = None
) -> list[Tensor]:
    """Images (1, C, H, W) of a folder by name, in colour or in grey: every `step`-th, the first `limit` of them.

    `names` picks images by their names without suffix.
    """
    paths = [path for path in list_images(folder) if not names or path.stem in names][::step][:limit]
    images = [to_tensor(read_image(path)) for path in paths]
    if grey:
        return [x if x.shape[1] == 1 else to_grey((255 * x[0]).round().byte())[None].float() / 255 for x in images]
    return [x.expand(-1, 3, -1, -1) for x in images]


def as_file(samples: Tensor, quality: int = 0) -> Image:
    """Samples (1, 3, H, W) after a round trip through a file of 8 bits: a JPEG of some quality, or a PNG for 0."""
    file = from_tensor(samples, Image(np.zeros((1, 1, 3), np.float32)))
    return read_image(encode_image(file, "JPEG" if quality else "PNG", quality=quality or 95))


def deblurred(y: Tensor, kernel: Kernel, denoiser: weights.LoadedDenoiser, choices: Choices) -> Tensor:
    """The frame that `pnp deblur` restores, (1, C, H, W); a RuntimeError if a check of the theory failed."""
    end = prepare_deblurring(y, kernel, denoiser, choices).run()
    if end.violations:
        raise RuntimeError(end.violations[0])
    return end.frame


def denoised(
    y: Tensor,
    denoiser: weights.LoadedDenoiser,
    noise: NoiseToRemove,
    gain: float | None = None,
    *,
    clipped: bool = True,
) -> Tensor:
    """What `pnp denoise` makes of an image (1, C, H, W), or would with another gain; see `exposure`."""
    network = Polyphase(noise.stride, denoiser.network) if noise.stride > 1 else denoiser.network
    whole = restore_clipped(y, noise.curve) if clipped else y
    levels = noise.curve.levels(whole)
    gain = find_gain(y, root_mean_square(levels)) if gain is None else gain
    result = brightened(gain, network).estimate(whole, levels)
    return result if whole is y else within_range_of(y, result)


def load_kernels(folder: Path) -> list[Kernel]:
    """Measured kernels (.npy, .mat, .png) of a folder by name."""
    return [from_file(p)[0] for p in sorted(folder.iterdir()) if p.suffix in (".npy", ".mat", ".png")]


def describe_machine(device: torch.device) -> str:
    """Processor, device and library, for the line above a table."""
    processor = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            processor = line.split(":", 1)[1].strip()
            break
    return f"{processor}, {describe_device(device)}, torch {torch.__version__}"


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table."""
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(row) + " |")


def figure(rows: int, columns: int, *, width: float = 2, height: float = 2) -> tuple[Any, Any, Any]:
    """Matplotlib without a display, a canvas, and its axes as a grid of rows; `width` and `height` in inches each."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    canvas, axes = pyplot.subplots(rows, columns, figsize=(width * columns, height * rows), squeeze=False)
    return pyplot, canvas, axes


def save_figure(pyplot: Any, canvas: Any, path: Path) -> None:
    """Write the picture and say where it is."""
    canvas.tight_layout()
    canvas.savefig(path, dpi=130)
    pyplot.close(canvas)
    print(f"\nwrote {path}")
