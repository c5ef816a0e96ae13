"""An output of restok: what is in it, where it came from, and its tables as Arrow.

What counts are the manifest of a finished output, and the markers of the units of an unfinished one. Only the files that these name are
read; a file without them does not exist.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as papq

from restok.documents import (
    Document,
    FileRecord,
    RowCounts,
    Tokenizer,
    add_row_counts,
    read_file_record,
    read_file_records,
    read_row_counts,
    read_settings,
)
from restok.errors import OutputError
from restok.levels import Levels
from restok.storage import Storage
from restok.token_columns import check_token_schema

_OWNER_PATH = "_plan/owner.json"
_MANIFEST_PATH = "_manifest.json"
_SUCCESS_PATH = "_SUCCESS"
# What a file says of itself alone, and not of the output.
_KEYS_OF_A_FILE = {"restok.unit"}
# Markers are small: latency is all they cost.
_MARKERS_AT_ONCE = 16


@dataclass(frozen=True)
class _Contents:
    """What the manifest says, or the markers together."""

    finished: bool
    plan: str
    settings: Mapping[str, Any]
    tokenizer: Tokenizer
    counts: RowCounts
    token_files: tuple[FileRecord, ...]
    image_files: tuple[FileRecord, ...]


class Output:
    """An output of restok. Made by `restok.open`; holds no table in memory, and can be sent to another process."""

    def __init__(self, storage: Storage, contents: _Contents) -> None:
        """For `restok.open`."""
        self._storage, self._contents = storage, contents

    @property
    def url(self) -> str:
        """Where it is, without credentials."""
        return self._storage.url

    @property
    def address(self) -> str:
        """Where it is, as it was given: for the program, and not for people."""
        return self._storage.address

    @property
    def finished(self) -> bool:
        """Whether it has `_SUCCESS`: every unit is there, and was checked."""
        return self._contents.finished

    @property
    def plan(self) -> str:
        """Hash of the plan that owns it."""
        return self._contents.plan

    @property
    def settings(self) -> Mapping[str, Any]:
        """Everything besides the inputs that decided the tables, by the names of the plan: source, crop, precision and so on."""
        return self._contents.settings

    @property
    def split(self) -> str:
        """Value of its `split=` partition."""
        return str(self.settings.get("split", ""))

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that made the tokens, or that decodes them."""
        return self._contents.tokenizer

    @property
    def levels(self) -> Levels:
        """Levels of an image's tokens: `output.levels[3]` is the slice of the fourth."""
        return self.tokenizer.levels

    @property
    def counts(self) -> RowCounts:
        """What became of the images; of those of complete units, where the output is unfinished."""
        return self._contents.counts

    @property
    def views(self) -> int:
        """Rows an image."""
        return self.counts.views

    @property
    def token_files(self) -> tuple[FileRecord, ...]:
        """Files of the tokens table, in the order of the table."""
        return self._contents.token_files

    @property
    def image_files(self) -> tuple[FileRecord, ...]:
        """Files of the images table, in the order of the table."""
        return self._contents.image_files

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes by label, where the source gives them; else empty. Reads the head of the plan."""
        names = _plan_head(self._storage, self.plan).get("class_names", list)
        return tuple(map(str, names))

    @property
    def token_columns(self) -> tuple[str, ...]:
        """Columns of the tokens table: those of drawn samples have `sample` and `seed` besides. Reads the foot of the first file."""
        return tuple(self._token_schema.names)

    def provenance(self, file: FileRecord | None = None) -> dict[str, str]:
        """What a file says of its own making: tokenizer, crop, precision, device, versions. Of the first one, unless another is named.

        Files of one output differ in `unit`, and in `device_kind`, `libtorch`, `decoder` and `version` where several machines made them.
        """
        if file is None:
            file = self._first_file()
        metadata = self._schema_of(file).metadata or {}
        pairs = {key.decode(): value.decode() for key, value in metadata.items()}
        return {key.removeprefix("restok."): pairs[key] for key in sorted(pairs)}

    def tokens(self) -> pads.Dataset:
        """The tokens table as a dataset, for Arrow's own filters, projections and scans; with the column `split`.

        Sizes of all files are checked first. Their digests are not: `batches` checks them.
        """
        return self._dataset(self.token_files, self._token_schema)

    def images(self) -> pads.Dataset:
        """The images table as a dataset, with the column `split`: a row for every image that the source listed."""
        return self._dataset(self.image_files, self._image_schema)

    def batches(self, columns: Sequence[str] | None = None, *, verify: bool = True) -> Iterator[pa.RecordBatch]:
        """The tokens table, file after file in the order of the table, each checked against its record.

        `restok.codes(batch)` are the codes of a batch, where Arrow has them. With `verify`, the digest of each file is checked too.
        """
        for file in self.token_files:
            yield from self.read_tokens(file, columns, verify=verify).to_batches()

    def read_tokens(self, file: FileRecord, columns: Sequence[str] | None = None, *, verify: bool = True) -> pa.Table:
        """The rows of one file of the tokens table. Without `verify`, only what the columns need is read, and the digest is not checked."""
        address = self.address_of(file)
        with self._opened(file) as source:
            size = source.size()
            if size != file.bytes:
                raise OutputError(f"{address}: {size} bytes, but {self._named_by} says {file.bytes}")
            if verify:
                content = source.read_buffer()
                digest = hashlib.sha256(content).hexdigest()
                if digest != file.sha256:
                    raise OutputError(f"{address}: its SHA-256 is {digest}, but {self._named_by} says {file.sha256}")
                source = pa.BufferReader(content)
            parquet = _decoded(address, lambda: papq.ParquetFile(source))
            check_token_schema(parquet.schema_arrow, self.levels.tokens_per_image, address)
            table = _decoded(address, lambda: parquet.read(columns=columns, use_threads=False))
        if table.num_rows != file.rows:
            raise OutputError(f"{address}: {table.num_rows} rows, but {self._named_by} says {file.rows}")
        return table

    def address_of(self, file: FileRecord) -> str:
        """Address of a file, for people."""
        return self._storage.address_of(file.path)

    @property
    def _named_by(self) -> str:
        return "the manifest" if self.finished else "its marker"

    def _first_file(self) -> FileRecord:
        if not self.token_files:
            raise OutputError(f"{self.url}: no unit is complete, expected one at least")
        return self.token_files[0]

    def _opened(self, file: FileRecord) -> pa.NativeFile:
        try:
            return self._storage.filesystem.open_input_file(self._storage.path_of(file.path))
        except FileNotFoundError as error:
            raise OutputError(f"{self.address_of(file)}: is missing, but {self._named_by} names it") from error

    def _schema_of(self, file: FileRecord) -> pa.Schema:
        """The columns of a file, with all that it says of itself."""
        with self._opened(file) as source:
            parquet = _decoded(self.address_of(file), lambda: papq.ParquetFile(source))
            pairs = parquet.metadata.metadata or {}
            return parquet.schema_arrow.with_metadata({key: pairs[key] for key in pairs if key.startswith(b"restok.")})

    @cached_property
    def _token_schema(self) -> pa.Schema:
        file = self._first_file()
        schema = self._schema_of(file)
        check_token_schema(schema, self.levels.tokens_per_image, self.address_of(file))
        return schema

    @cached_property
    def _image_schema(self) -> pa.Schema:
        self._first_file()
        return self._schema_of(self.image_files[0])

    def _dataset(self, files: Sequence[FileRecord], schema: pa.Schema) -> pads.Dataset:
        self._check_sizes(files)
        metadata = {key: value for key, value in (schema.metadata or {}).items() if key.decode() not in _KEYS_OF_A_FILE}
        schema = schema.append(pa.field("split", pa.string())).with_metadata(metadata)
        in_split = pc.field("split") == pa.scalar(self.split)
        return pads.FileSystemDataset.from_paths(
            [self._storage.path_of(file.path) for file in files],
            schema=schema,
            format=pads.ParquetFileFormat(),
            filesystem=self._storage.filesystem,
            partitions=[in_split] * len(files),
        )

    def _check_sizes(self, files: Sequence[FileRecord]) -> None:
        for file, size in zip(files, self._storage.sizes([file.path for file in files]), strict=True):
            if size != file.bytes:
                found = "is missing" if size is None else f"{size} bytes"
                raise OutputError(f"{self.address_of(file)}: {found}, but {self._named_by} says {file.bytes} bytes")

    def __repr__(self) -> str:
        state = "finished" if self.finished else "unfinished"
        sizes = "+".join(map(str, self.levels.sizes))
        return (
            f"<restok.Output {self.url!r}: {state}, split {self.split!r}, {self.counts.written} images of {self.counts.listed} listed, "
            f"{self.counts.token_rows} rows of {sizes} tokens>"
        )


def open_output(url: str | os.PathLike[str], *, allow_unfinished: bool = False, filesystem: Any = None) -> Output:
    """Opens an output by its address: a path, s3://, gs://, az://, https://, or whatever fsspec knows. Reads documents alone, and no table.

    An output without `_SUCCESS` is an error, unless `allow_unfinished`: then the units that are complete are what there is, and
    `Output.finished` says so. `filesystem`, of pyarrow or fsspec, takes the place of the one that the address names.
    """
    storage = Storage(url, filesystem)
    owner = storage.read_if_exists(_OWNER_PATH)
    if owner is None:
        raise OutputError(f"{storage.url}: {_OWNER_PATH} is missing, expected an output of restok")
    plan = Document.parse(storage.address_of(_OWNER_PATH), owner.to_pybytes()).get("plan", str)
    finished = storage.sizes([_SUCCESS_PATH])[0] is not None
    if not finished and not allow_unfinished:
        raise OutputError(
            f"{storage.url}: is not finished ({_SUCCESS_PATH} is missing): run its job to the end or `restok finalize`, or open it with "
            "allow_unfinished=True for the units that are complete"
        )
    return Output(storage, _finished_contents(storage, plan) if finished else _unfinished_contents(storage, plan))


def _finished_contents(storage: Storage, plan: str) -> _Contents:
    address = storage.address_of(_MANIFEST_PATH)
    text = storage.read(_MANIFEST_PATH, f"is missing, but {_SUCCESS_PATH} is there")
    manifest = Document.parse(address, text.to_pybytes())
    found = manifest.get("plan", str)
    if found != plan:
        raise OutputError(f"{address}: speaks of plan {found[:8]}, but the output belongs to {plan[:8]}")
    counts = read_row_counts(manifest)
    counts.check(address)
    settings, tokenizer = read_settings(manifest)
    token_files, image_files = read_file_records(manifest, "tokens"), read_file_records(manifest, "images")
    _check_rows(address, counts, token_files)
    return _Contents(True, plan, settings, tokenizer, counts, token_files, image_files)


def _unfinished_contents(storage: Storage, plan: str) -> _Contents:
    settings, tokenizer = read_settings(_plan_head(storage, plan))
    folder = f"_state/{plan[:8]}"
    units = [int(name.removesuffix(".json")) for name in storage.names_in(folder) if name.removesuffix(".json").isdecimal()]
    names = [f"{unit:05}.json" for unit in sorted(units)]
    counts, token_files, image_files = [], [], []
    with ThreadPoolExecutor(_MARKERS_AT_ONCE) as pool:
        for path, text in pool.map(lambda name: (f"{folder}/{name}", storage.read(f"{folder}/{name}")), names):
            marker = Document.parse(storage.address_of(path), text.to_pybytes())
            found = marker.get("plan", str)
            if found != plan:
                raise OutputError(f"{marker.address}: speaks of plan {found[:8]}, but the output belongs to {plan[:8]}")
            counts.append(read_row_counts(marker))
            token_files.append(read_file_record(marker.part("tokens")))
            image_files.append(read_file_record(marker.part("images")))
    total = add_row_counts(counts)
    address = storage.address_of(folder)
    total.check(address)
    _check_rows(address, total, token_files)
    return _Contents(False, plan, settings, tokenizer, total, tuple(token_files), tuple(image_files))


def _check_rows(address: str, counts: RowCounts, files: Sequence[FileRecord]) -> None:
    rows = sum(file.rows for file in files)
    if rows != counts.token_rows:
        raise OutputError(f"{address}: files of {rows} rows, but its row counts say {counts.token_rows}")
    for file in files:
        if file.rows % counts.views:
            raise OutputError(f"{address}: {file.path} with {file.rows} rows, expected a multiple of {counts.views} views")


def _plan_head(storage: Storage, plan: str) -> Document:
    """The first line of the plan: its settings and classes."""
    path = f"_plan/{plan[:8]}.jsonl.zst"
    address = storage.address_of(path)
    content = storage.read(path, f"is missing, but {_OWNER_PATH} names this plan")

    def first_line() -> bytes:
        with pa.input_stream(pa.BufferReader(content), compression="zstd") as lines:
            head = b""
            while b"\n" not in head and (more := lines.read(1 << 16)):
                head += more
            return head.partition(b"\n")[0]

    return Document.parse(address, _decoded(address, first_line))


def _decoded(address: str, decode: Callable[[], Any]) -> Any:
    """What `decode` makes of a file. Whatever Arrow says against it is put behind the file's address."""
    try:
        return decode()
    except (pa.ArrowException, OSError) as error:
        raise OutputError(f"{address}: cannot be read as a file of restok: {error}") from error
