"""A few rows of an output to images, in a notebook. Whole tables are the program's own work: `restok generate --decode-only`."""

import hashlib
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from restok.encoding import Encoded
from restok.errors import OutputError, SettingsError
from restok.output import Output, open_output
from restok.program import find_program, run_program

if TYPE_CHECKING:
    import PIL.Image

#: Images that are decoded at once, at most.
_MOST_IMAGES = 1000


def decode(
    rows: Encoded | Output | str | os.PathLike[str],
    image_ids: Sequence[str] | None = None,
    *,
    tokenizer: str | os.PathLike[str],
    keep: int | None = None,
    view: int = 0,
    precision: str = "fp32",
    device: str = "auto",
    batch_size: int | None = None,
    allow_other_tokenizer: bool = False,
    binary: str | os.PathLike[str] | None = None,
) -> "list[PIL.Image.Image]":
    """Decodes images of an output with `restok reconstruct`, in a temporary folder, in the order of `image_ids`.

    The program decodes rows of tables, so that what an image was made of is always on record. Codes of your own making cannot be decoded.

    Args:
        rows: what `encode` gave, or an output or its address, finished or not.
        image_ids: keys of images; all of them, in the order of the table, unless given.
        tokenizer: the one that made the tokens: a local folder, or hf://owner/name.
        keep: decode from so many first tokens, such as the end of a level; from all of them, unless given.
        view: the view of the crop.
        precision, device, batch_size, allow_other_tokenizer: those of the program.
        binary: the program, unless RESTOK_BINARY or the PATH names it.
    """
    output = rows.output if isinstance(rows, Encoded) else rows
    if not isinstance(output, Output):
        output = open_output(output, allow_unfinished=True)
    image_ids = _all_ids(output) if image_ids is None else list(image_ids)
    _check_ids(image_ids)
    keep = output.levels.tokens_per_image if keep is None else keep
    with tempfile.TemporaryDirectory(prefix="restok-decode-") as folder:
        options: list[str | os.PathLike[str]] = ["--tokens", output.address, "--to", folder, "--no-originals", "--keep", str(keep)]
        options += ["--tokenizer", tokenizer, "--view", str(view), "--precision", precision, "--device", device]
        options += ["--batch-size", str(batch_size)] if batch_size else []
        options += ["--allow-other-tokenizer"] if allow_other_tokenizer else []
        for image_id in image_ids:
            options += ["--image-id", image_id]
        run_program(find_program(binary), ["reconstruct", *options])
        return [_read(Path(folder) / f"{name}.tokens-{keep:03}.png") for name in _file_names(image_ids)]


def _all_ids(output: Output) -> list[str]:
    if output.counts.written > _MOST_IMAGES:
        raise SettingsError(f"{output.url} has {output.counts.written} images, expected at most {_MOST_IMAGES}: name some by image_ids")
    batches = output.batches(["image_id", "view"])
    return [row["image_id"] for batch in batches for row in batch.to_pylist() if row["view"] == 0]


def _check_ids(image_ids: Sequence[str]) -> None:
    if not 0 < len(image_ids) <= _MOST_IMAGES:
        raise SettingsError(f"{len(image_ids)} images, expected 1 to {_MOST_IMAGES}")
    for image_id, count in Counter(image_ids).items():
        if count > 1 or "," in image_id:
            problem = "is named twice" if count > 1 else "has a comma, which the program takes for the end of a key"
            raise SettingsError(f"image_id {image_id!r} {problem}, expected different keys without commas")


def _file_names(image_ids: Sequence[str]) -> list[str]:
    """The names that the program gives to the files of images: their keys, as far as letters go, and a digest where two would be one."""
    names = []
    for image_id in image_ids:
        name = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in image_id)
        names.append(f"_{name}" if name.startswith(".") else name)
    uses = Counter(names)
    return [
        name if uses[name] == 1 else f"{name}-{hashlib.sha256(image_id.encode()).hexdigest()[:8]}"
        for name, image_id in zip(names, image_ids, strict=True)
    ]


def _read(path: Path) -> "PIL.Image.Image":
    import PIL.Image

    try:
        with PIL.Image.open(path) as image:
            return image.copy()
    except FileNotFoundError as error:
        raise OutputError(f"{path.name}: the program wrote no such file, expected the decoded image") from error
