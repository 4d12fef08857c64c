"""What belongs to a release besides its GGUF files: attestations, card, recipe, tokenizer, manifest, bundle."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tritpack.converter.convert import RunOptions
from tritpack.converter.release.recipe.proof import report_folder
from tritpack.converter.release.recipe.reader import Document, yaml_text
from tritpack.converter.release.recipe.recipe import Recipe
from tritpack.converter.sources.checkpoint import HASHED_FILES, CheckpointFolder
from tritpack.converter.sources.origin import snapshot_of
from tritpack.formats.errors import MissingRequirement, Unreadable
from tritpack.formats.files import atomic_output
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.inputs import read_input
from tritpack.formats.split_files import name_of_set

CARD, RECIPE, MANIFEST = "README.md", "recipe.yaml", "manifest.json"
TOKENIZER = tuple(
    name for name in HASHED_FILES if name not in ("config.json", "generation_config.json", "modules.json")
)
"""The files of a checkpoint that its tokenizer is made of."""
LICENCE = re.compile(r"(LICEN[CS]E|NOTICE)[\w.-]*", re.IGNORECASE | re.ASCII)
HEAD = "# As it was run: with the commit and the hash of the source, and without comments.\n"
REPORTS = ("report.json", "report.md", "junit.xml", "report.html")


def proof_files(recipe: Recipe, first: str) -> list[str]:
    """Return the paths of what the proof of an output writes. first: the name of its file, or of its first part."""
    stem = name_of_set(first)
    bill = [f"{stem}.cdx.json"] if recipe.package.bill_of_materials else []
    return [f"{stem}.intoto.json", *bill, *(f"{report_folder(first)}/{name}" for name in REPORTS)]


def attest(recipe: Recipe, folder: Path, first: str, report: Any) -> None:
    """Write the attestation of an output whose report passed and, if the recipe wants it, its bill of materials."""
    from tritpack.converter.release.attestation import write_attestation

    attestation = folder / f"{name_of_set(first)}.intoto.json"
    write_attestation(report, attestation, file=folder / first, force=True)
    if recipe.package.bill_of_materials:
        from tritpack.converter.release.bill_of_materials import write_bill_of_materials

        bill = folder / f"{name_of_set(first)}.cdx.json"
        write_bill_of_materials(bill, file=folder / first, attestation=attestation, force=True)


def require_extras(recipe: Recipe) -> None:
    """Raise MissingRequirement, before any work, if the recipe wants something that cannot be written here."""
    if recipe.package.bill_of_materials:
        from tritpack.converter.release.bill_of_materials import require_extra

        require_extra()
    if recipe.package.bundle:
        try:
            import zstandard  # noqa: F401
        except ImportError as error:
            raise MissingRequirement("a bundle needs zstandard", hint="pip install zstandard") from error


class Package:
    """What comes after the proof. steps: in order, the paths in the folder that each of them writes."""

    def __init__(
        self, document: Document, folder: Path, source: CheckpointFolder | GgufFile, commit: str | None
    ) -> None:
        self._recipe, self._folder = document.recipe, folder
        # A GGUF has its tokenizer inside.
        self._copies = _copies(self._recipe, source.folder) if isinstance(source, CheckpointFolder) else {}
        resolved = {"source.sha256": source.sha256, **({"source.revision": commit} if commit else {})}
        self.recipe_text = f"{HEAD}{yaml_text(document.root, resolved)}"
        self.bundle = folder.with_name(f"{folder.name}.tar.zst") if self._recipe.package.bundle else None
        self.steps = {"documents": [*self._copies, RECIPE, CARD], "manifest": [MANIFEST]}
        if self.bundle is not None:
            self.steps["bundle"] = [f"../{self.bundle.name}"]

    def write(self, step: str, options: RunOptions) -> None:
        """Do one of the steps."""
        {"documents": self._documents, "manifest": self._manifest, "bundle": self._bundle}[step](options)

    def _documents(self, options: RunOptions) -> None:
        from tritpack.converter.release.card import write_card

        for name, path in self._copies.items():
            (self._folder / name).parent.mkdir(exist_ok=True)
            with atomic_output(self._folder / name, path.stat().st_size, force=True) as stream:
                stream.write(read_input(path))
        data = self.recipe_text.encode("utf-8")
        with atomic_output(self._folder / RECIPE, len(data), force=True) as stream:
            stream.write(data)
        licence = {} if self._recipe.license is None else {"license": self._recipe.license}
        write_card(self._folder, text=self._recipe.card.text, front_matter=licence, force=True)

    def _manifest(self, options: RunOptions) -> None:
        from tritpack.converter.release.manifest import write_manifest

        write_manifest(self._folder, name=self._recipe.name, force=True)

    def _bundle(self, options: RunOptions) -> None:
        from tritpack.converter.release.bundle.create import create_bundle

        assert self.bundle is not None
        create_bundle(self._folder, self.bundle, threads=options.threads, force=True, progress=options.progress)


def _copies(recipe: Recipe, source: Path) -> dict[str, Path]:
    """Return what the release takes over from a checkpoint folder as it is: path in the release -> file.

    Raises Unreadable for a link that leads out of the folder: a stranger's checkpoint may not have a file of this
    machine published.
    """
    tokenizer = {f"tokenizer/{name}": source / name for name in TOKENIZER if recipe.package.tokenizer}
    licences = {path.name: path for path in sorted(source.iterdir()) if LICENCE.fullmatch(path.name)}
    wanted = {**tokenizer, **(licences if recipe.package.license else {})}
    copies = {name: path for name, path in wanted.items() if path.is_file()}
    # The client's cache links a snapshot to the blobs beside it.
    home = source.resolve().parents[1] if snapshot_of(source)[0] else source.resolve()
    for path in copies.values():
        if not path.resolve().is_relative_to(home):
            message = f"is a link to {path.resolve()}, and a release takes over no file from outside of its source"
            raise Unreadable(message, path=path, hint="put a copy in its place")
    return copies
