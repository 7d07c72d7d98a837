"""Weight files: safetensors with a header of metadata, verified from the numbers at every load.

The header holds the architecture, the training record, rules for deblurring and the certificate as it was computed
when the file was written. It is information: whether a network is averaged is recomputed from its weights.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from .certificate import Certificate, certify
from .denoisers import Denoiser
from .devices import choose_device
from .errors import WeightsError
from .files import is_file, read_bytes, write_bytes
from .presets import architecture_from_dict, architecture_to_dict, build
from .rules import CONDITIONED_RULES, PLAIN_RULES, Rules
from .shipped import locate as locate
from .shipped import shipped_folders as shipped_folders
from .shipped import shipped_names as shipped_names

KIND = "pnp-denoiser"
LOAD_GRID, SAVE_GRID = 24, 64
"""Frequencies per axis of the norm bound at load and at save: at most 1.8 % and 0.3 % above it for 3 × 3. Loading
bounds up to 20 layers in less than half a second."""


@dataclass(frozen=True)
class LoadedDenoiser:
    """A network with what is proven about it (`certificate`) and what its file says (`training`, `rules`)."""

    network: Denoiser
    certificate: Certificate
    name: str
    path: Path
    sha256: str
    training: dict[str, Any]
    rules: Rules


class Shelf:
    """Weights by the kind of image: NAME for colour, and for grey images NAME-grey beside it where there is one.

    The file called NAME is loaded at once, so that errors come early. The other is read when it is first needed, or
    when the shelf is pickled: it goes along to a machine that has no such file, or another one.

    Attributes
    ----------
    paths : of the files called NAME and NAME-grey, which need not exist.
    """

    def __init__(self, name: str | Path, device: torch.device | str = "cpu") -> None:
        self.device = device
        self._loaded = {False: load(name, device)}
        path = self._loaded[False].path
        self.paths = path, path.with_name(f"{path.stem}-grey{path.suffix}")

    def get(self, channels: int) -> LoadedDenoiser:
        """The denoiser for images of `channels` channels.

        Raises
        ------
        InputError
            If its file cannot be read or is damaged.
        """
        if channels != 1 or self._twin is None:
            return self._loaded[False]
        if True not in self._loaded:
            self._loaded[True] = _decode(self.paths[1], self._twin, self.device)
        return self._loaded[True]

    @cached_property
    def _twin(self) -> bytes | None:
        """Content of the file called NAME-grey, if there is one."""
        return read_bytes(self.paths[1]) if is_file(self.paths[1]) else None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_twin": self._twin}


def save(
    path: str | Path,
    network: Denoiser,
    training: Mapping[str, Any] | None = None,
    *,
    averaged: bool = False,
    rules: Rules | None = None,
) -> Certificate:
    """Write a weight file atomically and return its certificate.

    Parameters
    ----------
    path : ends in .safetensors.
    network : the network, without training parametrisations.
    training : JSON-able record: data, noise range, seed, steps, seconds.
    averaged : whether the file is to be labelled averaged; the certificate in it says what is true.
    rules : how to choose the settings of deblurring; without them general ones are used.

    Raises
    ------
    WeightsError
        If the label is "averaged" and the network is not certified averaged, or if the weights are not finite
        float32 numbers. Nothing is written then.
    """
    tensors = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    _require_finite_float32(tensors, str(path))
    certificate = certify(network, grid=SAVE_GRID, lower=True)
    if averaged and not certificate.averaged:
        raise WeightsError(f"{path}: refused to label the network averaged, since {certificate.reason}")
    header = {
        "kind": KIND,
        "architecture": json.dumps(architecture_to_dict(network.architecture)),
        "training": json.dumps(dict(training or {})),
        "certificate": json.dumps(certificate.as_dict()),
    }
    if rules:
        header["rules"] = json.dumps(rules.as_dict())
    write_bytes(path, save_tensors(tensors, metadata=header))
    return certificate


def load(
    name: str | Path, device: torch.device | str = "cpu", *, grid: int = LOAD_GRID, lower: bool = False
) -> LoadedDenoiser:
    """Read a weight file, build its network and recompute its certificate.

    Parameters
    ----------
    name : path of a .safetensors file, or the name of a shipped one.
    device : where to put the network; see `devices.choose_device`.
    grid, lower : see `certificate.certify`.

    Raises
    ------
    InputError
        If the file cannot be read, is damaged, or is not a weight file of this package.
    """
    path = locate(name)
    return _decode(path, read_bytes(path), device, grid, lower)


def _decode(
    path: Path, data: bytes, device: torch.device | str, grid: int = LOAD_GRID, lower: bool = False
) -> LoadedDenoiser:
    """The network in the content of a weight file, and its certificate."""
    header, tensors = parse(data, str(path))
    try:
        with torch.device("meta"):  # the header may claim any size: allocate nothing for it
            network = build(architecture_from_dict(json.loads(header["architecture"])))
        network.load_state_dict(tensors, assign=True)
        training = json.loads(header.get("training", "{}"))
        general = CONDITIONED_RULES if network.takes_reference else PLAIN_RULES
        rules = Rules.from_dict(json.loads(header["rules"])) if "rules" in header else general
    except (KeyError, ValueError, RuntimeError, TypeError) as error:
        raise WeightsError(
            f"{path}: the tensors do not fit the architecture in the header; the file is damaged"
        ) from error
    _require_finite_float32(tensors, str(path))
    certificate = certify(network, grid=grid, lower=lower)
    if not certificate.averaged and grid < SAVE_GRID:  # close to the limit: a finer grid may decide
        certificate = certify(network, grid=SAVE_GRID, lower=lower)
    network.requires_grad_(False).eval().to(choose_device(str(device)))
    return LoadedDenoiser(network, certificate, path.stem, path, hashlib.sha256(data).hexdigest(), training, rules)


def _require_finite_float32(tensors: Mapping[str, Tensor], name: str) -> None:
    if not all(t.dtype == torch.float32 and torch.isfinite(t).all() for t in tensors.values()):
        raise WeightsError(f"{name}: the weights are not finite float32 numbers")


def parse(data: bytes, name: str, kind: str = KIND) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Header and tensors of a safetensors file of this package.

    Raises
    ------
    WeightsError
        If the bytes are not such a file.
    """
    try:
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size]).get("__metadata__") or {}
        tensors = load_tensors(data)
    except (SafetensorError, ValueError, AttributeError) as error:
        raise WeightsError(f"{name}: not a safetensors file, or a damaged one") from error
    if header.get("kind") != kind:
        raise WeightsError(f"{name}: not a {kind} file")
    return header, tensors
