#!/usr/bin/env python3
"""Draws samples/: 36 small images of six classes and two broken files, in each of the three layouts that restok reads.

    make setup-tables && .venv/bin/python tools/make_samples.py

Everything follows from the class and the number of an image, so that the script draws the same pictures again. The results are
committed: encoders of another version may compress the same pictures into other bytes.
"""

import colorsys
import io
import json
import shutil
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy
import pyarrow
import pyarrow.parquet
from PIL import Image, ImageDraw

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
IMAGES_PER_CLASS = 6
IMAGES_PER_SHARD = 19
ROWS_PER_GROUP = 10


@dataclass
class Sample:
    """One file of the set: the same bytes, stem and label in every layout."""

    class_name: str
    label: int
    name: str
    data: bytes

    @property
    def stem(self):
        return self.name.rsplit(".", 1)[0]

    @property
    def path(self):
        return f"{self.class_name}/{self.name}"


# --- pictures: arrays of floats in 0..1, [height, width, 3] --------------------------------------------------------------


def grid(width, height):
    """Coordinates with the origin in the middle; the shorter side spans -1..1."""
    scale = 2 / min(width, height)
    y, x = numpy.mgrid[0:height, 0:width]
    return (x - width / 2 + 0.5) * scale, (y - height / 2 + 0.5) * scale


def palette(random, colours):
    """Colours that go together: hues in a narrow fan with one opposite, alternating light and dark."""
    start = random.uniform()
    hues = start + random.uniform(0.05, 0.12) * numpy.arange(colours)
    hues[-1] = start + 0.5
    lights = numpy.where(numpy.arange(colours) % 2 == 0, 0.35, 0.68) + random.uniform(-0.1, 0.1, colours)
    return numpy.array([colorsys.hls_to_rgb(hue % 1, light, 0.75) for hue, light in zip(hues, lights)])


def shade(values, colours):
    """Maps values in 0..1 to a smooth run through `colours`."""
    places = numpy.linspace(0, 1, len(colours))
    return numpy.stack([numpy.interp(values, places, colours[:, channel]) for channel in range(3)], axis=-1)


def normalised(values):
    return (values - values.min()) / (values.max() - values.min())


def gradients(random, width, height):
    """A sky: a tilted run of colours and a soft sun."""
    x, y = grid(width, height)
    angle = random.uniform(0.3, 2.8)
    sky = shade(normalised(numpy.cos(angle) * x + numpy.sin(angle) * y), palette(random, 4))
    centre = random.uniform(-0.5, 0.5, 2)
    sun = numpy.clip(1.25 - numpy.hypot(x - centre[0], y - centre[1]) / random.uniform(0.25, 0.5), 0, 1)[..., None] ** 0.5
    return sky * (1 - sun) + numpy.array([1, 0.97, 0.85]) * sun


def plasma(random, width, height):
    """Clouds: octaves of smoothed noise."""
    values = numpy.zeros((height, width))
    for octave in range(5):
        cells = 3 * 2**octave
        noise = Image.fromarray(random.uniform(0, 1, (cells, cells)).astype(numpy.float32))
        values += numpy.asarray(noise.resize((width, height), Image.Resampling.BICUBIC)) / 1.9**octave
    return shade(normalised(values), palette(random, 6))


def waves(random, width, height):
    """Interference of rings around a few stones in water."""
    x, y = grid(width, height)
    values = numpy.zeros((height, width))
    for _ in range(random.integers(2, 5)):
        place = random.uniform(-1.2, 1.2, 2)
        values += numpy.sin(random.uniform(9, 22) * numpy.hypot(x - place[0], y - place[1]))
    return shade(normalised(values), palette(random, 5))


def mosaics(random, width, height):
    """Voronoi cells with leaded edges, lit from one corner."""
    x, y = grid(width, height)
    places = random.uniform(-1.7, 1.7, (random.integers(18, 42), 2))
    distances = numpy.hypot(x[..., None] - places[:, 0], y[..., None] - places[:, 1])
    nearest = numpy.argmin(distances, axis=-1)
    ordered = numpy.partition(distances, 1, axis=-1)
    edge = numpy.clip((ordered[..., 1] - ordered[..., 0]) / 0.05, 0, 1)
    colours = palette(random, 7)[random.integers(0, 7, len(places))]
    light = 1 - 0.25 * normalised(x + y)
    return colours[nearest] * (0.15 + 0.85 * edge * light)[..., None]


def fractals(random, width, height):
    """A Julia set, coloured by how fast its points escape."""
    x, y = grid(width, height)
    turn = random.uniform(0, 2 * numpy.pi)
    constant = 0.7885 * numpy.exp(1j * turn)
    point, escaped = 1.25 * (x + 1j * y), numpy.zeros((height, width))
    alive = numpy.ones((height, width), dtype=bool)
    for step in range(60):
        point[alive] = point[alive] ** 2 + constant
        leaving = alive & (numpy.abs(point) > 8)
        escaped[leaving] = step + 1 - numpy.log2(numpy.log(numpy.abs(point[leaving])) / numpy.log(8))
        alive &= ~leaving
    escaped[alive] = 60
    return shade(normalised(numpy.sqrt(numpy.clip(escaped, 0, 60))), palette(random, 6))


