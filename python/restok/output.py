"""An output of restok: what is in it, where it came from, and its tables as Arrow."""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as papq

from restok.contents import Contents, decoded, plan_head, read_contents
from restok.documents import FileRecord, RowCounts, Tokenizer
from restok.errors import OutputError
from restok.levels import Levels
from restok.storage import Storage
from restok.token_columns import check_token_schema

# What a file says of itself alone, and not of the output.
_KEYS_OF_A_FILE = {"restok.unit"}


class Output:
    """An output of restok. Made by `restok.open`; holds no table in memory, and can be sent to another process."""

    def __init__(self, storage: Storage, contents: Contents) -> None:
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
        names = plan_head(self._storage, self.plan).get("class_names", list)
        return tuple(map(str, names))

    @property
    def token_columns(self) -> tuple[str, ...]:
        """Columns of the tokens table: those of drawn samples have `sample` and `seed` besides. Reads the footer of the first file."""
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
            parquet = decoded(address, lambda: papq.ParquetFile(source))
            check_token_schema(parquet.schema_arrow, self.levels.tokens_per_image, address)
            table = decoded(address, lambda: parquet.read(columns=columns, use_threads=False))
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
            parquet = decoded(self.address_of(file), lambda: papq.ParquetFile(source))
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
    return Output(storage, read_contents(storage, allow_unfinished))
