"""Odd packed files: every command that takes a model refuses them in words, export included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import exit_code_of, run
from tests.make.checkpoints import edited_gguf
from tritpack.converter.export.export import export
from tritpack.formats.errors import TritpackError, Unreadable, Unsupported
from tritpack.formats.gguf_reader import GgufFile
from tritpack.formats.gguf_writer import TensorPlan, write_gguf
from tritpack.formats.model_spec import LINEARS

PADDING, TEMPLATE = "tokenizer.ggml.padding_token_id", "tokenizer.chat_template"


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({PADDING: 4_000_000}, "padding_token_id is '4000000', expected the id of one of 512 tokens"),
        ({PADDING: "x"}, "padding_token_id is 'x'"),
        ({PADDING: ["x"]}, "padding_token_id is"),
        ({PADDING: float("inf")}, "padding_token_id is 'inf'"),
        ({PADDING: True}, "padding_token_id is 'True'"),
        ({"tokenizer.ggml.unknown_token_id": -1}, "unknown_token_id is '-1'"),
        ({"tokenizer.chat_templates": 5}, "chat_templates is '5', expected a list of names"),
        ({"tokenizer.chat_templates": "tool"}, "chat_templates is 'tool', expected a list of names"),
        ({"tokenizer.chat_templates": ["t"], f"{TEMPLATE}.t": 5}, "chat_template.t is '5', expected a text"),
        ({"tokenizer.ggml.bos_token_id": float("inf")}, "bos_token_id is inf"),
        ({"general.name": ["q"]}, "general.name is"),
        ({"general.name": 7}, "general.name is '7', expected a text"),
    ],
)
def test_export_checks_each_value_that_it_reads(
    keys: dict[str, Any], told: str, tiny_gguf: Path, tmp_path: Path
) -> None:
    edited_gguf(tiny_gguf, file := tmp_path / "m.gguf", metadata=lambda pairs: pairs.update(keys))
    with pytest.raises(Unreadable, match=told):
        export(file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_architecture_that_is_no_text(tiny_gguf: Path, tmp_path: Path) -> None:
    numbers = {"general.architecture": np.array([1, 2], np.int32)}
    edited_gguf(tiny_gguf, file := tmp_path / "m.gguf", metadata=lambda pairs: pairs.update(numbers))
    with pytest.raises(Unsupported, match="architecture array"):
        export(file, tmp_path / "out")


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_norms_that_a_family_does_not_have(architecture: str, tiny_gguf: Path, tmp_path: Path) -> None:
    """BitNet's sub-norms under another architecture: the packed file can be run, and no checkpoint can say it."""

    def rename(pairs: dict[str, Any]) -> None:
        old = str(pairs["general.architecture"])
        for key in [key for key in pairs if key.startswith(f"{old}.")]:
            pairs[key.replace(old, architecture, 1)] = pairs.pop(key)
        pairs["general.architecture"] = architecture

    edited_gguf(tiny_gguf, file := tmp_path / "m.gguf", metadata=rename)
    with pytest.raises(Unsupported, match="has no place in a checkpoint of"):
        export(file, tmp_path / "out")


# -- models that are not ternary ---------------------------------------------------------------------------------------

KINDS = {"f16": (1, 1, 2), "q4_1": (3, 32, 20), "q4_k": (12, 256, 144), "unknown(99)": (99, 1, 1)}
"""Type id, weights per block and bytes per block."""
COMMANDS = {
    "convert": ["-o", "out.gguf"],
    "repack": ["-o", "out.gguf"],
    "export": ["-o", "out"],
    "generate": ["-p", "x"],
    "logits": ["--tokens", "1", "-o", "out.npy"],
    "perplexity": [],
    "bench": [],
}


def restored(
    source: Path, target: Path, kind: str, stored_so: tuple[str, ...], architecture: str | None = None
) -> Path:
    """A copy whose linears named in `stored_so` are zeros of another type."""
    file, (type_id, block, size) = GgufFile(source), KINDS[kind]
    plans, data = [], []
    for info in file.tensors.values():
        other = info.name.split(".")[-2] in stored_so
        nbytes = info.rows * info.cols // block * size if other else info.nbytes
        plans.append(TensorPlan(info.name, info.shape, type_id if other else info.type_id, nbytes))
        data.append([np.zeros(nbytes, np.uint8) if other else file.bytes_of(info)])
    metadata = dict(file.metadata) | ({"general.architecture": architecture} if architecture else {})
    write_gguf(target, metadata, plans, data)
    return target


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_command_says_that_a_model_is_not_ternary(
    command: str, kind: str, tiny_gguf: Path, tmp_path: Path
) -> None:
    file = restored(tiny_gguf, tmp_path / "m.gguf", kind, LINEARS)
    options = [str(tmp_path / text) if text.startswith("out") else text for text in COMMANDS[command]]
    result = run(command, file, *options)
    assert exit_code_of(result) == 4
    assert isinstance(result.exception, TritpackError)
    told = f"is not a ternary model: 14 of its 14 linears are stored as 14 x {kind}, 'blk.0.attn_q.weight' first"
    assert result.exception.message == told
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(
    ("stored_so", "architecture", "told"),
    [
        (LINEARS, "phi3", "is not a ternary model: 14 of its 14 linears are stored as 14 x q4_1"),
        (("attn_v",), None, "is not wholly a ternary model: 2 of its 14 linears are stored as 2 x q4_1"),
    ],
)
def test_other_architectures_and_mixed_files(
    stored_so: tuple[str, ...], architecture: str | None, told: str, tiny_gguf: Path, tmp_path: Path
) -> None:
    file = restored(tiny_gguf, tmp_path / "m.gguf", "q4_1", stored_so, architecture)
    with pytest.raises(Unsupported, match=told):
        export(file, tmp_path / "out")


def test_tensors_without_linears(tmp_path: Path) -> None:
    plan = TensorPlan("v.blk.0.attn_qkv.weight", (2, 3), 0, 24)
    write_gguf(file := tmp_path / "m.gguf", {"general.architecture": "clip"}, [plan], [[np.zeros(24, np.uint8)]])
    with pytest.raises(Unsupported, match="is not a ternary model: its tensors are stored as 1 x f32"):
        export(file, tmp_path / "out")
