"""Every kernel of this CPU against the scalar one, on FILE's own tensors.

A difference is the kernel's fault and not the file's, because both take the same bytes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from tritpack.converter.verify.context import Context
from tritpack.converter.verify.findings import Finding, Kind
from tritpack.converter.verify.rung import Blame, Need, Rung
from tritpack.formats.errors import TritpackError
from tritpack.formats.gguf_reader import GgufFile, TensorInfo
from tritpack.formats.model_spec import ALL_LINEARS, TABLES
from tritpack.formats.names import FLOAT_TYPES, ISAS
from tritpack.runtime.library import CTensor, library
from tritpack.runtime.machine import usable_cores
from tritpack.runtime.model import c_tensor

name = "kernels"
blames: Blame = "kernel"
needs: frozenset[Need] = frozenset({"model"})
options: tuple[str, ...] = ()

TOKENS = 5
"""Activation vectors per tensor: one for matvec kernels, all for matmul kernels; odd, so that tiles have tails."""
MAX_WEIGHTS = 400_000_000
"""Scalar kernels take a few seconds for this many. Of larger models some tensors of each kind are run, as a note says;
--level full runs all others too, without the scalar kernels."""
INTEGER_OPS = ("matvec", "matmul")
PIECE = 1 << 25
"""Weights of a table of floats that are run at a time."""
SCALAR_PIECES = 8

Compared = tuple[list[Finding], set[str]]
"""What is wrong, and the symbols of the kernels that ran."""


def run(context: Context) -> Rung:
    """Run every kernel that this file's model would use."""
    everything = context.options.everything
    return check_kernels(context.file, int8=context.exact.spec.int8_activations, everything=everything)


def check_kernels(file: GgufFile, *, int8: bool, everything: bool = False) -> Rung:
    """int8: whether linears take int8 activations; their integer products must be equal then. Products with float
    activations, of tables and of all other models, must be equal bit for bit. everything: run all tensors, those beyond
    the sample without the scalar kernels, which would take most of the time."""
    rung = Rung(name, blames)
    candidates, sample = tensors_to_run(file)
    chosen = candidates if everything else list(sample.values())
    _say_what_is_compared(rung, len(candidates), len(chosen), len(sample))
    tasks: list[tuple[TensorInfo, Callable[[], Compared]]] = []
    compared = 0
    for info in chosen:
        try:
            tensor = c_tensor(file, info, file.bytes_of(info))
        except TritpackError as error:
            # It is the file's fault, which the weights rung reports.
            rung.notes.append(f"tensor {info.name!r} was left out: {error.message}")
            continue
        compared += 1
        pieces = SCALAR_PIECES if len(sample) < len(candidates) else 1
        tasks += [
            (info, task) for task in _tasks(file, info, tensor, int8=int8, scalar=info.name in sample, pieces=pieces)
        ]
    ran: set[str] = set()
    with ThreadPoolExecutor(usable_cores()) as pool:
        for (info, _), (findings, symbols) in zip(tasks, pool.map(lambda task: task[1](), tasks)):
            rung.findings += findings
            ran |= symbols
            file.release(info)
    rung.figures |= {"tensors_run": compared, "of_tensors": len(candidates), "kernels_run": len(ran)}
    if not ran:
        rung.skipped = "no tensor of the file could be run by itself"
    rung.figures["isas"] = " ".join(isa.name for isa in library().isas() if isa.available)
    rung.figures["kernels"] = sorted(ran)
    return rung


def tensors_to_run(file: GgufFile) -> tuple[list[TensorInfo], dict[str, TensorInfo]]:
    """All tensors that can be run, and by name those that the scalar kernels run too."""
    candidates = [info for info in file.tensors.values() if _part(info) in (*ALL_LINEARS, *TABLES)]
    return candidates, {info.name: info for info in _some_of_each_kind(file, candidates)}


def compare(file: GgufFile, info: TensorInfo, *, int8: bool, scalar: bool) -> None:
    """Run the kernels for one tensor, to see how long they take. Raises TritpackError for a tensor that is damaged."""
    for task in _tasks(file, info, c_tensor(file, info, file.bytes_of(info)), int8=int8, scalar=scalar):
        task()


def _say_what_is_compared(rung: Rung, candidates: int, chosen: int, sample: int) -> None:
    """chosen: tensors that are run. sample: those of them that the scalar kernels run too."""
    which = "all tensors of FILE" if sample == candidates else f"{sample} of FILE's tensors"
    others = " (and with one another on all)" if chosen > sample else ""
    rung.compares = f"the matrix kernels of this CPU with the scalar ones, on {which}{others}, bit for bit"
    if sample == candidates:
        return
    some = f"{sample} of {candidates} tensors"
    if chosen > sample:
        rung.notes.append(
            f"the scalar kernels ran on {some}, at least one of each layout and shape, and on some rows of large "
            "tables; everywhere else the kernels of different instruction sets were compared with one another"
        )
    else:
        rung.notes.append(
            f"{some} were run, at least one of each layout and shape, and of large tables some rows by the scalar "
            "kernels; --level full runs the others too, by kernels other than the scalar ones"
        )


