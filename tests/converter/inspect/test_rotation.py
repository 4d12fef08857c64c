"""What `inspect` says of weights in a rotated basis, and of keys that describe none."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.make.checkpoints import edited_gguf
from tests.make.hybrid import ROTATED, TERNARY, write_ternary_hybrid
from tritpack.converter.inspect.answers import answers
from tritpack.converter.inspect.inspect import inspect
from tritpack.formats.gguf_reader import GgufFile

CONTRACT: dict[str, Any] = {
    "general.architecture": "qwen35", "prism.hadamard.version": 1, "prism.hadamard.block_size": 128,
    "prism.hadamard.transform": "normalized-sylvester-walsh-hadamard", "prism.hadamard.axis": "input-last-dimension",
    "prism.hadamard.sign_mode": "explicit",
}  # fmt: skip


def rotated(source: Path, target: Path, **changed: Any) -> Path:
    """A file with the keys of a rotation, of all matrices as wide as the first layer's gate."""
    file = GgufFile(source)
    width = file.tensors["blk.0.ffn_gate.weight"].cols
    names = [t.name for t in file.tensors.values() if t.cols == width and file.layout_of(t) and "blk" in t.name]
    keys = {
        **CONTRACT,
        "prism.hadamard.sign_widths": np.array([width], np.int32),
        "prism.hadamard.sign_values": np.ones(width, np.int32),
        "prism.hadamard.weight_names": names,
        **{f"prism.hadamard.{key}": value for key, value in changed.items()},
    }
    return edited_gguf(source, target, metadata=lambda m: m.update(keys))


def test_a_rotated_file(tiny_gguf: Path, tmp_path: Path) -> None:
    result = inspect(rotated(tiny_gguf, tmp_path / "r.gguf"))
    assert result["rotation"].startswith("signed Walsh-Hadamard, block 128, 1 width,")
    assert "Weights in a rotated basis (signed Walsh-Hadamard, block 128" in answers(result)["what"]
    assert not [text for text in result["problems"] if "prism.hadamard" in text]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"version": 2}, "prism.hadamard.version is 2"),
        ({"weight_names": ["blk.0.ffn_up.weight"]}, "is ternary, but the keys prism.hadamard.* do not name it"),
    ],
)
def test_faults_of_the_keys(tiny_gguf: Path, tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    result = inspect(rotated(tiny_gguf, tmp_path / "r.gguf", **changed))
    assert [text for text in result["problems"] if said in text], result["problems"]


def test_a_rotated_hybrid_says_where_it_talks_nonsense(tmp_path: Path) -> None:
    result = inspect(write_ternary_hybrid(tmp_path / "r.gguf", ROTATED))
    said = answers(result)
    assert "signed Walsh-Hadamard, block 64, 3 widths" in said["what"] and result["doubt"] is None
    assert "Refused by" in said["runs_in"] and "llama.cpp, ik_llama.cpp" in said["runs_in"]
    assert "load and talk nonsense in llama.cpp and ollama, LM Studio" in said["runs_in"]
    assert result["model"]["rotation"]["sign_widths"] == [128, 256, 768]
    assert json.loads(json.dumps(result))["rotation"] == result["rotation"]
    q2_0 = inspect(write_ternary_hybrid(tmp_path / "q2_0.gguf", ROTATED, "q2_0"))
    assert "Loads and talks nonsense in llama.cpp: it lacks the transform." in answers(q2_0)["runs_in"]


def test_a_hybrid_without_keys_is_in_doubt(tmp_path: Path) -> None:
    plain = write_ternary_hybrid(tmp_path / "plain.gguf", TERNARY)
    said = answers(inspect(plain))["what"]
    assert "In doubt: no key prism.hadamard.* is there: it is the first generation" in said and "ssm_alpha" not in said
    assert TERNARY.delta_net is not None
    gates = dataclasses.replace(TERNARY, delta_net=dataclasses.replace(TERNARY.delta_net, ternary_gates=True))
    said = answers(inspect(write_ternary_hybrid(tmp_path / "gates.gguf", gates)))["what"]
    assert "its ternary ssm_alpha and ssm_beta point to the first" in said
    ours = edited_gguf(plain, tmp_path / "o.gguf", metadata=lambda m: m.update({"tritpack.source.form": "exact"}))
    assert inspect(ours)["doubt"] is None, "made from a folder, which says so"


def test_zeros_and_codes_of_3_are_counted(tmp_path: Path) -> None:
    good = write_ternary_hybrid(tmp_path / "good.gguf", ROTATED)
    assert inspect(good)["codes"] is None, "not decoded"
    codes = inspect(good, stats=True)["codes"]
    assert codes["code_3"] == 0 and sum(codes.values()) > 10**6
    bad = edited_gguf(good, tmp_path / "bad.gguf", tensors=lambda t: t["blk.0.ffn_up.weight"][2:4].fill(0xFF))
    result = inspect(bad, stats=True)
    assert result["codes"]["code_3"] == 8 and "8 of them are 3" in answers(result)["what"]


def test_packs_and_folders(shared: Path) -> None:
    pack = inspect(shared / "checkpoints" / "bonsai2_rotated_mlx")
    assert pack["rotation"].startswith("signed Walsh-Hadamard, block 512, 2 widths, 26 matrices and the embedding")
    assert "Right in MLX." in answers(pack)["runs_in"]
    folder = inspect(shared / "checkpoints" / "bonsai_hybrid_vl_unpacked")
    assert folder["rotation"] is None and folder["left_out"] == {"the vision tower": 21}
    assert "Left out: 21 tensors of the vision tower." in answers(folder)["what"]
