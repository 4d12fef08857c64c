"""Compares the tensors of FILE with the source's: codes and scales, norms, embedding and head."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from tritpack.converter.verify.compare.foreign import (
    allowed_distance,
    has_foreign_tables,
    is_foreign,
    same_factors,
)
from tritpack.converter.verify.diagnoses import Diagnosis, explain_codes, explain_norm, explain_rows, explain_scale
from tritpack.converter.verify.findings import Finding, Kind
from tritpack.converter.verify.oracle.oracle import Oracle
from tritpack.converter.verify.oracle.rounding import StoredScales, round_rows, round_scales
from tritpack.formats import float_types
from tritpack.formats.arrays import F32, I8
from tritpack.formats.errors import TritpackError, locating
from tritpack.formats.gguf_reader import GgufFile, TensorInfo
from tritpack.formats.layouts.catalog import REPAIRABLE
from tritpack.formats.model_spec import ROPE_FACTORS
from tritpack.formats.names import FLOAT_TYPES
from tritpack.formats.ternary import TernaryTensor, scales_differ

Rows = tuple[int, int]
"""[first, last)."""
MAX_SEARCHES = 3
"""Findings whose cause is searched for in all tensors of the source, which takes reading them."""
MAX_UNEXPLAINED = 8
"""Tensors whose codes differ for no reason that is known; of further ones the reason is not searched for."""
SAMPLE = 64
"""Of so many rows of a table one is encoded by numpy, the specification; the others in C, if that is there."""
VALUES_AT_ONCE = 1 << 22
"""Values of an embedding or head that are encoded and compared at once."""


@dataclasses.dataclass
class TensorResult:
    """What comparing one tensor gave. row: of the table of ternary tensors, which reports plot."""

    findings: list[Finding] = dataclasses.field(default_factory=list)
    rounding: float | None = None
    """The largest change of a value of a float table by its type."""
    scale_rounding: float = 0.0
    """The largest change of a scale by its layout, relative to the scale."""
    weights: int = 0
    row: dict[str, Any] | None = None

    def add(self, kind: Kind, info: TensorInfo, sentence: str, **figures: Any) -> None:
        """Add a finding about a tensor, which the sentence need not name."""
        self.findings.append(Finding(kind, f"tensor {info.name!r}: {sentence}", info.name, figures))


class TensorComparison:
    """FILE's tensors with the source's, in tasks that several threads work on. everything: without samples."""

    def __init__(self, file: GgufFile, oracle: Oracle, everything: bool = False) -> None:
        self.file, self.oracle, self.everything = file, oracle, everything
        self.linears = set(oracle.spec.linear_names())
        recorded = file.metadata.get("tritpack.scale_rounding", 0.0)
        self.recorded_rounding = float(recorded) if isinstance(recorded, (int, float)) else 0.0
        self.foreign, self.foreign_tables = is_foreign(file), has_foreign_tables(file)
        self._searches = self._unexplained = 0

    def tasks(self) -> list[tuple[TensorInfo, Rows]]:
        """Tensors in file order: tables of floats in pieces of rows, others whole. Tensors with a wrong name or shape
        are left out: the structure rung reports them."""
        shapes = self.oracle.spec.tensor_shapes()
        tasks: list[tuple[TensorInfo, Rows]] = []
        for name, info in self.file.tensors.items():
            if shapes.get(name) != info.shape or info.meaning is None:
                continue
            whole = len(info.shape) == 1 or self.file.layout_of(info) is not None
            step = info.rows if whole else max(1, VALUES_AT_ONCE // info.cols)
            tasks += [(info, (first, min(first + step, info.rows))) for first in range(0, info.rows, step)]
        return tasks

    def run(self, info: TensorInfo, rows: Rows) -> TensorResult:
        """Compare one task."""
        result = TensorResult()
        if self.file.layout_of(info) is not None:
            if len(info.shape) == 2:  # the structure rung reports a ternary norm
                self._compare_ternary(result, info)
        elif info.name not in self.linears and info.layout in FLOAT_TYPES:
            if len(info.shape) == 1:
                self._compare_norm(result, info)
            else:
                self._compare_table(result, info, rows)
        # Pages of both sides, so that neither has to fit into memory; pieces still at work read theirs again.
        self.file.release(info)
        self.oracle.release(info.name.removesuffix(".weight"))
        return result

    # -- ternary tensors -----------------------------------------------------------------------------------------------

    def _compare_ternary(self, result: TensorResult, info: TensorInfo) -> None:
        part = info.name.removesuffix(".weight")
        try:
            with locating(path=self.file.path_of(info), tensor=info.name):
                ours = self._in_source_rows(info, self.file.ternary(info))
        except TritpackError as error:
            result.findings.append(Finding(Kind.TENSOR_INVALID, error.without_path, info.name))
            return
        expected = self.oracle.linear(part) if info.name in self.linears else self.oracle.table_codes(part)
        if expected is None:
            return  # the structure rung has reported it
        source = TernaryTensor(*expected)
        result.weights = ours.codes.size
        zeros = 1 - float(np.count_nonzero(ours.codes)) / ours.codes.size
        result.row = {"tensor": part, "scale": float(ours.scales.mean()), "zero_share": zeros}
        if not np.array_equal(ours.codes, source.codes):
            self._explain_codes(result, info, ours.codes, source.codes)
        self._compare_scales(result, info, ours, source)

    def _in_source_rows(self, info: TensorInfo, tensor: TernaryTensor | None) -> TernaryTensor:
        """The tensor with its rows in the order of the source."""
        assert tensor is not None
        order = self.oracle.spec.row_order(info.name)
        return tensor if order is None else tensor.with_rows(np.argsort(order))

    def _explain_codes(self, result: TensorResult, info: TensorInfo, ours: I8, codes: I8) -> None:
        wrong = ours != codes
        count = int(np.count_nonzero(wrong))
        row, col = (int(i) for i in np.unravel_index(int(wrong.argmax()), wrong.shape))
        diagnosis = Diagnosis(Kind.CODES_DIFFER)
        if self._unexplained < MAX_UNEXPLAINED:
            rotary = info.name.split(".")[-2] in ("attn_q", "attn_k")
            diagnosis = explain_codes(
                ours,
                codes,
                head_dim=self.oracle.spec.head_dim if rotary else None,
                other_orders=self._other_orders(info),
                other_tensors=self._other_codes(info.name, codes.shape),
            )
            self._unexplained += diagnosis.kind is Kind.CODES_DIFFER
        sentence = (
            f"{count} of {wrong.size} codes differ, first at [{row}, {col}]: {ours[row, col]}, the source has "
            f"{codes[row, col]}"
        )
        figures = {"differing": count, "of": wrong.size, "row": row, "column": col}
        result.add(diagnosis.kind, info, diagnosis.explain(sentence), **figures)

    def _other_orders(self, info: TensorInfo) -> Iterator[tuple[str, I8]]:
        """The codes that the stored bytes give in the byte orders of other tools."""
        stored = self.file.bytes_of(info)
        for name, layout in REPAIRABLE.items() if info.layout == "i2_s" else ():
            if not layout.check(stored, info.rows, info.cols):
                yield name, self._in_source_rows(info, layout.unpack(stored, info.rows, info.cols)).codes

    def _may_search(self) -> bool:
        self._searches += 1
        return self._searches <= MAX_SEARCHES

    def _other_codes(self, name: str, shape: tuple[int, ...]) -> Iterator[tuple[str, I8]]:
        for other in self.oracle.spec.linear_names() if self._may_search() else ():
            if other != name and self.oracle.spec.linear_shape(other.split(".")[-2]) == shape:
                yield other, self.oracle.linear(other.removesuffix(".weight"))[0]
                self.oracle.release(other.removesuffix(".weight"))

    # -- scales --------------------------------------------------------------------------------------------------------

    def _compare_scales(
        self, result: TensorResult, info: TensorInfo, ours: TernaryTensor, source: TernaryTensor
    ) -> None:
        differing, scales, expected = scales_differ(ours, source)
        if not differing.any():
            return
        storage = stored_scales(self.file, info)
        if storage is not None and self._is_rounding(result, info, ours, source, storage):
            return
        place = tuple(int(i) for i in np.argwhere(differing)[0])
        scale, right = float(scales[place]), float(expected[place])
        count = int(np.count_nonzero(differing))
        subject = "its scale" if scales.size == 1 else f"{count} of {scales.size} scales differ, the first"
        diagnosis = explain_scale(scale, right, source.codes, lambda: self._other_scales(info.name))
        sentence = diagnosis.explain(f"{subject} is {scale:.9g}, the source has {right:.9g}")
        result.add(diagnosis.kind, info, sentence, differing=count, of=scales.size, file=scale, source=right)

    def _is_rounding(
        self, result: TensorResult, info: TensorInfo, ours: TernaryTensor, source: TernaryTensor, storage: StoredScales
    ) -> bool:
        """Whether the scales are what rounding to the layout gives. The loss is a figure then, and a finding only where
        scales were folded and the file does not record it."""
        stored = TernaryTensor(source.codes, round_scales((source.codes, source.scales), storage))
        if scales_differ(ours, stored)[0].any():
            return False
        result.scale_rounding = loss = _largest_change(stored, source)
        if stored.scale_blocks != source.scale_blocks and self.recorded_rounding < loss * (1 - 1e-6):
            result.add(
                Kind.SCALE_ROUNDING_UNRECORDED,
                info,
                f"{source.scale_blocks[0]} x {source.scale_blocks[1]} scales were made "
                f"{stored.scale_blocks[0]} x {stored.scale_blocks[1]}, with a relative change of up to {loss:.2g}, and "
                "the file does not say so (tritpack.scale_rounding)",
                loss=loss,
                recorded=self.recorded_rounding,
            )
        return True

    def _other_scales(self, name: str) -> Iterator[tuple[str, float]]:
        """Names and scales of other linears; the same linear in other layers comes first."""
        names = [other for other in self.oracle.spec.linear_names() if other != name] if self._may_search() else []
        for other in sorted(names, key=lambda other: other.split(".")[-2] != name.split(".")[-2]):
            scales = self.oracle.linear(other.removesuffix(".weight"))[1]
            self.oracle.release(other.removesuffix(".weight"))
            if scales.size == 1:
                yield other, float(scales[0, 0])

    # -- floats --------------------------------------------------------------------------------------------------------

    def _compare_norm(self, result: TensorResult, info: TensorInfo) -> None:
        name = info.name.removesuffix(".weight")
        expected = _rope_factors(self.oracle) if info.name == ROPE_FACTORS else self.oracle.norm(name)
        factors = float_types.decode(info.layout, self.file.bytes_of(info), 1, info.cols)[0]
        if expected is None or np.array_equal(factors.view(np.uint32), expected.view(np.uint32)):
            return
        if info.name == ROPE_FACTORS and self.foreign and same_factors(factors, expected):
            return  # the structure rung notes it
        index = int((factors.view(np.uint32) != expected.view(np.uint32)).argmax())
        value, right = float(factors[index]), float(expected[index])
        diagnosis = explain_norm(factors, expected, lambda: self._other_norms(info.name))
        sentence = diagnosis.explain(f"value {index} is {value!r}, the source has {right!r}")
        result.add(diagnosis.kind, info, sentence, index=index, file=value, source=right)

    def _compare_table(self, result: TensorResult, info: TensorInfo, rows: Rows) -> None:
        """Compare rows of embedding or head with the source encoded the same way. The loss is a figure."""
        first, last = rows
        row_bytes = info.nbytes // info.rows
        piece = self.file.bytes_of(info)[first * row_bytes : last * row_bytes]
        exact = self.oracle.original_rows(info.name.removesuffix(".weight"), first, last)
        with np.errstate(invalid="ignore", over="ignore"):  # values that are not finite are found below
            ours = float_types.decode(info.layout, piece, last - first, info.cols)
        if np.array_equal(ours.view(np.uint32), exact.view(np.uint32)) and np.isfinite(ours).all():
            result.rounding = 0.0
            return
        if self.foreign_tables:
            self._judge_by_distance(result, info, rows, ours, exact, allowed_distance(info.layout, piece, *ours.shape))
            return
        expected, _ = float_types.encode_rows(info.layout, "f32", exact.reshape(-1).view(np.uint8), *exact.shape)
        step = 1 if self.everything else SAMPLE
        sample = float_types.encode(info.layout, exact[::step]).reshape(-1, row_bytes)
        expected.reshape(-1, row_bytes)[::step] = sample  # by numpy, in case that the C encoder is wrong
        # Block-quantised values of a packed source may give other bytes when they are encoded again.
        if not np.array_equal(expected, piece) and not np.array_equal(ours, exact):
            row = int((expected != piece).argmax()) // row_bytes
            self._explain_table(result, info, rows, row, ours, round_rows(exact, info.layout))
            return
        result.rounding = float(np.abs(ours - exact).max())
        if not np.isfinite(result.rounding):
            result.add(Kind.NOT_FINITE, info, f"rows from {first} on hold a value that is not finite", row=first)

    def _judge_by_distance(
        self, result: TensorResult, info: TensorInfo, rows: Rows, ours: F32, exact: F32, allowed: F32
    ) -> None:
        """Judge a table whose encoder is not ours by how far its values are from the source."""
        with np.errstate(invalid="ignore"):
            distance = np.abs(ours - exact)
        wrong = ~(distance <= allowed)  # NaN is wrong
        result.rounding = float(distance.max())
        if not wrong.any():
            return
        row, column = (int(i) for i in np.argwhere(wrong)[0])
        differing = int(np.count_nonzero(wrong.any(1)))
        diagnosis = explain_rows(ours, exact)
        sentence = (
            f"row {rows[0] + row} is farther from the source than steps of its {info.layout} blocks allow, first in "
            f"column {column}: {ours[row, column]:.9g}, the source has {exact[row, column]:.9g} and "
            f"{allowed[row, column]:.3g} is allowed; so are {differing} of the {len(ours)} rows from {rows[0]} on"
        )
        result.add(diagnosis.kind, info, diagnosis.explain(sentence), row=rows[0] + row, column=column)

    def _explain_table(
        self, result: TensorResult, info: TensorInfo, rows: Rows, row: int, ours: F32, right: F32
    ) -> None:
        first, last = rows
        column = int((ours[row] != right[row]).argmax())
        differing = int(np.count_nonzero((ours != right).any(1)))
        diagnosis = explain_rows(ours, right)
        sentence = (
            f"row {first + row} differs from the source encoded as {info.layout}, first in column {column}: "
            f"{ours[row, column]:.9g}, the source has {right[row, column]:.9g}; {differing} of the {last - first} rows "
            f"from {first} on differ"
        )
        result.add(diagnosis.kind, info, diagnosis.explain(sentence), row=first + row, column=column)

    def _other_norms(self, name: str) -> Iterator[tuple[str, F32]]:
        for other, shape in self.oracle.spec.tensor_shapes().items():
            if other not in (name, ROPE_FACTORS) and len(shape) == 1:
                values = self.oracle.norm(other.removesuffix(".weight"))
                if values is not None:
                    yield other, values


def stored_scales(file: GgufFile, info: TensorInfo) -> StoredScales | None:
    """How the layout of a tensor stores scales, as data for the oracle; None if it stores none that round."""
    layout = file.layout_of(info)
    if layout is None or info.name.removesuffix("weight") + "scale" in file.tensors:
        return None
    return StoredScales(layout.nearest_grid(info.rows, info.cols, (info.rows, info.cols)), layout.half_scales)


def _largest_change(stored: TernaryTensor, source: TernaryTensor) -> float:
    """The largest change of a scale, relative to the scale."""
    _, after, before = scales_differ(stored, source)
    used = before > 0
    return float(np.abs(after[used].astype(np.float64) / before[used] - 1).max(initial=0))


def _rope_factors(oracle: Oracle) -> F32 | None:
    scaling = oracle.spec.rope_scaling
    return np.array(scaling.frequency_factors, np.float32) if scaling else None
