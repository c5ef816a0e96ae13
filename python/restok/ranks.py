"""Which part of a training this process is."""

import os

import torch.distributed
from torch.utils.data import get_worker_info

from restok.errors import SettingsError


def rank_and_world_size(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """The rank of this process and how many there are: as given, or those of torch.distributed, or of what started it (RANK, WORLD_SIZE)."""
    if (rank is None) != (world_size is None):
        raise SettingsError(f"rank {rank} of world size {world_size}, expected both or neither")
    return _detected() if rank is None or world_size is None else (rank, world_size)


def worker_and_workers() -> tuple[int, int]:
    """Which worker of a DataLoader this process is, and how many there are; 0 of 1 outside of them."""
    worker = get_worker_info()
    return (0, 1) if worker is None else (worker.id, worker.num_workers)


def _detected() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    # The group may be made later, and until then each process would take itself for the only one.
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    return 0, 1
