#!/usr/bin/env python3
"""Takes ten pictures out of Fashion-MNIST's test images: the first of each class. They are samples/fashion-mnist/images.

    make fashion-mnist && tools/fashion_mnist_sample.py [--from data/fashion-mnist] [--output samples/fashion-mnist]

Each is the shard's own PNG, byte for byte, as `images/<class>/<class>_<number in the test set>.png`: short names, so that they
can be read above the columns of a contact sheet. The set's licence goes beside them. Needs Python alone.
"""

import argparse
import shutil
import tarfile
from pathlib import Path

from fashion_mnist import CLASSES

REPOSITORY = Path(__file__).resolve().parents[1]
SHARD = "fashion-mnist-test-000000.tar"


def first_of_each_class(shard):
    """Class name to (file name, bytes), in the order in which the classes first appear."""
    found = {}
    for member in shard:
        stem, extension = member.name.rsplit(".", 1)
        _, number, name = stem.split("_")
        if extension == "png" and name not in found:
            found[name] = (f"{name}_{number}.png", shard.extractfile(member).read())
        if len(found) == len(CLASSES):
            break
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="source", type=Path, default=REPOSITORY / "data" / "fashion-mnist")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "samples" / "fashion-mnist")
    arguments = parser.parse_args()
    with tarfile.open(arguments.source / SHARD) as shard:
        pictures = first_of_each_class(shard)
    images = arguments.output / "images"
    if images.exists():
        shutil.rmtree(images)
    for name, (file_name, content) in pictures.items():
        (images / name).mkdir(parents=True)
        (images / name / file_name).write_bytes(content)
    shutil.copyfile(arguments.source / "LICENSE", arguments.output / "LICENSE")


if __name__ == "__main__":
    main()
