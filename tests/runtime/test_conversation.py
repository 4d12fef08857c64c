"""runtime/conversation.py: a prompt goes on from the tokens that were evaluated, and stays within the context."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runtime.test_chat import toy
from tritpack.formats.errors import UsageError
from tritpack.formats.gguf_reader import GgufFile
from tritpack.runtime.chat import chat_ids
from tritpack.runtime.conversation import Conversation
from tritpack.runtime.tokenizer import BITNET_TEMPLATE, Tokenizer

pytest.importorskip("jinja2")
TRIMMING = BITNET_TEMPLATE.replace("message['content']", "message['content'] | trim")
NO_MARKS = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "


@pytest.fixture(scope="module")
def tokenizer(demo_gguf: Path) -> Tokenizer:
    return Tokenizer.from_metadata(GgufFile(demo_gguf).metadata)


def test_the_tokens_of_an_answer_stay_those_that_were_written(tokenizer: Tokenizer) -> None:
    conversation = Conversation(tokenizer, 1000, "Be brief.")
    first = conversation.ask("Tell me about a king.")
    assert first == chat_ids(tokenizer, [*conversation.messages])
    letters = [tokenizer.encode(letter, add_special=False)[0] for letter in " the end "]  # not how "the end" is encoded
    assert tokenizer.encode(tokenizer.decode(letters), add_special=False) != letters
    conversation.answer(tokenizer.decode(letters), letters)
    second = conversation.ask("And then?")
    known = len(first) + len(letters)
    assert second[:known] == [*first, *letters]
    assert second[known:] == chat_ids(tokenizer, conversation.messages)[-len(second) + known :]
    assert [message["role"] for message in conversation.messages] == ["system", "user", "assistant", "user"]


def test_a_template_that_trims_answers_changes_nothing() -> None:
    assert "trim" in TRIMMING
    bytes_only = toy(TRIMMING)
    conversation = Conversation(bytes_only, 1000)
    first = conversation.ask("A")
    conversation.answer("  B \n", list(b"  B \n"))
    assert conversation.ask("C")[: len(first) + 5] == [*first, *b"  B \n"]


def test_without_a_mark_after_the_answer_the_chat_is_tokenized_anew() -> None:
    conversation = Conversation(toy(NO_MARKS), 1000)
    conversation.ask("A")
    conversation.answer("B", [0x42])
    assert conversation.ask("C") == list(b"user: A\nassistant: B\nuser: C\nassistant: ")


def test_the_oldest_turns_are_dropped_where_the_context_is_full() -> None:
    tokenizer = toy(BITNET_TEMPLATE)
    conversation = Conversation(tokenizer, 200, "System")
    for number in range(12):
        ids = conversation.ask(f"question {number}")
        assert len(ids) <= 200 * 7 / 8, number
        conversation.answer("answer", list(b"answer"))
    assert conversation.dropped > 2
    assert [message["role"] for message in conversation.messages[:2]] == ["system", "user"]
    assert conversation.turns[-2]["content"] == "question 11"
    before = [*conversation.messages]
    with pytest.raises(UsageError, match=r"the question has .* tokens with its template, the context 200"):
        conversation.ask("x" * 300)
    assert conversation.messages == before


def test_an_answer_stays_where_its_prompt_does_not_fit_any_more() -> None:
    conversation = Conversation(toy(BITNET_TEMPLATE), 60)
    conversation.ask("A")
    conversation.answer("B", [0x42])
    conversation.replace([{"role": "system", "content": "x" * 60}, *conversation.turns])
    before = [*conversation.messages]
    with pytest.raises(UsageError, match="tokens with its template"):
        conversation.ask_again()
    assert conversation.messages == before and before[-1]["content"] == "B"


def test_undo_again_and_clear() -> None:
    conversation = Conversation(toy(BITNET_TEMPLATE), 200)
    assert conversation.undo() is None
    with pytest.raises(UsageError, match="no question"):
        conversation.ask_again()
    first = conversation.ask("A")
    conversation.answer("B", [0x42])
    assert conversation.ask_again() == first and [m["content"] for m in conversation.messages] == ["A"]
    conversation.answer("C", [0x43])
    assert conversation.undo() == "A" and conversation.messages == []
    conversation.replace([{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}])
    assert conversation.system == "S" and conversation.ask_again()[-1] == ord(" ")
    conversation.clear()
    assert conversation.messages == [{"role": "system", "content": "S"}]
