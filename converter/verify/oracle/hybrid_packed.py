"""A GGUF file of a Qwen3.5 hybrid as arrays for runtime/hybrid_reference.py, each in transformers' order of heads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tritpack.formats import float_types
from tritpack.formats.errors import Unsupported
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.hybrid_metadata import hybrid_from_gguf
from tritpack.formats.hybrid_spec import HybridSpec
from tritpack.runtime import hybrid_reference

F32 = npt.NDArray[np.float32]
MIXED = ("attn_qkv.weight", "ssm_conv1d.weight")
"""Tensors whose last rows are those of value heads, after those of queries and keys."""
BY_HEAD = ("attn_gate.weight", "ssm_alpha.weight", "ssm_beta.weight", "ssm_a", "ssm_dt.bias")
"""Tensors whose rows, or elements, are all of value heads."""


class HybridPacked:
    """The weights of a GGUF file, decoded one at a time. Raises Unreadable and Unsupported."""

    def __init__(self, path: Path) -> None:
        self.file = GgufFile(path)
        self.spec: HybridSpec = hybrid_from_gguf(self.file)

    def logits(self, tokens: Sequence[int]) -> F32:
        """Return the logits of one sequence, float32 (tokens, vocab)."""
        return hybrid_reference.forward(self.spec, self, tokens)

    def rows(self, name: str, rows: npt.NDArray[np.int64]) -> F32:
        return self._stored(name)[rows]

    def array(self, name: str) -> F32:
        values, part = self._stored(name), name.split(".", 2)[-1]
        if part in MIXED:
            first = 2 * self.spec.key_width
            return np.concatenate([values[:first], self._grouped(values[first:])])
        if part in BY_HEAD:
            return self._grouped(values)
        if part == "ssm_out.weight" and not (self.spec.rotation and name in self.spec.rotation.weights):
            return self._grouped(values.T).T
        return values

    def _grouped(self, values: F32) -> F32:
        """Return rows of value heads in transformers' order instead of GGUF's."""
        by_head = values.reshape(self.spec.value_heads, -1)
        return by_head[np.argsort(self.spec.head_order())].reshape(values.shape)

    def _stored(self, name: str) -> F32:
        info = self.file.tensors[name]
        if (ternary := self.file.ternary(info)) is not None:
            values: F32 = ternary.dequantize()
        elif info.layout in float_types.FLOAT_TYPES:
            values = float_types.decode(info.layout, self.file.bytes_of(info), info.rows, info.cols)
        else:
            message = f"it is stored as {info.layout}, which is not read here"
            raise Unsupported(message, path=self.file.path_of(info), tensor=name)
        return values.reshape(info.shape)
