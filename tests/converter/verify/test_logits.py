"""The rungs that run the file decide where rounding may go either way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.converter.verify.breakages import swap_gate_and_up
from tests.make.checkpoints import edited_gguf
from tritpack.converter.verify.compare.tolerances import TEXT_LIMITS
from tritpack.converter.verify.findings import Kind
from tritpack.converter.verify.ladder import verify
from tritpack.converter.verify.oracle.oracle import Oracle
from tritpack.converter.verify.rungs import generation
from tritpack.converter.verify.rungs.generation import check_generation
from tritpack.converter.verify.rungs.logits import find_safe_prompts
from tritpack.runtime.library import library
from tritpack.runtime.model import Model


def test_wide_models_are_judged_with_near_ties_followed(
    tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no safe prompt exists the logits rung must still decide, both ways."""
    monkeypatch.setattr("tritpack.converter.verify.rungs.logits.find_safe_prompts", lambda oracle: [])
    good = verify(tiny_gguf, tiny_checkpoint, level="logits")
    assert good["logits"].figures["method"] == "near-ties followed" and good.verdict == "pass"
    # Not one flipped code: where its gate is closed for all six tokens, no logit can tell.
    bad = edited_gguf(tiny_gguf, tmp_path / "bad.gguf", tensors=swap_gate_and_up)
    assert verify(bad, tiny_checkpoint, level="logits")["logits"].verdict == "fail"


def test_text_of_a_large_model_is_judged_with_near_ties_followed(
    tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one pass for a good file; a wrong one is judged as that of a small model is."""
    free = verify(tiny_gguf, tiny_checkpoint, level="text")["text"]
    assert "method" not in free.figures
    for rung in ("logits", "text", "generation"):
        monkeypatch.setattr(f"tritpack.converter.verify.rungs.{rung}.searches", lambda spec: 0)
    good = verify(tiny_gguf, tiny_checkpoint)
    followed = good["text"]
    assert good.verdict == "pass" and followed.figures["method"] == "near-ties followed"
    assert followed.figures["flips"] > 0 and followed.figures["worst_position"] <= 1e-4 < free.figures["worst_position"]
    assert "adopted the runtime's codes at near-ties" in followed.notes[0]
    assert abs(good["perplexity"].figures["ln_ratio"]) < 1e-5
    bad = edited_gguf(tiny_gguf, tmp_path / "bad.gguf", tensors=swap_gate_and_up)
    assert verify(bad, tiny_checkpoint, level="text")["text"].verdict == "fail"


def test_slow_kernels_generate_few_tokens_of_a_large_model(
    tiny_checkpoint: Path, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The note says so, and what they give is compared with the same tokens of the others."""
    model, oracle = Model(tiny_gguf), Oracle(tiny_checkpoint)
    if library().best_isa() == "scalar":
        pytest.skip("this CPU has scalar kernels only")
    monkeypatch.setattr(generation, "searches", lambda spec: 0)
    right, wrong = generation._greedy, 0

    def counted(model: Model, prompt: list[int], count: int) -> tuple[list[int], list[str]]:
        tokens, digests = right(model, prompt, count)
        return tokens, digests[: len(digests) - wrong] + ["another"] * (wrong and count == generation.SLOW_TOKENS)

    monkeypatch.setattr(generation, "_greedy", counted)
    rung = check_generation(model, oracle, oracle, {"text": [1, 2, 3]})
    assert rung.verdict == "pass" and len(rung.figures["tokens"]) > generation.SLOW_TOKENS
    assert [name for name in rung.figures["runs"] if name.startswith("scalar")] == ["scalar x2"]
    assert any("the kernels of scalar" in note and "take seconds" in note for note in rung.notes)
    wrong = 1
    rung = check_generation(model, oracle, oracle, {"text": [1, 2, 3]})
    assert Kind.ISA_DIFFERS in rung.kinds and "scalar x2" in "".join(rung.sentences)


def test_a_flip_on_a_prompt_that_was_not_safe_accuses_nobody(
    tiny_checkpoint: Path, tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long prompts are sure to hold a flip: reported for a good file, no excuse for a wrong one."""
    prompts = np.random.default_rng(3).integers(0, 512, (4, 200)).tolist()
    monkeypatch.setattr("tritpack.converter.verify.rungs.logits.find_safe_prompts", lambda oracle: prompts)
    good = verify(tiny_gguf, tiny_checkpoint, level="logits")["logits"]
    assert good.verdict == "pass" and good.figures["flips"] > 0 and "all rounding" in good.notes[0]
    bad = edited_gguf(tiny_gguf, tmp_path / "bad.gguf", tensors=swap_gate_and_up)
    assert verify(bad, tiny_checkpoint, level="logits")["logits"].verdict == "fail"


def test_safe_prompts_are_really_safe(tiny_checkpoint: Path) -> None:
    oracle = Oracle(tiny_checkpoint)
    prompts = find_safe_prompts(oracle)
    assert len(prompts) == 3
    margins: list[float] = []
    oracle.logits(prompts, observe=lambda seen: margins.append(float(seen.margins.min())))
    assert min(margins) > 1e-6


def test_a_token_after_a_near_tie_is_noted_and_accuses_nobody(
    tiny_checkpoint: Path, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A judge whose likeliest token is the runtime's second: within rounding it is a note, beyond it a finding."""

    class Judge(Oracle):
        push = np.float32(0)

        def outputs(self, sequences: list[list[int]], **options: object) -> list[np.ndarray]:
            tables = super().outputs(sequences, **options)
            for table in tables if not options else ():
                rows, order = np.arange(len(table)), np.argsort(table, axis=-1)
                gap = table[rows, order[:, -1]] - table[rows, order[:, -2]]
                table[rows, order[:, -2]] += gap + self.push
            return tables

    model, judge, oracle = Model(tiny_gguf), Judge(tiny_checkpoint), Oracle(tiny_checkpoint)
    monkeypatch.setattr("tritpack.converter.verify.rungs.generation.THREADS", (1,))
    judge.push = np.float32(1e-3)
    monkeypatch.setitem(TEXT_LIMITS, "worst_position", 1.0)
    near = check_generation(model, oracle, judge, {"text": [1, 2, 3]})
    assert near.verdict == "pass" and near.figures["prompts_equal"] == 0
    assert all("a near-tie" in note for note in near.notes) and len(near.notes) == 2
    monkeypatch.setitem(TEXT_LIMITS, "worst_position", 0.0)  # as for deep models: rounding does not explain this
    judge.push = np.float32(10)
    far = check_generation(model, oracle, judge, {"text": [1, 2, 3]})
    assert far.verdict == "fail" and far.kinds == [Kind.TOKEN_DIFFERS] * 2
