"""Rung 1: is this file the model that its source describes, as far as names, shapes and metadata tell?"""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.converter.verify.metadata_values import same, short
from tritpack.converter.verify.oracle.oracle import Oracle
from tritpack.converter.verify.rung import Rung
from tritpack.converter.verify.vocabulary import check_vocabulary
from tritpack.formats import model_metadata
from tritpack.formats.errors import TritpackError
from tritpack.formats.float_types import FLOAT_TYPES
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.layouts import catalog
from tritpack.formats.model_spec import ALL_NORMS, IMPLIED_ACTIVATION, INTERLEAVED_ROPE, LINEARS, TABLES, ModelSpec

ONE_GRAPH = ("bitnet-b1.58", "bitnet-25", "bitnet")
"""Names of one graph with one row order; what differs between them, the activation, is compared by itself."""


FORMAT_KEY = "general.source.format"
CHANGES_THE_GRAPH = (
    "expert_count", "expert_used_count", "final_logit_softcapping", "attn_logit_softcapping", "attention.causal",
    "attention.clamp_kqv", "attention.max_alibi_bias", "use_parallel_residual", "count",
)  # fmt: skip
"""Keys that engines act on wherever they find them; `count` is that of a split file's parts."""
PAIRS = {True: "(2 i, 2 i + 1), as llama.cpp's NORM", False: "half a head apart, as its NEOX"}


def check_structure(file: GgufFile, source: CheckpointFolder | GgufFile, oracle: Oracle) -> Rung:
    """Spec, tensor table, tokenizer and recorded hashes against the source; nothing the file says is trusted."""
    rung = Rung("structure", compares="metadata, tensor table and tokenizer keys of FILE with those of SOURCE")
    expected = oracle.spec
    try:
        spec = model_metadata.from_gguf(file)
    except TritpackError as error:
        rung.findings.append(f"metadata: {error.message}")
    else:
        _compare_specs(rung, spec, expected)
    _check_metadata(rung, file, expected, told=bool(rung.findings))
    _check_tensors(rung, file, oracle)
    check_vocabulary(rung, file, source, expected.vocab_size)
    if oracle.unused:
        rung.notes.append(f"{len(oracle.unused)} tensors of the source are not used, first {oracle.unused[0]!r}")
    rung.figures |= {"tensors": len(file.tensors), "architecture": str(file.metadata.get("general.architecture"))}
    return rung


def _compare_specs(rung: Rung, found: ModelSpec, expected: ModelSpec) -> None:
    for field in dataclasses.fields(ModelSpec):
        mine, theirs = getattr(found, field.name), getattr(expected, field.name)
        if field.name == "architecture" and mine in ONE_GRAPH and theirs in ONE_GRAPH:
            continue
        if mine != theirs:
            remark = ""
            if field.name == "architecture" and (mine in INTERLEAVED_ROPE) != (theirs in INTERLEAVED_ROPE):
                remark = f" ({mine} turns rotary pairs {PAIRS[mine in INTERLEAVED_ROPE]}, {theirs} those "
                remark += f"{PAIRS[theirs in INTERLEAVED_ROPE]}: q and k would be turned wrongly)"
            rung.findings.append(f"{field.name} is {mine!r}, the source has {theirs!r}{remark}")


def _check_tensors(rung: Rung, file: GgufFile, oracle: Oracle) -> None:
    shapes = oracle.spec.tensor_shapes()
    missing = [name for name in shapes if name not in file.tensors]
    rung.findings += _missing_norms(missing, oracle.spec.layers)
    for name, shape in shapes.items():
        tensor = file.tensors.get(name)
        if tensor is None:
            continue
        if tensor.shape != shape:
            rung.findings.append(f"tensor {name!r} has shape {list(tensor.shape)}, expected {list(shape)}")
        part = name.split(".")[-2]
        ternary = part in LINEARS
        if part in TABLES and tensor.layout in catalog.LAYOUTS and oracle.table_codes(part) is not None:
            continue
        if ternary and tensor.layout not in catalog.LAYOUTS:
            rung.findings.append(f"tensor {name!r} is stored as {tensor.layout}, expected a ternary layout")
        if not ternary and tensor.layout not in FLOAT_TYPES:
            rung.findings.append(f"tensor {name!r} is stored as {tensor.layout}, expected a float type")
    for name in oracle.spec.unknown_tensors(file.tensors):
        tied = " (the source ties the head to the embedding)" if name == "output.weight" and oracle.spec.tied else ""
        rung.findings.append(f"tensor {name!r} is not part of this model{tied}")
    end = max((tensor.file_offset + tensor.nbytes for tensor in file.tensors.values()), default=file.size)
    if file.size - end >= file.alignment:
        rung.notes.append(f"{file.size - end} bytes behind the last tensor belong to nothing")


