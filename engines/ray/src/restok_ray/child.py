"""A process of restok beside an actor: the thread that it lives with, what it says, and what it is told. No Ray in here."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Literal

# A message: a line of standard output, a line of the log that a person should see, or the end: exit code and last words.
Message = tuple[Literal["output"], str] | tuple[Literal["log"], str] | tuple[Literal["exit"], tuple[int, str]]
# What cannot be started never can: the exit code for wrong settings.
CANNOT_START = 42
# Warnings and errors that are told again when the process dies without saying why.
LAST_LINES = 20
# At most so many messages are handed over at once.
MOST_AT_ONCE = 1000
# For the end of the log, which a child of the child may keep open.
SECONDS_FOR_LOG = 5.0


class Child:
    """A running process. Its messages have numbers and are kept until the reader asks for later ones, so that a lost answer loses none."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folder: str) -> None:
        """Starts `command` with `environment` added to this process's own, in `folder` if this machine has it."""
        self._command = list(command)
        self._environment = {**os.environ, **environment}
        self._folder = folder if os.path.isdir(folder) else None
        self._changed = threading.Condition()
        self._messages: deque[Message] = deque()
        self._acknowledged = 0
        self._process: subprocess.Popen[str] | None = None
        self._is_told_to_end = False
        self._given: set[int] = set()
        # The kernel tells the child when the *thread* that started it ends, so that thread stays until the child has ended. Threads of
        # an actor's calls come and go.
        threading.Thread(target=self._live, name="restok", daemon=True).start()

    def next_messages(self, after: int, seconds: float) -> list[Message]:
        """Messages from number `after` on, as soon as there are any; none after so many seconds. Those before are forgotten."""
        with self._changed:
            while self._acknowledged < after:
                self._messages.popleft()
                self._acknowledged += 1
            self._changed.wait_for(lambda: self._messages, seconds)
            return [message for message, _ in zip(self._messages, range(MOST_AT_ONCE), strict=False)]

    def give(self, units: Iterable[int]) -> None:
        """Sends units. One that was sent before is not sent again: the caller may repeat a call whose answer was lost."""
        with self._changed:
            new = [unit for unit in units if unit not in self._given]
            self._given.update(new)
            self._changed.wait_for(self._has_started)
            self._write("".join(f"{unit}\n" for unit in new))

    def close_input(self) -> None:
        """Says that no more units come."""
        with self._changed:
            self._changed.wait_for(self._has_started)
            if self._process and self._process.stdin:
                with contextlib.suppress(OSError):
                    self._process.stdin.close()

    def drain(self) -> None:
        """Sends SIGTERM."""
        with self._changed:
            self._is_told_to_end = True
            if self._process:
                self._process.send_signal(signal.SIGTERM)

    def _has_started(self) -> bool:
        return self._process is not None or self._acknowledged + len(self._messages) > 0

    def _write(self, text: str) -> None:
        # A broken pipe needs no answer: the end of the process is a message of its own.
        if self._process and self._process.stdin and not self._process.stdin.closed:
            with contextlib.suppress(OSError):
                self._process.stdin.write(text)
                self._process.stdin.flush()

    def _tell(self, message: Message) -> None:
        with self._changed:
            self._messages.append(message)
            self._changed.notify_all()

    def _live(self) -> None:
        try:
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=self._folder,
                env=self._environment,
                text=True,
                errors="replace",
                # Ctrl-C on a terminal is for the driver, which drains.
                start_new_session=True,
            )
        except OSError as error:
            where = f"{self._command[0]} cannot be started on {os.uname().nodename}: {error.strerror}"
            problem = f"{where}. Install restok there, or name it with --restok"
            self._tell(("exit", (CANNOT_START, problem)))
            return
        with self._changed:
            self._process = process
            if self._is_told_to_end:
                process.send_signal(signal.SIGTERM)
            self._changed.notify_all()
        assert process.stdout and process.stderr
        last: deque[str] = deque(maxlen=LAST_LINES)
        log = threading.Thread(target=self._read_log, args=(process.stderr, last), daemon=True)
        log.start()
        for line in process.stdout:
            self._tell(("output", line.rstrip("\n")))
        code = process.wait()
        log.join(SECONDS_FOR_LOG)
        self._tell(("exit", (code, "\n".join(last))))

    def _read_log(self, lines: IO[str], last: deque[str]) -> None:
        is_told = True
        for line in lines:
            # To the log file of the actor.
            sys.stderr.write(line)
            sys.stderr.flush()
            is_told = is_for_people(line, is_told)
            if is_told:
                last.append(line.rstrip("\n"))
                self._tell(("log", line.rstrip("\n")))


# As restok writes the level of a line: `2026-01-31T12:00:00.000000Z  WARN …`.
_LEVEL = re.compile(r"^\d{4}-\d\d-\d\dT\S+\s+(TRACE|DEBUG|INFO|WARN|ERROR)\b")


def is_for_people(line: str, before: bool) -> bool:
    """Whether a line of the log is a warning or an error, as text or JSON. One without a level goes with the line `before`."""
    level = None
    found = _LEVEL.match(line)
    if found:
        level = found[1]
    elif line.startswith("{"):
        with contextlib.suppress(ValueError, AttributeError):
            level = json.loads(line).get("level")
    return before if level is None else level in ("WARN", "ERROR")
