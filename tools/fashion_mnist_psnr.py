#!/usr/bin/env python3
"""PSNR of reconstructed Fashion-MNIST pictures, with the black border of their PNGs and without it.

    tools/fashion_mnist_psnr.py FOLDER       # what `restok reconstruct --to FOLDER` wrote

A picture of the set is 28x28; the PNGs that restok trains on and tokenizes are 32x32, with two black pixels on each side
(tools/fashion_mnist.py). The border is reconstructed almost without an error, and lifts the ratio. Both are computed as
`restok train-tokenizer` does: of each image by itself, over pixels of 8 bits and all three channels, and then the mean over the
images. Needs numpy and Pillow (`make setup-tables`).
"""

import argparse
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
from fashion_mnist import PICTURE_SIDE, SIDE
from PIL import Image

ORIGINAL = ".original.png"
REBUILT = re.compile(r"\.tokens-(\d+)\.png$")


def pixels(path):
    """The picture as float64 [side, side, 3]."""
    found = np.asarray(Image.open(path).convert("RGB"), dtype=np.float64)
    if found.shape != (SIDE, SIDE, 3):
        raise SystemExit(f"{path} is {found.shape[1]}x{found.shape[0]}, expected {SIDE}x{SIDE}")
    return found


def psnr(original, reconstructed):
    """Peak signal-to-noise ratio in dB; infinite for equal pictures."""
    with np.errstate(divide="ignore"):
        return -10 * np.log10(np.mean((original - reconstructed) ** 2) / 255**2)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    border = (SIDE - PICTURE_SIDE) // 2
    inner = np.s_[border:-border, border:-border]
    # Number of tokens to a pair of ratios for each image.
    ratios = defaultdict(list)
    for path in folder.iterdir():
        tokens = REBUILT.search(path.name)
        if tokens:
            original = pixels(path.with_name(path.name[: tokens.start()] + ORIGINAL))
            reconstructed = pixels(path)
            ratios[int(tokens[1])].append((psnr(original, reconstructed), psnr(original[inner], reconstructed[inner])))
    if not ratios:
        raise SystemExit(f"{folder} holds no pictures of `restok reconstruct`")
    print(f"tokens  images  PSNR of {SIDE}x{SIDE}, dB  of the inner {PICTURE_SIDE}x{PICTURE_SIDE}, dB")
    for tokens, pairs in sorted(ratios.items()):
        whole, within = np.mean(pairs, axis=0)
        print(f"{tokens:6}  {len(pairs):6}  {whole:17.2f}  {within:22.2f}")


if __name__ == "__main__":
    main()
