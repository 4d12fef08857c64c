"""One function per reader: it hands an input to the reader as a user's command would, and returns when all is read.

A TritpackError is a right answer. Anything else that leaves a target is a finding (see watch.py).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fuzz import hub_answers
from tests.fuzz.inputs import parsed, safetensors, write_folder
from tritpack.converter import vocab
from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.converter.sources.source_model import from_checkpoint, from_gguf
from tritpack.converter.tools.inspect import inspect
from tritpack.formats import json_text
from tritpack.formats.errors import TritpackError
from tritpack.formats.gguf_reader import GgufFile, ReadOptions
from tritpack.formats.names import READ_AS
from tritpack.formats.safetensors_reader import FLOATS, read_safetensors
from tritpack.runtime.chat import chat_text, parse_messages, render_chat
from tritpack.runtime.tokenizer import Tokenizer

TEXT = "Hello <|x|> \u00e9\u4e16 12 \n  a"


def gguf(data: bytes, folder: Path) -> None:
    """Open a file in every way that options allow, check and unpack each tensor."""
    path = folder / "m.gguf"
    path.write_bytes(data)
    for options in (ReadOptions(), ReadOptions(read_as=READ_AS[len(data) % len(READ_AS)], repair=True)):
        with contextlib.suppress(TritpackError):
            file = GgufFile(path, options)
            for tensor in file.tensors.values():
                file.check(tensor)
                with contextlib.suppress(TritpackError):
                    file.ternary(tensor)
    json_text.json_text(inspect(path, stats=True))


def gguf_model(data: bytes, folder: Path) -> None:
    """Take a file as a source, and its tokenizer and chat template as a runtime does."""
    path = folder / "m.gguf"
    path.write_bytes(data)
    file = GgufFile(path)
    with contextlib.suppress(TritpackError):
        from_gguf(file, hashed=False)
    tokenizer = Tokenizer.from_metadata(file.metadata)
    tokenizer.decode(tokenizer.encode(TEXT))
    chat_text(tokenizer, [{"role": "user", "content": TEXT}])


def safetensors_file(data: bytes, folder: Path) -> None:
    """Read a file, and the floats of each tensor."""
    document = parsed(data)
    path = folder / "model.safetensors"
    path.write_bytes(safetensors(document) if isinstance(document, dict) else data)
    tensors, _ = read_safetensors(path)
    for tensor in tensors:
        if tensor.dtype in FLOATS:
            tensor.rows_f32(0, min(tensor.rows, 4))
        tensor.release()


def checkpoint(data: bytes, folder: Path) -> None:
    """Recognise a checkpoint and decode its tensors."""
    write_folder(parsed(data), folder)
    source = CheckpointFolder(folder)
    with contextlib.suppress(TritpackError):
        from_checkpoint(source, None, None, hashed=False)
    from_checkpoint(source, "absmean", None, hashed=False)


def tokenizer(data: bytes, folder: Path) -> None:
    """Describe a folder's tokenizer, then rebuild it from the keys and use it."""
    files = parsed(data)
    write_folder(files, folder)
    config, generation = ({}, {}) if not isinstance(files, dict) else (files.get("config.json"), files.get("g"))
    config, generation = (value if isinstance(value, dict) else {} for value in (config, generation))
    metadata = vocab.read_vocabulary(folder, config, generation)
    rebuilt = Tokenizer.from_metadata(metadata)
    rebuilt.decode(rebuilt.encode(TEXT))


def template(data: bytes, folder: Path) -> None:
    """Render a chat with a template of any kind."""
    document = parsed(data)
    document = document if isinstance(document, dict) else {"template": data.decode("utf-8", "replace")}
    messages = parse_messages(json.dumps(document.get("messages", [{"role": "user", "content": "Hi"}])))
    text = document.get("template")
    render_chat(text if isinstance(text, str) else "", messages, special_tokens={"bos_token": "<s>"})


def hub(data: bytes, folder: Path) -> None:
    """Download a repository from a Hub that answers so."""
    document = parsed(data)
    hub_answers.download(document if isinstance(document, dict) else {"info": data.decode("latin-1")}, folder)


TARGETS: dict[str, Callable[[bytes, Path], Any]] = {
    "gguf": gguf,
    "gguf_model": gguf_model,
    "safetensors": safetensors_file,
    "checkpoint": checkpoint,
    "tokenizer": tokenizer,
    "template": template,
    "hub": hub,
}
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
