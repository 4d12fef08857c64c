"""The mistakes of engines, made by our own runtime: each runs, and computes another model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.converter.verify.breakages import scales
from tests.make.families import Checkpoints
from tritpack.converter.convert import convert
from tritpack.converter.repack import repack
from tritpack.converter.verify.engine.answers import as_answers, compare
from tritpack.converter.verify.engine.mistakes import logits_with, mistakes
from tritpack.runtime.model import Model

TOKENS = [1, 5, 9, 3, 7, 2, 8, 4]


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("ms_2b4t_packed", {"activation", "sub_norms", "rotary_pairs", "rotary_base"}),
        ("falcon3", {"activation", "head", "rotary_pairs", "rotary_base"}),
        ("qwen3_packed", {"activation", "head", "rotary_pairs", "rotary_base"}),
    ],
)
def test_each_mistake_computes_another_model(
    checkpoints: Checkpoints, tmp_path: Path, name: str, kinds: set[str]
) -> None:
    path = tmp_path / "model.gguf"
    convert(checkpoints(name).folder, path, outtype="t2")
    assert made(path) == kinds


def test_other_orders_of_i2_s(demo_gguf: Path) -> None:
    assert "block_order" in made(demo_gguf)


def test_scales_in_tensors_of_their_own(demo_gguf: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    float_scales = scales(lambda ternary: ternary.scales * np.float32(1.0001))(demo_gguf, tmp_path / "scaled.gguf")
    repack(float_scales, path, outtype="tq2_0", target="llama.cpp", allow_wrong_engine=True)
    assert {"scales", "scale_twice"} <= made(path)


def made(path: Path) -> set[str]:
    """Make each mistake, and return the kinds of those that compute another model."""
    kinds = set()
    with Model(path, threads=1) as model:
        ours = model.logits(TOKENS)
        for mistake in mistakes(model.file, model.spec):
            logits = logits_with(mistake, model.file, TOKENS, 1)
            assert logits is not None and np.isfinite(logits).all(), mistake
            assert compare(as_answers(logits), ours).distance > 1e-4, mistake
            kinds.add(mistake.kind)
        assert np.array_equal(model.logits(TOKENS), ours), "a mistake changed the file that others read"
    return kinds
