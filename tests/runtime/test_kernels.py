"""Every kernel of the C library against numpy. Kernel against scalar, bit by bit, is tests/c/test_kernels.c."""

from __future__ import annotations

import ctypes
import math
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tests.conftest import REPOSITORY
from tests.make.other_machines import CLANGS
from tritpack.formats import float_types
from tritpack.formats.errors import Unreadable, Unsupported, UsageError
from tritpack.formats.layouts.catalog import LAYOUTS
from tritpack.formats.layouts.tiling import Tiling
from tritpack.formats.ternary import TernaryTensor
from tritpack.runtime.abi import NOT_RUN
from tritpack.runtime.library import CTensor, Kernel, Library, library

KERNELS = Path("runtime") / "csrc" / "kernels"
ROWS = re.findall(r"^K\((\w+), (\w+), (\w+)\)$", (REPOSITORY / KERNELS / "kernels.def").read_text(), re.MULTILINE)
"""Operation, layout and instruction set of every kernel, in the order of kernels.def."""
ARM, X86, WASM = ("neon", "dotprod", "i8mm"), ("ssse3", "avx2", "avxvnni", "avx512vnni"), ("simd128",)
ELSEWHERE = {"x86_64": ARM, "AMD64": ARM, "aarch64": X86, "arm64": X86}.get(platform.machine(), ARM + X86) + WASM
"""Instruction sets of other machines: tests/runtime/test_arm.py and test_wasm.py run those of ARM and WebAssembly."""
TERNARY = [name for name in LAYOUTS if name not in NOT_RUN]
HEAD_LAYOUTS = ("f32", "f16", "bf16", "q8_0", "q6_k", "q4_k")


@pytest.fixture(scope="module")
def lib() -> Library:
    return library()


def stored(name: str, tensor: TernaryTensor, scale: float = 1.0) -> CTensor:
    """A tensor in a layout, with another scale beside it."""
    layout, (rows, cols) = LAYOUTS[name], tensor.shape
    return CTensor(layout.pack(tensor), name, rows, cols, tiling=layout.tiling_of(rows, cols), scale=scale)


