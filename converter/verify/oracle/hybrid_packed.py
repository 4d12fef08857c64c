"""A GGUF file of a Qwen3.5 hybrid as arrays for runtime/hybrid_reference.py, each in transformers' order of heads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tritpack.formats import float_types
from tritpack.formats.errors import Unreadable, Unsupported
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.model_metadata import from_gguf
from tritpack.formats.model_spec import ModelSpec
from tritpack.runtime import hybrid_reference

F32 = npt.NDArray[np.float32]


class HybridPacked:
    """The weights of a GGUF file, decoded one at a time. Raises Unreadable and Unsupported."""

    def __init__(self, path: Path) -> None:
        self.file = GgufFile(path)
        self.spec: ModelSpec = from_gguf(self.file)
        if self.spec.delta_net is None:
            raise Unsupported(f"architecture {self.spec.architecture!r} is no hybrid", path=path)
        for name, shape in self.spec.tensor_shapes().items():
            if name not in self.file.tensors:
                raise Unreadable("is missing", path=path, tensor=name)
            if (found := self.file.tensors[name].shape) != shape:
                raise Unreadable(f"has shape {list(found)}, expected {list(shape)}", path=path, tensor=name)

    def logits(self, tokens: Sequence[int]) -> F32:
        """Return the logits of one sequence, float32 (tokens, vocab)."""
        return hybrid_reference.forward(self.spec, self, tokens)

    def rows(self, name: str, rows: npt.NDArray[np.int64]) -> F32:
        return self._stored(name)[rows]

    def array(self, name: str) -> F32:
        values = self._stored(name)
        if (order := self.spec.row_order(name)) is not None:
            values = values[np.argsort(order)]
        if (order := self.spec.column_order(name)) is not None:
            values = values[:, np.argsort(order)]
        return values

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
