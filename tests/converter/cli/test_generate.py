"""`generate` as its user types it: chats, stops, log-probabilities, schemas, and many prompts."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import exit_code_of, program, run
from tritpack.formats.errors import CheckFailed, TritpackError, Unsupported, UsageError, WriteFailed
from tritpack.runtime.batch import BatchLine
from tritpack.runtime.model import Model
from tritpack.runtime.sampling_defaults import OFF


def test_a_chat_is_the_rendered_message(demo_gguf: Path, tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who are you?"}]
    path = tmp_path / "chat.json"
    for options, count in ((["--chat"], 1), (["--system", "Be brief."], 2)):
        path.write_text(json.dumps(messages[-count:]))
        ids = json.loads(run("tokenize", demo_gguf, "--chat", path, "--json").stdout)["ids"]
        result = run("generate", demo_gguf, "-p", "Who are you?", *options, "-n", "3", "--json")
        assert json.loads(result.stdout)["prompt_ids"] == ids, options
    shown = run("generate", demo_gguf, "--chat", "-p", "Who are you?", "-n", "3", "--temp", "0")
    assert "Who are you?" not in shown.stdout
    refused = run("generate", demo_gguf, "--tokens", "1", "--chat")
    assert exit_code_of(refused) == 2 and "a chat template needs a prompt" in str(refused.exception)


def test_the_file_says_how_to_sample_and_the_user_wins(demo_gguf: Path) -> None:
    def sampled(*options: str) -> tuple[str, dict[str, float]]:
        result = run("generate", demo_gguf, "-p", "Once", "-n", "8", "--json", *options)
        document = json.loads(result.stdout)
        return document["text"], document["sampling"]

    text, sampling = sampled()
    assert sampling == {**OFF, "temp": 0.6, "top_p": 0.9, "seed": 0}
    assert sampled("--temp", "0.6", "--top-p", "0.9") == (text, sampling)
    assert sampled("--temp", "0")[1] == {**OFF, "seed": 0}
    assert sampled("--temp", "1.2")[1] == {**sampling, "temp": 1.2}
    plain = run("generate", demo_gguf, "-p", "Once", "-n", "8")
    assert plain.stderr.startswith("sampling as the file says: --temp 0.6, --top-p 0.9\n")
    assert "sampling" not in run("generate", demo_gguf, "-p", "Once", "-n", "8", "--temp", "0").stderr
    quiet = run("generate", demo_gguf, "-p", "Once", "-n", "8", "-q")
    assert (quiet.stdout, quiet.stderr) == (text + "\n", "")


def test_a_cache_that_cannot_be_written(demo_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(model: Model, path: Path, **options: object) -> None:
        raise WriteFailed("No space left on device", path=path)

    early = run("generate", demo_gguf, "-p", "Once", "-n", "2", "--prompt-cache", tmp_path / "none" / "cache")
    assert exit_code_of(early) == 5 and early.stdout == ""
    monkeypatch.setattr("tritpack.runtime.prompt_cache.save_prompt_cache", full)
    late = run("generate", demo_gguf, "-p", "Once", "-n", "2", "--prompt-cache", tmp_path / "cache")
    assert exit_code_of(late) == 5 and late.stdout.startswith("Once") and late.stdout.endswith("\n")


def test_stops_and_logprobs(demo_gguf: Path) -> None:
    greedy = ("-p", "Once upon a time", "--temp", "0", "-n", "20", "--json")
    whole = json.loads(run("generate", demo_gguf, *greedy).stdout)
    assert "logprobs" not in whole and whole["stop_reason"] == "length"
    result = json.loads(
        run("generate", demo_gguf, *greedy, "--stop", "zzz", "--stop", " who", "--logprobs", "3").stdout
    )
    assert result["stop_reason"] == "stop_string" and whole["text"].startswith(result["text"] + " who")
    for row in result["logprobs"]:
        assert len(row["top"]) == 3 and row["top"][0]["id"] == row["id"], row
        assert row["logprob"] == row["top"][0]["logprob"] >= row["top"][1]["logprob"], row
        assert sum(math.exp(other["logprob"]) for other in row["top"]) <= 1, row
    lines = run("generate", demo_gguf, *greedy[:-1], "-q", "--logprobs", "1").stdout.splitlines()
    assert len(lines) > 20 and lines[-1].count(lines[-1].split()[0]) == 2


def test_a_schema_from_the_command_line_and_from_a_file(demo_gguf: Path, tmp_path: Path) -> None:
    pytest.importorskip("llguidance", reason="llguidance (extra `grammar`) is not installed")
    schema = (
        '{"type": "object", "properties": {"n": {"enum": [1, 22]}}, "required": ["n"], "additionalProperties": false}'
    )
    path, grammar = tmp_path / "schema.json", tmp_path / "g.gbnf"
    path.write_text(schema)
    grammar.write_text('root ::= "yes" | "no"\n')
    for given in (schema, str(path)):
        result = json.loads(run("generate", demo_gguf, "-p", "Once", "--json-schema", given, "--json").stdout)
        assert json.loads(result["text"])["n"] in (1, 22) and result["stop_reason"] == "eos", given
    assert run("generate", demo_gguf, "-p", "Once", "--grammar", grammar, "-q").stdout in ("yes\n", "no\n")
    both = run("generate", demo_gguf, "-p", "a", "--grammar", grammar, "--json-schema", "{}")
    assert exit_code_of(both) == 2
    wrong = run("generate", demo_gguf, "-p", "a", "--json-schema", '{"type": 3}')
    assert exit_code_of(wrong) == 2 and "JSON schema cannot be used" in str(wrong.exception)
    missing = run("generate", demo_gguf, "-p", "a", "--json-schema", tmp_path / "none")
    assert exit_code_of(missing) == 3


@pytest.mark.parametrize(
    ("errors", "code"),
    [([None, CheckFailed("NaN")], 1), ([CheckFailed("NaN"), UsageError("long")], 1), ([None, Unsupported("no")], 2),
     ([Unsupported("no"), Unsupported("no")], 4), ([Unsupported("no"), UsageError("long")], 2)],
    ids=["a check", "a check and another", "one of two", "all alike", "all unlike"],
)  # fmt: skip
def test_the_exit_code_of_a_batch(
    errors: list[TritpackError | None], code: int, demo_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answers(model: Model, lines: list[BatchLine], **_: object) -> Iterator[tuple[BatchLine, object]]:
        answer = model.generate("a", max_tokens=1)
        return ((line, error or answer) for line, error in zip(lines, errors, strict=True))

    monkeypatch.setattr("tritpack.runtime.batch.answer_batch", answers)
    prompts = tmp_path / "in.jsonl"
    prompts.write_text('{"prompt": "a"}\n' * 2)
    result = run("generate", demo_gguf, "--batch-file", prompts)
    assert exit_code_of(result) == code, result.output


def test_many_prompts(demo_gguf: Path, tmp_path: Path) -> None:
    prompts, answers = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    prompts.write_text(
        '{"prompt": "Once", "id": 7}\n{"promt": "x"}\n\n{"prompt": "The sea", "temp": 0, "max_tokens": 3}\n'
    )
    result = program("generate", demo_gguf, "--batch-file", prompts, "-n", "5")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.returncode == 2 and "line 2: it has an unknown field 'promt'" in result.stderr
    assert "1 of 3 lines has no answer: line 2\n" in result.stderr
    assert [row["line"] for row in rows] == [1, 2, 4] and rows[0]["id"] == 7 and "error" in rows[1]
    assert {row["schema"] for row in rows} == {"tritpack.generate_batch/1"}
    alone = [
        json.loads(run("generate", demo_gguf, "-p", prompt, "--json", *options).stdout)
        for prompt, *options in (("Once", "-n", "5"), ("The sea", "-n", "3", "--temp", "0"))
    ]
    assert [rows[0]["ids"], rows[2]["ids"]] == [answer["ids"] for answer in alone]
    again = run("generate", demo_gguf, "--batch-file", prompts, "-n", "5", "-o", answers, "--parallel", "1")
    assert exit_code_of(again) == 2 and [json.loads(line) for line in answers.read_text().splitlines()] == rows
    refused = run("generate", demo_gguf, "--batch-file", prompts, "-o", answers)
    assert exit_code_of(refused) == 2 and "exists already" in str(refused.exception)
    prompts.write_text('{"promt": "x"}')
    alone_and_wrong = program("generate", demo_gguf, "--batch-file", prompts)
    assert alone_and_wrong.returncode == 2 and "1 of 1 lines has no answer" in alone_and_wrong.stderr
    assert "other lines" not in alone_and_wrong.stderr
    for options, words in (
        (("-p", "a", "-o", "x"), "-o is for"),
        (("--tokens", "1", "--batch-file", prompts), "not both"),
    ):
        wrong = run("generate", demo_gguf, *options)
        assert exit_code_of(wrong) == 2 and words in str(wrong.exception), words
