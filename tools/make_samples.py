#!/usr/bin/env python3
"""Draws the built-in sample: the same 38 small files as folders of classes, WebDataset tars and Parquet.

    make setup-tables && .venv/bin/python tools/make_samples.py      # writes samples/{folder,webdataset,parquet}

Six classes of six pictures, seeded, in the encodings that image sets really hold: baseline, progressive, grey and CMYK JPEG,
PNG with and without alpha or a palette, WebP with and without loss, and a PNG that is named .JPEG (ImageNet has one). Two more
files are broken, because every large set has some: a JPEG cut in half, and a web server's error page saved as an image.
The layouts hold the same bytes under the same stems, so the same images get the same `image_id` in each. The results are
committed: encoders of another version may compress the same pictures into other bytes.
"""

import argparse
import io
import json
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from sample_drawings import KINDS

SEED = 20_240_817
IMAGES_PER_SHARD = 19
ROW_GROUP_ROWS = 10
ERROR_PAGE = b"""<!DOCTYPE html>
<html><head><title>503 Service Unavailable</title></head>
<body><h1>Service Unavailable</h1><p>The image server is busy. Try again later.</p></body></html>
"""

# One encoding for each of a class's six pictures: extension, mode, Pillow's save options.
ENCODINGS = [
    ("jpg", "RGB", {"format": "JPEG", "quality": 78}),
    ("jpg", "RGB", {"format": "JPEG", "quality": 72, "progressive": True}),
    ("webp", "RGB", {"format": "WEBP", "quality": 70, "method": 6}),
    ("png", "P", {"format": "PNG", "optimize": True}),
    ("jpeg", "L", {"format": "JPEG", "quality": 75}),
    ("JPEG", "RGB", {"format": "JPEG", "quality": 80, "subsampling": 0}),
]
# Where one class differs from that list: (class, number) to its encoding.
EXCEPTIONS = {
    ("waves", 1): ("jpg", "CMYK", {"format": "JPEG", "quality": 70}),
    ("mosaic", 3): ("png", "RGBA", {"format": "PNG", "optimize": True}),
    ("spheres", 2): ("webp", "RGB", {"format": "WEBP", "lossless": True, "method": 6}),
    ("hills", 5): ("JPEG", "P", {"format": "PNG", "optimize": True}),
}
# Lossless files of these pictures are large, so they are drawn small.
SMALL = {("mosaic", 3): (200, 224), ("spheres", 2): (240, 200)}


def draw(kind, number):
    """One picture as a Pillow image in RGB, between 200 and 500 pixels a side."""
    random = np.random.default_rng([SEED, sorted(KINDS).index(kind), number])
    width, height = SMALL.get((kind, number), tuple(int(side) for side in random.integers(200, 420, 2)))
    if number == 1:
        width = 500
    pixels = np.clip(KINDS[kind](random, 2 * width, 2 * height), 0, 1) * 255
    return Image.fromarray(np.round(pixels).astype(np.uint8)).resize((width, height), Image.Resampling.LANCZOS)


def encode(picture, mode, options):
    """The picture as an encoded file's bytes."""
    if mode == "P":
        picture = picture.quantize(48, dither=Image.Dither.NONE)
    elif mode == "RGBA":
        # Round corners in the alpha channel, which the published pre-processing drops.
        x, y = np.meshgrid(np.linspace(-1, 1, picture.width), np.linspace(-1, 1, picture.height))
        picture = picture.quantize(64, dither=Image.Dither.NONE).convert("RGB")
        picture.putalpha(Image.fromarray(np.where(x**6 + y**6 < 1, 255, 0).astype(np.uint8)))
    else:
        picture = picture.convert(mode)
    file = io.BytesIO()
    picture.save(file, **options)
    return file.getvalue()


def sample_files():
    """Every file of the sample as (class, file name, bytes), sorted as a listing would be."""
    files = []
    for kind in KINDS:
        for number in range(6):
            extension, mode, options = EXCEPTIONS.get((kind, number), ENCODINGS[number])
            files.append((kind, f"{kind}_{number + 1:02}.{extension}", encode(draw(kind, number), mode, options)))
    whole = encode(draw("hills", 6), "RGB", {"format": "JPEG", "quality": 75})
    files.append(("hills", "hills_07_cut_in_half.jpg", whole[: len(whole) // 2]))
    files.append(("waves", "waves_07_error_page.jpg", ERROR_PAGE))
    return sorted(files)


def write_folder(files, root):
    for kind, name, content in files:
        (root / kind).mkdir(parents=True, exist_ok=True)
        (root / kind / name).write_bytes(content)


def write_webdataset(files, root):
    root.mkdir(parents=True)
    shuffled = [files[index] for index in np.random.default_rng(SEED).permutation(len(files))]
    for start in range(0, len(files), IMAGES_PER_SHARD):
        path = root / f"sample-{start // IMAGES_PER_SHARD:04}.tar"
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for kind, name, content in shuffled[start : start + IMAGES_PER_SHARD]:
                stem, extension = name.rsplit(".", 1)
                label = sorted(KINDS).index(kind)
                described = {"filename": f"{kind}/{name}", "label": label, "class_name": kind}
                for suffix, member in [
                    (extension, content),
                    ("cls", str(label).encode()),
                    ("json", json.dumps(described).encode()),
                ]:
                    # No clock and no user: the same files give the same tar.
                    entry = tarfile.TarInfo(f"{stem}.{suffix}")
                    entry.size, entry.mode = len(member), 0o644
                    tar.addfile(entry, io.BytesIO(member))


def write_parquet(files, root):
    root.mkdir(parents=True)
    names = sorted(KINDS)
    # What the model hub's `datasets` library writes, so that class names travel with the file.
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    schema = pa.schema(
        [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int64())],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    rows = [
        {"image": {"bytes": content, "path": name}, "label": names.index(kind)} for kind, name, content in files
    ]
    table = pa.Table.from_pylist(rows, schema=schema)
    pq.write_table(table, root / "sample-00000-of-00001.parquet", row_group_size=ROW_GROUP_ROWS)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=Path, default=Path(__file__).resolve().parent.parent / "samples")
    root = parser.parse_args().to
    files = sample_files()
    for name, write in [("folder", write_folder), ("webdataset", write_webdataset), ("parquet", write_parquet)]:
        shutil.rmtree(root / name, ignore_errors=True)
        write(files, root / name)
        written = sum(path.stat().st_size for path in (root / name).rglob("*") if path.is_file())
        sys.stdout.write(f"{root / name}: {len(files)} files in {written:,} bytes\n")


if __name__ == "__main__":
    main()
