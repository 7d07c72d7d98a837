"""`pnp deblur`: Plug-and-Play restoration of blurred images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import DivergenceError, InputError, UsageError
from ..images import MAX_PIXELS, Image
from . import options as o
from .batch import Outcome, run_batch
from .console import progress, say
from .paths import FileOptions


def deblur(
    context: typer.Context,
    inputs: o.Inputs,
    output: o.Output = None,
    motion: o.Motion = None,
    gaussian: o.Gaussian = None,
    disk: o.Disk = None,
    kernel: o.KernelFile = None,
    sigma: o.Sigma = "auto",
    weights: o.Weights = "conditioned",
    data_term: Annotated[
        str,
        typer.Option(
            "--data-term",
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
            "--step", help="Gradient step, in (0, 2/L) of the data term. Default: h, or 1.9/L for least-squares."
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
    box: Annotated[bool, typer.Option("--box/--no-box", help="Project onto [0, 1]; makes a fixed point exist.")] = True,
    continuation: Annotated[
        bool,
        typer.Option(
            "--continuation/--no-continuation",
            help="Start with a strong denoiser and relax; frozen after 20 iterations.",
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
    ] = 4,
    tol: Annotated[float, typer.Option("--tol", help="Relative residual at which to stop.")] = 1e-4,
    max_iter: Annotated[int, typer.Option("--max-iter", min=1, help="Limit of all iterations.")] = 200,
    reference: Annotated[
        Path | None, typer.Option("--reference", metavar="FILE", help="True image, to report the PSNR against.")
    ] = None,
    allow_unsafe: o.AllowUnsafe = False,
    strict: o.Strict = False,
    dry_run: o.DryRun = False,
    tile: o.Tile = "auto",
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
    """Restore blurred images by N(x - step * grad f(x)) with a certified denoiser N.

    Example: pnp deblur blurred.png -o sharp.png --motion 15 30
    """
    if data_term == "least-squares" and envelope is not None:
        raise UsageError("--envelope belongs to --data-term envelope; leave one of them out")
    level = o.read_level(sigma, "--sigma")
    side = o.read_tile(tile)
    given = o.read_level(strength, "--strength")
    psf, description, notes = o.read_kernel(motion, gaussian, disk, kernel)
    for hint in (o.level_hint(level, "--sigma"), o.level_hint(given, "--strength"), *notes):
        if hint:
            say(hint, quiet)

    from torch import nn

    from .. import report
    from ..devices import describe_device
    from ..images import read_image
    from ..metrics import psnr
    from ..noise import estimate_noise
    from ..operators import BlurCache
    from ..plugandplay import Settings, plan_deblurring
    from ..solvers import Record, Status
    from ..tensors import from_tensor, to_tensor
    from ..tiling import tiled
    from ..weights import Shelf

    def settings_for(noise: float, denoiser: nn.Module | None = None) -> Settings:
        return Settings.for_noise(
            noise / 255,
            denoiser,
            data_term=data_term,  # type: ignore[arg-type]
            strength=given / 255 if given is not None else None,
            envelope=envelope,
            step=step,
            ridge=ridge,
            box=box,
            continuation=Settings.continuation if continuation else 0,
            refresh=refresh,
            tol=tol,
            max_iter=max_iter,
        )

    settings_for(level or 0.0)  # refuses what makes no sense before any work
    truth = read_image(reference, max_pixels=max_pixels) if reference else None
    place = o.read_device(device, scheduler)
    shelf = Shelf(weights, place)
    say(f"device      {describe_device(place)}", quiet)
    blur_for = BlurCache(psf, place)

    def work(image: Image, name: str) -> Outcome:
        if truth is not None and truth.pixels.shape != image.pixels.shape:
            raise InputError(f"{reference}: the reference is {_shape(truth)}, but {name} is {_shape(image)}")
        operator = blur_for(image.size)
        loaded = shelf.get(image.pixels.shape[2])
        noise = level if level is not None else 255 * estimate_noise(image.pixels)
        denoiser = tiled(loaded.network, image.size, side, place)
        y = to_tensor(image, place)
        plan = plan_deblurring(y, operator, denoiser, loaded.certificate, settings_for(noise, denoiser))
        say(f"{name}: {image.size[1]}x{image.size[0]}, {description}, {operator.boundary.name} boundary", quiet)
        say(f"denoiser    {loaded.name}, {report.certificate_line(loaded.certificate)}", quiet)
        say(f"noise       {noise:.3g} (0-255 scale, {'given' if level is not None else 'estimated'})", quiet)
        say(f"blur        L = ‖K‖² = {operator.lipschitz:.6g}, μ = {operator.strong_convexity:.3g}", quiet)
        for line in report.guarantee_lines(plan.guarantee, plan.settings):
            say(line, quiet)
        fields = {
            "kernel": description,
            "weights": loaded.name,
            "weights_sha256": loaded.sha256,
            "noise": noise,
            "plan": report.guarantee_dict(plan.guarantee, plan.settings),
        }
        if not allow_unsafe:
            plan.guarantee.require()
        if dry_run:
            return Outcome(None, fields)
        with progress(name, max_iter, quiet) as show:

            def note(record: Record, _: object) -> None:
                words = f"iteration {record.iteration}, residual {record.relative:.1e}"
                show(record.iteration, words)
                say(f"  {words}{', warm' if record.warm else ''}", not verbose)

            solution = plan.run(note)
        for line in report.solution_lines(solution, plan):
            say(line, quiet)
        for violation in solution.violations[:5]:
            say(f"{name}: VIOLATION {violation}")
        if strict and not solution.converged:
            say(f"{name}: not converged, as --strict asks for; raise --max-iter or --tol")
        fields["solution"] = report.solution_dict(solution, plan)
        if solution.status is Status.DIVERGED:
            raise DivergenceError(
                "the iteration diverged, nothing was written; use certified weights and an admissible step"
            )
        result = from_tensor(solution.value, image)
        if truth is not None:
            fields["psnr_input"], fields["psnr"] = (psnr(truth.pixels, p.pixels) for p in (image, result))
            say(f"psnr        {fields['psnr_input']:.2f} dB before, {fields['psnr']:.2f} dB after (peak 1.0)", quiet)
        bad = bool(solution.violations) or (strict and not solution.converged)
        return Outcome(result, fields, 3 if bad else 0)

    raise typer.Exit(run_batch(inputs, FileOptions.of(context, "deblurred", reference, kernel), work))


def _shape(image: Image) -> str:
    height, width, channels = image.pixels.shape
    return f"{width}x{height} with {channels} channels"
