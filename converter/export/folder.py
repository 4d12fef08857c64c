"""The output folder: refused, or given its name when it is complete."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tritpack.converter.sources.checkpoint import HASHED_FILES, INDEX
from tritpack.formats.errors import UsageError, WriteFailed

WEIGHTS = ("model*.safetensors", "model.layers.*_proj.onnx")
"""Patterns of files that an earlier export may have left, and that do not go with those of another."""


def refuse_folder(folder: Path, name: str | Path, *, force: bool) -> None:
    """Raise UsageError or WriteFailed for an output that cannot or must not be written.

    folder: the resolved path. name: what the user wrote.
    """
    if str(name) == "" or not folder.name:
        raise UsageError(f"{str(name)!r} is not the name of a folder to write")
    if not folder.parent.is_dir():
        raise WriteFailed(f"the folder {folder.parent} does not exist", path=name)
    if folder.exists() and not folder.is_dir():
        raise UsageError("is a file, expected the name of a folder to write", path=name)
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise UsageError("is not empty", path=name, hint="pass --force to replace the checkpoint in it")


def put_in_place(partial: Path, folder: Path) -> None:
    """Give a complete folder its name.

    If a folder of that name exists, the checkpoint's files in it make room; all other files stay. On any error they
    come back.
    """
    if not folder.is_dir():
        os.replace(partial, folder)
        return
    weights = [path for pattern in WEIGHTS for path in folder.glob(pattern)]
    names = {*HASHED_FILES, INDEX, *(path.name for path in (*weights, *partial.iterdir()))}
    if (folder / "1_Pooling" / "config.json").is_file():
        names.add("1_Pooling")
    old, new = partial.with_suffix(".old"), sorted(path.name for path in partial.iterdir())
    old.mkdir()
    try:
        for name in sorted(names):
            if (folder / name).exists():
                os.replace(folder / name, old / name)
        for name in new:
            os.replace(partial / name, folder / name)
    except BaseException:
        _undo(partial, folder, old, new)
        raise
    shutil.rmtree(old, ignore_errors=True)  # only now: had anything failed to come back, it would still be there


def _undo(partial: Path, folder: Path, old: Path, new: list[str]) -> None:
    # By where files are, not by what was begun: an interruption may come before or after any of the moves.
    for name in new:
        if not (partial / name).exists():
            os.replace(folder / name, partial / name)
    for path in old.iterdir():
        os.replace(path, folder / path.name)
    old.rmdir()
