"""Compares embedding and head of FILE, where they are floats, with the source encoded the same way."""

from __future__ import annotations

import numpy as np

from tritpack.converter.verify.compare.foreign import allowed_distance, has_foreign_tables
from tritpack.converter.verify.compare.tensor_result import TensorResult
from tritpack.converter.verify.diagnoses import explain_rows
from tritpack.converter.verify.findings import Kind
from tritpack.converter.verify.hybrid_diagnoses import HEADS_GROUPED
from tritpack.converter.verify.oracle.oracle import Oracle
from tritpack.converter.verify.oracle.rounding import round_rows
from tritpack.formats import float_types
from tritpack.formats.arrays import F32, Bytes
from tritpack.formats.gguf_reader import GgufFile, TensorInfo
from tritpack.formats.names import PLAIN_FLOATS

Rows = tuple[int, int]
"""[first, last)."""
SAMPLE = 128
"""Of so many rows of a table one is encoded and decoded by the specification; the others in C, if that is there."""
VALUES_AT_ONCE = 1 << 17
"""Values that are compared together: they stay in the cache."""


class TableComparison:
    """FILE's tables of floats with the source's. everything: encode all rows by the specification.

    foreign: whether another encoder may have written them, so that values have to be near and bytes need not be equal.
    """

    def __init__(self, file: GgufFile, oracle: Oracle, everything: bool) -> None:
        self.file, self.oracle, self.everything = file, oracle, everything
        self.foreign = has_foreign_tables(file)

    def compare(self, result: TensorResult, info: TensorInfo, rows: Rows) -> None:
        """Compare some rows. The loss is a figure."""
        loss = None if self.foreign else self._loss(info, rows)
        if loss is None:
            self._judge(result, info, rows)
        else:
            result.rounding = loss

    def _loss(self, info: TensorInfo, rows: Rows) -> float | None:
        """Return the largest change of a value; None where some row is not the source's, encoded the same way, so that
        it takes a closer look. Encodes and decodes by the specification, or in C and a sample by the specification."""
        loss, sample = 0.0, []
        step = max(1, VALUES_AT_ONCE // info.cols)
        for first in range(*rows, step):
            piece, exact = self._both(info, (first, min(first + step, rows[1])))
            if info.layout in PLAIN_FLOATS:
                ours = float_types.decode(info.layout, piece, *exact.shape)
                if np.array_equal(ours.view(np.uint32), exact.view(np.uint32)):
                    continue
            else:
                decode = float_types.decode if self.everything else float_types.decode_rows
                ours = decode(info.layout, piece, *exact.shape)
            if not np.array_equal(self._encode(info, exact), piece):
                return None
            if not self.everything:
                stored, some = piece.reshape(len(exact), -1), range(-first % SAMPLE, len(exact), SAMPLE)
                sample += [(stored[i], exact[i].copy(), ours[i].copy()) for i in some]
            ours -= exact
            change = float(np.abs(ours, out=ours).max())
            if not np.isfinite(change):
                return None
            loss = max(loss, change)
        return loss if not sample or self._is_specified(info, sample) else None

    def _encode(self, info: TensorInfo, exact: F32) -> Bytes:
        assert info.layout is not None
        if self.everything:
            return float_types.encode(info.layout, exact)
        return float_types.encode_rows(info.layout, "f32", exact.reshape(-1).view(np.uint8), *exact.shape)[0]

    def _is_specified(self, info: TensorInfo, sample: list[tuple[Bytes, F32, F32]]) -> bool:
        """Whether rows, given as bytes, exact values and decoded values, are what the specification gives."""
        stored, exact, decoded = (np.stack(part) for part in zip(*sample))
        values = float_types.decode(info.layout, stored.reshape(-1), *exact.shape)
        encoded = float_types.encode(info.layout, exact)
        return np.array_equal(encoded, stored.reshape(-1)) and np.array_equal(values, decoded)

    def _both(self, info: TensorInfo, rows: Rows) -> tuple[Bytes, F32]:
        """Return the bytes of some rows, and the values that the source has there."""
        row_bytes = info.nbytes // info.rows
        piece = self.file.bytes_of(info)[rows[0] * row_bytes : rows[1] * row_bytes]
        name = info.name.removesuffix(".weight")
        if (order := self.oracle.spec.row_order(info.name)) is None:
            return piece, self.oracle.original_rows(name, *rows)
        return piece, self.oracle.original_rows(name, 0, info.rows)[order[slice(*rows)]]  # a few rows for each head

    def _judge(self, result: TensorResult, info: TensorInfo, rows: Rows) -> None:
        """Compare some rows all at once, so that a finding says how many of them differ."""
        first, last = rows
        row_bytes = info.nbytes // info.rows
        piece, exact = self._both(info, rows)
        with np.errstate(invalid="ignore", over="ignore"):  # values that are not finite are found below
            ours = float_types.decode(info.layout, piece, last - first, info.cols)
        if np.array_equal(ours.view(np.uint32), exact.view(np.uint32)) and np.isfinite(ours).all():
            result.rounding = 0.0
            return
        if (grouped := self._grouped(info)) is not None and np.array_equal(ours, grouped[first:last]):
            result.add(Kind.VALUE_HEADS_GROUPED, info, HEADS_GROUPED)
            return
        if self.foreign:
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

    def _grouped(self, info: TensorInfo) -> F32 | None:
        """A matrix with a row for each value head, in transformers' order; None for others."""
        if self.oracle.spec.row_order(info.name) is None:
            return None
        return round_rows(self.oracle.original_rows(info.name.removesuffix(".weight"), 0, info.rows), info.layout)

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
