"""Work on a GPU that is recorded once and replayed as a whole.

A training step of a small network is thousands of short kernels, and to launch them one by one takes several times as
long as they take. A CUDA graph is launched at once.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class Replayed:
    """A function of tensors on the current GPU, called as it is at first, then recorded and replayed.

    Its work must be the same at every call: inputs of the same shapes, no random numbers, nothing that waits for the
    GPU. What it allocates and leaves behind, such as gradients, stays at its place in memory, and so does its result,
    which the next call overwrites.

    Parameters
    ----------
    function : from tensors to one tensor.
    """

    UNRECORDED = 3
    """Calls before the recording, in which libraries choose their algorithms and allocate what they keep."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self._function = function
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The result of the function for these inputs."""
        if self._calls < self.UNRECORDED:
            self._calls += 1
            return self._call(inputs)
        if self._graph is None:
            self._record(inputs)
        assert self._graph is not None
        for place, value in zip(self._inputs, inputs, strict=True):
            place.copy_(value)
        self._graph.replay()
        return self._result

    def _call(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """The function itself, on another stream than the default one, as it is going to be recorded."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            result = self._function(*inputs)
        torch.cuda.current_stream().wait_stream(self._stream)
        return result

    def _record(self, inputs: tuple[Tensor, ...]) -> None:
        self._inputs = tuple(value.clone() for value in inputs)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=self._stream):
            self._result = self._function(*self._inputs)
