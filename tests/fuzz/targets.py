"""One function per reader: it hands an input to the reader as a user's command would, and returns when all is read.

A TritpackError is a right answer. Anything else that leaves a target is a finding (see watch.py).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from tests.fuzz import bundles, hub_answers
from tests.fuzz.inputs import content, ini, parsed, safetensors, write_folder
from tritpack.converter import vocab
from tritpack.converter.export.export import export
from tritpack.converter.inspect.inspect import inspect
from tritpack.converter.release.bundle.check import check_bundle
from tritpack.converter.release.bundle.extract import extract_bundle
from tritpack.converter.release.bundle.gguf_member import unpacked_gguf
from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.converter.sources.source_model import SourceModel, from_checkpoint, from_gguf
from tritpack.converter.verify.golden import parse_golden
from tritpack.converter.verify.ladder import verify
from tritpack.converter.verify.oracle.judges import read_recorded
from tritpack.converter.verify.oracle.oracle import Oracle
from tritpack.formats import json_text
from tritpack.formats.errors import TritpackError
from tritpack.formats.gguf_reader import GgufFile, ReadOptions
from tritpack.formats.layouts.tiling import read_kernel_config
from tritpack.formats.layouts.tl1 import TL1
from tritpack.formats.layouts.tl2 import TL2
from tritpack.formats.names import READ_AS
from tritpack.formats.safetensors_reader import FLOATS, read_safetensors
from tritpack.runtime.chat import chat_text, parse_messages, render_chat
from tritpack.runtime.model import Model
from tritpack.runtime.prompt_cache import load_prompt_cache
from tritpack.runtime.tokenizer import Tokenizer

GOOD = sorted(Path(__file__).with_name("corpus").joinpath("gguf_used").iterdir())
"""Files that are held against others."""
TEXT = "Hello <|x|> \u00e9\u4e16 12 \n  a"


def gguf(data: bytes, folder: Path) -> None:
    """Open a file in every way that options allow, check and unpack each tensor."""
    path = folder / "m.gguf"
    path.write_bytes(data)
    for options in (ReadOptions(), ReadOptions(read_as=READ_AS[len(data) % len(READ_AS)], repair=True)):
        with contextlib.suppress(TritpackError):
            _check_tensors(GgufFile(path, options))
    json_text.json_text(inspect(path, stats=True, bandwidth=1.0))


def split_set(data: bytes, folder: Path) -> None:
    """Open the parts of a split file: each for itself, and all by the first."""
    write_folder(parsed(data), folder)
    for path in sorted(folder.glob("*.gguf")):
        with contextlib.suppress(TritpackError):
            _check_tensors(GgufFile(path))
        json_text.json_text(inspect(path, stats=True, bandwidth=1.0))


def _check_tensors(file: GgufFile) -> None:
    for tensor in file.tensors.values():
        file.check(tensor)
        with contextlib.suppress(TritpackError):
            file.ternary(tensor)


def gguf_model(data: bytes, folder: Path) -> None:
    """Take a file as a source, and its tokenizer and chat template as a runtime does."""
    path = folder / "m.gguf"
    path.write_bytes(data)
    file = GgufFile(path)
    with contextlib.suppress(TritpackError):
        _read_tensors(from_gguf(file))
    tokenizer = Tokenizer.from_metadata(file.metadata)
    tokenizer.decode(tokenizer.encode(TEXT))
    chat_text(tokenizer, [{"role": "user", "content": TEXT}])


def gguf_used(data: bytes, folder: Path) -> None:
    """Run a file, export it, and hold it against a good file, as FILE of verify and as SOURCE."""
    path = folder / "m.gguf"
    path.write_bytes(data)
    good = GOOD[len(data) % len(GOOD)]
    with contextlib.suppress(TritpackError):
        export(path, folder / "out", storage=("auto", "packed", "master_weights")[len(data) % 3])
    for file, source in ((path, good), (good, path)):
        with contextlib.suppress(TritpackError):
            verify(file, source, level="weights")
    with Model(path, threads=1, context=8) as model:
        model.logits([0, 1, 2])


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
        from_checkpoint(source, "absmean", None)
    _read_tensors(from_checkpoint(source, None, None))


def _read_tensors(model: SourceModel) -> None:
    for tensor in model.tensors.values():
        with contextlib.suppress(TritpackError):
            if tensor.may_be_ternary:
                tensor.scale_grid()
                tensor.ternary()
            else:
                tensor.float_type()
                next(tensor.pieces())
        tensor.release()


def oracle(data: bytes, folder: Path) -> None:
    """Read a checkpoint with the second reader, the one of verify, and compute with it."""
    write_folder(parsed(data), folder)
    oracle = Oracle(folder, quantize="absmean")
    names = [name.removesuffix(".weight") for name in oracle.spec.linear_names()]
    for name in names:
        with contextlib.suppress(TritpackError):
            oracle.linear(name)
            oracle.release(name)
    oracle.outputs([[0, 1]])


def tokenizer(data: bytes, folder: Path) -> None:
    """Describe a folder's tokenizer, then rebuild it from the keys and use it."""
    files = parsed(data)
    write_folder(files, folder)
    documents = [
        files.get(name) if isinstance(files, dict) else {} for name in ("config.json", "generation_config.json")
    ]
    config, generation = (document if isinstance(document, dict) else {} for document in documents)
    metadata = vocab.read_vocabulary(folder, config, generation)
    rebuilt = Tokenizer.from_metadata(metadata)
    rebuilt.decode(rebuilt.encode(TEXT))


