#!/usr/bin/env python3
"""What restok computes on this machine's device, and how fast, as one report: `make check-gpu`, or in a packed checkout
`python3 .gpu/check_gpu.py`.

    check_gpu.py                       every section, ten minutes at most, into ./check-gpu-output
    check_gpu.py parity encode         these sections again
    check_gpu.py --device cpu          a processor, tiny sizes
    check_gpu.py --list                what there is

Writes report.txt, report.json and log.txt (all that the programs said) into the output folder. Exit codes: 0 everything passed and ended;
1 a check did not pass: figures differ from the published ones; 2 the command line is wrong; 3 a section failed, or ran out of time.

Needs Python 3.9 and nothing else; Pillow and NumPy for the pictures of the section `tokenize`.
"""

import argparse
import datetime
import importlib.util
import json
import lzma
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import pictures
import plan
import report
from nvidia_smi import NvidiaSmi

HERE = Path(__file__).resolve().parent
PROGRAMS = ("check_gpu", "restok", "models-integration", "models-unit")
NEEDED = ("check_gpu",)
PASSED, CHECK_FAILED, WRONG_ARGUMENTS, NOT_COMPLETE = 0, 1, 2, 3
# With less than this left, a command is not begun.
FEWEST_SECONDS = 5
# For a command that should take none.
SAY_SECONDS = 120


class Failed(Exception):
    """Why a section did not end as it should."""


class WrongArguments(Exception):
    """What is wrong with the command line."""


def packed(name):
    """What pack.sh laid beside this file, if it did."""
    return HERE / name if (HERE / name).exists() else None


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", help="only these; all by default")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N; auto is the first GPU, else the processor")
    parser.add_argument("--size", choices=("auto", "tiny", "full"), default="auto", help="auto: full on a GPU, tiny on a processor")
    parser.add_argument("--budget", type=float, default=600, help="seconds for everything (600)")
    parser.add_argument("--output", type=Path, default=Path("check-gpu-output"), help="folder of the report (./check-gpu-output)")
    parser.add_argument("--programs", type=Path, help="folder with the programs, plain or as .xz; build.sh and pack.sh make one")
    parser.add_argument("--fixtures", type=Path, help="folder with the fixtures `tokenizer` and `generator` (tests/fixtures)")
    parser.add_argument("--libtorch", type=Path, help="folder lib of the libtorch that packed programs run with; that of this interpreter's torch by default")
    parser.add_argument("--published", type=Path, default=packed("published"), help="a checkout of the published code, to measure it too")
    parser.add_argument("--published-python", default=sys.executable, help="an interpreter with what that code needs")
    parser.add_argument(
        "--published-wheels", type=Path, default=packed("wheels"),
        help="folder of wheels that it needs beside the interpreter's packages, which stay as they are",
    )
    parser.add_argument("--list", action="store_true", help="print the sections and end")
    return parser