def shapes(random, width, height):
    """Discs, bars and polygons on a plain ground, drawn at twice the size and reduced."""
    colours = [tuple(int(255 * part) for part in colour) for colour in palette(random, 6)]
    picture = Image.new("RGB", (2 * width, 2 * height), colours[1])
    draw = ImageDraw.Draw(picture)
    for number in range(random.integers(5, 10)):
        colour = colours[(2 * number) % 6 if number % 3 else 5]
        radius = int(random.uniform(0.12, 0.42) * min(width, height))
        centre = (int(random.uniform(0, 2 * width)), int(random.uniform(0, 2 * height)))
        kind = random.integers(0, 3)
        if kind == 0:
            draw.circle(centre, radius, fill=colour)
        elif kind == 1:
            draw.regular_polygon((centre, radius), int(random.integers(3, 7)), rotation=int(random.integers(0, 90)), fill=colour)
        else:
            end = (centre[0] + random.integers(-3, 4) * radius, centre[1] + random.integers(-3, 4) * radius)
            draw.line([centre, end], fill=colour, width=radius // 2)
    return numpy.asarray(picture.resize((width, height), Image.Resampling.BOX)) / 255


# The sorted order of their names is the order of the labels.
CLASSES = {draw.__name__: draw for draw in (fractals, gradients, mosaics, plasma, shapes, waves)}


# --- files -----------------------------------------------------------------------------------------------------------------


def encode(picture, number, class_name):
    """Encodes one picture; the formats go round, so that each class has most of what real sets hold."""
    # What compresses badly as PNG stays JPEG, to keep the repository small.
    smooth = class_name in ("plasma", "waves", "fractals")
    kinds = {
        1: ("jpg", "RGB", "JPEG", {"quality": 85}),
        2: ("JPEG", "RGB", "JPEG", {"quality": 80, "progressive": True}),
        3: ("jpeg", "RGB", "JPEG", {"quality": 78, "subsampling": "4:4:4"}) if smooth else ("png", "P", "PNG", {"optimize": True}),
        4: ("webp", "RGB", "WEBP", {"quality": 80}),
        5: ("jpg", "L", "JPEG", {"quality": 82}),
        6: ("jpg", "CMYK", "JPEG", {"quality": 75}),
    }
    suffix, mode, file_format, options = kinds[number]
    if mode == "P":
        picture = picture.quantize(48, dither=Image.Dither.NONE)
    elif mode != "RGB":
        picture = picture.convert(mode)
    encoded = io.BytesIO()
    picture.save(encoded, file_format, **options)
    return f"{class_name}_{number:02}.{suffix}", encoded.getvalue()


def draw_all():
    samples = []
    for label, (class_name, draw) in enumerate(CLASSES.items()):
        for number in range(1, IMAGES_PER_CLASS + 1):
            random = numpy.random.default_rng([zlib.crc32(class_name.encode()), number])
            width, height = int(random.integers(216, 380)), int(random.integers(216, 330))
            values = numpy.clip(draw(random, width, height), 0, 1)
            picture = Image.fromarray((values * 255).round().astype(numpy.uint8), "RGB")
            name, data = encode(picture, number, class_name)
            samples.append(Sample(class_name, label, name, data))
    by_path = {sample.path: sample for sample in samples}
    # Two files as every crawled set has them: a download that broke off, and an error page saved under an image's name.
    whole = by_path["plasma/plasma_02.JPEG"]
    samples.append(Sample("plasma", whole.label, "plasma_07.jpg", whole.data[: len(whole.data) // 2]))
    page = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body><h1>Not Found</h1></body></html>\n"
    samples.append(Sample("shapes", by_path["shapes/shapes_01.jpg"].label, "shapes_07.jpg", page))
    return sorted(samples, key=lambda sample: sample.path)


def write_folder(samples, folder):
    for sample in samples:
        (folder / sample.class_name).mkdir(parents=True, exist_ok=True)
        (folder / sample.path).write_bytes(sample.data)


def write_webdataset(samples, folder):
    folder.mkdir(parents=True)
    for shard, start in enumerate(range(0, len(samples), IMAGES_PER_SHARD)):
        with tarfile.open(folder / f"sample-{shard:04}.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
            for sample in samples[start : start + IMAGES_PER_SHARD]:
                described = {"filename": sample.path, "label": sample.label, "class_name": sample.class_name}
                members = {
                    sample.name: sample.data,
                    f"{sample.stem}.cls": str(sample.label).encode(),
                    f"{sample.stem}.json": json.dumps(described).encode(),
                }
                for name, data in members.items():
                    # The defaults of TarInfo name no user and no time.
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))


def write_parquet(samples, folder):
    folder.mkdir(parents=True)
    images = [{"bytes": sample.data, "path": sample.name} for sample in samples]
    features = {
        "image": {"_type": "Image"},
        "label": {"names": list(CLASSES), "_type": "ClassLabel"},
    }
    # Class names the way the hub's sets carry them.
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    image_type = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    schema = pyarrow.schema([("image", image_type), ("label", pyarrow.int64())], metadata=metadata)
    table = pyarrow.table({"image": images, "label": [sample.label for sample in samples]}, schema=schema)
    pyarrow.parquet.write_table(table, folder / "sample-00000-of-00001.parquet", row_group_size=ROWS_PER_GROUP)


def main():
    samples = draw_all()
    for layout, write in (("folder", write_folder), ("webdataset", write_webdataset), ("parquet", write_parquet)):
        shutil.rmtree(SAMPLES / layout, ignore_errors=True)
        write(samples, SAMPLES / layout)
    size = sum(file.stat().st_size for file in SAMPLES.rglob("*") if file.is_file())
    print(f"{len(samples)} files in {len(CLASSES)} classes, three layouts, {size:,} bytes in {SAMPLES}")


if __name__ == "__main__":
    main()
