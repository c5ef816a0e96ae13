"""The driver of restok-ray with workers that only write down what they are told: queue, tail, deaths, ends. Needs no Ray."""

import io
import json

import pytest
from restok_ray import command_line, protocol
from restok_ray.child import is_for_people
from restok_ray.driver import ATTEMPTS, Driver
from restok_ray.progress import Progress, duration
from restok_ray.summary import Summary
from restok_ray.unit_queue import UnitQueue


class Worker:
    """What a worker was told, and what it says."""

    def __init__(self, name, run):
        self.name, self.run = name, run
        self.units, self.input_is_closed, self.is_draining = [], False, False

    def give(self, units):
        self.units += units

    def close_input(self):
        self.input_is_closed = True

    def drain(self):
        self.is_draining = True

    def says(self, event, **fields):
        self.run.driver.wrote(self.name, json.dumps({"event": event, **fields}))

    def is_ready(self, missing, units=100, at_once=2, plan="aa", version=1):
        self.says("ready", protocol=version, restok="0.1.0", job="tokenize", plan=plan, units=units, missing=missing, at_once=at_once)
        return self

    def does(self, unit, by="here", images=10, **rejected):
        self.units.remove(unit)
        self.says("begun", unit=unit)
        if by == "here":
            self.says("done", unit=unit, by=by, images=images, rejected=rejected, rows=images, seconds=0.1)
        else:
            self.says("done", unit=unit, by=by)

    def ends(self, units_left=0):
        self.says("ended", units_here=0, units_left=units_left, finalized=not units_left)
        self.exits(0)

    def fails(self, exit_code, problem):
        self.says("failed", exit_code=exit_code, problem=problem)
        self.exits(exit_code)

    def drains(self):
        self.says("drained", units_dropped=[])
        self.exits(143)

    def exits(self, code, last_words=""):
        self.run.driver.exited(self.name, code, last_words)


class Run:
    """A driver, its clock and what it said."""

    def __init__(self, capacity=3):
        self.capacity, self.time, self.said, self.workers = capacity, 0.0, [], {}
        self.driver = Driver(self.said.append, now=lambda: self.time)

    def start(self):
        """Starts and places what the driver asks for."""
        started = []
        for name in self.driver.to_start(self.capacity):
            self.workers[name] = worker = Worker(name, self)
            self.driver.started(worker)
            self.driver.placed(name, "a node")
            started.append(worker)
        return started

    def with_workers(self, number, missing, **ready):
        """So many workers that are ready; the first one finds these units missing, and has its share before the others come."""
        self.capacity = number
        (first,) = self.start()
        first.is_ready(missing, **ready)
        others = [worker.is_ready(missing, **ready) for worker in self.start()]
        return [first, *others]


@pytest.fixture
def run():
    return Run()


def test_the_first_worker_is_alone_until_it_is_ready(run):
    (first,) = run.start()
    assert run.start() == []
    first.is_ready([[0, 9]])
    assert [worker.name for worker in run.start()] == ["worker-2", "worker-3"]


def test_a_worker_has_what_it_works_on_and_one_ahead(run):
    (worker,) = run.with_workers(1, [[3, 5], [9, 20]])
    assert worker.units == [3, 4, 5]
    worker.does(4)
    assert worker.units == [3, 5, 9]


def test_few_units_are_shared_by_all(run):
    workers = run.with_workers(3, [[0, 4]], at_once=4)
    # The first one was alone; the last one has nothing of its own and does what was not begun, too.
    assert workers[0].units == [0, 1, 2, 3, 4] and workers[1].units == [0, 1, 2, 3] and workers[2].units == [4]


def test_no_more_workers_than_units(run):
    run.capacity = 50
    (first,) = run.start()
    first.is_ready([[0, 3]])
    assert len(run.start()) == 3


def test_units_of_a_dead_worker_go_to_others_first(run):
    one, two = run.with_workers(2, [[0, 99]])
    assert (one.units, two.units) == ([0, 1, 2], [3, 4, 5])
    run.driver.lost("worker-1", "its node died")
    two.does(3)
    two.does(4)
    two.does(5)
    assert two.units == [0, 1, 2]
    assert run.driver.counts.workers_lost == 1
    assert any("its node died" in line for line in run.said) and any("0, 1, 2" in line for line in run.said)


