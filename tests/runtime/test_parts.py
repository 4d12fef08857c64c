"""runtime/parts.py: every step of a token belongs to a part."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import run
from tritpack.runtime.model import Model
from tritpack.runtime.parts import ATTENTION, HEAD, PART_OF, PRODUCTS, RECURRENCE, ROWS, seconds_by_part

LINEARS = {"attn_q", "attn_k", "attn_v", "attn_qkv", "attn_gate", "ssm_alpha", "ssm_beta", "attn_output", "ffn_gate",
           "ffn_up", "ffn_down", "attn_k_rope", "attn_residual"}  # fmt: skip
"""Points behind products, and two that follow another point at once."""


def test_a_model_without_recurrence(demo_gguf: Path) -> None:
    with Model(demo_gguf, threads=1) as model:
        seconds = seconds_by_part(model, [5, 6, 7])
        assert len(model.tokens) == 3
    assert set(seconds) == {ROWS, PRODUCTS, ATTENTION, HEAD} and min(seconds.values()) > 0


def test_a_hybrid(shared: Path) -> None:
    path = shared / "checkpoints" / "bonsai2_rotated_gguf_rep3" / "model.gguf"
    points = set()
    with Model(path, threads=1) as model, model.session.stepped(points.add):
        model.eval([5])
    assert points - set(PART_OF) <= LINEARS
    lines = run("bench", path, "-p", "0", "-n", "2", "-r", "1", "-t", "1", "--parts").stdout.splitlines()
    assert any(line.startswith("of a token's") and RECURRENCE in line and HEAD in line for line in lines)
