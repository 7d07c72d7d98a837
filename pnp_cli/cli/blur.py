"""`pnp blur`: the forward model, to make test inputs."""

from __future__ import annotations

from typing import Annotated

import typer

from ..images import MAX_PIXELS
from . import options as o
from .batch import Outcome, run_batch
from .console import say
from .paths import FileOptions


def blur(
    context: typer.Context,
    inputs: o.Inputs,
    output: o.Output = None,
    motion: o.Motion = None,
    gaussian: o.Gaussian = None,
    disk: o.Disk = None,
    kernel: o.KernelFile = None,
    noise: Annotated[
        str, typer.Option("--noise", metavar="S", help="Standard deviation of Gaussian noise on the 0-255 scale.")
    ] = "0",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the noise.")] = 0,
    file_format: o.Format = None,
    bit_depth: o.BitDepth = "keep",
    quality: o.Quality = 95,
    strip: o.Strip = False,
    max_pixels: o.MaxPixels = MAX_PIXELS,
    recursive: o.Recursive = False,
    on_exists: o.OnExists = "error",
    fail_fast: o.FailFast = False,
    json: o.Json = False,
    manifest: o.ManifestFile = None,
    scheduler: o.Scheduler = None,
    config: o.Config = None,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    device: o.Device = "auto",
) -> None:
    """Blur images periodically and add noise, to make test inputs.

    TIFF and NPY outputs hold unclipped floats; the others are clipped and rounded to the depth of the input.

    Example: pnp blur photo.png -o blurred.tif --motion 15 30 --noise 2.55
    """
    psf, description, notes = o.read_kernel(motion, gaussian, disk, kernel)
    level = o.read_level(noise, "--noise", auto=False)
    assert level is not None
    hint = o.level_hint(level, "--noise")
    for line in (*notes, *([hint] if hint else [])):
        say(line, quiet)

    from ..images import Image
    from ..noise import add_gaussian_noise
    from ..operators import BlurCache
    from ..tensors import from_tensor, to_tensor

    place = o.read_device(device, scheduler)
    blur_for = BlurCache(psf, place)

    def work(image: Image, name: str) -> Outcome:
        result = from_tensor(blur_for(image.size).forward(to_tensor(image, place)), image)
        pixels = add_gaussian_noise(result.pixels, level / 255, seed) if level else result.pixels
        say(f"{name}: {description}, noise {level:g} (0-255 scale, seed {seed})", quiet)
        fields = {"kernel": description, "noise": level, "seed": seed}
        return Outcome(result.with_pixels(pixels), fields, unclipped=True)

    raise typer.Exit(run_batch(inputs, FileOptions.of(context, "blurred", kernel), work))
