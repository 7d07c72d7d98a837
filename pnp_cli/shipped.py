"""Where weights are: those that come with the package by name, others by path. Does not import torch."""

from __future__ import annotations

import difflib
from pathlib import Path

from .errors import WeightsError
from .files import is_file


def locate(name: str | Path) -> Path:
    """Path of a weight file: a path as it is, or the name of a shipped file ("huber").

    Raises
    ------
    WeightsError
        If there is no such file.
    """
    path = Path(name)
    if path.suffix == ".safetensors" or len(path.parts) > 1:
        if not is_file(path):
            raise WeightsError(f"{path}: no such weight file")
        return path
    for folder in shipped_folders():
        shipped = folder / f"{name}.safetensors"
        if is_file(shipped):
            return shipped
    if is_file(path):
        raise WeightsError(f"{path}: is not called like a weight file; those end in .safetensors")
    known = shipped_names()
    meant = difflib.get_close_matches(str(name), known, 1)
    hint = f"did you mean {meant[0]}?" if meant else f"there are {', '.join(known)}, or give a .safetensors file"
    raise WeightsError(f"'{name}': no such weights; {hint}")


def shipped_names() -> list[str]:
    """Names of the shipped weights."""
    return sorted(path.stem for folder in shipped_folders() for path in folder.glob("*.safetensors"))


def shipped_folders() -> list[Path]:
    """Folders that may hold the shipped weights: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    return [f for f in (package / "weights", package.parent / "weights") if f.is_dir()]
