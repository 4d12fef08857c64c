"""Whether a checkpoint or file is called ternary by the first values of its first feed-forward linear."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.make.checkpoints import Tensors, edited_gguf
from tests.make.families import Checkpoints, Config, edited, poke
from tritpack.converter.convert import convert
from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.converter.sources.first_values import checkpoint_is_ternary, gguf_is_ternary, is_ternary
from tritpack.formats.errors import Unreadable, Unsupported
from tritpack.formats.gguf_reader import GgufFile

GATE0 = "model.layers.0.mlp.gate_proj"


def another_value(part: str) -> Callable[[Tensors], None]:
    """Return what writes 0.5 into a part of the first feed-forward gate."""
    return lambda tensors: poke(f"{GATE0}.{part}", 0.5, at=1)({}, tensors)


def test_checkpoints(checkpoints: Checkpoints, tmp_path: Path) -> None:
    for name, expected in (("bonsai_tied", True), ("bonsai_mlx", True), ("ms_2b4t_packed", None), ("falcon3", None)):
        assert checkpoint_is_ternary(CheckpointFolder(checkpoints(name).folder)) is expected, name
    one_more = edited(checkpoints("bonsai_tied").folder, tmp_path / "t", tensors=another_value("weight"))
    assert checkpoint_is_ternary(CheckpointFolder(one_more)) is False
    biased = edited(checkpoints("bonsai_mlx").folder, tmp_path / "m", tensors=another_value("biases"))
    assert checkpoint_is_ternary(CheckpointFolder(biased)) is False


@pytest.mark.parametrize(("name", "parts"), [("bonsai_tied", ["weight"]), ("bonsai_mlx", ["scales", "biases"])])
def test_tensors_without_rows(checkpoints: Checkpoints, tmp_path: Path, name: str, parts: list[str]) -> None:
    def emptied(tensors: Tensors) -> None:
        for full in (f"{GATE0}.{part}" for part in parts):
            tensors[full] = (tensors[full][0], [0, *tensors[full][1][1:]], b"")

    folder = edited(checkpoints(name).folder, tmp_path / "t", tensors=emptied)
    assert checkpoint_is_ternary(CheckpointFolder(folder)) is None


def test_groups_of_values() -> None:
    values = np.array([[0.5, -0.5, 0, 0.5] * 64 + [-2, 0, 2, 2] * 64], np.float32)
    assert is_ternary(values) and not is_ternary(values + np.float32(0.25))
    assert not is_ternary(np.roll(values, 8, axis=1)), "a group of 128 with two magnitudes"


@pytest.mark.parametrize(("ternary", "said"), [(True, "uses the tensor names"), (False, "an ordinary Qwen3.5")])
def test_a_qwen3_5_is_named_by_its_values(checkpoints: Checkpoints, tmp_path: Path, ternary: bool, said: str) -> None:
    def config(settings: Config) -> None:
        settings["model_type"] = "qwen3_5_text"

    damage = None if ternary else another_value("weight")
    folder = edited(checkpoints("bonsai_tied").folder, tmp_path / "c", config=config, tensors=damage)
    with pytest.raises(Unsupported, match=said):
        convert(folder, tmp_path / "m.gguf")


def test_files(tiny_gguf: Path, tmp_path: Path) -> None:
    assert gguf_is_ternary(GgufFile(tiny_gguf)) is True
    renamed = edited_gguf(
        tiny_gguf, tmp_path / "q.gguf", metadata=lambda m: m.update({"general.architecture": "qwen35"})
    )
    with pytest.raises(Unreadable, match=r"qwen35.attention.head_count is missing"):
        convert(renamed, tmp_path / "m.gguf")
