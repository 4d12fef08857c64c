"""A GGUF file that is read once from its first byte on has the same ternary tensors as one that is mapped."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from tests.make.checkpoints import edited_gguf
from tritpack.converter.convert import convert
from tritpack.formats import gguf_stream
from tritpack.formats.errors import Unreadable
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.gguf_stream import GgufStream
from tritpack.formats.split_files import NUMBER
from tritpack.formats.ternary import TernaryTensor


def streamed(path: Path, tilings: GgufStream | None = None) -> dict[str, TernaryTensor | None]:
    data = path.read_bytes()
    stream = GgufStream(io.BytesIO(data).read, len(data), tilings.tilings if tilings else None)
    return {tensor.info.name: tensor.ternary for tensor in stream.tensors()}


def mapped(path: Path) -> dict[str, TernaryTensor]:
    file = GgufFile(path)
    return {name: ternary for name, info in file.tensors.items() if (ternary := file.ternary(info))}


@pytest.mark.parametrize("outtype", ["i2_s", "t158", "tl1", "tl2", "iq2_bn"])
def test_the_tensors_are_those_of_the_mapped_file(outtype: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    convert(tiny_checkpoint, path, outtype=outtype)
    expected, found = mapped(path), streamed(path)
    assert list(found) == list(expected)
    for name, ternary in expected.items():
        same = found[name]
        assert same is not None and same.codes_sha256() == ternary.codes_sha256(), name
        assert (same.scales == ternary.scales).all(), name


def test_later_parts_are_tiled_as_the_first_one_says(tiny_checkpoint: Path, tmp_path: Path) -> None:
    convert(tiny_checkpoint, tmp_path / "m.gguf", outtype="tl2", split_max_tensors=12)
    first, *others = sorted(tmp_path.iterdir())
    data = first.read_bytes()
    stream = GgufStream(io.BytesIO(data).read, len(data))
    found = streamed(first)
    for path in others:
        assert None in streamed(path).values(), f"{path.name} says itself how its tensors are tiled"
        found |= streamed(path, stream)
    codes = {name: ternary and ternary.codes_sha256() for name, ternary in found.items()}
    assert codes == {name: ternary.codes_sha256() for name, ternary in mapped(first).items()}


def test_a_header_longer_than_the_first_read_is_read(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_stream, "FIRST_READ", 256)
    assert list(streamed(tiny_gguf)) == list(mapped(tiny_gguf))
    monkeypatch.setattr(gguf_stream, "LARGEST_HEADER", 1024)
    with pytest.raises(Unreadable):
        streamed(tiny_gguf)


def test_an_illegal_code_is_the_problem_of_its_tensor(tiny_gguf: Path) -> None:
    file = GgufFile(tiny_gguf)
    broken = next(info for info in file.tensors.values() if info.layout == "i2_s")
    data = bytearray(tiny_gguf.read_bytes())
    data[broken.file_offset] = 0xFF
    problems = {t.info.name: t.problem for t in GgufStream(io.BytesIO(data).read, len(data)).tensors() if t.problem}
    assert list(problems) == [broken.name]
    assert "code 3" in problems[broken.name]


@pytest.mark.parametrize("kept", [3, 2000, 0.5, -40])
def test_a_truncated_file_is_unreadable(kept: float, tiny_gguf: Path) -> None:
    data = tiny_gguf.read_bytes()
    cut = data[: int(len(data) * kept) if isinstance(kept, float) else kept]
    for nbytes in (len(cut), len(data)):
        with pytest.raises(Unreadable):
            list(GgufStream(io.BytesIO(cut).read, nbytes).tensors())
            pytest.fail(f"{nbytes} bytes are claimed")


def test_a_tensor_larger_than_any_is_not_held(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_stream, "LARGEST_TENSOR", 1000)
    with pytest.raises(Unreadable, match="more than any tensor"):
        streamed(tiny_gguf)


def test_tensors_that_share_their_bytes_are_refused(tiny_gguf: Path) -> None:
    file, data = GgufFile(tiny_gguf), bytearray(tiny_gguf.read_bytes())
    first, second = [info for info in file.tensors.values() if info.layout == "i2_s"][:2]
    row = data.rindex(second.name.encode()) + len(second.name) + 4 + 8 * len(second.shape) + 4
    data[row : row + 8] = (first.file_offset - file.data_offset).to_bytes(8, "little")
    with pytest.raises(Unreadable, match="begins where") as caught:
        list(GgufStream(io.BytesIO(data).read, len(data)).tensors())
    assert caught.value.tensor in (first.name, second.name)


def test_a_number_of_a_part_that_is_an_array_is_none(tiny_gguf: Path, tmp_path: Path) -> None:
    path = edited_gguf(tiny_gguf, tmp_path / "m.gguf", metadata=lambda pairs: pairs.update({NUMBER: np.arange(3)}))
    data = path.read_bytes()
    assert not GgufStream(io.BytesIO(data).read, len(data)).is_later_part
