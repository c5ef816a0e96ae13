"""The command `restok-ray`: connects to the cluster, runs the job, prints the summary."""

import contextlib
import io
import logging
import signal
import sys
import time
from collections.abc import Sequence
from types import FrameType

import ray
from ray.exceptions import RayError

from restok_ray import command_line, protocol
from restok_ray.cluster import Children, Lost, News, Placed, Resources, Unreachable, brief, cpus_per_gpu
from restok_ray.command_line import CommandLine
from restok_ray.driver import ATTEMPTS, Driver, Outcome
from restok_ray.metrics import Metrics
from restok_ray.progress import Progress
from restok_ray.summary import Summary

# Between two looks at signals, nodes and progress, where workers say nothing.
SECONDS_BETWEEN_LOOKS = 0.5
# Between two questions for the nodes of the cluster.
SECONDS_BETWEEN_COUNTS = 1.0
# For workers to end when the job failed or is done. Those that outlive it are stopped by Ray, and drain when their parent ends.
SECONDS_TO_LEAVE = 15.0
# Between two reminders that no worker has a place.
SECONDS_WITHOUT_PLACE = 60.0


class Signals:
    """SIGTERM and SIGINT: the first asks to drain, the second to leave at once."""

    def __init__(self) -> None:
        """Takes both from Ray, which would end the driver at once."""
        self.received = 0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)

    def _receive(self, _number: int, _frame: FrameType | None) -> None:
        self.received += 1


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command, and returns its exit code."""
    line = command_line.parse(sys.argv[1:] if words is None else words)
    progress = Progress(line.progress_seconds)
    start = time.monotonic()
    driver = Driver(progress.say)
    with contextlib.redirect_stdout(WordsOfRay(progress)):
        scores = _on_cluster(line, driver, progress)
    outcome = driver.outcome or Outcome(protocol.TEMPORARY, "it ended without an outcome")
    progress.end()
    if outcome.problem:
        progress.say(f"error: {outcome.problem}")
    for text in scores:
        print(text)
    summary = Summary(line.job, outcome, time.monotonic() - start, driver)
    print(summary.json() if line.format == "json" else summary.text(), flush=True)
    return outcome.exit_code


def _on_cluster(line: CommandLine, driver: Driver, progress: Progress) -> list[str]:
    """Runs the job, and returns the lines of its scores, if it has any."""
    try:
        ray.init(address=line.address, log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, RayError, RuntimeError, ValueError) as error:
        help_text = "`ray start --head` starts a cluster, --address local one for this command; one with a token wants RAY_AUTH_MODE=token"
        driver.give_up(f"no connection to Ray at --address {line.address}: {brief(error)}. {help_text}")
        return []
    # After `init`, which has handlers of its own.
    run = Run(line, driver, progress, Signals())
    run.run()
    ray.shutdown()
    return run.scores


class WordsOfRay(io.TextIOBase):
    """What Ray writes to standard output, which is for scores and summary: to standard error, without the details below a line."""

    def __init__(self, progress: Progress) -> None:
        """Ray's logs have the details."""
        self._progress = progress

    def write(self, text: str) -> int:
        """Takes whole lines."""
        for line in text.splitlines():
            if line.strip() and not line.startswith((" ", "\t")):
                self._progress.say(line)
        return len(text)


