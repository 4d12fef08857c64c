"""model.json: what the page knows of a model, so that it needs no second reader of GGUF.

`structs` are those of the C library, in base64, with offsets in place of pointers (runtime/dump.py). `golden` has what
the native library computes for a prompt; `probes` have token ids that the page's tokenizer must reproduce; `modules`
are the SHA-256 of what runs in the page.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from tritpack.converter.release.attestation import attestation_name, read_attestation
from tritpack.converter.version import VERSION
from tritpack.converter.vocab.probes import awkward_texts
from tritpack.converter.web.image import Image
from tritpack.formats.errors import TritpackError, Unsupported, UsageError
from tritpack.formats.model_spec import ModelSpec
from tritpack.formats.printable import printable
from tritpack.runtime.abi import ABI_VERSION
from tritpack.runtime.chat import chat_ids
from tritpack.runtime.dump import flat_structs
from tritpack.runtime.model import Model
from tritpack.runtime.token_bytes import cache_bytes
from tritpack.runtime.tokenizer import Tokenizer

SCHEMA = "tritpack.web/1"
GOLDEN_PROMPT = "Once upon a time there was a little"
GOLDEN_TOKENS = 16
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""How ByteLevel splits (its use_regex in the tokenizers library)."""
PROBES = 40
LARGEST_MEMORY = 65535 << 16
"""Bytes of a WebAssembly memory with addresses of 32 bits."""
BATCH = 72
"""Tokens that the page works on at once (BATCH in runtime/web/engine/native.js)."""
MANY_SCORES = 320 << 10
"""Scores that a thread of attention.c keeps at least."""
MODULE_BYTES = 6 << 20
"""The module's data and stack, and what its allocator needs besides."""
SAMPLING = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repeat_penalty": "repeat_penalty",
}
"""Options of `generate` -> the names that the page shares with HTTP APIs."""
PAGE_SAMPLING = {"temperature": 0.7, "top_k": 40, "top_p": 0.95, "min_p": 0.0, "repeat_penalty": 1.1}
"""What the page takes where the file says nothing: a greedy chat of a small model soon repeats itself."""


def describe(model: Model, image: Image, name: str, kv_type: str) -> dict[str, Any]:
    """Return model.json but for the parts and the tokenizer. Raises Unsupported for a hybrid, and for a model that is
    too large for a WebAssembly memory."""
    if model.spec.delta_net:
        raise Unsupported("has recurrent layers, and a page cannot go back in them yet", path=model.file.path)
    flat = flat_structs(model, image.offset_of)
    session, per_thread = session_bytes(model.spec, model.context_length, kv_type)
    memory = MODULE_BYTES + image.size + session
    if memory > LARGEST_MEMORY:
        raise Unsupported(
            f"needs {memory / 1e9:.2f} GB of memory with a context of {model.context_length} tokens, and a page can "
            f"have {LARGEST_MEMORY / 1e9:.2f} GB",
            path=model.file.path,
            hint="give a smaller --context, or --kv-type i16; or repack the file to t158 with a q4_k embedding",
        )
    return {
        "schema": SCHEMA,
        "abi": ABI_VERSION,
        "name": name,
        "file": describe_file(model),
        "context": model.context_length,
        "kv_type": kv_type,
        "memory": memory,
        "memory_per_thread": per_thread,
        "structs": {
            "hparams": _base64(flat.hparams),
            "frequencies": [_base64(data) for data in flat.frequencies],
            "layers": _base64(flat.layers),
            "ends": _base64(flat.ends),
        },
        "sampling": sampling_of(model),
        "golden": golden(model),
    }


def describe_file(model: Model) -> dict[str, Any]:
    """Return what "About this file" shows of the file itself."""
    file = model.file
    ternary = [tensor for tensor in file.tensors.values() if file.layout_of(tensor)]
    weights = sum(tensor.rows * tensor.cols for tensor in ternary)
    return {
        "file": printable(file.path.name),
        "size": sum(map(len, file.mapped)),
        "sha256": file.sha256,
        "layout": ", ".join(dict.fromkeys(tensor.layout for tensor in ternary)),
        "ternary_bits": round(8 * sum(tensor.nbytes for tensor in ternary) / weights, 2),
        "embedding": file.tensors["token_embd.weight"].layout,
        "parameters": sum(tensor.rows * tensor.cols for tensor in file.tensors.values()),
        "attestation": _attestation(model),
        "version": VERSION,
    }


def _attestation(model: Model) -> dict[str, Any] | None:
    path = attestation_name(model.file.path)
    if not path.is_file():
        return None
    attestation = read_attestation(path)
    subjects = {subject["digest"]["sha256"] for subject in attestation.document["subject"]}
    source = attestation.predicate["source"]
    return {
        "verdict": attestation.predicate["verdict"],
        "source": source.get("repository") or f"a checkpoint with SHA-256 {source['sha256'][:12]}...",
        "matches": set(model.file.file_hashes.values()) <= subjects,
    }


def sampling_of(model: Model) -> dict[str, Any]:
    """Return the sampling that the page begins with."""
    return {**PAGE_SAMPLING, **{SAMPLING[name]: value for name, value in model.sampling_defaults.items()}}


