"""A checksum of tensors that are written in pieces, in any order: it tells which tensors of a cut run are whole.

It notices accidents, a changed word always and words that changed places. It is no protection from a forger.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tritpack.formats import c_blocks
from tritpack.formats.arrays import Bytes

WORD = 8
MODULUS = 1 << 64
PIECE = 1 << 17
"""Words that are mixed together: a piece and its scratch stay in the cache."""


def checksum(data: Bytes, first_word: int = 0) -> int:
    """Return the sum modulo 2**64, over the 8-byte words of contiguous `data`, of a mix of the word and its index.

    first_word: the index of the first of them in the tensor. The checksums of a tensor's pieces add up, modulo 2**64,
    to that of the tensor, if all but the last have whole words; a last word is filled up with zeros.
    """
    c = c_blocks.backend()
    if c is not None:
        return c.checksum(data, first_word)
    flat = data.reshape(-1)
    whole = flat.size // WORD * WORD
    words = flat[:whole].view("<u8") if flat.ctypes.data % WORD == 0 else np.frombuffer(flat[:whole].tobytes(), "<u8")
    total = 0
    for first in range(0, words.size, PIECE):
        total += int(_mix(words[first : first + PIECE], first_word + first).sum(dtype=np.uint64))
    if whole < flat.size:
        last = np.frombuffer(flat[whole:].tobytes().ljust(WORD, b"\0"), "<u8")
        total += int(_mix(last, first_word + words.size)[0])
    return total % MODULUS


def _mix(words: npt.NDArray[np.uint64], first: int) -> npt.NDArray[np.uint64]:
    """A bijection of the word for each index. The multipliers are those of SplitMix64's step and MurmurHash3's end."""
    index = np.arange(words.size, dtype=np.uint64) + np.uint64((first + 1) % MODULUS)
    x = words + index * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ x >> np.uint64(32)) * np.uint64(0xFF51AFD7ED558CCD)
    mixed: npt.NDArray[np.uint64] = x ^ x >> np.uint64(29)
    return mixed
