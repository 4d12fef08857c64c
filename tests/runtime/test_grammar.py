"""runtime/grammar.py: whatever the logits are, what is written keeps to the schema or the grammar."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tritpack.formats.errors import MissingRequirement, Unsupported, UsageError
from tritpack.formats.gguf_reader import GgufFile
from tritpack.runtime.continuation import Constraint
from tritpack.runtime.grammar import constraint_for
from tritpack.runtime.tokenizer import Tokenizer

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
        "tags": {"type": "array", "items": {"enum": ["é", "b"]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def tokenizer(demo_gguf: Path) -> Tokenizer:
    return Tokenizer.from_metadata(GgufFile(demo_gguf).metadata)


def written(tokenizer: Tokenizer, constraint: Constraint | None, seed: int, most: int = 120) -> str:
    """What random logits write under a constraint, until it is finished or a stop token comes."""
    assert constraint is not None
    random, ids = np.random.default_rng(seed), []
    for _ in range(most):
        logits = random.standard_normal(tokenizer.vocab_size).astype(np.float32)
        before = logits.copy()
        token = int(constraint.mask(logits).argmax())
        assert np.array_equal(logits, before)
        constraint.accept(token)
        if token in tokenizer.stop_ids:
            break
        ids.append(token)
        if constraint.finished:
            break
    else:
        raise AssertionError(f"seed {seed} does not end: {tokenizer.decode(ids)}")
    return tokenizer.decode(ids)


def test_random_logits_write_what_the_schema_says(tokenizer: Tokenizer) -> None:
    pytest.importorskip("llguidance", reason="llguidance (extra `grammar`) is not installed")
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    for seed in range(20):
        text = written(tokenizer, constraint_for(tokenizer, json_schema=SCHEMA), seed)
        value = json.loads(text)
        jsonschema.validate(value, SCHEMA)
        assert text == json.dumps(value, ensure_ascii=False) or "\\" in text, f"seed {seed}: {text}"


@pytest.mark.parametrize(
    ("grammar", "pattern"),
    [('root ::= "yes" | "no" [0-9]+ "."', r"yes|no[0-9]+\."), ("start: /[a-c]{4}/", "[a-c]{4}")],
    ids=["gbnf", "lark"],
)
def test_grammars_of_both_kinds(tokenizer: Tokenizer, grammar: str, pattern: str) -> None:
    pytest.importorskip("llguidance", reason="llguidance (extra `grammar`) is not installed")
    texts = {written(tokenizer, constraint_for(tokenizer, grammar=grammar), seed) for seed in range(10)}
    assert len(texts) > 1 and all(re.fullmatch(pattern, text) for text in texts), texts


def test_logits_of_a_padded_vocabulary_are_masked_whole(tokenizer: Tokenizer) -> None:
    pytest.importorskip("llguidance", reason="llguidance (extra `grammar`) is not installed")
    constraint = constraint_for(tokenizer, grammar='root ::= "yes"')
    assert constraint is not None
    masked = constraint.mask(np.zeros(tokenizer.vocab_size + 50, np.float32))
    assert not np.isfinite(masked[tokenizer.vocab_size :]).any() and 0 < np.isfinite(masked).sum() < 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"json_schema": "["}, "not valid JSON"),
        ({"json_schema": "3"}, "is 3, expected an object"),
        ({"json_schema": {"type": "nonsense"}}, "JSON schema cannot be used"),
        ({"json_schema": {"$ref": "http://example.org/x"}}, "JSON schema cannot be used"),
        ({"grammar": "root ::= ("}, "neither GBNF nor Lark"),
        ({"grammar": "start: unknown"}, "grammar cannot be used"),
        ({"grammar": "start: 'a'", "json_schema": "{}"}, "not both"),
    ],
    ids=["cut", "number", "type", "remote", "gbnf", "lark", "both"],
)
def test_what_is_refused(tokenizer: Tokenizer, options: dict[str, Any], words: str) -> None:
    pytest.importorskip("llguidance", reason="llguidance (extra `grammar`) is not installed")
    with pytest.raises(UsageError, match=words) as caught:
        constraint_for(tokenizer, **options)
    assert "\n" not in caught.value.message


def test_a_model_that_never_stops_has_no_grammar(demo_gguf: Path) -> None:
    pytest.importorskip("llguidance", reason="llguidance (extra `grammar`) is not installed")
    endless = Tokenizer.from_metadata(GgufFile(demo_gguf).metadata)
    endless.stop_ids = frozenset()
    with pytest.raises(Unsupported, match="no token that ends a text"):
        constraint_for(endless, json_schema="{}")


def test_without_the_library(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert constraint_for(tokenizer) is None
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(MissingRequirement, match="llguidance, which is not installed") as caught:
        constraint_for(tokenizer, json_schema="{}")
    assert caught.value.hint == 'pip install "tritpack[grammar]"'
