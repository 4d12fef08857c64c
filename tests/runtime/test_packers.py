"""The packers in C against the numpy ones, which are the specification: equal bytes, equal codes, also illegal ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tritpack.formats.errors import MissingRequirement
from tritpack.formats.layouts import c_packers
from tritpack.formats.layouts.catalog import LAYOUTS, REPAIRABLE
from tritpack.formats.layouts.layout import Layout
from tritpack.formats.layouts.tiling import Tiled, Tiling
from tritpack.runtime import packers
from tritpack.runtime.library import Library, library

ROWS = {"tl1": 32, "tl2": 32, "iq2_bn_r4": 4, "hf_u8": 4}
COLUMNS = {"i2_s": 128, "tl1": 8, "tq1_0": 256, "tq2_0": 256, "q2_0": 64, "ptq1_0": 128, "pq2_0": 128, "iq1_bn": 64,
           "iq2_bn": 64, "iq2_bn_r4": 64, "mlx2": 32}  # fmt: skip


@pytest.fixture(scope="module")
def c() -> packers.CPackers:
    return packers.CPackers(library())


@st.composite
def held(draw: st.DrawFn, name: str) -> tuple[Layout, int, int]:
    """A layout for a shape that it holds, with a tiling if it takes one."""
    rows = draw(st.integers(1, 5 if name in ROWS else 40)) * ROWS.get(name, 1)
    if name == "tl2":
        tiles, rest = draw(st.integers(1, 6)), 32 * draw(st.integers(0, 8))
        width = 24 * draw(st.integers(1, 12))
        cols = tiles * width + min(rest, (width - 1) // 32 * 32)
        if cols < 256:
            width, cols = 96, 256 + 96 * tiles
    else:
        unit = COLUMNS.get(name, 1)
        cols = unit * draw(st.integers(1, max(3, 900 // unit)))
    layout = LAYOUTS[name]
    if isinstance(layout, Tiled):
        BM = draw(st.sampled_from([n for n in range(32, rows + 1, 32) if rows % n == 0]))
        bm = 64 if name == "tl1" and BM % 64 == 0 and draw(st.booleans()) else 32
        if name == "tl1":
            by = 256 // bm
            cols += -cols % by
            width = draw(st.sampled_from([n for n in range(by, cols + 1, by) if cols % n == 0]))
        layout = type(layout)({(rows, cols): Tiling(BM, width, bm)})
    assert layout.shape_misfit(rows, cols) is None
    return layout, rows, cols


@pytest.mark.parametrize("name", LAYOUTS)
@settings(max_examples=60, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_c_and_numpy_pack_the_same_bytes(c: packers.CPackers, name: str, data: st.DataObject, seed: int) -> None:
    layout, rows, cols = data.draw(held(name))
    rng = np.random.default_rng(seed)
    codes, tiling = rng.integers(-1, 2, (rows, cols)).astype(np.int8), layout.tiling_of(rows, cols)
    want, got = (np.zeros(layout.nbytes(rows, cols), np.uint8) for _ in range(2))
    if name in ("t2", "t158"):
        want[-layout.body(want, rows, cols).size - 1] = got[-layout.body(got, rows, cols).size - 1] = 0x5A
    layout.pack_codes(codes, layout.body(want, rows, cols))
    assert c.pack(name, tiling, codes, layout.body(got, rows, cols))
    assert np.array_equal(got, want)

    back = np.full((rows, cols), 77, np.int8)
    assert c.unpack(name, tiling, layout.body(got, rows, cols), back)
    assert np.array_equal(back, codes)
    body = layout.body(got, rows, cols)
    body[:] = rng.integers(0, 256, body.size, np.uint8)
    assert c.unpack(name, tiling, body, back)
    assert np.array_equal(back, layout.unpack_codes(body, rows, cols))


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_byte_means_the_same(c: packers.CPackers, name: str) -> None:
    """Each of the 256 bytes at each place of a tensor's smallest piece."""
    layout = LAYOUTS[name]
    rows, cols = ROWS.get(name, 8), 512
    body = np.zeros(layout.nbytes(rows, cols), np.uint8)
    body = layout.body(body, rows, cols)
    codes = np.empty((rows, cols), np.int8)
    for first in range(256):
        body[:] = np.arange(first, first + body.size).astype(np.uint8)
        assert c.unpack(name, layout.tiling_of(rows, cols), body, codes), first
        assert np.array_equal(codes, layout.unpack_codes(body, rows, cols)), first


