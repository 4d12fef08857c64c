"""A folder to a bundle."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tritpack.converter.release.bundle.archive import (
    END,
    SUFFIX,
    all_entries,
    archive_size,
    header_of,
    new_compressor,
    padding_of,
)
from tritpack.converter.release.contents import ContentsReader, Meter, TernaryPart
from tritpack.converter.release.manifest import (
    NAME,
    Entry,
    Manifest,
    check_listed,
    manifest_of,
    read_manifest,
    release_files,
)
from tritpack.formats.errors import TritpackError, UsageError
from tritpack.formats.files import atomic_output, refuse_existing
from tritpack.formats.gguf_stream import Read
from tritpack.formats.inputs import open_input
from tritpack.formats.progress import Progress, silent


@dataclasses.dataclass(frozen=True)
class Creation:
    """The result of create_bundle. nbytes: of the bundle. ternary: of each GGUF, with what its ternary tensors take
    when they are compressed by themselves. left_out: hidden files of the folder."""

    output: Path
    nbytes: int
    manifest: Manifest
    ternary: dict[str, TernaryPart]
    left_out: list[str]


def create_bundle(
    folder: str | Path,
    output: str | Path,
    *,
    threads: int = 0,
    force: bool = False,
    progress: Progress | None = None,
) -> Creation:
    """Write the files of a folder, with their manifest, as one NAME.tar.zst.

    Its bytes depend on the files' paths and bytes alone, for one version of zstd. A manifest.json in the folder is what
    the files are compared with, and goes into the bundle; without one it is made. threads: 0 is one per core.
    Raises IntegrityFailed if the folder is not what its manifest lists, Unreadable, UsageError, WriteFailed.
    """
    folder, output = Path(folder), Path(output)
    if not output.name.endswith(SUFFIX):
        raise UsageError(f"expected a name that ends in {SUFFIX}", path=output)
    paths, left_out = release_files(folder)
    if output.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"lies in the folder {folder} that is bundled", path=output)
    refuse_existing(output, force=force)
    if (folder / NAME).exists():
        manifest = read_manifest(folder)
        check_listed(folder, manifest)
    else:
        manifest = manifest_of(folder, progress=progress)
    if not manifest.files:
        raise UsageError("has no files", path=folder)
    entries = all_entries(manifest)
    size = archive_size(entries)
    with atomic_output(output, sum((folder / path).stat().st_size for path in paths), force=force) as stream:
        compressor = new_compressor(threads, size)
        ternary = _write(folder, manifest, lambda data: stream.write(compressor.compress(data)), threads, progress)
        stream.write(compressor.flush())
        nbytes = stream.tell()
    return Creation(output, nbytes, manifest, ternary, left_out)


def _write(
    folder: Path, manifest: Manifest, write: Callable[[Any], Any], threads: int, progress: Progress | None
) -> dict[str, TernaryPart]:
    """Write the archive, and compare each file with the manifest meanwhile. Returns what the GGUFs hold."""
    report, done, ternary = progress or silent, 0, {}
    reader = ContentsReader(new_meter=lambda: Meter(new_compressor(threads)))
    document = manifest.encoded()
    write(header_of(Entry(NAME, len(document), "")) + document + padding_of(len(document)))
    for entry in manifest.files.values():
        report(entry.path, done, manifest.nbytes)
        write(header_of(entry))
        try:
            with open_input(folder / entry.path) as stream:
                contents = reader.read(entry.path, entry.nbytes, _written(stream.read, entry.nbytes, write))
            manifest.compare(entry, contents)
        except TritpackError as error:
            error.path = error.path or folder
            error.hint = error.hint or f"remove {NAME} to have it written anew, if the files are as they should be"
            raise
        write(padding_of(entry.nbytes))
        if contents.ternary is not None:
            ternary[entry.path] = contents.ternary
        done += entry.nbytes
    write(END)
    report("", done, done)
    return ternary


def _written(read: Read, nbytes: int, write: Callable[[bytes], Any]) -> Read:
    """Read a file, and write what was read; not more than its header says, should the file grow meanwhile."""
    left = nbytes

    def read_and_write(count: int) -> bytes:
        nonlocal left
        data = read(count)
        write(data[:left])
        left -= min(left, len(data))
        return data

    return read_and_write
