"""Whether the file is the model that its source describes, by names, shapes and metadata; recorded hashes are noted."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.converter.sources.hybrid_gguf import PREDICTORS, beyond_the_layers, left_out, left_out_words
from tritpack.converter.verify.compare.foreign import layout_not_run
from tritpack.converter.verify.compare.metadata_values import same, short
from tritpack.converter.verify.compare.rotation import rotation_findings
from tritpack.converter.verify.compare.source_record import read_record
from tritpack.converter.verify.compare.specs import (
    CHANGES_THE_GRAPH,
    ONE_GRAPH,
    completed,
    differing_fields,
    rotary_pairing,
)
from tritpack.converter.verify.compare.vocabulary import check_vocabulary
from tritpack.converter.verify.context import Context
from tritpack.converter.verify.findings import Finding, Kind
from tritpack.converter.verify.oracle.oracle import Oracle
from tritpack.converter.verify.rung import Blame, Need, Rung
from tritpack.formats import model_metadata
from tritpack.formats.errors import TritpackError, Unreadable
from tritpack.formats.float_types import FLOAT_TYPES
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.hadamard import PREFIX
from tritpack.formats.integrity import TENSORS_KEY, recorded_hashes
from tritpack.formats.layouts import catalog
from tritpack.formats.model_spec import (
    ALL_NORMS,
    IMPLIED_ACTIVATION,
    TABLES,
    ModelSpec,
)
from tritpack.formats.split_files import COUNT

name = "structure"
blames: Blame = "file"
needs: frozenset[Need] = frozenset()
options: tuple[str, ...] = ()

MAX_DIFFERENCES = 20
PARTS_LEFT_OUT = {
    "the vision tower": re.compile(r"(^|\.)(visual|vision_tower)\."),
    PREDICTORS: re.compile(r"(^|\.)mtp\."),
}
"""Parts of a model of text and images, by their tensors."""

OTHER_MODEL = {Kind.MODEL_DIFFERS, Kind.SHAPE_DIFFERS, Kind.TENSOR_MISSING, Kind.NORMS_MISSING}


def run(context: Context) -> Rung:
    """Compare spec, tensor table and tokenizer, and note hashes. A file that fails here is not run."""
    rung = check_structure(context.file, context.source, context.exact)
    record = context.record = read_record(context.file, context.source, context.hashing.result())
    if record.actual:
        rung.figures["source_sha256"] = record.actual
    if record.other_weights and any(_shows_another_model(finding) for finding in rung.findings):
        accuse_source(rung, context)
        return rung
    if rung.verdict == "fail":
        context.cannot_run = "the file's structure is wrong"
    else:
        context.cannot_run = layout_not_run(context.file)
    if record.differs and context.options.strict:
        rung.add(Kind.SOURCE_HASH_DIFFERS, f"{record.note} (--strict)", file=record.recorded, source=record.actual)
    elif record.note:
        rung.notes.append(record.note)
    return rung


def _shows_another_model(finding: Finding) -> bool:
    """Whether a finding beside other recorded weights is enough to say that FILE is another model than the source."""
    return finding.kind in OTHER_MODEL or finding.figures.get("key") == "tokenizer.ggml.tokens"


def accuse_source(rung: Rung, context: Context) -> None:
    """Put one sentence in the place of all findings: FILE was made from something else. No further rung runs."""
    record, differences = context.record, rung.sentences
    rung.findings = []
    rung.add(
        Kind.SOURCE_DIFFERS,
        record.accusation,
        file=record.recorded,
        source=record.actual,
        differences=differences[:MAX_DIFFERENCES],
    )
    context.stopped = "the file was not made from this source"


def check_structure(file: GgufFile, source: CheckpointFolder | GgufFile, oracle: Oracle) -> Rung:
    """Compare spec, tensor table and tokenizer with the source's; no value of the file is trusted."""
    rung = Rung(name, blames, compares="metadata, tensor table and tokenizer keys of FILE with those of SOURCE")
    expected = oracle.spec
    rung.findings += rotation_findings(file, expected.rotation)
    try:
        spec = model_metadata.from_gguf(file)
    except TritpackError as error:
        if not rung.findings or PREFIX not in error.message:  # else a finding says so already, by its name
            rung.add(Kind.METADATA_INVALID, f"metadata: {error.without_path}", tensor=error.tensor)
    else:
        ours, notes = completed(file, spec, expected)
        rung.notes += notes
        _compare_specs(rung, ours, expected)
    check_metadata(rung, file, expected, spec_differs=bool(rung.findings))
    check_tensors(rung, file, expected, lambda table: oracle.table_codes(table) is not None)
    check_record(rung, file, expected)
    check_vocabulary(rung, file, source, expected.vocab_size)
    rung.notes += _unused(oracle)
    rung.figures |= {"tensors": len(file.tensors), "architecture": str(file.metadata.get("general.architecture"))}
    return rung


