"""The benchmark beside other engines, with a llama-bench that says what a test wants to hear."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks import peers

ARGUMENTS = ["--shape", "tiny", "--rounds", "2", "--threads", "1", "--prompt", "4", "--generate", "2"]
ANSWER = """#!/bin/sh
# GCC: (Somebody's 1.2) 13.2.0
case "$*" in
  *iq1_bn.gguf*) echo "GGML_ASSERT(k >= 512)" >&2; exit 134 ;;
  *iq2_bn.gguf*) echo '[{"build_commit": "abc1234", "avg_ts": 0.5}]' ;;
  *) echo '[{"build_commit": "abc1234", "avg_ts": 0.25}]' ;;
esac
"""


def test_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = tmp_path / "llama-bench"
    program.write_text(ANSWER)
    program.chmod(0o755)
    peers.main([f"ik_llama.cpp={program}", *ARGUMENTS, "--folder", str(tmp_path / "models")])
    out, err = capsys.readouterr()
    assert "| engine, layout | pp4, 1 thread | tg2, 1 thread |" in out
    for line in ("tritpack t158", "tritpack t2", "tritpack i2_s"):
        assert f"| {line} |" in out, line
        assert f"| **{line} by the fastest other** |" in out, line
    assert "| ik_llama.cpp iq2_bn | 0.5 (0.5-0.5) | 0.5 (0.5-0.5) |" in out
    assert out.count("x ik_llama.cpp iq2_bn |") == 6, "the faster one of the two that ran"
    assert "- ik_llama.cpp abc1234 (GCC: (Somebody's 1.2) 13.2.0)" in out
    assert "iq1_bn" not in out
    assert f"left out: ik_llama.cpp iq1_bn: {program} ended with 134: GGML_ASSERT(k >= 512)" in err


@pytest.mark.parametrize(
    ("peer", "reason"),
    [
        ("ollama=/bin/sh", "the engine must be one of bitnet.cpp, llama.cpp, ik_llama.cpp"),
        ("llama.cpp=/none", "is not a file"),
    ],
)
def test_wrong_peer(peer: str, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        peers.main([peer])
    assert caught.value.code == 2
    assert reason in capsys.readouterr().err
