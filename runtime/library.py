"""The Python face of the C library: kernels and models; sessions are in session.py.

Knows nothing of files; runtime/model.py brings the tensors. The library is loaded on first use, by absolute path beside
this file, so importing this module needs no compiler. Every failure is a TritpackError; a missing library is
MissingRequirement (exit code 7).
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import sys
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from tritpack.formats.arrays import F32, I8, I32
from tritpack.formats.errors import CheckFailed, MissingRequirement, Unsupported, UsageError
from tritpack.formats.layouts.c_packers import Tile
from tritpack.formats.model_spec import INTERLEAVED_ROPE, ModelSpec
from tritpack.formats.names import ISAS
from tritpack.runtime.abi import (
    ABI_VERSION,
    ACTIVATION_IDS,
    ERRORS,
    LAYOUT_IDS,
    NOT_RUN,
    SIGNATURES,
    HparamsStruct,
    KernelStruct,
    LayerStruct,
    TensorStruct,
)

if TYPE_CHECKING:
    from tritpack.runtime.session import CSession

MAX_CONTEXT = 1 << 24
FIELDS = {"post_attention_norm": "ffn_norm"}
"""Parts of a hybrid's layers that LayerStruct calls by another name."""


@dataclasses.dataclass(frozen=True)
class Isa:
    """One instruction set and whether this CPU runs it."""

    name: str
    available: bool


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One kernel of the library: symbol `OP_LAYOUT_ISA`, as its file is called."""

    index: int
    symbol: str
    op: str
    layout: str
    isa: str
    available: bool


class CTensor:
    """A tensor as C sees it: bytes kept where they are (a mapped file) unless they are not aligned or not contiguous.

    data: any buffer of exactly the layout's bytes. layout: a key of LAYOUT_IDS. rows, cols: shape; a norm has rows 1.
    tiling: of tl1 and tl2. scale: multiplies the scales of a ternary tensor.
    Raises Unsupported for a layout the library has no kernel for.
    """

    def __init__(
        self,
        data: Any,
        layout: str | None,
        rows: int,
        cols: int,
        *,
        tiling: Tile | None = None,
        scale: float | np.floating = 1.0,
    ) -> None:
        if layout not in LAYOUT_IDS or layout in NOT_RUN:
            runnable = ", ".join(name for name in LAYOUT_IDS if name not in NOT_RUN)
            raise Unsupported(f"tensor layout {layout!r} cannot be run", hint=f"can be run: {runnable}")
        array = data if isinstance(data, np.ndarray) else np.frombuffer(data, np.uint8)
        array = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        if array.ctypes.data % 4:
            array = np.concatenate([array])  # a copy, which numpy aligns
        self.data: npt.NDArray[np.uint8] = array
        self.layout = layout
        self.rows = rows
        self.cols = cols
        self.tiling = tiling
        self.scale = float(scale)

    def struct(self) -> TensorStruct:
        size = (self.rows, self.cols, self.data.nbytes)
        tile = self.tiling or (0, 0, 0)
        return TensorStruct(self.data.ctypes.data, *size, LAYOUT_IDS[self.layout], tile, self.scale, 0)


class Library:
    """The loaded library. Use `library()`; construct only to load another path."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise MissingRequirement(
                f"the C library {path} is not there, so models cannot run",
                hint="run `make lib` in the source tree, or reinstall tritpack where a C compiler and make are found",
            )
        try:
            self.c: Any = ctypes.CDLL(str(path.resolve()))
            version = int(self.c.tp_abi_version())
        except (OSError, AttributeError) as error:
            raise MissingRequirement(f"{path} cannot be loaded: {error}", hint="run `make lib` again") from error
        if version != ABI_VERSION:
            raise MissingRequirement(
                f"{path} has ABI version {version}, this tritpack needs {ABI_VERSION}", hint="run `make lib` again"
            )
        for name, (result, arguments) in SIGNATURES.items():
            function = getattr(self.c, name)
            function.restype = result
            function.argtypes = arguments
        self.path = path
        self._compare_names("layout", self.c.tp_layout_name, tuple(LAYOUT_IDS))
        self._compare_names("instruction set", self.c.tp_isa_name, tuple(ISAS))

    def _compare_names(self, kind: str, name_in_c: Callable[[int], bytes | None], names: Sequence[str]) -> None:
        """Raise MissingRequirement for the first id whose name is not the same in the library and in Python."""
        for index, name in enumerate((*names, None)):
            text = name_in_c(index)
            built = text.decode() if text is not None else None
            if built != name:
                raise MissingRequirement(
                    f"{self.path}: {kind} {index} is {built or 'absent'}, this tritpack needs {name or 'none'}",
                    hint="run `make lib` again",
                )

    def check(self, status: int, what: str) -> None:
        """Raise what ERRORS has for a tp_status other than 0."""
        if status:
            raise ERRORS.get(status, CheckFailed)(f"{what}: {self.c.tp_status_text(status).decode()}")

    def isas(self) -> list[Isa]:
        """Every instruction set the library knows, in ladder order."""
        return [Isa(name, bool(self.c.tp_isa_available(i))) for i, name in enumerate(ISAS)]

    def isa_id(self, name: str | None) -> int:
        """Id of an ISA that this CPU has; None is the best. UsageError if unknown, MissingRequirement if not here."""
        if name is None:
            return int(self.c.tp_best_isa())
        if name not in ISAS:
            raise UsageError(f"unknown instruction set {name!r}", hint=f"known: {', '.join(ISAS)}")
        if not self.c.tp_isa_available(ISAS.index(name)):
            available = ", ".join(isa.name for isa in self.isas() if isa.available)
            raise MissingRequirement(f"instruction set {name} is not available on this CPU", hint=f"here: {available}")
        return ISAS.index(name)

    def best_isa(self) -> str:
        return ISAS[self.isa_id(None)]

    def cpu(self) -> str:
        """Brand and features of this CPU."""
        text = ctypes.create_string_buffer(1024)
        self.c.tp_cpu_description(text, len(text))
        return text.value.decode("ascii", "replace")

    def kernels(self) -> list[Kernel]:
        """The whole kernel table, also what this CPU cannot run."""
        table = []
        for index in range(self.c.tp_kernel_count()):
            desc = KernelStruct()
            self.check(self.c.tp_kernel_info(index, ctypes.byref(desc)), f"kernel {index}")
            names = (desc.symbol.decode(), desc.op.decode(), desc.layout.decode(), desc.isa.decode())
            table.append(Kernel(index, *names, bool(desc.available)))
        return table

    def self_test(self) -> tuple[int, list[str]]:
        """Run every kernel of this CPU against scalar, and scalar against a known answer: failures, report lines."""
        text = ctypes.create_string_buffer(1 << 16)
        failures = int(self.c.tp_self_test(text, len(text)))
        if failures < 0:
            raise UsageError("the kernel self-test ran out of memory")
        return failures, text.value.decode().splitlines()

    def read_limit(self, data: npt.NDArray[np.uint8], threads: int, isa: str | None = None) -> float:
        """Bytes a second that so many threads stream from `data`, best of several rounds; 0 for less than a MiB."""
        found = ctypes.c_double()
        status = self.c.tp_bench_read(self.isa_id(isa), threads, data.ctypes.data, data.nbytes, ctypes.byref(found))
        self.check(status, "reading as fast as it goes")
        return found.value

    def dots_limit(self, threads: int, isa: str | None = None) -> float:
        """int8 products of registers a second on so many threads; 0 where only scalar has them."""
        found = ctypes.c_double()
        self.check(
            self.c.tp_bench_dots(self.isa_id(isa), threads, ctypes.byref(found)), "multiplying as fast as it goes"
        )
        return found.value

    def floats_limit(self, threads: int, isa: str | None = None) -> float:
        """Products of registers a second on so many threads, of floats that are multiplied and added without FMA; 0
        where only scalar has them."""
        found = ctypes.c_double()
        status = self.c.tp_bench_floats(self.isa_id(isa), threads, ctypes.byref(found))
        self.check(status, "multiplying floats as fast as it goes")
        return found.value

    def kernel_speed(self, kernel: Kernel) -> float:
        """Bytes (matmul, dots: products) a second of a kernel on one thread, on data in the cache."""
        found = ctypes.c_double()
        self.check(self.c.tp_bench_kernel(kernel.index, ctypes.byref(found)), kernel.symbol)
        return found.value

    def nbytes(self, layout: str, rows: int, cols: int) -> int:
        """Bytes of a tensor (t2, t158: with one scale); 0 if the layout cannot hold the shape."""
        return int(self.c.tp_tensor_nbytes(LAYOUT_IDS[layout], rows, cols))

    def quantize_activations(self, x: npt.ArrayLike, isa: str | None = None) -> tuple[I8, F32, I32]:
        """int8 codes (n, cols), scales s (n,) and code sums (n,) of float32 x (n, cols)."""
        x = _float_rows(x)
        q = np.empty(x.shape, np.int8)
        s = np.empty(len(x), np.float32)
        sums = np.empty(len(x), np.int32)
        status = self.c.tp_quantize_activations(
            self.isa_id(isa), x.ctypes.data, *x.shape, q.ctypes.data, s.ctypes.data, sums.ctypes.data
        )
        self.check(status, "quantize_activations")
        return q, s, sums

    def integer_product(self, kernel: Kernel | str, tensor: CTensor, q: npt.ArrayLike) -> I32:
        """int32 (n, rows): sum over columns of (code - 1) * q, exact, by one matvec or matmul kernel; those of u8 take
        any ternary tensor, unpacked.

        q: int8 (n, cols). MissingRequirement if this CPU cannot run the kernel, Unsupported for another layout.
        """
        if isinstance(kernel, str):
            found = [k for k in self.kernels() if k.symbol == kernel]
            if not found:
                raise UsageError(f"there is no kernel {kernel!r}")
            kernel = found[0]
        q = np.ascontiguousarray(np.atleast_2d(q), np.int8)
        _require_cols(tensor, q.shape[1])
        out = np.empty((len(q), tensor.rows), np.int32)
        struct = tensor.struct()
        status = self.c.tp_kernel_matmul_int(kernel.index, ctypes.byref(struct), q.ctypes.data, len(q), out.ctypes.data)
        self.check(status, kernel.symbol)
        return out

    def head_product(self, tensor: CTensor, x: npt.ArrayLike, isa: str | None = None) -> F32:
        """float32 (n, rows) = x (n, cols) times an embedding or head tensor, as the head of a model computes it."""
        x = _float_rows(x)
        _require_cols(tensor, x.shape[1])
        out = np.empty((len(x), tensor.rows), np.float32)
        struct = tensor.struct()
        status = self.c.tp_head_matmul(self.isa_id(isa), ctypes.byref(struct), x.ctypes.data, len(x), out.ctypes.data)
        self.check(status, f"head product of a {tensor.layout} tensor")
        return out

    def tensor_row(self, tensor: CTensor, row: int) -> F32:
        """One dequantised row, float32 (cols,), of an embedding tensor."""
        out = np.empty(tensor.cols, np.float32)
        struct = tensor.struct()
        self.check(
            self.c.tp_tensor_row(ctypes.byref(struct), row, out.ctypes.data), f"row {row} of a {tensor.layout} tensor"
        )
        return out


