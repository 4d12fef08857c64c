"""The container: round trips, agreement with gguf-py, and files that are truncated, corrupt or hostile."""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter

from tritpack.converter.inspect.inspect import inspect
from tritpack.formats.errors import Unreadable, UsageError, WriteFailed
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.gguf_writer import TensorPlan, encode_header, file_size, write_gguf

METADATA = {
    "general.architecture": "test",
    "a.bool": True,
    "a.int": 7,
    "a.negative": -7,
    "a.big": 2**40,
    "a.float": 0.5,
    "a.strings": ["", "x", "naïve 🙂"],
    "a.ints": np.array([1, -2, 3], np.int32),
    "a.floats": np.array([0.25, 1.5], np.float32),
}


def write(path: Path, metadata: dict | None = None, tensors: dict[str, np.ndarray] | None = None) -> Path:
    arrays = {"t": np.arange(6, dtype=np.float32).reshape(2, 3)} if tensors is None else tensors
    plans = [TensorPlan(name, array.shape, 0, array.nbytes) for name, array in arrays.items()]
    pieces = ([array.reshape(-1).view(np.uint8)] for array in arrays.values())
    write_gguf(path, METADATA if metadata is None else metadata, plans, pieces)
    return path


def test_round_trip(tmp_path: Path) -> None:
    file = GgufFile(write(tmp_path / "a.gguf"))
    for key, value in METADATA.items():
        got = file.metadata[key]
        equal = list(got) == list(value) if isinstance(value, (list, np.ndarray)) else got == value
        assert equal, key
    assert file.metadata_types["a.int"] == "u32" and file.metadata_types["a.negative"] == "i32"
    tensor = file.tensors["t"]
    assert (tensor.shape, tensor.layout, tensor.nbytes) == ((2, 3), "f32", 24)
    assert file.bytes_of(tensor).view(np.float32).tolist() == [0, 1, 2, 3, 4, 5]
    assert file.size == file_size(METADATA, [TensorPlan("t", (2, 3), 0, 24)])


