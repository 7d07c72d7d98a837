"""Choosing where to compute."""

from __future__ import annotations

import torch

from .errors import UsageError


def choose_device(name: str = "auto") -> torch.device:
    """Device called `name`: auto, cpu, cuda or cuda:N. Only `auto` falls back to the CPU.

    TensorFloat-32 is switched off: its 10-bit mantissa is coarser than the checks of a guarantee allow. Convolutions
    are to sum in a fixed order, so that the same run gives the same bytes.

    Raises
    ------
    UsageError
        If the name is unknown or the device is not available.
    """
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is not None and device.type == "mps":
        raise UsageError(
            f"device '{name}' is not supported: Apple GPUs lack the double precision that the checks of a run need; "
            "use cpu"
        )
    if device is None or device.type not in ("cpu", "cuda"):
        raise UsageError(f"unknown device '{name}'; use auto, cpu, cuda or cuda:N")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UsageError(f"device '{name}' was asked for, but no CUDA device is available; use auto or cpu")
        if device.index is not None and device.index >= torch.cuda.device_count():
            raise UsageError(f"device '{name}' does not exist; there are {torch.cuda.device_count()} CUDA devices")
    return device


def describe_device(device: torch.device) -> str:
    """Name of a device for a report."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    count = torch.get_num_threads()
    return f"cpu ({count} thread{'s' if count != 1 else ''})"
