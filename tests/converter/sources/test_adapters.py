"""LoRA adapters: every command says what they are, and how to merge them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import exit_code_of, run
from tests.hostile.generate import ARCHITECTURE, gguf, pair, tensor, text
from tritpack.formats.errors import TritpackError


@pytest.fixture(params=["folder", "file of a folder", "GGUF"])
def adapter(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "GGUF":
        path = tmp_path / "lora.gguf"
        parts = (ARCHITECTURE, pair("general.type", 8, text("adapter")), tensor("blk.0.attn_q.weight.lora_a", (8,), 0))
        path.write_bytes(gguf(*parts, pairs=2, tensors=1, data=32))
        return path
    folder = tmp_path / "lora"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "some/model"}')
    (folder / "adapter_model.safetensors").write_bytes(b"")
    return folder if request.param == "folder" else folder / "adapter_model.safetensors"


def test_an_adapter_is_no_source(adapter: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    for command in (["convert", adapter, "-o", tmp_path / "x.gguf"], ["verify", tiny_gguf, "--source", adapter]):
        result = run(*command)
        error = result.exception
        assert isinstance(error, TritpackError) and exit_code_of(result) == 4, command
        assert "is a LoRA adapter" in str(error) and "merge it into its base model" in (error.hint or ""), command
        assert str(error).startswith(str(adapter)), command


def test_an_adapter_is_no_model(adapter: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    adapter = adapter.parent if adapter.suffix == ".safetensors" else adapter
    for command in (
        ["generate", adapter, "-p", "x"],
        ["verify", adapter, "--source", tiny_checkpoint],
        ["export", adapter, "-o", tmp_path / "out"],
    ):
        result = run(*command)
        assert exit_code_of(result) == 4 and "is a LoRA adapter" in str(result.exception), command
