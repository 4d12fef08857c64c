"""runtime/speculation.py and draft_model.py: guesses never change a text, whoever guesses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tritpack.formats.errors import UsageError
from tritpack.runtime.continuation import Request
from tritpack.runtime.draft_model import ModelDraft
from tritpack.runtime.generate import collect, common_prefix, stream_tokens
from tritpack.runtime.model import Model
from tritpack.runtime.sampling import SamplingParams
from tritpack.runtime.speculation import Draft, LookupDraft, Speculation

GOLDEN = json.loads((REPOSITORY / "tests" / "golden" / "demo_greedy.json").read_text())


@pytest.fixture(scope="module")
def model(demo_gguf: Path) -> Iterator[Model]:
    with Model(demo_gguf, threads=2) as model:
        yield model


@pytest.fixture(scope="module")
def small(demo_gguf: Path) -> Iterator[Model]:
    """A draft model that is right about as often as a good one: the same, with rounded keys and a short context."""
    with Model(demo_gguf, threads=1, kv_type="i16", context=60) as small:
        yield small


@pytest.mark.parametrize("most", [1, 7])
@pytest.mark.parametrize("params", [SamplingParams(), SamplingParams(0.8, 40, 0.95, 0.02, 1.1, seed=7)])
@pytest.mark.parametrize("who", ["lookup", "model"])
def test_no_golden_text_changes(model: Model, small: Model, who: str, params: SamplingParams, most: int) -> None:
    drafts: dict[str, Callable[[], Draft]] = {"lookup": LookupDraft, "model": lambda: ModelDraft(small, model)}
    drafted = 0
    for prompt, text in GOLDEN.items():
        request = Request(model.tokenize(prompt + " " + prompt), 48, params)
        plain = collect(stream_tokens(model, model.tokenizer, request))
        for always in (True, False):
            speculation = Speculation(drafts[who](), most, always=always)
            done = collect(stream_tokens(model, model.tokenizer, replace(request, speculation=speculation)))
            assert (done.ids, done.text, done.stop_reason) == (plain.ids, plain.text, plain.stop_reason), prompt
            drafted += done.drafted
        if params == SamplingParams():
            again = Request(model.tokenize(prompt), 48, speculation=Speculation(drafts[who](), most, always=True))
            assert collect(stream_tokens(model, model.tokenizer, again)).text == text, prompt
    assert drafted > 0


def test_a_draft_model_that_is_the_model_is_always_right(model: Model, demo_gguf: Path) -> None:
    with Model(demo_gguf) as same:
        speculation = Speculation(ModelDraft(same, model), 4, always=True)
        done = collect(stream_tokens(model, model.tokenizer, Request([1, 5, 77], 40, speculation=speculation)))
        assert done.accepted == done.drafted >= 30


def test_a_draft_model_needs_the_same_vocabulary(model: Model, tiny_gguf: Path) -> None:
    with Model(tiny_gguf) as other, pytest.raises(UsageError, match="another vocabulary"):
        ModelDraft(other, model)


def test_a_lookup_guesses_what_followed_last_time() -> None:
    draft, text = LookupDraft(), [1, 2, 3, 4, 9, 1, 2, 3, 5, 9, 1, 2]
    assert draft.guess(text, 2) == [3, 5] and draft.guess(text, 3) == [3, 5, 9]
    text.append(3)
    assert draft.guess(text, 4) == [5, 9, 1, 2]
    assert draft.guess([7, 8], 4) == draft.guess([1], 4) == draft.guess([], 4) == []
    assert draft.guess([4, 4, 4], 5) == [4]  # what is known ends there


def test_common_prefixes() -> None:
    for a, b, want in (([], [1], 0), ([1, 2], [1, 2, 3], 2), ([1, 2, 3], [1, 5, 3], 1), ([4], [5], 0)):
        assert common_prefix(a, b) == common_prefix(b, a) == want, f"{a} {b}"
