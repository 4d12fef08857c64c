"""The page's tokenizer and chat templates against ours, on the texts on which tokenizers disagree. It runs in node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.make.texts import awkward_texts
from tests.make.tokenizers import KINDS, write_tokenizer
from tests.make.web_page import READ_INPUT, bundled, run_node
from tritpack.converter.vocab import read_vocabulary
from tritpack.converter.web.manifest import text_files
from tritpack.runtime.chat import chat_ids, chat_text
from tritpack.runtime.tokenizer import Tokenizer

tokenizers = pytest.importorskip("tokenizers")
pytest.importorskip("sentencepiece")
CHATS = [
    [{"role": "user", "content": "Are the lanterns lit?"}],
    [
        {"role": "user", "content": " a\n"},
        {"role": "assistant", "content": "Seven.  "},
        {"role": "user", "content": "<s>é"},
    ],
    [{"role": "system", "content": "Be short."}, {"role": "user", "content": "{{ 1 }} {% if %}"}],
]
SCRIPT = """
const { Text, Utf8Stream } = await import(given.module);
const { readFileSync: read } = await import("node:fs");
const { about, folder } = given;
const document = JSON.parse(read(folder + "/tokenizer.json", "utf-8"));
const text = new Text(document, Uint8Array.from(read(folder + "/tokens.bin")), about);
const decoded = (ids) => {
  const stream = new Utf8Stream();
  return ids.map((id) => stream.feed(text.bytes(id))).join("") + stream.finish();
};
console.log(JSON.stringify({
  nfc: given.texts.map((sample) => sample.normalize("NFC")),
  ids: given.texts.map((sample) => text.encode(sample)),
  plain: given.texts.map((sample) => text.encode(sample, false)),
  decoded: given.sequences.map(decoded),
  chats: text.hasTemplate ? given.chats.map((chat) => [text.render(chat), text.ids(chat)]) : [],
}));
"""


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundled("text", tmp_path_factory.mktemp("bundle"))


@pytest.mark.parametrize("kind", KINDS)
def test_ids_texts_and_chats_are_ours(kind: str, module: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    config = write_tokenizer(tmp_path / "checkpoint", kind)
    ours = Tokenizer.from_metadata(read_vocabulary(tmp_path / "checkpoint", config, {}))
    texts, chats = awkward_texts(), [chat for chat in CHATS if renders(ours, chat)]
    sequences = [ours.encode(text, add_special=False) for text in texts[-300:]]
    sequences += [list(range(start, min(start + 60, ours.vocab_size))) for start in range(0, ours.vocab_size, 60)]
    given = {"module": str(module), "folder": str(tmp_path), "about": text_files(ours, tmp_path), "texts": texts}
    found: dict[str, Any] = run_node(READ_INPUT + SCRIPT, tmp_path, {**given, "sequences": sequences, "chats": chats})
    same = [same_form(kind, text, form) for text, form in zip(texts, found["nfc"], strict=True)]
    assert sum(same) > 0.99 * len(texts)
    for name, add_special in (("ids", True), ("plain", False)):
        for text, alike, ids, expected in zip(
            texts, same, found[name], ours.encode_batch(texts, add_special), strict=True
        ):
            assert ids == expected or not alike, f"{name} of {text!r}"
    for sequence, decoded in zip(sequences, found["decoded"], strict=True):
        assert decoded == b"".join(map(ours.token_bytes, sequence)).decode("utf-8", "replace"), sequence
    assert found["chats"] == [[chat_text(ours, chat), chat_ids(ours, chat)] for chat in chats]
    assert chats or not ours.chat_template


def same_form(kind: str, text: str, form: str) -> bool:
    """Whether both see the same characters: their libraries know NFC of different versions of Unicode."""
    return kind not in ("qwen2", "neox") or form == tokenizers.normalizers.NFC().normalize_str(text)


def renders(tokenizer: Tokenizer, chat: list[dict[str, str]]) -> bool:
    """Whether the template takes such roles."""
    from tritpack.formats.errors import TritpackError

    try:
        return bool(chat_text(tokenizer, chat))
    except TritpackError:
        return False
