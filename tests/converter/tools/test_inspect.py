"""inspect: any GGUF, told what it is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.make.checkpoints import edited_gguf
from tritpack.converter.tools.inspect import inspect
from tritpack.converter.verify.oracle.oracle import Oracle
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.ternary import TernaryTensor


def test_figures_of_our_own_file(tiny_checkpoint: Path, tiny_gguf: Path) -> None:
    result = inspect(tiny_gguf, stats=True)
    assert result["schema"] == "tritpack.inspect/1" and result["problems"] == []
    assert json.loads(json.dumps(result))["tensors"] == result["tensors"]
    row = next(row for row in result["tensors"] if row["name"] == "blk.1.ffn_down.weight")
    codes, scale = Oracle(tiny_checkpoint).linear("blk.1.ffn_down")
    assert row["shape"] == [256, 768] and row["nbytes"] == 256 * 768 // 4 + 32 and row["type_id"] == 36
    assert row["scale"] == scale
    assert row["codes_sha256"] == TernaryTensor(codes, scale).codes_sha256()
    assert [row["minus"], row["zero"], row["plus"]] == [float(np.mean(codes == c)) for c in (-1, 0, 1)]
    shares = np.array([row["minus"], row["zero"], row["plus"]])
    assert row["entropy_bits"] == pytest.approx(-(shares * np.log2(shares)).sum())
    info = GgufFile(tiny_gguf).tensors["blk.1.ffn_down.weight"]
    raw = tiny_gguf.read_bytes()[row["file_offset"] : row["file_offset"] + row["nbytes"]]
    assert raw == GgufFile(tiny_gguf).bytes_of(info).tobytes()


@pytest.mark.parametrize(
    "name",
    ["bitnetcpp_b158_i2_s", "llamacpp_llama_tq2_0", "llamacpp_llama_q2_0", "ik_b158_iq2_bn_r4", "ik_b158_wide_iq1_bn"],
)
def test_files_of_other_engines(shared: Path, name: str) -> None:
    result = inspect(shared / "golden" / "engines" / f"{name}.gguf", stats=True)
    layout = name.split("_", 2)[2].removeprefix("wide_")
    assert layout in result["layouts"]
    if layout == "i2_s":
        index = json.loads((shared / "golden" / "engines" / "golden.json").read_text())
        assert "hidden_activation is missing" in " ".join(result["problems"]) and index
        assert all("codes_sha256" in row for row in result["tensors"] if row["layout"] == "i2_s")


def test_broken_contents_are_problems_not_crashes(tiny_gguf: Path, tmp_path: Path) -> None:
    def three(tensors: dict[str, np.ndarray]) -> None:
        tensors["blk.0.attn_q.weight"][5] = 0xFF

    def claims(metadata: dict) -> None:
        metadata["general.file_type"] = 1
        del metadata["tokenizer.ggml.pre"]

    problems = inspect(edited_gguf(tiny_gguf, tmp_path / "a.gguf", tensors=three, metadata=claims), stats=True)[
        "problems"
    ]
    text = " ".join(problems)
    assert "'blk.0.attn_q.weight': i2_s: code 3 at row 0" in text
    assert "general.file_type is 1" in text and "tokenizer.ggml.pre is missing" in text
