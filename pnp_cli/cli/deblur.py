"""`pnp deblur`: Plug-and-Play restoration of blurred images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import DivergenceError, InputError, UsageError
from ..images import MAX_PIXELS, Image
from . import kernel_options as k
from . import options as o
from .batch import FALSE_CERTIFICATE, Outcome, run_batch
from .console import progress, say
from .paths import FileOptions

OUTSIDE = 0.1
"""How far beyond black or white an image may go unmentioned, on the [0, 1] scale: noise does."""


def deblur(
    context: typer.Context,
    inputs: o.Inputs,
    output: o.Output = None,
    motion: k.Motion = None,
    gaussian: k.Gaussian = None,
    disk: k.Disk = None,
    path: k.MotionPath = None,
    trajectory: k.Trajectory = None,
    kernel: k.KernelFile = None,
    center: k.Center = True,
    boundary: o.Boundary = "free",
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
    ] = 8,
    acceleration: Annotated[
        str,
        typer.Option("--acceleration", help="How iterates are combined once frozen: anderson or none."),
    ] = "anderson",
    tol: Annotated[float, typer.Option("--tol", help="Relative residual at which to stop.")] = 1e-4,
    max_iter: Annotated[int, typer.Option("--max-iter", min=1, help="Limit of all iterations.")] = 200,
    reference: Annotated[
        Path | None, typer.Option("--reference", metavar="FILE", help="True image, to report the PSNR against.")
    ] = None,
    allow_unsafe: o.AllowUnsafe = False,
    strict: o.Strict = False,
    dry_run: o.DryRun = False,
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
    picture: k.Picture = None,
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
    side, patch_side = o.read_side(tile, "--tile", 64), o.read_side(patch, "--patch", 256)
    given = o.read_level(strength, "--strength")
    choice = k.read_kernel(context, motion, gaussian, disk, kernel, path, trajectory, center)
    k.require_drawable(picture, choice)
    for hint in (o.level_hint(level, "--sigma"), o.level_hint(given, "--strength"), *choice.notes):
        if hint:
            say(hint, quiet)

    import numpy as np
    from torch import Tensor

    from .. import report
    from ..boundaries import boundary_model
    from ..devices import describe_device
    from ..images import read_image
    from ..kernels import Kernel
    from ..metrics import psnr
    from ..noise import estimate_noise_under_blur
    from ..operators import BlurCache
    from ..patches import choose_patch, least_overlap, restore_by_patches, windows
    from ..plugandplay import CLIP_LEVEL, Plan, Settings, plan_deblurring
    from ..rules import PLAIN_RULES, Rules
    from ..solvers import Record, Solution, Status
    from ..tensors import from_tensor, to_tensor
    from ..tiling import tiled
    from ..weights import Shelf

    def settings_for(
        noise: float, rules: Rules = PLAIN_RULES, psf: Kernel | None = None, clip_level: float | None = None
    ) -> Settings:
        return Settings.for_noise(
            noise / 255,
            rules,
            psf,
            data_term=data_term,  # type: ignore[arg-type]
            strength=given / 255 if given is not None else None,
            envelope=envelope,
            step=step,
            ridge=ridge,
            box=box,
            clip_level=clip_level,
            continuation=Settings.continuation if continuation else 0,
            refresh=refresh,
            acceleration=acceleration,
            tol=tol,
            max_iter=max_iter,
        )

    settings_for(level or 0.0)  # refuses what makes no sense before any work
    truth = read_image(reference, max_pixels=max_pixels) if reference else None
    place = o.read_device(device, scheduler)
    shelf = Shelf(weights, place)
    say(f"device      {describe_device(place)}", quiet)
    blur_for = BlurCache(place)
    boundary_model(boundary)  # refuses an unknown name before any work

    def work(image: Image, name: str) -> Outcome:
        if truth is not None and truth.pixels.shape != image.pixels.shape:
            raise InputError(
                f"{reference}: the reference is {truth.kind}, but {name} is {image.kind}; crop or convert one of them"
            )
        psf, description = choice.of(image)
        loaded = shelf.get(image.pixels.shape[2])
        noise = level if level is not None else 255 * estimate_noise_under_blur(image.pixels, psf)
        share = float((image.pixels >= CLIP_LEVEL).mean()) if clipped and image.pixels.max() <= 1 else 0.0
        settings = settings_for(noise, loaded.rules, psf, CLIP_LEVEL if share else None)
        y = to_tensor(image, place)
        overlap = least_overlap(psf.shape)
        longest = choose_patch(image.size, overlap, place) if patch_side is None else patch_side
        longest = longest or max(image.size)
        parts = windows(image.size, longest, overlap)
        beyond = boundary if len(parts) == 1 else "free"  # what lies beyond a patch is unknown

        def plan_for(part: Tensor) -> Plan:
            operator = blur_for(psf, (part.shape[2], part.shape[3]), boundary_model(beyond))
            denoiser = tiled(loaded.network, operator.scene, side, place)
            return plan_deblurring(part, operator, denoiser, loaded.certificate, settings)

        rows, columns = parts[0]
        plan = plan_for(y[:, :, rows, columns])  # what is known beforehand is the same for all patches
        say(f"{name}: {image.size[1]}x{image.size[0]}, {description}, {beyond} boundary", quiet)
        if beyond != boundary:
            say(f"boundary    free instead of {boundary}: what lies beyond a patch is unknown", quiet)
        if len(parts) > 1:
            say(f"patches     {len(parts)}, restored one by one and blended over {overlap} pixels or more", quiet)
        say(f"denoiser    {loaded.name}, {report.certificate_line(loaded.certificate)}", quiet)
        say(f"noise       {noise:.3g} (0-255 scale, {'given' if level is not None else 'estimated'})", quiet)
        say(report.blur_line(plan.base.operator), quiet)
        if share:
            say(report.clipping_line(share, box), quiet)
        for line in report.guarantee_lines(plan.guarantee, plan.settings):
            say(line, quiet)
        fields = {
            "kernel": description,
            "boundary": beyond,
            "patches": len(parts),
            "weights": loaded.name,
            "weights_sha256": loaded.sha256,
            "noise": noise,
            "clipped": share,
            "plan": report.guarantee_dict(plan.guarantee, plan.settings),
        }
        if box and np.abs(image.pixels - 0.5).max() > 0.5 + OUTSIDE:
            say("range       the image has values outside [0, 1], the result has none; --no-box lifts this", quiet)
        if not allow_unsafe:
            plan.guarantee.require()
        if dry_run:
            return Outcome(None, fields)

        runs: list[tuple[Solution, float | None]] = []
        with progress(name, max_iter * len(parts), quiet) as show:

            def note(record: Record, _: object) -> None:
                words = f"iteration {record.iteration}, residual {record.relative:.1e}"
                show(max_iter * len(runs) + record.iteration, words)
                say(f"  {words}{', warm' if record.warm else ''}", not verbose)

            def restore(part: Tensor) -> Tensor:
                plan = plan_for(part)
                solution = plan.run(note)
                if solution.status is Status.DIVERGED:
                    raise DivergenceError(
                        "the iteration diverged, nothing was written; use certified weights and an admissible step"
                    )
                runs.append((solution, plan.base.discrepancy(solution.value, noise / 255)))
                restored = plan.base.operator.boundary.frame_of(solution.value)
                return restored.clamp_max(1) if box else restored  # the scene may be brighter, the image not

            restored = restore_by_patches(y, longest, overlap, restore)
        solution, discrepancy = max(runs, key=lambda run: run[0].records[-1].relative)
        if len(runs) > 1:
            say("of the patch with the largest relative residual:", quiet)
        for line in report.solution_lines(solution, plan, discrepancy):
            say(line, quiet)
        violations = [violation for run, _ in runs for violation in run.violations]
        for violation in violations[:5]:
            say(f"{name}: VIOLATION {violation}")
        converged = all(run.converged for run, _ in runs)
        failure = FALSE_CERTIFICATE if violations and not allow_unsafe else ""
        if strict and not converged:
            failure = failure or "not converged, as --strict asks for; raise --max-iter or --tol"
        fields["solution"] = report.solution_dict(solution, plan, discrepancy)
        result = from_tensor(restored, image)
        if truth is not None:
            fields["psnr_input"], fields["psnr"] = (psnr(truth.pixels, p.pixels) for p in (image, result))
            say(f"psnr        {fields['psnr_input']:.2f} dB before, {fields['psnr']:.2f} dB after (peak 1.0)", quiet)
        return Outcome(result, fields, failure)

    code = run_batch(inputs, FileOptions.of(context, "deblurred", shelf.path, reference, kernel, trajectory), work)
    if picture and choice.kernel is not None and not dry_run:
        k.draw(choice.kernel, picture, on_exists, quiet)
    raise typer.Exit(code)
