"""The count of instructions, with a valgrind that says what a test wants to hear."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks import instructions

COUNTER = """#!/bin/sh
# A program of 10^9 instructions, and for each layer and token one per eight weights and 7 more.
for word; do case "$word" in *-2-layers*) layers=2;; *-3-layers*) layers=3;; esac; done
while [ $# -gt 1 ]; do case "$1" in -p|-n) [ "$2" -gt 0 ] && tokens=$2;; esac; shift; done
[ -n "$tokens" ] || tokens=0
echo '[{}]'
echo "==1== Collected : $((1000000000 + layers * tokens * (69468160 / 8) + 7 * tokens))" >&2
"""


def test_what_one_layer_needs_for_one_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "valgrind").write_text(COUNTER)
    (tmp_path / "valgrind").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    pair = [
        instructions.Entry("llama.cpp", "tq2_0", tmp_path / f"x-{layers}-layers.gguf", Path("llama-bench"))
        for layers in instructions.LAYERS
    ]
    for kind in instructions.TOKENS:
        assert instructions.per_weight(pair, kind) == 0.125, kind
