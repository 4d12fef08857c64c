"""Which engines run a file, for `tritpack inspect`."""

from __future__ import annotations

import dataclasses
from typing import Any

from tritpack.converter.targets.engines.packed_model import PackedModel, describe
from tritpack.converter.targets.engines.verdict import verdicts
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.model_spec import ModelSpec


def engine_verdicts(file: GgufFile, name: str, spec: ModelSpec | None) -> list[dict[str, Any]]:
    """Return what each engine makes of a file: engine, verdict, why, evidence, command. name: what commands call it."""
    return [verdict.as_json() for verdict in verdicts(dataclasses.replace(describe(file, spec), file=name))]


def checkpoint_verdicts(spec: ModelSpec, form: str, name: str) -> list[dict[str, Any]]:
    """Return what each engine makes of a checkpoint folder as it is, under the same keys; `command` is empty. form: how
    its linears are stored, as tritpack.source.form records it. name: what commands call it."""
    attention = spec.heads * spec.head_dim
    model = PackedModel(
        file=name,
        container="checkpoint",
        architecture=spec.architecture,
        activation=spec.activation,
        tied=spec.tied,
        int8_activations=spec.int8_activations,
        projection_norms=spec.projection_norms,
        hidden_size=spec.hidden_size,
        attention_size=attention,
        attention_fits=attention == spec.hidden_size,
        storage=form,
    )
    return [dataclasses.replace(verdict, command="").as_json() for verdict in verdicts(model)]
