"""The pieces of text that tokens stand for, as commands show them, and a file's tokenizer by itself."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tritpack.converter.cli.file_argument import as_gguf
from tritpack.formats.printable import printable

if TYPE_CHECKING:
    from tritpack.runtime.tokenizer import Tokenizer

Piece = str | list[int]
"""The text of a token, or its bytes where it holds a part of a character: llama-server's /tokenize has the same."""


@contextlib.contextmanager
def open_tokenizer(file: str) -> Iterator[Tokenizer]:
    """Yield the tokenizer in FILE (a GGUF, one in a bundle, or a checkpoint folder)."""
    from tritpack.formats.gguf_reader import GgufFile
    from tritpack.runtime.tokenizer import Tokenizer

    with as_gguf(file) as path:
        yield Tokenizer.from_metadata(GgufFile(path).metadata, path)


def pieces_of(tokenizer: Tokenizer, ids: Sequence[int]) -> list[Piece]:
    """Return the piece of each token."""
    pieces: list[Piece] = []
    for token in ids:
        data = tokenizer.token_bytes(token)
        try:
            pieces.append(data.decode("utf-8"))
        except UnicodeDecodeError:
            pieces.append(list(data))
    return pieces


def shown_piece(piece: Piece) -> str:
    """Return a piece as one word on a screen: quoted text, or bytes such as <E2 96>."""
    if isinstance(piece, str):
        return printable(json.dumps(piece, ensure_ascii=False))
    return f"<{' '.join(f'{byte:02X}' for byte in piece)}>"
