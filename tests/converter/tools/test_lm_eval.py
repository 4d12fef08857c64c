"""`tritpack eval`: lm-evaluation-harness on a packed file, offline, with the oracle's log-likelihoods."""

from __future__ import annotations

import json
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import exit_code_of, run
from tests.make.families import Checkpoints
from tritpack.converter.convert import convert
from tritpack.converter.verify.oracle.oracle import Oracle
from tritpack.formats.names import ExitCode
from tritpack.runtime.model import Model
from tritpack.runtime.perplexity import log_softmax, negative_log_likelihoods

pytest.importorskip("lm_eval", reason="lm-evaluation-harness (extra `eval`) is not installed")

PAIRS = [
    ("The sea is", " deep and blue"),
    ("The sea is", " dry"),
    ("The sea", " is deep and blue"),
    ("", "Once upon a time"),
    ("A question. ", "Yes"),
]


def requests(*arguments: tuple[Any, ...]) -> list[Any]:
    return [types.SimpleNamespace(args=each) for each in arguments]


@pytest.fixture(scope="module")
def float_model(checkpoints: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model with float activations, in which nothing flips: file and checkpoint."""
    path = tmp_path_factory.mktemp("trilm") / "model.gguf"
    convert(checkpoints("trilm").folder, path)
    return path, checkpoints("trilm").folder


def test_loglikelihoods_are_the_oracles(float_model: tuple[Path, Path]) -> None:
    from tritpack.converter.tools.lm_eval import PackedLM

    lm, oracle = PackedLM(float_model[0]), Oracle(float_model[1])
    found = lm.loglikelihood(requests(*PAIRS), disable_tqdm=True)
    for (context, continuation), (score, greedy) in zip(PAIRS, found):
        if context:
            text = lm.tok_encode(context + continuation)
            first = len(lm.tok_encode(context.rstrip()))
        else:
            text, first = [lm.prefix_token_id, *lm.tok_encode(continuation, add_special_tokens=False)], 1
        [logits] = oracle.outputs([text[:-1]])
        rows = logits[first - 1 :]
        want = log_softmax(rows)[np.arange(len(rows)), text[first:]].sum()
        assert score == pytest.approx(want, rel=1e-5), f"{context!r} {continuation!r}"
        assert greedy == (rows.argmax(-1).tolist() == text[first:]), f"{context!r} {continuation!r}"
    [rolling] = lm.loglikelihood_rolling(requests(("A text of some words, and more of them.",)), disable_tqdm=True)
    tokens = [lm.prefix_token_id, *lm.tok_encode("A text of some words, and more of them.", False)]
    [logits] = oracle.outputs([tokens])
    assert rolling == pytest.approx(-negative_log_likelihoods(logits, tokens).sum(), rel=1e-5)


def test_shared_contexts_change_no_bit(demo_gguf: Path) -> None:
    """Whatever the session still holds, a score is that of a fresh one."""
    from tritpack.converter.tools.lm_eval import PackedLM

    lm = PackedLM(demo_gguf)
    shared = [lm.score(lm.tok_encode(c), lm.tok_encode(t, add_special_tokens=False)) for c, t in PAIRS if c]
    fresh = []
    for context, continuation in PAIRS:
        if context:
            one = PackedLM(demo_gguf)
            fresh.append(one.score(one.tok_encode(context), one.tok_encode(continuation, add_special_tokens=False)))
    assert shared == fresh


def test_what_is_too_long_is_cut_from_the_left(demo_gguf: Path) -> None:
    from tritpack.converter.tools.lm_eval import PackedLM

    lm = PackedLM(demo_gguf, context=16)
    tokens = lm.tok_encode("Once upon a time there lived a king who had three sons and a daughter, and they were happy")
    assert len(tokens) > 20
    score, _ = lm.score(tokens[:-2], tokens[-2:])
    with Model(demo_gguf, context=16) as model:
        logits = model.logits(tokens[-17:-1])
    assert score == float(log_softmax(logits[-2:])[[0, 1], tokens[-2:]].sum())


def test_generation_and_chat(demo_gguf: Path) -> None:
    from tritpack.converter.tools.lm_eval import PackedLM

    lm = PackedLM(demo_gguf)
    wanted = {"until": ["\n"], "max_gen_toks": 12, "do_sample": False}
    [text] = lm.generate_until(requests(("Once upon a time", wanted)), disable_tqdm=True)
    assert text and "\n" not in text
    chat = lm.apply_chat_template([{"role": "user", "content": "Hello"}])
    begin = lm.tokens.bos_id
    assert chat.startswith(lm.tokens.bos_token or "") and lm.tok_encode(chat).count(begin) == 1
    assert lm.chat_template() and lm.max_length == lm.model.context_length


def write_task(folder: Path) -> Path:
    folder.mkdir()
    questions = [
        {"q": "Once upon a time there lived a", "c": [" king", " engine", " zzzz"], "a": 0},
        {"q": "The king had three", "c": [" qx", " sons"], "a": 1},
        {"q": "They lived in the", "c": [" house", " vwx"], "a": 0},
    ]
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, questions)))
    (folder / "task.yaml").write_text(
        f"task: three_questions\ndataset_path: json\ndataset_kwargs:\n  data_files: {folder / 'data.jsonl'}\n"
        "test_split: train\noutput_type: multiple_choice\ndoc_to_text: '{{q}}'\ndoc_to_choice: '{{c}}'\n"
        "doc_to_target: '{{a}}'\nmetric_list:\n  - metric: acc\n    aggregation: mean\n    higher_is_better: true\n"
        "metadata:\n  version: 1.0\n"
    )
    return folder


def test_a_local_task_offline(demo_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = write_task(tmp_path / "tasks")
    task = ("--tasks", "three_questions", "--include-path", folder)
    result = run("eval", demo_gguf, *task, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["schema"] == "tritpack.eval/1" and document["samples"] == {"three_questions": 3}
    assert document["results"]["three_questions"]["acc,none"] == 1.0
    assert any(kernel.startswith("matvec_i2_s") for kernel in document["kernels"])
    table = run("eval", demo_gguf, *task, "--limit", "2")
    assert "three_questions" in table.stdout and "acc" in table.stdout


def test_what_cannot_be_run(demo_gguf: Path, checkpoints: Checkpoints, tmp_path: Path) -> None:
    assert exit_code_of(run("eval", demo_gguf, "--tasks", "no_such_task")) == ExitCode.USAGE
    none = run("eval", demo_gguf, "--tasks", "x", "--include-path", tmp_path / "none")
    assert exit_code_of(none) == ExitCode.UNREADABLE
    folder = checkpoints("embedding_qwen3").folder
    assert exit_code_of(run("eval", folder, "--tasks", "no_such_task")) == ExitCode.UNSUPPORTED
