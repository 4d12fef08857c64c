"""Which engines run a file, for `tritpack inspect`."""

from __future__ import annotations

import dataclasses
from typing import Any

from tritpack.converter.targets.engines import table
from tritpack.converter.targets.engines.packed_model import PackedModel, describe
from tritpack.converter.targets.engines.verdict import WRONG, judge, type_id_of, verdicts
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.layouts import catalog
from tritpack.formats.model_spec import ModelSpec
from tritpack.formats.names import LAYOUTS


def engine_verdicts(file: GgufFile, name: str, spec: ModelSpec | None) -> list[dict[str, Any]]:
    """Return what each engine makes of a file: engine, verdict, why, evidence, command. name: what commands call it."""
    return [verdict.as_json() for verdict in verdicts(dataclasses.replace(describe(file, spec), file=name))]


def nonsense_as(file: GgufFile, spec: ModelSpec | None) -> list[str]:
    """Return the engines that would load a rotated file in another layout and talk nonsense, with what is built on
    them, as `ENGINE (as LAYOUT)`; none for other files."""
    model = describe(file, spec)
    if not model.rotated or not model.grids:
        return []
    found = []
    for engine in table.rows():
        for version in engine.all_versions():
            layouts = [name for name in LAYOUTS if _is_nonsense(version, model, name)]
            if layouts and judge(version, model).verdict != WRONG:
                beside = f" and {', '.join(engine.inside)}" if engine.inside else ""
                found.append(f"{version.name}{beside} (as {', '.join(layouts)})")
    return found


def _is_nonsense(row: table.Row, model: PackedModel, layout: str) -> bool:
    """Whether an engine loads the model in a layout and runs it wrong."""
    if not all(grid.fits(catalog.LAYOUTS[layout]) for grid in model.grids):
        return False
    made = dataclasses.replace(model, types=((type_id_of(row, layout), layout),), layouts=(layout,))
    return judge(row, made).verdict == WRONG


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
        rotated=spec.rotation is not None,
        storage=form,
    )
    return [dataclasses.replace(verdict, command="").as_json() for verdict in verdicts(model)]
