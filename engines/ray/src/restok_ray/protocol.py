"""The worker protocol, version 1: events of a worker as values, and the exit codes of restok. docs/worker-protocol.md defines both."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

VERSION = 1

# Exit codes of restok, and of this program.
FINISHED = 0
PERMANENT = 42
TEMPORARY = 75
DRAINED = 143


class ProtocolError(Exception):
    """A line of a worker that is no event, or lacks a field."""


@dataclass(frozen=True)
class Ready:
    """First: networks are loaded, the output is claimed. `missing` holds ranges of units, both ends included."""

    protocol: int
    restok: str
    job: str
    plan: str
    units: int
    missing: list[list[int]]
    at_once: int


@dataclass(frozen=True)
class Begun:
    """Work on a unit begins."""

    unit: int


@dataclass(frozen=True)
class Done:
    """A unit is stored. What it counts is known if it was done `here`."""

    unit: int
    by: str
    images: int = 0
    rejected: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def is_here(self) -> bool:
        """Whether the worker that tells of it stored it."""
        return self.by == "here"


@dataclass(frozen=True)
class Progress:
    """Images that the worker read until now."""

    images: int


@dataclass(frozen=True)
class Refused:
    """A line that the worker was sent is no unit of the plan."""

    line: str
    problem: str


@dataclass(frozen=True)
class Ended:
    """Last: all units that were given are stored."""

    units_left: int
    finalized: bool


@dataclass(frozen=True)
class Drained:
    """Last: a signal stopped it."""


@dataclass(frozen=True)
class Failed:
    """Last: an error ended it."""

    exit_code: int
    problem: str


Event = Ready | Begun | Done | Progress | Refused | Ended | Drained | Failed
_KINDS: dict[str, type[Event]] = {kind.__name__.lower(): kind for kind in Event.__args__}


def parse(line: str) -> Event | None:
    """The event of a line, or nothing if a later version of the protocol added it. Raises `ProtocolError`."""
    try:
        fields: Any = json.loads(line)
    except ValueError:
        fields = None
    if not isinstance(fields, dict) or not isinstance(fields.get("event"), str):
        raise ProtocolError(f"expected an event as JSON, found {line[:200]!r}")
    kind = _KINDS.get(fields["event"])
    if kind is None:
        return None
    # Of a field, a later version may say more than this one knows.
    known = {field.name: fields[field.name] for field in dataclasses.fields(kind) if field.name in fields}
    try:
        return kind(**known)
    except TypeError as error:
        raise ProtocolError(f"the event {line[:200]!r} lacks a field: {error}") from error
