"""SOURCE arguments: a checkpoint folder, a GGUF file, or a repository on the Hub."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tritpack.converter.sources import hub
from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.converter.sources.hub_errors import NoSuchRepository
from tritpack.converter.sources.hub_file import RemoteFile
from tritpack.formats.errors import NetworkTrouble, UsageError
from tritpack.formats.gguf_header import MAGIC
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.inputs import open_input
from tritpack.formats.model_metadata import refuse_adapter


def local_path(source: str | Path, *, revision: str | None = None, progress: bool = False) -> Path:
    """Return where the source is on this machine.

    ORG/NAME[@REVISION] is downloaded first, unless a local path of that name exists. Raises UsageError for a revision
    that does not fit the source, and what hub.download raises.
    """
    location = _location(source, revision)
    if isinstance(location, Path):
        return location
    with _no_folder_either(source):
        return hub.download(*location, progress=progress)


def _location(source: str | Path, revision: str | None) -> Path | tuple[str, str | None]:
    """Return the path of a local source, or (repository, revision). Raises UsageError."""
    if source == "":
        raise UsageError("the source is empty")
    reference = _reference(source)
    if reference is None:
        if revision is not None:
            raise UsageError("is a local path, and --revision is for repositories on the Hub", path=source)
        return Path(source)
    repository, in_name = reference
    if revision is not None and in_name is not None and revision != in_name:
        raise UsageError(f"names the revision {in_name!r}, and --revision says {revision!r}", path=source)
    return repository, in_name or revision


@contextlib.contextmanager
def _no_folder_either(source: str | Path) -> Iterator[None]:
    """Let the error for a repository that is missing or cannot be reached say that there is no folder of that name."""
    try:
        yield
    except (NoSuchRepository, NetworkTrouble) as error:
        if not str(source).startswith("hf:"):  # a recipe's repository can be no folder
            error.hint = "; ".join(filter(None, [f"no folder {source!r} is here either", error.hint]))
        raise


def repository_name(source: str | Path) -> str | None:
    """Return NAME of a repository ORG/NAME on the Hub; None for a local path."""
    reference = _reference(source)
    return None if reference is None else reference[0].rpartition("/")[2]


def _reference(source: str | Path) -> tuple[str, str | None] | None:
    try:
        exists = Path(source).exists()
    except OSError as error:  # a name that no file system takes
        raise UsageError(f"{str(source)[:60]}... is not a path: {error.strerror}") from error
    return hub.parse_reference(source) if isinstance(source, str) and not exists else None


def open_source(
    source: str | Path, *, revision: str | None = None, progress: bool = False, remote: bool = False
) -> CheckpointFolder | GgufFile:
    """Return the source, opened.

    remote: leave the weights of a repository on the Hub, where they are read by range requests, instead of downloading
    them. Raises Unreadable, Unsupported, NetworkTrouble, IntegrityFailed, MissingRequirement, UsageError.
    """
    location = _location(source, revision)
    if remote and not isinstance(location, Path):
        with _no_folder_either(source):
            return hub.open_remote(*location, progress=progress)
    path = local_path(source, revision=revision, progress=progress)
    if not is_gguf(path):
        return CheckpointFolder(path)
    file = GgufFile(path)
    refuse_adapter(file)
    return file


def open_headers(source: str, repository: str, revision: str | None) -> CheckpointFolder | Path | list[RemoteFile]:
    """Open a repository of the Hub that a user calls `source`, without its weights: see hub.open_headers."""
    with _no_folder_either(source):
        return hub.open_headers(repository, revision)


def is_gguf(path: Path) -> bool:
    """Return whether this is a file that is a GGUF file, or is called one. Raises Unreadable."""
    if not path.exists() or path.is_dir():
        return False
    with open_input(path) as stream:
        return path.suffix == ".gguf" or stream.read(len(MAGIC)) == MAGIC
