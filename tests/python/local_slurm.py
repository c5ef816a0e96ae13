"""A Slurm of three nodes on this machine: a controller and a daemon per node on loopback, with a configuration and keys of its own.

Its daemons are those of the system's packages; nothing outside of its folder is written.
"""

import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from datetime import datetime, timedelta
from pathlib import Path

SECONDS_TO_ANSWER = 60
NODES = ("n1", "n2", "n3")
# States in which nothing more happens to a task.
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}
PATH = os.environ["PATH"] + ":/usr/sbin:/sbin"


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def configuration(folder):
    host = socket.gethostname()
    control, *ports = free_ports(1 + len(NODES))
    settings = {
        "ClusterName": "restok",
        "SlurmctldHost": f"{host}(127.0.0.1)",
        "SlurmctldPort": control,
        "SlurmUser": "root",
        "SlurmdUser": "root",
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={folder}/munge.socket",
        "CredType": "cred/munge",
        "StateSaveLocation": folder / "controller",
        "SlurmdSpoolDir": folder / "node-%n",
        "SlurmctldPidFile": folder / "slurmctld.pid",
        "SlurmdPidFile": folder / "slurmd-%n.pid",
        "SlurmctldLogFile": folder / "slurmctld.log",
        "SlurmdLogFile": folder / "slurmd-%n.log",
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "MpiDefault": "none",
        # The nodes say what they have, not the machine that they are on.
        "SlurmdParameters": "config_overrides",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core",
        "ReturnToService": 2,
        "MaxArraySize": 20,
        # As quick as it can be: a node is missed after this long, and the queue is looked at every second.
        "SlurmdTimeout": 5,
        "KillWait": 20,
        "SchedulerParameters": "sched_interval=1,sched_min_interval=0,bf_interval=1",
    }
    lines = [f"{name}={value}" for name, value in settings.items()]
    for node, port in zip(NODES, ports):
        lines.append(f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2")
    lines.append("PartitionName=tests Nodes=ALL Default=YES MaxTime=INFINITE State=UP")
    return "".join(f"{line}\n" for line in lines)


def wait_for(what, condition, seconds):
    """The first thing that is true of what `condition` returns; an error that names `what` if there is none for too long."""
    ends = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < ends, f"{what}: not within {seconds} s"
        time.sleep(0.05)
    return found


class Slurm:
    """The daemons, until the end of the block."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.environment = {**os.environ, "PATH": PATH, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def __enter__(self):
        for name in ("controller", *(f"node-{node}" for node in NODES)):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        (self.folder / "slurm.conf").write_text(configuration(self.folder))
        try:
            files = {name: f"--{name}-file={self.folder}/munge.{name}" for name in ("key", "log", "pid", "seed")}
            # Its folder is one that only root can enter, which it would refuse.
            self.run("munged", "--force", f"--socket={self.folder}/munge.socket", *files.values())
            self.run("slurmctld")
            for node in NODES:
                self.revive(node)
            wait_for("all nodes", lambda: self.states() == dict.fromkeys(NODES, "idle"), SECONDS_TO_ANSWER)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        # Nothing that a test left running outlives it.
        for node in NODES:
            self.kill(node)
        for name in ("slurmctld.pid", "munge.pid"):
            with contextlib.suppress(ProcessLookupError, TypeError):
                os.kill(process_of(self.folder / name), signal.SIGTERM)

    def run(self, *command):
        done = subprocess.run(
            list(map(str, command)), env=self.environment, capture_output=True, text=True, timeout=SECONDS_TO_ANSWER
        )
        assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.stderr}\n{self.log()}"
        return done.stdout

    def log(self):
        return "".join(path.read_text(errors="replace")[-4000:] for path in sorted(self.folder.glob("*.log")))

    def states(self):
        """What each node is said to be; a star, for one that does not answer, is left out."""
        lines = self.run("sinfo", "--noheader", "--Node", "--format=%N %t").split("\n")
        return {line.split()[0]: line.split()[1].rstrip("*") for line in lines if line}

    def revive(self, node):
        self.run("slurmd", "-N", node)

    def kill(self, node):
        """The node is gone: its daemon and everything that runs there, without a chance to say so."""
        victims = descendants(process_of(self.folder / f"slurmd-{node}.pid"))
        for process in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def tasks(self, job):
        """Every task of a job, by what `scontrol` says of it."""
        lines = self.run("scontrol", "--oneliner", "show", "job", job).splitlines()
        return [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in lines if line]

    def hurry(self, job):
        """A task that was queued again waits two minutes, which tests need not. But a node starts none in the second, by the clock, in which
        it ended the one before ("Job credential revoked"), which has then failed."""
        for task in self.tasks(job):
            if task["JobState"] == "PENDING" and int(task["Restarts"]) and is_far(task["EligibleTime"]):
                subprocess.run(
                    ["scontrol", "update", f"JobId={task['JobId']}", "StartTime=now+2"],
                    env=self.environment, capture_output=True, check=False,
                )

    def ended(self, job, seconds):
        """The tasks of a job, once nothing more happens to any of them."""

        def all_ended():
            self.hurry(job)
            tasks = self.tasks(job)
            return tasks if {task["JobState"] for task in tasks} <= ENDED else None

        return wait_for(f"the end of job {job}", all_ended, seconds)


def is_far(moment):
    """Whether a moment of Slurm's is further away than where `hurry` puts it: Slurm may put it off again."""
    return moment != "Unknown" and datetime.fromisoformat(moment) > datetime.now() + timedelta(seconds=3)


def process_of(pid_file):
    """The process that wrote a pid file, if it did."""
    return int(pid_file.read_text()) if pid_file.exists() else None


def descendants(process):
    """A process with its children and theirs, parents first."""
    if process is None:
        return []
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(status.parent.name)] = int(status.read_text().rsplit(")", 1)[1].split()[1])
    found = [process]
    for parent in found:
        found += [child for child, of in parents.items() if of == parent]
    return found


def is_there():
    return all(shutil.which(program, path=PATH) for program in ("munged", "slurmctld", "slurmd", "sbatch"))