def test_gguf_py_reads_what_we_write(tmp_path: Path) -> None:
    reader = GGUFReader(write(tmp_path / "a.gguf"))
    assert reader.fields["a.strings"].contents() == METADATA["a.strings"]
    assert reader.fields["a.ints"].contents() == [1, -2, 3]
    [tensor] = reader.tensors
    assert tensor.name == "t" and tensor.data.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_we_read_what_gguf_py_writes(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "b.gguf", "llama")
    writer.add_uint32("n", 3)
    writer.add_array("words", ["a", "b"])
    writer.add_tensor("x.weight", np.ones((4, 32), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = GgufFile(tmp_path / "b.gguf")
    assert file.metadata["n"] == 3 and list(file.metadata["words"]) == ["a", "b"]
    assert (file.tensors["x.weight"].layout, file.tensors["x.weight"].shape) == ("f16", (4, 32))


def test_unknown_type_ids_are_shown_not_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    write_gguf(path, {}, [TensorPlan("odd", (1, 10), 777, 96)], [[np.zeros(96, np.uint8)]])
    tensor = GgufFile(path).tensors["odd"]
    assert tensor.layout == "unknown(777)" and tensor.nbytes == 96


@pytest.mark.parametrize("type_id", [0, 24, 36, 39, 42, 1585])
def test_scalars_and_tensors_without_elements_are_shown(type_id: int, tmp_path: Path) -> None:
    """Both are legal in ggml."""
    path = tmp_path / "a.gguf"
    names = (b"scalar", b"none", b"empty")
    shapes: tuple[tuple[int, ...], ...] = ((), (0,), (4, 0))
    rows = [
        row(name, tuple(reversed(shape)), kind, start)
        for name, shape, kind, start in zip(names, shapes, (0, type_id, type_id), (0, 32, 32))
    ]
    data = header(tensors=3) + b"".join(rows)
    path.write_bytes(data + bytes(-len(data) % 32) + np.float32(1.5).tobytes() + bytes(28))
    file = GgufFile(path)
    assert [tensor.shape for tensor in file.tensors.values()] == list(shapes)
    assert [tensor.nbytes for tensor in file.tensors.values()] == [4, 0, 0]
    assert file.bytes_of(file.tensors["scalar"]).view(np.float32) == 1.5
    for tensor in file.tensors.values():
        assert file.ternary(tensor) is None and file.check(tensor) == [], tensor.name
        file.release(tensor)
    result = inspect(path, stats=True)
    assert [row["shape"] for row in result["tensors"]] == [[], [0], [4, 0]] and result["parameters"] == 1


@pytest.mark.parametrize(
    ("element", "count", "words"), [(9, 70_000, "arrays inside arrays"), (8, (1 << 23) + 1, "strings")]
)
def test_arrays_that_would_fill_the_memory_are_refused(element: int, count: int, words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    with open(path, "wb") as stream:
        stream.write(header(pairs=1) + string(b"a.list") + struct.pack("<IIQ", 9, element, count))
        stream.truncate(stream.tell() + 12 * count)  # empty strings, empty arrays of u8
    with pytest.raises(Unreadable, match=f"a.list.* {count} {words}, at most"):
        GgufFile(path)


def test_a_file_over_four_gigabytes(tmp_path: Path) -> None:
    """Sparse: only the header and the last bytes are really on disk."""
    size = 5 << 30
    plans = [TensorPlan("big", (1, size), 24, size), TensorPlan("last", (1, 4), 0, 16)]
    header = encode_header({}, plans)
    path = tmp_path / "big.gguf"
    with path.open("wb") as stream:
        stream.write(header)
        stream.seek(len(header) + size)
        stream.write(np.array([1, 2, 3, 4], np.float32).tobytes())
    file = GgufFile(path)
    assert file.tensors["last"].file_offset == len(header) + size
    assert file.bytes_of(file.tensors["last"]).view(np.float32).tolist() == [1, 2, 3, 4]


def test_a_vocabulary_of_128k_is_read_without_decoding_it(tmp_path: Path) -> None:
    """Strings stay in the mapped file until they are asked for."""
    path = write(tmp_path / "v.gguf", {"tokens": [f"token{i}" for i in range(128256)]})
    begin = time.process_time()
    tokens = GgufFile(path).metadata["tokens"]
    # Far above what it takes (tens of milliseconds), far below a reader that decodes and copies.
    assert time.process_time() - begin < 5
    assert len(tokens) == 128256 and tokens[-1] == "token128255" and tokens[5:7] == ["token5", "token6"]


def header(pairs: int = 0, tensors: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, pairs)


def string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def row(
    name: bytes = b"t", dims: tuple[int, ...] = (8, 8), type_id: int = 0, offset: int = 0, n_dims: int | None = None
) -> bytes:
    count = len(dims) if n_dims is None else n_dims
    return string(name) + struct.pack(f"<I{len(dims)}QIQ", count, *dims, type_id, offset)


PAD = bytes(512)
HOSTILE = {
    "empty": (b"", "too few"),
    "other magic": (b"GGUX" + PAD, "not with"),
    "a picture": (b"\xff\xd8\xff\xe0" + PAD, "is a JPEG picture"),
    "a page": (b"\n<!DOCTYPE html>" + PAD, "is a web page: the download failed"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\n" + PAD, "is a pointer of Git LFS"),
    "weights": (bytes(8) + b'{"a":' + PAD, "is a safetensors file"),
    "big endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0) + PAD, "big-endian"),
    "version 1": (header(version=1) + PAD, "version 1"),
    "2**60 pairs": (header(pairs=2**60) + PAD, "claims"),
    "2**60 tensors": (header(tensors=2**60) + PAD, "claims"),
    "key of 2**63 bytes": (header(pairs=1) + struct.pack("<Q", 2**63) + PAD, "claims"),
    "string of 2**63 bytes": (header(pairs=1) + string(b"k") + struct.pack("<IQ", 8, 2**63) + PAD, "claims"),
    "unknown value type": (header(pairs=1) + string(b"k") + struct.pack("<I", 99) + PAD, "unknown value type 99"),
    "array of 2**60": (header(pairs=1) + string(b"k") + struct.pack("<IIQ", 9, 4, 2**60) + PAD, "claims"),
    "array of unknown": (header(pairs=1) + string(b"k") + struct.pack("<IIQ", 9, 77, 2) + PAD, "unknown element type"),
    "strings past the end": (
        header(pairs=1) + string(b"k") + struct.pack("<IIQ", 9, 8, 2) + string(b"a") + struct.pack("<Q", 2**63) + PAD,
        "past the end",
    ),
    "nested arrays": (
        header(pairs=1) + string(b"k") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 9 + PAD,
        "nests",
    ),
    "key twice": (header(pairs=2) + (string(b"k") + struct.pack("<II", 4, 1)) * 2 + PAD, "stands twice"),
    "2**31 dimensions": (header(tensors=1) + row(dims=(), n_dims=2**31) + PAD, "dimensions"),
    "dimensions of 0 and 2**60": (header(tensors=1) + row(dims=(0, 2**60)) + PAD, "impossible shape"),
    "tl2 with rows of 2**31 columns": (header(tensors=1) + row(dims=(2**31 - 1, 32), type_id=39) + PAD, "no defined"),
    "dimensions that overflow": (header(tensors=1) + row(dims=(2**40, 2**40)) + PAD, "impossible shape"),
    "truncated tensor": (header(tensors=1) + row(dims=(64, 64)) + PAD, "needs 16384 bytes"),
    "offset past the end": (header(tensors=1) + row(offset=2**50) + PAD, "needs 256 bytes"),
    "offset not aligned": (header(tensors=1) + row(offset=8) + PAD, "not a multiple of 32"),
    "overlap": (header(tensors=2) + row() + row(b"u", offset=32) + PAD + PAD, "needs 256 bytes"),
    "tensor twice": (header(tensors=2) + row() + row(offset=256) + PAD + PAD, "stands twice"),
    "alignment 0": (
        header(pairs=1) + string(b"general.alignment") + struct.pack("<II", 4, 0) + PAD,
        "general.alignment",
    ),
    "alignment a string": (
        header(pairs=1) + string(b"general.alignment") + struct.pack("<I", 8) + string(b"x") + PAD,
        "general.alignment",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_get_a_sentence(name: str, tmp_path: Path) -> None:
    data, expected = HOSTILE[name]
    path = tmp_path / "bad.gguf"
    path.write_bytes(data)
    with pytest.raises(Unreadable) as caught:
        GgufFile(path)
    assert expected in str(caught.value) and caught.value.path == path


def test_every_truncation_of_a_real_file_is_refused(tiny_gguf: Path, tmp_path: Path) -> None:
    whole = tiny_gguf.read_bytes()
    path = tmp_path / "cut.gguf"
    for size in [*range(0, 4000, 97), *range(4000, len(whole) - 31, 30011)]:
        path.write_bytes(whole[:size])
        try:
            GgufFile(path)
        except Unreadable as error:
            assert error.hint, size
            continue
        pytest.fail(f"a file cut to {size} bytes was read")


def test_every_flipped_header_byte_is_survived(tiny_gguf: Path, tmp_path: Path) -> None:
    """Whatever one wrong byte does to the header, the reader answers or refuses; it never crashes."""
    whole = bytearray(tiny_gguf.read_bytes())
    path = tmp_path / "flipped.gguf"
    for place in range(0, 3000, 7):
        for bit in (0x01, 0x80):
            whole[place] ^= bit
            path.write_bytes(whole)
            try:
                file = GgufFile(path)
                ends = [tensor.file_offset + tensor.nbytes for tensor in file.tensors.values()]
                assert max(ends, default=0) <= file.size, (place, bit)
            except Unreadable:
                pass
            whole[place] ^= bit


@pytest.mark.parametrize(("name", "words"), [("none.gguf", "No such file"), ("", "is a folder, expected a file")])
def test_what_cannot_be_opened_is_refused(name: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match=words):
        GgufFile(tmp_path / name)


def test_what_is_not_a_regular_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    (tmp_path / "nowhere.gguf").symlink_to(tmp_path / "gone")
    for name in ("pipe.gguf", "nowhere.gguf"):
        with pytest.raises(UsageError, match="not a regular file") as caught:
            write_gguf(tmp_path / name, {}, [], [], force=True)
        assert caught.value.path == tmp_path / name, name


def test_force_on_a_link_replaces_what_it_points_to(tmp_path: Path) -> None:
    real, link = write(tmp_path / "real.gguf"), tmp_path / "link.gguf"
    link.symlink_to(real)
    write_gguf(link, {"k": 1}, [], [], force=True)
    assert link.is_symlink() and GgufFile(real).metadata == {"k": 1}


def test_any_metadata_comes_back_with_its_types(tmp_path: Path) -> None:
    pairs = {"f64": 1e300, "u8": 7, "i64": -5, "nested": [["a", "b"], ["c"]], "numbers": [np.array([1, 2], np.int16)]}
    types = {"f64": "f64", "u8": "u8", "i64": "i64"}
    write_gguf(tmp_path / "a.gguf", pairs, [], [], types=types)
    file = GgufFile(tmp_path / "a.gguf")
    assert (file.metadata["f64"], file.metadata["u8"], file.metadata["i64"]) == (1e300, 7, -5)
    assert {key: file.metadata_types[key] for key in types} == types
    assert [list(each) for each in file.metadata["nested"]] == pairs["nested"]
    write_gguf(tmp_path / "b.gguf", file.metadata, [], [], types=file.metadata_types)
    assert (tmp_path / "b.gguf").read_bytes() == (tmp_path / "a.gguf").read_bytes()


def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gguf")
    before = path.read_bytes()
    with pytest.raises(UsageError, match="exists already"):
        write(path, {})
    assert path.read_bytes() == before


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"

    def pieces():  # type: ignore[no-untyped-def]
        yield [np.zeros(8, np.uint8)]
        raise OSError(28, "No space left on device")

    plans = [TensorPlan("a", (1, 2), 0, 8), TensorPlan("b", (1, 2), 0, 8)]
    with pytest.raises(WriteFailed, match="No space left"):
        write_gguf(path, {}, plans, pieces())
    with pytest.raises(ValueError, match="planned 8 bytes, got 4"):
        write_gguf(path, {}, plans[:1], [[np.zeros(4, np.uint8)]])
    with pytest.raises(KeyboardInterrupt):
        write_gguf(path, {}, plans[:1], _interrupted())
    assert list(tmp_path.iterdir()) == []


def _interrupted():  # type: ignore[no-untyped-def]
    raise KeyboardInterrupt
    yield


def test_a_full_disk_is_noticed_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 100})())
    with pytest.raises(WriteFailed, match="100 are free"):
        write(tmp_path / "a.gguf")
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_file_says_how_much_there_is(tiny_gguf: Path, tmp_path: Path) -> None:
    whole = tiny_gguf.read_bytes()
    cut = tmp_path / "cut.gguf"
    for size in (len(whole) - 5000, GgufFile(tiny_gguf).header.data_offset + 100):
        cut.write_bytes(whole[:size])
        with pytest.raises(Unreadable, match=f"are there; the file has {size:,} of {len(whole):,} bytes"):
            GgufFile(cut)
