"""verify --reproduce: a new conversion must give the same bytes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import exit_code_of, run
from tritpack.converter.convert import convert
from tritpack.converter.repack import repack
from tritpack.converter.verify.ladder import verify
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.gguf_writer import TensorPlan, write_gguf

CONVERSIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "layout and table": {"outtype": "t158", "embedding_type": "q8_0"},
    "tiled": {"outtype": "tl1"},
    "old type id": {"outtype": "pq2_0", "pq2_id": 42, "allow_scale_rounding": True},
    "engine": {"target": "bitnet.cpp", "name": "a name"},
}


@pytest.mark.parametrize("name", CONVERSIONS)
def test_every_conversion_is_reproduced(name: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    convert(tiny_checkpoint, file := tmp_path / "x.gguf", **CONVERSIONS[name])
    rung = verify(file, tiny_checkpoint, level="structure", reproduce=True)["reproduction"]
    assert rung.verdict == "pass", rung.sentences
    assert rung.figures["sha256"] == rung.figures["sha256_again"] and list(tmp_path.iterdir()) == [file]


def test_a_repacked_file_is_reproduced_from_its_source(tiny_gguf: Path, tmp_path: Path) -> None:
    repack(tiny_gguf, file := tmp_path / "x.gguf", outtype="t2")
    assert verify(file, tiny_gguf, level="structure", reproduce=True)["reproduction"].verdict == "pass"


def edited(file: Path, target: Path, keys: dict[str, Any], tensor: str | None = None) -> Path:
    """The file with other keys, and one bit of a tensor flipped."""
    read = GgufFile(file)
    plans = [TensorPlan(i.name, i.shape, i.type_id, i.nbytes) for i in read.tensors.values()]
    data = []
    for info in read.tensors.values():
        stored = read.bytes_of(info).copy()
        stored[0] ^= 1 if info.name == tensor else 0
        data.append([stored])
    write_gguf(target, {**read.metadata, **keys}, plans, data, types=read.metadata_types)
    return target


@pytest.mark.parametrize(
    ("keys", "tensor", "words"),
    [
        ({"general.description": "added"}, None, "the metadata key general.description"),
        ({"tritpack.version": "0.0.1"}, None, r"\(FILE is from version 0.0.1"),
        ({}, "token_embd.weight", "tensor 'token_embd.weight' differs"),
        ({"general.alignment": 32}, None, "aligned to 32 bytes here and to 64 there; all their bytes .* are the same$"),
    ],
)
def test_what_differs_is_named(
    keys: dict[str, Any], tensor: str | None, words: str, tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path
) -> None:
    file = edited(tiny_gguf, tmp_path / "x.gguf", keys, tensor)
    report = verify(file, tiny_checkpoint, level="structure", reproduce=True)
    [sentence] = report["reproduction"].sentences
    assert report.verdict == "fail"
    assert re.search(words, sentence), sentence


def test_the_command(tiny_checkpoint: Path, tiny_gguf: Path) -> None:
    result = run("verify", str(tiny_gguf), "--source", str(tiny_checkpoint), "--level", "structure", "--reproduce")
    assert exit_code_of(result) == 0 and "reproduction" in result.output
