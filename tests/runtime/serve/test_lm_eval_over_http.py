"""lm-evaluation-harness over HTTP: the scores are those of `tritpack eval` on the same file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import DEMO
from tests.make.server import Running

lm_eval = pytest.importorskip("lm_eval", reason="lm-evaluation-harness (extra `eval`) is not installed")
pytest.importorskip("transformers", reason="transformers, whose tokenizer the harness uses over HTTP, is not installed")
for needed in ("aiohttp", "tenacity", "requests"):
    pytest.importorskip(needed, reason=f"{needed}, which lm-eval needs for HTTP (its extra `api`), is not installed")

QUESTIONS = [
    ("The king gave his daughter a golden", ["ball", "stone", "dragon"], 0),
    ("Once upon a", ["mountain", "time", "king"], 1),
    ("The wolf ate the", ["grandmother", "algebra", "Tuesday"], 0),
    ("The princess fell", ["asleep", "seven", "the"], 0),
]
CHOICES = """
task: serve_choices
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: acc}, {metric: acc_norm}]
"""
WRITING = """
task: serve_writing
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{choices[answer]}}"
generation_kwargs: {until: ["."], max_gen_toks: 12, temperature: 0.0}
metric_list: [{metric: exact_match}]
"""


def samples(results: dict[str, Any], task: str) -> list[Any]:
    return [(sample["doc_id"], sample["filtered_resps"]) for sample in results["samples"][task]]


def test_scores_are_equal(demo: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval.evaluator import evaluate
    from lm_eval.models.openai_completions import LocalCompletionsAPI
    from lm_eval.tasks import TaskManager

    from tritpack.converter.tools.lm_eval import PackedLM

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "questions.json"
    rows = [dict(zip(("question", "choices", "answer"), question)) for question in QUESTIONS]
    data.write_text("\n".join(map(json.dumps, rows)))
    for name, text in (("choices", CHOICES), ("writing", WRITING)):
        (tmp_path / f"{name}.yaml").write_text(text.replace("DATA", str(data)))
    tasks = ["serve_choices", "serve_writing"]
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    remote = LocalCompletionsAPI(
        base_url=f"{demo.url}/v1/completions", model="demo", tokenizer=str(DEMO / "checkpoint"),
        tokenizer_backend="huggingface", add_bos_token=True, batch_size=3,
    )  # fmt: skip
    local = PackedLM(demo.model.file.path)
    over_http, here = (evaluate(lm, manager.load(tasks), bootstrap_iters=0) for lm in (remote, local))
    assert over_http is not None and here is not None
    for task in tasks:
        assert samples(over_http, task) == samples(here, task), task
        theirs, ours = over_http["results"][task], here["results"][task]
        assert {k: v for k, v in theirs.items() if k != "alias"} == {k: v for k, v in ours.items() if k != "alias"}, (
            task
        )
