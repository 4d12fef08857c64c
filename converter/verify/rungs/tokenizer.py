"""Rung 4: the tokenizer in FILE gives the ids of the source's own, over a corpus of awkward strings, and renders the
same chats."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.converter.verify.rung import Rung
from tritpack.converter.vocab import files
from tritpack.converter.vocab.chat import chat_templates
from tritpack.converter.vocab.probes import awkward_texts
from tritpack.formats.errors import TritpackError, Unreadable
from tritpack.formats.gguf_reader import GgufFile
from tritpack.runtime.chat import chat_text, render_chat
from tritpack.runtime.tokenizer import Tokenizer

Encode = Callable[[str, bool], "list[int]"]
"""(text, whether to add what the tokenizer adds by itself) -> ids."""
Render = Callable[["list[dict[str, str]]"], str]
"""The messages of a chat -> its text."""

SAMPLES = (
    "Hello, world!",
    "  two  spaces,\ttab\nand\n\nlines ",
    "I'll say 12345 words; don't we?",
    "naïve café – “quotes” … Ünïcödé",
    "数字 123 と 漢字、ひらがな",
    "emoji 🙂👩‍👩‍👧 and \u200b zero width",
    "def f(x):\n    return x**2  # code",
    "ﬁ ligature, e\u0301 combining, \u202eright to left\u202c, \ufeffmark",
    "a" * 300 + " " * 40 + "\n" * 20 + "\r\n\r\n" + "9" * 50,
)
CHATS: tuple[list[dict[str, str]], ...] = (
    [{"role": "user", "content": "Hello"}],
    [
        {"role": "user", "content": " Spaces around \n"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "12345 naïve?"},
    ],
)
MAX_SPECIALS = 48
"""Of the marks of a vocabulary, how many are looked for inside a text."""
MAX_FINDINGS = 3


def check_tokenizer(file: GgufFile, source: CheckpointFolder | GgufFile) -> Rung:
    rung = Rung("tokenizer", compares="token ids by FILE with ids by the source's own tokenizer")
    if isinstance(source, GgufFile) and "tokenizer.ggml.model" not in source.metadata:
        rung.skipped = "the source has no tokenizer"
        return rung
    encode, marks, theirs = _reference(rung, source)
    try:
        ours = Tokenizer.from_metadata(file.metadata)
    except TritpackError as error:
        rung.findings.append(error.message)
        return rung
    count = 0
    for text in _corpus(marks):
        count += 1
        want = encode(text, True)
        if (got := ours.encode(text)) != want:
            rung.findings.append(
                f"{_short(text)} gives {_around(got, want)}, the source's gives {_around(want, got)}"
                + _cause(ours, text, got, want)
            )
            if len(rung.findings) >= MAX_FINDINGS:
                break
    rung.figures |= {"texts": count, "vocabulary": ours.vocab_size}
    if theirs is not None:
        _compare_chats(rung, ours, theirs, encode)
    return rung


def _corpus(marks: list[str]) -> Iterator[str]:
    yield from SAMPLES
    yield from awkward_texts()
    for mark in marks[:MAX_SPECIALS]:
        yield f"before{mark} after {mark}"


def _short(text: str) -> str:
    return repr(text) if len(text) <= 50 else f"{text[:47]!r}..."


def _around(ids: list[int], other: list[int]) -> str:
    """The ids about the first that differs."""
    at = next((i for i, (a, b) in enumerate(zip(ids, other)) if a != b), min(len(ids), len(other)))
    shown = ", ".join(map(str, ids[max(0, at - 1) : at + 4]))
    return f"{'... ' if at > 1 else ''}{shown}{' ...' if at + 4 < len(ids) else ''} ({len(ids)} ids)"


def _cause(ours: Tokenizer, text: str, got: list[int], want: list[int]) -> str:
    """What most likely went wrong, in brackets; "" where nothing known fits."""
    if got == want[1:]:
        return " (the token before a text is missing)"
    if got[1:] == want:
        return " (a token before the text is too much)"
    if got == want[:-1]:
        return " (the token behind a text is missing)"
    if got[:-1] == want:
        return " (a token behind the text is too much)"
    for form in ("NFC", "NFKC", "NFD", "NFKD"):
        if ours.encode(unicodedata.normalize(form, text)) == want:
            return f" (the normaliser {form} is missing)"
    return ""


def _reference(rung: Rung, source: CheckpointFolder | GgufFile) -> tuple[Encode, list[str], Render | None]:
    """The source's way to encode, its marks, and its way to render a chat (None: it has no template)."""
    if isinstance(source, GgufFile):
        tokenizer = Tokenizer.from_metadata(source.metadata)
        rung.figures["reference"] = "the source GGUF"
        marks = [tokenizer.token_text(i) for i in range(tokenizer.vocab_size) if tokenizer.is_control(i)]
        render: Render | None = None
        if tokenizer.chat_template:
            render = lambda messages: chat_text(tokenizer, messages)  # noqa: E731
        return lambda text, special: tokenizer.encode(text, add_special=special), marks, render
    path = source.folder / "tokenizer.json"
    loaded = files.load(source.folder)
    # tokenizer.json by the tokenizers library alone; other kinds of files as convert reads them, which proves itself
    # against sentencepiece.
    backend = _plain(path, loaded.settings) if path.is_file() else loaded.backend
    rung.figures["reference"] = loaded.path.name
    marks = [token.content for _, token in sorted(backend.get_added_tokens_decoder().items())]
    template = chat_templates(source.folder, loaded.settings).get("default")

    def render_by_template(messages: list[dict[str, str]]) -> str:
        assert template is not None
        names = {name: loaded.specials[name] for name in ("bos_token", "eos_token")}
        return render_chat(template, messages, bos_token=names["bos_token"], eos_token=names["eos_token"])

    return (
        lambda text, special: list(backend.encode(text, add_special_tokens=special).ids),
        marks,
        None if template is None else render_by_template,
    )


