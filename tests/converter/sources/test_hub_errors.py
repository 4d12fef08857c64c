"""How long a Hub that fails is asked again."""

from __future__ import annotations

import pytest

from tritpack.converter.sources import hub_errors


class Clock:
    """A time that goes on by itself only when somebody sleeps or asks the Hub."""

    def __init__(self, answer_takes: float) -> None:
        self.now = 0.0
        self.answer_takes = answer_takes
        self.asked = 0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def ask(self) -> None:
        self.asked += 1
        self.now += self.answer_takes
        raise ConnectionError("reset")


@pytest.mark.parametrize(("answer_takes", "asked"), [(0.1, 6), (8.0, 3), (60.0, 1)])
def test_a_slow_and_failing_hub_is_not_asked_for_ever(
    answer_takes: float, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_errors, "time", clock := Clock(answer_takes))
    with pytest.raises(ConnectionError):
        hub_errors.persist(clock.ask)
    assert clock.asked == asked


def test_the_token_is_never_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client quotes the header that it refuses to send."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    error = hub_errors.explain(ValueError("Illegal header value b'Bearer hf_secret'"), "org/name", "main")
    assert "secret" not in str(error) and "Bearer ***" in str(error)
