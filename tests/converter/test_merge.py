"""`tritpack merge`: the parts of a split file become the file that they were cut from."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import exit_code_of, run
from tests.make.checkpoints import split_gguf
from tritpack.converter.convert import convert
from tritpack.converter.merge import merge
from tritpack.formats import files
from tritpack.formats.errors import Unreadable, UsageError
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.gguf_writer import TensorPlan, write_gguf


@pytest.mark.parametrize("outtype", ["i2_s", "t158"])
@pytest.mark.parametrize("cuts", [[0, 24], [0, 0, 24], [0, 1, 12, 12, 24]], ids=str)
def test_the_whole_comes_back(outtype: str, cuts: list[int], tiny_checkpoint: Path, tmp_path: Path) -> None:
    convert(tiny_checkpoint, whole := tmp_path / "whole.gguf", outtype=outtype)
    parts = split_gguf(whole, tmp_path, cuts)
    seen: list[tuple[int, int]] = []
    merged = merge(parts[0], tmp_path / "out.gguf", progress=lambda name, done, total: seen.append((done, total)))
    assert merged.path.read_bytes() == whole.read_bytes()
    assert (merged.parts, merged.tensors, merged.nbytes) == (tuple(parts), 24, whole.stat().st_size)
    total = sum(tensor.nbytes for tensor in GgufFile(whole).tensors.values())
    assert seen[0] == (0, total) and seen[-1] == (total, total) and seen == sorted(seen)


def test_every_byte_of_the_metadata_stays(tmp_path: Path) -> None:
    """Types, nested arrays and texts that are not UTF-8."""
    text = struct.pack("<IQ", 8, 2) + b"\xff\xfe"
    metadata = {
        "general.alignment": np.uint32(64), "a.text": memoryview(text), "a.byte": np.int8(-1),
        "a.double": np.float64(0.1), "a.empty": np.zeros(0, np.int64),
        "a.texts": ["a", "b"], "a.nested": [np.arange(3, dtype=np.int16), ["x"]],
        "a.flags": np.array([True, False]),
    }  # fmt: skip
    plans = [TensorPlan("a", (), 0, 4), TensorPlan("odd", (3,), 99, 64), TensorPlan("b", (0, 4), 0, 0)]
    data = [[np.full(plan.nbytes, 7, np.uint8)] for plan in plans]
    write_gguf(whole := tmp_path / "whole.gguf", metadata, plans, data)
    assert GgufFile(whole).metadata["a.text"] == "\ufffd\ufffd"
    file = GgufFile(whole)
    keys = {"split.no": np.uint16(0), "split.count": np.uint16(2), "split.tensors.count": np.int32(3)}
    write_gguf(tmp_path / "m-00001-of-00002.gguf", file.encoded_metadata() | keys, plans[:1], data[:1])
    write_gguf(tmp_path / "m-00002-of-00002.gguf", {**keys, "split.no": np.uint16(1)}, plans[1:], data[1:])
    out = merge(tmp_path / "m-00001-of-00002.gguf", tmp_path / "out.gguf").path
    assert out.read_bytes() == whole.read_bytes()


def test_what_is_refused(tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = split_gguf(tiny_gguf, tmp_path, [0, 12, 24])
    out = tmp_path / "out.gguf"
    with pytest.raises(UsageError, match="is one whole file, so there is nothing to merge"):
        merge(tiny_gguf, out)
    with pytest.raises(Unreadable, match="is part 2 of 2"):
        merge(parts[1], out)
    for part in parts:
        with pytest.raises(UsageError, match="is an input"):
            merge(parts[0], part, force=True)
    out.write_text("old")
    with pytest.raises(UsageError, match="exists already"):
        merge(parts[0], out)

    def change(name: str, done: int, total: int) -> None:
        parts[1].touch()

    with pytest.raises(Unreadable, match=r"m-00002-of-00002.gguf: was changed while it was read"):
        merge(parts[0], out, force=True, progress=change)
    assert out.read_text() == "old" and not list(tmp_path.glob(".*"))
    merge(parts[0], out, force=True)
    assert out.read_bytes() == tiny_gguf.read_bytes()
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 0}))
    assert exit_code_of(run("merge", parts[0], "-o", tmp_path / "full.gguf")) == 5


def test_the_command(tiny_gguf: Path, tmp_path: Path) -> None:
    parts, out = split_gguf(tiny_gguf, tmp_path, [0, 12, 24]), tmp_path / "out.gguf"
    shown = run("merge", parts[0], "-o", out)
    assert shown.exit_code == 0 and f"wrote {out}: " in shown.stdout and "24 tensors of 2 parts" in shown.stdout
    result = json.loads(run("merge", parts[0], "-o", out, "--force", "--json").stdout)
    assert result == {
        "schema": "tritpack.merge/1", "parts": [str(part) for part in parts], "output": str(out), "tensors": 24,
        "output_bytes": out.stat().st_size,
    }  # fmt: skip