def _plain(path: Path, settings: dict[str, Any]) -> Any:
    """tokenizer.json and, as transformers does, the added tokens that only tokenizer_config.json names."""
    from tokenizers import AddedToken
    from tokenizers import Tokenizer as Reference

    try:
        reference = Reference.from_file(str(path))
    except Exception as error:  # the tokenizers library raises nothing narrower
        raise Unreadable(f"{path}: is no tokenizer: {error}") from error
    reference.no_padding()
    reference.no_truncation()
    decoder = settings.get("added_tokens_decoder")
    for _, fields in sorted((decoder if isinstance(decoder, dict) else {}).items(), key=lambda entry: int(entry[0])):
        if not (isinstance(fields, dict) and isinstance(fields.get("content"), str)):
            continue
        if reference.token_to_id(fields["content"]) is None:
            flags = {name: fields[name] for name in ("lstrip", "rstrip", "single_word", "normalized") if name in fields}
            reference.add_tokens([AddedToken(fields["content"], special=bool(fields.get("special")), **flags)])
    return reference


def _compare_chats(rung: Rung, ours: Tokenizer, theirs: Render, encode: Encode) -> None:
    count = 0
    for messages in CHATS:
        try:
            want = theirs(messages)
        except TritpackError as error:  # a template may refuse a role or an order of roles
            rung.notes.append(
                f"the source's own chat template does not render {len(messages)} messages: {error.message}"
            )
            continue
        count += 1
        try:
            got = chat_text(ours, messages)
        except TritpackError as error:
            rung.findings.append(f"chat: {error.message}")
            break
        if got != want:
            rung.findings.append(f"chat: it renders as {_short(got)}, the source's template gives {_short(want)}")
            break
        if ours.encode(got, add_special=False) != encode(want, False):
            rung.findings.append(f"chat: {_short(got)} has other ids than by the source's tokenizer")
            break
    rung.figures["chats"] = count
