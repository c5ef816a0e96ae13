"""Batches of an epoch as arrays: which images of its order are whose, and their rows."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from restok.epoch_order import EpochOrder, Window
from restok.errors import SettingsError
from restok.token_columns import Codes
from restok.token_tables import TokenTables
from restok.window_reader import ShuffledWindow, WindowReader

_MOST_SEED = 2**64 - 1


@dataclass(frozen=True)
class Position:
    """Where a batch begins."""

    epoch: int
    #: Images of the epoch that are taken, by all ranks together.
    taken: int


@dataclass(frozen=True)
class Batch:
    """Rows, and where the batch after them begins."""

    #: [rows, tokens]
    codes: Codes
    #: [rows]
    labels: npt.NDArray[np.int64]
    next: Position


class EpochBatches:
    """The batches of one rank.

    Batch number n of rank r are images (n * ranks + r) * batch_size and on of the epoch's order. So the ranks together go through the order of
    one process, and a position, which counts the images of all of them, means the same for any number of ranks and any batch size.
    """

    def __init__(
        self, tables: TokenTables, *, batch_size: int, rank: int, world_size: int, seed: int, shuffle: bool, drop_last: bool, memory_bytes: int
    ) -> None:
        """Reads nothing yet."""
        if batch_size < 1:
            raise SettingsError(f"batch_size {batch_size}, expected at least 1")
        if not 0 <= rank < world_size:
            raise SettingsError(f"rank {rank} of world size {world_size}, expected 0 to {world_size - 1}")
        self._batch_size, self._rank, self._world_size, self._drop_last = batch_size, rank, world_size, drop_last
        self.images = tables.images
        self._order = order_of(tables, seed, shuffle, memory_bytes)
        self._reader = WindowReader(tables, self._order)
        parts = f"{tables.digest()} {seed} {shuffle} {self._order.window_bytes}\n"
        #: SHA-256 of all that the order follows from: a position means something only where this is what it was.
        self.digest = hashlib.sha256(parts.encode()).hexdigest()

    def count(self) -> int:
        """Batches of a whole epoch."""
        return sum(1 for _ in self._spans(0))

    def after(self, position: Position, batches: int) -> Position:
        """The position after so many batches of every rank; the next epoch, where none is left of this one."""
        taken = position.taken + batches * self._step
        is_over = self.images - taken < (self._step if self._drop_last else 1)
        return Position(position.epoch + 1, 0) if is_over else Position(position.epoch, taken)

    def batches(self, start: Position, worker: int = 0, workers: int = 1) -> Iterator[Batch]:
        """The rest of an epoch. Of several workers each takes every so many-th batch."""
        windows = _WindowCursor(self._reader, self._order, start.epoch)
        for number, (first, end) in enumerate(self._spans(start.taken)):
            if number % workers == worker:
                codes, labels = windows.rows(first, end)
                # What this worker takes next comes after the turn of all of them.
                yield Batch(codes, labels, self.after(start, number + workers - worker))

    @property
    def _step(self) -> int:
        """Images of a batch of every rank."""
        return self._batch_size * self._world_size

    def _spans(self, taken: int) -> Iterator[tuple[int, int]]:
        """Where batches start and end among the images of an epoch."""
        while self.images - taken >= self._step:
            start = taken + self._rank * self._batch_size
            yield start, start + self._batch_size
            taken += self._step
        if self._drop_last:
            return
        each, more = divmod(self.images - taken, self._world_size)
        start = taken + self._rank * each + min(self._rank, more)
        end = start + each + (self._rank < more)
        if end > start:
            yield start, end


def order_of(tables: TokenTables, seed: int, shuffle: bool, memory_bytes: int) -> EpochOrder:
    """The order of the epochs of some tables."""
    if not 0 <= seed <= _MOST_SEED:
        raise SettingsError(f"seed {seed}, expected 0 to {_MOST_SEED}")
    return EpochOrder.of(seed, [(file.images, tables.bytes_of(file)) for file in tables.files], memory_bytes, shuffle)


class _WindowCursor:
    """The windows of an epoch, one after the other, as far as they are asked for."""

    def __init__(self, reader: WindowReader, order: EpochOrder, epoch: int) -> None:
        self._reader = reader
        self._windows = order.windows(epoch)
        self._first_of_next_epoch = next(order.windows(epoch + 1))
        self._next: Window | None = next(self._windows)
        self._window: ShuffledWindow | None = None

    def rows(self, first: int, end: int) -> tuple[Codes, npt.NDArray[np.int64]]:
        """The rows of some images of the epoch, which may lie in several windows."""
        parts = []
        while first < end:
            parts.append(self._rows_of_window(first, end))
            first += len(parts[-1][1])
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([codes for codes, _ in parts]), np.concatenate([labels for _, labels in parts])

    def _rows_of_window(self, first: int, end: int) -> tuple[Codes, npt.NDArray[np.int64]]:
        """The rows of those images that lie in the window of the first one."""
        window = self._window_of(first)
        places = window.places[first - window.window.first : end - window.window.first]
        return window.rows.codes.take(places, axis=0), window.rows.labels.take(places)

    def _window_of(self, image: int) -> ShuffledWindow:
        while self._window is None or image >= self._window.window.first + self._window.window.images:
            window = self._next
            assert window is not None, "spans end with the epoch"
            self._next = next(self._windows, None)
            if image < window.first + window.images:
                # The window in use goes first, so that there are never more than two.
                self._window = None
                self._window = self._reader.take(window, self._next or self._first_of_next_epoch)
        return self._window
