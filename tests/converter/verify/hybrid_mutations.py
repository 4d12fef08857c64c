"""The mutations of the bench that a Qwen3.5 hybrid and a rotated basis invite, each with its diagnosis."""

from __future__ import annotations

import numpy as np

from tests.converter.verify.breakages import Edit, arrays, codes, key, metadata, norm, ternary, without
from tests.converter.verify.hybrid_breakages import (
    SIGNS,
    all_of,
    carrier_major,
    columns,
    cut,
    floats,
    grouped,
    halves,
    names_without,
    one_scale,
    rows,
    signs_as,
    swapped,
    unrotated,
    unsigned,
)  # fmt: skip
from tests.converter.verify.mutations import Mutation
from tests.make.hybrid import ROTATED, TERNARY
from tritpack.converter.verify.findings import Kind
from tritpack.formats.hadamard import PREFIX

NET = TERNARY.delta_net
assert NET is not None and ROTATED.rotation is not None
QKV, GATE, OUT, ALPHA, CONV = (
    f"blk.1.{part}.weight" for part in ("attn_qkv", "attn_gate", "ssm_out", "ssm_alpha", "ssm_conv1d")
)
Q, DOWN, TABLE = "blk.3.attn_q.weight", "blk.2.ffn_down.weight", "token_embd.weight"
PLAIN, PTQ1 = "plain", "ptq1_0"
"""Files that are not the rotated one in PQ2_0."""


