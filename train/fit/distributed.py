"""Training in one process, or in several under torchrun: rank, size and device of the process group."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed, nn


@dataclass(frozen=True)
class ProcessGroup:
    """This process among the `size` processes of a training."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process validates, writes and prints: only the first does."""
        return self.rank == 0

    def wrapped(self, network: nn.Module) -> nn.Module:
        """The network, with a backward pass that averages gradients over all processes."""
        if self.size == 1:
            return network
        where = [self.device.index] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(network, device_ids=where)

    def broadcast(self, value: float) -> float:
        """The first process's number, on every process: clocks differ, schedules must not."""
        if self.size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        distributed.broadcast(shared, 0)
        return float(shared)

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            distributed.barrier()

    def close(self) -> None:
        """Leave the process group."""
        if self.size > 1:
            distributed.destroy_process_group()


def start_process_group(device: str) -> ProcessGroup:
    """The process group of torchrun's environment variables, or of one process without them. `device`: auto, cpu, cuda,
    cuda:N."""
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    chosen = torch.device(device)
    torch.backends.cudnn.benchmark = True  # shapes stay the same for a whole stage
    if size > 1:
        if chosen.type == "cuda":
            chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(chosen)
        # The others wait while the first validates an epoch; the default timeout of NCCL is ten minutes.
        distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=timedelta(hours=2))
    return ProcessGroup(rank, size, chosen)
