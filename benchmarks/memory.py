"""Peak memory and time of a command over the size of the image, each in a process of its own.

    python -m benchmarks.memory --megapixels 1 4 16 100
    python -m benchmarks.memory --command "deblur --motion 15 30"

The image is grey noise on a ramp, three channels, in a TIFF of 8 or 16 bits; memory is the largest resident set of the
process, all of Python and PyTorch included. With --brightness 0.0625 it is as dark as 12 bits in a file of 16, and the
denoiser sees it brightened.
"""

from __future__ import annotations

import argparse
import math
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from pnp_cli.images import Depth, Image, write_image

from .common import describe_machine, print_table


def make_image(path: Path, megapixels: float, depth: Depth, brightness: float) -> tuple[int, int]:
    """Write a test image of about so many megapixels, 3:2; returns (height, width)."""
    height = round(math.sqrt(megapixels * 1e6 / 1.5))
    width = round(1.5 * height)
    rng = np.random.default_rng(0)
    pixels = np.empty((height, width, 3), np.float32)
    ramp = np.linspace(0.2, 0.8, width, dtype=np.float32)
    for row in pixels:
        row[:] = brightness * (ramp[:, None] + 0.1 * rng.standard_normal((width, 3), dtype=np.float32))
    write_image(Image(pixels, depth), path)
    return height, width


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", nargs="+", type=float, default=[1, 4, 16])
    parser.add_argument("--command", default="denoise --sigma 25", help="command and its options, quoted as one")
    parser.add_argument("--bit-depth", type=int, default=8, choices=[8, 16])
    parser.add_argument("--brightness", type=float, default=1.0)
    arguments = parser.parse_args()
    command, *options = shlex.split(arguments.command)

    print(f"pnp {arguments.command}; {describe_machine(torch.device('cpu'))}\n")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for megapixels in arguments.megapixels:
            source, target = Path(folder) / "in.tif", Path(folder) / "out.tif"
            # In a process of its own, for the memory of this one would be inherited as the child's peak.
            what = f"Path({str(source)!r}), {megapixels}, 'uint{arguments.bit_depth}', {arguments.brightness}"
            maker = f"from benchmarks.memory import *; print(*make_image({what}))"
            size = subprocess.run([sys.executable, "-c", maker], check=True, capture_output=True, text=True).stdout
            height, width = map(int, size.split())
            start = time.perf_counter()
            line = [command, str(source), "-o", str(target), "-q", "--on-exists", "overwrite", *options]
            process = subprocess.Popen([sys.executable, "-m", "pnp_cli", *line, "--max-pixels", "1000000000"])
            _, status, usage = os.wait4(process.pid, 0)
            if status:
                raise SystemExit(f"the command failed with status {os.waitstatus_to_exitcode(status)}")
            seconds, exact = time.perf_counter() - start, height * width / 1e6
            gibibytes = usage.ru_maxrss / 2**20
            rows.append(
                [f"{width}x{height}", f"{exact:.1f}", f"{gibibytes:.2f}", f"{seconds:.1f}", f"{seconds / exact:.2f}"]
            )
    print_table(["image", "megapixels", "peak memory (GiB)", "seconds", "seconds per megapixel"], rows)


if __name__ == "__main__":
    main()
