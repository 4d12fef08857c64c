"""What runs of a recipe have made: files by SHA-256, so that the next run knows what is there and right.

Time stamps decide nothing. A step is done if it was finished from the same inputs and all of its files have the hashes
that were written down then.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tritpack.formats.errors import UsageError, WriteFailed
from tritpack.formats.files import atomic_output, lock, sha256_file
from tritpack.formats.inputs import read_input
from tritpack.formats.json_text import json_text, parse_json

SCHEMA = "tritpack.recipe.journal/1"


class Journal:
    """The journal of a release, in a hidden file beside its folder. Paths are relative to the folder.

    key: what everything is made from: the source and the version of tritpack. A release that was made from something
    else is only replaced with `force`. Raises UsageError for that, and for files in the folder that no run has made.
    """

    def __init__(self, folder: Path, key: str, *, force: bool) -> None:
        self.folder = folder
        self._path = folder.with_name(f".{folder.name}.journal.json")
        document = self._read()
        self._key, self._begun = key, _files_of(document)
        self._steps: dict[str, dict[str, Any]] = document["steps"] if document.get("key") == key else {}
        if document and document["key"] != key and not force:
            message = "holds a release that was made from another source, or by another version of tritpack"
            raise UsageError(message, path=folder, hint="pass --force to replace it, or choose another folder with -o")
        self._refuse_foreign()

    def _read(self) -> dict[str, Any]:
        if not self._path.is_file():
            return {}
        try:
            document = parse_json(read_input(self._path))
            steps = document["steps"].values()
            paths = [*document["begun"], *(path for step in steps for path in dict(step["files"]))]
            texts = [document["key"], *(step["inputs"] for step in steps)]
            is_whole = document["schema"] == SCHEMA and all(isinstance(text, str) for text in texts)
            if is_whole and all(self._may_be_ours(path) for path in paths):
                return dict(document)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass
        raise UsageError("is not a journal of `recipe run`", path=self._path, hint="remove it, and the release with it")

    def _may_be_ours(self, path: Any) -> bool:
        """Return whether it is a path in the folder, or that of the bundle beside it."""
        if not isinstance(path, str) or path == f"../{self.folder.name}.tar.zst":
            return isinstance(path, str)
        return "\0" not in path and not os.path.isabs(path) and ".." not in Path(path).parts

    def _refuse_foreign(self) -> None:
        for path in _present(self.folder):
            if path not in self._begun:
                message = "is not of this release, and would become a part of it"
                hint = "move it away, or choose another folder with -o"
                raise UsageError(message, path=self.folder / path, hint=hint)

    def keep_only(self, paths: Iterable[str]) -> None:
        """Remove what earlier runs have made and this one will not make."""
        self._remove(self._begun - {*paths})
        self._write()

    def _remove(self, paths: Iterable[str]) -> None:
        for path in sorted(paths):
            with contextlib.suppress(OSError):  # it is not there, or its folder is not empty
                (self.folder / path).unlink()
                if "/" in path and not path.startswith("../"):
                    (self.folder / path).parent.rmdir()

    # -- steps ---------------------------------------------------------------------------------------------------------

    def is_done(self, step: str, inputs: Mapping[str, Any]) -> bool:
        """Return whether a step was finished from these inputs, and its files are as it left them."""
        entry = self._steps.get(step)
        if entry is None or entry["inputs"] != hash_of(inputs) or not entry["files"]:
            return False
        return all(self._hash(path) == digest for path, digest in entry["files"].items())

    def _hash(self, path: str) -> str | None:
        file = self.folder / path
        return sha256_file(file) if file.is_file() and not file.is_symlink() else None

    def begin(self, step: str, paths: Iterable[str]) -> None:
        """Remove the files of a step, and take note that it may write them: a run that is killed leaves no file that
        nobody knows."""
        self._steps.pop(step, None)
        self._begun |= {*paths}
        self._write()
        self._remove(paths)

    def finish(self, step: str, inputs: Mapping[str, Any], paths: Iterable[str]) -> None:
        """Take note that a step has written these files."""
        files = {path: sha256_file(self.folder / path) for path in paths}
        self._steps[step] = {"inputs": hash_of(inputs), "files": files}
        self._write()

    def files(self, *steps: str) -> dict[str, str]:
        """Return the files of finished steps, with their SHA-256."""
        return {path: digest for step in steps for path, digest in self._steps[step]["files"].items()}

    def _write(self) -> None:
        document = {"schema": SCHEMA, "key": self._key, "steps": self._steps, "begun": sorted(self._begun)}
        data = (json_text(document) + "\n").encode("utf-8")
        with atomic_output(self._path, len(data), force=True) as stream:
            stream.write(data)


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Make a folder and let no other run work in it. Raises UsageError, WriteFailed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise WriteFailed(f"cannot be made a folder: {error.strerror or error}", path=folder) from error
    try:
        if not lock(descriptor):
            raise UsageError("another run works in this folder", path=folder, hint="wait for it, or choose another one")
        yield
    finally:
        os.close(descriptor)


def hash_of(value: Any) -> str:
    """Return the SHA-256 of a JSON value with sorted keys and no spaces."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _files_of(document: Mapping[str, Any]) -> set[str]:
    if not document:
        return set()
    return {*document["begun"], *(path for step in document["steps"].values() for path in step["files"])}


def _present(folder: Path) -> Iterator[str]:
    """Yield the paths of the files in a folder, without hidden ones."""
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if not path.is_dir() and not any(part.startswith(".") for part in relative.parts):
            yield relative.as_posix()
