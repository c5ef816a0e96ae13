"""Tokens by number, for samplers of torch."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from restok.documents import Tokenizer
from restok.epoch_batches import order_of
from restok.errors import SettingsError
from restok.token_tables import Filter, Source, TokenTables
from restok.window_reader import WindowReader


class TokenDataset(Dataset[tuple[torch.Tensor, int]]):
    """Images of one or several outputs by number, in the order of the tables: `tokens, label = dataset[7]`.

    For a DataLoader with a sampler of your own. Of an image with several views, an item is the one that (seed, epoch, image) draw: call
    `set_epoch` before each epoch. Everything is read when the first item is asked for, and stays in memory. For plain training
    `TokenLoader` is faster, begins sooner and needs less memory.
    """

    def __init__(
        self,
        source: Source,
        *,
        seed: int = 0,
        one_view: bool = True,
        filter: Filter | None = None,
        missing_label: int | None = None,
        dtype: torch.dtype = torch.int64,
        memory_bytes: int = 4 << 30,
        verify: bool = True,
        threads: int | None = None,
    ) -> None:
        """Arguments are those of `TokenLoader`; more than `memory_bytes` is an error."""
        self._tables = TokenTables(
            source, filter=filter, one_view=one_view, missing_label=missing_label, verify=verify, threads=threads
        )
        self.dtype = dtype
        self._order = order_of(self._tables, seed, False, memory_bytes)
        if self._order.window_bytes is not None:
            total = sum(self._order.bytes)
            raise SettingsError(f"tokens of {total} bytes, expected at most memory_bytes={memory_bytes}: allow more, or take a TokenLoader")
        self._reader = WindowReader(self._tables, self._order)
        self._counts = np.concatenate([file.counts for file in self._tables.files])
        self._first_rows = np.cumsum(self._counts) - self._counts
        self.set_epoch(0)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of all outputs: its levels, and how many codes there are."""
        return self._tables.tokenizer

    def set_epoch(self, epoch: int) -> None:
        """Draws a view of each image for this epoch. Workers of a DataLoader are copies: call it before a pass over the DataLoader."""
        self._places = self._first_rows + self._order.views_of(epoch, 0, self._counts)

    def __len__(self) -> int:
        """Images."""
        return len(self._counts)

    def __getitem__(self, image: int) -> tuple[torch.Tensor, int]:
        return self.__getitems__([image])[0]

    def __getitems__(self, images: Sequence[int]) -> list[tuple[torch.Tensor, int]]:
        """Several items at once, as a DataLoader asks for them."""
        rows = self._reader.all_rows()
        places = self._places[np.asarray(images)]
        tokens = torch.from_numpy(rows.codes.take(places, axis=0)).to(self.dtype)
        return list(zip(tokens, rows.labels[places].tolist(), strict=True))
