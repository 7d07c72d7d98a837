"""Architectures by name, as dictionaries, and the network of an architecture."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from .conditioned import ConditionedArchitecture, ConditionedNetwork
from .denoisers import Denoiser, DnCNN, DnCNNArchitecture, EulerArchitecture, EulerNetwork

Architecture = EulerArchitecture | ConditionedArchitecture | DnCNNArchitecture

HUBER = EulerArchitecture((2, 4) * 6, 80, "huber", staggered=True, centre=0.5)
HUBER_GREY = EulerArchitecture((2, 4) * 6, 64, "huber", width=1, image_channels=1, group=2, staggered=True, centre=0.5)

PRESETS: dict[str, Architecture] = {
    "huber": HUBER,
    "huber-grey": HUBER_GREY,
    "conditioned": ConditionedArchitecture(HUBER, (2, 4) * 4, 80, guide_widths=(40, 72, 96)),
    "euler": EulerArchitecture(scales=(1,) * 6, filters=64, activation="relu", width=64),
    "dncnn": DnCNNArchitecture(),
}
"""`huber` is averaged, and so is `huber-grey`, for grey images, with filters in pairs; `conditioned` is `huber` and its
second pass; `euler` is the lecture's network; `dncnn` is unconstrained and uncertified."""


def architecture_from_dict(fields: dict[str, Any]) -> Architecture:
    """Inverse of `architecture_to_dict`, as stored in the header of a weight file.

    Raises
    ------
    ValueError
        If the description is not one of a known architecture.
    """
    fields = dict(fields)
    family = fields.pop("family", None)
    try:
        if family == "euler":
            return _euler(fields)
        if family == "conditioned":
            plain = dict(fields.pop("plain"))
            plain.pop("family", None)
            scales, widths = tuple(fields.pop("scales")), tuple(fields.pop("guide_widths"))
            return ConditionedArchitecture(_euler(plain), scales, guide_widths=widths, **fields)
        if family == "dncnn":
            return DnCNNArchitecture(**fields)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the architecture description is malformed ({error})") from error
    raise ValueError(f"unknown architecture family {family!r}")


def _euler(fields: dict[str, Any]) -> EulerArchitecture:
    return EulerArchitecture(scales=tuple(fields.pop("scales")), **fields)


def architecture_to_dict(architecture: Architecture) -> dict[str, Any]:
    """Plain dictionary for JSON."""
    return asdict(architecture)


def build(architecture: Architecture) -> Denoiser:
    """The network of an architecture, its weights still to be set: by `initialise` or from a file."""
    if isinstance(architecture, EulerArchitecture):
        return EulerNetwork(architecture)
    if isinstance(architecture, ConditionedArchitecture):
        return ConditionedNetwork(architecture)
    return DnCNN(architecture)