def library_path() -> Path:
    """Where the library has to lie: beside this file."""
    return Path(__file__).resolve().parent / ("libtritpack.dylib" if sys.platform == "darwin" else "libtritpack.so")


_lock = threading.Lock()


@functools.lru_cache(maxsize=1)
def _load(path: Path) -> Library:
    return Library(path)


def library() -> Library:
    """The library beside this file, loaded once. MissingRequirement if it is absent, broken or of another version."""
    with _lock:
        return _load(library_path())


def available_isas() -> list[str]:
    """Names of the instruction sets this CPU runs, in ladder order. Without the library only `scalar`, so that whoever
    loops over them meets MissingRequirement in the first round."""
    try:
        return [isa.name for isa in library().isas() if isa.available]
    except MissingRequirement:
        return [ISAS[0]]


class CModel:
    """A model in C: the shapes checked, the weights where they were. Owns the C object and keeps the tensors alive.

    tensors: GGUF name -> CTensor, all that spec.tensor_shapes() names. Raises Unreadable for sizes that do not fit,
    Unsupported for layouts without a kernel, naming the tensor.
    """

    def __init__(self, spec: ModelSpec, tensors: Mapping[str, CTensor]) -> None:
        self.library = library()
        self.spec = spec
        self.tensors = dict(tensors)  # C reads their bytes as long as the model lives
        made = model_structs(spec, self.tensors)
        handle = ctypes.c_void_p()
        status = self.library.c.tp_model_new(
            ctypes.byref(made.hparams),
            made.layers,
            ctypes.byref(made.embedding),
            ctypes.byref(made.norm),
            ctypes.byref(made.output),
            ctypes.byref(handle),
        )
        del made  # C has copied what its structs point to, but for the tensors
        self.library.check(status, f"model, {self.library.c.tp_error_place().decode()}")
        self._handle = handle
        self._free = weakref.finalize(self, self.library.c.tp_model_free, handle)
        self.sessions: weakref.WeakSet[CSession] = weakref.WeakSet()

    @property
    def handle(self) -> ctypes.c_void_p:
        if not self._free.alive:
            raise UsageError("the model is closed")
        return self._handle

    def close(self) -> None:
        """Free the C object, its sessions first."""
        for session in list(self.sessions):
            session.close()
        self._free()
        self.tensors = {}

    def __enter__(self) -> CModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclasses.dataclass(frozen=True)
