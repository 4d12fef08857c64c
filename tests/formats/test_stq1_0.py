"""STQ1_0 against a packer that knows the engine's table of patterns, and what a file in it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.make import stq1_0
from tritpack.formats.errors import Unreadable, Unsupported
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.layouts.catalog import READ_ONLY
from tritpack.formats.layouts.stq1_0 import patterns

LAYOUT = READ_ONLY["stq1_0"]


def test_the_patterns_are_those_of_the_engine() -> None:
    lanes = [[(pattern >> 2 * lane & 3) - 1 for lane in range(4)] for pattern in stq1_0.CODEBOOK]
    assert patterns().tolist() == lanes + [[-code for code in pattern] for pattern in lanes]


@pytest.mark.parametrize("shape", [(1, 256), (3, 512), (2, 1280)])
def test_codes_and_scales_come_back(shape: tuple[int, int]) -> None:
    tensor = stq1_0.sparse_tensor(*shape, seed=sum(shape))
    data = stq1_0.packed(tensor)
    assert data.size == LAYOUT.nbytes(*shape) == shape[0] * shape[1] // 256 * 42
    read = LAYOUT.unpack(data, *shape)
    assert np.array_equal(read.codes, tensor.codes) and np.array_equal(read.dequantize(), tensor.dequantize())


def test_a_block_of_scale_zero_is_zeros() -> None:
    data = stq1_0.packed(stq1_0.sparse_tensor(1, 512, 0))
    data = np.concatenate([data[:40], np.zeros(2, np.uint8), data[42:]])
    read = LAYOUT.unpack(data, 1, 512)
    assert not read.codes[:, :256].any() and read.codes[:, 256:].any()


def test_what_is_not_a_tensor_is_refused() -> None:
    data = stq1_0.packed(stq1_0.sparse_tensor(1, 256, 0))
    for wrong, cols in ((data[:-1], 256), (data, 512), (data, 320)):
        with pytest.raises(Unreadable):
            LAYOUT.unpack(wrong, 1, cols)
    infinite = np.concatenate([data[:40], np.frombuffer(b"\x00\x7c", np.uint8)])
    with pytest.raises(Unreadable, match="a scale is inf"):
        LAYOUT.unpack(infinite, 1, 256)
    with pytest.raises(Unsupported, match="is read and not written"):
        LAYOUT.pack(stq1_0.sparse_tensor(1, 256, 0))


@pytest.mark.parametrize("type_id", [42, 43, 253])
def test_a_file_has_the_codes_that_went_into_it(tiny_gguf: Path, tmp_path: Path, type_id: int) -> None:
    truth = stq1_0.written(tiny_gguf, path := tmp_path / "stq.gguf", type_id)
    file = GgufFile(path)
    for name, tensor in truth.items():
        assert file.tensors[name].layout == "stq1_0", name
        read = file.ternary(file.tensors[name])
        assert read is not None and np.array_equal(read.dequantize(), tensor.dequantize()), name
