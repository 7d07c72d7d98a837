"""Options that several commands share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError, UsageError
from ..files import read_bytes
from ..images import MAX_PIXELS
from .paths import DEPTHS, ON_EXISTS
from .shared import Group

if TYPE_CHECKING:
    import torch


def _option_names(command: Any) -> dict[str, str]:
    """Parameter names of a command by the long names of its options."""
    return {
        option[2:]: parameter.name
        for parameter in command.params
        for option in parameter.opts
        if option.startswith("--") and parameter.name not in ("help", "config")
    }


def read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Take the defaults of the command from a TOML file.

    Raises
    ------
    UsageError
        If the file cannot be read, names what is not an option, or gives one a value that it cannot have.
    """
    if path is None:
        return None
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        tables = tomllib.loads(read_bytes(path).decode("utf-8-sig"))
    except (InputError, ValueError) as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise UsageError(f"{path}: not a usable configuration file ({reason})") from error
    for name, value in tables.items():
        if isinstance(value, list) and any(isinstance(entry, dict) for entry in value):
            raise UsageError(f"{path}: '{name}' is a list of tables; write one table, as in [{name}]")
    root = context.parent.command if context.parent else context.command
    every = dict(getattr(root, "commands", {}))
    commands = {name: c for name, c in every.items() if any(p.name == "config" for p in c.params)}
    unknown = {key for key, value in tables.items() if isinstance(value, dict)} - set(commands)
    unknown |= {key for key, value in tables.items() if not isinstance(value, dict)} - {
        name for command in commands.values() for name in _option_names(command)
    }
    own, names = tables.get(context.info_name or "", {}), _option_names(context.command)
    if not isinstance(own, dict):
        raise UsageError(f"{path}: '{context.info_name}' is a command, so it must be a table: [{context.info_name}]")
    unknown |= set(own) - set(names)
    if unknown:
        raise UsageError(f"{path}: '{sorted(unknown)[0]}' is not an option or command; see pnp {context.info_name} -h")
    common = {key: value for key, value in tables.items() if key in names and not isinstance(value, dict)}
    defaults = {names[key]: value for key, value in (common | own).items()}
    motion = defaults.get("motion")
    if isinstance(motion, str):
        defaults["motion"] = ["auto", "auto"] if motion == "auto" else motion.split()
    parameters: dict[str | None, Any] = {parameter.name: parameter for parameter in context.command.params}
    for option in common | own:
        value = defaults[names[option]]
        try:
            parameters[names[option]].process_value(context, value)
        except typer.BadParameter as error:
            raise UsageError(f"{path}: {option} cannot be {value!r} ({error.message.rstrip('.')})") from error
    context.default_map = {**(context.default_map or {}), **defaults}
    return path


def one_of(*words: str) -> Callable[[], list[str]]:
    """Completion of an option by a shell."""
    return lambda: list(words)


def _shipped() -> list[str]:
    from ..shipped import shipped_names

    return shipped_names()


Inputs = Annotated[
    list[str],
    typer.Argument(metavar="IN...", help="Image files, folders or globs; '-' is standard input.", show_default=False),
]
Jpeg = Annotated[
    bool,
    typer.Option(
        "--jpeg/--no-jpeg",
        help="Take noise and rounding errors from what a JPEG file says of its compression.",
    ),
]
Correlation = Annotated[
    str,
    typer.Option(
        "--correlation",
        metavar="N",
        help="Distance in pixels from which on the noise is independent: 1 for white noise, up to 8 where an image was "
        "demosaicked, resized or scanned; auto finds out where --sigma is auto.",
    ),
]
Sigma = Annotated[
    str, typer.Option("--sigma", "-s", metavar="S", help="Noise level of the image on the 0-255 scale, or 'auto'.")
]
Photon = Annotated[
    str,
    typer.Option(
        "--photon",
        metavar="K",
        help="Noise that grows with the light: of variance S^2 + K * brightness, all on the 0-255 scale, S that of "
        "--sigma. 0 for noise that is as large everywhere; auto finds out where --sigma is auto.",
    ),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="FORMAT",
        autocompletion=one_of("png", "jpg", "tif", "webp", "bmp", "npy"),
        help="Output format: png, jpg, tif, webp, bmp or npy. Default: by the suffix.",
    ),
]
BitDepth = Annotated[
    str,
    typer.Option(
        "--bit-depth",
        metavar="BITS",
        autocompletion=one_of(*DEPTHS),
        help="Depth of the output: keep, 8 or 16. What a format cannot hold is refused.",
    ),
]
Quality = Annotated[int, typer.Option("--quality", metavar="Q", min=1, max=100, help="Quality of JPEG outputs.")]
Strip = Annotated[
    bool, typer.Option("--strip", help="Leave out EXIF and XMP data, ICC profile and resolution of the input.")
]
MaxPixels = Annotated[
    int, typer.Option("--max-pixels", metavar="N", min=1, help="Refuse images of more pixels, before decoding them.")
]
Recursive = Annotated[
    bool, typer.Option("--recursive", "-r", help="Search folders recursively; outputs mirror their tree.")
]
OnExists = Annotated[
    str,
    typer.Option(
        "--on-exists",
        metavar="MODE",
        autocompletion=one_of(*ON_EXISTS),
        help="When an output exists: error, skip or overwrite.",
    ),
]
FailFast = Annotated[bool, typer.Option("--fail-fast", help="Stop at the first file that fails.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object per file to standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print every iteration and the time of every file.")]
ManifestFile = Annotated[
    Path | None,
    typer.Option(
        "--manifest",
        metavar="FILE",
        help="Write a JSON record: versions, arguments, hashes of inputs, weights and outputs, steps, residuals.",
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        metavar="ADDRESS",
        help="Restore the files on the Dask cluster with its scheduler there, such as tcp://host:8786; its workers "
        "compute on their CPUs.",
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        callback=read_config,
        is_eager=True,
        help="TOML file of defaults: option names at the top or under the name of a command; options given win.",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="DEVICE",
        autocompletion=one_of("auto", "cpu", "cuda"),
        help="auto, cpu, cuda or cuda:N. Only auto falls back.",
    ),
]
Weights = Annotated[
    str,
    typer.Option(
        "--weights",
        "-w",
        metavar="NAME",
        autocompletion=_shipped,
        help="Shipped weights (conditioned, huber, euler, dncnn) or a .safetensors file; of huber, grey images get "
        "huber-grey.",
    ),
]
Tile = Annotated[
    str,
    typer.Option(
        "--tile",
        metavar="N",
        help="Side of the tiles the denoiser works on: auto chooses by image and free memory, 0 takes the image "
        "whole. The result is the same.",
    ),
]
AllowUnsafe = Annotated[
    bool, typer.Option("--allow-unsafe", help="Run even though a convergence condition does not hold.")
]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with 3 if a run does not converge.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan and check the conditions; write no output.")]
Boundary = Annotated[
    str,
    typer.Option(
        "--boundary",
        metavar="MODEL",
        autocompletion=one_of("free", "periodic", "reflect"),
        help="What lies beyond the frame: free (the scene goes on, unknown), periodic (it repeats) or reflect "
        "(it is mirrored).",
    ),
]


