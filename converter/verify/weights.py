"""Rung 2: every code and every scale of FILE equal to the source's, as the oracle's own reader understands it."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from converter import rounding
from converter.verify.oracle import Oracle
from converter.verify.rung import Rung
from formats import float_types
from formats.errors import TritpackError
from formats.gguf_file import GgufFile, TensorInfo
from formats.layouts.layout import Layout
from formats.model_spec import ROPE_FACTORS
from formats.ternary import TernaryTensor, scales_differ

F32 = npt.NDArray[np.float32]
MAX_FINDINGS = 20


def check_weights(file: GgufFile, oracle: Oracle) -> Rung:
    """Exact comparison of codes, scales, norms and the embedding (after the rounding its stored type implies)."""
    rung = Rung("weights")
    compared = 0
    digest = hashlib.sha256()
    said = file.metadata.get("tritpack.scale_rounding", 0.0)
    recorded = float(said) if isinstance(said, (int, float)) else 0.0
    shapes, linears = oracle.spec.tensor_shapes(), set(oracle.spec.linear_names())
    for name, tensor in file.tensors.items():
        if shapes.get(name) != tensor.shape or tensor.meaning is None:
            continue  # the structure rung has said so
        if len(rung.findings) >= MAX_FINDINGS:
            rung.findings.append("and more; only the first are listed")
            break
        try:
            if (ternary := file.ternary(tensor)) is not None:
                if (order := oracle.spec.row_order(name)) is not None:
                    ternary = ternary.with_rows(np.argsort(order))
                digest.update(ternary.codes_sha256().encode())
                part = name.removesuffix(".weight")
                expected = oracle.linear(part) if name in linears else oracle.table_codes(part)
                if expected is not None:  # else the structure rung has said so
                    _compare_ternary(
                        rung,
                        name,
                        ternary,
                        *expected,
                        layout=file.layout_of(tensor),
                        apart=name.removesuffix("weight") + "scale" in file.tensors,
                        recorded=recorded,
                    )
                    compared += ternary.codes.size
            elif name not in linears and tensor.layout in float_types.FLOAT_TYPES:
                _compare_float(rung, file, tensor, oracle)
        except TritpackError as error:
            rung.findings.append(f"tensor {name!r}: {error.message}")
    if worst := rung.figures.get("scale_rounding"):
        rung.notes.append(f"scales were rounded to what their layout holds, by at most {worst:.2g} of themselves")
    rung.figures |= {"ternary_weights": compared, "codes_sha256": digest.hexdigest()}
    return rung


def _compare_ternary(
    rung: Rung,
    name: str,
    found: TernaryTensor,
    codes: npt.NDArray[np.int8],
    scales: F32,
    *,
    layout: Layout | None,
    apart: bool,
    recorded: float,
) -> None:
    """layout: the file's. apart: its scale stands in a tensor of its own, as exact as any. recorded: what the file says
    of changed scales."""
    if not np.array_equal(found.codes, codes):
        wrong = found.codes != codes
        row, col = (int(i) for i in np.unravel_index(int(wrong.argmax()), wrong.shape))
        rung.findings.append(
            f"tensor {name!r}: {np.count_nonzero(wrong)} of {wrong.size} codes differ, first at [{row}, {col}]: "
            f"{found.codes[row, col]}, the source has {codes[row, col]}" + _diagnose_codes(found.codes, codes)
        )
    source = TernaryTensor(codes, scales)
    matters, mine, theirs = scales_differ(found, source)
    if matters.any() and layout is not None and not apart:
        # What the layout cannot hold was rounded, if the scale is what rounding gives; the loss is a figure.
        stored = rounding.rounded(source, layout)
        if stored is not source and not scales_differ(found, stored)[0].any():
            worst = rounding.loss(source, stored)
            rung.figures["scale_rounding"] = max(rung.figures.get("scale_rounding", 0.0), worst)
            if stored.scale_blocks == source.scale_blocks or recorded >= worst * (1 - 1e-6):
                return
            rung.findings.append(
                f"tensor {name!r}: {source.scale_blocks[0]} x {source.scale_blocks[1]} scales were made "
                f"{stored.scale_blocks[0]} x {stored.scale_blocks[1]}, off by up to {worst:.2g} of themselves, and the "
                "file does not say so (tritpack.scale_rounding)"
            )
            return
    if matters.any():
        place = tuple(int(i) for i in np.argwhere(matters)[0])
        got, want = float(mine[place]), float(theirs[place])
        where = (
            "its scale" if mine.size == 1 else f"{np.count_nonzero(matters)} of {mine.size} scales differ, the first"
        )
        rung.findings.append(
            f"tensor {name!r}: {where} is {got!r}, the source has {want!r}" + _diagnose_scale(got, want, codes)
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


def _factors(oracle: Oracle) -> F32 | None:
    scaling = oracle.spec.rope_scaling
    return np.array(scaling.frequency_factors, np.float32) if scaling else None


def _compare_float(rung: Rung, file: GgufFile, tensor: TensorInfo, oracle: Oracle) -> None:
    """Norms bit for bit; embedding and head after the source was encoded the same way. The loss is a figure."""
    name = tensor.name.removesuffix(".weight")
    stored = file.bytes_of(tensor)
    if len(tensor.shape) == 1:
        want = _factors(oracle) if tensor.name == ROPE_FACTORS else oracle.norm(name)
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
        found = float_types.decode(tensor.layout, piece, last - first, tensor.cols)
        # A packed source's own block-quantised values need not come back bit for bit from encoding them again.
        if not np.array_equal(expected, piece) and not np.array_equal(found, exact):
            row = first + int((expected != piece).argmax()) // row_bytes
            rung.findings.append(
                f"tensor {tensor.name!r}: row {row} differs from the source encoded as {tensor.layout}"
            )
            return
        loss = float(np.abs(found - exact).max())
        if not np.isfinite(loss):
            rung.findings.append(f"tensor {tensor.name!r}: rows from {first} on hold a value that is not finite")
            return
        worst = max(worst, loss)
    rung.figures[f"{name}_rounding"] = worst
    if worst:
        rung.notes.append(f"{tensor.name} is stored as {tensor.layout}, at most {worst:.3g} away from the source")
