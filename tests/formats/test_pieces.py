"""A tensor in pieces is the whole tensor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.make.checkpoints import edited_gguf
from tritpack.formats import pieces as module
from tritpack.formats.errors import Unreadable
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.layouts.catalog import LAYOUTS
from tritpack.formats.pieces import pieces, pieces_of
from tritpack.formats.ternary import TernaryTensor

SHAPES = ((9, 328), (16, 512), (96, 768), (40, 1200), (7, 1))
LINEAR = "blk.1.ffn_down.weight"


@pytest.mark.parametrize("name", LAYOUTS)
def test_pieces_make_the_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layout, counts = LAYOUTS[name], []
    monkeypatch.setattr(module, "PIECE", 300)
    for shape in (shape for shape in SHAPES if layout.misfit(*shape) is None):
        codes = np.random.default_rng(3).integers(-1, 2, shape).astype(np.int8)
        data = layout.pack(TernaryTensor.per_tensor(codes, 0.75))
        parts = list(pieces(lambda at, count: data[at : at + count], data.size, layout, shape))  # noqa: B023
        assert np.array_equal(np.concatenate([stored for stored, _ in parts]), data), shape
        assert np.array_equal(np.concatenate([part for _, part in parts if part is not None]), codes), shape
        counts.append(len(parts))
    assert max(counts) > 3 if layout.row_unit else max(counts) == 1


def test_pieces_of_floats(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE", 300)
    file = GgufFile(tiny_gguf)
    parts = list(pieces_of(file, file.tensors["output_norm.weight"]))
    assert len(parts) == 4 and {codes for _, codes in parts} == {None}
    assert b"".join(data.tobytes() for data, _ in parts) == file.bytes_of(file.tensors["output_norm.weight"]).tobytes()


def test_codes_under_a_scale_of_zero_are_zeros(tiny_gguf: Path, tmp_path: Path) -> None:
    def no_scale(tensors: dict[str, np.ndarray]) -> None:
        tensors[LINEAR][-32:-28] = 0

    file = GgufFile(edited_gguf(tiny_gguf, tmp_path / "a.gguf", tensors=no_scale))
    ternary = file.ternary(file.tensors[LINEAR])
    [(data, codes)] = pieces_of(file, file.tensors[LINEAR])
    assert ternary is not None and codes is not None and not codes.any() and np.array_equal(codes, ternary.codes)
    assert data.size == file.tensors[LINEAR].nbytes


def test_what_a_layout_refuses_is_refused(tiny_gguf: Path, tmp_path: Path) -> None:
    def three(tensors: dict[str, np.ndarray]) -> None:
        tensors[LINEAR][5] = 0xFF

    file = GgufFile(edited_gguf(tiny_gguf, tmp_path / "a.gguf", tensors=three))
    with pytest.raises(Unreadable, match=f"{LINEAR}.*code 3 at row 0, column 5"):
        list(pieces_of(file, file.tensors[LINEAR]))
