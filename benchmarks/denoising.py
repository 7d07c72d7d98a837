"""Mean PSNR of denoisers on the images of a folder, with the time per image.

    python -m benchmarks.denoising CBSD68 --weights huber euler dncnn

Noise is Gaussian, not clipped, its seed the number of the image; PSNR has peak 1.0.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from pnp_cli import Ensemble, weights
from pnp_cli.data import load_folders
from pnp_cli.devices import choose_device
from pnp_cli.training import validate

from .common import describe_machine, print_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", nargs="+", default=["huber", "euler", "dncnn"])
    parser.add_argument("--sigma", nargs="+", type=float, default=[5, 15, 25, 50], help="0-255 scale")
    parser.add_argument("--limit", type=int, help="the first so many images only")
    parser.add_argument("--ensemble", action="store_true", help="mean over the 8 flips and rotations")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()

    device = choose_device(arguments.device)
    images = load_folders([arguments.folder])[: arguments.limit]
    print(f"{len(images)} images of {arguments.folder.name}; {describe_machine(device)}\n")
    rows = []
    for name in arguments.weights:
        loaded = weights.load(name, device, grid=64)
        network = Ensemble(loaded.network) if arguments.ensemble else loaded.network
        start = time.perf_counter()
        scores = validate(network, images, arguments.sigma)
        seconds = (time.perf_counter() - start) / len(images) / len(arguments.sigma)
        proof = f"averaged, α = {loaded.certificate.alpha:.3f}" if loaded.certificate.averaged else "nothing"
        parameters = sum(p.numel() for p in loaded.network.parameters())
        cells = [f"{scores[sigma]:.2f}" for sigma in arguments.sigma]
        rows.append([name, proof, f"{parameters / 1000:.0f} k", *cells, f"{seconds:.2f} s"])
    levels = [f"σ = {sigma:g}" for sigma in arguments.sigma]
    print_table(["weights", "proven", "parameters", *levels, "per image"], rows)


if __name__ == "__main__":
    with torch.no_grad():
        main()
