"""The tokens tables of one or several outputs as one frozen list of files, and their rows in memory as one array of codes."""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from restok.documents import FileRecord
from restok.errors import OutputError, SettingsError
from restok.output import Output, open_output
from restok.token_columns import Codes, codes

#: An output, its address, or several of them.
Source: TypeAlias = Output | str | os.PathLike[str] | Sequence[Output | str | os.PathLike[str]]
#: Which rows to take: an expression over the columns of the tokens table but `tokens`, or a function of a table of them that gives a mask.
Filter: TypeAlias = pc.Expression | Callable[[pa.Table], Any]

_FILTER_COLUMNS_LEFT_OUT = {"tokens"}
_BYTES_OF_A_LABEL = 8
# What this many files weigh, encoded, is in memory beside their codes.
_MOST_FILES_AT_ONCE = 8
# Where a row has no label.
_NO_LABEL = np.iinfo(np.int64).min


@dataclass(frozen=True)
class TokenFile:
    """A file of a tokens table, with what a filter keeps of it."""

    output: Output
    record: FileRecord
    #: Rows an image in the file.
    views: int
    #: Rows that are kept, as a mask; None for all of them.
    kept: npt.NDArray[np.bool_] | None
    #: Views of each image that are left: those of images without any are not there.
    counts: npt.NDArray[np.int64]
    #: Images of the list before it.
    first_image: int

    @property
    def images(self) -> int:
        """Images of which a view is left."""
        return len(self.counts)

    @property
    def rows(self) -> int:
        """Rows that are left."""
        return int(self.counts.sum())


@dataclass(frozen=True)
class Rows:
    """Rows of some files in memory."""

    #: [rows, tokens]
    codes: Codes
    #: A label for each row.
    labels: npt.NDArray[np.int64]


class TokenTables:
    """A frozen list of files, all of one tokenizer, and what reads them."""

    def __init__(
        self, source: Source, *, filter: Filter | None, one_view: bool, missing_label: int | None, verify: bool, threads: int | None
    ) -> None:
        """Opens outputs by their documents; with a filter, reads the columns of every file but the tokens, once."""
        self.outputs = _opened(source)
        first = self.outputs[0]
        _check_same_tokenizer(self.outputs)
        self.tokenizer = first.tokenizer
        self.missing_label, self.verify = missing_label, verify
        self.threads = threads or min(_MOST_FILES_AT_ONCE, os.cpu_count() or 1)
        files, first_image = [], 0
        for output, record, mask in self._kept(filter):
            views = output.views if one_view else 1
            file = TokenFile(output, record, output.views, mask, _views_left(record.rows, views, mask), first_image)
            files.append(file)
            first_image += file.images
        self.files = tuple(files)
        self.images = first_image
        if not self.images:
            kept = "that the filter keeps " if filter is not None else ""
            raise OutputError(f"{', '.join(output.url for output in self.outputs)}: no row {kept}has tokens, expected one at least")

    @property
    def tokens_per_image(self) -> int:
        """Tokens of a row."""
        return self.tokenizer.levels.tokens_per_image

    def bytes_of(self, file: TokenFile) -> int:
        """Bytes that a file takes in memory."""
        return file.rows * (2 * self.tokens_per_image + _BYTES_OF_A_LABEL)

    def digest(self) -> str:
        """SHA-256 of the frozen list: the tokenizer, every file by its path below its output and its digest, and what a filter keeps of it.
        Where the outputs lie is no part of it."""
        digest = hashlib.sha256(f"{self.tokenizer.sha256} {self.tokenizer.levels.sizes}\n".encode())
        for file in self.files:
            digest.update(f"{file.output.plan} {file.record.path} {file.record.sha256} {file.images} {file.rows}\n".encode())
            if file.kept is not None:
                digest.update(np.packbits(file.kept).tobytes())
        return digest.hexdigest()

    def rows_for(self, files: Iterable[int]) -> Rows:
        """Memory for the rows of some files, by their places in the list. A page of it is taken when it is written."""
        count = sum(self.files[file].rows for file in files)
        return Rows(np.empty((count, self.tokens_per_image), np.int16), np.empty(count, np.int64))

    def read(self, places: Sequence[tuple[int, int]], rows: Rows) -> None:
        """Reads files, several at a time, each given by its place in the list and the first of its rows."""
        with ThreadPoolExecutor(self.threads) as pool:
            for _ in pool.map(lambda place: self._read_one(self.files[place[0]], place[1], rows), places):
                pass

    def _read_one(self, file: TokenFile, start: int, rows: Rows) -> None:
        table = file.output.read_tokens(file.record, ["image_id", "view", "label", "tokens"], verify=self.verify)
        address = file.output.address_of(file.record)
        _check_views(table, file.views, address)
        labels = self._labels(table, file, address)
        kept, row, end = file.kept, 0, start
        for part in table.column("tokens").chunks:
            matrix = codes(part)
            if kept is not None:
                matrix = matrix[kept[row : row + len(part)]]
            rows.codes[end : end + len(matrix)] = matrix
            row, end = row + len(part), end + len(matrix)
        self._check_codes(rows.codes[start:end], address)
        rows.labels[start:end] = labels

    def _labels(self, table: pa.Table, file: TokenFile, address: str) -> npt.NDArray[np.int64]:
        column = table.column("label").cast(pa.int64()).fill_null(_NO_LABEL).to_numpy()
        labels: npt.NDArray[np.int64] = column if file.kept is None else column[file.kept]
        absent = labels == _NO_LABEL
        if not absent.any():
            return labels
        if self.missing_label is None:
            keys = table.column("image_id") if file.kept is None else table.column("image_id").filter(pa.array(file.kept))
            raise OutputError(
                f"{address}: image {keys[int(absent.argmax())].as_py()!r} has no label: expected one, or `missing_label=` to stand for it, or "
                "a filter such as pyarrow.compute.field('label').is_valid()"
            )
        return np.where(absent, self.missing_label, labels)

    def _check_codes(self, matrix: Codes, address: str) -> None:
        # A code below 0 is a large one without its sign, so that one comparison finds both.
        if matrix.size and int(matrix.view(np.uint16).max()) >= self.tokenizer.codebook_size:
            worst = int(matrix.max()) if matrix.min() >= 0 else int(matrix.min())
            raise OutputError(f"{address}: code {worst}, expected 0 to {self.tokenizer.codebook_size - 1}, a code of the codebook")

    def _kept(self, filter: Filter | None) -> Iterable[tuple[Output, FileRecord, npt.NDArray[np.bool_] | None]]:
        files = [(output, record) for output in self.outputs for record in output.token_files if record.rows]
        if filter is None:
            return [(output, record, None) for output, record in files]
        with ThreadPoolExecutor(self.threads) as pool:
            masks = pool.map(lambda file: _mask(file[0], file[1], filter), files)
            return [(output, record, mask) for (output, record), mask in zip(files, masks, strict=True) if mask.any()]


