"""Data-parallel training: one process per worker, gradients averaged by DistributedDataParallel.

Every worker draws the whole batch of all workers from the same generator and takes its own part, so training with n
workers is training in one process with the n-fold batch, to the rounding of bfloat16, in which the optimiser works.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Workers:
    """The processes of a training run; the default is one process alone.

    Attributes
    ----------
    rank : number of this process, from 0; that of rank 0 leads.
    count : number of processes.
    device : where this process computes, and what it exchanges with the others lies.
    """

    rank: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def part(self, batch: Tensor) -> Tensor:
        """This worker's share of a batch (count·B, …): B entries, (B, …)."""
        size = len(batch) // self.count
        return batch[self.rank * size : (self.rank + 1) * size]

    def agree(self, value: float) -> float:
        """The value of the leading worker, on all of them."""
        if self.count == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(shared, 0)
        return float(shared)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on some worker."""
        if self.count == 1:
            return flag
        shared = torch.tensor([float(flag)], device=self.device)
        dist.all_reduce(shared, dist.ReduceOp.MAX)
        return bool(shared > 0)

    def share(self, module: nn.Module) -> nn.Module:
        """A module that computes the same and averages the gradients of all workers.

        Its buffers are equal on all workers; that they are sent around is the default, whose switch is deprecated.
        """
        return module if self.count == 1 else DistributedDataParallel(module)


@contextmanager
def joined(rank: int, count: int, device: torch.device) -> Iterator[Workers]:
    """The processes that a launcher such as torchrun has started, gloo on the CPU, nccl on CUDA; or this one alone.

    Parameters
    ----------
    rank, count : number of this process, from 0, and how many there are; they find each other by the launcher's
        environment variables.
    device : where this process computes.
    """
    if count == 1:
        yield Workers(device=device)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", rank=rank, world_size=count)
    try:
        yield Workers(rank, count, device)
    finally:
        dist.destroy_process_group()
        if device.type != "cuda":
            # gloo's threads need the interpreter's lock to drop the tensors of the last exchange. If the interpreter
            # shuts down first, they abort the process; this lets them have the lock.
            time.sleep(0.5)
