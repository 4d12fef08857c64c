"""Checkpoints of a real shape with seeded random weights, to try every tool and benchmark without a download."""

from __future__ import annotations

import dataclasses
import functools
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tritpack.converter.families.family import family
from tritpack.converter.tools.dummy_hybrid import write_pack
from tritpack.converter.tools.dummy_tokenizer import special_ids, tokenizer_files
from tritpack.formats.delta_net import DeltaNet
from tritpack.formats.errors import UsageError, WriteFailed
from tritpack.formats.files import refuse_existing
from tritpack.formats.float_types import narrow_bf16
from tritpack.formats.model_spec import HYBRID, ModelSpec
from tritpack.formats.names import DUMMY_MODES, DUMMY_SHAPES
from tritpack.formats.progress import Progress, silent
from tritpack.formats.safetensors_writer import Entry, write_safetensors


def _hybrid(sizes: ModelSpec, key_heads: int, value_heads: int, sections: tuple[int, ...]) -> ModelSpec:
    """The shape of a Ternary-Bonsai 2 with these sizes: every fourth layer attends, RoPE turns a quarter of a head."""
    net = DeltaNet(key_heads, value_heads, 128, 4, tuple((layer + 1) % 4 != 0 for layer in range(sizes.layers)))
    return dataclasses.replace(
        sizes, sub_norms=False, qk_norms=True, int8_activations=False, rotary_dim=sizes.head_dim // 4,
        rope_sections=sections, delta_net=net,
    )  # fmt: skip


SHAPES = dict(zip(DUMMY_SHAPES, (
    ModelSpec("bitnet-b1.58", 128256, 2560, 6912, 30, 20, 5, 128, 4096, 500000.0, 1e-5, "relu2"),
    ModelSpec("bitnet-b1.58", 512, 256, 768, 2, 4, 2, 64, 1024, 500000.0, 1e-5, "relu2"),
    _hybrid(ModelSpec(HYBRID, 248320, 2560, 9216, 32, 16, 4, 256, 262144, 1e7, 1e-6, "silu"), 16, 32, (11, 11, 10, 0)),
    _hybrid(ModelSpec(HYBRID, 512, 512, 1024, 4, 4, 2, 128, 262144, 1e7, 1e-6, "silu"), 2, 4, (6, 5, 5, 0)),
)))  # fmt: skip
MEMORY = 4 << 30
"""Bytes that a conversion may take: the codes of a ternary table of 248,320 rows are unpacked at once."""
LEGAL_BYTES = np.array(
    [a | b << 2 | c << 4 | d << 6 for a in range(3) for b in range(3) for c in range(3) for d in range(3)], np.uint8
)
"""The 81 bytes that hold four codes of 0, 1, 2."""


def make_dummy(
    output: str | Path,
    *,
    shape: str | ModelSpec = "bitnet-2b-4t",
    mode: str = "offline",
    seed: int = 0,
    force: bool = False,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Write a checkpoint folder or, for a name ending in .gguf, that checkpoint converted: to I2_S, and hybrids to T2.

    shape: one of SHAPES, or the sizes themselves. mode: `offline` packs codes, `online` writes bf16 master weights,
    which hybrids do not have: their folder is an MLX pack. Returns output, shape, seed and nbytes.
    Raises UsageError if the output exists or for master weights of a hybrid, WriteFailed.
    """
    target = Path(output)
    spec = shape if isinstance(shape, ModelSpec) else SHAPES[shape]
    shape = shape if isinstance(shape, str) else "of other sizes"
    if spec.delta_net and mode != DUMMY_MODES[0]:
        raise UsageError(f"a hybrid is written with packed codes alone, not {mode}", hint="omit --mode")
    if target.suffix == ".gguf":
        from tritpack.converter.convert import convert

        refuse_existing(target, force=force)
        with tempfile.TemporaryDirectory(prefix=".tritpack-", dir=target.parent) as folder:
            _write_checkpoint(Path(folder), spec, mode, seed, progress)
            convert(folder, target, force=force, name=f"dummy {shape}", max_memory=MEMORY)
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
    if spec.delta_net:
        write_pack(folder, spec, seed, progress)
        return sum(path.stat().st_size for path in folder.iterdir())
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


def _documents(spec: ModelSpec, mode: str, seed: int) -> dict[str, Any]:
    bos, eos, eot = special_ids(spec.vocab_size)
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
        **tokenizer_files(spec.vocab_size, seed),
    }
