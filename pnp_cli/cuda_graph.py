"""Work on a GPU that is recorded once and replayed as a whole.

A training step of a small network is thousands of short kernels, and to launch them one by one takes several times as
long as they take. A CUDA graph is launched at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


class Replayed:
    """A function of tensors on one GPU, called as it is at first, then recorded and replayed.

    Its work must be the same at every call: inputs of the same shapes, no random numbers, nothing that waits for the
    GPU. What it allocates and leaves behind, such as gradients, stays at its place in memory, and so does its result,
    which the next call overwrites.

    Parameters
    ----------
    function : from tensors to one tensor.
    device : the GPU.
    """

    UNRECORDED = 3
    """Calls before the recording, in which libraries choose their algorithms and allocate what they keep."""

    def __init__(self, function: Callable[..., Tensor], device: torch.device) -> None:
        self._function = function
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._calls = 0
        self._recording: _Recording | None = None

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The result of the function for these inputs."""
        with torch.cuda.device(self._device):
            if self._calls < self.UNRECORDED:
                self._calls += 1
                return self._call(inputs)
            if self._recording is None:
                self._recording = self._record(inputs)
            return self._recording.replay(inputs)

    def _call(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """The function itself, on another stream than the default one, as it is going to be recorded."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            result = self._function(*inputs)
        torch.cuda.current_stream().wait_stream(self._stream)
        return result

    def _record(self, inputs: tuple[Tensor, ...]) -> _Recording:
        places = tuple(value.clone() for value in inputs)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            result = self._function(*places)
        return _Recording(graph, places, result)


@dataclass(frozen=True)
class _Recording:
    """A graph, the tensors it reads its inputs from, and the one it leaves its result in."""

    graph: torch.cuda.CUDAGraph
    places: tuple[Tensor, ...]
    result: Tensor

    def replay(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """The result for these inputs."""
        for place, value in zip(self.places, inputs, strict=True):
            place.copy_(value)
        self.graph.replay()
        return self.result
