"""Files in every ternary layout, run from their bytes on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tritpack.formats.arrays import Bytes
from tritpack.formats.errors import Unreadable
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.gguf_writer import TensorPlan, write_gguf
from tritpack.formats.layouts.catalog import LAYOUTS, TILING_KEY, type_of
from tritpack.formats.layouts.tiling import Tiled, format_tilings
from tritpack.formats.ternary import TernaryTensor
from tritpack.runtime.abi import NOT_RUN
from tritpack.runtime.library import library
from tritpack.runtime.model import Model

TOKENS = [1, 5, 77, 300, 12, 8, 511]
MANY = (TOKENS * 40)[:40]
"""More than matvec kernels are given."""


def rewritten(source: Path, target: Path, name: str, *, beside: bool, say_tilings: bool = True) -> Path:
    """The same model with its linears in a layout. beside: scales in tensors `.scale`, where llama.cpp keeps them."""
    file, layout = GgufFile(source), LAYOUTS[name]
    plans, data, tilings = [], [], {}

    def add(tensor: str, shape: tuple[int, ...], type_id: int, stored: Bytes) -> None:
        plans.append(TensorPlan(tensor, shape, type_id, stored.size))
        data.append([stored])

    for info in file.tensors.values():
        if (tensor := file.ternary(info)) is None:
            add(info.name, info.shape, info.type_id, file.bytes_of(info))
            continue
        if isinstance(layout, Tiled):
            tilings[info.rows, info.cols] = layout.tiling_of(info.rows, info.cols)
        # A half and twice the scale: what stays in the tensor is exact in float16, and so is the product.
        scales, outer = (tensor.scales * 0 + np.float32(0.5), tensor.scales[0, 0] * 2) if beside else (tensor.scales, 1)
        add(info.name, info.shape, type_of(name).type_id, layout.pack(TernaryTensor(tensor.codes, scales)))
        if beside:
            add(info.name.removesuffix("weight") + "scale", (1,), 0, np.array([outer], "<f4").view(np.uint8))
    metadata = dict(file.metadata)
    if tilings and say_tilings:
        metadata[TILING_KEY] = format_tilings(tilings)
    write_gguf(target, metadata, plans, data)
    return target


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name not in NOT_RUN])
def test_a_file_in_any_layout_gives_the_bits_of_i2_s(tiny_gguf: Path, tmp_path: Path, name: str) -> None:
    with Model(tiny_gguf) as model:
        want = model.logits(MANY)
    path = rewritten(tiny_gguf, tmp_path / "other.gguf", name, beside=True)
    with Model(path, threads=2) as model:
        assert np.array_equal(model.logits(MANY).view(np.uint32), want.view(np.uint32))
        kernels = model.kernels()
    (product,) = [symbol for symbol in kernels if symbol.startswith("matmul_")]
    isa = product.rsplit("_", 1)[1]
    own = f"matmul_{'i2_s' if name == 't2' else name}_{isa}"
    assert product == (own if own in {kernel.symbol for kernel in library().kernels()} else f"matmul_u8_{isa}")
    assert product == own or any(kernel.startswith(f"unpack_{name}_") for kernel in kernels)


@pytest.mark.parametrize("name", ["t158", "tq1_0"])
def test_many_tokens_take_the_best_instruction_set(tiny_gguf: Path, tmp_path: Path, name: str) -> None:
    """By unpacking if need be: a kernel of a layout's own is no reason to fall back to scalar."""
    path = rewritten(tiny_gguf, tmp_path / "other.gguf", name, beside=True)
    unpacked = [
        kernel.isa for kernel in library().kernels() if kernel.symbol.startswith("matmul_u8_") and kernel.available
    ]
    for isa in unpacked:
        if isa == "neon":  # whose matvec takes any number of tokens
            continue
        with Model(path, isa=isa) as model:
            model.logits(MANY)
            (product,) = [symbol for symbol in model.kernels() if symbol.startswith("matmul_")]
        assert product.endswith(f"_{isa}"), "the ladder goes up, and each of these is on it"


@pytest.mark.parametrize("name", ["tl1", "tl2"])
def test_a_file_that_does_not_say_its_tiling_is_refused(tiny_gguf: Path, tmp_path: Path, name: str) -> None:
    path = rewritten(tiny_gguf, tmp_path / "tiled.gguf", name, beside=False, say_tilings=False)
    with pytest.raises(
        Unreadable, match=r"tiled\.gguf: tensor 'blk\.0\.attn_q\.weight': .*how its tensors of 256 x 256"
    ):
        Model(path)


def test_what_the_session_has_beyond_the_known_tokens_is_forgotten(tiny_gguf: Path) -> None:
    """As after a Ctrl-C between the evaluation and the note of it."""
    with Model(tiny_gguf) as model:
        want = model.logits(TOKENS)
        for again in (model.eval_all, lambda tokens: model.eval_last(tokens, len(tokens))):
            model.reset()
            model.append(TOKENS[:3])
            model.session.eval([9, 9])
            assert np.array_equal(again(TOKENS[3:]), want[3:]), again
        model.session.eval([9])
        model.rewind(2)
        assert np.array_equal(model.eval(TOKENS[2:]), want[-1])
