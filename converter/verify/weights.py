"""Rung 2: every code and every scale of FILE equal to the source's, as the oracle's own reader understands it."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from converter.verify.oracle import Oracle
from converter.verify.rung import Rung
from formats import float_types
from formats.errors import TritpackError
from formats.gguf_file import GgufFile, TensorInfo
from formats.ternary import TernaryTensor

MAX_FINDINGS = 20


def check_weights(file: GgufFile, oracle: Oracle) -> Rung:
    """Exact comparison of codes, scales, norms and the embedding (after the rounding its stored type implies)."""
    rung = Rung("weights")
    compared = 0
    digest = hashlib.sha256()
    shapes, linears = oracle.spec.tensor_shapes(), set(oracle.spec.linear_names())
    for name, tensor in file.tensors.items():
        if shapes.get(name) != tensor.shape or tensor.meaning is None:
            continue  # the structure rung has said so
        if len(rung.findings) >= MAX_FINDINGS:
            rung.findings.append("and more; only the first are listed")
            break
        try:
            if name in linears and tensor.meaning.layout is not None:
                ternary = tensor.meaning.layout.unpack(file.bytes_of(tensor), tensor.rows, tensor.cols)
                digest.update(ternary.codes_sha256().encode())
                _compare_linear(rung, name, ternary, *oracle.linear(name.removesuffix(".weight")))
                compared += ternary.codes.size
            elif name not in linears and tensor.layout in float_types.FLOAT_TYPES:
                _compare_float(rung, file, tensor, oracle)
        except TritpackError as error:
            rung.findings.append(f"tensor {name!r}: {error.message}")
    rung.figures |= {"ternary_weights": compared, "codes_sha256": digest.hexdigest()}
    return rung


def _compare_linear(
    rung: Rung, name: str, found: TernaryTensor, codes: npt.NDArray[np.int8], scale: np.float32
) -> None:
    if not np.array_equal(found.codes, codes):
        wrong = found.codes != codes
        row, col = (int(i) for i in np.unravel_index(int(wrong.argmax()), wrong.shape))
        rung.findings.append(
            f"tensor {name!r}: {np.count_nonzero(wrong)} of {wrong.size} codes differ, first at [{row}, {col}]: "
            f"{found.codes[row, col]}, the source has {codes[row, col]}" + _diagnose_codes(found.codes, codes)
        )
    if found.scales.shape != (1, 1) or found.scales[0, 0] != scale:
        got = float(found.scales.reshape(-1)[0])
        rung.findings.append(
            f"tensor {name!r}: its scale is {got!r}, the source has {float(scale)!r}"
            + _diagnose_scale(got, float(scale), codes)
        )


def _diagnose_codes(found: npt.NDArray[np.int8], expected: npt.NDArray[np.int8]) -> str:
    if np.array_equal(found, -expected):
        return " (every sign is flipped)"
    if np.array_equal(np.sort(found, 0), np.sort(expected, 0)):
        return " (the same rows in another order)"
    return ""


def _diagnose_scale(found: float, expected: float, codes: npt.NDArray[np.int8]) -> str:
    share = np.count_nonzero(codes) / codes.size
    if np.isclose(found * expected, 1, rtol=1e-3):
        return " (inverted)"
    if share and np.isclose(found, expected * share, rtol=1e-3):
        return " (shrunk by the share of non-zeros: absmean was taken twice)"
    return ""


def _compare_float(rung: Rung, file: GgufFile, tensor: TensorInfo, oracle: Oracle) -> None:
    """Norms bit for bit; embedding and head after the source was encoded the same way. The loss is a figure."""
    name = tensor.name.removesuffix(".weight")
    stored = file.bytes_of(tensor)
    if len(tensor.shape) == 1:
        want = oracle.norm(name)
        got = float_types.decode(tensor.layout, stored, 1, tensor.cols)[0]
        if want is not None and not np.array_equal(got.view(np.uint32), want.view(np.uint32)):
            index = int((got.view(np.uint32) != want.view(np.uint32)).argmax())
            rung.findings.append(
                f"tensor {tensor.name!r}: value {index} is {float(got[index])!r}, the source has {float(want[index])!r}"
            )
        return
    step = max(1, (16 << 20) // tensor.cols)
    row_bytes = tensor.nbytes // tensor.rows
    worst = 0.0
    for first in range(0, tensor.rows, step):
        last = min(first + step, tensor.rows)
        exact = oracle.original_rows(name, first, last)
        piece = stored[first * row_bytes : last * row_bytes]
        expected = float_types.encode(tensor.layout, exact)
        if not np.array_equal(expected, piece):
            row = first + int((expected != piece).argmax()) // row_bytes
            rung.findings.append(
                f"tensor {tensor.name!r}: row {row} differs from the source encoded as {tensor.layout}"
            )
            return
        loss = np.abs(float_types.decode(tensor.layout, piece, last - first, tensor.cols) - exact).max()
        worst = max(worst, float(loss))
    rung.figures[f"{name}_rounding"] = worst
    if worst:
        rung.notes.append(f"{tensor.name} is stored as {tensor.layout}, at most {worst:.3g} away from the source")
