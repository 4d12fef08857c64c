"""Mistakes that engines make, made by our own runtime on the same file, so that an engine's answers can be held
against each of them.

A mistake is a change of what the file says: the runtime then computes what an engine computes that does not read it.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from tritpack.converter.repack import repack
from tritpack.formats.arrays import F32
from tritpack.formats.errors import TritpackError
from tritpack.formats.gguf_reader import GgufFile, TensorInfo
from tritpack.formats.hadamard import PREFIX, Rotation
from tritpack.formats.model_spec import INTERLEAVED_ROPE, SUB_NORMS, ModelSpec
from tritpack.formats.names import ACTIVATIONS, READ_AS
from tritpack.runtime.model import Model

ACTIVATION_NAMES = {"relu2": "squared ReLU", "silu": "SiLU", "gelu_pytorch_tanh": "GELU"}
ORDERS = {
    "i2_s_arm": "it reads the blocks of i2_s in bitnet.cpp's order for ARM, 64 weights instead of 128",
    "i2_s_rows4": "it reads i2_s in bitnet.cpp's order of four rows",
}
DEFAULT_THETA = 10000.0

Edit = Callable[[GgufFile], None]


@dataclasses.dataclass(frozen=True)
class Mistake:
    """What an engine may do wrong. reason: with the engine as `it`. kind: one word for code. edit: makes the mistake in
    a file that is opened for it. read_as: the order of bytes in which i2_s is read, one of names.READ_AS."""

    kind: str
    reason: str
    edit: Edit = lambda file: None
    read_as: str | None = None


def mistakes(file: GgufFile, spec: ModelSpec) -> Iterator[Mistake]:
    """Yield each mistake that changes what this model computes, the likeliest first."""
    if spec.rotation:
        yield from _mistakes_of_rotations(spec.rotation)
    for activation in ACTIVATIONS:
        if activation != spec.activation:
            names = f"{ACTIVATION_NAMES[activation]} instead of {ACTIVATION_NAMES[spec.activation]}"
            yield Mistake("activation", f"it computes {names}", _setting(spec, "hidden_activation", activation))
    if any(tensor.layout == "i2_s" for tensor in file.tensors.values()):
        for order in READ_AS:
            yield Mistake("block_order", ORDERS[order], read_as=order)
    if not spec.tied:
        yield Mistake("head", "it takes the embedding for the output head", _without("output.weight"))
    if any(name.endswith(".scale") for name in file.tensors):
        yield Mistake("scales", "it ignores the scales in the tensors NAME.scale", _without(".scale"))
        reason = "it multiplies by the tensor attn_output.scale twice"
        yield Mistake("scale_twice", reason, _scale_twice("attn_output"))
    if spec.sub_norms:
        without = _without(*(f".{norm}.weight" for norm in SUB_NORMS))
        yield Mistake("sub_norms", "it leaves out the norms before attn_output and ffn_down", without)
    other = "qwen3" if spec.architecture in INTERLEAVED_ROPE else "llama"
    yield Mistake("rotary_pairs", "it rotates other pairs of values (rope)", _as_architecture(spec, other))
    if spec.rope_theta != DEFAULT_THETA:
        reason = f"it rotates with the base {DEFAULT_THETA:.0f} instead of {spec.rope_theta:.0f} (rope.freq_base)"
        yield Mistake("rotary_base", reason, _setting(spec, "rope.freq_base", DEFAULT_THETA))


def _mistakes_of_rotations(rotation: Rotation) -> Iterator[Mistake]:
    reason = "it does not know the rotated basis (prism.hadamard.*)"
    yield Mistake("rotation", reason, _without_keys(PREFIX))
    if rotation.tables:
        reason = "it does not rotate the rows of the embedding back"
        yield Mistake("embedding_inverse", reason, _without_keys(f"{PREFIX}inverse_weight_names"))
    if rotation.grouped_heads:
        reason = "it takes the columns of ssm_out for tiled ones (prism.hadamard.gdn_v_grouped)"
        yield Mistake("value_heads", reason, _without_keys(f"{PREFIX}gdn_v_grouped"))


def logits_with(mistake: Mistake, file: GgufFile, tokens: Sequence[int], threads: int | None) -> F32 | None:
    """Return our logits, float32 (tokens, vocab), of a runtime that makes a mistake; None if the file cannot be run
    so."""
    try:
        if mistake.read_as is None:
            return _logits(file.path, file, mistake, tokens, threads)
        with tempfile.TemporaryDirectory(prefix="tritpack-engine-") as folder:
            other = Path(folder) / "reordered.gguf"
            repack(file.path, other, read_as=mistake.read_as, repair=True, outtype="i2_s")
            return _logits(other, file, mistake, tokens, threads)
    except TritpackError:
        return None


def _logits(path: Path, file: GgufFile, mistake: Mistake, tokens: Sequence[int], threads: int | None) -> F32:
    edited = GgufFile(path, file.options)
    mistake.edit(edited)
    with Model(edited, threads=threads, context=len(tokens)) as model:
        return model.logits(tokens)


def _setting(spec: ModelSpec, key: str, value: object) -> Edit:
    return lambda file: file.metadata.update({f"{spec.architecture}.{key}": value})


def _without_keys(start: str) -> Edit:
    """Leave out the keys that begin so."""

    def edit(file: GgufFile) -> None:
        for key in [key for key in file.metadata if key.startswith(start)]:
            file.metadata.pop(key)

    return edit


def _without(*names: str) -> Edit:
    """Leave tensors out: those of these names, or whose names end so if one begins with a dot."""

    def lacks(tensor: str) -> bool:
        return any(tensor == name or (name[0] == "." and tensor.endswith(name)) for name in names)

    def edit(file: GgufFile) -> None:
        file.tensors = {name: info for name, info in file.tensors.items() if not lacks(name)}  # type: ignore[misc]

    return edit


def _scale_twice(linear: str) -> Edit:
    """Multiply by the scale beside a linear once more."""

    def edit(file: GgufFile) -> None:
        outer_scale = file.outer_scale

        def squared(tensor: TensorInfo) -> np.float32:
            scale = outer_scale(tensor)
            return np.float32(scale * scale) if tensor.name.endswith(f".{linear}.weight") else scale

        file.outer_scale = squared  # type: ignore[method-assign]

    return edit


def _as_architecture(spec: ModelSpec, architecture: str) -> Edit:
    """The same graph, with the rotary pairs of another architecture."""

    def edit(file: GgufFile) -> None:
        prefix = f"{spec.architecture}."
        own = {key.removeprefix(prefix): value for key, value in file.metadata.items() if key.startswith(prefix)}
        file.metadata.update({f"{architecture}.{key}": value for key, value in own.items()})
        named = {"general.architecture": architecture, f"{architecture}.hidden_activation": spec.activation}
        file.metadata.update(named)

    return edit
