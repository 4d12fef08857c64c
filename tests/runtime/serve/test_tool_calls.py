"""runtime/serve/tool_calls.py: calls in an answer are found however it is cut, and nothing else is taken for one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tritpack.runtime.serve.tool_calls import CallReader, ToolCall, described

TOOL = {"type": "function", "function": {"name": "clock", "description": "Tells the time.", "parameters": {}}}
CALL = ("clock", {"zone": "UTC"})
UTC = '{"name": "clock", "arguments": {"zone": "UTC"}}'
CASES: list[tuple[str, list[Any]]] = [
    ("It is noon.", ["It is noon."]),
    (f"<tool_call>\n{UTC}\n</tool_call>", [CALL]),
    (f"Let me look.\n<tool_call>{UTC}</tool_call>", ["Let me look.\n", CALL]),
    (f"<tool_call>{UTC}</tool_call>\n<tool_call>{UTC}</tool_call>", [CALL, CALL]),
    (f"<tool_call>{UTC}", [CALL]),
    (UTC, [CALL]),
    (f"\n {UTC}\n", [CALL]),
    ('{"name": "clock", "parameters": {"zone": "UTC"}}', [CALL]),
    ('{"type": "function", "function": {"name": "clock", "arguments": "{\\"zone\\": \\"UTC\\"}"}}', [CALL]),
    (f"<|python_tag|>{UTC}; {UTC}", [CALL, CALL]),
    (f"[{UTC}, {UTC}]", [CALL, CALL]),
    ('{"name": "clock"}', [("clock", {})]),
    ('{"name": "other", "arguments": {}}', ['{"name": "other", "arguments": {}}']),
    ('{"answer": 12}', ['{"answer": 12}']),
    ("{not JSON", ["{not JSON"]),
    ("<tool_call>no JSON</tool_call> so", ["<tool_call>no JSON</tool_call> so"]),
    (f"The form is {UTC}", [f"The form is {UTC}"]),
    ("a < b and a <tool", ["a < b and a <tool"]),
    ('{"name": "clock", "arguments": [1]}', ['{"name": "clock", "arguments": [1]}']),
    ("", []),
]


def parts(pieces: list[str]) -> list[Any]:
    """What a reader makes of pieces, neighbouring texts joined."""
    reader, result = CallReader(["clock"]), []
    for place, piece in enumerate(pieces or [""]):
        for part in reader.feed(piece, last=place >= len(pieces) - 1):
            if isinstance(part, ToolCall):
                result.append((part.name, json.loads(part.arguments)))
            elif result and isinstance(result[-1], str):
                result[-1] += part
            else:
                result.append(part)
    return result


@pytest.mark.parametrize(("text", "wanted"), CASES, ids=[case[0][:30] or "empty" for case in CASES])
def test_calls_are_found(text: str, wanted: list[Any]) -> None:
    assert parts([text]) == wanted
    assert parts(list(text)) == wanted  # by characters


def test_text_is_shown_as_soon_as_it_cannot_be_a_call() -> None:
    reader = CallReader(["clock"])
    assert reader.feed("No") == ["No"] and reader.feed(", it <") == [", it "] and reader.feed("b") == ["<b"]


def test_a_template_without_tools_is_told_of_them_in_words() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "clock", "arguments": {"zone": "UTC"}}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What time is it?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "12:00"},
    ]
    told = described(messages, [TOOL])
    assert [message["role"] for message in told] == ["system", "user", "assistant", "user"]
    assert told[0]["content"].startswith("Be brief.\n\n") and '"name": "clock"' in told[0]["content"]
    assert parts([told[2]["content"]]) == [CALL] and "12:00" in told[3]["content"]
    assert described(messages[:2], []) == messages[:2]
