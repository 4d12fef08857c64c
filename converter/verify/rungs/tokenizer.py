"""Whether the tokenizer in FILE gives the same ids as the source's own, over a corpus of awkward strings, and renders
the same chats."""

from __future__ import annotations

from collections.abc import Callable

from tritpack.converter.sources.checkpoint import CheckpointFolder
from tritpack.converter.verify.compare.foreign import is_foreign
from tritpack.converter.verify.compare.token_ids import CHATS, around, corpus, explain_ids, short_text
from tritpack.converter.verify.context import Context, errors_of_options
from tritpack.converter.verify.findings import Kind
from tritpack.converter.verify.oracle.sentencepiece_model import SentencePieceTokenizer
from tritpack.converter.verify.oracle.tokenizer import FolderTokenizer, TokenizerOracle, Transformers
from tritpack.converter.verify.rung import Blame, Need, Rung
from tritpack.formats.errors import TritpackError, Unreadable
from tritpack.formats.gguf_reader import GgufFile
from tritpack.runtime.chat import chat_text, render_chat
from tritpack.runtime.tokenizer import Tokenizer

name = "tokenizer"
blames: Blame = "file"
needs: frozenset[Need] = frozenset()
options: tuple[str, ...] = ()

Encode = Callable[["list[str]", bool], "list[list[int]]"]
"""(texts, whether to add the special tokens that the tokenizer adds) -> ids of each."""
Render = Callable[["list[dict[str, str]]"], str]
"""The messages of a chat -> its text."""

MAX_FINDINGS = 3


def run(context: Context) -> Rung:
    """Compare ids and chats with the source's own tokenizer."""
    return check_tokenizer(context.file, context.source, context.options.oracle)


def check_tokenizer(file: GgufFile, source: CheckpointFolder | GgufFile, oracle: str = "reference") -> Rung:
    """Compare the tokenizers of a file and a source; skipped if the source has none.

    oracle: `transformers` compares with AutoTokenizer instead of our own second reader.
    """
    rung = Rung(name, blames, compares="token ids by FILE with ids by the source's own tokenizer")
    if isinstance(source, GgufFile) and "tokenizer.ggml.model" not in source.metadata:
        rung.skipped = "the source has no tokenizer"
        return rung
    try:
        ours = Tokenizer.from_metadata(file.metadata)
    except TritpackError as error:
        rung.add(Kind.TOKENIZER_INVALID, error.without_path)
        return rung
    encode, specials, theirs = _reference(rung, source, oracle, ours.vocab_size)
    texts = list(corpus(specials))
    count = habits = 0
    for text, got, want in zip(texts, ours.encode_batch(texts), encode(texts, True), strict=True):
        count += 1
        if got != want:
            diagnosis = explain_ids(ours, text, got, want)
            if diagnosis.kind is Kind.NORMALIZER_MISSING and is_foreign(file):
                habits += 1
                continue
            sentence = f"{short_text(text)} gives {around(got, want)}, the source's gives {around(want, got)}"
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


def _reference(
    rung: Rung, source: CheckpointFolder | GgufFile, oracle: str, vocab_size: int
) -> tuple[Encode, list[str], Render | None]:
    """How the source encodes a text, its special tokens, and how it renders a chat (None: it has no template)."""
    if isinstance(source, GgufFile):
        tokenizer = Tokenizer.from_metadata(source.metadata)
        rung.figures["reference"] = "the source GGUF"
        specials = [tokenizer.token_text(i) for i in range(tokenizer.vocab_size) if tokenizer.is_control(i)]
        render: Render | None = None
        if tokenizer.chat_template:
            render = lambda messages: chat_text(tokenizer, messages)  # noqa: E731
        return tokenizer.encode_batch, specials, render
    theirs = _tokenizer_oracle(rung, source, oracle, vocab_size)
    rung.figures["reference"] = theirs.name

    def render_by_template(messages: list[dict[str, str]]) -> str:
        text = theirs.chat(messages)
        if text is None:
            assert theirs.template is not None
            text = render_chat(theirs.template, messages, special_tokens=theirs.special_tokens)
        return text

    return theirs.ids, theirs.specials, None if theirs.template is None else render_by_template


def _tokenizer_oracle(rung: Rung, source: CheckpointFolder, oracle: str, vocab_size: int) -> TokenizerOracle:
    if oracle == "transformers":
        with errors_of_options():
            return Transformers(source.folder, source.config)
    present = [name for name in ("tokenizer.json", "tokenizer.model") if (source.folder / name).is_file()]
    reader = SentencePieceTokenizer if present[:1] == ["tokenizer.model"] else FolderTokenizer
    try:
        return reader(source.folder, source.config, vocab_size)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        what = f"the files of the tokenizer contradict each other: {type(error).__name__} {error}"
        raise Unreadable(what, path=source.folder) from error


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
            sentence = f"chat: it renders as {short_text(got)}, the source's template gives {short_text(want)}"
            rung.add(Kind.CHAT_TEXT_DIFFERS, sentence, file=got, source=want)
            break
        if ours.encode(got, add_special=False) != encode([want], False)[0]:
            sentence = f"chat: {short_text(got)} has other ids than by the source's tokenizer"
            rung.add(Kind.CHAT_IDS_DIFFER, sentence, text=got)
            break
    rung.figures["chats"] = count
