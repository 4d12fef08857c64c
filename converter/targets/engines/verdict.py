"""What each engine of the table makes of a file: right, wrong, refuses, or unknown; and why."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tritpack.converter.targets.engines import table
from tritpack.converter.targets.engines.conditions import holds, in_words, listed
from tritpack.converter.targets.engines.packed_model import PackedModel
from tritpack.converter.targets.engines.table import BITNET, Row, Rule, architecture_for
from tritpack.formats.layouts.catalog import LAYOUTS, type_of

APOSTROPHE_S = "'s"
RIGHT, WRONG, REFUSES, UNKNOWN = "right", "wrong", "refuses", "unknown"
ACTIVATIONS = {"relu2": "squared ReLU", "silu": "SiLU", "gelu_pytorch_tanh": "GELU"}
"""What people call the activation functions."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What one engine makes of one file.

    engine: its name, with the version where versions differ. verdict: right, wrong (it runs another model, or aborts),
    refuses, or unknown (nobody tried). why: the reason, with the engine as `it`; of a file that runs right, what to
    know. evidence: how it was tried, or where it was read. command: makes a file that this engine runs right; "" if it
    runs this one, or none of this model. impossible: why there is no such command.
    """

    engine: str
    verdict: str
    why: str = ""
    evidence: str = ""
    command: str = ""
    impossible: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return its fields."""
        return dataclasses.asdict(self)


def verdicts(model: PackedModel) -> list[Verdict]:
    """Return what each engine, and each version of it, makes of a file."""
    return [verdict_of(version, model) for engine in table.rows() for version in engine.all_versions()]


def verdict_of(row: Row, model: PackedModel) -> Verdict:
    """Return what one engine makes of a file, and the command that makes one for it."""
    judged = judge(row, model)
    if judged.verdict == RIGHT:
        return judged
    command = _command(row, model)
    return dataclasses.replace(judged, command=command, impossible="" if command else _impossible(row, model))


def judge(row: Row, model: PackedModel) -> Verdict:
    """Return the same without the command."""
    rules = list(matching(row, model))
    for verdict in (REFUSES, WRONG):
        if same := [rule for rule in rules if rule.verdict == verdict]:
            why = "; ".join(_sentence(rule, model) for rule in same)
            return Verdict(row.name, verdict, why, "; ".join(dict.fromkeys(rule.evidence for rule in same)))
    notes = "; ".join(dict.fromkeys(notes_on(row, model)))
    if right := [rule for rule in rules if rule.verdict == RIGHT]:
        return Verdict(row.name, RIGHT, notes, right[0].evidence)
    return Verdict(row.name, UNKNOWN, "nobody has tried this kind of file with it")


def _command(row: Row, model: PackedModel) -> str:
    """Return the command that makes a file which this engine runs right, as far as is known; "" if there is none."""
    rules = [rule for rule in matching(row, model) if rule.verdict != RIGHT]
    path = Path(model.file)
    if rules and all(rule.command for rule in rules):
        return rules[0].command.format(file=shlex.quote(str(path)))
    layout = next((made for made in _candidates(row, model) if _may_run(row, model, made)), None)
    can_make = model.runnable or (model.foreign and row.container == "gguf")
    can_make &= not any(holds(when, model) for when in row.produces_not)
    if layout is None or not (can_make and model.ternary):
        return ""
    made = path.with_name(f"{path.stem}-{row.name.split()[0].lower().removesuffix(APOSTROPHE_S)}")
    names = {"file": path, "output": f"{made}.gguf", "folder": made}
    command = row.produce.format(layout=layout, **{key: shlex.quote(str(name)) for key, name in names.items()})
    return command + (" --allow-scale-rounding" if _rounds(row, model, layout) else "")


def _rounds(row: Row, model: PackedModel, layout: str) -> bool:
    """Whether a layout rounds the scales of a model, which takes a flag; as tensors NAME.scale they stay exact."""
    architecture = architecture_for(row.target, model.architecture or "", model.activation)
    apart = row.target is not None and architecture in row.target.scales_apart
    apart &= all(grid.blocks == (1, 1) for grid in model.grids)
    return row.container == "gguf" and LAYOUTS[layout].half_scales and not apart and model.has_half_scales() is False


def _candidates(row: Row, model: PackedModel) -> list[str]:
    """Return the layouts for an engine that hold the model; of those of --for the one that --outtype auto takes."""
    holding = [layout for layout in _layouts_for(row) if all(grid.fits(LAYOUTS[layout]) for grid in model.grids)]
    return holding[:1] if row.target else holding


def _layouts_for(row: Row) -> tuple[str, ...]:
    return row.produces or (row.target.layouts if row.target else None) or ("t2",)


def _may_run(row: Row, model: PackedModel, layout: str) -> bool:
    return judge(row, _as_made(row, model, layout)).verdict not in (WRONG, REFUSES)