def test_what_c_does_not_take_is_left_to_numpy(c: packers.CPackers) -> None:
    codes, body = np.zeros((4, 128), np.int8), np.zeros(128, np.uint8)
    for name in (*REPAIRABLE, "f32", "q8_0", "tq9_9"):
        assert not c.pack(name, None, codes, body) and not c.unpack(name, None, body, codes), name
    assert not c.pack("i2_s", None, codes, body[:-1]) and not c.unpack("i2_s", None, body[:-1], codes)
    assert not c.pack("i2_s", None, codes.reshape(8, 64), body)
    codes, body = np.zeros((32, 64), np.int8), np.zeros(512, np.uint8)
    for tiling in (
        None,
        Tiling(0, 0, 0),
        Tiling(32, 64, 16),
        Tiling(48, 64, 32),
        Tiling(32, 12, 32),
        Tiling(32, -8, 32),
    ):
        assert not c.pack("tl1", tiling, codes, body) and not c.unpack("tl1", tiling, body, codes), tiling
    assert c.pack("tl1", Tiling(32, 64, 32), codes, body) and (body == 0x44).all()
    codes, body = np.zeros((32, 256), np.int8), np.zeros(2048, np.uint8)
    for tiling in (Tiling(32, 20, 32), Tiling(32, 24, 64), Tiling(32, 240, 32), Tiling(64, 96, 32)):
        assert not c.pack("tl2", tiling, codes, body), tiling


@pytest.fixture
def restored() -> Iterator[None]:
    yield
    c_packers.use(None)


def test_installed(restored: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layout.pack and unpack take them where the library is there, and stay with numpy where it is not."""
    calls: list[str] = []
    real = packers.CPackers.pack

    def counted(self: packers.CPackers, layout: str, *rest: object) -> bool:
        calls.append(layout)
        return real(self, layout, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(packers.CPackers, "pack", counted)
    from tests.formats.test_layouts import random_tensor

    tensor = random_tensor(32, 256, 3)
    plain = {name: layout.pack(tensor) for name, layout in LAYOUTS.items()}

    def missing() -> Library:
        return Library(Path("/nowhere/libtritpack.so"))

    with monkeypatch.context() as absent:
        absent.setattr(packers, "library", missing)
        with pytest.raises(MissingRequirement):
            missing()
        packers.use_c_packers()
        assert not c_packers.pack("i2_s", None, tensor.codes, np.zeros(2048, np.uint8))
    packers.use_c_packers()
    for name, layout in LAYOUTS.items():
        stored = layout.pack(tensor)
        assert np.array_equal(stored, plain[name]), f"{name} {layout}"
        assert np.array_equal(layout.unpack(stored, 32, 256).codes, tensor.codes), f"{name} {layout}"
    assert set(calls) == set(LAYOUTS)


@pytest.mark.parametrize("name", LAYOUTS)
def test_checks_do_not_depend_on_who_unpacks(name: str, restored: None) -> None:
    """The same findings of damaged bytes with the C packers and without."""
    layout, rng = LAYOUTS[name], np.random.default_rng(7)
    from tests.formats.test_layouts import random_tensor

    good = layout.pack(random_tensor(32, 264 if name in ("t2", "t158", "hf_u8") else 512, 3))
    cols = 264 if name in ("t2", "t158", "hf_u8") else 512
    for attempt in range(150):
        bad = good.copy()
        bad[rng.integers(0, good.size, 2)] = rng.integers(0, 256, 2)
        c_packers.use(None)
        plain = layout.check(bad, 32, cols)
        packers.use_c_packers()
        assert layout.check(bad, 32, cols) == plain, attempt
