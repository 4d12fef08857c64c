"""A session's tokens, keys, values and recurrent states in a file, so that a long prompt is evaluated once.

The file belongs to one model file (by its SHA-256), one type of KV cache, one STATE_VERSION and one version of
tritpack. It is a HEADER, the tokens (int32) and the bytes of `CSequence.save`; the header's SHA-256 of everything else
finds damage. Its sizes are compared with the file's before anything is read.
"""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np

from tritpack.formats.errors import Unreadable, UsageError, locating
from tritpack.formats.files import atomic_output
from tritpack.formats.inputs import open_input
from tritpack.formats.names import KV_TYPES

if TYPE_CHECKING:
    from tritpack.runtime.model import Model

STATE_VERSION = 1
"""Of the bytes of a KV cache and of recurrent states. It rises with each change of their order (csrc/kv_cache.h,
csrc/delta_net.c, and cache16.h and cache32.h in csrc/kernels/attention) or of the arithmetic that makes them; a test
holds their hash."""
MAGIC = b"tritpack prompt cache\n"
HEADER = struct.Struct(f"<{len(MAGIC)}s2x I 24s 64s 8s ? 7x Q 32s")
"""MAGIC, then the fields of `_Header`; little-endian."""
DIGEST = 32
"""Bytes of a SHA-256, with which a header ends."""


class _Header(NamedTuple):
    """What a cache is bound to; text is padded with zeros. positions: tokens. digest: SHA-256 of the bytes before
    and after it."""

    state_version: int
    tritpack_version: bytes
    model_sha256: bytes
    kv_type: bytes
    int8_activations: bool
    positions: int
    digest: bytes


def save_prompt_cache(model: Model, path: Path, *, version: str, positions: int | None = None) -> None:
    """Write what the session remembers, or its first `positions`; an existing file is replaced. version: of tritpack.
    Raises WriteFailed."""
    count = len(model.tokens) if positions is None else min(positions, len(model.tokens))
    model.rewind(count)
    model.settle()
    tokens, state = np.array(model.tokens, "<i4"), model.session.own.save()
    head = HEADER.pack(MAGIC, *_header(model, version, count))[:-DIGEST]
    with atomic_output(path, HEADER.size + tokens.nbytes + state.nbytes, force=True) as stream:
        for part in (head, _digest(head, tokens.data, state.data), tokens, state):
            stream.write(part)


def load_prompt_cache(model: Model, path: Path, *, version: str) -> int:
    """Let the session remember what a file has, and return its number of tokens; 0 where there is no such file.

    version: of tritpack. Raises Unreadable for a file that is damaged or not a prompt cache, UsageError for that of
    another model, type of KV cache or version, or if the context is too short.
    """
    if not path.exists():
        return 0
    with open_input(path) as stream, locating(path=path):
        raw = _read(stream, HEADER.size)
        if len(raw) < HEADER.size or not raw.startswith(MAGIC):
            raise Unreadable("is not a prompt cache of tritpack")
        header = _Header(*HEADER.unpack(raw)[1:])
        _refuse_another(header, _header(model, version, header.positions))
        left = os.fstat(stream.fileno()).st_size - HEADER.size
        if header.positions > left // 4:
            raise _damaged(f"{header.positions} tokens do not fit into its {left} bytes")
        if header.positions > model.context_length:
            raise UsageError(
                f"holds {header.positions} tokens, which do not fit into the context of {model.context_length}",
                hint="raise --context, or give --prompt-cache another name",
            )
        expected = 4 * header.positions + model.session.own.state_bytes(header.positions)
        if left != expected:
            raise _damaged(f"{left} bytes follow its header, expected {expected}")
        data = _read(stream, expected)
        if len(data) != expected or header.digest != _digest(raw[:-DIGEST], data):
            raise _damaged("its SHA-256 is not that of its bytes")
        tokens = np.frombuffer(data, "<i4", header.positions)
        state = np.frombuffer(data, np.uint8, offset=tokens.nbytes)
        if len(tokens) and not 0 <= tokens.min() <= tokens.max() < model.spec.vocab_size:
            raise _damaged("it holds a token outside the vocabulary")
        model.reset()
        model.session.own.load(header.positions, state)
        model.tokens.extend(tokens.tolist())
    return header.positions


def _header(model: Model, version: str, count: int) -> _Header:
    """The header of a cache of `count` tokens, without its digest."""
    return _Header(
        STATE_VERSION,
        version.encode().ljust(24, b"\0"),
        model.file.sha256.encode().ljust(64, b"\0"),
        model.kv_type.encode().ljust(8, b"\0"),
        model.spec.int8_activations,
        count,
        b"",
    )


def _read(stream: BinaryIO, count: int) -> bytes:
    try:
        return stream.read(count)
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror or error}") from error


def _digest(*parts: bytes | memoryview) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.digest()


def _damaged(why: str) -> Unreadable:
    return Unreadable(f"is a damaged prompt cache: {why}", hint="remove it; it is made again when it does not exist")


def _refuse_another(header: _Header, expected: _Header) -> None:
    """Raise UsageError with what a cache belongs to, unless it is this model, type of KV cache and version; Unreadable
    where that is nothing at all."""
    kv_type = header.kv_type.rstrip(b"\0").decode("ascii", "replace")
    if kv_type not in KV_TYPES:
        raise _damaged("its header names no type of KV cache")
    if header.model_sha256 != expected.model_sha256:
        owner = "another model file"
    elif header.kv_type != expected.kv_type:
        owner = f"--kv-type {kv_type}"
    elif header[:5] != expected[:5]:
        owner = "another version of tritpack"
    else:
        return
    raise UsageError(
        f"is a prompt cache of {owner}",
        hint="give --prompt-cache another name; the file is made when it does not exist",
    )