class Run:
    """One run: its programs, its clock, and what came of it."""

    def __init__(self, options, scratch):
        self.here, self.scratch = HERE, scratch
        self.began = time.monotonic()
        self.budget = options.budget
        self.output = options.output.resolve()
        self.output.mkdir(parents=True, exist_ok=True)
        self.log = (self.output / "log.txt").open("w")
        self.fixtures = (options.fixtures or self.beside("tests/fixtures")).resolve()
        self.programs = self.find_programs(options.programs)
        self.environment = self.program_environment(options.libtorch)
        self.lines, self.ended = [], []
        self.published = options.published.resolve() if options.published else None
        self.published_python = options.published_python
        self.published_wheels = options.published_wheels
        self.device, self.machine = options.device, None
        self.find_device()
        self.cuda = self.device != "cpu"
        size = options.size if options.size != "auto" else "full" if self.cuda else "tiny"
        self.size, self.sizes = size, plan.sizes(size, self.cuda)

    @staticmethod
    def beside(name):
        """A path of the checkout, which is the folder above .gpu or two above tools/check-gpu."""
        found = next((folder / name for folder in HERE.parents if (folder / name).exists()), None)
        if found is None:
            raise Failed(f"there is no {name} above {HERE}; name its place")
        return found

    def find_programs(self, named):
        """Paths by name. Packed ones are unpacked into the scratch folder."""
        folder = named or next(iter(HERE.glob("*.xz")), HERE / "none").parent
        if not folder.exists():
            raise Failed(f"the programs are not in {folder}: run `make check-gpu`, or name their folder by --programs")
        if named is None and not any(folder.glob("*.xz")):
            raise Failed("name the folder of the programs by --programs; tools/check-gpu/build.sh makes it")
        found = {}
        for name in PROGRAMS:
            packed, plain = folder / f"{name}.xz", folder / name
            if plain.exists():
                found[name] = plain.resolve()
            elif packed.exists():
                found[name] = self.scratch / name
                with lzma.open(packed) as source, found[name].open("wb") as target:
                    shutil.copyfileobj(source, target)
                found[name].chmod(0o755)
        missing = [name for name in NEEDED if name not in found]
        if missing:
            raise Failed(f"{folder} has no {', '.join(missing)}")
        return found

    def program_environment(self, libtorch):
        """The user's environment without settings of restok, which must not decide what is measured."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RESTOK_")}
        unpacked = [path.parent == self.scratch for path in self.programs.values()]
        if libtorch is not None and not all(unpacked):
            raise WrongArguments(
                "--libtorch is for packed programs: those of a build have their libtorch in their run path, which comes before "
                "LD_LIBRARY_PATH; build them over another one with LIBTORCH=FOLDER make check-gpu"
            )
        if libtorch is None and any(unpacked):
            # The machine that packed them had its libtorch elsewhere.
            torch = importlib.util.find_spec("torch")
            if torch is None or torch.origin is None:
                raise Failed(f"{sys.executable} has no torch; name the folder of libtorch by --libtorch")
            libtorch = Path(torch.origin).parent / "lib"
        if libtorch is not None:
            # In front of what is there, which may be how libcuda.so.1 is found.
            before = environment.get("LD_LIBRARY_PATH")
            environment["LD_LIBRARY_PATH"] = f"{libtorch.resolve()}:{before}" if before else str(libtorch.resolve())
        return environment

    def find_device(self):
        said = last_line(self.say([self.programs["check_gpu"], self.device, "machine"]))
        try:
            self.machine = json.loads(said)
            self.device = self.machine["device"]
        except (ValueError, TypeError, KeyError):
            raise Failed(f"check_gpu {self.device} machine did not say what the device is, but: {said or 'nothing'}") from None

    def say(self, command):
        """Runs something that takes no time and returns what it printed."""
        command = list(map(str, command))
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=self.environment, timeout=SAY_SECONDS)
        except subprocess.TimeoutExpired:
            raise Failed(f"{shlex.join(command)} ran out of its {SAY_SECONDS} s") from None
        except OSError as problem:
            raise Failed(f"{shlex.join(command)} did not start: {problem}") from None
        self.log.write(f"\n$ {shlex.join(command)}\n{done.stdout}{done.stderr}")
        if done.returncode != 0:
            raise Failed(f"{shlex.join(command)} ended with {done.returncode}: {last_line(done.stderr)}")
        return done.stdout

    def left(self):
        return self.budget - (time.monotonic() - self.began)

    # --- sections --------------------------------------------------------------------------------------------------------

    def section(self, section, asked):
        """Runs one, and records how it ended."""
        began, ended = time.monotonic(), {"name": section.name, "status": "done", "reason": ""}
        if section.name not in asked:
            ended.update(status="not asked for")
        elif section.skipped:
            ended.update(status="skipped", reason=section.skipped)
        else:
            print(f"check-gpu: {section.name}: {section.about} (at {self.budget - self.left():.0f} s)", file=sys.stderr, flush=True)
            # One command that fails does not keep the others of a section from running.
            problems = []
            for step in section.steps:
                try:
                    self.step(section.name, step)
                    continue
                except Failed as problem:
                    problems.append(str(problem))
                except Exception as problem:
                    # A fault of this program, or a file that is not what it should be: the other sections are worth having.
                    problems.append(f"{type(problem).__name__}: {problem}")
                    self.log.write(traceback.format_exc())
                if step.needed:
                    break
            if problems:
                ended.update(status="failed", reason="; ".join(problems))
                print(f"check-gpu: {section.name} failed: {ended['reason']}", file=sys.stderr, flush=True)
        ended["seconds"] = time.monotonic() - began
        self.ended.append(ended)

    def step(self, section, step):
        limit = min(step.limit, self.left())
        if limit < FEWEST_SECONDS:
            raise Failed(f"not begun: {max(0, self.left()):.0f} s were left of {self.budget:.0f}")
        if step.function:
            step.function(section, limit)
            return
        output, status, errors = self.execute(step.command, limit, step.environment)
        # What came before an end that was not meant to be counts too.
        if step.output == "lines":
            self.take_lines(section, output, step.marks)
        else:
            ended = self.take_tests(section, step, output)
            if ended and status in (0, 101):
                return
        if status is None:
            raise Failed(f"{self.short(step.command)} ran out of its {limit:.0f} s")
        if status != 0:
            raise Failed(f"{self.short(step.command)} ended with {status}: {last_line(errors) or last_line(output)}")

    def short(self, command):
        return " ".join(Path(part).name if part.startswith("/") else part for part in command)

    def execute(self, command, limit, environment=None):
        """Standard output, exit code (none where the limit ended it), standard error."""
        command = list(map(str, command))
        self.log.write(f"\n$ {shlex.join(command)}\n")
        self.log.flush()
        with tempfile.TemporaryFile("w+", errors="replace") as output, tempfile.TemporaryFile("w+", errors="replace") as errors:
            # In a session of its own, so that whatever it starts ends with it.
            try:
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, env={**self.environment, **(environment or {})},
                    start_new_session=True,
                )
            except OSError as problem:
                raise Failed(f"{shlex.join(command)} did not start: {problem}") from None
            try:
                status = process.wait(limit)
            except subprocess.TimeoutExpired:
                status = None
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            texts = []
            for file in (output, errors):
                file.seek(0)
                texts.append(file.read())
        self.log.write(f"{texts[0]}{texts[1]}(exit code {status})\n")
        return texts[0], status, texts[1]

    def take_lines(self, section, output, marks):
        for text in output.splitlines():
            # The published code prints other things too.
            if text.startswith("{"):
                try:
                    line = json.loads(text)
                except ValueError:
                    continue
                self.lines.append({"section": section, **line, **marks})

    def take_tests(self, section, step, output):
        """What one of cargo's test binaries printed. Returns whether it came to its end."""
        names = re.findall(r"^test (\S+) .*FAILED$", output, re.MULTILINE)
        ends = re.search(r"^test result: .*? (\d+) passed; (\d+) failed", output, re.MULTILINE)
        if not ends:
            return False
        # A test that was renamed, or that found no GPU, has passed without looking at anything.
        if int(ends[1]) + int(ends[2]) == 0:
            raise Failed(f"{self.short(step.command)} ran no test")
        skipped = re.search(r"^skipped: .*$", output, re.MULTILINE)
        if skipped and "--exact" in step.command:
            raise Failed(f"{self.short(step.command)} did not look at the device: {skipped[0]}")
        self.lines.append({
            "section": section, "kind": "tests", **step.marks, "passed": int(ends[1]), "failed": int(ends[2]), "names": names,
            "repeats": step.output == "repeats",
        })
        return True

    # --- `restok tokenize` -------------------------------------------------------------------------------------------------

    def why_not_tokenize(self):
        if "restok" not in self.programs:
            return "the program restok is not among the programs"
        return pictures.why_not()

    def tokenize(self, section, limit):
        """JPEG files to tables, as a user runs it, at each precision and batch."""
        end = time.monotonic() + limit
        folder = self.scratch / "pictures"
        pictures.make(folder, self.sizes.pictures)
        model = self.scratch / "tokenizer"
        _, status, errors = self.execute([self.programs["check_gpu"], "cpu", "save", self.sizes.tokenizer, model], end - time.monotonic())
        if status != 0:
            raise Failed(f"no tokenizer to run with: {last_line(errors)}")
        side = json.loads((model / "config.json").read_text())["dataset"]["preprocessing"]["crop_size"]
        for precision, batch in self.sizes.tokenize:
            output = self.scratch / f"tokens-{precision}-{batch}"
            began = time.monotonic()
            _, status, errors = self.execute(
                [
                    self.programs["restok"], "tokenize", "--source", folder, "--output", output, "--tokenizer", model,
                    "--crop", f"adm-center-{side}", "--devices", self.device, "--precision", precision, "--batch-size", batch,
                ],
                max(1, end - time.monotonic()),
            )
            if status != 0:
                raise Failed(f"restok tokenize ended with {status}: {last_line(errors)}")
            whole = time.monotonic() - began
            log = json.loads(next((output / "_log").glob("*/*.json")).read_text())
            self.lines.append({
                "section": section, "kind": "tokenize", "what": "restok tokenize", "network": self.sizes.tokenizer,
                "precision": precision, "batch": int(batch), "unit": "images/s", "value": steady_rate(log),
                "against": f"{self.sizes.pictures / whole:.3g} with starting and ending; limited by {log.get('limiting_stage') or 'nothing'}",
                "seconds": whole,
            })
            shutil.rmtree(output)

    # --- the published code --------------------------------------------------------------------------------------------------

    def steps_before_published(self):
        """The wheels, if there are any, go into a folder of the run: the interpreter's own packages stay as they are."""
        return [plan.Step(function=self.install_wheels, limit=60, needed=True)] if self.published_wheels else []

    def published_environment(self):
        return {"PYTHONPATH": str(self.scratch / "site")} if self.published_wheels else {}

    def install_wheels(self, _, limit):
        wheels = sorted(map(str, self.published_wheels.glob("*.whl")))
        if not wheels:
            raise Failed(f"{self.published_wheels} has no wheels")
        command = [
            self.published_python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", self.scratch / "site", *wheels,
        ]
        _, status, errors = self.execute(command, limit)
        if status is None:
            raise Failed(f"pip ran out of its {limit:.0f} s")
        if status != 0:
            raise Failed(f"the wheels were not installed: pip ended with {status}: {last_line(errors)}")

    # --- the end -----------------------------------------------------------------------------------------------------------

    def result(self, smi):
        for line in self.lines:
            if line["kind"] == "rate":
                seen = smi.mean(line["start"], line["start"] + line["seconds"])
                if seen:
                    line["smi"] = seen
        rows = list(report.rows(self.lines, self.ended, self.machine["name"]))
        checks_failed = any(line["kind"] == "parity" and not line["passed"] for line in self.lines) or any(
            line["kind"] == "tests" and line["failed"] and not line["repeats"] for line in self.lines
        )
        incomplete = any(section["status"] == "failed" for section in self.ended)
        return {
            "format": 1,
            "name": self.machine["name"],
            "device": self.device,
            "libtorch": self.machine["libtorch"],
            "threads": self.machine["threads"],
            "driver": smi.driver,
            "restok": version(),
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "size": self.size,
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "command": shlex.join(["check_gpu.py", *sys.argv[1:]]),
            "seconds": time.monotonic() - self.began,
            "exit_code": CHECK_FAILED if checks_failed else NOT_COMPLETE if incomplete else PASSED,
            "sections": self.ended,
            "rows": rows,
            "lines": self.lines,
        }


