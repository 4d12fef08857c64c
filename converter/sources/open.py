"""SOURCE arguments: a checkpoint folder, a GGUF file, or a repository on the Hub."""

from __future__ import annotations

from pathlib import Path

from tritpack.converter.sources import hub
from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.formats.errors import Unreadable, UsageError
from tritpack.formats.gguf_reader import GgufFile


def local_path(source: str | Path, *, revision: str | None = None, progress: bool = False) -> Path:
    """Where the source lies here, after a download if it is ORG/NAME[@REVISION] and no such folder exists."""
    if source == "":
        raise UsageError("the source is empty")
    reference = _reference(source)
    if reference is None:
        if revision is not None:
            raise UsageError(f"{source}: --revision is for repositories on the Hub, and this is a local path")
        return Path(source)
    repository, named = reference
    if revision is not None and named is not None and revision != named:
        raise UsageError(f"{source} names the revision {named!r}, and --revision {revision!r}")
    try:
        return hub.download(repository, named or revision, progress=progress)
    except Unreadable as error:
        if "no such repository" not in error.message:
            raise
        raise Unreadable(error.message, hint=f"no folder {source!r} is here either; {error.hint}") from error


def repository_name(source: str | Path) -> str | None:
    """NAME of a repository on the Hub; None for what lies here."""
    reference = _reference(source)
    return None if reference is None else reference[0].rpartition("/")[2]


def _reference(source: str | Path) -> tuple[str, str | None] | None:
    try:
        exists = Path(source).exists()
    except OSError as error:  # a name that no file system takes
        raise UsageError(f"{str(source)[:60]}...: is no path: {error.strerror}") from error
    return hub.parse_reference(source) if isinstance(source, str) and not exists else None


def open_source(
    source: str | Path, *, revision: str | None = None, progress: bool = False
) -> CheckpointFolder | GgufFile:
    """The source, opened. Raises Unreadable, Unsupported, IntegrityFailed, MissingRequirement, UsageError."""
    path = local_path(source, revision=revision, progress=progress)
    return GgufFile(path) if is_gguf(path) else CheckpointFolder(path)


def is_gguf(path: Path) -> bool:
    """Whether this is a file that is, or means to be, a GGUF."""
    if not path.is_file():
        return False
    if path.suffix == ".gguf":
        return True
    try:
        with open(path, "rb") as stream:
            return stream.read(4) == b"GGUF"
    except OSError as error:
        raise Unreadable(f"{path}: cannot be read: {error.strerror or error}") from error
