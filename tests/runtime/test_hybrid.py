"""Qwen3.5 hybrids in C: the answers of transformers on every instruction set, and going back in recurrent layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tritpack.formats.errors import UsageError
from tritpack.runtime.library import available_isas
from tritpack.runtime.model import Model

TOLERANCE = 5e-5
"""Of the largest logit, from a float64 recurrence: spec/bonsai2.md."""
GROUPED = "bonsai2_rotated_gguf_rep3/model.gguf"


@pytest.mark.parametrize("isa", available_isas())
@pytest.mark.parametrize("file", ["bonsai2_rotated_gguf/model-PQ2_0.gguf", GROUPED])
def test_the_answers_of_transformers(shared: Path, file: str, isa: str) -> None:
    path = shared / "checkpoints" / file
    answers = load_file(path.parent / "reference.safetensors")
    ids = answers["input_ids"].reshape(-1).tolist()
    exact = answers["exact_logits"].reshape(len(ids), -1)
    with Model(path, isa=isa, threads=2) as model:
        logits = model.logits(ids)
        kernels = model.kernels()
    assert np.abs(logits - exact).max() < TOLERANCE * np.abs(exact).max()
    rows = {name.rpartition("_")[2] for name in kernels if name.startswith(("hadamard", "conv", "delta_rule"))}
    assert len(rows) == 1


def test_going_back(shared: Path) -> None:
    """What follows a rewinding has the bits of a run without it; what is not kept is said, and refused."""
    path = shared / "checkpoints" / GROUPED
    ids = load_file(path.parent / "reference.safetensors")["long_input_ids"].reshape(-1).tolist()
    with Model(path, context=200) as model:
        expected = model.logits(ids)
        own = model.session.own
        assert [own.rewindable(n) for n in (0, 60, 120, 140, 150)] == [0, 0, 0, 140, 150]
        with pytest.raises(UsageError):
            own.rewind(60)
        for back in (1, 16, 150):
            own.rewind(len(ids) - back)
            assert (model.session.eval(ids[-back:], logits="all") == expected[-back:]).all(), back
        other = model.session.new_sequence()
        other.copy_from(own, own.rewindable(140))
        state = other.save()
        other.rewind(0)
        other.load(140, state)
        own.copy_from(other, 140)
        assert (model.session.eval(ids[140:], logits="all") == expected[140:]).all()
