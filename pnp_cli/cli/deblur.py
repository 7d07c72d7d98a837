"""`pnp deblur`: Plug-and-Play restoration of blurred images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError, UsageError
from ..images import Image
from . import kernel_options as k
from . import options as o
from .batch import FALSE_CERTIFICATE, Outcome, run_batch
from .console import part_done, progress, say
from .paths import FileOptions
from .shared import takes

START = 0.5
"""Part of the time that the start takes, for the display."""

OUTSIDE = 0.1
"""How far beyond black or white an image may go unmentioned, on the [0, 1] scale: noise does."""


@takes(before=[o.images_in_and_out("deblurred"), k.kernel_options], after=[o.file_options])
def deblur(
    context: typer.Context,
    boundary: o.Boundary = "free",
    sigma: o.Sigma = "auto",
    photon: o.Photon = "auto",
    weights: o.Weights = "conditioned",
    data_term: Annotated[
        str,
        typer.Option(
            "--data-term",
            metavar="TERM",
            help="envelope: Moreau envelope of least squares, whose gradient step is the proximal map (fast); "
            "least-squares: plain gradient steps.",
        ),
    ] = "envelope",
    envelope: Annotated[
        float | None,
        typer.Option("--envelope", metavar="H", help="Parameter h of the envelope; larger trusts the data more."),
    ] = None,
    step: Annotated[
        float | None,
        typer.Option(
            "--step",
            metavar="STEP",
            help="Gradient step, in (0, 2/L) of the data term. Default: h, or 1.9/L for least-squares.",
        ),
    ] = None,
    strength: Annotated[
        str, typer.Option("--strength", metavar="S", help="Noise level given to the denoiser (0-255 scale), or 'auto'.")
    ] = "auto",
    ridge: Annotated[
        float,
        typer.Option(
            "--ridge",
            metavar="EPS",
            help="Add (EPS/2)|x|^2: strong convexity, a linear rate and a unique fixed point, at a bias.",
        ),
    ] = 0.0,
    box: Annotated[
        bool,
        typer.Option(
            "--box/--no-box",
            help="Project onto [0, 1], or [0, 4] where highlights are clipped; makes a fixed point exist.",
        ),
    ] = True,
    clipped: Annotated[
        bool,
        typer.Option(
            "--clipped/--no-clipped",
            help="Take samples from 98% of white on as that bright or brighter, unless some are beyond white.",
        ),
    ] = True,
    jpeg: o.Jpeg = True,
    correlation: o.Correlation = "auto",
    linear_light: k.LinearLight = None,
    continuation: Annotated[
        bool,
        typer.Option(
            "--continuation/--no-continuation",
            help="Start with a strong denoiser and relax; frozen after 14 iterations.",
        ),
    ] = True,
    refresh: Annotated[
        int,
        typer.Option(
            "--refresh",
            metavar="N",
            min=0,
            help="How often conditioned weights take a new reference during the start; then it is frozen. "
            "0 uses their plain network.",
        ),
    ] = 8,
    acceleration: Annotated[
        str,
        typer.Option("--acceleration", metavar="NAME", help="How iterates are combined once frozen: anderson or none."),
    ] = "anderson",
    tol: Annotated[float, typer.Option("--tol", metavar="TOL", help="Relative residual at which to stop.")] = 1e-4,
    max_iter: Annotated[int, typer.Option("--max-iter", metavar="N", min=1, help="Limit of all iterations.")] = 200,
    reference: Annotated[
        Path | None, typer.Option("--reference", metavar="FILE", help="True image, to report the PSNR against.")
    ] = None,
    allow_unsafe: o.AllowUnsafe = False,
    strict: o.Strict = False,
    tile: o.Tile = "auto",
    patch: Annotated[
        str,
        typer.Option(
            "--patch",
            metavar="N",
            help="Restore images longer than N in overlapping patches of that side, an approximation: auto chooses by "
            "image and free memory, 0 takes the image whole.",
        ),
    ] = "auto",
    picture: k.Picture = None,
) -> None:
    """Restore blurred images with a certified denoiser.

    The iteration is x <- N(x - step * grad f(x)), N the denoiser and f the misfit to the blurred image.

    Example: pnp deblur blurred.png -o sharp.png --motion 15 30
    """
    files = FileOptions.of(context, "deblurred")
    quiet = files.quiet
    if data_term == "least-squares" and envelope is not None:
        raise UsageError("--envelope belongs to --data-term envelope; leave one of them out")
    level = o.read_level(sigma, "--sigma")
    side, patch_side = o.read_side(tile, "--tile", 64), o.read_side(patch, "--patch", 256)
    given = o.read_level(strength, "--strength")
    choice = k.read_kernel(context)
    k.require_drawable(picture, choice)
    for hint in (o.level_hint(level, "--sigma"), o.level_hint(given, "--strength"), *choice.notes):
        if hint:
            say(hint, quiet)

    import numpy as np

    from .. import report
    from ..boundaries import boundary_model
    from ..deblurring import Choices, prepare_deblurring
    from ..devices import describe_device
    from ..images import read_image
    from ..metrics import psnr
    from ..noise import estimate_noise_under_blur
    from ..operators import BlurCache
    from ..plugandplay import Settings
    from ..solvers import Record
    from ..tensors import from_tensor, to_tensor
    from ..weights import Shelf

    gain = o.read_photon(photon, level)
    choices = Choices(
        noise=level / 255 if level is not None else None,
        photon=gain / 255 if gain is not None else None,
        correlation=o.read_correlation(correlation),
        boundary=boundary,
        clipped=clipped,
        patch=patch_side,
        tile=side,
        settings={
            "data_term": data_term,
            "strength": given / 255 if given is not None else None,
            "envelope": envelope,
            "step": step,
            "ridge": ridge,
            "box": box,
            "continuation": Settings.continuation if continuation else 0,
            "refresh": refresh,
            "acceleration": acceleration,
            "tol": tol,
            "max_iter": max_iter,
        },
    )
    Settings.for_noise(choices.noise or 0.0, **choices.settings)  # refuses what makes no sense before any work
    boundary_model(boundary)  # the same for an unknown name
    truth = read_image(reference, max_pixels=files.max_pixels) if reference else None
    place = o.read_device(files.device, files.scheduler)
    shelf = Shelf(weights, place)
    say(f"device      {describe_device(place)}", quiet)
    blurs = BlurCache(place)

    def work(image: Image, name: str) -> Outcome:
        if truth is not None and truth.pixels.shape != image.pixels.shape:
            raise InputError(
                f"{reference}: the reference is {truth.kind}, but {name} is {image.kind}; crop or convert one of them"
            )
        y = to_tensor(image, place)
        in_light = k.in_light(image, linear_light)
        own = replace(choices, jpeg=image.jpeg if jpeg else None, linear_light=in_light)
        psf, description = choice.of(image, own.jpeg, linear_light=in_light)
        loaded = shelf.get(image.pixels.shape[2])
        deblurring = prepare_deblurring(y, psf, loaded, own, blurs)
        plan, count = deblurring.plan, deblurring.patches
        say(f"{name}: {image.size[1]}x{image.size[0]}, {description}, {deblurring.boundary} boundary", quiet)
        if deblurring.boundary != boundary:
            say(f"boundary    free instead of {boundary}: what lies beyond a patch is unknown", quiet)
        if count > 1:
            overlap = deblurring.overlap
            side = f"{deblurring.side} pixels at most"
            say(f"patches     {count} of {side}, restored one by one and blended over {overlap} or more", quiet)
        say(f"denoiser    {loaded.name}, {report.certificate_line(loaded.certificate)}", quiet)
        errors = deblurring.errors
        correlated = errors.correlated or errors.correlation > 1
        rounding = 255 * own.jpeg.level if own.jpeg is not None else None
        for line in report.error_lines(errors, rounding, in_light, "estimated" if level is None else "given"):
            say(line, quiet)
        if linear_light is None and (image.photograph or image.jpeg is not None):
            say(report.light_origin_line(in_light), quiet)
        if level is not None and not in_light:
            seen = 255 * estimate_noise_under_blur(image.pixels, psf, own.jpeg)
            for line in report.doubt_lines(255 * errors.noise, seen, deblurring.gain):
                say(line, quiet)
        say(report.blur_line(plan.base.operator), quiet)
        if deblurring.gain != 1:
            say(report.exposure_line(deblurring.gain), quiet)
        if deblurring.clipped:
            say(report.clipping_line(deblurring.clipped, box), quiet)
        for line in report.guarantee_lines(plan.guarantee, plan.settings):
            say(line, quiet)
        fields = {
            "kernel": description,
            "boundary": deblurring.boundary,
            "patches": count,
            "patch_side": deblurring.side if count > 1 else None,
            "weights": loaded.name,
            "weights_sha256": loaded.sha256,
            "noise": 255 * errors.noise,
            "noise_curve": report.curve_points(errors.curve),
            "linear_light": in_light,
            "jpeg_error": rounding,
            "correlation": errors.correlation,
            "correlated": correlated,
            "level": 255 * errors.level,
            "slope": errors.slope,
            "gain": deblurring.gain,
            "clipped": deblurring.clipped,
            "plan": report.guarantee_dict(plan.guarantee, plan.settings),
        }
        if box and np.abs(image.pixels - 0.5).max() > 0.5 + OUTSIDE:
            say("range       the image has values outside [0, 1], the result has none; --no-box lifts this", quiet)
        if plan.guarantee.failures and not allow_unsafe:
            return Outcome(None, fields, plan.guarantee.failures[0])
        if files.dry_run:
            return Outcome(None, fields)

        with progress(name, count, quiet) as show:
            first: dict[int, float] = {}
            start = START if plan.warm else 0.0

            def note(patch: int, record: Record) -> None:
                words = f"iteration {record.iteration}, residual {record.relative:.1e}"
                if record.warm:
                    part = start * record.iteration / plan.warm
                else:
                    residual = first.setdefault(patch, record.relative)
                    part = start + (1 - start) * part_done(record.iteration, max_iter, record.relative, residual, tol)
                show(patch + part, words)
                say(f"  {words}{', warm' if record.warm else ''}", not files.verbose)

            end = deblurring.run(note)
        if count > 1:
            say("of the patch with the largest relative residual:", quiet)
        hint = "" if in_light else " Was light blurred (--linear-light)?"
        if ridge:
            hint = " --ridge alone leaves some."
        lines = report.solution_lines(
            end.solution, plan, end.discrepancy, compressed=rounding is not None, correlated=correlated, hint=hint
        )
        for line in lines:
            say(line, quiet)
        for violation in end.violations[:5]:
            say(f"{name}: VIOLATION {violation}")
        failure = FALSE_CERTIFICATE if end.violations else ""
        if strict and not end.converged:
            failure = failure or "not converged, as --strict asks for; raise --max-iter or --tol"
        fields["solution"] = report.solution_dict(end.solution, plan, end.discrepancy)
        fields |= {"converged": end.converged, "violations": list(end.violations)}
        result = from_tensor(end.frame, image)
        if truth is not None:
            fields["psnr_input"], fields["psnr"] = (psnr(truth.pixels, p.pixels) for p in (image, result))
            say(f"psnr        {fields['psnr_input']:.2f} dB before, {fields['psnr']:.2f} dB after (peak 1.0)", quiet)
        return Outcome(result, fields, failure)

    code = run_batch(files.protecting(*shelf.paths, reference, choice.file), work)
    if picture and choice.kernel is not None and not files.dry_run:
        k.draw(choice.kernel, picture, files.on_exists, quiet)
    raise typer.Exit(code)
