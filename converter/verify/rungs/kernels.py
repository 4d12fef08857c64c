"""Rung 3: every kernel of this CPU against scalar on FILE's own tensors. What differs here is a kernel's fault, not the
file's: the same bytes go into both."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from tritpack.converter.verify.rung import Rung
from tritpack.formats.errors import TritpackError
from tritpack.formats.gguf_reader import GgufFile, TensorInfo
from tritpack.formats.model_spec import LINEARS, TABLES
from tritpack.runtime.library import CTensor, library
from tritpack.runtime.model import c_tensor

TOKENS = 5
"""Activations a tensor: one alone for matvec kernels, all for matmul's, an odd number so that tiles have tails."""
MAX_WEIGHTS = 400_000_000
"""Scalar kernels take a few seconds for so many: of larger models some tensors of each kind are run, and the rung says
how many."""
INTEGER_OPS = ("matvec", "matmul")


def check_kernels(file: GgufFile, *, int8: bool) -> Rung:
    """int8: whether the model's activations are; then integer products are equal, exactly. Products with float
    activations, of tables and of the other models, are equal bit for bit."""
    rung = Rung("kernels", compares="every kernel of this CPU with scalar, on tensors of FILE, bit for bit")
    candidates = [info for info in file.tensors.values() if _part(info) in (*LINEARS, *TABLES)]
    chosen = list(_some_of_each_kind(file, candidates))
    ran: set[str] = set()
    compared = 0
    for info in chosen:
        try:
            tensor = c_tensor(file, info)
        except TritpackError as error:
            # The file's fault, and told by the weights rung.
            rung.notes.append(f"tensor {info.name!r} was left out: {error.message}")
            continue
        compared += 1
        if _part(info) in LINEARS and int8:
            _compare_integers(rung, info, tensor, ran)
        else:
            _compare_floats(rung, info, tensor, ran)
        file.release(info)
    rung.figures |= {"tensors_run": compared, "of_tensors": len(candidates), "kernels_run": len(ran)}
    rung.figures["isas"] = " ".join(isa.name for isa in library().isas() if isa.available)
    rung.figures["kernels"] = sorted(ran)
    return rung


def _part(info: TensorInfo) -> str:
    return info.name.split(".")[-2] if info.name.endswith(".weight") else ""


def _some_of_each_kind(file: GgufFile, candidates: list[TensorInfo]) -> Iterator[TensorInfo]:
    """All tensors of a small model; of a large one the first of each layout and shape, then others spread evenly over
    the layers until MAX_WEIGHTS are full."""
    kinds: dict[tuple[str | None, tuple[int, ...]], list[TensorInfo]] = {}
    for info in candidates:
        kinds.setdefault((info.layout, info.shape), []).append(info)
    room = MAX_WEIGHTS
    queue = sorted(
        (index / len(same), file.tensors[info.name].file_offset, info)
        for same in kinds.values()
        for index, info in enumerate(same)
    )
    for share, _, info in queue:
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
        found = c.integer_product(kernel, tensor, q[:count])
        expected = scalar.setdefault(count, found)
        ran.add(kernel.symbol)
        if not np.array_equal(found, expected):
            token, row = (int(i) for i in np.argwhere(found != expected)[0])
            rung.findings.append(
                f"{kernel.symbol} gives {found[token, row]} for row {row} of tensor {info.name!r}, "
                f"scalar gives {expected[token, row]}"
            )


def _compare_floats(rung: Rung, info: TensorInfo, tensor: CTensor, ran: set[str]) -> None:
    c = library()
    x = np.random.default_rng(159).normal(size=(2, info.cols)).astype(np.float32)
    isas = [isa.name for isa in c.isas() if isa.available]
    expected = c.head_product(tensor, x, isas[0])
    for isa in isas[1:]:
        found = c.head_product(tensor, x, isa)
        if not np.array_equal(found.view(np.uint32), expected.view(np.uint32)):
            token, row = (int(i) for i in np.argwhere(found.view(np.uint32) != expected.view(np.uint32))[0])
            rung.findings.append(
                f"the head's kernel of {isa} gives {found[token, row]!r} for row {row} of tensor {info.name!r}, "
                f"{isas[0]} gives {expected[token, row]!r}"
            )
