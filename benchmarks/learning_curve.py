"""Learning curves from the logs of `pnp train-denoiser`: validation PSNR over steps (PNG).

python -m benchmarks.learning_curve huber.log.jsonl conditioned.log.jsonl -o curves.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .common import figure, save_figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logs", type=Path, nargs="+")
    parser.add_argument("--output", "-o", type=Path, default=Path("curves.png"))
    arguments = parser.parse_args()

    plt, canvas, grid = figure(1, 5, width=2.6, height=2.6)
    for log in arguments.logs:
        name = log.name.removesuffix(".log.jsonl")
        records = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        steps = [r["step"] / 1000 for r in records]
        grid[0][0].semilogy(steps, [r["loss"] for r in records], label=name, linewidth=0.8)
        scored = [r for r in records if "psnr" in r]
        for axes, sigma in zip(grid[0][1:], scored[-1]["psnr"] if scored else [], strict=False):
            axes.plot([r["step"] / 1000 for r in scored], [r["psnr"][sigma] for r in scored], marker=".", label=name)
            axes.set_title(f"PSNR (dB), σ = {sigma}", fontsize=8)
    grid[0][0].set_title("loss", fontsize=8)
    for axes in grid[0]:
        axes.tick_params(which="both", labelsize=6)
        axes.set_xlabel("thousand steps", fontsize=7)
    grid[0][0].legend(fontsize=6)
    save_figure(plt, canvas, arguments.output)


if __name__ == "__main__":
    main()
