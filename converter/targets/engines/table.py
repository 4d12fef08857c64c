"""The table of engines: the YAML files of this folder, one per engine, as values.

about, url: for people. inside: programs that run models with it. target: how `--for` writes files for it, if it does.
produce: the command that makes a file for it; produces: the layouts of that file, if there is no target; produces_not:
the models for which that command fails. container: what is made for it; reads: all that it reads, if that is more;
storage: how a folder that is made for it stores linears.
evidence: how what is said of its types, graphs and containers was found. types: the type ids that it knows -> the
layout that it takes each for. graphs: the architectures that it runs -> the activation function that each computes.
rules: what follows from what a file is, a verdict each. notes: what to know of a file that it runs. versions: builds
that differ, whose keys replace those of the engine, but for rules, notes and evidence, which are added.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tritpack.converter.targets.engines.conditions import When
from tritpack.converter.yaml_tables import read_table
from tritpack.formats.gguf_header import CACHE_LINE

FILES = (
    "tritpack", "bitnet_cpp", "llama_cpp", "ik_llama_cpp", "prismml", "bitnet_c", "transformers", "vllm", "mlx",
)  # fmt: skip
"""The YAML files in the order in which engines are shown."""


BITNET = ("bitnet-b1.58", "bitnet")
"""The two architectures of BitNet's graph; the engines' differ in their activation function."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """One line of the table: what an engine does with a file of this kind.

    verdict: right, wrong or refuses. why: what goes wrong, a clause with the engine as `it`; fields of PackedModel in
    braces. general: the same where no file is at hand, if that needs other words. evidence: how it was tried, or where
    it was read. command: mends the file, if that is all it needs.
    """

    verdict: str
    when: When
    evidence: str
    why: str = ""
    command: str = ""
    general: str = ""


@dataclasses.dataclass(frozen=True)
class Note:
    """What to know of a file that an engine runs. The texts stand in files (`tritpack.warnings`): changing one changes
    the bytes of an output. evidence, general: as of a rule."""

    when: When
    text: str
    evidence: str = ""
    general: str = ""


@dataclasses.dataclass(frozen=True)
class Target:
    """How a file is written for an engine.

    name: what --for calls it, if not by the engine's name. version: for which files are written, of several.
    layouts: those that it loads and runs, best first; None for all. run: the command that continues a prompt with
    {file}, as its users type it. renamed: architectures that it knows by another name. scales_apart: architectures
    in which it multiplies by a tensor NAME.scale. ternary_tables: whether it runs an embedding or head in one of
    its layouts. alignment: of the tensors, in bytes; less than ours where it, or a tool of it, cannot do with that.
    """

    layouts: tuple[str, ...] | None
    run: str
    name: str = ""
    version: str = ""
    renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    scales_apart: tuple[str, ...] = ()
    ternary_tables: bool = False
    alignment: int = CACHE_LINE


@dataclasses.dataclass(frozen=True)
class Row:
    """An engine, or one version of it; the fields are those of the YAML files."""

    name: str
    about: str
    url: str
    produce: str
    evidence: Mapping[str, str]
    container: str = "gguf"
    reads: tuple[str, ...] = ()
    storage: str = "packed"
    produces: tuple[str, ...] = ()
    produces_not: tuple[When, ...] = ()
    inside: tuple[str, ...] = ()
    target: Target | None = None
    types: Mapping[int, str | list[str]] = dataclasses.field(default_factory=dict)
    graphs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    notes: tuple[Note, ...] = ()
    versions: tuple[Row, ...] = ()

    def all_versions(self) -> tuple[Row, ...]:
        """Return its versions, or itself if it has but one."""
        return self.versions or (self,)


def architecture_for(target: Target | None, architecture: str, activation: str | None) -> str:
    """Return the architecture that a file for an engine names."""
    if target is None or target.layouts is None or architecture not in BITNET:
        return architecture
    written = "bitnet" if activation == "silu" else "bitnet-b1.58"
    return target.renamed.get(written, written)


@functools.cache
def row(file: str) -> Row:
    """Return the engine in one of FILES."""
    document = read_table(Path(__file__).with_name(f"{file}.yaml"))
    versions = document.pop("versions", ())
    engine = _row(document)
    return dataclasses.replace(engine, versions=tuple(_version(document, version) for version in versions))


def rows() -> tuple[Row, ...]:
    """Return every engine, in the order of FILES."""
    return tuple(map(row, FILES))


def _version(document: Mapping[str, Any], version: Mapping[str, Any]) -> Row:
    added = {key: [*document.get(key, ()), *version.get(key, ())] for key in ("rules", "notes")}
    evidence = {**document["evidence"], **version.get("evidence", {})}
    return _row({**document, **version, **added, "evidence": evidence})


def _row(document: Mapping[str, Any]) -> Row:
    values = dict(document)
    values["rules"] = tuple(Rule(**rule) for rule in document.get("rules", ()))
    values["notes"] = tuple(Note(**note) for note in document.get("notes", ()))
    values["types"] = {int(type_id): layout for type_id, layout in document.get("types", {}).items()}
    for key in ("produces", "produces_not", "reads", "inside"):
        values[key] = tuple(document.get(key, ()))
    if target := document.get("target"):
        lists = {key: tuple(value) for key, value in target.items() if isinstance(value, list)}
        values["target"] = Target(**{**target, **lists})
    return Row(**values)