def golden(model: Model) -> dict[str, Any]:
    """Run the golden prompt: greedy tokens, and the SHA-256 of the logits (float32) of every position on the way.
    Raises UsageError for a context that is too short for it."""
    ids = model.tokenize(GOLDEN_PROMPT)
    if len(ids) + GOLDEN_TOKENS > model.context_length:
        raise UsageError(
            f"a context of {model.context_length} tokens is too short to prove what the page computes, which takes "
            f"{len(ids) + GOLDEN_TOKENS} tokens",
            path=model.file.path,
            hint=f"give --context {len(ids) + GOLDEN_TOKENS} or more",
        )
    logits = model.logits(ids)
    digest, greedy = hashlib.sha256(logits.tobytes()), []
    for _ in range(GOLDEN_TOKENS):
        greedy.append(int(np.argmax(logits[-1])))
        logits = model.eval(greedy[-1:])[None]
        digest.update(logits.tobytes())
    return {"text": GOLDEN_PROMPT, "prompt": ids, "greedy": greedy, "sha256": digest.hexdigest()}


def session_bytes(spec: ModelSpec, context: int, kv_type: str) -> tuple[int, int]:
    """Return the bytes of a session in the page, and those that each more thread takes: caches, activations, scratch.

    It is an estimate from above of what session.c allocates; the page may grow by what it misses.
    """
    cache = (context + 64) * cache_bytes(spec, kv_type)
    q_cols, kv_cols = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
    widest = max(spec.hidden_size, spec.intermediate_size, q_cols)
    rows = spec.hidden_size + widest + q_cols + kv_cols + spec.intermediate_size + spec.head_dim
    activations = BATCH * (8 * rows + 6 * (widest + 256))
    attention = 4 * _attention_floats(spec, context)
    scratch = 64 * (widest + 256) + attention + 4 * widest + (1 << 19)
    logits = 4 * spec.vocab_size * (2 + BATCH)
    return cache + activations + logits + scratch, scratch


def _attention_floats(spec: ModelSpec, context: int) -> int:
    """Return the floats that attention takes per thread: tp_attention_floats in runtime/csrc/attention.c."""
    group = spec.heads // spec.kv_heads
    few, many = (group * max(1, rows // group) for rows in (16, 64))
    stride = -(-context // 16) * 16 + 16
    row = 2 * spec.head_dim + 64
    return max(few * (stride + row), MANY_SCORES + many * row)


def text_files(tokenizer: Tokenizer, folder: Path) -> dict[str, Any]:
    """Write tokenizer.json and tokens.bin (where each token's bytes start, uint32, then the bytes); return the part
    `text` of model.json. Raises Unsupported for a tokenizer that the page cannot follow."""
    if tokenizer.splits_specials:
        raise Unsupported(
            "its tokenizer splits the text of special tokens (split_special_tokens); that of the page cannot do so",
            path=tokenizer.path,
        )
    pieces = [tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)]
    starts = np.cumsum([0, *map(len, pieces)])
    tokens = struct.pack(f"<{len(starts)}I", *starts) + b"".join(pieces)
    parts = tokenizer.backend.document()
    parts = {**parts, "pre_tokenizer": spelled_out(parts.get("pre_tokenizer"))}
    document = json.dumps(parts, ensure_ascii=False, separators=(",", ":")).encode()
    return {
        "tokenizer": _written(folder / "tokenizer.json", document),
        "pieces": _written(folder / "tokens.bin", tokens),
        "tokens": tokenizer.vocab_size,
        "bos_id": tokenizer.bos_id,
        "stop_ids": sorted(tokenizer.stop_ids),
        "control_ids": [i for i in range(tokenizer.vocab_size) if tokenizer.is_control(i)],
        "special_tokens": tokenizer.special_tokens,
        "chat_template": tokenizer.chat_template,
        "probes": _probes(tokenizer),
        "chat_probe": _chat_probe(tokenizer),
    }


def spelled_out(part: Any) -> Any:
    """Return a pre-tokenizer that has no pattern of its own: ByteLevel's is a Split before it. The page's library gives
    classes such as \\s the meaning that they have here only in patterns that the document holds."""
    if not isinstance(part, dict):
        return part
    if part.get("type") == "Sequence":
        return {**part, "pretokenizers": [spelled_out(step) for step in part["pretokenizers"]]}
    if part.get("type") != "ByteLevel" or not part.get("use_regex", True) or part.get("add_prefix_space", True):
        return part
    split = {"type": "Split", "pattern": {"Regex": GPT2}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, {**part, "use_regex": False}]}


def _probes(tokenizer: Tokenizer) -> list[tuple[str, list[int]]]:
    texts = [GOLDEN_PROMPT, *awkward_texts()[:PROBES]]
    return list(zip(texts, tokenizer.encode_batch(texts), strict=True))


def _chat_probe(tokenizer: Tokenizer) -> dict[str, Any] | None:
    """Return a chat and its ids, None without a template or with one that tells the day. A turn of the system is part
    of it where the template takes one. Raises Unsupported for a template that fails."""
    if not tokenizer.chat_template or "strftime_now" in tokenizer.chat_template:
        return None
    messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Yes?"}]
    messages.append({"role": "user", "content": " A b.\n"})
    with_system = [{"role": "system", "content": "Be kind."}, *messages]
    try:
        return {"messages": with_system, "ids": chat_ids(tokenizer, with_system)}
    except TritpackError:
        return {"messages": messages, "ids": chat_ids(tokenizer, messages)}


def _written(path: Path, data: bytes) -> dict[str, Any]:
    path.write_bytes(data)
    return {"url": path.name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
