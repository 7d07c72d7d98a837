"""Denoisers applied 1 to 200 times to one image: strip of results, curves of residual and PSNR (PNG).

    python -m benchmarks.stability PHOTO --sigma 25 -o stability.png

The photograph gets noise of that level, and every network is applied again and again with it. An averaged map
settles: its residuals are nonincreasing. Nothing keeps an unconstrained one from drifting. A conditioned network
keeps the reference of its first application.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import torch
from torch import Tensor

from pnp_cli import psnr, read_image, to_tensor, weights
from pnp_cli.devices import choose_device
from pnp_cli.solvers import Record, fixed_point

from .common import describe_machine, figure, print_table, save_figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path)
    parser.add_argument("--output", "-o", type=Path, default=Path("stability.png"))
    parser.add_argument("--weights", nargs="+", default=["huber", "conditioned", "euler", "dncnn"])
    parser.add_argument("--sigma", type=float, default=25, help="0-255 scale")
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument(
        "--show", nargs="+", type=int, default=[1, 3, 10, 30, 100, 200], help="applications in the strip"
    )
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()

    device = choose_device(arguments.device)
    clean = to_tensor(read_image(arguments.image), device)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    noisy = clean + arguments.sigma / 255 * noise.to(device)
    shown = [n for n in arguments.show if n <= arguments.times]
    print(f"{arguments.image.name}, noise {arguments.sigma:g}; {describe_machine(device)}\n")

    plt, canvas, grid = figure(len(arguments.weights), len(shown) + 2)
    rows = []
    for row, name in enumerate(arguments.weights):
        operator = weights.load(name, device).network.condition(noisy, arguments.sigma / 255)
        scores: list[float] = []
        pictures: dict[int, Tensor] = {}

        def note(
            record: Record, x: Tensor, scores: list[float] = scores, pictures: dict[int, Tensor] = pictures
        ) -> None:
            scores.append(psnr(clean.cpu().numpy(), x.cpu().numpy()))
            if record.iteration in shown:
                pictures[record.iteration] = x[0].cpu()

        solution = fixed_point(
            lambda x, n=operator: n(x, arguments.sigma / 255),  # type: ignore[misc]
            noisy,
            tol=0.0,
            max_iter=arguments.times,
            callback=note,
        )
        residuals = [record.residual for record in solution.records]
        grows = sum(b > a for a, b in itertools.pairwise(residuals))
        rows.append(
            [name, f"{scores[0]:.2f}", f"{scores[-1]:.2f}", f"{residuals[0]:.3g}", f"{residuals[-1]:.3g}", str(grows)]
        )
        for column, n in enumerate(shown):
            axes = grid[row][column]
            axes.set_axis_off()
            axes.set_title(f"{name}, {n}×" if column == 0 else f"{n}×", fontsize=8)
            if n in pictures:
                axes.imshow(pictures[n].clamp(0, 1).permute(1, 2, 0).squeeze(-1), cmap="gray", vmin=0, vmax=1)
        grid[row][-2].semilogy(range(1, len(residuals) + 1), residuals)
        grid[row][-2].set_title("residual", fontsize=8)
        grid[row][-1].plot(range(1, len(scores) + 1), scores)
        grid[row][-1].set_title("PSNR (dB)", fontsize=8)
    print_table(["weights", "PSNR once", "PSNR at the end", "residual once", "at the end", "times it grew"], rows)
    save_figure(plt, canvas, arguments.output)


if __name__ == "__main__":
    with torch.no_grad():
        main()
