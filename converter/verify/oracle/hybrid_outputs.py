"""What makes an Oracle one of a hybrid: runtime/hybrid_reference.py, and the arrays that this asks for."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tritpack.converter.verify.oracle.oracle import HEAD_ROWS, Oracle
from tritpack.converter.verify.oracle.tensors import F32
from tritpack.formats.model_spec import TABLES, ModelSpec
from tritpack.runtime import hybrid_reference

KEPT = 1 << 26
"""A model of so many parameters or fewer is decoded once, and 256 MiB at most are kept."""


class HybridOutputs(Oracle):
    """An Oracle whose outputs are the hybrid's reference, of weights as FILE stores them, in transformers' order.

    plain_spec: what is computed: `spec`, without a rotation where in_plain_basis has taken it back already.
    """

    plain_spec: ModelSpec

    def logits(self, sequences: Sequence[Sequence[int]], **options: Any) -> list[F32]:
        """Logits of each sequence, float32 (tokens, vocab). Of the options only `trace` means something here: nothing
        is rounded to int8, so that there are no near-ties."""
        chosen = {"trace": options["trace"]} if "trace" in options else {}
        return [hybrid_reference.forward(self.plain_spec, self, tokens, **chosen) for tokens in sequences]

    def outputs(self, sequences: Sequence[Sequence[int]], **options: Any) -> list[F32]:
        return self.logits(sequences, **options)

    def embedding(self, tokens: npt.NDArray[np.int64]) -> F32:
        return self.rows("token_embd.weight", tokens)

    def head(self) -> Iterator[F32]:
        name = "token_embd" if self.spec.tied else "output"
        for first in range(0, self.spec.vocab_size, HEAD_ROWS):
            rows = slice(first, min(first + HEAD_ROWS, self.spec.vocab_size))
            yield self.in_plain_basis(name, self._stored_rows(name, rows))

    # -- the HybridWeights protocol of runtime/hybrid_reference.py -----------------------------------------------------

    def rows(self, name: str, rows: npt.NDArray[np.int64]) -> F32:
        part = name.removesuffix(".weight")
        return self.in_plain_basis(part, self._stored_rows(part, rows))

    def array(self, name: str) -> F32:
        if name not in self._arrays:
            values = self._array(name)
            if self.spec.parameters() > KEPT:
                return values
            self._arrays[name] = values
        return self._arrays[name]

    @functools.cached_property
    def _arrays(self) -> dict[str, F32]:
        """Arrays of a small model, which each sequence asks for."""
        return {}

    def _array(self, name: str) -> F32:
        part, shape = name.removesuffix(".weight"), self.spec.tensor_shapes()[name]
        if len(shape) == 1:
            vector = self.norm(part)
            assert vector is not None
            return vector
        if part in TABLES:
            return self.in_plain_basis(part, self._stored_rows(part, slice(0, shape[0])))
        if name not in self.spec.linear_names():
            return self.original_rows(part, 0, shape[0])
        codes, scales = self.linear(part)
        row_blocks, col_blocks = (size // blocks for size, blocks in zip(codes.shape, scales.shape))
        values: F32 = codes.astype(np.float32) * np.repeat(np.repeat(scales, row_blocks, 0), col_blocks, 1)
        return self.in_plain_basis(part, values)

    def in_plain_basis(self, name: str, values: F32) -> F32:
        """Rows of a matrix, float32, without the rotation that they are stored in, unless the reference computes it."""
        return values
