"""tritpack inspect on a screen: answers, details, tables, conditions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import exit_code_of, run
from tests.converter.verify.breakages import flip_code
from tests.make.checkpoints import edited_gguf
from tritpack.converter.inspect.text import labelled

ANSWERS = ["what", "intact", "runs in", "needs", "from"]


@pytest.fixture
def folder(tiny_gguf: Path, tmp_path: Path) -> Path:
    """A good file, one without tensors of a layer, and one that is none."""
    shutil.copy(tiny_gguf, tmp_path / "a.gguf")
    edited_gguf(tiny_gguf, tmp_path / "b.gguf", tensors=lambda tensors: tensors.popitem())
    (tmp_path / "c.gguf").write_bytes(b"GGUF")
    return tmp_path


def test_five_answers_come_first_and_details_on_request(tiny_gguf: Path) -> None:
    lines = run("inspect", tiny_gguf, "--bandwidth", "40").stdout.splitlines()
    assert lines[0] == str(tiny_gguf)
    assert [line[:10].strip() for line in lines[1:-1] if line[0] != " "] == ANSWERS
    assert any("Tokenizer: byte-level BPE (gpt2) that splits text like llama-bpe, " in line for line in lines)
    assert lines[-1].startswith("more ") and "general.architecture" not in "".join(lines)
    assert "  general.architecture = 'bitnet-b1.58'" in run("inspect", tiny_gguf, "--metadata").stdout
    engines = run("inspect", tiny_gguf, "--engines").stdout
    assert "engines   tritpack, right" in engines and "make one  for " in engines
    result = json.loads(run("inspect", tiny_gguf, "--json", "--bandwidth", "40").stdout)
    assert list(result["answers"]) == ["what", "intact", "runs_in", "needs", "from"]
    assert result["needs"]["bandwidth"] == 40e9
    for row in result["engines"]:
        assert set(row) == {"engine", "verdict", "why", "evidence", "command", "impossible"}, row


def test_several_files_are_a_table(folder: Path) -> None:
    shown = run("inspect", folder, "--bandwidth", "40")
    header, good, bad, damaged, broken = shown.stdout.splitlines()
    assert exit_code_of(shown) == 3 and header.split()[:3] == ["file", "size", "parameters"]
    assert "  not checked (--stats)  tritpack, " in good and good.endswith("unknown (family bitnet)")
    assert good.startswith(str(folder / "a.gguf"))
    assert bad.startswith(str(folder / "b.gguf")) and "  no  " in bad and "  - (damaged)  " in bad
    assert damaged.startswith(f"damaged: {folder / 'b.gguf'}: 1 tensor is missing: ")
    assert broken.startswith(f"not readable: {folder / 'c.gguf'}: 4 bytes are too few")
    document = json.loads(run("inspect", folder, "--json", "--bandwidth", "40").stdout)
    assert document["schema"] == "tritpack.inspect-files/1"
    assert [file.get("error", "")[-10:] for file in document["files"]] == ["", "", "GGUF header"[-10:]]
    two = run("inspect", folder / "a.gguf", folder / "b.gguf", "--stats", "--bandwidth", "40")
    assert two.exit_code == 1 and len(two.stdout.splitlines()) == 4 and "  yes  " in two.stdout
    table = run("inspect", folder, "--markdown", "--bandwidth", "40").stdout.splitlines()
    assert table[1] == "|" + 8 * "---|" and all(line.count("|") == 9 for line in table[:5])
    assert table[5] == "" and table[6].startswith("- damaged: ") and len(table) == 7


def test_a_folder_with_one_file_is_that_file(tiny_gguf: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(tiny_gguf, tmp_path / "a.gguf"))
    shown = run("inspect", tmp_path, "--engines", "--bandwidth", "40").stdout
    assert shown == run("inspect", path, "--engines", "--bandwidth", "40").stdout
    assert len(json.loads(run("inspect", tmp_path, "--json", "--bandwidth", "40").stdout)["files"]) == 1
    refused = run("repack", tmp_path, "-o", tmp_path / "b.gguf")
    assert exit_code_of(refused) == 3 and refused.exception.hint == f"give the GGUF file itself: {path}"


@pytest.mark.parametrize("option", ["--engines", "--tensors", "--metadata", "--html=x.html"])
def test_a_table_refuses_what_it_does_not_show(option: str, tiny_gguf: Path) -> None:
    assert exit_code_of(run("inspect", tiny_gguf, tiny_gguf, option)) == 2


def test_columns_of_codes_are_shown_once_they_are_known(tiny_gguf: Path) -> None:
    header = "layout  shape                size"
    assert f"{header}\n" in run("inspect", tiny_gguf, "--tensors", "--bandwidth", "40").stdout
    assert f"{header}      scale" in run("inspect", tiny_gguf, "--stats", "--bandwidth", "40").stdout


def test_a_folder_runs_as_it_is(tiny_checkpoint: Path) -> None:
    shown = run("inspect", tiny_checkpoint, "--engines", "--fail-on", "engine:transformers", "--bandwidth", "40")
    assert shown.exit_code == 0 and "runs in   Right in transformers.\n" in shown.stdout
    assert "tritpack convert FOLDER -o OUT.gguf --for ENGINE" in shown.stdout and "repack" not in shown.stdout
    assert "for llama.cpp: not possible: it has no BitNet graph with squared ReLU" in shown.stdout
    assert "engines   tritpack, refuses: it reads GGUF files, not checkpoint folders" in shown.stdout
    assert "MLX, not tried: nobody has tried" in shown.stdout and "byte-level BPE" not in shown.stdout
    assert run("inspect", tiny_checkpoint, "--fail-on", "engine:MLX", "--bandwidth", "40").exit_code == 1


def test_a_folder_with_a_split_file_shows_it_once(tiny_gguf: Path, tmp_path: Path) -> None:
    assert run("repack", tiny_gguf, "-o", tmp_path / "s.gguf", "--split-max-size", "500k").exit_code == 0
    assert len(list(tmp_path.glob("s-*"))) > 1
    (tmp_path / "t.gguf").write_bytes(b"GGUF")
    _, line, broken = run("inspect", tmp_path, "--bandwidth", "40").stdout.splitlines()
    assert line.startswith(str(tmp_path / "s-00001-of-")) and broken.startswith("not readable: ")


@pytest.mark.parametrize(
    ("condition", "code", "why"),
    [
        ("engine:tritpack", 0, ""),
        ("engine:llama.cpp", 1, "llama.cpp refuses it: it does not know type id 36"),
        ("engine:bitnet.cpp", 1, "bitnet.cpp since July 2026 runs it wrong"),
        ("engine:prism", 1, "PrismML's fork since prism-v7 refuses it"),
        ("engine:llama", 2, "did you mean"),
        ("unknown-origin", 1, "it names neither a repository nor an address"),
        ("damage", 0, ""),
        ("color", 2, "--fail-on color is unknown"),
    ],
)
def test_conditions(condition: str, code: int, why: str, tiny_gguf: Path) -> None:
    result = run("inspect", tiny_gguf, "--bandwidth", "40", "--fail-on", condition)
    assert exit_code_of(result) == code
    told = result.stderr if code < 2 else f"{result.exception} {getattr(result.exception, 'hint', '')}"
    assert why in told and bool(told) == bool(code)


def test_an_engine_that_is_not_known_is_an_error_of_usage_for_every_input(tiny_checkpoint: Path) -> None:
    result = run("inspect", tiny_checkpoint, "--fail-on", "engine:nosuch")
    assert exit_code_of(result) == 2 and "no engine of that name is known" in str(result.exception)


def test_the_condition_damage_decodes(tiny_gguf: Path, tmp_path: Path) -> None:
    bad = edited_gguf(tiny_gguf, tmp_path / "a.gguf", tensors=flip_code, damaged=True)
    assert run("inspect", bad, "--bandwidth", "40", "--fail-on", "unknown-origin").exit_code == 1
    assert run("inspect", bad, "--bandwidth", "40").exit_code == 0
    assert run("inspect", bad, "--bandwidth", "40", "--stats", "--fail-on", "engine:tritpack").stderr.count("damaged")
    both = ["--fail-on", "damage", "--fail-on", "unknown-origin"]
    result = run("inspect", bad, "--bandwidth", "40", "--json", *both)
    assert result.exit_code == 1
    assert [text.split(":")[0] for text in json.loads(result.stdout)["failed"]] == [
        "it is damaged",
        "it names neither a repository nor an address as its source, and its folder has no attestation",
    ]  # fmt: skip


def test_text_of_the_file_stays_text(tiny_gguf: Path, tmp_path: Path) -> None:
    evil = "a|b\x1b[31m\n# <script>*x*"
    path = edited_gguf(tiny_gguf, tmp_path / "a.gguf", metadata=lambda m: m.update({"general.name": evil}))
    assert "\x1b" not in run("inspect", path, "--metadata").stdout
    shown = run("inspect", path, "--markdown", "--metadata", "--tensors").stdout
    assert "\x1b" not in shown and "\n# " not in shown and r"\<script\>\*x\*" in shown
    for line in shown.splitlines():
        assert not line.startswith("| what") or line.replace(r"\|", "").count("|") == 3, line


def test_paragraphs_are_wrapped_below_their_first_word() -> None:
    lines = list(labelled("what", "one two three four five six", 24))
    assert lines == ["what      one two three", "          four five six"]
    assert list(labelled("problem:", "x " * 40, 0)) == ["problem: " + "x " * 40]