def _impossible(row: Row, model: PackedModel) -> str:
    """Return why no file of a model that we run can be made for an engine, a clause with the engine as `it`."""
    if not (model.runnable and model.ternary):
        return ""
    if candidates := _candidates(row, model):
        made = _as_made(row, model, candidates[0])
        if lacking := lacking_graph(row, model.activation, made.architecture):
            return f"{lacking}, whatever the layout"
        judged = judge(row, made)
        if judged.verdict in (WRONG, REFUSES):
            return judged.why
        command, what = row.produce.split(), next(in_words(when) for when in row.produces_not if holds(when, model))
        return f"tritpack {command[1]} {' '.join(command[-2:])} does not write {what}"
    finest = min((grid.cols // grid.blocks[1] for grid in model.grids if grid.blocks[1] > 1), default=None)
    groups = f"one scale per {finest} weights" if finest else "its shapes"
    return f"none of its layouts ({', '.join(_layouts_for(row))}) holds {groups}"


def lacking_graph(row: Row, activation: str | None, architecture: str | None, it: str = "it") -> str:
    """Return that no graph of an engine for BitNet has an activation function; "" if one has, or for other models."""
    if not row.graphs or activation is None or architecture not in BITNET:
        return ""
    has = {graph for name, graph in row.graphs.items() if name.startswith("bitnet")}
    return "" if activation in has else f"{it} has no BitNet graph with {ACTIVATIONS.get(activation, activation)}"


def _as_made(row: Row, model: PackedModel, layout: str) -> PackedModel:
    """Return what the file would be that `produce` makes, in one of the engine's layouts."""
    return dataclasses.replace(
        model,
        container=row.container,
        architecture=architecture_for(row.target, model.architecture or "", model.activation),
        types=((type_id_of(row, layout), layout),),
        layouts=(layout,),
        storage=row.storage,
        scales_apart=row.target is not None and model.scales_apart,
        missing=(),
    )


def type_id_of(row: Row, layout: str) -> int:
    """Return the type id that an engine has for a layout, else the usual one."""
    own = (type_id for type_id, names in row.types.items() if layout in listed(names))
    return next(own, type_of(layout).type_id)


def deviations(row: Row, model: PackedModel) -> Iterator[str]:
    """Yield why an engine would not run the model of a file as it is, one clause each, with the engine as `it`."""
    for rule in matching(row, model):
        if rule.verdict != RIGHT:
            yield _sentence(rule, model)


def notes_on(row: Row, model: PackedModel) -> Iterator[str]:
    """Yield what to know of a file that an engine runs."""
    for layout in model.layouts or ("",):
        for note in row.notes:
            if holds(note.when, dataclasses.replace(model, layouts=(layout,))):
                yield note.text.format(**_fields(model, layout))


def matching(row: Row, model: PackedModel) -> Iterator[Rule]:
    """Yield every rule that applies to a file: those that follow from containers, types and graphs, then its own."""
    if model.container not in (row.reads or (row.container,)):
        yield Rule(REFUSES, {}, row.evidence.get("container", ""), _CONTAINERS[row.container])
        return
    if model.container == "gguf":
        yield from _type_rules(row, model)
        yield from _graph_rules(row, model)
    for rule in row.rules:
        if holds(rule.when, model):
            yield rule


_CONTAINERS = {"gguf": "it reads GGUF files, not checkpoint folders", "checkpoint": "it reads checkpoint folders"}


def _type_rules(row: Row, model: PackedModel) -> Iterator[Rule]:
    own = [layout for rule in row.rules for layout in _about(rule) if rule.verdict != RIGHT and holds(rule.when, model)]
    for type_id, layout in model.types:
        taken = row.types.get(type_id)
        if layout in listed(taken) or layout in FLOATS or (taken is None and layout in own):
            continue
        if taken is None:
            why = f"it does not know type id {type_id} ({layout})"
        else:
            names = " or ".join(listed(taken))
            why = f"it takes type id {type_id}, {layout} here, for {names}, whose size is another"
        yield Rule(REFUSES, {}, row.evidence.get("types", ""), why)


FLOATS = frozenset({"f32", "f16", "bf16", "q8_0", "q6_k", "q4_k", "q4_0"})


def _about(rule: Rule) -> list[str]:
    """Return the layouts that a rule is about."""
    return listed(rule.when.get("layouts"))


def _graph_rules(row: Row, model: PackedModel) -> Iterator[Rule]:
    if not row.graphs or model.architecture is None:
        return
    evidence = row.evidence.get("graphs", "")
    computes = row.graphs.get(model.architecture)
    if computes is None:
        lacking = lacking_graph(row, model.activation, model.architecture)
        yield Rule(REFUSES, {}, evidence, lacking or f"it has no graph for {model.architecture}")
    elif model.activation is not None and computes != model.activation:
        others = {graph for name, graph in row.graphs.items() if name.startswith("bitnet")}
        bitnet = model.architecture.startswith("bitnet") and model.activation not in others
        only = ", and it has no other graph for BitNet" if bitnet else ""
        why = f"its {model.architecture} graph computes {computes}, the model has {model.activation}{only}"
        yield Rule(WRONG, {}, evidence, why)


def _sentence(rule: Rule, model: PackedModel) -> str:
    layouts = [layout for layout in model.layouts if layout in _about(rule)] or list(model.layouts)
    return rule.why.format(**_fields(model, layouts[0] if layouts else ""))


def _fields(model: PackedModel, layout: str) -> dict[str, Any]:
    return {**{field.name: getattr(model, field.name) for field in dataclasses.fields(model)}, "layout": layout}
