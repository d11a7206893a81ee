"""The processes that train together: how they start, meet and average their gradients."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

Job = tuple[Callable[..., None], tuple[Any, ...], dict[str, Any]]
"""A function and its arguments, for a process of its own."""


@dataclass(frozen=True, slots=True)
class Crew:
    """One of the processes of a stage, one thread each, that average their gradients."""

    rank: int = 0
    size: int = 1
    port: int = 0

    def join(self, seed: int) -> None:
        """Meet the others."""
        torch.set_num_threads(1)
        torch.manual_seed(seed)
        if self.size > 1:
            os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(self.port))
            dist.init_process_group('gloo', rank=self.rank, world_size=self.size)

    def part(self) -> None:
        """Leave the others."""
        if self.size > 1:
            dist.destroy_process_group()

    def agree(self, share: float) -> float:
        """Return the share of the first process."""
        value = torch.tensor([share], dtype=torch.float64)
        if self.size > 1:
            dist.broadcast(value, 0)
        return float(value)

    def average(self, weights: list[nn.Parameter]) -> None:
        """Average the gradients of all processes, as one flat vector."""
        if self.size == 1:
            return
        grads = [w.grad for w in weights if w.grad is not None]
        flat = torch.cat([g.flatten() for g in grads])
        dist.all_reduce(flat)
        flat /= self.size
        parts = torch.split(flat, [g.numel() for g in grads])
        for grad, mean in zip(grads, parts, strict=True):
            grad.copy_(mean.view_as(grad))


def crews(size: int) -> list[Crew]:
    """Return the members of one crew."""
    port = _free_port()
    return [Crew(rank, size, port) for rank in range(size)]


def side_by_side(jobs: list[Job]) -> None:
    """Run functions in processes of their own and wait for all.

    Raises:
        SystemExit: One of them failed.
    """
    context = mp.get_context('spawn')
    running = [context.Process(target=f, args=a, kwargs=k) for f, a, k in jobs]
    for process in running:
        process.start()
    for process in running:
        process.join()
    if any(process.exitcode for process in running):
        raise SystemExit('a training process failed')


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return int(probe.getsockname()[1])
