"""The C library's interface (runtime/csrc/include/tritpack.h) in ctypes: ids, structs and signatures.

This module changes when, and only when, that header does. ABI_VERSION tells a library of another version.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from tritpack.formats import names
from tritpack.formats.errors import MissingRequirement, TritpackError, Unreadable, Unsupported, UsageError

ABI_VERSION = 8
LAYOUT_IDS = {name: number for number, name in enumerate(names.C_LAYOUTS)}
NOT_RUN = frozenset((*names.CHECKPOINT_LAYOUTS, names.PLAIN_CODES))
"""Layouts whose scales are in other tensors, and plain codes: no tensor of a model."""
ACTIVATION_IDS = {name: number for number, name in enumerate(names.ACTIVATIONS)}
KV_TYPE_IDS = {name: number for number, name in enumerate(names.KV_TYPES)}
LOGITS_MODES = {"none": 0, "last": 1, "all": 2}
DTYPES: dict[int, np.dtype[Any]] = {0: np.dtype(np.float32), 1: np.dtype(np.int8)}

ERRORS: dict[int, type[TritpackError]] = {
    1: UsageError,  # argument
    2: Unreadable,  # shape
    3: Unsupported,  # layout
    4: Unreadable,  # bytes
    5: MissingRequirement,  # isa
    6: UsageError,  # token
    7: UsageError,  # context
    8: MissingRequirement,  # memory: more than this machine has
    9: MissingRequirement,  # a thread that the system does not start
    10: Unsupported,  # not finite
    11: Unsupported,  # overflow
}
"""tp_status -> exception."""


class TensorStruct(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("cols", ctypes.c_int64),
        ("nbytes", ctypes.c_uint64),
        ("layout", ctypes.c_int32),
        ("tile", ctypes.c_int32 * 3),
        ("scale", ctypes.c_float),
        ("rotated", ctypes.c_int32),
    )


class KernelStruct(ctypes.Structure):
    _fields_ = (
        ("symbol", ctypes.c_char_p),
        ("op", ctypes.c_char_p),
        ("layout", ctypes.c_char_p),
        ("isa", ctypes.c_char_p),
        ("available", ctypes.c_int32),
    )


class HparamsStruct(ctypes.Structure):
    _fields_ = (
        ("vocab_size", ctypes.c_int32),
        ("hidden", ctypes.c_int32),
        ("ffn", ctypes.c_int32),
        ("layers", ctypes.c_int32),
        ("heads", ctypes.c_int32),
        ("kv_heads", ctypes.c_int32),
        ("head_dim", ctypes.c_int32),
        ("context_length", ctypes.c_int32),
        ("norm_eps", ctypes.c_float),
        ("projection_norm_eps", ctypes.c_float),
        ("activation", ctypes.c_int32),
        ("int8_activations", ctypes.c_int32),
        ("rope_interleaved", ctypes.c_int32),
        ("window", ctypes.c_int32),
        ("embedding_scale", ctypes.c_float),
        ("residual_scale", ctypes.c_float),
        ("logit_scale", ctypes.c_float),
        ("attention_scale", ctypes.c_float),
        ("rope_factor", ctypes.c_float),
        ("rotary_dim", ctypes.c_int32),
        ("gated_attention", ctypes.c_int32),
        ("key_heads", ctypes.c_int32),
        ("value_heads", ctypes.c_int32),
        ("state_size", ctypes.c_int32),
        ("conv_taps", ctypes.c_int32),
        ("rotation_block", ctypes.c_int32),
        ("grouped_heads", ctypes.c_int32),
        ("sign_widths", ctypes.c_int32 * 4),
        ("inv_freq", ctypes.c_void_p),
        ("inv_freq_sliding", ctypes.c_void_p),
        ("signs", ctypes.c_void_p),
    )


class LayerStruct(ctypes.Structure):
    _fields_ = (
        *(
            (name, TensorStruct)
            for name in (
                "attn_norm", "attn_q", "attn_k", "attn_v", "attn_q_norm", "attn_k_norm", "attn_sub_norm", "attn_output",
                "post_attention_norm", "ffn_norm", "ffn_gate", "ffn_up", "ffn_sub_norm", "ffn_down", "post_ffw_norm",
                "attn_q_norm_in", "attn_k_norm_in", "attn_v_norm_in", "attn_output_norm_in",
                "ffn_gate_norm_in", "ffn_up_norm_in", "ffn_down_norm_in",
                "attn_qkv", "attn_gate", "ssm_alpha", "ssm_beta", "ssm_conv1d",
                "ssm_a", "ssm_dt", "ssm_norm", "ssm_out",
            )
        ),
        ("slides", ctypes.c_int32),
        ("recurrent", ctypes.c_int32),
    )  # fmt: skip


class SessionStruct(ctypes.Structure):
    _fields_ = (
        ("n_ctx", ctypes.c_int32),
        ("threads", ctypes.c_int32),
        ("isa", ctypes.c_int32),
        ("kv_type", ctypes.c_int32),
        ("batch", ctypes.c_int32),
    )


class SpanStruct(ctypes.Structure):
    _fields_ = (
        ("sequence", ctypes.c_void_p),
        ("tokens", ctypes.c_void_p),
        ("n", ctypes.c_int64),
        ("wanted", ctypes.c_int64),
    )


TRACE = ctypes.CFUNCTYPE(
    None,
    ctypes.c_void_p,
    ctypes.c_char_p,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int64,
    ctypes.c_int64,
    ctypes.c_void_p,
)

_P, _I, _L = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "tp_abi_version": (_I, ()),
    "tp_status_text": (ctypes.c_char_p, (_I,)),
    "tp_error_place": (ctypes.c_char_p, ()),
    "tp_isa_name": (ctypes.c_char_p, (_I,)),
    "tp_isa_available": (_I, (_I,)),
    "tp_best_isa": (_I, ()),
    "tp_cpu_description": (ctypes.c_size_t, (ctypes.c_char_p, ctypes.c_size_t)),
    "tp_layout_name": (ctypes.c_char_p, (_I,)),
    "tp_tensor_nbytes": (ctypes.c_uint64, (_I, _L, _L)),
    "tp_pack": (_I, (_I, _P, _L, _L, _P, _P, ctypes.c_uint64)),
    "tp_unpack": (_I, (_I, _P, _L, _L, _P, ctypes.c_uint64, _P)),
    "tp_encode": (_I, (_I, _I, _L, _L, _P, _P, ctypes.POINTER(_I))),
    "tp_abs_sums": (_I, (_I, _L, _L, _P, _P)),
    "tp_absmean_codes": (_I, (_I, _L, _L, _P, ctypes.c_float, _P)),
    "tp_checksum": (ctypes.c_uint64, (_P, ctypes.c_uint64, ctypes.c_uint64)),
    "tp_kernel_count": (_I, ()),
    "tp_kernel_info": (_I, (_I, ctypes.POINTER(KernelStruct))),
    "tp_model_new": (_I, (_P, _P, _P, _P, _P, _P)),
    "tp_model_free": (None, (_P,)),
    "tp_session_new": (_I, (_P, _P, _P)),
    "tp_session_free": (None, (_P,)),
    "tp_eval": (_I, (_P, _P, _L, _I, _P)),
    "tp_eval_begin": (_I, (_P, _P, _L, _I)),
    "tp_eval_layers": (_I, (_P, _I, _P, _P)),
    "tp_eval_hidden": (_I, (_P, _P, _L, _P)),
    "tp_n_past": (_L, (_P,)),
    "tp_rewind": (_I, (_P, _L)),
    "tp_session_sequence": (_P, (_P,)),
    "tp_sequence_new": (_I, (_P, _L, _P)),
    "tp_sequence_free": (None, (_P,)),
    "tp_sequence_n_past": (_L, (_P,)),
    "tp_sequence_rewindable": (_L, (_P, _L)),
    "tp_sequence_rewind": (_I, (_P, _L)),
    "tp_sequence_copy": (_I, (_P, _P, _L)),
    "tp_eval_spans": (_I, (_P, _P, _L, _P)),
    "tp_sequence_state_bytes": (ctypes.c_uint64, (_P, _L)),
    "tp_sequence_save": (_I, (_P, _P, ctypes.c_uint64)),
    "tp_sequence_load": (_I, (_P, _L, _P, ctypes.c_uint64)),
    "tp_set_trace": (None, (_P, TRACE, _P)),
    "tp_session_kernels": (_I, (_P, ctypes.POINTER(ctypes.c_char_p), _I)),
    "tp_quantize_activations": (_I, (_I, _P, _L, _L, _P, _P, _P)),
    "tp_kernel_matmul_int": (_I, (_I, _P, _P, _L, _P)),
    "tp_head_matmul": (_I, (_I, _P, _P, _L, _P)),
    "tp_tensor_row": (_I, (_P, _L, _P)),
    "tp_bench_read": (_I, (_I, _I, _P, ctypes.c_uint64, ctypes.POINTER(ctypes.c_double))),
    "tp_bench_dots": (_I, (_I, _I, ctypes.POINTER(ctypes.c_double))),
    "tp_bench_floats": (_I, (_I, _I, ctypes.POINTER(ctypes.c_double))),
    "tp_bench_kernel": (_I, (_I, ctypes.POINTER(ctypes.c_double))),
    "tp_self_test": (_I, (ctypes.c_char_p, ctypes.c_size_t)),
}
