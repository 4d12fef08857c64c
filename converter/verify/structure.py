"""Rung 1: is this file the model that its source describes, as far as names, shapes and metadata tell?"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from converter.sources import CheckpointFolder
from converter.verify.oracle import Oracle
from converter.verify.rung import Rung
from formats.errors import TritpackError
from formats.float_types import FLOAT_TYPES
from formats.gguf_file import GgufFile
from formats.layouts import catalog
from formats.model_spec import LINEARS, ModelSpec

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
        spec = ModelSpec.from_metadata(file.metadata, file.tensors)
    except TritpackError as error:
        rung.findings.append(f"metadata: {error.message}")
    else:
        _compare_specs(rung, spec, expected)
    _check_tensors(rung, file, expected)
    _check_tokenizer(rung, file, source)
    _check_hashes(rung, file, source)
    rung.figures |= {"tensors": len(file.tensors), "architecture": file.metadata.get("general.architecture")}
    return rung


def _compare_specs(rung: Rung, found: ModelSpec, expected: ModelSpec) -> None:
    for field in dataclasses.fields(ModelSpec):
        mine, theirs = getattr(found, field.name), getattr(expected, field.name)
        # bitnet.cpp's three names for one graph; the activation is compared by itself.
        if mine != theirs and field.name != "architecture":
            rung.findings.append(f"{field.name} is {mine!r}, the source has {theirs!r}")


def _check_tensors(rung: Rung, file: GgufFile, expected: ModelSpec) -> None:
    shapes = expected.tensor_shapes()
    for name, shape in shapes.items():
        tensor = file.tensors.get(name)
        if tensor is None:
            rung.findings.append(f"tensor {name!r} is missing")
            continue
        if tensor.shape != shape:
            rung.findings.append(f"tensor {name!r} has shape {list(tensor.shape)}, expected {list(shape)}")
        ternary = name.split(".")[-2] in LINEARS
        if ternary and tensor.layout not in catalog.LAYOUTS:
            rung.findings.append(f"tensor {name!r} is stored as {tensor.layout}, expected a ternary layout")
        if not ternary and tensor.layout not in FLOAT_TYPES:
            rung.findings.append(f"tensor {name!r} is stored as {tensor.layout}, expected a float type")
    rung.findings += [f"tensor {name!r} is not part of this model" for name in file.tensors if name not in shapes]


def _check_tokenizer(rung: Rung, file: GgufFile, source: Path) -> None:
    from tokenizers import Tokenizer as Reference

    from runtime.tokenizer import Tokenizer

    path = source / "tokenizer.json"
    if not path.exists():
        rung.notes.append("the source has no tokenizer.json to compare with")
        return
    try:
        ours = Tokenizer.from_metadata(file.metadata)
        reference = Reference.from_file(str(path))
    except TritpackError as error:
        rung.findings.append(f"tokenizer: {error.message}")
        return
    for sample in SAMPLES:
        want = reference.encode(sample).ids
        if (got := ours.encode(sample)) != want:
            rung.findings.append(
                f"tokenizer: {sample!r} gives {got[:8]}..., the source's tokenizer gives {want[:8]}..."
            )
            break
    rung.figures["tokenizer_samples"] = len(SAMPLES)
    expected = _expected_stops(source)
    if missing := sorted(expected - set(ours.stop_ids)):
        rung.findings.append(f"tokenizer: end tokens {missing} of the source do not stop generation")


def _expected_stops(source: Path) -> set[int]:
    folder = CheckpointFolder(source)
    stops: set[int] = set()
    for config in (folder.config, folder.generation_config):
        ids: Any = config.get("eos_token_id")
        stops |= {ids} if isinstance(ids, int) else set(ids or ())
    return stops


def _check_hashes(rung: Rung, file: GgufFile, source: Path) -> None:
    recorded = file.metadata.get("general.source.sha256")
    if recorded is None:
        rung.notes.append("the file records no hash of its source")
        return
    actual = CheckpointFolder(source).sha256
    rung.figures["source_sha256"] = actual
    if recorded != actual:
        rung.findings.append(f"general.source.sha256 is {recorded}, this source has {actual}")
