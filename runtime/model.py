"""A GGUF file made ready to run: its spec, its mapped tensors given to the C library, one session with a KV cache."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from tritpack.formats import float_types, model_metadata
from tritpack.formats.errors import Unreadable, Unsupported
from tritpack.formats.gguf_reader import GgufFile, TensorInfo
from tritpack.formats.model_spec import ALL_NORMS, ROPE_FACTORS, ModelSpec
from tritpack.runtime import packers
from tritpack.runtime.library import CModel, CSession, CTensor
from tritpack.runtime.machine import usable_cores
from tritpack.runtime.tokenizer import Tokenizer

F32 = npt.NDArray[np.float32]
DEFAULT_CACHE_BYTES = 4 << 30
"""What a KV cache may take where nobody asks for a context: long ones would want more than most machines have."""
CODES = ".q8"
"""How the C graph's trace points of int8 codes end; before it stands what runtime/reference.py calls the point."""
SCALE = ".scale"
"""And those of their scales."""


class Model:
    """A model with one session. `eval` continues it, `reset` forgets it, `logits` starts anew.

    threads: default all cores this process may use. isa: None is the best this CPU has. kv_type: f32 or i16.
    context: positions of the KV cache, at most the model's; None is the model's, as far as 4 GiB hold them.
    Raises Unreadable for a file that is no model, Unsupported for one we cannot run, MissingRequirement without the C
    library or for an ISA this CPU lacks.
    """

    def __init__(
        self,
        file: GgufFile | str | Path,
        *,
        threads: int | None = None,
        isa: str | None = None,
        kv_type: str = "f32",
        context: int | None = None,
    ) -> None:
        packers.use_c_packers()  # some layouts are quicker to check by it
        self.file = file if isinstance(file, GgufFile) else GgufFile(file)
        try:
            self.spec = model_metadata.from_gguf(self.file)
        except (Unreadable, Unsupported) as error:
            raise type(error)(f"{self.file.path}: {error.message}", hint=error.hint) from error
        self.context_length = min(context or default_context(self.spec, kv_type), self.spec.context_length)
        self._model = CModel(self.spec, self._tensors())
        self._session = CSession(
            self._model, n_ctx=self.context_length, threads=threads or usable_cores(), isa=isa, kv_type=kv_type
        )

    @property
    def c_model(self) -> CModel:
        """What the C library was given."""
        return self._model

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_metadata(self.file.metadata)

    def reset(self) -> None:
        """Forget every token."""
        self._session.rewind(0)

    def eval(self, tokens: Sequence[int]) -> F32:
        """Append tokens to the session; float32 (vocab,) logits of the last one."""
        last: F32 = self._session.eval(tokens, logits="last")[-1]
        return last

    def eval_all(self, tokens: Sequence[int]) -> F32:
        """Append tokens to the session; float32 (tokens, vocab) logits of each."""
        return self._session.eval(tokens, logits="all")

    def append(self, tokens: Sequence[int]) -> None:
        """Append tokens to the session, without logits."""
        self._session.eval(tokens, logits="none")

    def rewind(self, positions: int) -> None:
        """Forget all tokens behind the first `positions`."""
        self._session.rewind(positions)

    def logits(self, tokens: Sequence[int]) -> F32:
        """float32 (tokens, vocab) of a sequence by itself. Starts the session anew."""
        self.reset()
        return self._session.eval(tokens, logits="all")

    def hidden(self, tokens: Sequence[int]) -> F32:
        """float32 (tokens, hidden): states after the final norm of a sequence by itself. Starts the session anew."""
        self.reset()
        return self._session.hidden(tokens)

    def outputs(self, tokens: Sequence[int]) -> F32:
        """What the model is for: `hidden` of an embedding model, `logits` of any other."""
        return self.hidden(tokens) if self.spec.is_embedding_model else self.logits(tokens)

    def traced_outputs(
        self, tokens: Sequence[int], floats: Callable[[str, int, F32], None] | None = None
    ) -> tuple[F32, dict[tuple[int, str], npt.NDArray[np.int8]]]:
        """`outputs`, and the int8 codes that entered each group of linears, by (layer, reference.py's point). floats: a
        tracer of reference.py, called with copies of every other point; a long sequence comes in several pieces."""
        pieces: dict[tuple[int, str], list[npt.NDArray[np.int8]]] = {}

        def record(point: str, layer: int, data: npt.NDArray[np.generic]) -> None:
            if point.endswith(CODES):
                pieces.setdefault((layer, point.removesuffix(CODES)), []).append(data.astype(np.int8))
            elif floats is not None and not point.endswith(SCALE):
                floats(point, layer, data.astype(np.float32))

        with self._session.traced(record):
            outputs = self.outputs(tokens)
        return outputs, {key: np.concatenate(parts) for key, parts in pieces.items()}

    def kernels(self) -> list[str]:
        """Symbols of the kernels that really ran in this session."""
        return self._session.kernels()

    def close(self) -> None:
        self._session.close()
        self._model.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _tensors(self) -> dict[str, CTensor]:
        """Every tensor of the model as C wants it, shapes checked; all but the norms stay where they are mapped."""
        tensors = {}
        if unknown := self.spec.unknown_tensors(self.file.tensors):
            raise Unsupported(
                f"{self.file.path}: tensor {unknown[0]!r} has no place in its {self.spec.architecture} model",
                hint="without it the model would be another one",
            )
        for name, shape in self.spec.tensor_shapes().items():
            if name == ROPE_FACTORS:
                continue  # in the spec's frequencies already
            info = self.file.tensors.get(name)
            if info is None:
                raise Unreadable(f"{self.file.path}: tensor {name!r} is missing")
            if info.shape != shape:
                found = f"{list(info.shape)}, expected {list(shape)}"
                raise Unreadable(f"{self.file.path}: tensor {name!r} has shape {found}")
            tensors[name] = c_tensor(self.file, info)
        return tensors


