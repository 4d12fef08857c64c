"""CAT-Q's files, whose layout llama.cpp and the fork that they were made for now refuse: repack rescues them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tests.make import families
from tests.make.checkpoints import edited_gguf
from tests.make.storage import ternary_floats
from tritpack.converter.convert import convert
from tritpack.converter.inspect.inspect import inspect
from tritpack.converter.repack import repack
from tritpack.converter.verify.ladder import verify
from tritpack.formats.gguf_reader import GgufFile
from tritpack.runtime.model import Model

GROUPS_OF_128 = ternary_floats("F16", families.by_group(128))
_SIZES = {"hidden": 128, "intermediate": 256, "heads": 4, "kv_heads": 2}
LIKE = {
    "qwen3": dataclasses.replace(families.FAMILIES["bonsai_tied"], tables=None, store=GROUPS_OF_128),
    "llama": dataclasses.replace(families.FAMILIES["trilm"], store=GROUPS_OF_128, granularity={}, **_SIZES),
}
"""Families of CAT-Q: dense models whose linears alone are ternary, in groups of 128."""

MADE = {"q2_0": 42, "pq2_0": 142, "t158": 1585}
"""Layout -> type id of the files that repack makes: for llama.cpp, for the fork as it is today, and for us."""


@pytest.fixture(params=LIKE)
def legacy(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file as CAT-Q's export_gguf.sh writes it, made from a checkpoint as its export_model.sh writes it."""
    monkeypatch.setitem(families.FAMILIES, request.param, LIKE[request.param])
    (tmp_path / "c").mkdir()
    families.make(request.param, tmp_path / "c")
    convert(tmp_path / "c", tmp_path / "ours.gguf", outtype="pq2_0", pq2_id=42)
    arch = request.param

    def as_theirs(keys: dict[str, object]) -> None:
        ours = ("tritpack.", "general.source.", f"{arch}.hidden_activation", "general.alignment")
        for key in [key for key in keys if key.startswith(ours)]:
            del keys[key]
        if arch == "qwen3":
            del keys["qwen3.rope.dimension_count"], keys["qwen3.vocab_size"]
        keys["general.file_type"] = np.uint32(41)

    return edited_gguf(tmp_path / "ours.gguf", tmp_path / "catq-q2_0.gguf", metadata=as_theirs)


def test_repack_rescues_them(legacy: Path, tmp_path: Path) -> None:
    """The same codes, scales and logits in what each engine takes."""
    before = GgufFile(legacy)
    ternary = [name for name, info in before.tensors.items() if info.type_id == 42]
    assert len(ternary) == 14 and {before.tensors[name].layout for name in ternary} == {"pq2_0"}
    engines = {engine["engine"]: engine for engine in inspect(legacy)["engines"]}
    commands = {"llama.cpp": "--for llama.cpp", "PrismML's fork since prism-v7": "--for prism"}
    for engine, command in commands.items():
        assert engines[engine]["verdict"] == "refuses" and engines[engine]["command"].endswith(command), engine
    with Model(legacy) as model:
        logits = model.logits(tokens=[1, 2, 3])
    for layout, type_id in MADE.items():
        target = "llama.cpp" if layout == "q2_0" else "tritpack"
        repack(legacy, path := tmp_path / f"{layout}.gguf", outtype=layout, target=target)
        file = GgufFile(path)
        for name in ternary:
            read, expected = (each.ternary(each.tensors[name]) for each in (file, before))
            assert (file.tensors[name].layout, file.tensors[name].type_id) == (layout, type_id), name
            assert read is not None and expected is not None, name
            assert np.array_equal(read.dequantize(), expected.dequantize()), name
        with Model(path) as model:
            assert np.array_equal(model.logits(tokens=[1, 2, 3]), logits), layout
        assert verify(path, tmp_path / "c", level="weights").verdict == "pass", layout
        now = {engine["engine"]: engine["verdict"] for engine in inspect(path)["engines"]}
        assert now["tritpack"] == "right", layout
        assert now["llama.cpp"] == ("right" if layout == "q2_0" else "refuses"), layout
        assert (now["PrismML's fork since prism-v7"] == "refuses") == (layout == "t158"), layout
