"""`pnp kernel`: make, inspect, draw and save blur kernels."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError, UsageError
from ..images import MAX_PIXELS
from . import kernel_options as k
from . import options as o
from .console import emit, harmless, say, to_stdout
from .paths import claim, real_places, require_on_exists
from .shared import takes

if TYPE_CHECKING:
    from ..kernels import Kernel, Properties


@takes(before=[k.kernel_options])
def kernel(
    context: typer.Context,
    image: Annotated[
        Path | None,
        typer.Argument(metavar="[IMAGE]", help="Blurred image, for --motion auto.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="Write the kernel: .npy (float64), .tif (float32), .png (16 bits, scaled to its maximum) or .mat "
            "(variable psf).",
        ),
    ] = None,
    picture: k.Picture = None,
    linear_light: k.LinearLight = None,
    on_exists: o.OnExists = "error",
    max_pixels: o.MaxPixels = MAX_PIXELS,
    json: o.Json = False,
    config: o.Config = None,
    quiet: o.Quiet = False,
) -> None:
    """Make, read or estimate a blur kernel, draw and save it.

    Frequencies that the blur scales by less than 0.05 are lost in the noise: a restoration has to invent them.

    Example: pnp kernel --motion 15 30 -o k.npy --picture k.png

    Example: pnp kernel blurred.jpg --motion auto --picture k.png
    """
    require_on_exists(on_exists)
    overwrite = on_exists == "overwrite"
    _check_suffixes(output, picture)
    choice = k.read_kernel(context)
    outputs = {"output": output, "picture": picture}
    claim(outputs, real_places((choice.file, image, config)), on_exists != "error")
    if (choice.kernel is None) != (image is not None):
        raise UsageError("give an image together with --motion auto, and only then")
    for note in choice.notes:
        say(note, quiet)

    from .. import kernels
    from ..images import read_image

    seen = read_image(image, max_pixels=max_pixels) if image else None
    try:
        in_light = seen is not None and k.in_light(seen, linear_light)
        psf, description = choice.of(seen, seen.jpeg if seen else None, linear_light=in_light)
        description += ", in linear light" if in_light else ""
    except InputError as error:
        raise InputError(f"{image}: {error}") from error
    facts = kernels.properties(psf)
    if output and on_exists == "skip" and os.path.exists(output):
        say(f"{output}: skipped, it exists", quiet)
    elif output:
        kernels.to_file(psf, output, overwrite)
        say(f"wrote {output}", quiet)
    if picture:
        k.draw(psf, picture, on_exists, quiet)
    if json:
        paths = {name: str(target) if target else None for name, target in outputs.items()}
        emit("kernel", description, True, size=psf.shape, **asdict(facts), notes=choice.notes, **paths)
    elif not quiet:
        _show(psf, description, facts)


def _check_suffixes(output: Path | None, picture: Path | None) -> None:
    """Refuse files that cannot be written by their names, before any work."""
    from ..images import format_of
    from ..kernel_files import require_suffix

    if output:
        require_suffix(output)
    if picture:
        format_of(picture)


def _show(psf: Kernel, description: str, facts: Properties) -> None:
    from ..kernels import WEAK, directions

    (h, w), (along, across) = psf.shape, facts.deviations
    offset = directions(*(round(v, 2) for v in facts.centroid))
    spread = f"{along:.2f} px in every direction"
    if facts.angle is not None:
        spread = f"{along:.2f} px along {facts.angle:.1f} degrees, {across:.2f} px across"
    share = f"below {WEAK:g} at {facts.weak:.1%} of the frequencies"
    with to_stdout():
        print(f"kernel      {harmless(description, sys.stdout)}")
        print(f"size        {h}x{w} (height x width), sum {facts.total:.6g}")
        print(f"centroid    {offset} from the origin, row {h // 2}, column {w // 2}")
        print(f"deviation   {spread}")
        print(f"|OTF|       max {facts.otf_max:.4g}, min {facts.otf_min:.2g}, {share}")
