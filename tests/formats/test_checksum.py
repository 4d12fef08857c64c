"""The checksum of pieces against its formula, word by word, and what it notices."""

from __future__ import annotations

import numpy as np

from tritpack.formats.checksum import MODULUS, checksum


def formula(data: bytes, first: int) -> int:
    total = 0
    for index in range(-(-len(data) // 8)):
        x = int.from_bytes(data[8 * index : 8 * index + 8], "little") + (first + index + 1) * 0x9E3779B97F4A7C15
        x %= MODULUS
        x = (x ^ x >> 32) * 0xFF51AFD7ED558CCD % MODULUS
        total += x ^ x >> 29
    return total % MODULUS


def test_pieces_add_up_in_any_order() -> None:
    data = np.random.default_rng(1).integers(0, 256, 1003, np.uint8)
    whole = checksum(data)
    assert whole == formula(data.tobytes(), 0)
    cuts = [(640, 1003), (0, 16), (16, 640)]
    assert sum(checksum(data[first:last], first // 8) for first, last in cuts) % MODULUS == whole
    assert checksum(data[:0]) == 0
    assert checksum(data[1:90], 5) == formula(data[1:90].tobytes(), 5), "bytes that are not aligned"
    assert checksum(data[:8], 2**63) == formula(data[:8].tobytes(), 2**63)


def test_what_it_notices() -> None:
    words = np.random.default_rng(2).integers(0, 2**63, 500).astype(np.uint64)
    good = checksum(words.view(np.uint8))
    for place in range(0, 500, 7):
        for bit in (0, 1, 31, 32, 62, 63):
            words[place] ^= np.uint64(1 << bit)
            assert checksum(words.view(np.uint8)) != good, f"bit {bit} of word {place}"
            words[place] ^= np.uint64(1 << bit)
    words[[3, 4]] = words[[4, 3]]
    assert checksum(words.view(np.uint8)) != good, "swapped words"
    zeros = np.zeros(4096, np.uint8)
    assert len({checksum(zeros[:n]) for n in range(0, 4096, 8)}) == 512, "zeros of different lengths"
