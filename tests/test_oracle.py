"""The numpy reference and the oracle, against transformers' own answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from converter.verify.logits import position_errors
from converter.verify.oracle import Oracle
from formats.errors import Unreadable, Unsupported
from runtime.reference import QuantizedInput
from tests.checkpoints import edited_checkpoint


def test_safe_logits_of_transformers(shared: Path) -> None:
    folder = shared / "checkpoints" / "ms_2b4t_packed"
    answers = load_file(folder / "reference.safetensors")
    margins: list[float] = []
    tokens = answers["safe_input_ids"].tolist()
    [logits] = Oracle(folder).logits([tokens], observe=lambda seen: margins.append(float(seen.margins.min())))
    assert position_errors(logits, answers["safe_logits"]).max() <= 1e-5
    assert min(margins) > 1e-6


def test_sequences_do_not_see_each_other(tiny_checkpoint: Path) -> None:
    oracle = Oracle(tiny_checkpoint)
    together = oracle.logits([[1, 2, 3], [4, 5]])
    assert np.allclose(together[1], oracle.logits([[4, 5]])[0], rtol=1e-3, atol=1e-3)


def test_a_tie_breaker_changes_near_ties_only(tiny_checkpoint: Path) -> None:
    oracle = Oracle(tiny_checkpoint)
    seen: list[QuantizedInput] = []
    free = oracle.logits([[1, 2, 3]], observe=seen.append)[0]
    codes = {(one.layer, one.point): one.codes for one in seen}
    # Codes that are one off everywhere: only values near a rounding boundary may follow them.
    off = {at: np.clip(code.astype(int) + 1, -128, 127).astype(np.int8) for at, code in codes.items()}
    followed: list[QuantizedInput] = []
    oracle.logits([[1, 2, 3]], observe=followed.append, tie_breaker=lambda *at: off[at])
    assert np.mean(followed[0].codes != seen[0].codes) < 0.05
    assert np.array_equal(oracle.logits([[1, 2, 3]], tie_breaker=lambda *at: codes[at])[0], free)


def test_sources_it_does_not_know(tiny_checkpoint: Path, tmp_path: Path) -> None:
    other = edited_checkpoint(tiny_checkpoint, tmp_path / "a", config=lambda c: c.pop("quantization_config"))
    with pytest.raises(Unsupported):
        Oracle(other)
    with pytest.raises(Unreadable):
        Oracle(tmp_path / "none")
