"""Parts of a split GGUF, as llama-gguf-split writes them: NAME-00001-of-00003.gguf and its sisters.

The first part stands for all of them. Another part, or one whose sisters are not beside it, is not read as a model: its
tensors are not all there. `inspect` alone shows what it holds.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tritpack.formats.errors import Unreadable

NUMBER, COUNT, TENSORS = KEYS = ("split.no", "split.count", "split.tensors.count")
"""Metadata keys of each part: its number from 0 and the count of parts (u16), the tensors of all parts (i32)."""
MAX_PARTS = (1 << 16) - 1
"""split.count is written as a 16-bit number."""
SHOWN = 4
"""Names of missing parts that a sentence lists."""
_NAME = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf", re.DOTALL)


def part_name(stem: str, number: int, count: int) -> str:
    """The file name of a part; number: from 1."""
    return f"{stem}-{number:05}-of-{count:05}.gguf"


@dataclasses.dataclass(frozen=True)
class Part:
    """What a file says of the split set that it belongs to.

    number: from 1; 0 if the file does not say it. count: of the parts. tensors: in all parts together; None if the file
    does not say it. stem: what the names of all parts begin with; None if this file has another name than its part.
    missing: the numbers of the parts that do not lie beside it under their names. problem: why it is not read together
    with those that do.
    """

    number: int
    count: int
    tensors: int | None
    stem: str | None
    missing: tuple[int, ...]
    problem: str | None = None

    def __str__(self) -> str:
        return f"{self._title}, {self._others}"

    @property
    def _title(self) -> str:
        name = f"part {self.number} of {self.count}" if self.number else f"one of {self.count} parts"
        return f"{name} of a split file"

    @property
    def _others(self) -> str:
        if self.problem is not None:
            return f"which cannot be read with the others: {self.problem}"
        if not self.missing:
            return "the others lie beside it"
        if self.stem is None:
            ending = part_name("", self.number, self.count) if self.number else f"-of-{self.count:05}.gguf"
            return f"and its name does not end in {ending}, so the others cannot be found"
        return f"and {self._listed(self.missing)} {'is' if len(self.missing) == 1 else 'are'} missing"

    def _listed(self, numbers: Sequence[int]) -> str:
        more = f" and {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else ""
        return ", ".join(map(self.name, numbers[:SHOWN])) + more

    def name(self, number: int) -> str:
        """The file name of another part of the set; number: from 1."""
        return part_name(self.stem or "NAME", number, self.count)

    # -- whether a set is one ------------------------------------------------------------------------------------------

    def check_first(self, path: Path) -> None:
        """Raise Unreadable unless this is the first part, under its name, and the others lie beside it."""
        first = path.parent / self.name(1)
        if self.number != 1:
            absent = " (which is missing)" if 1 in self.missing and self.stem is not None else ""
            message = f"is {self._title}, whose first part is {self.name(1)}{absent}"
            raise Unreadable(message, path=path, hint=f"give the first part, which stands for all: {first}")
        if self.missing:
            raise Unreadable(f"is {self}", path=path, hint="put all parts into one folder, under the names they had")
        if self.tensors is None:
            raise Unreadable(f"is {self._title} and has no {TENSORS}, a number of tensors", path=path)

    def check_other(self, number: int, path: Path, other: Part | None) -> None:
        """Raise Unreadable unless a file, whose part is `other`, is the part with this number of the same set."""
        wanted = f"part {number} of {self.count} of {self.name(1)}"
        hint = "put all parts of one set into one folder; nothing else may have their names"
        if other is None:
            raise Unreadable(f"is a whole file, expected {wanted}", path=path, hint=hint)
        if (other.number, other.count) != (number, self.count):
            raise Unreadable(f"is {other._title}, expected {wanted}", path=path, hint=hint)
        if other.tensors != self.tensors:
            counts = f"{TENSORS} is {other.tensors}, that of {self.name(1)} is {self.tensors}"
            raise Unreadable(f"{counts}: it belongs to another split file", path=path, hint=hint)

    def check_total(self, path: Path, tensors: int) -> None:
        """Raise Unreadable unless all parts together hold so many tensors."""
        if tensors != self.tensors:
            message = f"{TENSORS} is {self.tensors}, and the {self.count} parts hold {tensors} tensors"
            raise Unreadable(message, path=path, hint="a part is damaged or of another set; download or split again")


def part_of(path: Path, metadata: Mapping[str, Any], tensors: int) -> Part | None:
    """Return which part of a split file this is; None for a whole file.

    tensors: how many the file holds. Raises Unreadable for a number of parts that no writer writes.
    """
    index, count, total = (_whole(metadata.get(key)) for key in KEYS)
    if count is None or count < 2 or (total == tensors and not index):
        return None
    if count > MAX_PARTS:
        raise Unreadable(f"metadata key {COUNT} is {count}, expected at most {MAX_PARTS}")
    number = index + 1 if index is not None and 0 <= index < count else 0
    match = _NAME.fullmatch(path.name)
    if match and NUMBER not in metadata:
        number = int(match[2])
    stem = match[1] if match and path.name == part_name(match[1], number, count) else None
    others = (part for part in range(1, count + 1) if part != number)
    missing = (part for part in others if stem is None or not (path.parent / part_name(stem, part, count)).is_file())
    return Part(number, count, total, stem, tuple(missing))


def sisters(path: Path) -> list[Path]:
    """All parts that lie beside a file with the name of a part, and the file itself; found by their names alone."""
    names = parts_of_set(path.name)
    return [path, *(sister for name in names if (sister := path.parent / name) != path and sister.is_file())]


def first_part_of(name: str) -> str:
    """The name of the first part of the set that a file with this name belongs to; the name itself if to none."""
    match = _NAME.fullmatch(name)
    return part_name(match[1], 1, int(match[3])) if match else name


def parts_of_set(name: str) -> list[str]:
    """The names of all parts of the set that a file with this name belongs to, in order; none if it belongs to none."""
    match = _NAME.fullmatch(name)
    if match is None or not 0 < int(match[3]) <= MAX_PARTS:
        return []
    return [part_name(match[1], number, int(match[3])) for number in range(1, int(match[3]) + 1)]


def name_of_set(name: str) -> str:
    """The name of a GGUF, or of the set that a part belongs to, without its number and `.gguf`."""
    match = _NAME.fullmatch(name)
    return match[1] if match else name.removesuffix(".gguf")


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
