"""What to do when a worker says something, appears or dies. No Ray in here: workers are what the caller makes of them."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from restok_ray import protocol
from restok_ray.unit_queue import UnitQueue

# Failures of each worker on average, one after the other without any unit done, after which the job ends.
ATTEMPTS = 5
# A worker that fails again and again is started again after 1, 2, 4 … seconds, at most these.
LONGEST_REST = 60.0


class Worker(Protocol):
    """A `restok worker` process somewhere. None of these wait for it."""

    name: str

    def give(self, units: Sequence[int]) -> None:
        """Sends it units."""

    def close_input(self) -> None:
        """Says that no more units come: it ends when it has done what it was given, and finalizes the output."""

    def drain(self) -> None:
        """Sends it SIGTERM."""


@dataclass(frozen=True)
class Outcome:
    """How the job ended: an exit code of restok, and what was wrong."""

    exit_code: int
    problem: str | None = None


@dataclass
class Counts:
    """What happened until now. Images and rejects are those of units whose workers told of them."""

    images: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    # Units that workers made, as they told of them.
    made_here: set[int] = field(default_factory=set)
    # Made by a second worker, too: not those that it found stored when it began them.
    units_done_twice: int = 0
    workers_seen: int = 0
    workers_lost: int = 0

    @property
    def units_stored_here(self) -> int:
        """Units that workers of this run stored."""
        return len(self.made_here)


@dataclass
class _Member:
    """A worker from its start to its end."""

    worker: Worker
    is_placed: bool = False
    ready: protocol.Ready | None = None
    is_leaving: bool = False
    is_reachable: bool = True
    last: protocol.Ended | protocol.Drained | protocol.Failed | None = None
    # Images read, by its own count and by that of its units: whichever was heard last.
    images_read: int = 0
    images_done: int = 0


class Driver:
    """Shares the units of one job among workers that come and go."""

    def __init__(self, say: Callable[[str], None], now: Callable[[], float] = time.monotonic) -> None:
        """`say` is told in words what a person should know."""
        self.counts = Counts()
        self.outcome: Outcome | None = None
        self.queue: UnitQueue | None = None
        self._say = say
        self._now = now
        self._plan: tuple[str, str] | None = None
        self._members: dict[str, _Member] = {}
        self._finisher: str | None = None
        self._read_by_others = 0
        # Failures in a row: of each name, and of all since any unit was done.
        self._failures: Counter[str] = Counter()
        self._failures_of_all = 0
        self._resting: dict[str, float] = {}

    @property
    def has_ended(self) -> bool:
        """Whether the outcome is known and nobody is left that could be waited for."""
        return self.outcome is not None and not any(member.is_reachable for member in self._members.values())

    @property
    def workers_ready(self) -> int:
        """How many workers can take units."""
        return sum(member.ready is not None for member in self._members.values())

    @property
    def workers_placed(self) -> int:
        """How many workers have a place on the cluster."""
        return sum(member.is_placed for member in self._members.values())

    @property
    def images_read(self) -> int:
        """Images read by all workers, those of units that were not stored included."""
        now = sum(max(member.images_read, member.images_done) for member in self._members.values())
        return self._read_by_others + now

    # --- how many workers there should be --------------------------------------------------------------------------

    def to_start(self, capacity: int) -> list[str]:
        """Names of workers to be started now, where the cluster holds `capacity` of them."""
        now = self._now()
        self._resting = {name: until for name, until in self._resting.items() if until > now}
        resting = [name for name in self._resting if name not in self._members]
        room = self._wanted(capacity) - len(self._staying) - len(resting)
        names: list[str] = []
        number = 0
        while len(names) < room:
            number += 1
            name = f"worker-{number}"
            if name not in self._members and name not in resting:
                names.append(name)
        return names

    def to_cancel(self, capacity: int) -> list[str]:
        """Names of workers that wait for a place which the cluster no longer has."""
        surplus = len(self._staying) - self._wanted(capacity)
        waiting = [name for name, member in self._staying.items() if not member.is_placed]
        return waiting[::-1][: max(surplus, 0)]

    @property
    def _staying(self) -> dict[str, _Member]:
        return {name: member for name, member in self._members.items() if not member.is_leaving}

    def _wanted(self, capacity: int) -> int:
        if self.outcome is not None:
            return 0
        if self.queue is None:
            # The first one lists the source, claims the output and finds wrong settings, alone.
            return 1
        return min(max(capacity, 1), max(self.queue.left, 1))

    # --- what workers do -------------------------------------------------------------------------------------------

    def started(self, worker: Worker) -> None:
        """A worker was asked for. It may wait for a place."""
        self._members[worker.name] = _Member(worker)

    def placed(self, name: str, where: str) -> None:
        """It has a place: its process runs."""
        self._members[name].is_placed = True
        self.counts.workers_seen += 1
        self._say(f"{name}: started on {where}")

    def wrote(self, name: str, line: str) -> None:
        """It wrote a line to its standard output."""
        try:
            event = protocol.parse(line)
        except protocol.ProtocolError as error:
            self._end(protocol.PERMANENT, f"{name}: {error}. Does --restok name a restok that has `restok worker`?")
            return
        member = self._members[name]
        member.is_reachable = True
        match event:
            case protocol.Ready():
                self._is_ready(member, event)
            case protocol.Begun(unit=unit) if self.queue:
                self.queue.begun(name, unit)
            case protocol.Done() if self.queue:
                self._is_done(member, event, self.queue)
            case protocol.Progress(images=images):
                member.images_read = images
            case protocol.Refused(line=refused, problem=problem):
                self._end(protocol.PERMANENT, f"{name} refused {refused!r}: {problem}")
            case protocol.Ended() | protocol.Drained() | protocol.Failed():
                member.last = event
                # Its process may take a while to end; nobody should count on it.
                member.ready = None
        self._share()

    def exited(self, name: str, code: int, last_words: str) -> None:
        """Its process ended with this code; a negative one is a signal."""
        match self._members[name].last:
            case protocol.Ended(units_left=left) if name == self._finisher:
                self._leave(name)
                self._has_finished(name, left)
            case protocol.Ended():
                self._has_failed(name, protocol.TEMPORARY, "it ended while there was work")
            case protocol.Failed(exit_code=exit_code, problem=problem):
                self._has_failed(name, exit_code, problem)
            case protocol.Drained():
                self._has_failed(name, protocol.DRAINED, "it was stopped by a signal")
            case None if code == protocol.PERMANENT and last_words:
                # Wrong options, or no such program: it did not come to speak the protocol.
                self._has_failed(name, code, last_words)
            case None:
                how = f"signal {-code}" if code < 0 else f"exit code {code}"
                self._has_failed(name, code, f"its process ended by {how} without a last event. {last_words}".rstrip())
        self._share()

    def unreachable(self, name: str) -> None:
        """The connection to it broke: it may be dead or come back. Its units need not wait for that, as two may do the same."""
        self._members[name].is_reachable = False
        self._take_back_units(name, "it cannot be reached")
        self._share()

    def cancelled(self, name: str) -> None:
        """It will not get a place: it was taken out of the queue for one."""
        self._leave(name)

    def lost(self, name: str, problem: str) -> None:
        """Its actor or its node is gone."""
        self._has_failed(name, protocol.TEMPORARY, problem)
        self._share()

    # --- the end ---------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Drains all workers: a signal asked for it."""
        self._end(protocol.DRAINED, None)

    def give_up(self, problem: str) -> None:
        """The cluster itself failed."""
        self._end(protocol.TEMPORARY, problem)

    def _end(self, exit_code: int, problem: str | None) -> None:
        """The first reason to end is the one that counts."""
        if self.outcome is None:
            self.outcome = Outcome(exit_code, problem)
        for member in list(self._members.values()):
            self._send_away(member)

    def _send_away(self, member: _Member) -> None:
        if not member.is_leaving:
            member.is_leaving = True
            member.worker.drain()

    # -----------------------------------------------------------------------------------------------------------------

    def _is_ready(self, member: _Member, ready: protocol.Ready) -> None:
        name = member.worker.name
        if ready.protocol != protocol.VERSION:
            found = f"{name} speaks version {ready.protocol} of the worker protocol, restok {ready.restok}"
            self._end(protocol.PERMANENT, f"{found}; restok-ray speaks {protocol.VERSION}: install the two of one release")
            return
        if self._plan is None:
            self._plan = name, ready.plan
        first, plan = self._plan
        if ready.plan != plan:
            problem = f"{first} has the plan {plan}, {name} has {ready.plan}: both must see the same source, tokenizer and settings"
            self._end(protocol.PERMANENT, problem)
            return
        if self.queue is None:
            self.queue = UnitQueue(ready.units, ready.missing)
            self._say(f"plan {plan}: {ready.units:,} units, {self.queue.done_units:,} of them stored already")
        else:
            self.queue.stored_elsewhere(ready.missing)
        member.ready = ready
        self._say(f"{name}: ready for units")

    def _is_done(self, member: _Member, done: protocol.Done, queue: UnitQueue) -> None:
        self._failures_of_all = 0
        self._failures.pop(member.worker.name, None)
        queue.done(member.worker.name, done.unit)
        if not done.is_here:
            return
        member.images_done += done.images
        # Not whether the queue still had it: of two that have a unit, the one that finds it stored may say so before the one that stored it.
        if done.unit in self.counts.made_here:
            self.counts.units_done_twice += 1
            return
        self.counts.made_here.add(done.unit)
        self.counts.images += done.images
        self.counts.rejected.update(done.rejected)

    def _leave(self, name: str) -> None:
        """Forgets a worker, and takes back its units."""
        member = self._members.pop(name)
        self._read_by_others += max(member.images_read, member.images_done)
        self._take_back_units(name, "it is gone")
        if self._finisher == name:
            self._finisher = None

    def _take_back_units(self, name: str, why: str) -> None:
        returned = self.queue.give_back(name) if self.queue else []
        if returned and self.outcome is None:
            self._say(f"{name}: {why}; others get its units {', '.join(map(str, returned))}")

    def _has_finished(self, name: str, units_left: int) -> None:
        if self.outcome is None and units_left:
            # Somebody took markers away, or the store does not show yet what it has: the next start will see.
            self._end(protocol.TEMPORARY, f"{name} found {units_left} units that are not stored, though all were done")
        elif self.outcome is None or self.outcome.exit_code == protocol.DRAINED:
            self.outcome = Outcome(protocol.FINISHED)

    def _has_failed(self, name: str, exit_code: int, problem: str) -> None:
        was_sent_away = self._members[name].is_leaving
        working = len(self._members) + len([other for other in self._resting if other not in self._members])
        self._leave(name)
        if was_sent_away:
            return
        if exit_code == protocol.PERMANENT:
            self._end(protocol.PERMANENT, f"{name}: {problem}")
            return
        self.counts.workers_lost += 1
        self._failures_of_all += 1
        self._failures[name] += 1
        if self._failures_of_all >= ATTEMPTS * working:
            many = f"{self._failures_of_all} failures of workers in a row and no unit done; the last one: {name}"
            self._end(protocol.TEMPORARY, f"{many}: {problem}")
            return
        rest = min(2.0 ** (self._failures[name] - 1), LONGEST_REST)
        self._resting[name] = self._now() + rest
        self._say(f"{name}: {problem}. Another takes its place in {rest:.0f} s")

    def _share(self) -> None:
        """Gives units to whoever has room, or ends."""
        queue = self.queue
        if queue is None or self.outcome is not None or self._finisher is not None:
            return
        ready = [(member, member.ready) for member in self._staying.values() if member.ready and member.is_reachable]
        if not queue.left:
            self._finish([member for member, _ in ready], queue)
            return
        # Towards the end everybody gets some, rather than the first ones all.
        share = -(-queue.left // max(self.workers_placed, 1))
        for member, its in ready:
            # One ahead, so that it does not wait for the driver.
            room = min(its.at_once + 1, share) - queue.held_by(member.worker.name)
            units = queue.take(member.worker.name, room)
            if units:
                member.worker.give(units)
        for member, its in ready:
            if not queue.held_by(member.worker.name):
                units = queue.take_again(member.worker.name, its.at_once)
                if units:
                    member.worker.give(units)

    def _finish(self, ready: list[_Member], queue: UnitQueue) -> None:
        """All is stored: one worker finalizes the output, the others go, whatever they still do twice.

        Without a worker, the next one that starts finds nothing missing and comes here.
        """
        if not ready:
            return
        finisher = min(ready, key=lambda member: queue.held_by(member.worker.name))
        self._finisher = finisher.worker.name
        for member in list(self._members.values()):
            if member is not finisher:
                self._send_away(member)
        finisher.worker.close_input()