def test_units_of_a_worker_that_cannot_be_reached_do_not_wait_for_its_death(run):
    one, two = run.with_workers(2, [[0, 9]])
    assert (one.units, two.units) == ([0, 1, 2], [3, 4, 5])
    run.driver.unreachable("worker-1")
    two.does(3)
    assert two.units == [4, 5, 0]
    # It was not dead: what it did counts, and it gets more.
    one.does(0)
    one.does(1)
    assert one.units[-2:] == [6, 7]
    # It found the unit stored, and did nothing twice.
    two.does(0, by="elsewhere")
    assert run.driver.queue.done_units == 100 - 10 + 3
    assert (run.driver.counts.workers_lost, run.driver.counts.units_done_twice) == (0, 0)


def test_a_dead_worker_is_replaced_after_a_rest_that_grows(run):
    one, two = run.with_workers(2, [[0, 99]])
    one.fails(75, "the store answered 503")
    assert run.start() == []
    run.time += 1.1
    (again,) = run.start()
    assert again.name == "worker-1"
    again.fails(75, "the store answered 503")
    run.time += 1.1
    assert run.start() == []
    run.time += 1
    (again,) = run.start()
    # A unit done ends the row.
    again.is_ready([[0, 99]])
    again.does(again.units[0])
    again.exits(-9)
    run.time += 1.1
    assert [worker.name for worker in run.start()] == ["worker-1"]
    assert two.units


def test_last_units_are_done_twice_and_the_first_answer_counts(run):
    one, two, three = run.with_workers(3, [[0, 5]], at_once=1)
    assert (one.units, two.units, three.units) == ([0, 1], [2, 3], [4, 5])
    one.says("begun", unit=0)
    two.does(2)
    two.does(3, images=7)
    # What was not begun, before the oldest; one, because that is how many it does at once.
    assert two.units == [1]
    three.does(4)
    three.does(5)
    assert three.units == [0]
    two.does(1)
    assert two.units == []
    three.does(0, images=3, corrupt=2)
    assert run.driver.queue.left == 0
    # One of those without work ends and finalizes, the others have no more to do.
    assert [worker.input_is_closed for worker in (one, two, three)] == [False, True, False]
    assert [worker.is_draining for worker in (one, two, three)] == [True, False, True]
    one.does(0, images=3, corrupt=2)
    one.drains()
    three.drains()
    two.ends()
    assert run.driver.has_ended and run.driver.outcome.exit_code == 0
    counts = run.driver.counts
    assert (counts.images, counts.rejected, counts.units_stored_here) == (50, {"corrupt": 2}, 6)
    assert (run.driver.queue.given_twice, counts.units_done_twice, counts.workers_lost) == (2, 1, 0)


def test_what_is_stored_here_counts_whoever_speaks_of_it_first(run):
    one, two = run.with_workers(2, [[0, 1]])
    two.does(1)
    assert (one.units, two.units) == ([0, 1], [0])
    two.does(0, by="elsewhere")
    assert run.driver.queue.left == 0 and run.driver.counts.units_stored_here == 1
    one.does(0, images=3, corrupt=2)
    counts = run.driver.counts
    assert (counts.images, counts.rejected, counts.units_stored_here, counts.units_done_twice) == (13, {"corrupt": 2}, 2, 0)


def test_a_unit_is_never_with_three(run):
    workers = run.with_workers(4, [[0, 0]])
    # A cluster may hold more workers than there are units left: these came before.
    for number in (2, 3, 4):
        worker = Worker(f"late-{number}", run)
        run.driver.started(worker)
        run.driver.placed(worker.name, "a node")
        workers.append(worker.is_ready([[0, 0]]))
    assert [worker.units for worker in workers] == [[0], [0], [], []]


def test_a_finished_output_is_closed_again(run):
    (worker,) = run.start()
    worker.is_ready([])
    assert worker.input_is_closed and worker.units == []
    worker.ends()
    assert run.driver.has_ended and run.driver.outcome.exit_code == 0


def test_who_dies_while_it_finalizes_is_replaced(run):
    (worker,) = run.with_workers(1, [[0, 0]])
    worker.does(0)
    assert worker.input_is_closed
    worker.exits(-9)
    run.time += 2
    (again,) = run.start()
    again.is_ready([])
    assert again.input_is_closed
    again.ends()
    assert run.driver.outcome.exit_code == 0 and run.driver.has_ended


