"""`pnp blur`: the forward model, to make test inputs."""

from __future__ import annotations

import zlib
from typing import Annotated

import typer

from ..errors import UsageError
from . import kernel_options as k
from . import options as o
from .batch import Outcome, run_batch
from .console import say
from .paths import FileOptions
from .shared import takes


@takes(before=[o.images_in_and_out("blurred"), k.kernel_options], after=[o.file_options])
def blur(
    context: typer.Context,
    boundary: Annotated[
        str,
        typer.Option(
            "--boundary",
            metavar="MODEL",
            help="What lies beyond the frame: reflect (the scene is mirrored) or periodic (it repeats).",
        ),
    ] = "reflect",
    noise: Annotated[
        str, typer.Option("--noise", metavar="S", help="Standard deviation of Gaussian noise on the 0-255 scale.")
    ] = "0",
    photon: Annotated[
        str,
        typer.Option(
            "--photon",
            metavar="K",
            help="Photon noise beside it, of variance K * brightness, all on the 0-255 scale.",
        ),
    ] = "0",
    linear_light: k.LinearLight = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Seed of the noise.")] = 0,
) -> None:
    """Blur images and add noise, to make test inputs.

    Every image has its own noise, by --seed and its pixels; --motion 1 0 adds noise alone. TIFF and NPY outputs hold
    unclipped floats; the others are clipped and rounded to the depth of the input.

    Example: pnp blur photo.png -o blurred.tif --motion 15 30 --noise 2.55
    """
    files = FileOptions.of(context, "blurred")
    if boundary == "free":
        raise UsageError(
            "a scene that is unknown beyond the frame cannot be blurred; use --boundary reflect or periodic"
        )
    choice = k.read_kernel(context)
    if choice.kernel is None:
        raise UsageError("--motion auto needs images that are blurred already; give a length and an angle")
    psf, description = choice.kernel, choice.description
    level = o.read_level(noise, "--noise", auto=False)
    assert level is not None
    gain = o.read_photon(photon, level, auto=False)
    assert gain is not None
    hint = o.level_hint(level, "--noise")
    for line in (*choice.notes, *([hint] if hint else [])):
        say(line, files.quiet)

    from ..boundaries import boundary_model
    from ..images import Image
    from ..light import to_light, to_samples
    from ..noise import add_gaussian_noise
    from ..operators import BlurCache
    from ..tensors import from_tensor, to_tensor

    place = o.read_device(files.device, files.scheduler)
    blur_for, model = BlurCache(place), boundary_model(boundary)

    def work(image: Image, name: str) -> Outcome:
        in_light = k.in_light(image, linear_light)
        fields = {
            "kernel": description,
            "boundary": boundary,
            "linear_light": in_light,
            "noise": level,
            "photon": gain,
            "seed": seed,
        }
        light = ", in linear light" if in_light else ""
        grain = f" and photon noise {gain:g}" if gain else ""
        say(
            f"{name}: {description}{light}, {boundary} boundary, noise {level:g}{grain} (0-255 scale, seed {seed})",
            files.quiet,
        )
        operator = blur_for(psf, image.size, model)
        if files.dry_run:
            return Outcome(None, fields)
        scene = to_tensor(image, place)
        seen = to_samples(operator.forward(to_light(scene))) if in_light else operator.forward(scene)
        result = from_tensor(seen, image)
        own_seed = seed, zlib.crc32(image.pixels.tobytes())  # as if drawn anew for every image
        pixels = result.pixels
        if level or gain:
            pixels = add_gaussian_noise(pixels, level / 255, own_seed, gain / 255)
        return Outcome(result.with_pixels(pixels), fields, unclipped=True)

    raise typer.Exit(run_batch(files.protecting(choice.file), work))
