"""Which engines run a file, for `tritpack inspect`."""

from __future__ import annotations

import dataclasses
from typing import Any

from tritpack.converter.targets.engines.packed_model import describe
from tritpack.converter.targets.engines.verdict import verdicts
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.model_spec import ModelSpec


def engine_verdicts(file: GgufFile, name: str, spec: ModelSpec | None) -> list[dict[str, Any]]:
    """Return what each engine makes of a file: engine, verdict, why, evidence, command. name: what commands call it."""
    return [verdict.as_json() for verdict in verdicts(dataclasses.replace(describe(file, spec), file=name))]
