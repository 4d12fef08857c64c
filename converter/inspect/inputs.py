"""What `tritpack inspect` takes: a file or folder here, or one that stays on the Hub or at an address.

Of what stays elsewhere, headers alone are read. What reads it takes time to import, and a GGUF here needs none of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tritpack.formats.errors import Unreadable, Unsupported, UsageError
from tritpack.formats.gguf_reader import GgufFile, ReadOptions

MOST_FILES = 12
"""Files of a repository that are shown in a table; each has a header of several megabytes."""

if TYPE_CHECKING:
    from tritpack.converter.sources.checkpoint import CheckpointFolder
    from tritpack.converter.sources.range_file import RangeFile


def open_any(file: str | Path, *, stats: bool = False, plain: bool = False) -> GgufFile | CheckpointFolder:
    """Open what an argument names: a path, ORG/NAME[@REVISION], a file in it, or an http(s) address.

    stats: all weights will be read, so what is on the Hub is downloaded, and an address is refused. plain: of a file
    here, see ReadOptions. Raises Unreadable,
    Unsupported, UsageError, NetworkTrouble, IntegrityFailed, MissingRequirement.
    """
    path = Path(file)
    if path.exists() or not isinstance(file, str):
        return _here(path, plain=plain)
    from tritpack.converter.sources import hub
    from tritpack.converter.sources.url_file import UrlFile, is_address

    if (named := hub.parse_file(file)) is not None:
        return _of_hub(named, stats)
    if (repository := hub.parse_reference(file)) is not None:
        if stats:
            from tritpack.converter.sources.open import local_path

            return _here(local_path(file, progress=True))
        from tritpack.converter.sources.open import open_headers

        return _opened(open_headers(file, *repository))
    if not is_address(file):
        return _here(path)
    if stats:
        raise UsageError("--stats reads all weights, and these stay on the server", path=file,
                         hint="fetch the file, and give its path")  # fmt: skip
    return _opened([UrlFile(file)])


def files_named_by(error: Unsupported, file: str) -> list[str]:
    """Return arguments for the GGUF files of a repository that holds several, which is what an error says of `file`.
    Raises the error if it says another thing, or if they are more than MOST_FILES: a header of each is read."""
    names = getattr(error, "names", None)
    if not names or len(names) > MOST_FILES:
        raise error
    from tritpack.converter.sources.hub import parse_reference

    repository, revision = parse_reference(file) or (file, None)
    at = f"@{revision}" if revision else ""
    return [f"hf:{repository}{at}/{name}" for name in names]


def place_of(source: GgufFile) -> dict[str, str | None] | None:
    """Return where a file is that is not here: repository and commit on the Hub, or its address; None for one here."""
    files = getattr(source, "ranges", None)
    if files is None:
        return None
    repository = getattr(files[0], "repository", None)
    on_hub = {"repository": repository.repo, "commit": repository.commit} if repository else {}
    return {"repository": None, "commit": None, **on_hub, "url": files[0].shown}


def _here(path: Path, *, plain: bool = False) -> GgufFile | CheckpointFolder:
    """Open a file or folder of this machine. plain: see ReadOptions."""
    is_folder = path.is_dir()
    if not is_folder and path.suffix != ".safetensors":
        return GgufFile(path, ReadOptions(any_part=True, plain=plain))
    from tritpack.converter.sources.checkpoint import CheckpointFolder
    from tritpack.converter.sources.weight_file import WeightFile, of_a_folder

    if is_folder:
        return CheckpointFolder(path)
    if not path.is_file():
        raise Unreadable("does not exist", path=path)
    return CheckpointFolder(path.parent) if of_a_folder(path) else WeightFile(path)


def _of_hub(named: tuple[str, str | None, str], stats: bool) -> GgufFile | CheckpointFolder:
    from tritpack.converter.sources import hub

    return _here(hub.download_file(*named)) if stats else _opened(hub.open_parts(*named))


def _opened(opened: CheckpointFolder | Path | Sequence[RangeFile]) -> GgufFile | CheckpointFolder:
    """Open the files of a GGUF, or one of safetensors, that stay where they are."""
    if isinstance(opened, Path):
        return _here(opened)
    from tritpack.converter.sources.checkpoint import CheckpointFolder

    if isinstance(opened, CheckpointFolder):
        return opened
    from tritpack.converter.sources.remote_gguf import RemoteGguf
    from tritpack.converter.sources.weight_file import SUFFIX, WeightFile

    return WeightFile(opened[0]) if opened[0].name.endswith(SUFFIX) else RemoteGguf(opened)
