"""What a rung finds, as values: each finding has a kind, which code asks for, and a sentence, which people read."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence
from typing import Any


class Kind(str, enum.Enum):
    """What is wrong. The values stand in `diagnoses[]` of `verify --json`: they stay, more may come."""

    # metadata
    METADATA_INVALID = "metadata_invalid"
    MODEL_DIFFERS = "model_differs"  # a hyperparameter or switch
    ROTARY_PAIRING_DIFFERS = "rotary_pairing_differs"
    KEY_MISSING = "key_missing"
    KEY_DIFFERS = "key_differs"
    KEY_UNEXPECTED = "key_unexpected"
    SOURCE_HASH_DIFFERS = "source_hash_differs"  # with --strict
    SOURCE_DIFFERS = "source_differs"  # FILE was made from something else
    # tensor table
    TENSOR_MISSING = "tensor_missing"
    NORMS_MISSING = "norms_missing"  # one kind of norm, in every layer
    TENSOR_UNEXPECTED = "tensor_unexpected"
    SHAPE_DIFFERS = "shape_differs"
    TYPE_DIFFERS = "type_differs"
    # tokenizer
    TOKENIZER_INVALID = "tokenizer_invalid"
    END_TOKENS_MISSING = "end_tokens_missing"
    END_TOKENS_UNEXPECTED = "end_tokens_unexpected"
    BOS_TWICE = "bos_twice"
    ROUND_TRIP_DIFFERS = "round_trip_differs"  # text to ids and back
    TOKEN_IDS_DIFFER = "token_ids_differ"
    FIRST_TOKEN_MISSING = "first_token_missing"
    FIRST_TOKEN_SURPLUS = "first_token_surplus"
    LAST_TOKEN_MISSING = "last_token_missing"
    LAST_TOKEN_SURPLUS = "last_token_surplus"
    NORMALIZER_MISSING = "normalizer_missing"
    CHAT_INVALID = "chat_invalid"
    CHAT_TEXT_DIFFERS = "chat_text_differs"
    CHAT_IDS_DIFFER = "chat_ids_differ"
    # ternary tensors
    TENSOR_INVALID = "tensor_invalid"  # bytes that no layout gives
    CODES_DIFFER = "codes_differ"
    CODE_DIFFERS = "code_differs"  # a single one
    CODES_ZERO = "codes_zero"
    CODES_NEGATED = "codes_negated"
    CODES_REMAPPED = "codes_remapped"
    CODES_TRANSPOSED = "codes_transposed"
    CODES_SHIFTED = "codes_shifted"
    CODES_OF_OTHER_TENSOR = "codes_of_other_tensor"
    BYTE_ORDER = "byte_order"
    ROWS_PERMUTED = "rows_permuted"  # for rotary embedding, in a model that must not
    ROWS_NOT_PERMUTED = "rows_not_permuted"  # for rotary embedding, in a model that needs it
    ROWS_QUARTERED = "rows_quartered"
    ROWS_SHIFTED = "rows_shifted"
    ROWS_REORDERED = "rows_reordered"
    COLUMNS_REVERSED = "columns_reversed"
    COLUMNS_REORDERED = "columns_reordered"
    SCALE_DIFFERS = "scale_differs"
    SCALE_FLOAT16 = "scale_float16"
    SCALE_BFLOAT16 = "scale_bfloat16"
    SCALE_OF_OTHER_TENSOR = "scale_of_other_tensor"
    SCALE_LOST = "scale_lost"
    SCALE_INVERTED = "scale_inverted"
    SCALE_SQUARED = "scale_squared"
    SCALE_ABSMEAN_TWICE = "scale_absmean_twice"
    SCALE_ROUNDING_UNRECORDED = "scale_rounding_unrecorded"
    TRITS_CARRIER_MAJOR = "trits_carrier_major"  # PTQ1_0's bytes taken for runs of neighbours
    # a Qwen3.5 hybrid
    VALUE_HEADS_GROUPED = "value_heads_grouped"  # not in GGUF's tiled order
    VALUE_HEADS_TWICE = "value_heads_twice"  # tiled twice
    ROTATED_COLUMNS_MOVED = "rotated_columns_moved"
    QUERY_GATE_HALVES = "query_gate_halves"
    QUERY_GATE_SWAPPED = "query_gate_swapped"
    DECAY_IS_LOG = "decay_is_log"
    DECAY_SIGN_LOST = "decay_sign_lost"
    # weights in a rotated basis
    ROTATION_LOST = "rotation_lost"  # all its keys
    ROTATION_UNEXPECTED = "rotation_unexpected"
    ROTATION_BLOCK_DIFFERS = "rotation_block_differs"
    ROTATION_NAMES_DIFFER = "rotation_names_differ"
    ROTATION_COLUMNS_DIFFER = "rotation_columns_differ"  # gdn_v_grouped
    SIGNS_LOST = "signs_lost"
    SIGNS_DIFFER = "signs_differ"
    SIGNS_IN_CODES = "signs_in_codes"
    TABLE_NOT_INVERTED = "table_not_inverted"
    # norms, embedding and head
    NOT_FINITE = "not_finite"
    NORM_DIFFERS = "norm_differs"
    NORM_PLUS_ONE = "norm_plus_one"
    NORM_MINUS_ONE = "norm_minus_one"
    NORM_LOST = "norm_lost"
    NORM_OF_OTHER_TENSOR = "norm_of_other_tensor"
    TABLE_DIFFERS = "table_differs"
    TABLE_ZERO = "table_zero"
    TABLE_ROWS_SHIFTED = "table_rows_shifted"
    TABLE_ROWS_REORDERED = "table_rows_reordered"
    VALUES_ROUNDED = "values_rounded"  # of diff, which does not know whether that was wanted
    # what the file records of itself
    INTEGRITY_INVALID = "integrity_invalid"  # its record makes no sense, or is of other tensors
    INTEGRITY_DIFFERS = "integrity_differs"  # a tensor has other bytes or codes than it records
    # running
    CANNOT_RUN = "cannot_run"
    KERNEL_DIFFERS = "kernel_differs"
    OUTPUTS_DIFFER = "outputs_differ"
    TOKEN_DIFFERS = "token_differs"
    PINNED_TOKEN_DIFFERS = "pinned_token_differs"  # for which neither file nor source has to answer
    ISA_DIFFERS = "isa_differs"
    PERPLEXITY_DIFFERS = "perplexity_differs"
    NO_LANGUAGE = "no_language"  # it predicts no language better than chance


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    sentence: complete by itself; it names the tensor or key. figures: numbers and names that JSON can hold.
    """

    kind: Kind
    sentence: str
    tensor: str | None = None
    figures: dict[str, Any] = dataclasses.field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {"kind": self.kind.value, "tensor": self.tensor, "sentence": self.sentence, "figures": self.figures}


FEW = 3
"""Findings of one kind that are listed one by one; more of them are one mistake, and become one finding."""


def summarised(findings: Sequence[Finding]) -> list[Finding]:
    """The findings in order, with more than FEW of one kind made one, which names the first and lists all tensors."""
    by_kind: dict[Kind, list[Finding]] = {}
    for finding in findings:
        by_kind.setdefault(finding.kind, []).append(finding)
    summaries: list[Finding] = []
    for kind, same in by_kind.items():
        summaries += same if len(same) <= FEW else [_summary(kind, same)]
    return summaries


def _summary(kind: Kind, findings: Sequence[Finding]) -> Finding:
    first = findings[0]
    tensors = [finding.tensor for finding in findings if finding.tensor is not None]
    place = f"{len(tensors)} tensors" if len(tensors) == len(findings) else f"{len(findings)} places"
    sentence = f"{kind.value.replace('_', ' ')}, in {place}; the first: {first.sentence}"
    figures = {**first.figures, "count": len(findings)} | ({"tensors": tensors} if tensors else {})
    return Finding(kind, sentence, first.tensor, figures)
