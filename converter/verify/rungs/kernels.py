"""Every kernel of this CPU against the scalar one, on FILE's own tensors.

A difference is the kernel's fault and not the file's, because both take the same bytes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from tritpack.converter.verify.context import Context
from tritpack.converter.verify.findings import Kind
from tritpack.converter.verify.rung import Blame, Need, Rung
from tritpack.formats.errors import TritpackError
from tritpack.formats.gguf_reader import GgufFile, TensorInfo
from tritpack.formats.model_spec import LINEARS, TABLES
from tritpack.formats.names import FLOAT_TYPES, ISAS
from tritpack.runtime.library import CTensor, library
from tritpack.runtime.model import c_tensor

name = "kernels"
blames: Blame = "kernel"
needs: frozenset[Need] = frozenset({"model"})
options: tuple[str, ...] = ()

TOKENS = 5
"""Activation vectors per tensor: one for matvec kernels, all for matmul kernels; odd, so that tiles have tails."""
MAX_WEIGHTS = 400_000_000
"""Scalar kernels take some seconds for this many. Of larger models some tensors of each kind are run, as a note says;
--level full runs all."""
TABLE_ROWS = 16384
"""Rows of a table of floats that are run, unless --level full runs all: each is computed by itself."""
INTEGER_OPS = ("matvec", "matmul")


def run(context: Context) -> Rung:
    """Run every kernel that this file's model would use."""
    everything = context.options.everything
    return check_kernels(context.file, int8=context.exact.spec.int8_activations, everything=everything)


def check_kernels(file: GgufFile, *, int8: bool, everything: bool = False) -> Rung:
    """int8: whether linears take int8 activations; their integer products must be equal then. Products with float
    activations, of tables and of all other models, must be equal bit for bit. everything: sample no tensors."""
    rung = Rung(name, blames)
    chosen, candidates = tensors_to_run(file, everything=everything)
    tables = [info.name for info in chosen if info.shape != file.tensors[info.name].shape]
    which = "all tensors of FILE" if len(chosen) == len(candidates) else f"{len(chosen)} of FILE's tensors"
    rung.compares = f"the matrix kernels of this CPU with the scalar ones, on {which}, bit for bit"
    if len(chosen) < len(candidates):
        rung.notes.append(
            f"{len(chosen)} of {len(candidates)} tensors were run, at least one of each layout and shape; "
            "--level full runs all"
        )
    if tables:
        rung.notes.append(f"of {' and '.join(tables)}, {TABLE_ROWS} rows were run; --level full runs all")
    ran: set[str] = set()
    compared = 0
    for info in chosen:
        try:
            compare(rung, file, info, ran, int8=int8)
        except TritpackError as error:
            # It is the file's fault, which the weights rung reports.
            rung.notes.append(f"tensor {info.name!r} was left out: {error.message}")
            continue
        compared += 1
        file.release(info)
    rung.figures |= {"tensors_run": compared, "of_tensors": len(candidates), "kernels_run": len(ran)}
    if not ran:
        rung.skipped = "no tensor of the file could be run by itself"
    rung.figures["isas"] = " ".join(isa.name for isa in library().isas() if isa.available)
    rung.figures["kernels"] = sorted(ran)
    return rung


def tensors_to_run(file: GgufFile, *, everything: bool) -> tuple[list[TensorInfo], list[TensorInfo]]:
    """The tensors that are run, of a large table its first rows; and all that could be."""
    candidates = [info for info in file.tensors.values() if _part(info) in (*LINEARS, *TABLES)]
    if everything:
        return candidates, candidates
    return list(_some_of_each_kind(file, [_first_rows(file, info) for info in candidates])), candidates


