"""transformers (extra `oracles`) on the demo: the same model, by other people's code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import DEMO
from tritpack.runtime.model import Model
from tritpack.runtime.perplexity import negative_log_likelihoods

CHECKPOINT = DEMO / "checkpoint"


@pytest.fixture(scope="module")
def reference():  # type: ignore[no-untyped-def]
    reason = "transformers and torch (extra `oracles`) are not installed"
    torch = pytest.importorskip("torch", reason=reason)
    transformers = pytest.importorskip("transformers", reason=reason)
    pytest.importorskip("accelerate", reason=reason)
    model = transformers.AutoModelForCausalLM.from_pretrained(CHECKPOINT, dtype=torch.float32)
    # transformers widens only the linears; the model's own .float() refuses on quantised models.
    return torch, transformers, torch.nn.Module.float(model).eval()


def perplexity(logits: list[np.ndarray], parts: list[list[int]]) -> float:
    scores = [negative_log_likelihoods(table, tokens) for table, tokens in zip(logits, parts)]
    return float(np.exp(np.concatenate(scores).mean()))


def windows(tokens: list[int], size: int = 256) -> list[list[int]]:
    bos, text = tokens[0], tokens[1:]
    return [[bos, *text[i : i + size - 1]] for i in range(0, len(text), size - 1)]


def test_logits_of_held_out_text(reference, demo_gguf: Path) -> None:  # type: ignore[no-untyped-def]
    torch, transformers, theirs = reference
    text = (DEMO / "heldout.txt").read_text("utf-8")
    with Model(demo_gguf) as ours:
        tokens = ours.tokenizer.encode(text)
        assert tokens == transformers.AutoTokenizer.from_pretrained(CHECKPOINT)(text).input_ids
        parts = windows(tokens)
        found = [ours.logits(part) for part in parts]
    with torch.no_grad():
        expected = [theirs(torch.tensor([part])).logits[0].float().numpy() for part in parts]
    positions = sum(map(len, parts))
    assert positions >= 500
    difference = np.sqrt(sum(float(((a - b) ** 2).sum()) for a, b in zip(found, expected)))
    power = np.sqrt(sum(float((b**2).sum()) for b in expected))
    assert difference / power <= 1e-2
    top1 = np.concatenate([a.argmax(-1) == b.argmax(-1) for a, b in zip(found, expected)])
    assert top1.mean() >= 0.99
    mine, theirs_ppl = (perplexity(logits, parts) for logits in (found, expected))
    assert mine == pytest.approx(theirs_ppl, rel=1e-3)
    recorded = json.loads((DEMO / "demo.json").read_text())
    assert mine == pytest.approx(recorded["perplexity"], rel=3e-3)


def test_chat_is_rendered_alike(reference, demo_gguf: Path) -> None:  # type: ignore[no-untyped-def]
    from tritpack.runtime.chat import chat_ids, chat_text

    _, transformers, _ = reference
    messages = [{"role": "system", "content": " Be brief. "}, {"role": "user", "content": "Hello\nthere"}]
    tokenizer = transformers.AutoTokenizer.from_pretrained(CHECKPOINT)
    with Model(demo_gguf) as ours:
        assert chat_text(ours.tokenizer, messages) == tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
        assert chat_ids(ours.tokenizer, messages) == ids
