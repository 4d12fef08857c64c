"""The second opinion: a checkpoint folder read by short code of its own, fed to runtime/reference.py.

It imports none of families, storage, plan, sources, layouts and the C library, and is given data, not functions, so
that a mistake in any of them cannot hide here. checkpoint.py and config.py say what a checkpoint is; tensors.py and
codes.py read its bytes. A checkpoint that the oracle does not understand to the last tensor and switch is refused.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tritpack.converter.verify.oracle import codes
from tritpack.converter.verify.oracle.checkpoint import Checkpoint
from tritpack.converter.verify.oracle.codes import Coded, CodedRows
from tritpack.converter.verify.oracle.rounding import EXACTLY, StoredTypes, decode_rows, round_rows, round_scales
from tritpack.converter.verify.oracle.tensors import F32, Rows, Tensor, open_tensors
from tritpack.formats.errors import Unreadable, Unsupported, locating
from tritpack.formats.inputs import read_input
from tritpack.formats.model_spec import PROJECTION_NORMS, ModelSpec
from tritpack.runtime import reference

HEAD_ROWS = 256
"""Rows of the head that are decoded at a time: they stay in the cache."""
DAMAGE = (
    OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, ArithmeticError, RecursionError, re.error,
    struct.error,
)  # fmt: skip
"""What a damaged or hostile checkpoint makes Python raise."""


class Oracle:
    """A checkpoint folder as transformers understands it: `spec`, weights on demand, and logits.

    stored: how FILE stores tables and scales; the oracle computes with values rounded so, and a rounding that was asked
    for is not a deviation.
    quantize: `absmean` quantises plain floats, which are refused otherwise; it changes nothing for other checkpoints.
    Raises Unreadable for a checkpoint that is missing or makes no sense, Unsupported for one of another kind.
    """

    spec: ModelSpec
    config: dict[str, Any]
    name = "the numpy reference"

    def __init__(
        self,
        folder: Path,
        stored: StoredTypes = EXACTLY,
        *,
        quantize: str | None = None,
    ) -> None:
        self._stored = stored
        try:
            self.config = dict(json.loads(read_input(folder / "config.json")))
            self._tensors, notes = open_tensors(folder)
        except DAMAGE as error:
            raise Unreadable(f"the checkpoint cannot be read: {_sentence(error)}", path=folder) from error
        try:
            with locating(path=folder):
                checkpoint = Checkpoint(self.config, self._tensors, notes, folder, quantize)
        except DAMAGE as error:
            raise Unreadable(f"the configuration makes no sense: {_sentence(error)}", path=folder) from error
        self.spec, self._storage, self._names = checkpoint.spec, checkpoint.storage, checkpoint.names
        self.unused = checkpoint.unused  # tensors that the model does not read

    @property
    def quantizes_floats(self) -> bool:
        """Whether master weights are quantised because `quantize` says so, or by a rule of the family that no
        quantization_config states."""
        return self._storage.kind == "absmean" and not self.config.get("quantization_config")

    def has(self, name: str) -> bool:
        """Whether the checkpoint has a tensor of this name."""
        return name in self._tensors

    def release(self, name: str) -> None:
        """Let go of the pages of a tensor, by its GGUF name; it can be read again."""
        if name in self._names:
            self._tensors[self._names[name]].release()

    def logits(self, sequences: Sequence[Sequence[int]], **options: Any) -> list[F32]:
        """See reference.forward."""
        return reference.forward(self.spec, self, sequences, **options)

    def hidden(self, sequences: Sequence[Sequence[int]], **options: Any) -> list[F32]:
        """The states after the final norm; see reference.forward."""
        return reference.forward(self.spec, self, sequences, hidden=True, **options)

    def outputs(self, sequences: Sequence[Sequence[int]], **options: Any) -> list[F32]:
        """What this model is for: hidden states of an embedding model, logits of every other."""
        return (self.hidden if self.spec.is_embedding_model else self.logits)(sequences, **options)

    # -- the Weights protocol of runtime/reference.py ------------------------------------------------------------------

    def embedding(self, tokens: npt.NDArray[np.int64]) -> F32:
        return self._stored_rows("token_embd", tokens)

    def norm(self, name: str) -> F32 | None:
        if name not in self._names:
            return None
        weight = self._tensors[self._names[name]].floats()
        # Gemma stores what its norms add to 1; the norms before projections are not Gemma's own.
        adds_one = self.spec.architecture == "gemma3" and name.rpartition(".")[2] not in PROJECTION_NORMS
        return np.float32(1) + weight if adds_one else weight

    def linear(self, name: str) -> Coded:
        """int8 codes and float32 multipliers, as FILE stores them."""
        codes, scales = self._linear(name)
        self.release(name)
        stored = self._stored.scales.get(name)
        return codes, scales if stored is None else round_scales((codes, scales), stored)

    def _linear(self, name: str) -> Coded:
        tensor = self._tensors[self._names[name]]
        if self._storage.kind == "absmean":
            return codes.absmean(tensor)
        if self._storage.kind == "scaled":
            scale = self._companion(tensor, "weight_scale")
            return codes.scaled(tensor, scale, multiplies=self._storage.multiplies)
        coded = self._exactly_coded(tensor)
        if coded is None:
            raise Unsupported("it is not ternary, though others of the checkpoint are", tensor=tensor.name)
        return coded

    def head(self) -> Iterator[F32]:
        name = "token_embd" if self.spec.tied else "output"
        for first in range(0, self.spec.vocab_size, HEAD_ROWS):
            yield self._stored_rows(name, slice(first, min(first + HEAD_ROWS, self.spec.vocab_size)))

    def _stored_rows(self, name: str, rows: Rows) -> F32:
        """Rows of `token_embd` or `output` as FILE stores them."""
        table = self._stored.tables.get(name)
        if table is None:
            return self._rows(name, rows)
        if table.data is None:
            return round_rows(self._rows(name, rows), table.float_type)
        return decode_rows(table, rows, self.spec.hidden_size)

    def linear_rows(self, name: str) -> CodedRows | None:
        """The same by rows, with the multipliers as the checkpoint has them; None where only the whole is decoded."""
        tensor = self._tensors[self._names[name]]
        if self._storage.kind == "absmean":
            return codes.absmean_rows(tensor)
        if self._storage.kind != "scaled":
            return None
        scale = self._companion(tensor, "weight_scale")
        return codes.scaled_rows(tensor, scale, multiplies=self._storage.multiplies)

    # -- what the source holds, exactly --------------------------------------------------------------------------------

    def original_rows(self, name: str, first: int, last: int) -> F32:
        """Rows [first, last) of `token_embd` or `output` as the checkpoint has them, float32."""
        return self._rows(name, slice(first, last))

    def table_codes(self, name: str) -> Coded | None:
        """Codes and multipliers of `token_embd` or `output` where the table is ternary, else None."""
        tensor = self._tensors[self._names[name]]
        return self._exactly_coded(tensor) if self._storage.kind in ("exact", "mlx", "int2") else None

    def _exactly_coded(self, tensor: Tensor) -> Coded | None:
        if tensor.kind == "U32":
            return self._mlx(tensor)
        if tensor.kind == "I32":
            return codes.pack_quantized(
                tensor, self._companion(tensor, "weight_scale"), self._companion(tensor, "weight_shape")
            )
        return codes.recovered(tensor)

    def _rows(self, name: str, rows: Rows) -> F32:
        tensor = self._tensors[self._names[name]]
        if tensor.kind != "U32":
            return tensor.floats(rows)
        codes, scales = self._mlx(tensor, rows)
        return codes.astype(np.float32) * np.repeat(scales, codes.shape[1] // scales.shape[1], axis=1)

    def _mlx(self, tensor: Tensor, rows: Rows = slice(None)) -> Coded:
        scales, biases = self._companion(tensor, "scales"), self._companion(tensor, "biases")
        return codes.mlx(tensor, scales, biases, rows)

    def _companion(self, tensor: Tensor, part: str) -> Tensor:
        """The tensor of scales or biases beside it, which is there: Checkpoint has checked that."""
        return self._tensors[f"{tensor.name.removesuffix('_packed').removesuffix('.weight')}.{part}"]


def _sentence(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{Path(error.filename).name}: {error.strerror}"
    return f"{error}" if isinstance(error, (OSError, json.JSONDecodeError)) else f"{type(error).__name__} {error}"