def grouped(name: str, rows: int, cols: int, seed: int) -> TernaryTensor:
    """Random, with as many scales as the layout holds; of some of its blocks and rows all codes are zero."""
    rng = np.random.default_rng(seed)
    blocks = LAYOUTS[name].nearest_grid(rows, cols, (rows, cols // math.gcd(cols, 64)))
    codes = rng.integers(-1, 2, (rows, cols)).astype(np.int8)
    codes[:, : cols // blocks[1]] *= rng.integers(0, 2, (rows, 1)).astype(np.int8)
    codes[3 % rows] = 0
    return TernaryTensor(codes, rng.uniform(0.01, 2, blocks).astype(np.float16).astype(np.float32))


def runnable(lib: Library, symbol: str) -> Kernel:
    kernel = next((k for k in lib.kernels() if k.symbol == symbol), None)
    if kernel is None:
        pytest.skip(f"{symbol} is not built for this machine")
    if not kernel.available:
        pytest.skip(f"{symbol}: {kernel.isa} is not on this CPU")
    return kernel


def symbols(*ops: str) -> list[str]:
    """The kernels of this machine in kernels.def, of these operations or of all."""
    return ["_".join(row) for row in ROWS if row[2] not in ELSEWHERE and (not ops or row[0] in ops)]


def directly(symbol: str) -> str:
    """The layout that a linear kernel reads; plain codes are in no file, so theirs come from another."""
    layout = symbol.split("_", 1)[1].rsplit("_", 1)[0]
    return "i2_s" if layout == "u8" else layout


def expected_symbols(lib: Library) -> list[str]:
    """The symbols of this library by kernels.def; an old assembler leaves AVX-VNNI out."""
    left_out = {"avxvnni"} - {kernel.isa for kernel in lib.kernels()}
    return [symbol for symbol in symbols() if symbol.rsplit("_", 1)[1] not in left_out]


def defined_symbols() -> dict[str, str]:
    """The functions that the objects of the kernel files define, and the file of each."""
    build = REPOSITORY / os.environ.get("BUILD", "build")
    objects = [build / path.relative_to(REPOSITORY).with_suffix(".o") for path in (REPOSITORY / KERNELS).glob("*/*.c")]
    objects = [path for path in objects if path.exists()]
    if not objects or shutil.which("nm") is None:
        pytest.skip("needs nm and the objects of a build in this tree")
    command = ["nm", "-A", "-g", "--defined-only", *map(str, objects)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    found = [re.fullmatch(r"(.+\.o):\s*\w+ T _?(\w+)", line) for line in lines]
    return {match[2]: Path(match[1]).stem for match in found if match}


def differences(rows: Iterable[str], objects: Iterable[str]) -> list[str]:
    """A sentence for each kernel that only one of kernels.def and the objects has."""
    in_rows, in_objects = set(rows), set(objects)
    return [
        *(f"{symbol} is in kernels.def and in no object" for symbol in sorted(in_rows - in_objects)),
        *(f"{symbol} is in an object and not in kernels.def" for symbol in sorted(in_objects - in_rows)),
    ]


def test_kernels_def_is_the_kernel_table(lib: Library) -> None:
    assert len(set(ROWS)) == len(ROWS) > 200
    assert [kernel.symbol for kernel in lib.kernels()] == expected_symbols(lib)
    for kernel in lib.kernels():
        assert kernel.symbol == f"{kernel.op}_{kernel.layout}_{kernel.isa}", kernel
        assert (kernel.op, kernel.layout, "scalar") in ROWS, kernel.symbol


def test_kernels_def_agrees_with_the_objects(lib: Library) -> None:
    """A row without a kernel, a kernel without a row, and a kernel in a file of another instruction set are named."""
    files = defined_symbols()
    assert differences(expected_symbols(lib), files) == []
    misplaced = {symbol: file for symbol, file in files.items() if symbol.rsplit("_", 1)[1] != file.rsplit("_", 1)[1]}
    assert misplaced == {}


def test_a_missing_row_and_a_missing_kernel_are_named(lib: Library) -> None:
    files = defined_symbols()
    rows = [symbol for symbol in expected_symbols(lib) if symbol != "matvec_q2_0_scalar"]
    assert differences([*rows, "matvec_q9_9_scalar"], files) == [
        "matvec_q9_9_scalar is in kernels.def and in no object",
        "matvec_q2_0_scalar is in an object and not in kernels.def",
    ]


@pytest.mark.parametrize("symbol", [symbol for symbol in symbols("matvec", "matmul") if "_u8_" in symbol])
@pytest.mark.parametrize("name", TERNARY)
def test_every_layout_by_its_plain_codes(lib: Library, symbol: str, name: str) -> None:
    """Unpacked and multiplied, whatever the scales; where a scale is 0 the codes are zeros, whatever is stored."""
    kernel = runnable(lib, symbol)
    rng = np.random.default_rng(5)
    for rows, cols in ((32, 256), (96, 768), (64, 6912), (37, 1280), (9, 200), (3, 1100)):
        if LAYOUTS[name].shape_misfit(rows, cols):
            continue
        tensor = grouped(name, rows, cols, rows)
        for n in (1, 5, 13):
            q = rng.integers(-128, 128, (n, cols), np.int8)
            want = q.astype(np.int64) @ tensor.codes.astype(np.int64).T
            assert np.array_equal(lib.integer_product(kernel, stored(name, tensor), q), want), f"{rows} {cols} {n}"


@pytest.mark.parametrize("name", [name for name in TERNARY if LAYOUTS[name].nearest_grid(512, 512, (512, 8))[0] > 1])
def test_codes_under_a_scale_of_zero_are_zeros(lib: Library, name: str) -> None:
    layout, codes = LAYOUTS[name], np.ones((8, 512), np.int8)
    data = layout.pack(TernaryTensor.per_tensor(codes, 1.0))
    layout.write_scales(data, TernaryTensor.per_tensor(codes, 0.0))
    tensor = CTensor(data, name, 8, 512)
    assert not lib.integer_product("matvec_u8_scalar", tensor, np.ones((1, 512), np.int8)).any()
    assert lib.tensor_row(tensor, 5).tobytes() == bytes(4 * 512)


def test_kernels_of_another_layout_are_refused(lib: Library) -> None:
    tensor = grouped("tq2_0", 4, 256, 1)
    q = np.zeros((1, 256), np.int8)
    with pytest.raises(Unsupported):
        lib.integer_product("matvec_i2_s_scalar", stored("tq2_0", tensor), q)
    with pytest.raises(Unsupported):
        lib.integer_product("matvec_u8_scalar", CTensor(np.zeros(4096, np.uint8), "f32", 4, 256), q)


@pytest.mark.parametrize("symbol", symbols("matvec", "matmul"))
def test_integer_product_is_exact(lib: Library, symbol: str) -> None:
    kernel = runnable(lib, symbol)
    rng = np.random.default_rng(1)
    for rows, cols, n in (
        (1, 128, 1),
        (37, 384, 5),
        (33, 640, 13),
        (64, 1280, 26),
        (3, 6912, 2),
        (9, 320, 1),
        (17, 1000, 3),
    ):
        if LAYOUTS[directly(symbol)].shape_misfit(rows, cols):
            continue
        codes = rng.integers(-1, 2, (rows, cols)).astype(np.int8)
        q = rng.integers(-128, 128, (n, cols), np.int8)
        want = q.astype(np.int64) @ codes.astype(np.int64).T
        held = stored(directly(symbol), TernaryTensor.per_tensor(codes, 0.5))
        assert np.array_equal(lib.integer_product(kernel, held, q), want), f"{rows} {cols} {n}"


@pytest.mark.parametrize("symbol", symbols("matvec", "matmul"))
@pytest.mark.parametrize("cols", (2176, 6912, 32768, 53248))
@pytest.mark.parametrize("value", (127, -128))
def test_no_lane_overflows(lib: Library, symbol: str, cols: int, value: int) -> None:
    """All weights +1, all activations at their limit: the sum other engines lose in int16 lanes above 2048 columns."""
    kernel = runnable(lib, symbol)
    if LAYOUTS[directly(symbol)].shape_misfit(32, cols):
        cols += -cols % 256
    q = np.full((3, cols), value, np.int8)
    ones = TernaryTensor.per_tensor(np.ones((32, cols), np.int8), 0.5)
    assert (lib.integer_product(kernel, stored(directly(symbol), ones), q) == value * cols).all()


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
    for part, got, clean in zip(("q", "scale", "sums"), (q, s, sums), want, strict=True):
        assert np.array_equal(got[[1, 3]], clean[[1, 3]]), part
    for layout, cols in (("q8_0", 768), ("q6_k", 768), ("q4_k", 768), ("f16", 777)):
        weights = CTensor(
            float_types.encode(layout, rng.standard_normal((5, cols)).astype(np.float32)), layout, 5, cols
        )
        out = lib.head_product(weights, x[:, 777 - cols :], isa)
        assert np.isnan(out[2]).all() if np.isnan(poison) or layout != "f16" else not np.isfinite(out[2]).any(), (
            f"{layout} {cols}"
        )
        assert np.isfinite(out[[1, 3]]).all(), f"{layout} {cols}"


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
    runnable(lib, f"lm_head_{layout}_{isa}")
    rng = np.random.default_rng(3)
    rows, cols, n = 11, 768 if layout in ("q6_k", "q4_k") else 544, 6
    data = float_types.encode(layout, rng.standard_normal((rows, cols)).astype(np.float32))
    tensor = CTensor(data, layout, rows, cols)
    weights = float_types.decode(layout, data, rows, cols)
    x = rng.standard_normal((n, cols)).astype(np.float32)
    out = lib.head_product(tensor, x, isa)
    exact = x.astype(np.float64) @ weights.astype(np.float64).T
    error = np.sqrt(np.mean((out - exact) ** 2) / np.mean(exact**2))
    assert error < (1e-4 if layout in ("q8_0", "q6_k", "q4_k") else 1e-6)
    if layout in ("f32", "f16", "bf16"):
        assert np.array_equal(out, [[lane_dot(token, row) for row in weights] for token in x])
    for row in range(rows):
        assert np.array_equal(lib.tensor_row(tensor, row), weights[row]), row


@pytest.mark.parametrize("isa", ("scalar", "avx2", "avx512vnni"))
@pytest.mark.parametrize("name", TERNARY)
def test_float_product_of_ternary_tensors(lib: Library, name: str, isa: str) -> None:
    """A head or float linear: (code - 1) * scale, then the sums of a float head. Rows come the same way."""
    runnable(lib, f"dequantize_u8_{isa}")
    rng = np.random.default_rng(6)
    for rows, cols in ((32, 256), (64, 1024), (5, 130)):
        if LAYOUTS[name].shape_misfit(rows, cols):
            continue
        for outer in (np.float32(1), np.float32(0.37)):
            tensor = grouped(name, rows, cols, cols)
            weights = TernaryTensor(tensor.codes, tensor.scales * outer).dequantize()
            held = stored(name, tensor, float(outer))
            x = rng.standard_normal((3, cols)).astype(np.float32)
            out = lib.head_product(held, x, isa)
            plain = CTensor(float_types.encode("f32", weights), "f32", rows, cols)
            assert np.array_equal(out, lib.head_product(plain, x, "scalar")), f"{rows} {cols} {outer}"
            for row in range(rows):
                assert np.array_equal(lib.tensor_row(held, row), weights[row]), f"{rows} {cols} {outer} {row}"


def test_scale_and_tiling_are_checked(lib: Library) -> None:
    tensor = grouped("tl2", 32, 256, 1)
    data, tiling = LAYOUTS["tl2"].pack(tensor), Tiling(32, 96, 32)
    for wrong in (None, Tiling(0, 96, 32), Tiling(32, 20, 32), Tiling(64, 96, 32), Tiling(32, 96, 64)):
        with pytest.raises(Unreadable, match="tiles"):
            lib.tensor_row(CTensor(data, "tl2", 32, 256, tiling=wrong), 0)
    for scale in (np.nan, np.inf, -1.0):
        with pytest.raises(UsageError):
            lib.tensor_row(CTensor(data, "tl2", 32, 256, tiling=tiling, scale=scale), 0)
    with pytest.raises(UsageError):
        lib.tensor_row(CTensor(np.zeros(4, np.float32), "f32", 1, 4, scale=2.0), 0)
    with pytest.raises(Unreadable):
        lib.tensor_row(CTensor(data[:-1], "tl2", 32, 256, tiling=tiling), 0)


def test_self_test(lib: Library) -> None:
    failures, report = lib.self_test()
    assert failures == 0, "\n".join(report)
    assert len(report) == len(lib.kernels()) + 1


def test_clang_builds_the_same_library(tmp_path: Path) -> None:
    """Without a warning, and with the answers of gcc's: what a Mac gets, as far as this machine can tell."""
    compiler = next(filter(None, map(shutil.which, CLANGS)), None)
    if compiler is None:
        pytest.skip("needs clang")
    library = tmp_path / f"libtritpack.{'dylib' if sys.platform == 'darwin' else 'so'}"
    flags = [f"CC={compiler}", "CFLAGS=-Werror", f"BUILD={tmp_path}", f"-j{os.cpu_count()}"]
    command = ["make", "-f", "runtime/runtime.mk", *flags, str(library)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = ctypes.create_string_buffer(1 << 16)
    assert ctypes.CDLL(str(library)).tp_self_test(report, ctypes.c_size_t(len(report))) == 0, report.value.decode()


@pytest.mark.parametrize(
    "name",
    ["_".join(row) for row in ROWS if row[0] == "matmul" and row[2] == "avx512vnni"]
    + ["matvec_avx512vnni", "matvec_t158_avx512vnni"],
)
def test_inner_loop_keeps_its_accumulators_in_registers(name: str) -> None:
    """A compiler that spills them halves the speed and no profile shows it (gcc 12 with intrinsics does).

    A matvec tile of 16 sums, 4 lines and 8 words more may spill one or the other. What is not moved, but read by an
    operation where it lies, is no sum.
    """
    build = REPOSITORY / os.environ.get("BUILD", "build")
    objects = list((build / KERNELS).glob(f"*/{name}.o"))
    if not objects or shutil.which("objdump") is None:
        pytest.skip("needs objdump and the objects of a build in this tree")
    text = subprocess.run(
        ["objdump", "-d", "--no-show-raw-insn", objects[0]], capture_output=True, text=True, check=True
    ).stdout
    code = {int(at, 16): line for at, line in re.findall(r"^ *([0-9a-f]+):\t(.+)$", text, re.MULTILINE)}
    jumps = [(int(to, 16), at) for at, line in code.items() for to in re.findall(r"^j\w+ +([0-9a-f]+)", line)]
    products = [at for at, line in code.items() if line.startswith("vpdpbusd")]
    assert products
    for product in products:
        around = [(at - to, to, at) for to, at in jumps if to <= product <= at]
        assert around, "a product outside of every loop"
        _, first, last = min(around)
        loop = [code[at] for at in code if first <= at <= last]
        spilled = [line for line in loop if re.match(r"vmov.*zmm", line) and re.search(r"\(%r[sb]p", line)]
        allowed = sum(line.startswith("vpdpbusd") for line in loop) // 16 if name.startswith("matvec") else 0
        assert len(spilled) <= allowed, (product, spilled)
