"""The parts of a model's name, as the naming convention of GGUF files has them: BaseName-SizeLabel-FineTune-Version.

The rules are those of gguf-py, with which a test compares: so a file gets the name that convert_hf_to_gguf gives it.
"""

from __future__ import annotations

import dataclasses
import re

VERSION_PART = re.compile(r"(v|iter)?\d+([.]\d+)*", re.IGNORECASE)
TYPE_PART = re.compile(r"i?q\d(_\w)*|b?fp?(16|32)", re.IGNORECASE)
SIZE_PART = re.compile(r"(([A]|\d+x)?\d+([._]\d+)?[KMBT]\d?|small|mini|medium|large|x?xl)", re.IGNORECASE)
FINETUNE_PART = re.compile(r"chat|instruct|vision|lora", re.IGNORECASE)
PLAIN_WORD = re.compile(r"(?!v\d+(?:\.\d+)*$|\d).*")
UNITS = " KMBT"
"""Letters of size labels: the one at index n means 1000 ** n parameters."""


@dataclasses.dataclass(frozen=True)
class NameParts:
    """The parts of a model's name; None for those that it does not have."""

    base: str | None = None
    size_label: str | None = None
    finetune: str | None = None
    version: str | None = None


def name_parts(name: str, parameters: int = 0) -> NameParts:
    """Return the parts of a name such as `Falcon3-1B-Instruct`.

    parameters: how many the model has; a number in the name that is far from it is not taken for a size. 0 if it is not
    known: every number is taken for a size then.
    """
    if " " in name:  # a sentence
        return NameParts()
    parts = [part for part in name.split("-") if part]
    labelled = [_labelled(part, first=index == 0, parameters=parameters) for index, part in enumerate(parts)]
    if any(role == "size" and any(map(str.isdecimal, part)) for part, role in labelled):
        labelled = [(part, "" if role == "size" and part.isalpha() else role) for part, role in labelled]
    base_end = 0
    while base_end < len(labelled) and _may_be_base(*labelled[base_end]):
        base_end += 1
    if base_end == len(labelled):  # versions at the end of the whole name are not of the base
        while base_end and labelled[base_end - 1][1] == "version":
            base_end -= 1
    rest = [(part, role or "finetune") for part, role in labelled[base_end:]]
    joined = {kind: "-".join(part for part, role in rest if role == kind) for kind in ("finetune", "version")}
    size = "-".join(dict.fromkeys(part for part, role in rest if role == "size"))
    if not (size or joined["finetune"] or joined["version"]):
        return NameParts()
    base = "-".join(part for part, _ in labelled[:base_end])
    return NameParts(base or None, size or None, joined["finetune"] or None, joined["version"] or None)


def _may_be_base(part: str, role: str) -> bool:
    return role == "version" or (role == "" and part[0].isalpha())


def _labelled(part: str, *, first: bool, parameters: int) -> tuple[str, str]:
    """Return a part as it is written in a file name, and what it is: version, type, size, finetune, or "" if its place
    decides."""
    if VERSION_PART.fullmatch(part):
        return part, "version"
    if TYPE_PART.fullmatch(part):
        return part.upper(), "type"
    if not first and SIZE_PART.fullmatch(part):
        return _size(part.replace("_", "."), parameters)
    return part, "finetune" if not first and FINETUNE_PART.fullmatch(part) else ""


def _size(part: str, parameters: int) -> tuple[str, str]:
    if part[-1].isdecimal():  # bloom's 7b1
        part = f"{part[:-2]}.{part[-1]}{part[-2]}"
    if part[-2].isdecimal():
        part = part[:-1] + part[-1].upper()
    try:
        size = float(part[:-1]) * 1000 ** UNITS.find(part[-1].upper())
    except ValueError:  # a word, or 8x7B
        return part, "size"
    if parameters and abs(size - parameters) > 7 * parameters // 8:  # the length of a context, say
        return part[:-1] + part[-1].lower(), "finetune"
    return part, "size"


def title(name: str) -> str:
    """Return a name for people: `Falcon3 1B Instruct`."""
    words = name.replace("-", " ").split()
    return " ".join(word.title() if word.islower() and PLAIN_WORD.fullmatch(word) else word for word in words)


def size_label(name: str, parameters: int) -> str:
    """Return the size in the name if there is one, else the number of parameters in two digits: `2.4B`."""
    return name_parts(name, parameters).size_label or _rounded(parameters)


def _rounded(parameters: int) -> str:
    for unit, scale in (("T", 1e-12), ("B", 1e-9), ("M", 1e-6), ("K", 1e-3)):
        if parameters * scale > 1 or unit == "K":
            break
    value = parameters * scale
    digits = max(2 - len(str(round(value)).lstrip("0")), 0)
    return f"{value:.{digits}f}{unit}"


def conventional_stem(name: str, parameters: int) -> str:
    """Return BaseName-SizeLabel-FineTune-Version: the name of a model's file without its encoding."""
    parts = name_parts(name, parameters)
    size = parts.size_label or _rounded(parameters)
    pieces = (parts.base, size, parts.finetune, parts.version) if parts.base else (name, size)
    return "-".join(piece.strip().replace(" ", "-").replace("/", "-") for piece in pieces if piece)
