"""Every layout against the engines' own bytes, vectors packed from the specification's words, and itself."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import GOLDEN, SHARED
from tritpack.formats.errors import Unreadable, Unsupported, UsageError
from tritpack.formats.layouts import catalog
from tritpack.formats.layouts.catalog import LAYOUTS, REPAIRABLE
from tritpack.formats.layouts.layout import Layout
from tritpack.formats.layouts.tiling import Tiled, Tiling, format_tilings, parse_tilings, read_kernel_config
from tritpack.formats.ternary import TernaryTensor

VECTORS = json.loads((GOLDEN / "layouts.json").read_text())
GOLDEN = SHARED / "golden" / "layouts"
GOLDEN_LAYOUTS = (
    "i2_s", "tl1", "tl2", "tq1_0", "tq2_0", "q2_0", "iq1_bn", "iq2_bn", "iq2_bn_r4", "hf_u8", "mlx2"
)  # fmt: skip
SHAPES = (
    (1, 128), (3, 64), (4, 256), (8, 100), (9, 328), (12, 192), (16, 512), (17, 320), (32, 96), (32, 264), (32, 256),
    (64, 288), (96, 400), (64, 768), (40, 1200), (5, 6912), (160, 352), (7, 1),
)  # fmt: skip


def random_tensor(rows: int, cols: int, seed: int, scale: float = 0.75) -> TernaryTensor:
    codes = np.random.default_rng(seed).integers(-1, 2, (rows, cols)).astype(np.int8)
    return TernaryTensor.per_tensor(codes, scale)


def fitting(layout: Layout) -> list[tuple[int, int]]:
    return [shape for shape in SHAPES if layout.misfit(*shape) is None]


def with_tiling(name: str, shape: tuple[int, int], tiling: Tiling) -> Layout:
    layout = LAYOUTS[name]
    assert isinstance(layout, Tiled)
    return type(layout)({shape: tiling})


def same(mine: TernaryTensor, theirs: TernaryTensor) -> bool:
    """Equal codes, and equal bits of the scale of every weight."""
    scales = [np.broadcast_to(t.scales.repeat(t.shape[0] // len(t.scales), 0), (t.shape[0], t.scales.shape[1]))
              .repeat(t.shape[1] // t.scales.shape[1], 1).view(np.uint32) for t in (mine, theirs)]  # fmt: skip
    return bool(np.array_equal(mine.codes, theirs.codes) and np.array_equal(*scales))


# -- bytes that others have made ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GOLDEN_LAYOUTS)
def test_engines_own_bytes(shared: Path, name: str) -> None:
    vectors = [v for v in json.loads((GOLDEN / "golden.json").read_text())["vectors"] if v["layout"] == name]
    assert vectors
    for vector in vectors:
        rows, cols = vector["shape"]
        layout = LAYOUTS[name]
        if isinstance(layout, Tiled):
            layout = with_tiling(name, (rows, cols), Tiling(**vector["parameters"]))
        stored = np.fromfile(GOLDEN / vector["file"], np.uint8)
        tensor = layout.unpack(stored, rows, cols)
        assert tensor.codes_sha256() == vector["codes_sha256"], vector["name"]
        if layout.holds_scales:
            # One number stands for all; else one a row or block, where an all-zero one has none of its own.
            recorded = np.array(vector["scales"], np.float32).reshape(-1)
            finest = layout.read_scales(stored, rows, cols).reshape(-1)
            assert np.array_equal(finest, recorded) or (finest == recorded).all(), vector["name"]
        packed = layout.pack(tensor)
        ignored = slice(*(vector.get("ignore_bytes") or (0, 0)))
        packed[ignored] = stored[ignored] = 0
        if vector.get("stored_codes_differ"):  # ik_llama.cpp's row of scale 0 holds +1; zeros are right too
            again = layout.unpack(packed, rows, cols)
            assert same(again, tensor) and np.array_equal(
                layout.read_scales(packed, rows, cols), layout.read_scales(stored, rows, cols)
            ), vector["name"]
            row = np.flatnonzero(~tensor.codes.any(1))
            assert row.tolist() == [2], vector["name"]
            continue
        assert np.array_equal(packed, stored), vector["name"]


@pytest.mark.parametrize("kind", ["TQ1_0", "TQ2_0"])
@settings(max_examples=20)
@given(rows=st.integers(1, 5), blocks=st.integers(1, 4), seed=st.integers(0, 2**32), zeros=st.floats(0, 1))
def test_gguf_py_has_the_same_codec(kind: str, rows: int, blocks: int, seed: int, zeros: float) -> None:
    layout, type_id = LAYOUTS[kind.lower()], GGMLQuantizationType[kind]
    rng = np.random.default_rng(seed)
    codes = rng.integers(-1, 2, (rows, 256 * blocks)).astype(np.int8)
    codes[rng.random(codes.shape) < zeros] = 0
    codes[0, 0] = 1
    scale = np.float32(np.float16(rng.uniform(0.001, 4)))
    tensor = TernaryTensor.per_tensor(codes, scale)
    packed = layout.pack(tensor)
    assert np.array_equal(packed, quants.quantize(tensor.dequantize(), type_id).reshape(-1))
    values = quants.dequantize(packed.reshape(rows, -1), type_id)
    assert np.array_equal(values, layout.unpack(packed, rows, 256 * blocks).dequantize())


# -- themselves --------------------------------------------------------------------------------------------------------


@settings(max_examples=30)
@pytest.mark.parametrize("name", [*LAYOUTS, *REPAIRABLE])
@given(data=st.data())
def test_round_trip(name: str, data: st.DataObject) -> None:
    """Any shape and granularity that fits: the same codes, the same bits of every scale, the size that was said."""
    layout = {**LAYOUTS, **REPAIRABLE}[name]
    rows, cols = data.draw(st.sampled_from(fitting(layout)))
    row_blocks = data.draw(st.sampled_from([n for n in (1, 2, 4, rows) if rows % n == 0]))
    col_blocks = data.draw(st.sampled_from([n for n in (1, 2, 3, cols // 64 or 1, cols) if cols % n == 0]))
    if layout.misfit(rows, cols, (row_blocks, col_blocks)):
        row_blocks, col_blocks = layout.nearest_grid(rows, cols, (row_blocks, col_blocks))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    scales = layout.as_stored(rng.uniform(0.01, 3, (row_blocks, col_blocks)).astype(np.float32))
    codes = rng.integers(-1, 2, (rows, cols)).astype(np.int8)
    codes[rng.random(rows) < 0.2] = 0
    codes[:, : cols // 3][rng.random(rows) < 0.2] = 0
    tensor = TernaryTensor(codes, scales)
    packed = layout.pack(tensor)
    assert (
        packed.size
        == layout.nbytes(rows, cols, tensor.scale_blocks)
        == layout.stored_nbytes(rows, cols, bytes(packed[:64]))
    )
    assert layout.check(packed, rows, cols) == []
    back = layout.unpack(packed, rows, cols)
    assert np.array_equal(back.codes, codes) and back.codes_sha256() == tensor.codes_sha256()
    if layout.holds_scales:
        assert_no_scale_is_lost(back, tensor)


def assert_no_scale_is_lost(back: TernaryTensor, tensor: TernaryTensor) -> None:
    """Where a weight is not zero its scale is the same, and so are the scales of blocks of zeros alone."""
    (rows, cols), blocks = tensor.shape, tensor.scale_blocks
    finer = TernaryTensor(np.ones_like(tensor.codes), back.scales).dequantize()
    expected = TernaryTensor(np.ones_like(tensor.codes), tensor.scales).dequantize()
    assert np.array_equal(finer[tensor.codes != 0], expected[tensor.codes != 0])
    tiles = finer.reshape(blocks[0], rows // blocks[0], blocks[1], cols // blocks[1])
    assert np.array_equal(tiles.max((1, 3)), tensor.scales)


@pytest.mark.parametrize("name", ["tl1", "tl2"])
def test_every_tiling_round_trips(name: str) -> None:
    layout = LAYOUTS[name]
    assert isinstance(layout, Tiled)
    seen = set()
    for rows, cols in ((64, 512), (96, 288), (32, 264)):
        candidates = layout.candidates(rows, cols)
        assert candidates[0] == layout.rule(rows, cols), f"{rows} {cols}"
        tensor = random_tensor(rows, cols, 3)
        for tiling in candidates[:12]:
            packed = with_tiling(name, (rows, cols), tiling).pack(tensor)
            assert same(with_tiling(name, (rows, cols), tiling).unpack(packed, rows, cols), tensor), tiling
            seen.add(packed.tobytes())
    assert len(seen) > 8  # the order depends on it


@pytest.mark.parametrize("name", ["iq1_bn", "iq2_bn", "iq2_bn_r4", "tq2_0"])
def test_codes_under_a_scale_of_zero_are_zeros(name: str) -> None:
    layout = LAYOUTS[name]
    tensor = random_tensor(8, 256, 1, 0.5)
    tensor.codes[4] = 0
    packed = layout.pack(tensor)
    plus = layout.pack(
        TernaryTensor(np.where(np.arange(8)[:, None] == 4, 1, tensor.codes).astype(np.int8), tensor.scales)
    )
    size = packed.size // 8
    if name != "iq2_bn_r4":
        header = {"iq1_bn": 2, "iq2_bn": 4, "tq2_0": 0}[name]
        last = size - 2 if name == "tq2_0" else size
        packed[4 * size + header : 4 * size + last] = plus[4 * size + header : 4 * size + last]
    assert same(layout.unpack(packed, 8, 256), tensor)


# -- what is refused ---------------------------------------------------------------------------------------------------

TWO_BIT = [name for name in LAYOUTS if name not in ("t158", "tl1", "tl2", "tq1_0", "ptq1_0", "iq1_bn")]


@pytest.mark.parametrize("name", TWO_BIT)
@given(place=st.integers(0, 4 * 256 - 1))
def test_code_three_is_found_where_it_is(name: str, place: int) -> None:
    layout = LAYOUTS[name]
    row, col = divmod(place, 256)
    zero, one = np.zeros((4, 256), np.int8), np.zeros((4, 256), np.int8)
    zero[(row + 1) % 4, 0] = one[(row + 1) % 4, 0] = 1  # so that no scale depends on what is under it
    zero[row, (col + 64) % 256] = one[row, (col + 64) % 256] = 1
    zero[row, (col + 1) // 2 * 2 - 1 if col % 64 else col + 1] = one[
        row, (col + 1) // 2 * 2 - 1 if col % 64 else col + 1
    ] = -1
    one[row, col] = 1
    zero[row, col] = 0
    # Codes 1 and 2 stand for 0 and +1: their exclusive or is 3, so or-ing it in makes a 3.
    packed = [layout.pack(TernaryTensor.per_tensor(each, 1.0)) for each in (zero, one)]
    broken = packed[0] | (packed[0] ^ packed[1])
    [problem] = layout.check(broken, 4, 256)
    assert f"code 3 at row {row}, column {col}; only" in problem
    with pytest.raises(Unreadable, match="code 3"):
        layout.unpack(broken, 4, 256)
    assert np.array_equal(layout.unpack(broken, 4, 256, repair=True).codes, zero)


@pytest.mark.parametrize("name", ["t158", "tq1_0", "ptq1_0", "iq1_bn", "tl1", "tl2"])
def test_bytes_that_no_packer_writes_are_refused(name: str) -> None:
    """Of all 256 values of one byte those that decode and pack to themselves are good, and no others."""
    layout, shape = LAYOUTS[name], (32, 512)
    tensor = random_tensor(*shape, 4, 1.0)
    tensor.codes[:, 0] = 1  # no block of zeros
    good = layout.pack(tensor)
    places = [good.size - layout.body(good, *shape).size + 64 if name == "t158" else 40, good.size // 2]
    for place in places:
        accepted = 0
        for value in range(256):
            changed = good.copy()
            changed[place] = value
            if layout.check(changed, *shape):
                with pytest.raises(Unreadable):
                    layout.unpack(changed, *shape)
                continue
            accepted += 1
            back = layout.unpack(changed, *shape)
            assert np.array_equal(layout.pack(back), changed), (place, value)
        assert accepted in (81, 243, 14 * 14, 13 * 14, 13 * 13, 256), (place, accepted)


def test_padding_is_judged_unless_repaired() -> None:
    for name, cols in (("t2", 200), ("t158", 200), ("t158", 330)):
        layout, tensor = LAYOUTS[name], random_tensor(4, cols, 1)
        packed = layout.pack(tensor)
        wide = layout.pack(random_tensor(4, cols + cols % 16 + 24, 1))
        assert wide.size == packed.size, f"{name} {cols}"
        with pytest.raises(Unreadable, match="padding after its rows"):
            layout.unpack(wide, 4, cols)
        assert layout.unpack(wide, 4, cols, repair=True).shape == (4, cols), f"{name} {cols}"
    layout = LAYOUTS["tl2"]
    packed = layout.pack(random_tensor(128, 768, 2))
    packed[20480 + 5] = 1  # after the codes, before the scale
    with pytest.raises(Unreadable, match="padding after its codes"):
        layout.unpack(packed, 128, 768)
    packed[-28:] = 0xAB  # bytes after the scale are ignored
    assert same(layout.unpack(packed, 128, 768, repair=True), random_tensor(128, 768, 2))


@pytest.mark.parametrize("name", ["t2", "t158"])
def test_headers_that_are_not_ours(name: str) -> None:
    layout = LAYOUTS[name]
    tensor = TernaryTensor(random_tensor(4, 200, 1).codes, np.full((4, 2), 0.5, np.float32))
    good = layout.pack(tensor)
    cases = {"header": (0, 0x00), "header of a": (4, 3), "reserved": (13, 1), "scale is": (35, 0xFF)}
    for words, (place, value) in cases.items():
        bad = good.copy()
        bad[place] = value
        with pytest.raises(Unreadable, match=words):
            layout.unpack(bad, 4, 200)
    with pytest.raises(Unreadable, match="expected"):
        layout.unpack(good[:-1], 4, 200)


def test_what_does_not_fit_is_refused() -> None:
    for name, shape, words in (
        ("i2_s", (4, 192), "multiple of 128"), ("hf_u8", (6, 128), "multiple of 4"),
        ("tq1_0", (4, 128), "multiple of 256"), ("q2_0", (4, 96), "multiple of 64"),
        ("iq2_bn_r4", (6, 128), "multiple of 4"), ("tl1", (16, 128), "multiple of 32"),
        ("tl1", (32, 12), "multiple of 8"), ("tl2", (32, 128), "shorter than 256"), ("tl2", (32, 257), "blocks of 24"),
        ("mlx2", (4, 48), "multiple of 32"),
    ):  # fmt: skip
        with pytest.raises(Unsupported, match=words):
            LAYOUTS[name].pack(random_tensor(*shape, 0))
    rows = TernaryTensor(np.zeros((32, 256), np.int8), np.ones((32, 1), np.float32))
    for name in ("i2_s", "hf_u8", "tl1", "tl2"):
        with pytest.raises(Unsupported, match="one scale per tensor"):
            LAYOUTS[name].pack(rows)
    groups = TernaryTensor(np.zeros((32, 256), np.int8), np.ones((32, 4), np.float32))
    for name in ("iq2_bn", "tq2_0", "pq2_0"):
        with pytest.raises(Unsupported, match="scales at most"):
            LAYOUTS[name].pack(groups)
    with pytest.raises(Unsupported, match="tiles of 48 rows"):
        with_tiling("tl2", (32, 256), Tiling(48, 96, 32)).pack(random_tensor(32, 256, 0))


@pytest.mark.parametrize("name", [name for name, layout in LAYOUTS.items() if layout.half_scales])
def test_half_scales_are_never_rounded_in_silence(name: str) -> None:
    layout = LAYOUTS[name]
    with pytest.raises(
        Unsupported, match=r"float16, and 0.100000001 would become 0.0999755859 \(a relative change of 2.4e-04\)"
    ):
        layout.pack(random_tensor(4, 256, 0, 0.1))
    with pytest.raises(Unsupported, match="would become inf"):
        layout.pack(random_tensor(4, 256, 0, 70000.0))
    assert layout.inexact_scale(layout.as_stored(np.array([[0.1]], np.float32))) is None


@pytest.mark.parametrize("scale", [np.nan, np.inf, -1.0])
@pytest.mark.parametrize("name", [name for name, layout in LAYOUTS.items() if layout.holds_scales])
def test_a_scale_that_is_no_multiplier_is_refused(name: str, scale: float) -> None:
    layout = LAYOUTS[name]
    with pytest.raises(Unsupported, match="scale"):
        layout.pack(random_tensor(32, 256, 3, scale))
    packed = layout.pack(random_tensor(32, 256, 3, 1.0))
    one, bad = (np.array([value], "<f2" if layout.half_scales else "<f4").tobytes() for value in (1.0, scale))
    place = packed.tobytes().index(one)
    packed[place : place + len(bad)] = np.frombuffer(bad, np.uint8)
    with pytest.raises(Unreadable, match="a scale is"):
        layout.unpack(packed, 32, 256, repair=True)


@pytest.mark.parametrize("name", LAYOUTS)
def test_wrong_sizes_are_refused(name: str) -> None:
    layout = LAYOUTS[name]
    packed = layout.pack(random_tensor(32, 256, 3))
    for data in (packed[:-1], packed[:32], np.concatenate([packed, packed[:1]])):
        for repair in (False, True):
            with pytest.raises(Unreadable, match="expected"):
                layout.unpack(data, 32, 256, repair=repair)


@pytest.mark.parametrize("name", ["i2_s", "tl1", "tl2"])
def test_left_over_bytes_behind_the_scale_are_ignored(name: str) -> None:
    layout, tensor = LAYOUTS[name], random_tensor(32, 256, 3)
    packed = layout.pack(tensor)
    assert not packed[-28:].any()
    packed[-28:] = 0xAB
    assert same(layout.unpack(packed, 32, 256), tensor)


# -- tilings -----------------------------------------------------------------------------------------------------------


def test_tilings_in_words(tmp_path: Path) -> None:
    tilings = {(1536, 4096): Tiling(256, 96, 32), (4096, 1536): Tiling(128, 64, 64)}
    assert parse_tilings(format_tilings(tilings)) == tilings
    for word in ("1536x4096", "1x2=3,4", "1x2=0,4,5", "ax2=1,2,3"):
        with pytest.raises(UsageError, match="is not a tiling"):
            parse_tilings([word])
    config = tmp_path / "kernel_config.ini"
    config.write_text(
        "[Kernels_0]\nm = 1536\nk = 4096\nbm = 256\nbk = 96\nbmm = 32\n\n"
        "[Kernels_1]\nm=4096\nk=1536\nbm=128\nbk=64\nbmm=64\n"
    )
    assert read_kernel_config(config) == tilings
    for text in (
        "",
        "[a]\nm = 1\n",
        "m = 1\n",
        "[a]\nm=1\nk=x\nbm=1\nbk=1\nbmm=1\n",
        "[a]\nm=1\nk=0\nbm=1\nbk=1\nbmm=1\n",
        "[a]\nm=%(k)s\nk=1\nbm=1\nbk=1\nbmm=1\n",  # a chain of such names would grow tenfold at each
        "[a]\nm" + " " * 2000 + "b\n",
    ):
        config.write_text(text)
        with pytest.raises(Unreadable, match=r"is not a kernel_config.ini"):
            read_kernel_config(config)
    with pytest.raises(Unreadable, match="cannot be read"):
        read_kernel_config(tmp_path / "absent.ini")


def test_a_file_means_the_tilings_that_it_records() -> None:
    tensor = random_tensor(64, 288, 1)
    packed = with_tiling("tl2", (64, 288), Tiling(32, 48, 32)).pack(tensor)
    recorded = catalog.layouts_of({catalog.TILING_KEY: ["64x288=32,48,32"]})
    assert same(recorded["tl2"].unpack(packed, 64, 288), tensor)
    with pytest.raises(Unreadable, match=r"does not say how its tensors of 64 x 288 are tiled"):
        catalog.layouts_of({})["tl2"].unpack(packed, 64, 288)
    with pytest.raises(Unreadable, match=r"metadata tritpack.layout.tiling: 'nonsense'"):
        catalog.layouts_of({catalog.TILING_KEY: ["nonsense"]})


# -- TernaryTensor -----------------------------------------------------------------------------------------------------


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
        assert (tensor.granularity, tensor.dequantize().shape) == (name, codes.shape), f"{shape} {name}"
    with pytest.raises(ValueError, match="tile"):
        TernaryTensor(codes, np.ones((3, 1), np.float32))


def test_codes_hash_is_of_the_int8_codes() -> None:
    tensor = random_tensor(4, 128, 5)
    assert tensor.codes_sha256() == hashlib.sha256(tensor.codes.tobytes()).hexdigest()


def test_colliding_type_ids_are_told_apart_by_size() -> None:
    """39 and 42 mean MXFP4, TL2, Q2_0 or PrismML's group-128 form; only the room in the file decides."""
    rows, cols = 256, 512
    head = bytes(64)
    for type_id, name in ((39, "mxfp4"), (39, "tl2"), (42, "q2_0"), (42, "pq2_0"), (42, "tl2")):
        meaning = next(m for m in catalog.meanings(type_id) if m.name == name)
        size = meaning.nbytes(rows, cols, head)
        assert size is not None, f"{type_id} {name}"
        found = catalog.resolve(type_id, rows, cols, -(-size // 32) * 32, 32, head)
        assert [(meaning.name, nbytes) for meaning, nbytes in found] == [(name, size)], f"{type_id} {name}"
    assert catalog.resolve(9999, rows, cols, 10**9, 32, head) == []


@pytest.mark.parametrize("meaning", catalog.MEANINGS, ids=lambda meaning: f"{meaning.type_id}_{meaning.name}")
def test_the_size_of_a_row_that_no_memory_holds_is_a_number(meaning: catalog.TypeMeaning) -> None:
    """The row is what a header says, before anything shows that the file has no such bytes."""
    magic = {"t2": b"T2\1\0", "t158": b"T158"}.get(meaning.name, b"")
    head = (magic + b"\1\0\0\0\1\0\0\0").ljust(64, b"\0")
    size = meaning.nbytes(32, 1 << 45, head)
    assert size is None or size > 32 << 40


def test_t158_is_as_small_as_the_papers_promise() -> None:
    """The linears of BitNet b1.58 2B-4T: 0.417 GB."""
    layer = [(2560, 2560), (640, 2560), (640, 2560), (2560, 2560), (6912, 2560), (6912, 2560), (2560, 6912)]
    total = 30 * sum(LAYOUTS["t158"].nbytes(*shape) for shape in layer)
    weights = 30 * sum(rows * cols for rows, cols in layer)
    assert round(total / 1e9, 3) == 0.418 and total * 8 / weights < 1.605
