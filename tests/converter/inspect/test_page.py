"""The page of `inspect --html`: whole, and harmless whatever a file says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import DEMO, exit_code_of, run
from tests.make.checkpoints import edited_gguf
from tests.make.pages import HOSTILE, Page
from tritpack.converter.inspect.answers import answer_sentences
from tritpack.converter.inspect.inspect import inspect
from tritpack.converter.inspect.page import write_page
from tritpack.converter.inspect.page_language import pieces, visible
from tritpack.converter.report.places import place
from tritpack.converter.report.plots import heat_map
from tritpack.converter.report.treemap import Box, squarified, treemap
from tritpack.formats.errors import UsageError
from tritpack.formats.gguf_reader import GgufFile
from tritpack.runtime.tokenizer import Tokenizer


def page_of(file: Path, output: Path, result: dict[str, Any] | None = None) -> tuple[str, Page]:
    write_page(result or inspect(file, stats=True), file, output, force=True)
    text = output.read_text("utf-8")
    return text, Page(text)


def test_the_page_of_a_packed_file(demo_gguf: Path, tmp_path: Path) -> None:
    result = inspect(demo_gguf, stats=True)
    text, page = page_of(demo_gguf, tmp_path / "page.html", result)
    words = "".join(page.words)
    assert "script" not in page.tags and all(link.startswith("#") for link in page.links)
    assert not re.search(r"url\(|@import|https?:", text) and "default-src 'none'" in text
    assert len(text) < 100_000
    assert text.count("<svg") == 4 and text.count('class="cell"') == 3 * (28 + 5)
    assert text.count('class="box') == 1 + 1 + 4 * (1 + 7 + 1) + 1  # embedding, last norm, layers, header
    for row in result["tensors"]:
        assert row["name"] in words, row["name"]
    for key in result["metadata"]:
        assert key in words, key
    assert "What is the capital of France?" in words and text.count("<mark>") >= 2
    anchors = {link[1:] for link in page.links}
    assert {"bytes", "codes", "chat", "tokenizer", "metadata", "tensors"} <= anchors
    assert all(f'id="{anchor}"' in text for anchor in anchors)
    again = page_of(demo_gguf, tmp_path / "again.html", result)[0]
    assert again == text, "equal input, equal page"


def test_answers_and_engines_come_from_the_result(demo_gguf: Path, tmp_path: Path) -> None:
    result = inspect(demo_gguf, stats=True, bandwidth=50.0) | {
        "engines": [
            dict.fromkeys(("engine", "why", "evidence", "impossible"), HOSTILE) | {"verdict": verdict, "command": ""}
            for verdict in ("right", "wrong", "refuses", "unknown", HOSTILE)
        ],
        "problems": [HOSTILE],
        "damage": [HOSTILE],
    }
    text, page = page_of(demo_gguf, tmp_path / "page.html", result)
    assert "script" not in page.tags and "img" not in page.tags
    words = "".join(page.words)
    assert page.words.count(HOSTILE) > 10 and "--engines" not in words
    assert 'class="chip right">runs right' in text and "keys and values of 1,024 tokens: 4.19 MB" in words
    for sentences in answer_sentences(result | {"engines": []}).values():
        assert all(sentence in words for sentence in sentences if "convert" not in sentence), sentences
    assert [name for name in ("problems", "engines", "memory") if f"#{name}" not in page.links] == []


def test_what_a_file_says_does_not_break_the_page(demo_gguf: Path, tmp_path: Path) -> None:
    def names(metadata: dict[str, Any]) -> None:
        metadata["general.name"] = HOSTILE
        metadata["general.description"] = "x" * 1_000_000
        metadata[f"general.{HOSTILE}"] = HOSTILE
        metadata["tokenizer.chat_template"] = f"{{{{ messages[0].content }}}}{HOSTILE}\x1b[2J\u202e"
        tokens = metadata["tokenizer.ggml.tokens"] = list(metadata["tokenizer.ggml.tokens"])
        tokens[metadata["tokenizer.ggml.eos_token_id"]] = HOSTILE

    file = edited_gguf(demo_gguf, tmp_path / "m.gguf", metadata=names)
    result = inspect(file, stats=True)
    result["tensors"][0]["name"] = result["tensors"][5]["layout"] = f"\x1b[2J{HOSTILE}"
    text, page = page_of(file, tmp_path / "page.html", result)
    assert "script" not in page.tags and "img" not in page.tags
    assert "\x1b" not in text and "\u202e" not in text and len(text) < 200_000
    assert HOSTILE in "".join(page.words)


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{% for %}", "The template does not work"),
        ("{{ ''.__class__.__mro__ }}{% for x in range(10**9) %}{{ x }}{% endfor %}", "The template does not work"),
        (None, "it is a base model, or its template was lost"),
    ],
)
def test_a_template_that_fails_is_told(template: str | None, told: str, demo_gguf: Path, tmp_path: Path) -> None:
    def edit(metadata: dict[str, Any]) -> None:
        del metadata["tokenizer.chat_template"]
        if template is not None:
            metadata["tokenizer.chat_template"] = template

    file = edited_gguf(demo_gguf, tmp_path / "m.gguf", metadata=edit)
    _, page = page_of(file, tmp_path / "page.html")
    assert told in "".join(page.words)


def test_a_checkpoint_and_a_file_without_a_model(tmp_path: Path, demo_gguf: Path) -> None:
    _, page = page_of(DEMO / "checkpoint", tmp_path / "checkpoint.html")
    words = "".join(page.words)
    assert "config.json" in words and "Share of zeros" in words and "<|begin_of_text|>" in words

    def without(metadata: dict[str, Any]) -> None:
        for key in [key for key in metadata if key.startswith("tokenizer")]:
            del metadata[key]

    bare = edited_gguf(demo_gguf, tmp_path / "bare.gguf", metadata=without)
    _, page = page_of(bare, tmp_path / "bare.html")
    assert "#chat" not in page.links and "#bytes" in page.links


def test_the_command_writes_the_page(demo_gguf: Path, tmp_path: Path) -> None:
    output = tmp_path / "page.html"
    shown = run("inspect", demo_gguf, "--html", output, "--bandwidth", "50")
    assert shown.exit_code == 0 and "bitnet" in shown.stdout
    assert "Yes: all 46 tensors have the hashes" in "".join(Page(output.read_text("utf-8")).words), "it implies --stats"
    for arguments in ((demo_gguf,), (tmp_path / "missing",), (demo_gguf, demo_gguf), ("--shape", "bitnet-2b-4t")):
        assert exit_code_of(run("inspect", *arguments, "--html", output)) == 2, arguments
    again = run("inspect", demo_gguf, "--html", output, "--force", "--json")
    assert again.exit_code == 0 and again.stdout.startswith("{")


def test_much_damage_is_folded_and_an_architecture_is_one_group(demo_gguf: Path, tmp_path: Path) -> None:
    found = [f"tensor {number} is damaged" for number in range(28)]
    result = inspect(demo_gguf, stats=True) | {"problems": found, "damage": found}
    text, page = page_of(demo_gguf, tmp_path / "page.html", result)
    shown, folded = text.split("and 22 more</summary>")
    assert shown.count('<li class="bad">') == 6 and folded.count('<li class="bad">') == 22
    assert "bitnet-b1.58 " in page.words and "bitnet-b1 " not in page.words


def test_a_character_of_several_tokens_is_one_piece(demo_gguf: Path) -> None:
    tokenizer = Tokenizer.from_metadata(GgufFile(demo_gguf).metadata)
    ids = tokenizer.encode("a \u4e09", add_special=True)
    whole = list(pieces(tokenizer, ids))
    assert [token for piece in whole for token in piece["ids"]] == ids
    assert whole[0]["text"] == "<|begin_of_text|>" and whole[-1]["text"] == "\u4e09" and len(whole[-1]["ids"]) > 1
    cut = list(pieces(tokenizer, ids[:-1]))
    assert cut[-1]["text"].startswith("\u2039E4") and [token for piece in cut for token in piece["ids"]] == ids[:-1]
    assert [visible(data) for data in (b"a b", b"\xe2", b"x\x96\x81", rb"\xe2")] == [
        "a\u2423b", "\u2039E2\u203a", "x\u203996 81\u203a", rb"\xe2".decode(),
    ]  # fmt: skip


def test_no_file_is_replaced(demo_gguf: Path, tmp_path: Path) -> None:
    result = inspect(demo_gguf, stats=True)
    (page := tmp_path / "page.html").write_text("mine")
    for output in (page, demo_gguf):
        with pytest.raises(UsageError):
            write_page(result, demo_gguf, output)
    with pytest.raises(UsageError):
        write_page(result, demo_gguf, demo_gguf, force=True)
    assert page.read_text() == "mine" and demo_gguf.stat().st_size > 1_000_000


def test_areas_are_in_proportion() -> None:
    values = [6, 6, 4, 3, 2, 2, 1]
    places = squarified(values, 1.5)
    assert [round(width * height / 100, 6) for _, _, width, height in places] == [
        round(100 * value / 24, 6) for value in values
    ]
    for index, (x, y, width, height) in enumerate(places):
        assert 0 <= x <= x + width <= 100.001 and 0 <= y <= y + height <= 100.001, index
        for other, (x2, y2, width2, height2) in enumerate(places[:index]):
            beside = x >= x2 + width2 - 1e-6 or x2 >= x + width - 1e-6
            assert beside or y >= y2 + height2 - 1e-6 or y2 >= y + height - 1e-6, (index, other)
    assert treemap([], 2) == "" and "&lt;b&gt;" in treemap([Box("<b>", 1)], 2)


def test_heat_maps_leave_out_what_is_not_there() -> None:
    assert heat_map({}, title="t", x_label="layer") == ""
    svg = heat_map({"<a>": {0: 1.0, 2: float("nan")}, "b": {2: 3.0}}, title="t", x_label="layer")
    assert svg.count("<title>layer ") == 2 and "&lt;a&gt;" in svg and "nan" not in svg


def test_a_span_keeps_noise_from_looking_like_a_pattern() -> None:
    values = {"a": {0: 0.66, 1: 0.67}}
    stretched, fixed = (heat_map(values, title="t", x_label="layer", span=span) for span in (None, (0.0, 1.0)))
    assert 'fill-opacity="1.00" x="' in stretched and 'fill-opacity="0.10" x="' in stretched
    assert 'fill-opacity="0.69" x="' in fixed and 'fill-opacity="0.70" x="' in fixed


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("blk.12.attn_q.weight", (12, "attn_q")),
        ("token_embd.weight", (None, "token_embd")),
        ("model.layers.3.mlp.up_proj.weight", (3, "mlp.up_proj")),
        ("7", (None, "7")),
    ],
)
def test_places(name: str, expected: tuple[int | None, str]) -> None:
    assert place(name) == expected
