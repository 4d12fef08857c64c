"""Where a source comes from: its repository and commit on the Hub, and what the README of the repository says of it.

The client's cache has both in the name of a folder, `models--ORG--NAME/snapshots/COMMIT`, so a download, a checkpoint
that stays on the Hub and a folder of the cache that was named by its path have the same origin. What a front matter
says is taken only if it is what it should be: it is text of others, and can be anything.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from tritpack.converter.model_names import name_parts, title
from tritpack.converter.sources.origin_keys import COMMIT_KEY, HUB, REPOSITORY_KEY
from tritpack.formats.errors import TritpackError
from tritpack.formats.inputs import open_input

CARD = "README.md"
LARGEST_FRONT_MATTER = 64 << 10
"""Bytes; the longest that models have are a tenth of it."""
LONGEST_TEXT, MOST_TEXTS = 200, 100
"""Characters of a value that is taken over, and how many values of one kind."""
SNAPSHOT = re.compile(r"models--([\w.-]+?)--([\w.-]+)/snapshots/([0-9a-f]{40}|[0-9a-f]{64})", re.ASCII)
MODEL = re.compile(rf"(?:{HUB})?(\w[\w.-]*)/(\w[\w.-]*)/?", re.ASCII)
ADDRESS = re.compile(r"https?://[^\s/]+(/\S*)?")
EMPTY = ("", "~", "null")


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where a source comes from.

    repository: ORG/NAME. commit: of the revision. card: front matter of the README, by GGUF key, as far as it is taken
    over. warnings: one line for everything in it that is not.
    """

    repository: str | None = None
    commit: str | None = None
    card: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def name(self) -> str | None:
        """NAME of the repository."""
        return self.repository and self.repository.rpartition("/")[2]

    def metadata(self) -> dict[str, Any]:
        """Return what a GGUF file records of it, by key."""
        record: dict[str, Any] = {}
        if self.repository is not None:
            at_commit = f"/tree/{self.commit}" if self.commit else ""
            record = {"general.source.url": f"{HUB}{self.repository}{at_commit}", REPOSITORY_KEY: self.repository}
        if self.commit is not None:
            record[COMMIT_KEY] = self.commit
        return {**record, **self.card}


def origin_of(folder: Path) -> Origin:
    """Return where the checkpoint in a folder comes from, as far as its path and its README say so."""
    repository, commit = snapshot_of(folder)
    front_matter, warnings = read_front_matter(folder / CARD)
    card, left_out = _taken_over(front_matter)
    if left_out:
        warnings = (*warnings, f"{CARD}: not all of {', '.join(left_out)} is what the Hub expects there")
    return Origin(repository, commit, card, warnings)


def recorded_origin(metadata: Mapping[str, Any]) -> Origin:
    """Return the repository and the commit that a GGUF file records."""
    repository, commit = (metadata.get(key) for key in (REPOSITORY_KEY, COMMIT_KEY))
    return Origin(repository if isinstance(repository, str) else None, commit if isinstance(commit, str) else None)


def snapshot_of(path: Path) -> tuple[str, str] | tuple[None, None]:
    """Return (ORG/NAME, commit) for a folder of the client's cache or a file in one, (None, None) for any other."""
    try:
        folder = path if path.is_dir() else path.parent
        match = SNAPSHOT.fullmatch("/".join(folder.resolve().parts[-3:]))
    except (OSError, RuntimeError, ValueError):  # a loop of links, or no name at all
        match = None
    return (f"{match[1]}/{match[2]}", match[3]) if match else (None, None)


# -- the front matter --------------------------------------------------------------------------------------------------


