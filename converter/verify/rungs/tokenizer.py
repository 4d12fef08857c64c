"""Whether the tokenizer in FILE gives the same ids as the source's own, over a corpus of awkward strings, and renders
the same chats."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.converter.verify.compare.foreign import is_foreign
from tritpack.converter.verify.compare.vocabulary import CHAT
from tritpack.converter.verify.context import Context
from tritpack.converter.verify.diagnoses import Diagnosis
from tritpack.converter.verify.findings import Kind
from tritpack.converter.verify.rung import Blame, Need, Rung
from tritpack.converter.vocab import files
from tritpack.converter.vocab.chat import chat_templates
from tritpack.converter.vocab.probes import awkward_texts
from tritpack.formats.errors import TritpackError, Unreadable
from tritpack.formats.gguf_reader import GgufFile
from tritpack.runtime.chat import chat_text, render_chat
from tritpack.runtime.tokenizer import Tokenizer

name = "tokenizer"
blames: Blame = "file"
needs: frozenset[Need] = frozenset()
options: tuple[str, ...] = ()

Encode = Callable[[str, bool], "list[int]"]
"""(text, whether to add the special tokens that the tokenizer adds) -> ids."""
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
    CHAT,
    [
        {"role": "user", "content": " Spaces around \n"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "12345 naïve?"},
    ],
)
MAX_SPECIALS = 48
"""How many special tokens of a vocabulary are tried inside a text."""
MAX_FINDINGS = 3


def run(context: Context) -> Rung:
    """Compare ids and chats with the source's own tokenizer."""
    return check_tokenizer(context.file, context.source)


def check_tokenizer(file: GgufFile, source: CheckpointFolder | GgufFile) -> Rung:
    """Compare the tokenizers of a file and a source; skipped if the source has none."""
    rung = Rung(name, blames, compares="token ids by FILE with ids by the source's own tokenizer")
    if isinstance(source, GgufFile) and "tokenizer.ggml.model" not in source.metadata:
        rung.skipped = "the source has no tokenizer"
        return rung
    encode, specials, theirs = _reference(rung, source)
    try:
        ours = Tokenizer.from_metadata(file.metadata)
    except TritpackError as error:
        rung.add(Kind.TOKENIZER_INVALID, error.without_path)
        return rung
    count = habits = 0
    for text in _corpus(specials):
        count += 1
        want = encode(text, True)
        if (got := ours.encode(text)) != want:
            diagnosis = _explain_ids(ours, text, got, want)
            if diagnosis.kind is Kind.NORMALIZER_MISSING and is_foreign(file):
                habits += 1
                continue
            sentence = f"{_short(text)} gives {_around(got, want)}, the source's gives {_around(want, got)}"
            rung.add(diagnosis.kind, diagnosis.explain(sentence), text=text, file=got, source=want)
            if len(rung.findings) >= MAX_FINDINGS:
                break
    if habits:
        rung.notes.append(
            f"{habits} of {count} texts have other ids, because the source normalises text and the file has no key for "
            "it: llama.cpp never does, a habit of that engine"
        )
    rung.figures |= {"texts": count, "vocabulary": ours.vocab_size}
    if theirs is not None:
        _compare_chats(rung, ours, theirs, encode)
    return rung


def _corpus(specials: list[str]) -> Iterator[str]:
    yield from SAMPLES
    yield from awkward_texts()
    for special in specials[:MAX_SPECIALS]:
        yield f"before{special} after {special}"


def _short(text: str) -> str:
    return repr(text) if len(text) <= 50 else f"{text[:47]!r}..."


def _around(ids: list[int], other: list[int]) -> str:
    """The ids around the first that differs."""
    at = next((i for i, (a, b) in enumerate(zip(ids, other)) if a != b), min(len(ids), len(other)))
    shown = ", ".join(map(str, ids[max(0, at - 1) : at + 4]))
    return f"{'... ' if at > 1 else ''}{shown}{' ...' if at + 4 < len(ids) else ''} ({len(ids)} ids)"


def _explain_ids(ours: Tokenizer, text: str, ids: list[int], expected: list[int]) -> Diagnosis:
    """What most likely went wrong where a text has other ids than expected."""
    if ids == expected[1:]:
        return Diagnosis(Kind.FIRST_TOKEN_MISSING, "the token before a text is missing")
    if ids[1:] == expected:
        return Diagnosis(Kind.FIRST_TOKEN_SURPLUS, "there is a surplus token before the text")
    if ids == expected[:-1]:
        return Diagnosis(Kind.LAST_TOKEN_MISSING, "the token after a text is missing")
    if ids[:-1] == expected:
        return Diagnosis(Kind.LAST_TOKEN_SURPLUS, "there is a surplus token after the text")
    for form in ("NFC", "NFKC", "NFD", "NFKD"):
        if ours.encode(unicodedata.normalize(form, text)) == expected:
            return Diagnosis(Kind.NORMALIZER_MISSING, f"the normaliser {form} is missing")
    return Diagnosis(Kind.TOKEN_IDS_DIFFER)


