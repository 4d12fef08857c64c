"""Compares the metadata of two sides: what decides on the model, what describes it, and what differs by its nature."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tritpack.converter.diff.side import Side
from tritpack.converter.verify.compare.foreign import comes_from_foreign, is_silent_on_activations
from tritpack.converter.verify.compare.metadata_values import first_difference, short
from tritpack.converter.verify.compare.specs import CHANGES_THE_GRAPH, completed, differing_fields, rotary_pairing
from tritpack.converter.verify.findings import FEW, Finding, Kind
from tritpack.formats.model_metadata import to_metadata
from tritpack.formats.model_spec import ModelSpec

BY_NATURE = (
    "general.file_type", "general.quantization_version", "general.alignment", "general.size_label", "general.source.",
    "general.architecture", "general.type", "GGUF.", "split.", "tritpack.integrity.", "tritpack.layout",
    "tritpack.embedding_type", "tritpack.source.", "tritpack.version", "tritpack.converter.", "tritpack.target",
    "tritpack.repair.", "tritpack.scale_rounding", "tritpack.warnings", "tritpack.verify",
)  # fmt: skip
"""How keys begin that say how and from what a file was made: layouts, hashes, versions. An architecture that computes
something else is a difference of the model, which is found by what it means."""
TOKENIZER = ("tokenizer.", "tritpack.tokenizer.")
OURS = ("tritpack.",)
CONDITIONAL = (
    "rope.scaling.", "rope.freq_base_swa", "attention.sliding_window", "attention.scale", "pooling_type",
    "embedding_scale", "residual_scale", "logit_scale",
)  # fmt: skip
"""How keys of an architecture begin that a spec has only where they mean something."""
GROUPS = ("model", "tokenizer", "description", "by_nature")


def compare_metadata(a: Side, b: Side) -> dict[str, list[dict[str, Any]]]:
    """Return the keys that differ, by group (see GROUPS): `key` and, on each side that has it, the value in short.

    Keys begin with `<arch>` instead of the name of the architecture, because two files of one model may call the
    architecture by different names.
    """
    ours, theirs = _by_plain_key(a), _by_plain_key(b)
    groups: dict[str, list[dict[str, Any]]] = {name: [] for name in GROUPS}
    for key in sorted(ours.keys() | theirs.keys()):
        row: dict[str, Any] = {"key": key}
        if key not in ours or key not in theirs:
            side, holder = ("a", ours) if key in ours else ("b", theirs)
            row |= {"change": "removed" if side == "a" else "added", side: short(holder[key])}
        elif (place := first_difference(ours[key], theirs[key])) is not None:
            row |= {"change": "changed", "a": short(ours[key]), "b": short(theirs[key])}
            if isinstance(ours[key], list) or hasattr(ours[key], "dtype"):
                row["element"] = place
        else:
            continue
        groups[_group(key)].append(row)
    return groups


def _by_plain_key(side: Side) -> dict[str, Any]:
    prefix = f"{side.metadata.get('general.architecture')}."
    return {
        f"<arch>.{key.removeprefix(prefix)}" if key.startswith(prefix) else key: value
        for key, value in side.metadata.items()
    }


def _group(key: str) -> str:
    if key.startswith(TOKENIZER):
        return "tokenizer"
    if key.startswith(BY_NATURE):
        return "by_nature"
    return "model" if key.startswith(("<arch>.", *OURS)) else "description"


def compare_models(a: Side, b: Side, keys: list[dict[str, Any]]) -> tuple[list[Finding], list[str]]:
    """Return what the two models compute differently by their metadata, and notes.

    keys: those of the model that differ. If one of the models cannot be run here, every such key counts, because
    nothing tells what it means. If both can, a missing key is read as its usual value.
    """
    if a.spec is None or b.spec is None:
        names = [side.metadata.get("general.architecture") for side in (a, b)]
        if names[0] != names[1]:
            keys = [{"key": "general.architecture", **dict(zip("ab", map(short, names)))}, *keys]
        note = "the architecture of A or B cannot be run here, so that every key of the model counts"
        return [_key_finding(row) for row in keys], [note]
    ours, theirs, notes = _completed(a, b, a.spec, b.spec)
    fields = [*_fields(ours, theirs)]
    findings, about_keys = _unread(a, b, keys, explained=bool(fields))
    return [*fields, *findings], [*notes, *about_keys]


def _unread(a: Side, b: Side, keys: list[dict[str, Any]], *, explained: bool) -> tuple[list[Finding], list[str]]:
    """Return what counts of keys that differ although the specs need not, and a note that names the others.

    A key that the graph here does not know counts, as it does in `verify`, unless only another tool's file has it. A
    key that the spec has counts where both sides have it and tritpack wrote both. explained: fields differ, which is
    why keys of the spec do.
    """
    known = {
        key.removeprefix(f"{spec.architecture}.")
        for spec in (a.spec, b.spec)
        if spec is not None
        for key in to_metadata(spec)
    }
    counting, others = [], []
    for row in keys:
        name = row["key"].removeprefix("<arch>.")
        is_known = name == row["key"] or name in known or name.startswith(CONDITIONAL)
        holders = [side for side, letter in ((a, "a"), (b, "b")) if letter in row]
        is_foreign = any(side.file is not None and comes_from_foreign(side.file) for side in holders)
        if name in CHANGES_THE_GRAPH or (not is_known and (len(holders) == 2 or not is_foreign)):
            counting.append(_key_finding(row))
        elif explained and is_known:
            continue
        elif len(holders) == 2 and not is_foreign and name != row["key"]:
            counting.append(_key_finding(row))
        else:
            others.append(row)
    return counting, of_other_engines(others, "the model is the same here")


def of_other_engines(rows: list[dict[str, Any]], why: str) -> list[str]:
    """Return a note that names keys which differ and mean the same here; none for none. why: what is the same."""
    rows = [row for row in rows if not row["key"].startswith(OURS)]  # which no other engine reads
    if not rows:
        return []
    named = "; ".join(f"{row['key']} is {_values(row)}" for row in rows[:FEW])
    more = f"; and {len(rows) - FEW} more" if len(rows) > FEW else ""
    return [f"other engines may read these keys and compute otherwise; {why}: {named}{more}"]


def _completed(a: Side, b: Side, ours: ModelSpec, theirs: ModelSpec) -> tuple[ModelSpec, ModelSpec, list[str]]:
    """Return both specs with what another tool's file cannot say taken from the other side."""
    silent = [
        name for side, name in ((a, "A"), (b, "B")) if side.file is not None and is_silent_on_activations(side.file)
    ]
    notes = []
    if len(silent) == 1:
        notes = [f"no key of {silent[0]} says how activations are quantised; taken to be as on the other side"]
    elif silent:
        notes = ["no key of A or B says how activations are quantised, so that this was not compared"]
    if a.file is not None:
        ours, _ = completed(a.file, ours, theirs)
    if b.file is not None:
        theirs, _ = completed(b.file, theirs, ours)
    return ours, theirs, notes


def _fields(ours: ModelSpec, theirs: ModelSpec) -> Iterator[Finding]:
    for field, a, b in differing_fields(ours, theirs):
        kind, sentence = Kind.MODEL_DIFFERS, f"{field} is {a!r} in A and {b!r} in B"
        if (pairs := rotary_pairing(field, a, b)) is not None:
            kind, sentence = Kind.ROTARY_PAIRING_DIFFERS, f"{sentence} ({pairs})"
        yield Finding(kind, sentence, None, {"field": field, "a": short(a), "b": short(b)})


def _key_finding(row: dict[str, Any]) -> Finding:
    return Finding(Kind.KEY_DIFFERS, f"{row['key']} is {_values(row)}", None, row)


def _values(row: dict[str, Any]) -> str:
    return " and ".join(f"{row.get(side, 'missing')} in {side.upper()}" for side in "ab")
