"""A bundle to a folder."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from tritpack.converter.release.bundle.archive import SUFFIX
from tritpack.converter.release.bundle.reader import Sink, Write, open_bundle
from tritpack.converter.release.manifest import NAME, Entry
from tritpack.formats.errors import UsageError, WriteFailed
from tritpack.formats.files import lock, partial_of, refuse_impossible, remove_abandoned, require_space
from tritpack.formats.progress import Progress, silent

MARGIN = 1 << 20
"""Bytes that must be free besides those of the files."""


def extract_bundle(path: str | Path, output: str | Path | None = None, *, progress: Progress | None = None) -> Path:
    """Unpack a bundle into a new folder, and return it. output: default: the bundle's name without .tar.zst.

    The folder gets its name when every file in it has the hash that the manifest lists. Raises Unreadable for whatever
    is hostile or damaged, IntegrityFailed, UsageError if the folder exists, WriteFailed if the disk has no room.
    """
    path = Path(path)
    output = Path(path.name.removesuffix(SUFFIX) if output is None else output)
    refuse_impossible(output)
    if os.path.lexists(output):
        raise UsageError("exists already", path=output, hint="give the folder another name with -o")
    if not output.parent.is_dir():
        raise WriteFailed(f"the folder {output.parent} does not exist", path=output)
    with open_bundle(path) as bundle, _new_folder(output, bundle.manifest.nbytes) as folder:
        (folder / NAME).write_bytes(bundle.manifest.encoded())
        for _ in bundle.files(progress or silent, sink=files_in(folder, bundle.manifest.files)):
            pass
    return output


@contextlib.contextmanager
def _new_folder(path: Path, nbytes: int) -> Iterator[Path]:
    """A hidden folder that becomes `path` when the block ends without an error; after one, it is gone."""
    path = path.resolve()
    partial, descriptor = partial_of(path), None
    try:
        remove_abandoned(path)
        require_space(path, nbytes + MARGIN)
        partial.mkdir()
        descriptor = os.open(partial, os.O_RDONLY)
        lock(descriptor)
        yield partial
        if os.path.lexists(path):  # another process may have made it meanwhile
            raise UsageError("exists already", path=path, hint="give the folder another name with -o")
        os.rename(partial, path)
    except OSError as error:
        raise WriteFailed(f"cannot be written: {error.strerror or error}", path=path) from error
    finally:
        if descriptor is not None:
            os.close(descriptor)
        shutil.rmtree(partial, ignore_errors=True)


def files_in(folder: Path, wanted: Collection[str]) -> Sink:
    """Return what writes the wanted members to new files in a folder, for BundleReader.files."""

    @contextlib.contextmanager
    def sink(entry: Entry) -> Iterator[Write | None]:
        if entry.path not in wanted:
            yield None
            return
        path = folder / entry.path
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "xb") as stream:
            yield stream.write
            stream.flush()
            os.fsync(stream.fileno())

    return sink
