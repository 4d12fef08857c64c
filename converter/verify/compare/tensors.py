"""Compares the tensors of FILE with the source's: codes and scales, norms, embedding and head."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from tritpack.converter.verify.compare.tables import Rows, TableComparison
from tritpack.converter.verify.compare.tensor_result import TensorResult
from tritpack.converter.verify.compare.vectors import compare_vector
from tritpack.converter.verify.diagnoses import Diagnosis, explain_codes, explain_scale
from tritpack.converter.verify.findings import Finding, Kind
from tritpack.converter.verify.hybrid_diagnoses import mistake_of_hybrids
from tritpack.converter.verify.oracle.oracle import Oracle
from tritpack.converter.verify.oracle.rounding import StoredScales, round_scales
from tritpack.formats.arrays import I8
from tritpack.formats.errors import TritpackError, Unreadable
from tritpack.formats.gguf_reader import GgufFile, TensorInfo
from tritpack.formats.integrity import TensorHasher, TensorHashes, difference, hash_pieces, recorded_hashes
from tritpack.formats.layouts.catalog import REPAIRABLE
from tritpack.formats.names import FLOAT_TYPES
from tritpack.formats.pieces import pieces_of
from tritpack.formats.ternary import TernaryTensor, scales_differ

MAX_SEARCHES = 3
"""Findings whose cause is searched for in all tensors of the source, which takes reading them."""
MAX_UNEXPLAINED = 8
"""Tensors whose codes differ for no reason that is known; of further ones the reason is not searched for."""
VALUES_AT_ONCE = 1 << 22
"""Values of an embedding or head that are a task of their own."""


@dataclasses.dataclass
class _Scan:
    """What all codes of a ternary tensor have shown. damage: in what way it is not as the file records it."""

    equal: bool = True
    nonzero: int = 0
    damage: str | None = None


class TensorComparison:
    """FILE's tensors with the source's, in tasks that several threads work on. everything: without samples."""

    def __init__(self, file: GgufFile, oracle: Oracle, everything: bool = False) -> None:
        self.file, self.oracle, self.everything = file, oracle, everything
        self._shapes = oracle.spec.tensor_shapes()
        self.linears = set(oracle.spec.linear_names())
        recorded = file.metadata.get("tritpack.scale_rounding", 0.0)
        self.recorded_rounding = float(recorded) if isinstance(recorded, (int, float)) else 0.0
        self.tables = TableComparison(file, oracle, everything)
        self.recorded = _recorded(file)
        self._searches = self._unexplained = 0

    def tasks(self) -> list[tuple[TensorInfo, Rows]]:
        """Tensors in file order: tables of floats in pieces of rows, others whole. Tensors with a wrong name or shape
        are left out: the structure rung reports them."""
        tasks: list[tuple[TensorInfo, Rows]] = []
        for info in self.file.tensors.values():
            if not self._is_compared(info):
                continue
            whole = len(info.shape) == 1 or self.file.layout_of(info) is not None
            step = info.rows if whole else max(1, VALUES_AT_ONCE // info.cols)
            tasks += [(info, (first, min(first + step, info.rows))) for first in range(0, info.rows, step)]
        return tasks

    def _is_compared(self, info: TensorInfo) -> bool:
        return self._shapes.get(info.name) == info.shape and info.meaning is not None

    def run(self, info: TensorInfo, rows: Rows) -> TensorResult:
        """Compare one task."""
        result = TensorResult()
        if self.file.layout_of(info) is not None:
            if len(info.shape) == 2:  # the structure rung reports a ternary norm
                self._compare_ternary(result, info)
        elif info.name not in self.linears and info.layout in FLOAT_TYPES:
            if len(info.shape) == 1:
                compare_vector(result, info, self.file, self.oracle)
            else:
                self.tables.compare(result, info, rows)
        # Pages of both sides, so that neither has to fit into memory; pieces still at work read theirs again.
        self.file.release(info)
        self.oracle.release(info.name.removesuffix(".weight"))
        return result

    # -- ternary tensors -----------------------------------------------------------------------------------------------

    def _compare_ternary(self, result: TensorResult, info: TensorInfo) -> None:
        part = info.name.removesuffix(".weight")
        if info.name in self.linears and self._is_equal(result, info):
            return
        expected = self.oracle.linear(part) if info.name in self.linears else self.oracle.table_codes(part)
        if expected is None:
            return  # the structure rung has reported it
        source = TernaryTensor(*expected)
        in_file = self._in_file_order(info, source.codes)
        try:
            scan = self._scan(info, in_file.__getitem__)
            if scan.equal:
                ours = self._in_source_order(info, TernaryTensor(in_file, self.file.scales(info)))
            else:
                ours = self._in_source_order(info, self.file.ternary(info))
        except TritpackError as error:
            result.findings.append(Finding(Kind.TENSOR_INVALID, error.without_path, info.name))
            return
        result.weights = ours.codes.size
        zeros = 1 - scan.nonzero / ours.codes.size
        result.row = {"tensor": part, "scale": float(ours.scales.mean()), "zero_share": zeros}
        if not scan.equal:
            mistake = mistake_of_hybrids(self.oracle.spec, info.name, ours.codes, source)
            if mistake is None:
                self._explain_codes(result, info, ours.codes, source.codes)
            else:
                self._add_codes(result, info, ours.codes, source.codes, mistake.diagnosis)
                source = mistake.tensor
        self._compare_scales(result, info, ours, source)
        result.damage = scan.damage

    def _is_equal(self, result: TensorResult, info: TensorInfo) -> bool:
        """Whether codes and scale of a linear are the source's, by a comparison in pieces, which takes less time and
        memory than one of the whole and says nothing of what differs."""
        part = info.name.removesuffix(".weight")
        coded, order = self.oracle.linear_rows(part), self.oracle.spec.row_order(info.name)
        if coded is None:
            return False
        try:
            scales = self.file.scales(info)
            if not np.array_equal(scales, coded.scales):
                return False
            scan = self._scan(info, coded.rows if order is None else lambda rows: coded.rows(order[rows]))
        except Unreadable:
            return False  # the comparison of the whole finds it too
        if scan.equal:
            result.weights, result.damage = info.rows * info.cols, scan.damage
            zeros = 1 - scan.nonzero / result.weights
            result.row = {"tensor": part, "scale": float(scales.mean()), "zero_share": zeros}
        return scan.equal

    def _scan(self, info: TensorInfo, expected: Callable[[slice], I8]) -> _Scan:
        """Compare all codes of a tensor with those expected of some rows, in the file's order. Raises Unreadable."""
        scan, row, recorded = _Scan(), 0, self.recorded.get(info.name)
        hasher = None if recorded is None else TensorHasher(has_codes=True)
        for data, codes in pieces_of(self.file, info):
            if hasher is not None:
                hasher.add(data, codes)
            if codes is not None:
                scan.equal = scan.equal and np.array_equal(codes, expected(slice(row, row + len(codes))))
                scan.nonzero += int(np.count_nonzero(codes))
                row += len(codes)
        if hasher is not None and recorded is not None:
            scan.damage = difference(recorded, hasher.hashes())
        return scan

    def damage(self, info: TensorInfo) -> str | None:
        """Return in what way a tensor that `run` does not hash is not as the file records it, in words, or None."""
        recorded = self.recorded.get(info.name)
        has_codes = self.file.layout_of(info) is not None
        if recorded is None or (has_codes and self._is_compared(info)):
            return None
        with contextlib.suppress(Unreadable):  # of a shape that the structure rung reports
            return difference(recorded, hash_pieces(pieces_of(self.file, info), has_codes=has_codes))
        return None

    def _in_file_order(self, info: TensorInfo, codes: I8) -> I8:
        """Codes of the source with rows and columns as GGUF orders them."""
        rows, columns = self.oracle.spec.row_order(info.name), self.oracle.spec.column_order(info.name)
        codes = codes if rows is None else codes[rows]
        return codes if columns is None else np.ascontiguousarray(codes[:, columns])

    def _in_source_order(self, info: TensorInfo, tensor: TernaryTensor | None) -> TernaryTensor:
        """The tensor with its rows and columns in the order of the source."""
        assert tensor is not None
        rows, columns = self.oracle.spec.row_order(info.name), self.oracle.spec.column_order(info.name)
        tensor = tensor if rows is None else tensor.with_rows(np.argsort(rows))
        return tensor if columns is None else tensor.with_columns(np.argsort(columns))

    def _explain_codes(self, result: TensorResult, info: TensorInfo, ours: I8, codes: I8) -> None:
        diagnosis = Diagnosis(Kind.CODES_DIFFER)
        if self._unexplained < MAX_UNEXPLAINED:
            rotary = info.name.split(".")[-2] in ("attn_q", "attn_k") and self.oracle.spec.delta_net is None
            diagnosis = explain_codes(
                ours,
                codes,
                head_dim=self.oracle.spec.head_dim if rotary else None,
                other_orders=self._other_orders(info),
                other_tensors=self._other_codes(info.name, codes.shape),
            )
            self._unexplained += diagnosis.kind is Kind.CODES_DIFFER
        self._add_codes(result, info, ours, codes, diagnosis)

    def _add_codes(self, result: TensorResult, info: TensorInfo, ours: I8, codes: I8, diagnosis: Diagnosis) -> None:
        wrong = ours != codes
        count = int(np.count_nonzero(wrong))
        row, col = (int(i) for i in np.unravel_index(int(wrong.argmax()), wrong.shape))
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
                yield name, self._in_source_order(info, layout.unpack(stored, info.rows, info.cols)).codes

    def _may_search(self) -> bool:
        self._searches += 1
        return self._searches <= MAX_SEARCHES

    def _other_codes(self, name: str, shape: tuple[int, ...]) -> Iterator[tuple[str, I8]]:
        for other in self.oracle.spec.linear_names() if self._may_search() else ():
            if other != name and self._shapes[other] == shape:
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
        nonzero = np.count_nonzero(source.codes) / source.codes.size
        diagnosis = explain_scale(scale, right, nonzero, lambda: self._other_scales(info.name))
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


def stored_scales(file: GgufFile, info: TensorInfo) -> StoredScales | None:
    """How the layout of a tensor stores scales, as data for the oracle; None if it stores none that round."""
    layout = file.layout_of(info)
    if layout is None or info.name.removesuffix("weight") + "scale" in file.tensors:
        return None
    return StoredScales(layout.nearest_grid(info.rows, info.cols, (info.rows, info.cols)), layout.half_scales)


def _recorded(file: GgufFile) -> dict[str, TensorHashes]:
    try:
        return recorded_hashes(file)
    except Unreadable:
        return {}  # the structure rung reports it


def _largest_change(stored: TernaryTensor, source: TernaryTensor) -> float:
    """The largest change of a scale, relative to the scale."""
    _, after, before = scales_differ(stored, source)
    used = before > 0
    return float(np.abs(after[used].astype(np.float64) / before[used] - 1).max(initial=0))
