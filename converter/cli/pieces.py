"""Tokens as the text that they stand for, on a screen and in JSON; and the tokenizer of a file without its model."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tritpack.converter.cli.file_argument import as_gguf
from tritpack.formats.printable import printable

if TYPE_CHECKING:
    from tritpack.runtime.continuation import TokenLogprob
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


def logprob_rows(tokenizer: Tokenizer, logprobs: Sequence[TokenLogprob]) -> list[dict[str, Any]]:
    """Return log-probabilities for JSON: natural logarithms, of the model's own distribution."""
    rows = []
    for row in logprobs:
        (piece,) = pieces_of(tokenizer, [row.id])
        pieces = pieces_of(tokenizer, [token for token, _ in row.top])
        top = [
            {"id": token, "piece": other, "logprob": value}
            for (token, value), other in zip(row.top, pieces, strict=True)
        ]
        rows.append({"id": row.id, "piece": piece, "logprob": row.logprob, "top": top})
    return rows


def logprob_line(tokenizer: Tokenizer, row: TokenLogprob) -> str:
    """Return a line for a screen: log-probability and piece of the token, and those of the likeliest."""
    (piece,) = pieces_of(tokenizer, [row.id])
    top = zip(pieces_of(tokenizer, [token for token, _ in row.top]), row.top, strict=True)
    others = "  ".join(f"{value:.3f} {shown_piece(other)}" for other, (_, value) in top)
    return f"{row.logprob:8.3f}  {shown_piece(piece):<14}  {others}".rstrip()
