"""make-dummy: seeded, of the asked shape, and accepted by the whole path."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.make.checkpoints import read_safetensors
from tritpack.converter.convert import convert
from tritpack.converter.tools.make_dummy import SHAPES, make_dummy
from tritpack.converter.verify.oracle.hybrid_packed import HybridPacked
from tritpack.formats.errors import UsageError
from tritpack.formats.gguf_reader import GgufFile
from tritpack.runtime.model import Model


def test_seeded(tiny_checkpoint: Path, tmp_path: Path) -> None:
    make_dummy(tmp_path / "same", shape="tiny", seed=7)
    make_dummy(tmp_path / "other", shape="tiny", seed=9)
    for path in tiny_checkpoint.iterdir():
        assert path.read_bytes() == (tmp_path / "same" / path.name).read_bytes(), path
    weights = "model.safetensors"
    assert (tmp_path / "other" / weights).read_bytes() != (tmp_path / "same" / weights).read_bytes()


def test_the_real_shape_is_that_of_the_published_model() -> None:
    """1,178,623,988 bytes: what the published packed safetensors file of 2B-4T has, header aside."""
    spec = SHAPES["bitnet-2b-4t"]
    linears = [spec.linear_shape(name.split(".")[-2]) for name in spec.linear_names()]
    others = [s for n, s in spec.tensor_shapes().items() if n not in set(spec.linear_names())]
    data = sum(r * c // 4 + 2 for r, c in linears) + 2 * sum(int(np.prod(shape)) for shape in others)
    assert len(linears) == 210 and sum(r * c for r, c in linears) == 2_084_044_800
    assert 0 < 1_178_623_988 - data < 100_000


def test_tokenizer_has_the_full_vocabulary(tiny_checkpoint: Path) -> None:
    config = json.loads((tiny_checkpoint / "config.json").read_text())
    tokenizer = json.loads((tiny_checkpoint / "tokenizer.json").read_text())
    ids = set(tokenizer["model"]["vocab"].values()) | {token["id"] for token in tokenizer["added_tokens"]}
    assert ids == set(range(config["vocab_size"]))


def test_codes_are_legal_and_scales_positive(tiny_checkpoint: Path) -> None:
    for name, (dtype, _, data) in read_safetensors(tiny_checkpoint / "model.safetensors").items():
        if dtype == "U8":
            packed = np.frombuffer(data, np.uint8)
            assert not (packed & (packed >> 1) & 0x55).any(), name


def test_straight_to_gguf_and_no_overwriting(tmp_path: Path) -> None:
    made = make_dummy(tmp_path / "d.gguf", shape="tiny")
    assert GgufFile(tmp_path / "d.gguf").size == made["nbytes"]
    assert [path.name for path in tmp_path.iterdir()] == ["d.gguf"]
    with pytest.raises(UsageError, match="exists already"):
        make_dummy(tmp_path / "d.gguf", shape="tiny")
    with pytest.raises(UsageError, match="not empty"):
        make_dummy(tmp_path, shape="tiny")


def test_a_hybrid_is_the_pack_of_its_vendor(tmp_path: Path) -> None:
    """Seeded, converted by its own contract, and of sizes that neither die nor explode."""
    made = make_dummy(tmp_path / "pack", shape="bonsai2-tiny", seed=3)
    make_dummy(tmp_path / "same", shape="bonsai2-tiny", seed=3)
    for path in (tmp_path / "pack").iterdir():
        assert path.read_bytes() == (tmp_path / "same" / path.name).read_bytes(), path
    assert made["nbytes"] == sum(path.stat().st_size for path in (tmp_path / "pack").iterdir())
    convert(tmp_path / "pack", tmp_path / "m.gguf", outtype="pq2_0")
    tokens = list(range(5, 40))
    expected = HybridPacked(tmp_path / "m.gguf").logits([tokens])[0]
    with Model(tmp_path / "m.gguf", threads=2) as model:
        logits = model.logits(tokens)
        assert model.spec.rotation is not None and model.spec.rotation.block == 512 and model.spec.tied
        assert model.generate("a", max_tokens=4).ids
    assert np.abs(logits - expected).max() < 5e-5 * np.abs(expected).max() and 0.3 < logits.std() < 3
    with pytest.raises(UsageError, match="packed codes alone"):
        make_dummy(tmp_path / "other", shape="bonsai2-tiny", mode="online")


def test_the_shape_of_a_bonsai_of_4b() -> None:
    spec = SHAPES["bonsai2-4b"]
    shapes = spec.tensor_shapes()
    assert spec.parameters() == 4_205_751_296 and spec.rope_width == 64
    assert shapes["blk.0.attn_qkv.weight"] == (8192, 2560) and shapes["blk.0.ssm_out.weight"] == (2560, 4096)
    assert shapes["blk.3.attn_q.weight"] == (8192, 2560) and "blk.3.ssm_out.weight" not in shapes
