"""Compares the specs of two models: what each computes, whatever its keys are called."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from tritpack.converter.verify.compare.foreign import is_foreign, is_silent_on_activations, same_factors
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.model_spec import ACTIVATION_QUANTIZATION, INTERLEAVED_ROPE, ModelSpec

ONE_GRAPH = ("bitnet-b1.58", "bitnet-25", "bitnet")
"""Names of one graph with one row order. They imply different activations, which are compared by themselves."""
CHANGES_THE_GRAPH = (
    "expert_count", "expert_used_count", "final_logit_softcapping", "attn_logit_softcapping", "attention.causal",
    "attention.clamp_kqv", "attention.max_alibi_bias", "use_parallel_residual",
)  # fmt: skip
"""Keys of an architecture, without its name, that engines act on wherever they find them."""
PAIRS = {True: "(2 i, 2 i + 1), as llama.cpp's NORM", False: "half a head apart, as its NEOX"}


def completed(file: GgufFile, spec: ModelSpec, expected: ModelSpec) -> tuple[ModelSpec, list[str]]:
    """Return the spec of a file with what another tool's file cannot say taken from the expected one, and what it says
    in other words or digits put in the expected one's; and sentences that say so."""
    notes: list[str] = []
    if not is_foreign(file):
        return spec, notes
    same_by_other_means: dict[str, Any] = {}
    if is_silent_on_activations(file):
        taken = expected.int8_activations
        same_by_other_means["int8_activations"] = taken
        notes.append(
            f"no key of the file says how activations are quantised; taken from the source: "
            f"{next(name for name, int8 in ACTIVATION_QUANTIZATION.items() if int8 == taken)}"
        )
    if spec.query_key_scale() == expected.query_key_scale():
        same_by_other_means["attention_scale"] = expected.attention_scale
    ours, theirs = spec.rope_scaling, expected.rope_scaling
    if ours and theirs and ours != theirs and ours.kind == theirs.kind == "factors":
        factors = (np.array(scaling.frequency_factors, np.float32) for scaling in (ours, theirs))
        if same_factors(*factors) and np.isclose(ours.attention_factor, theirs.attention_factor, rtol=1e-5):
            same_by_other_means["rope_scaling"] = theirs
            notes.append("rotary factors differ in the last digits: the same formula, rounded otherwise")
    return dataclasses.replace(spec, **same_by_other_means), notes


def differing_fields(spec: ModelSpec, expected: ModelSpec) -> Iterator[tuple[str, Any, Any]]:
    """Yield name, value and expected value of each field that differs; names of one graph do not."""
    for field in dataclasses.fields(ModelSpec):
        ours, theirs = getattr(spec, field.name), getattr(expected, field.name)
        if ours != theirs and not (field.name == "architecture" and ours in ONE_GRAPH and theirs in ONE_GRAPH):
            yield field.name, ours, theirs


def rotary_pairing(field: str, ours: Any, theirs: Any) -> str | None:
    """Say how two architectures pair the rows that RoPE rotates, if they differ in that; else None."""
    if field != "architecture" or (ours in INTERLEAVED_ROPE) == (theirs in INTERLEAVED_ROPE):
        return None
    return f"{ours} rotates pairs {PAIRS[ours in INTERLEAVED_ROPE]}, {theirs} those {PAIRS[theirs in INTERLEAVED_ROPE]}"
