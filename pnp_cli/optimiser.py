"""The optimiser of the training: Muon for convolutions, Adam for everything else.

Muon (Jordan et al. 2024) replaces the momentum of a matrix by the nearest matrix with orthonormal rows or columns, so
that every direction in it moves alike. It suits an Euler step, whose convolution only counts up to its norm: in the
same number of steps the averaged networks gain 0.1 to 0.2 dB over Adam alone (weights/huber-grey.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn


class Optimiser:
    """Muon and Adam at one learning rate.

    A step takes the rate from a tensor, so that a recording of it on a GPU can be replayed at any rate.

    Parameters
    ----------
    parameters : those with four dimensions are convolutions (C_out, C_in, k, k), contiguous or channels-last in memory;
        Muon sees them as matrices (C_out, C_in·k²).

    Attributes
    ----------
    rate : the learning rate, a scalar on the device of the parameters, to be changed in place; 0 at first.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        parameters = list(parameters)
        self._convolutions = [p for p in parameters if p.ndim == 4]
        self._matrices = [_in_order(p, p.detach()) for p in self._convolutions]
        assert all(m.data_ptr() == p.data_ptr() for m, p in zip(self._matrices, self._convolutions, strict=True))
        # Muon wants a number as its rate: it works at rate 1 on matrices of zeros, and `rate` scales what that gives.
        self._moves = [nn.Parameter(torch.zeros_like(m)) for m in self._matrices]
        self._others = [p for p in parameters if p.ndim != 4]
        device = parameters[0].device
        self.rate = torch.zeros((), device=device)
        self._parts: dict[str, torch.optim.Optimizer] = {
            "muon": torch.optim.Muon(self._moves, lr=1.0, weight_decay=0.0),
            "adam": torch.optim.Adam(self._others, lr=self.rate, capturable=device.type == "cuda"),
        }

    @torch.no_grad()
    def step(self) -> None:
        """Move all parameters by their gradients."""
        for convolution, move in zip(self._convolutions, self._moves, strict=True):
            move.zero_()
            move.grad = None if convolution.grad is None else _in_order(convolution, convolution.grad)
        for part in self._parts.values():
            part.step()
        for matrix, move in zip(self._matrices, self._moves, strict=True):
            matrix.addcmul_(move, self.rate)

    def state(self) -> dict[str, Tensor]:
        """Everything that a resumed run needs, by name."""
        return {
            f"{name}.{index}.{key}": torch.as_tensor(value).contiguous()
            for name, part in self._parts.items()
            for index, state in part.state_dict()["state"].items()
            for key, value in state.items()
        }

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave.

        Raises
        ------
        ValueError, KeyError
            If the tensors are not those of such an optimiser.
        """
        states: dict[str, dict[int, dict[str, Tensor]]] = {name: {} for name in self._parts}
        for key, value in tensors.items():
            name, number, entry = key.split(".", 2)
            states[name].setdefault(int(number), {})[entry] = value
        for (name, state), parameters in zip(states.items(), (self._moves, self._others), strict=True):
            if state and set(state) != set(range(len(parameters))):
                raise ValueError(f"the state of {name} is incomplete")
            for index, entries in state.items():
                if any(v.shape != parameters[index].shape for entry, v in entries.items() if entry != "step"):
                    raise ValueError(f"the state of {name} is that of other parameters")
        for name, part in self._parts.items():
            part.load_state_dict({"state": states[name], "param_groups": part.state_dict()["param_groups"]})
        self._parts["adam"].param_groups[0]["lr"] = self.rate  # and not a copy of it


def _in_order(convolution: Tensor, values: Tensor) -> Tensor:
    """Values like those of a convolution as a matrix (C_out, C_in·k²), its columns in the order of their memory.

    So the convolution's own values are a view. Muon is indifferent to the order, as long as it is one.
    """
    ordered = values if convolution.is_contiguous() else values.permute(0, 2, 3, 1)
    return ordered.reshape(len(values), -1)
