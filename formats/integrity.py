"""SHA-256 of the bytes and of the codes of every tensor, as a file records them in its keys `tritpack.integrity.*`.

The record finds accidents. Whoever changes a file on purpose can change its record too.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tritpack.formats.arrays import Bytes, Codes
from tritpack.formats.errors import Unreadable
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.pieces import Piece

TENSORS_KEY, BYTES_KEY, CODES_KEY = KEYS = (
    "tritpack.integrity.tensors",
    "tritpack.integrity.sha256",
    "tritpack.integrity.codes_sha256",
)
"""Parallel arrays of strings, over all tensors in file order: names, and hashes as TensorHashes has them."""
NOT_YET = "0" * 64
"""Stands for a hash in the metadata of a file that is not written yet."""
SHOWN = 12
"""Digits of a hash that a sentence shows."""
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True)
class TensorHashes:
    """SHA-256 of a tensor, in hex. sha256: of its stored bytes, trailer included. codes_sha256: of its codes, as
    TernaryTensor.codes_sha256 gives it; "" for a tensor of floats."""

    sha256: str
    codes_sha256: str = ""


def to_metadata(hashes: Mapping[str, TensorHashes]) -> dict[str, list[str]]:
    """Return the keys that record the hashes of all tensors of a file, which are given by name, in file order."""
    return {
        TENSORS_KEY: list(hashes),
        BYTES_KEY: [each.sha256 for each in hashes.values()],
        CODES_KEY: [each.codes_sha256 for each in hashes.values()],
    }


def recorded_hashes(file: GgufFile) -> dict[str, TensorHashes]:
    """Return what a file records of its tensors, by name; {} if it has none of the keys. Nothing is compared.

    The first file of a split set has the record of all. Raises Unreadable unless the keys are as `to_metadata` makes
    them.
    """
    values = [file.metadata.get(key) for key in KEYS]
    if all(value is None for value in values):
        return {}
    names, stored, codes = (_strings(key, value, file) for key, value in zip(KEYS, values))
    if not len(names) == len(stored) == len(codes) == len(set(names)):
        raise Unreadable(f"the metadata keys {', '.join(KEYS)} are not parallel arrays over tensors", path=file.path)
    for key, hashes in ((BYTES_KEY, stored), (CODES_KEY, [each for each in codes if each])):
        if (wrong := next((each for each in hashes if not _HASH.fullmatch(each)), None)) is not None:
            raise Unreadable(f"metadata key {key} has {wrong[:80]!r}, expected a SHA-256 in hex", path=file.path)
    return {name: TensorHashes(*both) for name, *both in zip(names, stored, codes)}


class TensorHasher:
    """Hashes a tensor piece by piece. has_codes: whether it is ternary."""

    def __init__(self, *, has_codes: bool) -> None:
        self._stored = hashlib.sha256()
        self._codes = hashlib.sha256() if has_codes else None

    def add(self, data: Bytes, codes: Codes | None) -> None:
        """Hash the next piece of the tensor, see pieces.py."""
        self._stored.update(data.data)
        if self._codes is not None and codes is not None:
            self._codes.update(codes.data)

    def hashes(self) -> TensorHashes:
        """Return the hashes of all pieces."""
        return TensorHashes(self._stored.hexdigest(), "" if self._codes is None else self._codes.hexdigest())


def hash_pieces(pieces: Iterable[Piece], *, has_codes: bool) -> TensorHashes:
    """Return the hashes of a tensor, given in pieces. has_codes: whether it is ternary."""
    hasher = TensorHasher(has_codes=has_codes)
    for data, codes in pieces:
        hasher.add(data, codes)
    return hasher.hashes()


def difference(recorded: TensorHashes, computed: TensorHashes) -> str | None:
    """Return what is wrong with a tensor, in words, if its hashes are not those that were recorded, else None."""
    if recorded.sha256 != computed.sha256:
        return _differs("bytes", BYTES_KEY, recorded.sha256, computed.sha256)
    if recorded.codes_sha256 != computed.codes_sha256:
        return _differs("codes", CODES_KEY, recorded.codes_sha256, computed.codes_sha256)
    return None


def _differs(what: str, key: str, recorded: str, computed: str) -> str:
    begins = f"begins with {recorded[:SHOWN]}" if recorded else "is missing"
    numbers = f"their SHA-256 begins with {computed[:SHOWN]}, the one in {key} {begins}"
    return f"its {what} are not those that the file records: {numbers}"


def _strings(key: str, value: Any, file: GgufFile) -> list[str]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(each, str) for each in value):
        raise Unreadable(f"metadata key {key} is missing or not an array of strings", path=file.path)
    return list(value)
