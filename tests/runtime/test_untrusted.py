"""runtime/untrusted.py: a file's tokenizer and template cannot hang, abort or fill the memory of the user's process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tritpack.formats.errors import MissingRequirement, Unreadable, UsageError
from tritpack.runtime import untrusted
from tritpack.runtime.bounded_tokenizer import BoundedTokenizer
from tritpack.runtime.untrusted import WORKER, Stopped, render

pytest.importorskip("tokenizers")
pytest.importorskip("jinja2")
CHAT = [{"role": "user", "content": "Hi"}]
NESTED = {"type": "Split", "pattern": {"Regex": "((a+)+)+$"}, "behavior": "Isolated", "invert": False}
SLOW_TEXT = ("a" * 12 + "c") * 2000  # each run takes 4096 ways, which is below the library's limit for one match
TENFOLD = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process with half a second of CPU time and 400 MiB."""
    WORKER.close()
    monkeypatch.setattr(untrusted, "SECONDS", 0.5)
    monkeypatch.setattr(untrusted, "MEMORY", 400 << 20)
    monkeypatch.setattr(untrusted, "_stopped_templates", {})
    yield
    WORKER.close()


def bytewise(**parts: Any) -> str:
    """The tokenizer.json of a vocabulary of `a`, `b` and a blank."""
    model = {"type": "BPE", "vocab": {"a": 0, "b": 1, " ": 2}, "merges": []}
    return json.dumps({"version": "1.0", "added_tokens": [], "model": model, **parts})


def rendered(template: str) -> str:
    return render(template, {"messages": CHAT}, characters=2)


ENDLESS = {
    "nested loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "squares": "{% set n=namespace(n=3) %}{% for i in range(60) %}{% set n.n=n.n*n.n %}{% endfor %}{{ n.n }}",
    "recursive macro": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(40) }}",
    "sorting": "{% for i in range(99999) %}{% set x = range(99999)|sort|list|length %}{% endfor %}",
    "urlize": "{% for i in range(9999) %}{% set x = ('<' * 900000)|urlize %}{% endfor %}",
}
GREEDY = {
    "doubling": "{% set n=namespace(s='a'*1000) %}{% for i in range(60) %}{% set n.s=n.s~n.s %}{% endfor %}",
    "center": "{% set x = 'a'|center(4000000000) %}",
    "join": "{% set x = (['a'*900000]*9000)|join %}",
}
LONG_TEXTS = {
    "replace": "{{ 'abcdefgh'|replace('','x'*900000) }}",
    "list": "{{ [messages]*900000 }}",
    "lipsum": "{{ lipsum(n=4000) }}",
    "loop": "{% for i in range(99999) %}{{ 'some words, and some more' }}{% endfor %}",
    "indent": "{{ [[1]]|tojson(indent=900000) }}",
}


@pytest.mark.parametrize("template", ENDLESS.values(), ids=ENDLESS.keys())
def test_a_template_that_does_not_end(template: str, impatient: None) -> None:
    with pytest.raises(Unreadable, match=r"the chat template does not end: it was stopped after 0\.5") as caught:
        rendered(template)
    assert caught.value.exit_code == 3
    starts = WORKER.start()
    with pytest.raises(Stopped, match="does not end"):
        rendered(template)
    assert WORKER.start() == starts, "it was tried again"
    assert rendered("{{ messages[0].content }}") == "Hi"


@pytest.mark.parametrize("template", GREEDY.values(), ids=GREEDY.keys())
def test_a_template_that_takes_all_memory(template: str, impatient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untrusted, "SECONDS", 60.0)  # a busy machine fills memory slowly
    with pytest.raises(Unreadable, match="the chat template takes more than 400 MiB of memory"):
        rendered(template)


@pytest.mark.parametrize("template", LONG_TEXTS.values(), ids=LONG_TEXTS.keys())
def test_a_template_that_gives_a_long_text(template: str) -> None:
    with pytest.raises(Unreadable, match="the chat template gives more than 1000020 characters"):
        rendered(template)


def test_a_long_chat_is_no_long_text() -> None:
    messages = [{"role": "user", "content": "word " * 500_000}]
    assert len(render("{{ messages[0].content }}", {"messages": messages}, characters=2_500_000)) == 2_500_000


@pytest.mark.parametrize(
    ("parts", "text", "words"),
    [
        ({"pre_tokenizer": NESTED}, SLOW_TEXT, "does not end"),
        ({"normalizer": {"type": "Sequence", "normalizers": [TENFOLD] * 12}}, "a", "memory|does not end"),
        ({"normalizer": {"type": "Prepend", "prepend": "a" * 100_000}}, "b", "makes 100001 tokens of 1 characters"),
        ({"normalizer": {**TENFOLD, "pattern": {"Regex": ""}, "content": "a" * 1000}}, "b" * 99, "tokens of 99"),
    ],
    ids=["slow regex", "growth", "prefix", "empty pattern"],
)
def test_a_tokenizer_beyond_its_limits(parts: dict[str, Any], text: str, words: str, impatient: None) -> None:
    tokenizer = BoundedTokenizer(bytewise(**parts))
    with pytest.raises(Unreadable, match=words) as caught:
        tokenizer.encode(text)
    assert "\n" not in caught.value.message
    assert BoundedTokenizer(bytewise()).encode("ab a").ids == [0, 1, 2, 0]


