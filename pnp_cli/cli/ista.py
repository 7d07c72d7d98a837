"""`pnp ista`: sparse restoration of blurred images."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from ..errors import ConditionError, DivergenceError, UsageError
from . import kernel_options as k
from . import options as o
from .batch import Outcome, run_batch
from .console import part_done, progress, say
from .paths import FileOptions
from .shared import takes


@takes(before=[o.images_in_and_out("ista"), k.kernel_options], after=[o.file_options])
def ista(
    context: typer.Context,
    boundary: o.Boundary = "free",
    basis: Annotated[
        str,
        typer.Option(
            "--basis",
            metavar="NAME",
            help="Orthonormal basis: dct4 (blocks of 4x4 pixels, or another side), dct (the whole image), pixel, or an "
            "orthogonal wavelet (haar, db4, sym8 ...).",
        ),
    ] = "dct4",
    spin: Annotated[
        int, typer.Option("--spin", metavar="N", min=0, help="Cycle spinning over N shifts of the basis; 0 for none.")
    ] = 4,
    gamma: Annotated[
        str,
        typer.Option(
            "--gamma",
            metavar="G",
            help="Weight of the l1 norm, for pixels in [0, 1]; or discrepancy, such that only the noise is left "
            "unexplained; or auto: discrepancy for the pixel basis, else by rule from the noise.",
        ),
    ] = "auto",
    sigma: o.Sigma = "auto",
    jpeg: o.Jpeg = True,
    fista: Annotated[
        bool, typer.Option("--fista/--no-fista", help="Accelerate with FISTA's momentum, restarted where it hinders.")
    ] = True,
    step: Annotated[
        float | None,
        typer.Option("--step", metavar="STEP", help="Step, in (0, 2/L) for ISTA and (0, 1/L] for FISTA. Default: 1/L."),
    ] = None,
    tol: Annotated[float, typer.Option("--tol", metavar="TOL", help="Relative duality gap at which to stop.")] = 0.1,
    max_iter: Annotated[int, typer.Option("--max-iter", metavar="N", min=1, help="Limit of iterations.")] = 2000,
    allow_unsafe: o.AllowUnsafe = False,
    strict: o.Strict = False,
    picture: k.Picture = None,
) -> None:
    """Restore blurred images that are sparse in a basis.

    The result minimises 1/2 |Kx - y|^2 + gamma |Psi x|_1. With --spin the penalty is the proximal average over shifts
    of Psi. The duality gap bounds how far the objective is from its minimum.

    Example: pnp ista blurred.png -o sharp.png --motion 15 30 --basis db4
    """
    files = FileOptions.of(context, "ista")
    quiet = files.quiet
    given = _read_gamma(gamma)
    if not 0 <= tol < float("inf"):
        raise UsageError(f"--tol must be a non-negative number, not {tol}")
    if step is not None and not 0 < step < float("inf"):
        raise UsageError(f"--step must be a positive number, not {step:g}")
    choice = k.read_kernel(context)
    k.require_drawable(picture, choice)
    level = o.read_level(sigma, "--sigma")
    for line in (*choice.notes, o.level_hint(level, "--sigma")):
        if line:
            say(line, quiet)

    import torch

    from .. import report
    from ..boundaries import boundary_model
    from ..exposure import find_gain
    from ..fidelity import LeastSquares
    from ..images import Image
    from ..noise import estimate_noise_under_blur
    from ..operators import BlurCache
    from ..solvers import Status
    from ..sparse import (
        SparseProblem,
        SparseRecord,
        discrepancy_gamma,
        rule_gamma,
        sparse_limit,
        sparse_step_failure,
    )
    from ..sparse import ista as solve
    from ..tensors import from_tensor, to_tensor
    from ..transforms import cycle, from_opponent, make_transform, to_opponent

    transforms = cycle(make_transform(basis), max(spin, 1))
    pixel = basis == "pixel"
    by_discrepancy = gamma == "discrepancy" or (gamma == "auto" and pixel)
    place = o.read_device(files.device, files.scheduler)
    blur_for, model = BlurCache(place, torch.float64), boundary_model(boundary)

    def work(image: Image, name: str) -> Outcome:
        colours = to_tensor(image, place, torch.float64)  # single precision would hide small duality gaps
        y = colours if pixel else to_opponent(colours)
        compression = image.jpeg if jpeg else None
        psf, description = choice.of(image, compression)
        operator = blur_for(psf, image.size, model)
        fidelity = LeastSquares(operator, y)
        alpha = step if step is not None else 1 / fidelity.lipschitz
        limit = sparse_limit(fidelity.lipschitz, fista)
        seen = 255 * estimate_noise_under_blur(image.pixels, psf, compression)
        noise = level if level is not None else seen
        rounding = 255 * compression.level if compression is not None else None
        total = math.hypot(noise, rounding or 0.0)
        gain = find_gain(colours, total / 255)
        weight = given if given is not None or by_discrepancy else rule_gamma(total / 255, gain)
        method = "FISTA" if fista else "ISTA"
        say(f"{name}: {image.size[1]}x{image.size[0]}, {description}, {boundary} boundary", quiet)
        say(f"noise       {noise:.3g} (0-255 scale, {'given' if level is not None else 'estimated'})", quiet)
        for line in report.doubt_lines(noise, seen, gain):
            say(line, quiet)
        if rounding is not None:
            say(report.compression_line(rounding, total), quiet)
        psi = basis if len(transforms) == 1 else f"{len(transforms)} shifts of {basis}"
        size = "gamma" if weight is None else f"{weight:.4g}"
        say(f"objective   1/2 |Kx - y|^2 + {size} |Psi x|_1, Psi = {psi}", quiet)
        failure = sparse_step_failure(alpha, fidelity.lipschitz, fista)
        ends = "the objective falls to its minimum" if fista else "ISTA converges to a minimiser"
        theorem = ends if failure is None else "no convergence theorem applies"
        say(f"theorem     {theorem}; L = {fidelity.lipschitz:.6g}", quiet)
        inside = "in" if failure is None else "NOT in"
        say(f"step        {alpha:.6g} {inside} (0, {limit:.6g}{']' if fista else ')'}", quiet)
        if failure and not allow_unsafe:
            raise ConditionError(failure)
        fields = {
            "kernel": description,
            "boundary": boundary,
            "basis": basis,
            "spin": len(transforms),
            "noise": noise,
            "jpeg_error": rounding,
            "gain": gain,
            "gamma": weight,
            "method": method,
            "step": alpha,
            "step_limit": limit,
        }
        if files.dry_run:
            return Outcome(None, fields)
        start = operator.boundary.extrapolate(y)
        if weight is None:
            weight, start = discrepancy_gamma(fidelity, transforms, total / 255, alpha, accelerated=fista, gain=gain)
            fields["gamma"] = weight
            say(f"gamma       {weight:.4g}, by the discrepancy principle", quiet)
        with progress(name, 1, quiet) as show:
            first: dict[int, float] = {}

            def note(record: SparseRecord, _: object) -> None:
                words = f"iteration {record.iteration}, gap {record.relative_gap:.1e}"
                first.setdefault(0, record.relative_gap)
                show(part_done(record.iteration, max_iter, record.relative_gap, first[0], tol), words)
                say(f"  {words}", not files.verbose)

            solution = solve(
                SparseProblem(fidelity, transforms, weight, alpha),
                start,
                accelerated=fista,
                tol=tol,
                max_iter=max_iter,
                callback=note,
            )
        if solution.status is Status.DIVERGED:
            raise DivergenceError("the iteration diverged, nothing was written; use an admissible step")
        discrepancy = fidelity.discrepancy(solution.value, total / 255)
        for line in report.sparse_lines(solution, tol, discrepancy, compressed=rounding is not None):
            say(line, quiet)
        fields["solution"] = report.sparse_dict(solution, discrepancy)
        failure = ""
        if strict and not solution.converged:
            failure = "not converged, as --strict asks for; raise --max-iter or --tol"
        restored = operator.boundary.frame_of(solution.value)
        return Outcome(from_tensor(restored if pixel else from_opponent(restored), image), fields, failure)

    code = run_batch(files.protecting(choice.file), work)
    if picture and choice.kernel is not None and not files.dry_run:
        k.draw(choice.kernel, picture, files.on_exists, quiet)
    raise typer.Exit(code)


def _read_gamma(text: str) -> float | None:
    """The weight, or None for "auto" and "discrepancy".

    Raises
    ------
    UsageError
        If it is something else.
    """
    if text in ("auto", "discrepancy"):
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 < value < float("inf"):
        raise UsageError(f"--gamma must be a positive number, 'auto' or 'discrepancy', not '{text}'")
    return value
