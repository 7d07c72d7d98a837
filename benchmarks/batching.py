"""Time of `pnp denoise` per file for small images, one at a time and several together.

    python -m benchmarks.batching IMAGES

Parts of the images, of one size, lie in one folder with noise; the time is the median over the files, as recorded.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from pnp_cli import write_image
from pnp_cli.devices import choose_device
from pnp_cli.noise import add_gaussian_noise

from .common import as_file, describe_machine, load_images, print_table


def time_per_file(folder: Path, *options: object) -> float:
    """Median over the files of a folder, in milliseconds."""
    command = [sys.executable, "-m", "pnp_cli", "denoise", folder, "-o", f"{folder}-clean/", "--json"]
    command += ["--on-exists", "overwrite", *options]
    done = subprocess.run([str(word) for word in command], capture_output=True, check=True)
    return 1000 * statistics.median(json.loads(line)["seconds"] for line in done.stdout.splitlines())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--sides", type=int, nargs="+", default=[32, 64, 128, 256])
    parser.add_argument("--limit", type=int, default=32, help="the first so many images")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--sigma", type=float, default=15, help="noise, 0-255 scale")
    arguments = parser.parse_args()

    images = load_images(arguments.images, arguments.limit)
    print(f"{len(images)} images of {arguments.images.name}; {describe_machine(choose_device('auto'))}\n")
    rows = []
    for side in arguments.sides:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "noisy"
            for i, image in enumerate(images):
                clean = as_file(image[:, :, :side, :side])
                noisy = add_gaussian_noise(clean.pixels, arguments.sigma / 255, i)
                write_image(clean.with_pixels(noisy), folder / f"{i}.png")
            times = [
                time_per_file(folder, "--sigma", sigma, "--batch", batch)
                for sigma in (arguments.sigma, "auto")
                for batch in (1, arguments.batch)
            ]
        rows.append([f"{side} x {side}", *(f"{time:.0f}" for time in times)])
    together = f"`--batch {arguments.batch}`"
    print_table(["pixels", "ms a file, σ given", together, "σ estimated", together], rows)


if __name__ == "__main__":
    main()