def steady_rate(log):
    """Images a second from the first ones that were written to the last, so that loading the model is left out where the run was long
    enough to tell them apart."""
    seconds, written = log["seconds"], log["images_written"]
    first = next((place for place, count in enumerate(written) if count > 0), 0)
    if written[-1] > written[first] and seconds[-1] > seconds[first]:
        return (written[-1] - written[first]) / (seconds[-1] - seconds[first])
    return written[-1] / seconds[-1] if seconds[-1] > 0 else 0.0


def last_line(text):
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def version():
    """The commit, which a packed checkout has in a file."""
    if packed("commit"):
        return packed("commit").read_text().strip()
    try:
        done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=HERE, capture_output=True, text=True)
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def main():
    parser = arguments()
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="check-gpu-") as scratch:
            run = Run(options, Path(scratch))
            sections = plan.sections(run)
            names = [section.name for section in sections]
            unknown = [name for name in options.sections if name not in names]
            if unknown:
                parser.error(f"no section {', '.join(unknown)}; there are {', '.join(names)}")
            if options.list:
                for section in sections:
                    print(f"{section.name:16} {section.about}" + (f" (skipped: {section.skipped})" if section.skipped else ""))
                return PASSED
            with NvidiaSmi(run.device) as smi:
                for section in sections:
                    run.section(section, options.sections or names)
            found = run.result(smi)
            print(report.write(found, run.output), end="")
            return found["exit_code"]
    except WrongArguments as problem:
        print(f"check-gpu: {problem}", file=sys.stderr)
        return WRONG_ARGUMENTS
    except Failed as problem:
        print(f"check-gpu: {problem}", file=sys.stderr)
        return NOT_COMPLETE


if __name__ == "__main__":
    sys.exit(main())
