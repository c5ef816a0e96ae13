"""One line about all workers on standard error, redrawn on a terminal, else written every so often; other lines above it."""

import sys
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

from restok_ray.driver import Driver

SECONDS_ON_TERMINAL = 1.0
# The rate is that of the last minute, or of three lines where these are rarer.
SECONDS_OF_RATE = 60.0
LINES_OF_RATE = 3


class Progress:
    """Shows how far the job is."""

    def __init__(self, seconds: float, stream: TextIO | None = None, now: Callable[[], float] = time.monotonic) -> None:
        """A line every so many seconds, where `stream` is no terminal."""
        self._stream = stream or sys.stderr
        self._is_terminal = self._stream.isatty()
        self._seconds = SECONDS_ON_TERMINAL if self._is_terminal else seconds
        self._now = now
        self._last = now()
        self._line = ""
        # Moments with images read, and the first with units done.
        self._looks: deque[tuple[float, int]] = deque()
        self._first: tuple[float, int] | None = None

    def say(self, text: str) -> None:
        """Writes lines above the progress line."""
        self._erase()
        for line in text.splitlines():
            self._stream.write(f"restok-ray: {line}\n")
        self._draw()

    def show(self, driver: Driver) -> None:
        """Shows the line, if it is time."""
        now = self._now()
        if driver.queue is None or now - self._last < self._seconds:
            return
        self._last = now
        self._erase()
        self._line = self._of(driver, now)
        self._draw()
        if not self._is_terminal:
            self._stream.write(f"restok-ray: {self._line}\n")
            self._stream.flush()

    def end(self) -> None:
        """Takes the line away."""
        self._erase()
        self._line = ""
        self._stream.flush()

    def _of(self, driver: Driver, now: float) -> str:
        queue = driver.queue
        assert queue
        self._first = self._first or (now, queue.done_units)
        self._looks.append((now, driver.images_read))
        while len(self._looks) > 2 and now - self._looks[0][0] > max(SECONDS_OF_RATE, LINES_OF_RATE * self._seconds):
            self._looks.popleft()
        parts = [f"units {queue.done_units:,}/{queue.total:,}", f"images {driver.counts.images:,}"]
        since, images = self._looks[0]
        if now > since:
            parts.append(f"{(driver.images_read - images) / (now - since):,.1f}/s")
        parts.append(f"workers {driver.workers_ready}")
        parts.append(f"rejected {driver.counts.rejected.total():,}")
        start, done_before = self._first
        done = queue.done_units - done_before
        if done and queue.left:
            parts.append(f"{duration((now - start) * queue.left / done)} left")
        return ", ".join(parts)

    def _erase(self) -> None:
        if self._is_terminal and self._line:
            self._stream.write("\r\x1b[K")

    def _draw(self) -> None:
        if self._is_terminal and self._line:
            self._stream.write(self._line)
        self._stream.flush()


def duration(seconds: float) -> str:
    """A duration in its two largest units."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