def _missing_norms(missing: list[str], layers: int) -> list[str]:
    """A sentence for each missing tensor; one for all where a kind of norm is missing in every layer."""
    parts = Counter(name.split(".")[-2] for name in missing if name.split(".")[-2] in ALL_NORMS)
    lost = {part for part, count in parts.items() if count == layers}
    sentences = [f"{part} is missing in all of the {layers} layers: the norm was lost" for part in sorted(lost)]
    return sentences + [f"tensor {name!r} is missing" for name in missing if name.split(".")[-2] not in lost]


def _check_metadata(rung: Rung, file: GgufFile, expected: ModelSpec, *, told: bool) -> None:
    """Keys that other engines act on, or that we wrote: present, they have to be right; in files of ours they are all
    present, and no others. told: the spec differs already, so that its keys need not be named again."""
    arch = file.metadata.get("general.architecture")
    if not isinstance(arch, str):
        return  # said already
    complete = "tritpack.version" in file.metadata
    kinds = {file.tensors[name].layout for name in expected.linear_names() if name in file.tensors}
    named = arch if arch in ONE_GRAPH else expected.architecture
    renamed = dataclasses.replace(expected, architecture=named)
    right: dict[str, Any] = {} if told else model_metadata.to_metadata(renamed)
    if len(kinds) == 1 and (kind := kinds.pop()) in catalog.LAYOUTS and catalog.type_of(kind).file_type is not None:
        right["general.file_type"] = catalog.type_of(kind).file_type
    for key, value in right.items():
        if key.startswith("tritpack.") and not complete:
            continue
        if key not in file.metadata:
            if complete and (key.startswith(f"{arch}.") or key == "general.file_type"):
                rung.findings.append(f"{key} is missing, expected {short(value)}")
        elif not same(file.metadata[key], value):
            rung.findings.append(f"{key} is {short(file.metadata[key])}, expected {short(value)}")
    for key in file.metadata:
        if told or key in right or not key.startswith((f"{arch}.", "split.")):
            continue
        if complete or key.partition(".")[2] in CHANGES_THE_GRAPH:
            rung.findings.append(f"{key} is {short(file.metadata[key])}, and the source has nothing like it")
    implied = IMPLIED_ACTIVATION.get(arch)
    if implied not in (None, expected.activation):
        rung.notes.append(f"engines that do not read {arch}.hidden_activation compute {implied} for {arch}")


def check_hashes(rung: Rung, file: GgufFile, source: CheckpointFolder | GgufFile, source_sha256: str) -> None:
    """Of the source and its files, where FILE records them: the last part of the structure rung, and the slowest."""
    recorded = file.metadata.get("general.source.sha256")
    if recorded is None:
        rung.notes.append("the file records no hash of its source")
        return
    if isinstance(source, GgufFile):
        if "general.source.sha256" not in source.metadata and not same(file.metadata.get(FORMAT_KEY), "gguf"):
            rung.notes.append("the file was made from a checkpoint, and the source does not say from which")
            return
        # A file that names its own source hands that name on; any other is the source itself.
        expected = source.metadata.get("general.source.sha256") or source_sha256
        lines = list(source.metadata.get("tritpack.source.files", ()))
    else:
        if same(file.metadata.get(FORMAT_KEY), "gguf"):
            rung.notes.append(
                "the file was made from another GGUF; whether that came from this checkpoint, hashes cannot tell"
            )
            return
        expected = source_sha256
        lines = [f"{digest}  {name}" for name, digest in source.file_hashes.items()]
    rung.figures["source_sha256"] = expected
    if not same(recorded, expected):
        rung.findings.append(f"general.source.sha256 is {short(recorded)}, this source has {expected}")
    if not same(file.metadata.get("tritpack.source.files", lines), lines):
        rung.findings.append("tritpack.source.files are not the hashes of this source's files")
