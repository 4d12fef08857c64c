"""Who may call the server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.make.server import Running, serving
from tests.runtime.serve.test_http import CHAT, COMPLETIONS, GOOD, MESSAGES


def test_keys(demo_gguf: Path) -> None:
    with serving(demo_gguf, api_keys=("first", "zweiter Schlüssel", "voilà"), loopback=False) as running:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "first"}, {"x_api_key": "firs"}):
            for path in (CHAT, MESSAGES, "/v1/models", "/props", "/metrics", "/nothing"):
                answer = running.ask(path, GOOD.get(path), **headers)
                assert answer.status == 401 and answer.headers["www-authenticate"] == "Bearer", (path, headers)
                kind = answer.json["error"]["type"]
                assert kind == "authentication_error", (path, headers)
        assert running.ask("/health").status == 200
        second, third = (key.encode().decode("latin-1") for key in ("zweiter Schlüssel", "voilà"))
        for headers in (
            {"Authorization": "Bearer first"},
            {"x_api_key": "first"},
            {"Authorization": f"bearer {second}"},
            {"Authorization": f"Bearer  {third}"},
        ):
            assert running.ask(CHAT, GOOD[CHAT], Host="other.example", **headers).status == 200, headers


def test_nobody_gets_more_turns_by_another_header(demo_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tritpack.runtime.scheduler import Scheduler

    clients = []
    submit = Scheduler.submit
    monkeypatch.setattr(Scheduler, "submit", lambda *a, client: clients.append(client) or submit(*a, client=client))
    for keys, different in (((), 1), (("first", "second"), 2)):
        with serving(demo_gguf, api_keys=keys) as running:
            for headers in (
                {"Authorization": "Bearer first", "x_api_key": "a"},
                {"x_api_key": "first"},
                {"x_api_key": "first", "Authorization": "Basic b"},
                {"x_api_key": "second"},
            ):
                assert running.ask(COMPLETIONS, GOOD[COMPLETIONS], **headers).status == 200, headers
        assert len(clients) == 4 and len(set(clients)) == different, (keys, clients)
        clients.clear()


def test_foreign_pages_and_names_are_refused(demo: Running) -> None:
    for name in ("localhost", "127.0.0.1:80", "127.0.0.2:80", "[::1]:8080", "LOCALHOST:1"):
        assert demo.ask("/health", Host=name).status == 200, name
    for name in ("evil.example", "127.0.0.1.evil.example", "", "[", "localhost.evil.example:80"):
        answer = demo.ask("/health", Host=name)
        assert answer.status in (400, 403), name
    own = f"127.0.0.1:{demo.address[1]}"
    assert demo.ask(CHAT, GOOD[CHAT], Origin=f"http://{own}").status == 200
    for origin in ("https://evil.example", "null", f"http://localhost:{demo.address[1]}"):
        answer = demo.ask(CHAT, GOOD[CHAT], Origin=origin)
        assert answer.status == 403 and answer.json["error"]["code"] == "foreign_origin", origin
        assert "access-control-allow-origin" not in answer.headers, origin


def test_named_pages_may_call(demo_gguf: Path) -> None:
    page = "https://page.example"
    with serving(demo_gguf, cors=(page,), api_keys=("key",)) as running:
        asked = {
            "Origin": page,
            "Access_Control_Request_Method": "POST",
            "Access_Control_Request_Headers": "authorization",
        }
        preflight = running.ask(CHAT, method="OPTIONS", **asked)
        assert preflight.status == 200 and preflight.headers["access-control-allow-origin"] == page
        refused = running.ask(CHAT, GOOD[CHAT], Origin=page)  # the page can read why
        assert refused.status == 401 and refused.headers["access-control-allow-origin"] == page
        other = running.ask(CHAT, method="OPTIONS", **{**asked, "Origin": "https://evil.example"})
        assert other.status == 400 and "access-control-allow-origin" not in other.headers


def test_the_log_holds_no_text_unless_asked(demo_gguf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret = {"prompt": "a secret\x1b[2J", "max_tokens": 1}
    for logged in (False, True):
        with serving(demo_gguf, log_requests=logged) as running:
            running.ask(COMPLETIONS, secret)
        log = capsys.readouterr().err
        assert "POST /v1/completions" in log, logged
        assert ("a secret" in log) == logged and "\x1b" not in log, logged