def _opened(source: Source) -> tuple[Output, ...]:
    sources = [source] if isinstance(source, (Output, str, os.PathLike)) else list(source)
    outputs = tuple(one if isinstance(one, Output) else open_output(one) for one in sources)
    if not outputs:
        raise SettingsError("no output is given, expected one at least")
    plans: dict[str, Output] = {}
    for output in outputs:
        if (other := plans.setdefault(output.plan, output)) is not output:
            raise SettingsError(f"{other.url} and {output.url} are tables of one plan ({output.plan[:8]}): each image would count twice")
    return outputs


def _check_same_tokenizer(outputs: Sequence[Output]) -> None:
    def key(output: Output) -> tuple[object, ...]:
        return (output.tokenizer.sha256, output.tokenizer.codebook_size, output.tokenizer.levels)

    for output in outputs:
        if key(output) != key(outputs[0]):
            tokenizers = [f"{one.url}: {one.tokenizer.name} (sha256 {one.tokenizer.sha256[:12]})" for one in (outputs[0], output)]
            raise SettingsError(f"tokens of two tokenizers do not mix: {'; '.join(tokenizers)}")


def _views_left(rows: int, views: int, mask: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.int64]:
    """Views of each image that are left, where at least one is."""
    if mask is None:
        return np.broadcast_to(np.int64(views), rows // views)
    counts: npt.NDArray[np.int64] = mask.reshape(-1, views).sum(axis=1, dtype=np.int64)
    return counts[counts > 0]


def _mask(output: Output, record: FileRecord, filter: Filter) -> npt.NDArray[np.bool_]:
    """Which rows of a file the filter keeps. Its digest is checked when the tokens are read."""
    columns = [name for name in output.token_columns if name not in _FILTER_COLUMNS_LEFT_OUT]
    table = output.read_tokens(record, columns, verify=False)
    table = table.append_column("split", pa.repeat(pa.scalar(output.split), len(table)))
    if isinstance(filter, pc.Expression):
        numbered = table.append_column("row of the file", pa.array(np.arange(len(table))))
        mask = np.zeros(len(table), bool)
        mask[numbered.filter(filter).column("row of the file").to_numpy()] = True
        return mask
    found = filter(table)
    if isinstance(found, (pa.Array, pa.ChunkedArray)):
        found = np.array(found.fill_null(False))
    mask = np.asarray(found)
    if mask.dtype != np.bool_ or mask.shape != (len(table),):
        raise SettingsError(f"the filter gave {mask.dtype} of shape {mask.shape}, expected a mask of {len(table)} rows")
    return mask


def _check_views(table: pa.Table, views: int, address: str) -> None:
    """The views of an image must follow one another, from 0 up."""
    numbers = table.column("view").to_numpy().reshape(-1, views)
    if not (numbers == np.arange(views)).all() or not _grouped(table.column("image_id"), views):
        raise OutputError(f"{address}: views are not in order, expected views 0 to {views - 1} of each image one after the other")


def _grouped(keys: pa.ChunkedArray, views: int) -> bool:
    """Whether keys come in groups of equal ones."""
    if views == 1:
        return True
    first = np.arange(0, len(keys), views)
    heads = keys.take(pa.array(first))
    return all(keys.take(pa.array(first + view)).equals(heads) for view in range(1, views))
