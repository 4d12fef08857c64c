"""What makes an Oracle one of a hybrid: runtime/hybrid_reference.py, and the arrays that this asks for."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tritpack.converter.verify.oracle.oracle import Oracle
from tritpack.converter.verify.oracle.tensors import F32
from tritpack.formats.model_spec import TABLES
from tritpack.runtime import hybrid_reference

KEPT = 1 << 26
"""A model of so many parameters or fewer is decoded once, and 256 MiB at most are kept."""


class HybridOutputs(Oracle):
    """An Oracle whose outputs are the hybrid's reference, of weights as FILE stores them, in transformers' order."""

    def logits(self, sequences: Sequence[Sequence[int]], **options: Any) -> list[F32]:
        """Logits of each sequence, float32 (tokens, vocab). Of the options only `trace` means something here: nothing
        is rounded to int8, so that there are no near-ties."""
        chosen = {"trace": options["trace"]} if "trace" in options else {}
        return [hybrid_reference.forward(self.spec, self, tokens, **chosen) for tokens in sequences]

    def outputs(self, sequences: Sequence[Sequence[int]], **options: Any) -> list[F32]:
        return self.logits(sequences, **options)

    # -- the HybridWeights protocol of runtime/hybrid_reference.py -----------------------------------------------------

    def rows(self, name: str, rows: npt.NDArray[np.int64]) -> F32:
        part = name.removesuffix(".weight")
        return self._stored_rows(part, rows)

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
            return self._stored_rows(part, slice(0, shape[0]))
        if name not in self.spec.linear_names():
            return self.original_rows(part, 0, shape[0])
        codes, scales = self.linear(part)
        row_blocks, col_blocks = (size // blocks for size, blocks in zip(codes.shape, scales.shape))
        values: F32 = codes.astype(np.float32) * np.repeat(np.repeat(scales, row_blocks, 0), col_blocks, 1)
        return values
