"""Whether the tokenizer can be built, fits the model, gives each text back, and renders a chat."""

from __future__ import annotations

from typing import Any

import numpy as np

from tritpack.converter.verify.alone.context import AloneContext
from tritpack.converter.verify.compare.token_ids import around, corpus, short_text
from tritpack.converter.verify.compare.vocabulary import check_template
from tritpack.converter.verify.findings import Kind
from tritpack.converter.verify.rung import Blame, Need, Rung
from tritpack.formats.errors import TritpackError
from tritpack.formats.gguf_reader import GgufFile
from tritpack.runtime.pretokenizers import pre_of
from tritpack.runtime.tokenizer import KEY_PIPELINE, KEY_STOP_IDS, Tokenizer

name = "tokenizer"
blames: Blame = "file"
needs: frozenset[Need] = frozenset()

TOKENS, PRE = "tokenizer.ggml.tokens", "tokenizer.ggml.pre"


def run(context: AloneContext) -> Rung:
    """Check the tokenizer by itself: which ids are right only a source can say."""
    file = context.file
    rung = Rung(name, blames, compares="texts with what the tokenizer of FILE makes of them, to ids and back")
    if TOKENS not in file.metadata:
        rung.skipped = "the file has no tokenizer"
        return rung
    try:
        tokenizer = Tokenizer.from_metadata(file.metadata)
    except TritpackError as error:
        rung.add(Kind.TOKENIZER_INVALID, error.without_path)
        return rung
    rows = context.spec.vocab_size if context.cannot_run is None else tokenizer.vocab_size
    if tokenizer.vocab_size > rows:
        sentence = f"the tokenizer has {tokenizer.vocab_size} tokens, and the model {rows} rows for them"
        rung.add(Kind.TOKENIZER_INVALID, sentence, tokens=tokenizer.vocab_size, rows=rows)
    _check_named_ids(rung, file, tokenizer.vocab_size)
    if PRE not in file.metadata and file.metadata.get("tokenizer.ggml.model") == "gpt2":
        taken = "tritpack's own keys say more" if KEY_PIPELINE in file.metadata else f"taken: {pre_of(file.metadata)}"
        rung.notes.append(f"{PRE} is missing ({taken}), and other readers may guess otherwise")
    if not tokenizer.stop_ids:
        rung.notes.append("no token ends a generation")
    _check_round_trips(rung, tokenizer, rows)
    check_template(rung, tokenizer)
    if not tokenizer.chat_template:
        rung.notes.append("the file has no chat template")
    return rung


def _check_named_ids(rung: Rung, file: GgufFile, count: int) -> None:
    """Check that every id that a key names is one of the vocabulary."""
    for key, value in file.metadata.items():
        named = key == KEY_STOP_IDS or (key.startswith("tokenizer.ggml.") and key.endswith("_token_id"))
        if named and (outside := [i for i in np.atleast_1d(value).tolist() if not _is_id(i, count)]):
            sentence = f"{key} names {outside[0]!r}, and the vocabulary has the ids 0 to {count - 1}"
            rung.add(Kind.TOKENIZER_INVALID, sentence, key=key)


def _is_id(value: Any, count: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < count


def _check_round_trips(rung: Rung, tokenizer: Tokenizer, rows: int) -> None:
    """Check that texts come back from their ids, which a tokenizer of bytes must do unless it normalises them first."""
    texts = list(corpus([]))
    ids = tokenizer.encode_batch(texts, add_special=False)
    if (outside := next((i for row in ids for i in row if not 0 <= i < rows), None)) is not None:
        rung.add(Kind.TOKENIZER_INVALID, f"a text has the id {outside}, and the model has {rows} rows")
        return
    changed = [(text, row, back) for text, row in zip(texts, ids) if (back := tokenizer.decode(row)) != text]
    document = tokenizer.backend.document()
    exact = (document.get("decoder") or {}).get("type") == "ByteLevel" and not document.get("normalizer")
    rung.figures |= {"texts": len(texts), "round_trips": len(texts) - len(changed), "vocabulary": tokenizer.vocab_size}
    if not changed:
        return
    text, row, back = changed[0]
    sentence = (
        f"{len(changed)} of {len(texts)} texts do not come back from their ids, first {short_text(text)}, which "
        f"becomes {short_text(back)} ({around(row, [])})"
    )
    if exact:
        rung.add(Kind.ROUND_TRIP_DIFFERS, sentence, text=text, back=back)
    else:
        rung.notes.append(f"{sentence}; a tokenizer that normalises text or has no bytes may do so")
