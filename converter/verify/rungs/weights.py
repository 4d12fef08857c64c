"""Rung 2: every code and every scale of FILE equal to the source's, as the oracle's own reader understands it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from tritpack.converter.targets import scale_rounding
from tritpack.converter.verify import diagnoses
from tritpack.converter.verify.oracle.oracle import Oracle
from tritpack.converter.verify.rung import Rung
from tritpack.formats import float_types
from tritpack.formats.errors import TritpackError
from tritpack.formats.gguf_reader import GgufFile, TensorInfo
from tritpack.formats.layouts.catalog import REPAIRABLE
from tritpack.formats.model_spec import ROPE_FACTORS
from tritpack.formats.ternary import TernaryTensor, scales_differ
from tritpack.runtime.machine import usable_cores

F32 = npt.NDArray[np.float32]
MAX_FINDINGS = 20
MEMORY, BYTES_A_WEIGHT = 768 << 20, 12
"""What all threads together may take, and what comparing takes of it: quantising masters most."""
MAX_SEARCHES = 3
"""Of findings whose cause is looked for among all tensors of the source, which reads them."""
VALUES_AT_ONCE = 1 << 22
"""Of an embedding or head: what is encoded and compared in one go."""


@dataclasses.dataclass
class Compared:
    """What comparing one tensor gave. row: of the table of ternary tensors, which reports plot."""

    findings: list[str] = dataclasses.field(default_factory=list)
    rounding: float | None = None
    """The largest change of a float table's value by its type."""
    scale_rounding: float = 0.0
    weights: int = 0
    row: dict[str, Any] | None = None


