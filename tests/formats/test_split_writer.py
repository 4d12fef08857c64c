"""Where a GGUF is cut, what its parts say and weigh, and that they appear together or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from tritpack.converter.merge import merge
from tritpack.formats import split_writer
from tritpack.formats.arrays import Bytes
from tritpack.formats.errors import Unreadable, UsageError, WriteFailed
from tritpack.formats.files import partial_of
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.gguf_writer import TensorPlan, write_gguf
from tritpack.formats.split_writer import Shard, parse_size, split_plan, write_shards

SIZES = [400, 4, 0, 52, 1024, 32, 640, 8]
TENSORS = [TensorPlan(f"blk.{i}.weight", (size // 4,), 0, size) for i, size in enumerate(SIZES)]
METADATA: dict[str, Any] = {"general.architecture": "llama", "a.words": ["one", "two"], "a.wide": 7}
TYPES = {"a.wide": "u64"}
ALIGNED = METADATA | {"general.alignment": 64}


def data(tensors: list[TensorPlan] = TENSORS) -> Iterator[list[Bytes]]:
    for i, tensor in enumerate(tensors):
        stored = np.full(tensor.nbytes, i + 1, np.uint8)
        yield [stored[:17], stored[17:]]


def counts(shards: list[Shard]) -> list[int]:
    return [len(shard.tensors) for shard in shards]


@pytest.mark.parametrize("metadata", [METADATA, ALIGNED], ids=["32", "64"])
@pytest.mark.parametrize(
    ("limits", "wanted"),
    [
        ({"max_tensors": 3}, [3, 3, 2]),
        ({"max_tensors": 4}, [4, 4]),
        ({"max_tensors": 1}, [1] * 8),
        ({"max_tensors": 3, "no_tensor_first_split": True}, [0, 3, 3, 2]),
        ({"no_tensor_first_split": True}, [0, 8]),
    ],
    ids=str,
)
def test_a_set_is_what_was_planned(
    limits: dict[str, Any], wanted: list[int], metadata: dict[str, Any], tmp_path: Path
) -> None:
    shards = split_plan(tmp_path / "m.gguf", metadata, TENSORS, TYPES, **limits)
    assert counts(shards) == wanted
    write_shards(shards, data(), types=TYPES)
    assert sorted(tmp_path.iterdir()) == [shard.path for shard in shards]
    for number, shard in enumerate(shards):
        raw = shard.path.read_bytes()
        assert shard.path.name == f"m-{number + 1:05}-of-{len(shards):05}.gguf", number
        assert len(raw) == shard.nbytes, number
        assert raw.startswith(shard.header(TYPES)), number
        for tensor, offset in zip(shard.tensors, shard.offsets(), strict=True):
            value = TENSORS.index(tensor) + 1
            assert raw[offset : offset + tensor.nbytes] == bytes([value]) * tensor.nbytes, tensor.name
    write_gguf(whole := tmp_path / "whole.gguf", metadata, TENSORS, data(), types=TYPES)
    assert merge(shards[0].path, tmp_path / "merged.gguf").path.read_bytes() == whole.read_bytes()


def test_llama_cpp_reads_the_same_keys(tmp_path: Path) -> None:
    """gguf-py, which llama.cpp's own converter writes with, on every part."""
    shards = split_plan(tmp_path / "m.gguf", METADATA, TENSORS, TYPES, max_tensors=3)
    write_shards(shards, data(), types=TYPES)
    for number, shard in enumerate(shards):
        reader = gguf.GGUFReader(shard.path)
        assert [tensor.name for tensor in reader.tensors] == [tensor.name for tensor in shard.tensors], number
        for key, kind, value in (
            (gguf.Keys.Split.LLM_KV_SPLIT_NO, gguf.GGUFValueType.UINT16, number),
            (gguf.Keys.Split.LLM_KV_SPLIT_COUNT, gguf.GGUFValueType.UINT16, 3),
            (gguf.Keys.Split.LLM_KV_SPLIT_TENSORS_COUNT, gguf.GGUFValueType.INT32, 8),
        ):
            field = reader.fields[key]
            assert (field.types, field.contents()) == ([kind], value), (number, key)
        kept = {key for key in reader.fields if not key.startswith(("GGUF.", "split."))}
        assert kept == (set(METADATA) if number == 0 else set()), number


def test_each_file_is_as_full_as_it_may_be() -> None:
    path, cuts = Path("m.gguf"), set()
    smallest = split_plan(path, METADATA, TENSORS, max_tensors=1)
    largest = max(shard.nbytes for shard in smallest[1:])
    for limit in range(largest, sum(SIZES) + 900, 4):
        shards = split_plan(path, METADATA, TENSORS, max_bytes=limit)
        cuts.add(tuple(counts(shards)))
        assert [tensor for shard in shards for tensor in shard.tensors] == TENSORS, limit
        assert all(shard.nbytes <= limit for shard in shards), limit
        assert all(counts(shards)[1:]) or len(shards) == 1, limit
        for number, (shard, following) in enumerate(zip(shards, shards[1:])):
            one_more = [*shard.tensors, following.tensors[0]]
            [fuller] = split_plan(path, shard.metadata, one_more)
            assert fuller.nbytes > limit, (limit, number)
    assert (8,) in cuts and len(cuts) > 4


def test_metadata_that_leave_no_room_for_the_first_tensor() -> None:
    path, limit = Path("m.gguf"), 1024 + 300
    shards = split_plan(path, METADATA | {"a.text": "x" * 900}, TENSORS[4:6], max_bytes=limit)
    assert counts(shards) == [0, 2] and shards[0].nbytes < limit


