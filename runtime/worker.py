"""The process in which the programs of a file run: its tokenizer and its chat templates.

untrusted.py starts it once, and sends requests through a pipe. Whatever such a program does (it never ends, it takes
all memory, it aborts or panics in a library) ends this process and not the user's.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import struct
import time
from collections.abc import Callable
from typing import Any, BinaryIO

from tritpack.formats.errors import MissingRequirement, TritpackError, Unreadable, UsageError

try:
    import resource
except ImportError:  # Windows, where only time is limited
    resource = None  # type: ignore[assignment]

HEADER = struct.Struct("<QdQ")
"""Before a request: its bytes; the seconds of CPU time and the bytes of memory that the process may have in all."""
LENGTH = struct.Struct("<Q")
"""Before a reply: its bytes."""

_tokenizers: dict[int, Any] = {}  # by the key that the parent chose


def main() -> None:
    """Answer requests on standard input until its end."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "r+b") as nothing:  # what a library prints must not get among the replies
        for stream in (0, 1):
            os.dup2(nothing.fileno(), stream)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which then closes the pipe
    if resource is not None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    with contextlib.suppress(ImportError):  # the request that needs it says so
        import tokenizers  # noqa: F401 (now, while the parent prepares its first request)
    gc.set_threshold(100_000)  # see converter/cli/main.py
    begin = time.process_time()
    while header := requests.read(HEADER.size):
        size, seconds, memory = HEADER.unpack(header)
        _limit(begin + seconds, memory)
        _send(replies, _reply(requests, size))


def _limit(seconds: float, memory: int) -> None:
    """Let the system end this process after `seconds` of CPU time, and refuse it more than `memory` bytes."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, max(seconds - time.process_time(), 0.001))
    if resource is not None:
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        soft = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
        with contextlib.suppress(OSError, ValueError):  # macOS knows this limit and refuses it
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _reply(requests: BinaryIO, size: int) -> bytes:
    """Read one request and return its reply: {"value": ...}, or {"error": class, "message": ..., "hint": ...}."""
    try:
        operation, arguments = json.loads(requests.read(size))
        return json.dumps({"value": OPERATIONS[operation](*arguments)}).encode()
    except TritpackError as error:
        parts = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
    except MemoryError:
        parts = {"error": "MemoryError"}
    except Exception as error:
        parts = {"error": "ValueError", "message": str(error)}
    except BaseException as error:  # a panic of a library in Rust is no Exception
        parts = {"error": "Unreadable", "message": f"the tokenizer cannot process this text: {error}"}
    return json.dumps(parts).encode()


def _send(replies: BinaryIO, reply: bytes) -> None:
    replies.write(LENGTH.pack(len(reply)))
    replies.write(reply)
    replies.flush()


def import_tokenizers() -> Any:
    """Import the `tokenizers` module. Raises MissingRequirement with the command that installs it."""
    try:
        import tokenizers
    except ImportError as exc:
        raise MissingRequirement(
            "reading text needs the Python package tokenizers, which is not installed", hint="pip install tokenizers"
        ) from exc
    return tokenizers


def _render(template: str, names: dict[str, Any], longest: int) -> str:
    try:
        import jinja2
    except ImportError as exc:
        raise MissingRequirement(
            "chat templates need the Python package jinja2, which is not installed", hint="pip install jinja2"
        ) from exc
    if tuple(int(part) for part in jinja2.__version__.split(".")[:3] if part.isdigit()) < (3, 1, 6):
        raise MissingRequirement(
            f"chat templates need jinja2 3.1.6 or later, {jinja2.__version__} is installed",
            hint="pip install --upgrade jinja2",
        )
    from tritpack.runtime.template_sandbox import render

    return render(template, names, longest)


def _build(key: int, document: str) -> None:
    _tokenizers[key] = import_tokenizers().Tokenizer.from_str(document)


def _drop(keys: list[int]) -> None:
    for key in keys:
        _tokenizers.pop(key, None)


def _encode(key: int, texts: list[str], add_special: bool, as_text: bool, most: int) -> list[list[int]]:
    """The ids of each text. as_text: special tokens inside a text are ordinary text. most: ids of all texts."""
    tokenizer = _tokenizers[key]
    tokenizer.encode_special_tokens = as_text
    ids: list[list[int]] = []
    for text in texts:
        try:
            ids.append(tokenizer.encode(text, add_special_tokens=add_special).ids)
        except (UnicodeEncodeError, TypeError) as exc:
            at, char = next((at, char) for at, char in enumerate(text, 1) if "\ud800" <= char <= "\udfff")
            raise UsageError(
                f"the text is not valid Unicode: its character {at} is U+{ord(char):04X}, half of a surrogate pair",
                hint="give UTF-8 text",
            ) from exc
        most -= len(ids[-1])
        if most < 0:
            raise Unreadable(f"the tokenizer makes {len(ids[-1])} tokens of {len(text)} characters")
    return ids


def _added(key: int) -> dict[int, list[Any]]:
    decoder = _tokenizers[key].get_added_tokens_decoder()
    flags = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
    return {i: [getattr(token, flag) for flag in flags] for i, token in decoder.items()}


def _add(key: int, method: str, tokens: list[dict[str, Any]]) -> None:
    make = import_tokenizers().AddedToken
    getattr(_tokenizers[key], method)([make(**fields) for fields in tokens])


def _set_part(key: int, part: str, value: Any) -> None:
    document = {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {}, "merges": []}, part: value}
    setattr(_tokenizers[key], part, getattr(import_tokenizers().Tokenizer.from_str(json.dumps(document)), part))


def _split(key: int, texts: list[str]) -> list[list[str]] | None:
    splitter = _tokenizers[key].pre_tokenizer
    return None if splitter is None else [[piece for piece, _ in splitter.pre_tokenize_str(text)] for text in texts]


def _whole(key: int) -> None:
    _tokenizers[key].no_truncation()
    _tokenizers[key].no_padding()


OPERATIONS: dict[str, Callable[..., Any]] = {
    "render": _render,
    "build": _build,
    "drop": _drop,
    "encode": _encode,
    "decode": lambda key, ids: _tokenizers[key].decode(ids, skip_special_tokens=False),
    "ids_of": lambda key, tokens: [_tokenizers[key].token_to_id(token) for token in tokens],
    "document": lambda key: _tokenizers[key].to_str(),
    "added": _added,
    "add": _add,
    "set_part": _set_part,
    "split": _split,
    "whole": _whole,
}
