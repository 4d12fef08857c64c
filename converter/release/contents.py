"""What one reading of a file tells: its size, its SHA-256 and, of a GGUF, the hash of each ternary tensor's codes."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from tritpack.formats.errors import Unreadable
from tritpack.formats.gguf_stream import GgufStream, Read, StreamedTensor
from tritpack.formats.split_files import first_part_of
from tritpack.formats.ternary import entropy_bits
from tritpack.runtime import packers

PIECE = 1 << 20
"""Bytes that are read at once where nothing looks at them."""


@dataclasses.dataclass
class TernaryPart:
    """The ternary tensors of one GGUF file.

    name: general.name. codes: the codes_sha256 of each, as `inspect --stats` prints them. weights: in all of them.
    entropy: the sum of the Shannon entropies of their codes, each tensor by itself, in bits. packed: bytes after
    compression by itself, where that was measured. problems: a sentence per tensor that cannot be decoded.
    """

    name: str | None = None
    layouts: list[str] = dataclasses.field(default_factory=list)
    codes: dict[str, str] = dataclasses.field(default_factory=dict)
    weights: int = 0
    entropy: float = 0.0
    packed: int | None = None
    problems: list[str] = dataclasses.field(default_factory=list)

    @property
    def bound(self) -> float:
        """Bits per weight below which no code that knows the shares of -1, 0 and +1 in each tensor can get."""
        return self.entropy / self.weights if self.weights else 0.0

    @property
    def bits_per_weight(self) -> float | None:
        """Bits per weight as compressed, scales and padding included."""
        return 8 * self.packed / self.weights if self.packed is not None and self.weights else None

    def add(self, tensor: StreamedTensor) -> None:
        name = tensor.info.name
        if tensor.info.layout not in self.layouts:
            self.layouts.append(tensor.info.layout)
        if tensor.ternary is None:
            self.problems.append(f"tensor {name!r} cannot be decoded: {tensor.problem}")
            return
        self.codes[name] = tensor.ternary.codes_sha256()
        self.weights += tensor.ternary.codes.size
        self.entropy += tensor.ternary.codes.size * entropy_bits(tensor.ternary.counts())


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a file holds. ternary: of a GGUF file; None for any other."""

    nbytes: int
    sha256: str
    ternary: TernaryPart | None


class Meter:
    """Measures how many bytes the ternary tensors of a file take when they are compressed by themselves."""

    def __init__(self, compressor: Any) -> None:
        self._compressor = compressor
        self._nbytes = 0

    def add(self, data: Any) -> None:
        self._nbytes += len(self._compressor.compress(data))

    def end(self) -> int:
        return self._nbytes + len(self._compressor.flush())


class ContentsReader:
    """Reads the files of one release, one after the other in the order of their names.

    Of a split GGUF the first part alone says how tensors are tiled; it comes before the others. codes: decode the
    ternary tensors. new_meter: makes what measures each GGUF's ternary part; None if that is not asked for.
    """

    def __init__(self, *, codes: bool = True, new_meter: Callable[[], Meter] | None = None) -> None:
        if codes:
            packers.use_c_packers()
        self._codes = codes
        self._first_parts: dict[str, Mapping[str, Any]] = {}
        self._new_meter = new_meter

    def read(self, path: str, nbytes: int, read: Read) -> Contents:
        """Read a file to its end. path: its name in the release. nbytes: its size. Raises what `read` raises."""
        digest, done = hashlib.sha256(), 0

        def hashed(count: int) -> bytes:
            nonlocal done
            data = read(count)
            digest.update(data)
            done += len(data)
            return data

        ternary = self._ternary(path, nbytes, hashed) if self._codes and path.endswith(".gguf") else None
        while hashed(PIECE):
            pass
        return Contents(done, digest.hexdigest(), ternary)

    def _ternary(self, path: str, nbytes: int, read: Read) -> TernaryPart:
        """The ternary part of a GGUF file; one that cannot be parsed has none, and the reason as its problem."""
        part, first = TernaryPart(), first_part_of(path)
        meter = self._new_meter() if self._new_meter else None
        try:
            stream = GgufStream(read, nbytes, self._first_parts.get(first))
            if not stream.is_later_part:
                self._first_parts[first] = stream.tilings
            named = stream.header.metadata.get("general.name")
            part.name = named if isinstance(named, str) else None
            for tensor in stream.tensors():
                part.add(tensor)
                if meter is not None:
                    meter.add(tensor.stored.data)
        except Unreadable as error:
            part.problems.append(error.without_path)
        if meter is not None:
            part.packed = meter.end()
        return part
