"""Every layout against the engines' own bytes, vectors packed from the specification's words, and itself."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from formats.errors import Unreadable, Unsupported
from formats.layouts import catalog, hf_u8, i2_s, t2
from formats.layouts.catalog import LAYOUTS
from formats.ternary import TernaryTensor
from tests.conftest import SHARED

VECTORS = json.loads((Path(__file__).parent / "golden" / "layouts.json").read_text())
GOLDEN = SHARED / "golden" / "layouts"


def random_tensor(rows: int, cols: int, seed: int, scale: float = 0.75) -> TernaryTensor:
    codes = np.random.default_rng(seed).integers(-1, 2, (rows, cols)).astype(np.int8)
    return TernaryTensor.per_tensor(codes, scale)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: f"{v['rows']}x{v['cols']}-{v['seed']}")
@pytest.mark.parametrize("name", LAYOUTS)
def test_known_answers(vector: dict, name: str) -> None:
    if name not in vector:
        pytest.skip(f"{name} does not hold {vector['rows']} x {vector['cols']} with {len(vector['scales'])} scales")
    scales = np.array(vector["scales"], np.float32).reshape(vector["scale_blocks"])
    tensor = TernaryTensor(np.array(vector["codes"], np.int8), scales)
    packed = LAYOUTS[name].pack(tensor)
    assert packed.tobytes().hex() == vector[name]
    back = LAYOUTS[name].unpack(packed, vector["rows"], vector["cols"])
    assert np.array_equal(back.codes, tensor.codes)
    assert name == "hf_u8" or np.array_equal(back.scales, tensor.scales)


@pytest.mark.parametrize("name", ["i2_s", "hf_u8"])
def test_engines_own_bytes(shared: Path, name: str) -> None:
    vectors = [v for v in json.loads((GOLDEN / "golden.json").read_text())["vectors"] if v["layout"] == name]
    assert vectors
    for vector in vectors:
        rows, cols = vector["shape"]
        stored = np.fromfile(GOLDEN / vector["file"], np.uint8)
        tensor = LAYOUTS[name].unpack(stored, rows, cols)
        assert tensor.codes_sha256() == vector["codes_sha256"], vector["name"]
        if name == "i2_s":
            assert tensor.scales.ravel().tolist() == vector["scales"]
        ignored = slice(*(vector.get("ignore_bytes") or (0, 0)))
        packed = LAYOUTS[name].pack(tensor)
        packed[ignored] = stored[ignored] = 0
        assert np.array_equal(packed, stored), vector["name"]


@given(
    rows=st.integers(1, 9),
    blocks=st.integers(1, 5),
    seed=st.integers(0, 2**32),
    scale=st.floats(2.0**-20, 2.0**20, width=32),
)
def test_i2_s_round_trip(rows: int, blocks: int, seed: int, scale: float) -> None:
    tensor = random_tensor(rows, 128 * blocks, seed, scale)
    packed = i2_s.pack(tensor)
    assert packed.size == i2_s.nbytes(*tensor.shape) == rows * blocks * 32 + 32
    assert not packed[-28:].any()
    back = i2_s.unpack(packed, *tensor.shape)
    assert np.array_equal(back.codes, tensor.codes)
    assert np.array_equal(back.scales.view(np.uint32), tensor.scales.view(np.uint32))


@given(quarter=st.integers(1, 5), cols=st.integers(1, 300), seed=st.integers(0, 2**32))
def test_hf_u8_round_trip(quarter: int, cols: int, seed: int) -> None:
    tensor = random_tensor(4 * quarter, cols, seed)
    packed = hf_u8.pack(tensor)
    assert packed.size == hf_u8.nbytes(*tensor.shape)
    assert np.array_equal(hf_u8.unpack(packed, *tensor.shape).codes, tensor.codes)


@given(
    rows=st.sampled_from([1, 2, 4, 6, 12]),
    cols=st.sampled_from([1, 3, 96, 127, 128, 129, 192, 200, 256, 328]),
    row_blocks=st.sampled_from([1, 2, 3, 12]),
    col_blocks=st.sampled_from([1, 2, 3, 4, 41]),
    seed=st.integers(0, 2**32),
)
def test_t2_round_trip(rows: int, cols: int, row_blocks: int, col_blocks: int, seed: int) -> None:
    """Any shape, any granularity: the same codes and the same bits of every scale."""
    assume(rows % row_blocks == 0 and cols % col_blocks == 0)
    scales = np.random.default_rng(seed).uniform(0, 3, (row_blocks, col_blocks)).astype(np.float32)
    tensor = TernaryTensor(random_tensor(rows, cols, seed).codes, scales)
    packed = t2.pack(tensor)
    assert packed.size == t2.nbytes(rows, cols, tensor.scale_blocks) == t2.nbytes_by_header(rows, cols, packed[:64])
    assert packed.size % 32 == 0 and t2.check(packed, rows, cols) == []
    back = t2.unpack(packed, rows, cols)
    assert np.array_equal(back.codes, tensor.codes) and np.array_equal(back.scales, tensor.scales)


def test_t2_refuses_what_is_not_canonical() -> None:
    tensor = TernaryTensor(random_tensor(4, 200, 1).codes, np.full((4, 2), 0.5, np.float32))
    good = t2.pack(tensor)
    offset = good.size - 4 * 64
    cases = {
        "header": (0, 0x00), "header of a": (4, 3), "padding": (offset + 63, 0x54), "reserved": (13, 1),
        "scale is": (35, 0xFF),
    }  # fmt: skip
    for words, (place, value) in cases.items():
        bad = good.copy()
        bad[place] = value
        with pytest.raises(Unreadable, match=words):
            t2.unpack(bad, 4, 200)
    with pytest.raises(Unreadable, match="expected"):
        t2.unpack(good[:-1], 4, 200)
    with pytest.raises(Unsupported, match="scale"):
        t2.pack(TernaryTensor(tensor.codes, np.full((1, 1), np.nan, np.float32)))


@given(place=st.integers(0, 4 * 256 - 1))
def test_code_three_is_found_where_it_is(place: int) -> None:
    row, col = divmod(place, 256)
    for layout in LAYOUTS.values():
        zero, one = np.zeros((4, 256), np.int8), np.zeros((4, 256), np.int8)
        one[row, col] = 1
        bits = layout.pack(TernaryTensor.per_tensor(one, 1.0)) ^ layout.pack(TernaryTensor.per_tensor(zero, 1.0))
        # Codes 1 and 2 stand for 0 and +1: their exclusive or is 3, so or-ing it in makes a 3.
        broken = layout.pack(TernaryTensor.per_tensor(zero, 1.0)) | bits
        [problem] = layout.check(broken, 4, 256)
        assert f"row {row}, column {col}" in problem
        with pytest.raises(Unreadable, match="code 3"):
            layout.unpack(broken, 4, 256)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(Unsupported, match="multiple of 128"):
        i2_s.pack(random_tensor(4, 192, 0))
    with pytest.raises(Unsupported, match="multiple of 4"):
        hf_u8.pack(random_tensor(6, 128, 0))
    rows = TernaryTensor(np.zeros((4, 128), np.int8), np.ones((4, 1), np.float32))
    for layout in (i2_s, hf_u8):
        with pytest.raises(Unsupported, match="one scale a tensor"):
            layout.pack(rows)


@pytest.mark.parametrize("scale", [np.nan, np.inf, -1.0])
def test_a_scale_that_is_no_multiplier_is_refused(scale: float) -> None:
    packed = i2_s.pack(random_tensor(2, 128, 3))
    packed[64:68] = np.array([scale], "<f4").view(np.uint8)
    with pytest.raises(Unreadable, match="scale"):
        i2_s.unpack(packed, 2, 128)


def test_wrong_sizes_are_refused() -> None:
    packed = i2_s.pack(random_tensor(2, 128, 3))
    for layout, data in ((i2_s, packed[:-1]), (i2_s, packed[:32]), (hf_u8, np.zeros(63, np.uint8))):
        with pytest.raises(Unreadable, match="expected"):
            layout.unpack(data, 4 if layout is hf_u8 else 2, 128)


def test_left_over_bytes_behind_the_scale_are_ignored() -> None:
    tensor = random_tensor(2, 128, 3)
    packed = i2_s.pack(tensor)
    packed[-28:] = 0xAB
    assert np.array_equal(i2_s.unpack(packed, 2, 128).codes, tensor.codes)


def test_granularities() -> None:
    codes = np.zeros((8, 256), np.int8)
    for shape, name in {
        (1, 1): "tensor",
        (8, 1): "row",
        (4, 1): "rows/4",
        (1, 2): "cols/2",
        (8, 2): "group 128",
    }.items():
        tensor = TernaryTensor(codes, np.ones(shape, np.float32))
        assert tensor.granularity == name
        assert tensor.dequantize().shape == codes.shape
    with pytest.raises(ValueError, match="tile"):
        TernaryTensor(codes, np.ones((3, 1), np.float32))


def test_codes_hash_is_of_the_int8_codes() -> None:
    tensor = random_tensor(4, 128, 5)
    assert tensor.codes_sha256() == hashlib.sha256(tensor.codes.tobytes()).hexdigest()


def test_colliding_type_ids_are_told_apart_by_size() -> None:
    """39 and 42 mean MXFP4, TL2, Q2_0 or PrismML's group-128 form; only the room in the file decides."""
    rows, cols = 256, 512
    head = np.zeros(64, np.uint8)
    for type_id, name in ((39, "mxfp4"), (39, "tl2"), (42, "q2_0"), (42, "pq2_0"), (42, "tl2")):
        meaning = next(m for m in catalog.meanings(type_id) if m.name == name)
        size = meaning.nbytes(rows, cols, head)
        assert size is not None
        found = catalog.resolve(type_id, rows, cols, -(-size // 32) * 32, 32, head)
        assert found is not None and (found[0].name, found[1]) == (name, size)
    assert catalog.resolve(9999, rows, cols, 10**9, 32, head) is None
