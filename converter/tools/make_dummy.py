"""Checkpoints of a real shape with seeded random weights, to try every tool and benchmark without a download."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tritpack.converter.families.family import family
from tritpack.formats.errors import UsageError, WriteFailed
from tritpack.formats.files import refuse_existing
from tritpack.formats.float_types import narrow_bf16
from tritpack.formats.model_spec import ModelSpec
from tritpack.formats.names import DUMMY_SHAPES
from tritpack.formats.progress import Progress, silent
from tritpack.formats.safetensors_writer import Entry, write_safetensors

SHAPES = dict(zip(DUMMY_SHAPES, (
    ModelSpec("bitnet-b1.58", 128256, 2560, 6912, 30, 20, 5, 128, 4096, 500000.0, 1e-5, "relu2"),
    ModelSpec("bitnet-b1.58", 512, 256, 768, 2, 4, 2, 64, 1024, 500000.0, 1e-5, "relu2"),
)))  # fmt: skip
LEGAL_BYTES = np.array(
    [a | b << 2 | c << 4 | d << 6 for a in range(3) for b in range(3) for c in range(3) for d in range(3)], np.uint8
)
"""The 81 bytes that hold four codes of 0, 1, 2."""
SPECIALS = ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>")
RESERVED = 256
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = (
    "{% for m in messages %}{% set line = m['role'] | capitalize + ': ' + m['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.first %}{% set line = bos_token + line %}{% endif %}{{ line }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"
)


def make_dummy(
    output: str | Path,
    *,
    shape: str | ModelSpec = "bitnet-2b-4t",
    mode: str = "offline",
    seed: int = 0,
    force: bool = False,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Write a checkpoint folder or, for a name ending in .gguf, that checkpoint converted to I2_S.

    shape: one of SHAPES, or the sizes themselves. mode: `offline` packs codes, `online` writes bf16 master weights.
    Returns output, shape, seed and nbytes.
    Raises UsageError if the output exists, WriteFailed.
    """
    target = Path(output)
    spec = shape if isinstance(shape, ModelSpec) else SHAPES[shape]
    shape = shape if isinstance(shape, str) else "of other sizes"
    if target.suffix == ".gguf":
        from tritpack.converter.convert import convert

        refuse_existing(target, force=force)
        with tempfile.TemporaryDirectory(prefix=".tritpack-", dir=target.parent) as folder:
            _write_checkpoint(Path(folder), spec, mode, seed, progress)
            convert(folder, target, force=force, name=f"dummy {shape}")
        return {"output": str(output), "shape": shape, "seed": seed, "nbytes": target.stat().st_size}
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteFailed(f"cannot be made a folder: {error.strerror}", path=target) from error
    if any(target.iterdir()):
        raise UsageError("is not empty", path=target, hint="give the name of a new folder")
    nbytes = _write_checkpoint(target, spec, mode, seed, progress)
    return {"output": str(output), "shape": shape, "seed": seed, "nbytes": nbytes}


def _write_checkpoint(folder: Path, spec: ModelSpec, mode: str, seed: int, progress: Progress) -> int:
    for name, document in _documents(spec, mode, seed).items():
        (folder / name).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")
    drawn = sorted(_entries(spec, mode), key=lambda pair: pair[0].name)
    rng = np.random.Generator(np.random.PCG64(seed))
    entries = [entry for entry, _ in drawn]
    data = (draw(rng, entry.shape) for entry, draw in drawn)
    write_safetensors(folder / "model.safetensors", entries, data, progress=progress)
    return sum(path.stat().st_size for path in folder.iterdir())


Pieces = Iterator[npt.NDArray[Any]]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Pieces]


