"""Reads what the program `restok` writes: tables of image tokens, as Arrow, NumPy and torch.

    import restok

    output = restok.open("s3://bucket/tokens")
    for batch in output.batches():
        codes = restok.codes(batch)              # [rows, tokens], not copied
        coarse = restok.codes(batch, level=0)
    for tokens, labels in restok.TokenLoader(output, batch_size=256):
        ...
"""

from typing import TYPE_CHECKING, Any

from restok.decoding import decode
from restok.documents import FileRecord, RowCounts, Tokenizer
from restok.encoding import Encoded, Reject, encode
from restok.errors import OutputError, ProgramError, RestokError, SettingsError
from restok.levels import Levels
from restok.output import Output
from restok.output import open_output as open  # noqa: A004: restok.open is what it is called.
from restok.token_columns import codes

if TYPE_CHECKING:
    from restok.dataset import TokenDataset
    from restok.loader import TokenBatch, TokenLoader

__all__ = [
    "Encoded",
    "FileRecord",
    "Levels",
    "Output",
    "OutputError",
    "ProgramError",
    "Reject",
    "RestokError",
    "RowCounts",
    "SettingsError",
    "TokenBatch",
    "TokenDataset",
    "TokenLoader",
    "Tokenizer",
    "codes",
    "decode",
    "encode",
    "open",
]

# What needs torch is imported when it is asked for.
_NEED_TORCH = {"TokenBatch": "restok.loader", "TokenDataset": "restok.dataset", "TokenLoader": "restok.loader"}


def __getattr__(name: str) -> Any:
    if name not in _NEED_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    try:
        return getattr(importlib.import_module(_NEED_TORCH[name]), name)
    except ModuleNotFoundError as error:
        raise ImportError(f"restok.{name} needs torch, and {error.name} is missing: pip install 'restok[torch]'") from error