def images_in_and_out(suffix: str) -> Group:
    """What a command reads and writes; `suffix` goes into the default name of an output."""
    output_option = typer.Option(
        "--output",
        "-o",
        metavar="OUT",
        help="Output file, folder (created when missing; end it with '/'), or '-' for standard output. "
        "May hold {name}, {stem} and {parent} of the input and {ext} of the output: '{parent}/out/{stem}.{ext}'. "
        f"Default: beside the input, as photo.{suffix}.png for photo.jpg.",
    )

    def group(inputs: Inputs, output: str | None = None) -> None:
        """See above."""

    group.__annotations__["output"] = Annotated[str | None, output_option]
    return group


def file_options(
    file_format: Format = None,
    bit_depth: BitDepth = "keep",
    quality: Quality = 95,
    strip: Strip = False,
    max_pixels: MaxPixels = MAX_PIXELS,
    recursive: Recursive = False,
    on_exists: OnExists = "error",
    fail_fast: FailFast = False,
    dry_run: DryRun = False,
    json: Json = False,
    manifest: ManifestFile = None,
    scheduler: Scheduler = None,
    config: Config = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    device: Device = "auto",
) -> None:
    """How a command treats files, where it computes and what it says; see `paths.FileOptions`."""


def _number(text: str) -> float:
    """A number, or not a number, which no comparison admits."""
    try:
        return float(text)
    except ValueError:
        return float("nan")


def read_level(text: str, option: str, auto: bool = True) -> float | None:
    """A noise level on the 0-255 scale, or None for "auto".

    Raises
    ------
    UsageError
        If it is not a number in [0, 255].
    """
    if auto and text == "auto":
        return None
    value = _number(text)
    if not 0 <= value <= 255:
        choices = "a number from 0 to 255 or 'auto'" if auto else "a number from 0 to 255"
        raise UsageError(f"{option} must be {choices}, not '{text}'")
    return value


def read_photon(text: str, level: float | None, auto: bool = True) -> float | None:
    """Variance of the noise per brightness, on the 0-255 scale as the level is that is given; None for "auto".

    Raises
    ------
    UsageError
        If it is something else, or given without a level.
    """
    if auto and text == "auto":
        return None if level is None else 0.0
    value = _number(text)
    if not 0 <= value <= 255:
        choices = "auto or a number" if auto else "a number"
        raise UsageError(f"--photon must be {choices} from 0 to 255, not '{text}'")
    if value and level is None:
        raise UsageError("--photon adds to the noise of --sigma, so give that, too; 0 if there is no other")
    return value


def read_device(name: str, scheduler: str | None) -> torch.device:
    """The device to compute on; with a cluster that of its workers, their CPUs.

    Raises
    ------
    UsageError
        If there is no such device, or a cluster is to compute on another.
    """
    from ..devices import choose_device

    if scheduler is None:
        return choose_device(name)
    if name not in ("auto", "cpu"):
        raise UsageError(f"--scheduler and --device {name}: the workers of a cluster compute on their CPUs")
    return choose_device("cpu")


def read_side(text: str, option: str, least: int) -> int | None:
    """Side of tiles or patches, 0 for none, or None for "auto".

    Raises
    ------
    UsageError
        If it is neither "auto", 0 nor at least `least`.
    """
    if text == "auto":
        return None
    if not text.isdecimal() or 0 < int(text) < least:
        raise UsageError(f"{option} must be auto, 0 (none) or a side of at least {least} pixels, not '{text}'")
    return int(text)


def read_correlation(text: str) -> int | None:
    """Distance from which on noise is independent, or None for "auto".

    Raises
    ------
    UsageError
        If it is something else.
    """
    if text == "auto":
        return None
    if not text.isdecimal() or not 1 <= int(text) <= 8:
        raise UsageError(f"--correlation must be auto or a distance of 1 to 8 pixels, not '{text}'")
    return int(text)


def level_hint(level: float | None, option: str) -> str | None:
    """A hint when a noise level looks like a fraction of white."""
    if level is not None and 0 < level < 1:
        return (
            f"{option} is on the 0-255 scale, so {level:g} is hardly any noise; {level:g} of white is {255 * level:g}"
        )
    return None
