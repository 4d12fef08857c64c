"""formats/README.md is enough: vectors and a reader written from its words alone, by others than the layouts' authors.

make/independent_reader.py and golden/generate_layouts.py import nothing of ours; what they and formats/layouts/ make of
the same bytes has to be the same, also of bytes that nobody should have written.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.conftest import GOLDEN
from tests.make import independent_reader
from tritpack.formats.errors import Unreadable
from tritpack.formats.layouts.catalog import LAYOUTS, REPAIRABLE
from tritpack.formats.layouts.layout import Layout
from tritpack.formats.layouts.tiling import Tiled, Tiling
from tritpack.formats.ternary import TernaryTensor

VECTORS = json.loads((GOLDEN / "layouts.json").read_text())
ALL = {**LAYOUTS, **REPAIRABLE}
CASES = [(vector, name) for vector in VECTORS for name in ALL if name in vector]


def meant(vector: dict, name: str) -> tuple[Layout, tuple[int, int, int] | None]:
    """The layout with the vector's tiling, and that tiling."""
    layout, shape = ALL[name], (vector["rows"], vector["cols"])
    if not isinstance(layout, Tiled):
        return layout, None
    if (given := vector.get("tiling", {}).get(name)) is not None:
        return type(layout)({shape: Tiling(*given)}), tuple(given)
    rule = layout.rule(*shape)
    assert rule is not None
    assert independent_reader.rule_tiling(name, *shape) == (rule.BM, rule.BK, rule.bm)
    return layout, (rule.BM, rule.BK, rule.bm)


def tensor_of(vector: dict, name: str) -> TernaryTensor:
    codes = np.array([["-0+".index(each) - 1 for each in row] for row in vector["codes"]], np.int8)
    scales = np.array(vector["scales"], np.float32).reshape(vector["scale_blocks"])
    return TernaryTensor(codes, scales)


@pytest.mark.parametrize("name", ALL)
def test_every_layout_has_vectors(name: str) -> None:
    assert sum(case_name == name for _, case_name in CASES) >= 2


@pytest.mark.parametrize(("vector", "name"), CASES, ids=lambda v: v if isinstance(v, str) else v["seed"])
def test_known_answers(vector: dict, name: str) -> None:
    layout, tiling = meant(vector, name)
    tensor = tensor_of(vector, name)
    packed = layout.pack(tensor)
    assert packed.tobytes().hex() == vector[name]
    back = layout.unpack(packed, *tensor.shape)
    assert np.array_equal(back.codes, tensor.codes)
    codes, scales = independent_reader.read(name, packed.tobytes(), *tensor.shape, tiling)
    assert np.array_equal(np.array(codes, np.int8), back.codes)
    theirs = TernaryTensor(back.codes, np.array(scales, np.float32)).dequantize()
    assert np.array_equal(theirs, back.dequantize())


@pytest.mark.parametrize("name", ALL)
def test_the_independent_reader_refuses_what_we_refuse(name: str) -> None:
    """Every bit of a tensor flipped in turn, and every byte set to some values: the same verdict, the same codes."""
    vector = min((v for v, each in CASES if each == name), key=lambda v: len(v[name]))
    layout, tiling = meant(vector, name)
    rows, cols = vector["rows"], vector["cols"]
    good = np.frombuffer(bytes.fromhex(vector[name]), np.uint8)
    rng = np.random.default_rng(0)
    verdicts = set()
    for place in rng.permutation(good.size)[:200]:
        for value in (*(int(good[place]) ^ 1 << bit for bit in range(8)), 0, 255, int(rng.integers(256))):
            changed = good.copy()
            changed[place] = value
            try:
                ours = layout.unpack(changed, rows, cols)
            except Unreadable:
                verdicts.add("refused")
                with pytest.raises(ValueError):
                    independent_reader.read(name, changed.tobytes(), rows, cols, tiling)
                continue
            verdicts.add("read")
            codes, scales = independent_reader.read(name, changed.tobytes(), rows, cols, tiling)
            assert np.array_equal(np.array(codes, np.int8), ours.codes), (place, value)
            theirs = TernaryTensor(ours.codes, np.array(scales, np.float32)).dequantize()
            assert np.array_equal(theirs, ours.dequantize()), (place, value)
    assert verdicts == {"refused", "read"}
    for wrong in (good[:-1], np.concatenate([good, good[-1:]])):
        with pytest.raises(ValueError):
            independent_reader.read(name, wrong.tobytes(), rows, cols, tiling)
