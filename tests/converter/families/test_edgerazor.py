"""EdgeRazor's checkpoints: floats that are rounded already, in groups of 256, perhaps with rows of int4 among them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.make.checkpoints import Tensors
from tests.make.families import Checkpoints, edited
from tests.make.storage import entry, values_of
from tritpack.converter.convert import convert
from tritpack.converter.storage.catalog import POINTERS
from tritpack.converter.verify.ladder import verify
from tritpack.formats.errors import Unsupported
from tritpack.formats.gguf_reader import GgufFile

UP = "model.layers.0.mlp.up_proj.weight"
DECLARED = {"quant_method": "edgerazor", "quant_mode": "w1_58a8kv8_embint4", "weight_bits": 4, "activation_bits": 8}
"""What edgerazor.export writes: its vLLM plugin packs ternary weights as 4 bits."""


def rounded(values: np.ndarray, *, int4: Callable[[int], bool]) -> np.ndarray:
    """Round rows in groups of 256 by the formulas of edgerazor's quant_function.py."""
    groups = values.reshape(len(values), -1, min(256, values.shape[1])).astype(np.float32)
    absmax = np.maximum(np.abs(groups).max(-1, keepdims=True), 1e-5) / 7
    clip = np.maximum(np.abs(groups).mean(-1, keepdims=True) * 2, 1e-5)
    ternary = np.clip(np.rint(groups / clip), -1, 1) * clip
    fours = np.clip(np.rint(groups / absmax), -7, 7) * absmax
    chosen = np.array([int4(row) for row in range(len(values))])[:, None, None]
    return np.where(chosen, fours, ternary).reshape(values.shape)


def checkpoint(source: Path, target: Path, int4: Callable[[int], bool] | None = None, **config: Any) -> Path:
    """Write a copy that says of itself what EdgeRazor's do, one linear of it rounded by its formulas."""

    def tensors(table: Tensors) -> None:
        if int4 is not None:
            masters = np.random.default_rng(1).normal(0, 0.02, values_of(table[UP]).shape)
            table[UP] = entry(rounded(masters, int4=int4), "BF16")

    declared = {"quantization_config": DECLARED, "is_w_quantized": True, **config}
    return edited(source, target, config=lambda document: document.update(declared), tensors=tensors)


def test_rounded_weights_are_read_and_proved(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = checkpoint(checkpoints("bonsai_tied").folder, tmp_path / "c", lambda row: False)
    made = convert(folder, tmp_path / "m.gguf", outtype="t158")
    assert "quant_method edgerazor, is_w_quantized" in made.plan.why and "float activations" in made.plan.why
    assert any("EdgeRazor's loaders round activations" in warning for warning in made.warnings)
    assert GgufFile(tmp_path / "m.gguf").metadata["tritpack.activation_quantization"] == "none"
    assert verify(tmp_path / "m.gguf", folder, level="weights").verdict == "pass"


@pytest.mark.parametrize(("every", "share"), [(8, "12.5 %"), (2, "50 %")])
def test_int4_rows_are_counted(checkpoints: Checkpoints, tmp_path: Path, every: int, share: str) -> None:
    folder = checkpoint(checkpoints("bonsai_tied").folder, tmp_path / "c", lambda row: row % every == 0)
    with pytest.raises(Unsupported, match=f"is a mixture: {share} of its first .* rows hold int4 values") as caught:
        convert(folder, tmp_path / "m.gguf")
    assert caught.value.tensor == UP and "1.58 bits" in (caught.value.hint or "")


@pytest.mark.parametrize("flag", [False, None, "true"])
def test_weights_that_its_loaders_round_are_refused(checkpoints: Checkpoints, tmp_path: Path, flag: object) -> None:
    folder = checkpoint(checkpoints("bonsai_tied").folder, tmp_path / "c", is_w_quantized=flag)
    with pytest.raises(Unsupported, match="quant_method 'edgerazor'") as caught:
        convert(folder, tmp_path / "m.gguf")
    assert caught.value.hint == POINTERS["edgerazor"]
