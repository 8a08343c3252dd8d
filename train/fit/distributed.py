"""One process, or several under torchrun: who we are, and what only the first does."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed, nn


@dataclass(frozen=True)
class ProcessGroup:
    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes, judges and speaks."""
        return self.rank == 0

    def wrapped(self, network: nn.Module) -> nn.Module:
        """The network whose backward pass averages gradients over all processes."""
        if self.size == 1:
            return network
        where = [self.device.index] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(network, device_ids=where)

    def broadcast(self, value: float) -> float:
        """The first process's number, everywhere: clocks differ, schedules must not."""
        if self.size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        distributed.broadcast(shared, 0)
        return float(shared)

    def wait(self) -> None:
        if self.size > 1:
            distributed.barrier()

    def close(self) -> None:
        if self.size > 1:
            distributed.destroy_process_group()


def start_process_group(device: str) -> ProcessGroup:
    """From torchrun's environment; alone without it. `device`: auto, cpu, cuda, cuda:N."""
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    chosen = torch.device(device)
    torch.backends.cudnn.benchmark = True  # shapes stay the same for a whole stage
    if size > 1:
        if chosen.type == "cuda":
            chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(chosen)
        # The others wait while the first judges an epoch; NCCL gives up after ten minutes of its own.
        distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=timedelta(hours=2))
    return ProcessGroup(rank, size, chosen)
