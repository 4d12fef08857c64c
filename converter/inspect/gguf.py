"""What a GGUF file holds, for `tritpack inspect`. The types and sizes of its tensors decide, not general.file_type."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import Any

from tritpack.converter.inspect.engines import engine_verdicts, nonsense_as
from tritpack.converter.inspect.known_files import recognise
from tritpack.converter.inspect.needs import NeedsOptions, needs
from tritpack.converter.inspect.origin import recorded
from tritpack.converter.inspect.problems import file_problems, missing_tensors, rotation_damage, rotation_problems
from tritpack.converter.inspect.summary import SCHEMA, codes_in_all, hyperparameters, is_table, summary
from tritpack.converter.sources.hybrid_gguf import generation_doubt, left_out
from tritpack.converter.targets.engines.packed_model import ambiguities
from tritpack.formats import model_metadata
from tritpack.formats.errors import TritpackError, Unreadable
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.hadamard import rotation_of_file
from tritpack.formats.integrity import TENSORS_KEY, TensorHashes, recorded_hashes
from tritpack.formats.model_spec import ModelSpec


def inspect_gguf(gguf: GgufFile, name: str, stats: bool, options: NeedsOptions) -> dict[str, Any]:
    """Return what a GGUF file holds, with the damage that its structure and, with stats, its bytes show.

    name: what commands call it.
    """
    spec = _spec(gguf)
    rows, unknown = _tensor_rows(gguf)
    known = recognise(gguf, whole=stats)
    integrity, damage, threes = _integrity(gguf, spec, rows, stats)
    missing = missing_tensors(gguf, spec)
    damage = [*missing, *([] if gguf.part else rotation_damage(gguf)), *damage]
    problems = [*damage, *unknown, *ambiguities(gguf), *rotation_problems(gguf), *file_problems(gguf)]
    weights = [tensor for tensor in gguf.tensors.values() if gguf.layout_of(tensor)]
    ternary_weights = sum(t.rows * t.cols for t in weights)
    complete = spec if gguf.part is None and not missing else None
    return {
        "schema": SCHEMA,
        "kind": "gguf",
        "file": str(gguf.path),
        "files": gguf.shown_files,
        "nbytes": gguf.size,
        "gguf_version": gguf.version,
        "part": _part(gguf),
        "architecture": gguf.metadata.get("general.architecture"),
        "name": gguf.metadata.get("general.name"),
        "layouts": dict(collections.Counter(tensor.layout for tensor in gguf.tensors.values())),
        "ternary_layouts": list(dict.fromkeys(tensor.layout for tensor in weights)),
        "dialects": sorted({t.meaning.dialect for t in weights if t.meaning}),
        "parameters": sum(tensor.rows * tensor.cols for tensor in gguf.tensors.values()),
        "embedding_parameters": sum(t.rows * t.cols for t in gguf.tensors.values() if is_table(t.name)),
        "ternary_weights": ternary_weights,
        "ternary_bits_per_weight": 8 * sum(t.nbytes for t in weights) / ternary_weights if ternary_weights else None,
        "rotation": _rotation(gguf),
        "codes": codes_in_all(rows, threes),
        "left_out": left_out(gguf, spec),
        "doubt": generation_doubt(gguf, spec),
        "model": _hyperparameters(gguf, spec, ternary_weights),
        "context_length": _context_length(gguf),
        "tokenizer": _tokenizer(gguf),
        "ternarity": None if ternary_weights or not gguf.tensors else _ternarity(gguf, stats),
        "metadata": {key: summary(value) for key, value in gguf.metadata.items()},
        "damage": damage,
        "problems": list(dict.fromkeys(problems)),
        "integrity": integrity,
        "decoded": stats,
        "engines": engine_verdicts(gguf, name, spec),
        "nonsense_as": nonsense_as(gguf, spec),
        "needs": complete and needs(complete, _sizes(gguf), [t.name for t in weights], gguf.size, options),
        "origin": recorded(gguf.metadata, gguf.path),
        "known": known,
        "tensors": rows,
    }


def _ternarity(file: GgufFile, stats: bool) -> dict[str, Any]:
    """Whether the values of a file without ternary layouts are ternary; what tells it takes time to import."""
    from tritpack.converter.inspect.ternarity import ternarity_of_gguf

    return ternarity_of_gguf(file, whole=stats)


def _sizes(file: GgufFile) -> dict[str, int]:
    return {tensor.name: tensor.nbytes for tensor in file.tensors.values()}


def _context_length(file: GgufFile) -> int | None:
    context = file.metadata.get(f"{file.metadata.get('general.architecture')}.context_length")
    return context if isinstance(context, int) and context > 0 else None


def _tokenizer(file: GgufFile) -> dict[str, Any] | None:
    """The kind of tokenizer, how it splits text before it, and its number of tokens; None without a tokenizer."""
    model, pre, tokens = (file.metadata.get(f"tokenizer.ggml.{key}") for key in ("model", "pre", "tokens"))
    if not isinstance(model, str):
        return None
    count = len(tokens) if isinstance(tokens, Sequence) and not isinstance(tokens, str) else 0
    return {"model": model, "pre": pre if isinstance(pre, str) else None, "tokens": count}


def _hyperparameters(file: GgufFile, spec: ModelSpec | None, ternary_weights: int) -> dict[str, Any] | None:
    """The spec's fields. Nothing implies how activations are quantised where no weights are ternary."""
    if spec is None:
        return None
    known = ternary_weights > 0 or model_metadata.QUANTIZATION_KEY in file.metadata
    return {**hyperparameters(spec), **({} if known else {"int8_activations": None})}