def _tasks(
    file: GgufFile, info: TensorInfo, tensor: CTensor, *, int8: bool, scalar: bool, pieces: int = SCALAR_PIECES
) -> Iterator[Callable[[], Compared]]:
    """What is to be run for a tensor; a large table of floats comes in pieces of rows. scalar: whether the scalar
    kernels are run too, in one of so many `pieces`."""
    if _part(info) in ALL_LINEARS and int8:
        yield functools.partial(_compare_integers, info, tensor, scalar=scalar)
        return
    layout = file.layout_of(info)
    if layout is not None:
        blocks = layout.read_scales(file.bytes_of(info), info.rows, info.cols).shape[1]
        yield functools.partial(_compare_floats, info, tensor, 0, info.cols // blocks, scalar=scalar)
        return
    step, width = max(1, PIECE // info.cols), info.nbytes // info.rows
    for number, first in enumerate(range(0, info.rows, step)):
        rows = min(step, info.rows - first)
        piece = CTensor(tensor.data[first * width : (first + rows) * width], tensor.layout, rows, info.cols)
        some = scalar and number % pieces == 0
        yield functools.partial(_compare_floats, info, piece, first, info.cols, scalar=some)


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


def _compare_integers(info: TensorInfo, tensor: CTensor, *, scalar: bool) -> Compared:
    """Compare with the scalar kernels or, without them, with the first of the others, if there are two."""
    q = np.random.default_rng(158).integers(-128, 128, (TOKENS, info.cols), np.int8)
    q[0, :2] = -128, 127
    right: dict[int, tuple[str, npt.NDArray[np.int32]]] = {}
    findings, ran = [], set()
    c = library()
    table = [k for k in c.kernels() if k.op in INTEGER_OPS and k.available]
    others = [k for k in table if k.isa != "scalar"]
    table = others if not scalar and len({k.isa for k in others}) > 1 else table
    for kernel in sorted(table, key=lambda kernel: kernel.isa != "scalar"):
        if kernel.layout not in (tensor.layout, "u8") and not (kernel.layout == "i2_s" and tensor.layout == "t2"):
            continue
        count = 1 if kernel.op == "matvec" else TOKENS
        product = c.integer_product(kernel, tensor, q[:count])
        isa, expected = right.setdefault(count, (kernel.isa, product))
        ran.add(kernel.symbol)
        if not np.array_equal(product, expected):
            token, row = (int(i) for i in np.argwhere(product != expected)[0])
            sentence = (
                f"{kernel.symbol} gives {product[token, row]} for row {row} of tensor {info.name!r}, {isa} gives "
                f"{expected[token, row]}"
            )
            figures = {"kernel": kernel.symbol, "row": row}
            findings.append(Finding(Kind.KERNEL_DIFFERS, sentence, info.name, figures))
    return findings, ran


def _compare_floats(info: TensorInfo, tensor: CTensor, first: int, block: int, *, scalar: bool) -> Compared:
    """Compare products with one token and with several, which other kernels compute. tensor: rows of it from `first`
    on. block: columns of one scale. scalar: whether the scalar kernels are run too, even if there are two others."""
    c = library()
    x = np.random.default_rng(159).normal(size=(2, info.cols)).astype(np.float32)
    available = [isa.name for isa in c.isas() if isa.available]
    findings, ran = [], set()
    assert tensor.layout is not None
    for tokens in (x[:1], x):
        isas: dict[tuple[str, ...], str] = {}  # of those with the same kernels one
        for isa in available:
            isas.setdefault(tuple(_float_kernels(tensor.layout, block if len(tokens) == 1 else 1, isa)), isa)
        if not scalar and len(isas) > 2:
            del isas[next(iter(isas))]
        (_, reference), *others = isas.items()
        expected = c.head_product(tensor, tokens, reference)
        ran |= {kernel for kernels in isas for kernel in kernels}
        for kernels, isa in others:
            product = c.head_product(tensor, tokens, isa)
            differing = np.argwhere(product.view(np.uint32) != expected.view(np.uint32))
            if len(differing):
                token, row = (int(i) for i in differing[0])
                sentence = (
                    f"{' with '.join(kernels)} gives {float(product[token, row])!r} for row {first + row} of tensor "
                    f"{info.name!r}, {reference} gives {float(expected[token, row])!r}"
                )
                figures = {"isa": isa, "row": first + row}
                findings.append(Finding(Kind.KERNEL_DIFFERS, sentence, info.name, figures))
    return findings, ran


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