def _unused(oracle: Oracle) -> Iterator[str]:
    """Yield what of the source the model does not read, the parts of a bigger model by their names."""
    rest = list(oracle.unused)
    for what, part in PARTS_LEFT_OUT.items() if oracle.spec.delta_net else ():
        if found := [name for name in rest if part.search(name)]:
            rest = [name for name in rest if name not in found]
            yield from left_out_words({what: len(found)})
    if rest:
        yield f"{len(rest)} tensors of the source are not used, first {rest[0]!r}"


def _compare_specs(rung: Rung, spec: ModelSpec, expected: ModelSpec) -> None:
    for field, ours, theirs in differing_fields(spec, expected):
        if field == "rotation":
            continue  # rotation_findings says what of it differs
        kind, sentence = Kind.MODEL_DIFFERS, f"{field} is {ours!r}, the source has {theirs!r}"
        if (pairs := rotary_pairing(field, ours, theirs)) is not None:
            kind = Kind.ROTARY_PAIRING_DIFFERS
            sentence += f" ({pairs}: q and k would be rotated wrongly)"
        rung.add(kind, sentence, field=field, file=short(ours), source=short(theirs))


def check_tensors(rung: Rung, file: GgufFile, spec: ModelSpec, may_be_ternary: Callable[[str], bool]) -> None:
    """Check names, shapes and types of all tensors. may_be_ternary: whether a table of that name may hold codes."""
    shapes, linears = spec.tensor_shapes(), set(spec.linear_names())
    missing = [name for name in shapes if name not in file.tensors]
    rung.findings += _missing_tensors(missing, spec.layers)
    for name, shape in shapes.items():
        tensor = file.tensors.get(name)
        if tensor is None:
            continue
        if tensor.shape != shape:
            sentence = f"tensor {name!r} has shape {list(tensor.shape)}, expected {list(shape)}"
            rung.add(Kind.SHAPE_DIFFERS, sentence, tensor=name, file=list(tensor.shape), source=list(shape))
        part, ternary = _part(name), name in linears
        is_ternary = file.layout_of(tensor) is not None
        if part in TABLES and is_ternary and may_be_ternary(part):
            continue
        if ternary and not is_ternary:
            sentence = f"tensor {name!r} is stored as {tensor.layout}, expected a ternary layout"
            rung.add(Kind.TYPE_DIFFERS, sentence, tensor=name, layout=tensor.layout)
        if not ternary and tensor.layout not in FLOAT_TYPES:
            sentence = f"tensor {name!r} is stored as {tensor.layout}, expected a float type"
            rung.add(Kind.TYPE_DIFFERS, sentence, tensor=name, layout=tensor.layout)
    further = beyond_the_layers(file, spec)
    rung.notes += left_out_words(left_out(file, spec))
    for name in spec.unknown_tensors(set(file.tensors) - set(further)):
        tied = " (the source ties the head to the embedding)" if name == "output.weight" and spec.tied else ""
        rung.add(Kind.TENSOR_UNEXPECTED, f"tensor {name!r} is not part of this model{tied}", tensor=name)
    if unused := file.bytes_after_tensors:
        rung.notes.append(f"{unused} bytes after the last tensor belong to no tensor")


