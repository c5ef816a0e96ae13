"""Windows of an epoch in memory, each read and shuffled while the one before it is used."""

import os
import threading
from dataclasses import dataclass

import numpy as np

from restok.epoch_order import EpochOrder, Places, Window
from restok.token_tables import Rows, TokenTables


@dataclass(frozen=True)
class ShuffledWindow:
    """A window in memory."""

    window: Window
    rows: Rows
    #: The row of each image, in the window's order: of the view that the epoch takes of it.
    places: Places


class WindowReader:
    """Reads windows. Where all files fit in memory, each is read once and stays."""

    def __init__(self, tables: TokenTables, order: EpochOrder) -> None:
        """Reads nothing yet."""
        self._tables, self._order = tables, order
        self._kept: Rows | None = None
        self._read: set[int] = set()
        self._first_rows = np.cumsum([0, *(file.rows for file in tables.files)]).tolist()
        self._ahead: _Reading | None = None

    def __getstate__(self) -> dict[str, object]:
        # Another process reads for itself: sending gigabytes would take longer.
        return {**self.__dict__, "_kept": None, "_read": set(), "_ahead": None}

    def take(self, window: Window, following: Window | None) -> ShuffledWindow:
        """The window, waiting for it if need be; begins to read the one that comes after it."""
        ahead, self._ahead = self._ahead, None
        # A thread of the process that this one was forked from reads nothing here.
        if ahead is not None and ahead.process != os.getpid():
            ahead = None
        taken = ahead.result_of(window) if ahead is not None else None
        if taken is None:
            taken = self._shuffled(window)
        if following is not None:
            self._ahead = _Reading(self, following)
        return taken

    def all_rows(self) -> Rows:
        """Every file in memory, in the order of the list."""
        self._read_kept(range(len(self._tables.files)))
        assert self._kept is not None
        return self._kept

    def _shuffled(self, window: Window) -> ShuffledWindow:
        files = [self._tables.files[file] for file in window.files]
        if self._order.window_bytes is None:
            self._read_kept(window.files)
            assert self._kept is not None
            rows, starts = self._kept, [self._first_rows[file] for file in window.files]
        else:
            rows = self._tables.rows_for(window.files)
            starts = np.cumsum([0, *(file.rows for file in files)]).tolist()[:-1]
            self._tables.read(list(zip(window.files, starts, strict=True)), rows)
        places = [
            start + np.cumsum(file.counts) - file.counts + self._order.views_of(window.epoch, file.first_image, file.counts)
            for file, start in zip(files, starts, strict=True)
        ]
        return ShuffledWindow(window, rows, np.concatenate(places)[self._order.order_in(window)])

    def _read_kept(self, files: range | tuple[int, ...]) -> None:
        if self._kept is None:
            self._kept = self._tables.rows_for(range(len(self._tables.files)))
        missing = [file for file in files if file not in self._read]
        if not missing:
            return
        self._tables.read([(file, self._first_rows[file]) for file in missing], self._kept)
        self._read.update(missing)


class _Reading:
    """A window that is being read on a thread of its own."""

    def __init__(self, reader: WindowReader, window: Window) -> None:
        self._window, self.process = window, os.getpid()
        self._result: ShuffledWindow | BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(reader,), name="restok-read-ahead", daemon=True)
        self._thread.start()

    def result_of(self, window: Window) -> ShuffledWindow | None:
        """Waits for its end. The window, or what kept it from being read; None where it was another."""
        self._thread.join()
        if self._window != window:
            return None
        if isinstance(self._result, BaseException):
            raise self._result
        return self._result

    def _run(self, reader: WindowReader) -> None:
        try:
            self._result = reader._shuffled(self._window)
        except BaseException as error:  # Whatever it is, it is raised where the window is asked for.
            self._result = error