class Run:
    """One job on the cluster that this process is connected to."""

    def __init__(self, line: CommandLine, driver: Driver, progress: Progress, signals: Signals) -> None:
        """Decides what each worker gets."""
        self._line = line
        self._driver = driver
        self._progress = progress
        self._signals = signals
        gpus = line.gpus_per_worker
        cpus = line.cpus_per_worker or (cpus_per_gpu(gpus) if gpus else 1)
        self._resources = Resources(cpus, gpus)
        self._children = Children(self._resources, line.environment_of_worker(cpus))
        self._metrics = Metrics(line.job)
        self._capacity = 0
        self._counted_at = -SECONDS_BETWEEN_COUNTS
        self._placed_at = time.monotonic()
        self.scores: list[str] = []

    def run(self) -> None:
        """Until the driver has an outcome and the workers have left."""
        try:
            self._share_units()
            outcome = self._driver.outcome
            if self._line.job == "evaluate" and outcome and outcome.exit_code == protocol.FINISHED:
                self._driver.outcome = self._score()
        except RayError as error:
            self._driver.give_up(f"Ray failed: {brief(error)}")

    def _share_units(self) -> None:
        driver, leave_at = self._driver, None
        while not driver.has_ended:
            self._look_at_signals()
            if self._signals.received > 1:
                return
            if driver.outcome and driver.outcome.exit_code != protocol.DRAINED:
                leave_at = leave_at or time.monotonic() + SECONDS_TO_LEAVE
                if time.monotonic() > leave_at:
                    return
            self._start_and_cancel()
            for name, news in self._children.news(SECONDS_BETWEEN_LOOKS):
                self._tell(name, news)
            self._metrics.tell(driver)
            self._progress.show(driver)

    def _look_at_signals(self) -> None:
        if self._signals.received and not self._driver.outcome:
            self._progress.say("stopping: commits in progress are finished; a second signal ends at once")
            self._driver.stop()

    def _start_and_cancel(self) -> None:
        now = time.monotonic()
        if now - self._counted_at >= SECONDS_BETWEEN_COUNTS:
            self._counted_at = now
            # With a number to reach, those without a place wait for one, and tell the autoscaler so.
            self._capacity = self._line.workers or self._resources.capacity()
        for name in self._driver.to_start(self._capacity):
            self._driver.started(self._children.start(name, self._line.worker()))
        for name in self._driver.to_cancel(self._capacity):
            self._children.forget(name)
            self._driver.cancelled(name)
        if self._driver.workers_placed:
            self._placed_at = now
        elif now - self._placed_at > SECONDS_WITHOUT_PLACE:
            self._placed_at = now
            gpus = f"{self._resources.gpus:g} GPUs and " if self._resources.gpus else ""
            self._progress.say(f"waiting for a node with {gpus}{self._resources.cpus} CPUs that are free: `ray status` shows what there is")

    def _tell(self, name: str, news: News) -> None:
        match news:
            case Placed(where=where):
                self._driver.placed(name, where)
            case Unreachable():
                self._driver.unreachable(name)
            case Lost(problem=problem):
                self._driver.lost(name, problem)
            case "output", str(text):
                self._driver.wrote(name, text)
            case "log", str(text):
                self._progress.say(f"{name}: {text}")
            case "exit", (int(code), str(last_words)):
                self._children.forget(name)
                self._driver.exited(name, code, last_words)

    def _score(self) -> Outcome:
        """Runs the plain command, which finds all features stored."""
        problem = ""
        for _ in range(ATTEMPTS):
            code, problem, lines = self._run_once("scores")
            if code == protocol.FINISHED:
                self.scores = lines
                return Outcome(code)
            if code in (protocol.PERMANENT, protocol.DRAINED):
                return Outcome(code, f"scores: {problem}" if code == protocol.PERMANENT else None)
            self._progress.say(f"scores: {problem}")
        return Outcome(protocol.TEMPORARY, f"scores: {problem}")

    def _run_once(self, name: str) -> tuple[int, str, list[str]]:
        """Exit code, problem and lines of output of the plain command."""
        lines: list[str] = []
        child, is_draining = self._children.start(name, self._line.plain()), False
        while True:
            if self._signals.received and not is_draining:
                child.drain()
                is_draining = True
            if self._signals.received > 1:
                return protocol.DRAINED, "", lines
            for _, news in self._children.news(SECONDS_BETWEEN_LOOKS):
                match news:
                    case Lost(problem=problem):
                        return protocol.DRAINED if is_draining else protocol.TEMPORARY, problem, lines
                    case "output", str(text):
                        lines.append(text)
                    case "log", str(text):
                        self._progress.say(f"{name}: {text}")
                    case "exit", (int(code), str(last_words)):
                        self._children.forget(name)
                        return protocol.DRAINED if is_draining and code < 0 else code, last_words, lines