class _Strings(yaml.BaseLoader):
    """Reads every scalar as text, so `no` is Norwegian; an alias, of which a few make gigabytes, is an error."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias")
        return super().compose_node(parent, index)


def read_front_matter(path: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the front matter of a README, all scalars as text, and why it could not be read. ({}, ()) if there is
    none."""
    if not path.is_file():
        return {}, ()
    try:
        with open_input(path) as stream:
            data = stream.read(LARGEST_FRONT_MATTER).removeprefix(b"\xef\xbb\xbf")
        lines = data.replace(b"\r\n", b"\n").split(b"\n")
        if lines[0].rstrip() != b"---":
            return {}, ()
        end = next((index for index, line in enumerate(lines[1:], 1) if line.rstrip() == b"---"), None)
        if end is None:
            raise ValueError(f"it does not end within {LARGEST_FRONT_MATTER >> 10} KiB")
        text = b"\n".join(lines[1:end]).decode("utf-8").replace("\t", "  ")  # tabs, which YAML forbids, are met
        value = yaml.load(text, _Strings)  # which makes nothing but texts, lists and dictionaries
    except (TritpackError, OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        return {}, (f"{path.name}: its front matter cannot be read: {_one_line(error)}",)
    if value is None or value == "":
        return {}, ()
    if not isinstance(value, dict):
        return {}, (f"{path.name}: its front matter is not a list of keys",)
    return value, ()


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:LONGEST_TEXT] or type(error).__name__


def _taken_over(front_matter: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return what a front matter gives to a GGUF file, by its key, and the names of what is not as it should be."""
    card: dict[str, Any] = {}
    left_out = []
    for name, convert in CONVERTED.items():
        value = front_matter.get(name)
        if value is None or value in EMPTY or value == []:
            continue
        taken, complete = convert(value)
        for key, part in taken.items():
            card[key] = [*card[key], *part] if isinstance(card.get(key), list) else part
        if not complete:
            left_out.append(name)
    return {key: [*dict.fromkeys(v)] if isinstance(v, list) else v for key, v in card.items()}, left_out


Taken = tuple[dict[str, Any], bool]
"""Values by GGUF key, and whether all of what was there is among them."""


def _texts(value: Any) -> tuple[list[str], bool]:
    """Return the texts of a value, which is one or a list of them, and whether it holds nothing else."""
    values = value if isinstance(value, list) else [value]
    texts = [text.strip() for text in values if isinstance(text, str)]
    fit = [text for text in texts if 0 < len(text) <= LONGEST_TEXT and text.isprintable()][:MOST_TEXTS]
    return fit, len(fit) == len(values)


def _joined(key: str) -> Callable[[Any], Taken]:
    def convert(value: Any) -> Taken:
        texts, complete = _texts(value)
        return {key: ",".join(texts)} if texts else {}, complete

    return convert


def _listed(key: str) -> Callable[[Any], Taken]:
    def convert(value: Any) -> Taken:
        texts, complete = _texts(value)
        return {key: texts} if texts else {}, complete

    return convert


def _base_models(value: Any) -> Taken:
    models, complete = _texts(value)
    record: dict[str, Any] = {"general.base_model.count": len(models)} if models else {}
    for index, model in enumerate(models):
        for part, text in _base_model(model).items():
            record[f"general.base_model.{index}.{part}"] = text
    return record, complete


def _base_model(model: str) -> dict[str, str]:
    """Return what is known of a base model that is named as ORG/NAME, by an address, or in words."""
    if match := MODEL.fullmatch(model):
        known = {"name": title(match[2]), "organization": title(match[1]), "version": name_parts(match[2]).version}
        return {**{key: text for key, text in known.items() if text}, "repo_url": f"{HUB}{match[1]}/{match[2]}"}
    return {"repo_url": model} if ADDRESS.fullmatch(model) else {"name": model}


CONVERTED: dict[str, Callable[[Any], Taken]] = {
    "base_model": _base_models,
    "license": _joined("general.license"),
    "license_name": _joined("general.license.name"),
    "license_link": _joined("general.license.link"),
    "tags": _listed("general.tags"),
    "pipeline_tag": _listed("general.tags"),
    "language": _listed("general.languages"),
}
"""Keys of a front matter, and what makes values of a GGUF file from each."""
