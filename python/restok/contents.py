"""What an output holds, by its documents.

What counts are the manifest of a finished output, and the markers of the units of an unfinished one. Only the files that these name are
read; a file without them does not exist.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

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
from restok.storage import REQUESTS_AT_ONCE, Storage

_OWNER_PATH = "_plan/owner.json"
_MANIFEST_PATH = "_manifest.json"
_SUCCESS_PATH = "_SUCCESS"


@dataclass(frozen=True)
class Contents:
    """What the manifest says, or the markers together."""

    finished: bool
    plan: str
    settings: Mapping[str, Any]
    tokenizer: Tokenizer
    counts: RowCounts
    token_files: tuple[FileRecord, ...]
    image_files: tuple[FileRecord, ...]


def read_contents(storage: Storage, allow_unfinished: bool) -> Contents:
    """Reads the documents of an output, and no table. See `open_output`."""
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
    return _finished_contents(storage, plan) if finished else _unfinished_contents(storage, plan)


def _finished_contents(storage: Storage, plan: str) -> Contents:
    address = storage.address_of(_MANIFEST_PATH)
    text = storage.read(_MANIFEST_PATH, f"is missing, but {_SUCCESS_PATH} is there")
    manifest = Document.parse(address, text.to_pybytes())
    _check_plan(manifest, plan)
    counts = read_row_counts(manifest)
    counts.check(address)
    settings, tokenizer = read_settings(manifest)
    token_files, image_files = read_file_records(manifest, "tokens"), read_file_records(manifest, "images")
    _check_rows(address, counts, token_files)
    return Contents(True, plan, settings, tokenizer, counts, token_files, image_files)


def _unfinished_contents(storage: Storage, plan: str) -> Contents:
    settings, tokenizer = read_settings(plan_head(storage, plan))
    folder = f"_state/{plan[:8]}"
    units = [int(name.removesuffix(".json")) for name in storage.names_in(folder) if name.removesuffix(".json").isdecimal()]
    paths = [f"{folder}/{unit:05}.json" for unit in sorted(units)]
    counts, token_files, image_files = [], [], []
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
        for path, text in zip(paths, pool.map(storage.read, paths), strict=True):
            marker = Document.parse(storage.address_of(path), text.to_pybytes())
            _check_plan(marker, plan)
            counts.append(read_row_counts(marker))
            token_files.append(read_file_record(marker.part("tokens")))
            image_files.append(read_file_record(marker.part("images")))
    total = add_row_counts(counts)
    address = storage.address_of(folder)
    total.check(address)
    _check_rows(address, total, token_files)
    return Contents(False, plan, settings, tokenizer, total, tuple(token_files), tuple(image_files))


def _check_plan(document: Document, plan: str) -> None:
    found = document.get("plan", str)
    if found != plan:
        raise OutputError(f"{document.address}: speaks of plan {found[:8]}, but the output belongs to {plan[:8]}")


def _check_rows(address: str, counts: RowCounts, files: Sequence[FileRecord]) -> None:
    rows = sum(file.rows for file in files)
    if rows != counts.token_rows:
        raise OutputError(f"{address}: files of {rows} rows, but its row counts say {counts.token_rows}")
    for file in files:
        if file.rows % counts.views:
            raise OutputError(f"{address}: {file.path} with {file.rows} rows, expected a multiple of {counts.views} views")


def plan_head(storage: Storage, plan: str) -> Document:
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

    return Document.parse(address, decoded(address, first_line))


def decoded(address: str, decode: Callable[[], Any]) -> Any:
    """What `decode` makes of a file. Whatever Arrow says against it follows the file's address in the error."""
    try:
        return decode()
    except (pa.ArrowException, OSError) as error:
        raise OutputError(f"{address}: cannot be read as a file of restok: {error}") from error
