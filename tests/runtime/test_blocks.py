"""Encoders, absmean and checksums in C against the numpy ones, which are the specification: equal bytes, refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tritpack.formats import absmean, c_blocks
from tritpack.formats.arrays import F32, Bytes
from tritpack.formats.checksum import checksum
from tritpack.formats.errors import Unsupported
from tritpack.formats.float_types import FLOAT_TYPES as FLOAT_TYPES_BY_NAME
from tritpack.formats.float_types import decode_rows, encode, encode_rows, rows_survive
from tritpack.formats.names import BLOCK_FLOATS, FLOAT_TYPES, PLAIN_FLOATS
from tritpack.runtime.abi import LAYOUT_IDS
from tritpack.runtime.blocks import CBlocks
from tritpack.runtime.library import library

LARGEST_HALF, LARGEST_BF16 = 65504.0, 3.3895314e38
SHAPES = ((1, 256), (3, 768), (7, 2560), (2, 5120))


@pytest.fixture(scope="module")
def c() -> CBlocks:
    return CBlocks(library())


def both(c: CBlocks, function: Callable[..., Any], *arguments: Any) -> tuple[Any, Any]:
    """What numpy gives and what C gives; a refusal is the sentence."""
    results = []
    for backend in (None, c):
        c_blocks.use(backend)
        try:
            results.append(function(*arguments))
        except Unsupported as error:
            results.append(str(error))
    c_blocks.use(None)
    return results[0], results[1]


def odd(rows: int, cols: int, seed: int) -> F32:
    """Values of all magnitudes that float16 has, zeros of both signs, subnormals, ties, and the largest."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, cols)).astype(np.float32)
    x *= np.exp2(rng.integers(-30, 12, (rows, 1)).astype(np.float32))
    flat = x.reshape(-1)
    bits = flat.view(np.uint32)
    bits[::7] = bits[::7] & 0xFFFFE000 | 0x1000  # halfway between two of float16
    bits[3::7] = bits[3::7] & 0xFFFF0000 | 0x8000  # of bfloat16
    flat[5::11] = 0.0
    flat[8::11] = -0.0
    flat[1::41] = np.float32(3e-39)
    flat[2::43] = np.float32(2.0**-25)
    flat[-1], flat[-2] = LARGEST_HALF, -65519.0  # rounds to it
    return x


@pytest.mark.parametrize("stored", PLAIN_FLOATS)
@pytest.mark.parametrize("to", FLOAT_TYPES)
def test_encoders_give_the_same_bytes(c: CBlocks, to: str, stored: str) -> None:
    for seed, (rows, cols) in enumerate(SHAPES):
        values = odd(rows, cols, seed)
        if stored == "bf16":
            values = np.clip(values, -65280, 65280)  # bfloat16 would round to what float16 does not have
        if to in PLAIN_FLOATS and seed % 2:
            values = np.trunc(np.clip(values, -200, 200))  # these survive
        data = encode(stored, values)
        size = c.c.tp_tensor_nbytes(LAYOUT_IDS[to], rows, cols)
        assert c.encode(to, stored, rows, cols, data, np.empty(size, np.uint8)) is not None, "C did it"
        want, got = both(c, encode_rows, to, stored, data, rows, cols)
        exact = to in PLAIN_FLOATS and bool(seed % 2 or to == stored or to == "f32")
        assert want[1] == got[1] == exact, (rows, cols)
        assert np.array_equal(want[0], got[0]), (rows, cols)
        survives = both(c, rows_survive, to, stored, data, rows, cols)
        assert to not in PLAIN_FLOATS or survives == (exact, exact), (rows, cols)


@pytest.mark.parametrize("kind", BLOCK_FLOATS)
def test_decoders_give_the_same_bits(c: CBlocks, kind: str) -> None:
    for rows, cols in SHAPES:
        data = np.random.default_rng(cols).integers(0, 256, FLOAT_TYPES_BY_NAME[kind].nbytes(rows, cols), np.uint8)
        out = np.empty((rows, cols), np.float32)
        assert c.decode(kind, rows, cols, data, out), "C did it"
        with np.errstate(all="ignore"):  # any bytes: some scales are not finite
            want, got = both(c, decode_rows, kind, data, rows, cols)
        same = (want.view(np.uint32) == got.view(np.uint32)) | (np.isnan(want) & np.isnan(got))
        assert same.all() and np.isfinite(want).any(), (rows, cols)


def odd_blocks() -> dict[str, F32]:
    """Rows whose sub-blocks have something of their own."""
    rng = np.random.default_rng(11)
    x = rng.standard_normal((24, 512)).astype(np.float32)
    signs = np.where(rng.random(x.shape) < 0.5, np.float32(0), np.float32(-0.0))
    third, constant = np.arange(512) // 32 % 3 == 0, np.repeat(x[:, ::32], 32, axis=1)
    made = {
        "zeros": signs,
        "part zeros": np.where(third, signs, x),
        "positive": np.where(third, signs, np.abs(x)),
        "negative": -np.abs(x),
        "constant": constant,
        "nearly constant": np.nextafter(constant, x),
        "ternary": np.sign(x) * (np.abs(x) > 0.5) * np.float32(0.37),
        "sparse": np.where(np.abs(x) > 2.5, x, signs),
        "whole": np.rint(x * 12),
        "halves": np.rint(x * 12) + np.float32(0.5),
        "tiny": x * np.exp2(rng.integers(-149, -60, (24, 1))),
        "mixed": x * np.exp2(rng.integers(-40, 20, x.shape)),
    }
    return {kind: np.ascontiguousarray(values, np.float32) for kind, values in made.items()}


