"""The largest change of the output under a change of the input of a given size, found by gradient ascent (PNG).

    python -m benchmarks.sensitivity PHOTO --sigma 25 -o sensitivity.png

For every size e of the change (Euclidean norm, relative to the noise's own) it maximises |N(x + d) - N(x)|
over |d| = e, from several starts. A nonexpansive map stays below e, for every x and every attack;
"conditioned, two passes" recomputes its reference from the attacked input, and nothing bounds it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from pnp_cli import read_image, to_tensor, weights
from pnp_cli.devices import choose_device

from .common import describe_machine, figure, print_table, save_figure

Denoise = Callable[[Tensor], Tensor]


def worst_change(denoise: Denoise, x: Tensor, size: float, iterations: int, starts: int) -> float:
    """Largest ‖N(x + d) − N(x)‖/size over ‖d‖ = size that projected gradient ascent finds."""
    worst = 0.0
    with torch.no_grad():
        base = denoise(x)
    for start in range(starts):
        d = torch.randn(x.shape, generator=torch.Generator().manual_seed(start)).to(x.device)
        for _ in range(iterations):
            d = (d * (size / d.norm())).requires_grad_()
            change = (denoise(x + d) - base).norm()
            worst = max(worst, float(change.detach()) / size)
            (gradient,) = torch.autograd.grad(change, d)
            # For a linear map this is the power iteration; a step along the gradient slows it down only.
            d = gradient / gradient.norm() + 0.2 * d.detach() / size
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path)
    parser.add_argument("--output", "-o", type=Path, default=Path("sensitivity.png"))
    parser.add_argument("--weights", nargs="+", default=["huber", "conditioned", "euler", "dncnn"])
    parser.add_argument("--sigma", type=float, default=25, help="0-255 scale")
    parser.add_argument("--sizes", nargs="+", type=float, default=[0.01, 0.03, 0.1, 0.3, 1], help="in noise norms")
    parser.add_argument("--crop", type=int, default=96, help="side of the crop from the middle")
    parser.add_argument("--iterations", type=int, default=30)
    parser.add_argument("--starts", type=int, default=2)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()

    device = choose_device(arguments.device)
    clean = to_tensor(read_image(arguments.image), device)
    top, left = ((n - arguments.crop) // 2 for n in clean.shape[2:])
    clean = clean[:, :, top : top + arguments.crop, left : left + arguments.crop]
    level = arguments.sigma / 255
    noise = level * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)).to(device)
    noisy = clean + noise
    print(f"{arguments.image.name}, noise {arguments.sigma:g}; {describe_machine(device)}\n")

    methods: dict[str, Denoise] = {}
    for name in arguments.weights:
        network = weights.load(name, device).network
        with torch.no_grad():
            operator = network.condition(noisy, level)
        methods[name] = lambda x, n=operator: n(x, level)  # type: ignore[misc]
        if network.takes_reference:
            methods[f"{name}, two passes"] = lambda x, n=network: n.estimate(x, level)  # type: ignore[misc]
    plt, canvas, ((axes,),) = figure(1, 1, width=6, height=4)
    rows = []
    for name, denoise in methods.items():
        slopes = [
            worst_change(denoise, noisy, size * float(noise.norm()), arguments.iterations, arguments.starts)
            for size in arguments.sizes
        ]
        rows.append([name, *(f"{slope:.4f}" for slope in slopes)])
        axes.loglog(arguments.sizes, slopes, marker="o", label=name)
    axes.axhline(1, color="black", linestyle="--", label="bound of a nonexpansive map")
    axes.set_xlabel("size of the change of the input, in norms of the noise")
    axes.set_ylabel("change of the output / change of the input")
    axes.legend(fontsize=8)
    print_table(["weights", *(f"{size:g}" for size in arguments.sizes)], rows)
    save_figure(plt, canvas, arguments.output)


if __name__ == "__main__":
    main()
