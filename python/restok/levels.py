"""How the tokens of an image divide into levels, coarse to fine."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from restok.errors import OutputError


@dataclass(frozen=True)
class Levels:
    """Levels of an image's tokens, coarsest first: `levels[3]` is the slice of the fourth, so that `codes[:, levels[3]]` are its codes."""

    #: Tokens of each level: (1, 1, 2, 4, 8, 16, 32, 64) for the published 128.
    sizes: tuple[int, ...]

    @classmethod
    def from_offsets(cls, offsets: Sequence[int], address: str) -> "Levels":
        """From where each level starts, with the total at the end, as the metadata of the file at `address` have it."""
        sizes = tuple(end - start for start, end in zip(offsets, offsets[1:], strict=False))
        if not sizes or offsets[0] != 0 or min(sizes) < 1:
            raise OutputError(f"{address}: level offsets {list(offsets)}, expected increasing numbers from 0")
        return cls(sizes)

    @property
    def offsets(self) -> tuple[int, ...]:
        """Where each level starts, and the total at the end: (0, 1, 2, 4, 8, 16, 32, 64, 128)."""
        return (0, *accumulate(self.sizes))

    @property
    def tokens_per_image(self) -> int:
        """Tokens of all levels together."""
        return sum(self.sizes)

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, level: int | slice) -> slice:
        """The tokens of a level, or of a range of levels, which lie side by side: `levels[:4]` are the first eight."""
        offsets = self.offsets
        if isinstance(level, slice):
            first, last, step = level.indices(len(self))
            if step != 1 or first >= last:
                raise IndexError(f"levels {level}: expected at least one, and all between the first and the last")
            return slice(offsets[first], offsets[last])
        place = range(len(self))[level]
        return slice(offsets[place], offsets[place + 1])

    def __iter__(self) -> Iterator[slice]:
        return (self[level] for level in range(len(self)))
