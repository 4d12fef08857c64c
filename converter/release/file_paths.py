"""The paths that files of a release may have: they stay in their folder and mean the same file on every system."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from tritpack.formats.errors import Unreadable

LONGEST_PATH = 512
LONGEST_NAME = 255
"""Bytes of a path and of one of its parts; file systems take no longer names."""
DEEPEST = 16
"""Parts of a path. Together these bound what a hostile list of files costs."""
DRIVE = re.compile(r"[A-Za-z]:")
ON_WINDOWS = re.compile(r'[<>:"|?*]')
DEVICES = {"con", "prn", "aux", "nul", *(f"{kind}{number}" for kind in ("com", "lpt") for number in range(10))}
"""Names that Windows keeps for devices, whatever their ending."""


def refuse_bad_paths(paths: Iterable[str]) -> None:
    """Raise Unreadable for a path that may not be in a release, and for two that some file system takes for one."""
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    for path in paths:
        refuse_bad_path(path)
        key = _key(path)
        if files.get(key) == path:
            raise Unreadable(f"has {path!r} twice")
        if key in files:
            raise Unreadable(f"has {files[key]!r} and {path!r}, which are one file on some systems")
        files[key] = path
        folders |= {key[:end]: path for end in range(len(key)) if key[end] == "/"}
    for key in files.keys() & folders.keys():
        raise Unreadable(f"has {files[key]!r} as a file and as a folder of {folders[key]!r}")


def refuse_bad_path(path: str) -> None:
    """Raise Unreadable for a path that leads out of the folder, or that not every system can have."""
    reason = _reason(path)
    if reason is not None:
        raise Unreadable(f"has a file with the path {path[:100]!r}, which {reason}")


def _reason(path: str) -> str | None:
    if not path:
        return "is empty"
    if path.startswith("/"):
        return "is absolute"
    if DRIVE.match(path):
        return "names a drive"
    if "\\" in path:
        return "has a backslash"
    if "\0" in path or not path.isprintable():
        return "has characters that cannot be printed"
    if len(path.encode()) > LONGEST_PATH:
        return f"is longer than {LONGEST_PATH} bytes"
    if path.count("/") >= DEEPEST:
        return f"has more than {DEEPEST} parts"
    return next((reason for part in path.split("/") if (reason := _reason_of_part(part))), None)


def _reason_of_part(part: str) -> str | None:
    if part in ("", ".", ".."):
        return f"has the part {part!r}"
    if len(part.encode()) > LONGEST_NAME:
        return f"has a name longer than {LONGEST_NAME} bytes"
    if part[-1] in ". " or ON_WINDOWS.search(part) or part.partition(".")[0].rstrip().lower() in DEVICES:
        return f"has the name {part!r}, which Windows cannot have"
    return None


def _key(path: str) -> str:
    """What is equal for two paths that a file system without case, or one that composes characters, takes for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
