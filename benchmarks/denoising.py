"""Mean PSNR of denoisers on the images of a folder, with the time per image.

    python -m benchmarks.denoising CBSD68
    python -m benchmarks.denoising CBSD68 --grey --weights huber-grey conditioned
    python -m benchmarks.denoising CBSD68 --limit 8 --weights huber conditioned dncnn bm3d

"bm3d" is BM3D of its authors (pip install bm3d), CBM3D for colour images. Noise is Gaussian, not clipped, its seed
the number of the image; PSNR has peak 1.0. Conditioned weights make both passes, the reference computed from
the noisy image.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pnp_cli import Ensemble, weights
from pnp_cli.data import load_folders, to_grey
from pnp_cli.devices import choose_device
from pnp_cli.training import validate

from .common import describe_machine, print_table


@dataclass(frozen=True)
class Method:
    """A row of the table: what is proven, how many parameters, and the denoiser itself."""

    proof: str
    parameters: int
    restore: Callable[[Tensor, float], Tensor]


def network(name: str, ensemble: bool, device: torch.device) -> Method:
    """A weight file."""
    loaded = weights.load(name, device, grid=64)
    denoiser = Ensemble(loaded.network) if ensemble else loaded.network
    proof = "nothing"
    if loaded.certificate.averaged:
        proof = f"averaged, α = {loaded.certificate.alpha:.3f}"
        if loaded.network.takes_reference:
            proof += ", reference fixed"

    def restore(x: Tensor, sigma: float) -> Tensor:
        return denoiser.estimate(x, sigma)

    return Method(proof, sum(p.numel() for p in loaded.network.parameters()), restore)


def bm3d() -> Method:
    """The published method; it wants the height and width first."""
    from bm3d import bm3d as grey
    from bm3d import bm3d_rgb as colour

    def restore(x: Tensor, sigma: float) -> Tensor:
        pixels = x[0].permute(1, 2, 0).double().numpy()
        out = colour(pixels, sigma) if len(x[0]) == 3 else grey(pixels[..., 0], sigma)[..., None]
        return torch.from_numpy(out).permute(2, 0, 1)[None].to(x.dtype)

    return Method("nothing", 0, restore)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", nargs="+", default=["huber", "conditioned", "euler", "dncnn"])
    parser.add_argument("--sigma", nargs="+", type=float, default=[5, 15, 25, 50], help="0-255 scale")
    parser.add_argument("--limit", type=int, help="the first so many images only")
    parser.add_argument("--every", type=int, default=1, help="every so many-th image only")
    parser.add_argument("--grey", action="store_true", help="the luma of the images")
    parser.add_argument("--ensemble", action="store_true", help="mean over the 8 flips and rotations")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()

    device = choose_device(arguments.device)
    images = load_folders([arguments.folder])[:: arguments.every][: arguments.limit]
    if arguments.grey:
        images = [to_grey(image) for image in images]
    kind = " in grey" if arguments.grey else ""
    print(f"{len(images)} images of {arguments.folder.name}{kind}; {describe_machine(device)}\n")
    rows = []
    for name in arguments.weights:
        method = bm3d() if name == "bm3d" else network(name, arguments.ensemble, device)
        start = time.perf_counter()
        scores = validate(method.restore, images, arguments.sigma, device=device)
        seconds = (time.perf_counter() - start) / len(images) / len(arguments.sigma)
        size = f"{method.parameters / 1000:.0f} k" if method.parameters else ""
        cells = [f"{scores[sigma]:.2f}" for sigma in arguments.sigma]
        rows.append([name, method.proof, size, *cells, f"{seconds:.2f} s"])
    levels = [f"σ = {sigma:g}" for sigma in arguments.sigma]
    print_table(["weights", "proven", "parameters", *levels, "per image"], rows)


if __name__ == "__main__":
    with torch.no_grad():
        main()
