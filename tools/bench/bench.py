"""`make bench`: restok beside the published implementation, Pillow and .npy files, in one run, as a table of ratios.

Every comparison gives both sides the same inputs on the same machine within one run. Times are the best of a few repeats: whatever else
the machine does can only make a repeat longer. Absolute times say more of the machine than of either side, so the table has ratios:
to the other side, and to what the machine could do at most with as many operations (`Limits`).
"""

import argparse
import io
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy
import pyarrow
import pyarrow.parquet
from PIL import Image

import preprocess

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "check-gpu"))

from report import Limits  # noqa: E402: the folder's name is no package's

TOKENIZER = HERE.parent.parent / "tests/fixtures/tokenizer"
CLOTHES = HERE.parent.parent / "samples/fashion-mnist"
TOKENS_PER_IMAGE = 128
PARTS = ("decode", "tables", "memory", "scores", "generator", "group", "encode")
# What a row says without the published implementation.
SKIPPED = "skipped: RESTOK_PUBLISHED names no checkout of it"
# Shares of the machine's peak that are aimed at.
FLOAT32_SHARE, BFLOAT16_SHARE, TRAINING_SHARE = 0.9, 0.85, 0.8


@dataclass
class Table:
    """The rows of the result, printed as they are measured and once more at the end."""

    rows: list = field(default_factory=list)

    def add(self, what, against, measured, target, reached):
        mark = {True: "yes", False: "NO", None: "-"}[reached]
        self.rows.append((what, against, measured, target, mark))
        print(f"  {what}: {measured}", file=sys.stderr, flush=True)

    def print(self):
        head = ("what", "against", "measured", "target", "reached")
        widths = [max(len(row[column]) for row in [head, *self.rows]) for column in range(len(head))]
        for row in [head, ["-" * width for width in widths], *self.rows]:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def step(what):
    print(f"\n{what}", file=sys.stderr, flush=True)


def photograph(random, width, height):
    """Something that costs a JPEG decoder about what a photograph does: smooth shapes, edges and a little grain."""
    values = numpy.zeros((height, width, 3))
    for octave in range(7):
        cells = 3 * 2**octave
        noise = Image.fromarray(random.integers(0, 256, (cells, cells, 3), dtype=numpy.uint8))
        values += numpy.asarray(noise.resize((width, height), Image.Resampling.BICUBIC), dtype=float) / 1.7**octave
    values = (values - values.min()) / (values.max() - values.min()) * 255
    values[values[..., 0] > 140] *= 0.6
    return Image.fromarray(numpy.clip(values + random.normal(0, 11, values.shape), 0, 255).astype(numpy.uint8))


def write_photographs(folder, count):
    """JPEGs of ImageNet's usual size and quality, 500 x 375 pixels and about 110 kB."""
    folder.mkdir(parents=True)
    random = numpy.random.default_rng(0)
    for number in range(count):
        photograph(random, 500, 375).save(folder / f"n01440764_{10_000 + number}.jpg", quality=95)


