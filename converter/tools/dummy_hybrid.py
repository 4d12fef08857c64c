"""Dummies of Ternary-Bonsai 2: the MLX pack of a rotated Qwen3.5 hybrid, schema 2 (converter/sources/hadamard_pack.py).

Scales are such that a normed input gives outputs of about unit size, and those of a block are added to the stream: it
grows with the square root of the layers, and neither dies nor explodes.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tritpack.converter.families.family import family
from tritpack.converter.tools.dummy_tokenizer import special_ids, tokenizer_files
from tritpack.formats.arrays import F32
from tritpack.formats.delta_net import GATES
from tritpack.formats.hadamard import HEAD, TABLE, Rotation
from tritpack.formats.model_spec import ModelSpec
from tritpack.formats.progress import Progress
from tritpack.formats.safetensors_writer import Entry, write_safetensors

GROUP = 128
"""Weights per scale."""
LARGEST_BLOCK = 1024
"""Of the transform, as in the published 27B. A width of 2560 takes 512."""
PREFIX = "language_model.model."
PIECE = 4096
"""Rows that are drawn at once."""
DECAY = (1.0, 16.0)
STEP = (1e-3, 1e-1)
"""Ranges of exp(A_log) and of softplus(dt_bias), in which models of this kind begin their training."""
Draw = Callable[[np.random.Generator], Iterator[npt.NDArray[Any]]]


def write_pack(folder: Path, spec: ModelSpec, seed: int, progress: Progress) -> None:
    """Write the files of a pack into an empty folder. spec: a hybrid, without a rotation. Raises WriteFailed."""
    rotation = _rotation(spec, seed)
    for name, document in {
        "config.json": _config(spec, rotation),
        "hadamard.json": _contract(spec, rotation),
        "generation_config.json": {"eos_token_id": list(special_ids(spec.vocab_size)[1:])},
        **tokenizer_files(spec.vocab_size, seed),
    }.items():
        (folder / name).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")
    drawn = sorted(_entries(spec, rotation), key=lambda pair: pair[0].name)
    # A matrix has a generator of its own, so that its biases are minus its scales.
    data = (draw(_generator(seed, entry.name.rpartition(".")[0])) for entry, draw in drawn)
    write_safetensors(folder / "model.safetensors", [entry for entry, _ in drawn], data, progress=progress)


def _generator(seed: int, stem: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([seed, zlib.crc32(stem.encode())]))


def _source_name(name: str) -> str:
    return family("qwen35").source_name(name, PREFIX)


def _rotation(spec: ModelSpec, seed: int) -> Rotation:
    """Return a rotation of all ternary matrices, in the largest block that divides their widths."""
    shapes = spec.tensor_shapes()
    weights = frozenset(spec.linear_names()) | (frozenset() if spec.tied else {HEAD})
    widths = sorted({shapes[name][1] for name in (*weights, TABLE)})
    block = min(LARGEST_BLOCK, *(width & -width for width in widths))
    rng = _generator(seed, "signs")
    signs = {width: rng.choice(np.array([-1, 1], np.float32), width) for width in widths}
    return Rotation(block, signs, weights, frozenset({TABLE}), grouped_heads=True)


# -- tensors -----------------------------------------------------------------------------------------------------------


def _entries(spec: ModelSpec, rotation: Rotation) -> Iterator[tuple[Entry, Draw]]:
    for name, shape in spec.tensor_shapes().items():
        source = _source_name(name)
        if not rotation.turns(name):
            yield _floats(source, name.rpartition("blk.")[2], shape)
            continue
        stem, (rows, cols) = source.removesuffix("weight"), shape
        groups = (rows, cols // GROUP)
        yield Entry(f"{stem}weight", "U32", (rows, cols // 16)), _codes(rows, cols)
        yield Entry(f"{stem}scales", "F16", groups), _scales(groups, cols, 1)
        yield Entry(f"{stem}biases", "F16", groups), _scales(groups, cols, -1)
        yield Entry(f"{stem}signs", "F32", (cols,)), _constant(rotation.signs[cols])


def _codes(rows: int, cols: int) -> Draw:
    """Draw codes 0, 1 and 2, sixteen a word."""

    def draw(rng: np.random.Generator) -> Iterator[npt.NDArray[Any]]:
        legal = np.array([byte for byte in range(256) if not byte & byte >> 1 & 0x55], np.uint8)
        for first in range(0, rows, PIECE):
            yield legal[rng.integers(0, len(legal), (min(PIECE, rows - first), cols // 4), np.uint8)].view("<u4")

    return draw


def _scales(groups: tuple[int, int], cols: int, sign: int) -> Draw:
    def draw(rng: np.random.Generator) -> Iterator[npt.NDArray[Any]]:
        yield (rng.uniform(0.5, 1.5, groups) * (sign / np.sqrt(cols * 2 / 3))).astype(np.float16)

    return draw


def _constant(values: F32) -> Draw:
    return lambda rng: iter([values])


def _floats(source: str, name: str, shape: tuple[int, ...]) -> tuple[Entry, Draw]:
    """A tensor that is no rotated matrix. name: its GGUF name without `blk.`."""
    part = name.removesuffix(".weight").rpartition(".")[2] if not name.endswith(".ssm_dt.bias") else "ssm_dt"
    if part == "ssm_conv1d":
        return Entry(source, "F16", (*shape, 1)), _normals(shape, 0.0, 1 / np.sqrt(shape[1]), np.float16)
    if part in GATES:
        return Entry(source, "F16", shape), _normals(shape, 0.0, 1 / np.sqrt(shape[1]), np.float16)
    if part == "ssm_a":
        return Entry(source, "F32", shape), _uniform(shape, *DECAY, np.log)
    if part == "ssm_dt":
        return Entry(source, "F32", shape), _uniform(shape, *STEP, lambda values: np.log(np.expm1(values)))
    return Entry(source, "F32", shape), _normals(shape, 1.0, 0.05, np.float32)


def _normals(shape: tuple[int, ...], around: float, size: float, dtype: type[np.floating[Any]]) -> Draw:
    return lambda rng: iter([(around + size * rng.standard_normal(shape, np.float32)).astype(dtype)])


def _uniform(shape: tuple[int, ...], low: float, high: float, then: Callable[[Any], Any]) -> Draw:
    return lambda rng: iter([then(rng.uniform(low, high, shape)).astype(np.float32)])


# -- config.json and hadamard.json -------------------------------------------------------------------------------------


def _contract(spec: ModelSpec, rotation: Rotation) -> dict[str, Any]:
    """Return hadamard.json: the keys of a GGUF file, with the names of the pack."""
    pairs: dict[str, Any] = rotation.to_metadata(spec.tensor_shapes())
    for key, value in pairs.items():
        if key.endswith("weight_names"):
            pairs[key] = [_source_name(name) for name in value]
        elif isinstance(value, np.ndarray):
            pairs[key] = value.tolist()
    return pairs


def _config(spec: ModelSpec, rotation: Rotation) -> dict[str, Any]:
    matrices = [name for name in spec.tensor_shapes() if rotation.turns(name)]
    modules = [
        {
            "path": _source_name(name).removeprefix("language_model.").removesuffix(".weight"),
            "block": rotation.block,
            "embedding": name in rotation.tables,
            "dtype": "float16",
        }
        for name in matrices
    ]
    return {
        "schema_version": 2,
        "model_type": "prism_hadamard_qwen35",
        "base_model_type": "qwen3_5",
        "requires_runtime": "runtime/artifact.py",
        "hadamard_config": "hadamard.json",
        "tensor_namespace": "mlx-vlm-qwen3_5",
        "gdn_activation_layout": "grouped",
        "quantization": {"bits": 2, "group_size": GROUP, "mode": "affine"},
        "modules": modules,
        "text_config": _text_config(spec),
        "tie_word_embeddings": spec.tied,
        "eos_token_id": list(special_ids(spec.vocab_size)[1:]),
    }


def _text_config(spec: ModelSpec) -> Mapping[str, Any]:
    net = spec.delta_net
    assert net is not None
    factor = spec.rope_width / spec.head_dim
    rotary = {"rope_type": "default", "rope_theta": spec.rope_theta, "partial_rotary_factor": factor,
              "mrope_interleaved": True, "mrope_section": list(spec.rope_sections[:3])}  # fmt: skip
    return {
        "model_type": "qwen3_5_text",
        "attn_output_gate": True,
        "bos_token_id": special_ids(spec.vocab_size)[0],
        "eos_token_id": special_ids(spec.vocab_size)[1],
        "head_dim": spec.head_dim,
        "hidden_act": spec.activation,
        "hidden_size": spec.hidden_size,
        "intermediate_size": spec.intermediate_size,
        "layer_types": ["linear_attention" if recurs else "full_attention" for recurs in net.recurrent],
        "linear_conv_kernel_dim": net.conv_taps,
        "linear_key_head_dim": net.state_size,
        "linear_value_head_dim": net.state_size,
        "linear_num_key_heads": net.key_heads,
        "linear_num_value_heads": net.value_heads,
        "mamba_ssm_dtype": "float32",
        "max_position_embeddings": spec.context_length,
        "num_attention_heads": spec.heads,
        "num_hidden_layers": spec.layers,
        "num_key_value_heads": spec.kv_heads,
        "partial_rotary_factor": factor,
        "rms_norm_eps": spec.norm_eps,
        "rope_parameters": rotary,
        "tie_word_embeddings": spec.tied,
        "vocab_size": spec.vocab_size,
    }