def c_tensor(file: GgufFile, info: TensorInfo) -> CTensor:
    """A tensor of a file as C takes it. Raises Unreadable for bytes or scales that make none, Unsupported for a layout
    without kernels."""
    stored = file.bytes_of(info)
    part = info.name.split(".")[-2]
    if part in (*ALL_NORMS, "output_norm") and info.layout in float_types.FLOAT_TYPES:
        values = float_types.decode(info.layout, stored, 1, info.cols)
        return CTensor(np.ascontiguousarray(values).view(np.uint8).reshape(-1), "f32", 1, info.cols)
    if (layout := file.layout_of(info)) is None:
        return CTensor(stored, info.layout, info.rows, info.cols)
    where = f"{file.path}: tensor {info.name!r}"
    try:
        tiling, scale = layout.tiling_of(info.rows, info.cols), file.outer_scale(info)
    except Unreadable as error:
        raise Unreadable(f"{where}: {error.message}", hint=error.hint) from error
    if problems := file.check(info):
        raise Unreadable(f"{where}: {problems[0]}")
    return CTensor(stored, info.layout, info.rows, info.cols, tiling=tiling, scale=scale)


def default_context(spec: ModelSpec, kv_type: str) -> int:
    """Positions of the KV cache where nobody says: the model's own, as far as DEFAULT_CACHE_BYTES hold them."""
    return max(1, min(spec.context_length, DEFAULT_CACHE_BYTES // cache_bytes(spec, kv_type)))


def cache_bytes(spec: ModelSpec, kv_type: str) -> int:
    """Of the keys and values of one position."""
    return (
        2
        * spec.layers
        * spec.kv_heads
        * (2 * (-(-spec.head_dim // 16) * 16) + 4 if kv_type == "i16" else 4 * spec.head_dim)
    )
