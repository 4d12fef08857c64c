"""Engines: which of them runs a file right, and how a file is written for one.

The facts are the YAML files here, one per engine; table.py reads them. `describe` says what a file is, `verdicts` what
each engine makes of it, and `by_name` gives the engines that `--for` writes files for. README.md says how a line is
added. docs/engines.md shows the table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tritpack.formats.errors import UsageError

if TYPE_CHECKING:
    from tritpack.converter.targets.engines.engine import Engine
    from tritpack.converter.targets.engines.packed_model import PackedModel
    from tritpack.converter.targets.engines.verdict import Verdict
    from tritpack.formats.gguf_reader import GgufFile
    from tritpack.formats.model_spec import ModelSpec

NAMES = ("tritpack", "bitnet.cpp", "llama.cpp", "ik_llama.cpp", "prism")
"""What --for takes. Listed here so that --help imports no engine."""


def by_name(name: str) -> Engine:
    """Return the engine that --for calls so. Raises UsageError for an unknown one."""
    if name not in NAMES:
        raise UsageError(f"--for {name} is unknown", hint=f"choose one of: {', '.join(NAMES)}")
    from tritpack.converter.targets.engines import table
    from tritpack.converter.targets.engines.engine import Engine

    rows = ((row, row.target) for row in table.rows())
    return next(engine for row, target in rows if target and (engine := Engine(row, target)).name == name)


def describe(file: GgufFile, spec: ModelSpec | None) -> PackedModel:
    """Return what engines look at in a GGUF file, from its headers. spec: of the file; None if we cannot run it."""
    from tritpack.converter.targets.engines import packed_model

    return packed_model.describe(file, spec)


def verdicts(model: PackedModel) -> list[Verdict]:
    """Return what each engine, and each version of it, makes of a file."""
    from tritpack.converter.targets.engines import verdict

    return verdict.verdicts(model)
