"""`pnp certify`: prove what can be proven about a weight file."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConditionError, InputError
from . import options as o
from .batch import exit_code, exit_code_of_all
from .console import emit, harmless, say, to_stdout

if TYPE_CHECKING:
    from ..weights import LoadedDenoiser


def certify(
    weights: Annotated[
        list[str],
        typer.Argument(
            metavar="WEIGHTS...",
            help="Shipped weights (conditioned, huber, huber-grey, euler, dncnn) or .safetensors files.",
            show_default=False,
        ),
    ],
    grid: Annotated[
        int,
        typer.Option("--grid", metavar="N", min=16, max=128, help="Frequencies per axis; more is tighter and slower."),
    ] = 64,
    json: o.Json = False,
) -> None:
    """Prove from the weights that a network is averaged.

    The norm of every layer is bounded for every image size, and from these bounds the averaged constant of the network.

    Exits with 3 if a network is not certified averaged, but with 1 if a file cannot be read.

    Example: pnp certify huber
    """
    from ..weights import load

    codes = []
    for name in weights:
        try:
            loaded = load(name, grid=grid, lower=True)
        except InputError as error:
            codes.append(exit_code(error))
            say(f"pnp: error: {error}")
            if json:
                emit("certify", name, False, error=str(error))
            continue
        c = loaded.certificate
        codes.append(0 if c.averaged else exit_code(ConditionError()))
        if json:
            facts: dict[str, Any] = {} if c.averaged else {"error": f"not certified: {c.reason}"}
            facts |= {"sha256": loaded.sha256, "grid": grid, **c.as_dict(), "training": loaded.training}
            emit("certify", name, c.averaged, **facts)
            continue
        with to_stdout():
            _show(loaded)
    raise typer.Exit(exit_code_of_all(codes))


def _show(loaded: LoadedDenoiser) -> None:
    c = loaded.certificate
    print(f"{harmless(str(loaded.path), sys.stdout)}  sha256 {loaded.sha256[:16]}")
    if c.layers:
        from rich.console import Console
        from rich.table import Table

        table = Table(box=None, pad_edge=False)  # fits 80 columns; the lower bound of ‖A‖ is a power iteration's
        for heading in ("layer", "shape", "‖A‖ ≤", "‖A‖ ≥", "gap", "τ", "α = τ‖A‖²/2"):
            table.add_column(heading, no_wrap=True)
        for layer in c.layers:
            lower = layer.norm_lower or 0.0
            gap = f"{100 * (layer.norm_upper / lower - 1):.2f} %" if lower else ""
            shape = "x".join(map(str, layer.shape))
            table.add_row(
                layer.name,
                shape,
                f"{layer.norm_upper:.6f}",
                f"{lower:.6f}",
                gap,
                f"{layer.step:.4f}",
                f"{layer.alpha:.4f}",
            )
        Console().print(table)
    verdict = (
        f"AVERAGED with α = {c.alpha:.6f}, hence nonexpansive, for every image size" if c.averaged else "NOT CERTIFIED"
    )
    print(f"verdict: {verdict} ({c.reason})")
