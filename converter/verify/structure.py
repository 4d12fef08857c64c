"""Rung 1: is this file the model that its source describes, as far as names, shapes and metadata tell?"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converter import vocab
from converter.sources import CheckpointFolder
from converter.verify.oracle import Oracle
from converter.verify.rung import Rung
from formats.errors import TritpackError, Unreadable
from formats.float_types import FLOAT_TYPES
from formats.gguf_file import GgufFile
from formats.layouts import catalog
from formats.model_spec import ACTIVATION_QUANTIZATION, LINEARS, TABLES, ModelSpec

if TYPE_CHECKING:
    from runtime.tokenizer import Tokenizer

ONE_GRAPH = ("bitnet-b1.58", "bitnet-25", "bitnet")
"""Names of one graph with one row order; what differs between them, the activation, is compared by itself."""
NEEDED_KEYS = ("tokenizer.ggml.tokens", "tokenizer.ggml.pre", "tokenizer.ggml.eos_token_id", "tokenizer.chat_template")
"""Without these a file talks nonsense or never stops, whoever wrote it."""
SAMPLES = (
    "Hello, world!",
    "  two  spaces,\ttab\nand\n\nlines ",
    "I'll say 12345 words; don't we?",
    "naïve café – “quotes” … Ünïcödé",
    "数字 123 と 漢字、ひらがな",
    "emoji 🙂👩‍👩‍👧 and \u200b zero width",
    "def f(x):\n    return x**2  # code",
)


def check_structure(file: GgufFile, source: Path, oracle: Oracle) -> Rung:
    """Spec, tensor table, tokenizer and recorded hashes against the source; nothing the file says is trusted."""
    rung = Rung("structure")
    expected = oracle.spec
    try:
        spec = ModelSpec.of_gguf(file)
    except TritpackError as error:
        rung.findings.append(f"metadata: {error.message}")
    else:
        _compare_specs(rung, spec, expected)
    _check_tensors(rung, file, oracle)
    _check_metadata(rung, file, expected)
    folder = CheckpointFolder(source)
    _check_tokenizer(rung, file, folder)
    _check_hashes(rung, file, folder)
    if oracle.unused:
        rung.notes.append(f"{len(oracle.unused)} tensors of the source are not used, first {oracle.unused[0]!r}")
    rung.figures |= {"tensors": len(file.tensors), "architecture": file.metadata.get("general.architecture")}
    return rung


def _compare_specs(rung: Rung, found: ModelSpec, expected: ModelSpec) -> None:
    for field in dataclasses.fields(ModelSpec):
        mine, theirs = getattr(found, field.name), getattr(expected, field.name)
        if field.name == "architecture" and mine in ONE_GRAPH and theirs in ONE_GRAPH:
            continue
        if mine != theirs:
            rung.findings.append(f"{field.name} is {mine!r}, the source has {theirs!r}")


def _check_tensors(rung: Rung, file: GgufFile, oracle: Oracle) -> None:
    shapes = oracle.spec.tensor_shapes()
    for name, shape in shapes.items():
        tensor = file.tensors.get(name)
        if tensor is None:
            rung.findings.append(f"tensor {name!r} is missing")
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
    rung.findings += [f"tensor {name!r} is not part of this model" for name in file.tensors if name not in shapes]
    end = max((tensor.file_offset + tensor.nbytes for tensor in file.tensors.values()), default=file.size)
    if file.size - end >= file.alignment:
        rung.notes.append(f"{file.size - end} bytes behind the last tensor belong to nothing")


def _check_metadata(rung: Rung, file: GgufFile, expected: ModelSpec) -> None:
    """Keys that other engines act on, or that we wrote: present, they have to be right."""
    arch = file.metadata.get("general.architecture")
    kinds = {file.tensors[name].layout for name in expected.linear_names() if name in file.tensors}
    right: dict[str, Any] = {
        f"{arch}.attention.key_length": expected.head_dim,
        f"{arch}.attention.value_length": expected.head_dim,
    }
    if "tritpack.version" in file.metadata:
        quantization = next(k for k, int8 in ACTIVATION_QUANTIZATION.items() if int8 == expected.int8_activations)
        right["tritpack.activation_quantization"] = quantization
    if len(kinds) == 1 and (kind := kinds.pop()) in catalog.LAYOUTS:
        right["general.file_type"] = catalog.type_of(kind).file_type
    for key, value in right.items():
        if file.metadata.get(key, value) != value:
            rung.findings.append(f"{key} is {file.metadata[key]!r}, expected {value!r}")


def _check_tokenizer(rung: Rung, file: GgufFile, source: CheckpointFolder) -> None:
    """Every key against what the source's files say, then real encoding against the source's own tokenizer.json."""
    from runtime.tokenizer import Tokenizer

    _compare_vocabulary(rung, file, vocab.read_vocabulary(source.folder, source.config, source.generation_config))
    try:
        ours = Tokenizer.from_metadata(file.metadata)
    except TritpackError as error:
        rung.findings.append(f"tokenizer: {error.message}")
        return
    if (path := source.folder / "tokenizer.json").is_file():
        _compare_encoding(rung, ours, path)
    expected = _expected_stops(source)
    if missing := sorted(expected - set(ours.stop_ids)):
        rung.findings.append(f"tokenizer: end tokens {missing} of the source do not stop generation")


def _compare_vocabulary(rung: Rung, file: GgufFile, expected: dict[str, Any]) -> None:
    written_by_us = "tritpack.version" in file.metadata
    for key, value in expected.items():
        if key not in file.metadata:
            if written_by_us or key in NEEDED_KEYS:
                rung.findings.append(f"tokenizer: {key} is missing")
            continue
        found = file.metadata[key]
        if isinstance(value, (list, np.ndarray)):
            differing = _first_difference(found, value)
            if differing is not None:
                rung.findings.append(f"tokenizer: {key} differs from the source, first at element {differing}")
        elif found != value:
            rung.findings.append(f"tokenizer: {key} is {_short(found)}, the source has {_short(value)}")
    if written_by_us:
        ours = ("tokenizer.", "tritpack.tokenizer.")
        extra = [key for key in file.metadata if key.startswith(ours) and key not in expected]
        rung.findings += [f"tokenizer: {key} has nothing to match it in the source" for key in extra]


def _first_difference(found: Any, expected: Any) -> int | None:
    if isinstance(found, (str, int, float)):
        return 0
    if len(found) != len(expected):
        return min(len(found), len(expected))
    return next((i for i, (a, b) in enumerate(zip(found, expected)) if a != b), None)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _compare_encoding(rung: Rung, ours: Tokenizer, path: Path) -> None:
    from tokenizers import Tokenizer as Reference

    try:
        reference = Reference.from_file(str(path))
    except Exception as error:  # the tokenizers library raises nothing narrower
        raise Unreadable(f"{path}: is no tokenizer: {error}") from error
    reference.no_padding()
    reference.no_truncation()
    for sample in SAMPLES:
        want = reference.encode(sample).ids
        if (got := ours.encode(sample)) != want:
            rung.findings.append(
                f"tokenizer: {sample!r} gives {got[:8]}..., the source's tokenizer gives {want[:8]}..."
            )
            break
    rung.figures["tokenizer_samples"] = len(SAMPLES)


def _expected_stops(source: CheckpointFolder) -> set[int]:
    """The end tokens that both configs name, as far as they are in the vocabulary."""
    stops: list[Any] = []
    for config in (source.config, source.generation_config):
        ids = config.get("eos_token_id")
        stops += ids if isinstance(ids, list) else [ids]
    size = source.config.get("vocab_size", 0)
    return {i for i in stops if isinstance(i, int) and not isinstance(i, bool) and 0 <= i < size}


def _check_hashes(rung: Rung, file: GgufFile, source: CheckpointFolder) -> None:
    recorded = file.metadata.get("general.source.sha256")
    if recorded is None:
        rung.notes.append("the file records no hash of its source")
        return
    rung.figures["source_sha256"] = source.sha256
    if recorded != source.sha256:
        rung.findings.append(f"general.source.sha256 is {recorded}, this source has {source.sha256}")
    lines = [f"{digest}  {name}" for name, digest in source.file_hashes.items()]
    if _first_difference(file.metadata.get("tritpack.source.files", lines), lines) is not None:
        rung.findings.append("tritpack.source.files are not the hashes of this source's files")
