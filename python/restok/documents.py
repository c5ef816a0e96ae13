"""The JSON documents of an output: who owns it, its manifest, the markers of its units, and the head of its plan."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from restok.errors import OutputError
from restok.levels import Levels

#: The newest version of plans, tables and markers that this package reads.
SCHEMA_VERSION = 1

_Kind = TypeVar("_Kind")
_NAMES = {int: "a number", str: "text", dict: "an object", list: "a list"}


@dataclass(frozen=True)
class FileRecord:
    """One file of a table, as it was committed."""

    #: Below the output.
    path: str
    #: Its size.
    bytes: int
    #: SHA-256, lowercase hexadecimal.
    sha256: str
    #: Rows of the table in it.
    rows: int


@dataclass(frozen=True)
class RowCounts:
    """What became of the images of an output."""

    #: Images that the source listed.
    listed: int
    #: Images whose tokens were written.
    written: int
    #: Images without tokens, by reason.
    rejected: Mapping[str, int]
    #: Rows of the tokens table: `written` times the views of the crop.
    token_rows: int
    #: Encoded bytes of all listed images that were read.
    bytes_read: int

    @property
    def views(self) -> int:
        """Rows an image; 1 where no image was written."""
        return self.token_rows // self.written if self.written else 1

    def check(self, address: str) -> None:
        """Raises where the counts do not add up."""
        rejected = sum(self.rejected.values())
        if self.listed != self.written + rejected:
            raise OutputError(f"{address}: {self.listed} images listed, but {self.written} written and {rejected} rejected")
        if self.token_rows != self.written * self.views:
            raise OutputError(f"{address}: {self.token_rows} token rows for {self.written} images, expected a multiple")


@dataclass(frozen=True)
class Tokenizer:
    """The tokenizer, as far as tokens depend on it."""

    #: What the operator called it: a folder's name or hf://owner/name.
    name: str
    #: SHA-256 of its configuration and weights, lowercase hexadecimal.
    sha256: str
    #: Codes in the codebook.
    codebook_size: int
    #: Levels of an image's tokens.
    levels: Levels


class Document:
    """A JSON object whose fields are checked as they are read, so that an error names file, field, found and expected."""

    def __init__(self, address: str, fields: object) -> None:
        if not isinstance(fields, dict):
            raise OutputError(f"{address}: {fields!r:.80}, expected a JSON object")
        self.address, self.fields = address, fields

    @classmethod
    def parse(cls, address: str, text: bytes) -> "Document":
        """From the bytes of the file at `address`."""
        try:
            fields = json.loads(text)
        except ValueError as error:
            raise OutputError(f"{address}: is damaged: {error}") from error
        document = cls(address, fields)
        version = document.get("schema_version", int)
        if version > SCHEMA_VERSION:
            raise OutputError(f"{address}: schema version {version}, this package reads up to {SCHEMA_VERSION}: use a newer restok")
        return document

    def get(self, name: str, kind: type[_Kind]) -> _Kind:
        """A field that must be there."""
        value = self.fields.get(name)
        # To Python, true is a number.
        if not isinstance(value, kind) or isinstance(value, bool):
            found = f"{value!r:.80}" if name in self.fields else "missing"
            raise OutputError(f"{self.address}: {name} is {found}, expected {_NAMES[kind]}")
        return value

    def part(self, name: str) -> "Document":
        """A field that is an object itself."""
        return Document(f"{self.address}: {name}", self.get(name, dict))


def read_file_record(document: Document) -> FileRecord:
    """A record of a file."""
    get = document.get
    return FileRecord(get("path", str), get("bytes", int), get("sha256", str), get("rows", int))


def read_file_records(document: Document, name: str) -> tuple[FileRecord, ...]:
    """A list of records."""
    return tuple(read_file_record(Document(f"{document.address}: {name}", entry)) for entry in document.get(name, list))


def read_row_counts(document: Document) -> RowCounts:
    """The row counts of a unit or an output; in files they are called books."""
    books = document.part("books")
    rejected = books.part("rejected")
    by_reason = {reason: rejected.get(reason, int) for reason in rejected.fields}
    get = books.get
    return RowCounts(get("listed", int), get("written", int), by_reason, get("token_rows", int), get("bytes_read", int))


def add_row_counts(parts: Sequence[RowCounts]) -> RowCounts:
    """The row counts of several units together."""
    rejected: dict[str, int] = {}
    for part in parts:
        for reason, count in part.rejected.items():
            rejected[reason] = rejected.get(reason, 0) + count

    def total(name: str) -> int:
        return sum(getattr(part, name) for part in parts)

    by_reason = dict(sorted(rejected.items()))
    return RowCounts(total("listed"), total("written"), by_reason, total("token_rows"), total("bytes_read"))


def read_settings(document: Document) -> tuple[Mapping[str, Any], Tokenizer]:
    """What decided the tables, as it stands there, and the tokenizer."""
    settings = document.part("settings")
    tokenizer = settings.part("tokenizer")
    sizes = tokenizer.get("levels", list)
    if not sizes or not all(isinstance(size, int) and size > 0 for size in sizes):
        raise OutputError(f"{tokenizer.address}: levels are {sizes!r:.80}, expected sizes")
    get = tokenizer.get
    levels = Levels(tuple(sizes))
    read = Tokenizer(get("name", str), get("sha256", str), get("codebook_size", int), levels)
    return settings.fields, read
