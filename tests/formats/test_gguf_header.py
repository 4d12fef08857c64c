"""Arrays of strings: their bounds are found in a quick way, which must give what the slow one gives."""

from __future__ import annotations

import itertools
import struct

import numpy as np
import pytest

from tritpack.formats.errors import Unreadable
from tritpack.formats.gguf_header import SCALARS, read_header


def header(strings: list[bytes], *, ending: bytes = b"") -> memoryview:
    """A GGUF header with one array of strings, and no tensors."""
    key = b"a.list"
    pairs = struct.pack("<Q", len(key)) + key + struct.pack("<IIQ", 9, 8, len(strings))
    body = b"".join(struct.pack("<Q", len(string)) + string for string in strings)
    return memoryview(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + pairs + body + ending)


@pytest.mark.parametrize(
    "strings",
    [[], [b""], [b"a", b"", b"bc"], [b"x" * 255], [b"x" * 256, b"y"], [b"y", b"x" * 70000], ["ä".encode()] * 300],
    ids=lambda strings: str([len(string) for string in strings[:3]]),
)
def test_strings_of_all_lengths(strings: list[bytes]) -> None:
    for ending, plain in itertools.product((b"", b"\0" * 40), (False, True)):
        found = read_header(header(strings, ending=ending), plain=plain).metadata["a.list"]
        assert list(found) == [string.decode() for string in strings], (ending, plain)
        assert len(found) == len(strings) and found[:2] == [string.decode() for string in strings[:2]], ending


@pytest.mark.parametrize("length", [2, 9, 256, 1 << 32, (1 << 64) - 9, (1 << 64) - 1])
def test_a_length_that_runs_past_the_end(length: int) -> None:
    data = bytearray(header([b"ab", b"c"]))
    data[-9:-1] = struct.pack("<Q", length)
    with pytest.raises(Unreadable, match=r"ends inside|past the end"):
        read_header(memoryview(bytes(data)))
    with pytest.raises(Unreadable, match=r"ends inside|past the end"):
        read_header(memoryview(bytes(data)), plain=True)


@pytest.mark.parametrize("missing", range(1, 19))
def test_a_header_that_ends_early(missing: int) -> None:
    with pytest.raises(Unreadable, match=r"ends inside|past the end|claims"):
        read_header(header([b"ab", b"c"])[:-missing])


@pytest.mark.parametrize("kind", SCALARS)
def test_plain_arrays_of_numbers_have_the_same_values(kind: int) -> None:
    array = np.array([0, 1, 3]).astype(SCALARS[kind])
    pair = struct.pack("<Q", 1) + b"a" + struct.pack("<IIQ", 9, kind, 3) + array.tobytes()
    data = memoryview(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + pair)
    numbers, plain = (read_header(data, plain=wanted).metadata["a"] for wanted in (False, True))
    assert isinstance(numbers, np.ndarray) and isinstance(plain, memoryview)
    assert plain.tolist() == numbers.tolist() == array.astype(numbers.dtype).tolist()
