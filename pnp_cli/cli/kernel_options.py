"""The options that name a blur kernel, and the kernel they name."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError, UsageError
from .console import say
from .paths import require_file

if TYPE_CHECKING:
    from ..images import Image
    from ..jpeg import JpegRounding
    from ..kernels import Kernel

Motion = Annotated[
    tuple[str, str] | None,
    typer.Option(
        "--motion",
        metavar="LENGTH ANGLE",
        help="Linear motion blur: length in pixels, direction in degrees counter-clockwise from horizontal. "
        "Or 'auto': estimated from each image, and its bends and speed followed.",
    ),
]
Gaussian = Annotated[
    float | None, typer.Option("--gaussian", metavar="S", help="Gaussian blur of standard deviation S pixels.")
]
Disk = Annotated[float | None, typer.Option("--disk", metavar="R", help="Defocus: uniform disk of radius R pixels.")]
KernelFile = Annotated[
    Path | None,
    typer.Option("--kernel", metavar="FILE", help="Blur kernel from a PNG, TIFF, NPY or MAT file; scaled to unit sum."),
]
MotionPath = Annotated[
    str | None,
    typer.Option(
        "--path",
        metavar="POINTS",
        help="Motion blur along a path, at constant speed: points X,Y in pixels, X right and Y down, as in "
        "'0,0 12,3 20,-5'.",
    ),
]
Trajectory = Annotated[
    Path | None,
    typer.Option(
        "--trajectory",
        metavar="FILE",
        help="Motion blur along a measured path: a CSV file with columns x,y at equal times, or t,x,y; in pixels, "
        "y down.",
    ),
]
Center = Annotated[
    bool,
    typer.Option(
        "--center/--no-center",
        help="Move the centroid of the --kernel FILE to its middle, so that the image stays where it is.",
    ),
]

LinearLight = Annotated[
    bool | None,
    typer.Option(
        "--linear-light/--no-linear-light",
        help="Light is blurred, as in a camera, and samples follow the sRGB curve: undo it, and redo it at the end. "
        "By default of files with the exposure of a camera in their EXIF data.",
        show_default=False,
    ),
]
Picture = Annotated[
    Path | None,
    typer.Option("--picture", metavar="FILE", help="Draw the kernel and its transfer function, as PNG or the like."),
]


def kernel_options(
    motion: Motion = None,
    gaussian: Gaussian = None,
    disk: Disk = None,
    path: MotionPath = None,
    trajectory: Trajectory = None,
    kernel: KernelFile = None,
    center: Center = True,
) -> None:
    """What names a kernel; see `read_kernel`."""


AUTO = ("auto", "auto")
"""What '--motion auto' becomes, since the option takes two words."""

KERNELS = ("motion", "gaussian", "disk", "kernel", "path", "trajectory")
"""The options that name one."""


def complete_auto(arguments: list[str]) -> list[str]:
    """Give the second word to every '--motion auto' of a command line.

    Raises
    ------
    UsageError
        If '--motion' is followed by one number, or 'auto' by one, so that a number or a file name would be taken for
        the other word.
    """
    completed = [word for part in arguments for word in (part.split("=") if part == "--motion=auto" else [part])]
    for i in range(len(completed) - 1, 0, -1):
        if completed[i - 1] != "--motion":
            continue
        first, second = completed[i], completed[i + 1] if i + 1 < len(completed) else ""
        if is_number(first) != is_number(second):
            raise UsageError(
                f"--motion takes a length in pixels and an angle in degrees, as in --motion 15 30, or auto alone, "
                f"not '{' '.join((first, second)).strip()}'"
            )
        if first == "auto" != second:
            completed.insert(i + 1, "auto")
    return completed


def is_number(word: str) -> bool:
    """Whether a word of the command line is one."""
    try:
        float(word)
    except ValueError:
        return False
    return True


def in_light(image: Image, linear_light: bool | None) -> bool:
    """Whether light is blurred in an image: as --linear-light says, else by what its file tells of a camera."""
    return image.photograph if linear_light is None else linear_light


SHARP = 3.0
"""Motions that are found in sharp images are shorter, in pixels."""


@dataclass(frozen=True)
class KernelChoice:
    """A kernel given by the options, or, if it is None, a motion to be estimated from each image."""

    kernel: Kernel | None
    description: str
    notes: tuple[str, ...] = ()
    file: Path | None = None
    """What it was read from."""

    def of(
        self, image: Image | None, jpeg: JpegRounding | None = None, *, linear_light: bool = False
    ) -> tuple[Kernel, str]:
        """The kernel for an image, and its description; no image is needed if the kernel was given.

        For `jpeg` and `linear_light` see `motion.estimate_motion`.

        Raises
        ------
        InputError
            If it is to be estimated and the image shows no clear linear motion blur.
        """
        if self.kernel is not None:
            return self.kernel, self.description
        assert image is not None
        from .. import kernels
        from ..motion import estimate_motion
        from ..motion_path import follow_motion

        found = estimate_motion(image.pixels, jpeg, linear_light=linear_light)
        words = f"{found.length:.1f} px, {found.angle:.1f} degrees, confidence {found.confidence:.2f}"
        if not found.clear:
            guess = f"--motion {found.length:.1f} {found.angle:.1f} if it is blurred so"
            sharp = "; it may be sharp" if found.length < SHARP else ""
            raise InputError(
                f"not a clear linear motion blur{sharp} (best guess {words}); give {guess}, or another kernel"
            )
        followed = follow_motion(image.pixels, found, jpeg, linear_light=linear_light)
        if followed is None:
            return kernels.motion(found.length, found.angle), f"motion {words}, estimated"
        path = f"a path that bends by {followed.bend:.1f} px, its speed varies {followed.variation:.1f}-fold"
        return followed.kernel, f"motion {words}, estimated; followed along {path}"


def read_kernel(context: typer.Context) -> KernelChoice:
    """The kernel that exactly one of the kernel options names; one on the command line replaces that of a --config.

    Raises
    ------
    UsageError
        If none or several are given, or a value makes no sense.
    """
    from .. import kernels

    options, center = context.params, context.params["center"]
    given: dict[str, Any] = {name: options[name] for name in KERNELS if options[name] is not None}
    if len(given) > 1:  # one that was typed goes before those of a configuration file
        sources = {name: context.get_parameter_source(name) for name in given}
        given = {name: given[name] for name, source in sources.items() if source and source.name == "COMMANDLINE"}
    if len(given) != 1:
        raise UsageError(
            "give exactly one blur kernel: --motion LENGTH ANGLE, --motion auto, --gaussian S, --disk R, "
            "--path POINTS, --trajectory FILE or --kernel FILE"
        )
    ((name, value),) = given.items()
    if name in ("kernel", "trajectory"):
        require_file(value, f"--{name}")
    typed = context.get_parameter_source("center")
    if name != "kernel" and not center and typed and typed.name == "COMMANDLINE":
        raise UsageError("--no-center belongs to --kernel FILE; leave it out")
    if name == "motion":
        if tuple(value) == AUTO:
            return KernelChoice(None, "motion, estimated")
        length, angle = _read_motion(value)
        return KernelChoice(kernels.motion(length, angle), f"motion {length:g} px, {angle:g} degrees")
    if name == "gaussian":
        return KernelChoice(kernels.gaussian(value), f"gaussian, standard deviation {value:g} px")
    if name == "disk":
        return KernelChoice(kernels.disk(value), f"disk, radius {value:g} px")
    if name == "path":
        return KernelChoice(kernels.path(read_points(value, "--path")), f"path {value}")
    if name == "trajectory":
        return KernelChoice(kernels.from_trajectory(value), f"trajectory {value}", file=Path(value))
    kernel, notes = kernels.from_file(value, center)
    return KernelChoice(kernel, f"{value} ({kernel.shape[0]}x{kernel.shape[1]})", notes, Path(value))


def _read_motion(motion: tuple[str, str]) -> tuple[float, float]:
    try:
        length, angle = (float(word) for word in motion)
    except ValueError as error:
        raise UsageError(f"--motion must be a length and an angle, or 'auto', not '{' '.join(motion)}'") from error
    return length, angle


def require_drawable(picture: Path | None, choice: KernelChoice) -> None:
    """Refuse a picture that cannot be drawn, before any work.

    Raises
    ------
    UsageError
        If the kernel is not known beforehand.
    InputError
        If its name has no image suffix.
    """
    if picture is None:
        return
    from ..images import format_of

    if choice.kernel is None:
        raise UsageError("--picture needs a given kernel; pnp kernel IMAGE --motion auto draws an estimated one")
    format_of(picture)


def draw(kernel: Kernel, picture: Path, on_exists: str, quiet: bool) -> None:
    """Write the picture of a kernel, unless it exists and is to be skipped then."""
    if on_exists == "skip" and os.path.exists(picture):
        say(f"{picture}: skipped, it exists", quiet)
        return
    from .. import kernel_picture
    from ..files import write_bytes
    from ..images import encode_image, format_of

    data = encode_image(kernel_picture.draw(kernel), format_of(picture), str(picture))
    write_bytes(picture, data, overwrite=on_exists == "overwrite")
    say(f"wrote {picture}", quiet)


def read_points(text: str, option: str) -> list[tuple[float, float]]:
    """Points "X,Y X,Y ..." as numbers.

    Raises
    ------
    UsageError
        If they are something else.
    """
    try:
        return [(float(x), float(y)) for x, y in (point.split(",") for point in text.split())]
    except ValueError as error:
        raise UsageError(f"{option} must be points X,Y between spaces, such as '0,0 12,3', not '{text}'") from error
