"""The commands that take several texts: tokenize, logits, embed; and detokenize, which gives a text back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import exit_code_of, program, run
from tritpack.converter.cli.pieces import shown_piece

TEXT = "The séa 🙂\n\tend"


def test_the_piece_of_each_token(demo_gguf: Path) -> None:
    result = json.loads(run("tokenize", demo_gguf, "-p", TEXT, "--json").stdout)
    pieces = [piece if isinstance(piece, str) else bytes(piece) for piece in result["pieces"]]
    data = b"".join(piece.encode() if isinstance(piece, str) else piece for piece in pieces)
    assert data.decode() == "<|begin_of_text|>" + TEXT and any(isinstance(piece, bytes) for piece in pieces)
    lines = run("tokenize", demo_gguf, "-p", TEXT).stdout.splitlines()
    assert [int(line.split()[0]) for line in lines] == result["ids"]
    assert [line[9:] for line in lines] == [shown_piece(piece) for piece in result["pieces"]]
    assert lines[0].endswith('"<|begin_of_text|>"') and "\n\t" not in "".join(lines)


def test_several_texts_are_tokenized_in_order(demo_gguf: Path, tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("from a file\n")
    texts = ["-p", "one", "-p", "-", "-f", str(path)]
    rows = json.loads(program("tokenize", demo_gguf, *texts, "--json", stdin="two\n").stdout)["texts"]
    single = [
        json.loads(run("tokenize", demo_gguf, "-p", text, "--json").stdout) for text in ("one", "two", "from a file")
    ]
    assert rows == [{key: row[key] for key in ("ids", "pieces")} for row in single]
    lines = program("tokenize", demo_gguf, *texts, "--ids", stdin="two\n").stdout.splitlines()
    assert lines == [",".join(map(str, row["ids"])) for row in rows]
    shown = program("tokenize", demo_gguf, *texts, stdin="two\n").stdout
    assert shown.count("\n\n") == 2
    twice = run("tokenize", demo_gguf, "-p", "-", "-f", "-")
    assert exit_code_of(twice) == 2 and "read only once" in str(twice.exception)
    variable = program("tokenize", demo_gguf, "--ids", env={"TRITPACK_TOKENIZE_PROMPT": "one two"}).stdout
    assert variable == run("tokenize", demo_gguf, "-p", "one two", "--ids").stdout


def test_detokenize_gives_the_text_back(demo_gguf: Path, tmp_path: Path) -> None:
    ids = run("tokenize", demo_gguf, "-p", TEXT, "--ids").stdout
    assert run("detokenize", demo_gguf, ids.strip(), "--skip-special").stdout == TEXT + "\n"
    assert program("detokenize", demo_gguf, "-", stdin=ids).stdout == f"<|begin_of_text|>{TEXT}\n"
    path = tmp_path / "ids"
    path.write_text("[" + ids.strip().replace(",", ",\n") + "]")  # as jq prints a list
    result = json.loads(run("detokenize", demo_gguf, "-f", path, "--json").stdout)
    assert result["schema"] == "tritpack.detokenize/1" and result["text"] == "<|begin_of_text|>" + TEXT
    assert result["ids"] == [int(token) for token in ids.split(",")] and len(result["pieces"]) == len(result["ids"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["1,x"], "the argument '1,x'"), ([], "either token ids or"), (["1", "-f", "x"], "either token ids or"),
     (["99999"], "outside the vocabulary"), ([""], "expected ids")],
    ids=["word", "nothing", "both", "outside", "empty"],
)  # fmt: skip
def test_ids_that_are_none(demo_gguf: Path, arguments: list[str], words: str) -> None:
    result = run("detokenize", demo_gguf, *arguments)
    assert exit_code_of(result) == 2 and words in str(result.exception) and result.stdout == ""


def test_logits_of_several_texts_stand_one_after_the_other(demo_gguf: Path, tmp_path: Path) -> None:
    target = tmp_path / "l.npy"
    result = json.loads(run("logits", demo_gguf, "-p", "one", "-p", "two more", "-o", target, "--json").stdout)
    values = np.load(target)
    assert list(values.shape) == result["shape"] and "ids" not in result
    for number, text in enumerate(("one", "two more")):
        alone = tmp_path / f"{number}.npy"
        ids = json.loads(run("logits", demo_gguf, "-p", text, "-o", alone, "--json").stdout)["ids"]
        row = result["texts"][number]
        assert row["ids"] == ids and np.array_equal(values[slice(*row["rows"])], np.load(alone)), text
    assert result["texts"][1]["rows"][1] == len(values)
    line = run("logits", demo_gguf, "-p", "one", "-p", "two more", "-o", target, "--force").stdout
    assert line.endswith(f", from 2 texts with {len(values)} tokens\n")


def test_embeddings_of_several_texts(demo_gguf: Path, tmp_path: Path) -> None:
    target, options = tmp_path / "e.npy", ("--pooling", "mean")
    texts = ("-p", "one", "-p", "two more")
    result = json.loads(run("embed", demo_gguf, *texts, *options, "--json", "-o", target).stdout)
    values = np.load(target)
    assert values.shape == tuple(result["shape"]) and len(values) == 2 and result["output"] == str(target)
    assert np.array_equal(np.array(result["vectors"], np.float32), values)  # all bits
    alone = json.loads(run("embed", demo_gguf, "-p", "two more", *options, "--json").stdout)
    assert alone["vectors"] == result["vectors"][1:] and alone["shape"] == [values.shape[1]] and "output" not in alone
    nothing = run("embed", demo_gguf, "-p", "one", *options)
    assert exit_code_of(nothing) == 2 and "--json" in str(nothing.exception)
