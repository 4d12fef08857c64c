"""What most likely went wrong with a Qwen3.5 hybrid: the mistakes that its value heads, its gates and a rotated basis
invite, by name. diagnoses.py has those of every model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from tritpack.converter.verify.diagnoses import Diagnosis
from tritpack.converter.verify.findings import Kind
from tritpack.formats.arrays import F32, I8
from tritpack.formats.model_spec import ModelSpec
from tritpack.formats.ternary import TernaryTensor

Mistakes = Iterator[tuple[Diagnosis, Callable[[], TernaryTensor]]]
"""Diagnoses, and what makes of the source's tensor the one that such a mistake gives."""
CONVERT = "tritpack convert SOURCE makes it anew"

HEADS_GROUPED = f"its value heads are grouped by key head, as transformers has them, and GGUF tiles them; {CONVERT}"


@dataclasses.dataclass(frozen=True)
class Mistake:
    """A diagnosis, and what the source's tensor becomes by that mistake: its scales are compared with FILE's."""

    diagnosis: Diagnosis
    tensor: TernaryTensor


def mistake_of_hybrids(spec: ModelSpec, name: str, codes: I8, source: TernaryTensor) -> Mistake | None:
    """Return the mistake that makes the source's tensor FILE's, or None.

    codes: FILE's, with rows and columns where the source has them if FILE is in GGUF's order.
    """
    for diagnosis, made in _mistakes(spec, name, source):
        if np.array_equal((tensor := made()).codes, codes):
            return Mistake(diagnosis, tensor)
    return None


def _mistakes(spec: ModelSpec, name: str, source: TernaryTensor) -> Mistakes:
    if spec.delta_net is None:
        return
    part = name.removesuffix(".weight").rpartition(".")[2]
    if (rows := spec.row_order(name)) is not None:
        yield Diagnosis(Kind.VALUE_HEADS_GROUPED, HEADS_GROUPED), lambda: source.with_rows(np.argsort(rows))
        remark = "rows of value heads were moved to GGUF's tiled order twice"
        yield Diagnosis(Kind.VALUE_HEADS_TWICE, f"{remark}; {CONVERT}"), lambda: source.with_rows(rows)
    if part == "ssm_out":
        yield from _mistakes_of_columns(spec, name, source)
    if spec.rotation and spec.rotation.turns(name) and spec.rotation.signs:
        signs = spec.rotation.signs[source.shape[1]].astype(np.int8)
        remark = "the signs were multiplied into the codes, where they act on the wrong side of the transform"
        yield (
            Diagnosis(Kind.SIGNS_IN_CODES, f"{remark}; {CONVERT}"),
            lambda: TernaryTensor(source.codes * signs, source.scales),
        )
    if part == "attn_q":
        yield from _mistakes_of_gates(spec, source)


def _mistakes_of_columns(spec: ModelSpec, name: str, source: TernaryTensor) -> Mistakes:
    """Columns of ssm_out. They are tiled, but not those of a rotated matrix, whose blocks lie across heads."""
    net = spec.delta_net
    assert net is not None
    tiled = net.value_order()
    if spec.column_order(name) is not None:
        yield Diagnosis(Kind.VALUE_HEADS_GROUPED, HEADS_GROUPED), lambda: source.with_columns(np.argsort(tiled))
    elif spec.rotation and spec.rotation.turns(name):
        remark = "its columns were moved to GGUF's tiled order, which a rotated matrix cannot bear"
        yield Diagnosis(Kind.ROTATED_COLUMNS_MOVED, f"{remark}; {CONVERT}"), lambda: source.with_columns(tiled)


def _mistakes_of_gates(spec: ModelSpec, source: TernaryTensor) -> Mistakes:
    """Rows of attn_q: for each head its query, then its gate."""
    by_head = np.arange(source.shape[0]).reshape(spec.heads, 2, -1)
    halves = by_head.swapaxes(0, 1).reshape(-1)
    remark = "all queries come before all gates, and each head's gate has to follow its query"
    yield Diagnosis(Kind.QUERY_GATE_HALVES, f"{remark}; {CONVERT}"), lambda: source.with_rows(halves)
    swapped = by_head[:, ::-1].reshape(-1)
    remark = "each head's gate comes before its query"
    yield Diagnosis(Kind.QUERY_GATE_SWAPPED, f"{remark}; {CONVERT}"), lambda: source.with_rows(swapped)


def explain_vector_of_hybrids(name: str, values: F32, expected: F32, grouped: F32) -> Diagnosis | None:
    """Compare a vector, float32 (size,), with another one, or return None.

    expected: the source's, in the order of FILE. grouped: the same in transformers' order.
    """
    if not np.array_equal(grouped, expected) and np.array_equal(values, grouped):
        return Diagnosis(Kind.VALUE_HEADS_GROUPED, HEADS_GROUPED)
    if not name.endswith("ssm_a"):
        return None
    with np.errstate(over="ignore"):
        if np.allclose(-np.exp(values.astype(np.float64)), expected, rtol=1e-6, atol=0):
            return Diagnosis(Kind.DECAY_IS_LOG, f"this is A_log, and the file must hold -exp(A_log); {CONVERT}")
    if np.allclose(values, -expected, rtol=1e-6, atol=0):
        return Diagnosis(Kind.DECAY_SIGN_LOST, f"this is exp(A_log) without its minus; {CONVERT}")
    return None