def check_record(rung: Rung, file: GgufFile, expected: ModelSpec) -> None:
    """Check that the record of hashes is one of the file's tensors; the rung `weights` computes them. Tensors that are
    missing or unexpected are reported anyway."""
    try:
        recorded = recorded_hashes(file)
    except Unreadable as error:
        rung.add(Kind.INTEGRITY_INVALID, error.without_path)
        return
    for name in sorted(expected.tensor_shapes().keys() & file.tensors.keys() - recorded.keys()) if recorded else ():
        rung.add(Kind.INTEGRITY_INVALID, f"tensor {name!r} is not in {TENSORS_KEY}, which names others", tensor=name)
    for name in sorted(recorded.keys() - file.tensors.keys() - expected.tensor_shapes().keys()):
        rung.add(Kind.INTEGRITY_INVALID, f"tensor {name!r} is in {TENSORS_KEY}, and the file has none", tensor=name)


def _missing_tensors(missing: list[str], layers: int) -> list[Finding]:
    """A finding for each missing tensor; a single one where a kind of norm is missing in every layer."""
    parts = Counter(_part(name) for name in missing if _part(name) in ALL_NORMS)
    lost = {part for part, count in parts.items() if count == layers}
    norms = [
        Finding(Kind.NORMS_MISSING, f"{part} is missing in all of the {layers} layers: the norm was lost", part)
        for part in sorted(lost)
    ]
    others = [name for name in missing if _part(name) not in lost]
    return norms + [Finding(Kind.TENSOR_MISSING, f"tensor {name!r} is missing", name) for name in others]


def _part(name: str) -> str:
    return name.removesuffix(".weight").rpartition(".")[2]


def check_metadata(
    rung: Rung, file: GgufFile, expected: ModelSpec, *, spec_differs: bool, owner: str = "the source"
) -> None:
    """Check keys that other engines act on or that tritpack wrote. Those that are there have to be right; a file that
    tritpack wrote has all of them and no others. spec_differs: a finding says so already, so that the keys of the spec
    are not named again. owner: whose spec is expected, in words."""
    arch = file.metadata.get("general.architecture")
    if not isinstance(arch, str):
        return  # a finding says so already
    complete = "tritpack.version" in file.metadata
    kinds = {file.tensors[name].layout for name in expected.linear_names() if name in file.tensors}
    named = arch if arch in ONE_GRAPH else expected.architecture
    renamed = dataclasses.replace(expected, architecture=named)
    right: dict[str, Any] = {} if spec_differs else model_metadata.to_metadata(renamed)
    further = file.metadata.get(f"{arch}.nextn_predict_layers", 0)
    if right and expected.delta_net and isinstance(further, int):
        right[f"{arch}.block_count"] += further  # which counts the layers for further tokens, too
    if len(kinds) == 1 and (kind := kinds.pop()) in catalog.LAYOUTS and catalog.type_of(kind).file_type is not None:
        right["general.file_type"] = catalog.type_of(kind).file_type
    for key, value in right.items():
        if (key.startswith("tritpack.") and not complete) or key.startswith(PREFIX):
            continue  # rotation_findings compares the keys of a rotation by what they mean
        if key not in file.metadata:
            if complete and (key.startswith(f"{arch}.") or key == "general.file_type"):
                rung.add(Kind.KEY_MISSING, f"{key} is missing, expected {short(value)}", key=key, source=short(value))
        elif not same(file.metadata[key], value):
            stored = short(file.metadata[key])
            sentence = f"{key} is {stored}, expected {short(value)}"
            rung.add(Kind.KEY_DIFFERS, sentence, key=key, file=stored, source=short(value))
    for key in file.metadata:
        if spec_differs or key in right or not key.startswith((f"{arch}.", COUNT)):
            continue
        if key == COUNT and (same(file.metadata[key], 0) or same(file.metadata[key], 1)):
            continue  # llama-gguf-split leaves it in what it merges
        if complete or key == COUNT or key.removeprefix(f"{arch}.") in CHANGES_THE_GRAPH:
            stored = short(file.metadata[key])
            sentence = f"{key} is {stored}, and {owner} has no such key"
            rung.add(Kind.KEY_UNEXPECTED, sentence, key=key, file=stored)
    implied = IMPLIED_ACTIVATION.get(arch)
    if implied not in (None, expected.activation):
        rung.notes.append(f"engines that do not read {arch}.hidden_activation compute {implied} for {arch}")
