"""`pnp psnr`: score results against a reference."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError, UsageError
from ..images import MAX_PIXELS
from . import options as o
from .batch import exit_code, exit_code_of_all
from .console import emit, harmless, say, to_stdout

if TYPE_CHECKING:
    from ..images import Image
    from .paths import Source


def psnr(
    reference: Annotated[
        str,
        typer.Argument(
            metavar="REFERENCE",
            help="The true image, or a folder of true images: NAME.png is that of NAME.png and of NAME.deblurred.png.",
            show_default=False,
        ),
    ],
    tests: Annotated[
        list[str], typer.Argument(metavar="TEST...", help="Images, folders or globs to score.", show_default=False)
    ],
    peak: Annotated[
        str,
        typer.Option(
            "--peak",
            metavar="PEAK",
            help="range: 1.0, as in published tables; reference-max: the largest reference value.",
        ),
    ] = "range",
    ssim: Annotated[bool, typer.Option("--ssim", help="Report the structural similarity as well.")] = False,
    min_psnr: Annotated[
        float | None, typer.Option("--min-psnr", metavar="DB", help="Exit with 4 if a score is below this.")
    ] = None,
    max_pixels: o.MaxPixels = MAX_PIXELS,
    recursive: o.Recursive = False,
    json: o.Json = False,
    config: o.Config = None,
) -> None:
    """Print the PSNR of images against a reference, in dB.

    A table on a terminal, with the mean of several; bare numbers, one line per image, when piped: nan for one that
    cannot be scored.

    Example: pnp psnr truth.png result.png --min-psnr 30

    Example: pnp psnr truths/ results/ --json
    """
    if min_psnr is not None and math.isnan(min_psnr):
        raise UsageError("--min-psnr must be a number of dB")
    if peak not in ("range", "reference-max"):
        raise UsageError(f"--peak must be range or reference-max, not '{peak}'")

    from .. import metrics
    from .paths import find_sources, require_one_stream

    require_one_stream([reference, *tests])
    truths = _Truths(reference, recursive, max_pixels)
    rows: list[tuple[str, float, float | None]] = []
    codes = []
    for source in find_sources(tests, recursive):
        try:
            truth = truths.of(source)
            image = source.read(max_pixels)
            if image.pixels.shape != truth.pixels.shape:
                raise InputError(
                    f"{source.name}: is {image.kind}, but the reference is {truth.kind}; crop or convert one of them"
                )
            value = metrics.psnr(truth.pixels, image.pixels, peak)  # type: ignore[arg-type]
            try:
                similarity = metrics.ssim(truth.pixels, image.pixels) if ssim else None
            except ValueError as error:
                raise InputError(f"{source.name}: {error}") from error
        except InputError as error:
            codes.append(exit_code(error))
            rows.append((source.name, math.nan, math.nan if ssim else None))
            say(f"pnp: error: {error}")
            if json:
                emit("psnr", source.name, False, error=str(error))
            continue
        rows.append((source.name, value, similarity))
        if json:
            facts = {"psnr": value, "peak": peak, "ssim": similarity, "identical": _identical(image, truth)}
            emit("psnr", source.name, True, reference=truths.name, **facts)
    if not json:
        with to_stdout():
            _show(rows, peak, ssim)
    if min_psnr is not None and any(value < min_psnr for _, value, _ in rows):
        say(f"pnp: a PSNR is below {min_psnr:g} dB")
        codes.append(4)
    raise typer.Exit(exit_code_of_all(codes))


def _identical(image: Image, truth: Image) -> bool:
    """Whether two images have the same pixels and the same transparency, which the PSNR is without."""
    import numpy as np

    if image.alpha is None or truth.alpha is None:
        same = image.alpha is truth.alpha
    else:
        same = np.array_equal(image.alpha, truth.alpha)
    return same and np.array_equal(image.pixels, truth.pixels)


class _Truths:
    """The true image of every test image: one for all, or those of a folder by name. The last one is kept."""

    def __init__(self, reference: str, recursive: bool, max_pixels: int) -> None:
        from ..files import is_dir
        from .paths import STREAM, Source, find_sources

        self.max_pixels = max_pixels
        self.folder = Path(reference) if reference != STREAM and is_dir(Path(reference)) else None
        self.by_name: dict[str, Source] = {}
        if self.folder:
            for source in find_sources([reference], recursive):
                source.require()
                key = self._key(source)
                if key in self.by_name:
                    raise UsageError(f"{source.name} and {self.by_name[key].name} are both called {source.path.stem}")  # type: ignore[union-attr]
                self.by_name[key] = source
        self._only = Source(None if reference == STREAM else Path(reference))
        self._last: tuple[Source, Image] | None = None
        if not self.folder:
            self._read(self._only)  # a reference that cannot be read is no fault of the images

    @staticmethod
    def _key(source: Source) -> str:
        """Folder below the root and stem."""
        path = source.path or Path()
        return str((path.relative_to(source.root) if source.root else Path(path.name)).with_suffix(""))

    @property
    def name(self) -> str:
        """What the last true image is called."""
        return self._last[0].name if self._last else str(self.folder)

    def of(self, source: Source) -> Image:
        """The true image of a test image.

        Raises
        ------
        InputError
            If there is none, or it cannot be read.
        """
        source.require()
        if not self.folder:
            return self._read(self._only)
        if source.path is None:
            raise InputError(f"{source.name}: has no name to look up in the folder {self.folder}; give a file")
        key = self._key(source)
        shorter = str(Path(key).with_suffix(""))
        found = self.by_name.get(key) or self.by_name.get(shorter)
        if found is None:
            raise InputError(f"{source.name}: the folder {self.folder} holds no true image called {shorter}")
        return self._read(found)

    def _read(self, source: Source) -> Image:
        if self._last is None or self._last[0] is not source:
            self._last = source, source.read(self.max_pixels)
        return self._last[1]


def _show(rows: list[tuple[str, float, float | None]], peak: str, ssim: bool) -> None:
    if not sys.stdout.isatty():
        for _, value, similarity in rows:
            print(f"{value:.4f}" + (f"\t{similarity:.5f}" if similarity is not None else ""))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("image", f"PSNR (dB, peak {'1.0' if peak == 'range' else 'max |reference|'})")
    if ssim:
        table.add_column("SSIM")
    for name, value, similarity in rows:
        table.add_row(
            Text(harmless(name, sys.stdout)), f"{value:.2f}", *([f"{similarity:.4f}"] if similarity is not None else [])
        )
    scored = [row for row in rows if not math.isnan(row[1])]
    if len(rows) > 1 and scored:
        mean = [f"{sum(r[2] or 0 for r in scored) / len(scored):.4f}"] if ssim else []
        table.add_row("mean", f"{sum(r[1] for r in scored) / len(scored):.2f}", *mean)
    if rows:
        Console().print(table)