STRUCTURE: dict[str, Mutation] = {
    "all keys of the rotation lost": Mutation(
        "structure",
        Kind.ROTATION_LOST,
        ("block 64, 3 widths", "talks nonsense", "no weight need change"),
        metadata(unrotated),
    ),
    "a sign vector lost": Mutation(
        "structure", Kind.SIGNS_LOST, ("width 256 were lost: they are missing",), signs_as(lambda signs: signs.pop(256))
    ),
    "the values of a sign vector lost": Mutation(
        "structure", Kind.SIGNS_LOST, ("width 768 were lost: they are missing",), metadata(cut)
    ),
    "a sign vector of ones": Mutation(
        "structure",
        Kind.SIGNS_LOST,
        ("width 128 were lost: they are all 1",),
        signs_as(lambda signs: signs[128].fill(1)),
    ),
    "no signs at all": Mutation("structure", Kind.SIGNS_LOST, ("width 128 were lost",), metadata(unsigned)),
    "the signs of another width": Mutation(
        "structure",
        Kind.SIGNS_DIFFER,
        ("width 768 are wrong: they are those of width 128",),
        signs_as(lambda signs: signs.update({768: np.resize(signs[128], 768)})),
    ),
    "signs negated": Mutation(
        "structure",
        Kind.SIGNS_DIFFER,
        ("width 128", "all are negated"),
        signs_as(lambda signs: signs.update({128: -signs[128]})),
    ),
    "one sign flipped": Mutation(
        "structure",
        Kind.SIGNS_DIFFER,
        ("width 256 are wrong: 1 of them",),
        signs_as(lambda signs: np.negative.at(signs[256], 7)),
    ),
    "a wrong block": Mutation(
        "structure",
        Kind.ROTATION_BLOCK_DIFFERS,
        ("block_size is 128, the source has 64",),
        key(f"{PREFIX}block_size", 128),
    ),
    "a block that is no power of two": Mutation(
        "structure", Kind.ROTATION_BLOCK_DIFFERS, ("block_size is 96",), key(f"{PREFIX}block_size", 96)
    ),
    "the embedding not inverted": Mutation(
        "structure", Kind.TABLE_NOT_INVERTED, (TABLE, "not be rotated back"), without(f"{PREFIX}inverse_weight_names")
    ),
    "a matrix that the keys do not name": Mutation(
        "structure", Kind.ROTATION_NAMES_DIFFER, (f"does not name {DOWN}",), names_without("weight_names", DOWN)
    ),
    "columns of ssm_out said to be tiled": Mutation(
        "structure", Kind.ROTATION_COLUMNS_DIFFER, ("gdn_v_grouped is False",), key(f"{PREFIX}gdn_v_grouped", False)
    ),
    "a transform for nothing": Mutation(
        "structure",
        Kind.ROTATION_UNEXPECTED,
        ("the source's are not",),
        metadata(lambda pairs: pairs.update(ROTATED.rotation.to_metadata(ROTATED.tensor_shapes()))),
        PLAIN,
    ),
    "the whole head rotated": Mutation(
        "structure",
        Kind.MODEL_DIFFERS,
        ("rotary_dim is 64, the source has 16",),
        key("qwen35.rope.dimension_count", 64),
    ),
    "another state": Mutation("structure", Kind.MODEL_DIFFERS, ("delta_net is",), key("qwen35.ssm.group_count", 3)),
}
HEADS = ("grouped by key head", "GGUF tiles them", "tritpack convert SOURCE")
WEIGHTS: dict[str, Mutation] = {
    "signs multiplied into the codes": Mutation(
        "weights",
        Kind.SIGNS_IN_CODES,
        (DOWN, "wrong side of the transform"),
        codes(lambda c: c * SIGNS[256].astype(np.int8), DOWN),
    ),
    "signs multiplied into the embedding": Mutation(
        "weights", Kind.SIGNS_IN_CODES, (TABLE,), codes(lambda c: c * SIGNS[128].astype(np.int8), TABLE)
    ),
    "trits carrier-major": Mutation(
        "weights", Kind.TRITS_CARRIER_MAJOR, (DOWN, "taken for neighbours"), codes(carrier_major, DOWN), PTQ1
    ),
    "rows of value heads grouped": Mutation(
        "weights", Kind.VALUE_HEADS_GROUPED, (QKV, *HEADS), rows(grouped(QKV), QKV)
    ),
    "rows of the output gate grouped": Mutation(
        "weights", Kind.VALUE_HEADS_GROUPED, (GATE, *HEADS), rows(grouped(GATE), GATE)
    ),
    "rows of value heads tiled twice": Mutation(
        "weights", Kind.VALUE_HEADS_TWICE, (QKV, "twice"), rows(np.argsort(grouped(QKV)), QKV)
    ),
    "rows of a float matrix grouped": Mutation(
        "weights", Kind.VALUE_HEADS_GROUPED, (ALPHA, *HEADS), floats(ALPHA, lambda v: v[grouped(ALPHA)], (6, 128))
    ),
    "channels of the convolution grouped": Mutation(
        "weights", Kind.VALUE_HEADS_GROUPED, (CONV, *HEADS), floats(CONV, lambda v: v[grouped(CONV)], (1280, 4))
    ),
    "ssm_a grouped": Mutation(
        "weights",
        Kind.VALUE_HEADS_GROUPED,
        ("blk.0.ssm_a", *HEADS),
        norm("blk.0.ssm_a", lambda v: v[grouped("blk.0.ssm_a")]),
    ),
    "columns of a rotated ssm_out moved": Mutation(
        "weights", Kind.ROTATED_COLUMNS_MOVED, (OUT, "cannot bear"), columns(NET.value_order(), OUT)
    ),
    "columns of a plain ssm_out not moved": Mutation(
        "weights", Kind.VALUE_HEADS_GROUPED, (OUT, *HEADS), columns(np.argsort(NET.value_order()), OUT), PLAIN
    ),
    "query and gate as halves": Mutation(
        "weights", Kind.QUERY_GATE_HALVES, (Q, "all queries come before all gates"), ternary(halves, Q)
    ),
    "gate before query": Mutation("weights", Kind.QUERY_GATE_SWAPPED, (Q,), ternary(swapped, Q)),
    "one scale": Mutation(
        "weights", Kind.SCALE_DIFFERS, (DOWN, "1 of 256 scales differ", "2 times as large"), ternary(one_scale, DOWN)
    ),
    "1 not added to a norm": Mutation(
        "weights", Kind.NORM_MINUS_ONE, ("blk.0.attn_norm.weight",), norm("blk.0.attn_norm.weight", lambda v: v - 1)
    ),
    "1 added twice": Mutation(
        "weights",
        Kind.NORM_PLUS_ONE,
        ("blk.3.attn_q_norm.weight", "or twice"),
        norm("blk.3.attn_q_norm.weight", lambda v: v + 1),
    ),
    "1 added to the norm of the recurrence": Mutation(
        "weights", Kind.NORM_PLUS_ONE, ("blk.0.ssm_norm.weight",), norm("blk.0.ssm_norm.weight", lambda v: v + 1)
    ),
    "A_log for ssm_a": Mutation(
        "weights", Kind.DECAY_IS_LOG, ("blk.2.ssm_a", "-exp(A_log)"), norm("blk.2.ssm_a", lambda v: np.log(-v))
    ),
    "exp(A_log) for ssm_a": Mutation(
        "weights", Kind.DECAY_SIGN_LOST, ("blk.2.ssm_a",), norm("blk.2.ssm_a", lambda v: -v)
    ),
    "a code 3": Mutation(
        "weights", Kind.TENSOR_INVALID, (DOWN, "code 3"), arrays(lambda tensors: tensors[DOWN].__setitem__(2, 0xFF))
    ),
}
HYBRID_MUTATIONS: dict[str, Mutation] = {**STRUCTURE, **WEIGHTS}
TWO_AT_ONCE: dict[str, Edit] = {
    "two sign vectors and a name": all_of(
        signs_as(lambda signs: signs.update({128: -signs[128]})), names_without("weight_names", DOWN)
    ),
    "signs in codes and rows grouped": all_of(
        codes(lambda c: c * SIGNS[128].astype(np.int8), QKV), rows(grouped(QKV), QKV)
    ),
    "a block and a norm": all_of(key(f"{PREFIX}block_size", 128), norm("blk.0.attn_norm.weight", lambda v: v - 1)),
}
