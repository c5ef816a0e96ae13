"""Batches of tokens for training, shuffled, shared among ranks and workers, and resumed exactly."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch.utils.data import IterableDataset

from restok.documents import Tokenizer
from restok.epoch_batches import EpochBatches, Position
from restok.errors import SettingsError
from restok.ranks import rank_and_world_size, worker_and_workers
from restok.token_tables import Filter, Source, TokenTables

_STATE_VERSION = 1


class TokenBatch(NamedTuple):
    """Rows to train on: `tokens, labels = batch`."""

    #: [rows, tokens]
    tokens: torch.Tensor
    #: [rows], int64
    labels: torch.Tensor


class TokenLoader(IterableDataset[TokenBatch]):
    """Batches of one or several outputs: every image once an epoch, with one of its views, drawn anew in each epoch.

        loader = restok.TokenLoader("s3://bucket/tokens", batch_size=256, seed=1)
        for epoch in range(10):
            for tokens, labels in loader:
                ...

    Each pass over it is an epoch. One that was interrupted continues after the last batch that was taken; `set_epoch` begins one from its
    start. Of several ranks each takes its own batches; all of them together are the epoch, once.

    `state_dict` tells where it is, and `load_state_dict` goes on there with the batches that would have come, also in another number of ranks
    or with another batch size: then with the images that were left.

    It needs no DataLoader, since making a batch costs little more than copying it. As the dataset of one, with `batch_size=None`, its workers
    take batches in turn, so that the order is the same for any number of them.
    """

    def __init__(
        self,
        source: Source,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
        one_view: bool = True,
        filter: Filter | None = None,
        missing_label: int | None = None,
        dtype: torch.dtype = torch.int64,
        rank: int | None = None,
        world_size: int | None = None,
        memory_bytes: int = 4 << 30,
        verify: bool = True,
        threads: int | None = None,
    ) -> None:
        """Reads the documents of the outputs, and with a filter the columns that it may ask for; no tokens yet.

        Args:
            source: an output, its address, or several, all of one tokenizer.
            batch_size: images of a batch of one rank.
            seed: what order and views follow from, 0 to 2^64 - 1.
            shuffle: False for the order of the tables.
            drop_last: leave out the last images of an epoch, where they do not fill a batch in every rank. Without it the ranks share them, and
                some may have a batch less than others, and ranks that wait for each other at every step would then hang.
            one_view: False for every view as an image of its own.
            filter: which rows to take: an expression of pyarrow.compute, or a function that makes a mask of a table of the columns
                (all but `tokens`). An image of which no view is left is left out.
            missing_label: the label of rows that have none, which are an error otherwise.
            dtype: torch.int64, or torch.int16 as in the tables.
            rank, world_size: as torch.distributed or the environment (RANK, WORLD_SIZE) say, unless given.
            memory_bytes: of codes and labels. If they do not fit, half of it is for the files in use and half for those that are read
                meanwhile, and images are shuffled among the files that are in memory together.
            verify: check the digest of every file.
            threads: files that are read at once; as many as there are cores, at most 8, unless given.
        """
        super().__init__()
        if dtype not in (torch.int16, torch.int32, torch.int64):
            raise SettingsError(f"dtype {dtype}, expected torch.int64, torch.int32 or torch.int16")
        rank, world_size = rank_and_world_size(rank, world_size)
        self.batch_size, self.rank, self.world_size, self.dtype = batch_size, rank, world_size, dtype
        tables = TokenTables(source, filter=filter, one_view=one_view, missing_label=missing_label, verify=verify, threads=threads)
        self._batches = EpochBatches(
            tables,
            batch_size=batch_size,
            rank=rank,
            world_size=world_size,
            seed=seed,
            shuffle=shuffle,
            drop_last=drop_last,
            memory_bytes=memory_bytes,
        )
        #: The tokenizer of all outputs: its levels, and how many codes there are.
        self.tokenizer: Tokenizer = tables.tokenizer
        self._position = Position(0, 0)

    @property
    def images(self) -> int:
        """Images of an epoch, of all ranks together."""
        return self._batches.images

    @property
    def epoch(self) -> int:
        """The epoch of the next batch, from 0."""
        return self._position.epoch

    def set_epoch(self, epoch: int) -> None:
        """Goes to the start of an epoch. Workers of a DataLoader are copies: call it before a pass over the DataLoader."""
        self._position = Position(epoch, 0)

    def state_dict(self) -> dict[str, Any]:
        """Where the next batch begins, in plain numbers and text. That of rank 0 serves all ranks.

        Passes over a DataLoader with workers move copies, and not this loader: `state_after` counts for it.
        """
        return self._state(self._position)

    def state_after(self, batches: int) -> dict[str, Any]:
        """The state after so many more batches of this epoch."""
        return self._state(self._batches.after(self._position, batches))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state_dict` was taken. Outputs, filter, seed and memory must be those of then, for the order follows from them."""
        if state.get("version") != _STATE_VERSION:
            raise SettingsError(f"state of version {state.get('version')}, expected {_STATE_VERSION}")
        if state["order"] != self._batches.digest:
            raise SettingsError(
                f"state of another order ({state['order'][:12]}), expected {self._batches.digest[:12]}: outputs, filter, seed, shuffle, "
                "one_view and, where not all files fit, memory_bytes must be what they were"
            )
        self._position = Position(state["epoch"], state["images"])

    def __len__(self) -> int:
        """Batches of a whole epoch in this rank."""
        return self._batches.count()

    def __iter__(self) -> Iterator[TokenBatch]:
        start = self._position
        for batch in self._batches.batches(start, *worker_and_workers()):
            self._position = batch.next
            yield TokenBatch(torch.from_numpy(batch.codes).to(self.dtype), torch.from_numpy(batch.labels))
        self._position = Position(start.epoch + 1, 0)

    def _state(self, position: Position) -> dict[str, Any]:
        return {"version": _STATE_VERSION, "epoch": position.epoch, "images": position.taken, "order": self._batches.digest}