def check_weights(file: GgufFile, oracle: Oracle) -> Rung:
    """Exact comparison of codes, scales, norms and the embedding (after the rounding its stored type implies)."""
    rung = Rung("weights", compares="codes and scales of FILE with those of SOURCE, exactly; norms bit for bit")
    rung.figures["ternary_weights"] = 0
    rows: list[dict[str, Any]] = []
    roundings: dict[str, float] = {}
    worst = 0.0
    accused: set[str] = set()  # a sentence a tensor is enough, and its pieces come in order
    comparison = Comparison(file, oracle)
    tasks = comparison.tasks()
    largest = max(((last - first) * info.cols for info, (first, last) in tasks), default=1)
    with ThreadPoolExecutor(max(1, min(usable_cores(), MEMORY // (BYTES_A_WEIGHT * largest)))) as pool:
        for (info, _), found in zip(tasks, pool.map(lambda task: comparison.run(*task), tasks)):
            if found.findings and info.name not in accused:
                accused.add(info.name)
                rung.findings += found.findings
            worst = max(worst, found.scale_rounding)
            rung.figures["ternary_weights"] += found.weights
            if found.rounding is not None:
                roundings[info.name] = max(roundings.get(info.name, 0.0), found.rounding)
            if found.row is not None:
                rows.append(found.row)
            if len(rung.findings) >= MAX_FINDINGS:
                rung.findings[MAX_FINDINGS:] = ["and more; only the first are listed"]
                pool.shutdown(wait=True, cancel_futures=True)
                break
    for name, loss in roundings.items():
        rung.figures[f"{name.removesuffix('.weight')}_rounding"] = loss
        if loss and name not in accused:
            rung.notes.append(
                f"{name} is stored as {file.tensors[name].layout}, at most {loss:.3g} away from the source"
            )
    if worst:
        rung.figures["scale_rounding"] = worst
        rung.notes.append(f"scales were rounded to what their layout holds, by at most {worst:.2g} of themselves")
    rung.figures["bytes"] = sum(info.nbytes for info in {info.name: info for info, _ in tasks}.values())
    rung.series = {key: [row[key] for row in rows] for key in (rows[0] if rows else ())}
    return rung


Rows = tuple[int, int]


class Comparison:
    """FILE's tensors with the source's, in pieces that several threads work on."""

    def __init__(self, file: GgufFile, oracle: Oracle) -> None:
        self.file, self.oracle = file, oracle
        self.linears = set(oracle.spec.linear_names())
        said = file.metadata.get("tritpack.scale_rounding", 0.0)
        self.recorded = float(said) if isinstance(said, (int, float)) else 0.0
        self._searches = 0

    def tasks(self) -> list[tuple[TensorInfo, Rows]]:
        """Tensors that have the right name and shape (of others the structure rung has told), in file order; tables of
        floats in pieces of rows, others whole."""
        shapes = self.oracle.spec.tensor_shapes()
        tasks: list[tuple[TensorInfo, Rows]] = []
        for name, info in self.file.tensors.items():
            if shapes.get(name) != info.shape or info.meaning is None:
                continue
            whole = len(info.shape) == 1 or self.file.layout_of(info) is not None
            step = info.rows if whole else max(1, VALUES_AT_ONCE // info.cols)
            tasks += [(info, (first, min(first + step, info.rows))) for first in range(0, info.rows, step)]
        return tasks

    def run(self, info: TensorInfo, rows: Rows) -> Compared:
        found = Compared()
        if self.file.layout_of(info) is not None:
            if len(info.shape) == 2:  # a norm cannot be ternary, as the structure rung says
                self._ternary(found, info)
        elif info.name not in self.linears and info.layout in float_types.FLOAT_TYPES:
            if len(info.shape) == 1:
                self._norm(found, info)
            else:
                self._table(found, info, rows)
        # Of both sides, so that neither has to fit into memory; pieces still at work fetch theirs again.
        self.file.release(info)
        self.oracle.release(info.name.removesuffix(".weight"))
        return found

    # -- ternary tensors -----------------------------------------------------------------------------------------------

    def _ternary(self, found: Compared, info: TensorInfo) -> None:
        part = info.name.removesuffix(".weight")
        try:
            mine = self._in_rows_of_the_source(info, self.file.ternary(info))
        except TritpackError as error:
            sentence = error.message.removeprefix(f"{self.file.path}: ").removeprefix(f"tensor {info.name!r}: ")
            found.findings.append(f"tensor {info.name!r}: {sentence}")
            return
        expected = self.oracle.linear(part) if info.name in self.linears else self.oracle.table_codes(part)
        if expected is None:
            return  # the structure rung has said so
        found.weights = mine.codes.size
        zeros = 1 - float(np.count_nonzero(mine.codes)) / mine.codes.size
        found.row = {"tensor": part, "scale": float(mine.scales.mean()), "zero_share": zeros}
        codes, scales = expected
        if not np.array_equal(mine.codes, codes):
            found.findings.append(self._codes_differ(info, mine, codes))
        self._compare_scales(found, info, mine, TernaryTensor(codes, scales))

    def _in_rows_of_the_source(self, info: TensorInfo, tensor: TernaryTensor | None) -> TernaryTensor:
        assert tensor is not None
        order = self.oracle.spec.row_order(info.name)
        return tensor if order is None else tensor.with_rows(np.argsort(order))

    def _codes_differ(self, info: TensorInfo, mine: TernaryTensor, codes: npt.NDArray[np.int8]) -> str:
        wrong = mine.codes != codes
        row, col = (int(i) for i in np.unravel_index(int(wrong.argmax()), wrong.shape))
        rotary = info.name.split(".")[-2] in ("attn_q", "attn_k")
        remark = diagnoses.of_codes(
            mine.codes,
            codes,
            head_dim=self.oracle.spec.head_dim if rotary else None,
            other_orders=self._other_orders(info),
            others=self._others(info.name, codes.shape),
        )
        return (
            f"tensor {info.name!r}: {np.count_nonzero(wrong)} of {wrong.size} codes differ, first at [{row}, {col}]: "
            f"{mine.codes[row, col]}, the source has {codes[row, col]}{remark}"
        )

    def _other_orders(self, info: TensorInfo) -> Iterator[tuple[str, npt.NDArray[np.int8]]]:
        stored = self.file.bytes_of(info)
        for name, layout in REPAIRABLE.items() if info.layout == "i2_s" else ():
            if not layout.check(stored, info.rows, info.cols):
                found = layout.unpack(stored, info.rows, info.cols)
                yield name, self._in_rows_of_the_source(info, found).codes

    def _may_search(self) -> bool:
        self._searches += 1
        return self._searches <= MAX_SEARCHES

    def _others(self, name: str, shape: tuple[int, ...]) -> Iterator[tuple[str, npt.NDArray[np.int8]]]:
        for other in self.oracle.spec.linear_names() if self._may_search() else ():
            if other != name and self.oracle.spec.linear_shape(other.split(".")[-2]) == shape:
                yield other, self.oracle.linear(other.removesuffix(".weight"))[0]
                self.oracle.release(other.removesuffix(".weight"))

    def _compare_scales(self, found: Compared, info: TensorInfo, mine: TernaryTensor, source: TernaryTensor) -> None:
        matters, got, want = scales_differ(mine, source)
        if not matters.any():
            return
        layout, apart = self.file.layout_of(info), info.name.removesuffix("weight") + "scale" in self.file.tensors
        if layout is not None and not apart:
            # What the layout cannot hold was rounded, if the scale is what rounding gives; the loss is a figure.
            stored = scale_rounding.rounded(source, layout)
            if stored is not source and not scales_differ(mine, stored)[0].any():
                found.scale_rounding = worst = scale_rounding.loss(source, stored)
                if stored.scale_blocks != source.scale_blocks and self.recorded < worst * (1 - 1e-6):
                    found.findings.append(
                        f"tensor {info.name!r}: {source.scale_blocks[0]} x {source.scale_blocks[1]} scales were made "
                        f"{stored.scale_blocks[0]} x {stored.scale_blocks[1]}, off by up to {worst:.2g} of themselves, "
                        "and the file does not say so (tritpack.scale_rounding)"
                    )
                return
        place = tuple(int(i) for i in np.argwhere(matters)[0])
        first, right = float(got[place]), float(want[place])
        where = "its scale" if got.size == 1 else f"{np.count_nonzero(matters)} of {got.size} scales differ, the first"
        remark = diagnoses.of_scale(first, right, source.codes, lambda: self._other_scales(info.name))
        found.findings.append(f"tensor {info.name!r}: {where} is {first:.9g}, the source has {right:.9g}{remark}")

    def _other_scales(self, name: str) -> Iterator[tuple[str, float]]:
        """The same linear in other layers comes first."""
        names = [other for other in self.oracle.spec.linear_names() if other != name] if self._may_search() else []
        for other in sorted(names, key=lambda other: other.split(".")[-2] != name.split(".")[-2]):
            scales = self.oracle.linear(other.removesuffix(".weight"))[1]
            self.oracle.release(other.removesuffix(".weight"))
            if scales.size == 1:
                yield other, float(scales[0, 0])

    # -- floats --------------------------------------------------------------------------------------------------------

    def _norm(self, found: Compared, info: TensorInfo) -> None:
        name = info.name.removesuffix(".weight")
        want = _factors(self.oracle) if info.name == ROPE_FACTORS else self.oracle.norm(name)
        got = float_types.decode(info.layout, self.file.bytes_of(info), 1, info.cols)[0]
        if want is not None and not np.array_equal(got.view(np.uint32), want.view(np.uint32)):
            index = int((got.view(np.uint32) != want.view(np.uint32)).argmax())
            found.findings.append(
                f"tensor {info.name!r}: value {index} is {float(got[index])!r}, the source has {float(want[index])!r}"
                + diagnoses.of_norm(got, want, lambda: self._other_norms(info.name))
            )

    def _table(self, found: Compared, info: TensorInfo, rows: Rows) -> None:
        """Rows of embedding or head, after the source was encoded the same way. The loss is a figure."""
        first, last = rows
        row_bytes = info.nbytes // info.rows
        piece = self.file.bytes_of(info)[first * row_bytes : last * row_bytes]
        exact = self.oracle.original_rows(info.name.removesuffix(".weight"), first, last)
        mine = float_types.decode(info.layout, piece, last - first, info.cols)
        if np.array_equal(mine.view(np.uint32), exact.view(np.uint32)) and np.isfinite(mine).all():
            found.rounding = 0.0
            return
        expected = float_types.encode(info.layout, exact)
        # A packed source's own block-quantised values need not come back bit for bit from encoding them again.
        if not np.array_equal(expected, piece) and not np.array_equal(mine, exact):
            row = int((expected != piece).argmax()) // row_bytes
            right = float_types.decode(info.layout, expected, last - first, info.cols)
            column = int((mine[row] != right[row]).argmax())
            wrong = int(np.count_nonzero((mine != right).any(1)))
            found.findings.append(
                f"tensor {info.name!r}: row {first + row} differs from the source encoded as {info.layout}, first in "
                f"column {column}: {mine[row, column]:.9g}, the source has {right[row, column]:.9g}; {wrong} of the "
                f"{last - first} rows from {first} on differ" + diagnoses.of_rows(mine, right)
            )
            return
        found.rounding = float(np.abs(mine - exact).max())
        if not np.isfinite(found.rounding):
            found.findings.append(f"tensor {info.name!r}: rows from {first} on hold a value that is not finite")

    def _other_norms(self, name: str) -> Iterator[tuple[str, F32]]:
        for other, shape in self.oracle.spec.tensor_shapes().items():
            if other not in (name, ROPE_FACTORS) and len(shape) == 1:
                values = self.oracle.norm(other.removesuffix(".weight"))
                if values is not None:
                    yield other, values


def _factors(oracle: Oracle) -> F32 | None:
    scaling = oracle.spec.rope_scaling
    return np.array(scaling.frequency_factors, np.float32) if scaling else None
