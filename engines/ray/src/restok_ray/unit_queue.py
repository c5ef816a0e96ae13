"""The units of an output: which wait, which are in work and by whom, which are done."""

from collections import deque
from collections.abc import Iterable

# Of two workers on one unit, the slower one's work is lost; a third could only lose more.
WORKERS_PER_UNIT = 2


class UnitQueue:
    """Hands out each unit until it is done. The last ones are handed out twice, so that nobody waits for the slowest worker."""

    def __init__(self, total: int, missing: Iterable[Iterable[int]]) -> None:
        """`missing` are ranges of units that are not stored, both ends included."""
        self.total = total
        self._left = {unit for first, last in missing for unit in range(first, last + 1)}
        self._waiting = deque(sorted(self._left))
        # Units by worker with whether it began them, and workers by unit, both in the order in which they were given.
        self._held: dict[str, dict[int, bool]] = {}
        self._holders: dict[int, list[str]] = {}
        self.given_twice = 0

    @property
    def left(self) -> int:
        """How many are not done."""
        return len(self._left)

    @property
    def done_units(self) -> int:
        """How many are done, those of earlier runs included."""
        return self.total - len(self._left)

    def held_by(self, worker: str) -> int:
        """How many units the worker was given and has not answered for."""
        return len(self._held.get(worker, ()))

    def take(self, worker: str, most: int) -> list[int]:
        """Gives the worker up to so many units that wait."""
        taken: list[int] = []
        while self._waiting and len(taken) < most:
            unit = self._waiting.popleft()
            # While it waited, a worker that was thought dead may have stored it, or another program.
            if unit in self._left:
                self._give(worker, unit)
                taken.append(unit)
        return taken

    def take_again(self, worker: str, most: int) -> list[int]:
        """Gives the worker up to so many units that another one has: first what that one did not begin, then its oldest."""
        alone = [
            (self._held[holders[0]][unit], unit)
            for unit, holders in self._holders.items()
            if unit in self._left and len(holders) < WORKERS_PER_UNIT and worker not in holders
        ]
        # The order of the dictionary is that of giving, and sorting keeps it.
        taken = [unit for _, unit in sorted(alone, key=lambda candidate: candidate[0])[:most]]
        for unit in taken:
            self._give(worker, unit)
        self.given_twice += len(taken)
        return taken

    def begun(self, worker: str, unit: int) -> None:
        """The worker began the unit."""
        if unit in self._held.get(worker, {}):
            self._held[worker][unit] = True

    def done(self, worker: str, unit: int) -> None:
        """The worker answered that the unit is stored."""
        self._held.get(worker, {}).pop(unit, None)
        self._let_go(worker, unit)
        self._left.discard(unit)

    def stored_elsewhere(self, missing: Iterable[Iterable[int]]) -> None:
        """Only these ranges are missing: somebody stored the others. Units in work are left to the answer of their worker."""
        still = {unit for first, last in missing for unit in range(first, last + 1)}
        self._left = {unit for unit in self._left if unit in still or unit in self._holders}

    def give_back(self, worker: str) -> list[int]:
        """The worker is gone: what only it had waits again, before all others. Returns these units."""
        returned = []
        for unit in self._held.pop(worker, {}):
            self._let_go(worker, unit)
            if unit in self._left and unit not in self._holders:
                returned.append(unit)
        self._waiting.extendleft(reversed(returned))
        return returned

    def _give(self, worker: str, unit: int) -> None:
        self._held.setdefault(worker, {})[unit] = False
        self._holders.setdefault(unit, []).append(worker)

    def _let_go(self, worker: str, unit: int) -> None:
        holders = self._holders.get(unit, [])
        if worker in holders:
            holders.remove(worker)
        if not holders:
            self._holders.pop(unit, None)