class ModelStructs:
    """What tp_model_new takes. frequencies, signs: the arrays that hparams points to."""

    hparams: HparamsStruct
    frequencies: list[F32]
    signs: F32
    layers: ctypes.Array[LayerStruct]
    embedding: TensorStruct
    norm: TensorStruct
    output: TensorStruct


def model_structs(spec: ModelSpec, tensors: Mapping[str, CTensor]) -> ModelStructs:
    """tensors: GGUF name -> CTensor, which have to outlive the structs."""

    def struct(name: str) -> TensorStruct:
        made = tensors[name].struct()
        made.rotated = spec.rotation is not None and spec.rotation.turns(name)
        return made

    hparams, frequencies, signs = _hparams(spec)
    layers = (LayerStruct * spec.layers)()
    for index, layer in enumerate(layers):
        layer.slides = bool(spec.sliding_layers) and spec.sliding_layers[index]
        layer.recurrent = spec.recurs(index)
    for name in spec.tensor_shapes():
        if name.startswith("blk."):
            number, part = name.split(".")[1:3]
            setattr(layers[int(number)], FIELDS.get(part, part) if spec.delta_net else part, struct(name))
    output = TensorStruct() if spec.tied else struct("output.weight")
    return ModelStructs(
        hparams, frequencies, signs, layers, struct("token_embd.weight"), struct("output_norm.weight"), output
    )