@pytest.mark.parametrize("to", BLOCK_FLOATS)
def test_odd_blocks_have_the_same_bytes(c: CBlocks, to: str) -> None:
    for kind, values in odd_blocks().items():
        want, got = both(c, encode_rows, to, "f32", values.view(np.uint8).reshape(-1), 24, 512)
        assert not isinstance(want, str) and np.array_equal(want[0], got[0]), kind


@pytest.mark.parametrize("to", FLOAT_TYPES)
@pytest.mark.parametrize("bad", [np.nan, -np.inf, 3.4e38, 70000.0, 2.0**32, -3e8])
def test_refusals_are_the_same(c: CBlocks, to: str, bad: float) -> None:
    for place in (0, 254, 511):
        values = odd(2, 256, 5)
        values.reshape(-1)[place] = bad
        data = values.view(np.uint8).reshape(-1)
        want, got = both(c, encode_rows, to, "f32", data, 2, 256)
        sentences = [each if isinstance(each, str) else each[0].tobytes() for each in (want, got)]
        assert sentences[0] == sentences[1], place
        judged = both(c, rows_survive, to, "f32", data, 2, 256)
        assert judged[0] == judged[1], place
        if not np.isfinite(bad):
            assert "not finite" in want and judged == (False, False), place


@pytest.mark.parametrize("name", ["f16", "bf16"])
def test_every_half_float(c: CBlocks, name: str) -> None:
    """Each of the 65536 patterns to each plain type and back; those of NaN and infinity are refused."""
    bits = np.arange(65536, dtype=np.uint16)
    finite = bits[bits & 0x7FFF < (0x7C00 if name == "f16" else 0x7F80)]
    for to in PLAIN_FLOATS:
        if (name, to) == ("bf16", "f16"):
            continue
        want, got = both(c, encode_rows, to, name, finite.view(np.uint8), 1, finite.size)
        assert np.array_equal(want[0], got[0]) and want[1] == got[1], to
    assert np.array_equal(encode_rows(name, name, finite.view(np.uint8), 1, finite.size)[0], finite.view(np.uint8))


def test_what_does_not_fit_is_left_to_numpy(c: CBlocks) -> None:
    data, out = np.zeros(1024, np.uint8), np.zeros(512, np.uint8)
    assert c.encode("f16", "f32", 1, 256, data, out) is True
    for to, stored, rows, cols, to_bytes in (
        ("i2_s", "f32", 1, 256, out), ("f16", "q8_0", 1, 256, out), ("f16", "f32", 2, 256, out),
        ("f16", "f32", 1, 256, out[:-2]), ("f16", "f32", 0, 256, out), ("q6_k", "f32", 8, 32, out[:210]),
    ):  # fmt: skip
        assert c.encode(to, stored, rows, cols, data, to_bytes) is None, (to, stored, rows, cols)
    odd_place = np.zeros(1025, np.uint8)[1:]
    assert c.encode("f16", "f32", 1, 256, odd_place, out) is None
    want, got = both(c, encode_rows, "f16", "f32", odd_place, 1, 256)
    assert np.array_equal(want[0], got[0])
    assert not c.abs_sums("f32", 1, 200, data, np.empty(1))
    assert not c.absmean_codes("u8", data, 1.0, np.empty((1, 1024), np.int8))


@pytest.mark.parametrize("stored", PLAIN_FLOATS)
def test_absmean_gives_the_same_bits(c: CBlocks, stored: str) -> None:
    for rows, cols in ((1, 1), (3, 15), (5, 16), (4, 17), (3, 4096), (2, 4097), (2, 9000)):
        rng = np.random.default_rng(cols)
        values = (rng.standard_normal((rows, cols)) * np.exp2(rng.integers(-40, 10, (rows, 1)))).astype(np.float32)
        values[:, ::3] = np.float32(0.5)
        values[0, -1] = -0.0
        data = encode(stored, values)
        want, got = both(c, absmean.abs_sums, stored, data, rows, cols)
        assert want.tobytes() == got.tobytes(), (rows, cols)
        scale = absmean.scale_of(want, rows * cols)
        assert scale is not None, (rows, cols)
        for divisor in (scale, np.float32(1), np.float32(1e-5)):
            want, got = both(c, absmean.codes_of, stored, data, rows, cols, divisor)
            assert np.array_equal(want, got), (rows, cols, divisor)
    for bad in (np.nan, np.inf):
        values = np.full((2, 40), 1, np.float32)
        values[1, 33] = bad
        sums = both(c, absmean.abs_sums, "f32", values.view(np.uint8).reshape(-1), 2, 40)
        for each in sums:
            assert each[0] == 40 and not np.isfinite(each[1]), bad


def test_checksums_are_the_same(c: CBlocks) -> None:
    data: Bytes = np.random.default_rng(9).integers(0, 256, 3_000_000, np.uint8)
    for first, last in ((0, 3_000_000), (0, 0), (0, 1), (3, 4000), (8, 4096 + 7)):
        for word in (0, 12345, 2**64 - 2):
            want, got = both(c, checksum, data[first:last], word)
            assert want == got, (first, last, word)