def template(data: bytes, folder: Path) -> None:
    """Render a chat with a template of any kind."""
    document = parsed(data)
    document = document if isinstance(document, dict) else {"template": data.decode("utf-8", "replace")}
    messages = parse_messages(json.dumps(document.get("messages", [{"role": "user", "content": "Hi"}])))
    text = document.get("template")
    render_chat(
        text if isinstance(text, str) else "", messages, special_tokens={"bos_token": "<s>", "eos_token": "</s>"}
    )


def option_files(data: bytes, folder: Path) -> None:
    """Read the files that options name: tilings of bitnet.cpp, golden tokens, recorded outputs and prompt caches."""
    document = parsed(data)
    for name, value in document.items() if isinstance(document, dict) else ():
        if (reader := OPTION_FILES.get(name)) is None:
            continue
        path = folder / name
        path.write_bytes(ini(value) if name.endswith(".ini") and isinstance(value, dict) else content(value))
        with contextlib.suppress(TritpackError):
            reader(path)


def _tiled(path: Path) -> None:
    for shape, tiling in read_kernel_config(path).items():
        for layout in (TL1, TL2):
            layout({shape: tiling}).misfit(*shape)


def _recorded(path: Path) -> None:
    spec = SimpleNamespace(vocab_size=2, hidden_size=2, is_embedding_model=False)
    read_recorded(path, [0, 1], cast(Model, SimpleNamespace(spec=spec, context_length=2)))


def cached_model() -> Any:
    """What a prompt cache needs of a model: two tokens fit, of 16 bytes each."""
    own = SimpleNamespace(
        state_bytes=lambda count: 16 * count, load=lambda count, state: None, save=lambda: np.zeros(32, np.uint8)
    )
    return SimpleNamespace(
        file=SimpleNamespace(sha256="0" * 64), kv_type="f32", context_length=2, tokens=[0, 1], reset=lambda: None,
        rewind=lambda count: None, session=SimpleNamespace(own=own),
        spec=SimpleNamespace(vocab_size=2, int8_activations=True),
    )  # fmt: skip


def _prompt_cache(path: Path) -> None:
    load_prompt_cache(cached_model(), path, version="any")


OPTION_FILES: dict[str, Callable[[Path], object]] = {
    "kernel_config.ini": _tiled,
    "golden.json": parse_golden,
    "recorded.npy": _recorded,
    "prompt.cache": _prompt_cache,
}


def hub(data: bytes, folder: Path) -> None:
    """Download a repository from a Hub that answers so."""
    document = parsed(data)
    hub_answers.download(document if isinstance(document, dict) else {"info": data.decode("latin-1")}, folder)


def bundle(data: bytes, folder: Path) -> None:
    """Unpack a bundle, take the GGUF in it, and check it."""
    path = folder / "x.tar.zst"
    document = parsed(data)
    path.write_bytes(bundles.bundle(document) if isinstance(document, dict) else data)
    with contextlib.suppress(TritpackError):
        extract_bundle(path, folder / "out")
    with contextlib.suppress(TritpackError), unpacked_gguf(path, None):
        pass
    json_text.json_text(check_bundle(path).manifest.codes_sha256)


TARGETS: dict[str, Callable[[bytes, Path], Any]] = {
    "gguf": gguf,
    "split_set": split_set,
    "gguf_model": gguf_model,
    "gguf_used": gguf_used,
    "safetensors": safetensors_file,
    "checkpoint": checkpoint,
    "oracle": oracle,
    "tokenizer": tokenizer,
    "template": template,
    "option_files": option_files,
    "hub": hub,
    "bundle": bundle,
}
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