class Bench:
    def __init__(self, arguments, scratch):
        self.measure_program = arguments.measure
        self.check_program = arguments.check
        self.restok = arguments.restok
        self.quick = arguments.quick
        self.scratch = scratch
        self.threads = os.cpu_count()
        self.table = Table()
        self.limits = None

    def peaks(self):
        """What the machine can do at most: the best product and the best convolution of each precision. Measured when the first dense
        row asks for it, on the threads that all rows have."""
        if self.limits:
            return self.limits
        step(f"Peaks of this machine, {self.threads} threads")
        side, seconds = (512, 0.2) if self.quick else (2048, 3)
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads), "MKL_NUM_THREADS": str(self.threads)}
        command = [self.check_program, "cpu", "peaks", side, seconds]
        done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, check=True, env=environment)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        self.limits = Limits(lines)
        for line in [line for line in lines if line["unit"] == "TFLOP/s"]:
            measured = f"{1000 * line['value']:.0f} GFLOP/s"
            self.table.add(f"{line['what']}, {line['precision']}", line["shape"], measured, "printed", None)
        return self.limits

    def dense(self, what, report, target):
        """A row with the share of the machine's peak that `report`, a measurement with seconds and operations, reached."""
        share = self.peaks().arithmetic(report["operations"]) / min(report["seconds"])
        shown = f"at least {target}" if target else "printed"
        self.table.add(what, "peak of the machine", f"{share:.2f} of it", shown, share >= target if target else None)

    def measure(self, *arguments):
        """One measurement of the Rust side."""
        command = [self.measure_program, *map(str, arguments)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        try:
            return json.loads(done.stdout)
        except json.JSONDecodeError:
            sys.exit(f"bench: exit code {done.returncode} and no measurement of {' '.join(command)}: {done.stdout!r}")

    # --- the tokenizer ---------------------------------------------------------------------------------------------------

    def encode(self, checkout, python):
        step(f"Encoding with ResTok-L, random weights, {self.threads} threads on each side")
        views, batch, repeats = (2, 2, 1) if self.quick else (8, 4, 3)
        pixels = self.scratch / "views.u8"
        random = numpy.random.default_rng(1)
        numpy.stack([numpy.asarray(photograph(random, 256, 256)) for _ in range(views)]).tofile(pixels)
        folder, result = self.scratch / "restok-l", self.scratch / "published.npz"
        command = [python, HERE / "published.py", checkout, folder, pixels, batch, repeats, self.threads, result]
        done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, check=True)
        # It may print its configuration first.
        published = min(json.loads(done.stdout.splitlines()[-1])["seconds"])
        kept = numpy.load(result)
        theirs, gap = kept["tokens"], kept["gap"]
        self.table.add("encode, published", "", f"{published / views:.2f} s a view", "", None)
        for precision, target in (("fp32", FLOAT32_SHARE), ("bf16", BFLOAT16_SHARE), ("fp16", None)):
            ours_file = self.scratch / f"tokens-{precision}.i16"
            report = self.encode_in(folder, pixels, precision, batch, repeats, ours_file)
            if not report:
                continue
            ratio = min(report["seconds"]) / published
            self.table.add(f"encode, {precision}", "published, float32", f"{ratio:.2f} of its time", "printed", None)
            self.dense(f"encode, {precision}", report, target)
            ours = numpy.fromfile(ours_file, dtype=numpy.int16).reshape(views, TOKENS_PER_IMAGE)
            equal = ours == theirs
            share = f"{equal.mean():.2%} of {equal.size:,} equal"
            if precision == "fp32":
                clear = gap > 1e-4
                share += f", {equal[clear].mean():.2%} of {clear.sum():,} with a gap above 1e-4"
                self.table.add("tokens, fp32", "published, float32", share, "all with a gap", bool(equal[clear].all()))
            else:
                self.table.add(f"tokens, {precision}", "published, float32", share, "printed", None)
        print(f"  codes in use: {len(numpy.unique(theirs)):,} of 8,192", file=sys.stderr)
        shutil.rmtree(folder)

    def encode_in(self, folder, pixels, precision, batch, repeats, tokens):
        """A measurement of encoding; none, and a row that says why, where the processor only imitates the precision, which takes
        minutes a repeat."""
        if precision not in self.peaks().operations:
            skipped = "skipped: this processor only imitates it"
            self.table.add(f"encode, {precision}", "peak of the machine", skipped, "printed", None)
            return None
        return self.measure("encode", folder, pixels, precision, batch, repeats, self.threads, tokens)

    # --- the generator ---------------------------------------------------------------------------------------------------

    def generator(self, checkout, python):
        self.peaks()
        step(f"Sampling and training with GPT-B, random weights, {self.threads} threads on each side")
        batch, repeats = (2, 1) if self.quick else (16, 3)
        folder = self.scratch / "gpt-b"
        command = [python, HERE / "published_generator.py", checkout, folder, batch, repeats, self.threads]
        done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, check=True)
        published = {what: min(seconds) for what, seconds in json.loads(done.stdout.splitlines()[-1]).items()}
        ours = self.sampling(folder, batch, repeats, FLOAT32_SHARE)
        for kind in ("unguided", "paper"):
            ratio = ours[kind] / published[kind]
            self.table.add(f"sample {batch} images, {kind}", "published", f"{ratio:.2f} of its time", "printed", None)
        self.half_precision_sampling(folder, batch, repeats)
        for precision in self.native_precisions():
            trained = self.measure("train-generator", folder, precision, batch, repeats, self.threads)
            what, ratio = f"training step of {batch}, {precision}", min(trained["seconds"]) / published["train"]
            self.table.add(what, "published, float32", f"{ratio:.2f} of its time", "printed", None)
            self.dense(what, trained, TRAINING_SHARE if precision == "fp32" else None)
        shutil.rmtree(folder)

    def native_precisions(self):
        return [precision for precision in ("fp32", "bf16", "fp16") if precision in self.peaks().operations]

    def half_precision_sampling(self, folder, batch, repeats):
        targets = {"bf16": BFLOAT16_SHARE, "fp16": None}
        for precision in self.native_precisions()[1:]:
            for kind in ("unguided", "paper"):
                report = self.measure("sample", folder, CLOTHES / "tokenizer", kind, precision, batch, repeats, self.threads)
                self.dense(f"sample {batch} images, {kind}, {precision}", report, targets[precision])
                self.shares(f"{kind}, {precision}", report)

    def generator_alone(self):
        step(f"Sampling with the generator that ships, {self.threads} threads")
        self.sampling(CLOTHES / "generator", 10 if self.quick else 100, 1 if self.quick else 3, None)
        self.table.add("sampling and training, GPT-B", "published, peak", SKIPPED, "printed", None)

    def sampling(self, folder, batch, repeats, target):
        """Best seconds of each kind of guidance in float32; what guidance costs, and where the time goes."""
        best = {}
        for kind in ("unguided", "guided", "paper"):
            report = self.measure("sample", folder, CLOTHES / "tokenizer", kind, "fp32", batch, repeats, self.threads)
            best[kind] = min(report["seconds"])
            images, tokens = batch / best[kind], batch * report["tokens_per_image"] / best[kind]
            measured = f"{images:.2f} images, {tokens:.0f} tokens a second"
            self.table.add(f"sample {batch} images, {kind}", "", measured, "", None)
            self.shares(kind, report)
            self.dense(f"sample {batch} images, {kind}, fp32", report, target)
        for kind in ("guided", "paper"):
            measured = f"{best[kind] / best['unguided']:.2f} times"
            self.table.add(f"cost of guidance, {kind}", "unguided", measured, "printed", None)
        saved = 1 - best["paper"] / best["guided"]
        self.table.add("paper's unguided steps save", "all guided", f"{saved:.1%}", "printed", None)
        return best

    def shares(self, kind, report):
        shares = ", ".join(f"{part} {share:.0%}" for part, share in report["shares"].items())
        self.table.add(f"its time, {kind}", "", shares, "printed", None)

    # --- processes that train together -----------------------------------------------------------------------------------

    def group(self, checkout, python):
        """What a group adds to a step: as many processes with the same batches, in a group and without one."""
        batch, steps, repeats = (4, 2, 1) if self.quick else (16, 20, 5)
        step(f"Training steps of {batch} with the generator that ships, one thread a process")
        config = CLOTHES / "generator/config.json"
        sizes = [config, batch, steps, repeats]
        ours = [self.measure_program, "train-group", *sizes]
        theirs = [HERE / "published_group.py", checkout, *sizes]

        def in_group(side, size):
            if side == "DDP":
                # torchrun, which starts all of them.
                return [[python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", size, *theirs]]
            port = free_port()
            return [[*ours, rank, size, port] for rank in range(size)]

        alone = {"ours": ours, "DDP": [python, *theirs]} if checkout else {"ours": ours}
        for side, command in alone.items():
            for size in (1, 2):
                apart = seconds_a_step([command] * size)
                ratio = seconds_a_step(in_group(side, size)) / apart
                what, against = f"training step in a group of {size}, {side}", "as many without a group"
                self.table.add(what, against, f"{ratio:.2f} of their time", "printed", None)
        if not checkout:
            self.table.add("training step in a group, DDP", "as many without a group", SKIPPED, "printed", None)

    # --- scores ----------------------------------------------------------------------------------------------------------

    def fid(self, python):
        rows, repeats = (2_500, 1) if self.quick else (50_000, 2)
        step(f"FID of {rows:,} features of 2,048, {self.threads} threads on each side")
        files = [self.scratch / "samples.f32", self.scratch / "reference.f32"]
        for seed, file in enumerate(files):
            write_features(file, rows, seed)
        sides = {"ours": self.measure("fid", *files, repeats, self.threads)}
        # NumPy's own linear algebra in our environment; torch-fidelity in the one that has torch.
        for side, interpreter in (("numpy", sys.executable), ("torch-fidelity", python)):
            if interpreter:
                command = [interpreter, HERE / "published_fid.py", side, *files, repeats, self.threads]
                done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, check=True)
                sides[side] = json.loads(done.stdout.splitlines()[-1])
        ours = {what: min(sides["ours"][what]) for what in ("statistics", "distance")}
        measured = f"statistics {ours['statistics']:.1f} s, distance {ours['distance']:.1f} s"
        self.table.add(f"FID of {rows:,} x 2,048", "", measured, "printed", None)
        for side in ("numpy", "torch-fidelity"):
            if side not in sides:
                self.table.add("FID", side, SKIPPED, "printed", None)
                continue
            theirs = {what: min(sides[side][what]) for what in ours}
            parts = ", ".join(f"{what} {ours[what] / theirs[what]:.2f}" for what in ours)
            whole = sum(ours.values()) / sum(theirs.values())
            self.table.add("FID", side, f"{whole:.2f} of its time ({parts})", "printed", None)
            if side == "numpy":
                ratio = ours["statistics"] / theirs["statistics"]
                self.table.add("FID, statistics", side, f"{ratio:.2f} of its time", "at most 1", ratio <= 1)
            error = abs(sides["ours"]["fid"] / sides[side]["fid"] - 1)
            self.table.add("FID, value", side, f"relative difference {error:.1e}", "at most 1e-3", error <= 1e-3)
        for file in files:
            file.unlink()

    # --- decoding and crops ----------------------------------------------------------------------------------------------

    def decode_and_crop(self):
        step("Decoding and cropping 500 x 375 JPEGs, one thread on each side")
        images, repeats = (8, 2) if self.quick else (64, 9)
        folder, views_file = self.scratch / "photographs", self.scratch / "crops.u8"
        write_photographs(folder, images)
        # In turns, so that a slow minute of the machine meets both.
        ours_seconds, their_seconds = [], []
        for _ in range(1 if self.quick else 3):
            ours_seconds += self.measure("preprocess", folder, repeats, views_file)["seconds"]
            seconds, theirs = preprocess.timed(sorted(folder.iterdir()), repeats)
            their_seconds += seconds
        ours = numpy.fromfile(views_file, dtype=numpy.uint8).reshape(theirs.shape)
        speed = min(their_seconds) / min(ours_seconds)
        measured = f"{speed:.2f} times as many ({images / min(ours_seconds):.0f} a second)"
        self.table.add("decode + crop, a core", "Pillow", measured, "3.5 times", speed >= 3.5)
        difference = numpy.abs(ours.astype(int) - theirs.astype(int))
        largest, share = difference.max(), (difference > 0).mean()
        measured = f"largest difference {largest}, in {share:.3%} of values"
        self.table.add("crops", "Pillow", measured, "1, in at most 1 %", bool(largest <= 1 and share <= 0.01))

    # --- tables ----------------------------------------------------------------------------------------------------------

    def tables(self):
        step("Tables of random codes, one unit of 16,384 images")
        images = 512 if self.quick else 16_384
        source = self.scratch / "tiny.parquet"
        write_tiny_images(source, images)
        for crop, views in (("adm-center-8", 1), ("adm-ten-crop-9-8", 10)):
            output = self.scratch / f"table-{views}"
            report = self.measure("table", source, output, crop)
            assert report == {"images": images, "rows": images * views}, report
            files = [file for file in output.rglob("*") if file.is_file()]
            tokens = [file for file in files if file.relative_to(output).parts[0] == "tokens"]
            bits = 8 * sum(file.stat().st_size for file in tokens) / (images * views * TOKENS_PER_IMAGE)
            what = f"table, {views} view{'s' if views > 1 else ''}"
            self.table.add(what, "13 bits a token", f"{bits:.2f} bits a token", "at most 14", bits <= 14)
            npy = self.npy_files(images, views)
            on_disk = disk_bytes(tokens) / npy["disk"]
            apparent = sum(file.stat().st_size for file in tokens) / npy["bytes"]
            # Small files take whole blocks, 4 KiB each as a rule; both readings of "bytes" are shown and judged.
            self.table.add(f"{what}, blocks on disk", ".npy files", f"1/{1 / on_disk:.1f}", "at most 1/6", on_disk <= 1 / 6)
            self.table.add(f"{what}, payload", ".npy files", f"1/{1 / apparent:.1f}", "at most 1/6", apparent <= 1 / 6)
            # What every unit has: both tables and the marker.
            per_unit = [file for file in files if file.relative_to(output).parts[0] in ("tokens", "images", "_state")]
            fewer = npy["files"] / len(per_unit)
            measured = f"{len(per_unit)} for {npy['files']:,}, images table and marker included"
            self.table.add(what.replace("table", "files"), ".npy files", measured, "at most 1/10,000", fewer >= 10_000)

    def npy_files(self, images, views):
        """What the published extraction writes for as many images: codes (int64, [views, 128]) and a label, a file each."""
        folder = self.scratch / f"npy-{views}"
        random = numpy.random.default_rng(2)
        for kind in ("codes", "labels"):
            (folder / kind).mkdir(parents=True)
        for number in range(images):
            codes = random.integers(0, 8192, (views, TOKENS_PER_IMAGE))
            numpy.save(folder / "codes" / f"{number}.npy", codes)
            numpy.save(folder / "labels" / f"{number}.npy", numpy.int64(number % 1000))
        files = [file for file in folder.rglob("*.npy")]
        sizes = {"files": len(files), "bytes": sum(file.stat().st_size for file in files), "disk": disk_bytes(files)}
        shutil.rmtree(folder)
        return sizes

    # --- memory ----------------------------------------------------------------------------------------------------------

    def memory(self):
        step("Peak memory of `restok tokenize` with the small tokenizer")
        # Units of 32, of which two are worked on at once: every buffer is full in the smaller run already. How far the allocator
        # goes differs by a few percent from run to run, so the median of three stands for each size.
        few, times, runs = (16, 2, 1) if self.quick else (128, 10, 3)
        if not (self.scratch / "photographs").exists():
            write_photographs(self.scratch / "photographs", 8 if self.quick else 64)
        peaks = []
        for images in (few, few * times):
            source, output = self.scratch / f"memory-{images}", self.scratch / f"memory-output-{images}"
            link_photographs(self.scratch / "photographs", source, images)
            command = [self.restok, "tokenize", "--source", source, "--output", output, "--tokenizer", TOKENIZER]
            command += ["--unit-size", 32, "--batch-size", 8, "--devices", "cpu", "--progress", "none", "--log-level", "warn"]
            each = []
            for _ in range(runs):
                shutil.rmtree(output, ignore_errors=True)
                each.append(peak_memory(list(map(str, command))))
            peaks.append(statistics.median(each))
            shown = ", ".join(f"{peak / 2**20:.0f}" for peak in each)
            print(f"  {images} images: {shown} MiB", file=sys.stderr, flush=True)
        growth = peaks[1] / peaks[0] - 1
        self.table.add("peak memory", f"{times} times the images", f"{growth:+.1%}", "within 5 %", abs(growth) <= 0.05)


def seconds_a_step(commands):
    """Of processes that start together: the best repeat of each, and the mean over them."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    started = [subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, env=environment) for command in commands]
    best = []
    for process in started:
        output, _ = process.communicate()
        if process.returncode != 0:
            for other in started:
                other.kill()
            raise subprocess.CalledProcessError(process.returncode, process.args)
        best.append(min(json.loads(output.splitlines()[-1])["seconds"]))
    return statistics.mean(best)


def free_port():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def write_tiny_images(file, count):
    """Images that cost nothing to decode, under names such as ImageNet's: the table's other columns are as long as real ones."""
    random = numpy.random.default_rng(3)
    pixels = random.integers(0, 256, (count, 8, 8, 3), dtype=numpy.uint8)
    numbers = random.permutation(count) + 1
    rows = []
    for index in range(count):
        encoded = io.BytesIO()
        Image.fromarray(pixels[index]).save(encoded, "PNG", compress_level=0)
        synset = f"n{1_440_764 + 7_919 * (index * 1000 // count):08}"
        rows.append({"bytes": encoded.getvalue(), "path": f"{synset}_{numbers[index]}_{synset}.JPEG"})
    labels = [index * 1000 // count for index in range(count)]
    image_type = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    schema = pyarrow.schema([("image", image_type), ("label", pyarrow.int64())])
    pyarrow.parquet.write_table(pyarrow.table({"image": rows, "label": labels}, schema=schema), file)


def write_features(file, rows, seed):
    """Features as a network's: not negative, correlated, with some that hardly ever speak."""
    shared, own = numpy.random.default_rng(100), numpy.random.default_rng(seed)
    mixing = shared.normal(0, 1, (256, 2048)).astype(numpy.float32) / 16
    with open(file, "wb") as opened:
        for start in range(0, rows, 2_500):
            count = min(2_500, rows - start)
            hidden = own.normal(0.05 * seed, 1, (count, 256)).astype(numpy.float32)
            noise = own.normal(-0.4, 0.3, (count, 2048)).astype(numpy.float32)
            opened.write(numpy.maximum(hidden @ mixing + noise, 0).tobytes())


def link_photographs(photographs, folder, count):
    """As many images as asked, from the few that were drawn."""
    folder.mkdir()
    files = sorted(photographs.iterdir())
    for number in range(count):
        os.link(files[number % len(files)], folder / f"{number:06}.jpg")


def disk_bytes(files):
    return sum(512 * file.stat().st_blocks for file in files)


def peak_memory(command):
    """Largest resident size of a process in bytes."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, command)
    return usage.ru_maxrss * 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", required=True, help="our side's program")
    parser.add_argument("--check", required=True, help="the program that measures peaks")
    parser.add_argument("--restok", required=True, help="the binary")
    parser.add_argument("--quick", action="store_true", help="few views and repeats: does everything run?")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=f"some of: {', '.join(PARTS)}")
    arguments = parser.parse_args()
    # Where a parent has it ignored, a child that died of a signal looks like one that ended with 0 and said nothing.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    target = HERE.parent.parent / "target"
    checkout = os.environ.get("RESTOK_PUBLISHED")
    python = os.environ["RESTOK_PUBLISHED_PYTHON"] if checkout else None
    with tempfile.TemporaryDirectory(prefix="bench-", dir=target) as scratch:
        bench = Bench(arguments, Path(scratch))
        if "decode" in arguments.only:
            bench.decode_and_crop()
        if "tables" in arguments.only:
            bench.tables()
        if "memory" in arguments.only:
            bench.memory()
        if "scores" in arguments.only:
            bench.fid(python)
        if "generator" in arguments.only:
            bench.generator(Path(checkout).resolve(), python) if checkout else bench.generator_alone()
        if "group" in arguments.only:
            bench.group(Path(checkout).resolve() if checkout else None, python)
        if "encode" in arguments.only:
            if checkout:
                bench.encode(Path(checkout).resolve(), python)
            else:
                bench.table.add("encode", "published, peak", SKIPPED, "printed", None)
        print()
        bench.table.print()


if __name__ == "__main__":
    main()
