"""`tritpack metadata`: the keys of a packed file, read and changed one by one."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tritpack.converter.inspect.inputs import open_any
from tritpack.converter.metadata.consequences import consequences
from tritpack.converter.metadata.draft import Change, Draft
from tritpack.converter.metadata.values import check_key, check_type, parse_value, type_for
from tritpack.formats.errors import UsageError
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.suggestions import did_you_mean

LISTS = "`tritpack metadata get FILE` lists all keys"


def get_metadata(file: str | Path, keys: Sequence[str] = ()) -> dict[str, Any]:
    """Return what `tritpack metadata get --json` prints: type and value of the keys, all of them if none is named.

    file: may be any part of a split file, or one that stays on the Hub or at an address: see open_any. Raises
    UsageError for a key that is not there, and what open_any raises.
    """
    opened = open_any(file)
    if not isinstance(opened, GgufFile):
        raise UsageError("is not a GGUF file", path=file, hint="tritpack inspect --metadata shows its config.json")
    header = opened.header
    for key in keys:
        if key not in header.metadata:
            raise UsageError(f"has no metadata key {key}", path=file, hint=did_you_mean(key, header.metadata) or LISTS)
    rows = {
        key: {"type": header.metadata_types[key], "value": plain(header.metadata[key])}
        for key in keys or header.metadata
    }
    return {"schema": "tritpack.metadata.get/1", "file": str(file), "metadata": rows}


def set_metadata(
    file: str | Path,
    key: str,
    value: str,
    *,
    type: str | None = None,
    output: str | Path | None = None,
    force: bool = False,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Give a key a value, and return what `tritpack metadata set --json` prints.

    value: as text; an array as JSON. type: of GGUF; by default that of the key or, for a new one, what readers expect.
    output: write the result there instead of over the file. force: overwrite an existing output.
    The file is changed in place where one block takes it, else written anew; if that fails, it is as it was.
    `warnings` has a sentence for each thing that cannot be run, or is computed otherwise, after the change.
    Raises UsageError, Unreadable, WriteFailed.
    """
    check_key(key)
    draft = Draft(file)
    kind = draft.type_of(key) or type_for(key, value) if type is None else check_type(type)
    if kind == "arr[arr]":
        raise UsageError(f"{key} is an array of arrays, which cannot be written as text", path=file)
    try:
        parsed = parse_value(value, kind)
    except UsageError as error:
        error.hint = error.hint or (None if type else f"{key} is of type {kind}; --type gives it another")
        raise
    draft.set(key, kind, parsed)
    return _edited(draft, "set", output, force, dry_run)


def remove_metadata(
    file: str | Path,
    keys: Sequence[str],
    *,
    output: str | Path | None = None,
    force: bool = False,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Take keys out, and return what `tritpack metadata rm --json` prints. Arguments and errors: see set_metadata.

    keys: names, or patterns like `tritpack.*`, in which * matches any characters.
    """
    draft = Draft(file)
    for key in keys:
        matching = fnmatch.filter(draft.metadata, key) if "*" in key and key not in draft.metadata else [key]
        if not matching:
            raise UsageError(f"has no metadata key like {key}", path=file, hint=LISTS)
        for name in matching:
            draft.remove(name)
    return _edited(draft, "rm", output, force, dry_run)


def _edited(draft: Draft, command: str, output: str | Path | None, force: bool, dry_run: bool) -> dict[str, Any]:
    """Finish a draft that a user has edited, with warnings of what follows from it."""
    warnings = [*consequences(draft)]
    result = finish(draft, command, output, force, dry_run)
    return {**result, "warnings": [*warnings, *result["warnings"]]}


def finish(draft: Draft, command: str, output: str | Path | None, force: bool, dry_run: bool) -> dict[str, Any]:
    """Write a draft unless it is a dry run, and return the JSON that all edits share."""
    target = None if output is None else Path(output)
    changes = [_change(change) for change in draft.changes()]
    written = draft.plan() if dry_run else draft.write(target, force=force)
    return {
        "schema": f"tritpack.metadata.{command}/1",
        "file": str(draft.file.path),
        "output": None if target is None else str(target),
        "dry_run": dry_run,
        "written": written if target is None else "rewritten",
        "changes": changes,
        "warnings": draft.warnings() if target is None and written != "unchanged" else [],
    }


def _change(change: Change) -> dict[str, Any]:
    both = {name: None if side is None else {"type": side[0], "value": plain(side[1])}
            for name, side in (("before", change.before), ("after", change.after))}  # fmt: skip
    return {"key": change.key, **both}


def plain(value: Any) -> Any:
    """Return a value of metadata as JSON has it."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (Mapping, str)) or not isinstance(value, Sequence):
        return value
    return [plain(item) for item in value]
