#!/usr/bin/env python3
"""Turns Fashion-MNIST into WebDataset shards that restok trains on and tokenizes.

    make fashion-mnist       # or: tools/fashion_mnist.py [--output data/fashion-mnist] [--package FILE.deb]

70,000 grey pictures of clothes, 28x28, in ten classes (https://github.com/zalandoresearch/fashion-mnist; Copyright 2017
Zalando SE, MIT licence). They come out of Debian's package dataset-fashion-mnist, which is fetched with apt where there is apt and
over HTTPS elsewhere, and is the same file everywhere: its SHA-256 is pinned below.

    fashion-mnist-train-{000000..000005}.tar    10,000 images each, in the order of the set
    fashion-mnist-test-000000.tar               10,000 images
    LICENSE                                     the package's own copyright file

A sample is `<key>.png` and `<key>.cls`, with keys such as `train_00000_ankle-boot`. A PNG is 32x32, grey, 8 bits: the picture
with two black pixels (the set's own background) on each side, because the tokenizer halves sides; nothing is resampled. The
folder appears as a whole or not at all, and is left alone once it is there. With one version of zlib, the bytes are always the same.
"""

import argparse
import gzip
import hashlib
import io
import math
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import zlib
from pathlib import Path

PACKAGE = "dataset-fashion-mnist_0.0~git20200523.55506a9-1_all.deb"
PACKAGE_SHA256 = "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0"
PACKAGE_URL = f"https://deb.debian.org/debian/pool/main/d/dataset-fashion-mnist/{PACKAGE}"
DATA_FOLDER = "./usr/share/datasets/fashion-mnist"
COPYRIGHT = "./usr/share/doc/dataset-fashion-mnist/copyright"

# As the set's authors number and name them, in the form of a file's stem.
CLASSES = [
    "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot",
]  # fmt: skip
# Split to (name within the package, images).
SPLITS = {"train": ("train", 60_000), "test": ("t10k", 10_000)}
IMAGES_PER_SHARD = 10_000
PICTURE_SIDE = 28
SIDE = 32


def say(text):
    """A line for the person who waits."""
    print(f"fashion-mnist: {text}", file=sys.stderr)


def shard_names():
    """Every shard's name, and the split, first image and end of what it holds."""
    for split, (_, images) in SPLITS.items():
        for number, first in enumerate(range(0, images, IMAGES_PER_SHARD)):
            yield f"fashion-mnist-{split}-{number:06}.tar", split, first, first + IMAGES_PER_SHARD


def is_pinned(path):
    """Whether this is the package that we know, byte for byte."""
    return hashlib.sha256(path.read_bytes()).hexdigest() == PACKAGE_SHA256


def fetch_package(folder):
    """The package as a file in `folder`."""
    if shutil.which("apt-get"):
        say("fetching Debian's package dataset-fashion-mnist with apt-get (30 MB)")
        # apt's own sandbox user cannot write here; apt only warns of that.
        fetched = subprocess.run(
            ["apt-get", "download", "dataset-fashion-mnist"], cwd=folder, capture_output=True, check=False
        )
        for path in sorted(folder.glob("dataset-fashion-mnist_*.deb")):
            if fetched.returncode == 0 and is_pinned(path):
                return path
            path.unlink()
    say(f"fetching {PACKAGE_URL} (30 MB)")
    path = folder / PACKAGE
    try:
        with urllib.request.urlopen(PACKAGE_URL, timeout=60) as response, path.open("wb") as file:
            shutil.copyfileobj(response, file)
    except OSError as error:
        sys.exit(
            f"fashion-mnist: error: {PACKAGE_URL} cannot be fetched: {error}\n"
            "Fetch the file by other means and name it: tools/fashion_mnist.py --package FILE.deb"
        )
    return path


