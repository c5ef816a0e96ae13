#!/usr/bin/env python3
"""How fast `restok.TokenLoader` gives batches, beside NumPy, the published layout and Hugging Face datasets, in one run, as a table of ratios.

    pip install ./python[torch] datasets
    python tools/bench/python_loader.py                 # a million rows of 128 codes in a temporary folder, 0.5 GB
    python tools/bench/python_loader.py --rows 50000    # does everything run?

All sides read the same codes from the page cache, shuffle them and give int64 tensors, on one thread. Rates go by processor time, of all threads
together: what else the machine does counts little. Times to the first batch go by the clock. Both are the best of a few repeats, and the sides
take turns. A side whose package is missing is left out, and said to be.
"""

import argparse
import os
import sys
import tempfile
import time
from itertools import count
from pathlib import Path

# Before NumPy and torch read them: every side has one core.
os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_DATASETS_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}

import numpy as np
import torch

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(CHECKOUT / "python"), str(CHECKOUT / "tests/python")]

import restok  # noqa: E402: it is beside this file, not installed.
from written_output import CODEBOOK_SIZE, write_output  # noqa: E402: it is the tests'.

TOKENS, CLASSES = 128, 1000
# A rate goes by as many images as there are rows, or by as many as take so long.
MOST_SECONDS = 5
# Of the published layout, two files an image: as many as do not take longer than the rest together.
PUBLISHED_IMAGES = 20_000
PUBLISHED_VIEWS = 10
LEVELS = [1, 1, 2, 4, 8, 16, 32, 64]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the table (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=256, help="rows of a batch (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="repeats, of which the best counts (default: %(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="restok-loader-") as folder:
        scratch = Path(folder)
        codes = np.random.default_rng(0).integers(0, CODEBOOK_SIZE, (arguments.rows, TOKENS), dtype=np.int16)
        labels = np.arange(arguments.rows, dtype=np.int32) % CLASSES
        say(f"writing {arguments.rows} rows of {TOKENS} codes")
        write_output(scratch / "tokens", codes[:, None], labels, levels=LEVELS)
        np.save(scratch / "codes.npy", codes)
        np.save(scratch / "labels.npy", labels)
        write_published(scratch / "published", codes[: min(arguments.rows, PUBLISHED_IMAGES)])
        there = np.zeros_like(codes)
        copy = min(processor_time(lambda: np.copyto(there, codes)) for _ in range(5 * arguments.repeats))
        del codes, there
        sides = {
            "TokenLoader": lambda: loader(scratch, arguments.batch_size, torch.int64),
            "TokenLoader, int16": lambda: loader(scratch, arguments.batch_size, torch.int16),
            "one .npy, numpy.load and fancy indexing": lambda: one_array(scratch, arguments.batch_size),
            "published .npy files, two an image": lambda: published(scratch, arguments.batch_size),
            "Hugging Face datasets": lambda: hugging_face(scratch, arguments.batch_size),
        }
        measured = measure(sides, arguments.repeats, arguments.rows)
        print_table(measured, copy / arguments.rows)


def write_published(folder, codes):
    """As the published code extracts codes: [views, tokens] int64 and a label, a file each, for every image."""
    for kind in ("codes", "labels"):
        (folder / kind).mkdir(parents=True)
    for image, row in enumerate(codes):
        np.save(folder / f"codes/{image}.npy", np.broadcast_to(row.astype(np.int64), (PUBLISHED_VIEWS, TOKENS)))
        np.save(folder / f"labels/{image}.npy", np.int64(image % CLASSES))


# Each side gives its first batch, reads what it has to read once, gives None, and then batches for as long as it is asked.


def loader(scratch, batch_size, dtype):
    source = restok.TokenLoader(scratch / "tokens", batch_size, seed=1, dtype=dtype, threads=1)
    # The first epoch reads.
    yield from source
    yield None
    while True:
        yield from source


def one_array(scratch, batch_size):
    codes, labels = np.load(scratch / "codes.npy"), np.load(scratch / "labels.npy")
    for epoch in count():
        order = np.random.default_rng(epoch).permutation(len(codes))
        for start in range(0, len(codes), batch_size):
            rows = order[start : start + batch_size]
            yield torch.from_numpy(codes[rows]).to(torch.int64), torch.from_numpy(labels[rows]).to(torch.int64)
            if epoch == start == 0:
                yield None


def published(scratch, batch_size):
    folder = scratch / "published"
    images = len(list((folder / "codes").iterdir()))
    random = np.random.default_rng(0)
    for epoch in count():
        order = random.permutation(images)
        for start in range(0, images, batch_size):
            rows = order[start : start + batch_size]
            codes = [np.load(folder / f"codes/{row}.npy")[random.integers(PUBLISHED_VIEWS)] for row in rows]
            labels = [np.load(folder / f"labels/{row}.npy") for row in rows]
            yield torch.from_numpy(np.stack(codes)), torch.from_numpy(np.stack(labels))
            if epoch == start == 0:
                yield None


def hugging_face(scratch, batch_size):
    import datasets

    datasets.disable_progress_bars()
    files = sorted(map(str, (scratch / "tokens/tokens/split=train").iterdir()))
    # A cache of its own: the first batch waits until the files are converted to Arrow.
    cache = tempfile.mkdtemp(dir=scratch)
    rows = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=cache)
    rows = rows.select_columns(["tokens", "label"]).with_format("torch")
    for epoch in count():
        for number, batch in enumerate(rows.shuffle(seed=epoch).iter(batch_size)):
            yield batch["tokens"], batch["label"]
            if epoch == number == 0:
                yield None


def measure(sides, repeats, most_images):
    """Of each side, seconds to the first batch and, once nothing more is read, seconds an image. None where a package is missing."""
    measured = {name: [] for name in sides}
    for repeat in range(repeats):
        for name, side in sides.items():
            say(f"{name}, {repeat + 1} of {repeats}")
            try:
                measured[name].append(run(side, most_images))
            except ImportError as error:
                say(f"  left out: {error}")
    return {name: tuple(map(min, zip(*runs, strict=True))) if runs else None for name, runs in measured.items()}


def run(side, most_images):
    begin = time.perf_counter()
    batches = side()
    tokens, _ = next(batches)
    first = time.perf_counter() - begin
    assert tokens.shape[1] == TOKENS
    while next(batches) is not None:
        pass
    images, begin = 0, time.process_time()
    while images < most_images and time.process_time() - begin < MOST_SECONDS:
        images += len(next(batches)[0])
    return first, (time.process_time() - begin) / images


def processor_time(work):
    begin = time.process_time()
    work()
    return time.process_time() - begin


def print_table(measured, copy_of_a_row):
    ours_first, ours = measured["TokenLoader"]
    print(f"{'':42}  images a second of processor time    time to the first batch")
    for name, figures in measured.items():
        if figures is None:
            print(f"{name:42}  left out")
            continue
        first, each = figures
        print(f"{name:42}  {ours / each:<10.3g} of ours{'':19}{first / ours_first:.3g} of ours")
    _, narrow = measured["TokenLoader, int16"]
    print(f"\nTokenLoader, int16: {copy_of_a_row / narrow:.2f} of the rate of one large copy of the codes on one core")
    print(f"TokenLoader: first batch {'in less' if ours_first < 1 else 'not in less'} than a second")
    say(f"on this machine: {1 / ours:,.0f} images/s, int16 {1 / narrow:,.0f}, first batch {1000 * ours_first:.0f} ms")


def say(what):
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