def test_units_that_vanished_are_a_reason_to_start_again(run):
    (worker,) = run.with_workers(1, [[0, 0]])
    worker.does(0)
    worker.ends(units_left=1)
    assert run.driver.outcome.exit_code == 75


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda worker: worker.fails(42, "another crop"), "worker-2: another crop"),
        (lambda worker: worker.is_ready([[0, 9]], plan="bb"), "worker-1 has the plan aa, worker-2 has bb"),
        (lambda worker: worker.is_ready([[0, 9]], version=2), "version 2"),
        (lambda worker: worker.says("refused", line="7", problem="no such unit"), "no such unit"),
        (lambda worker: worker.run.driver.wrote(worker.name, "Usage: restok"), "Usage: restok"),
        (lambda worker: worker.exits(42, "restok: no such file"), "worker-2: restok: no such file"),
    ],
    ids=["failed", "plan", "version", "refused", "no event", "no program"],
)
def test_what_is_wrong_for_good_ends_all_at_once(run, fault, words):
    run.capacity = 2
    (first,) = run.start()
    first.is_ready([[0, 9]])
    (second,) = run.start()
    fault(second)
    assert run.driver.outcome.exit_code == 42 and words in run.driver.outcome.problem
    assert first.is_draining and run.start() == []


def test_failures_in_a_row_end_the_job(run):
    for attempt in range(ATTEMPTS):
        assert run.driver.outcome is None
        run.time += 60
        (worker,) = run.start()
        worker.fails(75, f"attempt {attempt}")
    outcome = run.driver.outcome
    assert outcome.exit_code == 75 and f"attempt {ATTEMPTS - 1}" in outcome.problem and run.driver.has_ended


def test_one_broken_machine_does_not_end_the_job(run):
    good, bad = run.with_workers(2, [[0, 99]])
    for _ in range(5 * ATTEMPTS):
        bad.exits(101)
        good.does(good.units[0])
        run.time += 61
        (bad,) = run.start()
    assert run.driver.outcome is None


def test_a_signal_drains_all_and_no_new_ones_start(run):
    one, two = run.with_workers(2, [[0, 99]])
    run.driver.stop()
    assert one.is_draining and two.is_draining
    one.drains()
    assert not run.driver.has_ended
    # Before its own handler was there.
    two.exits(-15)
    assert run.driver.has_ended and run.driver.outcome.exit_code == 143 and run.start() == []
    assert run.driver.counts.workers_lost == 0


def test_nobody_waits_at_the_end_for_a_worker_that_cannot_be_reached(run):
    one, two = run.with_workers(2, [[0, 1]])
    run.driver.unreachable("worker-1")
    two.does(0)
    two.does(1)
    assert two.input_is_closed and one.is_draining
    two.ends()
    assert run.driver.has_ended and run.driver.outcome.exit_code == 0


def test_a_signal_after_the_end_is_too_late(run):
    (worker,) = run.with_workers(1, [[0, 0]])
    worker.does(0)
    run.driver.stop()
    worker.ends()
    assert run.driver.outcome.exit_code == 0


def test_workers_without_a_place_are_taken_back_where_the_cluster_shrank(run):
    run.with_workers(1, [[0, 99]])
    run.driver.started(Worker("worker-2", run))
    assert run.driver.to_cancel(2) == [] and run.driver.to_cancel(1) == ["worker-2"]
    run.driver.cancelled("worker-2")
    assert run.driver.counts.workers_lost == 0


def test_events_and_fields_of_later_versions_are_passed_over():
    assert protocol.parse('{"event": "rested", "hours": 8}') is None
    assert protocol.parse('{"event": "begun", "unit": 3, "by": "hand"}') == protocol.Begun(3)
    for line in ("", "3", "{}", '{"event": 3}', '{"event": "done", "unit": 3}', "Usage: restok"):
        with pytest.raises(protocol.ProtocolError):
            protocol.parse(line)