def test_a_panic_is_one_sentence() -> None:
    with pytest.raises(Unreadable, match=r"cannot process this text: .*retry-limit"):
        BoundedTokenizer(bytewise(pre_tokenizer=NESTED)).encode("a" * 60 + "c")


def test_a_decoder_that_grows(impatient: None) -> None:
    decoder = {"type": "Sequence", "decoders": [{"type": "Fuse"}, *[TENFOLD] * 12]}
    with pytest.raises(Unreadable, match=r"memory|does not end"):
        BoundedTokenizer(bytewise(decoder=decoder)).decode([0])


def test_another_tokenizer_survives_the_end_of_the_process(impatient: None) -> None:
    good, bad = BoundedTokenizer(bytewise()), BoundedTokenizer(bytewise(pre_tokenizer=NESTED))
    good.add_tokens([{"content": "aa"}])
    with pytest.raises(Stopped):
        bad.encode(SLOW_TEXT)
    assert good.encode("aab").ids == [3, 1]
    with pytest.raises(Stopped):
        bad.encode("b")


def test_a_process_that_is_killed_is_one_sentence() -> None:
    tokenizer = BoundedTokenizer(bytewise())
    assert WORKER._process is not None
    os.kill(WORKER._process.pid, signal.SIGKILL)
    with pytest.raises(Unreadable, match=r"the tokenizer ends the process in which it runs \(SIGKILL\)"):
        tokenizer.encode("a")


def test_one_process_serves_many_threads() -> None:
    tokenizer = BoundedTokenizer(bytewise())
    starts, wrong = WORKER.start(), []

    def work(count: int) -> None:
        for _ in range(20):
            if tokenizer.encode("a" * count).ids != [0] * count:
                wrong.append(count)

    threads = [threading.Thread(target=work, args=(count,)) for count in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and WORKER.start() == starts


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_starts_its_own() -> None:
    tokenizer, starts = BoundedTokenizer(bytewise()), WORKER.start()
    child = os.fork()
    if child == 0:
        os._exit(0 if tokenizer.encode("ba").ids == [1, 0] and WORKER.starts == starts + 1 else 1)
    assert tokenizer.encode("ab").ids == [0, 1]
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert tokenizer.encode("b").ids == [1]


def test_an_interrupted_request_does_not_answer_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = BoundedTokenizer(bytewise())

    def interrupted(*arguments: object) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(untrusted, "_read", interrupted)
        tokenizer.encode("a")
    assert tokenizer.encode("b").ids == [1]


def test_time_is_limited_without_a_timer_of_the_system(monkeypatch: pytest.MonkeyPatch, impatient: None) -> None:
    real = signal.setitimer
    monkeypatch.delattr(signal, "setitimer")
    template = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    monkeypatch.setattr(untrusted, "SECONDS_PER_REQUEST", -0.5)
    begin = time.monotonic()
    with pytest.raises(Stopped, match="does not end"):
        rendered(template)
    assert real is not None and time.monotonic() - begin < 60


def test_nothing_is_left_running(tmp_path: Path) -> None:
    code = "from tritpack.runtime.untrusted import WORKER\nWORKER.start()\nprint(WORKER._process.pid)"
    shown = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    with pytest.raises(ProcessLookupError):
        os.kill(int(shown.stdout), 0)


@pytest.mark.parametrize("name", ["jinja2", "tokenizers"])
def test_a_missing_library_is_said(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"{name}.py").write_text("raise ImportError\n")
    monkeypatch.syspath_prepend(tmp_path)
    WORKER.close()
    with pytest.raises(MissingRequirement) as caught:
        rendered("x") if name == "jinja2" else BoundedTokenizer(bytewise())
    assert caught.value.hint == f"pip install {name}"
    WORKER.close()


def test_a_process_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    WORKER.close()
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(MissingRequirement, match="cannot be started"):
        rendered("x")


def test_text_that_is_no_unicode() -> None:
    with pytest.raises(UsageError, match=r"the text is not valid Unicode: its character 2 is U\+DCE8"):
        BoundedTokenizer(bytewise()).encode("a\udce8")


def test_an_error_names_the_file_of_the_tokenizer(impatient: None) -> None:
    unknown = json.dumps({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [], "unk_token": "<x>"}})
    for document, text in ((unknown, "b"), (bytewise(pre_tokenizer=NESTED), SLOW_TEXT)):
        tokenizer = BoundedTokenizer(document, "some/tokenizer.json")
        for _ in range(2):
            with pytest.raises(Unreadable) as caught:
                tokenizer.encode(text)
            assert caught.value.path == "some/tokenizer.json", text[:9]
