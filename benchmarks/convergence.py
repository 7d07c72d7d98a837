"""How fast the iteration reaches the quality of its fixed point, and whether it stays there.

    python -m benchmarks.convergence IMAGES KERNELS --limit 1
    python -m benchmarks.convergence IMAGES KERNELS --limit 2 --crop 128 --max-iter 2000

For every variant of `pnp deblur`: the PSNR after --max-iter iterations (a stand-in for the fixed point), the iterations
and seconds until it stays within 0.05 dB of that, the seconds until it is within 0.05 dB of the first variant's, and by
how much it has fallen from its peak.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pnp_cli import Choices, prepare_deblurring, psnr, weights
from pnp_cli.devices import choose_device
from pnp_cli.plugandplay import Plan
from pnp_cli.solvers import Record

from .common import describe_machine, load_images, load_kernels, print_table
from .deblurring import problem
from .deblurring_rules import middle

VARIANTS: dict[str, dict[str, object]] = {
    "default": {},
    "no acceleration": {"acceleration": "none"},
    "no continuation": {"continuation": 0},
    "least-squares": {"data_term": "least-squares"},
    "least-squares alone": {"data_term": "least-squares", "acceleration": "none", "continuation": 0},
}
NEAR = 0.05


def follow(plan: Plan, truth: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """PSNR and seconds since the start, without the time to score, after every iteration."""
    scores: list[float] = []
    times: list[float] = []
    scoring, start = 0.0, time.perf_counter()

    def note(record: Record, x: Tensor) -> None:
        nonlocal scoring
        now = time.perf_counter()
        times.append(now - start - scoring)
        scores.append(psnr(truth.cpu().numpy(), plan.base.operator.boundary.frame_of(x).cpu().numpy()))
        scoring += time.perf_counter() - now

    solution = plan.run(note)
    if solution.violations:
        raise RuntimeError(solution.violations[0])
    return np.array(scores), np.array(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("kernels", type=Path)
    parser.add_argument("--limit", type=int, default=1)
    parser.add_argument("--crop", type=int, help="the middle so many pixels only")
    parser.add_argument("--sigma", type=float, default=2.55, help="noise, 0-255 scale")
    parser.add_argument("--boundary", choices=["periodic", "free"], default="free")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--max-iter", type=int, default=300)
    parser.add_argument("--weights", default="conditioned")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()

    device = choose_device(arguments.device)
    loaded = weights.load(arguments.weights, device)
    images = load_images(arguments.images, arguments.limit)
    psfs = load_kernels(arguments.kernels)
    print(f"{len(images)} images of {arguments.images.name}, {arguments.boundary}; {describe_machine(device)}\n")
    rows = []
    goals: list[float] = []
    for name in arguments.variants:
        results, late = [], []
        for i, image in enumerate(images):
            clean = middle(image, arguments.crop) if arguments.crop else image
            psf = psfs[i % len(psfs)]
            truth, _, y = problem(clean.to(device), psf, arguments.boundary, arguments.sigma / 255, seed=i)
            settings = VARIANTS[name] | {"tol": 0.0, "max_iter": arguments.max_iter}
            choices = Choices(boundary=arguments.boundary, clipped=False, patch=0, settings=settings)
            scores, times = follow(prepare_deblurring(y, psf, loaded, choices).plan, truth)
            last = scores[-1]
            far = np.flatnonzero(np.abs(scores - last) > NEAR)
            arrival = int(far[-1]) + 1 if len(far) else 0
            if name == arguments.variants[0]:
                goals.append(last - NEAR)
            below = np.flatnonzero(scores < goals[i])
            level = int(below[-1]) + 1 if len(below) else 0
            late.append(level == len(scores))
            level = min(level, len(scores) - 1)
            results.append(
                (last, arrival + 1, times[arrival], times[level], scores.max() - last, times[-1] / len(times))
            )
        final, iterations, seconds, same, fall, each = np.mean(results, axis=0)
        there = f"{same:.1f}" if not any(late) else f"not in {same:.1f}"
        rows.append([name, f"{final:.2f}", f"{iterations:.0f}", f"{seconds:.1f}", there, f"{fall:.2f}", f"{each:.2f}"])
        print(" ".join(rows[-1]), flush=True)
    print()
    header = [
        f"PSNR after {arguments.max_iter}",
        f"iterations to {NEAR} dB",
        "seconds",
        "seconds to the first",
        "fallen from peak",
    ]
    print_table(["variant", *header, "seconds per iteration"], rows)


if __name__ == "__main__":
    with torch.no_grad():
        main()
