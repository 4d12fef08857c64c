"""What `inspect` says of weights in a rotated basis, and of keys that describe none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.make.checkpoints import edited_gguf
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
