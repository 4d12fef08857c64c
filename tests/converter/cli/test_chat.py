"""`chat` as its user meets it: commands, Ctrl-C, a full context, a pipe, and a real terminal."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY, program
from tritpack.converter.cli.chat_commands import COMMANDS
from tritpack.converter.cli.chat_loop import ChatLoop
from tritpack.converter.cli.line_reader import LineReader, history_path
from tritpack.converter.cli.word_wrap import WordWrap
from tritpack.formats.errors import Unreadable
from tritpack.runtime.model import Model

GREEDY = {"temp": 0.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0, "seed": 0}


@pytest.fixture(scope="module")
def model(demo_gguf: Path) -> Iterator[Model]:
    with Model(demo_gguf, threads=1) as model:
        yield model


class Lines(LineReader):
    """A terminal whose user types these lines."""

    def __init__(self, *lines: str | BaseException) -> None:
        self.interactive = True
        self._lines = iter(lines)

    def read(self) -> str | None:
        line = next(self._lines, None)
        if isinstance(line, BaseException):
            raise line
        return line


def talk(model: Model, *lines: str | BaseException, max_tokens: int = 6, **sampling: Any) -> ChatLoop:
    """What a chat has become after these lines."""
    loop = ChatLoop(model, Lines(*lines), COMMANDS, system=None, max_tokens=max_tokens, sampling={**GREEDY, **sampling})
    loop.run()
    return loop


def test_each_turn_evaluates_only_what_is_new(model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    model.reset()
    loop = talk(model, "Tell me about a king.", "And the queen?", "And then?", "/stats")
    first, second, third = loop.answers
    assert first.cached_tokens == 0
    for before, after in ((first, second), (second, third)):
        # The last token that was written was not fed back to the model.
        assert after.cached_tokens == before.prompt_tokens + len(before.ids) - 1, after
    shown = capsys.readouterr()
    assert f"{len(model.tokens)} of {model.context_length} tokens" in shown.err
    assert shown.err.count("6 tokens, ") == 3 and "cut at --max-tokens" in shown.err


def test_commands(model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = tmp_path / "chat.json"
    loop = talk(
        model, "One.", "/system Be brief.", "/system", "/regen", f"/save {saved}", f"/save {saved}", "/undo", "/undo",
        "/save", f"/load {saved}", "/help", "/frob", "/load /none/x", "/exit", "not reached", temp=0.8,
    )  # fmt: skip
    said = capsys.readouterr().err
    messages = json.loads(saved.read_text())
    assert [message["role"] for message in messages] == ["system", "user", "assistant"]
    assert loop.conversation.messages == messages and messages[0]["content"] == "Be brief."
    for words in (
        "\nBe brief.\n", "taken back, with its answer: One.", "/undo: there is no question to take back",
        "/save: the name of a file is missing", "loaded 3 messages", "there is no command /frob: /help lists them",
        "/load: /none/x: cannot be read", *COMMANDS,
    ):  # fmt: skip
        assert words in said, words
    assert said.count("saved 3 messages") == 2 and len(loop.answers) == 2


def test_a_file_of_others_is_not_replaced(model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "notes"
    other.write_text("mine")
    talk(model, "One.", f"/save {other}")
    assert "exists already" in capsys.readouterr().err and other.read_text() == "mine"


@pytest.mark.parametrize("command", ["/save", "/load"])
@pytest.mark.parametrize("name", ["~nosuchuser/x", "a\0b", "x" * 300], ids=["home", "null", "long"])
def test_a_name_that_no_file_has(command: str, name: str, model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    loop = talk(model, "One.", f"{command} {name}", "Two.", max_tokens=1)
    said = " ".join(capsys.readouterr().err.split())
    assert f"{command}: '" in said and "cannot be used: " in said and len(loop.answers) == 2


def test_an_answer_of_no_tokens(model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    loop = talk(model, "One.", "Two.", max_tokens=0)
    said = capsys.readouterr().err
    assert [answer.ids for answer in loop.answers] == [[], []] and said.count("(0 tokens, ") == 2
    assert "stopped" not in said


def test_regen_takes_another_seed_and_refuses_what_would_be_equal(
    model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    loop = talk(model, "Tell me about a king.", "/regen", "/regen", max_tokens=12, temp=1.0)
    assert len({answer.text for answer in loop.answers}) == 3
    loop = talk(model, "Tell me about a king.", "/regen")
    assert len(loop.answers) == 1 and "the answer would be the same" in capsys.readouterr().err


@pytest.mark.parametrize("at", [1, 4], ids=["prompt", "answer"])
def test_ctrl_c_stops_the_answer_and_not_the_program(
    at: int, model: Model, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model.reset()
    evaluate, calls = model.eval_last, [0]

    def interrupted(tokens: Any, wanted: int) -> Any:
        calls[0] += 1
        if calls[0] == at:
            signal.raise_signal(signal.SIGINT)
        return evaluate(tokens, wanted)

    monkeypatch.setattr(model, "eval_last", interrupted)
    handler = signal.getsignal(signal.SIGINT)
    loop = talk(model, "Tell me about a king.", KeyboardInterrupt(), "And then?", max_tokens=8)
    assert signal.getsignal(signal.SIGINT) is handler
    said = capsys.readouterr().err
    assert "Ctrl-D or /exit ends the chat" in said
    if at == 1:
        assert "stopped before the answer began" in said and len(loop.answers) == 1
        assert [turn["content"] for turn in loop.conversation.turns][:1] == ["And then?"]
    else:
        assert "stopped by Ctrl-C" in said and [len(answer.ids) for answer in loop.answers] == [4, 8]
        assert len(loop.conversation.turns) == 4


def test_a_full_context_is_told_and_the_conversation_goes_on(
    demo_gguf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Model(demo_gguf, threads=1, context=100) as small:
        loop = talk(small, *["Tell me about a king."] * 6, "word " * 120, "And then?", max_tokens=12)
    said = " ".join(capsys.readouterr().err.split())
    assert "the context of 100 tokens is full: the oldest" in said and "dropped)" in said
    assert "not sent: the question has" in said and len(loop.answers) == 7
    assert all(answer.prompt_tokens <= 100 for answer in loop.answers)


def test_commands_through_a_pipe(demo_gguf: Path, tmp_path: Path) -> None:
    saved = tmp_path / "c.json"
    feed = f"Tell me.\n/usr/bin is what?\n/save {saved}\n/frob\n/exit\nnot reached\n"
    result = program("chat", demo_gguf, "-n", "4", stdin=feed)
    assert result.returncode == 0 and len(json.loads(saved.read_text())) == 4
    assert result.stderr.splitlines()[-1] == "there is no command /frob: /help lists them"


def test_words_stay_whole_and_code_stays_as_it_is() -> None:
    shown: list[str] = []
    wrap = WordWrap(shown.append, 10)
    for piece in ("one two th", "ree four\n", "```\na = 1  # long line\n```\n", "ten chars! x 漢字漢字漢字 \x1b[2J"):
        wrap.feed(piece)
    wrap.finish()
    text = "one two \nthree four\n```\na = 1  # long line\n```\nten chars!\nx \n漢字漢字漢\n字 \\x1b[2J"
    assert "".join(shown) == text
    assert max(map(len, text.splitlines()[:2])) <= 10


def test_lines_of_earlier_chats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert history_path() == tmp_path / "tritpack" / "chat_history"
    monkeypatch.setenv("XDG_STATE_HOME", "~nosuchuser/state")
    assert history_path() is None


def test_a_line_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tritpack.converter.cli.line_reader.LONGEST_LINE", 1000)
    with open("/dev/zero") as endless, pytest.raises(Unreadable, match="standard input: has a line of more than"):
        monkeypatch.setattr("sys.stdin", endless)
        LineReader().read()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no terminals of this kind on Windows")
def test_on_a_terminal(demo_gguf: Path, tmp_path: Path) -> None:
    import pty

    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "XDG_STATE_HOME": str(tmp_path), "COLUMNS": "60"}
    command = [sys.executable, "-m", "tritpack", "chat", str(demo_gguf), "-n", "5", "--temp", "0"]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdin=theirs, stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    seen = b""

    def wait_for(words: bytes, count: int = 1) -> None:
        nonlocal seen
        end = time.monotonic() + 100  # a busy machine
        while seen.count(words) < count:
            assert time.monotonic() < end and select.select([ours], [], [], 100)[0], (words, seen)
            seen += os.read(ours, 4096)

    try:
        wait_for(b"> ")
        assert b"context of 1024 tokens" in seen and b"Ctrl-D or /exit leaves" in seen
        os.write(ours, b"\x1b[200~Tell me\nof a king\x1b[201~\n")  # pasted
        wait_for(b"cut at --max-tokens")
        wait_for(b"> ", 2)  # the next prompt
        while b"ends the chat" not in seen:  # Python's readline can miss a signal just before it waits
            process.send_signal(signal.SIGINT)
            while b"ends the chat" not in seen and select.select([ours], [], [], 2)[0]:
                seen += os.read(ours, 4096)
        os.write(ours, b"/exit\n")
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    lines = history_path_in(tmp_path).read_text().splitlines()
    assert [json.loads(line) for line in lines] == ["Tell me\nof a king", "/exit"]


def history_path_in(folder: Path) -> Path:
    return folder / "tritpack" / "chat_history"
