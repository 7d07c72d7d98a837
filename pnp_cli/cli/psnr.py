"""`pnp psnr`: score results against a reference."""

from __future__ import annotations

import math
import sys
from typing import Annotated

import typer

from ..errors import InputError, UsageError
from ..images import MAX_PIXELS
from . import options as o
from .console import emit, say


def psnr(
    reference: Annotated[str, typer.Argument(metavar="REFERENCE", help="The true image.", show_default=False)],
    tests: Annotated[
        list[str], typer.Argument(metavar="TEST...", help="Images, folders or globs to score.", show_default=False)
    ],
    peak: Annotated[
        str,
        typer.Option("--peak", help="range: 1.0, as in published tables; reference-max: the largest reference value."),
    ] = "range",
    ssim: Annotated[bool, typer.Option("--ssim", help="Report the structural similarity as well.")] = False,
    min_psnr: Annotated[
        float | None, typer.Option("--min-psnr", metavar="DB", help="Exit with 4 if a score is below this.")
    ] = None,
    max_pixels: o.MaxPixels = MAX_PIXELS,
    json: o.Json = False,
) -> None:
    """Print the PSNR of images against a reference, in dB.

    A table on a terminal; bare numbers, one line per image, when piped.

    Example: pnp psnr truth.png result.png --min-psnr 30
    """
    if min_psnr is not None and math.isnan(min_psnr):
        raise UsageError("--min-psnr must be a number of dB")
    if peak not in ("range", "reference-max"):
        raise UsageError(f"--peak must be range or reference-max, not '{peak}'")

    from .. import metrics
    from ..images import read_image
    from .paths import find_sources

    truth = read_image(reference, max_pixels=max_pixels)
    rows: list[tuple[str, float, float | None]] = []
    failed = False
    for source in find_sources(tests):
        try:
            image = source.read(max_pixels)
            if image.pixels.shape != truth.pixels.shape:
                a, b = image.pixels.shape, truth.pixels.shape
                raise InputError(f"{source.name}: is {a[1]}x{a[0]}x{a[2]}, but the reference is {b[1]}x{b[0]}x{b[2]}")
            value = metrics.psnr(truth.pixels, image.pixels, peak)  # type: ignore[arg-type]
            try:
                similarity = metrics.ssim(truth.pixels, image.pixels) if ssim else None
            except ValueError as error:
                raise InputError(f"{source.name}: {error}") from error
        except InputError as error:
            failed = True
            say(f"pnp: error: {error}")
            if json:
                emit("psnr", source.name, False, error=str(error))
            continue
        rows.append((source.name, value, similarity))
        if json:
            # JSON has no infinity: psnr is null for identical images.
            same = value == float("inf")
            emit("psnr", source.name, True, reference=reference, psnr=value, peak=peak, ssim=similarity, identical=same)
    if not json:
        _show(rows, peak, ssim)
    if min_psnr is not None and any(value < min_psnr for _, value, _ in rows):
        say(f"pnp: a PSNR is below {min_psnr:g} dB")
        raise typer.Exit(4)
    raise typer.Exit(1 if failed else 0)


def _show(rows: list[tuple[str, float, float | None]], peak: str, ssim: bool) -> None:
    if not sys.stdout.isatty():
        for _, value, similarity in rows:
            print(f"{value:.4f}" + (f"\t{similarity:.5f}" if similarity is not None else ""))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("image", f"PSNR (dB, peak {'1.0' if peak == 'range' else 'max |reference|'})")
    if ssim:
        table.add_column("SSIM")
    for name, value, similarity in rows:
        table.add_row(name, f"{value:.2f}", *([f"{similarity:.4f}"] if similarity is not None else []))
    if rows:
        Console().print(table)
