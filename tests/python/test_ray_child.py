"""The process beside an actor of restok-ray: its messages, its input, its end, and what becomes of it when its actor dies. Needs no Ray."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from conftest import CHECKOUT, SECONDS_TO_END
from restok_ray.child import Child

# Answers each line, and drains as restok does: SIGTERM ends it with a line and a code.
ECHO = """
import signal, sys
def drain(*_):
    print("drained", flush=True)
    sys.exit(143)
signal.signal(signal.SIGTERM, drain)
print("ready", flush=True)
for line in sys.stdin:
    print("got " + line.strip(), flush=True)
print("2026-01-31T12:00:00.000000Z  INFO ended", file=sys.stderr)
print("2026-01-31T12:00:00.000000Z  WARN ended early", file=sys.stderr)
sys.exit(7)
"""


def read(child, after, last):
    """Messages from number `after` until one of the kind or text `last`."""
    messages, deadline = [], time.monotonic() + SECONDS_TO_END
    while not any(last in message for message in messages):
        assert time.monotonic() < deadline, messages
        messages += child.next_messages(after + len(messages), 1)
    return messages


@pytest.fixture
def child(tmp_path):
    child = Child([sys.executable, "-c", ECHO], {}, str(tmp_path))
    yield child
    child.drain()
    read(child, 0, "exit")


def test_units_go_in_and_lines_come_out(child):
    child.give([3, 4])
    # A call whose answer was lost is made again.
    child.give([3, 4])
    child.give([5])
    messages = read(child, 0, "got 5")
    assert messages == [("output", line) for line in ("ready", "got 3", "got 4", "got 5")]
    child.close_input()
    assert read(child, 4, "exit") == [
        ("log", "2026-01-31T12:00:00.000000Z  WARN ended early"),
        ("exit", (7, "2026-01-31T12:00:00.000000Z  WARN ended early")),
    ]


def test_messages_are_kept_until_later_ones_are_asked_for(child):
    read(child, 0, "ready")
    child.give([1])
    assert [child.next_messages(1, SECONDS_TO_END) for _ in range(2)] == [[("output", "got 1")]] * 2
    assert child.next_messages(2, 0.01) == []


def test_it_drains(child):
    read(child, 0, "ready")
    child.drain()
    assert read(child, 1, "exit") == [("output", "drained"), ("exit", (143, ""))]


def test_a_program_that_is_not_there_is_wrong_for_good(tmp_path):
    child = Child([str(tmp_path / "restok")], {}, str(tmp_path))
    ((kind, (code, problem)),) = read(child, 0, "exit")
    assert (kind, code) == ("exit", 42) and "restok cannot be started" in problem and "--restok" in problem
    # What it is told meanwhile is of no use, and of no harm.
    child.give([1])
    child.close_input()
    child.drain()


def test_environment_and_folder(tmp_path):
    script = "import os; print(os.environ['RESTOK_SPLIT'], os.environ['HOME'], os.getcwd())"
    there = read(Child([sys.executable, "-c", script], {"RESTOK_SPLIT": "test"}, str(tmp_path)), 0, "exit")
    assert there[0] == ("output", f"test {os.environ['HOME']} {tmp_path}")
    # A folder of the driver's machine that this one does not have.
    elsewhere = read(Child([sys.executable, "-c", script], {"RESTOK_SPLIT": "test"}, str(tmp_path / "none")), 0, "exit")
    assert elsewhere[0] == ("output", f"test {os.environ['HOME']} {os.getcwd()}")


def test_the_thread_that_started_it_lives_as_long_as_it(child):
    """The kernel's signal at the death of the parent is one at the death of the thread."""
    read(child, 0, "ready")
    alive = [thread for thread in threading.enumerate() if thread.name == "restok"]
    assert alive
    child.drain()
    read(child, 1, "exit")
    for thread in alive:
        thread.join(SECONDS_TO_END)
        assert not thread.is_alive()


# Leaves a file at the end of its input.
NOTES_ITS_END = "import sys; print('ready', flush=True); sys.stdin.read(); open('ended', 'x')"


def test_its_input_ends_when_its_actor_is_killed(tmp_path):
    """Nobody else holds the other end."""
    actor = f"""
import sys, time
from restok_ray.child import Child
child = Child([sys.executable, "-c", {NOTES_ITS_END!r}], {{}}, {str(tmp_path)!r})
while not child.next_messages(0, 1):
    pass
print("ready", flush=True)
time.sleep(600)
"""
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / "engines/ray/src")}
    process = subprocess.Popen([sys.executable, "-c", actor], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + SECONDS_TO_END
    while not (tmp_path / "ended").exists():
        assert time.monotonic() < deadline, "it lives on"
        time.sleep(0.01)
