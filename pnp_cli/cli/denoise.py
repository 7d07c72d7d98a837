"""`pnp denoise`: apply a denoiser network to images."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import DivergenceError, UsageError
from . import options as o
from .batch import FALSE_CERTIFICATE, Outcome, Pending, run_batch
from .console import progress, say
from .paths import FileOptions
from .shared import takes

if TYPE_CHECKING:
    from torch import Tensor

MOST_PIXELS = 2**20
"""Most pixels of all images that the network gets at a time."""


@takes(before=[o.images_in_and_out("denoised")], after=[o.file_options])
def denoise(
    context: typer.Context,
    sigma: o.Sigma = "auto",
    photon: o.Photon = "auto",
    jpeg: o.Jpeg = True,
    clipped: Annotated[
        bool,
        typer.Option(
            "--clipped/--no-clipped",
            help="Take black and white samples for ones where noise was cut off, and restore its mean.",
        ),
    ] = True,
    weights: o.Weights = "conditioned",
    repeat: Annotated[
        int, typer.Option("--repeat", metavar="N", min=1, help="Apply the denoiser N times and report every residual.")
    ] = 1,
    ensemble: Annotated[
        bool,
        typer.Option(
            "--ensemble", help="Mean over the 8 flips and rotations: better, 8 times slower, same certificate."
        ),
    ] = False,
    correlation: o.Correlation = "auto",
    tile: o.Tile = "auto",
    batch: Annotated[
        int,
        typer.Option(
            "--batch",
            metavar="N",
            min=1,
            help="Denoise up to N successive images of one size together: faster for small ones, equal up to rounding.",
        ),
    ] = 1,
) -> None:
    """Remove noise from images.

    With conditioned weights in two passes: the plain network makes a first estimate, from which the thresholds of
    the second pass are computed. For that frozen reference the second pass is averaged; the composite is not known
    to be nonexpansive. With --weights huber all of it is.

    Noise that depends on the brightness, and in colour noise that neighbouring pixels share, are found out, or given by
    --photon and --correlation; in most JPEG files noise is taken for as large everywhere. Of a JPEG file the level that
    is estimated counts its rounding errors, too; a given one is taken as it is.

    Example: pnp denoise noisy.png -o clean.png --sigma 25
    """
    files = FileOptions.of(context, "denoised")
    quiet = files.quiet
    level = o.read_level(sigma, "--sigma")
    photons = o.read_photon(photon, level)
    distance = o.read_correlation(correlation)
    side = o.read_side(tile, "--tile", 64)
    if batch > 1 and files.scheduler:
        raise UsageError("--batch is for images that are restored here; leave it out with --scheduler")
    hint = o.level_hint(level, "--sigma")
    if hint:
        say(hint, quiet)

    import torch

    from .. import report
    from ..clipped_noise import restore_clipped, share_restored, within_range_of
    from ..conditions import RunningChecks
    from ..correlated_noise import may_be_correlated
    from ..denoisers import Ensemble
    from ..denoising import NoiseToRemove, estimate_together, noise_to_remove
    from ..devices import describe_device
    from ..exposure import brightened, find_gain
    from ..images import Image
    from ..noise_curve import NoiseCurve, root_mean_square
    from ..polyphase import Polyphase
    from ..solvers import Status, fixed_point
    from ..tensors import from_tensor, to_tensor
    from ..tiling import room, tiled
    from ..weights import Shelf

    place = o.read_device(files.device, files.scheduler)
    shelf = Shelf(weights, place)
    say(f"device      {describe_device(place)}", quiet)

    def work(image: Image, name: str) -> Outcome | Pending:
        loaded = shelf.get(image.pixels.shape[2])
        certificate = loaded.certificate
        noisy = to_tensor(image, place)
        origin, rounding = "estimated", None
        if level is not None:
            curve, stride = NoiseCurve.photon(level / 255, (photons or 0) / 255), distance or 1
            found, origin = NoiseToRemove(curve, stride, correlated=stride > 1), "given"
        else:
            compression = image.jpeg if jpeg else None
            rounding = 255 * compression.level if compression is not None else None
            found = noise_to_remove(image.pixels, compression, distance, constant=photons is not None, clipped=clipped)
        curve, stride = found.curve, found.stride
        whole = restore_clipped(noisy, curve) if clipped else noisy
        restored = share_restored(noisy, whole)
        noise = curve.levels(whole)
        value = 255 * root_mean_square(noise)

        gain = find_gain(noisy, value / 255)
        height, width = (-(-n // stride) for n in image.size)
        # Brightened by tiles, since there may be no room for another copy of the image.
        network = tiled(brightened(gain, loaded.network), (height, width), side, place)
        network = Ensemble(network) if ensemble else network
        network = Polyphase(stride, network) if stride > 1 else network
        two_passes = network.takes_reference
        # The iterates are not projected, so the map is the network itself.
        checks = RunningChecks(certificate.alpha, box=None) if certificate.averaged else None
        say(f"{name}: sigma {report.noise_words(curve, value, origin)}", quiet)
        if not value and level is None:
            say(f"{name}: no noise was found, so the image stays as it is; give --sigma if it is noisy", quiet)
        if found.correlated:
            say(report.sharing_line(stride), quiet)
        elif level is None and distance is None and may_be_correlated(image.pixels, value / 255):
            say(f"{name}: if noise is left, neighbouring pixels share it; try --correlation 2", quiet)
        if rounding is not None:
            say(report.compression_line(rounding, value), quiet)
        if restored:
            say(report.cut_off_line(restored), quiet)
        if gain != 1 and value:
            say(report.exposure_line(gain), quiet)
        for line in report.denoiser_lines(loaded.name, certificate, two_passes, mapped=not curve.constant):
            say(line, quiet)
        fields = {
            "weights": loaded.name,
            "weights_sha256": loaded.sha256,
            "averaged": certificate.averaged and not two_passes and curve.constant,
            "averaged_for_fixed_reference": certificate.averaged,
            "alpha": certificate.alpha,
            "sigma": value,
            "sigma_origin": origin,
            "noise_curve": report.curve_points(curve),
            "jpeg_error": rounding,
            "correlation": stride,
            "correlated": found.correlated,
            "clipped": restored,
            "ensemble": ensemble,
            "gain": gain,
        }
        if files.dry_run:
            return Outcome(None, fields)

        def conclude(denoise: Callable[[Tensor], Tensor]) -> Outcome:
            with progress(name, repeat, quiet) as show:
                solution = fixed_point(
                    denoise,
                    whole,
                    tol=0.0,
                    max_iter=repeat,
                    checks=checks,
                    callback=lambda record, _: show(record.iteration, f"{record.iteration}/{repeat}"),
                )
            if repeat > 1:
                for record in solution.records:
                    say(f"  application {record.iteration:3d}: residual {record.residual:.6g}", quiet)
                slack = RunningChecks.rounding(solution.value)
                steady = all(b.residual <= a.residual + slack for a, b in pairwise(solution.records))
                say("  the residuals are nonincreasing" if steady else "  the residuals are NOT nonincreasing", quiet)
            for violation in solution.violations:
                say(f"{name}: VIOLATION {violation}")
            if solution.status is Status.DIVERGED:
                raise DivergenceError(
                    "the denoiser diverged, nothing was written; use certified weights such as 'huber'"
                )
            facts = fields | {
                "residuals": [record.residual for record in solution.records],
                "violations": list(solution.violations),
            }
            result = within_range_of(noisy, solution.value) if restored else solution.value
            return Outcome(from_tensor(result, image), facts, FALSE_CERTIFICATE if solution.violations else "")

        if repeat > 1:  # one operator, so its reference is kept
            with torch.no_grad():
                network = network.condition(whole, noise)
            return conclude(lambda x: network(x, noise))
        if batch > 1 and value and network is loaded.network:
            pixels = min(MOST_PIXELS, room(place), side**2 if side else MOST_PIXELS)
            most = max(1, min(batch, int(pixels) // (height * width)))
            kind = (id(network), whole.shape, curve.constant)
            compute = partial(estimate_together, network)
            return Pending(kind, most, (whole, noise), compute, lambda result: conclude(lambda _: result))
        return conclude(lambda x: network.estimate(x, noise))

    raise typer.Exit(run_batch(files.protecting(*shelf.paths), work))