def test_a_unit_in_work_is_not_counted_as_done_by_others():
    queue = UnitQueue(10, [[0, 9]])
    assert queue.take("one", 1) == [0]
    # Who came later saw unit 0 stored before its worker told of it, and unit 1, which somebody else stored.
    queue.stored_elsewhere([[2, 9]])
    assert queue.done_units == 1
    queue.done("one", 0)
    assert queue.done_units == 2 and queue.take("one", 1) == [2]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_progress_is_one_line_over_all_workers(run, stream):
    shown = stream()
    progress = Progress(10, shown, now=lambda: run.time)
    one, two = run.with_workers(2, [[0, 9]], units=10)
    run.time = 10
    progress.show(run.driver)
    one.does(0, corrupt=1)
    two.says("progress", images=1990, rejected=0, units_done=0, images_per_second=1.0, limited_by=None)
    run.time = 20
    progress.show(run.driver)
    progress.say("worker-2: a warning")
    *_, line = [text for text in shown.getvalue().replace("\r\x1b[K", "\n").splitlines() if "units" in text]
    assert line.removeprefix("restok-ray: ") == "units 1/10, images 10, 200.0/s, workers 2, rejected 1, 1 min 30 s left"
    assert "restok-ray: worker-2: a warning\n" in shown.getvalue()


def test_durations():
    assert [duration(seconds) for seconds in (4.4, 90, 7260)] == ["4 s", "1 min 30 s", "2 h 1 min"]


def test_the_summary_says_what_became_of_it(run):
    (worker,) = run.with_workers(1, [[0, 1]], units=5)
    worker.does(0, images=1200, corrupt=2, empty=1)
    run.driver.stop()
    worker.drains()
    summary = Summary("tokenize", run.driver.outcome, 12.34, run.driver)
    fields = json.loads(summary.json())
    assert fields["units_left"] == 1 and fields["rejected"] == {"corrupt": 2, "empty": 1} and fields["exit_code"] == 143
    assert summary.text() == (
        "tokenize stopped; the same command goes on: 5 units, 1 left, 1 stored by this run, 1,200 images, "
        "3 rejected (corrupt 2, empty 1), 1 workers, 0 lost, 0 units done twice, 12.3 s"
    )


def test_the_job_and_its_options_follow_those_of_the_cluster(monkeypatch):
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("RESTOK_SPLIT", "validation")
    of_the_cluster = ["--workers", "3", "--env", "AWS_REGION", "--env", "HF_HUB_OFFLINE=1"]
    line = command_line.parse([*of_the_cluster, "tokenize", "--output", "o", "--devices=cpu", "--format", "json"])
    assert line.worker() == ["restok", "worker", "tokenize", "--output", "o", "--devices=cpu", "--format", "json"]
    assert (line.workers, line.gpus_per_worker, line.format) == (3, 0, "text")
    environment = line.environment_of_worker(cpus=4)
    expected = {"AWS_REGION": "eu-west-1", "HF_HUB_OFFLINE": "1", "RESTOK_SPLIT": "validation", "RESTOK_DEVICE_THREADS": "4"}
    assert environment.items() >= expected.items()
    # A settings file may name the threads.
    assert "RESTOK_DEVICE_THREADS" not in command_line.parse(["generate", "--settings", "job.toml"]).environment_of_worker(4)
    assert command_line.parse(["generate"]).gpus_per_worker == 1


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["train-tokenizer"],
        ["--workers", "0", "tokenize"],
        ["--num-gpus-per-worker", "1.5", "tokenize"],
        ["--env", "NO_SUCH_NAME", "tokenize"],
    ],
)
def test_a_wrong_command_line_is_wrong_for_good(words, capsys):
    with pytest.raises(SystemExit) as end:
        command_line.parse(words)
    assert end.value.code == 42 and "restok-ray: error: " in capsys.readouterr().err


def test_warnings_and_errors_of_a_log_are_for_people():
    lines = [
        ("2026-01-31T12:00:00.000000Z  INFO started", False),
        ("  and how", False),
        ("2026-01-31T12:00:01.000000Z  WARN slow", True),
        ("  and why", True),
        ('{"timestamp":"2026-01-31T12:00:02Z","level":"INFO","message":"on"}', False),
        ('{"timestamp":"2026-01-31T12:00:02Z","level":"ERROR","message":"off"}', True),
    ]
    told = True
    for line, expected in lines:
        told = is_for_people(line, told)
        assert told == expected, line
