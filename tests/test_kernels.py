"""Every kernel of the C library against numpy. Kernel against scalar, bit by bit, is tests/c/test_kernels.c."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from formats import float_types
from runtime.library import CTensor, Kernel, Library, library

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCES = sorted((REPOSITORY / "runtime" / "kernels").glob("*/*_*.c"))
HEAD_LAYOUTS = ("f32", "f16", "bf16", "q8_0", "q6_k")


@pytest.fixture(scope="module")
def lib() -> Library:
    return library()


def pack_i2_s(codes: npt.NDArray[np.uint8], scale: float = 0.5) -> CTensor:
    """uint8 codes 0..3 (rows, cols) as I2_S."""
    rows, cols = codes.shape
    fields = codes.reshape(-1, 4, 32)
    packed = fields[:, 0] << 6 | fields[:, 1] << 4 | fields[:, 2] << 2 | fields[:, 3]
    trailer = np.concatenate([np.array([scale], "<f4").view(np.uint8), np.full(28, 0xFF, np.uint8)])
    return CTensor(np.concatenate([packed.astype(np.uint8).reshape(-1), trailer]), "i2_s", rows, cols)


def runnable(lib: Library, symbol: str) -> Kernel:
    kernel = next((k for k in lib.kernels() if k.symbol == symbol), None)
    if kernel is None:
        pytest.skip(f"{symbol} is not built for this machine")
    if not kernel.available:
        pytest.skip(f"{symbol}: {kernel.isa} is not on this CPU")
    return kernel


def symbols(*ops: str) -> list[str]:
    return [path.stem for path in SOURCES if path.parent.name in ops]


def test_table_and_files_agree(lib: Library) -> None:
    built = {kernel.symbol for kernel in lib.kernels()}
    assert built <= {path.stem for path in SOURCES}
    assert {path.stem for path in SOURCES if path.stem.endswith("_scalar")} <= built
    for kernel in lib.kernels():
        assert kernel.symbol == f"{kernel.op}_{kernel.layout}_{kernel.isa}"
        assert f"{kernel.op}_{kernel.layout}_scalar" in built


@pytest.mark.parametrize("symbol", symbols("matvec", "matmul"))
def test_integer_product_is_exact(lib: Library, symbol: str) -> None:
    kernel = runnable(lib, symbol)
    rng = np.random.default_rng(1)
    for rows, cols, n in ((1, 128, 1), (37, 384, 5), (33, 640, 13), (64, 1280, 26), (3, 6912, 2)):
        codes = rng.integers(0, 3, (rows, cols), np.uint8)
        q = rng.integers(-128, 128, (n, cols), np.int8)
        want = q.astype(np.int64) @ (codes.astype(np.int64) - 1).T
        assert np.array_equal(lib.integer_product(kernel, pack_i2_s(codes), q), want)


@pytest.mark.parametrize("symbol", symbols("matvec", "matmul"))
@pytest.mark.parametrize("cols", (2176, 6912, 32768, 53248))
@pytest.mark.parametrize("value", (127, -128))
def test_no_lane_overflows(lib: Library, symbol: str, cols: int, value: int) -> None:
    """All weights +1, all activations at their limit: the sum other engines lose in int16 lanes above 2048 columns."""
    kernel = runnable(lib, symbol)
    q = np.full((3, cols), value, np.int8)
    out = lib.integer_product(kernel, pack_i2_s(np.full((5, cols), 2, np.uint8)), q)
    assert (out == value * cols).all()


@pytest.mark.parametrize("isa", ("scalar", "avx2", "avx512vnni"))
def test_quantized_activations(lib: Library, isa: str) -> None:
    runnable(lib, f"quantize_f32_{isa}")
    rng = np.random.default_rng(2)
    x = rng.standard_normal((9, 777)).astype(np.float32) * np.float32(10) ** rng.integers(-8, 4, (9, 1)).astype(
        np.float32
    )
    x[3] = 0
    x[4, 5] = 1.0
    x[4, 6:] = np.float32(0.5) / 127 * np.arange(771, dtype=np.float32) / 771  # the largest stays 1: halves to even
    q, s, sums = lib.quantize_activations(x, isa)
    want_s = np.float32(127) / np.maximum(np.abs(x).max(1), np.float32(1e-5))
    want = np.clip(np.rint(x * want_s[:, None]), -128, 127).astype(np.int8)
    assert np.array_equal(s, want_s)
    assert np.array_equal(q, want)
    assert np.array_equal(sums, want.astype(np.int32).sum(1))


@pytest.mark.parametrize("isa", ("scalar", "avx2", "avx512vnni"))
@pytest.mark.parametrize("poison", (np.nan, -np.nan, np.inf, -np.inf))
def test_what_is_no_number_poisons_its_row(lib: Library, isa: str, poison: float) -> None:
    runnable(lib, f"quantize_f32_{isa}")
    rng = np.random.default_rng(4)
    x = rng.standard_normal((4, 777)).astype(np.float32)
    want = lib.quantize_activations(x, isa)
    for row, column in ((0, 0), (2, 776)):
        x[row, column] = poison
    q, s, sums = lib.quantize_activations(x, isa)
    assert (s[[0, 2]].view(np.uint32) == 0x7FC00000).all() and not q[[0, 2]].any() and not sums[[0, 2]].any()
    for got, clean in zip((q, s, sums), want, strict=True):
        assert np.array_equal(got[[1, 3]], clean[[1, 3]])
    for layout, cols in (("q8_0", 768), ("q6_k", 768), ("f16", 777)):
        weights = CTensor(
            float_types.encode(layout, rng.standard_normal((5, cols)).astype(np.float32)), layout, 5, cols
        )
        out = lib.head_product(weights, x[:, 777 - cols :], isa)
        assert np.isnan(out[2]).all() if np.isnan(poison) or layout != "f16" else not np.isfinite(out[2]).any()
        assert np.isfinite(out[[1, 3]]).all()


def lane_dot(x: npt.NDArray[np.float32], w: npt.NDArray[np.float32]) -> np.float32:
    """The documented order: element i in lane i mod 16, then the tree."""
    lanes = np.zeros(16, np.float32)
    for begin in range(0, len(x), 16):
        part = x[begin : begin + 16] * w[begin : begin + 16]
        lanes[: len(part)] += part
    for width in (8, 4, 2, 1):
        lanes = lanes[:width] + lanes[width : 2 * width]
    return np.float32(lanes[0])


@pytest.mark.parametrize("isa", ("scalar", "avx2", "avx512vnni"))
@pytest.mark.parametrize("layout", HEAD_LAYOUTS)
def test_head_product(lib: Library, layout: str, isa: str) -> None:
    runnable(lib, f"head_{layout}_{isa}")
    rng = np.random.default_rng(3)
    rows, cols, n = 11, 768 if layout == "q6_k" else 544, 6
    data = float_types.encode(layout, rng.standard_normal((rows, cols)).astype(np.float32))
    tensor = CTensor(data, layout, rows, cols)
    weights = float_types.decode(layout, data, rows, cols)
    x = rng.standard_normal((n, cols)).astype(np.float32)
    out = lib.head_product(tensor, x, isa)
    exact = x.astype(np.float64) @ weights.astype(np.float64).T
    error = np.sqrt(np.mean((out - exact) ** 2) / np.mean(exact**2))
    assert error < (1e-4 if layout in ("q8_0", "q6_k") else 1e-6)
    if layout in ("f32", "f16", "bf16"):
        assert np.array_equal(out, [[lane_dot(token, row) for row in weights] for token in x])
    for row in range(rows):
        assert np.array_equal(lib.tensor_row(tensor, row), weights[row])


def test_self_test(lib: Library) -> None:
    failures, report = lib.self_test()
    assert failures == 0, "\n".join(report)
    assert len(report) == len(lib.kernels()) + 1


@pytest.mark.parametrize(
    "symbol", [path.stem for path in SOURCES if path.stem.startswith("matmul_") and "avx512" in path.stem]
)
def test_inner_loop_keeps_its_accumulators_in_registers(symbol: str) -> None:
    """A compiler that spills them halves the speed and no profile shows it (gcc 12 with intrinsics does)."""
    build = REPOSITORY / os.environ.get("BUILD", "build")
    objects = list((build / "runtime" / "kernels").glob(f"*/{symbol}.o"))
    if not objects or shutil.which("objdump") is None:
        pytest.skip("needs objdump and the objects of a build in this tree")
    text = subprocess.run(["objdump", "-d", objects[0]], capture_output=True, text=True, check=True).stdout
    assert "vpdpbusd" in text
    assert not [line for line in text.splitlines() if re.search(r"zmm", line) and re.search(r"\(%r[sb]p", line)]
