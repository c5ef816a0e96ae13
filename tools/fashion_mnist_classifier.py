#!/usr/bin/env python3
"""Do generated pictures of clothes look like their class? A classifier that knows only real ones is asked.

    tools/fashion_mnist_classifier.py data/fashion-mnist ARCHIVE…      # samples.npz of `restok generate`, classes 0 to 9 in turn

Trained on the 60,000 training images of Fashion-MNIST as `make fashion-mnist` writes them: two hidden layers on the pixels, once
slightly blurred too, because what comes out of the small tokenizer has no fine texture. Prints its accuracy on the 10,000 real test
images, and on each archive, whose sample i is of class i modulo 10. No part of restok computes these numbers. Needs numpy, Pillow and
scikit-learn (`pip install scikit-learn`).
"""

import argparse
import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.neural_network import MLPClassifier

CLASSES = 10


def read_shard(path):
    """Pixels [images, 32 * 32] between 0 and 1, and labels."""
    pictures, labels = [], []
    with tarfile.open(path) as shard:
        for member in shard:
            content = shard.extractfile(member).read()
            if member.name.endswith(".png"):
                pictures.append(np.asarray(Image.open(io.BytesIO(content)).convert("L")))
            elif member.name.endswith(".cls"):
                labels.append(int(content))
    return np.stack(pictures), np.array(labels)


def blurred(pictures):
    """The mean of each pixel and its eight neighbours."""
    padded = np.pad(pictures.astype(np.float32), ((0, 0), (1, 1), (1, 1)))
    side = pictures.shape[1]
    return sum(padded[:, row : row + side, column : column + side] for row in range(3) for column in range(3)) / 9


def features(pictures):
    return (pictures.astype(np.float32) / 255).reshape(len(pictures), -1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("archives", type=Path, nargs="+")
    arguments = parser.parse_args()
    shards = [read_shard(path) for path in sorted(arguments.folder.glob("fashion-mnist-train-*.tar"))]
    pictures = np.concatenate([pictures for pictures, _ in shards])
    labels = np.concatenate([labels for _, labels in shards])
    training = np.concatenate([features(pictures), features(blurred(pictures))])
    classifier = MLPClassifier((256, 128), batch_size=256, max_iter=8, random_state=0, learning_rate_init=1e-3)
    classifier.fit(training, np.concatenate([labels, labels]))
    test, expected = read_shard(arguments.folder / "fashion-mnist-test-000000.tar")
    print(f"real test images     {len(test):6}  {np.mean(classifier.predict(features(test)) == expected):.3f}")
    print(f"the same, blurred    {len(test):6}  {np.mean(classifier.predict(features(blurred(test))) == expected):.3f}")
    for archive in arguments.archives:
        samples = np.load(archive)["arr_0"].mean(axis=3)
        wanted = np.arange(len(samples)) % CLASSES
        right = classifier.predict(features(samples)) == wanted
        by_class = " ".join(f"{np.mean(right[wanted == label]):.2f}" for label in range(CLASSES))
        print(f"{archive}  {len(samples):6}  {np.mean(right):.3f}  by class: {by_class}")


if __name__ == "__main__":
    main()
