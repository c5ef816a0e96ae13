"""Generated samples as other tools open them: numpy and zipfile, pyarrow, tarfile, Pillow.

Each function opens one form of a set and returns `{sample: (label, pixels)}` (the archive and PNG files have no labels: `None`), after it has
held the file to what is particular to its form. Pixels are uint8 `[height, width, 3]`.
"""

import io
import json
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


class Pipe(io.BytesIO):
    """An output that cannot be sought in."""

    def seekable(self):
        return False

    def seek(self, *_):
        raise io.UnsupportedOperation("seek")

    def tell(self):
        raise io.UnsupportedOperation("tell")


def from_archive(path):
    """The set in an evaluation archive, opened in the three ways in which evaluators do it."""
    with zipfile.ZipFile(path) as archive:
        (member,) = archive.infolist()
        assert (member.filename, member.compress_type) == ("arr_0.npy", zipfile.ZIP_STORED)
        assert member.date_time == (1980, 1, 1, 0, 0, 0)
        assert archive.testzip() is None, "the CRC is another"
    with np.load(path) as archive:
        assert archive.files == ["arr_0"]
        pixels = archive["arr_0"]
    assert (pixels.dtype, pixels.ndim, pixels.shape[3]) == (np.uint8, 4, 3) and pixels.flags.c_contiguous
    streamed = list(streamed_batches(path, 7))
    assert np.array_equal(np.concatenate(streamed) if streamed else pixels[:0], pixels)
    return {sample: (None, image) for sample, image in enumerate(pixels)}


def streamed_batches(path, rows):
    """The archive's array a few rows at a time, as the published evaluator reads it: header and pixels from the open member."""
    with zipfile.ZipFile(path) as archive, archive.open("arr_0.npy") as member:
        assert np.lib.format.read_magic(member) == (1, 0)
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(member)
        assert not fortran_order
        for first in range(0, shape[0], rows):
            count = min(rows, shape[0] - first)
            data = member.read(count * int(np.prod(shape[1:])))
            yield np.frombuffer(data, dtype).reshape(count, *shape[1:])
        assert member.read() == b""


def assert_archive_is_as_python_writes_it(path):
    """Up to its directory, the archive has the bytes that zipfile and numpy write to a pipe."""
    with np.load(path) as archive:
        pixels = archive["arr_0"]
    array, pipe = io.BytesIO(), Pipe()
    np.lib.format.write_array(array, pixels, version=(1, 0))
    with zipfile.ZipFile(pipe, "w") as archive:
        with archive.open(zipfile.ZipInfo("arr_0.npy"), "w", force_zip64=True) as member:
            member.write(array.getvalue())
    found, expected = Path(path).read_bytes(), pipe.getvalue()
    directory = expected.index(b"PK\x01\x02", len(array.getvalue()))
    assert found[:directory] == expected[:directory]
    # The directory begins where the end's ZIP64 record says.
    assert struct.unpack("<Q", found[found.rindex(b"PK\x06\x06") + 48 :][:8]) == (directory,)


def from_parquet(paths, class_names=None):
    """The set in Parquet files, and that `datasets` would take the images for images and the labels for classes."""
    label = {"_type": "Value", "dtype": "int64"} if class_names is None else {"_type": "ClassLabel", "names": class_names}
    features = {"image": {"_type": "Image"}, "label": label, "sample": {"_type": "Value", "dtype": "int64"}}
    found = {}
    for path in sorted(paths):
        file = pq.ParquetFile(path)
        expected = pa.schema([("image", IMAGE_TYPE), ("label", pa.int64()), ("sample", pa.int64())])
        assert file.schema_arrow.remove_metadata().equals(expected)
        assert json.loads(file.schema_arrow.metadata[b"huggingface"]) == {"info": {"features": features}}
        groups = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        assert all(rows == 100 for rows in groups[:-1]) and all(rows <= 100 for rows in groups)
        for row in file.read().to_pylist():
            assert row["image"]["path"] == f"{row['sample']:06d}.png"
            add(found, row["sample"], row["label"], row["image"]["bytes"])
    return found


def from_shards(paths, class_names=None):
    """The set in WebDataset shards."""
    found = {}
    for path in sorted(paths):
        with tarfile.open(path) as shard:
            members = shard.getmembers()
            assert all((member.mtime, member.uid, member.gid, member.mode) == (0, 0, 0, 0o644) for member in members)
            files = {member.name: shard.extractfile(member).read() for member in members}
        keys = list(dict.fromkeys(name.split(".")[0] for name in files))
        assert list(files) == [f"{key}.{extension}" for key in keys for extension in ("png", "cls", "json")]
        for key in keys:
            described, label = json.loads(files[f"{key}.json"]), int(files[f"{key}.cls"])
            assert (f"{described['sample']:08d}", described["label"]) == (key, label)
            assert described.get("class_name") == (None if class_names is None else class_names[label])
            add(found, described["sample"], label, files[f"{key}.png"])
    return found


def from_folder(folder):
    """The set in a folder of PNG files."""
    found = {}
    for path in sorted(Path(folder).iterdir()):
        assert path.name == f"{int(path.stem):06d}.png"
        add(found, int(path.stem), None, path.read_bytes())
    return found


def add(found, sample, label, png):
    """Adds a sample, which must be there once."""
    assert sample not in found, f"sample {sample} twice"
    image = Image.open(io.BytesIO(png))
    assert (image.format, image.mode) == ("PNG", "RGB")
    found[sample] = (label, np.asarray(image))


def assert_same_set(*sets):
    """The same numbers from 0 on, the same pixels, and the same labels where a form has them."""
    first, *others = sets
    assert sorted(first) == list(range(len(first)))
    for other in others:
        assert sorted(other) == sorted(first)
        for sample, (label, pixels) in first.items():
            other_label, other_pixels = other[sample]
            assert label is None or other_label is None or label == other_label, f"sample {sample}"
            assert np.array_equal(pixels, other_pixels), f"sample {sample}"
