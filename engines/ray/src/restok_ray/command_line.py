"""Options of `restok-ray`, then the job and its own options as restok takes them."""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from restok_ray import protocol

JOBS = ("tokenize", "generate", "evaluate")
# Options that a worker reads from its environment, where neither the command line nor the driver's environment has them.
_DEVICE_THREADS = "RESTOK_DEVICE_THREADS"
_DECODE_THREADS = "RESTOK_DECODE_THREADS"
_PROGRESS_SECONDS = "RESTOK_PROGRESS_SECONDS"


@dataclass(frozen=True)
class CommandLine:
    """What was typed, with defaults."""

    address: str
    restok: str
    workers: int | None
    gpus_per_worker: float
    # Nothing: as many as belong to its GPUs, or one.
    cpus_per_worker: int | None
    environment: Mapping[str, str]
    progress_seconds: float
    format: str
    job: str
    flags: Sequence[str]

    def worker(self) -> list[str]:
        """The command of a worker."""
        return [self.restok, "worker", self.job, *self.flags]

    def plain(self) -> list[str]:
        """The same job as one process."""
        return [self.restok, self.job, *self.flags]

    def environment_of_worker(self, cpus: int) -> dict[str, str]:
        """What is set for a worker that has so many processors: the driver's settings of restok, and threads for no more than these."""
        driver = {name: value for name, value in os.environ.items() if name.startswith("RESTOK_")}
        defaults = {_PROGRESS_SECONDS: f"{max(1, round(self.progress_seconds / 2))}"}
        if not self._has("--settings") and "RESTOK_SETTINGS" not in driver:
            # A settings file may name them, and is weaker than the environment.
            defaults |= {_DECODE_THREADS: str(cpus), _DEVICE_THREADS: str(cpus)}
        return {**defaults, **driver, **self.environment}

    def _has(self, flag: str) -> bool:
        return any(word == flag or word.startswith(f"{flag}=") for word in self.flags)


class _Parser(argparse.ArgumentParser):
    """Wrong options end with the code that restok has for them."""

    def error(self, message: str) -> NoReturn:
        self.print_usage()
        self.exit(protocol.PERMANENT, f"{self.prog}: error: {message}\n")


def parse(words: Sequence[str]) -> CommandLine:
    """Ends the program where the words are wrong, or ask for help."""
    parser = _Parser(
        prog="restok-ray",
        usage="restok-ray [OPTIONS] JOB OPTIONS-OF-THE-JOB",
        description="Runs a job of restok on a Ray cluster, one worker a GPU, until its output is finished.",
        epilog="Exit codes are those of restok: 0 done, 42 wrong settings or data, 75 temporary, 143 stopped by a signal.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--address",
        default="auto",
        metavar="ADDRESS",
        help="the cluster: auto (RAY_ADDRESS, or the one of this machine), HOST:PORT, or local, which starts one on this machine for the "
        "command [default: auto]",
    )
    parser.add_argument(
        "--restok", default="restok", metavar="PATH", help="the program restok on the nodes [default: restok, on their PATH]"
    )
    parser.add_argument(
        "--workers",
        type=_at_least_one,
        metavar="COUNT",
        help="most workers at a time; Ray's autoscaler sees those that wait for a place [default: as many as the nodes hold, later ones too]",
    )
    parser.add_argument(
        "--num-gpus-per-worker",
        type=_not_negative,
        metavar="GPUS",
        help="GPUs of each worker, which uses all of them; 0 for workers on processors [default: 0 with --devices cpu, else 1]",
    )
    parser.add_argument(
        "--num-cpus-per-worker",
        type=_at_least_one,
        metavar="CPUS",
        help="processors of each worker, and its threads where neither options nor settings name them [default: a node's share of a GPU; "
        "1 without GPUs]",
    )
    parser.add_argument(
        "--env",
        action="append",
        default=[],
        type=_variable,
        metavar="NAME[=VALUE]",
        help="set this environment variable for the workers, or pass on the driver's; those that begin with RESTOK_ are always passed on",
    )
    parser.add_argument(
        "--progress-seconds",
        type=_positive,
        default=10.0,
        metavar="SECONDS",
        help="time between lines of progress where standard error is no terminal [default: 10]",
    )
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="form of the summary, the last line on standard output [default: text]"
    )
    parser.add_argument("job", choices=JOBS, metavar="JOB", help=", ".join(JOBS))
    parser.add_argument("flags", nargs=argparse.REMAINDER, metavar="OPTIONS-OF-THE-JOB", help="as `restok JOB` takes them")
    typed = parser.parse_args(words)
    gpus = typed.num_gpus_per_worker
    return CommandLine(
        address=typed.address,
        restok=typed.restok,
        workers=typed.workers,
        gpus_per_worker=gpus if gpus is not None else _gpus(typed.flags),
        cpus_per_worker=typed.num_cpus_per_worker,
        environment=dict(typed.env),
        progress_seconds=typed.progress_seconds,
        format=typed.format,
        job=typed.job,
        flags=typed.flags,
    )


def _gpus(flags: Sequence[str]) -> float:
    devices = os.environ.get("RESTOK_DEVICES")
    for word, value in zip(flags, [*flags[1:], ""], strict=False):
        if word == "--devices":
            devices = value
        elif word.startswith("--devices="):
            devices = word.removeprefix("--devices=")
    return 0 if devices == "cpu" else 1


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"found {text}, expected 1 or more")
    return number


def _not_negative(text: str) -> float:
    number = float(text)
    # Ray shares a GPU among actors, or gives whole ones.
    if number < 0 or (number > 1 and number != int(number)):
        raise argparse.ArgumentTypeError(f"found {text}, expected a whole number or a fraction below 1")
    return number


def _positive(text: str) -> float:
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"found {text}, expected more than 0")
    return number


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals and name not in os.environ:
        raise argparse.ArgumentTypeError(f"{name} is not set here: set it, or write {name}=VALUE")
    return name, value if equals else os.environ[name]
