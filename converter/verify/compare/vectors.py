"""Compares norms and other vectors of FILE with the source's, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tritpack.converter.verify.compare.foreign import (
    comes_from_foreign,
    is_decay,
    is_foreign,
    same_but_for_rounding,
    same_decays,
    same_factors,
)
from tritpack.converter.verify.compare.tensor_result import TensorResult
from tritpack.converter.verify.diagnoses import explain_norm
from tritpack.converter.verify.hybrid_diagnoses import explain_vector_of_hybrids
from tritpack.converter.verify.oracle.oracle import Oracle
from tritpack.converter.verify.oracle.packed import PackedOracle
from tritpack.formats import float_types
from tritpack.formats.arrays import F32
from tritpack.formats.gguf_reader import GgufFile, TensorInfo
from tritpack.formats.model_spec import ROPE_FACTORS


def compare_vector(result: TensorResult, info: TensorInfo, file: GgufFile, oracle: Oracle) -> None:
    """Compare a tensor of one dimension: factors of a norm, rotary factors, or what a hybrid has for each head."""
    grouped = _rope_factors(oracle) if info.name == ROPE_FACTORS else oracle.norm(info.name.removesuffix(".weight"))
    if grouped is None:
        return  # the structure rung has reported it
    values = float_types.decode(info.layout, file.bytes_of(info), 1, info.cols)[0]
    expected = grouped if (order := oracle.spec.row_order(info.name)) is None else grouped[order]
    differs = values.view(np.uint32) != expected.view(np.uint32)
    if not differs.any():
        return
    if info.name == ROPE_FACTORS and is_foreign(file) and same_factors(values, expected):
        return  # the structure rung notes it
    if oracle.spec.delta_net and comes_from_foreign(file) and same_but_for_rounding(values, expected):
        result.vector_rounding = float(np.abs(values - expected).max())
        return
    if is_decay(info.name) and isinstance(oracle, PackedOracle) and same_decays(values, expected):
        result.decay_rounding = float(np.abs(values / expected - 1).max())
        return
    index = int(differs.argmax())
    value, right = float(values[index]), float(expected[index])
    diagnosis = explain_vector_of_hybrids(info.name, values, expected, grouped) or explain_norm(
        values, expected, lambda: _other_vectors(oracle, info.name)
    )
    sentence = diagnosis.explain(f"value {index} is {value!r}, the source has {right!r}")
    result.add(diagnosis.kind, info, sentence, index=index, file=value, source=right)


def _other_vectors(oracle: Oracle, name: str) -> Iterator[tuple[str, F32]]:
    for other, shape in oracle.spec.tensor_shapes().items():
        if other not in (name, ROPE_FACTORS) and len(shape) == 1:
            values = oracle.norm(other.removesuffix(".weight"))
            if values is not None:
                yield other, values


def _rope_factors(oracle: Oracle) -> F32 | None:
    scaling = oracle.spec.rope_scaling
    return np.array(scaling.frequency_factors, np.float32) if scaling else None
