"""Whether the weights of a checkpoint are ternary, how far from it they are, and which tool could make them so."""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tritpack.converter.families.hyperparameters import text_config
from tritpack.converter.inspect.weight_values import (
    CONTINUOUS,
    FEW_LEVELS,
    FOUR_VALUED,
    NEARLY,
    PARTLY,
    SAMPLE,
    TERNARY,
    ZERO,
    values_of,
)
from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.converter.sources.remote_checkpoint import RemoteCheckpoint
from tritpack.converter.sources.remote_gguf import RangeBytes, RemoteGguf
from tritpack.converter.sources.source_model import SourceModel
from tritpack.converter.sources.weight_file import WeightFile
from tritpack.formats.errors import Unreadable
from tritpack.formats.gguf_reader import GgufFile, TensorInfo
from tritpack.formats.safetensors_reader import FLOATS, BytesInMemory, StoredTensor
from tritpack.runtime.machine import usable_cores

FORM_KEY = "tritpack.source.form"
PACK_QUANTIZED = "pack-quantized"
"""The form of compressed-tensors with 2 bits, whose codes convert checks."""
FLOAT_LAYOUTS = {"f32": "F32", "f16": "F16", "bf16": "BF16"}
"""Float types of GGUF in safetensors' spelling."""
PACKED, QUANTIZED, DAMAGED = "packed", "quantized", "damaged"
TABLE = re.compile(
    r"(.*\.)?(embed_tokens|lm_head|wte|wpe|word_embeddings|tok_embeddings|embed_in|embed_out|token_embd|shared)"
    r"\.(weight|qweight|scales)|output\.weight"
)
OTHER = re.compile(
    r"norm|(^|\.)(visual|vision\w*|audio\w*|multi_modal_projector|mm_projector)\.|router|ffn_gate_inp|mlp\.gate\.|conv1d"
)
"""Parts of names of what stays float in ternary models too."""
SUFFIX = re.compile(r"\.(weight|qweight|weight_packed)$")
SMALLEST = 16
"""The shortest side of a matrix that counts as a linear."""
MASTER_NAMES = ("self_attn.inner_attn_ln.weight", "mlp.ffn_layernorm.weight")
"""Tensors that only 1bitLLM's models have, whose weights are master weights without a quantization_config."""
REMOTE_TENSORS = 24
"""Linears of which rows are read where each takes a request."""
ORDINARY = "an ordinary model: no tool makes it ternary without training it; --quantize absmean would produce nonsense"
TRAINING = (
    "if its makers say that these are master weights of a BitNet model, tritpack convert --quantize absmean quantises "
    "them as training did; else train it so, with onebitllms for example"
)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What all linears together are. verdict: one word for programs. summary: a sentence. advice: what to do."""

    verdict: str
    summary: str
    advice: str


def ternarity_of(checkpoint: CheckpointFolder, model: SourceModel | None, *, whole: bool) -> dict[str, Any]:
    """Return `ternarity` of a checkpoint. model: what it was recognised as, None if it was not."""
    form = None if model is None else model.metadata[FORM_KEY]
    remote = isinstance(checkpoint, RemoteCheckpoint) or (isinstance(checkpoint, WeightFile) and checkpoint.is_remote)
    return ternarity(checkpoint.tensors, checkpoint.config, form=form, whole=whole, remote=remote)


def ternarity_of_gguf(file: GgufFile, *, whole: bool) -> dict[str, Any]:
    """Return `ternarity` of a GGUF file without ternary layouts: floats, which may be ternary, or quantised weights."""
    remote = isinstance(file, RemoteGguf)

    def stored(info: TensorInfo) -> StoredTensor:
        kind, name = FLOAT_LAYOUTS.get(info.layout, info.layout), file.path_of(info).name
        if isinstance(file, RemoteGguf):
            source = RangeBytes(file.ranges[info.file_index])
            return StoredTensor(info.name, kind, info.shape, name, info.file_offset, info.nbytes, source)
        return StoredTensor(info.name, kind, info.shape, name, 0, info.nbytes, BytesInMemory(file.bytes_of(info)))

    tensors = {info.name: stored(info) for info in file.tensors.values() if 0 not in info.shape}
    return ternarity(tensors, {}, whole=whole, remote=remote)


def not_ternary(verdict: Mapping[str, Any], model: SourceModel) -> bool:
    """Tell whether a checkpoint was taken for ternary floats by its headers, and its values are others."""
    return bool(model.metadata[FORM_KEY] == "exact" and verdict["verdict"] != TERNARY)


def ternarity(
    tensors: Mapping[str, StoredTensor],
    config: Mapping[str, Any],
    *,
    form: str | None = None,
    whole: bool = False,
    remote: bool = False,
) -> dict[str, Any]:
    """Return whether the linears among tensors are ternary: `verdict`, `summary` and `advice` in words, `linears` (how
    many there are), `read`, `kinds`, `rows_read` (per tensor, None for all), and `tensors[]` with weight_values.Values.

    config: config.json, {} if there is none. form: how the storage of a recognised checkpoint is recorded ("packed",
    "online", "exact"). whole: read all weights, and not a few rows of each. remote: each read is a request, so that a
    few rows of a few tensors must do.
    """
    quantization = _quantization(config)
    linears = list(_linears(tensors.values()))
    tables = [t for t in tensors.values() if TABLE.fullmatch(t.name) and t.dtype in FLOATS and len(t.shape) == 2]
    chosen = _spread(linears, REMOTE_TENSORS) if remote and not whole else linears

    def row(tensor: StoredTensor) -> dict[str, Any]:
        return _row(tensor, tensors, quantization, form=form, whole=whole, together=remote)

    with ThreadPoolExecutor(8 if remote else usable_cores()) as pool:
        rows = list(pool.map(row, [*chosen, *([] if remote else tables)]))
    kinds = collections.Counter(row["kind"] for row in rows[: len(chosen)])
    named_so = any(name.endswith(MASTER_NAMES) for name in tensors)
    is_masters = form == "online" or named_so or quantization.get("quant_method") == "bitnet"
    verdict = _judge(rows[: len(chosen)], kinds, quantization, is_masters)
    return {
        **dataclasses.asdict(verdict),
        "linears": len(linears),
        "read": len(chosen),
        "rows_read": None if whole else SAMPLE,
        "kinds": dict(kinds),
        "tensors": rows,
    }


# -- one tensor --------------------------------------------------------------------------------------------------------


def _linears(tensors: Collection[StoredTensor]) -> Iterator[StoredTensor]:
    for tensor in tensors:
        is_matrix = len(tensor.shape) in (2, 3) and min(math.prod(tensor.shape[:-1]), tensor.shape[-1]) >= SMALLEST
        if (
            is_matrix
            and SUFFIX.search(tensor.name)
            and not TABLE.fullmatch(tensor.name)
            and not OTHER.search(tensor.name)
        ):
            yield tensor


def _row(
    tensor: StoredTensor,
    tensors: Mapping[str, StoredTensor],
    quantization: Mapping[str, Any],
    *,
    form: str | None,
    whole: bool,
    together: bool,
) -> dict[str, Any]:
    row: dict[str, Any] = {"name": tensor.name, "shape": list(tensor.shape), "dtype": tensor.dtype}
    stem = SUFFIX.sub("", tensor.name)
    if tensor.dtype in FLOATS:
        try:
            return row | dataclasses.asdict(values_of(tensor, whole=whole, together=together))
        except Unreadable as error:
            return row | {"kind": DAMAGED, "problem": error.message}
        finally:
            tensor.release()
    packed_words = tensor.dtype == "I32" and form == PACK_QUANTIZED
    if (packed_words or tensor.dtype == "U8") and f"{stem}.weight_scale" in tensors:
        return row | {"kind": PACKED, "bits": 2}
    bits = quantization.get("bits")
    if tensor.dtype == "U32" and bits == 2 and (scales := tensors.get(f"{stem}.scales")) is not None:
        return row | {"kind": _mlx_kind(tensor, scales, tensors.get(f"{stem}.biases")), "bits": bits}
    return row | {"kind": QUANTIZED, "bits": bits if isinstance(bits, int) else None}


def _mlx_kind(codes: StoredTensor, scales: StoredTensor, biases: StoredTensor | None) -> str:
    """Return what MLX's groups of 2 bits hold, by some rows in the middle: w = scale * code + bias is ternary where the
    bias is minus the scale and no code is 3, which would stand for 2 s."""
    first = max(0, (codes.rows - SAMPLE) // 2)
    last = min(codes.rows, first + SAMPLE)
    if biases is None or scales.shape != biases.shape or scales.rows != codes.rows or scales.dtype not in FLOATS:
        return QUANTIZED
    if (scales.rows_f32(first, last) != -biases.rows_f32(first, last)).any():
        return QUANTIZED
    row = 4 * codes.shape[-1]
    stored = codes.source.view(codes.offset + first * row, codes.offset + last * row)
    return FOUR_VALUED if (stored & (stored >> 1) & 0x55).any() else PACKED


def _spread(tensors: Sequence[StoredTensor], count: int) -> list[StoredTensor]:
    """Return so many of the tensors, from the first to the last."""
    if len(tensors) <= count:
        return list(tensors)
    return [tensors[i * (len(tensors) - 1) // (count - 1)] for i in range(count)]


# -- all of them -------------------------------------------------------------------------------------------------------


def _judge(
    rows: Sequence[Mapping[str, Any]], kinds: Mapping[str, int], quantization: Mapping[str, Any], is_masters: bool
) -> Verdict:
    """Return what all linears together are. Zeros alone are neither ternary nor not."""
    count = sum(kinds.values()) - kinds.get(ZERO, 0)
    if not count:
        return Verdict("none", "no weights of linear layers were found", "give the folder of a checkpoint")
    if kinds.get(DAMAGED):
        name = next(row["name"] for row in rows if row["kind"] == DAMAGED)
        return Verdict(DAMAGED, f"{name} holds a value that is not finite", "fetch the checkpoint again")
    for words in (_all_of_one_kind, _mixture):
        if verdict := words(rows, kinds, count, quantization, is_masters):
            return verdict
    return Verdict("ordinary", ORDINARY, TRAINING)


def _all_of_one_kind(
    rows: Sequence[Mapping[str, Any]],
    kinds: Mapping[str, int],
    count: int,
    quantization: Mapping[str, Any],
    is_masters: bool,
) -> Verdict | None:
    kind = next((kind for kind in kinds if kinds[kind] == count and kind != ZERO), None)
    if kind == TERNARY:
        summary = f"every linear layer is exactly ternary, with one scale per {_units(rows)}"
        return Verdict(TERNARY, summary, "tritpack convert makes a file of it and keeps codes and scales as they are")
    if kind == PACKED:
        method = " (compressed-tensors, 2 bits)" if quantization.get("quant_method") == "compressed-tensors" else ""
        summary = f"every linear layer is packed as ternary codes{method}"
        return Verdict(TERNARY, summary, "tritpack convert makes a file of it and keeps codes and scales")
    if kind == CONTINUOUS and is_masters:
        summary = "continuous weights of a BitNet model: master weights, which training quantises at each step"
        return Verdict("master_weights", summary, "tritpack convert quantises them once, as training did (absmean)")
    if kind == FOUR_VALUED:
        summary = "every linear layer takes four values (-s, 0, s, 2 s): a 2-bit model, which is not ternary"
        return Verdict(FOUR_VALUED, summary, "llama.cpp's Q2_0 holds such weights; ternary layouts do not")
    if kind == NEARLY:
        worst = max(row["distance"] for row in rows if row["kind"] == NEARLY)
        near = f"within {100 * worst:.2g} % of its norm"
        summary = f"every linear layer is nearly ternary, {near}: rounded or changed afterwards"
        return Verdict(NEARLY, summary, "look for a revision before an adapter was merged or the scales were rounded")
    if kind == FEW_LEVELS:
        levels = max(row["levels"] for row in rows if row["kind"] == FEW_LEVELS)
        bits = math.ceil(math.log2(levels))
        summary = f"the weights take at most {levels} values in a group: a {bits}-bit model written as floats"
        return Verdict(
            FEW_LEVELS, summary, "llama.cpp's quantisations hold it; it is not ternary, and no rounding makes it so"
        )
    if kind == QUANTIZED:
        return Verdict(
            QUANTIZED,
            f"every linear layer is {_stored(rows, quantization)}, not ternary",
            "find the float weights of this model, and inspect those",
        )
    return None


def _mixture(
    rows: Sequence[Mapping[str, Any]],
    kinds: Mapping[str, int],
    count: int,
    quantization: Mapping[str, Any],
    is_masters: bool,
) -> Verdict | None:
    ternary = kinds.get(TERNARY, 0) + kinds.get(PACKED, 0)
    if ternary == count:
        return Verdict(
            TERNARY, "every linear layer is ternary, some packed and some as floats", "tritpack convert reads it"
        )
    if not ternary and not any(kinds.get(kind) for kind in (FOUR_VALUED, PARTLY, NEARLY, FEW_LEVELS, QUANTIZED)):
        return None
    words = {
        TERNARY: "exactly ternary", PACKED: "packed ternary codes", NEARLY: "nearly ternary",
        FOUR_VALUED: "four-valued", PARTLY: "ternary in most of their groups", CONTINUOUS: "continuous",
        FEW_LEVELS: "of a few levels (like 4 bits)", QUANTIZED: _stored(rows, quantization),
    }  # fmt: skip
    listed = ", ".join(f"{number} {words[kind]}" for kind, number in kinds.items() if kind in words)
    first = next(row["name"] for row in rows if row["kind"] not in (TERNARY, PACKED, ZERO))
    advice = f"a damaged or half converted checkpoint, or one that spares some layers: look at {first} first"
    return Verdict("mixed", f"of {count} linear layers, {listed}: not wholly ternary", advice)


def _units(rows: Sequence[Mapping[str, Any]]) -> str:
    """What one scale covers; a row that is one group long is a group."""
    ternary = [row for row in rows if row["kind"] == TERNARY]
    units = {row["granularity"] for row in ternary}
    rows_of_a_group = {f"group {row['shape'][-1]}" for row in ternary if row["granularity"] == "row"}
    return " or ".join(sorted(units - {"row"} if rows_of_a_group and rows_of_a_group <= units else units))


def _stored(rows: Sequence[Mapping[str, Any]], quantization: Mapping[str, Any]) -> str:
    """How quantised linears are stored, in words."""
    bits = {row["bits"] for row in rows if row["kind"] == QUANTIZED}
    dtypes = "/".join(sorted({row["dtype"] for row in rows if row["kind"] == QUANTIZED}))
    method = quantization.get("quant_method") or ("MLX" if "group_size" in quantization else None)
    width = f"{bits.copy().pop()}-bit integers" if len(bits) == 1 and bits != {None} else f"{dtypes} numbers"
    return f"stored as {width}" + (f" ({str(method)[:40]})" if method else "")


def _quantization(config: Mapping[str, Any]) -> Mapping[str, Any]:
    text = text_config(config) if config else {}
    found = text.get("quantization_config") or text.get("quantization") or {}
    return found if isinstance(found, Mapping) else {}