def _first_rows(file: GgufFile, info: TensorInfo) -> TensorInfo:
    """The first rows of a large table of floats; any other tensor itself."""
    if _part(info) not in TABLES or file.layout_of(info) is not None or info.rows <= TABLE_ROWS:
        return info
    return dataclasses.replace(info, shape=(TABLE_ROWS, info.cols), nbytes=info.nbytes // info.rows * TABLE_ROWS)


def compare(rung: Rung, file: GgufFile, info: TensorInfo, ran: set[str], *, int8: bool) -> None:
    """Run every kernel for one tensor. ran: gets their symbols. Raises TritpackError for a tensor that is damaged."""
    tensor = c_tensor(file, info)
    if _part(info) in LINEARS and int8:
        _compare_integers(rung, info, tensor, ran)
        return
    layout = file.layout_of(info)
    blocks = 1 if layout is None else layout.read_scales(file.bytes_of(info), info.rows, info.cols).shape[1]
    _compare_floats(rung, info, tensor, info.cols // blocks, ran)


def _part(info: TensorInfo) -> str:
    return info.name.split(".")[-2] if info.name.endswith(".weight") else ""


def _some_of_each_kind(file: GgufFile, candidates: list[TensorInfo]) -> Iterator[TensorInfo]:
    """All tensors of a small model. Of a large one the first of each layout and shape, then others spread evenly over
    the layers until there are MAX_WEIGHTS weights."""
    kinds: dict[tuple[str | None, tuple[int, ...]], list[TensorInfo]] = {}
    for info in candidates:
        kinds.setdefault((info.layout, info.shape), []).append(info)
    room = MAX_WEIGHTS
    shares = [(index / len(same), info) for same in kinds.values() for index, info in enumerate(same)]
    for share, info in sorted(shares, key=lambda entry: (entry[0], entry[1].file_index, entry[1].file_offset)):
        size = info.rows * info.cols
        if share > 0 and size > room:
            continue
        room -= size
        yield info


def _compare_integers(rung: Rung, info: TensorInfo, tensor: CTensor, ran: set[str]) -> None:
    q = np.random.default_rng(158).integers(-128, 128, (TOKENS, info.cols), np.int8)
    q[0, :2] = -128, 127
    scalar: dict[int, npt.NDArray[np.int32]] = {}
    c = library()
    table = [k for k in c.kernels() if k.op in INTEGER_OPS and k.available]
    for kernel in sorted(table, key=lambda kernel: kernel.isa != "scalar"):
        if kernel.layout not in (tensor.layout, "u8") and not (kernel.layout == "i2_s" and tensor.layout == "t2"):
            continue
        count = 1 if kernel.op == "matvec" else TOKENS
        product = c.integer_product(kernel, tensor, q[:count])
        expected = scalar.setdefault(count, product)
        ran.add(kernel.symbol)
        if not np.array_equal(product, expected):
            token, row = (int(i) for i in np.argwhere(product != expected)[0])
            rung.add(
                Kind.KERNEL_DIFFERS,
                f"{kernel.symbol} gives {product[token, row]} for row {row} of tensor {info.name!r}, "
                f"scalar gives {expected[token, row]}",
                tensor=info.name,
                kernel=kernel.symbol,
                row=row,
            )


def _compare_floats(rung: Rung, info: TensorInfo, tensor: CTensor, block: int, ran: set[str]) -> None:
    """Compare products with one token and with several, which other kernels compute. block: columns of one scale."""
    c = library()
    x = np.random.default_rng(159).normal(size=(2, info.cols)).astype(np.float32)
    isas = [isa.name for isa in c.isas() if isa.available]
    assert tensor.layout is not None
    for tokens in (x[:1], x):
        expected = c.head_product(tensor, tokens, isas[0])
        for isa in isas:
            kernels = _float_kernels(tensor.layout, block if len(tokens) == 1 else 1, isa)
            ran |= set(kernels)
            product = c.head_product(tensor, tokens, isa)
            differing = np.argwhere(product.view(np.uint32) != expected.view(np.uint32))
            if len(differing):
                token, row = (int(i) for i in differing[0])
                rung.add(
                    Kind.KERNEL_DIFFERS,
                    f"{' with '.join(kernels)} gives {float(product[token, row])!r} for row {row} of tensor "
                    f"{info.name!r}, {isas[0]} gives {float(expected[token, row])!r}",
                    tensor=info.name,
                    isa=isa,
                    row=row,
                )


def _float_kernels(layout: str, block: int, isa: str) -> list[str]:
    """The kernels that take a product with float activations. Ternary rows become floats first, unless they have one
    token to multiply and blocks that fit the kernel."""
    if layout in FLOAT_TYPES:
        return [_best("lm_head", layout, isa)]
    codes = "i2_s" if layout in ("i2_s", "t2") else "u8"
    if block % (128 if codes == "i2_s" else 16) == 0:
        return [_best("matvec_f32", codes, isa)]
    return [_best("dequantize", codes, isa), _best("lm_head", "f32", isa)]


def _best(op: str, layout: str, isa: str) -> str:
    """The symbol of the best kernel of this CPU at or below an instruction set."""
    usable = ISAS[: ISAS.index(isa) + 1]
    kernels = [k for k in library().kernels() if (k.op, k.layout) == (op, layout) and k.available and k.isa in usable]
    return max(kernels, key=lambda kernel: ISAS.index(kernel.isa)).symbol
