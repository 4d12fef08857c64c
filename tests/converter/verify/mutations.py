"""The mutations of the bench: files broken in every way that converters break them, each with its diagnosis."""

from __future__ import annotations

import dataclasses

import numpy as np

from tests.converter.verify.breakages import (
    ARCH,
    Edit,
    absmean_again,
    arrays,
    bos_twice,
    codes,
    drop,
    exchanged,
    flip_one,
    in_order_of,
    key,
    metadata,
    nan,
    norm,
    renamed_architecture,
    retyped,
    rotary,
    scales,
    shifted,
    stale_scale,
    swap_two_tokens,
    tensors_as,
    unrotary,
    untie,
    without,
    written_by_another_tool,
)
from tritpack.converter.verify.findings import Kind


@dataclasses.dataclass(frozen=True)
class Mutation:
    """rung: the lowest that can see it. kind: the diagnosis. words: names and numbers in the findings. edit: how the
    file of `family` is broken."""

    rung: str
    kind: Kind
    words: tuple[str, ...]
    edit: Edit
    family: str = "ms_2b4t_packed"


Q, UP, GATE, DOWN = (f"blk.{part}.weight" for part in ("0.attn_q", "1.ffn_up", "1.ffn_gate", "1.ffn_down"))
MUTATIONS: dict[str, Mutation] = {
    # what the metadata says
    "SiLU for squared ReLU": Mutation(
        "structure",
        Kind.MODEL_DIFFERS,
        ("activation is 'silu', the source has 'relu2'",),
        key(f"{ARCH}.hidden_activation", "silu"),
    ),
    "another eps": Mutation(
        "structure", Kind.MODEL_DIFFERS, ("norm_eps is 1e-06",), key(f"{ARCH}.attention.layer_norm_rms_epsilon", 1e-6)
    ),
    "another rope base": Mutation(
        "structure", Kind.MODEL_DIFFERS, ("rope_theta is 10000.0",), key(f"{ARCH}.rope.freq_base", 10000.0)
    ),
    "head_dim from hidden / heads": Mutation(
        "structure",
        Kind.MODEL_DIFFERS,
        ("head_dim is 32", "the source has 64"),
        key("gemma3.rope.dimension_count", 32),
        "gemma3_packed",
    ),
    "NORM rope for NEOX": Mutation(
        "structure",
        Kind.ROTARY_PAIRING_DIFFERS,
        ("llama rotates pairs (2 i, 2 i + 1)", "NEOX"),
        metadata(renamed_architecture),
    ),
    "rope scaling lost": Mutation(
        "structure",
        Kind.MODEL_DIFFERS,
        ("rope_scaling is None",),
        metadata(lambda pairs: [pairs.pop(name) for name in list(pairs) if "rope.scaling" in name]),
        "bonsai_untied_yarn",
    ),
    "embedding scale lost": Mutation(
        "structure",
        Kind.MODEL_DIFFERS,
        ("embedding_scale is 1.0",),
        key("gemma3.embedding_scale", 1.0),
        "gemma3_packed",
    ),
    "activations no longer int8": Mutation(
        "structure", Kind.MODEL_DIFFERS, ("int8_activations is False",), key("tritpack.activation_quantization", "none")
    ),
    "pooling by mean": Mutation(
        "structure", Kind.MODEL_DIFFERS, ("pooling is 'mean'",), key("qwen3.pooling_type", 1), "embedding_qwen3"
    ),
    "the file type of another fork": Mutation(
        "structure", Kind.KEY_DIFFERS, ("general.file_type is 41, expected 40",), key("general.file_type", 41)
    ),
    "a scale that only other engines read": Mutation(
        "structure",
        Kind.KEY_DIFFERS,
        ("minicpm.logit_scale is 1.0, expected",),
        key("minicpm.logit_scale", 1.0),
        "bitcpm",
    ),
    "an attention factor that only other engines read": Mutation(
        "structure",
        Kind.KEY_DIFFERS,
        ("rope.scaling.attn_factor is 3.0",),
        key("minicpm.rope.scaling.attn_factor", 3.0),
        "bitcpm_longrope",
    ),
    "a head size that engines would guess": Mutation(
        "structure",
        Kind.KEY_MISSING,
        ("gemma3.attention.key_length is missing",),
        without("gemma3.attention.key_length"),
        "gemma3_packed",
    ),
    "a mixture of experts": Mutation(
        "structure",
        Kind.KEY_UNEXPECTED,
        ("llama.expert_count is 8, and the source has no such key",),
        key("llama.expert_count", 8),
        "falcon3",
    ),
    "end tokens hidden behind a second GGUF": Mutation(
        "structure",
        Kind.END_TOKENS_MISSING,
        ("do not stop generation", "tokens [3] stop generation"),
        metadata(
            lambda pairs: pairs.update(
                {
                    "general.source.format": "gguf",
                    "tritpack.tokenizer.stop_token_ids": np.array([3], np.int32),
                }
            )
        ),
    ),
    # the tensor table
    "a sub-norm lost": Mutation(
        "structure",
        Kind.NORMS_MISSING,
        ("attn_sub_norm is missing in all of the 2 layers: the norm was lost",),
        drop("attn_sub_norm"),
    ),
    "norms before projections lost": Mutation(
        "structure",
        Kind.NORMS_MISSING,
        ("in 7 tensors; the first:", "_norm_in is missing in all"),
        drop("_norm_in"),
        "embedding_qwen3",
    ),
    "head untied": Mutation(
        "structure",
        Kind.TENSOR_UNEXPECTED,
        ("'output.weight' is not part of this model (the source ties the head",),
        tensors_as(untie),
    ),
    "head lost": Mutation(
        "structure", Kind.TENSOR_MISSING, ("tied is True", "'output.weight' is missing"), drop("output."), "falcon3"
    ),
    "F16 under the name of I2_S": Mutation(
        "structure",
        Kind.TYPE_DIFFERS,
        ("is stored as f16, expected a ternary layout",),
        retyped("ffn_up", 1, lambda r, c: 2 * r * c),
    ),
    "TL2's number read as MXFP4": Mutation(
        "structure", Kind.TYPE_DIFFERS, ("is stored as mxfp4",), retyped("ffn_up", 39, lambda r, c: r * c // 32 * 17)
    ),
    # the tokenizer's keys
    "the template of another model": Mutation(
        "structure",
        Kind.KEY_DIFFERS,
        ("tokenizer.chat_template is '<|im_start|>",),
        key("tokenizer.chat_template", "<|im_start|>{{ messages[0].content }}<|im_end|>"),
    ),
    "BOS twice in a chat": Mutation("structure", Kind.BOS_TWICE, ("a chat begins with", "twice"), metadata(bos_twice)),
    "BOS added twice": Mutation(
        "structure",
        Kind.KEY_DIFFERS,
        ("add_bos_token is True, the source has False",),
        key("tokenizer.ggml.add_bos_token", True),
        "falcon3",
    ),
    "eos missing": Mutation(
        "structure",
        Kind.KEY_MISSING,
        ("tokenizer.ggml.eos_token_id is missing",),
        without("tokenizer.ggml.eos_token_id"),
    ),
    "the chat's end does not stop": Mutation(
        "structure",
        Kind.END_TOKENS_MISSING,
        ("end tokens", "do not stop generation"),
        key("tritpack.tokenizer.stop_token_ids", np.array([3], np.int32)),
    ),
    "the pre-tokenizer lost": Mutation(
        "structure",
        Kind.KEY_DIFFERS,
        ("tokenizer.ggml.pre is 'default', the source has 'llama-bpe'",),
        key("tokenizer.ggml.pre", "default"),
    ),
    "two tokens swapped": Mutation(
        "structure",
        Kind.KEY_DIFFERS,
        ("tokenizer.ggml.tokens differs from the source, first at element 70",),
        metadata(swap_two_tokens),
    ),
    # scales
    "the scale inverted": Mutation("weights", Kind.SCALE_INVERTED, (), scales(lambda t: 1 / t.scales[0, 0])),
    "absmean taken twice": Mutation("weights", Kind.SCALE_ABSMEAN_TWICE, (), scales(absmean_again)),
    "the scale lost": Mutation("weights", Kind.SCALE_LOST, ("its scale is 1,",), scales(lambda t: 1.0)),
    "the scale rounded to float16": Mutation(
        "weights", Kind.SCALE_FLOAT16, (), scales(lambda t: np.float16(t.scales[0, 0])), "ms_2b4t_online"
    ),
    "a stale scale after a repack": Mutation(
        "weights", Kind.SCALE_OF_OTHER_TENSOR, (UP, "the scale of blk.0.ffn_up.weight"), arrays(stale_scale)
    ),
    "127 left in the scale": Mutation(
        "weights", Kind.SCALE_DIFFERS, ("(127 times as large)",), scales(lambda t: 127 * t.scales[0, 0], Q)
    ),
    # codes
    "one trit flipped": Mutation(
        "weights", Kind.CODE_DIFFERS, (UP, "1 of 32768 codes differ", "[3, 77]"), codes(flip_one, UP)
    ),
    "signs flipped": Mutation("weights", Kind.CODES_NEGATED, (), codes(lambda c: -c)),
    "transposed": Mutation("weights", Kind.CODES_TRANSPOSED, (Q,), codes(lambda c: c.T, Q)),
    "q and k permuted though NEOX": Mutation(
        "weights",
        Kind.ROWS_PERMUTED,
        (Q,),
        codes(lambda c: rotary(c, 32), Q, "blk.0.attn_k.weight"),
    ),
    "q and k not permuted though NORM": Mutation(
        "weights",
        Kind.ROWS_NOT_PERMUTED,
        (Q,),
        codes(lambda c: unrotary(c, 32), Q, "blk.0.attn_k.weight"),
        "falcon3",
    ),
    "the checkpoint's packing taken for neighbours": Mutation(
        "weights",
        Kind.ROWS_QUARTERED,
        (UP,),
        codes(lambda c: c.reshape(4, -1, c.shape[1]).swapaxes(0, 1).reshape(c.shape), UP),
    ),
    "a row too far": Mutation("weights", Kind.ROWS_SHIFTED, ("1 further down",), codes(lambda c: np.roll(c, 1, 0), UP)),
    "columns reversed": Mutation("weights", Kind.COLUMNS_REVERSED, (UP,), codes(lambda c: c[:, ::-1], UP)),
    "codes for other values": Mutation("weights", Kind.CODES_REMAPPED, (UP,), codes(lambda c: (c + 2) % 3 - 1, UP)),
    "rows in another order": Mutation("weights", Kind.ROWS_REORDERED, (UP,), codes(lambda c: c[::-1], UP)),
    "ARM's order of blocks": Mutation("weights", Kind.BYTE_ORDER, ("--read-as i2_s_arm",), in_order_of("i2_s_arm")),
    "four rows in a byte": Mutation("weights", Kind.BYTE_ORDER, ("--read-as i2_s_rows4",), in_order_of("i2_s_rows4")),
    "gate and up swapped": Mutation(
        "weights",
        Kind.CODES_OF_OTHER_TENSOR,
        (f"tensor {GATE!r}", f"the codes of {UP}", f"tensor {UP!r}"),
        exchanged(GATE, UP),
    ),
    "the tensor of another layer": Mutation(
        "weights",
        Kind.CODES_OF_OTHER_TENSOR,
        (UP, "the codes of blk.0.ffn_up.weight"),
        arrays(lambda tensors: tensors.update({UP: tensors["blk.0.ffn_up.weight"].copy()})),
    ),
    "off by a tile": Mutation("weights", Kind.CODES_SHIFTED, (DOWN, "128 places further"), codes(shifted, DOWN)),
    "an empty tensor": Mutation("weights", Kind.CODES_ZERO, (UP,), codes(np.zeros_like, UP)),
    "a code of 3": Mutation(
        "weights",
        Kind.TENSOR_INVALID,
        (UP, "code 3 at row 0"),
        arrays(lambda tensors: tensors[UP].__setitem__(0, 0xFF)),
    ),
    # floats
    "1 added to norms that are not Gemma's": Mutation(
        "weights", Kind.NORM_PLUS_ONE, ("blk.0.ffn_norm.weight",), norm("blk.0.ffn_norm.weight", lambda v: v + 1)
    ),
    "1 not added to Gemma's norms": Mutation(
        "weights",
        Kind.NORM_MINUS_ONE,
        ("blk.0.ffn_norm.weight",),
        norm("blk.0.ffn_norm.weight", lambda v: v - 1),
        "gemma3_packed",
    ),
    "two norms exchanged": Mutation(
        "weights",
        Kind.NORM_OF_OTHER_TENSOR,
        tuple(f"the values of blk.0.{part}_norm.weight" for part in ("attn", "ffn")),
        exchanged("blk.0.attn_norm.weight", "blk.0.ffn_norm.weight"),
    ),
    "the scale squared": Mutation("weights", Kind.SCALE_SQUARED, (), scales(lambda t: t.scales[0, 0] ** 2)),
    "a norm of ones": Mutation(
        "weights", Kind.NORM_LOST, ("output_norm.weight",), norm("output_norm.weight", np.ones_like)
    ),
    "a norm that is no number": Mutation(
        "weights", Kind.NOT_FINITE, ("output_norm.weight",), norm("output_norm.weight", nan)
    ),
    "embedding rows shifted": Mutation(
        "weights",
        Kind.TABLE_ROWS_SHIFTED,
        ("token_embd.weight", "1 further down"),
        arrays(lambda t: t.update({"token_embd.weight": np.roll(t["token_embd.weight"], 2 * 128)})),
    ),
    "an embedding of zeros": Mutation(
        "weights", Kind.TABLE_ZERO, ("token_embd.weight",), arrays(lambda t: t["token_embd.weight"].fill(0))
    ),
    # what the tokenizer does
    "a rule for blanks lost": Mutation(
        "tokenizer",
        Kind.TOKEN_IDS_DIFFER,
        ("'  two  spaces", "the source's gives"),
        metadata(written_by_another_tool),
        "gemma3_packed",
    ),
}