def _hparams(spec: ModelSpec) -> tuple[HparamsStruct, list[F32], F32]:
    """The C struct, and the arrays that it points to."""
    frequencies = [np.ascontiguousarray(spec.inverse_frequencies(), np.float32)]
    if any(spec.sliding_layers):
        frequencies.append(np.ascontiguousarray(spec.inverse_frequencies(local=True), np.float32))
    rotation, recurrence = spec.rotation, spec.delta_net
    signs = _signs(spec)
    values = np.concatenate([np.zeros(0, np.float32), *signs.values()])
    hparams = HparamsStruct(
        vocab_size=spec.vocab_size,
        hidden=spec.hidden_size,
        ffn=spec.intermediate_size,
        layers=spec.layers,
        heads=spec.heads,
        kv_heads=spec.kv_heads,
        head_dim=spec.head_dim,
        context_length=min(spec.context_length, MAX_CONTEXT),
        norm_eps=spec.norm_eps,
        projection_norm_eps=spec.projection_norm_eps,
        activation=ACTIVATION_IDS[spec.activation],
        int8_activations=spec.int8_activations,
        rope_interleaved=spec.architecture in INTERLEAVED_ROPE,
        window=spec.sliding_window,
        embedding_scale=spec.embedding_scale,
        residual_scale=spec.residual_scale,
        logit_scale=spec.logit_scale,
        attention_scale=spec.query_key_scale(),
        rope_factor=spec.rope_scaling.attention_factor if spec.rope_scaling else 1.0,
        rotary_dim=spec.rope_width,
        inv_freq=frequencies[0].ctypes.data,
        inv_freq_sliding=frequencies[1].ctypes.data if len(frequencies) > 1 else None,
        signs=values.ctypes.data,
    )
    if recurrence:
        hparams.gated_attention = True
        hparams.key_heads, hparams.value_heads = recurrence.key_heads, recurrence.value_heads
        hparams.state_size, hparams.conv_taps = recurrence.state_size, recurrence.conv_taps
    if rotation:
        hparams.rotation_block, hparams.grouped_heads = rotation.block, rotation.grouped_heads
        hparams.sign_widths = tuple(signs)
    return hparams, frequencies, values


def _signs(spec: ModelSpec) -> Mapping[int, F32]:
    """Return the signs of the widths that rotated tensors have."""
    if spec.rotation is None:
        return {}
    widths = {shape[-1] for name, shape in spec.tensor_shapes().items() if spec.rotation.turns(name)}
    return {width: signs for width, signs in spec.rotation.signs.items() if width in widths}


class _HasCols(Protocol):
    cols: int


def _require_cols(tensor: _HasCols, cols: int) -> None:
    if cols != tensor.cols:
        raise UsageError(f"activations have {cols} columns, the tensor {tensor.cols}")


def _float_rows(x: npt.ArrayLike) -> F32:
    """float32 (n, cols), contiguous."""
    return np.ascontiguousarray(np.atleast_2d(np.asarray(x, np.float32)))