def _reference(rung: Rung, source: CheckpointFolder | GgufFile) -> tuple[Encode, list[str], Render | None]:
    """How the source encodes a text, its special tokens, and how it renders a chat (None: it has no template)."""
    if isinstance(source, GgufFile):
        tokenizer = Tokenizer.from_metadata(source.metadata)
        rung.figures["reference"] = "the source GGUF"
        specials = [tokenizer.token_text(i) for i in range(tokenizer.vocab_size) if tokenizer.is_control(i)]
        render: Render | None = None
        if tokenizer.chat_template:
            render = lambda messages: chat_text(tokenizer, messages)  # noqa: E731
        return lambda text, special: tokenizer.encode(text, add_special=special), specials, render
    path = source.folder / "tokenizer.json"
    loaded = files.load(source.folder)
    # tokenizer.json is read by the tokenizers library alone, other kinds of files as convert reads them: that is tested
    # against sentencepiece.
    backend = _load_tokenizer_json(path, loaded.settings) if path.is_file() else loaded.backend
    rung.figures["reference"] = loaded.path.name
    specials = [token.content for _, token in sorted(backend.get_added_tokens_decoder().items())]
    template = chat_templates(source.folder, loaded.settings).get("default")

    def render_by_template(messages: list[dict[str, str]]) -> str:
        assert template is not None
        names = {name: loaded.specials[name] for name in ("bos_token", "eos_token")}
        return render_chat(template, messages, bos_token=names["bos_token"], eos_token=names["eos_token"])

    return (
        lambda text, special: list(backend.encode(text, add_special_tokens=special).ids),
        specials,
        None if template is None else render_by_template,
    )


def _load_tokenizer_json(path: Path, settings: dict[str, Any]) -> Any:
    """The tokenizer of tokenizer.json with, as in transformers, added tokens that only tokenizer_config.json names."""
    from tokenizers import AddedToken
    from tokenizers import Tokenizer as Reference

    try:
        reference = Reference.from_file(str(path))
    except Exception as error:  # the tokenizers library raises nothing narrower
        raise Unreadable(f"it is not a tokenizer: {error}", path=path) from error
    reference.no_padding()
    reference.no_truncation()
    stated = settings.get("added_tokens_decoder")
    decoder = stated if isinstance(stated, dict) else {}
    if odd := [key for key in decoder if not key.isdecimal()]:
        raise Unreadable(f"{odd[0][:40]!r} is not a token id", path=path.parent / "tokenizer_config.json")
    for _, fields in sorted(decoder.items(), key=lambda entry: int(entry[0][:20])):
        if not (isinstance(fields, dict) and isinstance(fields.get("content"), str)):
            continue
        if reference.token_to_id(fields["content"]) is None:
            flags = {
                name: bool(fields[name]) for name in ("lstrip", "rstrip", "single_word", "normalized") if name in fields
            }
            reference.add_tokens([AddedToken(fields["content"], special=bool(fields.get("special")), **flags)])
    return reference


def _compare_chats(rung: Rung, ours: Tokenizer, theirs: Render, encode: Encode) -> None:
    count = 0
    for messages in CHATS:
        try:
            want = theirs(messages)
        except TritpackError as error:  # a template may refuse a role or an order of roles
            rung.notes.append(
                f"the source's own chat template does not render {len(messages)} messages: {error.without_path}"
            )
            continue
        count += 1
        try:
            got = chat_text(ours, messages)
        except TritpackError as error:
            rung.add(Kind.CHAT_INVALID, f"chat: {error.without_path}")
            break
        if got != want:
            sentence = f"chat: it renders as {_short(got)}, the source's template gives {_short(want)}"
            rung.add(Kind.CHAT_TEXT_DIFFERS, sentence, file=got, source=want)
            break
        if ours.encode(got, add_special=False) != encode(want, False):
            sentence = f"chat: {_short(got)} has other ids than by the source's tokenizer"
            rung.add(Kind.CHAT_IDS_DIFFER, sentence, text=got)
            break
    rung.figures["chats"] = count
