"""Float and block-quantised types, against numpy's and gguf-py's own."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from gguf import quants
from gguf.constants import GGMLQuantizationType
from hypothesis import given
from hypothesis import strategies as st

from tritpack.formats import float_types
from tritpack.formats.errors import Unreadable, Unsupported


def sample(rows: int = 6, cols: int = 512, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, cols)).astype(np.float32)


@pytest.mark.parametrize("name", float_types.FLOAT_TYPES)
def test_sizes_and_closeness(name: str) -> None:
    values = sample()
    data = float_types.encode(name, values)
    assert data.size == float_types.FLOAT_TYPES[name].nbytes(*values.shape)
    back = float_types.decode(name, data, *values.shape)
    loss = np.sqrt(np.mean((back - values) ** 2))
    assert loss <= {"f32": 0, "f16": 5e-4, "bf16": 3e-3, "q8_0": 1e-2, "q6_k": 3e-2, "q4_k": 9e-2}[name]
    if name in ("f32", "f16", "bf16"):
        assert np.array_equal(float_types.encode(name, back), data)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_bf16_rounds_to_nearest_even_as_gguf_does(value: float) -> None:
    values = np.full((1, 32), value, np.float32)
    ours = float_types.narrow_bf16(values)
    theirs = quants.quantize(values, GGMLQuantizationType.BF16).view(np.uint16)
    # gguf-py flushes subnormals of bfloat16 to zero; rounding to nearest keeps them.
    if abs(value) >= 2.0**-126:
        assert np.array_equal(ours, theirs)


def test_q6_k_is_as_good_as_its_grid_allows() -> None:
    """On data that is exactly a q6_k grid the encoder finds it again."""
    rng = np.random.default_rng(1)
    scales = rng.integers(-127, 128, (8, 16, 1)).astype(np.float32)
    scales[:, 0] = -128
    codes = rng.integers(-32, 32, (8, 16, 16)).astype(np.float32)
    codes[..., 0] = -32
    values = (np.float32(2**-10) * scales * codes).reshape(8, 256).astype(np.float32)
    back = float_types.decode("q6_k", float_types.encode("q6_k", values), 8, 256)
    assert np.allclose(back, values, atol=2**-10 * 2)


def test_q8_0_is_that_of_ggml() -> None:
    values = sample(64, 256) * np.exp2(np.random.default_rng(3).integers(-120, 20, (64, 1))).astype(np.float32)
    values[::5, ::3] = 0
    values[3, :32] = np.arange(-63.5, 64.5, 4, np.float32)  # halves between two codes
    theirs = np.asarray(quants.quantize(values, GGMLQuantizationType.Q8_0))
    assert np.array_equal(float_types.encode("q8_0", values), theirs.view(np.uint8).reshape(-1))


@pytest.mark.parametrize(
    ("name", "digest"), [("q8_0", "ec09c00c60d6506a"), ("q6_k", "bbb4bf6195e5f058"), ("q4_k", "e02640c239120dac")]
)
def test_blocks_are_the_same_everywhere(name: str, digest: str) -> None:
    """Bytes do not depend on the CPU or the version of numpy: every sum has its order."""
    state = np.arange(1 << 16, dtype=np.uint32) * np.uint32(2654435761)
    values = ((state >> 8).astype(np.int32) - (1 << 23)).astype(np.float32) / np.float32(1 << 25)
    values = (values * values * values).reshape(-1, 256)
    values[1::9] = np.abs(values[1::9])
    values[2::9, :100] = 0
    assert hashlib.sha256(float_types.encode(name, values).tobytes()).hexdigest()[:16] == digest


def test_q6_k_of_zeros_and_of_one_spike() -> None:
    values = np.zeros((2, 256), np.float32)
    values[1, 77] = 3.0
    back = float_types.decode("q6_k", float_types.encode("q6_k", values), 2, 256)
    assert not back[0].any()
    assert abs(back[1, 77] - 3.0) < 0.01 and np.count_nonzero(back[1]) == 1


def test_q4_k_is_as_good_as_its_grid_allows() -> None:
    """On data that is exactly a q4_k grid, and of zeros and of one spike."""
    rng = np.random.default_rng(2)
    scales, offsets = rng.integers(1, 64, (2, 8, 8, 1)).astype(np.float32)
    scales[:, 0] = offsets[:, 0] = 63
    codes = rng.integers(0, 16, (8, 8, 32)).astype(np.float32)
    codes[..., 0], codes[..., 1] = 0, 15
    values = (np.float32(2**-10) * (scales * codes - offsets)).reshape(8, 256).astype(np.float32)
    back = float_types.decode("q4_k", float_types.encode("q4_k", values), 8, 256)
    assert np.abs(back - values).max() < 2**-10 * 8
    zeros = np.zeros((2, 256), np.float32)
    zeros[1, 77] = 3.0
    back = float_types.decode("q4_k", float_types.encode("q4_k", zeros), 2, 256)
    assert not back[0].any() and abs(back[1, 77] - 3.0) < 0.01 and np.count_nonzero(back[1]) == 1


def test_what_f16_cannot_hold_is_refused() -> None:
    with pytest.raises(Unsupported, match="f16 overflows"):
        float_types.encode("f16", np.full((1, 4), 70000.0, np.float32))


def test_what_bf16_cannot_hold_is_refused() -> None:
    largest = np.array([[3.3895314e38, -3.3895314e38]], np.float32)
    assert np.array_equal(float_types.decode("bf16", float_types.encode("bf16", largest), 1, 2), largest)
    with pytest.raises(Unsupported, match="bf16 overflows"):
        float_types.encode("bf16", np.array([[1, 3.4e38]], np.float32))


@pytest.mark.parametrize("name", float_types.FLOAT_TYPES)
def test_what_is_not_finite_is_refused(name: str) -> None:
    with pytest.raises(Unsupported, match="not finite"):
        float_types.encode(name, np.full((1, 256), np.nan, np.float32))


@pytest.mark.parametrize("name", ["q8_0", "q6_k", "q4_k"])
def test_what_block_types_cannot_hold_is_refused(name: str) -> None:
    """Their scales are float16: an overflow would be an infinity, and the row NaN."""
    with pytest.raises(Unsupported, match=f"{name} overflows"):
        float_types.encode(name, sample(4, 256) * np.float32(1e12))
    with pytest.raises(Unsupported, match=f"{name} overflows"):
        float_types.encode(name, sample(4, 256) * np.float32(1e20))  # squares overflow too
    data = float_types.encode(name, sample(4, 256) * np.float32(1e5))
    assert np.isfinite(float_types.decode(name, data, 4, 256)).all()


def test_survival() -> None:
    exact = np.array([[1.0, -0.5, 0.0, 65504.0]], np.float32)
    assert float_types.survives("f16", exact) and float_types.survives("bf16", exact[:, :3])
    assert not float_types.survives("f16", np.array([[2.0**-30]], np.float32))
    assert not float_types.survives("bf16", np.array([[1.001]], np.float32))
    assert not float_types.survives("f16", np.array([[1e6]], np.float32))


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(Unsupported, match="multiples of 256"):
        float_types.encode("q6_k", sample(2, 128))
    with pytest.raises(Unreadable, match="expected"):
        float_types.decode("f16", np.zeros(7, np.uint8), 1, 4)
