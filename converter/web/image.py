"""The bytes that the page loads: the file itself, then what C needs in another form; cut into parts."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.progress import Progress
from tritpack.runtime.library import CTensor

ALIGNMENT = 64
PIECE = 1 << 20


@dataclasses.dataclass
class Image:
    """Where the bytes of a model will lie in the page's memory, without a second copy of any weight.

    A file comes as it is, metadata included, so the parts of the download joined are the file. Several files of a set
    follow each other, aligned to 64 bytes. Norms that are not float32 come last, decoded.
    """

    file: GgufFile
    extra: list[tuple[int, bytes]] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self._starts = []
        self.size = 0
        for mapped in self.file.mapped:
            self._starts.append(self._aligned())
            self.size = self._starts[-1] + len(mapped)

    def offset_of(self, name: str, tensor: CTensor) -> int:
        """Return where a tensor will lie."""
        info = self.file.tensors[name]
        if tensor.layout == info.layout:
            return self._starts[info.file_index] + info.file_offset
        self.extra.append((self._aligned(), tensor.data.tobytes()))
        self.size = self.extra[-1][0] + tensor.data.nbytes
        return self.extra[-1][0]

    def write_parts(self, folder: Path, part_size: int, progress: Progress) -> list[dict[str, Any]]:
        """Write model-000.bin and so on; return the name, size and SHA-256 of each."""
        parts: list[dict[str, Any]] = []
        pieces = self._pieces()
        rest = memoryview(b"")
        progress("", 0, self.size)
        for start in range(0, self.size, part_size):
            name, size, digest = f"model-{len(parts):03}.bin", min(part_size, self.size - start), hashlib.sha256()
            with (folder / name).open("wb") as stream:
                missing = size
                while missing:
                    rest = rest or next(pieces)
                    taken, rest = rest[:missing], rest[missing:]
                    digest.update(taken)
                    stream.write(taken)
                    missing -= len(taken)
                    progress(name, start + size - missing, self.size)
            parts.append({"url": name, "size": size, "sha256": digest.hexdigest()})
        return parts

    def _pieces(self) -> Iterator[memoryview]:
        at = 0
        blobs = [(start, mapped.data) for start, mapped in zip(self._starts, self.file.mapped, strict=True)]
        for start, blob in [*blobs, *((start, memoryview(data)) for start, data in self.extra)]:
            if start > at:
                yield memoryview(bytes(start - at))
            for first in range(0, len(blob), PIECE):
                yield blob[first : first + PIECE]
            at = start + len(blob)

    def _aligned(self) -> int:
        return -(-self.size // ALIGNMENT) * ALIGNMENT