def _part(file: GgufFile) -> dict[str, Any] | None:
    """Which part of a split file this is, the numbers of the parts that do not lie beside it, and why it is not read
    with those that do."""
    if (part := file.part) is None:
        return None
    return {"number": part.number, "count": part.count, "missing": list(part.missing), "problem": part.problem}


def _tensor_rows(file: GgufFile) -> tuple[list[dict[str, Any]], list[str]]:
    """One row per tensor, and the types that are not known."""
    rows, unknown = [], []
    for tensor in file.tensors.values():
        row: dict[str, Any] = {
            "name": tensor.name,
            "layout": tensor.layout,
            "type_id": tensor.type_id,
            "shape": list(tensor.shape),
            "file_offset": tensor.file_offset,
            "nbytes": tensor.nbytes,
        }
        if len(file.files) > 1:
            row["file"] = file.path_of(tensor).name
        if tensor.meaning is None:
            unknown.append(f"tensor {tensor.name!r} has the unknown type id {tensor.type_id}")
        rows.append(row)
    return rows, unknown


def _integrity(
    file: GgufFile, spec: ModelSpec | None, rows: Sequence[dict[str, Any]], stats: bool
) -> tuple[dict[str, Any] | None, list[str], int]:
    """What is known of the hashes that a file records of its tensors, None if there are none; the damage; and how many
    codes are 3. stats: compute them, and put the statistics of every tensor into its row."""
    (recorded, damage), threes = _recorded(file), 0
    if stats:
        from tritpack.converter.inspect.statistics import statistics

        for row, (name, found) in zip(rows, statistics(file, spec, recorded).items()):
            row |= found.figures | ({} if found.intact is None else {"intact": found.intact})
            damage += [] if found.damage is None else [found.damage]
            threes += found.threes
            if recorded and name not in recorded:
                damage.append(f"tensor {name!r}: {TENSORS_KEY} does not name it")
    if not recorded:
        return None, damage, threes
    differing = [row["name"] for row in rows if not row.get("intact", True)] if stats else None
    return {"recorded": len(recorded), "checked": stats, "differing": differing}, damage, threes


def _rotation(file: GgufFile) -> str | None:
    """The rotated basis of the weights in words; None without one, or where its keys make no sense (see problems)."""
    try:
        rotation = rotation_of_file(file)
    except TritpackError:
        return None
    return str(rotation) if rotation else None


def _recorded(file: GgufFile) -> tuple[dict[str, TensorHashes], list[str]]:
    try:
        return recorded_hashes(file), []
    except Unreadable as error:
        return {}, [error.without_path]


def _spec(file: GgufFile) -> ModelSpec | None:
    try:
        return model_metadata.from_gguf(file)
    except TritpackError:
        return None
