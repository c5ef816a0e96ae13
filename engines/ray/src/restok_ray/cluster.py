"""Actors that own a process of restok each, and calls to them that survive a lost connection."""

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray import cloudpickle
from ray.exceptions import ActorUnavailableError, RayActorError, RayError

import restok_ray
from restok_ray.child import Child, Message

# The answer to a question for news comes as soon as there is some, and after this long without.
SECONDS_WITHOUT_NEWS = 20.0
# An actor that cannot be reached is asked again this often, and given up after this long. Ray needs some 15 s to tell
# a dead node from one that is slow.
SECONDS_BETWEEN_CALLS = 1.0
SECONDS_UNREACHABLE = 120.0
# Calls of one actor at the same time: the question for news, which waits, and what it is told meanwhile.
CALLS_AT_ONCE = 4


class ChildActor:
    """One process of restok, on whatever node and GPU Ray chose."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folder: str) -> None:
        """See `Child`. CUDA_VISIBLE_DEVICES is set by Ray, and inherited."""
        self._child = Child(command, environment, folder)

    def where(self) -> str:
        """The node and the process of this actor, for people."""
        context = ray.get_runtime_context()
        return f"{ray.util.get_node_ip_address()} (node {context.get_node_id()[:8]}, process {os.getpid()})"

    def next_messages(self, after: int) -> list[Message]:
        """Messages from number `after` on."""
        return self._child.next_messages(after, SECONDS_WITHOUT_NEWS)

    def give(self, units: Sequence[int]) -> None:
        """Sends units to the worker."""
        self._child.give(units)

    def close_input(self) -> None:
        """Says that no more units come."""
        self._child.close_input()

    def drain(self) -> None:
        """Sends SIGTERM to the process."""
        self._child.drain()


@dataclass(frozen=True)
class Resources:
    """What Ray reserves for each actor."""

    cpus: int
    gpus: float

    def capacity(self) -> int:
        """How many actors fit on the nodes that are there, if nothing else ran."""
        needs = {"CPU": self.cpus, "GPU": self.gpus}
        return sum(
            int(min(node["Resources"].get(kind, 0) // need for kind, need in needs.items() if need > 0))
            for node in ray.nodes()
            if node["Alive"]
        )


def cpus_per_gpu(gpus: float) -> int:
    """The processors that belong to so many GPUs on the node with the fewest for each; 1 where no node has a GPU yet."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU", 0) >= gpus]
    return max(1, min((int(node.get("CPU", 0) * gpus // node["GPU"]) for node in nodes), default=1))


@dataclass(frozen=True)
class Placed:
    """News of an actor: it runs there."""

    where: str


@dataclass(frozen=True)
class Unreachable:
    """News of an actor: a connection to it broke. It is asked again, and may be back or be lost."""


@dataclass(frozen=True)
class Lost:
    """News of an actor: it is gone, and its process with it."""

    problem: str


News = Placed | Unreachable | Lost | Message


@dataclass(frozen=True)
class _Call:
    name: str
    method: str
    arguments: tuple[Any, ...] = ()


class RemoteChild:
    """An actor as the driver sees it. Its methods return at once."""

    def __init__(self, name: str, children: "Children", actor: Any) -> None:
        """Made by `Children.start`."""
        self.name = name
        self.actor = actor
        self.is_placed = False
        self.heard = 0
        self.unreachable_since: float | None = None
        self._children = children

    def give(self, units: Sequence[int]) -> None:
        """Sends units to the worker."""
        self._children.call(_Call(self.name, "give", (list(units),)))

    def close_input(self) -> None:
        """Says that no more units come."""
        self._children.call(_Call(self.name, "close_input"))

    def drain(self) -> None:
        """Sends SIGTERM; an actor without a place is taken back."""
        if self.is_placed:
            self._children.call(_Call(self.name, "drain"))
        else:
            self._children.take_back(self.name)


class Children:
    """All actors of a run, by name."""

    def __init__(self, resources: Resources, environment: Mapping[str, str]) -> None:
        """`environment` is added to that of the processes."""
        # The nodes need not have this package: the classes of the actors are sent to them.
        cloudpickle.register_pickle_by_value(restok_ray)
        self._class = ray.remote(ChildActor).options(
            num_cpus=resources.cpus,
            num_gpus=resources.gpus,
            # A dead one is replaced by the driver, which first gives its units to others.
            max_restarts=0,
            max_concurrency=CALLS_AT_ONCE,
            scheduling_strategy="SPREAD",
        )
        self._environment = dict(environment)
        self._children: dict[str, RemoteChild] = {}
        self._calls: dict[Any, _Call] = {}
        self._again: list[tuple[float, _Call]] = []
        self._taken_back: list[str] = []

    def start(self, name: str, command: Sequence[str]) -> RemoteChild:
        """Asks for an actor with a process of `command`. It starts when the cluster has a place for it."""
        actor = self._class.remote(list(command), self._environment, os.getcwd())
        child = RemoteChild(name, self, actor)
        self._children[name] = child
        self.call(_Call(name, "where"))
        return child

    def take_back(self, name: str) -> None:
        """Gives up an actor that has no place yet. `Lost` will tell that it is gone."""
        self._taken_back.append(name)

    def call(self, call: _Call) -> None:
        """Calls a method of an actor. The answer is awaited by `news`."""
        reference = getattr(self._children[call.name].actor, call.method).remote(*call.arguments)
        self._calls[reference] = call

    def news(self, seconds: float) -> Iterator[tuple[str, News]]:
        """What happened, as it happens; ends when nothing more is known after so many seconds at most."""
        while self._taken_back:
            name = self._taken_back.pop()
            if name in self._children:
                self._forget(name)
                yield name, Lost("it had no place")
        now = time.monotonic()
        due = [call for at, call in self._again if at <= now]
        self._again = [(at, call) for at, call in self._again if at > now]
        for call in due:
            if call.name in self._children:
                self.call(call)
        if not self._calls:
            time.sleep(min(seconds, SECONDS_BETWEEN_CALLS))
            return
        answered, _ = ray.wait(list(self._calls), num_returns=1, timeout=seconds)
        if answered:
            # What else is there, without waiting for it.
            answered, _ = ray.wait(list(self._calls), num_returns=len(self._calls), timeout=0)
        for reference in answered:
            # Meanwhile its actor may have been forgotten.
            call_answered = self._calls.pop(reference, None)
            if call_answered:
                yield from self._answer(call_answered, reference)

    def forget(self, name: str) -> None:
        """Takes an actor whose process has ended, or that nobody needs, off the cluster."""
        if name in self._children:
            self._forget(name)

    def _forget(self, name: str) -> None:
        child = self._children.pop(name)
        self._calls = {reference: call for reference, call in self._calls.items() if call.name != name}
        self._again = [(at, call) for at, call in self._again if call.name != name]
        # It may be dead already.
        with contextlib.suppress(RayError, ValueError):
            ray.kill(child.actor)

    def _answer(self, call: _Call, reference: Any) -> Iterator[tuple[str, News]]:
        child = self._children[call.name]
        try:
            answer = ray.get(reference)
        except ActorUnavailableError as error:
            # It may come back. Each call may be repeated: the actor knows which units it was given and which messages were read.
            now = time.monotonic()
            if child.unreachable_since is None:
                child.unreachable_since = now
                yield call.name, Unreachable()
            if now - child.unreachable_since < SECONDS_UNREACHABLE:
                self._again.append((now + SECONDS_BETWEEN_CALLS, call))
                return
            self._forget(call.name)
            yield call.name, Lost(f"its actor was not reachable for {SECONDS_UNREACHABLE:.0f} s: {brief(error)}")
            return
        except RayActorError as error:
            self._forget(call.name)
            yield call.name, Lost(brief(error))
            return
        except RayError as error:
            self._forget(call.name)
            yield call.name, Lost(f"its actor failed: {brief(error)}")
            return
        child.unreachable_since = None
        match call.method:
            case "where":
                child.is_placed = True
                self.call(_Call(call.name, "next_messages", (0,)))
                yield call.name, Placed(answer)
            case "next_messages":
                child.heard += len(answer)
                # Before the messages are told: what they lead to may forget the actor.
                if not any(kind == "exit" for kind, _ in answer):
                    self.call(_Call(call.name, "next_messages", (child.heard,)))
                for message in answer:
                    yield call.name, message


# Lines of Ray's errors that say nothing to a person, and where advice begins that does not fit here.
_OF_NO_USE = ("Traceback", "The actor died unexpectedly before", "class_name:", "actor_id:", "pid:", "ip:", "name:", "namespace:")
_ADVICE = " Some common causes"


def brief(error: Exception) -> str:
    """What an error says, in one line. Those of Ray have many."""
    lines = [line.strip() for line in str(error).splitlines()]
    telling = [line.partition(_ADVICE)[0] for line in lines if line and not line.startswith(_OF_NO_USE)]
    if lines and lines[0].startswith(("Traceback", "\x1b[36mray::")):
        # An exception in the actor itself: its last line.
        telling = telling[-1:]
    return ": ".join(telling) or type(error).__name__