def open_package(path):
    """The package's files as a tar: a .deb is an `ar` archive, and data.tar.xz is one of its members."""
    if not is_pinned(path):
        sys.exit(f"fashion-mnist: error: {path} is another file: expected SHA-256 {PACKAGE_SHA256}; fetch it again")
    package = path.read_bytes()
    position = len(b"!<arch>\n")
    while position < len(package):
        header = package[position : position + 60]
        name, size = header[:16].decode("ascii").rstrip(" /"), int(header[48:58])
        position += len(header)
        if name == "data.tar.xz":
            return tarfile.open(fileobj=io.BytesIO(package[position : position + size]), mode="r:xz")
        position += size + size % 2
    sys.exit(f"fashion-mnist: error: {path} has no member data.tar.xz")


def read_idx(package, name, shape):
    """The bytes of an IDX file of unsigned bytes: two zeros, type 8, number of dimensions, dimensions, values."""
    content = gzip.decompress(package.extractfile(f"{DATA_FOLDER}/{name}.gz").read())
    header = struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape)
    if content[: len(header)] != header or len(content) != len(header) + math.prod(shape):
        sys.exit(f"fashion-mnist: error: {name} in the package is no IDX file of shape {shape}")
    return memoryview(content)[len(header) :]


def png_chunk(kind, content):
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def encode_png(picture):
    """The 28x28 picture as a grey PNG with a black border up to 32x32."""
    border = (SIDE - PICTURE_SIDE) // 2
    # A row begins with its filter: 0, none.
    blank = bytes(1 + SIDE)
    rows = [blank] * border
    for start in range(0, PICTURE_SIDE**2, PICTURE_SIDE):
        rows.append(bytes(1 + border) + bytes(picture[start : start + PICTURE_SIDE]) + bytes(border))
    rows += [blank] * border
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 0, 0, 0, 0)
    return b"".join([
        b"\x89PNG\r\n\x1a\n",
        png_chunk(b"IHDR", header),
        png_chunk(b"IDAT", zlib.compress(b"".join(rows), 9)),
        png_chunk(b"IEND", b""),
    ])


def add_member(shard, name, content):
    """A member without clock or owner. Python sets neither when it is not asked to."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    shard.addfile(member, io.BytesIO(content))


def write_shards(package, folder):
    """Writes every shard and the licence into `folder`."""
    copyright_text = package.extractfile(COPYRIGHT).read()
    (folder / "LICENSE").write_bytes(copyright_text)
    pictures, labels = {}, {}
    for split, (name, images) in SPLITS.items():
        pictures[split] = read_idx(package, f"{name}-images-idx3-ubyte", (images, PICTURE_SIDE, PICTURE_SIDE))
        labels[split] = read_idx(package, f"{name}-labels-idx1-ubyte", (images,))
    for name, split, first, end in shard_names():
        with tarfile.open(folder / name, "w", format=tarfile.USTAR_FORMAT) as shard:
            for image in range(first, end):
                label = labels[split][image]
                picture = pictures[split][image * PICTURE_SIDE**2 : (image + 1) * PICTURE_SIDE**2]
                key = f"{split}_{image:05}_{CLASSES[label]}"
                add_member(shard, f"{key}.png", encode_png(picture))
                add_member(shard, f"{key}.cls", f"{label}".encode("ascii"))
        say(f"wrote {name}: images {first} to {end - 1} of {split}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parents[1] / "data" / "fashion-mnist")
    parser.add_argument("--package", type=Path, help="Debian's package as a file, instead of fetching it")
    arguments = parser.parse_args()
    output = arguments.output
    missing = [name for name, *_ in shard_names() if not (output / name).is_file()]
    if not missing:
        say(f"{output} is complete; nothing to do")
        return
    if output.exists():
        sys.exit(f"fashion-mnist: error: {output} is there without {missing[0]}: remove the folder and run this again")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as scratch:
        scratch = Path(scratch)
        shards = scratch / "shards"
        shards.mkdir()
        with open_package(arguments.package or fetch_package(scratch)) as package:
            write_shards(package, shards)
        os.rename(shards, output)
    say(f"{output} holds 60,000 training and 10,000 test images, 32x32, in ten classes")
    say("origin https://github.com/zalandoresearch/fashion-mnist by way of Debian; Copyright 2017 Zalando SE; MIT licence")


if __name__ == "__main__":
    main()
