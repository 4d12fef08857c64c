"""Part of rung 1: the tokenizer in FILE against the source's, by its keys and by what it does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converter import vocab
from converter.sources import CheckpointFolder
from converter.verify.rung import Rung
from formats.errors import TritpackError, Unreadable
from formats.gguf_file import GgufFile

if TYPE_CHECKING:
    from runtime.tokenizer import Tokenizer

Encode = Callable[[str], "list[int]"]
NEEDED_KEYS = ("tokenizer.ggml.tokens", "tokenizer.ggml.pre", "tokenizer.ggml.eos_token_id", "tokenizer.chat_template")
"""Without these a file talks nonsense or never stops, whoever wrote it."""
SAMPLES = (
    "Hello, world!",
    "  two  spaces,\ttab\nand\n\nlines ",
    "I'll say 12345 words; don't we?",
    "naïve café – “quotes” … Ünïcödé",
    "数字 123 と 漢字、ひらがな",
    "emoji 🙂👩‍👩‍👧 and \u200b zero width",
    "def f(x):\n    return x**2  # code",
)


def check_tokenizer(rung: Rung, file: GgufFile, source: CheckpointFolder | GgufFile, vocab_size: int) -> None:
    """Every key against what the source says, then real encoding against the source's own tokenizer."""
    from runtime.tokenizer import Tokenizer

    if isinstance(source, GgufFile) and "tokenizer.ggml.model" not in source.metadata:
        rung.notes.append("the source has no tokenizer, so that of the file is not judged")
        return
    if isinstance(source, GgufFile):
        keys = vocab.vocabulary_of_gguf(source.metadata, vocab_size)
        stops = {int(i) for i in keys.get("tritpack.tokenizer.stop_token_ids", ())}
        reference: Encode | None = Tokenizer.from_metadata(source.metadata).encode
    else:
        keys = vocab.read_vocabulary(source.folder, source.config, source.generation_config)
        stops = _expected_stops(source)
        reference = _own_tokenizer(source.folder / "tokenizer.json")
    # What a file made from another GGUF could not know (a config's end tokens) is judged by behaviour alone.
    through_gguf = file.metadata.get("general.source.format") == "gguf" and not isinstance(source, GgufFile)
    if through_gguf:
        keys = {key: value for key, value in keys.items() if not key.startswith("tritpack.")}
        stops = {int(i) for i in file.metadata.get("tritpack.tokenizer.stop_token_ids", ())} & stops
    _compare_vocabulary(rung, file, keys, complete="tritpack.version" in file.metadata and not through_gguf)
    try:
        ours = Tokenizer.from_metadata(file.metadata)
    except TritpackError as error:
        rung.findings.append(f"tokenizer: {error.message}")
        return
    if reference is not None:
        _compare_encoding(rung, ours, reference)
    if missing := sorted(stops - set(ours.stop_ids)):
        rung.findings.append(f"tokenizer: end tokens {missing} of the source do not stop generation")


def first_difference(found: Any, expected: Any) -> int | None:
    """The index of the first element in which two arrays differ, or None."""
    if isinstance(found, (str, int, float)):
        return 0
    if len(found) != len(expected):
        return min(len(found), len(expected))
    return next((i for i, (a, b) in enumerate(zip(found, expected)) if a != b), None)


def _compare_vocabulary(rung: Rung, file: GgufFile, expected: dict[str, Any], *, complete: bool) -> None:
    """complete: the file was written by us from this source, so it has these keys and no others."""
    for key, value in expected.items():
        if key not in file.metadata:
            if complete or key in NEEDED_KEYS:
                rung.findings.append(f"tokenizer: {key} is missing")
            continue
        found = file.metadata[key]
        if isinstance(value, (list, np.ndarray)):
            differing = first_difference(found, value)
            if differing is not None:
                rung.findings.append(f"tokenizer: {key} differs from the source, first at element {differing}")
        elif found != value:
            rung.findings.append(f"tokenizer: {key} is {_short(found)}, the source has {_short(value)}")
    if complete:
        ours = ("tokenizer.", "tritpack.tokenizer.")
        extra = [key for key in file.metadata if key.startswith(ours) and key not in expected]
        rung.findings += [f"tokenizer: {key} has nothing to match it in the source" for key in extra]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _own_tokenizer(path: Path) -> Encode | None:
    """The checkpoint's tokenizer.json by the tokenizers library alone; None if there is only another kind of file."""
    from tokenizers import Tokenizer as Reference

    if not path.is_file():
        return None
    try:
        reference = Reference.from_file(str(path))
    except Exception as error:  # the tokenizers library raises nothing narrower
        raise Unreadable(f"{path}: is no tokenizer: {error}") from error
    reference.no_padding()
    reference.no_truncation()
    return lambda text: list(reference.encode(text).ids)


def _compare_encoding(rung: Rung, ours: Tokenizer, reference: Encode) -> None:
    for sample in SAMPLES:
        want = reference(sample)
        if (got := ours.encode(sample)) != want:
            rung.findings.append(
                f"tokenizer: {sample!r} gives {got[:8]}..., the source's tokenizer gives {want[:8]}..."
            )
            break
    rung.figures["tokenizer_samples"] = len(SAMPLES)


def _expected_stops(source: CheckpointFolder) -> set[int]:
    """The end tokens that both configs name, as far as they are in the vocabulary."""
    stops: list[Any] = []
    for config in (source.config, source.generation_config):
        ids = config.get("eos_token_id")
        stops += ids if isinstance(ids, list) else [ids]
    size = source.config.get("vocab_size", 0)
    return {i for i in stops if isinstance(i, int) and not isinstance(i, bool) and 0 <= i < size}