def _entries(spec: ModelSpec, mode: str) -> Iterator[tuple[Entry, Draw]]:
    names = family("bitnet")
    linears = set(spec.linear_names())
    for name, shape in spec.tensor_shapes().items():
        source = names.source_name(name)
        if name not in linears:
            yield Entry(source, "BF16", shape), _norm if len(shape) == 1 else _embedding
        elif mode == "online":
            yield Entry(source, "BF16", shape), _masters
        else:
            yield Entry(source, "U8", (shape[0] // 4, shape[1])), _packed
            yield Entry(source + "_scale", "BF16", (1,)), functools.partial(_scale, cols=shape[1])


def _norm(rng: np.random.Generator, shape: tuple[int, ...]) -> Pieces:
    return _floats(rng, shape, around=1.0, size=0.05)


def _embedding(rng: np.random.Generator, shape: tuple[int, ...]) -> Pieces:
    return _floats(rng, shape, around=0.0, size=1.0)


def _masters(rng: np.random.Generator, shape: tuple[int, ...]) -> Pieces:
    return _floats(rng, shape, around=0.0, size=0.02)


def _packed(rng: np.random.Generator, shape: tuple[int, ...]) -> Pieces:
    yield LEGAL_BYTES[rng.integers(0, len(LEGAL_BYTES), shape, np.uint8)]


def _scale(rng: np.random.Generator, shape: tuple[int, ...], cols: int) -> Pieces:
    """Yield a scale with which normed inputs give outputs of about unit size, so attention scores stay moderate."""
    yield narrow_bf16((rng.uniform(0.5, 1.5, shape) / np.sqrt(cols * 2 / 3)).astype(np.float32))


def _floats(rng: np.random.Generator, shape: tuple[int, ...], *, around: float, size: float) -> Pieces:
    """Yield bfloat16 normals. What float16 cannot hold exactly is zero, so that `--embedding-type auto` takes f16."""
    rows = shape[0] if len(shape) == 2 else 1
    for first in range(0, rows, 4096):
        values = rng.standard_normal((min(4096, rows - first), shape[-1]), np.float32)
        values = np.float32(around) + values * np.float32(size)
        values[np.abs(values) < 2.0**-14] = 0
        yield narrow_bf16(values)


# -- config and tokenizer ----------------------------------------------------------------------------------------------


def _documents(spec: ModelSpec, mode: str, seed: int) -> dict[str, Any]:
    specials = list(SPECIALS) + [f"<|reserved_special_token_{i}|>" for i in range(RESERVED - len(SPECIALS))]
    specials = specials[: min(RESERVED, spec.vocab_size // 16)]
    base = spec.vocab_size - len(specials)
    bos, eos, eot = base, base + 1, base + 2
    added = [
        {
            "id": base + i,
            "content": text,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for i, text in enumerate(specials)
    ]
    return {
        "config.json": {
            "architectures": ["BitNetForCausalLM"],
            "bos_token_id": bos,
            "eos_token_id": eos,
            "hidden_act": spec.activation,
            "hidden_size": spec.hidden_size,
            "initializer_range": 0.02,
            "intermediate_size": spec.intermediate_size,
            "max_position_embeddings": spec.context_length,
            "model_type": "bitnet",
            "rms_norm_eps": spec.norm_eps,
            "num_attention_heads": spec.heads,
            "num_hidden_layers": spec.layers,
            "num_key_value_heads": spec.kv_heads,
            "rope_theta": spec.rope_theta,
            "tie_word_embeddings": spec.tied,
            "torch_dtype": "bfloat16",
            "use_cache": True,
            "vocab_size": spec.vocab_size,
            "quantization_config": {
                "quant_method": "bitnet",
                "linear_class": "autobitlinear",
                "quantization_mode": mode,
            },
        },
        "generation_config.json": {"bos_token_id": bos, "eos_token_id": [eos, eot]},
        "tokenizer.json": _tokenizer(base, added, bos, seed),
        "tokenizer_config.json": {
            "added_tokens_decoder": {
                str(token["id"]): {k: v for k, v in token.items() if k != "id"} for token in added
            },
            "bos_token": SPECIALS[0],
            "eos_token": SPECIALS[1],
            "chat_template": CHAT_TEMPLATE,
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
        "special_tokens_map.json": {"bos_token": SPECIALS[0], "eos_token": SPECIALS[1]},
    }


def _tokenizer(base: int, added: list[dict[str, Any]], bos: int, seed: int) -> dict[str, Any]:
    """Return a byte-level BPE tokenizer in Llama-3 style with `base` ordinary tokens, from random merges."""
    rng = np.random.Generator(np.random.PCG64(seed))
    # GPT-2's printable stand-ins for the 256 bytes.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {**{byte: chr(byte) for byte in printable}, **{byte: chr(256 + i) for i, byte in enumerate(others)}}
    tokens = {letters[byte]: index for index, byte in enumerate(sorted(letters))}
    parts = [letters[byte] for byte in b" etaoinshrdlucmfwypvbgkqjxz"] * 2 + [letters[byte] for byte in range(128)]
    merges: list[list[str]] = []
    draws: list[float] = []
    while len(tokens) < base:
        draws = draws or rng.random(1 << 16).tolist()
        left, right = (parts[int(draws.pop() * len(parts))] for _ in range(2))
        word = left + right
        if word in tokens or len(word) > 16 or letters[32] in right:
            continue
        tokens[word] = len(tokens)
        merges.append([left, right])
        parts.append(word)
    special = {"id": SPECIALS[0], "ids": [bos], "tokens": [SPECIALS[0]]}
    begin = {"SpecialToken": {"id": SPECIALS[0], "type_id": 0}}
    byte_level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": LLAMA3_SPLIT}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
            ],
        },
        "post_processor": {
            "type": "Sequence",
            "processors": [
                {**byte_level, "trim_offsets": False},
                {
                    "type": "TemplateProcessing",
                    "single": [begin, {"Sequence": {"id": "A", "type_id": 0}}],
                    "pair": [
                        begin,
                        {"Sequence": {"id": "A", "type_id": 0}},
                        begin,
                        {"Sequence": {"id": "B", "type_id": 1}},
                    ],
                    "special_tokens": {SPECIALS[0]: special},
                },
            ],
        },
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,
            "vocab": tokens,
            "merges": merges,
        },
    }