def test_what_fits_into_one_file_is_one(tmp_path: Path) -> None:
    [shard] = split_plan(tmp_path / "m.gguf", METADATA, TENSORS, TYPES, max_bytes=10**6, max_tensors=8)
    assert shard.path == tmp_path / "m.gguf" and shard.metadata == METADATA
    write_shards([shard], data(), types=TYPES)
    write_gguf(whole := tmp_path / "whole.gguf", METADATA, TENSORS, data(), types=TYPES)
    assert shard.path.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"max_bytes": 900}, r"tensor 'blk.4.weight': takes a file of 1184 bytes, and 900 are allowed"),
        ({"max_bytes": 100}, "a file with the metadata alone has 256 bytes, and 100 are allowed"),
        ({"max_tensors": 0}, "0 tensors per file are too few"),
    ],
    ids=str,
)
def test_limits_that_cannot_be_kept(limits: dict[str, int], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        split_plan(Path("m.gguf"), METADATA, TENSORS, TYPES, **limits)


def test_too_many_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_writer, "MAX_PARTS", 7)
    with pytest.raises(UsageError, match="the limits ask for 8 files, and a split has at most 7"):
        split_plan(Path("m.gguf"), METADATA, TENSORS, max_tensors=1)


@pytest.mark.parametrize(("text", "size"), [("2G", 2 * 10**9), ("500M", 5 * 10**8), ("7k", 7000), ("32", 32)])
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "0M", "-1G", "1.5G", "2T", "2GB", "٢G", "9" * 16])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="is not a size"):
        parse_size(text)


# -- all files or none -------------------------------------------------------------------------------------------------


@pytest.fixture
def shards(tmp_path: Path) -> list[Shard]:
    return split_plan(tmp_path / "m.gguf", METADATA, TENSORS, TYPES, max_tensors=3)


def write_old(shards: list[Shard]) -> dict[str, bytes]:
    for shard in shards:
        shard.path.write_bytes(b"old " + shard.path.name.encode())
        shard.path.chmod(0o640)
    return {shard.path.name: shard.path.read_bytes() for shard in shards}


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def failing() -> Iterator[list[Bytes]]:
    for i, pieces in enumerate(data()):
        if i == 7:
            raise Unreadable("is cut", path="source")
        yield pieces


def test_a_failure_changes_nothing(shards: list[Shard], tmp_path: Path) -> None:
    def refuse(first: Path) -> None:
        assert first.name == shards[0].path.name and len(GgufFile(first).tensors) == 8
        raise WriteFailed("is not what was planned")

    before = write_old(shards)
    with pytest.raises(Unreadable, match="source: is cut"):
        write_shards(shards, failing(), force=True, types=TYPES)
    with pytest.raises(WriteFailed, match="is not what was planned"):
        write_shards(shards, data(), force=True, check=refuse, types=TYPES)
    with pytest.raises(ValueError, match="planned 1024 bytes, got 1025"):
        write_shards(shards, ([np.zeros(t.nbytes + (t.nbytes == 1024), np.uint8)] for t in TENSORS), force=True)
    with pytest.raises(ValueError, match="data after the last tensor"):
        write_shards(shards, [*data(), []], force=True, types=TYPES)
    with pytest.raises(UsageError, match="exists already"):
        write_shards(shards, data(), types=TYPES)
    assert files(tmp_path) == before


def test_an_older_set_makes_room(shards: list[Shard], tmp_path: Path) -> None:
    write_old(shards)
    write_shards(shards, data(), force=True, types=TYPES)
    assert sorted(tmp_path.iterdir()) == [shard.path for shard in shards]
    assert len(GgufFile(shards[0].path).tensors) == 8
    assert {shard.path.stat().st_mode & 0o777 for shard in shards} == {0o640}


def test_who_finds_the_first_part_finds_all(
    shards: list[Shard], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At no moment does the first part of the new set, or of the old one, stand beside parts of the other."""
    before, seen, replace = write_old(shards), [], os.replace

    def watched(source: Any, target: Any) -> None:
        seen.append({path.name for path in tmp_path.glob("*.gguf") if path.read_bytes() != before[path.name]})
        assert not shards[0].path.exists(), target
        replace(source, target)

    monkeypatch.setattr(os, "replace", watched)
    write_shards(shards, data(), force=True, types=TYPES)
    names = [shard.path.name for shard in shards]
    assert seen == [set(), {names[2]}, {names[1], names[2]}]


def test_a_name_that_cannot_be_given(shards: list[Shard], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = os.replace

    def full(source: Any, target: Any) -> None:
        if Path(target) == shards[0].path:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(WriteFailed, match=r"m-00001-of-00003.gguf: cannot be written: No space left"):
        write_shards(shards, data(), types=TYPES)
    assert not files(tmp_path)


def test_what_a_killed_run_left_is_removed(shards: list[Shard], tmp_path: Path) -> None:
    left = partial_of(shards[0].path)
    left = left.with_name(left.name.replace(str(os.getpid()), "999999999"))
    left.mkdir()
    (left / shards[0].path.name).write_bytes(b"half")
    write_shards(shards, data(), types=TYPES)
    assert sorted(tmp_path.iterdir()) == [shard.path for shard in shards]


def test_a_disk_that_is_too_small(shards: list[Shard], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = sum(shard.nbytes for shard in shards)
    usage = type("Usage", (), {"free": size - 1})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(WriteFailed, match=f"needs {size:,} bytes, {size - 1:,} are free"):
        write_shards(shards, data(), types=TYPES)
    assert not files(tmp_path)
