"""The page of `diff --html`, from results as `diff --json` has them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import exit_code_of, run
from tests.make.pages import HOSTILE, Page
from tritpack.converter.diff.page import write_page
from tritpack.formats.errors import UsageError


def tensor(name: str, verdict: str, **more: Any) -> dict[str, Any]:
    sentence = None if verdict == "equal" else f"tensor {name!r}: it is {verdict}"
    return {"name": name, "verdict": verdict, "ternary": True, "kind": None, "sentence": sentence, **more}


def side(path: str) -> dict[str, Any]:
    return {
        "path": path,
        "kind": "gguf",
        "nbytes": 2_500_000,
        "architecture": "llama",
        "name": "m",
        "layouts": {"t2": 7},
    }


DIFFERENT: dict[str, Any] = {
    "schema": "tritpack.diff/1",
    "verdict": "different",
    "conclusion": "A and B hold different models",
    "a": side("one/a.gguf"),
    "b": side("ORG/NAME"),
    "differences": [
        {"part": "tensors", "counts": True, "sentence": "rows permuted"},
        {"part": "description", "counts": False, "sentence": "general.name differs"},
    ],
    "notes": ["a note"],
    "metadata": {
        "model": [],
        "tokenizer": [{"key": "tokenizer.x", "change": "removed", "a": "7"}],
        "description": [],
        "by_nature": [],
    },
    "tokenizer": {
        "compared": "texts",
        "texts": 444,
        "differing": 1,
        "examples": [{"text": "a text", "a": [1, 2], "b": [1, 3]}],
    },
    "summary": {"ternary": {"equal": 1, "differs": 2}, "floats": {"equal": 0, "only_in_b": 1}},
    "tensors": [
        tensor("blk.0.attn_q.weight", "equal", codes={"share": 0.0}),
        tensor("blk.1.attn_q.weight", "differs", codes={"share": 0.25}),
        tensor("blk.1.ffn_down.weight", "rounded", codes={"share": 0.0}),
        tensor("blk.1.ffn_gate.weight", "differs"),
        tensor("token_embd.weight", "only_in_b"),
    ],
}


def page_of(result: dict[str, Any], output: Path) -> tuple[str, Page]:
    write_page(result, output)
    text = output.read_text("utf-8")
    return text, Page(text)


def test_the_page_of_two_models(tmp_path: Path) -> None:
    text, page = page_of(DIFFERENT, tmp_path / "page.html")
    words = "".join(page.words)
    assert "script" not in page.tags and page.links == []
    for said in ("A and B hold different models", "rows permuted", "(does not count)", "443 of 444 texts", "a note",
                 "a text", "A: 1 2", "not there", "tensor 'blk.1.attn_q.weight': it is differs"):  # fmt: skip
        assert said in words, said
    assert "Not here: ffn_gate, whose codes could not be compared" in words
    assert text.count('class="cell ') == 4 and 'class="cell rounded"' in text
    assert "layer 1, attn_q: 0.25" in words, "the heat map of shares"
    assert '<span class="chip differs">only in B</span> <span class="mono">token_embd.weight' in text


def test_the_page_of_equal_models(tmp_path: Path) -> None:
    same = copy.deepcopy(DIFFERENT) | {
        "verdict": "same",
        "differences": [],
        "metadata": {"model": []},
        "tokenizer": {"compared": "nothing"},
        "tensors": [tensor("blk.0.attn_q.weight", "equal", codes={"share": 0.0})],
    }
    text, page = page_of(same, tmp_path / "page.html")
    words = "".join(page.words)
    assert "Nothing that is computed from a text." in words and "since neither has one" in words
    assert "All keys are equal." in words and text.count("<svg") == 1


def test_what_files_say_does_not_break_the_page(tmp_path: Path) -> None:
    def hostile(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: hostile(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [hostile(inner) for inner in value]
        return f"{value}{HOSTILE}\x1b[2J" if isinstance(value, str) and value != "texts" else value

    result = hostile(DIFFERENT)
    for row, name in zip(result["tensors"], ("blk.0.attn_q.weight", "blk.1", "x.2.y")):
        row["name"] = f"{name}.{HOSTILE}"
    text, page = page_of(result, tmp_path / "page.html")
    assert "script" not in page.tags and "img" not in page.tags and "\x1b" not in text
    assert HOSTILE in "".join(page.words)


def test_the_command_writes_the_page(tiny_gguf: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert run("diff", tiny_gguf, tiny_gguf, "--html", page, "-q").exit_code == 0
    assert "A and B hold the same model" in "".join(Page(page.read_text("utf-8")).words)
    assert exit_code_of(run("diff", tiny_gguf, tmp_path / "missing", "--html", page)) == 2, "before the work"
    assert run("diff", tiny_gguf, tiny_gguf, "--html", page, "--force", "--json").exit_code == 0


def test_no_file_is_replaced(tmp_path: Path) -> None:
    (page := tmp_path / "page.html").write_text("mine")
    with pytest.raises(UsageError):
        write_page(DIFFERENT, page)
    with pytest.raises(UsageError):
        write_page({**DIFFERENT, "a": side(str(page))}, page, force=True)
    with pytest.raises(UsageError):
        write_page({**DIFFERENT, "a": side(str(tmp_path))}, page, force=True)
    assert page.read_text() == "mine"
