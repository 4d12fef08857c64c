"""A GGUF in a bundle as a FILE argument: BUNDLE, or BUNDLE#MEMBER where several GGUFs are in it."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tritpack.converter.release.bundle.archive import SUFFIX
from tritpack.converter.release.bundle.extract import files_in
from tritpack.converter.release.bundle.reader import open_bundle
from tritpack.converter.release.manifest import Manifest
from tritpack.formats.errors import UsageError, WriteFailed
from tritpack.formats.progress import Progress, silent
from tritpack.formats.split_files import first_part_of

MARK = f"{SUFFIX}#"


def bundle_in(reference: str) -> tuple[Path, str | None] | None:
    """Return the bundle that a FILE argument names, and the member if it names one; None if it names no bundle."""
    before, mark, member = reference.partition(MARK)
    if mark and not Path(reference).exists():
        return Path(before + SUFFIX), member
    if reference.endswith(SUFFIX) and not Path(reference).is_dir():
        return Path(reference), None
    return None


@contextlib.contextmanager
def unpacked_gguf(bundle: Path, member: str | None, *, progress: Progress | None = None) -> Iterator[Path]:
    """Yield the path of a GGUF that is unpacked from a bundle into a temporary folder, which is removed at the end; of
    a split one its first part, with the others beside it.

    member: its path in the bundle; None for the only one. What is unpacked has the hash that the manifest lists; the
    rest of the bundle is not read. Raises UsageError if the member is not in it or not named where there are several;
    WriteFailed if the disk has no room; Unreadable, IntegrityFailed.
    """
    with open_bundle(bundle) as reader, tempfile.TemporaryDirectory(prefix="tritpack-") as folder:
        first = choose(reader.manifest, member, bundle)
        wanted = {path for path in reader.manifest.files if first_part_of(path) == first}
        needed, free = sum(reader.manifest.files[path].nbytes for path in wanted), shutil.disk_usage(folder).free
        if needed > free:
            hint = "set TMPDIR to a folder on a larger disk, or use tritpack bundle extract"
            raise WriteFailed(f"needs {needed} bytes to be unpacked, {free} are free there", path=folder, hint=hint)
        left = set(wanted)
        try:
            for entry, _ in reader.files(progress or silent, sink=files_in(Path(folder), wanted)):
                left.discard(entry.path)
                if not left:
                    break
        except OSError as error:
            raise WriteFailed(f"cannot be unpacked: {error.strerror or error}", path=bundle) from error
        yield Path(folder) / first


def choose(manifest: Manifest, member: str | None, bundle: Path) -> str:
    """Return the path of a GGUF in a bundle, of a split one that of its first part. Raises UsageError with a list of
    what is there."""
    ggufs = sorted({first_part_of(path) for path in manifest.files if path.endswith(".gguf")})
    if not ggufs:
        raise UsageError("has no GGUF file", path=bundle)
    if member in ggufs:
        return member
    if member is None and len(ggufs) == 1:
        return ggufs[0]
    listed = ", ".join(ggufs)
    if member is None:
        hint = f"name one of them: {bundle}#{ggufs[0]}"
        raise UsageError(f"has {len(ggufs)} GGUF files: {listed}", path=bundle, hint=hint)
    raise UsageError(f"has no GGUF file {member!r}", path=bundle, hint=f"it has {listed}")
