"""What a bundle holds, proved in one reading or as its manifest says, without unpacking it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tritpack.converter.release.bundle.reader import open_bundle
from tritpack.converter.release.contents import Contents
from tritpack.converter.release.manifest import Manifest, check_folder
from tritpack.formats.progress import Progress, silent


@dataclasses.dataclass(frozen=True)
class Check:
    """A bundle or folder that is what its manifest lists. contents: by path. problems: the tensors whose codes could
    not be compared, since nothing here decodes them; their bytes were."""

    path: Path
    manifest: Manifest
    contents: dict[str, Contents]

    @property
    def tensors(self) -> int:
        """How many ternary tensors were decoded and have the codes that the manifest lists."""
        return sum(len(found.ternary.codes) for found in self.contents.values() if found.ternary)

    @property
    def problems(self) -> list[str]:
        return [f"{path}: {problem}" for path, found in self.contents.items() if found.ternary
                for problem in found.ternary.problems]  # fmt: skip


def check_bundle(path: str | Path, *, progress: Progress | None = None) -> Check:
    """Read a bundle once, or the folder that was made of it, and compare it with its manifest: every hash, and the
    codes of every ternary tensor. Nothing is unpacked.

    It finds accidents; whoever changes a bundle on purpose can change its manifest too. Raises IntegrityFailed naming
    the file or tensor that differs, is missing or is not listed; Unreadable for a bundle that is damaged or hostile.
    """
    path = Path(path)
    if path.is_dir():
        manifest, contents = check_folder(path, progress=progress)
        return Check(path, manifest, contents)
    with open_bundle(path) as bundle:
        found = {entry.path: contents for entry, contents in bundle.files(progress or silent, codes=True)}
        return Check(path, bundle.manifest, found)


def list_bundle(path: str | Path) -> Manifest:
    """Return the manifest of a bundle. Only the beginning of the bundle is read, and only the manifest is checked."""
    with open_bundle(path) as bundle:
        return bundle.manifest
