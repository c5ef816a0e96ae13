"""The order of an epoch: files by a permutation of the epoch, then windows of files whose images are shuffled all together.

    epoch 0:  files 5 | 0 4 | 1 3 7 2 | 6 …          one, two, four: the first batch waits for one file
    epoch 1:  files 2 7 4 0 5 1 | 6 3 …              as many as fit; all of them, where all fit

All of it follows from the manifests, the seed and how much memory there is: no generator's state is carried along, so that any place of any
epoch is found again without reading a row, in any process.

Random numbers are raw 64-bit words of Philox4x64-10 (Salmon and others, "Parallel Random Numbers: As Easy as 1, 2, 3", 2011), a generator that
NumPy keeps the same in every version, unlike its methods `permutation` and `integers`. Its key is (seed, what the words are for), its counter
(place / 4, 0, number of the window, epoch): word `place` belongs to one file or image of one epoch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# What words are for.
_ORDER_OF_FILES = 1
_ORDER_OF_IMAGES = 2
_VIEWS = 3

_WORDS_OF_A_COUNTER = 4

Words = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Window:
    """Files whose images are shuffled together."""

    epoch: int
    #: Its number in the epoch.
    number: int
    #: Images of the epoch before it.
    first: int
    #: Its files, by their places in the list, in the order of the epoch.
    files: tuple[int, ...]
    #: Images in it.
    images: int


@dataclass(frozen=True)
class EpochOrder:
    """How files become windows, and windows an order of images."""

    seed: int
    #: Images of each file.
    images: tuple[int, ...]
    #: Bytes that each takes in memory.
    bytes: tuple[int, ...]
    #: Most bytes of a window; None where all files stay in memory.
    window_bytes: int | None
    #: False for the order of the tables.
    shuffle: bool

    @classmethod
    def of(cls, seed: int, files: Sequence[tuple[int, int]], memory_bytes: int, shuffle: bool) -> "EpochOrder":
        """The order of files of (images, bytes). All of them stay in memory if they fit; if not, half of it is for the window in use and
        half for the next one."""
        images, sizes = tuple(images for images, _ in files), tuple(size for _, size in files)
        return cls(seed, images, sizes, memory_bytes // 2 if sum(sizes) > memory_bytes else None, shuffle)

    def windows(self, epoch: int) -> Iterator[Window]:
        """The windows of an epoch, one after the other."""
        count = len(self.images)
        order = _shuffled(_words(self.seed, _ORDER_OF_FILES, epoch, 0, 0, count)) if self.shuffle else np.arange(count)
        files, most_files, first, number = [int(file) for file in order], 1 if epoch == 0 else count, 0, 0
        while files:
            here = files[: self._files_in_window(files[:most_files])]
            images = sum(self.images[file] for file in here)
            yield Window(epoch, number, first, tuple(here), images)
            files, most_files, first, number = files[len(here) :], 2 * most_files, first + images, number + 1

    def order_in(self, window: Window) -> Places:
        """The images of a window, by their places among those of its files."""
        if not self.shuffle:
            return np.arange(window.images)
        return _shuffled(_words(self.seed, _ORDER_OF_IMAGES, window.epoch, window.number, 0, window.images))

    def views_of(self, epoch: int, first_image: int, counts: npt.NDArray[np.integer]) -> Places:
        """The view that the epoch takes of each image from `first_image` of the whole list on, of `counts` views each."""
        if counts.max(initial=0) <= 1:
            return np.zeros(len(counts), np.int64)
        words = _words(self.seed, _VIEWS, epoch, 0, first_image, len(counts))
        # The high half of a product, as in Lemire, "Fast Random Integer Generation in an Interval", 2019: uneven by less than 2^-24.
        views: Places = (((words >> np.uint64(32)) * counts.astype(np.uint64)) >> np.uint64(32)).astype(np.int64)
        return views

    def _files_in_window(self, files: Sequence[int]) -> int:
        """How many of these, in this order, make a window: one at least, and as many as fit."""
        if self.window_bytes is None:
            return len(files)
        total = np.cumsum([self.bytes[file] for file in files])
        return max(1, int(np.searchsorted(total, self.window_bytes, side="right")))


def _words(seed: int, purpose: int, epoch: int, window: int, first: int, count: int) -> Words:
    """Words `first` to `first + count` for a purpose."""
    counter, skip = divmod(first, _WORDS_OF_A_COUNTER)
    key, place = (np.array(numbers, np.uint64) for numbers in ([seed, purpose], [counter, 0, window, epoch]))
    generator = np.random.Philox(key=key, counter=place)
    words: Words = generator.random_raw(skip + count)[skip:]
    return words


def _shuffled(words: Words) -> Places:
    """The places of some random words, sorted by them.

    Each place stands in the low bits of its word, which makes all of them different: any way of sorting gives the same order.
    """
    bits = np.uint64(max(1, (len(words) - 1).bit_length()))
    keys = (words >> bits << bits) | np.arange(len(words), dtype=np.uint64)
    keys.sort()
    return (keys & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64)
