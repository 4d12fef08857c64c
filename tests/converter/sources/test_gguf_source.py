"""A packed file as SOURCE: the official GGUF in its early and late form, our own, and files that do not make sense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import exit_code_of, run
from tests.make.checkpoints import edited_gguf
from tritpack.converter.convert import convert
from tritpack.converter.verify.ladder import verify
from tritpack.formats.errors import Unreadable, Unsupported, UsageError
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.gguf_writer import TensorPlan, write_gguf
from tritpack.runtime.model import Model

STUB = "{% for message in messages %}...{% endfor %}BITNETAssistant: "


@pytest.fixture(scope="module", params=["bitnet-25", "bitnet-b1.58"])
def official(request: pytest.FixtureRequest, tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published 2B-4T file in small: no activation, no pre-tokenizer, a stub for a template, nothing of ours."""
    file, architecture = GgufFile(tiny_gguf), str(request.param)
    ours = ("tritpack.", "general.source", "tokenizer.ggml.pre", "bitnet-b1.58.hidden_activation")
    pairs: dict[str, Any] = {
        key.replace("bitnet-b1.58", architecture): value
        for key, value in file.metadata.items()
        if not key.startswith(ours)
    }
    pairs |= {"general.architecture": architecture, "tokenizer.chat_template": STUB}
    path = tmp_path_factory.mktemp("official") / "ggml-model-i2_s.gguf"
    plans = [TensorPlan(name, t.shape, t.type_id, t.nbytes) for name, t in file.tensors.items()]
    write_gguf(path, pairs, plans, ([file.bytes_of(tensor)] for tensor in file.tensors.values()))
    return path


@pytest.mark.parametrize("outtype", ["i2_s", "t2"])
def test_the_official_file_is_mended(official: Path, outtype: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    target = tmp_path / "m.gguf"
    result = convert(official, target, outtype=outtype)
    file = GgufFile(target)
    assert "GGUF of architecture bitnet" in result.plan.why and result.warnings == []
    assert file.metadata["general.architecture"] == "bitnet-b1.58"
    assert file.metadata["bitnet-b1.58.hidden_activation"] == "relu2"
    assert (
        file.metadata["tokenizer.ggml.pre"] == "llama-bpe" and "BITNET" not in file.metadata["tokenizer.chat_template"]
    )
    eot = file.metadata["tokenizer.ggml.eot_token_id"]
    assert eot in file.metadata["tritpack.tokenizer.stop_token_ids"]
    for source in (official, tiny_checkpoint):
        report = verify(target, source)
        assert report.verdict == "pass", [rung.sentences for rung in report.rungs]
    with Model(target) as mine, Model(official) as theirs:
        assert np.array_equal(mine.logits([1, 2, 3, 4]), theirs.logits([1, 2, 3, 4]))


def test_a_cycle_through_layouts_gives_the_same_bytes(tiny_gguf: Path, tmp_path: Path) -> None:
    convert(tiny_gguf, tmp_path / "t2.gguf", outtype="t2")
    convert(tmp_path / "t2.gguf", tmp_path / "back.gguf", outtype="i2_s")
    one, other = GgufFile(tiny_gguf), GgufFile(tmp_path / "back.gguf")
    assert {name: one.bytes_of(t).tobytes() for name, t in one.tensors.items()} == {
        name: other.bytes_of(t).tobytes() for name, t in other.tensors.items()
    }
    pairs = [
        {key: value if isinstance(value, (str, int, float)) else list(value) for key, value in file.metadata.items()}
        for file in (one, other)
    ]
    assert pairs[0] == pairs[1]


def test_another_file_than_the_source_is_found_out(tiny_gguf: Path, tmp_path: Path) -> None:
    other = edited_gguf(
        tiny_gguf, tmp_path / "other.gguf", tensors=lambda t: t["blk.1.ffn_up.weight"].__setitem__(7, 0)
    )
    report = verify(other, tiny_gguf, level="weights")
    assert report.verdict == "fail" and "blk.1.ffn_up" in report["weights"].sentences[0]


def test_sources_that_cannot_be_used(tiny_gguf: Path, tmp_path: Path) -> None:
    hadamard = edited_gguf(tiny_gguf, tmp_path / "h.gguf", metadata=lambda m: m.update({"prism.hadamard.block": 64}))
    with pytest.raises(Unsupported, match="rotated basis"):
        convert(hadamard, tmp_path / "x.gguf")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(tiny_gguf.read_bytes()[:-4000])
    with pytest.raises(Unreadable, match="needs"):
        convert(cut, tmp_path / "x.gguf")
    with pytest.raises(UsageError, match="is an input"):
        convert(tiny_gguf, tiny_gguf)
    assert exit_code_of(run("convert", cut, "-o", tmp_path / "x.gguf")) == 3
    assert not (tmp_path / "x.gguf").exists()


@pytest.mark.parametrize("kind", ["q8_0", "q6_k", "q4_k"])
def test_a_quantised_embedding_is_not_quantised_again(kind: str, tiny_gguf: Path, tmp_path: Path) -> None:
    convert(tiny_gguf, tmp_path / "q.gguf", embedding_type=kind)
    convert(tmp_path / "q.gguf", tmp_path / "again.gguf", outtype="t2")
    one, other = GgufFile(tmp_path / "q.gguf"), GgufFile(tmp_path / "again.gguf")
    stored = [file.bytes_of(file.tensors["token_embd.weight"]).tobytes() for file in (one, other)]
    assert stored[0] == stored[1]
    assert verify(tmp_path / "again.gguf", tmp_path / "q.gguf", level="weights").verdict == "pass"
    assert verify(tmp_path / "again.gguf", tiny_gguf, level="weights")["weights"].verdict == "pass"
