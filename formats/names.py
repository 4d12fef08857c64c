"""Every name of a layout, float type, instruction set and exit code, once.

Imports nothing, so that `--help` stays quick. Where an order is part of a contract, it is said here; the C library's
lists are compared with these when it is loaded.
"""

from __future__ import annotations

import enum

PLAIN_FLOATS = ("f32", "f16", "bf16")
BLOCK_FLOATS = ("q8_0", "q6_k", "q4_k")
"""Float types that round: blocks of integers with scales."""
FLOAT_TYPES = (*PLAIN_FLOATS, *BLOCK_FLOATS)
"""Types of embeddings, heads and norms, in the order of the C enum tp_layout."""

LAYOUTS = (
    "i2_s", "t2", "t158", "tl1", "tl2", "tq1_0", "tq2_0", "q2_0", "ptq1_0", "pq2_0", "iq1_bn", "iq2_bn", "iq2_bn_r4",
)  # fmt: skip
"""Layouts of ternary tensors in a GGUF file, in the order of the C enum, which follows the float types."""

READ_ONLY = ("stq1_0",)
"""Layouts of other tools' GGUF files that are decoded, and neither written nor run."""

CHECKPOINT_LAYOUTS = ("hf_u8", "mlx2")
"""Layouts of ternary tensors in safetensors: their scales are tensors of their own."""

PLAIN_CODES = "u8"
"""One code per byte: what kernels unpack to, stored nowhere."""

C_LAYOUTS = (*FLOAT_TYPES, *LAYOUTS, *CHECKPOINT_LAYOUTS, PLAIN_CODES)
"""The C enum tp_layout: the index is the number."""

READ_AS = ("i2_s_arm", "i2_s_rows4")
"""Orders of bytes that bitnet.cpp has written under i2_s's type id; they are read on request and never written."""

ISAS = ("scalar", "ssse3", "avx2", "avxvnni", "avx512vnni", "neon", "dotprod", "i8mm", "simd128")
"""Instruction sets, in the order of the C enum tp_isa: within one machine, each is better than those before it."""

KV_TYPES = ("f32", "i16")
"""Types of the KV cache, in the order of the C enum."""
DRAFTS = ("lookup", "none")
"""What guesses tokens for a model: n-grams of the text so far, or nothing."""

ACTIVATIONS = ("relu2", "silu", "gelu_pytorch_tanh")
"""Activation functions, spelled as `hidden_act` of config.json, in the order of the C enum; relu2 is max(x, 0) ** 2."""

DTYPES = ("bfloat16", "float16", "float32")
"""Float types of exported checkpoints, smallest first, as transformers spells them."""


POOLING = ("none", "mean", "cls", "last")
"""How an embedding model makes one vector of its positions; the index is the number in `<arch>.pooling_type`."""

TL2_TYPE_IDS = (42, 39)
"""GGUF type ids of tl2: bitnet.cpp's since July 2026, and until May 2026."""

PQ2_TYPE_IDS = (142, 42)
"""GGUF type ids of pq2_0: PrismML's now, and until mid 2026."""

FLOAT_QUANTIZERS = ("absmean",)
"""What --quantize takes: how plain floats are made ternary on request."""

EXPORT_TARGETS = ("hf", "mlx", "compressed-tensors", "onnx")
"""What an export can be for: transformers, mlx-lm, vLLM (a checkpoint), and ONNX Runtime (a graph per linear)."""

GROUP_SIZES = (128, 64, 32)
"""Weights per scale that MLX and vLLM have, largest first."""

DUMMY_SHAPES = ("bitnet-2b-4t", "tiny", "bonsai2-4b", "bonsai2-tiny")
DUMMY_MODES = ("offline", "online")
"""Shapes and weights of `make-dummy`: packed codes, or bf16 master weights."""

PUBLISHED_SHAPES = ("bitnet-2b-4t", "8b", "70b", "100b")
"""What `inspect --shape` takes: sizes of models that were published or announced."""


class ExitCode(enum.IntEnum):
    """What the process ends with. README.md documents it, and a test keeps the two equal."""

    GOOD = 0
    CHECK_FAILED = 1
    USAGE = 2
    UNREADABLE = 3
    UNSUPPORTED = 4
    WRITE_FAILED = 5
    INTEGRITY = 6
    MISSING = 7
    NETWORK = 8
    INTERNAL = 70
