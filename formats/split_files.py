"""Parts of a split GGUF, as llama-gguf-split writes them: NAME-00001-of-00003.gguf and its sisters.

A part is not read as a model: its tensors are not all there. `inspect` alone shows what it holds.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tritpack.formats.errors import Unreadable

MAX_PARTS = (1 << 16) - 1
"""split.count is written as a 16-bit number."""
_NAME = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Part:
    """What a file says of the split set that it belongs to.

    number: from 1; 0 if the file does not say it. count: of the parts. tensors: in all parts together; None if the file
    does not say it. missing: the numbers of the parts that do not lie beside it under their names. first: the name of
    the first part.
    """

    number: int
    count: int
    tensors: int | None
    missing: tuple[int, ...]
    first: str

    def __str__(self) -> str:
        name = f"part {self.number} of {self.count}" if self.number else f"one of {self.count} parts"
        return f"{name} of a split file, {self._others()}"

    def _others(self) -> str:
        if not self.missing:
            return "the others lie beside it"
        if len(self.missing) >= self.count - 1:
            return "the others are missing"
        listed = ", ".join(map(str, self.missing[:8])) + (", ..." if len(self.missing) > 8 else "")
        return f"part {listed} is missing" if len(self.missing) == 1 else f"parts {listed} are missing"

    def refuse(self, path: Path) -> Unreadable:
        """Return the error of everything that needs the whole model."""
        first = "fetch the missing parts, then merge all" if self.missing else "merge all parts into one file first"
        hint = f"{first}: llama-gguf-split --merge {path.parent / self.first} MERGED.gguf"
        return Unreadable(f"is {self}", path=path, hint=hint)


def part_of(path: Path, metadata: Mapping[str, Any], tensors: int) -> Part | None:
    """Return which part of a split file this is; None for a whole file.

    tensors: how many the file holds. Raises Unreadable for a number of parts that no writer writes.
    """
    count, total, index = (_whole(metadata.get(f"split.{key}")) for key in ("count", "tensors.count", "no"))
    if count is None or count < 2 or total == tensors:
        return None
    if count > MAX_PARTS:
        raise Unreadable(f"metadata key split.count is {count}, expected at most {MAX_PARTS}")
    number = index + 1 if index is not None and 0 <= index < count else 0
    match = _NAME.fullmatch(path.name)
    stem = match[1] if match and int(match[3]) == count else "NAME"
    names = {part: f"{stem}-{part:05}-of-{count:05}.gguf" for part in range(1, count + 1)}
    number = next((part for part, name in names.items() if name == path.name), 0) if number == 0 else number
    missing = tuple(part for part, name in names.items() if part != number and not (path.parent / name).is_file())
    return Part(number, count, total, missing, names[1])


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
