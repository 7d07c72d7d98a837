"""The command line: parses, calls the library, prints, and turns errors into exit codes."""

from __future__ import annotations

import io
import logging
import os
import sys
import traceback
from collections.abc import Callable
from typing import Annotated

import typer

from ..allocation import tune_allocation
from ..errors import PnpError
from ..files import noting_hashes
from . import blur, certify, deblur, denoise, ista, kernel, psnr, train
from .batch import exit_code, reason_of
from .console import say
from .kernel_options import complete_auto

EPILOG = (
    "Exit codes: 0 all good; 1 some file failed; 2 wrong usage; 3 a convergence condition is violated, or not "
    "converged under --strict; 4 below --min-psnr; 130 interrupted. Of several, the smallest."
)

app = typer.Typer(
    name="pnp",
    help="Restore blurred or noisy images with a convergence guarantee.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)

COMMANDS: dict[str, Callable[..., None]] = {
    "denoise": denoise.denoise,
    "deblur": deblur.deblur,
    "ista": ista.ista,
    "blur": blur.blur,
    "kernel": kernel.kernel,
    "psnr": psnr.psnr,
    "certify": certify.certify,
    "train-denoiser": train.train_denoiser,
}
for name, function in COMMANDS.items():
    app.command(name, epilog=EPILOG)(function)


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"pnp {version('pnp-cli')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point of the `pnp` command."""
    tune_allocation()
    if sys.stderr is None:  # closed: messages go nowhere, and not where data go
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without Greek letters is no reason to fail
    logging.getLogger("tifffile").addHandler(logging.NullHandler())  # of damaged files; one sentence of ours is enough
    try:
        with noting_hashes():
            app(args=complete_auto(sys.argv[1:]))
    except PnpError as error:
        say(f"pnp: error: {error}")
        sys.exit(exit_code(error))
    except Exception as error:
        say(f"pnp: error: {reason_of(error)}")
        if {"-v", "--verbose"} & set(sys.argv):
            traceback.print_exc()
        sys.exit(1)
    except KeyboardInterrupt:
        say("pnp: interrupted")
        sys.exit(130)
    except SystemExit as end:
        if end.code == 130:  # an interruption of a command, which typer makes this of
            say("pnp: interrupted")
        raise
