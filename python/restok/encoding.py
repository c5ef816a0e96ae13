"""A few images to codes, in a notebook. Sets of images are the program's own work: `restok tokenize`."""

import io
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa

from restok.errors import SettingsError
from restok.levels import Levels
from restok.output import Output, open_output
from restok.program import find_program, run_program
from restok.token_columns import Codes, codes

if TYPE_CHECKING:
    import PIL.Image

#: An image: of Pillow, as an array of bytes [height, width, 3] or [height, width], as an encoded file in memory, or as the path of one.
Image: TypeAlias = "PIL.Image.Image | np.ndarray[Any, np.dtype[np.uint8]] | bytes | str | os.PathLike[str]"

# Modes of Pillow that a PNG holds as they are.
_PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}


@dataclass(frozen=True)
class Reject:
    """An image that has no codes."""

    #: Its place among the images that were given.
    position: int
    #: The reason: empty, truncated, too_large, unsupported, corrupt or unreadable.
    reason: str
    #: What the decoder said of it.
    error: str


class Encoded:
    """Codes of some images. Keeps the output that they are in, in a temporary folder, for as long as it lives: `decode` takes it."""

    def __init__(self, folder: "tempfile.TemporaryDirectory[str]") -> None:
        """For `restok.encode`: reads the output in the folder."""
        self._folder = folder
        #: The output: provenance, levels, counts, tables.
        self.output: Output = open_output(Path(folder.name) / "output")
        # Tables and not batches, of which an output of rejects alone has none.
        table = pa.concat_tables(self.output.read_tokens(file) for file in self.output.token_files).combine_chunks()
        first = table.column("view").to_numpy() == 0
        #: The codes of the first view of each image that has some: [images, tokens].
        self.codes: Codes = codes(table)[first]
        #: The codes of all views: [images, views, tokens].
        self.codes_of_views: Codes = codes(table).reshape(len(self.codes), self.output.views, self.levels.tokens_per_image)
        #: The keys of those images in `output`.
        self.image_ids: list[str] = [key for key, is_first in zip(table.column("image_id").to_pylist(), first, strict=True) if is_first]
        #: The place of each of them among the images that were given.
        self.positions: list[int] = [int(key) for key in self.image_ids]
        columns = ["image_id", "status", "error"]
        rows = self.output.images().to_table(columns=columns).sort_by("image_id").to_pylist()
        #: The images without codes, and why.
        self.rejects: list[Reject] = [
            Reject(int(row["image_id"]), row["status"], row["error"] or "") for row in rows if row["status"] != "ok"
        ]

    @property
    def levels(self) -> Levels:
        """Levels of an image's tokens."""
        return self.output.levels

    def __len__(self) -> int:
        """Images that have codes."""
        return len(self.codes)

    def __repr__(self) -> str:
        return f"<restok.Encoded: {len(self)} images of {self.codes.shape[1]} tokens, {len(self.rejects)} rejects>"


def encode(
    images: Sequence[Image],
    *,
    tokenizer: str | os.PathLike[str],
    crop: str | None = None,
    precision: str = "fp32",
    devices: str = "auto",
    batch_size: int | None = None,
    binary: str | os.PathLike[str] | None = None,
) -> Encoded:
    """Encodes some images with `restok tokenize`, in a temporary folder.

    Args:
        images: of Pillow, arrays of bytes [height, width, 3] or [height, width], encoded files in memory (`bytes`), or paths of files. An image
            that cannot be read is a reject, and ends nothing.
        tokenizer: a local folder, or hf://owner/name.
        crop: how images are cropped; adm-center-SIZE at the tokenizer's resolution, unless given.
        precision, devices, batch_size: those of the program.
        binary: the program, unless RESTOK_BINARY or the PATH names it.
    """
    if not len(images):
        raise SettingsError("no image is given, expected one at least")
    program = find_program(binary)
    folder = tempfile.TemporaryDirectory(prefix="restok-encode-")
    source = Path(folder.name) / "images"
    source.mkdir()
    width = len(str(len(images) - 1))
    for position, image in enumerate(images):
        _write(source / f"{position:0{width}}.image", image)
    options: list[str | os.PathLike[str]] = ["--source", source, "--layout", "folder", "--image-extensions", "any"]
    options += ["--output", Path(folder.name) / "output", "--split", "notebook", "--max-reject-rate", "100%"]
    options += ["--tokenizer", tokenizer, "--precision", precision, "--devices", devices]
    options += ["--crop", crop] if crop else []
    options += ["--batch-size", str(batch_size)] if batch_size else []
    run_program(program, ["tokenize", *options])
    return Encoded(folder)


def _write(path: Path, image: Any) -> None:
    """Puts an image into a file, without loss."""
    if isinstance(image, bytes):
        path.write_bytes(image)
        return
    if isinstance(image, (str, os.PathLike)):
        shutil.copyfile(image, path)
        return
    import PIL.Image

    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
            raise SettingsError(f"an array of {image.dtype} {list(image.shape)}, expected uint8 [height, width, 3] or [height, width]")
        image = PIL.Image.fromarray(np.ascontiguousarray(image))
    if not isinstance(image, PIL.Image.Image):
        raise SettingsError(f"an image of type {type(image).__name__}, expected one of Pillow, a uint8 array, bytes or a path")
    content = io.BytesIO()
    (image if image.mode in _PNG_MODES else image.convert("RGB")).save(content, "png")
    path.write_bytes(content.getvalue())
